"""The same numbers on every back end, from the same noise: of everything that is public, and nothing is left out.

`python -m pytest -m gpu` runs this on CuPy, where it finds a device; in every run read-only NumPy and array-api-strict
stand in, so that what is run there is known to run.
"""

import inspect
import sys
from functools import cache

import numpy as np
import pytest

from refscore_backends.base import dtype_name
from refscore_backends.numpy import NumpyBackend
from tests.oracles.everything import EVERYTHING, Place, leaves
from tests.oracles.marks import on_every_other
from tests.oracles.names import in_core, trees

TOLERANCE = {
    "float64": 1e-12,
    "float32": 1e-5,
}  # of the largest number in an array; a single number may be a difference


@cache
def numpys(name, dtype):
    return [np.asarray(leaf) for leaf in leaves(EVERYTHING[name](Place(NumpyBackend(), dtype))())]


def check_same(found, wanted, dtype):
    """Two arrays in NumPy, or two numbers."""
    assert found.shape == wanted.shape
    if found.ndim and wanted.dtype.kind == "f":
        assert dtype_name(found.dtype) == dtype_name(wanted.dtype) == dtype
    assert np.isfinite(wanted).all()
    scale = np.max(np.abs(wanted), initial=0.0 if wanted.ndim else 1.0)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=TOLERANCE[dtype] * scale)


@pytest.mark.parametrize("name", EVERYTHING)
@on_every_other
def test_every_back_end_gives_numpys_numbers(host, name):
    for dtype in ("float32",) if host.name.startswith("strict") else TOLERANCE:  # its float64 is NumPy's, and slow
        found, wanted = list(leaves(EVERYTHING[name](Place(host, dtype))())), numpys(name, dtype)
        assert len(found) == len(wanted) > 0
        for a, b in zip(found, wanted, strict=True):
            check_same(host.to_numpy(a), b, dtype)


@pytest.mark.parametrize("other", [
    np.array([1, 1, 1 + 1e-11]), np.ones(3, "float32"), np.ones((3, 1)), np.array([1, 1, np.nan]),
])  # fmt: skip
def test_other_numbers_are_found(other):
    check_same(np.ones(3) + 1e-13, np.ones(3), "float64")
    with pytest.raises(AssertionError):
        check_same(other, np.ones(3), "float64")


# ------------------------------------------------------------------ nothing is left out

ABSTRACT = {  # those of whose kind are in
    "refscore.matching.base.ScoreMatching.__call__",
    "refscore.nn.linear.Linear.apply", "refscore.nn.linear.Linear.back",
    *(f"refscore.nn.activation.Activation.{name}" for name in ("forward", "slope", "curvature", "third")),
    *(f"refscore.noise.interpolant.Interpolant.{name}" for name in ("alpha", "sigma", "rates")),
}  # fmt: skip


NOT_CORE = ("checks", "cli", "protocols")


def public():
    """The code of every public function and method of the core, by its name."""
    for where, tree in trees():
        if "/clinic/" in where or "/museum/" in where:  # on the host, of other people's programs
            continue
        module = sys.modules.get(where.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
        if module is None or not in_core(where, tree) or module.__name__.removeprefix("refscore.") in NOT_CORE:
            continue
        for name, thing in vars(module).items():
            if name[0] == "_" or getattr(thing, "__module__", "") != module.__name__:
                continue
            if inspect.isfunction(thing):
                yield f"{module.__name__}.{name}", inspect.unwrap(thing).__code__
            for own, method in vars(thing).items() if inspect.isclass(thing) else ():
                code = getattr(method, "fget", None) or getattr(method, "func", None) or method  # of a property
                if (own[0] != "_" or own == "__call__") and inspect.isfunction(code) and not protocol(thing):
                    yield f"{module.__name__}.{name}.{own}", code.__code__


def protocol(thing):
    return getattr(thing, "_is_protocol", False)


def entered(run):
    """The code of every function that is called on the way."""
    seen = set()

    def look(frame, event, _):
        if event == "call":
            seen.add(frame.f_code)

    before = sys.getprofile()
    sys.setprofile(look)
    try:
        run()
    finally:
        sys.setprofile(before)
    return seen


def test_everything_public_is_compared():
    seen = entered(lambda: [make(Place(NumpyBackend(), "float32"))() for make in EVERYTHING.values()])
    names = dict(public())
    assert len(names) > 300
    assert {name for name, code in names.items() if code not in seen} == ABSTRACT


def test_what_is_not_called_is_named():
    names, seen = dict(public()), entered(lambda: EVERYTHING["mixture full"](Place(NumpyBackend(), "float32"))())
    missed = {name for name, code in names.items() if code not in seen}
    assert "refscore.laws.mixture.GaussianMixture.score" not in missed
    assert {"refscore.sampling.transitions.DDIM.__call__", "refscore.noise.chains.Chain.times"} < missed
