"""The clinic says of a function whether it is the score, and what it is otherwise."""

import numpy as np
import pytest

from refscore import VP, ExactScore
from refscore.clinic.exact import TimeConvention, network
from refscore.clinic.score import score
from refscore.noise.chains import ddpm
from refscore.noise.parametrisation import PARAMETRISATIONS
from tests.oracles.planted import THREE as P

EXACT = ExactScore(P, VP())


@pytest.mark.parametrize(("predicts", "told"), [
    *((predicts, "time") for predicts in (*PARAMETRISATIONS, "denoiser", "velocity-to-data")),
    *(("noise", told) for told in ("999-time", "1000-time", "time-from-noise", "sigma", "log-sigma-4", "log-snr")),
])  # fmt: skip
def test_the_exact_model_is_right_in_every_convention_and_in_single_precision(predicts, told):
    exact = network(TimeConvention(VP(), predicts, told), P, np.zeros(1, "float32"))
    for like in (None, np.zeros(1, "float32")):
        score(exact, P, VP(), predicts=predicts, told=told, like=like).assert_is(predicts)


@pytest.mark.parametrize(("told", "index"), [
    ("index", lambda i: i), ("index-from-1", lambda i: i - 1), ("index-of-sigmas", lambda i: 999 - i),
])  # fmt: skip
def test_indices_are_what_they_are_called(told, index):
    chain = ddpm(1000)
    score(lambda x, i: ExactScore(P, chain)(x, (index(i) + 1) / 1000), P, chain, told=told).assert_is()


@pytest.mark.parametrize(("patient", "name"), [
    (lambda x, t: 2 * EXACT(x, t), "constant-factor"), (lambda x, t: EXACT(x, t**2), "time-squared"),
    (lambda x, t: EXACT(x, np.sqrt(t)), "root-of-time"), (lambda x, t: EXACT(x, 0.8 * t), "another-time"),
    (lambda x, t: EXACT(x, t) / VP().sigma(t)[:, None], "divided-by-sigma-again"),
    (lambda x, t: EXACT(x, t)[0], "wrong-shape"), (lambda x, t: EXACT(x, t) * np.nan, "not-finite"),
    (lambda x, t: x / 0 + undefined, "raises"),  # noqa: F821
])  # fmt: skip
def test_what_it_is_instead_is_said(patient, name):
    with np.errstate(divide="ignore"):
        found = score(patient, P, VP())
    assert found.verdict == "wrong"
    assert found.causes[0].name == name


def test_where_and_at_which_level_it_errs_is_measured():
    found = score(lambda x, t: EXACT(x, t) * (1 + 0.1 * (t < 0.1))[:, None], P, VP())
    off = np.asarray(found.numbers["error_by_level"]) > 1e-9
    assert (off == (np.asarray(found.numbers["times"]) < 0.1)).all()
    assert found.numbers["far"] > found.numbers["near"]


def test_a_network_is_neither_right_nor_wrong():
    wobble = lambda x, t: EXACT(x, t) * (1 + 0.05 * np.sin(3 * x[:, ::-1]))  # noqa: E731
    assert score(wobble, P, VP()).verdict == "unknown"


@pytest.mark.parametrize("wrong", [{"predicts": "epsilon"}, {"told": "level"}, {"told": "index"}])
def test_a_convention_that_is_none_is_refused(wrong):
    with pytest.raises(ValueError, match=r"must be one of|needs a chain"):
        score(EXACT, P, VP(), **wrong)
