"""Small cases whose answer is known exactly: inpainting step by step, dead ends, what stands in tables."""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from refscore import (
    EDM,
    VP,
    Adam,
    Denoising,
    EnergyModel,
    EulerMaruyama,
    ExactScore,
    GaussianMixture,
    Implicit,
    Reverse,
    ScoreModel,
    fit,
)
from refscore.laws.affine_chain import Gaussian, probe
from refscore.laws.examples import mixture
from refscore.matching.objectives import OBJECTIVES
from refscore.nn import Add, Dense, Net, SiLU, Tanh
from refscore.noise.grids import uniform_times
from refscore.noise.sde import LinearVE
from refscore.sampling.guidance import Replace
from tests.oracles.close import assert_close
from tests.oracles.replay import ReplayRng

# ------------------------------------------------------------------ inpainting, step by step

SDE, Y = VP(), 1.5
PAIR = GaussianMixture(np.ones(1), np.zeros((1, 2)), np.array([[[1.0, 0.8], [0.8, 1.0]]]))
EULER = EulerMaruyama(Reverse(SDE, ExactScore(PAIR, SDE)))
UNKNOWN, SEEN = np.diag([1.0, 0.0]), np.diag([0.0, 1.0])


def replaced(start: Gaussian, t: float, s: float, moves: int) -> Gaussian:
    """Eq. (13.12) on paper: move, put the known coordinate back; noise up from s to t, move and put back again."""
    one = probe(lambda x, rng: EULER(x, t, s, rng)[0], np.zeros(2))
    alpha, sigma = SDE.alpha(s), SDE.sigma(s)
    a = SDE.alpha(t) / alpha
    up = SDE.sigma(t) ** 2 - (a * sigma) ** 2  # the variance that x_t has given x_s
    mean, cov = start
    for move in range(moves):
        if move:
            mean, cov = a * mean, a**2 * cov + up * np.eye(2)
        mean, cov = one.law(Gaussian(mean, cov))
        mean = UNKNOWN @ mean + alpha * SEEN @ [0.0, Y]
        cov = UNKNOWN @ cov @ UNKNOWN + sigma**2 * SEEN
    return Gaussian(mean, cov)


@pytest.mark.parametrize("moves", [1, 2, 5])
def test_replacement_is_the_chain_of_its_moves_each_with_noise_of_its_own(moves: int) -> None:
    step = Replace(EULER, SDE, np.array([0.0, Y]), np.array([0.0, 1.0]), moves)
    law = wanted = Gaussian(np.zeros(2), np.eye(2))
    for t, s in pairwise(uniform_times(20, 0.01)):
        law = probe(lambda x, rng, t=t, s=s: step(x, t, s, rng)[0], np.zeros(2)).law(law)
        wanted = replaced(wanted, t, s, moves)
        for found, right in zip(law, wanted, strict=True):
            assert_close(found, right, 1e-12)


# ------------------------------------------------------------------ rows that nobody reads


def test_a_row_that_nobody_reads_has_gradient_zero_from_the_first_parameters_on() -> None:
    """b = 0 at the start: the gradient is zero, not zero over zero, in each of the backward passes."""
    rows = (
        ("a", Dense(2, 3), ("x",)),
        ("h", Tanh(), ("a",)),
        ("dead end", Dense(3, 4), ("h",)),
        ("deader end", SiLU(), ("dead end",)),
        ("twice", Add(), ("h", "h")),
        ("last", Dense(3, 2), ("twice",)),
    )
    net, rng = Net(rows), np.random.default_rng(0)
    params = net.init(rng, "float64")
    assert not params["dead end.b"].any()
    x, dy, v = rng.standard_normal((5, 2)), rng.standard_normal((5, 2)), rng.standard_normal((1, 5, 2))
    _, cache = net.forward(params, x)
    _, tape = net.jvp(params, cache, v)
    _, jets = net.jet(params, cache, (v,), (v,), (None,))
    for _, grads in (
        net.backward(params, cache, dy),
        net.jvp_backward(params, cache, tape, dy, v)[1:],
        net.jet_backward(params, cache, jets, dy, (v, v, v))[1:],
    ):
        assert set(grads) == set(net.shapes)
        for name, grad in grads.items():
            assert grad.shape == net.shapes[name]
            assert np.isfinite(grad).all()
            assert grad.any() == (not name.startswith("dead")), name


@pytest.mark.parametrize("objective", [Denoising(), Implicit()], ids=["denoising", "implicit"])
@pytest.mark.parametrize("kind", ["score", "energy"])
def test_a_model_with_a_dead_end_trains_and_leaves_it_alone(objective: Any, kind: str) -> None:
    n = 2 if kind == "score" else 1
    net = Net(
        (("h", Dense(2, 3), ("x",)), ("dead", Dense(2, 4), ("x",)), ("t", Tanh(), ("h",)), ("out", Dense(3, n), ("t",)))
    )
    model: Any = ScoreModel(net, SDE, predict="score") if kind == "score" else EnergyModel(net, SDE, predict="score")
    theta = model.init(np.random.default_rng(0), "float64")
    data = PAIR.sample(np.random.default_rng(1), 50)
    (state,) = fit(model, objective, data, Adam(1e-2), np.random.default_rng(2), steps=1, batch=8, start=theta)
    moved = np.split(state.theta != theta, np.cumsum([math.prod(s) for s in net.shapes.values()])[:-1])
    for name, any_moved in zip(net.shapes, moved, strict=True):
        if name != "out.b":  # the height of an energy moves nothing
            assert any_moved.all() == (not name.startswith("dead")), name


