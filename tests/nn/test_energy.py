"""Chapter 4: an energy, its score and every pass of them, third order too."""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refscore import MLP, VE, VP, Denoising, EnergyModel, Explicit, FiniteDifference, Implicit, ScoreModel, Sliced
from refscore.arrays import views
from refscore.matching.times import FixedTime
from refscore.nn import LAYERS, Net, SiLU, Softplus, Tanh
from refscore.nn.dense import Dense
from refscore_backends.numpy import NumpyBackend
from refscore_backends.strict import StrictBackend
from tests.oracles.backends import NARROW_BACKENDS
from tests.oracles.close import assert_close
from tests.oracles.derivatives import (
    STEP,
    check_all,
    check_dtype,
    check_everywhere,
    check_jet,
    check_jvp_backward,
    subject,
)
from tests.oracles.marks import on_every_backend, on_every_device
from tests.oracles.models import Counted, energy, inputs, random_theta, tangle, without_adjoint
from tests.oracles.strategies import seeds

NUMPY = NumpyBackend()


@on_every_backend
@given(
    seed=seeds, dim=st.integers(1, 3), hidden=st.lists(st.integers(1, 5), min_size=0, max_size=2),
    embed=st.sampled_from([0, 4]), phi=st.sampled_from([SiLU(), Tanh(), Softplus()]), B=st.integers(1, 4),
    K=st.integers(1, 3), shared=st.booleans(), sde=st.sampled_from([VP(), VE(0.01, 10.0)]), t=st.floats(0.2, 1.0),
    predict=st.sampled_from(["noise", "score"]),
)  # fmt: skip
def test_every_energy_is_differentiated_rightly_to_third_order(
    host, seed, dim, hidden, embed, phi, B, K, shared, sde,
    t, predict,
):  # fmt: skip
    """Eqs. (14.25), (14.26): every pass against the complex step."""
    model = energy(dim, hidden, embed, phi, sde, predict)
    rng = np.random.default_rng([seed, 9])
    times = np.full(1, t) if shared else rng.uniform(0.2, 1.0, B)
    check_everywhere(
        subject(model, host, [rng.standard_normal((B, dim)), times], seed, K, live=[True], fixed=[1]), seed
    )


@given(seed=seeds, dim=st.integers(1, 4), B=st.integers(1, 4), predict=st.sampled_from(["noise", "score"]))
def test_the_score_is_minus_the_gradient_of_the_energy(seed, dim, B, predict):
    """Eq. (4.2)."""
    model = energy(dim, [5, 4], 4, SiLU(), VP(), predict)
    rng = np.random.default_rng(seed)
    theta = model.init(rng, "float64") + 0.3 * rng.standard_normal(model.init(rng, "float64").shape)
    x, t = rng.standard_normal((B, dim)), rng.uniform(0.2, 1.0, B)
    s = model.bind(theta)(x, t)
    for i in range(dim):
        dE = model.bind_energy(theta)(x + 1j * STEP * np.eye(dim)[i], t).imag / STEP
        assert_close(s[:, i] + dE, 0, 1e-12 * (1 + np.max(np.abs(s))))


@given(seed=seeds, B=st.integers(1, 4))
def test_the_jacobian_of_an_energys_score_is_symmetric(seed, B):
    """Eq. (4.6): what sets it apart from a free vector field. It is a gradient."""
    model = energy(3, [5], 0, Tanh(), VE(), "score")
    rng = np.random.default_rng(seed)
    params = subject(model, NUMPY, [rng.standard_normal((B, 3)), np.zeros(1)], seed, live=[True], fixed=[1]).params
    _, cache = model.forward(params, rng.standard_normal((B, 3)), np.zeros(1))
    J, _ = model.jvp(params, cache, np.broadcast_to(np.eye(3)[:, None, :], (3, B, 3)))
    J = np.moveaxis(J, 1, 0)
    assert_close(J, np.swapaxes(J, 1, 2), 1e-13 * np.max(np.abs(J)))


def test_any_graph_can_be_an_energy():
    """Skips, a value read thrice, dead ends, a branch that only knows the level."""
    rows = tangle(2).rows
    net = Net((*rows, ("one", Dense(2, 1), ("last",))))
    model = EnergyModel(net, VP(), data_std=1.3)
    rng = np.random.default_rng(0)
    check_all(
        subject(model, NUMPY, [rng.standard_normal((3, 2)), np.array([0.3, 0.6, 0.9])], 0, live=[True], fixed=[1]), 0
    )


