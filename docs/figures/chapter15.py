"""The figures of chapter 15: python docs/figures/chapter15.py

15-levels.png      digits with noise, and the mean clean image: by the network, and by memory
15-samples.png     samples by class, and the training image nearest to each
15-guidance.png    one class a row, guided with weight 0, 1 and 3
15-inpainting.png  upper halves of held-out digits, and lower halves by replacement
15-errors.svg      the error of denoising by noise level: on new images and on those of the training
15-passing.svg     from the law to the points: both distances in the course of training, for 16 to 1024 points

The network is trained first (minutes) and kept beside the pictures, in 15-digits.npz.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from where import HERE

from refscore.experiments.digits import (
    Trained,
    denoised,
    denoising_errors,
    draw,
    grey,
    kept,
    lower_half,
)
from refscore.experiments.memorising import course
from refscore.measure.neighbours import nearest
from refscore.plots import EXACT, INK, LEARNED, figure, save, tiles

SEED = 0
RATIOS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0)


def show(ax: Any, images: Any, columns: int, title: str) -> None:
    """Images in [-1, 1] on a sheet, dark on light."""
    ax.imshow(tiles(0.5 * (1 - np.clip(images, -1, 1)), columns)[..., 0], cmap="gray", vmin=0, vmax=1)
    ax.set_title(title, fontsize=10)
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


def one_each(labels: Any, classes: Sequence[int]) -> list[int]:
    """The index of the first image of each class."""
    return [int(np.argmax(labels == k)) for k in classes]


def levels(trained: Trained, path: Path = HERE / "15-levels.png") -> str:
    data, sde, rng = trained.data, trained.model.sde, np.random.default_rng(SEED)
    x0 = data.held_out[one_each(data.held_out_labels, (2, 5, 8))]
    rows = []
    for ratio in RATIOS:
        t = float(sde.time_at_log_ratio(np.log(ratio)))
        x = float(sde.alpha(t)) * x0 + float(sde.sigma(t)) * rng.standard_normal(x0.shape, dtype="float32")
        noisy = x / float(sde.alpha(t)) / max(1.0, 1.5 * ratio)  # less contrast, or it would be black and white
        rows.append([noisy, *denoised(trained, x, t)])
    sheet = np.concatenate([images for kind in zip(*rows, strict=True) for images in kind])
    fig, ((ax,),) = figure(1, size=9.0)
    show(ax, sheet, 3 * len(RATIOS), "")
    ax.set_yticks([4, 13, 22], ["with noise", "network", "memory"])
    ax.set_xticks(27 * np.arange(len(RATIOS)) + 13, [f"σ/α = {ratio:g}" for ratio in RATIOS])
    ax.tick_params(length=0, labelbottom=False, labeltop=True)
    return save(fig, path)


def samples(trained: Trained, path: Path = HERE / "15-samples.png") -> str:
    data, rng = trained.data, np.random.default_rng(SEED + 1)
    made = grey(data, draw(trained, np.tile(np.arange(10), 8), rng))
    _, which = nearest(made, data.x)
    fig, (axes,) = figure(2, size=4.6)
    show(axes[0], made, 10, "samples, one class a column")
    show(axes[1], data.x[which], 10, "the nearest training images")
    return save(fig, path)


def guided(trained: Trained, path: Path = HERE / "15-guidance.png") -> str:
    fig, (axes,) = figure(3, size=3.6)
    fig.get_layout_engine().set(wspace=0.06)
    labels = np.repeat([3, 5, 8, 9], 10)
    for ax, w in zip(axes, (0.0, 1.0, 3.0), strict=True):
        made = grey(trained.data, draw(trained, labels, np.random.default_rng(SEED + 2), weight=w))
        show(ax, made, 10, f"w = {w:g}")
    return save(fig, path)


def inpainted(trained: Trained, path: Path = HERE / "15-inpainting.png") -> str:
    data, rng = trained.data, np.random.default_rng(SEED + 3)
    x = data.held_out[one_each(data.held_out_labels, range(10))]
    known = np.where(np.arange(8)[:, None, None] < 4, x, -1)
    rows = [x, known, *(lower_half(data, x, trained, rng, moves) for moves in (1, 1, 1, 20, 20, 20))]
    words = ["truth", "known", *["1 move"] * 3, *["20 moves"] * 3]
    fig, ((ax,),) = figure(1, size=5.0)
    show(ax, np.concatenate(rows), 10, "")
    ax.set_yticks(9 * np.arange(len(rows)) + 4, words)
    ax.tick_params(length=0)
    return save(fig, path)


def errors(trained: Trained, path: Path = HERE / "15-errors.svg") -> str:
    ratios = np.geomspace(0.05, 10, 16)
    found = denoising_errors(trained, ratios, SEED)
    fig, ((ax,),) = figure(1, size=4.8)
    words = ("network, new images", "network, training images", "memory, new images", "memory, training images")
    for row, color, style, label in zip(found, (LEARNED, LEARNED, EXACT, EXACT), ("-", "--") * 2, words, strict=True):
        ax.loglog(ratios, row, style, color=color, label=label)
    ax.loglog(ratios, ratios, ":", color=INK, lw=0.9, label="the noise itself")
    ax.set(xlabel="σ/α", ylabel="error of a pixel", ylim=(0.02, 1.0))
    ax.legend(fontsize=8)
    for ratio, row in zip(ratios, found.T, strict=True):
        print(f"σ/α {ratio:6.3f}: {row.round(3)}")
    return save(fig, path)


def passing(path: Path = HERE / "15-passing.svg", steps: int = 10_000) -> str:
    fig, (axes,) = figure(4, size=3.3)
    for ax, n in zip(axes, (16, 64, 256, 1024), strict=True):
        run = course(SEED, n, steps)
        ax.loglog(run.steps, run.truth, "o-", ms=3, color=EXACT, label="from the truth, on fresh data")
        ax.loglog(run.steps, run.memory, "s-", ms=3, color=LEARNED, label="from memory, on the points")
        ax.axhline(run.memory_of_truth, color=LEARNED, lw=0.9, ls="--", label="of the truth, from memory")
        ax.axhline(run.truth_of_memory, color=EXACT, lw=0.9, ls="--", label="of memory, from the truth")
        if np.isfinite(run.crossing):
            ax.axvline(run.crossing, color=INK, lw=0.9, ls=":")
        ax.set(title=f"{n} points", xlabel="step of training", ylim=(0.03, 60))
        print(f"{n} points: nearest to the truth at step {run.best}: {run.truth.min():.3g}; at the end from the truth"
              f" {run.truth[-1]:.3g} (memory {run.truth_of_memory:.3g}), from memory {run.memory[-1]:.3g} (the truth"
              f" {run.memory_of_truth:.3g}); crossing {run.crossing:g}; copies {run.copies.share.value:.3f}"
              f" ± {run.copies.share.error:.3f}")  # fmt: skip
    axes[0].set_ylabel("excess loss")
    axes[-1].legend(fontsize=7, loc="upper right")
    return save(fig, path)


if __name__ == "__main__":
    trained = kept(HERE / "15-digits.npz", SEED)
    for draw_one in (levels, samples, guided, inpainted, errors):
        print(draw_one(trained))
    print(passing())
