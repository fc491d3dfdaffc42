"""The sides compute the same thing, or the comparison is worth nothing.

Runs with whatever is installed: `python -m pytest tests/benchmarks`.
"""

import importlib
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # the sides are scripts beside each other, not a package

import run  # noqa: E402
import workloads as w  # noqa: E402

INSTALLED = [name for name in ("refscore", "torch", "jax") if importlib.util.find_spec(name)]


@pytest.fixture(params=INSTALLED)
def side(request):
    """A side whose library is installed."""
    return importlib.import_module(f"{request.param}_side")


def relative_error(got, wanted):
    """The largest error, in units of the largest wanted value."""
    return float(np.max(np.abs(np.asarray(got) - wanted)) / np.max(np.abs(wanted)))


@pytest.mark.parametrize(("name", "first"), [
    ("W3-net", 0), ("W3-mixture", 0), ("W3-mixture", w.STEPS - w.UNIT_STEPS),
    pytest.param("W3-net", w.STEPS - w.UNIT_STEPS, marks=pytest.mark.slow),  # the same network at other levels
])  # fmt: skip
def test_samples_without_noise_end_where_the_reference_ends(side, name, first):
    path = w.Path(first, quiet=True)
    score = {"W3-net": w.network_score, "W3-mixture": w.mixture_score}[name]
    wanted = w.follow(path, score, rows=200)
    for builders in side.VARIANTS.values():
        if name in builders:
            x = builders[name](path)()
            assert relative_error(np.asarray(x)[:200], wanted) < 2e-5  # float32, 50 steps


def check_gradient(value, grad, loss, *inputs, at=None):
    """The side's loss and gradient are the reference's, the gradient one tensor at a time along itself."""
    params, inputs = at or w.parameters(), tuple(a.astype(np.float64) for a in inputs)
    assert value == pytest.approx(loss(params, *inputs), rel=1e-5)  # float32
    for name in params:  # along its own gradient: no cancellation
        direction = grad[name] / np.linalg.norm(grad[name])
        moved = params | {name: params[name] + 1e-20j * direction}
        slope = loss(moved, *inputs).imag / 1e-20
        assert np.linalg.norm(grad[name]) == pytest.approx(slope, rel=3e-5)  # float32


def test_gradients_along_a_direction_are_the_complex_step(side):
    rng = np.random.default_rng(3)
    x0 = w.pool()[: w.BATCH]
    log_sigma = rng.uniform(np.log(w.SIGMA_MIN), np.log(w.SIGMA_MAX), w.BATCH).astype(np.float32)
    noise = rng.standard_normal((w.BATCH, w.DIMENSION), dtype=np.float32)
    v = rng.choice(np.float32([-1, 1]), size=noise.shape)
    check_gradient(*side.gradient(x0, log_sigma, noise), w.denoising_loss, x0, log_sigma, noise)
    check_gradient(*side.sliced_gradient(x0, log_sigma, noise, v), w.sliced_loss, x0, log_sigma, noise, v)


def test_gradients_of_the_unet_are_the_complex_step(side):
    if not hasattr(side, "unet_gradient"):
        pytest.skip(f"{side.__name__} has no W2")
    rng = np.random.default_rng(3)
    x0 = w.images()[:2, :8, :8]  # the network takes images of any size
    log_sigma = rng.uniform(np.log(w.SIGMA_MIN), np.log(w.SIGMA_MAX), 2).astype(np.float32)
    noise = rng.standard_normal(x0.shape, dtype=np.float32)
    check_gradient(*side.unet_gradient(x0, log_sigma, noise), w.unet_loss, x0, log_sigma, noise, at=w.unet_parameters())


def test_the_table_of_sides_is_the_sides_own(side):
    library = side.__name__.removesuffix("_side")
    listed = {name: set(has) for name, (needs, has) in run.VARIANTS.items() if needs == library}
    assert listed == {name: set(builders) for name, builders in side.VARIANTS.items()}


LEARNED = 0.63  # mean loss of steps 100-149; torch, JAX and refscore measured 0.620 to 0.636


@pytest.mark.slow  # its gradients and its samples are looked at every day
def test_every_side_learns(side):
    for builders in side.VARIANTS.values():
        if "W1" in builders:
            step = builders["W1"]()
            losses = [float(step()) for _ in range(150)]
            assert np.mean(losses[-50:]) == pytest.approx(LEARNED, rel=0.05)
