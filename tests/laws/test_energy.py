"""The energy model: its score is minus the gradient of its energy, and every pass, third order too, is right."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refscore import MLP, VE, VP, Denoising, EnergyModel, Explicit, FiniteDifference, Implicit, Sliced
from refscore.levels import FixedTime
from refscore.nn import Net, SiLU, Softplus, Tanh
from refscore.nn.dense import Dense
from refscore_backends.numpy import NumpyBackend
from tests.backends import LAW_BACKENDS
from tests.derivatives import STEP, check_all, check_jvp_backward, subject
from tests.laws.test_derivatives import tangle

NUMPY = NumpyBackend()
seeds = st.integers(0, 2**32 - 1)
on_every_backend = pytest.mark.parametrize("host", LAW_BACKENDS, ids=lambda b: b.name)


def energy(dim: int, hidden: list[int], embed: int, phi: Any, sde: Any, predict: str) -> EnergyModel:
    return EnergyModel(MLP((dim, *hidden, 1), embed, phi), sde, data_std=1.7, predict=predict)


@on_every_backend
@given(
    seed=seeds, dim=st.integers(1, 3), hidden=st.lists(st.integers(1, 5), min_size=0, max_size=2),
    embed=st.sampled_from([0, 4]), phi=st.sampled_from([SiLU(), Tanh(), Softplus()]), B=st.integers(1, 4),
    K=st.integers(1, 3), shared=st.booleans(), sde=st.sampled_from([VP(), VE(0.01, 10.0)]), t=st.floats(0.2, 1.0),
    predict=st.sampled_from(["noise", "score"]),
)  # fmt: skip
def test_every_energy_is_differentiated_rightly_to_third_order(
    host: Any, seed: int, dim: int, hidden: list[int], embed: int, phi: Any, B: int, K: int, shared: bool, sde: Any,
    t: float, predict: str,
) -> None:  # fmt: skip
    model = energy(dim, hidden, embed, phi, sde, predict)
    rng = np.random.default_rng([seed, 9])
    times = np.full(1, t) if shared else rng.uniform(0.2, 1.0, B)
    check_all(subject(model, host, [rng.standard_normal((B, dim)), times], seed, K, live=[True], fixed=[1]), seed)


@given(seed=seeds, dim=st.integers(1, 4), B=st.integers(1, 4), predict=st.sampled_from(["noise", "score"]))
def test_the_score_is_minus_the_gradient_of_the_energy(seed: int, dim: int, B: int, predict: str) -> None:
    model = energy(dim, [5, 4], 4, SiLU(), VP(), predict)
    rng = np.random.default_rng(seed)
    theta = model.init(rng, "float64") + 0.3 * rng.standard_normal(model.init(rng, "float64").shape)
    x, t = rng.standard_normal((B, dim)), rng.uniform(0.2, 1.0, B)
    s = model.bind(theta)(x, t)
    for i in range(dim):
        dE = model.bind_energy(theta)(x + 1j * STEP * np.eye(dim)[i], t).imag / STEP
        assert np.max(np.abs(s[:, i] + dE)) <= 1e-12 * (1 + np.max(np.abs(s)))


@given(seed=seeds, B=st.integers(1, 4))
def test_the_jacobian_of_an_energys_score_is_symmetric(seed: int, B: int) -> None:
    """What sets it apart from a free vector field: it is a gradient."""
    model = energy(3, [5], 0, Tanh(), VE(), "score")
    rng = np.random.default_rng(seed)
    params = subject(model, NUMPY, [rng.standard_normal((B, 3)), np.zeros(1)], seed, live=[True], fixed=[1]).params
    _, cache = model.forward(params, rng.standard_normal((B, 3)), np.zeros(1))
    J, _ = model.jvp(params, cache, np.broadcast_to(np.eye(3)[:, None, :], (3, B, 3)))
    J = np.moveaxis(J, 1, 0)
    assert np.max(np.abs(J - np.swapaxes(J, 1, 2))) <= 1e-13 * np.max(np.abs(J))


def test_any_graph_can_be_an_energy() -> None:
    """Skips, a value read thrice, dead ends, a branch that only knows the level."""
    rows = tangle(2).rows
    net = Net((*rows, ("one", Dense(2, 1), ("last",))))
    model = EnergyModel(net, VP(), data_std=1.3)
    rng = np.random.default_rng(0)
    check_all(
        subject(model, NUMPY, [rng.standard_normal((3, 2)), np.array([0.3, 0.6, 0.9])], 0, live=[True], fixed=[1]), 0
    )


def test_third_order_by_differences() -> None:
    """Beside the complex step: nothing but real numbers and subtraction."""
    model = energy(2, [6, 6], 4, SiLU(), VP(), "noise")
    rng = np.random.default_rng(3)
    s = subject(
        model, NUMPY, [rng.standard_normal((8, 2)), rng.uniform(0.2, 1, 8)], 3, K=2, live=[True], fixed=[1]
    )  # fmt: skip
    assert check_jvp_backward(s, 3, "Richardson") <= 1e-8


@dataclass(frozen=True)
class FlatThird(Tanh):
    def third(self, cache: Any) -> Any:
        return 0 * cache


def test_the_checker_sees_a_wrong_third_derivative() -> None:
    model = energy(2, [4], 0, FlatThird(), VP(), "score")
    rng = np.random.default_rng(0)
    s = subject(model, NUMPY, [rng.standard_normal((3, 2)), np.full(1, 0.5)], 0, live=[True], fixed=[1])
    with pytest.raises(AssertionError, match="jvp_backward is not the transpose"):
        check_all(s, 0)


class NoJets:
    """A tanh that knows four passes only."""

    shapes: dict[str, tuple[int, ...]] = {}  # noqa: RUF012
    init, forward, backward = Tanh.init, Tanh().forward, Tanh().backward
    jvp, jvp_backward = Tanh().jvp, Tanh().jvp_backward


def test_bodies_without_jets_are_refused_by_name_where_third_derivatives_are_needed() -> None:
    net = Net((("a", Dense(2, 4), ("x",)), ("bend", NoJets(), ("a",)), ("b", Dense(4, 1), ("bend",))))
    model = EnergyModel(net, VP())
    rng = np.random.default_rng(0)
    theta = 0.1 * rng.standard_normal(17)
    x0 = rng.standard_normal((5, 2))
    fixed = FixedTime(0.3)
    for objective in (
        Denoising(times=fixed), FiniteDifference(times=fixed), Explicit(lambda x, t: -x, times=fixed)
    ):  # fmt: skip
        assert np.isfinite(objective(model, theta, x0, rng)[0])
    for objective in (Implicit(times=fixed), Sliced(times=fixed)):
        with pytest.raises(TypeError, match=r"row 'bend': NoJets has no passes jet and jet_backward"):
            objective(model, theta, x0, rng)


def test_the_body_of_an_energy_answers_with_one_number() -> None:
    model = EnergyModel(MLP((2, 4, 2)), VP())
    theta = np.zeros(2 * 4 + 4 + 4 * 2 + 2)
    with pytest.raises(ValueError, match=r"one number a sample, \(B, 1\); got \(3, 2\)"):
        model.bind(theta)(np.ones((3, 2)), 0.5)
    with pytest.raises(ValueError, match="predict must be one of noise, score; got 'x0'"):
        EnergyModel(MLP((2, 1)), VP(), predict="x0")
