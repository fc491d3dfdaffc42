"""Labels: the class of each row of a file, from an array beside it or from a file of its own."""

from pathlib import Path
from typing import Any

import numpy as np

from refscore.data.files import read_array, read_arrays
from refscore.data.idx import read_idx
from refscore.data.points import DataFileError, check_numpy, check_real, read_points, reading


def read_labelled(path: str | Path, labels: str | Path | None = None) -> tuple[Any, Any]:
    """Read an array, and the labels of its rows, from files of any kind but .csv.

    Parameters
    ----------
    path : str or Path
        An IDX file (also .gz), .npy or .npz.
    labels : str or Path, optional
        As `read_images`.

    Returns
    -------
    array : numpy.ndarray
        As in the file.
    labels : numpy.ndarray, shape (N,), or None
        Classes 0 ... K-1, int64.

    Raises
    ------
    DataFileError
        If a file cannot be read, holds more arrays than these, or no labels (N,) where some are wanted.
    """
    arrays, where = _arrays(Path(path)), str(path)
    called = [name for name in ("labels", "y") if name in arrays and len(arrays) > 1]
    key = str(labels) if labels is not None else called[0] if called else None
    found = None
    if key is not None and key in arrays:
        where, found = f"{path}, array {key!r}", arrays.pop(key)
    elif key is not None and (Path(key).suffix or Path(key).exists()):
        where, found = key, read_column(Path(key))
    elif key is not None:
        raise DataFileError(f"{path} holds no labels {key!r}, and there is no such file; it holds {_names(arrays)}")
    if len(arrays) != 1:
        raise DataFileError(
            f"{path} holds {len(arrays)} arrays{' beside the labels' * (found is not None)}, {_names(arrays)}; give a "
            "file with one array, or with one and its labels, called labels or y"
        )
    (x,) = arrays.values()
    if x.ndim < 1:
        raise DataFileError(f"{path} holds one number, not images or points")
    return x, None if found is None else as_labels(where, found, len(x))


def read_column(path: Path) -> Any:
    """Read the one array of a file of labels.

    Parameters
    ----------
    path : Path
        IDX (also .gz), .npy, .npz or .csv.

    Returns
    -------
    numpy.ndarray
        As in the file.

    Raises
    ------
    DataFileError
        If it cannot be read, or holds more than one.
    """
    if path.suffix.lower() == ".csv":
        return read_points(path, dim=1).points[:, 0]
    arrays = _arrays(path)
    if len(arrays) != 1:
        raise DataFileError(f"{path} holds {len(arrays)} arrays, {_names(arrays)}; labels are one")
    return next(iter(arrays.values()))


def as_labels(name: str, labels: Any, n: int) -> Any:
    """Check that an array holds one class for each of n samples.

    Parameters
    ----------
    name : str
        What holds them, for the message.
    labels : numpy.ndarray
        What was read.
    n : int
        How many are wanted.

    Returns
    -------
    numpy.ndarray, shape (n,)
        Integers 0 ... K-1, K <= n, int64.

    Raises
    ------
    DataFileError
        For another shape, what is not a whole number, negative or larger than any class of n samples.
    """
    check_numpy(name, labels)
    if labels.ndim == 2 and labels.shape == (n, labels.shape[1]) and labels.shape[1] > 1:
        raise DataFileError(f"{name} holds labels of shape {labels.shape}; if they are one-hot, give argmax(axis=1)")
    if labels.shape != (n,):
        raise DataFileError(f"{name} holds labels of shape {labels.shape}, there are {n} samples: wanted is ({n},)")
    labels = labels.astype("uint8") if labels.dtype.kind == "b" else labels
    if labels.dtype.kind not in "fiu":
        raise DataFileError(
            f"{name} holds labels of {labels.dtype}, not real numbers: write the classes as 0, 1, ..., as "
            "numpy.unique(labels, return_inverse=True)[1] does"
        )
    check_real(name, labels)
    wrong = labels[(labels % 1 != 0) | (labels < 0) | (labels >= n)]
    if wrong.size:
        raise DataFileError(f"{name} holds the label {wrong[0]}; those of {n} samples are 0 ... K-1, K <= {n}")
    return labels.astype("int64")


def in_words(labels: Any, what: str) -> list[str]:
    """Describe how often each class occurs.

    Parameters
    ----------
    labels : numpy.ndarray, shape (N,)
        Classes 0 ... K-1.
    what : str
        Of what: "images" or "points".

    Returns
    -------
    list of str
        The number of classes, and a warning of those that do not occur.
    """
    counts = np.bincount(labels)
    said = [f"{len(counts)} classes, of {counts[counts > 0].min()} to {counts.max()} {what}"]
    missing = np.flatnonzero(counts == 0)
    if len(missing):
        said.append(f"warning: {len(missing)} classes below the largest label never occur, the first is {missing[0]}")
    return said


def _arrays(path: Path) -> dict[str, Any]:
    with reading(path):
        if path.suffix.lower() == ".npz":
            return read_arrays(path)
        return {"": read_array(path) if path.suffix.lower() == ".npy" else read_idx(path)}


def _names(arrays: dict[str, Any]) -> str:
    return (", ".join(f"{name or 'one'} {a.shape}" for name, a in arrays.items()) or "nothing")[:200]
