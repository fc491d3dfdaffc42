"""SciPy's solvers behind the adapter: as exact as asked, one sample at a time, and with errors that have a name."""

import math
from functools import partial

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from refscore import VE, VP, ExactScore, GaussianMixture, Reverse
from refscore.laws.examples import mixture
from refscore.likelihood import adaptive as host
from refscore.likelihood.adaptive import SolverError, solve
from tests.oracles.close import assert_close

M, LAM = np.array([[0.5, -1.0]]), np.array([[0.3, 1.5]])
GAUSSIAN = GaussianMixture(np.ones(1), M, LAM)


def flow(sde, x, t, s):
    """The exact probability flow of one Gaussian: offsets grow like the standard deviation of p_t."""
    (m, v), (m2, v2) = ((sde.alpha(u) * M, sde.alpha(u) ** 2 * LAM + sde.sigma(u) ** 2) for u in (t, s))
    return m2 + np.sqrt(v2 / v) * (x - m)


@pytest.mark.recorded("how lucky a loose tolerance is depends on the point")
@pytest.mark.parametrize("sde", [VP(), VE(0.01, 50.0)], ids=["vp", "ve"])
@pytest.mark.parametrize(("t", "s"), [(0.001, 1.0), (1.0, 0.001)], ids=["up", "down"])
def test_the_error_follows_the_tolerance(sde, t, s):
    x = sde.alpha(t) * GAUSSIAN.sample(np.random.default_rng(0), 1) + sde.sigma(t) * 0.7
    exact = flow(sde, x, t, s)
    velocity = Reverse(sde, ExactScore(GAUSSIAN, sde), 0.0).drift
    errors = []
    for power in range(3, 11):
        rtol = 10.0**-power
        found = solve(velocity, x, t, s, rtol=rtol, atol=rtol)
        errors.append(np.max(np.abs(found - exact)) / max(1.0, np.max(np.abs(exact)), np.max(np.abs(x))))
        assert errors[-1] <= 100 * rtol
    # falling, from rung to rung but for luck (a loose tolerance may do well by chance), and by far in all
    assert all(c < a for a, c in zip(errors, errors[2:], strict=False)), errors
    assert errors[-1] <= 1e-5 * errors[0]


@pytest.mark.parametrize("method", ["RK23", "RK45", "DOP853", "Radau", "BDF", "LSODA"])
@pytest.mark.parametrize(("t", "s"), [(0.5, 0.9), (0.9, 0.5)], ids=["up", "down"])
def test_a_velocity_is_asked_between_t_and_s_only(method, t, s):
    """SciPy 1.13 guesses its first step from the slope alone, however short the way: a flat slope, a far look."""
    asked = []
    solve(lambda x, u: asked.append(u) or 1e-3 * x, np.ones((1, 1)), t, s, rtol=1e-3, atol=1e-3, method=method)
    assert min(t, s) <= min(asked) <= max(asked) <= max(t, s)


def test_so_it_is_where_scipy_looks_elsewhere(monkeypatch):
    asked = []

    def probing(right, span, start, *args, **kwargs):
        for u in (-45.0, 0.7, 19.9):
            right(u, start)
        return solve_ivp(right, span, start, *args, **kwargs)

    monkeypatch.setattr(host, "solve_ivp", probing)
    solve(lambda x, u: asked.append(u) or -x, np.ones((1, 1)), 0.9, 0.5)
    assert asked[:3] == [0.5, 0.7, 0.9]


def test_it_is_scipy_with_the_tolerances_that_were_asked():
    p, sde = mixture("tilted"), VP()
    x, velocity = p.sample(np.random.default_rng(0), 2), Reverse(sde, ExactScore(p, sde), 0.0).drift
    found = solve(velocity, x, 0.01, 1.0, rtol=1e-4, atol=1e-7, method="RK45")
    for row, start in enumerate(x):
        right = lambda t, y: velocity(y[None, :], float(t))[0]  # noqa: E731
        wanted = solve_ivp(right, (0.01, 1.0), start, "RK45", rtol=1e-4, atol=1e-7).y[:, -1]
        np.testing.assert_array_equal(found[row], wanted)  # the same bits


def test_a_sample_does_not_know_its_neighbours():
    p, sde = mixture("tilted"), VP()
    x = p.sample(np.random.default_rng(0), 4)
    run = partial(solve, Reverse(sde, ExactScore(p, sde), 0.0).drift, t=0.01, s=1.0, rtol=1e-6, atol=1e-6)
    together = run(x)
    for order in ([0], [2, 1], [3, 0, 2]):
        np.testing.assert_array_equal(run(x[order]), together[order])  # the same bits


@pytest.mark.parametrize("method", ["RK45", "DOP853", "LSODA"])
def test_any_method_of_scipy_serves(method):
    sde = VP()
    x = np.array([[0.3, 0.2]])
    velocity = Reverse(sde, ExactScore(GAUSSIAN, sde), 0.0).drift
    assert_close(solve(velocity, x, 0.1, 0.9, method=method), flow(sde, x, 0.1, 0.9), 1e-6)


def test_arrays_keep_their_library_dtype_and_shape(any_backend):
    x = any_backend.asarray(np.arange(12.0).reshape(2, 3, 2), dtype="float32")
    y = solve(lambda x, t: -x, x, 0.0, 1.0, rtol=1e-5, atol=1e-5)
    assert type(y) is type(x)
    assert y.dtype == x.dtype
    np.testing.assert_allclose(any_backend.to_numpy(y), math.exp(-1) * any_backend.to_numpy(x), rtol=1e-4)


class ByRow:
    """dx/dt = a_i x: every sample with a rate of its own."""

    rates = (1.0, -2.0, 0.5)

    def __call__(self, x, t):
        raise AssertionError("asked of all rows at once")

    def row(self, i):
        return lambda x, t: self.rates[i] * x


def test_a_velocity_that_tells_samples_apart_is_asked_for_each():
    found = solve(ByRow(), np.ones((3, 2)), 0.0, 1.0)
    np.testing.assert_allclose(found, np.exp(ByRow.rates)[:, None] * np.ones(2), rtol=1e-7)


def test_the_row_that_fails_is_named():
    def bursts(x, t):  # x' = x²: at infinity by t = 1/x₀
        return np.minimum(x, 1e100) ** 2

    with pytest.raises(SolverError, match=r"row 1: stopped at t = 0\.5.*step size"):
        solve(bursts, np.array([[0.1], [2.0]]), 0.0, 1.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_velocity_that_is_not_finite_is_named(bad):
    def velocity(x, t):
        return np.full_like(x, bad) if x[0, 0] > 1 and t > 0.5 else 0 * x

    with pytest.raises(SolverError, match=r"row 2: the velocity is not finite at t = 0\.[5-9]"):
        solve(velocity, np.array([[0.0], [1.0], [2.0]]), 0.0, 1.0)


@pytest.mark.parametrize(
    ("x", "t", "s", "kind", "message"),
    [
        ([[1.0]], -0.1, 1.0, ValueError, r"t must lie in \[0, 1\]"),
        ([[1.0]], 0.0, 1.1, ValueError, r"t must lie in \[0, 1\]"),
        ([1.0], 0.0, 1.0, ValueError, "at least 2 axes"),
        ([[math.nan]], 0.0, 1.0, ValueError, r"x\[0, 0\]"),
        ([[1]], 0.0, 1.0, TypeError, "float32 or float64"),
    ],
)
def test_what_cannot_be_is_refused(x, t, s, kind, message):
    with pytest.raises(kind, match=message):
        solve(lambda x, t: x, np.array(x), t, s)
