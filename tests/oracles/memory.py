"""How much memory some work takes at its peak, wherever its arrays are."""

import gc
import sys
import tracemalloc
from collections.abc import Callable
from typing import Any


def peak(backend: Any, run: Callable[[], Any]) -> int:
    """Bytes beyond those taken before: of CuPy's pool, which gives nothing back by itself, or of NumPy."""
    gc.collect()
    if backend.name == "cupy":
        pool = sys.modules["cupy"].get_default_memory_pool()
        pool.free_all_blocks()
        before = pool.total_bytes()
        run()
        backend.synchronize()
        return int(pool.total_bytes() - before)
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
