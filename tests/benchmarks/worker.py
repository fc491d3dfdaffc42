"""One side in one process: builds a workload, then times a chunk of it whenever it is asked.

Started by `run.py`, one process for each (side, workload), so that memory, thread pools and
compilation are each side's own. It speaks lines of JSON: a greeting when it is ready, with the seconds from its start
to the first result (imports, building, compilation); then for each number of units read from stdin the milliseconds per
unit; at the end of the input its peak memory. What cannot run here says so in the greeting.
"""

import argparse
import ctypes
import json
import math
import os
import resource
import sys
import traceback
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from time import perf_counter

import workloads as w

CALIBRATION = 0.3  # seconds of running before a chunk's length is chosen


def main():
    """Greet, then answer until the input ends."""
    begun = perf_counter()
    args = arguments()
    answer = own_stdout()
    pin(args.threads, args.first)  # before the libraries are imported: some count processors then
    try:
        side = import_module(f"{args.library}_side")
        side.set_threads(args.threads)
        if args.keep_memory:
            getattr(side, "keep_memory", keep_memory)()
        unit = side.VARIANTS[args.variant][args.workload]()
        side.wait(unit())
    except Exception as error:
        traceback.print_exc()  # what is broken must be seen
        answer({"trouble": f"{type(error).__name__}: {error}".splitlines()[0]})
        return
    first = perf_counter() - begun
    answer({"ready": side.describe(), "first": first, "unit": calibrate(unit, side.wait)})
    for line in sys.stdin:
        answer({"ms": 1e3 * time(unit, side.wait, int(line))})
    answer({"mib": peak_memory()})


def arguments():
    """Which side, which workload, under which conditions."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("library")
    parser.add_argument("variant")
    parser.add_argument("workload", choices=w.NAMES)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--first", type=int, default=0, help="the first of the processors that may be used (0)")
    parser.add_argument("--keep-memory", action="store_true")
    return parser.parse_args()


def own_stdout():
    """A function that writes JSON lines to stdout; what libraries print there goes to stderr."""
    pipe = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return lambda message: print(json.dumps(message), file=pipe)


def pin(threads, first=0):
    """Allow this process `threads` processors, where the system lets us choose."""
    if hasattr(os, "sched_setaffinity"):
        allowed = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, allowed[first : first + threads] or allowed[:threads])


def keep_memory():
    """What `refscore_backends.keep_memory` does, for sides that have no such function."""
    import numpy as np

    np.empty(31 << 20, dtype=np.uint8)
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).mallopt(-1, 1 << 30)


def time(unit, wait, units):
    """Seconds per unit. Where units are short one more runs before the clock starts: caches and clocks of a side that
    has slept are cold."""
    if units > 1:
        wait(unit())
    start = perf_counter()
    for _ in range(units):
        result = unit()
    wait(result)
    return (perf_counter() - start) / units


def calibrate(unit, wait):
    """Warm up, and say roughly how many seconds a unit takes: the shortest, as some libraries compile twice."""
    began, shortest, units = perf_counter(), math.inf, 0
    while units < 2 or perf_counter() - began < CALIBRATION:
        start = perf_counter()
        wait(unit())
        shortest, units = min(shortest, perf_counter() - start), units + 1
    return shortest


def peak_memory():
    """Peak resident memory in MiB. Linux's VmHWM is this program's own; ru_maxrss elsewhere."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 1024


if __name__ == "__main__":
    main()
