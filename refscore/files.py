"""Files: written whole or not at all."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def writable_folder(out: Path) -> None:
    """Make the folder, and make sure before any work that files can be written there."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise OSError(f"cannot write to the folder {out}: {error.strerror or error}") from error


def save_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    _replace(path, lambda f: f.write(text.encode()))


def save_array(path: Path, x: Any) -> None:
    """Write an array as .npy, whole or not at all."""
    _replace(path, lambda f: np.save(f, x, allow_pickle=False))


def save_arrays(path: Path, **arrays: Any) -> None:
    """Write named arrays as .npz, whole or not at all."""
    _replace(path, lambda f: np.savez(f, **arrays))


def _replace(path: Path, write: Callable[[Any], Any]) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(handle, "wb") as f:
            write(f)
        os.chmod(name, 0o644)  # mkstemp makes it private
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
