"""Chapter 5: the three failures of vanilla score matching are theorems before they are experiments."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.special import i0e, i1e
from scipy.stats import norm

from refscore import MLP, VE, AnnealedLangevin, Denoising, GaussianMixture, Implicit, ScoreModel, Sliced, simulate
from refscore.experiments import failures
from refscore.experiments.failures import (
    LEVELS,
    SDE_TOY,
    TOY_LEVELS,
    Circle,
    diagonal_of_box,
    low_density,
    manifold_curve,
    manifold_floor,
    ring_fisher_information,
    thick_circle,
    weights,
    weights_law,
)
from refscore.laws.examples import mixture
from refscore.laws.grid_chain import grid_law, langevin_law
from refscore.matching.probes import gaussian
from refscore.matching.times import Levels
from refscore.measure.distance import fisher_divergence
from refscore.nn import Dense, Net, Softplus
from refscore.noise.exact_score import ExactScore
from refscore.noise.grids import geometric_levels, level_times
from refscore.sampling.langevin import LevelStep
from refscore_backends import get
from tests.oracles.backends import LAW_BACKENDS
from tests.oracles.close import assert_close
from tests.oracles.statistics import assert_mean, assert_within
from tests.oracles.strategies import seeds

# ------------------------------------------------------------------ manifolds


@given(d=st.integers(1, 3), codim=st.integers(1, 3), v=st.floats(0.2, 2.0), delta=st.floats(0.01, 1.0))
def test_on_a_subspace_the_score_grows_as_one_over_the_thickness(d, codim, v, delta):
    """Eq. (5.1): E‖s‖² = d/(v + δ²) + (D - d)/δ², which for one Gaussian is -div s at any point."""
    D = d + codim
    variances = np.array([v] * d + [0.0] * codim)
    flat = GaussianMixture(np.ones(1), np.zeros((1, D)), variances[None, :])
    x = np.random.default_rng(0).standard_normal((3, D))
    wanted = d / (v + delta**2) + codim / delta**2
    assert_close(-flat.divergence(x, 1.0, delta), wanted, 1e-12 * wanted)
    with pytest.raises(ValueError, match="density does not exist"):
        flat.score(x)


@pytest.mark.parametrize(("delta", "tolerance"), [(0.5, 1e-4), (0.2, 1e-6), (0.05, 1e-6)])
def test_the_noisy_circle_has_its_bessel_form(delta, tolerance):
    """p ∝ exp(-(r² + 1)/2δ²) I₀(r/δ²): nothing of the mixture that the library uses."""
    r = np.linspace(max(1e-9, 1 - 9 * delta), 1 + 9 * delta, 4001)
    p = i0e(r / delta**2) * np.exp(-((r - 1) ** 2) / (2 * delta**2)) * r
    s = (i1e(r / delta**2) / i0e(r / delta**2) - r) / delta**2
    exact = float(p @ s**2 / p.sum())
    assert ring_fisher_information(delta) == pytest.approx(exact, rel=tolerance)  # at 0.5 the rule ends where p > 0
    near = slice(0, 2401, 200)  # to r = 1 + 2 δ or so: further out fewer components are in sight
    gap = thick_circle(delta).score(np.stack([r[near], 0 * r[near]], axis=1))[:, 0] - s[near]
    assert_close(gap, 0, 1e-6 / delta, "components half a thickness apart")


def test_the_circles_score_blows_up_in_the_one_direction_across():
    """Eq. (5.1) on a curve: δ² E‖s‖² -> D - d = 1, and the floor of the loss -½ E‖s‖² -> -∞."""
    gaps = [1 - delta**2 * ring_fisher_information(delta) for delta in (0.1, 0.05, 0.025)]
    assert_close(np.array(gaps[:-1]) / gaps[1:], 4, 0.2, "curvature adds a term of order δ²")
    assert manifold_floor(0.01) < -4999


@given(k=st.floats(0.1, 1e6), B=st.integers(1, 5), codim=st.integers(1, 3), seed=seeds)
def test_on_a_manifold_the_objective_has_no_minimum(k, B, codim, seed):
    """Eq. (5.2): s = -k P⊥ x costs -k (D - d) on data that lie in the subspace, for any k."""
    D = 2 + codim
    model = ScoreModel(Net((("d", Dense(D, D), ("x",)),)), VE(), predict="score")
    across = np.diag([0.0, 0.0] + [1.0] * codim)
    theta = np.concatenate([(-k * across).ravel(), np.zeros(D)])
    x = np.random.default_rng(seed).standard_normal((B, D)) @ (np.eye(D) - across)
    for objective in (Implicit(), Sliced()):  # ±1 probes: vᵀ P⊥ v = D - d, whatever v
        loss, _ = objective(model, theta, x, np.random.default_rng(seed))
        assert loss == pytest.approx(-k * codim, rel=1e-12)


def test_points_of_the_circle_lie_on_it():
    x = Circle().sample(np.random.default_rng(0), 1000)
    assert x.shape == (1000, 2)
    assert x.dtype == np.float32
    assert_close(np.sum(x.astype("float64") ** 2, axis=1), 1, 1e-6, "float32")


# ------------------------------------------------------------------ low density


@pytest.mark.parametrize("error", [0.1, 3.0])
@pytest.mark.parametrize("a", [1.0, 4.0])
def test_an_error_counts_as_the_probability_of_where_it_is(error, a):
    """Eq. (5.3): wrong by `error` where x > a: ½ P(x > a) error², next to nothing far out."""
    p = GaussianMixture(np.ones(1), np.zeros((1, 1)), np.ones(1))
    # The trapezoid rule must not see the jump: place it in the middle of a cell, and count the nodes beyond.
    wrong = lambda x: p.score(x) + error * (x > a)  # noqa: E731
    found = fisher_divergence(p, wrong).value
    spacing = 0.25
    assert abs(found - 0.5 * error**2 * norm.sf(a)) <= 0.5 * error**2 * spacing * norm.pdf(a - spacing)


# ------------------------------------------------------------------ weights


@given(w=st.floats(0.05, 0.95), gap=st.floats(0.5, 6.0), x=st.floats(-5, 5))
def test_the_score_knows_the_weights_only_where_modes_overlap(w, gap, x):
    """Eq. (5.4): ∂s/∂ log(w₁/w₂) = r₁ r₂ (g₁ - g₂)."""
    means = np.array([[gap / 2], [-gap / 2]])

    def mixture(log_odds):
        u = 1 / (1 + math.exp(-log_odds))
        return GaussianMixture(np.array([u, 1 - u]), means, np.ones(2))

    at, h, l = np.array([[x]]), 1e-3, math.log(w / (1 - w))
    near, far = (mixture(l + k).score(at) - mixture(l - k).score(at) for k in (h, 2 * h))
    slope = float((8 * near - far)[0, 0] / (12 * h))  # Richardson: h⁴ of truncation
    r = mixture(l).responsibilities(at)[0]
    assert abs(slope - r[0] * r[1] * gap) <= 1e-9 * (1 + gap)  # g₁ - g₂ = m₁ - m₂ for unit variances


def test_modes_without_overlap_have_the_same_score_at_any_weights():
    """Eq. (5.4) at ten standard deviations: beside either mode the weights move the score by less than 1e-15."""
    means = np.array([[5.0, 5.0], [-5.0, -5.0]])
    one, other = (GaussianMixture(np.array(w), means, np.ones(2)) for w in ([0.8, 0.2], [0.1, 0.9]))
    x = np.random.default_rng(0).standard_normal((200, 2))
    for m in means:
        assert_close(one.score(x + m), other.score(x + m), 1e-15)
    assert fisher_divergence(one, other.score).value <= 2e-10


def test_the_box_seen_along_its_diagonal_is_a_triangle():
    law = diagonal_of_box(20.0, 4000)
    assert abs(law.lost) <= 1e-14
    assert law.mean(lambda u: u) == pytest.approx(0, abs=1e-12)
    # (x₁ + x₂)²/2 has mean 8²/3; a cell adds h²/12 to what its centre says
    assert law.mean(lambda u: u**2) == pytest.approx(64 / 3, abs=2 * law.width**2 / 12)


def test_the_law_of_the_chain_says_which_weights_come_out():
    """Eq. (5.5): plain Langevin leaves the start's weights, annealed comes near the mixture's and not there."""
    plain, annealed = weights_law(moves=100)
    assert plain == pytest.approx(0.50894, abs=2e-5)
    assert annealed == pytest.approx(0.7823, abs=2e-4)


def annealed_weight(start, top, moves=100):
    """The upper weight after ten levels from `top` down to 1, by the law of the chain along the diagonal."""
    reach, levels = math.sqrt(50.0), geometric_levels(top, 1.0, 10)
    points = GaussianMixture(np.array([0.8, 0.2]), np.array([[reach], [-reach]]), np.zeros(2))
    times, step = level_times(SDE_TOY, levels)[:-1], LevelStep(SDE_TOY, 0.05, 1.0)
    return langevin_law(start, ExactScore(points, SDE_TOY), times, step, moves).mean(lambda u: u > 0)


@pytest.mark.parametrize(
    ("top", "moves", "weight"),
    [(2.0, 100, 0.549), (3.0, 100, 0.689), (5.0, 100, 0.788), (20.0, 1, 0.559), (20.0, 10, 0.678),
     pytest.param(20.0, 1000, 0.797, marks=pytest.mark.slow)],
)  # fmt: skip
def test_a_ladder_must_begin_where_the_modes_overlap_and_take_its_time(top, moves, weight):
    """Exercises 3 and 4."""
    assert annealed_weight(diagonal_of_box(120.0, 1400), top, moves) == pytest.approx(weight, abs=6e-4)


def test_an_annealed_chain_forgets_its_start():
    """Exercise 5: from the lower mode alone the same weight comes out as from the box, to 1e-6."""
    lower = grid_law(-120.0, 120.0, 1400, lambda u: 1.0 * (u > -math.sqrt(50.0)))
    assert annealed_weight(lower, 20.0) == pytest.approx(0.782295, abs=1e-6)


def test_the_box_is_divided_where_the_drift_changes_its_sign():
    """Exercise 9: at x₁ + x₂ = -0.1415, and 0.5088 of the box lie above."""
    p, u = mixture("two-modes"), brentq(lambda u: 10 * math.tanh(math.log(2) + 5 * u) - u, -1, 1)
    assert_close(p.score(np.full((1, 2), u / 2)).sum(), 0, 1e-12)
    assert u == pytest.approx(-0.14146, abs=1e-5)
    assert 0.5 - u / 16 - 0.5 * (u / 16) ** 2 == pytest.approx(0.5088, abs=5e-5)


def test_samples_of_both_chains_have_the_laws_weights():
    w = weights(seed=1, chains=4000, moves=10)
    for found, law in ((w.plain, w.plain_law), (w.annealed, w.annealed_law)):
        assert_within(found, law, w.error, bias=1e-3, n=4000)  # of the cells' width
    assert w.plain_samples.shape == w.annealed_samples.shape == (4000, 2)


def test_the_experiment_measures_what_it_says(monkeypatch):
    """Little training: the shapes, and that errors are relative (a score of zero has error 1)."""
    monkeypatch.setattr("refscore.experiments.failures.WALK", (0, 5, 20))
    shown = []
    r = low_density(60, 0, lambda step, words: shown.append(step), n=10, chains=20)
    assert shown == list(range(1, 121))
    assert r.deciles.shape == r.deciles_noised.shape == (10,)
    assert r.walk.shape == (3,)
    assert r.walk_annealed.shape == (12,)
    assert r.errors.shape == (10, 10)
    assert np.all(r.deciles > 0)
    assert 0 <= r.weight <= 1


@pytest.mark.parametrize("host", [b for b in LAW_BACKENDS if "numpy" not in b.name], ids=lambda b: b.name)
def test_every_back_end_measures_the_same(host, monkeypatch):
    """The noise is NumPy's on each; a few steps of training, before rounding in float32 grows."""
    monkeypatch.setattr("refscore.experiments.failures.WALK", (0, 5, 20))
    show = lambda step, words: None  # noqa: E731
    found, wanted = (
        (
            manifold_curve(0.1, 60, 0, show, there),
            *vars(low_density(60, 0, show, n=4, chains=5, backend=there)).values(),
            *vars(weights(1, chains=50, moves=2, backend=there)).values(),
        )
        for there in (host, get("numpy"))
    )
    for one, other in zip(found, wanted, strict=True):
        assert isinstance(one, (float, np.ndarray))
        assert_close(one, other, 1e-3 * np.max(np.abs(other)))


