"""Arguments, and functions that are dataclasses, taken apart into leaves and put together again."""

import dataclasses
import functools
import types
from collections.abc import Callable
from typing import Any

from refscore_backends.recorded.tape import Ref, is_array


@dataclasses.dataclass(frozen=True)
class _Slot:
    """Where a leaf was: "arrays", "numbers" or "rngs", and its index."""

    kind: str
    index: int


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
        if value is None or isinstance(value, (bool, str)):
            return value
        if isinstance(value, (int, float)):
            return value if self._frozen else self._slot("numbers", value)
        if is_array(value):
            return self._slot("arrays", value)
        if isinstance(value, tuple):
            return (type(value), *(self.take(v) for v in value))
        if isinstance(value, list):
            return (list, *(self.take(v) for v in value))
        if type(value) in (dict, type(_PROXY)):
            return (dict, *((k, self.take(v)) for k, v in value.items()))
        if hasattr(value, "standard_normal") and hasattr(value, "random") and not self._frozen:
            return self._slot("rngs", value)
        if isinstance(value, functools.partial):
            return (functools.partial, self.take(value.func), self.take(value.args), self.take(value.keywords))
        if self._frozen and isinstance(value, types.MethodType):
            return (types.MethodType, self.take(value.__func__), self.take(value.__self__))
        if self._frozen and isinstance(value, types.FunctionType) and value.__closure__:
            return (types.FunctionType, value, *(self._cell(cell) for cell in value.__closure__))
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return (_Object, type(value), *((k, self.take(v)) for k, v in vars(value).items()))
        return value

    def _cell(self, cell: types.CellType) -> Any:
        """What a function has of the place where it was made: arrays, in tuples and dataclasses too, and the rest."""
        value = cell.cell_contents
        structured = is_array(value) or isinstance(value, tuple) or dataclasses.is_dataclass(value)
        return self.take(value) if structured else value

    def _slot(self, kind: str, value: Any) -> _Slot:
        of = getattr(self, kind)
        of.append(value)
        return _Slot(kind, len(of) - 1)


_PROXY = type.__dict__["__dict__"].__get__(object)


class _Object:
    """Marks the structure of a dataclass."""


def put_back(skeleton: Any, arrays: list[Any], numbers: list[Any], rngs: list[Any]) -> Any:
    """The value of which `Leaves.take` made the skeleton, with other leaves."""
    lists = {"arrays": arrays, "numbers": numbers, "rngs": rngs}

    def back(s: Any) -> Any:
        if isinstance(s, _Slot):
            return lists[s.kind][s.index]
        if not isinstance(s, tuple):
            return s
        kind, *parts = s
        if kind is list:
            return [back(p) for p in parts]
        if kind is dict:
            return {k: back(p) for k, p in parts}
        if kind is functools.partial:
            func, args, keywords = (back(p) for p in parts)
            return functools.partial(func, *args, **keywords)
        if kind is types.FunctionType:
            f, cells = parts[0], tuple(types.CellType(back(p)) for p in parts[1:])
            made = types.FunctionType(f.__code__, f.__globals__, f.__name__, f.__defaults__, cells)
            made.__kwdefaults__ = f.__kwdefaults__
            return made
        if kind is types.MethodType:
            return types.MethodType(back(parts[0]), back(parts[1]))
        if kind is _Object:
            made = object.__new__(parts[0])
            made.__dict__.update({k: back(p) for k, p in parts[1:]})
            return made
        values = [back(p) for p in parts]
        return kind(values) if kind is tuple else kind(*values)

    return back(skeleton)


def mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """A structure of tuples, lists, dicts and dataclasses with each leaf changed."""
    if isinstance(value, (list, tuple)):
        parts = [mapped(v, change) for v in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if isinstance(value, dict):
        return {k: mapped(v, change) for k, v in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, (type, Ref)):
        made = object.__new__(type(value))
        made.__dict__.update({k: mapped(v, change) for k, v in vars(value).items()})
        return made
    return change(value)
