"""Numbers that users hand over: NumPy's own do not widen float32, counts are integers, whoever made them."""

import dataclasses
import importlib
import inspect
import math
import pkgutil
from typing import get_args

import numpy as np
import pytest

import refscore
from refscore import (
    DDIM,
    EDM,
    MLP,
    OU,
    VE,
    VP,
    Adam,
    Ancestral,
    Denoising,
    DPMSolver,
    ExactScore,
    FiniteDifference,
    Forward,
    GaussianMixture,
    Langevin,
    Reverse,
    ReverseDiffusion,
    ScoreModel,
    Sliced,
    fit,
    log_likelihood,
    prior,
    simulate,
)
from refscore.checks import check_count, check_number
from refscore.laws.plane import Rings
from refscore.likelihood.elbo import decoder, elbo
from refscore.likelihood.flow import FixedSteps, bits_per_dim, decode, encode, interpolate
from refscore.matching.maximum_likelihood import FromNoise, MaximumLikelihood
from refscore.matching.times import FixedTime, Levels, UniformLogSNR, UniformTime
from refscore.matching.weights import SigmaPower, unweighted
from refscore.measure.distance import sliced_wasserstein
from refscore.nn.conv import Conv
from refscore.nn.dense import Dense
from refscore.nn.dropout import Dropout
from refscore.nn.embed import Fourier, Labels
from refscore.nn.layer import zeros
from refscore.nn.norm import GroupNorm
from refscore.noise.chains import Chain
from refscore.noise.grids import geometric_levels, karras_times, level_times, log_snr_times, uniform_times
from refscore.noise.parametrisation import LossOf, affine, convert
from refscore.noise.reverse import denoise
from refscore.noise.sde import SDES
from refscore.sampling.compose import AnnealedLangevin, Repeat, Stay
from refscore.sampling.guidance import Guided, Replace
from refscore.sampling.inverse import PiGDM, Twisted
from refscore.sampling.langevin import LevelStep, SNRLangevin
from refscore.sampling.loop import last
from refscore.sampling.mala import MALA
from refscore.sampling.transitions import SAMPLERS
from refscore.training.optim import SGD, WarmupCosine, clip
from refscore.training.parallel import Sharded
from refscore_backends import HostRng
from refscore_backends.strict import StrictBackend

WRITERS = {
    "float64": np.float64, "float32": np.float32, "0-d": np.asarray, "0-d float32": lambda v: np.asarray(v, "float32"),
}  # fmt: skip
each_writer = pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
X = np.random.default_rng(0).standard_normal((8, 2)).astype("float32")
P = GaussianMixture(np.ones(1, "float32"), np.zeros((1, 2), "float32"), np.ones(1, "float32"))
MODEL = ScoreModel(MLP((2, 4, 2), embed=2), VP())


def score(x, t):
    return -x


EYE = np.eye(2, dtype="float32")
GUESS = PiGDM(ExactScore(P, VP()), VP(), EYE, X[0], EYE)

# What a class needs besides its defaults; and those whose numbers nobody hands over.
EXAMPLES = {
    "Chain": Chain((1.0, 0.5), (0.0, 0.8)), "Reverse": Reverse(VP(), score), "Langevin": Langevin(score, 0.1),
    "LevelStep": LevelStep(VE(), 0.1, 1.0), "SNRLangevin": SNRLangevin(score, 0.1), "Levels": Levels((2.0, 1.0)),
    "FixedTime": FixedTime(0.5), "SigmaPower": SigmaPower(2.0), "DDIM": DDIM(VP(), score),
    "EDM": EDM(VP(), score, 0.1, 0.2, 0.9, 1.1),
    "DPMSolver": DPMSolver(VP(), score), "Repeat": Repeat(Langevin(score, 0.1), 2), "Fourier": Fourier(4),
    "AnnealedLangevin": AnnealedLangevin(score, VE(), 0.1, 1.0, 3), "Dense": Dense(2, 3, 1),
    "Conv": Conv(2, 4, n_cond=1), "GroupNorm": GroupNorm(8), "Dropout": Dropout(3, 0.5), "Labels": Labels(2, 3),
    "Sharded": Sharded(Denoising(), 2),
    "FixedSteps": FixedSteps(VP(), 9),
    "Rings": Rings((1.0, 2.0), 0.3), "FromNoise": FromNoise(1.0), "MaximumLikelihood": MaximumLikelihood(2, 0.1),
    "WarmupCosine": WarmupCosine(0.1, 9, 2, 0.01),
    "Guided": Guided(score, score, 2.0), "LossOf": LossOf("noise"), "Preconditioning": MODEL, "ScoreModel": MODEL,
    "MALA": MALA(score, lambda x, t: -x[:, 0], 0.1), "PiGDM": GUESS, "Twisted": Twisted(GUESS, threshold=0.4),
    "EnergyModel": refscore.EnergyModel(MLP((2, 1)), VP()), "Replace": Replace(DDIM(VP(), score), VP(), X, X * 0, 2),
}  # fmt: skip
RESULTS = {  # what functions answer with, the edges print, or holds shapes and what others have checked
    "GaussianMixture", "Estimate", "Suggestion", "ScoreRow", "ModeRow", "SampleTable", "Problem", "Report", "Row",
    "Weights", "LowDensity", "Results", "Claim", "TrainingState", "GridLaw", "Circle", "Flow",
    "Reshape", "_Block", "Data", "Saved", "Settings", "Memorised", "Inpainted", "Course", "Condition",
    "Candidate", "Subject", "Cause", "Seen", "Run", "Table", "Scaled", "Coverage",
}  # fmt: skip