# ------------------------------------------------------------------ examples that stand in tables


def test_the_explicit_objective_of_the_table_is_zero_at_the_score_of_the_standard_normal() -> None:
    """W = -I, b = 0 is -x: loss 0 and no gradient; W = +I is off by 2x, ½ E‖2x‖² = 2 ‖x‖²."""
    model = ScoreModel(Net((("d", Dense(3, 3), ("x",)),)), SDE, predict="score")
    x, rng = np.random.default_rng(0).standard_normal((10, 3)), np.random.default_rng(1)
    for sign, wanted in ((-1, 0.0), (1, 2 * np.mean(np.sum(x**2, axis=1)))):
        theta = np.concatenate([sign * np.eye(3).ravel(), np.zeros(3)])
        loss, grad = OBJECTIVES["explicit"](model, theta, x, rng)
        assert loss == pytest.approx(wanted, abs=1e-14)
        assert np.any(grad != 0) == bool(wanted)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_of_the_table_prefers_the_score_of_the_standard_normal(name: str) -> None:
    """x₀ ~ N(0, I) is N(0, I) at every t of VP: among s = c x the loss is least at c = -1."""
    model = ScoreModel(Net((("d", Dense(2, 2), ("x",)),)), SDE, predict="score")
    x = np.random.default_rng(0).standard_normal((4000, 2))
    line = lambda c: np.concatenate([c * np.eye(2).ravel(), np.zeros(2)])  # noqa: E731
    objective = OBJECTIVES[name]
    losses = [float(objective(model, line(c), x, np.random.default_rng(1))[0]) for c in (-1.2, -1.0, -0.8)]
    # they differ by ½ .2² E‖x‖² λ = .04 λ, and 4000 draws move the minimum by some .02
    assert losses[1] == min(losses)


# ------------------------------------------------------------------ churn at one level


def test_churn_at_one_level_alone_is_churn_at_that_level() -> None:
    """low = high = ς: a step from ς draws noise, as with any band around it; one from elsewhere draws none."""
    sde = LinearVE(80.0)
    score = ExactScore(PAIR, sde)
    step, x, z = EDM(sde, score, churn=0.1, low=40.0, high=40.0), np.ones((3, 2)), np.full((3, 2), 0.5)
    found, _ = step(x, 0.5, 0.4, ReplayRng(z))
    wanted, _ = EDM(sde, score, churn=0.1, low=39.0, high=41.0)(x, 0.5, 0.4, ReplayRng(z))
    np.testing.assert_array_equal(found, wanted)
    plain, _ = EDM(sde, score)(x, 0.51, 0.4, ReplayRng())
    np.testing.assert_array_equal(step(x, 0.51, 0.4, ReplayRng())[0], plain)
    assert not np.array_equal(found, EDM(sde, score)(x, 0.5, 0.4, ReplayRng())[0])


# ------------------------------------------------------------------ embedded data


def test_the_circle_has_eight_equal_modes_a_turn() -> None:
    p = mixture("circle")
    np.testing.assert_allclose(p.weights, np.full(8, 1 / 8), rtol=1e-15)
    np.testing.assert_allclose(p.covariances, np.full(8, 0.01), rtol=1e-15)
    turn = np.array([[0, -1], [1, 0]]) / math.sqrt(2) + np.eye(2) / math.sqrt(2)  # by 45°
    np.testing.assert_allclose(p.means @ turn.T, np.roll(p.means, -1, axis=0), atol=1e-15)
    np.testing.assert_allclose(p.means[0], [2.0, 0.0], atol=1e-15)


def test_the_spiral_is_archimedes_with_modes_of_equal_area() -> None:
    """r = θ/4 up to θ = 3π; r² in sixty equal steps from a twentieth of its end, so that modes lie evenly along it."""
    p = mixture("spiral")
    r2 = np.sum(p.means**2, axis=1)
    np.testing.assert_allclose(r2, (0.75 * math.pi) ** 2 * np.linspace(0.05, 1, 60), rtol=1e-14)
    angle = 4 * np.sqrt(r2)
    np.testing.assert_allclose(p.means, np.sqrt(r2)[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1), atol=1e-14)
    gaps = np.linalg.norm(np.diff(p.means, axis=0), axis=1)
    assert np.max(gaps) < 1.6 * np.min(gaps)
    np.testing.assert_allclose(p.weights, np.full(60, 1 / 60), rtol=1e-14)
    np.testing.assert_allclose(p.covariances, np.full(60, 0.01), rtol=1e-15)


def test_two_modes_and_the_tilted_mixture_have_their_recorded_parameters() -> None:
    p = mixture("two-modes")
    np.testing.assert_array_equal(p.weights, [0.8, 0.2])
    np.testing.assert_array_equal(p.means, [[5, 5], [-5, -5]])
    np.testing.assert_array_equal(p.covariances, [1, 1])
    q = mixture("tilted")
    np.testing.assert_allclose(q.weights, [0.5, 0.3, 0.2])
    np.testing.assert_array_equal(q.means, [[-2, 0.5], [1.5, 1.5], [0.5, -2]])
    for C, low, high, degrees in zip(q.covariances, (0.1, 0.05, 0.2), (0.5, 0.3, 0.2), (30, -50, 0), strict=True):
        axis = np.array([math.cos(math.radians(degrees)), math.sin(math.radians(degrees))])
        np.testing.assert_allclose(C @ axis, high * axis, atol=1e-15)  # the wide axis is turned so far
        np.testing.assert_allclose(np.linalg.eigvalsh(C), [low, high], rtol=1e-13)
