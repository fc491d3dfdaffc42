"""What the library asks of an array library is there: every name, every keyword, in every library that is installed.

Read from the source, so that a line no test reaches is checked as well, and CuPy's names without a GPU.
"""

import ast
import importlib
import inspect
from contextlib import suppress

import numpy as np
import pytest

from refscore.protocols import Rng
from refscore_backends import BACKENDS, Backend, HostRng
from refscore_backends.strict import StrictBackend
from tests.oracles.names import NAMESPACES, Use, in_core, is_namespace, lacks, trees, uses

LIBRARIES = (
    "array_api_strict", "array_api_compat.numpy", "array_api_compat.cupy", "array_api_compat.torch", "jax.numpy",
)  # fmt: skip
TREES = dict(trees())
ASKED = [use for where, tree in TREES.items() for use in uses(where, tree)]
CORE = {where: tree for where, tree in TREES.items() if in_core(where, tree)}


def library(name):
    try:
        return importlib.import_module(name)
    except ImportError:
        pytest.skip(f"{name} is not installed")


@pytest.mark.parametrize("name", LIBRARIES)
def test_every_name_exists_and_every_call_fits(name):
    assert len(ASKED) > 500
    lack = [said for use in ASKED if (said := lacks(library(name), use))]
    assert not lack, lack


# ------------------------------------------------------------------ the reader sees

PLANTED = """
def f(x, backend, *more):
    xp, n = array_namespace(x), 3
    xp.sum(x, axis=0)
    y = xp.linalg.solve(x, x) if n else namespace(x).exp(x)
    array_namespace(x).full((2,), 1.0, dtype=x.dtype, device=device(x))
    xp.concat([*more], axis=1), xp.stack(*more)
    return backend.xp.float32, self.backend.xp.where(x, y, 0), xp.finfo(x.dtype).eps, x.sum(), math.exp(n)
"""
SEEN = {
    Use("f:4", "sum", 1, ("axis",)), Use("f:5", "linalg.solve", 2), Use("f:5", "exp", 1),
    Use("f:6", "full", 2, ("dtype", "device")), Use("f:7", "concat", 1, ("axis",)), Use("f:7", "stack"),
    Use("f:8", "float32"), Use("f:8", "where", 3), Use("f:8", "finfo", 1),
}  # fmt: skip


def test_a_planted_call_is_seen_however_its_namespace_is_held():
    assert set(uses("f", ast.parse(PLANTED))) == SEEN


def test_every_namespace_is_called_xp_or_used_at_once():
    """Under another name its uses would not be seen."""
    for where, tree in TREES.items():
        seen = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                seen.add(id(node.value))
            elif isinstance(node, ast.Compare):  # array_namespace(a) is xp
                seen |= {id(part) for part in (node.left, *node.comparators)}
            elif isinstance(node, ast.Assign):
                seen |= {id(v) for n, v in pairs(node.targets[0], node.value) if getattr(n, "id", "") == "xp"}
            elif isinstance(node, ast.FunctionDef) and node.name in NAMESPACES:
                seen |= {id(part) for part in ast.walk(node)}
        calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and getattr(n.func, "id", "") in NAMESPACES]
        assert not [f"{where}:{call.lineno}" for call in calls if id(call) not in seen]


def pairs(target, value):
    """Names and what is assigned to them, through tuples."""
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        return [pair for t, v in zip(target.elts, value.elts, strict=True) for pair in pairs(t, v)]
    return [(target, value)]


WRONG = [
    Use("f:1", "logsumexp_", 1), Use("f:1", "linalg.sove", 2), Use("f:1", "float31"), Use("f:1", "eye", 1, ("size",)),
    Use("f:1", "exp", 2), Use("f:1", "exp", 1, ("axis",)), Use("f:1", "sum", 1, ("axes",)),
    Use("f:1", "linalg.eigh", 0),
]  # fmt: skip


@pytest.mark.parametrize("name", LIBRARIES)
def test_what_a_library_lacks_is_found(name):
    assert all(lacks(library(name), use).startswith("f:1") for use in WRONG)


@pytest.mark.parametrize("use", [
    Use("f:1", "sum", 1, ("where",)), Use("f:1", "einsum", 3), Use("f:1", "mean", 1, ("out",)),
])  # fmt: skip
def test_what_numpy_has_and_the_standard_has_not_is_refused(use):
    assert not lacks(library("array_api_compat.numpy"), use)
    assert lacks(library("array_api_strict"), use)


# ------------------------------------------------------------------ arrays know where they are

CREATION = {"asarray", "empty", "eye", "full", "linspace", "ones", "zeros"}  # from numbers, which have no device


def without_home(found):
    """Calls that leave dtype or device to the library; integers may leave the dtype."""
    both, one = {"dtype", "device"}, {"device"}
    needs = {name: one if name == "arange" else both for name in CREATION | {"arange"}}
    return [use for use in found if not needs.get(use.name, set()) <= set(use.keywords)]


