"""Small cases whose answer is known exactly: models with a dead end, objectives on a standard normal."""

import math

import numpy as np
import pytest

from refscore import VP, Adam, Denoising, EnergyModel, Implicit, ScoreModel, fit
from refscore.matching.objectives import OBJECTIVES
from refscore.nn import Dense, Net, Tanh
from tests.oracles.mixtures import PAIR


@pytest.mark.parametrize("objective", [Denoising(), Implicit()], ids=["denoising", "implicit"])
@pytest.mark.parametrize("kind", ["score", "energy"])
def test_a_model_with_a_dead_end_trains_and_leaves_it_alone(objective, kind):
    n = 2 if kind == "score" else 1
    net = Net(
        (("h", Dense(2, 3), ("x",)), ("dead", Dense(2, 4), ("x",)), ("t", Tanh(), ("h",)), ("out", Dense(3, n), ("t",)))
    )
    model = ScoreModel(net, VP(), predict="score") if kind == "score" else EnergyModel(net, VP(), predict="score")
    theta = model.init(np.random.default_rng(0), "float64")
    data = PAIR.sample(np.random.default_rng(1), 50)
    (state,) = fit(model, objective, data, Adam(1e-2), np.random.default_rng(2), steps=1, batch=8, start=theta)
    moved = np.split(state.theta != theta, np.cumsum([math.prod(s) for s in net.shapes.values()])[:-1])
    for name, any_moved in zip(net.shapes, moved, strict=True):
        if name != "out.b":  # the height of an energy moves nothing
            assert any_moved.all() == (not name.startswith("dead")), name


def test_the_explicit_objective_of_the_table_is_zero_at_the_score_of_the_standard_normal():
    """W = -I, b = 0 is -x: loss 0 and no gradient; W = +I is off by 2x, ½ E‖2x‖² = 2 ‖x‖²."""
    model = ScoreModel(Net((("d", Dense(3, 3), ("x",)),)), VP(), predict="score")
    x, rng = np.random.default_rng(0).standard_normal((10, 3)), np.random.default_rng(1)
    for sign, wanted in ((-1, 0.0), (1, 2 * np.mean(np.sum(x**2, axis=1)))):
        theta = np.concatenate([sign * np.eye(3).ravel(), np.zeros(3)])
        loss, grad = OBJECTIVES["explicit"](model, theta, x, rng)
        assert loss == pytest.approx(wanted, abs=1e-14)
        assert np.any(grad != 0) == bool(wanted)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_of_the_table_prefers_the_score_of_the_standard_normal(name):
    """x₀ ~ N(0, I) is N(0, I) at every t of VP: among s = c x the loss is least at c = -1."""
    model = ScoreModel(Net((("d", Dense(2, 2), ("x",)),)), VP(), predict="score")
    x = np.random.default_rng(0).standard_normal((4000, 2))
    line = lambda c: np.concatenate([c * np.eye(2).ravel(), np.zeros(2)])  # noqa: E731
    objective = OBJECTIVES[name]
    losses = [float(objective(model, line(c), x, np.random.default_rng(1))[0]) for c in (-1.2, -1.0, -0.8)]
    # they differ by ½ .2² E‖x‖² λ = .04 λ, and 4000 draws move the minimum by some .02
    assert losses[1] == min(losses)
