"""Data: 2-D sets whose density is known, and points from a file.

Every embedded set is a Gaussian mixture, also the curved ones (many narrow components along a
curve), so that for each the exact score at every noise level is known.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from refscore.mixture import GaussianMixture

Parameters = tuple[Any, Any, Any]


def tilted() -> Parameters:
    """Three tilted or round components of different weight: the reference mixture of the tests."""

    def turned(variances: tuple[float, float], degrees: float) -> Any:
        c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        U = np.array([[c, -s], [s, c]])
        return U * variances @ U.T

    covariances = [turned((0.5, 0.1), 30), turned((0.3, 0.05), -50), turned((0.2, 0.2), 0)]
    return [0.5, 0.3, 0.2], [[-2.0, 0.5], [1.5, 1.5], [0.5, -2.0]], covariances


def two_modes() -> Parameters:
    """⅘ N((5, 5), I) + ⅕ N((-5, -5), I), of Song and Ermon 2019."""
    return [0.8, 0.2], [[5.0, 5.0], [-5.0, -5.0]], [1.0, 1.0]


def circle() -> Parameters:
    """Eight round components of standard deviation 0.1 on a circle of radius 2."""
    angles = 2 * math.pi * np.arange(8) / 8
    return [1 / 8] * 8, 2 * np.stack([np.cos(angles), np.sin(angles)], axis=1), [0.1**2] * 8


def spiral() -> Parameters:
    """Sixty narrow components along a little more than one turn of a spiral."""
    angles = 3 * math.pi * np.sqrt(np.linspace(0.05, 1, 60))
    means = 0.25 * angles[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return [1 / 60] * 60, means, [0.1**2] * 60


MIXTURES: dict[str, Callable[[], Parameters]] = {
    "tilted": tilted,
    "two-modes": two_modes,
    "circle": circle,
    "spiral": spiral,
}


def mixture(name: str, asarray: Callable[..., Any] = np.asarray, dtype: str = "float64") -> GaussianMixture:
    """The embedded mixture of this name, its arrays made by `asarray(numbers, dtype=...)`.

    Raises
    ------
    ValueError
        For a name that is not in `MIXTURES`.
    """
    if name not in MIXTURES:
        raise ValueError(f"no data set called {name!r}; there are {', '.join(MIXTURES)}")
    weights, means, covariances = (np.asarray(p, dtype="float64") for p in MIXTURES[name]())
    weights = weights / weights.sum()
    return GaussianMixture(*(asarray(p, dtype=dtype) for p in (weights, means, covariances)))


class DataFileError(ValueError):
    """A file does not hold the points that were asked for; the message says what it holds."""


def load_points(path: str | Path, dim: int = 2) -> Any:
    """Points (N, dim) from a .npy, .npz (one array) or .csv file, as float64.

    Numbers of any real type are taken; a first line of words in a .csv is skipped. Nothing in the file
    is executed: pickled objects are refused.

    Raises
    ------
    DataFileError
        If the file is missing or cannot be read, or holds anything but finite numbers (N, dim), N >= 2.
    """
    path = Path(path)
    try:
        points = _READERS[path.suffix.lower()](path)
    except KeyError:
        raise DataFileError(f"{path}: give a file ending in {', '.join(_READERS)}") from None
    except FileNotFoundError:
        raise DataFileError(f"{path} cannot be read: there is no such file") from None
    except DataFileError:
        raise
    except Exception as error:  # whatever a reader says of a damaged file
        raise DataFileError(f"{path} cannot be read: {error}") from error
    points = np.asarray(points)
    if points.dtype.kind not in "fiu":
        raise DataFileError(f"{path} holds {points.dtype}, not real numbers")
    if points.ndim != 2 or points.shape[1] != dim or points.shape[0] < 2:
        raise DataFileError(f"{path} holds an array of shape {points.shape}; {dim}-D points are (N, {dim}), N >= 2")
    points = points.astype("float64")
    if not np.isfinite(points).all():
        bad = np.argwhere(~np.isfinite(points))
        raise DataFileError(f"{path} holds {len(bad)} values that are not finite, the first in row {bad[0][0]}")
    return points


def _read_npz(path: Path) -> Any:
    with np.load(path, allow_pickle=False) as archive:
        if len(archive.files) != 1:
            raise DataFileError(f"{path} holds the arrays {archive.files}; give a file with one")
        return archive[archive.files[0]]


def _read_csv(path: Path) -> Any:
    lines = path.read_text(encoding="utf-8").splitlines()
    try:
        [float(word) for word in lines[0].split(",")]
        skip = 0
    except (ValueError, IndexError):
        skip = 1
    rows = [(number, line) for number, line in enumerate(lines[skip:], start=skip + 1) if line.strip()]
    if not rows:
        raise DataFileError(f"{path} holds no lines of numbers")
    try:
        return np.loadtxt([line for _, line in rows], delimiter=",", ndmin=2)
    except ValueError:
        for number, line in rows:
            if not _numbers(line) or line.count(",") != rows[0][1].count(","):
                raise DataFileError(
                    f"{path}, line {number}: {line[:60]!r} is not a row like the others, of numbers separated by commas"
                ) from None
        raise


def _numbers(line: str) -> bool:
    try:
        [float(word) for word in line.split("#")[0].split(",")]
    except ValueError:
        return False
    return True


_READERS: dict[str, Callable[[Path], Any]] = {
    ".npy": lambda path: np.load(path, allow_pickle=False),
    ".npz": _read_npz,
    ".csv": _read_csv,
}
