"""Data sets by name, or from a file: one door, behind which everything is scaled, split, and described."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from refscore.checks import check_count, check_like, check_number, check_range
from refscore.data.images import Images, as_images, digits
from refscore.data.labels import as_labels, in_words, read_column, read_labelled
from refscore.data.points import DataFileError, Table, as_table, outliers, read_points, standardise
from refscore.data.scaling import Scaling
from refscore.laws.examples import MIXTURES, mixture
from refscore.laws.plane import CURVES, LAWS

NAMES = ("digits", *MIXTURES, *LAWS, *CURVES)


@dataclass(frozen=True, eq=False)
class Data:
    """What is to be learned, ready for a network: scaled, in float32, a part held out.

    Parameters
    ----------
    name : str
        Of the set, or the file.
    kind : str
        "points" or "images".
    x, held_out : numpy.ndarray, shapes (N, D) or (N, H, W, C), N >= 1; held_out may have none
        To train on, and to judge by, in the units of the network.
    labels, held_out_labels : numpy.ndarray, shape (N,), or None
        The condition of each: its class 0 ... K-1, int64; None where there are none.
    classes : int
        K; 0 without labels.
    scaling : Scaling
        Undoes the units of the network.
    law : GaussianMixture, Rings, Checkerboard or Pinwheel, optional
        The exact law of x, in float64 and NumPy, where there is one; sets with a name are not scaled.
    columns : tuple of str, default ()
        Names of the columns of points; () for images.
    said : tuple of str, default ()
        Lines for the user: what was read, guessed, scaled and held out.
    given : tuple of str, default ()
        Names of columns that are a condition, not data: then labels are vectors (N, m) of them, float32.
    given_scaling : Scaling, optional
        Undoes their units.
    """

    name: str
    kind: Literal["points", "images"]
    x: Any
    labels: Any
    held_out: Any
    held_out_labels: Any
    classes: int
    scaling: Scaling
    law: Any = None
    columns: tuple[str, ...] = ()
    said: tuple[str, ...] = ()
    given: tuple[str, ...] = ()
    given_scaling: Scaling | None = None

    @property
    def std(self) -> float:
        """Return the root mean square of the coordinates of x, as `ScoreModel` wants it."""
        return math.sqrt(float(np.mean(np.square(self.x, dtype="float64"))))


def load_data(
    source: str | Path,
    labels: str | Path | None = None,
    levels: int | None = None,
    span: tuple[float, float] | None = None,
    held_out: float = 0.1,
    seed: int = 0,
    n: int = 10_000,
) -> Data:
    """Load a data set by its name, or points or images from a file.

    Points of a file get columns of mean 0 and deviation 1; images lie in [-1, 1], see `data.scaling`; the named sets of
    points stay as they are, so that their exact laws hold. A file of two axes, or .csv, holds points, one of three or
    four images.

    Parameters
    ----------
    source : str or Path
        A name of `NAMES`, or a file: .csv, .npy, .npz, or IDX (also .gz). "./digits" is a file.
    labels : str or Path, optional
        The labels of a file, as `read_images` takes them; of a .csv the name of a column, or another file.
    levels : int, optional
        Number of grey levels of images of integers; guessed by default.
    span : pair of float, optional
        Least and largest value of images of floats; guessed by default.
    held_out : float, default 0.1
        The part that is held out, in [0, 1): of each class where there are labels.
    seed : int, default 0
        Chooses what is held out, and draws the points of a named set; the same numbers for the same seed.
    n : int, default 10000
        How many points are drawn of a named set, those held out included.

    Returns
    -------
    Data
        Scaled, split and described.

    Raises
    ------
    DataFileError
        If a file is missing, damaged, or does not hold what is said above; the message names it.
    ValueError
        For a name that is none, options that do not go with the source, held_out outside [0, 1), n < 2.

    Examples
    --------
    >>> from refscore.data.sets import load_data
    >>> data = load_data("digits")
    >>> data.x.shape, data.held_out.shape, data.classes
    ((1617, 8, 8, 1), (180, 8, 8, 1), 10)
    """
    held_out, rng = check_number("held_out", held_out), np.random.default_rng(seed)
    if not 0 <= held_out < 1:
        raise ValueError(f"held_out is a part, in [0, 1), got {held_out}")
    name = str(source)
    if name in NAMES:
        if labels is not None or levels is not None or span is not None:
            raise ValueError(f"{name} is a data set, not a file: labels, levels and span are not for it")
        if name == "digits":
            return _of_images(digits(), held_out, rng)
        return _drawn(name, check_count("n", n, 2), held_out, rng)
    if not Path(name).suffix and not Path(name).exists():
        raise ValueError(f"no data set called {name!r}; there are {', '.join(NAMES)}, or give a file")
    if Path(name).suffix.lower() == ".csv":
        table, found = _of_table(read_points(name, dim=None), labels)
    else:
        x, found = read_labelled(name, labels)
        if x.ndim > 2:
            return _of_images(as_images(name, x, found, levels, span), held_out, rng)
        table = as_table(name, x)
    if levels is not None or span is not None:
        raise DataFileError(f"{name} holds points: levels and span are for images")
    unit, centre, scale = standardise(table)
    scaling = Scaling(tuple(map(float, centre)), tuple(map(float, scale)))
    said = [f"read {name}: {table.said}", *outliers(table), *([] if found is None else in_words(found, "points"))]
    shift = scaling.log_det(len(table.columns))
    said.append(
        f"each column in units of its deviation: in the file's, log densities are the network's minus {shift:.4g}"
    )
    return _split(name, "points", unit, found, scaling, held_out, rng, None, tuple(table.columns), said)


def condition_on(data: Data, columns: Sequence[str]) -> Data:
    """Take columns out of points, as the condition under which the rest is learned.

    Parameters
    ----------
    data : Data
        Points without labels.
    columns : sequence of str
        Names of some of its columns.

    Returns
    -------
    Data
        The other columns, and the vectors of these as labels; the exact law of a named set is not theirs.

    Raises
    ------
    DataFileError
        For images, points with labels, names that are no columns, or no column that is left.

    Examples
    --------
    >>> from refscore.data.sets import condition_on, load_data
    >>> data = condition_on(load_data("moons", n=100), ["x2"])
    >>> data.columns, data.x.shape, data.labels.shape
    (('x1',), (90, 1), (90, 1))
    """
    if data.kind != "points" or data.labels is not None:
        raise DataFileError(f"{data.name}: columns are a condition of points without labels")
    if unknown := [name for name in columns if data.columns.count(name) != 1]:
        raise DataFileError(f"{data.name} has no column {unknown[0]!r}, or two; there are {', '.join(data.columns)}")
    taken = [name in columns for name in data.columns]
    if all(taken) or not any(taken):
        raise DataFileError(f"{data.name}: a condition is some of the columns {', '.join(data.columns)}, not all")
    of = [data.columns.index(name) for name in columns]
    rest = [i for i, gone in enumerate(taken) if not gone]
    return replace(
        data, x=data.x[:, rest], held_out=data.held_out[:, rest], labels=data.x[:, of],
        held_out_labels=data.held_out[:, of], law=None, columns=tuple(data.columns[i] for i in rest),
        scaling=_columns(data.scaling, rest), given=tuple(columns), given_scaling=_columns(data.scaling, of),
        said=(*data.said, f"{', '.join(data.columns[i] for i in rest)} under the condition of {', '.join(columns)}"),
    )  # fmt: skip


def _columns(scaling: Scaling, of: list[int]) -> Scaling:
    centre, scale = (v if isinstance(v, float) else tuple(v[i] for i in of) for v in (scaling.centre, scaling.scale))
    return Scaling(centre, scale)


def _of_images(found: Images, held_out: float, rng: np.random.Generator) -> Data:
    said = [f"read {found.name}: {found.said[0]}", *found.said[1:]]
    x = found.scaling.apply(found.images)
    return _split(found.name, "images", x, found.labels, found.scaling, held_out, rng, None, (), said)


def _of_table(table: Table, labels: str | Path | None) -> tuple[Table, Any]:
    """The points, and the labels: a column of the table, or of another file."""
    if labels is None:
        return table, None
    if str(labels) not in table.columns:
        return table, as_labels(str(labels), read_column(Path(labels)), len(table.points))
    if table.columns.count(str(labels)) > 1:
        raise DataFileError(f"{table.name} has {table.columns.count(str(labels))} columns called {labels}")
    i = table.columns.index(str(labels))
    found = as_labels(f"{table.name}, column {labels}", table.points[:, i], len(table.points))
    return as_table(table.name, np.delete(table.points, i, axis=1), None, np.delete(table.columns, i).tolist()), found


def _drawn(name: str, n: int, held_out: float, rng: np.random.Generator) -> Data:
    law = mixture(name) if name in MIXTURES else LAWS[name]() if name in LAWS else None
    x = CURVES[name](rng, n) if law is None else law.sample(rng, n)
    said = [f"{n} points of {name}, {'whose density has no closed form' if law is None else 'whose density is exact'}"]
    return _split(name, "points", x, None, Scaling(), held_out, rng, law, ("x1", "x2"), said)


def _split(
    name: str, kind: Literal["points", "images"], x: Any, labels: Any, scaling: Scaling, held_out: float,
    rng: np.random.Generator, law: Any, columns: tuple[str, ...], said: list[str],
) -> Data:  # fmt: skip
    apart = split(len(x), held_out, rng, labels)
    x = x.astype("float32")
    said.append(f"{np.sum(~apart)} to train on, {np.sum(apart)} held out")
    train, judge = (None, None) if labels is None else (labels[~apart], labels[apart])
    classes = 0 if labels is None else int(labels.max()) + 1
    return Data(name, kind, x[~apart], train, x[apart], judge, classes, scaling, law, columns, tuple(said))


def split(n: int, held_out: float, rng: np.random.Generator, labels: Any = None) -> Any:
    """Choose which of n samples are held out, the same part of each class, and never the last of one.

    Parameters
    ----------
    n : int
        Number of samples, at least 2.
    held_out : float
        The part, in [0, 1); if it is not 0, at least one sample is held out where a class has two.
    rng : numpy.random.Generator
        Chooses.
    labels : numpy.ndarray, shape (n,), optional
        Classes; by default all are of one.

    Returns
    -------
    numpy.ndarray, shape (n,)
        Booleans, true for what is held out.

    Raises
    ------
    TypeError, ValueError
        For an argument that cannot be what it is given as, by its name.
    """
    check_like(rng=rng)
    n = check_count("n", n)
    check_range(0.0, 1.0, held_out=held_out)
    order, apart = rng.permutation(n), np.zeros(n, dtype=bool)
    classes = np.zeros(n) if labels is None else labels
    order = order[np.argsort(classes[order], kind="stable")]
    # Every 1/held_out-th of them, from the middle of the first stretch on: each class gives its part, to one sample.
    count = min(max(round(n * held_out), 1), n - 1) if held_out else 0
    apart[order[((np.arange(count) + 0.5) * n / max(count, 1)).astype(int)]] = True
    first = np.r_[True, np.diff(classes[order]) != 0]  # of each class, which stays where all the others went
    for one in order[first]:
        apart[one] &= not np.all(apart[classes == classes[one]])
    if held_out and not np.any(apart) and not np.all(first):
        apart[order[~first][0]] = True
    return apart
