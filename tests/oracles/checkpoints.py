"""What a checkpoint holds, as plain values to compare; and a process of its own to go on in."""

import os
import subprocess
import sys
from typing import Any

import numpy as np

from refscore import EMA, Adam, Denoising, fit, last
from refscore.training.checkpoint import Checkpoint
from tests.oracles.book import ROOT
from tests.oracles.models import MODEL, POINTS

X = np.asarray(POINTS, "float32")


def everything(saved: Checkpoint) -> list[Any]:
    """All that a checkpoint holds, its arrays as bytes."""

    def plain(part: Any) -> Any:
        if isinstance(part, tuple) and hasattr(part, "_fields"):
            return [plain(p) for p in part]
        return (part.dtype.str, part.shape, part.tobytes()) if isinstance(part, (np.ndarray, np.generic)) else part

    rng = None if saved.rng is None else str(saved.rng.bit_generator.state)
    state = [saved.state] if isinstance(saved.state, np.ndarray) else vars(saved.state).values()
    parts = (saved.model, saved.optimizer, saved.ema, saved.objective, saved.config, saved.version)
    return [*parts, rng, *map(plain, state)]


def trained(steps: int = 5, seed: int = 3, ema: EMA = EMA(0.9)) -> tuple[Any, dict[str, Any]]:  # noqa: B008
    """A state of `MODEL` after a few steps, and the other parts of its checkpoint."""
    parts: dict[str, Any] = {"optimizer": Adam(), "ema": ema, "objective": Denoising()}
    rng = np.random.default_rng(seed)
    state = last(fit(MODEL, parts["objective"], X, parts["optimizer"], rng, steps=steps, batch=8, ema=ema))
    return state, {**parts, "rng": rng}


def child(script: str, *args: Any) -> str:
    """What a script prints in a process of its own."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "backends")])
    run = subprocess.run(
        [sys.executable, "-c", script, *map(str, args)],
        env={**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return run.stdout
