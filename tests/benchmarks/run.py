"""Time refscore beside PyTorch and JAX, in turn and in separate processes.

    python tests/benchmarks/run.py --only W1 --rounds 7 --threads 2

Each round asks every side for one chunk (about half a second of units), beginning with another side
each time; a ratio is taken within a round and its median reported, so that a slow neighbour or a
changing clock hits both terms alike.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import sleep

import workloads as w

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent

OURS = "refscore"
VARIANTS = {  # variant -> the library it needs, the workloads it has
    "refscore": ("refscore", w.NAMES),
    "refscore-fast": ("refscore", ("W3-mixture",)),
    "refscore-workers": ("refscore", ("W2",)),
    "torch": ("torch", w.NAMES),
    "torch-best": ("torch", w.NAMES),
    "torch-gemm": ("torch", ("W3-mixture",)),
    "jax": ("jax", ("W1", "W3-net", "W3-mixture", "W4")),
    "jax-best": ("jax", ("W3-mixture",)),
}
TITLES = {
    "W1": f"one step of denoising score matching, batch {w.BATCH}",
    "W2": f"one step of denoising score matching, U-Net, {w.UNET_BATCH} images of {w.SIDE} x {w.SIDE}",
    "W3-net": f"{w.UNIT_STEPS} of {w.STEPS} Euler-Maruyama steps, {w.SAMPLES} samples, network score",
    "W3-mixture": f"{w.UNIT_STEPS} of {w.STEPS} Euler-Maruyama steps, {w.SAMPLES} samples, exact score",
    "W4": f"one step of sliced score matching, batch {w.BATCH}",
}
PAUSE = 0.2  # seconds between turns: thread pools spin for a while after their last task


def main():
    """Print the machine, then one table a workload."""
    args = arguments()
    print(machine(args))
    for name in args.only or w.NAMES:
        print(f"\n## {name}: {TITLES[name]}\n")
        print(report(measure(name, args)))


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=w.NAMES, help="this workload; may be repeated")
    parser.add_argument("--side", action="append", choices=list(VARIANTS), help="this side; may be repeated")
    parser.add_argument("--rounds", type=positive, default=7, help="rounds that count (7)")
    parser.add_argument("--warmup", type=int, default=2, help="rounds before them (2)")
    parser.add_argument("--threads", type=positive, default=2, help="for each side; its processors too (2)")
    parser.add_argument("--seconds", type=float, default=0.5, help="length of a chunk (0.5)")
    parser.add_argument(
        "--keep-memory",
        choices=["all", "refscore", "none"],
        default="all",
        help="which sides ask malloc to keep freed memory; the peers gain from it too (all)",
    )
    return parser.parse_args()


def positive(text):
    """An integer of at least 1."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return int(text)


# ---- the sides ------------------------------------------------------------------------------------


@dataclass
class Side:
    """A worker process and what it has reported."""

    variant: str
    process: subprocess.Popen[str]
    about: str = ""
    units: int = 0
    ms: list[float] = field(default_factory=list)
    mib: float = 0.0
    trouble: str = ""

    def read(self):
        """The worker's next line; a worker that has died is remembered as such."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.trouble = f"failed with status {self.process.wait()}"
            return {}
        message = json.loads(line)
        return message

    def greet(self, seconds):
        """Wait until the workload is built, and choose how many units make a chunk."""
        message = self.read()
        if "missing" in message:
            self.trouble = f"{message['missing']}: not installed"
        elif message:
            self.about = message["ready"]
            self.units = max(1, round(seconds / message["unit"]))

    def chunk(self):
        """Run one chunk now."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{self.units}\n")
        self.process.stdin.flush()
        message = self.read()
        if message:
            self.ms.append(message["ms"])

    def end(self):
        """Close the input, read the peak memory, and wait for the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        if not self.trouble:
            self.mib = self.read().get("mib", 0.0)
        self.process.wait()


def start(variant, name, args):
    """Start the worker of one side."""
    library, _ = VARIANTS[variant]
    command = [sys.executable, str(HERE / "worker.py"), library, variant, name]
    command += ["--threads", str(args.threads)]
    if args.keep_memory == "all" or (args.keep_memory == "refscore" and library == OURS):
        command.append("--keep-memory")
    threads = {f"{pool}_NUM_THREADS": str(args.threads) for pool in ("OPENBLAS", "OMP", "MKL")}
    path = os.pathsep.join([str(ROOT), str(ROOT / "backends"), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | threads | {"PYTHONPATH": path.rstrip(os.pathsep), "JAX_PLATFORMS": "cpu"}
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    return Side(variant, process)


def measure(name, args):
    """Run all rounds of one workload."""
    sides = []
    for variant in args.side or VARIANTS:
        if name not in VARIANTS[variant][1]:
            continue
        sides.append(start(variant, name, args))
        sides[-1].greet(args.seconds)  # before the next starts: each warms up alone
    for turn in range(args.warmup + args.rounds):
        if turn == args.warmup:
            for side in sides:
                side.ms.clear()
        running = [side for side in sides if not side.trouble]
        first = turn % max(1, len(running))
        for side in running[first:] + running[:first]:
            sleep(PAUSE)
            side.chunk()
    for side in sides:
        side.end()
    return sides


# ---- what is printed --------------------------------------------------------------------------------


def report(sides):
    """The table of one workload, in Markdown."""
    rows = ["| side | ms, median (min-max) | side / refscore | peak MiB | units x rounds | |"]
    rows.append("|---|---|---|---|---|---|")
    ours = next((side.ms for side in sides if side.variant == OURS and not side.trouble), [])
    for side in sides:
        if side.trouble:
            rows.append(f"| {side.variant} | {side.trouble} | | | | |")
            continue
        ratios = [theirs / mine for theirs, mine in zip(side.ms, ours, strict=True)] if ours else []
        rows.append(
            f"| {side.variant} | {spread(side.ms)} | {spread(ratios)} | {side.mib:.0f} "
            f"| {side.units} x {len(side.ms)} | {side.about} |"
        )
    return "\n".join(rows)


def spread(values):
    """'median (min-max)', to three or four figures."""
    if not values:
        return "-"
    digits = 1 if median(values) >= 100 else 2
    return f"{median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def machine(args):
    """What the figures depend on, and without which they mean nothing."""
    import numpy as np

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    settings = [f"{name}={os.environ.get(name, '(not set)')}" for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")]
    return "\n".join(
        [
            f"CPU      {processor()}, {cores} processors, {args.threads} used by each side",
            f"system   {platform.system()}, Python {platform.python_version()}, {load()}",
            f"NumPy    {np.__version__}, BLAS {blas()}",
            f"         {', '.join(settings)}",
            f"memory   kept by malloc for: {args.keep_memory}",
        ]
    )


def load():
    """How busy the machine was before we began: above a few tenths, the figures are noise."""
    if not hasattr(os, "getloadavg"):
        return "load unknown"
    return f"load {os.getloadavg()[0]:.2f} before the start"


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
