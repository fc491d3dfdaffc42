"""The benchmarks' workloads on one GPU: refscore through CuPy beside PyTorch and JAX.

    python tests/gpu/benchmark.py --out figures.jsonl          all of them, a process a library and size
    python tests/gpu/benchmark.py --side cupy --batch 512      one, in this process

Each unit is timed between two events on the device, after a warm-up; the median of the chunks is reported, with the
lowest and the highest. The clock of JAX, which has no events, is the host's, stopped when the device has finished.
`host` is the time in which the host has given out a unit's work: where it equals the device's, launches are the
limit, not kernels.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from time import perf_counter

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

SIDES = ("cupy-compiled", "torch", "jax", "refscore-jax-compiled", "cupy", "refscore-torch-compiled",
         "refscore-torch", "refscore-jax")  # fmt: skip
BATCHES = (65536, 512)  # samples of W3: 65536, and eight times 512 as on the CPU
CHUNKS, SECONDS = 7, 0.15


def main():
    """Run what was asked for; each figure is printed and written as soon as it is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", choices=SIDES, action="append")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--only", action="append")
    parser.add_argument("--compiled", action="store_true", help="torch.compile too, half a minute each and more")
    parser.add_argument("--out", type=Path, default=Path("gpu-benchmark.jsonl"))
    args = parser.parse_args()
    if args.side and len(args.side) == 1 and args.batch:
        args.side = args.side[0]
        measure(args)
        return
    for side in args.side or SIDES:
        for batch in [args.batch] if args.batch else BATCHES:
            command = [sys.executable, __file__, "--side", side, "--batch", str(batch), "--out", str(args.out)]
            for name in args.only or ():
                command += ["--only", name]
            subprocess.run(command + ["--compiled"] * args.compiled, check=False)


def measure(args):
    """All workloads of one library at one size, in this process."""
    import workloads as w

    w.BATCH, w.SAMPLES = args.batch, max(4096, args.batch)
    side, seconds = {"torch": torch_side, "jax": jax_side}.get(args.side, ours)(args.side)
    for variant, workloads in side.VARIANTS.items():
        for name, build in workloads.items():
            if (args.only and name not in args.only) or left_out(args, variant, name):
                continue
            batch = {"W2": w.UNET_BATCH, "W3": w.SAMPLES}.get(name[:2], w.BATCH)
            row = {"variant": variant, "workload": name, "batch": batch}
            try:
                row |= figures(build(), side, seconds) | {"peak_gib": memory(args.side) / 2**30}
            except Exception as error:  # one that fails must not cost the others
                row["error"] = f"{type(error).__name__}: {error}"[:300]
            line = json.dumps(row | {"about": side.describe()})
            with args.out.open("a") as f:
                f.write(line + "\n")
            print(line, flush=True)


def left_out(args, variant, name):
    """MKL is for CPUs; torch.compile has to be asked for; W2 has one size, and compilers need minutes for it."""
    compiles = "jax" in variant or "torch-comp" in variant
    if "avx" in variant or (variant.startswith("torch-comp") and not args.compiled):
        return True
    return name == "W2" and not args.only and (compiles or args.batch == max(BATCHES))


def figures(unit, side, seconds):
    """Milliseconds a unit: the first, then the median of chunks on the device and on the host."""
    start = perf_counter()
    side.wait(unit())
    first = perf_counter() - start
    start, n = perf_counter(), 0
    while n < 3 or perf_counter() - start < SECONDS:
        side.wait(unit())
        n += 1
    units = max(1, round(SECONDS * n / (perf_counter() - start)))
    device, host = zip(*(seconds(unit, units) for _ in range(CHUNKS)), strict=True)
    ms = [1e3 * s for s in device]
    return {"ms": median(ms), "low": min(ms), "high": max(ms), "host": 1e3 * median(host), "first": 1e3 * first,
            "units": units}  # fmt: skip


def memory(side):
    """Bytes of the device that this process has held, at most, so far."""
    if "cupy" in side:
        import cupy

        return cupy.get_default_memory_pool().total_bytes()
    if "torch" in side:
        import torch

        return torch.cuda.max_memory_reserved()
    import jax

    return jax.devices()[0].memory_stats()["peak_bytes_in_use"]


def ours(name):
    """refscore on CuPy, PyTorch or JAX, compiled or not, and that library's clock."""
    backend, *compiled = name.removeprefix("refscore-").split("-")
    os.environ["REFSCORE_BACKEND"] = backend
    os.environ |= {"REFSCORE_COMPILE": "1"} if compiled else {}
    if backend == "jax":
        os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
        import jax

        jax.config.update("jax_default_matmul_precision", "highest")
    import refscore_side as side

    side.VARIANTS = {name: side.VARIANTS["refscore"], f"{name}, fast": side.VARIANTS["refscore-fast"]}
    return side, {"cupy": cupy_seconds, "torch": torch_seconds, "jax": host_seconds(side)}[backend]


def cupy_seconds(unit, units):
    """Seconds a unit, on the device and on the host."""
    import cupy

    start, end = cupy.cuda.Event(), cupy.cuda.Event()
    given = between(start, end, unit, units)
    return 1e-3 * cupy.cuda.get_elapsed_time(start, end) / units, given / units


def torch_seconds(unit, units):
    """Seconds a unit, on the device and on the host."""
    import torch

    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    given = between(start, end, unit, units)
    return 1e-3 * start.elapsed_time(end) / units, given / units


def between(start, end, unit, units):
    """Run units between two events of the device; the seconds in which the host has given them out."""
    start.record()
    began = perf_counter()
    for _ in range(units):
        unit()
    given = perf_counter() - began
    end.record()
    end.synchronize()
    return given


def host_seconds(side):
    """A clock for a library without events: the host's, stopped when the device has finished."""

    def seconds(unit, units):
        began = perf_counter()
        for _ in range(units):
            result = unit()
        given = perf_counter() - began
        side.wait(result)
        return (perf_counter() - began) / units, given / units

    return seconds


def torch_side(name):
    """PyTorch on CUDA, in float32 as the others (no TF32), and its clock."""
    import torch

    torch.set_default_device("cuda")
    import torch_side as side

    side.wait = lambda result: torch.cuda.synchronize()
    whole = lambda: side.network_best(chunk=1 << 30)  # noqa: E731 (chunks are for a CPU's cache)
    side.VARIANTS["torch-best"]["W3-net"] = whole

    return side, torch_seconds


def jax_side(name):
    """JAX on CUDA, products in float32, and the host's clock."""
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    import jax

    jax.config.update("jax_default_matmul_precision", "highest")
    import jax_side as side

    return side, host_seconds(side)


if __name__ == "__main__":
    main()
