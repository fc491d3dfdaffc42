"""What the errors of array libraries mean, in one sentence each. No library is imported to find out."""

import os
import re
import sys
from contextlib import suppress

_LIBRARIES = {
    "cupy": "CuPy",
    "cupy_backends": "CuPy",
    "cuda": "CuPy",
    "torch": "PyTorch",
    "jax": "JAX",
    "jaxlib": "JAX",
}
_UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40, "PiB": 2**50, "EiB": 2**60}
_ASKED = re.compile(rf"allocat\w*:? ([\d.,]+) ({'|'.join(_UNITS)})")
_EXHAUSTED = re.compile("out of memory|can't allocate memory|RESOURCE_EXHAUSTED|cudaErrorMemoryAllocation", flags=re.I)
_MISSING = re.compile(
    r"Failure finding|failed to load|cannot open source file|could not open source file|\.h\b.*not found"
)


def in_words(error: BaseException) -> str | None:
    """Say in one sentence what an error of an array library means, and what helps.

    Parameters
    ----------
    error : BaseException
        Whatever was raised.

    Returns
    -------
    str or None
        The sentence; None for an error that no library made, which wants its traceback.
    """
    text, library = str(error).strip(), _library(error)
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _EXHAUSTED.search(text)):
        return f"not enough memory: {_asked(text)}{_free(library)}"
    if not library:
        return None
    first = text.splitlines()[0] if text else type(error).__name__
    if "InsufficientDriver" in text:
        return "the driver is missing, or too old for this CUDA: see nvidia-smi, or take the extra of an older CUDA"
    if type(error).__name__ == "CompileException" or _MISSING.search(text):
        return (
            f"{library} cannot compile its kernels ({first}): it needs NVRTC and CUDA's headers, which "
            '".[cuda12]" and ".[cuda13]" bring'
        )
    return f"{library} failed: {first}"


def _library(error: BaseException) -> str:
    """Whose error it is, by the modules of its classes."""
    roots = (kind.__module__.split(".")[0] for kind in type(error).__mro__)
    return next((_LIBRARIES[root] for root in roots if root in _LIBRARIES), "")


def _asked(text: str) -> str:
    found = _ASKED.search(text)
    if not found:
        return text.splitlines()[0] if text else "the system gave no more"
    return f"{_size(float(found[1].replace(',', '')) * _UNITS[found[2]])} were asked for"


def _free(library: str) -> str:
    """What there is, where the library or the system tells."""
    with suppress(Exception):
        if library == "CuPy":
            free, whole = sys.modules["cupy"].cuda.runtime.memGetInfo()
        elif library == "PyTorch":
            free, whole = sys.modules["torch"].cuda.mem_get_info()
        elif library == "JAX":
            said = sys.modules["jax"].devices()[0].memory_stats()
            free, whole = said["bytes_limit"] - said["bytes_in_use"], said["bytes_limit"]
        else:
            free, whole = (
                os.sysconf(name) * os.sysconf("SC_PAGE_SIZE") for name in ("SC_AVPHYS_PAGES", "SC_PHYS_PAGES")
            )
        return f", {_size(free)} of {_size(whole)} are free"
    return ""


def _size(n: float) -> str:
    unit = max((name for name, size in _UNITS.items() if n >= size), key=_UNITS.__getitem__, default="bytes")
    return f"{n / _UNITS[unit]:.3g} {unit}"
