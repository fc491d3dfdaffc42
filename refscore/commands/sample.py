"""`refscore sample`: new samples from a model that was trained, by any sampler; labels, guidance, inpainting."""

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from refscore.commands.chunks import in_chunks
from refscore.commands.drawing import SAMPLER, STEPS, Drawing
from refscore.commands.library import add_backend, chosen
from refscore.commands.pictures import in_unit, needs_pillow, scatter
from refscore.commands.progress import check_ends, progress
from refscore.commands.saved_run import CHECKPOINT, Saved, read
from refscore.commands.threads import add_threads, blas_threads
from refscore.data.files import check_apart, save_array, save_arrays, save_bytes, writable_folder
from refscore.data.images import load_mask
from refscore.data.labels import read_labelled
from refscore.data.points import DataFileError
from refscore.data.scaling import Scaling
from refscore.plots import gif, png, tiles
from refscore.sampling.transitions import SAMPLERS
from refscore_backends import Backend
from refscore_backends.base import check_seed

HELP = "draw samples from a trained model"
EXAMPLE = (
    "example: refscore sample digits --n 100 --labels 0 1 2 3 4 5 6 7 8 9 --guidance 1.5 --out digits.png; "
    "refscore sample points --n 10000 --out new.npy"
)
CHUNK = 500
FRAMES = 12  # of a trajectory on a strip
ENDINGS = (".npy", ".npz", ".png", ".gif")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """FOLDER, --n, --out, and how."""
    parser.epilog = EXAMPLE
    add = parser.add_argument
    add("folder", type=Path, metavar="FOLDER", help="of a `refscore train`")
    add("--n", type=int, default=100, help="number of samples (default: 100)")
    add("--out", type=Path, required=True, metavar="FILE", help=".npy or .npz (in the units of the data), .png or .gif")
    add("--sampler", default=SAMPLER, metavar="NAME", help=f"one of {', '.join(SAMPLERS)} (default: {SAMPLER})")
    add("--steps", type=int, default=STEPS, help=f"steps of the sampler (default: {STEPS})")
    add("--labels", nargs="+", type=int, metavar="K", help="labels, in turn, of a model that was told labels")
    add("--given", nargs="+", type=float, metavar="VALUE",
        help="values of the columns that `train --condition` named, in the units of the data")  # fmt: skip
    add("--guidance", type=float, default=1.0, metavar="W",
        help="s + W (s_y - s): 1 is the conditional score (default), 0 the unconditional")  # fmt: skip
    add("--known", type=Path, metavar="FILE", help="inpainting: an image, or one a sample, whose masked part is kept")
    add("--mask", type=Path, metavar="FILE", help="inpainting: 1 where the image is known, 0 where not")
    add("--trajectory", action="store_true", help="keep what is between noise and sample: a strip, a GIF, or an axis")
    add("--workers", type=int, metavar="N", help="threads that share the samples (default: none)")
    add("--seed", type=int, default=0, help="same seed, same machine: same samples (default: 0)")
    add_backend(parser)
    add_threads(parser)


def run(args: argparse.Namespace) -> None:
    """`refscore sample`."""
    with blas_threads(args.threads) as said:
        print(said)
        sample(
            args.folder, args.n, args.out, args.sampler, args.steps, args.labels, args.guidance, args.known, args.mask,
            args.trajectory, args.seed, chosen(args.backend, args.compile), args.workers, args.given,
        )  # fmt: skip