def test_third_order_by_differences():
    """Beside the complex step: nothing but real numbers and subtraction."""
    model = energy(2, [6, 6], 4, SiLU(), VP(), "noise")
    rng = np.random.default_rng(3)
    s = subject(
        model, NUMPY, [rng.standard_normal((8, 2)), rng.uniform(0.2, 1, 8)], 3, K=2, live=[True], fixed=[1]
    )  # fmt: skip
    assert check_jvp_backward(s, 3, "Richardson") <= 1e-8


@dataclass(frozen=True)
class FlatThird(Tanh):
    def third(self, cache):
        return 0 * cache


def test_the_checker_sees_a_wrong_third_derivative():
    model = energy(2, [4], 0, FlatThird(), VP(), "score")
    rng = np.random.default_rng(0)
    s = subject(model, NUMPY, [rng.standard_normal((3, 2)), np.full(1, 0.5)], 0, live=[True], fixed=[1])
    with pytest.raises(AssertionError, match="jvp_backward is not the transpose"):
        check_all(s, 0)


class NoJets:
    """A tanh that knows four passes only."""

    shapes: dict[str, tuple[int, ...]] = {}  # noqa: RUF012
    init, forward, backward = Tanh.init, Tanh().forward, Tanh().backward
    jvp, jvp_backward = Tanh().jvp, Tanh().jvp_backward


def test_bodies_without_jets_are_refused_by_name_where_third_derivatives_are_needed():
    net = Net((("a", Dense(2, 4), ("x",)), ("bend", NoJets(), ("a",)), ("b", Dense(4, 1), ("bend",))))
    model = EnergyModel(net, VP())
    rng = np.random.default_rng(0)
    theta = 0.1 * rng.standard_normal(17)
    x0 = rng.standard_normal((5, 2))
    fixed = FixedTime(0.3)
    for objective in (
        Denoising(times=fixed), FiniteDifference(times=fixed), Explicit(lambda x, t: -x, times=fixed)
    ):  # fmt: skip
        assert np.isfinite(objective(model, theta, x0, rng)[0])
    for objective in (Implicit(times=fixed), Sliced(times=fixed)):
        with pytest.raises(TypeError, match=r"row 'bend': NoJets has no passes jet and jet_backward"):
            objective(model, theta, x0, rng)


def test_the_body_of_an_energy_answers_with_one_number():
    model = EnergyModel(MLP((2, 4, 2)), VP())
    theta = np.zeros(2 * 4 + 4 + 4 * 2 + 2)
    with pytest.raises(ValueError, match=r"one number a sample, \(B, 1\); got \(3, 2\)"):
        model.bind(theta)(np.ones((3, 2)), 0.5)
    with pytest.raises(ValueError, match=r"predict must be one of .*noise.*; got 'x0'"):
        EnergyModel(MLP((2, 1)), VP(), predict="x0")


# ------------------------------------------------------------------ the energy

PHIS = {"silu": SiLU(), "tanh": Tanh(), "softplus": Softplus()}
LIPSCHITZ = {"silu": 1.0998393, "tanh": 1.0, "softplus": 1.0}  # sup |φ'|; SiLU's is at x = 2.3994, where φ'' = 0
phis = pytest.mark.parametrize("name", PHIS)
predictions = st.sampled_from(["noise", "score"])


@given(seed=seeds, dim=st.integers(1, 4), B=st.integers(1, 4), embed=st.sampled_from([0, 4]), predict=predictions)
def test_the_energy_is_a_gaussian_less_the_scaled_network(seed, dim, B, embed, predict):
    """Eq. (4.1), written out."""
    sde = VP()
    model = energy(dim, [5], embed, SiLU(), sde, predict)
    theta, rng = random_theta(model, seed), np.random.default_rng(seed)
    x, t = rng.standard_normal((B, dim)), rng.uniform(0.2, 1.0, B)
    alpha, sigma = sde.alpha(t), sde.sigma(t)
    c = 1 / np.sqrt(alpha**2 * 1.7**2 + sigma**2)
    kappa = -1 / sigma if predict == "noise" else c
    level = [np.log(sigma / alpha)] if embed else []
    F = model.body.forward(views(theta, model.shapes), c[:, None] * x, *level)[0][:, 0]
    wanted = 0.5 * c**2 * np.sum(x**2, axis=1) - kappa / c * F
    assert_close(model.bind_energy(theta)(x, t), wanted, 1e-14 * (1 + np.max(np.abs(wanted))) * 10)


