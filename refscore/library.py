"""The library that made an array: the only file that imports array-api-compat, for all the others."""

from types import ModuleType
from typing import Any

from array_api_compat import array_namespace as find
from array_api_compat import device, is_array_api_obj, is_numpy_array, to_device

__all__ = ["array_namespace", "device", "is_array_api_obj", "is_numpy_array", "known", "to_device"]

_FOUND: dict[type, Any] = {}  # by type, so that no array is kept


def known(x: Any) -> bool:
    """Say whether x is of a type whose library was found before: no operations that are being recorded are.

    Parameters
    ----------
    x : object
        Anything.

    Returns
    -------
    bool
        False for what is new.
    """
    return type(x) in _FOUND


def array_namespace(x: Any, *others: Any) -> Any:
    """Find the functions that go with arrays, as `array_api_compat.array_namespace` does, and remember the answer.

    Twenty lines of one step of a sampler ask; to find it again each time was a twentieth of a small step.

    Parameters
    ----------
    x : Array
        An array of any library.
    *others : Array
        More of them, of the same library.

    Returns
    -------
    module
        Such as `array_api_compat.numpy`.

    Raises
    ------
    TypeError
        For what is not an array, for masked arrays, and for arrays of different libraries.
    """
    if others:
        return find(x, *others)
    xp = _FOUND.get(type(x))
    if xp is None:
        if hasattr(x, "mask"):  # NumPy's masked arrays: what is masked would be lost in the first sum
            raise TypeError(f"{type(x).__name__} is not an array of plain numbers: fill or drop what is masked first")
        xp = find(x)
        if isinstance(xp, ModuleType):  # and not the array's own, as where operations are recorded
            _FOUND[type(x)] = xp
    return xp
