"""The workloads in refscore, as a reader of the book would write them.

    refscore              the public functions on NumPy's arrays, nothing else
    refscore-fast         W3-mixture with `FastExactScore`, two matrix products
    refscore-boxmuller    the same, its noise from the generator `BoxMuller`
    refscore-workers      W2 and W4 with the batch shared by two processes; W3-net by two threads, 512 samples at a time
    refscore-torch, refscore-jax   the same lines on arrays of PyTorch and JAX; W3-mixture is the fast form
    refscore-torch-compiled, refscore-jax-compiled   the same, `fit` and each step of the sampler compiled

The environment says which back end (REFSCORE_BACKEND) and whether it compiles (REFSCORE_COMPILE); `run.py` sets both.
Where this differs from the definitions: nowhere in the arithmetic of the network. W1 runs inside `fit`,
which also measures the gradient's norm, as it does for every user. Noise levels are told by t, from which the
SDE computes σ, where the peers draw log σ itself; the law of σ is the same. The network answers with the
noise, the peers' with minus the noise, so the last layer's weights have the other sign.
"""

import importlib
import math
import os
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import workloads as w

from refscore import (
    EMA,
    MLP,
    VE,
    VP,
    Adam,
    Denoising,
    EulerMaruyama,
    ExactScore,
    GaussianMixture,
    Reverse,
    ScoreModel,
    Sliced,
    UNet,
    __version__,
    fit,
    simulate,
)
from refscore.arrays import flat, views
from refscore.matching.base import noised
from refscore.matching.weights import sigma_squared
from refscore.noise.exact_score import FastExactScore
from refscore.sampling.loop import last
from refscore.sampling.shards import children
from refscore.training.parallel import Sharded
from refscore_backends import BoxMuller, get, keep_memory

__all__ = ["VARIANTS", "describe", "gradient", "keep_memory", "set_threads", "wait"]

BACKEND = get(os.environ.get("REFSCORE_BACKEND", "numpy"))
COMPILE = BACKEND.compile if os.environ.get("REFSCORE_COMPILE") else None
BODY = MLP((w.DIMENSION, *[w.WIDTH] * w.DEPTH, w.DIMENSION), embed=w.EMBEDDING)


def theta(model):
    """The common initial weights as the model's flat vector; minus the noise becomes the noise."""
    params = w.parameters()
    named = {f"dense{k + 1}.{name}": params[f"{name}{k}"] for k in range(w.DEPTH) for name in "WTb"}
    named |= {"head.W": -params["head"], "head.b": -params["bias"]}
    return BACKEND.asarray(flat(named, model.shapes))


# ---- W1 -----------------------------------------------------------------------------------------

TRAINED = ScoreModel(BODY, VE(sigma_min=w.SIGMA_MIN, sigma_max=w.SIGMA_MAX), data_std=w.DATA_STD)


@dataclass(frozen=True)
class UniformLogSigma:
    """W1's law of the times: log σ uniform, every draw counting the same."""

    low: float = math.log(w.SIGMA_MIN)
    high: float = math.log(w.SIGMA_MAX)
    atoms = None

    def at(self, sde, u):
        """u in [0, 1) -> t, and no reweighting."""
        return sde.time_at_log_ratio(self.low + u * (self.high - self.low)), 1.0


def training(objective=Denoising(times=UniformLogSigma())):  # noqa: B008
    """W1, or W4 with another objective: one step of `fit`; returns the loss."""
    return trained(TRAINED, objective, w.pool(), theta(TRAINED), w.BATCH)


def trained(model, objective, data, start, batch):
    """One step of `fit` a call."""
    states = fit(
        model,
        objective,
        BACKEND.asarray(data),
        Adam(w.LEARNING_RATE, b1=w.BETA1, b2=w.BETA2, eps=w.EPSILON),
        BACKEND.rng(seed=0),
        steps=10**9,
        batch=batch,
        ema=EMA(w.EMA_DECAY),
        start=BACKEND.asarray(start),
        compile=COMPILE,
    )
    return lambda: next(states).loss


# ---- W2 -----------------------------------------------------------------------------------------

UNET = ScoreModel(UNet(1, w.UNET_WIDTHS, embed=w.EMBEDDING, cond=w.UNET_COND, groups=w.GROUPS), TRAINED.sde, w.DATA_STD)


def unet_theta():
    """The common initial weights; minus the noise becomes the noise."""
    params = w.unet_parameters()
    return flat(params | {name: -params[name] for name in ("last.W", "last.b")}, UNET.shapes)


def unet():
    """W2: one step of `fit`; returns the loss."""
    return trained(UNET, Denoising(times=UniformLogSigma()), w.images(), unet_theta(), w.UNET_BATCH)


def shared(model, objective, data, start, batch):
    """One step of `fit` by two processes, half of the batch each."""
    executor = ProcessPoolExecutor(2, get_context("spawn"), keep_memory)
    return trained(model, Sharded(objective, 2, executor), data, start, batch)


def unet_shared():
    """W2 by two processes."""
    return shared(UNET, Denoising(times=UniformLogSigma()), w.images(), unet_theta(), w.UNET_BATCH)


# ---- W4 -----------------------------------------------------------------------------------------

SLICED = Sliced(weight=sigma_squared, times=UniformLogSigma())  # one Rademacher probe, variance-reduced


