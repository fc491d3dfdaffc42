"""A score model of images, and everything by which it is judged, as functions of a seed. Chapter 15.

The 1797 handwritten digits of 8 x 8 pixels (Alpaydin and Kaynak 1998) are small enough that one core trains a U-Net on
them in minutes, and are images all the same: nobody knows their density.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from refscore.data.sets import Data, load_data
from refscore.data.training import Dequantised
from refscore.laws.expectation import Estimate
from refscore.likelihood.flow import FixedSteps, bits_per_dim, log_likelihood
from refscore.matching.denoising import Denoising
from refscore.matching.probes import rademacher
from refscore.matching.times import UniformLogSNR
from refscore.matching.weights import g_squared
from refscore.measure.neighbours import Memorised, memorised, two_sample_test
from refscore.nn.score_model import ScoreModel
from refscore.nn.unet import UNet
from refscore.noise.grids import karras_times
from refscore.noise.prior import prior
from refscore.noise.reverse import denoise
from refscore.noise.sde import VP
from refscore.protocols import Score
from refscore.sampling.guidance import Guided, Replace
from refscore.sampling.loop import last, simulate
from refscore.sampling.transitions import SAMPLERS
from refscore.training.loop import fit
from refscore.training.optim import EMA, Adam, WarmupCosine

Array = Any
T_MIN = 1e-3  # least time of training, and where the likelihood begins
LEAST = 0.002  # noise/signal σ/α before the last step of a sampler, which denoises
OBJECTIVE = Denoising(weight=g_squared, times=UniformLogSNR(T_MIN), antithetic=True)


@dataclass(frozen=True, eq=False)
class Trained:
    """A network, its averaged parameters, what it was trained on, and its losses on the way."""

    data: Data
    model: ScoreModel
    theta: Array
    curve: Array  # (rows, 3): step, mean training loss since the last, held-out loss of the average

    def score(self, labels: Array | None = None, weight: float = 1.0) -> Score:
        """Its score without labels, told one label an image, or guided."""
        if labels is None or weight == 0:
            return self.model.bind(self.theta)
        told = self.model.bind(self.theta, np.asarray(labels))
        return told if weight == 1 else Guided(self.model.bind(self.theta), told, weight)


def network(data: Data, widths: tuple[int, ...]) -> ScoreModel:
    """A U-Net that predicts the noise, told the class or that there is none."""
    body = UNet(1, widths, embed=32, cond=4 * widths[0], classes=data.classes)
    return ScoreModel(body, VP(), data_std=data.std)


def train(
    seed: int, steps: int = 2500, widths: tuple[int, ...] = (24, 48), batch: int = 64, rate: float = 3e-3,
    show: Callable[[int, str], None] = lambda step, words: None,
) -> Trained:  # fmt: skip
    """Denoising score matching with the likelihood's weights, on all but a tenth of each digit."""
    data, rng = load_data("digits", seed=seed), np.random.default_rng(seed)
    model, ema = network(data, widths), EMA(min(0.999, 1 - 20 / (steps + 20)))
    adam = Adam(WarmupCosine(rate, steps, warmup=min(100, steps - 1), end=rate / 100))
    states = fit(
        model, OBJECTIVE, Dequantised(data.x, data.scaling, data.labels), adam, rng, steps=steps, batch=batch, ema=ema,
        max_norm=100.0, unlabelled=0.1,
    )  # fmt: skip
    total, curve, every = 0.0, [], max(1, steps // 25)
    for state in states:
        total += float(state.loss)
        if state.step % every == 0 or state.step == steps:
            done = curve[-1][0] if curve else 0
            theta = ema.mean(state.average)
            curve.append((state.step, total / (state.step - done), held_out_loss(data, model, theta, seed)))
            show(state.step, f"loss {curve[-1][1]:.4g}, held out {curve[-1][2]:.4g}")
            total = 0.0
    return Trained(data, model, theta, np.array(curve))


def held_out_loss(data: Data, model: ScoreModel, theta: Array, seed: int) -> float:
    """The loss on images that are not trained on, dequantised, always with the same noise."""
    rng = np.random.default_rng([seed, 1])
    x, labels = Dequantised(data.held_out, data.scaling, data.held_out_labels).sample(rng, 4 * len(data.held_out))
    return float(OBJECTIVE(model.told(labels), theta, x, rng)[0])


# ------------------------------------------------------------------ what it makes


def draw(
    trained: Trained, labels: Array | None, rng: Any, n: int = 0, weight: float = 1.0, steps: int = 40,
    sampler: str = "dpm-solver++2m", known: Array | None = None, mask: Array | None = None, moves: int = 1,
) -> Array:  # fmt: skip
    """New images (n, 8, 8, 1), one a label where there are labels; with a mask the masked pixels are the known ones."""
    sde, n = trained.model.sde, n if labels is None else len(labels)
    score = trained.score(labels, weight)
    step = SAMPLERS[sampler](sde, score)
    if known is not None:
        step = Replace(step, sde, known, mask, moves)
    times = [1.0, *karras_times(sde, steps, float(sde.sigma(1.0) / sde.alpha(1.0)), LEAST)[1:-1]]
    x = last(simulate(step, prior(sde, (n, *trained.data.x.shape[1:]), rng, trained.theta.dtype), times, rng))
    x = denoise(score, sde, x, times[-1])
    return x if known is None else np.where(mask, known, x)


def grey(data: Data, x: Array) -> Array:
    """The nearest images that a file could hold, in the units of the network."""
    return data.scaling.apply(data.scaling.undo(x)).astype(data.x.dtype)


# ------------------------------------------------------------------ how good it is


def bits(trained: Trained, x: Array, labels: Array | None, rng: Any, steps: int = 50, probes: int = 2) -> Estimate:
    """Bits per dimension of grey images, an upper bound: the flow's likelihood after dequantisation   Eq. (15.3)."""
    data = trained.data
    x = data.scaling.dequantise(x, rng.random(x.shape, dtype=x.dtype))
    found = log_likelihood(
        trained.model.bind(trained.theta, labels), trained.model.sde, x, t_min=T_MIN,
        probes=rademacher(rng, (probes, *x.shape), x.dtype), solve=FixedSteps(trained.model.sde, steps),
    )  # fmt: skip
    each = bits_per_dim(found.value.astype("float64"), x[0].size, data.scaling.width)
    return Estimate(float(each.mean()), float(each.std() / np.sqrt(len(each))))


@dataclass(frozen=True)
class Judged:
    """What can be said of a generator of images without their density."""

    bits: Estimate  # per dimension, held-out images
    bits_training: Estimate  # as many training images
    agreement: Estimate  # share of samples that a classifier gives the label they were made under
    agreement_held_out: Estimate  # and of real images
    copies: Memorised
    two_sample: Estimate  # accuracy in telling samples from held-out images
    two_sample_real: Estimate  # training images from held-out images


def judge(trained: Trained, classify: Callable[[Array], Array], seed: int, n: int = 500) -> Judged:
    """Judge by held-out images; `classify` takes images (n, 8, 8, 1) and answers with labels (n,)."""
    data, rng = trained.data, np.random.default_rng([seed, 2])
    some = rng.permutation(len(data.x))[: len(data.held_out)]
    labels = np.resize(np.arange(data.classes), n)
    samples = grey(data, draw(trained, labels, rng))
    beside = grey(data, draw(trained, data.held_out_labels, rng))  # of the same labels as the held-out images
    return Judged(
        bits(trained, data.held_out, data.held_out_labels, rng), bits(trained, data.x[some], data.labels[some], rng),
        share(classify(samples) == labels), share(classify(data.held_out) == data.held_out_labels),
        memorised(samples, data.x, data.held_out), two_sample_test(beside, data.held_out),
        two_sample_test(data.x[some], data.held_out),
    )  # fmt: skip


def share(right: Array) -> Estimate:
    """How often something is true, with the binomial standard error."""
    p = float(np.mean(right))
    return Estimate(p, float(np.sqrt(p * (1 - p) / len(right))))
