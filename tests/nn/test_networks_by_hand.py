"""Chapter 14: every formula of it, written out a second time, and its numbers."""

import itertools
import math
import re
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2
from scipy.stats import t as student

from refscore import MLP, VP, Denoising, ScoreModel, UNet
from refscore.arrays import views
from refscore.nn import (
    ELU,
    GELU,
    Add,
    Attention,
    AvgPool,
    Conv,
    Dense,
    Dropout,
    GroupNorm,
    Inside,
    Labels,
    LayerNorm,
    Net,
    Outside,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
    Upsample,
    conv,
    winograd,
)
from refscore.nn.layer import sum_to
from refscore.nn.shifts import convolve, image_gradient, kernel_gradient
from tests.oracles.book import ROOT
from tests.oracles.close import assert_close
from tests.oracles.derivatives import STEP
from tests.oracles.models import Counted
from tests.oracles.statistics import assert_from, assert_mean
from tests.oracles.strategies import seeds

CHAPTER = (ROOT / "docs" / "chapters" / "14-networks-by-hand.md").read_text(encoding="utf-8")
GAUSS = np.polynomial.hermite_e.hermegauss(200)
CURVED = {"silu": SiLU(), "gelu": GELU(), "tanh": Tanh(), "softplus": Softplus(), "elu": ELU(), "softmax": Softmax(),
          "layer-norm": LayerNorm(6), "group-norm": GroupNorm(6, 3), "attention": Attention(2)}  # fmt: skip


def at_random(layer, shape, seed, K=2):
    """The layer at random parameters, with x, tangents and their adjoints: all of one shape, but for attention."""
    rng = np.random.default_rng(seed)
    params = {name: rng.standard_normal(size) for name, size in layer.shapes.items()}
    x, xdot = rng.standard_normal(shape), rng.standard_normal((K, *shape))
    y, cache = layer.forward(params, x)
    return params, x, xdot, rng.standard_normal((K, *y.shape)), cache


def shape_of(layer):
    return (2, 2, 3, 12) if isinstance(layer, Attention) else (3, 6)


# ------------------------------------------------------------------ what is quoted


def quotations():
    """Blocks that open with the name of a file: the file, and the lines within functions."""
    for block in re.findall(r"```python\n(# refscore/.*?)```", CHAPTER, flags=re.S):
        head, *lines = block.splitlines()
        yield head.removeprefix("# "), [line for line in lines if line.startswith(("    ", "def "))]


def test_what_the_chapter_quotes_stands_in_the_code():
    found = list(quotations())
    assert len(found) >= 6
    for name, lines in found:
        text = (ROOT / name).read_text(encoding="utf-8")
        known = {re.sub(r"^(\w+): \w+ = ", r"\1 = ", line.strip()) for line in text.splitlines()}  # without annotations
        for line in lines:
            if line.startswith("def "):
                assert f"{line.split('(')[0]}(" in text, (name, line)
            else:
                assert line.strip() in known, (name, line)


# ------------------------------------------------------------------ 14.1: derivatives


@given(seed=seeds, widths=st.lists(st.integers(1, 4), min_size=2, max_size=4))
def test_the_jacobian_of_a_chain_is_the_product_of_the_layers(seed, widths):
    """Eqs. (14.1), (14.2): by unit tangents, by unit adjoints, and by the product of the matrices of each layer."""
    net, rng = MLP(widths, activation=Tanh()), np.random.default_rng(seed)
    params = {name: rng.standard_normal(size) for name, size in net.shapes.items()}
    x = rng.standard_normal((1, widths[0]))
    y, cache = net.forward(params, x)
    J = net.jvp(params, cache, np.eye(widths[0])[:, None, :])[0][:, 0, :].T
    by_adjoints = np.concatenate([net.backward(params, cache, dy[None])[0][0] for dy in np.eye(widths[-1])])
    product = np.eye(widths[0])
    for (name, layer, _), kept in zip(net.rows, cache, strict=True):
        product = params[f"{name}.W"].T @ product if isinstance(layer, Dense) else (1 - kept[0] ** 2)[:, None] * product
    scale = 1e-13 * (1 + np.max(np.abs(J)))
    assert_close(J, product, scale)
    assert_close(by_adjoints, product, scale)
    dy, xdot = rng.standard_normal(y.shape), rng.standard_normal((1, *x.shape))
    left, right = np.sum(dy * net.jvp(params, cache, xdot)[0]), np.sum(net.backward(params, cache, dy)[0][0] * xdot)
    assert_close(left, right, scale * widths[0] * widths[-1] * 20)


@pytest.mark.parametrize("name", CURVED)
@given(seed=seeds)
def test_the_fourth_pass_is_the_backward_pass_and_its_own_derivative_along_the_tangents(name, seed):
    """Eq. (14.3): Σ_k H_k ẋ_k is what the adjoint of x, at the adjoint dẏ_k, gains along ẋ_k; dẋ_k = Jᵀ dẏ_k."""
    layer = CURVED[name]
    params, x, xdot, dydot, cache = at_random(layer, shape_of(layer), seed)
    _, tape = layer.jvp(params, cache, xdot)
    (dx,), (dxdot,), _ = layer.jvp_backward(params, cache, tape, None, dydot)
    gains, still = 0.0, []
    for v, q in zip(xdot, dydot, strict=True):
        _, moved = layer.forward(params, x + 1j * STEP * v)
        gains = gains + layer.backward(params, moved, q + 0j)[0][0].imag / STEP
        still.append(layer.backward(params, cache, q)[0][0])
    assert_close(dx, gains, 1e-11 * (1 + np.max(np.abs(gains))))
    assert_close(dxdot, np.stack(still), 1e-12 * (1 + np.max(np.abs(dxdot))))


