"""What only a real GPU can show: arrays beyond 2^31 elements in compiled kernels, and memory that runs out.

    python tests/gpu/limits.py

Says what it found, a line each, and ends with status 1 if one of them is not as it should be.
"""

import subprocess
import sys
from time import perf_counter

import cupy

from refscore.library import array_namespace
from refscore_backends import get

BEYOND = 2**31 + 4096  # elements: an index of 32 bits turns negative on the way
TOO_LARGE = "import sys; from refscore.cli import main; sys.exit(main(sys.argv[1:]))"


def main():
    """Run both."""
    backend, failed = get("cupy"), 0
    x = cupy.ones((BEYOND // 4096, 4096), dtype="float32")
    x[-1, :] = 2.0
    sum_of = lambda x, **axis: array_namespace(x).sum(x, **axis)  # noqa: E731
    last = BEYOND // 4096 - 1
    for name, function, at, wanted in (
        ("elementwise, the last row of it", lambda x: (x * x + 1.0)[-1, ...], 7, 5),
        ("elementwise, the last number", lambda x: x * x + x, (last, 7), 6),
        ("sum", lambda x: sum_of(x * x), (), BEYOND + 3 * 4096),
        ("sums of columns", lambda x: sum_of(x * x, axis=0), 7, last + 4),
        ("sums of rows", lambda x: sum_of(x * x, axis=1), last, 4 * 4096),
    ):
        compiled, start = backend.compile(function), perf_counter()
        found = [float(compiled(x)[at]) for _ in range(2)]
        good = all(abs(y / wanted - 1) < 1e-5 for y in found)
        failed += not good
        said, seconds = "right" if good else f"WRONG: {found}, not {wanted}", perf_counter() - start
        print(f"{BEYOND} elements, {name}: {said}, {seconds:.1f} s", flush=True)
    del x
    cupy.get_default_memory_pool().free_all_blocks()
    free = cupy.cuda.runtime.memGetInfo()[0]
    held = cupy.empty(int(0.995 * free), dtype="uint8")  # by somebody else, so to say
    command = [sys.executable, "-c", TOO_LARGE, "demo", "--backend", "cupy", "--steps", "50", "--out", "/tmp/too-large"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    last = (run.stderr.strip().splitlines() or ["nothing"])[-1]
    good = run.returncode == 2 and "Traceback" not in run.stderr
    print(f"no memory left: status {run.returncode}, {'said' if good else 'NOT SAID'}: {last[:200]}")
    del held
    return int(failed > 0 or not good)


if __name__ == "__main__":
    sys.exit(main())
