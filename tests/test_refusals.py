"""Mistakes that users make: each is refused early, by name, with what was given and what is allowed."""

import numpy as np
import pytest

from refscore import (
    DDIM,
    EDM,
    EMA,
    MLP,
    OU,
    SGD,
    VE,
    VP,
    Adam,
    Denoising,
    EnergyModel,
    ExactScore,
    Explicit,
    FiniteDifference,
    Implicit,
    Langevin,
    Reverse,
    ScoreModel,
    Sliced,
    fit,
    log_likelihood,
    prior,
)
from refscore.laws.examples import mixture
from refscore.laws.grid_chain import GridLaw
from refscore.laws.posterior import component
from refscore.likelihood.flow import FixedSteps, interpolate
from refscore.matching.maximum_likelihood import MaximumLikelihood
from refscore.matching.times import FixedTime, Levels
from refscore.measure.distance import fisher_divergence
from refscore.measure.floor import denoising_floor
from refscore.nn import SiLU
from refscore.noise.chains import ddpm, from_betas
from refscore.noise.grids import karras_times, level_times, log_snr_times
from refscore.noise.parametrisation import LossOf, convert
from refscore.sampling.guidance import Replace
from refscore.sampling.langevin import LevelStep
from refscore.training.loop import DivergenceError

RNG = np.random.default_rng(0)
X = RNG.standard_normal((8, 2)).astype("float32")
NOISY = ScoreModel(MLP((2, 4, 2), embed=4), VP())
P = mixture("tilted")


class WithoutInverse:
    """What a user writes first: α and σ, and the two coefficients."""

    prior_std = 1.0

    def __init__(self):
        vp = VP()
        self.f, self.g, self.alpha, self.sigma, self.time = vp.f, vp.g, vp.alpha, vp.sigma, vp.time


class Own:
    """A score that is told times as arrays, and needs noise."""

    def check_clean(self):
        raise ValueError("not without noise")

    def row(self, i):
        return self

    def __call__(self, x, t):
        return -x


def theta(model, dtype="float32"):
    return model.init(np.random.default_rng(0), dtype)


def train(**changed):
    given = {"model": NOISY, "objective": Denoising(), "data": X, "optimizer": Adam(1e-3), "rng": RNG, "ema": None}
    return fit(*({**given, **changed}[k] for k in ("model", "objective", "data", "optimizer", "rng")), steps=3, batch=4,
               ema=changed.get("ema"))  # fmt: skip


