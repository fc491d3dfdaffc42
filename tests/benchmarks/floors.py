"""What a workload cannot go below: its products at this machine's rate, its bytes at its bandwidth.

Counted are the floating-point operations of the matrix products (two a multiplication and addition), and the bytes of
every activation, each time that it must be written or read by a program that keeps nothing in registers from one layer
to the next. Normal numbers and exponentials (or tangents, sines, logarithms), of which W3-mixture consists, are counted
apart. Rates are measured by NumPy, in a process of its own, on arrays of the workload's size: `rates`.

    python tests/benchmarks/floors.py --threads 1      # the rates and the floors, as JSON
"""

import argparse
import json
from dataclasses import dataclass
from math import prod
from time import perf_counter

import numpy as np
import worker
import workloads as w

BYTES = 4  # of a float32
UPDATE = 9  # passes over the parameters: Adam reads and writes θ, m, v, reads g; the average is read and written


@dataclass(frozen=True)
class Count:
    """One unit of a workload: operations of its products, bytes, exponentials and normal numbers."""

    flops: float
    bytes: float
    functions: float
    normals: float


def dense(rows, tangents=0):
    """Operations of W1's network on `rows` samples: forward, with `tangents` along, and backward through both."""
    B, E, n, hidden = rows, w.EMBEDDING, w.WIDTH, w.DEPTH - 1
    through = w.DIMENSION * n + hidden * n * n + n * w.DIMENSION  # multiplications a sample, without the noise level's
    told = w.DEPTH * E * n
    below = through - w.DIMENSION * n  # adjoints: the lowest layer's input needs none
    forward, weights, adjoints = (
        (1 + tangents) * through + told,
        (1 + tangents) * through + told,
        (1 + tangents) * below,
    )
    return 2.0 * B * (forward + weights + adjoints)


def training(tangents=0):
    """W1, W4 (one tangent): an activation is written, and read twice; its adjoint is written and read."""
    activations = w.BATCH * w.WIDTH * w.DEPTH * (1 + tangents)
    parameters = sum(p.size for p in w.parameters().values())
    traffic = 5 * activations + UPDATE * parameters
    return Count(dense(w.BATCH, tangents), BYTES * traffic, w.BATCH * w.WIDTH * w.DEPTH, w.BATCH * w.DIMENSION)


def unet():
    """W2: 3 x 3 convolutions as they are defined; each block's two activations of norm, SiLU and convolution."""
    pixels = {"first": 1, "last": 1, "down0": 1, "up0": 1, "down1": 4, "up1": 4, "down2": 16, "up2": 16}
    images, multiplications, activations = w.UNET_BATCH * w.SIDE**2, 0.0, 0.0
    for name, shape in w.unet_shapes().items():
        if len(shape) == 4:
            rows = images / pixels[name.partition(".")[0]]
            multiplications += rows * prod(shape)
            activations += rows * (shape[2] + shape[3])  # the norm's and SiLU's before it, and what it makes
    parameters = sum(prod(shape) for shape in w.unet_shapes().values())
    return Count(3 * 2 * multiplications, BYTES * (5 * activations + UPDATE * parameters), activations / 2, images)


def network():
    """W3-net: nothing is kept; an activation is written and read once."""
    through = 2 * w.DIMENSION * w.WIDTH + (w.DEPTH - 1) * w.WIDTH**2
    activations = w.UNIT_STEPS * w.SAMPLES * w.WIDTH * w.DEPTH
    noise = w.UNIT_STEPS * w.SAMPLES * w.DIMENSION
    return Count(2.0 * w.UNIT_STEPS * w.SAMPLES * through, 2 * BYTES * activations, activations, noise)


def mixture():
    """W3-mixture by two products: (K, D + 1) and (D + 2, K) times (., B)."""
    steps, K, D = w.UNIT_STEPS * w.SAMPLES, w.COMPONENTS, w.DIMENSION
    return Count(2.0 * steps * K * (2 * D + 3), 2 * BYTES * steps * (K + 2 * D), steps * K, steps * D)


COUNTS = {"W1": training, "W2": unet, "W3-net": network, "W3-mixture": mixture, "W4": lambda: training(tangents=1)}
SIZES = {"W1": w.BATCH * w.WIDTH, "W2": w.UNET_BATCH * w.SIDE**2 * w.UNET_WIDTHS[0], "W3-net": w.SAMPLES * w.WIDTH,
         "W3-mixture": w.SAMPLES * w.COMPONENTS, "W4": w.BATCH * w.WIDTH}  # fmt: skip
ROWS = {"W1": w.BATCH, "W2": w.UNET_BATCH * w.SIDE**2, "W3-net": w.SAMPLES, "W3-mixture": w.BATCH, "W4": w.BATCH}


def shortest(work, seconds=0.15):
    """Seconds of the shortest of many runs."""
    work()
    begun, best = perf_counter(), float("inf")
    while perf_counter() - begun < seconds:
        start = perf_counter()
        work()
        best = min(best, perf_counter() - start)
    return best


def rates(name):
    """GFLOP/s of a product, GB/s of an addition, ns of a tanh and of a normal number, at the workload's sizes."""
    rng, rows, size = np.random.default_rng(0), ROWS[name], SIZES[name]
    n = w.WIDTH if name != "W2" else w.UNET_WIDTHS[-1]
    k = n if name != "W2" else 9 * n  # a convolution as one product
    x, W, y = (rng.standard_normal(s, dtype="float32") for s in ((rows, k), (k, n), (rows, n)))
    a, b, c = (rng.standard_normal(size, dtype="float32") for _ in range(3))
    return {
        "gflops": 2e-9 * rows * k * n / shortest(lambda: np.matmul(x, W, out=y)),
        "gbs": 3e-9 * BYTES * size / shortest(lambda: np.add(a, b, out=c)),
        "ns_function": 1e9 / size * shortest(lambda: np.tanh(a, out=c)),
        "ns_normal": 1e9 / size * shortest(lambda: rng.standard_normal(size, dtype="float32", out=c)),
    }


def floor(count, rate):
    """Milliseconds: of products and bytes, and with functions and random numbers."""
    products, moving = 1e-6 * count.flops / rate["gflops"], 1e-6 * count.bytes / rate["gbs"]
    rest = 1e-6 * (count.functions * rate["ns_function"] + count.normals * rate["ns_normal"])
    return {"products": products, "bytes": moving, "rest": rest}


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", action="append", choices=w.NAMES)
    args = parser.parse_args()
    worker.pin(args.threads)
    worker.keep_memory()
    for name in args.only or w.NAMES:
        count, rate = COUNTS[name](), rates(name)
        found = {"floor": name, "threads": args.threads, "gflop": 1e-9 * count.flops, "mib": count.bytes / 2**20}
        print(json.dumps(found | rate | floor(count, rate)))


if __name__ == "__main__":
    main()
