"""Time refscore beside PyTorch and JAX, in turn and in separate processes, and print one table.

    python tests/benchmarks/run.py                                  # the table: one and two threads, some 15 minutes
    python tests/benchmarks/run.py --only W1 --threads 1 --rounds 9 # a part of it
    python tests/benchmarks/run.py --scaling                        # how refscore's times grow
    python tests/benchmarks/run.py --from benchmarks.jsonl --docs   # what was measured, into docs/benchmarks.md

Each round asks every side for one chunk (about a quarter of a second of units), beginning with another side
each time; a ratio is taken within a round and its median reported, so that a slow neighbour or a
changing clock hits both terms alike. Results are appended to a file as they come, one line of JSON for each side.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter, sleep, strftime

import report
import workloads as w

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent

OURS = "refscore"
ONE = {f"{pool}_NUM_THREADS": "1" for pool in ("OPENBLAS", "OMP", "MKL")}
ON_TORCH, ON_JAX, COMPILED = {"REFSCORE_BACKEND": "torch"}, {"REFSCORE_BACKEND": "jax"}, {"REFSCORE_COMPILE": "1"}
VARIANTS = {  # variant -> the library it needs, the workloads it has, its environment
    "refscore": ("refscore", w.NAMES, {}),
    "refscore-fast": ("refscore", ("W3-mixture",), {}),
    "refscore-boxmuller": ("refscore", ("W3-mixture",), {}),
    "refscore-workers": ("refscore", ("W2", "W3-net", "W4"), ONE),
    "refscore-torch": ("refscore", w.NAMES, ON_TORCH),
    "refscore-torch-compiled": ("refscore", w.NAMES, ON_TORCH | COMPILED),
    "refscore-jax": ("refscore", w.NAMES, ON_JAX),
    "refscore-jax-compiled": ("refscore", w.NAMES, ON_JAX | COMPILED),
    "torch": ("torch", w.NAMES, {}),
    "torch-best": ("torch", w.NAMES, {}),
    "torch-avx512": ("torch", ("W1", "W3-net", "W4"), {}),
    "torch-avx2": ("torch", ("W1", "W3-net", "W4"), {"MKL_ENABLE_INSTRUCTIONS": "AVX2"}),
    "torch-gemm": ("torch", ("W3-mixture",), {}),
    "torch-compile": ("torch", w.NAMES, {}),
    "jax": ("jax", w.NAMES, {}),
    "jax-best": ("jax", ("W3-mixture",), {}),
}
SAME = {"torch-avx512": "torch-best", "torch-avx2": "torch-best"}  # the side's own name, where only MKL differs
MINUTES = {  # variant, workload, threads that are left out unless --side asks for them: to compile takes minutes,
    ("refscore-torch-compiled", "W2", 1),
    ("refscore-torch-compiled", "W2", 2),
    ("refscore-jax-compiled", "W2", 2),
    ("torch-compile", "W2", 2),
    *(("refscore-torch", "W2", n) for n in (1, 2)),  # or line by line they are slow, and W1 says how slow
    *(("refscore-jax", name, n) for name in w.NAMES[1:] for n in (1, 2)),
}
PAUSE = 0.1  # seconds between turns: thread pools spin for a while after their last task


def main():
    """Measure what is asked for, then print the tables of the whole file."""
    args = arguments()
    if args.file is None:
        begun = perf_counter()
        with args.out.open("a", encoding="utf-8") as file, tempfile.TemporaryDirectory() as scratch:
            keep = keeper(file)
            if args.scaling:
                scaling(keep)
            else:
                table(args, Path(scratch), keep)
            keep({"took": "the curves" if args.scaling else "the table", "seconds": perf_counter() - begun})
    text = report.text(report.load(args.file or args.out))
    print(text)
    if args.figure:
        report.figure(report.load(args.file or args.out), args.figure)
    if args.docs:
        report.fill(args.docs, text)


def arguments(argv=None):
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true", help="the table, which is what is done anyway")
    parser.add_argument("--scaling", action="store_true", help="curves instead of the table")
    parser.add_argument("--only", action="append", choices=w.NAMES, help="this workload; may be repeated")
    parser.add_argument("--side", action="append", choices=list(VARIANTS), help="this side; may be repeated")
    parser.add_argument("--threads", action="append", type=positive, help="for each side; may be repeated (1 and 2)")
    parser.add_argument("--rounds", type=positive, default=5, help="rounds that count (5)")
    parser.add_argument("--warmup", type=int, default=1, help="rounds before them (1)")
    parser.add_argument("--seconds", type=float, default=0.25, help="length of a chunk (0.25)")
    parser.add_argument(
        "--keep-memory",
        choices=["all", "refscore"],
        default="all",
        help="which sides ask malloc to keep freed memory; the peers gain from it too (all)",
    )
    parser.add_argument("--out", type=Path, default=Path("benchmarks.jsonl"), help="what is measured is added to this")
    parser.add_argument("--from", dest="file", type=Path, help="measure nothing: tables of this file")
    parser.add_argument("--figure", type=Path, help="draw the ratios into this file (needs matplotlib)")
    parser.add_argument(
        "--docs", type=Path, nargs="?", const=ROOT / "docs" / "benchmarks.md", help="fill the tables of this page"
    )
    return parser.parse_args(argv)


def positive(text):
    """An integer of at least 1."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return int(text)