def nouns():
    """Every dataclass of the package that has a field of a number."""
    for module in pkgutil.walk_packages(refscore.__path__, "refscore."):
        if not module.name.endswith("__main__"):
            for thing in vars(importlib.import_module(module.name)).values():
                own = dataclasses.is_dataclass(thing) and isinstance(thing, type) and thing.__module__ == module.name
                if own and any(float in kinds(f) or int in kinds(f) for f in dataclasses.fields(thing)):
                    yield thing


def kinds(field):
    """What a field may hold: the parts of a union, or of a tuple."""
    return [field.type, *get_args(field.type)]


NOUNS = [noun for noun in nouns() if noun.__name__ not in RESULTS and not inspect.isabstract(noun)]


def example(noun):
    return EXAMPLES[noun.__name__] if noun.__name__ in EXAMPLES else noun()


@each_writer
@pytest.mark.parametrize("noun", NOUNS, ids=lambda n: n.__name__)
def test_every_noun_keeps_python_numbers(noun, write):
    made, fields = example(noun), [f for f in dataclasses.fields(noun) if f.init]
    given = {f.name: getattr(made, f.name) for f in fields}
    changed = dict(given)
    for field in fields:
        value, of = given[field.name], kinds(field)
        if isinstance(value, float) and float in of:
            changed[field.name] = write(value)
        elif isinstance(value, tuple) and float in of:
            changed[field.name] = tuple(write(v) for v in value)
        elif isinstance(value, int) and int in of and not isinstance(value, bool):
            changed[field.name] = np.int64(value)
    assert any(changed[name] is not given[name] for name in given)
    again = noun(**changed)
    for name, value in given.items():
        if changed[name] is not value:
            kept = getattr(again, name)
            kept, value = (kept, value) if isinstance(value, tuple) else ((kept,), (value,))
            assert all(type(k) is type(v) for k, v in zip(kept, value, strict=True)), (name, kept)
            np.testing.assert_allclose(kept, value, rtol=1e-7)


@pytest.mark.parametrize("noun", NOUNS, ids=lambda n: n.__name__)
@pytest.mark.parametrize("bad", ["1.0", True, 1j, np.ones(1), [1.0]], ids=repr)
def test_what_is_no_number_is_refused_by_name(noun, bad):
    made, fields = example(noun), [f for f in dataclasses.fields(noun) if f.init]
    given = {f.name: getattr(made, f.name) for f in fields}
    for field in fields:
        number = isinstance(given[field.name], (float, int)) and not isinstance(given[field.name], bool)
        if number and (float in kinds(field) or int in kinds(field)):
            with pytest.raises((TypeError, ValueError), match=rf"{field.name} must be an? (number|integer)"):
                noun(**{**given, field.name: bad})


# ------------------------------------------------------------------ functions


def walked(step, times=(1.0, 0.5, 0.25)):
    return last(simulate(step, X, times, np.random.default_rng(0)))


def trained(objective, optimizer, **more):
    return last(fit(MODEL, objective, X, optimizer, np.random.default_rng(0), steps=2, batch=4, **more)).theta


