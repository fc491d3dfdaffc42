"""What a user's functions answer with, and the times he gives, are checked by shape: what broadcasts is refused."""

import math

import numpy as np
import pytest

from refscore import (
    MLP,
    VE,
    VP,
    Adam,
    Denoising,
    EulerMaruyama,
    ExactScore,
    Explicit,
    FiniteDifference,
    GaussianMixture,
    Heun,
    Langevin,
    Reverse,
    RungeKutta,
    ScoreModel,
    Sliced,
    fit,
    log_likelihood,
    simulate,
)
from refscore.arrays import at, beside
from refscore.likelihood.elbo import decoder, discrete_loss, elbo, noise_error
from refscore.likelihood.flow import encode
from refscore.matching.maximum_likelihood import MaximumLikelihood
from refscore.measure.distance import score_error
from refscore.noise.parametrisation import convert
from refscore.noise.reverse import denoise
from refscore.sampling.compose import AnnealedLangevin, First, Repeat, Stay, Then
from refscore.sampling.guidance import Guided
from refscore.sampling.langevin import SNRLangevin
from refscore.sampling.loop import last
from refscore.sampling.transitions import SAMPLERS
from refscore_backends.strict import StrictBackend

RNG = np.random.default_rng(0)
ONE, TWO = RNG.standard_normal((4, 1)), RNG.standard_normal((4, 2))
ANSWERS = {
    "a column too few": (TWO, lambda x, t: -x[:, :1]), "a mean over the batch": (TWO, lambda x, t: -x.mean(0)),
    "no axis for one dimension": (ONE, lambda x, t: -x[:, 0]), "one number": (ONE, lambda x, t: 1.0),
    "a row": (ONE, lambda x, t: -x.T), "one a sample": (TWO, lambda x, t: -x.sum(axis=1)),
}  # fmt: skip
REFUSED = r"must answer in the shape of x, \(4, [12]\); got"


def right(x, t):
    return -x


# Everything that asks a score, a drift or a velocity.
ASKED = {
    **{
        name: lambda score, x, make=make: make(VP(), score)(x, 0.5, 0.25, np.random.default_rng(0))
        for name, make in SAMPLERS.items()
    },
    "langevin": lambda score, x: Langevin(score, 0.1)(x, 0.5, np.random.default_rng(0)),
    "snr langevin": lambda score, x: SNRLangevin(score, 0.1)(x, 0.5, np.random.default_rng(0)),
    "annealed": lambda score, x: AnnealedLangevin(score, VE(), 0.1, 0.01, 2)(x, 0.9, 0.5, np.random.default_rng(0)),
    "first": lambda score, x: First(Langevin(score, 0.1), Stay())(x, 0.9, 0.5, np.random.default_rng(0)),
    "then": lambda score, x: Then(Stay(), Langevin(score, 0.1))(x, 0.9, 0.5, np.random.default_rng(0)),
    "repeat": lambda score, x: Repeat(Langevin(score, 0.1), 2)(x, 0.9, np.random.default_rng(0)),
    "drift": lambda score, x: Reverse(VP(), score).drift(x, 0.5),
    "velocity": lambda score, x: RungeKutta(score)(x, 0.5, 0.4, np.random.default_rng(0)),
    "denoise": lambda score, x: denoise(score, VP(), x, 0.5),
    "score error": lambda score, x: score_error(score, right, x, 0.5),
    "exact score of an error": lambda score, x: score_error(right, score, x, 0.5),
    "guided": lambda score, x: Guided(score, right, 2.0)(x, 0.5),
    "guided by": lambda score, x: Guided(right, score, 2.0)(x, 0.5),
    "noise error": lambda score, x: noise_error(score, VP(), x, 0.5, x),
    "elbo": lambda score, x: elbo(score, VP(), x, np.random.default_rng(0), 2),
    "encode": lambda score, x: encode(score, VP(), x),
    "explicit": lambda score, x: train(Explicit(score), x),
}


def train(objective, data, **changed):
    D = data.shape[1] if hasattr(data, "shape") else 2
    model = ScoreModel(MLP((D, 4, D)), VP(), predict="score")
    return next(fit(model, objective, data, Adam(1e-3), np.random.default_rng(0), steps=1, batch=4, **changed))


@pytest.mark.parametrize("ask", ASKED.values(), ids=ASKED)
def test_an_answer_that_would_broadcast_is_refused(ask):
    ask(right, TWO), ask(right, ONE)
    for x, wrong in ANSWERS.values():
        with pytest.raises(ValueError, match=REFUSED):
            ask(wrong, x)


class Drifting:
    """A process of one's own."""

    def __init__(self, drift, noise):
        self.drift, self.noise = lambda x, t: drift, lambda x, t: noise