def test_the_curvature_is_symmetric():
    """Exercise 6: <ξ, H η> = <η, H ξ>, where H is what dx gains by one tangent; so (14.14) and (14.19) are."""
    for layer in CURVED.values():
        params, _, both, q, cache = at_random(layer, shape_of(layer), 3)
        Hs = []
        for v in both:
            _, tape = layer.jvp(params, cache, v[None])
            Hs.append(layer.jvp_backward(params, cache, tape, None, q[:1])[0][0])
        assert_close(np.sum(both[0] * Hs[1]), np.sum(both[1] * Hs[0]), 1e-12 * np.sum(np.abs(both[0] * Hs[1])))


def test_a_forgotten_term_of_a_norm_leaves_the_curvature_symmetric():
    """Exercise 6: H = n (Jq)ᵀ + Jq nᵀ + mean(n q) J, short of factors; exchanging a and q needs the last term."""
    rng = np.random.default_rng(0)
    x, a, b, q = rng.standard_normal((4, 1, 8))
    layer, ones = LayerNorm(8), {"g": np.ones(8), "b": np.zeros(8)}
    n, cache = layer.forward(ones, x)
    J = lambda a: layer.backward(ones, cache, a)[0][0]  # noqa: E731
    short = lambda a, q: n * np.mean(q * J(a)) + J(q) * np.mean(n * a)  # noqa: E731
    whole = lambda a, q: short(a, q) + J(a) * np.mean(n * q)  # noqa: E731
    for bent in (short, whole):
        assert abs(np.sum(b * bent(a, q)) - np.sum(a * bent(b, q))) < 1e-13, "H is symmetric"
    assert_close(whole(a, q), whole(q, a), 1e-13)
    assert np.max(np.abs(short(a, q) - short(q, a))) > 0.01


def test_norm_and_softmax_are_gradients():
    """n = N ∇r and w = ∇ log Σ eˣ: so J is symmetric, and its derivative in all three directions."""
    x, J = np.random.default_rng(0).standard_normal((1, 6)), range(6)
    units = np.eye(6)[:, None, :]
    root = lambda x: np.sqrt(np.mean((x - np.mean(x)) ** 2) + 1e-5)  # noqa: E731
    n = LayerNorm(6).forward({"g": np.ones(6), "b": np.zeros(6)}, x)[0]
    assert_close(n[0], [6 * root(x + 1j * STEP * units[i]).imag / STEP for i in J], 1e-14)
    w = Softmax().forward({}, x)[0]
    assert_close(w[0], [np.log(np.sum(np.exp(x + 1j * STEP * units[i]))).imag / STEP for i in J], 1e-15)


def test_what_difference_quotients_and_complex_steps_leave_out():
    """Eqs. (14.4), (14.5): + and - h²/6 φ''', and then h⁴."""
    phi, x = SiLU(), np.linspace(-3, 3, 31)[:, None]
    _, cache = phi.forward({}, x)
    f = lambda x: phi.forward({}, x)[0]  # noqa: E731
    for h in (0.02, 0.01):
        central = (f(x + h) - f(x - h)) / (2 * h) - phi.slope(cache)
        turned_up = f(x + 1j * h).imag / h - phi.slope(cache)
        assert_close(central, h**2 / 6 * phi.third(cache), h**4 * 0.05)
        assert_close(turned_up, -(h**2) / 6 * phi.third(cache), h**4 * 0.05)
    assert_close(f(x + 1e-30j).imag / 1e-30, phi.slope(cache), 3e-16, "at any small step")
    best = min(np.max(np.abs((f(x + h) - f(x - h)) / (2 * h) - phi.slope(cache))) for h in np.geomspace(1e-8, 1e-2, 40))
    assert 1e-12 < best < 3e-10


def test_exercise_3_the_error_is_the_square_of_the_step():
    phi, x = Tanh(), np.linspace(-2, 2, 21)[:, None]
    y, cache = phi.forward({}, x)
    slope, third = phi.slope(cache), (1 - y**2) * (6 * y**2 - 2)
    for h in (1e-2, 1e-6, 1e-200):
        error = phi.forward({}, x + 1j * h)[0].imag / h - slope
        assert_close(error, -(h**2) / 6 * third, 1e-15 + h**4)


def test_the_best_steps_are_those_of_the_figure():
    """Errors of <a, F' v> and <a, F''[v, v]> of an MLP, rms over 200 points, to a factor of 3: what the text says."""
    net, rng = MLP((2, 64, 64, 2)), np.random.default_rng(0)
    params = net.init(rng, "float64")
    x, v, a = rng.standard_normal((3, 200, 2))
    f = lambda x, p=params: np.sum(a.astype(x.real.dtype) * net.forward(p, x)[0], axis=1)  # noqa: E731
    _, cache = net.forward(params, x)
    ydot, tape = net.jvp(params, cache, v[None])
    first, second = (
        np.sum(a * ydot[0], axis=1),
        np.sum(net.jvp_backward(params, cache, tape, None, a[None])[0][0] * v, 1),
    )
    error = lambda found, wanted: np.sqrt(np.mean((found - wanted) ** 2) / np.mean(wanted**2))  # noqa: E731
    near, far = np.geomspace(1e-7, 1e-4, 25), np.geomspace(1e-4, 0.1, 25, dtype="f4")
    p4, x4, v4 = {k: p.astype("float32") for k, p in params.items()}, x.astype("float32"), v.astype("float32")
    best = [
        min(error((f(x + h * v) - f(x - h * v)) / (2 * h), first) for h in near),
        min(error((f(x4 + h * v4, p4) - f(x4 - h * v4, p4)) / (2 * h), first) for h in far),
        min(error((f(x + h * v) - 2 * f(x) + f(x - h * v)) / h**2, second) for h in np.geomspace(1e-5, 1e-2, 25)),
    ]  # fmt: skip
    assert_close(np.log(best), np.log([6e-11, 4e-5, 1.5e-7]), math.log(3))
    assert error(f(x + 1j * STEP * v).imag / STEP, first) < 2e-15