@phis
@given(seed=seeds, dim=st.integers(1, 3), predict=predictions)
def test_the_energy_of_a_body_of_bounded_slope_grows_as_a_square(name, seed, dim, predict):
    """Eq. (4.3): E >= ½ c² r² - |κ| (L r + |F(0)|/c), with L the product of the slopes; so e^-E can be normalised."""
    model = energy(dim, [6, 5], 0, PHIS[name], VE(0.01, 10.0), predict)
    theta, rng = random_theta(model, seed), np.random.default_rng(seed)
    params, t = views(theta, model.shapes), 0.7
    L = LIPSCHITZ[name] ** 2 * math.prod(np.linalg.norm(params[f"{k}.W"], 2) for k in ("dense1", "dense2", "head"))
    sigma = model.sde.sigma(t)
    c = 1 / math.sqrt(1.7**2 + sigma**2)
    kappa = 1 / sigma if predict == "noise" else c
    x = rng.standard_normal((200, dim)) * np.exp(rng.uniform(-3, 6, (200, 1)))
    r = np.linalg.norm(x, axis=1)
    F0 = abs(model.body.forward(params, np.zeros((1, dim)))[0][0, 0])
    bound = 0.5 * c**2 * r**2 - kappa * (L * r + F0 / c)
    E = model.bind_energy(theta)(x, t)
    assert np.all(E - bound >= -1e-12 * (1 + np.abs(bound)))
    slope = np.linalg.norm(model.bind(theta)(x, t) + c**2 * x, axis=1)  # κ ∇F
    assert np.all(slope <= kappa * L * (1 + 1e-6))  # LIPSCHITZ is rounded


@phis
def test_activations_have_the_slopes_that_the_bound_takes(name):
    x = np.linspace(-30, 30, 60_001)[:, None]
    slope = PHIS[name].slope(PHIS[name].forward({}, x)[1])
    assert abs(np.max(np.abs(slope)) - LIPSCHITZ[name]) <= 1e-7  # grid of 1e-3: ½ φ''' (1e-3)² at the top
    if name == "silu":
        assert abs(x[np.argmax(slope), 0] - 2.3994) <= 1e-3  # exercise 11 of chapter 14


def test_a_body_that_ignores_x_leaves_the_gaussian():
    model = EnergyModel(Net((*tangle(2).rows[:1], ("one", Dense(4, 1), ("embed",)))), VP(), data_std=1.3)
    theta, t = np.ones(5), np.full(3, 0.4)
    x = np.random.default_rng(0).standard_normal((3, 2))
    c2 = 1 / (1.3**2 * VP().alpha(0.4) ** 2 + VP().sigma(0.4) ** 2)
    assert_close(model.bind(theta)(x, t) + c2 * x, 0, 1e-14)
    s = subject(model, NUMPY, [x, t], 0, live=[True], fixed=[1])
    params = s.params
    _, kept = model.forward(params, x, t)
    sdot, tape = model.jvp(params, kept, s.tangents[0])
    dxs, dxdots, grads = model.jvp_backward(params, kept, tape, x, sdot)
    assert_close(sdot + c2 * s.tangents[0], 0, 1e-14)
    assert_close(dxs[0] + c2 * x, 0, 1e-14)
    assert_close(dxdots[0] + c2 * sdot, 0, 1e-14)
    assert not any(g.any() for g in grads.values())


@given(seed=seeds, B=st.integers(2, 6), predict=predictions)
def test_samples_do_not_see_each_other(seed, B, predict):
    """Alone, in a batch, in another order: the same energy, score and Hessian products."""
    model = energy(2, [8, 8], 4, SiLU(), VP(), predict)
    theta, rng = random_theta(model, seed), np.random.default_rng(seed)
    x, t, order = rng.standard_normal((B, 2)), rng.uniform(0.2, 1.0, B), rng.permutation(B)
    for f in (model.bind(theta), model.bind_energy(theta)):
        whole = f(x, t)
        alone = np.concatenate([f(x[i : i + 1], t[i : i + 1]) for i in range(B)])
        # a matrix product may add in another order
        assert_close(whole, alone, 1e-13 * (1 + np.max(np.abs(whole))))
        assert_close(whole[order], f(x[order], t[order]), 1e-13 * (1 + np.max(np.abs(whole))))
        shared = f(x, 0.3)
        assert_close(shared, f(x, np.full(B, 0.3)), 1e-13 * (1 + np.max(np.abs(shared))))


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-5)])
@pytest.mark.parametrize("predict", ["noise", "score"])
def test_every_backend_has_the_same_energy_and_score(dtype, tolerance, predict):
    model = energy(2, [8, 8], 4, SiLU(), VP(), predict)
    rng = np.random.default_rng(0)
    theta, x, t = random_theta(model, 0), rng.standard_normal((6, 2)), rng.uniform(0.2, 1.0, 6)
    for of in (model.bind, model.bind_energy):
        found = []
        for host in (NUMPY, StrictBackend()):
            y = of(host.asarray(theta, dtype=dtype))(host.asarray(x, dtype=dtype), host.asarray(t, dtype=dtype))
            assert str(y.dtype).endswith(dtype)
            found.append(host.to_numpy(y))
        assert_close(found[0], found[1], tolerance * np.max(np.abs(found[0])))


