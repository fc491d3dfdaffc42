"""Every objective says its loss sample by sample: the mean is the loss, and each is what it is alone."""

import dataclasses
import doctest
import math

import numpy as np
import pytest

from refscore import (
    MLP,
    VE,
    VP,
    Denoising,
    EnergyModel,
    ExactScore,
    Explicit,
    FiniteDifference,
    Implicit,
    ScoreModel,
    Sliced,
)
from refscore.laws.examples import mixture
from refscore.matching import denoising, maximum_likelihood, objectives
from refscore.matching.base import noised
from refscore.matching.maximum_likelihood import MaximumLikelihood
from refscore.matching.times import FixedTime, Levels, UniformLogSNR, UniformTime
from refscore.matching.weights import SigmaPower, g_squared, sigma_squared, unweighted
from refscore_backends.numpy import NumpyBackend
from tests.oracles.backends import LAW_BACKENDS

B = 7
OBJECTIVES = {
    "explicit": Explicit(lambda x, t: -x), "implicit": Implicit(), "sliced": Sliced(probes=3),
    "sliced, not reduced": Sliced(probes=3, reduced=False), "finite difference": FiniteDifference(probes=3),
    "denoising": Denoising(), "denoising, control": Denoising(control=True),
}  # fmt: skip
WEIGHTS = {"1": unweighted, "σ²": sigma_squared, "g²": g_squared, "σ": SigmaPower(1.0)}
TIMES = {
    "uniform": UniformTime(1e-2), "log snr": UniformLogSNR(1e-2), "fixed": FixedTime(0.4), "levels": Levels((0.9, 0.2)),
}  # fmt: skip
every = pytest.mark.parametrize("name", OBJECTIVES)


def drawn(objective, sde, host, dtype="float64"):
    """What `at` is given after model and theta: x, t, (z or v), factor."""
    rng = host.rng(1)
    x0 = host.asarray(mixture("tilted").sample(np.random.default_rng(0), B), dtype=dtype)
    t, z, factor = objective.draw(sde, x0, rng)
    if isinstance(objective, Denoising):
        return x0, t, z, factor
    x = noised(sde, x0, t, z)
    return (x, t, objective.law(rng, (3, B, 2), x.dtype), factor) if hasattr(objective, "law") else (x, t, factor)


def rows(args, i):
    """The arguments of sample i alone."""

    def one(a):
        if not hasattr(a, "shape") or a.shape == (1,):
            return a
        return a[i : i + 1, ...] if a.ndim < 3 else a[:, i : i + 1, ...]

    return tuple(map(one, args))


@pytest.mark.parametrize("host", LAW_BACKENDS, ids=lambda b: b.name)
@pytest.mark.parametrize("kind", [ScoreModel, EnergyModel])
@every
def test_the_mean_of_the_losses_is_the_loss(name, kind, host):
    sde = VP()
    model = kind(MLP((2, 4, 1 if kind is EnergyModel else 2), embed=4), sde)
    theta = model.init(host.rng(0), "float64")
    pairs = [(weight, law) for weight in WEIGHTS.values() for law in TIMES.values()]
    for weight, law in pairs if host.name == "numpy" else pairs[::5]:  # elsewhere each once
        objective = dataclasses.replace(OBJECTIVES[name], weight=weight, times=law)
        args = drawn(objective, sde, host)
        loss, _ = objective.at(model, theta, *args)
        each = host.to_numpy(objective.losses(model, theta, *args))
        assert each.shape == (B,)
        assert abs(np.mean(each) - float(loss)) <= 1e-12 * np.mean(np.abs(each))


@every
def test_each_loss_is_that_of_its_sample_alone(name):
    sde = VE(0.01, 10.0)
    model = ScoreModel(MLP((2, 4, 2), embed=4), sde)
    theta = model.init(np.random.default_rng(0), "float64")
    objective = dataclasses.replace(OBJECTIVES[name], weight=g_squared, times=UniformLogSNR(1e-2))
    args = drawn(objective, sde, NumpyBackend())
    each = objective.losses(model, theta, *args)
    alone = [float(objective.at(model, theta, *rows(args, i))[0]) for i in range(B)]
    np.testing.assert_allclose(each, alone, rtol=0, atol=1e-11 * np.max(np.abs(each)))  # products of other shapes