# ------------------------------------------------------------------ 14.2, 14.3: dense, and the graph


@given(seed=seeds, K=st.integers(1, 3), B=st.integers(1, 4), shared=st.booleans())
def test_a_dense_layer_sum_by_sum(seed, K, B, shared):
    """Eqs. (14.6), (14.7)."""
    layer, rng = Dense(3, 2, 4, learned=True), np.random.default_rng(seed)
    p = {name: rng.standard_normal(size) for name, size in layer.shapes.items()}
    x, e, xdot = (
        rng.standard_normal((B, 3)),
        rng.standard_normal((1 if shared else B, 4)),
        rng.standard_normal((K, B, 3)),
    )
    dy, dydot = rng.standard_normal((B, 2)), rng.standard_normal((K, B, 2))
    y, cache = layer.forward(p, x, e)
    each = np.broadcast_to(e, (B, 4))
    assert_close(
        y, [[x[s] @ p["W"][:, j] + each[s] @ p["T"][:, j] + p["b"][j] for j in range(2)] for s in range(B)], 1e-13
    )
    ydot, tape = layer.jvp(p, cache, xdot, None)
    assert_close(ydot, np.einsum("kbi,ij->kbj", xdot, p["W"]), 1e-13)
    (dx, de), (dxdot, none), grads = layer.jvp_backward(p, cache, tape, dy, dydot)
    assert none is None
    assert_close(dx, dy @ p["W"].T, 1e-13)
    assert_close(dxdot, np.einsum("kbj,ij->kbi", dydot, p["W"]), 1e-13)
    des = dy @ p["T"].T
    assert_close(de, des.sum(axis=0, keepdims=True) if shared else des, 1e-13)
    assert_close(grads["W"], np.einsum("bi,bj->ij", x, dy) + np.einsum("kbi,kbj->ij", xdot, dydot), 1e-12)
    assert_close(grads["T"], np.einsum("bi,bj->ij", each, dy), 1e-13)
    assert_close(grads["b"], dy.sum(axis=0), 1e-13)


@given(seed=seeds, K=st.integers(1, 3))
def test_a_value_that_is_read_thrice_gets_what_all_three_send(seed, K):
    """Eq. (14.8): v + 2 tanh v + tanh(v W), also for a row that is broadcast."""
    rng = np.random.default_rng(seed)
    net = Net(
        [("h", Tanh(), ("x",)), ("a", Dense(3, 3), ("x",)), ("b", Tanh(), ("a",)), ("sum", Add(), ("x", "h", "h", "b"))]
    )
    p = {"a.W": rng.standard_normal((3, 3)), "a.b": np.zeros(3)}
    x, dy, xdot = rng.standard_normal((2, 3)), rng.standard_normal((2, 3)), rng.standard_normal((K, 2, 3))
    _, cache = net.forward(p, x)
    slope, bent = 1 - np.tanh(x) ** 2, 1 - np.tanh(x @ p["a.W"]) ** 2
    assert_close(net.jvp(p, cache, xdot)[0], xdot + 2 * slope * xdot + bent * (xdot @ p["a.W"]), 1e-13)
    assert_close(net.backward(p, cache, dy)[0][0], dy + 2 * slope * dy + (bent * dy) @ p["a.W"].T, 1e-13)
    assert_close(sum_to(dy, (1, 3)), dy.sum(axis=0, keepdims=True), 1e-14)


def test_a_layer_that_puts_nothing_on_the_tape_loses_what_tangents_send():
    """The trap of section 14.3: the graph takes a tape of None for "no tangent came here"."""

    class Forgets(Dropout):
        def jvp(self, params, cache, *xdots):
            return super().jvp(params, cache, *xdots)[0], None

    rng = np.random.default_rng(0)
    x, u, v = rng.standard_normal((4, 3)), rng.random((4, 3)), rng.standard_normal((1, 4, 3))
    for layer, lost in ((Dropout(3, 0.2), False), (Forgets(3, 0.2), True)):
        net = Net([("a", Dense(3, 3), ("x",)), ("drop", layer, ("a", "uniform"))])
        params = net.init(rng, "float64")
        _, cache = net.forward(params, x, u)
        _, tape = net.jvp(params, cache, v, None)
        _, (dxdot, _), grads = net.jvp_backward(params, cache, tape, x, v)
        assert (dxdot is None) == lost
        assert np.array_equal(grads["a.W"], net.backward(params, cache, x)[1]["a.W"]) == lost


# ------------------------------------------------------------------ 14.4: activations


