"""Models that are told a label or a vector: the optimum is a known conditional score, and nothing else has changed."""

from functools import partial

import numpy as np
import pytest

from refscore import (
    EMA,
    MLP,
    SGD,
    VP,
    Adam,
    Denoising,
    EnergyModel,
    ExactScore,
    Explicit,
    FiniteDifference,
    GaussianMixture,
    Implicit,
    ScoreModel,
    Sliced,
    fit,
    log_likelihood,
)
from refscore.arrays import flat, views
from refscore.laws.posterior import component, linear_posterior
from refscore.likelihood.adaptive import solve
from refscore.likelihood.flow import FixedSteps
from refscore.matching.times import FixedTime, UniformLogSNR
from refscore.matching.weights import sigma_squared
from refscore.nn import Dense, Labels, Net
from refscore.sampling.loop import last
from tests.oracles.close import assert_close
from tests.oracles.mixtures import UNLIKE
from tests.oracles.statistics import assert_mean, assert_share, assert_within
from tests.oracles.waiting import BACKEND, nobody_waits

SDE, T = VP(), 0.3
ALPHA, SIGMA = SDE.alpha(T), SDE.sigma(T)
RNG = np.random.default_rng


class Labelled:
    """A mixture whose samples carry the number of their component."""

    def __init__(self, p):
        self.p = p

    def sample(self, rng, n):
        labels = rng.integers(0, self.p.n_components, size=(n,))
        x = np.concatenate([component(self.p, k).sample(rng, n)[None] for k in range(self.p.n_components)])
        return x[labels, np.arange(n)], labels


# ------------------------------------------------------------------ the optimum is the exact conditional score

EQUAL = GaussianMixture(np.ones(3) / 3, np.array([[-2.0, 0.0], [1.0, 1.0], [0.5, -3.0]]), np.full(3, 0.5))
V = ALPHA**2 * 0.5 + SIGMA**2  # variance of each component at T

TABLE = Net((("e", Labels(3, 4), ("condition",)), ("score", Dense(2, 2, n_cond=4, learned=True), ("x", "e"))))
LINEAR = Net((("score", Dense(2, 2, n_cond=1), ("x", "condition")),))


def labels_told():
    """A model that can be the score -(x - α m_k)/v of every component, and the parameters with which it is."""
    model = ScoreModel(TABLE, SDE, data_std=None, predict="score")
    W = np.concatenate([ALPHA / V * EQUAL.means, np.zeros((1, 2))])
    named = {"e.W": np.concatenate([W, np.zeros((4, 2))], axis=1), "score.W": -np.eye(2) / V,
             "score.T": np.eye(4)[:, :2], "score.b": np.zeros(2)}  # fmt: skip
    return model, flat(named, model.shapes)


H, R, PRIOR = np.array([[1.0, 2.0]]), np.array([[0.3]]), np.array([[1.0, 0.4], [0.4, 0.8]])
GAUSS = GaussianMixture(np.ones(1), np.zeros((1, 2)), PRIOR[None])


def observation_told():
    """The amortised posterior of y = H x + noise: linear in x and y, so one dense layer can be it."""
    gain = PRIOR @ H.T @ np.linalg.inv(H @ PRIOR @ H.T + R)
    cov = ALPHA**2 * (PRIOR - gain @ H @ PRIOR) + SIGMA**2 * np.eye(2)
    model = ScoreModel(LINEAR, SDE, data_std=None, predict="score")
    precision = np.linalg.inv(cov)
    named = {"score.W": -precision, "score.T": ALPHA * gain.T @ precision, "score.b": np.zeros(2)}
    return model, flat(named, model.shapes)


def test_what_a_model_is_told_is_no_part_of_what_it_is():
    model, _ = labels_told()
    one, other = model.told(np.array([0, 1])), model.told(np.array([1, 1]))
    assert one == other == model
    assert hash(one) == hash(model)


def test_told_a_label_the_optimum_is_the_score_of_its_component():
    model, theta = labels_told()
    x, labels = Labelled(EQUAL).sample(RNG(0), 50)
    exact = np.stack([ExactScore(component(EQUAL, k), SDE)(x[i : i + 1], T)[0] for i, k in enumerate(labels)])
    assert_close(model.bind(theta, labels)(x, T), exact, 1e-12)
    loss, grad = Explicit(lambda x, t: exact, times=FixedTime(T)).at(model.told(labels), theta, x, np.full(1, T))
    assert float(loss) < 1e-24
    assert np.max(np.abs(grad)) < 1e-12


