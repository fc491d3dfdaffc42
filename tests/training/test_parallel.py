"""Sharded training: the mean of the shards, the same bits for any workers, and resumed as any other."""

from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest

from refscore import MLP, VP, Adam, Denoising, ScoreModel, fit, last, load, save
from refscore.matching.times import UniformTime
from refscore.training.parallel import Sharded
from tests.oracles.close import assert_close

MODEL = ScoreModel(MLP((2, 8, 2), embed=4, classes=3, dropout=0.1), VP())
RNG = np.random.default_rng(0)
DATA = RNG.standard_normal((40, 2)), np.arange(40) % 3
LOSS = Denoising(times=UniformTime(0.01))


def train(executor=None, steps=6, rng=None, **more):
    rng = np.random.default_rng(1) if rng is None else rng
    return last(fit(MODEL, Sharded(LOSS, 4, executor), DATA, Adam(1e-2), rng, steps=steps, batch=8, **more))


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
    with ProcessPoolExecutor(2, get_context("spawn")) as processes:
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