@pytest.mark.parametrize("phi", [SiLU(), GELU(), Tanh(), Softplus(), ELU()])
@given(seed=seeds, K=st.integers(1, 3))
def test_the_four_passes_of_an_activation(phi, seed, K):
    """Eq. (14.9), with φ' and φ'' from complex steps."""
    _, x, xdot, dydot, cache = at_random(phi, (4, 3), seed, K)
    dy = np.random.default_rng([seed, 1]).standard_normal((4, 3))
    first = phi.forward({}, x + 1j * STEP)[0].imag / STEP
    second = phi.slope(phi.forward({}, x + 1j * STEP)[1]).imag / STEP
    ydot, tape = phi.jvp({}, cache, xdot)
    (dx,), (dxdot,), _ = phi.jvp_backward({}, cache, tape, dy, dydot)
    assert_close(ydot, first * xdot, 1e-13)
    assert_close(dxdot, first * dydot, 1e-13)
    assert_close(dx, first * dy + second * np.sum(xdot * dydot, axis=0), 1e-12)


def test_silu_by_tanh():
    """Eq. (14.10): both derivatives; in float32 no overflow, and less than 1e-6 of the tail is lost."""
    x = np.linspace(-30, 30, 601)[:, None]
    y, cache = SiLU().forward({}, x)
    s = 1 / (1 + np.exp(-x))
    assert_close(y, x * s, 1e-14 * 30)
    assert_close(SiLU().slope(cache), s + y * (1 - s), 1e-14)
    assert_close(SiLU().curvature(cache), s * (1 - s) * (2 + x - 2 * y), 1e-14)
    tail = np.linspace(-1e4, 0, 100_001).astype("float32")
    exact = (
        tail.astype("float64") * np.exp(np.minimum(tail.astype("float64"), 0)) / (1 + np.exp(tail.astype("float64")))
    )
    assert_close(SiLU().forward({}, tail[:, None])[0][:, 0], exact, 1e-6)
    with np.errstate(over="raise"), pytest.raises(FloatingPointError):
        np.exp(np.float32(89.0))


def test_a_relu_hides_a_forgotten_curvature():
    """Exercise 4: its φ'' is 0 wherever there is one, so a network of it has a divergence without gradient in b."""

    class ReLU(Tanh):
        def forward(self, params, *xs):
            return np.maximum(xs[0], 0), xs[0]

        def slope(self, cache):
            return (cache > 0).astype(cache.dtype)

        def curvature(self, cache):
            return 0 * cache

    net, rng = MLP((2, 8, 2), activation=ReLU()), np.random.default_rng(0)
    params = {name: rng.standard_normal(size) for name, size in net.shapes.items()}
    units = np.broadcast_to(np.eye(2)[:, None, :], (2, 5, 2))
    _, cache = net.forward(params, rng.standard_normal((5, 2)))
    _, tape = net.jvp(params, cache, units)
    _, _, grads = net.jvp_backward(params, cache, tape, None, units)
    assert not grads["dense1.b"].any()
    assert grads["dense1.W"].any()


# ------------------------------------------------------------------ 14.5: norms


@given(seed=seeds, groups=st.sampled_from([1, 2, 6]))
def test_a_group_norm_group_by_group(seed, groups):
    """Eq. (14.11)."""
    layer, rng = GroupNorm(6, groups, eps=0.01), np.random.default_rng(seed)
    p = {"g": rng.standard_normal(6), "b": rng.standard_normal(6)}
    x = 1 + rng.standard_normal((3, 2, 4, 6))
    y, size = layer.forward(p, x)[0], 6 // groups
    for b, k in itertools.product(range(4), range(groups)):
        of = slice(k * size, (k + 1) * size)
        c = x[:, :, b, of] - np.mean(x[:, :, b, of])
        assert_close(y[:, :, b, of], p["g"][of] * c / np.sqrt(np.mean(c**2) + 0.01) + p["b"][of], 1e-12)


@given(seed=seeds, N=st.integers(2, 12), eps=st.sampled_from([1e-5, 0.1]))
def test_the_jacobian_of_a_norm_is_symmetric_and_blind_to_shift_and_scale(seed, N, eps):
    """Eq. (14.12), as a matrix; its spectrum, times r: 0, ε/r², and 1 for all the rest (exercise 7)."""
    layer, ones, x = (
        LayerNorm(N, eps),
        {"g": np.ones(N), "b": np.zeros(N)},
        np.random.default_rng(seed).standard_normal((1, N)),
    )
    n, cache = layer.forward(ones, x)
    r = float(np.sqrt(np.var(x) + eps))
    J = layer.jvp(ones, cache, np.eye(N)[:, None, :])[0][:, 0, :]
    assert_close(J, (np.eye(N) - 1 / N - n.T @ n / N) / r, 1e-13 / r)
    assert_close(J, J.T, 1e-13 / r)
    assert_close(J @ np.ones(N), 0, 1e-12 / r)
    assert_close(J @ n[0], eps * n[0] / r**3, 1e-12 / r)
    assert_close(np.sort(np.linalg.eigvalsh(r * J)), np.sort([0, eps / r**2, *[1] * (N - 2)]), 1e-12)