MISTAKES = {
    "theta of another model": (
        lambda: NOISY.bind(np.zeros(99, "float32")),
        ValueError, r"theta must have shape \(38,\) for this model, got \(99,\)",
    ),
    "theta too short": (lambda: NOISY.bind(np.zeros(3, "float32")), ValueError, r"\(38,\) for this model, got \(3,\)"),
    "t = 0 and predict=noise": (
        lambda: ScoreModel(MLP((2, 4, 2)), VP()).bind(theta(ScoreModel(MLP((2, 4, 2)), VP())))(X, 0.0),
        ValueError, "at t = 0 there is no noise, and predict='noise' divides by σ",
    ),
    "t = 0 and a level": (lambda: NOISY.bind(theta(NOISY))(X, 0.0), ValueError, "log σ/α, which the body reads"),
    "a score of one's own at t = 0": (lambda: Reverse(VP(), Own()).drift(X, 0.0), ValueError, "not without noise"),
    "likelihood of a noisy energy": (
        lambda: MaximumLikelihood(1, 0.1)(EnergyModel(MLP((2, 1)), VP()), np.zeros(3, "float32"), X, RNG),
        ValueError, "at t = 0 there is no noise",
    ),
    "data of another width": (
        lambda: ScoreModel(MLP((3, 4, 2)), VP()).bind(np.zeros(26, "float32"))(X[:, [0, 1, 1]], 0.5),
        ValueError, r"the body answers with shape \(8, 2\) to x of shape \(8, 3\)",
    ),
    "a body with one output": (
        lambda: ScoreModel(MLP((2, 4, 1)), VP()).bind(np.zeros(17, "float32"))(X, 0.5),
        ValueError, r"the body answers with shape \(8, 1\) to x of shape \(8, 2\)",
    ),
    "floor of another objective": (lambda: denoising_floor(Sliced(), P, VP()), TypeError, "the floor is that of"),
    "probes that are no number": (lambda: Sliced(probes=1.5), ValueError, "probes must be an integer"),
    "a law by name": (lambda: Sliced(law="rademacher"), TypeError, "law must be something like rademacher"),
    "a level for a time": (lambda: FixedTime(5.0), ValueError, r"for a noise level: FixedTime\(sde.time\(σ\)\)"),
    "levels beyond the SDE": (lambda: level_times(VE(0.01, 20.0), (20.0, 1.0)), ValueError, "a little below sigma_max"),
    "a network with its time": (lambda: fisher_divergence(P, NOISY), TypeError, "score must be a function of x alone"),
    "a score of another shape": (
        lambda: fisher_divergence(P, lambda x: x[:, :1]), ValueError, "score must answer in the shape of x",
    ),
    "too much mass": (lambda: GridLaw(0.0, 1.0, np.ones(3)), ValueError, "nor sum to more than 1"),
    "no cells": (lambda: GridLaw(0.0, 1.0, np.ones(0)), ValueError, r"mass must be \(n,\) finite numbers"),
    "steps backwards": (lambda: GridLaw(0, 1, np.ones(2) / 2).push(np.eye(2), -1), ValueError, "times must be"),
    "a score of another SDE": (lambda: Reverse(VE(), ExactScore(P, VP())), ValueError, "the score was made for VP"),
    "a sampler with a score of another SDE": (lambda: DDIM(VE(), ExactScore(P, VP())), ValueError, "was made for VP"),
    "a likelihood with a score of another SDE": (
        lambda: log_likelihood(ExactScore(P, VP()), VE(), X.astype("float64")), ValueError, "was made for VP",
    ),
    "a likelihood of a function": (
        lambda: log_likelihood(lambda x, t: -x, VP(), X), TypeError, "the score needs a method jvp",
    ),
    "a prior that draws one number": (
        lambda: log_likelihood(
            ExactScore(P, VP()), VP(), X.astype("float64"), prior=lambda x: x.sum(), solve=lambda v, y, t, s: y
        ),
        ValueError, r"one log density a row, \(8,\); got \(\)",
    ),
    "no probes at all": (
        lambda: log_likelihood(ExactScore(P, VP()), VP(), X, probes=np.zeros((0, 8, 2), "float32")),
        ValueError, "probes is empty",
    ),
    "beyond the ends": (lambda: interpolate(lambda x, t: -x, VP(), X, X, 50.0), ValueError, r"w must lie in \[0, 1\]"),
    "a mask of grey": (
        lambda: Replace(DDIM(VP(), lambda x, t: -x), VP(), X, np.array([1.0, 255.0], "float32")),
        ValueError, "mask must be 1",
    ),
    "known values of more samples": (
        lambda: Replace(DDIM(VP(), lambda x, t: -x), VP(), X[:, None, :], np.ones(2, "float32"))(X, 0.5, 0.4, RNG),
        ValueError, r"known \(8, 1, 2\) does not broadcast to x \(8, 2\)",
    ),
    "a loss of an unknown name": (lambda: LossOf("x0"), ValueError, "no parametrisation called 'x0'"),
    "data without width": (
        lambda: convert(X, X, 0.5, VP(), "F", "score", 0.0), ValueError, "data_std must be positive",
    ),
    "a number for a shape": (lambda: prior(VP(), 5, RNG), ValueError, "prior needs a shape"),
    "a rate for an optimizer": (lambda: train(optimizer=1e-3), TypeError, "optimizer must be something like Adam"),
    "a class for an optimizer": (lambda: train(optimizer=SGD), TypeError, "optimizer must be something like Adam"),
    "a decay for an EMA": (lambda: train(ema=0.999), TypeError, "ema must be something like EMA"),
    "a class for an EMA": (lambda: train(ema=EMA), TypeError, "ema must be something like EMA"),
    "a seed for an rng": (lambda: train(rng=0), TypeError, "rng must be something like numpy.random.default_rng"),
    "a body for a model": (lambda: train(model=MLP((2, 2))), TypeError, "model must be something like a ScoreModel"),
    "S_churn for churn": (lambda: EDM(VP(), lambda x, t: -x, churn=40), ValueError, r"it is min\(S_churn/N, √2 - 1\)"),
    "a beta that leaves nothing": (lambda: VP(0.1, 3000.0), ValueError, "too little to divide by"),
    "a theta that leaves nothing": (lambda: OU(800.0), ValueError, "too little to divide by"),
    "an SDE without an inverse": (
        lambda: log_snr_times(WithoutInverse(), 4), TypeError, "time_at_log_ratio.* WithoutInverse has none",
    ),
    "Karras without an inverse": (lambda: karras_times(WithoutInverse(), 4), TypeError, "WithoutInverse has none"),
    "churn without an inverse": (
        lambda: EDM(WithoutInverse(), lambda x, t: -x, churn=0.1), TypeError, "WithoutInverse has none",
    ),
    "even steps without an inverse": (lambda: FixedSteps(WithoutInverse()), TypeError, "WithoutInverse has none"),
    "an activation by name": (lambda: MLP((2, 4, 2), activation="tanh"), TypeError, "activation must be a layer"),
    "an activation class": (lambda: MLP((2, 4, 2), activation=SiLU), TypeError, "activation must be a layer"),
    "a mask of another library": (
        lambda: Replace(DDIM(VP(), lambda x, t: -x), VP(), X, [1, 0]), TypeError, "mask must be an array .* got list",
    ),
    "an SDE beyond float32": (lambda: theta(ScoreModel(MLP((2, 2)), VP(0.1, 500.0))), ValueError, "than float32 holds"),
    "a step of an SDE beyond float32": (
        lambda: DDIM(VP(0.1, 500.0), lambda x, t: -x)(X, 1.0, 0.5, RNG), ValueError, "take float64, or an SDE",
    ),
    "a chain beyond float32": (lambda: from_betas([0.999] * 20), ValueError, "must stay below 1e18"),
    "a step below 0": (lambda: Langevin(lambda x, t: -x, lambda t: -0.1)(X, 0.5, RNG), ValueError, "step must"),
    "a rate that falls below 0": (lambda: next(train(optimizer=SGD(lambda n: -1.0))), ValueError, "must be finite"),
    "one level": (lambda: Levels(0.5), TypeError, "levels must be a sequence of numbers"),
    "half a component": (lambda: component(P, 1.0), ValueError, "k must be an integer of at least 0"),
    "half a step of a chain": (lambda: ddpm(25.5), ValueError, "n must be an integer"),
    "a class for an objective": (lambda: train(objective=Denoising), TypeError, "objective must be something"),
}  # fmt: skip


