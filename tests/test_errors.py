"""What array libraries raise, in one sentence: without memory, without a compiler, without a device."""

import importlib
import sys
import types

import numpy as np
import pytest

from refscore_backends import BackendUnavailable, get
from refscore_backends.cupy import CupyBackend
from refscore_backends.errors import in_words


def made(name, message, base=RuntimeError):
    """An error of a class by this name, as its library would raise it."""
    module, kind = name.rsplit(".", 1)
    return type(kind, (base,), {"__module__": module})(message)


ERRORS = {  # as CuPy 14.2, PyTorch 2.13, JAX and NumPy 2.4 say it, and what we make of it
    "cupy, memory": (
        made("cupy.cuda.memory.OutOfMemoryError", "Out of memory allocating 8,000,000,000 bytes (allocated so far: 0 "
             "bytes).", MemoryError),
        "not enough memory: 7.45 GiB were asked for",
    ),
    "cupy, memory of the driver": (
        made("cupy_backends.cuda.api.runtime.CUDARuntimeError", "cudaErrorMemoryAllocation: out of memory"),
        "not enough memory: cudaErrorMemoryAllocation: out of memory",
    ),
    "torch, memory": (
        made("torch.OutOfMemoryError", "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of "
             "79.10 GiB of which 5.00 GiB is free.\nSee the documentation"),
        "not enough memory: 20 GiB were asked for",
    ),
    "torch, memory of the host": (
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you "
                     "tried to allocate 40000000000000 bytes. Error code 12 (Cannot allocate memory)"),
        "not enough memory: 36.4 TiB were asked for",
    ),
    "jax, memory": (
        made("jax.errors.JaxRuntimeError", "RESOURCE_EXHAUSTED: Out of memory allocating 40000000000000 bytes."),
        "not enough memory: 36.4 TiB were asked for",
    ),
    "numpy, memory": (MemoryError(), "not enough memory: the system gave no more"),
    "cupy, driver": (
        made("cupy_backends.cuda.api.runtime.CUDARuntimeError", "cudaErrorInsufficientDriver: CUDA driver version is "
             "insufficient for CUDA runtime version"),
        "the driver is missing, or too old for this CUDA: see nvidia-smi, or take the extra of an older CUDA",
    ),
    "cupy, nvrtc": (
        made("cuda.pathfinder._dynamic_libs.load_dl_common.DynamicLibNotFoundError", 'Failure finding "libnvrtc.so.13 '
             'or libnvrtc.so.12": No such file: libnvrtc.so.13\n  searched in'),
        'CuPy cannot compile its kernels (Failure finding "libnvrtc.so.13 or libnvrtc.so.12": No such file: '
        'libnvrtc.so.13): it needs NVRTC and CUDA\'s headers, which ".[cuda12]" and ".[cuda13]" bring',
    ),
    "cupy, headers": (
        made("cupy.cuda.compiler.CompileException", 'x.cu(3): catastrophic error: cannot open source file "cuda_fp16.h"'
             "\n\n1 catastrophic error detected", Exception),
        'CuPy cannot compile its kernels (x.cu(3): catastrophic error: cannot open source file "cuda_fp16.h"): it needs'
        ' NVRTC and CUDA\'s headers, which ".[cuda12]" and ".[cuda13]" bring',
    ),
    "cupy, another": (
        made("cupy_backends.cuda.libs.cublas.CUBLASError", "CUBLAS_STATUS_ALLOC_FAILED"),
        "CuPy failed: CUBLAS_STATUS_ALLOC_FAILED",
    ),
    "jax, another": (made("jaxlib._jax.XlaRuntimeError", "INTERNAL: a\nb"), "JAX failed: INTERNAL: a"),
    "without words": (made("torch.AcceleratorError", ""), "PyTorch failed: AcceleratorError"),
}  # fmt: skip