@given(seed=seeds, N=st.integers(2, 12))
def test_how_the_jacobian_of_a_norm_bends(seed, N):
    """Eqs. (14.13), (14.14): the product rule against a complex step, and what is left when ξ is set free."""
    layer, ones = LayerNorm(N, 0.1), {"g": np.ones(N), "b": np.zeros(N)}
    x, a, q, xi = np.random.default_rng(seed).standard_normal((4, 1, N))
    n, cache = layer.forward(ones, x)
    r = float(np.sqrt(np.var(x) + 0.1))
    J = lambda v: layer.jvp(ones, cache, v[None])[0][0]  # noqa: E731
    moved = layer.jvp(ones, layer.forward(ones, x + 1j * STEP * xi)[1], a[None] + 0j)[0][0].imag / STEP
    bent = -(np.mean(n * xi) * J(a) + J(xi) * np.mean(n * a) + n * np.mean(a * J(xi))) / r
    assert_close(moved, bent, 1e-11 * (1 + np.max(np.abs(bent))))
    free = -(n * np.mean(q * J(a)) + J(q) * np.mean(n * a) + J(a) * np.mean(n * q)) / r
    assert_close(np.sum(free * xi), np.sum(q * bent), 1e-11 * (1 + np.sum(np.abs(q * bent))))
    _, tape = layer.jvp(ones, cache, a[None])
    assert_close(layer.jvp_backward(ones, cache, tape, None, q[None])[0][0], free, 1e-11 * (1 + np.max(np.abs(free))))


# ------------------------------------------------------------------ 14.6: convolutions


@given(
    seed=seeds, height=st.integers(1, 6), width=st.integers(1, 5), k=st.sampled_from([1, 3, 5]), s=st.integers(1, 3),
    r=st.integers(1, 2), C=st.sampled_from([1, 2, 9]),
)  # fmt: skip
def test_a_convolution_pixel_by_pixel(seed, height, width, k, s, r, C):
    """Eqs. (14.15), (14.16), sum by sum; in integers, so exactly."""
    rng = np.random.default_rng(seed)
    whole = lambda *shape: rng.integers(-9, 10, shape).astype("float64")  # noqa: E731
    x, W, p = whole(height, width, 2, C), whole(k, k, C, 3), r * (k - 1) // 2
    H, V = -(-height // s), -(-width // s)
    dy = whole(H, V, 2, 3)
    y, dx, dW = np.zeros((H, V, 2, 3)), np.zeros_like(x), np.zeros_like(W)
    for h, w, i, j in itertools.product(range(H), range(V), range(k), range(k)):
        m, n = s * h + r * i - p, s * w + r * j - p
        if 0 <= m < height and 0 <= n < width:
            y[h, w] += x[m, n] @ W[i, j]
            dx[m, n] += dy[h, w] @ W[i, j].T
            dW[i, j] += x[m, n].T @ dy[h, w]
    assert np.array_equal(convolve(x, W, s, r), y)
    assert np.array_equal(image_gradient(dy, W, height, width, s, r), dx)
    assert np.array_equal(kernel_gradient(x, dy, k, s, r), dW)


def test_four_products_in_place_of_six():
    """Eq. (14.17), in fractions; and as the product of polynomials at 0, 1, -1 and ∞, transposed (exercise 9)."""
    rng, half = np.random.default_rng(0), Fraction(1, 2)
    g0, g1, g2, x0, x1, x2, x3 = (Fraction(int(i), 7) for i in rng.integers(-99, 100, 7))
    m0, m1 = (x0 - x2) * g0, (x1 + x2) * half * (g0 + g1 + g2)
    m2, m3 = (x2 - x1) * half * (g0 - g1 + g2), (x1 - x3) * g2
    assert m0 + m1 + m2 == x0 * g0 + x1 * g1 + x2 * g2
    assert m1 - m2 - m3 == x1 * g0 + x2 * g1 + x3 * g2
    G = np.array([[1, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 1]]) / np.array([[1], [2], [2], [1]])  # g at the points
    A = np.array(
        [[1, 1, 1, 0], [0, 1, -1, -1]]
    )  # a polynomial of degree 1 at the points, transposed; last sign by choice
    B = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])
    a, g, x = rng.standard_normal(2), rng.standard_normal(3), rng.standard_normal(4)
    product = B.T @ ((A.T @ a) * (G @ g))  # the coefficients of a(z) g(z)
    assert_close(product, np.convolve(a, g), 1e-14)
    assert_close(A @ ((G @ g) * (B @ x)), [x[:3] @ g, x[1:] @ g], 1e-14)
    dy = rng.standard_normal(2)
    assert_close(G.T @ ((A.T @ dy) * (B @ x)), [x[i : i + 2] @ dy for i in range(3)], 1e-14, "dW, four products")


def test_the_fast_form_does_four_ninths_of_the_products_and_rounds_more():
    """Eq. (14.17) along both axes: 16 for 36; the error grows by 1.3 along each."""
    rng = np.random.default_rng(0)
    x, W = rng.standard_normal((16, 16, 4, 32)), rng.standard_normal((3, 3, 32, 32))
    made, errors, exact = [], [], convolve(x, W)
    for f in (convolve, winograd.convolve):
        Counted.made = 0
        f(x.view(Counted), W.view(Counted))
        made.append(Counted.made)
        errors.append(np.sqrt(np.mean((f(x.astype("float32"), W.astype("float32")) - exact) ** 2)))
    assert made[1] / made[0] == 16 / 36
    assert 1.5 < errors[1] / errors[0] < 1.9
    x, g = rng.standard_normal((4, 500, 64)), rng.standard_normal((3, 64, 64))  # one axis: two answers of matrices

    def plain(x, g):
        return np.stack([x[i] @ g[0] + x[i + 1] @ g[1] + x[i + 2] @ g[2] for i in range(2)])

    def fast(x, g):
        m1, m2 = (x[1] + x[2]) @ ((g[0] + g[1] + g[2]) / 2), (x[2] - x[1]) @ ((g[0] - g[1] + g[2]) / 2)
        return np.stack([(x[0] - x[2]) @ g[0] + m1 + m2, m1 - m2 - (x[1] - x[3]) @ g[2]])

    errors = [np.std(f(x.astype("float32"), g.astype("float32")) - plain(x, g)) for f in (plain, fast)]
    assert 1.15 < errors[1] / errors[0] < 1.45