@on_every_device
@pytest.mark.parametrize("predict", ["noise", "score"])
def test_float32_stays_float32_in_every_pass_of_an_energy(host, predict):
    model = energy(2, [4, 3], 4, SiLU(), VP(), predict)
    xs = [np.random.default_rng(0).standard_normal((5, 2)), np.array([0.3, 0.5, 0.7, 0.9, 1.0])]
    s = subject(model, host, xs, 0, live=[True], fixed=[1])
    for dtype in ["float32"] if host in NARROW_BACKENDS else ["float32", "float64"]:
        check_dtype(s, dtype)
        E = model.bind_energy(host.asarray(random_theta(model, 0), dtype=dtype))(
            *(host.asarray(x, dtype=dtype) for x in xs)
        )
        assert str(E.dtype).endswith(dtype)
        assert E.shape == (5,)


@on_every_device
@pytest.mark.parametrize("name", [*(name for name, make in LAYERS.items() if hasattr(make(2), "jet")), "graph"])
def test_float32_stays_float32_in_every_jet(host, name):
    if name == "graph":
        layer = tangle(2)
        xs, fixed = [*inputs(layer, 2, 5, 0), np.linspace(-2, 1, 5)], [1]
    else:
        layer = LAYERS[name](2)
        xs = inputs(layer, 2, 5, 0)
        fixed = [1] if getattr(layer, "n_cond", 0) else without_adjoint(layer)
    s, move = subject(layer, host, xs, 0, fixed=fixed), host.asarray
    for dtype in ["float32"] if host in NARROW_BACKENDS else ["float32", "float64"]:
        params = {k: move(v, dtype=dtype) for k, v in s.params.items()}
        dots = [None if x is None else move(x, dtype=dtype) for x in s.tangents]
        y, kept = layer.forward(params, *(move(x, dtype=dtype) for x in xs))
        jet, tape = layer.jet(params, kept, dots, dots, dots)
        dxs, below, grads = layer.jet_backward(params, kept, tape, y, jet)
        assert [a.shape for a in jet] == [(2, *y.shape)] * 3
        assert {k: tuple(v.shape) for k, v in grads.items()} == dict(layer.shapes)
        made = [*jet, *dxs, *(d for each in below for d in each), *grads.values()]
        assert all(type(a) is type(y) and str(a.dtype).endswith(dtype) for a in made if a is not None)


# ------------------------------------------------------------------ jets


@phis
def test_each_derivative_of_an_activation_is_that_of_the_one_before(name):
    """Eq. (14.29): φ', φ'', φ''' each by complex step of the last."""
    phi, x = PHIS[name], np.linspace(-20, 20, 4001)[:, None]
    h = 1e-30
    chain = [lambda x: phi.forward({}, x)[0], *(
        (lambda x, d=d: d(phi.forward({}, x)[1])) for d in (phi.slope, phi.curvature, phi.third)
    )]  # fmt: skip
    for lower, upper in pairwise(chain):
        found, wanted = upper(x), lower(x + 1j * h).imag / h
        assert_close(found, wanted, 1e-14 * 20, "rounding; SiLU multiplies by x up to 20")


@on_every_backend
@phis
def test_third_derivatives_do_not_overflow(host, name):
    x = host.asarray(np.array([[-1e4, -750.0, 0.0, 750.0, 1e4]]))
    third = host.to_numpy(PHIS[name].third(PHIS[name].forward({}, x)[1]))
    assert np.isfinite(third).all()
    assert np.max(np.abs(third[0, [0, 1, 3, 4]])) == 0.0


