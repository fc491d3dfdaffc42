"""Scaling: from the units of a file to those a network likes, and back. It is plain numbers: a checkpoint holds it.

Columns of points are centred and divided by their deviation. Of images with L grey levels v = 0 ... L-1, [-1, 1] is
cut into L equal cells, and v becomes the centre of its cell,

    x = 2 (v + ½)/L - 1,

so that uniform dequantisation, x = 2 (v + u)/L - 1 with u uniform on [0, 1), is the same map and stays in the same
cell: going back is exact with noise or without.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from refscore.checks import check_array, check_count, check_finite, check_number
from refscore.library import array_namespace, device
from refscore.protocols import Array

Numbers = float | tuple[float, ...]


@dataclass(frozen=True)
class Scaling:
    """x = (v - centre)/scale, and back; with `levels` v are integers 0 ... levels - 1, one wide.

    Parameters
    ----------
    centre : float or tuple of float, default 0.0
        One number for all coordinates, or one for each of the last axis, in the units of the file.
    scale : float or tuple of float, default 1.0
        As centre; the unit of x, in the units of the file.
    levels : int, optional
        Number of grey levels; by default v are real numbers.

    Raises
    ------
    TypeError, ValueError
        Unless centre and scale are finite numbers, alike in length, scale > 0, and 2 <= levels <= 65536.

    Examples
    --------
    >>> import numpy as np
    >>> from refscore.data.scaling import Scaling
    >>> scaling = Scaling.of_levels(4)
    >>> x = scaling.apply(np.array([[0, 1, 2, 3]], dtype="uint8"))
    >>> x
    array([[-0.75, -0.25,  0.25,  0.75]], dtype=float32)
    >>> scaling.undo(x + 0.1)
    array([[0, 1, 2, 3]], dtype=uint8)
    """

    centre: Numbers = 0.0
    scale: Numbers = 1.0
    levels: int | None = None

    def __post_init__(self) -> None:
        for name in ("centre", "scale"):
            value = getattr(self, name)
            each = tuple(check_number(name, v) for v in (value if isinstance(value, tuple) else (value,)))
            if not all(math.isfinite(v) and (name == "centre" or v > 0) for v in each):
                raise ValueError(f"{name} must be finite{' and positive' * (name == 'scale')}, got {value}")
            object.__setattr__(self, name, each if isinstance(value, tuple) else each[0])
        lengths = {len(v) for v in (self.centre, self.scale) if isinstance(v, tuple)}
        if len(lengths) > 1 or 0 in lengths:
            raise ValueError(f"centre and scale must be alike in length, got {self.centre} and {self.scale}")
        if self.levels is not None:
            object.__setattr__(self, "levels", check_count("levels", self.levels, 2))
            if self.levels > 2**16:
                raise ValueError(f"levels must be at most 65536, got {self.levels}")

    @classmethod
    def of_levels(cls, levels: int) -> "Scaling":
        """Cut [-1, 1] into equal cells, one for each grey level 0 ... levels - 1."""
        return cls((levels - 1) / 2, levels / 2, levels)

    @classmethod
    def of_span(cls, low: float, high: float) -> "Scaling":
        """Map the interval [low, high] onto [-1, 1]."""
        return cls((low + high) / 2, (high - low) / 2)

    def apply(self, v: Array) -> Array:
        """Return x of v (..., n): float64 from float64, and float32 from float32 and integers."""
        xp = array_namespace(v)
        x = v if xp.isdtype(v.dtype, "real floating") else xp.astype(v, xp.float32)
        return (x - self._beside(self.centre, x)) / self._beside(self.scale, x)

    def undo(self, x: Array) -> Array:
        """Return v of x (..., n); grey levels as unsigned integers, those beyond the range cut to it.

        Raises
        ------
        ValueError
            Where grey levels are wanted and x is NaN or infinite.
        """
        check_array(x=x)
        xp = array_namespace(x)
        v = x * self._beside(self.scale, x) + self._beside(self.centre, x)
        if self.levels is None:
            return v
        check_finite("x", x)
        return xp.astype(xp.clip(xp.floor(v + 0.5), 0, self.levels - 1), xp.uint8 if self.levels <= 256 else xp.uint16)

    def dequantise(self, x: Array, u: Array) -> Array:
        """Move x, centres of cells, to where u in [0, 1) of the shape of x says: x + (u - ½) width.

        With uniform u the density p of the result bounds the probability P of the grey levels, D of them an image:
        log P(v) >= E_u log p(x) + D log width, which is `likelihood.flow.bits_per_dim(log_p, D, bins=width)`. In
        float32 a u within 2⁻¹⁶ of 0 or 1 may be rounded into the neighbouring cell.

        Raises
        ------
        ValueError
            As `width`.
        """
        check_array(x=x, u=u)
        return x + (u - 0.5) * self.width

    @property
    def width(self) -> float:
        """Return the width of the cell of a grey level, in units of x: 2/levels in [-1, 1].

        Raises
        ------
        ValueError
            For data without grey levels.
        """
        if self.levels is None or isinstance(self.scale, tuple):
            raise ValueError(f"{self} has no grey levels of one width, hence no cells: nothing to dequantise")
        return 1 / self.scale

    def log_det(self, dim: int) -> float:
        """Return log |dv/dx| of `dim` coordinates: in the file's units log densities are those of x minus this.

        Raises
        ------
        ValueError
            Unless dim is a multiple of the number of columns.
        """
        each = self.scale if isinstance(self.scale, tuple) else (self.scale,)
        if dim % len(each):
            raise ValueError(f"this scaling is of {len(each)} columns, and dim {dim} is no multiple of that")
        return dim // len(each) * sum(map(math.log, each))

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as a dict that JSON can hold."""
        plain = {name: list(v) if isinstance(v := getattr(self, name), tuple) else v for name in ("centre", "scale")}
        return {**plain, "levels": self.levels}

    @classmethod
    def from_dict(cls, numbers: Mapping[str, Any]) -> "Scaling":
        """Make the scaling whose `to_dict` this is.

        Raises
        ------
        ValueError
            For other keys than centre, scale and levels.
        """
        if set(numbers) != {"centre", "scale", "levels"}:
            raise ValueError(f"a scaling has centre, scale and levels, got {', '.join(map(str, numbers)) or 'nothing'}")
        plain: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in numbers.items()}
        return cls(**plain)

    def _beside(self, value: Numbers, x: Array) -> Any:
        """A number as it is, one for each column as an array beside x."""
        if isinstance(value, float):
            return value
        if x.shape[-1:] != (len(value),):
            raise ValueError(f"this scaling is of {len(value)} columns, got an array of shape {tuple(x.shape)}")
        return array_namespace(x).asarray(value, dtype=x.dtype, device=device(x))