def test_a_convolution_with_zeros_at_the_edge_does_not_commute_with_shifts():
    """Exercise 5: inside it does, at the edge it does not."""
    rng = np.random.default_rng(0)
    x, W = rng.standard_normal((7, 7, 1, 2)), rng.standard_normal((3, 3, 2, 2))
    apart = np.abs(convolve(np.roll(x, 1, axis=0), W) - np.roll(convolve(x, W), 1, axis=0)).max(axis=(1, 2, 3))
    assert_close(apart[2:-1], 0, 1e-13)
    assert (apart[[0, 1, -1]] > 0.1).all()


# ------------------------------------------------------------------ 14.7: softmax and attention


@given(seed=seeds, n=st.integers(1, 6))
def test_the_jacobian_of_softmax(seed, n):
    """Eqs. (14.18), (14.19): diag w - w wᵀ; blind to what all x have in common; its bracket by complex step."""
    layer = Softmax()
    _, x, (a, _), (q, _), w = at_random(layer, (1, n), seed)
    assert_close(w, np.exp(x) / np.sum(np.exp(x)), 1e-15)
    J = layer.jvp({}, w, np.eye(n)[:, None, :])[0][:, 0, :]
    assert_close(J, np.diag(w[0]) - w.T @ w, 1e-15)
    assert_close(J @ np.ones(n), 0, 1e-15)
    assert_close(layer.forward({}, x + 3.7)[0], w, 1e-14)
    dw = np.random.default_rng([seed, 1]).standard_normal((1, n))
    (dx,), (dxdot,), _ = layer.jvp_backward({}, w, a[None], dw, q[None])
    bracket = dw + q * a - q * np.sum(w * a) - a * np.sum(w * q)
    assert_close(dx, bracket @ J, 1e-14 * 30)
    assert_close(dxdot[0], q @ J, 1e-14)
    certain = layer.forward({}, 800.0 * np.eye(n)[:1])[1]
    assert not layer.backward({}, certain, dw)[0][0].any(), "exercise 8: where one weight is 1, J is 0"


@given(seed=seeds, heads=st.integers(1, 2), K=st.integers(1, 2))
def test_attention_head_by_head(seed, heads, K):
    """Eqs. (14.20), (14.21), with the matrices of one sample and head, 4 pixels of 3 channels."""
    layer, C = Attention(heads), 3 * heads
    _, x, xdot, dodot, cache = at_random(layer, (2, 2, 2, 3 * C), seed, K)
    do = np.random.default_rng([seed, 1]).standard_normal((*x.shape[:3], C))
    y, _ = layer.forward({}, x)
    _, tape = layer.jvp({}, cache, xdot)
    (dx,), (dxdot,), _ = layer.jvp_backward({}, cache, tape, do, dodot)

    def part(a, which, b, h):  # (..., 4, 3) of (..., 2, 2, B, channels)
        start = which * C + 3 * h
        return a[..., b, start : start + 3].reshape(*a.shape[:-4], 4, 3)

    for b, h in itertools.product(range(2), range(heads)):
        q, k, v = (part(x, i, b, h) for i in range(3))
        w = np.exp(q @ k.T / 3**0.5)
        w /= w.sum(axis=1, keepdims=True)
        assert_close(part(y, 0, b, h), w @ v, 1e-13)
        J = lambda a, w=w: w * a - w * np.sum(w * a, axis=-1, keepdims=True)  # noqa: E731
        g = part(do, 0, b, h)
        dw, dv, dq, dk = g @ v.T, w.T @ g, 0.0, 0.0
        for t in range(K):
            qd, kd, vd = (part(xdot[t], i, b, h) for i in range(3))
            gd, Sd = part(dodot[t], 0, b, h), (qd @ k.T + q @ kd.T) / 3**0.5
            dwd = gd @ v.T
            dSd = J(dwd)
            bracket = dwd * Sd - dwd * np.sum(w * Sd, 1, keepdims=True) - Sd * np.sum(w * dwd, 1, keepdims=True)
            dw, dv = dw + gd @ vd.T + bracket, dv + J(Sd).T @ gd
            dq, dk = dq + dSd @ kd, dk + dSd.T @ qd
            for i, wanted in enumerate((dSd @ k / 3**0.5, dSd.T @ q / 3**0.5, w.T @ gd)):
                assert_close(part(dxdot[t], i, b, h), wanted, 1e-12 * (1 + np.max(np.abs(wanted))))
        dS = J(dw)
        for i, wanted in enumerate(((dS @ k + dq) / 3**0.5, (dS.T @ q + dk) / 3**0.5, dv)):
            assert_close(part(dx, i, b, h), wanted, 1e-12 * (1 + np.max(np.abs(wanted))))


def test_attention_knows_no_places():
    """Exercise 5."""
    rng = np.random.default_rng(0)
    x, order = rng.standard_normal((12, 1, 2, 9)), rng.permutation(12)
    assert_close(Attention().forward({}, x[order])[0], Attention().forward({}, x)[0][order], 1e-14)


