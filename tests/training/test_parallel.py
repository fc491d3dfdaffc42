"""Sharded training: the mean of the shards, the same bits for any workers, and resumed as any other; ranks, too."""

import re
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from copy import deepcopy
from multiprocessing import get_context
from threading import Barrier

import numpy as np
import pytest

from refscore import MLP, VP, Adam, Denoising, ScoreModel, fit, last, load, save
from refscore.matching.times import UniformTime
from refscore.training.parallel import Sharded
from tests.oracles.book import ROOT
from tests.oracles.close import assert_close
from tests.oracles.ranks import mpiexec

MODEL = ScoreModel(MLP((2, 8, 2), embed=4, classes=3, dropout=0.1), VP())
RNG = np.random.default_rng(0)
DATA = RNG.standard_normal((40, 2)), np.arange(40) % 3
LOSS = Denoising(times=UniformTime(0.01))


def train(executor=None, steps=6, rng=None, comm=None, loss=LOSS, **more):
    rng = np.random.default_rng(1) if rng is None else rng
    return last(fit(MODEL, Sharded(loss, 4, executor, comm), DATA, Adam(1e-2), rng, steps=steps, batch=8, **more))


def test_loss_and_gradient_are_the_means_of_the_shards():
    theta, (x, labels) = MODEL.init(RNG, "float64"), DATA
    found = Sharded(LOSS, 4)(MODEL.told(labels), theta, x, np.random.default_rng(5))
    rngs = np.random.default_rng(5).spawn(4)
    parts = [LOSS(MODEL.told(labels[i : i + 10]), theta, x[i : i + 10], rngs[i // 10]) for i in range(0, 40, 10)]
    for n in (0, 1):
        assert_close(found[n], np.mean([part[n] for part in parts], axis=0), 1e-13 * (1 + np.abs(found[n])))


def test_any_workers_train_in_the_same_bits():
    alone = train().theta
    with ThreadPoolExecutor(3) as threads:
        assert np.array_equal(alone, train(threads).theta)
    with ProcessPoolExecutor(1, get_context("spawn")) as processes:
        assert np.array_equal(alone, train(processes).theta)


def test_a_sharded_run_goes_on_in_the_same_bits(tmp_path):
    """A generator that has spawned remembers it, in the file as well."""
    rng = np.random.default_rng(1)
    state = train(steps=3, rng=rng)
    save(tmp_path / "run.npz", MODEL, state, optimizer=Adam(1e-2), rng=rng)
    kept = load(tmp_path / "run.npz")
    assert np.array_equal(train(steps=3, rng=kept.rng, start=kept.state).theta, train().theta)


def test_shards_that_do_not_divide_the_batch_are_refused():
    with pytest.raises(ValueError, match="4 shards do not divide a batch of 10"):
        last(fit(MODEL, Sharded(LOSS, 4), DATA, Adam(1e-2), np.random.default_rng(0), steps=1, batch=10))
    with pytest.raises(ValueError, match="shards must be an integer of at least 1, got 0"):
        Sharded(LOSS, 0)


# ------------------------------------------------------------------ ranks


class Rank:
    """A rank of MPI that is a thread: `given` holds what each of them brought."""

    def __init__(self, rank, given, barrier):
        self.rank, self.given, self.barrier = rank, given, barrier

    def Get_rank(self):
        return self.rank

    def Get_size(self):
        return len(self.given)

    def Allreduce(self, own, total):
        self.given[self.rank] = own
        self.barrier.wait(20)
        total[...] = sum(self.given)
        self.barrier.wait(20)


def on_ranks(n, work):
    """work(rank, comm) on n ranks."""
    given, barrier = [None] * n, Barrier(n)
    with ThreadPoolExecutor(n) as threads:
        return list(threads.map(work, range(n), [Rank(i, given, barrier) for i in range(n)]))


class Failing:
    """The loss, until its rank fails in its 5th call."""

    calls = 0

    def __call__(self, *args):
        self.calls += 1
        if self.calls == 5:
            raise FloatingPointError("something that only this rank has seen")
        return LOSS(*args)


@pytest.mark.parametrize("n", [1, 2, 4])
def test_any_number_of_ranks_trains_the_same_weights(n):
    """In each rank the same bits, and for any number the same but for the order of sums of four."""
    alone, made = train(), on_ranks(n, lambda rank, comm: train(comm=comm))
    for state in made:
        assert np.array_equal(state.theta, made[0].theta)
        assert_close(state.theta, alone.theta, 1e-12)
        assert_close(state.loss, alone.loss, 1e-12)


def test_another_number_of_ranks_goes_on():
    rngs = [np.random.default_rng(1) for _ in range(2)]
    half, *_ = on_ranks(2, lambda rank, comm: train(comm=comm, steps=3, rng=rngs[rank]))
    four = [deepcopy(rngs[0]) for _ in range(4)]
    whole, *_ = on_ranks(4, lambda rank, comm: train(comm=comm, steps=3, rng=four[rank], start=half))
    assert_close(whole.theta, train().theta, 1e-12)


def test_a_rank_does_its_part_and_no_more():
    counted = [Failing(), Failing()]
    on_ranks(2, lambda rank, comm: train(comm=comm, steps=2, loss=counted[rank]))
    assert [each.calls for each in counted] == [4, 4]


def test_ranks_that_do_not_train_the_same_are_refused():
    start = MODEL.init(np.random.default_rng(0), "float64")
    with pytest.raises(ValueError, match="the ranks have different batches: give all of them the same seed"):
        on_ranks(2, lambda rank, comm: train(comm=comm, rng=np.random.default_rng(rank), start=start))
    with pytest.raises(ValueError, match="the ranks have different parameters"):
        on_ranks(2, lambda rank, comm: train(comm=comm, start=start + rank * 1e-3))
    with pytest.raises(ValueError, match="3 ranks do not divide 4 shards"):
        Sharded(LOSS, 4, comm=Rank(0, [None] * 3, None))


@pytest.mark.parametrize("n", [2, 4])
def test_ranks_of_mpi_train_the_same_weights(n, tmp_path):
    assert mpiexec(n, "mpi4py", __file__, tmp_path).returncode == 0
    made = [np.load(tmp_path / f"{rank}.npy") for rank in range(n)]
    assert all(np.array_equal(theta, made[0]) for theta in made)
    assert_close(made[0], train().theta, 1e-12)


def test_a_rank_that_fails_ends_the_job_with_its_message(tmp_path):
    """The other one would wait for it for ever."""
    ended = mpiexec(2, "mpi4py", __file__, tmp_path, "failing")
    assert ended.returncode != 0
    assert "something that only this rank has seen" in ended.stderr
    assert not list(tmp_path.iterdir())


def test_the_program_of_the_page_runs_on_two_ranks(tmp_path, monkeypatch):
    page = (ROOT / "docs" / "several-processors.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"^```py\n(.*?)^```", page, flags=re.S | re.M)
    (tmp_path / "program.py").write_text(program, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert mpiexec(2, "mpi4py", "program.py").returncode == 0
    two = np.load("theta.npy")
    assert mpiexec(1, "mpi4py", "program.py").returncode == 0
    assert_close(np.load("theta.npy"), two, 1e-4)  # fifty steps in float32


if __name__ == "__main__":
    from mpi4py import MPI

    own, rank = MPI.COMM_WORLD, MPI.COMM_WORLD.Get_rank()
    state = train(comm=own, loss=Failing() if rank and sys.argv[2:] else LOSS)
    np.save(f"{sys.argv[1]}/{rank}.npy", state.theta)