@pytest.mark.parametrize("drift", [0.0, TWO[:, :1], TWO[0]], ids=["number", "column", "row"])
def test_the_drift_of_a_process_has_the_shape_of_x(drift):
    with pytest.raises(ValueError, match="the drift must answer in the shape of x"):
        EulerMaruyama(Drifting(drift, 1.0))(TWO, 0.5, 0.4, RNG)


def test_the_noise_of_a_process_may_broadcast_to_x_and_no_further():
    for noise in (0.5, np.float64(0.5), TWO[:, :1], TWO, np.ones(2)):
        x, _ = EulerMaruyama(Drifting(TWO.astype("float32"), noise))(TWO.astype("float32"), 0.5, 0.4, RNG)
        assert x.shape == TWO.shape
    with pytest.raises(ValueError, match=r"must answer in the shape of x, \(4, 1\); got \(4, 4\)"):
        EulerMaruyama(Drifting(ONE, np.ones(4)))(ONE, 0.5, 0.4, RNG)


def test_a_step_of_ones_own_answers_with_a_pair():
    with pytest.raises(TypeError, match=r"a pair \(x, memory\), got ndarray"):
        last(simulate(lambda x, t, s, rng, memory: x, TWO, [1.0, 0.5], RNG))


def test_a_step_of_ones_own_keeps_the_shape():
    with pytest.raises(ValueError, match=r"a step must answer in the shape of x, \(4, 2\); got \(4, 1\)"):
        last(simulate(lambda x, t, s, rng, memory: (x[:, :1], None), TWO, [1.0, 0.5], RNG))


def test_what_a_jvp_answers_with_is_checked():
    class Halved:
        def __call__(self, x, t):
            return -x

        def jvp(self, x, t, v):
            return -x, -v[..., :1]

    with pytest.raises(ValueError, match="the score's jvp must answer in the shape of x"):
        log_likelihood(Halved(), VP(), TWO)


def test_an_objective_answers_with_a_loss_and_a_gradient():
    for answer in (
        lambda theta: (theta, theta), lambda theta: (theta[0], theta[:1]), lambda theta: (theta[:1], theta),
        lambda theta: (1.0, theta), lambda theta: None, lambda theta: theta,
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"must answer with a pair, a loss \(\) and a gradient"):
            train(lambda model, theta, x0, rng, answer=answer: answer(theta), TWO)


@pytest.mark.parametrize("shape", [(3, 2), (), (1, 4, 2)])
def test_a_sampler_of_data_gives_as_many_as_were_asked_for(shape):
    class Data:
        def sample(self, rng, n):
            return TWO[:1] if n == 1 else np.zeros(shape)

    with pytest.raises(ValueError, match=r"data.sample\(rng, 4\) must answer with an array \(4, ...\), got"):
        train(Denoising(), Data())


def test_chains_of_maximum_likelihood_start_in_the_shape_of_the_data():
    from refscore import EnergyModel

    model = EnergyModel(MLP((2, 4, 1)), VP(), predict="score")
    objective = MaximumLikelihood(1, 0.1, start=lambda x, rng: x[:, :1])
    with pytest.raises(ValueError, match="start must answer in the shape of x"):
        objective(model, model.init(RNG, "float64"), TWO, RNG)


# ------------------------------------------------------------------ dtypes

WIDE = np.float64(1.0)  # beside float32 arrays NumPy widens


@pytest.mark.parametrize("ask", ASKED.values(), ids=ASKED)
def test_a_numpy_number_in_a_function_of_ones_own_does_not_widen(ask):
    found = ask(lambda x, t: -x * WIDE, TWO.astype("float32"))
    found = found[0] if isinstance(found, tuple) else found
    found = getattr(found, "theta", found)
    assert getattr(found, "dtype", np.dtype("float32")) == np.float32


def test_neither_noise_nor_a_step_of_ones_own_widens():
    x = TWO.astype("float32")
    assert EulerMaruyama(Drifting(x * WIDE, np.ones(2)))(x, 0.5, 0.4, RNG)[0].dtype == np.float32
    made = last(simulate(lambda x, t, s, rng, memory: (x * WIDE, None), x, [1.0, 0.5], RNG))
    assert made.dtype == np.float32


def test_weights_times_and_probes_of_ones_own_do_not_widen():
    class Late:
        atoms = None

        def at(self, sde, u):
            return 0.5 + 0.1 * u * WIDE, WIDE

    x = TWO.astype("float32")
    for objective in (
        Denoising(weight=lambda sde, t: WIDE * sde.sigma(t) ** 2), Denoising(times=Late()),
        Explicit(lambda x, t: -x * WIDE),
        Sliced(law=lambda rng, shape, dtype: rng.standard_normal(shape)),
        FiniteDifference(law=lambda rng, shape, dtype: rng.standard_normal(shape)),
    ):  # fmt: skip
        state = train(objective, x)
        assert state.theta.dtype == state.loss.dtype == np.float32