# ------------------------------------------------------------------ 14.8: what moves numbers, and what is told


def matrices(layer, H, W, *more):
    """Of a linear layer on images of H x W pixels and one channel: by forward, and its transpose by backward."""
    units = np.eye(H * W).reshape(H, W, H * W, 1)
    A = layer.forward({}, units, *more)[0].reshape(-1, H * W)
    y, cache = layer.forward({}, units[:, :, :1], *more)
    units = np.eye(y.size).reshape(*y.shape[:2], y.size, 1)
    cache = ((H, W, y.size, 1), *cache[1:])
    return A, layer.backward({}, cache, units)[0][0].reshape(H * W, y.size)


def test_pooling_and_doubling():
    """Eq. (14.22); at odd sizes the rows of P still add up to 1, those of Pᵀ to what each pixel counts (exercise 2)."""
    (P, Pt), (U, Ut) = matrices(AvgPool(), 6, 4), matrices(Upsample(), 3, 2, np.zeros((6, 4, 1, 1)))
    assert np.array_equal(P @ U, np.eye(6))
    assert np.array_equal(Pt, U / 4)
    assert np.array_equal(Ut, 4 * P)
    assert np.array_equal(P.T, Pt)
    P, Pt = matrices(AvgPool(), 3, 3)
    assert np.array_equal(P.T, Pt)
    assert_close(P.sum(axis=1), 1, 0)
    assert np.array_equal(Pt.sum(axis=1).reshape(3, 3), np.outer([0.5, 0.5, 1], [0.5, 0.5, 1]))


def test_pooling_tells_even_from_odd_and_nothing_else_of_a_place():
    """Section 14.9: pooled and doubled again, images commute with shifts by two pixels, not by one."""
    x = np.random.default_rng(0).standard_normal((8, 6, 1, 2))
    both = lambda x: Upsample().forward({}, AvgPool().forward({}, x)[0], x)[0]  # noqa: E731
    for axis in (0, 1):
        assert np.array_equal(both(np.roll(x, 2, axis)), np.roll(both(x), 2, axis))
        assert np.max(np.abs(both(np.roll(x, 1, axis)) - np.roll(both(x), 1, axis))) > 0.1


def test_labels_and_dropout():
    """Eq. (14.23)."""
    rng = np.random.default_rng(0)
    W, labels, de = rng.standard_normal((4, 2)), rng.integers(0, 4, 9), rng.standard_normal((9, 2))
    e, hot = Labels(3, 2).forward({"W": W}, labels)
    assert_close(e, W[labels], 0)
    wanted = np.zeros((4, 2))
    np.add.at(wanted, labels, de)
    assert_close(Labels(3, 2).backward({"W": W}, hot, de)[1]["W"], wanted, 1e-14)
    x, n, rho = np.array([[-1.5, 2.0]]), 200_000, 0.3
    y, m = Dropout(2, rho).forward({}, x, rng.random((n, 2)))
    assert_mean(y, x[0])
    assert_mean((y / x[0] - 1) ** 2, rho / (1 - rho), sees=0.02)
    assert set(np.unique(m)) == {0.0, 1 / (1 - rho)}


def test_dropout_adds_to_the_expected_loss_of_a_linear_net():
    """Exercise 10: E ½(w·(m x) - z)² = ½(w·x - z)² + ½ ρ/(1 - ρ) Σ w² x², by all masks."""
    rng = np.random.default_rng(0)
    w, x, z, rho = rng.standard_normal(4), rng.standard_normal(4), 0.7, 0.3
    expected = 0.0
    for mask in itertools.product([0.0, 0.9], repeat=4):
        u = np.array([mask])
        y, _ = Dropout(4, rho).forward({}, x[None], u)
        p = math.prod(1 - rho if each else rho for each in mask)
        expected += p * 0.5 * float(y[0] @ w - z) ** 2
    assert abs(expected - 0.5 * (w @ x - z) ** 2 - 0.5 * rho / (1 - rho) * np.sum(w**2 * x**2)) < 1e-13


# ------------------------------------------------------------------ 14.9: the U-Net


