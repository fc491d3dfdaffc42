"""The sampling loop, and what it refuses at the door."""

import warnings
from itertools import pairwise

import numpy as np
import pytest

from refscore import VP, EulerMaruyama, Reverse, simulate, watch
from refscore.sampling.compose import Stay
from refscore.sampling.loop import NotFiniteError, NotFiniteWarning, last
from refscore_backends.strict import StrictBackend

X = np.zeros((2, 3))
GRID = [1.0, 0.5, 0.25, 0.0]


def never(*args):
    raise AssertionError("no step may be taken")


# ------------------------------------------------------------------ the loop


@pytest.mark.parametrize("times", [GRID, GRID[::-1], (1, 0), (0.0, 1.0)])
def test_a_step_is_taken_between_each_two_times_in_order(times):
    seen = []

    def step(x, t, s, rng, memory):
        seen.append((t, s))
        return x + 1, memory

    states = list(simulate(step, X, times, np.random.default_rng(0)))
    assert seen == list(pairwise(times))
    assert [x[0, 0] for x in states] == list(range(1, len(times)))


def test_memory_is_handed_from_step_to_step_and_the_rng_to_all():
    memories = []
    rng = np.random.default_rng(0)

    def step(x, t, s, got, memory):
        assert got is rng
        memories.append(memory)
        return x, (memory or 0) + 1

    last(simulate(step, X, GRID, rng))
    assert memories == [None, 1, 2]


def test_each_run_starts_without_memory():
    starts = []

    def step(x, t, s, rng, memory):
        if t == 1.0:
            starts.append(memory)
        return x, "something"

    for _ in range(2):
        last(simulate(step, X, GRID, None))
    assert starts == [None, None]


def test_a_loop_that_is_left_early_takes_no_further_steps():
    taken = []

    def step(x, t, s, rng, memory):
        taken.append(t)
        return x, None

    states = simulate(step, X, GRID, None)
    assert taken == []
    next(states)
    states.close()
    assert taken == [1.0]


def test_last_is_the_last_and_nothing_is_refused():
    assert last([X, X + 1])[0, 0] == 1
    with pytest.raises(ValueError, match="nothing"):
        last([])


def test_float32_stays_float32_on_every_grid(any_backend):
    x = any_backend.asarray(X + 1, dtype="float32")
    step = EulerMaruyama(Reverse(VP(), lambda x, t: -x))
    for state in simulate(step, x, np.linspace(1, 0, 4).tolist(), any_backend.rng(0)):
        assert state.dtype == x.dtype


# ------------------------------------------------------------------ refusals, at the call

BAD_TIMES = [
    ([1.0, 0.2, 0.5], ValueError, "strictly monotone"),
    ([1.0, 0.5, 0.5], ValueError, "strictly monotone"),
    ([0.0, 0.5, 0.5, 1.0], ValueError, "strictly monotone"),
    ([1.0], ValueError, "at least two"),
    ([], ValueError, "at least two"),
    ([1.5, 0.5], ValueError, r"t must lie in \[0, 1\].*got 1.5"),
    ([1.0 + 1e-12, 0.5], ValueError, r"t must lie in \[0, 1\]"),
    ([1.0, -0.1], ValueError, r"t must lie in \[0, 1\].*got -0.1"),
    ([1.0, float("nan"), 0.0], ValueError, r"t must lie in \[0, 1\].*got nan"),
    ([1.0, float("-inf")], ValueError, r"t must lie in \[0, 1\]"),
    ([1.0 + 2**-51, 0.5], ValueError, r"t must lie in \[0, 1\]"),
    (["1", "0"], TypeError, "times must be numbers"),
    ([np.asarray(1.0), 0.0], TypeError, "times must be numbers"),
    ([1.0, None], TypeError, "times must be numbers"),
    ([1.0 + 0j, 0.5], TypeError, "times must be numbers"),
    (np.ones((3, 1)), TypeError, "times must be numbers"),
]


@pytest.mark.parametrize(("times", "error", "message"), BAD_TIMES, ids=lambda a: repr(a)[:40])
def test_times_that_cannot_be_walked_are_refused_at_the_call(times, error, message):
    with pytest.raises(error, match=message):
        simulate(never, X, times, np.random.default_rng(0))


@pytest.mark.parametrize(
    "times",
    [
        np.linspace(1, 0, 5), np.linspace(1, 0, 5, dtype="float32"), np.array([1, 0]), [1, 0], (1.0, np.float64(0.5)),
        [1 + 2**-52, 0.5],
    ],
    ids=repr,
)  # fmt: skip
def test_a_step_is_given_python_floats_whatever_numbers_the_grid_holds(times):
    def step(x, t, s, rng, memory):
        seen.append((t, s))
        return x, None

    seen = []
    assert all(x is X for x in simulate(step, X, times, np.random.default_rng(0)))
    assert all(type(t) is type(s) is float for t, s in seen)
    assert seen[0][0] == 1.0
    assert [t for t, _ in seen[1:]] == [s for _, s in seen[:-1]]


def nan_at(*index):
    x = np.zeros((4, 3))
    x[index] = np.nan
    return x