def test_told_an_observation_the_optimum_is_the_score_of_the_posterior():
    """Chapter 13's exact posterior, for every y at once."""
    model, theta = observation_told()
    x, y = RNG(0).standard_normal((20, 2)), RNG(1).standard_normal((20, 1))
    exact = [ExactScore(linear_posterior(GAUSS, H, y[i], R), SDE)(x[i : i + 1], T)[0] for i in range(20)]
    assert_close(model.bind(theta, y)(x, T), np.stack(exact), 1e-11)


@pytest.mark.parametrize("told", [labels_told, observation_told])
def test_denoising_is_least_at_the_conditional_score(told):
    """Its expected gradient is 0 there, and not beside it."""
    model, theta = told()
    rng, n, m = RNG(3), 400, 500
    grads, shifted = [], []
    for _ in range(m):
        if told is labels_told:
            x, c = Labelled(EQUAL).sample(rng, n)
        else:
            x = rng.multivariate_normal(np.zeros(2), PRIOR, n)
            c = x @ H.T + np.sqrt(R) * rng.standard_normal((n, 1))
        for where, kept in ((theta, grads), (theta + 0.3, shifted)):
            kept.append(Denoising(times=FixedTime(T))(model.told(c), where, x, rng)[1])
    error = np.std(grads, axis=0) / np.sqrt(m)
    seen = error > 0  # not the row of "no label", nor features that no output reads
    assert np.sum(seen) >= 8
    assert_within(np.mean(grads, axis=0)[seen], 0.0, error[seen], n=m)
    assert np.any(np.abs(np.mean(shifted, axis=0)) > 20 * np.std(shifted, axis=0) / np.sqrt(m))


EVEN = GaussianMixture(np.full(2, 0.5), UNLIKE.means, UNLIKE.covariances)


def test_a_network_learns_every_component_and_without_a_label_all_of_them():
    """Relative errors of the learned scores on p_t; the worst of six pilot seeds was .011, told or untold."""
    rng = RNG(0)
    model = ScoreModel(MLP((1, 48, 48, 1), embed=16, classes=2), SDE, data_std=1.1)
    objective, ema = Denoising(weight=sigma_squared, times=UniformLogSNR(1e-2), antithetic=True), EMA(0.99)
    training = fit(model, objective, Labelled(EVEN), Adam(3e-3), rng, steps=1200, batch=256, ema=ema, unlabelled=0.3)
    theta = ema.mean(last(training).average)
    for law, label in ((EVEN, None), (component(EVEN, 0), np.full(1, 0)), (component(EVEN, 1), np.full(1, 1))):
        x = law.diffuse(ALPHA, SIGMA).sample(rng, 4000)
        exact = ExactScore(law, SDE)(x, T)
        error = model.bind(theta, label)(x, T) - exact
        assert np.mean(error**2) / np.mean(exact**2) < 0.022


# ------------------------------------------------------------------ the same numbers by another way

x, Z = RNG(0).standard_normal((6, 2)), RNG(1).standard_normal((6, 2))
LABELS = np.array([0, 1, 2, 3, 1, 0])
TOLD = ScoreModel(MLP((2, 5, 2), embed=4, classes=3), SDE)
ENERGY = EnergyModel(MLP((2, 5, 1), embed=4, classes=3), SDE)
OBJECTIVES = {
    "explicit": Explicit(lambda x, t: -x), "implicit": Implicit(), "sliced": Sliced(probes=2), "denoising": Denoising(),
    "finite difference": FiniteDifference(probes=2), "denoising, control": Denoising(control=True),
}  # fmt: skip


def parameters(model):
    return RNG(5).standard_normal(model.init(RNG(0), "float64").shape)


@pytest.mark.parametrize("model", [TOLD, ENERGY], ids=["score", "energy"])
@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
def test_a_batch_of_labels_is_the_mean_of_its_samples(model, objective):
    """Every objective, those that see a batch twice too: each sample keeps its own label."""
    theta, t = parameters(model), np.linspace(0.2, 0.8, 6)
    v = RNG(2).standard_normal((2, 6, 2))

    def at(labels, i=slice(None)):
        drawn = (Z[i],) if isinstance(objective, Denoising) else (v[:, i],) if hasattr(objective, "probes") else ()
        return objective.at(model.told(labels[i]), theta, x[i], t[i], *drawn)

    whole, parts = at(LABELS), [at(LABELS, slice(i, i + 1)) for i in range(6)]
    for n in (0, 1):
        assert_close(whole[n], np.mean([part[n] for part in parts], axis=0), 1e-12)
    assert abs(float(at((LABELS + 1) % 4)[0] - whole[0])) > 1e-4


