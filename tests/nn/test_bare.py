"""A bare network: data_std=None, it sees x itself and answers in the units of what it predicts."""

import doctest
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refscore import MLP, VE, VP, Denoising, EnergyModel, ScoreModel, fit
from refscore.arrays import views
from refscore.matching.maximum_likelihood import MaximumLikelihood
from refscore.nn import Net, score_model
from refscore.nn.dense import Dense
from refscore.nn.embed import Fourier
from refscore.noise.parametrisation import PARAMETRISATIONS, convert
from refscore.noise.sde import SDES, log_ratio
from refscore.training.optim import SGD
from tests.oracles.backends import LAW_BACKENDS
from tests.oracles.derivatives import check_everywhere, subject

BARE = [name for name in PARAMETRISATIONS if name != "F"]
sdes = pytest.mark.parametrize("sde", SDES.values(), ids=SDES)
seeds = st.integers(0, 2**32 - 1)


def parts(model, seed=0, B=5):
    rng = np.random.default_rng(seed)
    theta = model.init(rng, "float64")
    return theta + 0.3 * rng.standard_normal(theta.shape), 3 * rng.standard_normal((B, 2)), rng.uniform(0.2, 1.0, B)


@sdes
@pytest.mark.parametrize("embed", [0, 4])
def test_the_field_is_the_networks_own_answer_bit_by_bit(sde, embed):
    net = MLP((2, 6, 2), embed)
    model = ScoreModel(net, sde, data_std=None, predict="score")
    theta, x, t = parts(model)
    level = [log_ratio(sde, t)] if embed else []
    np.testing.assert_array_equal(model.bind(theta)(x, t), net.forward(views(theta, net.shapes), x, *level)[0])


@sdes
def test_a_bare_energy_is_the_networks_own_number_and_its_score_the_gradient(sde):
    net = MLP((2, 6, 1), 4)
    model = EnergyModel(net, sde, data_std=None, predict="score")
    theta, x, t = parts(model)
    params = views(theta, net.shapes)
    F, cache = net.forward(params, x, log_ratio(sde, t))
    (gradient, *_), _ = net.backward(params, cache, np.ones_like(F))
    np.testing.assert_array_equal(model.bind_energy(theta)(x, t), -F[:, 0])
    np.testing.assert_array_equal(model.bind(theta)(x, t), gradient)


@sdes
@pytest.mark.parametrize("predict", BARE)
def test_what_a_bare_network_says_is_what_it_predicts(sde, predict):
    """Its answer, converted to a score by the table of parametrisations, is the model's score."""
    net = MLP((2, 6, 2), 4)
    model = ScoreModel(net, sde, data_std=None, predict=predict)
    theta, x, t = parts(model)
    answer = net.forward(views(theta, net.shapes), x, log_ratio(sde, t))[0]
    wanted = convert(answer, x, t, sde, predict, "score")
    assert np.max(np.abs(model.bind(theta)(x, t) - wanted)) <= 1e-12 * np.max(np.abs(wanted))


@pytest.mark.parametrize("host", LAW_BACKENDS, ids=lambda b: b.name)
@pytest.mark.parametrize(
    ("kind", "predict"), [*((ScoreModel, p) for p in BARE), (EnergyModel, "noise"), (EnergyModel, "score")]
)
@pytest.mark.parametrize("hidden", [(), (4,)])
def test_every_pass_of_a_bare_model_is_right(host, kind, predict, hidden):
    body = MLP((2, *hidden, 1 if kind is EnergyModel else 2), 4 if hidden else 0)
    model = kind(body, VP(), data_std=None, predict=predict)
    x, t = np.random.default_rng(1).standard_normal((3, 2)), np.array([0.3, 0.6, 0.9])
    check_everywhere(subject(model, host, [x, t], 5, K=2, live=[True], fixed=[1]), 5)


@given(seed=seeds)
def test_at_t_0_a_bare_score_is_the_network_too(seed):
    net = MLP((2, 3, 2))
    model = ScoreModel(net, VE(), data_std=None, predict="score")
    theta, x, _ = parts(model, seed)
    np.testing.assert_array_equal(model.bind(theta)(x, 0.0), net.forward(views(theta, net.shapes), x)[0])


def test_a_bare_energy_that_never_reads_x_has_no_force():
    net = Net((("embed", Fourier(4), ("level",)), ("one", Dense(4, 1), ("embed",))))
    model = EnergyModel(Net((("zero", Dense(2, 2), ("x",)), *net.rows)), VP(), data_std=None)
    theta, x, t = parts(model)
    np.testing.assert_array_equal(model.bind(theta)(x, t), np.zeros_like(x))


@pytest.mark.parametrize("kind", [ScoreModel, EnergyModel])
def test_the_f_of_edm_is_made_of_data_std(kind):
    with pytest.raises(ValueError, match='predict="F" is scaled by data_std: give one'):
        kind(MLP((2, 1)), VP(), data_std=None, predict="F")


def test_a_bare_model_trains_on_data_of_any_width_without_a_word():
    x0 = 100 + np.random.default_rng(0).standard_normal((20, 2)).astype("float32")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for model, objective in (
            (ScoreModel(MLP((2, 4, 2)), VP(), data_std=None), Denoising()),
            (EnergyModel(MLP((2, 4, 1)), VP(), None, "score"), MaximumLikelihood(1, 1e-3)),
        ):
            rng = np.random.default_rng(0)
            state = next(iter(fit(model, objective, x0, SGD(1e-6), rng, batch=5, steps=1)))
            assert state.theta.dtype == np.float32


def test_the_examples_run():
    assert doctest.testmod(score_model).failed == 0
