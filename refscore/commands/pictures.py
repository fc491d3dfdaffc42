"""Pictures of samples: a sheet of images, a cloud of points."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from refscore.commands.drawing import Drawing
from refscore.data.files import save_bytes
from refscore.data.sets import Data
from refscore.plots import LEARNED, figure, png, tiles
from refscore.protocols import Array
from refscore_backends import Backend

SHOWN, POINTS, STEPS = 64, 2000, 20  # steps of the sampler, for a look


def needs_pillow() -> None:
    """Raise ValueError, saying what to install, where no picture can be written."""
    try:
        import matplotlib  # noqa: F401
        import PIL  # noqa: F401
    except ImportError as error:
        raise ValueError(
            'pictures need matplotlib: pip install -e ".[plots]" in the checkout, or write .npy'
        ) from error


def in_unit(x: Any) -> Any:
    """Images in the units of the network, [-1, 1], as numbers in [0, 1]."""
    return np.clip(0.5 * (x + 1), 0, 1)


def picture(
    model: Any, theta: Array, data: Data, backend: Backend, out: Path, step: int, say: Callable[[str], None]
) -> bool:
    """Draw a few samples of a model in training, `samples-STEP.png`; returns whether there is more to expect.

    Parameters
    ----------
    model : ScoreModel or EnergyModel
        The model.
    theta : Array
        Its parameters.
    data : Data
        What it learns.
    backend : Backend
        Where the arrays are.
    out : Path
        The folder.
    step : int
        Of training.
    say : callable
        Takes a line.

    Returns
    -------
    bool
        False where no picture can be drawn.
    """
    if data.kind == "points" and data.x.shape[1] != 2:
        return False
    try:
        needs_pillow()
    except ValueError as error:
        say(f"no pictures: {error}")
        return False
    n = SHOWN if data.kind == "images" else POINTS
    labels = np.arange(n) % model.classes if model.classes else None
    if data.given:
        labels = data.labels[np.arange(n) % len(data.labels)]
    *_, last = Drawing(model, theta, data.x.shape[1:], backend, steps=STEPS)(n, backend.rng(0), labels)
    x = backend.to_numpy(last)
    if not np.isfinite(x).all():
        say(f"no picture at step {step}: samples are not finite")
        return True
    path = out / f"samples-{step:06d}.png"
    if data.kind == "images":
        columns = model.classes if 1 < model.classes <= 16 else math.isqrt(n)
        save_bytes(path, png(tiles(in_unit(x), columns), max(1, 40 // x.shape[1])))
    else:
        save_bytes(path, png(scatter(data.scaling.undo(x.astype("float64"))[None], data.columns)[0]))
    return True


def scatter(states: Any, columns: Sequence[str]) -> Any:
    """Points (states, N, 2) as frames (states, H, W, 3), numbers in [0, 1], all with the axes of the last."""
    low, high = states[-1].min(axis=0), states[-1].max(axis=0)
    margin = np.where(high > low, 0.1 * (high - low), 1.0)  # one point has no width
    frames = []
    for points in states:
        fig, ((ax,),) = figure(1)
        fig.set_dpi(110)
        ax.scatter(*points.T, s=2, color=LEARNED, linewidths=0)
        ax.set(xlabel=columns[0].replace("$", r"\$"), ylabel=columns[1].replace("$", r"\$"))
        ax.set(xlim=(low[0] - margin[0], high[0] + margin[0]), ylim=(low[1] - margin[1], high[1] + margin[1]))
        fig.canvas.draw()
        frames.append(np.asarray(fig.canvas.buffer_rgba())[..., :3] / 255)
    return np.stack(frames)
