"""What a wrong prior, a wrong score and a large variance cost a sampler, exactly; and what a budget counts."""

import numpy as np
import pytest

from refscore import ExactScore, GaussianMixture
from refscore.laws.affine_chain import Gaussian, probe, wasserstein
from refscore.laws.examples import mixture
from refscore.likelihood.flow import ErrorSplit, FixedSteps
from refscore.measure import work_precision
from refscore.noise.sde import SDES
from refscore.sampling.transitions import SAMPLERS

# ------------------------------------------------------------------ what the prior costs


@pytest.mark.parametrize("name", ["vp", *(pytest.param(n, marks=pytest.mark.slow) for n in ("subvp", "cosine"))])
def test_the_flow_remembers_the_prior_and_the_reverse_sde_forgets_it(name):
    """Eq. (10.19): a wrong mean at t = 1 reaches the data times √(λ/S) by the flow, times α λ/S by the SDE."""
    sde = SDES[name]
    alpha, sigma = sde.alpha(1.0), sde.sigma(1.0)
    lam = np.array([0.5, 2.0])
    target = GaussianMixture(np.ones(1), np.zeros((1, 2)), lam[None, :])
    score, S = ExactScore(target, sde), alpha**2 * lam + sigma**2
    flow, sde_ = (
        probe(lambda x, rng, n=n: work_precision.sample(score, sde, n, 400, x, rng), np.zeros(2)).matrix
        for n in ("dpm-solver++2m", "ddim-eta1")
    )
    assert np.diag(flow) == pytest.approx(np.sqrt(lam / S), rel=1e-3)  # 400 steps of order 2
    assert np.diag(sde_) == pytest.approx(alpha * lam / S, rel=0.1)  # and of order 1
    assert np.all(np.diag(sde_) < 0.02 * np.diag(flow))


def test_a_wrong_score_hurts_the_flow_more_than_the_reverse_sde():
    """Eq. (10.20): the predicted noise off by δ in every coordinate: √λ asinh(ς/√λ) δ, and 2 √λ atan(ς/√λ) δ."""
    sde, lam, delta = SDES["vp"], np.array([0.5, 2.0]), 0.02
    target = GaussianMixture(np.ones(1), np.zeros((1, 2)), lam[None, :])
    exact, top = ExactScore(target, sde), sde.sigma(1.0) / sde.alpha(1.0)

    def biased(x, t):
        return exact(x, t) - delta / sde.sigma(t)[..., None]

    for name, wanted in (
        ("dpm-solver++2m", np.sqrt(lam) * np.arcsinh(top / np.sqrt(lam))),
        ("sde-dpm-solver++2m", 2 * np.sqrt(lam) * np.arctan(top / np.sqrt(lam))),
    ):
        shift = probe(lambda x, rng, n=name: work_precision.sample(biased, sde, n, 300, x, rng), np.zeros(2)).shift
        assert np.abs(shift) == pytest.approx(delta * wanted, rel=3e-3)  # 300 steps of order 2


@pytest.mark.parametrize(("variance", "small", "large"), [(1.0, 0.0659, 2.8e-6), (0.01, 0.0090, 0.0081)])
def test_the_large_variance_gains_on_wide_data_and_little_on_thin(variance, small, large):
    """The text at Eq. (10.4), 128 evaluations; of the large one on N(0, I) only the end is left."""
    sde, cov = SDES["vp"], variance * np.eye(2)
    score = ExactScore(GaussianMixture(np.ones(1), np.zeros((1, 2)), cov[None, ...]), sde)
    start = Gaussian(np.zeros(2), sde.alpha(1.0) ** 2 * cov + sde.sigma(1.0) ** 2 * np.eye(2))
    for name, wanted in (("ancestral", small), ("ancestral-large", large)):
        made = probe(lambda x, rng, n=name: work_precision.sample(score, sde, n, 127, x, rng), np.zeros(2))
        assert wasserstein(made.law(start), Gaussian(np.zeros(2), cov)) == pytest.approx(wanted, rel=0.02)


# ------------------------------------------------------------------ budgets


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_budget_counts_every_evaluation_of_the_run(name):
    asked = []

    def score(x, t):
        asked.append(t)
        return -x

    for steps in (1, 5):
        asked.clear()
        work_precision.sample(score, SDES["vp"], name, steps, np.zeros((1, 2)), np.random.default_rng(0))
        assert len(asked) == steps * work_precision.evaluations_per_step(name) + 1
    stages = {"midpoint": 2, "heun": 2, "edm": 2, "edm-churn": 2, "rk4": 4}
    assert work_precision.evaluations_per_step(name) == stages.get(name, 1)


def test_the_likelihood_is_split_at_points_of_the_law_for_fifty_steps_against_two_hundred(monkeypatch):
    """Each cause is the root of its mean square over the points."""
    p, sde, told = mixture("tilted"), SDES["vp"], {}

    def split(score, exact, sde, x, **options):
        told.update(options, x=x)
        return ErrorSplit(*(k * x[:, 0] / abs(x[:, 0]) for k in range(1, len(ErrorSplit._fields) + 1)))

    monkeypatch.setattr(work_precision, "error_split", split)
    found = work_precision.likelihood_split(ExactScore(p, sde), p, sde, 3)
    assert found == {cause: pytest.approx(k, rel=1e-12) for k, cause in enumerate(ErrorSplit._fields, 1)}
    assert (told["solve"], told["fine"]) == (FixedSteps(sde, 50), FixedSteps(sde, 200))
    assert np.array_equal(told["x"], p.sample(np.random.default_rng([3, 4]), work_precision.POINTS))
    assert set(np.unique(told["probes"])) == {-1.0, 1.0}
    assert told["probes"].shape == (1, *told["x"].shape)
