"""Nothing in a step of training or sampling makes a device wait for the host.

On array-api-strict's pretended device every way from an array to a Python value is made to raise, while one step
is taken. (A GPU would only become slow, and nobody would know why.)
"""

import importlib
import pkgutil
from dataclasses import fields, is_dataclass, replace
from types import MethodType

import array_api_strict
import numpy as np
import pytest

import refscore.sampling as sampling_
from refscore import (
    EMA,
    MLP,
    SGD,
    VE,
    VP,
    Adam,
    Denoising,
    EulerMaruyama,
    ExactScore,
    Heun,
    Langevin,
    Reverse,
    ScoreModel,
    Sliced,
    fit,
    prior,
    simulate,
)
from refscore.laws.examples import mixture
from refscore.matching.objectives import OBJECTIVES
from refscore.matching.times import FixedTime, Levels, LogNormal, UniformLogSNR, UniformTime
from refscore.matching.weights import g_squared, sigma_squared, unweighted
from refscore.sampling.compose import First, Repeat, Stay
from refscore.sampling.inverse import GUESSES, Exact, Twisted
from refscore.training.optim import WarmupCosine
from tests.oracles.everything import EVERYTHING, STEPS, Place
from tests.oracles.models import KINDS
from tests.oracles.waiting import BACKEND, Waited, nobody_waits

# ------------------------------------------------------------------ the patch sees


LOOKS = {
    "float": float, "int": int, "bool": bool, "complex": complex, "list": list, "repr": repr, "str": str,
    "format": lambda x: f"{x}", "index": lambda x: [1, 2][x], "range": range, "if": lambda x: 1 if x > 0 else 2,
    "max": lambda x: max(x, x), "numpy": np.asarray, "to_numpy": lambda x: BACKEND.to_numpy(x),
    "move": lambda x: x.to_device(array_api_strict.Device("CPU_DEVICE")),
    "copy": lambda x: BACKEND.asarray(x),
    "nonzero": lambda x: array_api_strict.nonzero(x),
}  # fmt: skip


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_every_way_out_of_the_device_is_closed(look):
    for x in (BACKEND.asarray(1), BACKEND.asarray(1.0)):
        with nobody_waits(), pytest.raises(Waited):
            look(x)
    assert float(BACKEND.asarray(1.0)) == 1.0  # and open again afterwards


def test_a_planted_float_is_found_in_training():
    def objective(model, theta, x0, rng):
        loss, grad = Denoising()(model, theta, x0, rng)
        return loss, grad * (1.0 if float(loss) < 1e9 else 0.0)

    states = training(objective, Adam(1e-3), "distribution")
    with nobody_waits(), pytest.raises(Waited, match="__float__"):
        next(states)


def test_a_planted_if_is_found_in_sampling():
    score = ExactScore(P, VP())

    def careful(x, t):
        s = score(x, t)
        return s if array_api_strict.all(array_api_strict.isfinite(s)) else 0 * s

    states = sampling(EulerMaruyama(Reverse(VP(), careful)), VP(), "float32")
    with nobody_waits(), pytest.raises(Waited, match="__bool__"):
        next(states)


def test_a_simulation_looks_at_its_samples_once_at_the_end():
    states = sampling(EulerMaruyama(Reverse(VP(), ExactScore(P, VP()))), VP(), "float32")
    with nobody_waits(at_the_end=True):
        next(states), next(states)
        with pytest.raises(Waited, match="nonzero"):
            next(states)


# ------------------------------------------------------------------ training

P = mixture("tilted", BACKEND.asarray, "float32")


def training(objective, optimizer, data, sde=VP(), model=None):  # noqa: B008
    model = model or ScoreModel(MLP((2, 4, 4, 2), embed=4), sde, data_std=1.6)
    given = P if data == "distribution" else P.sample(BACKEND.rng(1), 40)
    return fit(model, objective, given, optimizer, BACKEND.rng(0), steps=5, batch=6, ema=EMA(0.9), max_norm=1.0)


@pytest.mark.parametrize("data", ["distribution", "array"])
@pytest.mark.parametrize("optimizer", [Adam(WarmupCosine(1e-3, 10)), SGD(1e-3, 0.9)], ids=["adam", "sgd"])
@pytest.mark.parametrize("sde", [VP(), VE()], ids=["vp", "ve"])
def test_a_training_step_waits_for_nothing(data, optimizer, sde):
    states = training(Denoising(), optimizer, data, sde)
    with nobody_waits():
        for _ in range(3):
            state = next(states)
    assert np.isfinite(float(state.loss))