def sliced_shared():
    """W4 by two processes."""
    return shared(TRAINED, SLICED, w.pool(), theta(TRAINED), w.BATCH)


# ---- W3 -----------------------------------------------------------------------------------------

PROCESS = VP(w.BETA_MIN, w.BETA_MAX)


class Quiet:
    """A generator whose normal numbers are all zero: what the checks use for steps without noise."""

    def standard_normal(self, size=None, dtype="float64"):
        """Zeros."""
        return BACKEND.xp.zeros(size, dtype=dtype)


def walker(score, path):
    """Walk samples along the path, with the numbers of a generator."""
    step, times = EulerMaruyama(Reverse(PROCESS, score)), path.times()
    if COMPILE:  # the last state alone, by the library's own loop where it has one
        compiled = COMPILE(step)
        return lambda x, rng: compiled.walk(x, times, Quiet() if path.quiet else rng)
    return lambda x, rng: last(simulate(step, x, times, Quiet() if path.quiet else rng))


def sampling(score, path, rng=None):
    """Fifty steps of the reverse SDE; returns the samples."""
    walk, start, rng = walker(score, path), BACKEND.asarray(w.prior()), rng or BACKEND.rng(seed=0)
    return lambda: walk(start, rng)


def bound():
    """A score model with its weights."""
    model = ScoreModel(BODY, PROCESS, data_std=w.DATA_STD)
    return model.bind(theta(model))


def network(path=w.TIMED):
    """W3-net: a score model bound to its weights."""
    return sampling(bound(), path)


def network_shared(path=w.TIMED):
    """The same by two threads, 512 samples at a time."""
    walk, start, rng = walker(bound(), path), BACKEND.asarray(w.prior()), BACKEND.rng(seed=0)
    executor, shards = ThreadPoolExecutor(2), [start[i : i + 512, ...] for i in range(0, len(start), 512)]
    return lambda: BACKEND.xp.concat(list(executor.map(walk, shards, children(rng, len(shards)))))


def mixture(path=w.TIMED, exact=ExactScore, rng=None):
    """W3-mixture: the exact score in the network's place."""
    law = GaussianMixture(*(BACKEND.asarray(a, "float32") for a in (w.WEIGHTS, w.MEANS, w.STDS**2)))
    return sampling(exact(law, PROCESS), path, rng)


def mixture_fast(path=w.TIMED):
    """The same by two matrix products."""
    return mixture(path, FastExactScore)


def mixture_boxmuller(path=w.TIMED):
    """And with noise that costs half."""
    return mixture(path, FastExactScore, BoxMuller(BACKEND.rng(seed=0)))


ALL = {"W1": training, "W2": unet, "W3-net": network, "W3-mixture": mixture_fast, "W4": lambda: training(SLICED)}
VARIANTS = {
    "refscore": ALL | {"W3-mixture": mixture},
    "refscore-fast": {"W3-mixture": mixture_fast},
    "refscore-boxmuller": {"W3-mixture": mixture_boxmuller},
    "refscore-workers": {"W2": unet_shared, "W3-net": network_shared, "W4": sliced_shared},
    "refscore-torch": ALL,
    "refscore-jax": ALL,
    "refscore-torch-compiled": ALL,
    "refscore-jax-compiled": ALL,
}


def describe():
    """Version and back end."""
    library = importlib.import_module(BACKEND.name)
    return f"refscore {__version__}, {library.__name__} {library.__version__}{', compiled' if COMPILE else ''}"


def set_threads(threads):
    """Nothing to do: the library has no threads, and the environment tells BLAS and PyTorch their number."""


def wait(result):
    """JAX, or a GPU, may still be at work."""
    BACKEND.synchronize()


def gradient(x0, log_sigma, noise):
    """W1's loss and gradient at the initial weights, under the names and signs of `workloads`."""
    return _named(*_views(TRAINED, *_at(Denoising(), TRAINED, theta(TRAINED), log_sigma, x0, noise)))


def unet_gradient(x0, log_sigma, noise):
    """W2's loss and gradient, likewise."""
    value, grads = _views(UNET, *_at(Denoising(), UNET, BACKEND.asarray(unet_theta()), log_sigma, x0, noise))
    return value, grads | {name: -grads[name] for name in ("last.W", "last.b")}


def sliced_gradient(x0, log_sigma, noise, v):
    """W4's loss and gradient, likewise."""
    x0, noise, v = (BACKEND.asarray(a) for a in (x0, noise, v))
    t = TRAINED.sde.time_at_log_ratio(BACKEND.asarray(log_sigma))
    return _named(
        *_views(TRAINED, *SLICED.at(TRAINED, theta(TRAINED), noised(TRAINED.sde, x0, t, noise), t, v[None, ...]))
    )


def _at(objective, model, vector, log_sigma, *arrays):
    """Loss and gradient of an objective at given times and noise."""
    x0, noise = (BACKEND.asarray(a) for a in arrays)
    return objective.at(model, vector, x0, model.sde.time_at_log_ratio(BACKEND.asarray(log_sigma)), noise)


def _views(model, value, vector):
    grads = views(vector, model.shapes)
    return float(value), {name: BACKEND.to_numpy(grad) for name, grad in grads.items()}


def _named(value, grads):
    named = {f"{name}{k}": grads[f"dense{k + 1}.{name}"] for k in range(w.DEPTH) for name in "WTb"}
    return value, named | {"head": -grads["head.W"], "bias": -grads["head.b"]}