@pytest.mark.parametrize(("mistake", "error", "message"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_refused_by_name(mistake, error, message):
    with pytest.raises(error, match=message):
        mistake()


@pytest.mark.parametrize(
    "objective", [Explicit(lambda x, t: -x), Implicit(), Sliced(), FiniteDifference()], ids=lambda o: type(o).__name__
)
def test_data_as_they_are_need_a_model_that_is_finite_there(objective):
    """The defaults of model and objective do not go together, and it says so at the first call."""
    with pytest.raises(ValueError, match="at t = 0 there is no noise"):
        next(train(objective=objective))
    clean = ScoreModel(MLP((2, 4, 2)), VP(), predict="score")
    assert np.isfinite(next(train(objective=objective, model=clean)).loss)


@pytest.mark.parametrize("t", [-0.1, 1.5])
def test_a_score_is_asked_at_times_in_the_interval(t):
    for score in (ExactScore(P, VP()), NOISY.bind(theta(NOISY, "float64"))):
        with pytest.raises(ValueError, match=r"t must lie in \[0, 1\]"):
            score(X.astype("float64"), t)


def test_a_loss_that_was_never_finite_does_not_blame_the_learning_rate():
    def objective(model, theta, x0, rng):
        return np.float32(np.nan) * theta[0], 0 * theta

    with pytest.raises(DivergenceError, match=r"diverged by step 3: loss nan .*; look at the data, the times"):
        list(train(objective=objective))


def test_levels_are_kept_as_python_floats():
    assert Levels(np.array([2.0, 1.0])) == Levels((2.0, 1.0))
    assert hash(Levels([2.0, 1.0])) == hash(Levels((2.0, 1.0)))


def test_a_step_that_is_a_numpy_number_keeps_float32():
    for step in (np.float64(0.1), LevelStep(VE(), np.float64(0.1), 1.0)):
        kernel = Langevin(lambda x, t: -x, step)
        assert kernel(X, 0.5, np.random.default_rng(0)).dtype == np.float32


def test_a_sampler_of_an_sde_without_an_inverse_runs_where_it_needs_none():
    for make in (DDIM, EDM):
        assert make(WithoutInverse(), lambda x, t: -x)(X, 0.5, 0.4, RNG)[0].shape == X.shape


@pytest.mark.parametrize("kind", ["float32", "float64", "int64", "bool"])
def test_a_mask_may_be_of_any_kind_of_number(kind):
    known, mask = np.full((8, 2), 7.0, "float32"), np.array([1, 0]).astype(kind)
    x, _ = Replace(DDIM(VP(), lambda x, t: -x), VP(), known, mask)(X, 0.5, 0.0, RNG)
    assert np.array_equal(x[:, 0], known[:, 0])
    assert x.dtype == np.float32
