"""solution: the accepted times and the evaluations of an adaptive solver, from arrays of any library."""

import doctest
import math

import numpy as np
import pytest

from refscore import VP, ExactScore, Reverse
from refscore.laws.examples import mixture
from refscore.likelihood import adaptive
from refscore.likelihood.adaptive import solution, solve

METHODS = ["RK23", "RK45", "DOP853", "Radau", "BDF", "LSODA"]
X = mixture("tilted").sample(np.random.default_rng(0), 3)
FLOW = Reverse(VP(), ExactScore(mixture("tilted"), VP()), 0.0).drift


class Counted:
    """A velocity for each row, and how often it was asked."""

    def __init__(self, n):
        self.asked = [[] for _ in range(n)]

    def row(self, i):
        def velocity(x, t):
            self.asked[i].append(t)
            return FLOW(x, t)

        return velocity


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("t", "s"), [(0.01, 1.0), (1.0, 0.01)], ids=["up", "down"])
def test_evaluations_are_counted_and_times_lead_from_t_to_s(method, t, s):
    velocity = Counted(3)
    found = solution(velocity, X, t, s, 1e-4, 1e-4, method)
    assert found.evaluations == [len(asked) for asked in velocity.asked]
    for times in found.times:
        assert (times[0], times[-1]) == (t, s)
        assert np.all(np.diff(times) * (s - t) > 0)
        assert all(type(u) is float for u in times)
    assert len(found.times) == 3
    np.testing.assert_array_equal(found.x, solve(FLOW, X, t, s, 1e-4, 1e-4, method))


def test_a_ladder_of_tolerances_takes_ever_more_steps_and_evaluations():
    """DOP853 is of order 8: a hundredth of the tolerance is 100^{1/8} = 1.8 times the steps, where they are many."""
    ladder = [solution(FLOW, X, 0.01, 1.0, tol, tol) for tol in (1e-4, 1e-6, 1e-8, 1e-10, 1e-12)]
    steps = np.array([[len(times) - 1 for times in rung.times] for rung in ladder])
    evaluations = np.array([rung.evaluations for rung in ladder])
    assert np.all(np.diff(evaluations, axis=0) > 0), evaluations
    assert np.all(np.diff(steps, axis=0) > 0), steps
    assert np.all(evaluations >= 11 * steps)  # eleven new stages at least for each accepted step
    assert np.all((steps[-1] / steps[-2] > 1.4) & (steps[-1] / steps[-2] < 2.2)), steps


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_library_gets_the_same_solution(dtype, backend):
    x = backend.asarray(np.arange(12.0).reshape(2, 3, 2), dtype=dtype)
    found = solution(lambda x, t: -x, x, 0.0, 1.0, rtol=1e-5, atol=1e-5)
    assert type(found.x) is type(x)
    assert found.x.dtype == x.dtype
    np.testing.assert_allclose(backend.to_numpy(found.x), math.exp(-1) * backend.to_numpy(x), rtol=1e-4)
    wanted = solution(lambda x, t: -x, backend.to_numpy(x), 0.0, 1.0, rtol=1e-5, atol=1e-5)
    assert found.evaluations == wanted.evaluations
    assert found.times == wanted.times


class OnDevice:
    """What torch or CuPy do: memory of a GPU, which is refused to who does not ask for a copy."""

    def __init__(self, a):
        self.a, self.moved = a, 0

    def __dlpack_device__(self):
        return (2, 0)  # CUDA

    def __dlpack__(self, **kwargs):
        raise BufferError("on the GPU")

    def __array__(self, *args, **kwargs):
        raise TypeError("implicit conversion to a NumPy array is not allowed")

    def to_device(self, device, /, stream=None):
        assert device == "cpu"
        self.moved += 1
        return self.a.copy()


def test_what_lies_on_a_device_is_copied_by_name_and_nothing_else_is_moved():
    there = OnDevice(np.arange(3.0))
    np.testing.assert_array_equal(adaptive._host(there), np.arange(3.0))
    assert there.moved == 1
    here = np.arange(3.0)
    here.flags.writeable = False
    assert adaptive._host(here) is here


def test_the_examples_run():
    assert doctest.testmod(adaptive).failed == 0


@pytest.mark.parametrize("velocity", [lambda x, t: x[:, 0], lambda x, t: -x.sum(axis=0), lambda x, t: x[:, :1]])
def test_a_velocity_of_another_shape_is_refused(velocity):
    with pytest.raises(ValueError, match=r"the velocity.*shape"):
        solution(velocity, np.ones((2, 3)), 0.0, 1.0)