def test_what_would_widen_the_parameters_is_refused():
    x = TWO.astype("float32")
    with pytest.raises(TypeError, match="a gradient in float64, theta is float32"):
        train(lambda model, theta, x0, rng: (theta.sum(), theta.astype("float64")), x)

    class Wider(Adam):
        def update(self, grad, state, theta):
            theta, state = super().update(grad, state, theta)
            return theta * WIDE, state

    class Data:
        def sample(self, rng, n):
            return TWO[:n] if n > 1 else x[:1]

    model = ScoreModel(MLP((2, 4, 2)), VP())
    for data, optimizer, words in (
        (x, Wider(1e-3), "the optimizer turned theta from float32 into float64"),
        (Data(), Adam(1e-3), "data.sample answers in float64, theta is float32"),
    ):
        with pytest.raises(TypeError, match=words):
            next(fit(model, Denoising(), data, optimizer, np.random.default_rng(0), steps=1, batch=4))


# ------------------------------------------------------------------ times

P = GaussianMixture(np.array([0.4, 0.6]), np.array([[1.0], [-1.0]]), np.array([0.5, 0.2]))
NET = ScoreModel(MLP((2, 8, 2), embed=4), VP())
LEARNED = NET.bind(NET.init(np.random.default_rng(0), "float64"))
# Public functions of (x, t), with one time for all or one a sample.
TIMED = {
    "exact score": (ONE, ExactScore(P, VP())),
    "exact jvp": (ONE, lambda x, t: ExactScore(P, VP()).jvp(x, t, x[None])[1]),
    "network": (TWO, LEARNED),
    "network's jvp": (TWO, lambda x, t: LEARNED.jvp(x, t, x[None])[1]),
    "denoise": (ONE, lambda x, t: denoise(ExactScore(P, VP()), VP(), x, t)),
    "denoise by a network": (TWO, lambda x, t: denoise(LEARNED, VP(), x, t)),
    "drift": (ONE, lambda x, t: Reverse(VP(), ExactScore(P, VP())).drift(x, t)),
    "noise": (ONE, lambda x, t: Reverse(VP(), ExactScore(P, VP())).noise(x, t) * x),
    "convert": (TWO, lambda x, t: convert(x, 2 * x, t, VP(), "score", "data")),
    "guided": (ONE, Guided(ExactScore(P, VP()), ExactScore(P, VP()), 2.0)),
    "noise error": (ONE, lambda x, t: noise_error(ExactScore(P, VP()), VP(), x, t, x)[:, None]),
}