def keeper(file):
    """A function that writes a line, now: what was measured must survive what comes later."""

    def keep(record):
        print(json.dumps(record), file=file, flush=True)

    return keep


def table(args, scratch, keep):
    """All workloads at all numbers of threads; floors beside them."""
    keep(machine(args))
    for threads in args.threads or (1, 2):
        for name in args.only or w.NAMES:
            keep_floor(name, threads, keep)
            print(f"{name}, {threads} thread{'s' * (threads > 1)}", end=":", file=sys.stderr, flush=True)
            for record in measure(name, threads, args, scratch):
                keep(record)
            print(file=sys.stderr)


def keep_floor(name, threads, keep):
    """The floor of a workload, measured by a process of its own."""
    command = [sys.executable, str(HERE / "floors.py"), "--threads", str(threads), "--only", name]
    ran = subprocess.run(command, env=environment(threads), stdout=subprocess.PIPE, text=True, check=True)
    for line in ran.stdout.splitlines():
        keep(json.loads(line))


def scaling(keep):
    """The curves, by one process with one thread."""
    command = [sys.executable, str(HERE / "scaling.py")]
    with subprocess.Popen(command, env=environment(1), stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            keep(json.loads(line))


# ---- the sides ------------------------------------------------------------------------------------


@dataclass
class Side:
    """A worker process and what it has reported."""

    variant: str
    process: subprocess.Popen[str] | None
    about: str = ""
    first: float = 0.0
    units: int = 0
    ms: list[float] = field(default_factory=list)
    mib: float = 0.0
    trouble: str = ""

    def read(self):
        """The worker's next line; a worker that has died is remembered as such."""
        line = self.process.stdout.readline()
        if not line:
            self.trouble = f"failed with status {self.process.wait()}"
            return {}
        message = json.loads(line)
        self.trouble = message.get("trouble", "")
        return message

    def greet(self, seconds):
        """Wait until the workload is built, and choose how many units make a chunk."""
        message = self.read()
        if not self.trouble:
            self.about, self.first = message["ready"], message["first"]
            self.units = max(1, round(seconds / message["unit"]))

    def chunk(self):
        """Run one chunk now."""
        with suppress(BrokenPipeError):  # it has died: `read` says so
            self.process.stdin.write(f"{self.units}\n")
            self.process.stdin.flush()
        message = self.read()
        if not self.trouble:
            self.ms.append(message["ms"])

    def end(self):
        """Close the input, read the peak memory, and wait for the process."""
        if self.process is None:
            return
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        if not self.trouble:
            self.mib = self.read().get("mib", 0.0)
        self.process.wait()


def environment(threads):
    """As many threads for everybody's products, and where the packages are."""
    pools = {f"{pool}_NUM_THREADS": str(threads) for pool in ("OPENBLAS", "OMP", "MKL")}
    path = os.pathsep.join([str(ROOT), str(ROOT / "backends"), os.environ.get("PYTHONPATH", "")])
    return os.environ | pools | {"PYTHONPATH": path.rstrip(os.pathsep), "JAX_PLATFORMS": "cpu"}


def start(variant, name, threads, args, scratch, first=0):
    """Start the worker of one side, on the processors from the first on."""
    library, _, own = VARIANTS[variant]
    command = [sys.executable, str(HERE / "worker.py"), library, SAME.get(variant, variant), name]
    command += ["--threads", str(threads), "--first", str(first)]
    if args.keep_memory == "all" or (args.keep_memory == "refscore" and library == OURS):
        command.append("--keep-memory")
    own = own | {"TORCHINDUCTOR_CACHE_DIR": str(scratch / "inductor")}  # empty at first: compilation is seen, once
    if variant == "torch-avx512":
        try:
            own = own | {"LD_PRELOAD": as_intel(scratch)}
        except (OSError, subprocess.CalledProcessError) as error:
            return Side(variant, None, trouble=f"no C compiler to pretend an Intel CPU with: {error}")
    pipe = subprocess.PIPE
    return Side(variant, subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment(threads) | own))


