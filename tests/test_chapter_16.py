"""Answers to the exercises of chapter 16, and its two equations."""

import itertools
import math
import warnings

import numpy as np
import pytest
from array_api_compat import array_namespace
from hypothesis import given
from hypothesis import strategies as st

from refscore import VP, Adam
from refscore.nn import Tanh, shifts
from refscore.noise.grids import log_snr_times
from refscore.noise.sde import log_ratio
from refscore.training.optim import clip
from refscore_backends import get
from refscore_backends.recorded.compiled import MOST, NotCompiledWarning
from refscore_backends.recorded.plan import Assemble, Elementwise, Plan

STRICT = get("strict")
U = 2.0**-24  # half the distance of float32's numbers at 1


def ones(*shape):
    return STRICT.asarray(np.ones(shape))


def plan(function, *args):
    compiled = STRICT.compile(function)
    compiled(*args)
    [[program]] = compiled.programs.values()
    return Plan(program)


def queue(c, d):
    """When the last kernel ends: each is given out at k c, and begins when the one before it has ended."""
    end = 0.0
    for k, duration in enumerate(d, 1):
        end = max(k * c, end) + duration
    return end


durations = st.lists(st.integers(0, 100), min_size=1, max_size=20)


@given(c=st.integers(0, 50), d=durations)
def test_7_a_queue_ends_when_its_equation_says(c, d):
    """Eq. (16.1)."""
    n = len(d)
    T = max((k + 1) * c + sum(d[k:]) for k in range(n))
    assert queue(c, d) == T
    assert max(n * c + d[-1], c + sum(d)) <= T <= n * c + sum(d)  # the right side is a host that waits
    if len(set(d)) == 1:  # k c + (n - k + 1) d is linear in k: largest at an end
        assert max(n * c + d[-1], c + sum(d)) == T


def test_1_long_kernels_first():
    short, long = [2] * 50, [50] * 50
    assert queue(10, short + long) == 51 * 10 + 50 * 50 == 3010  # the host is ahead only once the long ones have begun
    assert queue(10, long + short) == 10 + 50 * 50 + 50 * 2 == 2610
    assert min(queue(10, order) for order in ([2, 50] * 50, [50, 2] * 50)) >= 2610


def test_2_tanh_forward_and_backward():
    def both(x, dy):
        y, cache = Tanh().forward({}, x)
        (dx,), _ = Tanh().backward({}, cache, dy)
        return y, dx

    made = plan(both, ones(4, 3), ones(4, 3))
    lines = made.program.tape.lines
    assert [len(set(line.refs())) for line in lines] == [1, 1, 1, 2]  # tanh x, y y, 1 - yy, times dy: 5 read, 4 written
    [step] = made.steps
    assert (len(step.reads), len(step.outs)) == (2, 2)


def single(number):
    return float(np.float32(number))


@given(t=st.floats(1e-3, 1.0), s=st.floats(1e-3, 1.0))
def test_8_a_difference_of_rounded_levels(t, s):
    """Eq. (16.2): it says nothing where its right side is above 1, for times whose levels round to one number."""
    now, then = (log_ratio(VP(), time) for time in (t, s))
    h, rough = then - now, single(then) - single(now)
    assert abs(rough - h) <= U * (abs(now) + abs(then)) * (1 + 1e-6)
    if single(now) == single(then) and h != 0:
        assert U * (abs(now) + abs(then)) / abs(h) > 1 - 1e-6


def test_3_from_sixteen_hundred_steps_on_fewer_than_four_digits_are_left():
    def bound(n):
        level = np.array([log_ratio(VP(), t) for t in log_snr_times(VP(), n)])
        return np.max(U * (abs(level[1:]) + abs(level[:-1])) / abs(np.diff(level)))

    assert bound(1600) < 1e-4 < bound(1605)
    assert math.isclose(bound(1000), 10 * bound(100), rel_tol=0.02)  # as many times more as there are steps


@pytest.mark.parametrize(("look", "programs"), [(float, 10), (lambda t: t * 1.0, 1)], ids=["float(t)", "t * 1.0"])
def test_4_a_program_for_each_number_that_is_looked_at(look, programs):
    step = STRICT.compile(lambda x, t: x + look(t))
    for t in np.linspace(1.0, 0.1, 10).tolist():
        assert np.array_equal(STRICT.to_numpy(step(ones(3), t)), np.ones(3) + t)
    assert sum(map(len, step.programs.values())) == programs
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for t in np.linspace(0.05, 0.01, MOST).tolist():
            step(ones(3), t)
    assert [w.category for w in told] == [NotCompiledWarning] * (programs > 1)


def test_5_a_frame_of_zeros_is_one_kernel_that_reads_no_zeros():
    [step] = plan(lambda x: shifts.padded(x, (1, 1), (1, 1)), ones(3, 3, 2, 1)).steps
    assert isinstance(step, Assemble)
    assert step.base == 0.0  # a number in the text: what no part covers is set to it
    assert len(step.parts) == 1


def test_6_no_update_begins_before_the_norm_is_known():
    adam, theta = Adam(1e-3), ones(50)

    def update(grad, state, theta):
        return adam.update(clip(grad, 1.0)[0], state, theta)

    *before, last = plan(update, theta, adam.init(theta), theta).steps
    assert before  # the norm: a sum of all squares, and its root
    assert not any(theta.shape in [before_last.shape] for before_last in before if isinstance(before_last, Elementwise))
    assert isinstance(last, Elementwise)
    assert len(last.outs) == 3  # theta, m and v: all else is still one kernel


def test_9_two_of_six_orders_of_axes():
    def free(order):
        def joined(x):
            xp = array_namespace(x)
            x = xp.permute_dims(x, order)
            return xp.reshape(x, (x.shape[0] * x.shape[1], x.shape[2]))

        return plan(joined, ones(2, 3, 4)).steps == []

    assert [order for order in itertools.permutations(range(3)) if free(order)] == [(0, 1, 2), (1, 2, 0)]
