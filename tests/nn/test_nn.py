"""Networks beyond their derivatives: embedding, initial parameters, layout, refusals."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refscore import MLP, VE, VP, ScoreModel
from refscore.arrays import flat, views
from refscore.nn import Add, Dense, Fourier, Net, SiLU, Softplus, Tanh
from refscore.nn.layer import plus, rows, sum_to
from refscore.noise.sde import log_ratio
from tests.oracles.close import assert_close
from tests.oracles.statistics import assert_mean

# ------------------------------------------------------------------ the embedding


def test_fourier_is_sines_and_cosines_of_geometric_frequencies():
    level = np.array([-3.0, 0.0, 0.5, 2.0])
    e, _ = Fourier(6, low=0.1, high=4.0).forward({}, level)
    omega = np.array([0.1, math.sqrt(0.1 * 4.0), 4.0])
    wanted = math.sqrt(2) * np.concatenate([np.sin(np.outer(level, omega)), np.cos(np.outer(level, omega))], axis=1)
    assert_close(e, wanted, 1e-14)


@given(level=st.floats(-12, 12), n=st.integers(1, 20))
def test_fourier_features_have_unit_mean_square_at_every_level(level, n):
    e, _ = Fourier(2 * n).forward({}, np.array([level]))
    assert abs(np.mean(e**2) - 1) <= 1e-13  # sin² + cos² = 1 in every pair


def test_fourier_lives_beside_the_level(any_backend):
    level = any_backend.asarray(np.array([0.5, -1.0]), dtype="float32")
    e, _ = Fourier(4).forward({}, level)
    assert e.shape == (2, 4)
    assert e.dtype == level.dtype
    assert type(e) is type(level)


@pytest.mark.parametrize("n", [0, -2, 1, 7])
def test_fourier_refuses_odd_numbers_of_features(n):
    with pytest.raises(ValueError, match=f"(at least 2|even), got {n}"):
        Fourier(n)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-1.0, 1.0), (1.0, 1.0), (2.0, 1.0), (math.nan, 1.0)])
def test_fourier_refuses_frequencies_out_of_order(low, high):
    with pytest.raises(ValueError, match="0 < low < high"):
        Fourier(4, low, high)


# ------------------------------------------------------------------ dense


@pytest.mark.parametrize("sizes", [(0, 1), (1, 0), (-1, 2), (1, 1, -1)])
def test_dense_refuses_sizes_that_cannot_be(sizes):
    with pytest.raises(ValueError, match=r"n_(in|out|cond) must be an integer of at least"):
        Dense(*sizes)


def test_dense_is_affine():
    rng = np.random.default_rng(0)
    W, T, b = rng.standard_normal((3, 2)), rng.standard_normal((4, 2)), rng.standard_normal(2)
    x, e = rng.standard_normal((5, 3)), rng.standard_normal((5, 4))
    y, _ = Dense(3, 2, 4).forward({"W": W, "T": T, "b": b}, x, e)
    assert_close(y, x @ W + e @ T + b, 1e-14)
    y, _ = Dense(3, 2).forward({"W": W, "b": b}, x)
    assert_close(y, x @ W + b, 1e-14)


def test_dense_starts_with_outputs_of_unit_variance():
    layer = Dense(400, 300, n_cond=250)
    params = layer.init(np.random.default_rng(0), "float64")
    assert list(params) == ["W", "T", "b"]
    for name, n in (("W", 400), ("T", 250)):
        z = math.sqrt(n) * params[name].reshape(-1)
        assert_mean(z, 0.0)
        assert_mean(z**2, 1.0, sees=0.05)
    assert not params["b"].any()


# ------------------------------------------------------------------ nets


def test_parameters_are_laid_out_row_by_row():
    net = MLP((2, 5, 4, 3), embed=6)
    assert dict(net.shapes) == {
        "dense1.W": (2, 5), "dense1.T": (6, 5), "dense1.b": (5,),
        "dense2.W": (5, 4), "dense2.T": (6, 4), "dense2.b": (4,),
        "head.W": (4, 3), "head.b": (3,),
    }  # fmt: skip
    assert list(net.shapes) == [
        "dense1.W", "dense1.T", "dense1.b", "dense2.W", "dense2.T", "dense2.b", "head.W", "head.b",
    ]  # fmt: skip
    theta = np.arange(float(sum(math.prod(s) for s in net.shapes.values())))
    params = views(theta, net.shapes)
    assert np.array_equal(params["dense1.W"], np.arange(10.0).reshape(2, 5))
    assert params["dense1.T"][0, 0] == 10
    assert params["head.b"][-1] == theta[-1]


@pytest.mark.parametrize("embed", [0, 4])
def test_flat_and_views_are_inverse(any_backend, embed):
    net = MLP((2, 3, 2), embed)
    size = sum(math.prod(s) for s in net.shapes.values())
    theta = any_backend.asarray(np.arange(size), dtype="float32")
    assert np.array_equal(any_backend.to_numpy(flat(views(theta, net.shapes), net.shapes)), np.arange(size))
    model = ScoreModel(net, VP())
    params = net.init(any_backend.rng(3), "float32")
    theta = model.init(any_backend.rng(3), "float32")
    assert str(theta.dtype).endswith("float32")
    for name, view in views(theta, net.shapes).items():
        assert np.array_equal(any_backend.to_numpy(view), any_backend.to_numpy(params[name]))


@pytest.mark.parametrize("activation", [None, Tanh(), Softplus()])
def test_an_mlp_is_what_its_docstring_says(activation):
    net = MLP((2, 4, 3, 1), embed=6, activation=activation)
    rng = np.random.default_rng(0)
    params = {k: rng.standard_normal(s) for k, s in net.shapes.items()}
    x, level = rng.standard_normal((5, 2)), rng.standard_normal(5)
    e = Fourier(6).forward({}, level)[0]
    h = x
    for l in (1, 2):
        phi = (activation or SiLU()).forward
        h = phi({}, h @ params[f"dense{l}.W"] + e @ params[f"dense{l}.T"] + params[f"dense{l}.b"])[0]
    y, _ = net.forward(params, x, level)
    assert_close(y, h @ params["head.W"] + params["head.b"], 1e-13)


def test_a_net_reads_the_level_only_if_a_row_does():
    assert MLP((2, 3, 2)).inputs == ("x",)
    assert MLP((2, 3, 2), embed=2).inputs == ("x", "level")


def test_a_net_refuses_rows_that_do_not_fit():
    with pytest.raises(ValueError, match=r"row 'b' reads \['c'\]"):
        Net((("a", SiLU(), ("x",)), ("b", SiLU(), ("c",)), ("c", SiLU(), ("x",))))
    with pytest.raises(ValueError, match="two rows are called 'a'"):
        Net((("a", SiLU(), ("x",)), ("a", SiLU(), ("x",))))
    with pytest.raises(ValueError, match="at least one row"):
        Net(())


@pytest.mark.parametrize("widths", [(), (2,), (2, 0), (0, 2), (2, 3, 0, 2)])
def test_an_mlp_refuses_widths_that_cannot_be(widths):
    with pytest.raises(ValueError, match=r"widths|n_(in|out)"):
        MLP(widths)


def test_an_mlp_refuses_an_odd_embedding():
    with pytest.raises(ValueError, match="must be even"):
        MLP((2, 3, 2), embed=3)


# ------------------------------------------------------------------ score models


@pytest.mark.parametrize("sde", [VP(), VE(0.01, 10.0)])
@pytest.mark.parametrize("embed", [0, 4])
def test_a_score_model_is_a_noise_predictor_over_minus_sigma(sde, embed):
    net = MLP((2, 4, 2), embed)
    model = ScoreModel(net, sde, data_std=1.7)
    theta = model.init(np.random.default_rng(0), "float64")
    x, t = np.random.default_rng(1).standard_normal((6, 2)), np.linspace(0.05, 1.0, 6)
    alpha, sigma = sde.alpha(t)[:, None], sde.sigma(t)[:, None]
    level = [log_ratio(sde, t)] if embed else []
    y, _ = net.forward(views(theta, net.shapes), x / np.sqrt((1.7 * alpha) ** 2 + sigma**2), *level)
    wanted = -y / sigma
    assert_close(model.bind(theta)(x, t), wanted, 1e-13 * np.max(np.abs(wanted)))


def test_one_time_for_all_may_be_a_float_an_array_or_repeated(backend):
    model = ScoreModel(MLP((2, 4, 2), embed=4), VP())
    theta = model.init(backend.rng(0), "float64")
    x = backend.asarray(np.random.default_rng(1).standard_normal((3, 2)))
    score = model.bind(theta)
    times = (0.4, backend.asarray(np.array([0.4])), backend.asarray(np.full(3, 0.4)))
    one, two, three = (backend.to_numpy(score(x, t)) for t in times)
    # exp and log in Python and in the library may differ in the last bit
    assert_close(one, two, 1e-14 * np.max(np.abs(two)))
    assert_close(two, three, 1e-14 * np.max(np.abs(two)))


@pytest.mark.parametrize("data_std", [0.0, -1.0, math.nan, math.inf])
def test_a_score_model_refuses_data_without_width(data_std):
    with pytest.raises(ValueError, match="data_std must be positive and finite"):
        ScoreModel(MLP((2, 2)), VP(), data_std)


# ------------------------------------------------------------------ helpers


def test_sum_to_undoes_broadcasting():
    dy = np.arange(24.0).reshape(2, 3, 4)
    assert np.array_equal(sum_to(dy, (2, 3, 4)), dy)
    assert np.array_equal(sum_to(dy, (3, 4)), dy.sum(axis=0))
    assert np.array_equal(sum_to(dy, (2, 1, 4)), dy.sum(axis=1, keepdims=True))
    assert np.array_equal(sum_to(dy, (1, 4)), dy.sum(axis=(0, 1))[None])
    assert np.array_equal(sum_to(np.ones((1, 4)), (1, 4)), np.ones((1, 4)))


def test_plus_takes_none_for_zero():
    a = np.ones(2)
    assert plus(a, None) is a
    assert plus(None, a) is a
    assert plus(None, None) is None
    assert np.array_equal(plus(a, a), [2.0, 2.0])


def test_rows_keep_the_last_axis():
    assert rows(np.zeros((2, 3, 4))).shape == (6, 4)


def test_a_row_that_nobody_reads_has_gradient_zero_from_the_first_parameters_on():
    """b = 0 at the start: the gradient is zero, not zero over zero, in each of the backward passes."""
    rows = (
        ("a", Dense(2, 3), ("x",)),
        ("h", Tanh(), ("a",)),
        ("dead end", Dense(3, 4), ("h",)),
        ("deader end", SiLU(), ("dead end",)),
        ("twice", Add(), ("h", "h")),
        ("last", Dense(3, 2), ("twice",)),
    )
    net, rng = Net(rows), np.random.default_rng(0)
    params = net.init(rng, "float64")
    assert not params["dead end.b"].any()
    x, dy, v = rng.standard_normal((5, 2)), rng.standard_normal((5, 2)), rng.standard_normal((1, 5, 2))
    _, cache = net.forward(params, x)
    _, tape = net.jvp(params, cache, v)
    _, jets = net.jet(params, cache, (v,), (v,), (None,))
    for _, grads in (
        net.backward(params, cache, dy),
        net.jvp_backward(params, cache, tape, dy, v)[1:],
        net.jet_backward(params, cache, jets, dy, (v, v, v))[1:],
    ):
        assert set(grads) == set(net.shapes)
        for name, grad in grads.items():
            assert grad.shape == net.shapes[name]
            assert np.isfinite(grad).all()
            assert grad.any() == (not name.startswith("dead")), name