CALLS = {
    "prior": lambda w: prior(VE(w(0.01), w(50.0)), (4, 2), np.random.default_rng(0)),
    "prior of OU": lambda w: prior(OU(w(5.0), w(3.0)), (4, 2), np.random.default_rng(0)),
    "model": lambda w: ScoreModel(MLP((2, 4, 2), embed=2), VP(w(0.1), w(20.0)), data_std=w(1.5)).bind(
        MODEL.init(np.random.default_rng(0))
    )(X, w(0.5)),
    "exact score": lambda w: ExactScore(P, VP())(X, w(0.5)),
    "exact jvp": lambda w: ExactScore(P, VP()).jvp(X, w(0.5), X[None, ...])[1],
    "noised mixture": lambda w: P.diffuse(w(0.5), w(0.25)).means,
    "mixture": lambda w: P.score(X, w(0.5), w(0.25)),
    "posterior": lambda w: P.posterior_mean(X, w(0.5), w(0.25)),
    "density": lambda w: P.log_prob(X, w(0.5), w(0.25)),
    "denoise": lambda w: denoise(score, VP(), X, w(0.5)),
    "drift": lambda w: Reverse(VP(), score, w(0.5)).drift(X, w(0.5)),
    "noise": lambda w: Reverse(VP(), score, w(0.5)).noise(X, w(0.5)) * X,
    "forward": lambda w: Forward(VP()).drift(X, w(0.5)) + Forward(VP()).noise(X, w(0.5)) * X,
    "convert": lambda w: convert(X, X, w(0.5), VP(), "noise", "F", w(0.5)),
    "guided": lambda w: Guided(score, score, w(2.0))(X, w(0.5)),
    "langevin": lambda w: Langevin(score, w(0.1))(X, 0.5, np.random.default_rng(0)),
    "langevin by a function": lambda w: Langevin(score, lambda t: w(0.1))(X, 0.5, np.random.default_rng(0)),
    "snr": lambda w: SNRLangevin(score, w(0.1))(X, 0.5, np.random.default_rng(0)),
    "annealed": lambda w: walked(
        AnnealedLangevin(score, VE(), w(0.1), w(0.5), 2), level_times(VE(), [w(2.0), w(1.0), w(0.5)])
    ),
    "eta": lambda w: walked(DDIM(VP(), score, w(0.5))),
    "churn": lambda w: walked(EDM(VP(), score, w(0.1), w(0.01), w(50.0), w(1.007))),
    "uniform grid": lambda w: walked(ReverseDiffusion(VP(), score), uniform_times(4, w(0.1))),
    "log snr grid": lambda w: walked(Ancestral(VP(), score), log_snr_times(VP(), 4, w(0.1))),
    "karras grid": lambda w: walked(Ancestral(VP(), score), karras_times(VP(), 4, w(80.0), w(0.002), w(7.0))),
    "levels": lambda w: walked(Stay(), level_times(VE(), geometric_levels(w(2.0), w(0.5), 3))),
    "encode": lambda w: encode(score, VP(), X, w(0.1), FixedSteps(VP(), 2)),
    "decode": lambda w: decode(score, VP(), X, w(0.1), FixedSteps(VP(), 2)),
    "interpolate": lambda w: interpolate(score, VP(), X, X, w(0.5), w(0.1), FixedSteps(VP(), 2)),
    "likelihood": lambda w: log_likelihood(
        ExactScore(P, OU(w(5.0), w(3.0))), OU(w(5.0), w(3.0)), X, t_min=w(0.1), solve=FixedSteps(OU(5.0, 3.0), 2)
    ).value,
    "bits": lambda w: bits_per_dim(X[:, 0], 2, w(1 / 128)),
    "elbo": lambda w: elbo(score, VE(w(0.01), w(50.0)), X, np.random.default_rng(0), 3, w(0.1)).error,
    "decoder": lambda w: decoder(score, VP(), X, X, w(0.5)),
    "clip": lambda w: clip(X[:, 0], w(0.1))[0],
    "train": lambda w: trained(
        Denoising(weight=SigmaPower(w(2.0)), times=UniformTime(w(0.1))), Adam(w(0.1), w(0.9), w(0.99), w(1e-8)),
        ema=refscore.EMA(w(0.9)), max_norm=w(1.0),
    ),
    "train by SGD": lambda w: trained(FiniteDifference(times=FixedTime(w(0.5)), step=w(0.01)), SGD(w(0.1), w(0.9))),
    "rate by a function": lambda w: trained(Sliced(times=Levels([w(0.9), w(0.5)])), Adam(lambda step: w(0.1))),
    "weights of a loss": lambda w: trained(
        Denoising(weight=LossOf("F", w(0.5)), times=UniformLogSNR(w(0.1))), Adam(WarmupCosine(w(0.1), 2, 1, w(0.01)))
    ),
}  # fmt: skip