def test_no_label_is_the_last_row_of_the_table():
    theta = parameters(TOLD)
    assert np.array_equal(TOLD.bind(theta)(x, T), TOLD.bind(theta, np.full(6, 3))(x, T))
    assert not np.allclose(TOLD.bind(theta)(x, T), TOLD.bind(theta, np.full(6, 2))(x, T))


def test_each_sample_has_the_likelihood_of_its_own_label():
    """By the adaptive solver, too, which takes one sample at a time."""
    theta = parameters(TOLD) * 0.3
    steps, adaptive = FixedSteps(SDE, 100), partial(solve, rtol=1e-6, atol=1e-6)
    whole = log_likelihood(TOLD.bind(theta, LABELS[:3]), SDE, x[:3], solve=steps).value
    for i in range(3):
        score = TOLD.bind(theta, LABELS[i : i + 1])
        assert_close(log_likelihood(score, SDE, x[i : i + 1], solve=steps).value, whole[i], 1e-9)
    assert_close(log_likelihood(TOLD.bind(theta, LABELS[:3]), SDE, x[:3], solve=adaptive).value, whole, 1e-3)


# ------------------------------------------------------------------ fit


def train(model=TOLD, data=(x, LABELS), **options):
    return last(fit(model, Denoising(), data, SGD(1e-2), RNG(4), steps=20, batch=8, **options))


def test_pairs_are_drawn_together():
    """Labels that follow from the samples: in every batch they still do."""
    seen = []

    def objective(model, theta, x0, rng):
        seen.append((x0, model._told[0]))
        return np.float64(0.0) * theta[0], 0 * theta

    X = RNG(0).standard_normal((50, 2))
    last(fit(TOLD, objective, (X, (X[:, 0] > 0).astype(int)), SGD(1e-2), RNG(4), steps=20, batch=8))
    assert all(np.array_equal(labels, x0[:, 0] > 0) for x0, labels in seen)


def test_the_share_of_withheld_labels_is_what_was_asked_for():
    seen = []

    def objective(model, theta, x0, rng):
        seen.append(model._told[0])
        return np.float64(0.0) * theta[0], 0 * theta

    last(fit(TOLD, objective, (x, LABELS % 3), SGD(1e-2), RNG(4), steps=100, batch=500, unlabelled=0.2))
    assert_share(np.concatenate(seen) == 3, 0.2)


def test_a_sampler_of_pairs_trains_as_an_array_of_pairs_does():
    class Rows:
        def sample(self, rng, n):
            rows = rng.integers(0, 6, size=(n,))
            return x[rows], LABELS[rows]

    start = parameters(TOLD) * 0.1
    assert np.array_equal(train(start=start).theta, last(fit(
        TOLD, Denoising(), Rows(), SGD(1e-2), Skipping(RNG(4), 1), steps=20, batch=8, start=start)).theta)  # fmt: skip


class Skipping:
    """A generator that does not count the first draw: `fit` looks at one sample of a sampler first."""

    def __init__(self, rng, n):
        self.rng, self.n = rng, n

    def integers(self, low, high, size):
        self.n -= 1
        return np.zeros(size, dtype=int) if self.n >= 0 else self.rng.integers(low, high, size=size)

    def __getattr__(self, name):
        return getattr(self.rng, name)


def test_dropout_is_drawn_in_training_and_absent_afterwards():
    dropping, plain = (ScoreModel(MLP((2, 40, 2), embed=4, dropout=rate), SDE) for rate in (0.5, 0.0))
    theta = parameters(plain)
    assert np.array_equal(dropping.bind(theta)(x, T), plain.bind(theta)(x, T))
    one, other = (train(model, x, start=theta).theta for model in (dropping, plain))
    assert not np.allclose(one, other)


