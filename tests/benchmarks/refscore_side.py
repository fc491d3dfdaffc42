"""The workloads in refscore, as a reader of the book would write them.

    refscore          the public functions, nothing else
    refscore-fast     W3-mixture with `FastExactScore`, two matrix products
    refscore-workers  W2 with the batch shared by two processes

Where this differs from the definitions: nowhere in the arithmetic of the network. W1 runs inside `fit`,
which also measures the gradient's norm, as it does for every user. Noise levels are told by t, from which the
SDE computes σ, where the peers draw log σ itself; the law of σ is the same. The network answers with the
noise, the peers' with minus the noise, so the last layer's weights have the other sign.
"""

import importlib
import math
import os
from concurrent.futures import ProcessPoolExecutor
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
from refscore.training.parallel import Sharded
from refscore_backends import get, keep_memory

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


def unet_shared():
    """W2 by two processes, half of the batch each, with one BLAS thread."""
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    executor = ProcessPoolExecutor(2, get_context("spawn"), keep_memory)
    objective = Sharded(Denoising(times=UniformLogSigma()), 2, executor)
    return trained(UNET, objective, w.images(), unet_theta(), w.UNET_BATCH)


# ---- W4 -----------------------------------------------------------------------------------------

SLICED = Sliced(weight=sigma_squared, times=UniformLogSigma())  # one Rademacher probe, variance-reduced

# ---- W3 -----------------------------------------------------------------------------------------

PROCESS = VP(w.BETA_MIN, w.BETA_MAX)


class Quiet:
    """A generator whose normal numbers are all zero: what the checks use for steps without noise."""

    def standard_normal(self, size=None, dtype="float64"):
        """Zeros."""
        return BACKEND.xp.zeros(size, dtype=dtype)


def sampling(score, path):
    """Fifty steps of the reverse SDE; returns the samples."""
    step, times, start = EulerMaruyama(Reverse(PROCESS, score)), path.times(), BACKEND.asarray(w.prior())
    rng = Quiet() if path.quiet else BACKEND.rng(seed=0)
    step = COMPILE(step) if COMPILE else step

    return lambda: last(simulate(step, start, times, rng))


def network(path=w.TIMED):
    """W3-net: a score model bound to its weights."""
    model = ScoreModel(BODY, PROCESS, data_std=w.DATA_STD)
    return sampling(model.bind(theta(model)), path)


def mixture(path=w.TIMED, exact=ExactScore):
    """W3-mixture: the exact score in the network's place."""
    law = GaussianMixture(*(BACKEND.asarray(a, "float32") for a in (w.WEIGHTS, w.MEANS, w.STDS**2)))
    return sampling(exact(law, PROCESS), path)


VARIANTS = {
    "refscore": {"W1": training, "W2": unet, "W3-net": network, "W3-mixture": mixture, "W4": lambda: training(SLICED)},
    "refscore-workers": {"W2": unet_shared},
    "refscore-fast": {"W3-mixture": lambda path=w.TIMED: mixture(path, FastExactScore)},
}


def describe():
    """Version and back end."""
    library = importlib.import_module("cupy" if BACKEND.name == "cupy" else "numpy")
    return f"refscore {__version__}, {library.__name__} {library.__version__}"


def set_threads(threads):
    """Nothing to do: the library has no threads, and BLAS reads its number from the environment."""


def wait(result):
    """A GPU may still be at work."""
    BACKEND.synchronize()


def gradient(x0, log_sigma, noise):
    """W1's loss and gradient at the initial weights, under the names and signs of `workloads`."""
    t = TRAINED.sde.time_at_log_ratio(log_sigma)
    return _named(*Denoising().at(TRAINED, theta(TRAINED), x0, t, noise))


def unet_gradient(x0, log_sigma, noise):
    """W2's loss and gradient, likewise."""
    t = UNET.sde.time_at_log_ratio(log_sigma)
    value, vector = Denoising().at(UNET, unet_theta(), x0, t, noise)
    grads = views(vector, UNET.shapes)
    return float(value), grads | {name: -grads[name] for name in ("last.W", "last.b")}


def sliced_gradient(x0, log_sigma, noise, v):
    """W4's loss and gradient, likewise."""
    t = TRAINED.sde.time_at_log_ratio(log_sigma)
    return _named(*SLICED.at(TRAINED, theta(TRAINED), noised(TRAINED.sde, x0, t, noise), t, v[None, ...]))


def _named(value, vector):
    grads = views(vector, TRAINED.shapes)
    named = {f"{name}{k}": grads[f"dense{k + 1}.{name}"] for k in range(w.DEPTH) for name in "WTb"}
    return float(value), named | {"head": -grads["head.W"], "bias": -grads["head.b"]}
