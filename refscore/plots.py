"""Pictures. matplotlib is imported inside, so that everything else works without it."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from refscore.data.files import save_bytes

Vectors = Callable[[Any], Any]  # points (N, 2) -> vectors (N, 2), in NumPy
INK, LEARNED, EXACT, SHADE = "#1a1a2e", "#c8553d", "#2a6f97", "Blues"


def figure(columns: int, rows: int = 1, size: float = 4.0) -> tuple[Any, Any]:
    """An empty figure and its axes, drawn without a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    fig = Figure(figsize=(size * columns, size * rows), layout="constrained")
    FigureCanvasAgg(fig)
    return fig, fig.subplots(rows, columns, squeeze=False)


def save(fig: Any, path: Path) -> str:
    """Write an SVG if the name ends so, else a PNG of 220 dots an inch, whole or not at all; returns its name."""
    from matplotlib import rc_context

    f, svg = io.BytesIO(), path.suffix == ".svg"
    unknown = {"Date": None, "Creator": None} if svg else {"Software": None}  # no date, no version: reproducible bytes
    with rc_context({"svg.hashsalt": path.stem}):
        fig.savefig(f, format="svg" if svg else "png", dpi=220, bbox_inches="tight", metadata=unknown)
    save_bytes(path, f.getvalue())
    return str(path)


def density(ax: Any, log_prob: Callable[[Any], Any], box: tuple[float, float, float, float], n: int = 160) -> None:
    """Shade the density: darker is denser; square root, so that faint modes can be seen."""
    nodes, shape = grid(box, n)
    p = np.exp(log_prob(nodes)).reshape(shape)
    ax.imshow(np.sqrt(p).T, origin="lower", extent=box, cmap=SHADE, aspect="equal", interpolation="bilinear")
    ax.set(xlim=box[:2], ylim=box[2:], xlabel="$x_1$", ylabel="$x_2$")


def arrows(
    ax: Any, vectors: Vectors, box: tuple[float, float, float, float], unit: float, color: str, n: int = 21
) -> None:
    """A vector field; `unit` is the length that is drawn as one grid spacing, longer ones are cut to it."""
    nodes, _ = grid(box, n)
    v = vectors(nodes) / unit
    v = v * np.minimum(1, 1 / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-30))
    v = v * ((box[1] - box[0]) / n, (box[3] - box[2]) / n)
    ax.quiver(*nodes.T, *v.T, color=color, angles="xy", scale_units="xy", scale=1, width=0.004)


def grid(box: tuple[float, float, float, float], n: int) -> tuple[Any, tuple[int, int]]:
    """Cell centres (n², 2) of a box, first coordinate outermost."""
    x, y = (low + (high - low) * (np.arange(n) + 0.5) / n for low, high in (box[:2], box[2:]))
    return np.stack(np.meshgrid(x, y, indexing="ij"), axis=-1).reshape(-1, 2), (n, n)


def square_box(points: Any, margin: float = 0.15) -> tuple[float, float, float, float]:
    """A square around nearly all of the points (N, 2)."""
    low, high = np.quantile(points, 0.002, axis=0), np.quantile(points, 0.998, axis=0)
    half = 0.5 * float((high - low).max()) * (1 + 2 * margin)
    cx, cy = (float(c) for c in 0.5 * (low + high))
    return cx - half, cx + half, cy - half, cy + half


def tiles(images: Any, columns: int) -> Any:
    """Images (N, H, W, C) side by side in rows of so many, with a white line between: one image (H', W', C)."""
    N, H, W, C = images.shape
    rows = -(-N // columns)
    sheet = np.ones((rows * columns, H + 1, W + 1, C), dtype=images.dtype)
    sheet[:N, :H, :W] = images
    wide = sheet.reshape(rows, columns, H + 1, W + 1, C).swapaxes(1, 2)
    return wide.reshape(rows * (H + 1), columns * (W + 1), C)[:-1, :-1]


def png(image: Any, zoom: int = 1) -> bytes:
    """A PNG file of an image (H, W, C), numbers in [0, 1], C of 1 to 4, each pixel `zoom` wide."""
    f = io.BytesIO()
    _pillow(image, zoom).save(f, format="PNG")
    return f.getvalue()


def gif(frames: Any, zoom: int = 1, seconds: float = 3.0) -> bytes:
    """A GIF file that shows frames (N, H, W, C), and the last one for a second more."""
    f, each = io.BytesIO(), max(20, int(1000 * seconds / len(frames)))
    first, *rest = (_pillow(frame, zoom).convert("P") for frame in frames)
    times = [each] * len(rest) + [each + 1000]
    first.save(f, format="GIF", save_all=True, append_images=rest, duration=times, loop=0)
    return f.getvalue()


def _pillow(image: Any, zoom: int) -> Any:
    """An image of Pillow, which matplotlib brings."""
    from PIL import Image

    grey = np.rint(255 * np.clip(image, 0, 1)).astype("uint8").repeat(zoom, axis=0).repeat(zoom, axis=1)
    return Image.fromarray(grey[..., 0] if grey.shape[-1] == 1 else grey)
