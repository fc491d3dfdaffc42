"""The library that made an array: found once for each type, and the same as array-api-compat finds."""

import weakref
from types import SimpleNamespace

import array_api_compat
import array_api_strict
import numpy as np
import pytest

from refscore import library
from refscore.library import array_namespace


@pytest.mark.parametrize("x", [np.ones(2), np.float32(1), array_api_strict.ones(2)])
def test_it_is_what_array_api_compat_finds(x):
    assert array_namespace(x) is array_namespace(x, x) is array_api_compat.array_namespace(x)


def test_a_type_is_looked_at_once_and_no_array_is_kept(monkeypatch):
    asked = []
    monkeypatch.setattr(library, "_FOUND", {})
    monkeypatch.setattr(library, "find", lambda x: asked.append(type(x)) or np)
    x = np.ones(2)
    assert [array_namespace(each) for each in (x, np.ones(3), np.ones(4))] == [np] * 3
    assert asked == [np.ndarray]
    kept = weakref.ref(x)
    del x
    assert kept() is None


def test_an_array_that_carries_functions_of_its_own_is_asked_each_time():
    class Recorded:
        def __init__(self, xp):
            self.xp = xp

        def __array_namespace__(self, api_version=None):
            return self.xp

    for xp in (SimpleNamespace(__name__=name) for name in ("one", "other")):
        assert array_namespace(Recorded(xp)) is xp


def test_what_is_no_array_is_refused_each_time_and_so_are_two_libraries():
    for _ in range(2):
        for bad in (None, 1.0, [1.0], "x"):
            with pytest.raises(TypeError):
                array_namespace(bad)
    with pytest.raises(TypeError, match="ultiple"):
        array_namespace(np.ones(2), array_api_strict.ones(2))