def test_what_is_made_is_made_in_a_dtype_on_a_device():
    assert not without_home([use for where, tree in CORE.items() for use in uses(where, tree)])
    planted = "xp.zeros(3)\nxp.full(3, 1.0, dtype=x.dtype)\nxp.arange(3)\nxp.arange(3, device=d)\nxp.zeros_like(x)"
    assert [use.where for use in without_home(uses("f", ast.parse(planted)))] == ["f:1", "f:2", "f:3"]


STANDARD = {"dtype", "device", "mT", "ndim", "shape", "to_device"}
METHODS = {name for name in dir(np.ndarray) if name[0] != "_"} - STANDARD | {
    "bool", "cpu", "cuda", "detach", "double", "expand", "float", "item", "long", "numpy", "permute",
    "unsqueeze",
}  # fmt: skip
ATTRIBUTES = {"T", "base", "ctypes", "data", "flags", "flat", "imag", "itemsize", "nbytes", "real", "strides"}


def beside_the_standard(where, tree):
    """x.sum(), x.T: what NumPy's arrays have and others have not, or mean otherwise."""
    for node in ast.walk(tree):
        called = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in METHODS
        what = node.func if called else node
        if called or (isinstance(node, ast.Attribute) and node.attr in ATTRIBUTES):
            known = is_namespace(what.value) or ast.unparse(what.value) in ("math", "xp.linalg")
            if not known:
                yield f"{where}:{node.lineno}: {ast.unparse(what)}"


def test_arrays_are_asked_for_nothing_beside_the_standard():
    found = [said for where, tree in CORE.items() for said in beside_the_standard(where, tree)]
    assert not found, found
    planted = "x.sum()\nx.T\nx.reshape(3)\nx.item()\nx.mT, x.shape\nmath.prod(s)\nxp.sum(x)\nx.astype(d)"
    assert len(list(beside_the_standard("f", ast.parse(planted)))) == 5


@pytest.mark.parametrize("scalar", [np.float64(2), np.float32(2), np.int64(2)], ids=lambda v: type(v).__name__)
def test_the_stand_in_of_a_gpu_refuses_a_numpy_scalar_on_its_left(scalar):
    """So wherever a NumPy scalar comes to stand there, the laws on array-api-strict fail."""
    x = StrictBackend("device1").asarray([1.0, 2.0])
    for operation in (lambda: scalar * x, lambda: scalar + x, lambda: scalar - x, lambda: scalar / x):
        with pytest.raises((TypeError, ValueError, RuntimeError)):
            operation()


# ------------------------------------------------------------------ random numbers, and back ends

DRAWN = {"standard_normal", "random", "integers"}


def named(word):
    """An expression that ends with this name: rng, self.rng."""
    return lambda node: word in (getattr(node, "id", ""), getattr(node, "attr", ""))


def generators():
    """NumPy's, CuPy's, ours, and those of the back ends by their names."""
    found = [np.random.Generator, HostRng, Rng]
    with suppress(ImportError):
        found.append(importlib.import_module("cupy").random.Generator)
    for name in BACKENDS:
        module = importlib.import_module(f"refscore_backends.{name}")
        found += [c for n, c in inspect.getmembers(module, inspect.isclass) if n.endswith("Rng") and c is not HostRng]
    return found


def test_random_numbers_are_drawn_by_three_methods_that_every_generator_has():
    draws = [use for where, tree in CORE.items() for use in uses(where, tree, named("rng"))]
    assert len(draws) > 20
    others = {(use.where.split(":")[0], use.name) for use in draws if use.name not in DRAWN}
    assert others <= {("refscore/sampling/shards.py", "spawn")}, others  # which asks whether there is one
    bound = [use._replace(arguments=use.arguments + 1) for use in draws if use.name in DRAWN]  # and self
    for generator in generators():
        assert not [said for use in bound if (said := lacks(generator, use))], generator
        assert lacks(generator, Use("f:1", "standard_normal", 2, ("dtyp",)))
        assert lacks(generator, Use("f:1", "gaussian", 2))


def test_commands_ask_of_a_back_end_only_what_every_one_offers():
    asked = [use for where, tree in TREES.items() for use in uses(where, tree, named("backend"))]
    asked = [use for use in asked if not use.name.startswith("xp.")]
    offered = {name for name in dir(Backend) if name[0] != "_"}
    assert len(asked) > 20
    assert {use.name for use in asked} <= offered
    for make in BACKENDS.values():
        assert not [name for name in offered - {"name", "xp"} if not hasattr(make, name)], make
        bound = [use._replace(arguments=use.arguments + 1) for use in asked if use.arguments is not None]
        assert not [said for use in bound if (said := lacks(make, use))], make
