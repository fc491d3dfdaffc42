"""Shards of samples and of points: the same for any number and kind of workers."""

import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import Pool, get_context

import numpy as np
import pytest

from refscore import VP, EulerMaruyama, ExactScore, Reverse, last, log_likelihood, prior, simulate
from refscore.laws.examples import mixture
from refscore.likelihood.flow import FixedSteps
from refscore.matching.probes import rademacher
from refscore.sampling.shards import PerSample, in_shards, over_shards, pool
from tests.oracles.close import assert_close
from tests.oracles.ranks import mpiexec

SDE = VP()
SCORE = ExactScore(mixture("tilted"), SDE)
X = np.linspace(-4.0, 4.0, 60).reshape(30, 2)  # the same in every process


def draw(n, rng):
    step = EulerMaruyama(Reverse(SDE, SCORE))
    return last(simulate(step, prior(SDE, (n, 2), rng, np.float64), [1.0, 0.6, 0.2, 0.05], rng))


def shards(workers, n=50, size=16, seed=3):
    return in_shards(draw, n, np.random.default_rng(seed), workers, size)


def nats(probed, rows, rng):
    """Log likelihoods (m, 1) of X[rows], by probes of their own or exact."""
    x = X[rows]
    probes = rademacher(rng, (2, *x.shape), x.dtype) if probed else None
    return log_likelihood(SCORE, SDE, x, t_min=1e-3, probes=probes, solve=FixedSteps(SDE, 10)).value


def likelihood(workers, probed=True):
    return np.concatenate(over_shards(partial(nats, probed), 30, np.random.default_rng(1), workers, size=8))


class Own:
    """An executor of nobody's family: it does the last thing first."""

    def submit(self, f, *args):
        raise NotImplementedError

    def map(self, f, *iterables):
        return reversed([f(*each) for each in reversed(list(zip(*iterables, strict=True)))])


def test_one_worker_is_nobody_else():
    for workers in (None, 1):
        with pool(workers) as executor:
            assert executor is None
    with pool(2) as executor:
        assert executor._max_workers == 2


def test_any_number_and_kind_of_workers_draws_the_same_samples():
    one, points = shards(1), likelihood(1)
    assert one.shape == (50, 2)
    assert len(np.unique(one, axis=0)) == 50
    assert np.array_equal(one, shards(3))
    assert np.array_equal(points, likelihood(3))
    assert np.array_equal(one, shards(Own()))
    with ThreadPoolExecutor(2) as threads:
        assert np.array_equal(one, shards(threads))
    with ProcessPoolExecutor(1, get_context("spawn")) as processes:
        assert np.array_equal(one, shards(processes))
        assert np.array_equal(points, likelihood(processes))


def test_dask_s_executor_draws_the_same_samples():
    distributed = pytest.importorskip("distributed")
    with distributed.Client(processes=False, n_workers=1, threads_per_worker=2, dashboard_address=None) as client:
        assert np.array_equal(shards(1), shards(client.get_executor()))
        assert np.array_equal(likelihood(1), likelihood(client.get_executor()))


def test_mpi_s_executor_draws_the_same_samples(tmp_path):
    """This file run by three ranks: one submits, two work."""
    ended = mpiexec(3, "mpi4py.futures", __file__, tmp_path / "made.npz")
    assert ended.returncode == 0, ended.stderr
    with np.load(tmp_path / "made.npz") as made:
        assert np.array_equal(shards(1), made["samples"])
        assert np.array_equal(likelihood(1), made["points"])


def test_the_likelihood_of_shards_is_that_of_all_points_at_once():
    assert_close(likelihood(2, probed=False), nats(False, slice(30), None), 1e-12)
    assert len(np.unique(likelihood(None))) == 30


def test_a_chunk_does_not_depend_on_how_many_follow():
    assert np.array_equal(shards(2, n=32), shards(2, n=64)[:32])


def test_without_workers_there_is_one_stream():
    assert np.array_equal(shards(None), draw(50, np.random.default_rng(3)))


def test_a_generator_that_cannot_spawn_serves_all_chunks_of_one_worker():
    class Childless:
        def __init__(self):
            self.random = np.random.default_rng(3).random

    made = np.concatenate(
        over_shards(lambda rows, rng: rng.random((rows.stop - rows.start, 2)), 5, Childless(), size=2)
    )
    assert np.array_equal(made, np.random.default_rng(3).random((5, 2)))


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
    with Pool(1) as other, pytest.raises(ValueError, match=r"workers must be .*, got <multiprocessing\.pool\.Pool"):
        shards(other)


def test_a_sample_of_its_own_generator_is_the_same_in_every_batch():
    """Alone, among others, in another order; by every kind of draw; to rounding, as matrix products are."""
    make = lambda which: PerSample([np.random.default_rng([7, i]) for i in which])  # noqa: E731
    all_of, some = draw(6, make(range(6))), draw(3, make([4, 0, 2]))
    assert_close(some, all_of[[4, 0, 2]], 1e-12)
    assert len(np.unique(all_of, axis=0)) == 6
    one, two = make([3]), make([5, 3])
    for pull in (
        lambda rng, n: rng.random((n,), dtype="float32"),
        lambda rng, n: rng.integers(0, 1000, (n, 2)),
        lambda rng, n: rng.standard_normal((n, 3, 2), dtype="float32"),
    ):
        alone, beside = pull(one, 1), pull(two, 2)
        assert alone.dtype == beside.dtype
        assert np.array_equal(alone[0], beside[1])
        assert not np.array_equal(alone[0], beside[0])


def test_generators_and_samples_go_together():
    with pytest.raises(ValueError, match="got none"):
        PerSample([])
    with pytest.raises(ValueError, match=r"2 generators, one for each sample; asked for an array of shape \(3, 2\)"):
        draw(3, PerSample([np.random.default_rng(i) for i in range(2)]))


if __name__ == "__main__":
    from mpi4py.futures import MPIPoolExecutor

    with MPIPoolExecutor() as ranks:
        np.savez(sys.argv[1], samples=shards(ranks), points=likelihood(ranks))