BAD_X = [
    (nan_at(2, 1), ValueError, r"x holds 1 values .* first at x\[2, 1\]"),
    (np.full((2, 2), np.inf), ValueError, r"x holds 4 values .* first at x\[0, 0\]"),
    (np.zeros((0, 2)), ValueError, "empty"),
    (np.zeros((2, 0)), ValueError, "empty"),
    (np.zeros(3), ValueError, "at least 2 axes"),
    (np.asarray(1.0), ValueError, "at least 2 axes"),
    (np.zeros((2, 2), dtype=int), TypeError, "float32 or float64, got int64"),
    (np.zeros((2, 2), dtype=bool), TypeError, "float32 or float64, got bool"),
    (np.zeros((2, 2), dtype="float16"), TypeError, "float32 or float64, got float16"),
    (np.zeros((2, 2), dtype=complex), TypeError, "float32 or float64, got complex128"),
    (np.zeros((2, 2), dtype=object), TypeError, "float32 or float64, got object"),
    ([[0.0, 0.0]], TypeError, "list"),
    (None, TypeError, "NoneType"),
    (0.5, TypeError, "float"),
]


@pytest.mark.parametrize(("x", "error", "message"), BAD_X, ids=lambda a: repr(a)[:40])
def test_samples_that_cannot_be_moved_are_refused_at_the_call(x, error, message):
    with pytest.raises(error, match=message):
        simulate(never, x, GRID, np.random.default_rng(0))


def test_the_door_stands_on_every_backend(any_backend):
    x = any_backend.asarray(nan_at(2, 1), dtype="float32")
    with pytest.raises(ValueError, match=r"x holds 1 values .* first at x\[2, 1\]"):
        simulate(never, x, GRID, any_backend.rng(0))
    with pytest.raises(TypeError, match="times must be numbers"):
        simulate(never, any_backend.asarray(X, dtype="float32"), StrictBackend("device1").asarray([1.0, 0.0]), None)


# ------------------------------------------------------------------ the watchman

TIMES = np.linspace(1, 0, 11).tolist()


def breaks_at(step, row, value, backend):
    """A score that is not finite for one row at one step; the row stays so, the others never know."""
    good, bad = np.ones((5, 2)), np.ones((5, 2))
    bad[row, 1] = value
    good, bad = backend.asarray(good), backend.asarray(bad)

    def score(x, t):
        return (bad if t == TIMES[step - 1] else good) - 0 * x

    return lambda x, t, s, rng, memory: (x + (s - t) * score(x, t), memory)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_watch_names_step_time_and_rows(backend, value):
    x = backend.asarray(np.zeros((5, 2)))
    states = watch(simulate(breaks_at(7, 3, value, backend), x, TIMES, None), TIMES)
    for _ in range(6):
        next(states)
    with pytest.raises(NotFiniteError, match=r"step 7 \(t = 0.3\): 1 of 5 rows are not finite, the first: \[3\]"):
        next(states)


def test_the_other_rows_do_not_know(backend):
    x = backend.asarray(np.zeros((5, 2)))
    with np.errstate(invalid="ignore"):
        states = simulate(breaks_at(7, 3, np.nan, backend), x, TIMES, None)
        with pytest.warns(NotFiniteWarning, match=r"1 of 5 rows are not finite after the last step, the first: \[3\]"):
            broken = backend.to_numpy(last(states))
    whole = backend.to_numpy(last(simulate(breaks_at(7, 3, 1.0, backend), x, TIMES, None)))
    assert np.isnan(broken[3, 1])
    assert np.array_equal(np.delete(broken, 3, axis=0), np.delete(whole, 3, axis=0))


@pytest.mark.parametrize(("every", "noticed"), [(1, 7), (2, 8), (3, 9), (4, 8), (7, 7), (8, 8), (9, 9), (99, 10)])
def test_watch_looks_every_few_steps_and_at_the_last(backend, every, noticed):
    x = backend.asarray(np.zeros((5, 2)))
    states = watch(simulate(breaks_at(7, 3, np.nan, backend), x, TIMES, None), TIMES, every)
    unwatched = warnings.catch_warnings(action="ignore", category=NotFiniteWarning)  # that of simulate
    with unwatched, pytest.raises(NotFiniteError, match=f"step {noticed} "):
        last(states)


def test_watch_names_five_rows_at_most_and_counts_all():
    bad = np.full((9, 2), np.nan)
    with pytest.raises(NotFiniteError, match=r"9 of 9 rows are not finite, the first: \[0, 1, 2, 3, 4\]"):
        last(watch([bad], [1.0, 0.0]))


def test_watch_passes_the_states_on_untouched():
    def states():
        yield from kept

    kept = [np.full((2, 2), float(n)) for n in range(3)]
    assert all(a is b for a, b in zip(watch(states(), GRID), kept, strict=True))
    stay = list(watch(simulate(Stay(), X, GRID, None), GRID, every=2))
    assert all(x is X for x in stay)


@pytest.mark.parametrize("every", [0, -1])
def test_watch_refuses_to_look_never_at_the_call(every):
    with pytest.raises(ValueError, match=f"every must be an integer of at least 1, got {every}"):
        watch(iter(()), GRID, every)