def as_intel(scratch):
    """A library that tells MKL that the CPU is Intel's: on others it does not take its AVX-512 kernels by itself."""
    built = scratch / "intel.so"
    if not built.exists():
        compiler = shutil.which("cc") or shutil.which("gcc") or "cc"
        source = "int mkl_serv_intel_cpu_true(void) { return 1; }\n"
        command = [compiler, "-shared", "-fPIC", "-x", "c", "-", "-o", str(built)]
        subprocess.run(command, input=source, text=True, check=True, capture_output=True)
    return str(built)


def sides(name, threads, args):
    """The variants that have the workload, and can differ from the others on this CPU."""
    other_mkl = "torch-avx2" if "Intel" in processor() else "torch-avx512"  # what MKL does not choose by itself
    for variant, (_, has, _) in VARIANTS.items():
        asked = variant in args.side if args.side else variant not in {"torch-avx2", "torch-avx512"} - {other_mkl}
        left_out = (variant, name, threads) in MINUTES and not args.side
        if name in has and asked and not left_out and not (variant == "refscore-workers" and threads < 2):
            yield variant


def measure(name, threads, args, scratch):
    """Run all rounds of one workload; returns a record for each side."""
    found, variants = [], list(sides(name, threads, args))
    abreast, count = min(4, processors()), processors()  # while they build and compile; later one runs at a time
    for i in range(0, len(variants), abreast):
        print("", *variants[i : i + abreast], end="", file=sys.stderr, flush=True)
        here = [
            start(variant, name, threads, args, scratch, k * threads % max(1, count - threads + 1))
            for k, variant in enumerate(variants[i : i + abreast])
        ]
        for side in here:
            if not side.trouble:
                side.greet(args.seconds)
        found += here
    for turn in range(args.warmup + args.rounds):
        if turn == args.warmup:
            for side in found:
                side.ms.clear()
        running = [side for side in found if not side.trouble]
        first = turn % max(1, len(running))
        for side in running[first:] + running[:first]:
            sleep(PAUSE * (threads > 1))
            side.chunk()
    for side in found:
        side.end()
    ours = next((side.ms for side in found if side.variant == OURS and not side.trouble), None)
    return [record(name, threads, side, ours) for side in found]


def record(name, threads, side, ours):
    """What is kept of a side."""
    kept = {"workload": name, "threads": threads, "variant": side.variant}
    if side.trouble:
        return kept | {"trouble": side.trouble}
    ratios = [theirs / mine for theirs, mine in zip(side.ms, ours, strict=True)] if ours else []
    return kept | {
        "ms": side.ms, "ratios": ratios, "mib": side.mib, "first": side.first, "units": side.units, "about": side.about
    }  # fmt: skip


# ---- the machine ------------------------------------------------------------------------------------


def machine(args):
    """What the figures depend on, and without which they mean nothing."""
    import numpy as np

    return {
        "machine": processor(), "processors": processors(), "date": strftime("%Y-%m-%d"), "load": load(),
        "system": f"{platform.system()}, Python {platform.python_version()}",
        "numpy": np.__version__, "blas": blas(), "memory": args.keep_memory,
        "settings": {name: os.environ.get(name) for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")},
    }  # fmt: skip


def processors():
    """How many there are for us."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load():
    """How busy the machine was before we began: above a few tenths, the figures are noise."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def processor():
    """The CPU's name, as the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def blas():
    """NumPy's BLAS and the kernels it has chosen for this CPU (asked of the loaded library if possible)."""
    import numpy as np

    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        built = np.show_config(mode="dicts")
        found = built["Build Dependencies"]["blas"]
        return f"{found['name']} {found['version']}, core type unknown (install threadpoolctl)"
    found = [
        f"{pool['internal_api']} {pool['version']}, core type {pool.get('architecture', 'unknown')}"
        for pool in threadpool_info()
        if pool["user_api"] == "blas"
    ]
    return "; ".join(found) or "unknown"


if __name__ == "__main__":
    main()
