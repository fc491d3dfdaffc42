"""Shards of samples: the same for any number and kind of workers."""

from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest

from refscore import VP, EulerMaruyama, ExactScore, Reverse, last, prior, simulate
from refscore.laws.examples import mixture
from refscore.sampling.shards import in_shards

SDE = VP()
STEP = EulerMaruyama(Reverse(SDE, ExactScore(mixture("tilted"), SDE)))


def draw(n, rng):
    return last(simulate(STEP, prior(SDE, (n, 2), rng, np.float64), [1.0, 0.6, 0.2, 0.05], rng))


def shards(workers, n=50, size=16, seed=3):
    return in_shards(draw, n, np.random.default_rng(seed), workers, size)


def test_any_number_and_kind_of_workers_draws_the_same_samples():
    one = shards(1)
    assert one.shape == (50, 2)
    assert len(np.unique(one, axis=0)) == 50
    assert np.array_equal(one, shards(3))
    with ThreadPoolExecutor(2) as threads:
        assert np.array_equal(one, shards(threads))
    with ProcessPoolExecutor(2, get_context("spawn")) as processes:
        assert np.array_equal(one, shards(processes))


def test_a_chunk_does_not_depend_on_how_many_follow():
    assert np.array_equal(shards(2, n=32), shards(2, n=64)[:32])


def test_without_workers_there_is_one_stream():
    assert np.array_equal(shards(None), draw(50, np.random.default_rng(3)))


def test_what_a_worker_cannot_do_is_said(any_backend):
    class Failing:
        def __call__(self, n, rng):
            raise FloatingPointError("in a shard")

    with pytest.raises(FloatingPointError, match="in a shard"):
        in_shards(Failing(), 9, np.random.default_rng(0), 2, 4)
    with pytest.raises(ValueError, match="workers must be an integer of at least 1, got 0"):
        shards(0)
    with pytest.raises(TypeError, match="can spawn others, as NumPy's; got object"):
        in_shards(draw, 9, object(), 2)
