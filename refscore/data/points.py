"""Points from a file, and the scale of each column."""

import csv
import re
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from refscore.data.files import LARGEST, read_array, read_arrays


class DataFileError(ValueError):
    """A file does not hold the points, images or labels that are wanted; the message describes what it holds."""


@contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Turn whatever goes wrong while a file is read into a `DataFileError` that names it.

    Parameters
    ----------
    path : str or Path
        The file.

    Yields
    ------
    None
        The block reads the file.

    Raises
    ------
    DataFileError
        If the block fails.
    """
    try:
        yield
    except FileNotFoundError:
        raise DataFileError(f"{path} cannot be read: there is no such file") from None
    except DataFileError:
        raise
    except UnicodeDecodeError as error:
        raise DataFileError(f"{path} cannot be read: it is not UTF-8 text, from byte {error.start} on") from error
    except Exception as error:  # whatever a reader says of a damaged file
        raise DataFileError(f"{path} cannot be read: {error}") from error


def check_numpy(name: str, x: Any) -> None:
    """Refuse what is not an array of NumPy.

    Parameters
    ----------
    name : str
        What it is called.
    x : numpy.ndarray
        The value to be checked.

    Raises
    ------
    TypeError
        For anything else.
    """
    if not isinstance(x, np.ndarray) or isinstance(x, np.ma.MaskedArray):
        raise TypeError(f"{name} must be a NumPy array, got {type(x).__name__}: numpy.asarray makes one")


def check_real(name: str, x: Any) -> None:
    """Refuse what is not an array of finite real numbers.

    Parameters
    ----------
    name : str
        What holds it, for the message.
    x : numpy.ndarray
        The array, its first axis the rows.

    Raises
    ------
    DataFileError
        For other types, NaN and infinity; the message says how many there are and where the first is.
    """
    check_numpy(name, x)
    if x.dtype.kind not in "fiu":
        raise DataFileError(f"{name} holds {x.dtype}, not real numbers")
    if not np.isfinite(x).all():
        bad = np.argwhere(~np.isfinite(x))
        raise DataFileError(f"{name} holds {len(bad)} values that are not finite, the first in row {bad[0][0]}, from 0")


@dataclass(frozen=True)
class Table:
    """The points of a file, and what was read, in words.

    Parameters
    ----------
    name : str
        Of the file.
    points : numpy.ndarray, shape (N, dim)
        The points, float64.
    columns : list of str
        Names of the columns: of the header, or x1, x2, ...
    said : str
        A summary for the user: the columns, the number of rows, what was left out.
    """

    name: str  # of the file
    points: Any  # (N, dim), float64
    columns: list[str]  # their names: of the header, or x1, x2, ...
    said: str


def load_points(path: str | Path, dim: int | None = 2) -> Any:
    """Read the points of a .npy, .npz (one array) or .csv file; see `read_points`.

    Parameters
    ----------
    path : str or Path
        The file.
    dim : int or None, default 2
        Number of columns that the points must have; None takes as many as there are.

    Returns
    -------
    numpy.ndarray, shape (N, dim)
        The points, float64.

    Raises
    ------
    DataFileError
        If the file is missing or cannot be read, or holds anything but finite numbers (N, dim), N >= 2.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from refscore.data.points import load_points
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(f"{folder}/points.npy", [[1, 2], [4, 3]])
    ...     load_points(f"{folder}/points.npy")
    array([[1., 2.],
           [4., 3.]])
    """
    return read_points(path, dim).points


def read_points(path: str | Path, dim: int | None = 2) -> Table:
    """Read the points of a file, with the names of their columns.

    Numbers of any real type are taken. In a .csv file commas separate, "#" begins a comment, and a first row of
    which no cell begins like a number is a header; a first column without a name (pandas' index) is left out.
    Nothing in the file is executed: pickled objects are refused. At most `files.LARGEST` bytes are read.

    Parameters
    ----------
    path : str or Path
        The file, ending in .npy, .npz (one array) or .csv.
    dim : int or None, default 2
        Number of columns that the points must have; None takes as many as there are.

    Returns
    -------
    Table
        The points, the names of their columns, and a summary in words.

    Raises
    ------
    DataFileError
        If the file is missing or cannot be read, or holds anything but finite numbers (N, dim), N >= 2.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from refscore.data.points import read_points
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savetxt(f"{folder}/points.csv", [[1, 2], [4, 3]], delimiter=",", header="east,north", comments="")
    ...     print(read_points(f"{folder}/points.csv").said)
    2 columns: east, north; 2 rows; header
    """
    path = Path(path)
    if path.suffix.lower() not in _READERS:
        raise DataFileError(f"{path}: give a file ending in {', '.join(_READERS)}")
    with reading(path):
        points, header, note = _READERS[path.suffix.lower()](path)
    return as_table(str(path), points, dim, header, note)


def as_table(
    name: str, points: Any, dim: int | None = None, header: Sequence[str] = (), note: Sequence[str] = ()
) -> Table:
    """Check that an array holds points, and describe it.

    Parameters
    ----------
    name : str
        Of the file.
    points : numpy.ndarray
        What was read.
    dim : int, optional
        Number of columns that the points must have; by default any.
    header : sequence of str, default ()
        Names of the columns; x1, x2, ... where there are none.
    note : sequence of str, default ()
        What is to be said of the file.

    Returns
    -------
    Table
        The points, in float64.

    Raises
    ------
    DataFileError
        For anything but finite real numbers (N, dim), N >= 2.
    """
    check_numpy(name, points)
    if points.ndim != 2 or points.shape[1] != (dim or max(points.shape[1], 1)) or points.shape[0] < 2:
        held = "; ".join([f"an array of shape {points.shape}", *note])
        wanted = f"{dim}-D points are (N, {dim}), N >= 2" if dim else "points are (N, D), N >= 2, D >= 1"
        raise DataFileError(f"{name} holds {held}; {wanted}")
    with np.errstate(over="ignore"):  # a long double may be beyond float64
        points = points.astype("float64") if points.dtype.kind in "fiu" else points
    check_real(name, points)
    columns = list(header) or [f"x{i + 1}" for i in range(points.shape[1])]
    named = [*columns[:10], "...", columns[-1]] if len(columns) > 12 else columns
    said = [f"{len(columns)} columns: {', '.join(named)}", f"{len(points)} rows", *note]
    if np.all(np.diff(points[:, 0]) == 1):
        said.append(f"{columns[0]} counts the rows: is it an index?")
    return Table(name, points, columns, "; ".join(said))


def standardise(table: Table) -> tuple[Any, Any, Any]:
    """Give every column mean 0 and deviation 1, and compute what undoes it: points = centre + scale · unit.

    Parameters
    ----------
    table : Table
        The points.

    Returns
    -------
    unit : numpy.ndarray, shape (N, dim)
        The scaled points.
    centre, scale : numpy.ndarray, shape (dim,)
        Mean and standard deviation of each column, in its units.

    Raises
    ------
    DataFileError
        For a column that is constant, or wider than float64.
    """
    low, high = np.min(table.points, axis=0), np.max(table.points, axis=0)
    with np.errstate(all="ignore"):  # what comes of a width of 0 or ∞ is refused
        width = high - low
        inside = (table.points - low) / width  # in [0, 1]: its squares neither overflow nor vanish
        centre, scale = low + width * np.mean(inside, axis=0), width * np.std(inside, axis=0)
    for column, least, w, s in zip(table.columns, low, width, scale, strict=True):
        if not np.isfinite(w):
            raise DataFileError(f"{table.name}: column {column} is wider than float64")
        if w == 0 or s < np.finfo("float64").tiny:
            raise DataFileError(
                f"{table.name}: all points are the same in column {column} ({least:g}): there is nothing to learn in it"
            )
    return (table.points - centre) / scale, centre, scale


def outliers(table: Table) -> Iterator[str]:
    """A line for every column whose deviation is more than three times that of its middle nine tenths.

    Parameters
    ----------
    table : Table
        The points.

    Yields
    ------
    str
        A warning that names the point farthest out and its column.

    Raises
    ------
    DataFileError
        As `standardise`.
    """
    unit, _, scale = standardise(table)
    low, high = np.quantile(table.points, (0.05, 0.95), axis=0)
    for i in np.flatnonzero(3 * (high - low) < 3.29 * scale):  # 3.29 deviations hold nine tenths of a Gaussian
        row = int(np.argmax(np.abs(unit[:, i])))
        yield (
            f"warning: {table.points[row, i]:g} in column {table.columns[i]}, point {row + 1}, rules the scale: nine "
            f"tenths of the column lie between {low[i]:.4g} and {high[i]:.4g}, and its deviation is {scale[i]:.4g}"
        )


Raw = tuple[Any, list[str], list[str]]  # an array of any kind, the header, and what is to be said


def _read_npy(path: Path) -> Raw:
    return read_array(path), [], []


def _read_npz(path: Path) -> Raw:
    arrays = read_arrays(path)
    if len(arrays) != 1:
        raise DataFileError(f"{path} holds {len(arrays)} arrays, {str([*arrays])[:60]}; give a file with one")
    return next(iter(arrays.values())), [], []


def _read_csv(path: Path) -> Raw:
    if path.stat().st_size > LARGEST:
        raise ValueError(f"it has {path.stat().st_size} bytes, at most {LARGEST} are read")
    header, numbers, width = None, array("d"), 0
    with open(path, encoding="utf-8-sig", newline="") as f:
        lines = csv.reader(map(_uncommented, f), skipinitialspace=True, strict=True)
        for cells in lines:
            if not "".join(cells).strip() and len(cells) < 2:
                continue  # a blank line
            if header is None:
                header, width = (cells if _is_header(cells) else []), len(cells)
                if header:
                    continue
            row = [_number(cell) for cell in cells]
            if None in row or len(row) != width:
                raise DataFileError(f"{path}, line {lines.line_num}: {_wrong(cells, row, width)}")
            numbers.extend(row)  # type: ignore[arg-type] # there is no None in it
            if 8 * len(numbers) > LARGEST:
                raise ValueError(f"it has more than {LARGEST // 8} numbers")
    if not numbers:
        raise DataFileError(f"{path} holds no lines of numbers")
    header = [name.strip() for name in header or []]
    points = np.array(numbers).reshape(-1, width)
    if header and not header[0]:
        return points[:, 1:], header[1:], ["header", "the first column, which has no name, was left out"]
    if not header and width > 1 and list(points[0]) == list(range(width)) and np.any(points[1:] % 1):
        return points, header, ["no header (the first row, 0, 1, ..., is a point: delete it if it counts the columns)"]
    return points, header, ["header" if header else "no header"]


# A comment is a "#" at the start of a line or before a blank; but #N/A, #DIV/0! and the like are what a sheet writes.
_COMMENT = re.compile(r"^\s*#(?![A-Z]+[/!?])|#(?=\s|$)")
_MISSING = {"", "na", "n/a", "nan", "null", "none", "missing", "true", "false", "-", "?", "."}
_LIKE_NUMBERS = re.compile(r"(?=.*\d)[\dlOoI.,+\-−$€£%eE ]+")


def _uncommented(line: str) -> str:
    found = _COMMENT.search(line)
    if found is None or line[: found.start()].count('"') % 2:  # "#" within quotes is a name's
        return line
    return line[: found.start()]


def _number(cell: str) -> float | None:
    try:
        return None if "_" in cell else float(cell)  # Python takes 1_000, tables do not
    except ValueError:
        return None


def _is_header(cells: list[str]) -> bool:
    """Names: each begins with a letter, none could be a number with a typo, and not all stand for a missing one."""
    names = [cell.strip().strip("'\"") for cell in cells]
    if all(name.lower() in _MISSING for name in names):
        return False
    named = [name for name in names if name]
    return all(name[0].isalpha() or name[0] == "_" for name in named) and not any(
        _number(name) is not None or _LIKE_NUMBERS.fullmatch(name) for name in named
    )


def _wrong(cells: list[str], row: list[float | None], width: int) -> str:
    """What is not as it should be in a row of a table."""
    text = ",".join(cells)
    for name, separator in (("semicolons", ";"), ("tabs", "\t"), ("spaces", " ")):
        parts = text.strip().split(separator)
        if len(parts) > 1 and all(_number(part.replace(",", ".")) is not None for part in parts):
            return f"{text[:60]!r} is separated by {name}; write numbers with a point, separated by commas"
    wrong = ""
    if None in row:
        i = row.index(None)
        wrong = f": column {i + 1} is {cells[i][:20]!r}" if cells[i].strip() else f": column {i + 1} is empty"
        if cells[i].strip()[:1].isalpha():
            wrong += "; leave columns of words out, or write classes as 0, 1, ..."
    elif width:
        wrong = f": {len(row)} columns, not {width}"
    return f"{text[:60]!r} is not a row like the others, of numbers separated by commas{wrong}"


_READERS: dict[str, Callable[[Path], Raw]] = {".npy": _read_npy, ".npz": _read_npz, ".csv": _read_csv}
