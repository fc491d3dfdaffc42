"""The clinic says what a likelihood computes."""

from itertools import pairwise

import numpy as np
import pytest

from refscore import VP, log_likelihood
from refscore.clinic.likelihood import likelihood
from refscore.likelihood.flow import FixedSteps
from refscore.matching.probes import rademacher
from refscore.noise.exact_score import ExactScore
from tests.oracles.planted import TWO as P


def test_ours_is_right_with_probes_and_without():
    rng, solve, score = np.random.default_rng(0), FixedSteps(VP(), 20), ExactScore(P, VP())

    def ours(model, x):
        return log_likelihood(score, VP(), x, solve=solve).value

    def with_probes(model, x):
        probes = rademacher(rng, (16, *x.shape), x.dtype)
        return log_likelihood(score, VP(), x, solve=solve, probes=probes).value

    likelihood(ours, P, VP()).assert_is()
    found = likelihood(with_probes, P, VP())
    found.assert_is()
    assert found.numbers["noise"] > 0.01


@pytest.mark.parametrize(("offset", "name"), [
    (2 * 7 * np.log(2), "offset-of-7-bits"), (-2 * 8 * np.log(2), "offset-of-8-bits"),
    (2 * np.log(127.5), "log-of-127.5-a-dimension"), (-2 * np.log(2), "log-of-2-a-dimension"),
    (np.log(2 * np.pi), "prior-constant-missing"), (0.77, "constant-offset"),
])  # fmt: skip
def test_offsets_are_told_apart(offset, name):
    found = likelihood(lambda model, x: P.log_prob(x) + offset, P, VP())
    assert (found.verdict, found.causes[0].name) == ("wrong", name)


def test_a_bound_lies_below():
    found = likelihood(lambda model, x: P.log_prob(x) - 0.3 - 3 * np.abs(np.sin(9 * x[:, 0])), P, VP())
    assert "as a bound (ELBO) does" in str(found)


@pytest.mark.parametrize(("patient", "name"), [
    (lambda model, x: P.log_prob(x)[:, None], "wrong-shape"), (lambda model, x: np.log(-np.ones(len(x))), "not-finite"),
    (lambda model, x: model.log_prob(x), "raises"),
])  # fmt: skip
def test_a_patient_that_cannot_be_asked_is_a_diagnosis(patient, name):
    with np.errstate(invalid="ignore"):
        found = likelihood(patient, P, VP())
    assert (found.verdict, found.causes[0].name) == ("wrong", name)


def test_other_units_are_refused():
    with pytest.raises(ValueError, match="nats"):
        likelihood(lambda model, x: 0.0, P, VP(), units="dits")


def test_a_likelihood_of_torch_by_autograd():
    torch = pytest.importorskip("torch")

    def mine(model, x):
        logdet, times = 0.0, torch.linspace(1e-3, 1, 60, dtype=x.dtype)
        for s, t in pairwise(times):
            m = (s + t) / 2
            y = x.detach().requires_grad_(True)
            drift = -0.5 * (0.1 + 19.9 * m) * (y + model(y, m.expand(len(y))))
            rows = [torch.autograd.grad(drift[:, i].sum(), y, retain_graph=True)[0][:, i] for i in range(2)]
            x, logdet = x + (t - s) * drift.detach(), logdet + (t - s) * sum(rows)
        return -0.5 * (x**2).sum(1) - np.log(2 * np.pi) + logdet

    found = likelihood(mine, P, VP(), predicts="score", like=torch.zeros(1, dtype=torch.float64))
    assert found.numbers["error"] < 0.3
    assert found.verdict != "wrong"