@pytest.mark.parametrize(("x", "f"), TIMED.values(), ids=TIMED)
def test_one_time_a_sample_is_each_sample_at_its_time(x, f):
    times = np.array([0.2, 0.9, 0.5, 0.7])
    each = np.concatenate([f(x[i : i + 1], float(times[i])) for i in range(4)], axis=-2)
    np.testing.assert_allclose(f(x, times), each, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(("x", "f"), TIMED.values(), ids=TIMED)
def test_times_of_another_shape_are_refused(x, f):
    for t in (np.full((4, 1), 0.5), np.full(3, 0.5), np.full((1, 1), 0.5), np.full((4, 4), 0.5), np.full(0, 0.5)):
        with pytest.raises(ValueError, match="t must be one number, or one for each of the 4 samples"):
            f(x, t)


@pytest.mark.parametrize(("x", "f"), TIMED.values(), ids=TIMED)
def test_one_time_may_be_written_in_many_ways(x, f):
    wanted = f(x, 0.5)
    for t in (np.float64(0.5), np.float32(0.5), np.asarray(0.5), np.asarray(0.5, "float32"), np.array([0.5])):
        np.testing.assert_allclose(f(x, t), wanted, rtol=1e-12, atol=1e-13)
    assert f(x.astype("float32"), np.full(4, 0.5)).dtype == f(x.astype("float32"), 0.5).dtype


@pytest.mark.parametrize(("x", "f"), TIMED.values(), ids=TIMED)
def test_integers_are_no_points(x, f):
    with pytest.raises(TypeError, match=r"x0? must be float32 or float64, got int64"):
        f(x.astype("int64"), 0.5)


def test_times_stand_beside_x_on_every_backend(backend):
    x = backend.asarray(TWO)
    for t in (0.5, backend.asarray(np.asarray(0.5)), backend.asarray(np.array([0.5]))):
        assert at(t, x).shape == (1,)
        assert at(t, x).dtype == x.dtype
        np.testing.assert_array_equal(backend.to_numpy(at(t, x)), [0.5])
    assert beside(0.5, x) == 0.5
    assert at(backend.asarray(np.full(4, 0.5)), x).shape == (4,)


def test_without_noise_the_point_is_its_own_denoised_value(backend):
    """At t = 0 a network may divide by zero; and the default grids end there."""
    x = backend.asarray(TWO)
    net = NET.bind(NET.init(backend.rng(0), "float64"))

    def asked(x, t):
        return net(x, t)

    assert denoise(asked, VP(), x, 0.0) is x
    t = backend.asarray(np.array([0.0, 0.5, 0.0, 1.0]))
    found = backend.to_numpy(denoise(asked, VP(), x, t))
    assert np.array_equal(found[[0, 2]], TWO[[0, 2]])
    each = [backend.to_numpy(denoise(asked, VP(), x[i : i + 1, :], s))[0] for i, s in ((1, 0.5), (3, 1.0))]
    np.testing.assert_allclose(found[[1, 3]], each, rtol=1e-12)


def test_a_network_is_not_evaluated_without_noise():
    """Wherever a bound model is handed over, t = 0 is refused with its sentence, and not answered with NaN."""
    flow = Heun(Reverse(VP(), LEARNED, 0.0).drift)
    for ask in (
        lambda: score_error(LEARNED, LEARNED, TWO, 0.0), lambda: Langevin(LEARNED, 0.1)(TWO, 0.0, RNG),
        lambda: Reverse(VP(), LEARNED).drift(TWO, 0.0), lambda: noise_error(LEARNED, VP(), TWO, 0.0, TWO),
        lambda: last(simulate(flow, TWO, [1.0, 0.5, 0.0], RNG)), lambda: LEARNED(TWO, 0.0),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="at t = 0 there is no noise"):
            ask()


def test_times_that_are_no_arrays_of_the_same_library_are_refused_by_name():
    for t in ([0.5], "0.5", None, StrictBackend("device1").asarray([0.5])):
        with pytest.raises(TypeError, match="t must be a number or an array of"):
            ExactScore(P, VP())(ONE, t)


def test_the_decoder_needs_noise():
    for t in (0.0, 1.5):
        with pytest.raises(ValueError, match=r"a time in \(0, 1\]"):
            decoder(LEARNED, VP(), TWO, TWO, t)
    with pytest.raises(TypeError, match="t must be a number"):
        decoder(LEARNED, VP(), TWO, TWO, np.full(4, 0.5))
    with pytest.raises(ValueError, match="end above t = 0"):
        discrete_loss(LEARNED, VP(), TWO, [TWO, TWO], [1.0, 0.5, 0.0])


def test_where_a_quantity_says_nothing_of_the_score_arrays_are_refused_as_numbers_are():
    for t in (0.0, np.array([0.5, 0.0, 0.5, 0.5])):
        with pytest.raises(ValueError, match="the data does not tell the score: there is no noise"):
            convert(TWO, TWO, t, VP(), "data", "score")
        with pytest.raises(ValueError, match="F is not defined"):
            convert(TWO, TWO, t, VP(), "score", "F")
        assert np.isfinite(convert(TWO, TWO, t, VP(), "score", "data")).all()


def test_a_weight_of_ones_own_gives_one_number_a_sample():
    objective = Denoising(weight=lambda sde, t: np.ones((4, 4)))
    model = ScoreModel(MLP((2, 4, 2)), VP())
    with pytest.raises(ValueError, match=r"must be one number, or one for each of the 4 samples; got shape \(4, 4\)"):
        objective(model, model.init(RNG, "float64"), TWO, RNG)


# ------------------------------------------------------------------ the width of a network


def test_a_layer_says_what_width_it_takes():
    pictures = np.zeros((4, 8, 8, 1))
    for x in (np.zeros((4, 3)), pictures):
        with pytest.raises(ValueError, match=r"Dense\(n_in=2, n_out=8.* takes x \(..., 2\).*; got \(4, "):
            LEARNED(x, 0.5)
    with pytest.raises(ValueError, match=r"as many axes, \(..., 4\); got \(4, 8, 2\), \(4, 4\)"):
        LEARNED(np.zeros((4, 8, 2)), np.full(4, 0.5))


def test_nan_of_a_score_of_ones_own_is_not_silent():
    from refscore.sampling.loop import NotFiniteWarning

    with pytest.warns(NotFiniteWarning, match="4 of 4 rows are not finite after the last step"):
        last(simulate(First(Langevin(lambda x, t: math.nan * x, 0.1), Stay()), TWO, [1.0, 0.5, 0.0], RNG))