def test_the_annealed_chain_runs_on_two_points_with_noise():
    """Across the diagonal a component is one Gaussian: v -> (1 - e)^2n (v - c σ²) + c σ², e = ε/σ² = 0.05."""
    moves, e = 10, 0.05
    v, c = 64 / 3, 1 / (1 - e / 2)  # (x₁ - x₂)/√2 of a uniform point of the box
    for sigma in TOY_LEVELS:
        v = (1 - e) ** (2 * moves) * (v - c * sigma**2) + c * sigma**2
    w = weights(seed=2, chains=20_000, moves=moves)
    across = (w.annealed_samples[:, 0] - w.annealed_samples[:, 1]) / math.sqrt(2)
    assert_mean(across**2, v, sees=0.1 * v)  # a data variance of 1 would be 60 % off
    assert w.error == 0.5 / math.sqrt(20_000)


def test_the_low_density_experiment_is_the_papers(monkeypatch):
    """Which objectives and steps it runs, and each number again from the definitions, with networks nobody trained."""
    ran = []
    theta = lambda model: model.init(np.random.default_rng(5), "float32")  # noqa: E731

    def untrained(model, objective, data, steps, batch, *rest):
        ran.append((objective, steps, batch))
        return theta(model), np.zeros(60)

    def annealed(score, sde, **numbers):
        ran.append(numbers)
        return AnnealedLangevin(score, sde, **numbers)

    def walked(*args):
        ends.append([*simulate(*args)])
        return iter(ends[-1])

    ends = []
    monkeypatch.setattr(failures, "_train", untrained)
    monkeypatch.setattr(failures, "simulate", walked)
    monkeypatch.setattr(failures, "AnnealedLangevin", annealed)
    monkeypatch.setattr(failures, "WALK", (0, 40))
    r = low_density(700, 4, lambda step, words: None, n=8, chains=30)
    assert ran == [
        (Sliced(law=gaussian), 700, 128), (Denoising(times=Levels(LEVELS)), 700, 128),
        {"step": 0.1 * LEVELS[-1] ** 2, "last": LEVELS[-1], "moves": 100},
    ]  # fmt: skip

    p, sde = mixture("two-modes"), SDE_TOY
    vanilla = ScoreModel(MLP((2, 128, 128, 2), activation=Softplus()), sde, data_std=5.1, predict="score")
    cured = ScoreModel(MLP((2, 128, 128, 2), embed=16), sde, data_std=5.1)
    axis = np.linspace(-7, 7, 8)
    box = np.array([[a, b] for a in axis for b in axis])
    order = np.argsort(p.log_prob(box))

    def squares(model, x, t):
        truth = p.score(x, 1.0, sde.sigma(t))
        found = model.bind(theta(model))(x.astype("float32"), t)
        return np.sum((found - truth) ** 2, axis=1), np.sum(truth**2, axis=1)

    top = float(sde.time(LEVELS[0]))
    for model, t, tenths in ((vanilla, 0.0, r.deciles), (cured, top, r.deciles_noised)):
        off, size = squares(model, box, t)
        for found, part in zip(tenths, np.array_split(order, 10), strict=True):
            assert found == pytest.approx(off[part].sum() / size[part].sum(), rel=1e-4)  # float32 networks
    off, size = squares(vanilla, box, 0.0)
    assert_close(r.errors.ravel(), np.log10(off / size), 1e-3)
    start = np.random.default_rng([4, 1]).uniform(-8, 8, (30, 2))
    off, size = squares(vanilla, start, 0.0)
    assert r.walk[0] == pytest.approx(off.sum() / size.sum(), rel=1e-4)
    off, size = squares(vanilla, ends[0][-1], 0.0)
    assert r.walk[1] == pytest.approx(off.sum() / size.sum(), rel=1e-4)
    assert (r.weight, r.weight_annealed) == tuple(np.mean(each[-1].sum(axis=1) > 0) for each in ends)
    assert len({r.weight, r.weight_annealed, np.mean(start.sum(axis=1) > 0)}) == 3  # they can be told apart


def test_the_floor_on_the_circle_is_half_the_fisher_information():
    assert manifold_floor(0.1) == -0.5 * ring_fisher_information(0.1)
