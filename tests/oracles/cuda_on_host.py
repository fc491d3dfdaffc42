"""CUDA's kernels on the host: their text through a C++ compiler, a block's threads as threads, block after block."""

import ctypes
import hashlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import array_api_compat.numpy as xp
import numpy as np
import pytest

from refscore_backends.recorded import cuda
from refscore_backends.recorded.compiled import Compiled
from refscore_backends.recorded.cuda import Source
from refscore_backends.recorded.launch import built
from refscore_backends.recorded.plain import build, settled
from refscore_backends.recorded.program import Program, Run

COMPILER = shutil.which("g++") or shutil.which("clang++")
needs_compiler = pytest.mark.skipif(
    COMPILER is None, reason="the kernels are compiled by a C++ compiler, and there is none"
)
HEAD = """
#include <barrier>
#include <cmath>
#include <algorithm>
#include <thread>
#include <vector>
using namespace std;
struct Three { int x, y; };
static thread_local Three threadIdx;
static Three blockIdx, blockDim, gridDim;
static std::barrier<>* all;
#define __global__
#define __device__
#define __shared__ static
#define __syncthreads() all->arrive_and_wait()
"""


def launcher(kernel: Source) -> Callable[..., Any]:
    """What launches a kernel on NumPy's arrays."""
    PENDING.append(kernel)

    def launch(*given: Any) -> Any:
        made = [np.full(shape, 77, dtype) for shape, dtype in kernel.outs]  # whoever forgets an element is found out
        arrays = [*given[: len(kernel.reads)], *made]
        for a in arrays:
            assert a.flags.c_contiguous
        pointers = (ctypes.c_void_p * len(arrays))(*(a.ctypes.data for a in arrays))
        numbers = given[len(kernel.reads) :]
        call = getattr(_library(kernel), _name(kernel))
        call(pointers, (ctypes.c_double * max(1, len(numbers)))(*numbers))
        return made if len(made) > 1 else made[0]

    return launch


def _text(kernel: Source) -> str:
    parameters = re.search(rf"void {kernel.name}\((.*?)\) {{", kernel.text)
    assert parameters is not None
    words, p, n = [], 0, 0
    for parameter in parameters[1].split(", "):
        if "*" in parameter:
            words.append(f"({parameter.partition('*')[0]}*)p[{p}]")
            p += 1
        else:
            words.append(f"n[{n}]")
            n += 1
    (gx, gy), (bx, by) = ((*shape, 1)[:2] for shape in (kernel.grid, kernel.block))
    one = f"{kernel.name}({', '.join(words)})"
    threads = f"""
      barrier<> b({bx * by}); all = &b; vector<thread> ts;
      for (int t = 0; t < {bx * by}; t++)
        ts.emplace_back([=] {{ threadIdx = {{t % {bx}, t / {bx}}}; {one}; }});
      for (auto& t : ts) t.join();"""
    loop = f"for (int t = 0; t < {bx * by}; t++) {{ threadIdx = {{t % {bx}, t / {bx}}}; {one}; }}"
    name = hashlib.sha256(f"{kernel.text}{kernel.grid}{kernel.block}".encode()).hexdigest()[:16]
    text = kernel.text.replace('extern "C"', "")
    return f"""namespace k{name} {{ {text} }}
extern "C" void run_{name}(void** p, double* n) {{
  using namespace k{name};
  blockDim = {{{bx}, {by}}}; gridDim = {{{gx}, {gy}}};
  for (blockIdx.x = 0; blockIdx.x < {gx}; blockIdx.x++)
    for (blockIdx.y = 0; blockIdx.y < {gy}; blockIdx.y++) {{ {threads if "__syncthreads" in kernel.text else loop} }}
}}"""


PENDING: list[Source] = []  # kernels that were made and not compiled yet: one file for all, at the first launch
LIBRARIES: dict[str, Any] = {}


def _name(kernel: Source) -> str:
    return "run_" + hashlib.sha256(f"{kernel.text}{kernel.grid}{kernel.block}".encode()).hexdigest()[:16]


def _library(kernel: Source) -> Any:
    if _name(kernel) not in LIBRARIES:
        texts = {_name(each): _text(each) for each in PENDING if _name(each) not in LIBRARIES}
        PENDING.clear()
        library = _compiled(HEAD + "\n".join(texts.values()))
        LIBRARIES.update(dict.fromkeys(texts, library))
    return LIBRARIES[_name(kernel)]


def _compiled(text: str) -> Any:
    assert COMPILER is not None, "no C++ compiler"
    with tempfile.TemporaryDirectory() as own:
        (Path(own) / "k.cpp").write_text(text)
        options = ["-std=c++20", "-O0", "-shared", "-fPIC", "-ffp-contract=off", "-pthread", "-w"]
        subprocess.run([COMPILER, *options, "k.cpp", "-o", "k.so"], cwd=own, check=True)
        return ctypes.CDLL(str(Path(own) / "k.so"))


def lay(array: Any, shape: tuple[int, ...], strides: tuple[int, ...], offset: int) -> Any:
    """A view of an array's memory."""
    return np.ndarray(shape, array.dtype, array, offset, strides)


def as_program(function: Callable[..., Any]) -> Compiled:
    """The function as a straight program of NumPy's lines."""
    return Compiled(function, lambda program: build(program, xp), lambda: np.random.default_rng(0))


def planned(function: Callable[..., Any], make: Callable[[Source], Callable[..., Any]] = launcher) -> Compiled:
    """The function compiled as for CuPy, on NumPy's arrays."""

    def made(program: Program) -> Run:
        settled(program, xp)
        with patch.object(cuda, "THREADS", 8):  # threads of the host are slow to start
            return built(program, xp, make, lambda a: np.asarray(a, order="C"), lay)

    return Compiled(function, made, lambda: np.random.default_rng(0))