def seen(net, size):
    """The derivative of the middle pixel of the answer in each pixel of x, absolute, over the largest."""
    rng = np.random.default_rng(0)
    params, x = net.init(rng, "float64"), rng.standard_normal((1, size, size, 1))
    y, cache = net.forward(params, x, *([np.zeros(1)] if "level" in net.inputs else []))
    dy = np.zeros_like(y)
    dy[:, size // 2, size // 2, :] = 1
    dx = np.abs(net.backward(params, cache, dy)[0][0])
    return dx / dx.max()


def test_one_norm_lets_a_pixel_see_all_others():
    first, last = [("inside", Inside(), ("x",)), ("a", Conv(1, 16), ("inside",))], ("outside", Outside(), ("c",))
    rest = [("act2", SiLU(), ("b",)), ("c", Conv(16, 1), ("act2",)), last]
    plain = [*first, ("act1", SiLU(), ("a",)), ("b", Conv(16, 16), ("act1",)), *rest]
    normed = [*first, ("n", GroupNorm(16), ("a",)), ("act1", SiLU(), ("n",)), ("b", Conv(16, 16), ("act1",)), *rest]
    assert np.count_nonzero(seen(Net(plain), 32)) == 7 * 7
    for net in (Net(normed), UNet(1, (32,), attention=())):
        dx = seen(net, 32)
        assert np.count_nonzero(dx) == 32 * 32
        assert 1e-4 < np.median(dx) < 0.02, "about half a per cent, where many nets are averaged"


# ------------------------------------------------------------------ 14.10, 14.11: initial parameters, and what it costs


def mean_square(phi, q):
    z, w = GAUSS
    return float(w @ phi.forward({}, np.sqrt(q) * z[:, None])[0][:, 0] ** 2 / w.sum())


def test_the_gain_that_keeps_the_mean_square():
    """Eq. (14.24): the recursion by quadrature is that of a wide random net; the gain of `MLP` and `UNet`."""
    gain = mean_square(SiLU(), 1.0) ** -0.5
    assert abs(gain - 1.6765) < 1e-4
    for told, q in ((0, 1.68**2), (64, 2 * 1.68**2)):
        layer, x = Dense(400, 400, told, gain=1.68), np.ones((1, 400))
        y, _ = layer.forward(layer.init(np.random.default_rng(0), "float64"), x, *([x[:, :told]] if told else []))
        assert_from(np.sum(y**2) / q, chi2(400))
    assert {layer.gain for _, layer, _ in MLP((2, 4, 4, 2)).rows if isinstance(layer, Dense)} == {1.68, 0.1}
    rng, n, nets = np.random.default_rng(0), 400, 40
    for g in (1.0, 1.68, 2.0):
        q, hs, layer = 1.0, rng.standard_normal((nets, 1, n)), Dense(n, n, gain=g)
        for _ in range(3):
            q = g**2 * mean_square(SiLU(), q)
            hs = [layer.forward(layer.init(rng, "float64"), SiLU().forward({}, h)[0])[0] for h in hs]
            each = np.mean(np.square(hs), axis=(1, 2))  # of a net: √(2/n) = 7 % a layer, which the next two enlarge
            assert_from((each.mean() - q) / (each.std(ddof=1) / math.sqrt(nets)), student(nets - 1), n=nets)


def test_a_net_starts_with_the_loss_of_the_answer_zero():
    model = ScoreModel(UNet(1, (8, 16), embed=8, cond=16), VP())
    x0 = np.random.default_rng(1).standard_normal((64, 12, 12, 1))
    theta = model.init(np.random.default_rng(0), "float64")
    loss, grad = Denoising()(model, theta, x0, np.random.default_rng(2))
    assert abs(loss / (144 / 2) - 1) < 0.1
    assert all(np.any(g) for name, g in views(grad, model.shapes).items() if name.startswith("down0.0"))
    shut = views(theta.copy(), model.shapes)
    shut["last.W"][...] = 0
    grads = views(
        Denoising()(model, np.concatenate([p.ravel() for p in shut.values()]), x0, np.random.default_rng(2))[1],
        model.shapes,
    )
    assert {name for name, g in grads.items() if np.any(g)} == {"last.W", "last.b"}


def test_float32_gradients_of_the_usual_net_are_right_to_a_millionth():
    net, rng = UNet(1), np.random.default_rng(0)
    params, x, level = net.init(rng, "float64"), rng.standard_normal((2, 28, 28, 1)), np.array([0.3])
    y, cache = net.forward(params, x, level)
    _, wide = net.backward(params, cache, y)
    single = {name: p.astype("float32") for name, p in params.items()}
    y4, cache = net.forward(single, x.astype("float32"), level.astype("float32"))
    _, narrow = net.backward(single, cache, y4)
    assert_close(y4, y, 1e-6 * np.max(np.abs(y)))
    for name, grad in wide.items():
        assert_close(narrow[name], grad, 3e-6 * np.max(np.abs(grad)), name)


def products(layer, xs, K):
    """Multiplications of the matrix products in each of the four passes, tangents in x alone."""
    rng, counts = np.random.default_rng(0), []
    params = {name: value.view(Counted) for name, value in layer.init(rng, "float64").items()}
    xs = [x.view(Counted) for x in xs]
    xdot, none = rng.standard_normal((K, *xs[0].shape)).view(Counted), [None] * (len(xs) - 1)

    def counted(f, *args):
        Counted.made = 0
        result = f(params, *args)
        counts.append(Counted.made)
        return result

    y, cache = counted(layer.forward, *xs)
    counted(layer.backward, cache, y.view(Counted))
    ydot, tape = counted(layer.jvp, cache, xdot, *none)
    counted(layer.jvp_backward, cache, tape, y.view(Counted), ydot.view(Counted))
    return counts


@pytest.mark.parametrize("K", [1, 2, 3])
def test_layers_cost_what_the_table_says(K):
    image = np.ones((8, 8, 2, 12))
    for layer, x in ((Dense(12, 5), np.ones((4, 12))), (Conv(12, 12), image), (Conv(12, 6, kernel=5), image)):
        forward, *others = products(layer, [x], K)
        assert [n / forward for n in others] == [2, K, 2 + 2 * K]
    forward, *others = products(Attention(2), [image], K)
    assert [n / forward for n in others] == [2, 2 * K, 2 + 4 * K]


def test_the_unet_costs_what_the_table_says(monkeypatch):
    for plain in (False, True):
        if plain:
            monkeypatch.setattr(conv.Conv, "_is_usual", lambda self, x, C, O: False)
        counts = products(UNet(1), [np.ones((1, 32, 32, 1)), np.zeros(1)], 1)
        row = " | ".join(f"{n / 1e6:.1f}" for n in counts)
        assert f"| {row} |" in CHAPTER, row