def sample(
    folder: Path, n: int, out: Path, sampler: str, steps: int, labels: Sequence[int] | None, guidance: float,
    known: Path | None, mask: Path | None, trajectory: bool, seed: int, backend: Backend, workers: int | None = None,
    given: Sequence[float] | None = None, say: Callable[[str], None] = print,
) -> Any:  # fmt: skip
    """Draw samples and write them to a file; returns them in the units of the data, in NumPy.

    After Ctrl-C the file holds the samples of the chunks that are finished: the first of those that were asked for.

    Raises
    ------
    ValueError, OSError
        Before any work: for a folder, sampler, label, mask or file that cannot be used.
    """
    steps = check_ends("steps", steps, 1e-4)
    n, seed = check_ends("n", n, 1e-7 * steps), check_seed(seed)
    saved = read(folder, backend)
    _check(saved, out, sampler, labels, guidance, known, mask, trajectory)
    told: Any = _given(saved, given, n) if labels is None else np.resize(np.asarray(labels), n)
    check_apart(out, known, mask, folder / CHECKPOINT, folder, saved.settings.data, saved.settings.labels)
    writable_folder(out.parent)
    kept = _inpainting(saved, known, mask, n)
    draw = Drawing(saved.model, saved.theta, saved.shape, backend, sampler, steps, guidance)
    done = 0

    def chunk(rows: slice, own: Any) -> Any:
        """States (1 or steps + 1, rows, ...), on the host."""
        nonlocal done
        states = []
        for j, x in enumerate(draw(rows.stop - rows.start, own, _rows(told, rows), [_rows(a, rows) for a in kept])):
            if trajectory or j == steps:
                states.append(backend.to_numpy(x))
            done += j > 0
            if j % 10 == 0 or j == steps:
                show(done, f"{n} samples")
        return np.stack(states)

    with progress(-(-n // CHUNK) * steps, say) as show:
        parts = in_chunks(chunk, n, backend.rng(seed), workers, CHUNK, say, "samples")
    path = np.concatenate(parts, axis=1)  # (states, n, ...)
    n = path.shape[1]
    if saved.config["kind"] == "points":
        path = path.astype("float64")  # a column of years or of seconds is narrow beside its mean
    made = saved.scaling.undo(path[-1])
    _write(out, saved, path, made, None if given else _rows(told, slice(n)))
    say(f"{n} samples of shape {saved.shape}: {out}")
    return made


def _rows(a: Any, rows: slice) -> Any:
    return None if a is None else a[rows]


# ------------------------------------------------------------------ what is refused


def _check(
    saved: Saved, out: Path, sampler: str, labels: Sequence[int] | None, guidance: float, known: Path | None,
    mask: Path | None, trajectory: bool,
) -> None:  # fmt: skip
    classes, images = saved.model.classes, saved.config["kind"] == "images"
    if sampler not in SAMPLERS:
        raise ValueError(f"no sampler called {sampler!r}; there are {', '.join(SAMPLERS)}")
    if out.suffix not in ENDINGS:
        raise ValueError(f"{out} must end in {', '.join(ENDINGS)}")
    if out.is_dir():
        raise ValueError(f"{out} is a folder: name a file")
    if out.suffix in (".png", ".gif"):
        if not images and saved.shape != (2,):
            raise ValueError(f"samples of shape {saved.shape} are no picture: write them to a .npy or .npz file")
        needs_pillow()
    if (out.suffix == ".gif") != trajectory and out.suffix == ".gif":
        raise ValueError("a GIF shows a trajectory: add --trajectory")
    if labels is not None and not classes:
        raise ValueError("the model was told no labels: leave --labels out")
    if labels is not None and not all(0 <= k <= classes for k in labels):
        raise ValueError(f"labels are 0 to {classes - 1}, and {classes} for no label; got {list(labels)}")
    if not math.isfinite(guidance):
        raise ValueError(f"guidance must be finite, got {guidance}")
    if guidance != 1 and labels is None:
        raise ValueError("guidance goes towards a label: give --labels")
    if (known is None) != (mask is None):
        raise ValueError("inpainting takes both, --known FILE and --mask FILE")


def _given(saved: Saved, given: Sequence[float] | None, n: int) -> Any:
    """The condition (n, m) in the units of the network, of a model that was told columns; None for others."""
    columns = saved.config.get("given") or []
    if len(given or ()) != len(columns):
        what = f"one value for each of {', '.join(columns)}: --given" if columns else "no values: leave --given out"
        raise ValueError(f"the model takes {what}; got {list(given or ())}")
    if not columns:
        return None
    values = Scaling.from_dict(saved.config["given_scaling"]).apply(np.asarray([given], dtype="float64"))
    if not np.isfinite(values).all():
        raise ValueError(f"given values must be finite, got {list(given or ())}")
    return np.tile(np.asarray(values, dtype="float32"), (n, 1))


def _inpainting(saved: Saved, known: Path | None, mask: Path | None, n: int) -> tuple[Any, Any]:
    """Known values in the units of the network (n, ...), and where they count."""
    if known is None or mask is None:
        return None, None
    values, _ = read_labelled(known)
    shape = saved.shape
    if values.shape == shape[:-1] or values.shape[1:] == shape[:-1] != ():
        values = values[..., None]
    values = values[None] if values.shape == shape else values
    if values.shape[1:] != shape or len(values) not in (1, n):
        raise DataFileError(
            f"{known} holds an array of shape {values.shape}; wanted is {shape}, or one for each sample"
        )
    if values.dtype.kind not in "biuf":
        raise DataFileError(f"{known} holds {values.dtype}, not real numbers")
    values, where = np.broadcast_to(values, (n, *shape)), np.broadcast_to(load_mask(mask, shape), (n, *shape))
    told, levels = values[where], saved.scaling.levels
    if not np.isfinite(told).all():
        raise DataFileError(f"{known} holds values under the mask that are not finite: the mask is 1 where it is known")
    if levels is not None and not np.isin(told, np.arange(levels)).all():
        raise DataFileError(f"{known} holds values under the mask that are not grey levels 0 ... {levels - 1}")
    x = saved.scaling.apply(np.where(where, values, 0).astype("float64"))
    return np.asarray(x, dtype="float32"), where


# ------------------------------------------------------------------ what is written


def _write(out: Path, saved: Saved, path: Any, made: Any, told: Any) -> None:
    """The samples, or with a trajectory all states, as the file's ending says."""
    states = np.stack([saved.scaling.undo(x) if saved.scaling.levels is None else x for x in path])
    if out.suffix == ".npy":
        save_array(out, made if len(path) == 1 else states)
    elif out.suffix == ".npz":
        arrays = {"images" if made.ndim > 2 else "points": made}
        if told is not None:
            arrays["labels"] = told
        if len(path) > 1:
            arrays["trajectory"] = states
        save_arrays(out, **arrays)
    elif saved.config["kind"] == "images":
        frames, zoom = in_unit(path), max(1, 40 // path.shape[2])
        if out.suffix == ".gif":
            columns = math.isqrt(path.shape[1] - 1) + 1
            save_bytes(out, gif(np.stack([tiles(frame, columns) for frame in frames]), zoom))
        elif len(path) > 1:
            chosen = frames[np.linspace(0, len(frames) - 1, min(FRAMES, len(frames))).round().astype(int)]
            save_bytes(out, png(tiles(chosen.swapaxes(0, 1).reshape(-1, *chosen.shape[2:]), len(chosen)), zoom))
        else:
            save_bytes(out, png(tiles(frames[-1], math.isqrt(path.shape[1] - 1) + 1), zoom))
    else:
        frames = scatter(states if out.suffix == ".gif" else made[None], saved.config.get("columns") or ("x1", "x2"))
        save_bytes(out, gif(frames) if out.suffix == ".gif" else png(frames[-1]))
