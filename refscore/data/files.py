"""Files: written whole or not at all, read only after their header was checked."""

import io
import json
import math
import os
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np

LARGEST = 2**30  # bytes that an array may take in float64: nothing larger is read
NEEDED = 2**20  # bytes that a run writes, about
STALE = 60.0  # seconds after which an unfinished file is nobody's


def writable_folder(out: Path) -> None:
    """Make the folder, and make sure before any work that there is room for what will be written.

    Parameters
    ----------
    out : Path
        The folder; its parents are made too.

    Raises
    ------
    OSError
        If it cannot be made, or `NEEDED` bytes cannot be written in it.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out) as f:
            f.write(bytes(NEEDED))
    except OSError as error:
        raise OSError(f"cannot write to the folder {out}: {error.strerror or error}") from error


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Refuse to work in a folder in which another process works, where the system can tell (not on Windows).

    Parameters
    ----------
    folder : Path
        The folder; a process that ends, however it does, leaves it.

    Yields
    ------
    None
        The block works in the folder.

    Raises
    ------
    ValueError
        If another process is in such a block.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(f"another process is at work in {folder}: wait for it, or take another") from None
        yield
    finally:
        os.close(handle)


def check_apart(out: Path, *inputs: Path | str | None) -> None:
    """Refuse to write a file that is read.

    Parameters
    ----------
    out : Path
        To be written.
    *inputs : Path, str or None
        What is read: files, or names that are none.

    Raises
    ------
    ValueError
        If `out` is one of them.
    """
    for each in inputs:
        if each is not None and out.exists() and Path(each).exists() and out.samefile(each):
            raise ValueError(f"{out} would be overwritten, and it is what is read: write elsewhere")


def save_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all.

    Parameters
    ----------
    path : Path
        The file.
    text : str
        Its content, written as UTF-8.

    Raises
    ------
    OSError
        As `save_bytes`.
    """
    save_bytes(path, text.encode())


def save_json(path: Path, tree: Any) -> None:
    """Write a tree of dicts and lists as JSON, which has no NaN and ∞: they become the strings that float() reads.

    Parameters
    ----------
    path : Path
        The file.
    tree : dict, list, str, number or None
        Its content.

    Raises
    ------
    OSError
        As `save_bytes`.
    """
    save_text(path, as_json(tree))


def as_json(tree: Any) -> str:
    """Return a tree of dicts and lists as JSON: NaN and ∞ become the strings that float() reads.

    Parameters
    ----------
    tree : dict, list, str, number or None
        The content.

    Returns
    -------
    str
        The text.
    """
    return json.dumps(_finite(tree), indent=1, allow_nan=False)


def save_array(path: Path, x: Any) -> None:
    """Write an array as .npy, whole or not at all.

    Parameters
    ----------
    path : Path
        The file.
    x : numpy.ndarray
        The array, of numbers.

    Raises
    ------
    OSError
        As `save_bytes`.
    """
    _save(path, lambda f: np.save(f, x, allow_pickle=False))


def save_arrays(path: Path, **arrays: Any) -> None:
    """Write named arrays as .npz, whole or not at all.

    Parameters
    ----------
    path : Path
        The file.
    **arrays : numpy.ndarray
        The arrays by name.

    Raises
    ------
    OSError
        As `save_bytes`.
    """
    _save(path, lambda f: np.savez(f, **arrays))


def save_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; what a killed process left of the same file is removed.

    Parameters
    ----------
    path : Path
        The file; its folder must exist.
    content : bytes
        Its content.

    Raises
    ------
    OSError
        If it cannot be written (a full disk, a folder that is gone); the old file is still there.
    """
    try:
        _sweep(path)
        _replace(path, content)
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror or error}") from error


def read_array(path: Path) -> Any:
    """Read a .npy file: numbers only, at most `LARGEST` bytes in float64, allocated after its header was read.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    numpy.ndarray
        The array.

    Raises
    ------
    ValueError, OSError, EOFError
        If there is no such array; nothing in the file is executed.
    """
    with open(path, "rb") as f:
        return _read_array(f)


def read_arrays(path: Path) -> dict[str, Any]:
    """Read a .npz file, each array as `read_array` reads it, at most `LARGEST` bytes together.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    dict of str to numpy.ndarray
        The arrays by name.

    Raises
    ------
    ValueError, OSError, EOFError, zipfile.BadZipFile
        If there are no such arrays, or they are too large; nothing in the file is executed.
    """
    with zipfile.ZipFile(path) as archive:
        arrays, size = {}, sum(member.file_size for member in archive.infolist())
        if size > LARGEST:
            raise ValueError(f"it declares {size} bytes, at most {LARGEST} are read")
        for member in archive.namelist():
            name = member.removesuffix(".npy")
            if name in arrays:
                raise ValueError(f"it holds two arrays called {name}")
            with archive.open(member) as f:
                arrays[name] = _read_array(f)
        return arrays


def _read_array(f: IO[bytes]) -> Any:
    headers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(f)
    if version not in headers:
        raise ValueError(f"an array of format {version}, not of numbers alone")
    shape, _, dtype = headers[version](f)
    if dtype.hasobject:
        raise ValueError(f"{shape} objects, not numbers: pickled, or rows or images of unequal size, no array")
    if 8 * math.prod(shape) > LARGEST:
        raise ValueError(f"it declares {math.prod(shape)} numbers {shape}, at most {LARGEST // 8} are read")
    f.seek(0)
    return np.lib.format.read_array(f, allow_pickle=False)


def _finite(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _finite(value) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [_finite(value) for value in tree]
    return str(tree) if isinstance(tree, float) and not math.isfinite(tree) else tree


def _save(path: Path, write: Callable[[Any], Any]) -> None:
    f = io.BytesIO()  # NumPy tells a full disk from other errors only here
    write(f)
    save_bytes(path, f.getvalue())


def _sweep(path: Path) -> None:
    for left in path.parent.iterdir():
        if left.name.startswith(f".{path.name}.") and left.suffix == ".tmp":
            with suppress(OSError):  # another process was faster
                if time.time() - left.stat().st_mtime > STALE:
                    left.unlink()


def _replace(path: Path, content: bytes) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as f:
            f.write(content)
            f.flush()
            os.fsync(handle)  # the numbers are on the disk before their name is
        os.chmod(name, 0o644)  # mkstemp makes it private
        os.replace(name, path)
    except BaseException:
        with suppress(FileNotFoundError):  # interrupted after it had its name
            os.unlink(name)
        raise
    if hasattr(os, "O_DIRECTORY"):  # not on Windows
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
