"""How refscore's times grow with batch, width, image size, samples, dimension and components: one thread, one process.

    OPENBLAS_NUM_THREADS=1 python tests/benchmarks/scaling.py     # a line of JSON for each curve

A step of training is timed on random weights, as time does not depend on them; theory counts the products alone.
"""

import json
from time import process_time

import numpy as np
import refscore_side as side
import worker
import workloads as w

from refscore import MLP, Denoising, EulerMaruyama, ExactScore, GaussianMixture, Reverse, ScoreModel, UNet
from refscore.noise.exact_score import FastExactScore

SECONDS = 0.4  # of processor time for each point, at least


def step(x0, body):
    """Loss and gradient of denoising score matching on a batch."""
    model, rng = ScoreModel(body, side.TRAINED.sde, w.DATA_STD), np.random.default_rng(0)
    theta, objective = model.init(rng, "float32"), Denoising(times=side.UniformLogSigma())
    return lambda: objective(model, theta, x0, rng)


def mlp(batch=w.BATCH, width=w.WIDTH):
    """W1's objective."""
    x0 = w.pool()[:batch]
    return step(x0, MLP((w.DIMENSION, *[width] * w.DEPTH, w.DIMENSION), embed=w.EMBEDDING))


def unet(batch=w.UNET_BATCH, width=w.UNET_WIDTHS[0], side_of_image=w.SIDE):
    """W2's objective; widths in the ratio of W2's."""
    x0 = np.random.default_rng(0).standard_normal((batch, side_of_image, side_of_image, 1), dtype="float32")
    widths = [width * each // w.UNET_WIDTHS[0] for each in w.UNET_WIDTHS]
    return step(x0, UNet(1, widths, embed=w.EMBEDDING, cond=w.UNET_COND, groups=w.GROUPS))


def walk(score, x):
    """One Euler-Maruyama step."""
    euler, rng = EulerMaruyama(Reverse(side.PROCESS, score)), np.random.default_rng(0)
    return lambda: euler(x, 0.5, 0.499, rng)


def network(samples):
    """A step of W3-net."""
    return walk(side.bound(), np.random.default_rng(0).standard_normal((samples, w.DIMENSION), dtype="float32"))


def mixture(samples=w.SAMPLES, D=w.DIMENSION, K=w.COMPONENTS, exact=ExactScore):
    """A step of W3-mixture."""
    rng = np.random.default_rng(0)
    parts = np.full(K, 1 / K), 2 * rng.standard_normal((K, D)), np.full(K, 0.04)
    score = exact(GaussianMixture(*(a.astype("float32") for a in parts)), side.PROCESS)
    return walk(score, rng.standard_normal((samples, D), dtype="float32"))


CURVES = (  # name, what grows, its values, the exponent of theory, value -> unit
    ("W1", "batch", (64, 128, 256, 512, 1024, 2048, 4096), 1, lambda n: mlp(batch=n)),
    ("W1", "width", (64, 128, 256, 512, 1024), 2, lambda n: mlp(width=n)),
    ("W2", "batch", (4, 8, 16, 32, 64), 1, lambda n: unet(batch=n)),
    ("W2", "width", (8, 16, 32, 64), 2, lambda n: unet(batch=16, width=n)),
    ("W2", "side of the image", (8, 16, 32, 64), 2, lambda n: unet(batch=8, side_of_image=n)),
    ("W3-net", "samples", (64, 256, 1024, 4096, 16384), 1, network),
    ("W3-mixture", "samples", (64, 256, 1024, 4096, 16384), 1, lambda n: mixture(samples=n)),
    ("W3-mixture", "D", (1, 2, 4, 8, 16, 32, 64), 1, lambda n: mixture(D=n)),
    ("W3-mixture", "K", (1, 2, 4, 8, 16, 32, 64), 1, lambda n: mixture(K=n)),
    ("W3-mixture, fast", "D", (1, 2, 4, 8, 16, 32, 64), 1, lambda n: mixture(D=n, exact=FastExactScore)),
    ("W3-mixture, fast", "K", (1, 2, 4, 8, 16, 32, 64), 1, lambda n: mixture(K=n, exact=FastExactScore)),
)


def milliseconds(unit, seconds):
    """The shortest of several runs, in processor time: one thread, and a neighbour's time is not ours."""
    unit()
    begun, best, runs = process_time(), float("inf"), 0
    while runs < 3 or process_time() - begun < seconds:
        start = process_time()
        unit()
        best, runs = min(best, process_time() - start), runs + 1
    return 1e3 * best


def main(curves=CURVES, seconds=SECONDS):
    """Measure, and print each curve as it comes."""
    worker.keep_memory()
    for name, along, values, theory, make in curves:
        ms = [milliseconds(make(n), seconds) for n in values]
        found = {"curve": name, "variant": along, "at": values, "ms": ms, "theory": theory, "threads": 1}
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