@each_writer
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_float32_stays_float32_whoever_made_the_numbers(call, write):
    found, wanted = call(write), call(float)
    assert found.dtype == wanted.dtype == np.float32
    np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("write", [np.float64, np.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_no_number_of_numpy_comes_to_stand_left_of_an_array_of_a_device(call, write, monkeypatch):
    """There it would ask for the array on the host: CuPy refuses, PyTorch and JAX answer in another precision."""
    host, wanted = StrictBackend("device1"), call(float)
    made = np.random.default_rng
    rng = lambda seed: HostRng(made(seed), host.asarray)  # noqa: E731
    monkeypatch.setattr(np.random, "default_rng", rng)
    monkeypatch.setitem(globals(), "X", host.asarray(X))
    monkeypatch.setitem(globals(), "P", GaussianMixture(*map(host.asarray, (P.weights, P.means, P.covariances))))
    found = host.to_numpy(call(write))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-6)


@each_writer
@pytest.mark.parametrize("name", SAMPLERS)
def test_every_step_takes_numbers_of_any_kind(name, write):
    t, s = write(0.5), write(0.25)
    if isinstance(t, np.ndarray):
        t, s = t[()], s[()]
    moved, _ = SAMPLERS[name](VP(), score)(X, t, s, np.random.default_rng(0))
    wanted, _ = SAMPLERS[name](VP(), score)(X, 0.5, 0.25, np.random.default_rng(0))
    assert moved.dtype == np.float32
    np.testing.assert_allclose(moved, wanted, rtol=1e-5, atol=1e-6)


def test_a_program_whose_scale_numpy_computed_trains_in_float32():
    """ScoreModel(..., data_std=raw.std()): what a newcomer writes first."""
    raw = np.random.default_rng(0).standard_normal((100, 2))
    model = ScoreModel(MLP((2, 4, 2), embed=2), VP(*np.array([0.1, 20.0])), data_std=raw.std())
    state = last(fit(model, Denoising(), raw.astype("float32"), Adam(1e-3), np.random.default_rng(0), steps=2))
    x = prior(model.sde, (4, 2), np.random.default_rng(0))
    made = last(simulate(DDIM(model.sde, model.bind(state.theta)), x, log_snr_times(model.sde, 3), None))
    assert state.theta.dtype == state.loss.dtype == made.dtype == np.float32
    assert sliced_wasserstein(made, raw[:4].astype("float32"), np.random.default_rng(0)) > 0


def test_counts_are_integers_of_any_library():
    for value in (3, np.int64(3), np.uint8(3), np.asarray(3)):
        assert check_count("n", value) == 3
        assert type(check_count("n", value)) is int
    for value in (0, True, 3.0, np.float64(3), "3", None, np.ones(2, "int64")):
        with pytest.raises(ValueError, match="n must be an integer of at least 1, got"):
            check_count("n", value)
    assert check_number("a", np.asarray(1.5)) == 1.5


# ------------------------------------------------------------------ constants


@pytest.mark.parametrize("sde", SDES.values(), ids=SDES)
def test_an_sde_answers_a_number_with_a_float_and_an_array_with_its_like(sde):
    for name in ("f", "g", "alpha", "sigma"):
        for t in (0, 1, 0.5, np.float64(0.5), np.float32(0.5)):
            assert type(getattr(sde, name)(t)) is float, (name, t)
        found = getattr(sde, name)(np.array([0.25, 0.5], "float32"))
        assert (found.shape, found.dtype) == ((2,), np.float32), name
    for inverse in (sde.time, sde.time_at_log_ratio):
        assert type(inverse(np.float64(0.5))) is float


@pytest.mark.parametrize("value", [math.inf, math.nan, -math.inf, 3.0])
def test_constants_are_made_whatever_they_stand_beside(value):
    for weight in (unweighted, lambda sde, t: affine("score", sde, t)[1]):
        assert np.array_equal(weight(VP(), np.full(3, value)), np.ones(3))
    params = {"W": np.full((2, 3), value), "b": np.full(3, value)}
    assert all(np.array_equal(v, np.zeros_like(v)) for v in zeros(params, params).values())
    state = Adam().init(np.full(3, value))
    assert not state.m.any()
    assert not state.v.any()
    assert not SGD().init(np.full(3, value)).m.any()
    assert not refscore.EMA().init(np.full(3, value)).value.any()


def test_the_score_of_an_energy_is_finite_where_the_energy_is_not():
    """½ ‖x‖² overflows in float32 at 2e19; its gradient is x."""
    model = refscore.EnergyModel(MLP((2, 4, 1), embed=2), VP())
    score = model.bind(model.init(np.random.default_rng(0)))
    x = np.array([[3e19, -3e19], [1.0, 2.0]], "float32")
    with np.errstate(all="raise", under="ignore"):
        s, sdot = score.jvp(x, 0.5, np.ones((1, 2, 2), "float32"))
    np.testing.assert_allclose(s[0], -x[0], rtol=1e-4)
    assert np.isfinite(sdot).all()