def test_dropout_leaves_the_mean_of_a_linear_head_as_it_is():
    dropping, plain = (ScoreModel(MLP((2, 40, 2), embed=4, dropout=rate), SDE) for rate in (0.5, 0.0))
    params, rng = views(parameters(plain), plain.shapes), RNG(0)
    told = [dropping.told(uniform=rng.random((6, dropping.uniforms))).apply(params, x, T) for _ in range(4000)]
    assert_mean(told, plain.apply(params, x, T))


def test_a_step_with_labels_and_dropout_waits_for_nothing():
    model = ScoreModel(MLP((2, 8, 2), embed=4, classes=3, dropout=0.1), SDE)
    data = BACKEND.asarray(x, "float32"), BACKEND.asarray(LABELS % 3)
    states = fit(
        model, Denoising(times=FixedTime(T)), data, Adam(1e-3), BACKEND.rng(0), steps=5, batch=4, unlabelled=0.5
    )
    with nobody_waits():
        state = next(states)
    assert np.isfinite(float(state.loss))


# ------------------------------------------------------------------ what is refused

VECTOR = ScoreModel(MLP((2, 4, 2), n_condition=1), SDE, predict="score")
PLAIN = ScoreModel(MLP((2, 4, 2)), SDE, predict="score")

REFUSED = {
    "labels that are missing": (TOLD, x, {}, ValueError, "reads a condition"),
    "labels of another length": (TOLD, (x, LABELS[:5]), {}, ValueError, r"each of the 6 samples; got \(5,\)"),
    "labels that nobody knows": (TOLD, (x, LABELS + 1), {}, ValueError, "0 to 2, and 3 for no label; got some from 1"),
    "labels below 0": (TOLD, (x, LABELS - 1), {}, ValueError, "got some from -1 to 2"),
    "labels that are no integers": (TOLD, (x, LABELS / 2), {}, TypeError, "array of integers, got float64"),
    "labels one-hot": (TOLD, (x, np.eye(4, dtype=int)[LABELS]), {}, ValueError, r"\(N,\), one a sample; got \(6, 4\)"),
    "labels as a list": (TOLD, (x, [0] * 6), {}, ValueError, "each of the 6 samples; got list"),
    "a pair for a plain model": (PLAIN, (x, LABELS), {}, ValueError, "the model reads none"),
    "a vector of another width": (VECTOR, (x, x), {}, ValueError, "takes x"),
    "a vector of another type": (VECTOR, (x, x[:, :1].astype("float32")), {}, TypeError, "float32"),
    "all labels withheld": (TOLD, (x, LABELS), {"unlabelled": 1.0}, ValueError, r"in \[0, 1\); got 1"),
    "labels of a vector withheld": (VECTOR, (x, x[:, :1]), {"unlabelled": 0.1}, ValueError, "this model reads none"),
}  # fmt: skip


@pytest.mark.parametrize(("model", "data", "options", "error", "says"), REFUSED.values(), ids=REFUSED)
def test_conditions_that_cannot_work_are_refused(model, data, options, error, says):
    with pytest.raises(error, match=says):
        train(model, data, **options)


def test_conditions_are_looked_at_when_training_goes_on_too():
    """Labels outside the table have no row: unseen, they would train as zeros."""
    state = train()
    for data, says in ((x, "reads a condition"), ((x, LABELS + 1), "3 for no label"), ((x, LABELS[:5]), "got")):
        with pytest.raises(ValueError, match=says):
            train(data=data, start=state)


def test_a_sampler_that_stops_giving_conditions_is_refused():
    class Forgetful:
        n = 0

        def sample(self, rng, n):
            self.n += 1
            rows = rng.integers(0, 6, size=(n,))
            return (x[rows], LABELS[rows]) if self.n < 4 else x[rows]

    with pytest.raises(ValueError, match="must answer with a pair"):
        train(data=Forgetful())


def test_scores_that_cannot_be_told_are_refused():
    theta = parameters(TOLD)
    with pytest.raises(ValueError, match="no input 'condition': it reads x"):
        PLAIN.bind(parameters(PLAIN), LABELS)(x, T)
    with pytest.raises(ValueError, match="3 for no label"):
        TOLD.bind(theta, LABELS + 1)
    with pytest.raises(ValueError, match="told 6 conditions, the model is asked for 4 samples"):
        TOLD.bind(theta, LABELS)(x[:4], T)
    with pytest.raises(ValueError, match="reads a vector as its condition: give one"):
        VECTOR.bind(parameters(VECTOR))(x, T)