@every
def test_the_weight_multiplies_each(name):
    """λ(t) times the factor of the law of t, times the loss without either."""
    sde = VP()
    model = ScoreModel(MLP((2, 4, 2), embed=4), sde)
    theta = model.init(np.random.default_rng(0), "float64")
    objective = dataclasses.replace(OBJECTIVES[name], weight=g_squared, times=UniformLogSNR(1e-2))
    *args, factor = drawn(objective, sde, NumpyBackend())
    plain = dataclasses.replace(objective, weight=unweighted).losses(model, theta, *args)
    each = objective.losses(model, theta, *args, factor)
    np.testing.assert_allclose(each, factor * sde.g(args[1]) ** 2 * plain, rtol=1e-12)


def test_the_losses_of_explicit_score_matching_are_half_squares():
    """On paper, and zero for the score itself."""
    p, sde = mixture("tilted"), VP()
    exact = ExactScore(p, sde)
    model = ScoreModel(MLP((2, 4, 2), embed=4), sde)
    theta, rng = model.init(np.random.default_rng(0), "float64"), np.random.default_rng(1)
    x, t = rng.standard_normal((B, 2)), rng.uniform(0.1, 1, B)
    wanted = 0.5 * np.sum((model.bind(theta)(x, t) - exact(x, t)) ** 2, axis=1)
    np.testing.assert_allclose(Explicit(exact).losses(model, theta, x, t), wanted, rtol=1e-13)
    assert np.all(Explicit(model.bind(theta)).losses(model, theta, x, t) == 0)


@every
def test_losses_of_images_are_one_a_sample_in_float32(name):
    class Images:
        """A model of images (B, 2, 2): s = -x."""

        sde = VP()
        shapes: dict[str, tuple[int, ...]] = {}  # noqa: RUF012

        def forward(self, params, x, t):
            return -x, None

        def jvp(self, params, cache, xdot):
            return -xdot, None

        def backward(self, *args):
            raise AssertionError("losses need no gradient")

        jvp_backward = backward

    rng = np.random.default_rng(0)
    x, v = rng.standard_normal((B, 2, 2)).astype("float32"), rng.standard_normal((3, B, 2, 2)).astype("float32")
    objective = OBJECTIVES[name]
    t = np.full(B, 0.5, "float32")
    args = (x, t, v[0]) if isinstance(objective, Denoising) else (x, t, v) if hasattr(objective, "law") else (x, t)
    each = objective.losses(Images(), np.zeros(0, "float32"), *args)
    assert each.shape == (B,)
    assert each.dtype == np.float32


@pytest.mark.parametrize("host", LAW_BACKENDS, ids=lambda b: b.name)
def test_maximum_likelihood_has_losses_of_the_data(host):
    model = EnergyModel(MLP((2, 4, 1)), VP(), predict="score")
    theta = model.init(host.rng(0), "float64")
    x0, x = (host.asarray(np.random.default_rng(i).standard_normal((n, 2))) for i, n in ((0, B), (1, 4)))
    objective = MaximumLikelihood(1, 0.1)
    each = host.to_numpy(objective.losses(model, theta, x0, x))
    energy = model.bind_energy(theta)
    wanted = host.to_numpy(energy(x0, 0.0)) - host.to_numpy(energy(x, 0.0)).mean()
    np.testing.assert_allclose(each, wanted, rtol=0, atol=1e-13)
    assert math.isclose(each.mean(), float(objective.at(model, theta, x0, x)[0]), abs_tol=1e-14)


def test_probes_of_another_shape_are_refused_here_too():
    model = ScoreModel(MLP((2, 4, 2)), VP(), predict="score")
    theta = model.init(np.random.default_rng(0), "float64")
    for objective in (Sliced(), FiniteDifference()):
        with pytest.raises(ValueError, match=r"probes must have shape \(K, 7, 2\)"):
            objective.losses(model, theta, np.ones((B, 2)), np.zeros(1), np.ones((1, 1, 2)))


@pytest.mark.parametrize("module", [objectives, denoising, maximum_likelihood])
def test_the_examples_run(module):
    found = doctest.testmod(module)
    assert found.failed == 0
    assert found.attempted > 0
