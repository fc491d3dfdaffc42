"""CUDA's compiler, which needs no GPU: whether a kernel compiles, on any machine with the wheel nvidia-cuda-nvrtc."""

import ctypes
import importlib.util
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ARCHITECTURE = "compute_75"  # of what PTX is made for: the oldest that CUDA 13 knows
KERNEL = """
{types}
extern "C" __global__ void kernel({arguments}, long long n) {{
    long long step = (long long)gridDim.x * blockDim.x;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step) {{
        {loads}
        {operation};
        {stores}
    }}
}}
"""


@cache
def library() -> Any:
    """NVRTC as the wheels of CUDA 12 and 13 bring it; None without one."""
    spec = importlib.util.find_spec("nvidia")
    for folder in spec.submodule_search_locations or () if spec else ():
        for path in sorted(Path(folder).glob("*/lib/libnvrtc.so.*")):
            if "builtins" not in path.name and "alt" not in path.name:
                return ctypes.CDLL(str(path))
    return None


def nvrtc_compiles(source: str, *options: str) -> str:
    """Compile CUDA C++ and give its PTX; an AssertionError has the compiler's words, without the wheel a test skips."""
    nvrtc = library()
    if nvrtc is None:
        pytest.skip("the wheel nvidia-cuda-nvrtc is not installed")
    program = ctypes.c_void_p()
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernel.cu", 0, None, None) == 0
    given = [f"--gpu-architecture={ARCHITECTURE}", "--std=c++17", *options]
    status = nvrtc.nvrtcCompileProgram(program, len(given), (ctypes.c_char_p * len(given))(*map(str.encode, given)))
    said = _text(nvrtc, program, "ProgramLog")
    assert status == 0, f"{said}\nin\n{source}"
    made = _text(nvrtc, program, "PTX")
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return made


def _text(nvrtc: Any, program: ctypes.c_void_p, what: str) -> str:
    size = ctypes.c_size_t()
    assert getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size)) == 0
    buffer = ctypes.create_string_buffer(size.value)
    assert getattr(nvrtc, f"nvrtcGet{what}")(program, buffer) == 0
    return buffer.value.decode()


def elementwise(in_params: str, out_params: str, operation: str, types: Mapping[str, str]) -> str:
    """The source of a kernel with what is given to `cupy.ElementwiseKernel`, on contiguous arrays of one shape.

    `types` says what the letters of types stand for, such as {"T": "float"}.
    """
    ins, outs = ([part.split() for part in params.split(",")] for params in (in_params, out_params))
    return KERNEL.format(
        types=" ".join(f"typedef {kind} {letter};" for letter, kind in types.items()),
        arguments=", ".join([f"const {T}* _{x}" for T, x in ins] + [f"{T}* _{x}" for T, x in outs]),
        loads=" ".join([f"const {T} {x} = _{x}[i];" for T, x in ins] + [f"{T} {x};" for T, x in outs]),
        operation=operation.rstrip("; \n"),
        stores=" ".join(f"_{x}[i] = {x};" for _, x in outs),
    )