@pytest.mark.parametrize(("error", "words"), ERRORS.values(), ids=ERRORS)
def test_an_error_of_an_array_library_is_one_sentence(error, words, monkeypatch):
    for name in ("cupy", "torch", "jax"):
        monkeypatch.setitem(sys.modules, name, None)  # nothing is imported, nor asked
    found = in_words(error)
    assert found.partition(", ")[0] == words if "memory" in words and "free" in found else found == words
    assert "\n" not in found


@pytest.mark.parametrize("error", [KeyError("x"), RuntimeError("generator raised StopIteration"), TypeError("memory")])
def test_other_errors_keep_their_traceback(error):
    assert in_words(error) is None


def test_what_is_free_is_told_where_the_library_knows_it(monkeypatch):
    """Also when the error is not of a device: then the host's."""
    cupy = types.ModuleType("cupy")
    cupy.cuda = types.SimpleNamespace(runtime=types.SimpleNamespace(memGetInfo=lambda: (3 << 30, 80 << 30)))
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    error, _ = ERRORS["cupy, memory"]
    assert in_words(error) == "not enough memory: 7.45 GiB were asked for, 3 GiB of 80 GiB are free"
    torch = types.ModuleType("torch")
    torch.cuda = types.SimpleNamespace(mem_get_info=lambda: (5 << 30, 79 << 30))
    monkeypatch.setitem(sys.modules, "torch", torch)
    assert in_words(ERRORS["torch, memory"][0]).endswith("20 GiB were asked for, 5 GiB of 79 GiB are free")
    jax = types.ModuleType("jax")
    memory = {"bytes_limit": 60 << 30, "bytes_in_use": 59 << 30}
    jax.devices = lambda: [types.SimpleNamespace(memory_stats=lambda: memory)]
    monkeypatch.setitem(sys.modules, "jax", jax)
    assert in_words(ERRORS["jax, memory"][0]).endswith("36.4 TiB were asked for, 1 GiB of 60 GiB are free")
    with pytest.raises(MemoryError) as caught:
        np.empty(2**60, dtype="uint8")
    assert in_words(caught.value).startswith("not enough memory: 1 EiB were asked for")


# ------------------------------------------------------------------ CuPy that cannot be loaded, or has no device


def test_a_cupy_that_cannot_be_loaded_says_why_in_one_sentence(monkeypatch):
    frame = (
        "\n" + "=" * 64 + "\nCuPy is not correctly installed.\n\nIf you are using wheel distribution ...\n" + "=" * 64
    )

    class Broken:
        def find_spec(self, name, path=None, target=None):
            if name == "cupy":
                raise ImportError(frame)

    for name in [name for name in sys.modules if name.split(".")[0] == "cupy" or name == "array_api_compat.cupy"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(BackendUnavailable) as caught:
        get("cupy")
    assert str(caught.value) == "CuPy is installed but cannot be loaded: CuPy is not correctly installed."


def test_a_cupy_without_a_driver_says_so_in_one_sentence(monkeypatch):
    def count():
        raise ERRORS["cupy, driver"][0]

    cupy = types.ModuleType("cupy")
    cupy.is_available = lambda: False
    cupy.cuda = types.SimpleNamespace(runtime=types.SimpleNamespace(getDeviceCount=count))
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setitem(sys.modules, "array_api_compat.cupy", types.ModuleType("array_api_compat.cupy"))
    with pytest.raises(BackendUnavailable, match="finds no usable GPU: the driver is missing, or too old for"):
        CupyBackend()


def test_cupys_own_errors_are_known_by_their_names():
    """Where CuPy is installed, device or not."""
    pytest.importorskip("cupy")
    memory = importlib.import_module("cupy.cuda.memory").OutOfMemoryError(8 * 10**9, 0, 0)
    assert in_words(memory).startswith("not enough memory: 7.45 GiB were asked for")
    runtime = importlib.import_module("cupy.cuda.runtime").CUDARuntimeError
    assert in_words(runtime(2)).startswith("not enough memory: ")
    assert in_words(runtime(35)) == ERRORS["cupy, driver"][1]
    assert in_words(runtime(700)).startswith("CuPy failed: cudaErrorIllegalAddress")
