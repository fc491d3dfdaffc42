"""Every hand-written derivative is the derivative: layers, networks, score models, at random sizes."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refscore import MLP, VE, VP, ScoreModel
from refscore.nn import LAYERS, Dense, SiLU, Softplus, Tanh
from refscore_backends.numpy import NumpyBackend
from tests.oracles.backends import LAW_BACKENDS, NARROW_BACKENDS
from tests.oracles.close import assert_close
from tests.oracles.derivatives import check_all, check_dtype, check_everywhere, check_jvp_backward, subject
from tests.oracles.marks import on_every_backend, on_every_device
from tests.oracles.models import inputs, tangle, without_adjoint
from tests.oracles.strategies import few, seeds

NUMPY = NumpyBackend()
small = st.integers(1, 5)
counts = st.integers(1, 3)
activations = st.sampled_from([SiLU(), Tanh(), Softplus()])


# ------------------------------------------------------------------ layers


drawn = {"seed": seeds, "n": small, "B": st.integers(1, 6), "K": counts, "shared": st.booleans()}


def listed(host, name, seed, n, B, K, shared):
    """A layer of the table at a point."""
    layer = LAYERS[name](n)
    xs = inputs(layer, n, B, seed, shared)
    live = [True, not (without_adjoint(layer) or getattr(layer, "n_cond", 0))]  # a condition has no tangent
    return subject(layer, host, xs, seed, K, live=live[: len(xs)], fixed=without_adjoint(layer))


@pytest.mark.parametrize("name", LAYERS)
@given(**drawn)
def test_every_layer_is_differentiated_rightly(name, seed, n, B, K, shared):
    check_all(listed(NUMPY, name, seed, n, B, K, shared), seed)


@pytest.mark.parametrize("host", [b for b in LAW_BACKENDS if b.name != "numpy"], ids=lambda b: b.name)
@pytest.mark.parametrize("name", LAYERS)
@few
@given(**drawn)
def test_every_layer_is_differentiated_rightly_on_every_other_backend(host, name, seed, n, B, K, shared):
    check_everywhere(listed(host, name, seed, n, B, K, shared), seed)


@pytest.mark.parametrize("name", ["add", "concat", "scale-shift"])
@given(
    seed=seeds, n=small, B=small, K=counts, shared=st.booleans(), live=st.sampled_from([(True, False), (False, True)])
)
def test_a_missing_tangent_is_a_zero_tangent(name, seed, n, B, K, shared, live):
    layer = LAYERS[name](n)
    xs = inputs(layer, n, B, seed, shared)
    s = subject(layer, NUMPY, xs, seed, K, live=live)
    check_all(s, seed)
    zeros = tuple(np.zeros((K, *x.shape)) if t is None else t for x, t in zip(xs, s.tangents, strict=True))
    assert np.array_equal(s.both(xs, s.tangents, s.params)[1], s.both(xs, zeros, s.params)[1])


@given(seed=seeds, n=small, B=counts, middle=st.integers(1, 4), K=counts)
def test_every_axis_but_the_last_is_a_batch_axis(seed, n, B, middle, K):
    for layer in (Dense(n, 3), SiLU()):
        x = np.random.default_rng(seed).standard_normal((B, middle, n))
        check_all(subject(layer, NUMPY, [x], seed, K), seed)


@pytest.mark.parametrize(("layer", "phi"), [
    (SiLU(), lambda x: x / (1 + np.exp(-x))), (Tanh(), np.tanh), (Softplus(), lambda x: np.log(1 + np.exp(x))),
])  # fmt: skip
def test_activations_are_what_they_are_called(layer, phi):
    x = np.linspace(-20, 20, 401)[:, None]
    y, _ = layer.forward({}, x)
    assert_close(y, phi(x), 1e-14 * 20, "rounding at |y| = 20")


@on_every_backend
@pytest.mark.parametrize("layer", [SiLU(), Tanh(), Softplus()])
def test_activations_do_not_overflow(host, layer):
    x = host.asarray(np.array([[-1e4, -750.0, -40.0, 0.0, 40.0, 750.0, 1e4]]))
    y, cache = layer.forward({}, x)
    (dx,), _ = layer.backward({}, cache, 1 + 0 * x)
    one = 1 + 0 * x[None, ...]
    (ddx,), _, _ = layer.jvp_backward({}, cache, layer.jvp({}, cache, one)[1], None, one)
    for a in (y, dx, ddx):
        assert np.isfinite(host.to_numpy(a)).all()
    flat_ends = host.to_numpy(ddx)[0, [0, 1, -2, -1]]
    assert_close(flat_ends, 0, 1e-12)


def test_softplus_keeps_its_tail():
    y, _ = Softplus().forward({}, np.array([[-300.0, -40.0, -1.0]]))
    assert_close(y / np.log1p(np.exp([-300.0, -40.0, -1.0])), 1, 1e-14)


# ------------------------------------------------------------------ networks

widths = st.lists(st.integers(1, 6), min_size=0, max_size=2)


@on_every_backend
@given(
    seed=seeds, n_in=small, hidden=widths, n_out=small, embed=st.sampled_from([0, 2, 4]), phi=activations,
    B=st.integers(1, 5), K=counts, shared=st.booleans(),
)  # fmt: skip
def test_every_mlp_is_differentiated_rightly(host, seed, n_in, hidden, n_out, embed, phi, B, K, shared):
    net = MLP((n_in, *hidden, n_out), embed, phi)
    xs = inputs(net, n_in, B, seed)
    if "level" in net.inputs:
        xs.append(np.random.default_rng(seed).uniform(-4, 3, 1 if shared else B))
    check_everywhere(subject(net, host, xs, seed, K, fixed=[1][: len(xs) - 1]), seed)


@on_every_backend
@given(seed=seeds, n=small, B=st.integers(1, 5), K=counts, shared=st.booleans())
def test_a_graph_with_skips_and_dead_ends_is_differentiated_rightly(host, seed, n, B, K, shared):
    net = tangle(n)
    level = np.random.default_rng([seed, 8]).uniform(-4, 3, 1 if shared else B)
    s = subject(net, host, [*inputs(net, n, B, seed), level], seed, K, fixed=[1])
    check_everywhere(s, seed)
    dy = np.ones((B, n))
    for grads in (s.backward(dy)[1], s.jvp_backward(dy, np.ones((K, B, n)))[2]):
        assert not grads["dead end.W"].any()
        assert grads["a.W"].any()


@given(seed=seeds, B=st.integers(2, 5), K=counts)
def test_a_shared_level_is_the_level_repeated(seed, B, K):
    net = MLP((2, 4, 3, 2), embed=4)
    x, level = np.random.default_rng(seed).standard_normal((B, 2)), np.array([0.7])
    one, each = (subject(net, NUMPY, [x, l], seed, K, fixed=[1]) for l in (level, np.repeat(level, B)))
    dy, dydot = np.ones((B, 2)), np.ones((K, B, 2))
    found, wanted = one.jvp_backward(dy, dydot), each.jvp_backward(dy, dydot)
    for a, b in zip(
        (*one.both(one.xs, one.tangents, one.params), found[0][0], found[1][0], *found[2].values()),
        (*each.both(each.xs, each.tangents, each.params), wanted[0][0], wanted[1][0], *wanted[2].values()),
        strict=True,
    ):
        assert_close(a, b, 1e-13 * (1 + np.max(np.abs(b))), "sums in another order")


# ------------------------------------------------------------------ score models


@on_every_backend
@given(
    seed=seeds, dim=st.integers(1, 3), hidden=widths, embed=st.sampled_from([0, 4]), phi=activations,
    B=st.integers(1, 4), K=counts, shared=st.booleans(), sde=st.sampled_from([VP(), VE(0.01, 10.0)]),
    t=st.floats(0.2, 1.0),
)  # fmt: skip
def test_every_score_model_is_differentiated_rightly(
    host, seed, dim, hidden, embed, phi, B, K, shared, sde,
    t,
):  # fmt: skip
    model = ScoreModel(MLP((dim, *hidden, dim), embed, phi), sde, data_std=1.7)
    rng = np.random.default_rng([seed, 9])
    times = np.full(1, t) if shared else rng.uniform(0.2, 1.0, B)
    xs = [rng.standard_normal((B, dim)), times]
    # The model takes one tangent, that of x, and answers with one adjoint.
    check_everywhere(subject(model, host, xs, seed, K, live=[True], fixed=[1]), seed)


@given(seed=seeds, dim=st.integers(1, 4), B=st.integers(1, 4))
def test_a_stack_of_unit_tangents_gives_the_whole_jacobian(seed, dim, B):
    model = ScoreModel(MLP((dim, 5, dim), embed=4), VP())
    rng = np.random.default_rng(seed)
    x, t = rng.standard_normal((B, dim)), rng.uniform(0.2, 1.0, B)
    params = subject(model, NUMPY, [x, t], seed, live=[True], fixed=[1]).params
    _, cache = model.forward(params, x, t)
    units = np.broadcast_to(np.eye(dim)[:, None, :], (dim, B, dim))
    J, _ = model.jvp(params, cache, units)
    score = lambda x: model.forward(params, x, t)[0]  # noqa: E731
    for i in range(dim):
        exact = score(x + 1e-30j * np.eye(dim)[i]).imag / 1e-30
        assert_close(J[i], exact, 1e-12 * (1 + np.max(np.abs(exact))), "complex step")


# ------------------------------------------------------------------ dtypes


@on_every_device
@pytest.mark.parametrize("name", [*LAYERS, "mlp", "mlp with level", "graph", "score model"])
def test_float32_stays_float32_in_every_pass(host, name):
    rng = np.random.default_rng(0)
    x, level = rng.standard_normal((5, 2)), np.array([0.3, 0.5, 0.7, 0.9, 1.0])
    cases = {
        "mlp": (MLP((2, 4, 2)), [x], None),
        "mlp with level": (MLP((2, 4, 2), embed=4), [x, level], None),
        "graph": (tangle(2), [x, level], None),
        "score model": (ScoreModel(MLP((2, 4, 2), embed=4), VP()), [x, level], [True]),
    }
    if name in LAYERS:
        s = listed(host, name, 0, 2, 5, 2, False)
    else:
        layer, xs, live = cases[name]
        s = subject(layer, host, xs, 0, live=live, fixed=[1][: len(xs) - 1])
    check_dtype(s, "float32")
    if host not in NARROW_BACKENDS:
        check_dtype(s, "float64")


def test_float32_gives_the_numbers_of_float64():
    model = ScoreModel(MLP((2, 16, 16, 2), embed=8), VP())
    theta = model.init(np.random.default_rng(0), "float64")
    x, t = np.random.default_rng(1).standard_normal((500, 2)), np.array([0.4])
    wide = model.bind(theta)(x, t)
    narrow = model.bind(theta.astype("float32"))(x.astype("float32"), t.astype("float32"))
    # a dozen float32 roundings in a row; relative to the rms, so that zeros of the score do not count
    assert_close(narrow, wide, 2e-6 * 3 * np.sqrt(np.mean(wide**2)))


# ------------------------------------------------------------------ the checker sees what it must see


@dataclass(frozen=True)
class NoCurvature(Tanh):
    def curvature(self, cache):
        return 0 * cache


@dataclass(frozen=True)
class WrongSlope(Tanh):
    def slope(self, cache):
        return 1 - cache


@dataclass(frozen=True)
class BiasInTangent(Dense):
    def jvp(self, params, cache, *xdots):
        ydot, tape = super().jvp(params, cache, *xdots)
        return ydot + params["b"], tape


@dataclass(frozen=True)
class NoSecondGradient(Dense):
    def jvp_backward(self, params, cache, tape, dy, dydot):
        dxs, dxdots, _ = super().jvp_backward(params, cache, tape, dy, dydot)
        grads = super().backward(params, cache, dy)[1] if dy is not None else {k: 0 * v for k, v in params.items()}
        return dxs, dxdots, grads


@dataclass(frozen=True)
class BiasGradientTwice(Dense):
    def backward(self, params, cache, dy):
        dxs, grads = super().backward(params, cache, dy)
        return dxs, {**grads, "b": 2 * grads["b"]}


@dataclass(frozen=True)
class ForgetsTheSum(Tanh):
    def jvp_backward(self, params, cache, tape, dy, dydot):
        u, xdot = tape
        dxs, _, grads = super().jvp_backward(params, cache, (u, xdot), dy, dydot)
        (dx,) = dxs
        extra = self.curvature(cache) * np.sum((xdot * dydot)[1:], axis=0)
        return (dx - extra,), (u * dydot,), grads


@pytest.mark.parametrize(
    "layer",
    [
        NoCurvature(), WrongSlope(), ForgetsTheSum(), BiasInTangent(3, 2), NoSecondGradient(3, 2),
        BiasGradientTwice(3, 2),
    ],
    ids=lambda layer: type(layer).__name__,
)  # fmt: skip
def test_the_checker_refuses_wrong_derivatives(layer):
    s = subject(layer, NUMPY, [np.random.default_rng(0).standard_normal((4, 3))], 0, K=2)
    with pytest.raises(AssertionError, match=r"jvp|backward"):
        check_all(s, 0)


def test_second_order_by_differences_of_the_jacobian_product():
    """Beside the complex step: nothing but real numbers and subtraction."""
    net = MLP((2, 6, 6, 2), embed=4)
    rng = np.random.default_rng(3)
    s = subject(net, NUMPY, [rng.standard_normal((8, 2)), rng.uniform(-3, 2, 8)], 3, K=3, fixed=[1])
    assert check_jvp_backward(s, 3, "Richardson") <= 1e-8
