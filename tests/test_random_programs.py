"""Random programs: as plain NumPy, recorded, planned, and as kernels through the host's C++ compiler."""

import numpy as np
import pytest

from tests.oracles.cuda_on_host import as_program, needs_compiler, planned
from tests.oracles.plan_on_host import as_, line_by_line, step_by_step
from tests.oracles.random_programs import arguments, random_function

HUNDRED = range(100)


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
    single = any(a.dtype == "float32" for a in arrays)  # C's exp and NumPy's differ in its last bit
    eps = 1e-3 if single else 1e-9
    for found, wanted in zip(answers(planned(function), arrays, t, n), answers(function, arrays, t, n), strict=True):
        assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype), seed
        if wanted.dtype.kind in "bi":  # at a tie rounding decides
            assert np.mean(found != wanted) < 0.2 if wanted.size else True, seed
            continue
        sound = np.isfinite(wanted)
        assert np.array_equal(found[~sound], wanted[~sound], equal_nan=True), seed
        assert np.all(abs(found[sound] - wanted[sound]) <= eps * (1 + abs(wanted[sound]))), seed


@pytest.mark.parametrize("hundred", range(1))
def test_random_programs_recorded_and_planned(hundred):
    for seed in HUNDRED:
        check_program(100 * hundred + seed)


@pytest.mark.slow
@pytest.mark.parametrize("hundred", range(1, 33))
def test_many_random_programs_recorded_and_planned(hundred):
    for seed in HUNDRED:
        check_program(100 * hundred + seed)


@needs_compiler
@pytest.mark.parametrize("seed", range(4))
def test_random_programs_as_kernels(seed):
    check_kernels(seed)


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4, 200))
def test_many_random_programs_as_kernels(seed):
    check_kernels(seed)