@phis
@given(seed=seeds, n=st.integers(1, 4), K=st.integers(1, 3))
def test_the_six_passes_of_an_activation(name, seed, n, K):
    """Eq. (14.28): jet and jet_backward, against the complex step and against the formula written out."""
    phi, rng = PHIS[name], np.random.default_rng(seed)
    x = 2 * rng.standard_normal((3, n))
    check_jet(subject(phi, NUMPY, [x], seed, K), seed)
    u, v, w, dyu, dyv, dyw = rng.standard_normal((6, K, 3, n))
    dy = rng.standard_normal((3, n))
    _, kept = phi.forward({}, x)
    f1, f2, f3 = phi.slope(kept), phi.curvature(kept), phi.third(kept)
    jet, tape = phi.jet({}, kept, (u,), (v,), (w,))
    (dx,), ((du,), (dv,), (dw,)), _ = phi.jet_backward({}, kept, tape, dy, (dyu, dyv, dyw))
    down = f1 * dy + np.sum(f2 * (u * dyu + v * dyv + w * dyw) + f3 * u * v * dyw, axis=0)
    for found, wanted in (
        (jet[0], f1 * u), (jet[1], f1 * v), (jet[2], f2 * u * v + f1 * w), (dx, down),
        (du, f1 * dyu + f2 * v * dyw), (dv, f1 * dyv + f2 * u * dyw), (dw, f1 * dyw),
    ):  # fmt: skip
        assert_close(found, wanted, 1e-14 * (1 + np.max(np.abs(wanted))))


def test_an_input_without_tangents_gets_no_adjoints_of_them():
    x = np.ones((3, 2))
    layer, dots = LAYERS["add"](2), np.ones((2, 3, 2))
    y, kept = layer.forward({}, x, x)
    jet, tape = layer.jet({}, kept, (dots, None), (dots, None), (None, None))
    assert jet[2] is None
    _, below, _ = layer.jet_backward({}, kept, tape, y, (dots, dots, dots))
    assert [each[1] for each in below] == [None, None, None]
    assert all(np.array_equal(each[0], dots) for each in below)


@given(seed=seeds, n=st.integers(1, 4), embed=st.sampled_from([0, 4]))
def test_a_jet_is_the_second_derivative_along_a_bent_path(seed, n, embed):
    """Eq. (14.27): along x + h u + k v + h k w, the jet is ∂/∂h, ∂/∂k and ∂²/∂h∂k at 0."""
    net, rng = MLP((n, 5, 4, 2), embed), np.random.default_rng(seed)
    params = {name: 0.6 * rng.standard_normal(shape) for name, shape in net.shapes.items()}
    x, u, v, w = rng.standard_normal((4, 3, n))
    level, none = ([rng.uniform(-3, 2, 3)], (None,)) if embed else ([], ())

    def y(h, k):
        return net.forward(params, x + h * u + k * v + h * k * w, *level)[0]

    _, kept = net.forward(params, x, *level)
    (yu, yv, yw), _ = net.jet(params, kept, (u[None], *none), (v[None], *none), (w[None], *none))
    h = 2e-4  # Richardson in h: truncation h⁴, rounding u/h; complex step in k
    near, far = (y(a, 1j * STEP).imag / STEP - y(-a, 1j * STEP).imag / STEP for a in (h, 2 * h))
    assert_close(yu[0], y(1j * STEP, 0.0).imag / STEP, 1e-12 * (1 + np.max(np.abs(yu))))
    assert_close(yv[0], y(0.0, 1j * STEP).imag / STEP, 1e-12 * (1 + np.max(np.abs(yv))))
    assert_close(yw[0], (8 * near - far) / (12 * h), 1e-9 * (1 + np.max(np.abs(yw))))


