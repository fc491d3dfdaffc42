"""Random programs: as plain NumPy, recorded, planned, and as kernels through the host's C++ compiler."""

import array_api_compat.numpy as xp_numpy
import numpy as np
import pytest

from refscore_backends.recorded.compiled import Compiled
from refscore_backends.recorded.plain import build
from tests.oracles.cuda_on_host import COMPILER, planned
from tests.oracles.plan_on_host import as_, line_by_line, step_by_step
from tests.oracles.random_programs import arguments, random_function

HUNDRED = range(100)


def as_program(function):
    return Compiled(function, lambda program: build(program, xp_numpy), lambda: np.random.default_rng(0))


def answers(way, arrays, t, n):
    """All arrays and numbers of an answer; a branch on t is taken or not."""
    with np.errstate(all="ignore"):
        made = way(arrays, t, n, np.random.default_rng(3))
    return [np.asarray(x) for x in (*made["some"], made["number"], made["last"][0])]


def same_bits(found, wanted, which):
    for a, b in zip(found, wanted, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype), which
        assert np.array_equal(a, b, equal_nan=a.dtype.kind == "f"), which


def check_program(seed):
    function, (arrays, t, n, _) = random_function(seed, whole=seed % 2 == 1), arguments(seed)
    recorded, lines, steps = as_program(function), as_(line_by_line, function), as_(step_by_step, function)
    for time in dict.fromkeys((t, 0.7, 0.2)):
        same_bits(answers(recorded, arrays, time, n), answers(function, arrays, time, n), ("recorded", seed, time))
        same_bits(answers(steps, arrays, time, n), answers(lines, arrays, time, n), ("planned", seed, time))


def check_kernels(seed):
    function, (arrays, t, n, _) = random_function(seed, whole=seed % 2 == 1), arguments(seed)
    for found, wanted in zip(answers(planned(function), arrays, t, n), answers(function, arrays, t, n), strict=True):
        assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype), seed
        if wanted.dtype.kind in "bi":  # at a tie rounding decides
            assert np.mean(found != wanted) < 0.2 if wanted.size else True, seed
            continue
        sound = np.isfinite(wanted)
        assert np.array_equal(found[~sound], wanted[~sound], equal_nan=True), seed
        eps = 1e-9 if wanted.dtype == "float64" else 1e-3
        assert np.all(abs(found[sound] - wanted[sound]) <= eps * (1 + abs(wanted[sound]))), seed


@pytest.mark.parametrize("hundred", range(3))
def test_random_programs_recorded_and_planned(hundred):
    for seed in HUNDRED:
        check_program(100 * hundred + seed)


@pytest.mark.slow
@pytest.mark.parametrize("hundred", range(3, 33))
def test_many_random_programs_recorded_and_planned(hundred):
    for seed in HUNDRED:
        check_program(100 * hundred + seed)


kernels = pytest.mark.skipif(COMPILER is None, reason="the kernels are compiled by a C++ compiler, and there is none")


@kernels
@pytest.mark.parametrize("seed", range(4))
def test_random_programs_as_kernels(seed):
    check_kernels(seed)


@kernels
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4, 200))
def test_many_random_programs_as_kernels(seed):
    check_kernels(seed)
