"""`refscore demo --data digits`: a small U-Net learns handwritten digits, and writes some."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from refscore.commands.library import chosen
from refscore.commands.progress import check_ends
from refscore.commands.sample import sample
from refscore.commands.saved_run import CHECKPOINT, read
from refscore.commands.train import train
from refscore_backends import get

DIGITS: dict[str, Any] = {"data": "digits", "widths": (24, 48), "steps": 1800, "batch": 64, "rate": 3e-3}


def digits_demo(
    steps: int, seed: int, backend: str, out: Path, compiles: bool = False, say: Callable[[str], None] = print
) -> None:
    """Train as `refscore train` does, on few steps, and draw ten digits of each class as `refscore sample` does.

    Parameters
    ----------
    steps : int
        Training steps.
    seed : int
        Of everything random.
    backend : str
        The array library.
    out : Path
        Folder of the run; another demo's is replaced.
    compiles : bool, default False
        Whether steps are compiled.
    say : callable, default print
        Takes a line.

    Raises
    ------
    ValueError, OSError
        For a folder that cannot be written, or steps < 1.
    """
    steps = check_ends("steps", steps, 1e-4)
    if (out / CHECKPOINT).exists():
        kept = read(out, get("numpy")).settings
        if any(getattr(kept, name) != value for name, value in DIGITS.items() if name not in ("widths", "steps")):
            raise ValueError(f"{out} holds a run that is not the demo's: take another --out")
        (out / CHECKPOINT).unlink()
    train(DIGITS | {"steps": steps, "seed": seed, "backend": backend, "compile": compiles}, None, out, say=say)
    labels, library = list(range(10)), chosen(backend, compiles, say)
    for weight, name in ((1.0, "digits.png"), (2.0, "digits-guided.png")):
        sample(out, 100, out / name, "dpm-solver++2m", 40, labels, weight, None, None, False, seed, library, say=say)