@given(seed=seeds, dim=st.integers(1, 3), predict=predictions)
def test_the_gradient_of_the_score_along_a_is_that_of_a_directional_derivative(seed, dim, predict):
    """Eqs. (14.25), (14.26): ⟨a, s⟩ = -∂_a E and ⟨b, ∇s a⟩ = -∂_a ∂_b E, in x and in θ."""
    model = energy(dim, [5, 4], 4, SiLU(), VP(), predict)
    theta, rng = random_theta(model, seed), np.random.default_rng(seed)
    x, a, b = rng.standard_normal((3, 3, dim))
    t, v = np.full(1, 0.6), rng.standard_normal(theta.shape)

    def along(theta, x):  # -∂_a E, of nothing but energies
        near, far = (E(theta, x + h * a) - E(theta, x - h * a) for h in (H, 2 * H))
        return -(8 * near - far) / (12 * H)

    def E(theta, x):
        return model.bind_energy(theta)(x, t)

    H = 1e-3  # Richardson: h⁴ φ⁗ of truncation, u E/h of rounding
    params = views(theta, model.shapes)
    s, kept = model.forward(params, x, t)
    size = 1 + np.max(np.abs(s)) + np.max(np.abs(E(theta, x)))
    assert_close(np.sum(a * s, axis=1), along(theta, x), 1e-9 * size)
    _, grads = model.backward(params, kept, a)
    found = sum(np.sum(grads[name] * d) for name, d in views(v, model.shapes).items())
    wanted = np.sum(along(theta + 1j * STEP * v, x).imag) / STEP
    assert abs(found - wanted) <= 1e-9 * size * (1 + abs(wanted))
    sdot, _ = model.jvp(params, kept, a[None])
    wanted = along(theta, x + 1j * STEP * b).imag / STEP
    assert_close(np.sum(b * sdot[0], axis=1), wanted, 1e-9 * size * (1 + np.max(np.abs(wanted))))


# ------------------------------------------------------------------ what it costs


@pytest.mark.parametrize("K", [1, 2, 3])
@pytest.mark.parametrize(("kind", "costs"), [
    (ScoreModel, lambda K: (1, 2, K, 2 + 2 * K)), (EnergyModel, lambda K: (3, 5, 5 * K, 7 + 9 * K)),
])  # fmt: skip
def test_passes_cost_what_the_table_says(kind, costs, K):
    """In products with one hidden layer of a forward pass; input and output layers are negligible at this width."""
    width, B, t, rng = 400, 3, np.full(1, 0.5), np.random.default_rng(0)
    model = kind(MLP((2, width, width, 1 if kind is EnergyModel else 2)), VE(), predict="score")
    params = views(model.init(rng, "float64").view(Counted), model.shapes)
    x, xdot = (rng.standard_normal(shape).view(Counted) for shape in ((B, 2), (K, B, 2)))
    counts = []

    def counted(f, *args):
        Counted.made = 0
        result = f(params, *args)
        counts.append(Counted.made / (B * width**2))
        return result

    s, kept = counted(model.forward, x, t)
    counted(model.backward, kept, s)
    sdot, tape = counted(model.jvp, kept, xdot)
    counted(model.jvp_backward, kept, tape, s, sdot)
    assert tuple(map(round, counts)) == costs(K)
    assert_close(np.array(counts) / costs(K), 1, 0.02, "2 · 400 + 400 beside 400²")


# ------------------------------------------------------------------ what follows from having one


def test_energy_differences_are_line_integrals_of_the_score():
    """Eq. (4.6): E(b) - E(a) = -∫ s·dx along any path; by Gauss-Legendre along two."""
    model = energy(2, [8, 8], 0, SiLU(), VE(0.01, 10.0), "score")
    theta = random_theta(model, 0)
    E, s = model.bind_energy(theta), model.bind(theta)
    a, b, detour = np.array([-2.0, 0.5]), np.array([1.5, 1.5]), np.array([0.0, -3.0])
    nodes, weights = np.polynomial.legendre.leggauss(40)
    u, weights = 0.5 * (1 + nodes)[:, None], 0.5 * weights[:, None]
    straight = np.sum(weights * s(a + u * (b - a), 0.5) * (b - a))
    curved = np.sum(weights * s(a + u * (b - a) + u * (1 - u) * detour, 0.5) * (b - a + (1 - 2 * u) * detour))
    difference = np.subtract(*E(np.stack([b, a]), 0.5))
    assert abs(difference + straight) <= 1e-12 * 10
    assert abs(difference + curved) <= 1e-12 * 10


def test_the_bound_on_every_pass_holds_for_float32():
    """Score and energy in float32 are those of float64 to a dozen roundings."""
    model = energy(2, [16, 16], 8, SiLU(), VP(), "noise")
    theta = random_theta(model, 0, spread=0.0)
    x, t = np.random.default_rng(1).standard_normal((500, 2)), np.array([0.4])
    for of in (model.bind, model.bind_energy):
        wide = of(theta)(x, t)
        narrow = of(theta.astype("float32"))(x.astype("float32"), t.astype("float32"))
        assert_close(narrow, wide, 2e-6 * 3 * math.sqrt(np.mean(wide**2)))
