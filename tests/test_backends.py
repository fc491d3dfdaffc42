"""The back ends: moving arrays, drawing numbers, and saying in one sentence what is missing."""

import subprocess
import sys
import types

import numpy as np
import pytest

from refscore_backends import BACKENDS, BackendUnavailable, HostRng, get, keep_memory
from refscore_backends.base import check_seed, dtype_name
from refscore_backends.cupy import CupyBackend
from refscore_backends.numpy import NumpyBackend
from refscore_backends.strict import StrictBackend


@pytest.mark.parametrize("name", ["torch", "", "NumPy", "cuda"])
def test_an_unknown_name_is_refused_with_the_known_ones(name):
    with pytest.raises(ValueError, match=f"no back end called {name!r}; there are numpy, cupy, strict"):
        get(name)


@pytest.mark.parametrize("name", ["numpy", "strict"])
def test_get_makes_the_back_end_of_that_name(name):
    backend = get(name)
    assert isinstance(backend, BACKENDS[name])
    assert backend.name.startswith(name)
    assert isinstance(backend.device(), str)
    backend.synchronize()


def without(monkeypatch, *modules):
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)


def one_sentence(error):
    message = str(error)
    assert "\n" not in message
    assert len(message) < 130
    return message


def test_without_cupy_one_sentence_says_what_to_install(monkeypatch):
    without(monkeypatch, "cupy", "array_api_compat.cupy")
    with pytest.raises(BackendUnavailable, match="CuPy is not installed") as caught:
        get("cupy")
    assert '".[cuda12]" or ".[cuda13]" in the checkout' in one_sentence(caught.value)


def test_without_a_gpu_one_sentence_speaks_of_the_driver(monkeypatch):
    cupy = types.ModuleType("cupy")
    cupy.is_available = lambda: False
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setitem(sys.modules, "array_api_compat.cupy", types.ModuleType("array_api_compat.cupy"))
    with pytest.raises(BackendUnavailable, match="no usable GPU") as caught:
        CupyBackend()
    assert "driver" in one_sentence(caught.value)


def test_without_array_api_strict_one_sentence_says_so(monkeypatch):
    without(monkeypatch, "array_api_strict")
    with pytest.raises(BackendUnavailable, match=r"\.\[test\]") as caught:
        get("strict")
    one_sentence(caught.value)


# ------------------------------------------------------------------ arrays

NARROW_TOO = ("float32", "int64", "bool")


@pytest.mark.parametrize("dtype", NARROW_TOO)
@pytest.mark.parametrize("shape", [(), (0, 2), (3,), (2, 3, 4)])
def test_there_and_back_again_changes_nothing(any_backend, dtype, shape):
    x = (10 * np.random.default_rng(0).random(shape)).astype(dtype)
    there = any_backend.asarray(x)
    back = any_backend.to_numpy(there)
    assert type(back) is np.ndarray
    assert back.dtype == x.dtype
    assert there.shape == shape
    assert np.array_equal(back, x)


def test_asarray_converts_where_asked(backend):
    x = backend.asarray([[1, 2], [3, 4]], dtype="float32")
    assert dtype_name(x.dtype) == "float32"
    assert dtype_name(backend.asarray(x, dtype="float64").dtype) == "float64"
    assert dtype_name(backend.asarray(x).dtype) == "float32"
    assert dtype_name(backend.asarray(np.ones(2, dtype=complex)).dtype) == "complex128"


@pytest.mark.parametrize("make", [NumpyBackend, StrictBackend])
def test_asarray_copies(make):
    x = np.zeros(3)
    y = make().asarray(x)
    x += 1
    assert not make().to_numpy(y).any()


def test_arrays_of_another_device_are_moved():
    one, other = StrictBackend("device1"), StrictBackend("CPU_DEVICE")
    x = other.asarray(one.asarray(np.arange(3.0)))
    assert x.device == other.asarray(0.0).device != one.asarray(0.0).device
    assert np.array_equal(other.to_numpy(x), np.arange(3.0))


# ------------------------------------------------------------------ random numbers


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_back_end_draws_the_numbers_of_numpy(backend, dtype):
    rng, exact = backend.rng(7), np.random.default_rng(7)
    dtype_here = backend.asarray(0.0, dtype=dtype).dtype
    for _ in range(2):
        pairs = [
            (rng.standard_normal((3, 2), dtype=dtype_here), exact.standard_normal((3, 2), dtype=dtype)),
            (rng.random((4,), dtype=dtype_here), exact.random((4,), dtype=dtype)),
            (rng.integers(0, 9, size=(5,)), exact.integers(0, 9, size=(5,))),
        ]
        for found, wanted in pairs:
            assert np.array_equal(backend.to_numpy(found), wanted)
            assert dtype_name(found.dtype) == dtype_name(wanted.dtype)


def test_host_noise_is_moved_once_for_each_draw():
    moved = []
    rng = HostRng(np.random.default_rng(7), lambda z: moved.append(z) or z)
    z = rng.standard_normal((2,), dtype="float32")
    assert len(moved) == 1
    assert moved[0] is z
    assert z.dtype == np.float32


def test_equal_seeds_give_equal_streams_and_others_do_not(any_backend):
    one, same, other = (
        any_backend.to_numpy(any_backend.rng(seed).standard_normal((50,), dtype="float32")) for seed in (3, 3, 4)
    )
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("make", [NumpyBackend, StrictBackend])
@pytest.mark.parametrize(("seed", "error"), [
    (None, TypeError), (True, TypeError), (1.0, TypeError), ("1", TypeError), (np.random.default_rng(0), TypeError),
    ([1, 2], TypeError), (-1, ValueError), (2**64, ValueError), (2**70, ValueError),
])  # fmt: skip
def test_seeds_that_are_no_seeds_are_refused(make, seed, error):
    with pytest.raises(error, match=r"seed must (be an integer|lie in \[0, 2\*\*64\)), got"):
        make().rng(seed)


@pytest.mark.parametrize("seed", [0, 1, 2**64 - 1, np.int64(5), np.uint64(2**63)])
def test_integers_from_0_to_2_to_the_64_are_seeds(seed):
    assert check_seed(seed) == seed
    assert type(check_seed(seed)) is int


@pytest.mark.parametrize(("dtype", "name"), [
    ("float32", "float32"), (np.float32, "float32"), (np.dtype("float64"), "float64"),
    (StrictBackend().asarray(0.0, dtype="float32").dtype, "float32"),
])  # fmt: skip
def test_dtypes_have_one_name(dtype, name):
    wanted = "float32'>" if dtype is np.float32 else name  # a type prints itself as a class
    assert dtype_name(dtype) == wanted


def test_keep_memory_may_be_called_anywhere():
    for _ in range(2):
        assert keep_memory() is None


def test_memory_is_kept_where_a_numpy_back_end_is_made_and_not_on_import():
    program = """
import numpy as np
empty, made = np.empty, []
np.empty = lambda shape, *more, **named: (made.append(shape), empty(shape, *more, **named))[1]
import refscore, refscore.cli, refscore_backends
print(31 << 20 in made)
refscore_backends.get("numpy")
print(31 << 20 in made)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["False", "True"]