@pytest.mark.parametrize("weight", [sigma_squared, g_squared, unweighted])
@pytest.mark.parametrize(
    "times", [UniformTime(), UniformLogSNR(), LogNormal(), FixedTime(0.5)], ids=lambda a: type(a).__name__
)
@pytest.mark.parametrize("antithetic", [False, True])
def test_no_objective_waits(weight, times, antithetic):
    for sde in (VP(), VE()):
        states = training(Denoising(weight=weight, times=times, antithetic=antithetic), Adam(1e-3), "distribution", sde)
        with nobody_waits():
            next(states)


VARIANTS = {
    **OBJECTIVES, "sliced, not reduced": Sliced(probes=2, reduced=False), "denoising, control": Denoising(control=True),
}  # fmt: skip


@pytest.mark.parametrize("objective", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_no_objective_waits_with_any_model(objective, kind):
    """As they stand in the table, and over a ladder of levels."""
    model_class, out = kind
    for sde in (VP(), VE()):
        plain = model_class(MLP((2, 4, out)), sde, predict="score")  # without noise there is no level to tell
        told = model_class(MLP((2, 4, out), embed=4), sde)
        for objective_, model in ((objective, plain), (replace(objective, times=Levels((0.9, 0.1))), told)):
            states = training(objective_, Adam(1e-3), "distribution", sde, model)
            with nobody_waits():
                state = next(states)
            assert np.isfinite(float(state.loss))


# ------------------------------------------------------------------ sampling


def sampling(step, sde, dtype):
    rng = BACKEND.rng(0)
    x1 = prior(sde, (5, 2), rng, getattr(array_api_strict, dtype))
    return simulate(step, x1, [1.0, 0.7, 0.3, 0.1], rng)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("sde", [VP(), VE()], ids=["vp", "ve"])
@pytest.mark.parametrize("learned", [False, True], ids=["exact score", "network"])
def test_no_sampler_waits(dtype, sde, learned):
    p = mixture("tilted", BACKEND.asarray, dtype)
    model = ScoreModel(MLP((2, 4, 2), embed=4), sde)
    score = model.bind(model.init(BACKEND.rng(0), p.means.dtype)) if learned else ExactScore(p, sde)
    for step in (
        EulerMaruyama(Reverse(sde, score)), EulerMaruyama(Reverse(sde, score, 0.5)),
        Heun(Reverse(sde, score, 0.0).drift), First(Langevin(score, 1e-3), Stay()),
        First(Repeat(Langevin(score, lambda t: 1e-3 * t), 2), EulerMaruyama(Reverse(sde, score))),
    ):  # fmt: skip
        states = sampling(step, sde, dtype)
        with nobody_waits():
            for x in states:
                assert x.shape == (5, 2)


# ------------------------------------------------------------------ everything public

AT_THE_DOOR = {  # what looks at values before it begins, and says so; a step of what it does waits for nothing
    "other laws": "an observation must be regular, a mixture's covariances too",
    "affine chains": "`simulate` looks at where it starts, and the distance is a number",
    "watched samplers": "`watch` is for looking",
    "grey levels": "there is none for NaN",
    "likelihoods": "the solver is a `simulate`; its velocity is `flow`, which does not wait",
    "on the host": "there it is computed",
    "measures": "what they measure is printed",
}


@pytest.mark.parametrize("name", EVERYTHING)
def test_nothing_public_waits_but_at_its_door(name):
    run = EVERYTHING[name](Place(BACKEND, "float32"))
    with nobody_waits():
        if name in AT_THE_DOOR:
            with pytest.raises(Waited):
                run()
        else:
            run()


def test_no_step_kernel_or_score_of_the_folder_is_forgotten():
    """What has a call, in any module of the samplers, is part of a step that is walked."""
    folder = [importlib.import_module(f"refscore.sampling.{m.name}") for m in pkgutil.iter_modules(sampling_.__path__)]
    there = {
        thing for module in folder for thing in vars(module).values()
        if isinstance(thing, type) and "__call__" in vars(thing) and thing.__module__ == module.__name__
    }  # fmt: skip
    x = BACKEND.asarray([[1.0, 2.0]])
    walked = {type(part) for build in STEPS.values() for part in parts(build(VP(), ExactScore(P, VP()), x))}
    walked |= {Exact, Twisted, *(base for guess in GUESSES.values() for base in guess.__mro__)}  # in `EVERYTHING`
    assert len(there) > 15
    assert there <= walked, there - walked


def parts(thing):
    """A step, and whatever it is made of."""
    yield thing
    for field in fields(thing) if is_dataclass(thing) else ():
        yield from parts(getattr(thing, field.name))
    if isinstance(thing, MethodType):
        yield from parts(thing.__self__)
