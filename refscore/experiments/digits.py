"""A score model of images, and everything by which it is judged, as functions of a seed. Chapter 15.

The 1797 handwritten digits of 8 x 8 pixels (Alpaydin and Kaynak 1998) are small enough that one core trains a U-Net on
them in minutes, and are images all the same: nobody knows their density.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from refscore.data.files import read_arrays, save_arrays
from refscore.data.sets import Data, load_data
from refscore.data.training import Dequantised
from refscore.laws.expectation import Estimate
from refscore.laws.mixture import GaussianMixture
from refscore.likelihood.flow import FixedSteps, bits_per_dim, log_likelihood
from refscore.matching.denoising import Denoising
from refscore.matching.probes import rademacher
from refscore.matching.times import UniformLogSNR
from refscore.matching.weights import g_squared
from refscore.measure.neighbours import Memorised, memorised, two_sample_test
from refscore.nn.score_model import ScoreModel
from refscore.nn.unet import UNet
from refscore.noise.exact_score import FastExactScore
from refscore.noise.grids import karras_times
from refscore.noise.prior import prior
from refscore.noise.reverse import denoise
from refscore.noise.sde import VP
from refscore.protocols import Score
from refscore.sampling.guidance import Guided, Replace
from refscore.sampling.loop import last, simulate
from refscore.sampling.transitions import SAMPLERS
from refscore.training.loop import TrainingState, fit
from refscore.training.optim import EMA, Adam, WarmupCosine

Array = Any
T_MIN = 1e-3  # least time of training, and where the likelihood begins
LEAST = 0.002  # noise/signal σ/α before the last step of a sampler, which denoises
WIDTHS = (24, 48)
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
    """A U-Net that predicts v, told the class or that there is none."""
    body = UNet(1, widths, embed=32, cond=4 * widths[0], classes=data.classes)
    return ScoreModel(body, VP(), data_std=data.std, predict="v")


def train(
    seed: int, steps: int = 4000, widths: tuple[int, ...] = WIDTHS, batch: int = 64, rate: float = 3e-3,
    show: Callable[[int, str], None] = lambda step, words: None,
) -> Trained:  # fmt: skip
    """Denoising score matching with the likelihood's weights, on all but a tenth of each digit."""
    data, rng = load_data("digits", seed=seed), np.random.default_rng(seed)
    model, ema = network(data, widths), EMA(min(0.999, 1 - 20 / (steps + 20)))
    adam = Adam(WarmupCosine(rate, steps, warmup=min(100, steps - 1), end=rate / 100))
    states = fit(
        model, OBJECTIVE, Dequantised(data.x, data.scaling, data.labels), adam, rng, steps=steps, batch=batch, ema=ema,
        max_norm=100.0, unlabelled=0.2,
    )  # fmt: skip
    curve: list[tuple[int, float, float]] = []
    total, every = 0.0, max(1, steps // 25)
    for state in states:
        total += float(state.loss)
        if state.step % every == 0 or state.step == steps:
            done = curve[-1][0] if curve else 0
            theta = _averaged(ema, state)
            curve.append((state.step, total / (state.step - done), held_out_loss(data, model, theta, seed)))
            show(state.step, f"loss {curve[-1][1]:.4g}, held out {curve[-1][2]:.4g}")
            total = 0.0
    return Trained(data, model, theta, np.array(curve))


def _averaged(ema: EMA, state: TrainingState) -> Array:
    assert state.average is not None
    return ema.mean(state.average)


def kept(path: Path, seed: int, **settings: Any) -> Trained:
    """A network that was kept in a file, or trained now and kept there; the file knows neither seed nor settings."""
    if not path.exists():
        made = train(seed, **settings)
        save_arrays(path, theta=made.theta, curve=made.curve)
    data, found = load_data("digits", seed=seed), read_arrays(path)
    return Trained(data, network(data, settings.get("widths", WIDTHS)), found["theta"], found["curve"])


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
    if known is not None and mask is not None:
        step = Replace(step, sde, known, mask, moves)
    times = [1.0, *karras_times(sde, steps, float(sde.sigma(1.0) / sde.alpha(1.0)), LEAST)[1:-1]]
    x = last(simulate(step, prior(sde, (n, *trained.data.x.shape[1:]), rng, trained.theta.dtype), times, rng))
    x = denoise(score, sde, x, times[-1])
    return x if known is None or mask is None else np.where(mask, known, x)


def grey(data: Data, x: Array) -> Array:
    """The nearest images that a file could hold, in the units of the network."""
    found: Array = data.scaling.apply(data.scaling.undo(x))  # float32, as the data are
    return found


# ------------------------------------------------------------------ how good it is


def bits(trained: Trained, x: Array, labels: Array | None, rng: Any, steps: int = 25, probes: int = 1) -> Estimate:
    """Bits per dimension of grey images, an upper bound: the flow's likelihood after dequantisation   Eq. (15.3)."""
    data = trained.data
    x = data.scaling.dequantise(x, rng.random(x.shape, dtype=x.dtype))
    found = log_likelihood(
        trained.model.bind(trained.theta, labels), trained.model.sde, x, t_min=T_MIN,
        probes=rademacher(rng, (probes, *x.shape), x.dtype), solve=FixedSteps(trained.model.sde, steps),
    )  # fmt: skip
    each = np.asarray(bits_per_dim(found.value, x[0].size, data.scaling.width), dtype="float64")
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


def bits_of_laws(data: Data, rng: Any) -> dict[str, tuple[float, float]]:
    """Bits per dimension of laws that need no network, on held-out and on training images, to compare with."""

    def of(log_prob: Callable[[Array], Array], x: Array) -> float:
        u: Array = data.scaling.dequantise(x.astype("float64"), rng.random(x.shape))
        return float(np.mean(bits_per_dim(log_prob(u.reshape(len(x), -1)), x[0].size, data.scaling.width)))

    flat, cell = data.x.reshape(len(data.x), -1).astype("float64"), data.scaling.width**2 / 12
    classes = []
    for k in range(data.classes):
        z = flat[data.labels == k]
        C = np.cov(z.T, bias=True) + cell * np.eye(z.shape[1])
        classes.append(GaussianMixture(np.ones(1), z.mean(axis=0)[None], C[None]))
    parts = (data.held_out, data.held_out_labels), (data.x, data.labels)

    def normal(x: Array, labels: Array) -> float:
        return float(sum(np.mean(labels == k) * of(p.log_prob, x[labels == k]) for k, p in enumerate(classes)))

    recall, some = memory(data).log_prob, data.x[: len(data.held_out)]
    return {
        "uniform": (float(np.log2(data.scaling.levels or 1)),) * 2,
        "normal": (normal(*parts[0]), normal(*parts[1])),
        "memory": (of(recall, data.held_out), of(recall, some)),
    }


# ------------------------------------------------------------------ denoising: the law, or memory


def memory(data: Data) -> GaussianMixture:
    """The law of the dequantised training images, each cell a normal law of its variance: what N points amount to."""
    x = data.x.reshape(len(data.x), -1).astype("float64")
    return GaussianMixture(np.full(len(x), 1 / len(x)), x, np.full(len(x), data.scaling.width**2 / 12))


def denoised(trained: Trained, x: Array, t: float) -> tuple[Array, Array]:
    """The clean image on average, given x at time t: as the network sees it, and as memory does        Eq. (15.1)."""
    sde, flat = trained.model.sde, x.reshape(len(x), -1).astype("float64")
    recalled = denoise(FastExactScore(memory(trained.data), sde), sde, flat, t)
    return denoise(trained.score(), sde, x, t), np.reshape(recalled, x.shape)


def denoising_errors(trained: Trained, ratios: Array, seed: int) -> Array:
    """Root mean square error of a pixel (4, ratios), where noise over signal is so much, without labels.

    Rows: the network on held-out and on as many training images, memory on the same two.
    """
    data, sde, rng = trained.data, trained.model.sde, np.random.default_rng([seed, 3])
    some = rng.permutation(len(data.x))[: len(data.held_out)]
    found = np.empty((4, len(ratios)))
    for j, ratio in enumerate(ratios):
        t = float(sde.time_at_log_ratio(np.log(ratio)))
        for i, clean in enumerate((data.held_out, data.x[some])):
            x0 = data.scaling.dequantise(clean, rng.random(clean.shape, dtype=clean.dtype))
            x = float(sde.alpha(t)) * x0 + float(sde.sigma(t)) * rng.standard_normal(x0.shape, dtype=x0.dtype)
            for k, guess in enumerate(denoised(trained, x, t)):
                found[2 * k + i, j] = np.sqrt(np.mean((guess - x0) ** 2))
    return found


# ------------------------------------------------------------------ under a condition


@dataclass(frozen=True)
class Condition:
    """Samples under labels with a weight of guidance."""

    weight: float
    agreement: Estimate  # share that a classifier gives the label they were made under
    spread: float  # root mean square distance to the mean of the class, over that of the training images
    two_sample: Estimate  # accuracy in telling them from held-out images


def guidance(trained: Trained, classify: Callable[[Array], Array], weight: float, seed: int, n: int = 500) -> Condition:
    """What a weight of guidance trades, Eq. (13.7)."""
    data, rng = trained.data, np.random.default_rng([seed, 4])
    labels = np.concatenate([data.held_out_labels, np.resize(np.arange(data.classes), n)])
    x = grey(data, draw(trained, labels, rng, weight=weight))
    first = len(data.held_out)
    return Condition(
        weight, share(classify(x) == labels), spread(x, labels) / spread(data.x, data.labels),
        two_sample_test(x[:first], data.held_out),
    )  # fmt: skip


def spread(x: Array, labels: Array) -> float:
    """Root mean square distance of images to the mean of their class."""
    classes = [x[labels == k] for k in np.unique(labels)]
    return float(np.sqrt(sum(np.sum((c - c.mean(axis=0)) ** 2) for c in classes) / len(x)))


@dataclass(frozen=True)
class Inpainted:
    """Lower halves, made to go with the upper halves of held-out images."""

    moves: int
    agreement: Estimate  # share that a classifier gives the label of the true image
    between: float  # root mean square difference of a pixel between two completions
    to_truth: float  # and between completion and truth: for samples of p(x | y) the same, Eq. (15.6)


def lower_half(data: Data, x: Array, trained: Trained, rng: Any, moves: int, labels: Array | None = None) -> Array:
    """Images whose upper half is that of x."""
    known = np.arange(x.shape[1])[:, None, None] < x.shape[1] // 2
    mask = np.broadcast_to(known, x.shape[1:])
    return grey(data, draw(trained, labels, rng, len(x), known=x, mask=mask, moves=moves))


def inpaint(
    trained: Trained, classify: Callable[[Array], Array], moves: int, seed: int, told: bool = False
) -> Inpainted:
    """Complete the held-out images twice, told their labels or not."""
    data, rng = trained.data, np.random.default_rng([seed, 5])
    x, labels = data.held_out, data.held_out_labels
    one, two = (lower_half(data, x, trained, rng, moves, labels if told else None) for _ in range(2))
    H = x.shape[1] // 2
    between, to_truth = (float(np.sqrt(np.mean((one - other)[:, H:] ** 2))) for other in (two, x))
    return Inpainted(moves, share(classify(one) == labels), between, to_truth)
