"""Arguments, and functions that are dataclasses, taken apart into leaves and put together again."""

import dataclasses
import functools
import types
from collections.abc import Callable
from typing import Any

import numpy as np

from refscore_backends.recorded.tape import Ref, host_number, is_array


@dataclasses.dataclass(frozen=True)
class _Slot:
    """Where a leaf was: "arrays", "numbers" or "rngs", and its index; 2 and 2.0 are programs of their own."""

    kind: str
    index: int
    of: Any = None


class Leaves:
    """Arrays, numbers and generators of a structure, and the structure without them, which can be compared.

    Parameters
    ----------
    frozen : bool, default False
        Of a function that is compiled: its numbers do not change.
    """

    def __init__(self, frozen: bool = False) -> None:
        self.arrays: list[Any] = []
        self.numbers: list[float] = []
        self.rngs: list[Any] = []
        self._frozen = frozen

    def take(self, value: Any) -> Any:
        """The structure of a value, its leaves appended to the lists."""
        if value is None or isinstance(value, (bool, np.bool_, str)):
            return value
        if isinstance(value, (int, float, np.integer, np.floating)):
            return value if self._frozen else self._number(host_number(value))
        if is_array(value):
            return self._slot("arrays", value)
        if isinstance(value, tuple):
            return (type(value), *(self.take(v) for v in value))
        if isinstance(value, list):
            return (list, *(self.take(v) for v in value))
        if isinstance(value, (dict, types.MappingProxyType)):
            return (dict, *((k, self.take(v)) for k, v in value.items()))
        if _draws(value):
            if self._frozen:
                raise TypeError(
                    "a compiled function is given its generator as an argument: one of its own stands still"
                )
            return self._slot("rngs", value)
        if isinstance(value, functools.partial):
            return (functools.partial, self.take(value.func), self.take(value.args), self.take(value.keywords))
        if self._frozen and isinstance(value, types.MethodType):
            return (types.MethodType, self.take(value.__func__), self.take(value.__self__))
        if self._frozen and isinstance(value, types.FunctionType) and value.__closure__:
            return (types.FunctionType, value, *(self._cell(cell) for cell in value.__closure__))
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return (_Object, type(value), *((k, self.take(v)) for k, v in attributes(value).items()))
        if not self._frozen and value.__hash__ is None:
            raise TypeError(
                "a compiled function takes arrays, numbers, generators, and tuples, lists, dicts and dataclasses of "
                f"them; got a {type(value).__name__}"
            )
        return value

    def _cell(self, cell: types.CellType) -> Any:
        """What a function has of the place where it was made: arrays, in tuples too; the rest in its cell."""
        try:
            value = cell.cell_contents
        except ValueError:  # it is not filled yet: a function that calls itself
            return cell
        structured = is_array(value) or isinstance(value, tuple) or dataclasses.is_dataclass(value) or _draws(value)
        return self.take(value) if structured else cell

    def _number(self, value: float) -> _Slot:
        self.numbers.append(value)
        return _Slot("numbers", len(self.numbers) - 1, type(value))

    def _slot(self, kind: str, value: Any) -> _Slot:
        of = getattr(self, kind)
        of.append(value)
        return _Slot(kind, len(of) - 1)


def _draws(value: Any) -> bool:
    return (
        hasattr(value, "standard_normal")
        and hasattr(value, "random")
        and not isinstance(value, (type, types.ModuleType))
    )


def attributes(value: Any) -> dict[str, Any]:
    """What a dataclass has, in a dictionary or in slots."""
    own = getattr(value, "__dict__", {})
    slots = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.name not in own}
    return own | slots


def made_of(kind: type, parts: dict[str, Any]) -> Any:
    """A dataclass with these attributes."""
    made: Any = object.__new__(kind)
    for name, part in parts.items():
        object.__setattr__(made, name, part)
    return made


class _Object:
    """Marks the structure of a dataclass."""


def put_back(skeleton: Any, arrays: list[Any], numbers: list[Any], rngs: list[Any]) -> Any:
    """The value of which `Leaves.take` made the skeleton, with other leaves."""
    lists = {"arrays": arrays, "numbers": numbers, "rngs": rngs}
    return _back(skeleton, lists)


def _back(s: Any, lists: dict[str, list[Any]]) -> Any:  # no closure: a cycle would keep the arrays
    if isinstance(s, _Slot):
        return lists[s.kind][s.index]
    if not isinstance(s, tuple):
        return s
    kind, *parts = s
    if kind is list:
        return [_back(p, lists) for p in parts]
    if kind is dict:
        return {k: _back(p, lists) for k, p in parts}
    if kind is functools.partial:
        func, args, keywords = (_back(p, lists) for p in parts)
        return functools.partial(func, *args, **keywords)
    if kind is types.FunctionType:
        f, *cells = parts
        closure = tuple(p if isinstance(p, types.CellType) else types.CellType(_back(p, lists)) for p in cells)
        made = types.FunctionType(f.__code__, f.__globals__, f.__name__, f.__defaults__, closure)
        made.__kwdefaults__ = f.__kwdefaults__
        return made
    if kind is types.MethodType:
        return types.MethodType(_back(parts[0], lists), _back(parts[1], lists))
    if kind is _Object:
        return made_of(parts[0], {k: _back(p, lists) for k, p in parts[1:]})
    values = tuple(_back(p, lists) for p in parts)
    return kind(*values) if hasattr(kind, "_fields") else values


def mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """A structure of tuples, lists, dicts and dataclasses with each leaf changed."""
    if isinstance(value, (list, tuple)):
        parts = [mapped(v, change) for v in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if isinstance(value, (dict, types.MappingProxyType)):
        return {k: mapped(v, change) for k, v in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, (type, Ref)):
        return made_of(type(value), {k: mapped(v, change) for k, v in attributes(value).items()})
    return change(value)
