"""The layers beyond their derivatives: what they compute, two forms of one convolution, conditions, refusals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2

from refscore import MLP, VP, Denoising, EnergyModel, Implicit
from refscore.arrays import views
from refscore.nn import (
    ELU,
    GELU,
    Attention,
    Concat,
    Conv,
    Dense,
    Dropout,
    GroupNorm,
    Labels,
    Net,
    Reshape,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
    Upsample,
    shifts,
    winograd,
)
from refscore_backends.numpy import NumpyBackend
from tests.oracles.close import assert_close
from tests.oracles.derivatives import check_all, check_everywhere, subject
from tests.oracles.marks import on_every_backend, on_every_device
from tests.oracles.models import random_theta
from tests.oracles.statistics import assert_from, assert_mean
from tests.oracles.strategies import seeds

NUMPY = NumpyBackend()

# ------------------------------------------------------------------ convolutions

some_or_many = st.sampled_from([1, 3, 8, 9])  # below 8 channels there is a form of its own


@on_every_device
@given(
    seed=seeds, C=some_or_many, O=some_or_many, B=st.integers(1, 3), height=st.integers(1, 7),
    width=st.integers(1, 7), stack=st.booleans(),
)  # fmt: skip
def test_both_forms_of_a_convolution_agree(host, seed, C, O, B, height, width, stack):
    rng, lead = np.random.default_rng(seed), (2,) * stack
    x, W, dy = (
        host.asarray(rng.standard_normal(shape), dtype="float32")
        for shape in ((*lead, height, width, B, C), (3, 3, C, O), (*lead, height, width, B, O))
    )
    pairs = [
        (winograd.convolve(x, W), shifts.convolve(x, W)),
        (winograd.convolve(dy, shifts.turned(W)), shifts.image_gradient(dy, W, height, width)),
        (winograd.kernel_gradient(x, dy), shifts.kernel_gradient(x, dy, 3)),
    ]
    for fast, plain in pairs:
        fast, plain = host.to_numpy(fast), host.to_numpy(plain)
        assert fast.shape == plain.shape
        assert fast.dtype == np.float32
        scale = np.max(np.abs(plain)) + np.sqrt(9 * max(C, O, height * width * B))  # of a sum of so many terms
        assert_close(fast, plain, 1e-6 * scale, "rounding")


@given(
    seed=seeds, k=st.sampled_from([1, 3, 5]), stride=st.integers(1, 3), dilation=st.integers(1, 2),
    height=st.integers(1, 6), width=st.integers(1, 6), groups=st.integers(1, 2),
)  # fmt: skip
def test_a_convolution_is_the_sum_that_its_page_says(seed, k, stride, dilation, height, width, groups):
    rng, layer = np.random.default_rng(seed), Conv(4, 6, k, stride, dilation, groups)
    x, params = rng.standard_normal((height, width, 2, 4)), layer.init(rng, "float64")
    y, _ = layer.forward(params, x)
    wanted = np.zeros((-(-height // stride), -(-width // stride), 2, 6))
    p = dilation * (k // 2)
    for h, w, i, j in np.ndindex(*wanted.shape[:2], k, k):
        a, b = stride * h + dilation * i - p, stride * w + dilation * j - p
        if 0 <= a < height and 0 <= b < width:
            for g in range(groups):
                c, o = slice(4 // groups * g, 4 // groups * (g + 1)), slice(6 // groups * g, 6 // groups * (g + 1))
                wanted[h, w, :, o] += x[a, b, :, c] @ params["W"][i, j, :, o]
    assert_close(y, wanted, 1e-13 * (1 + np.max(np.abs(wanted))))


@pytest.mark.parametrize(("n_in", "n_cond"), [(1, 0), (16, 5)])
def test_a_convolution_starts_with_outputs_of_unit_variance(n_in, n_cond):
    layer, rng = Conv(n_in, 64, n_cond=n_cond), np.random.default_rng(0)
    params = layer.init(rng, "float64")
    assert list(params) == list(layer.shapes)
    x, e = rng.standard_normal((20, 20, 10, n_in)), rng.standard_normal((10, n_cond))
    y, _ = layer.forward(params, x, *([e] if n_cond else []))
    for name, fan in (("W", 9 * n_in), *([("T", n_cond)] if n_cond else [])):
        assert_from(fan * np.sum(params[name] ** 2), chi2(params[name].size))
    assert np.mean(y[1:-1, 1:-1] ** 2) == pytest.approx(1 + (n_cond > 0), rel=0.5)  # of 9 to 144 weights a channel
    assert not params["b"].any()


# ------------------------------------------------------------------ norms, attention, the rest


@given(seed=seeds, groups=st.sampled_from([1, 2, 4]), B=st.integers(1, 3), pixels=st.integers(2, 6))
def test_a_normalised_image_has_mean_0_and_mean_square_1(seed, groups, B, pixels):
    layer = GroupNorm(4, groups, eps=1e-12)
    x = 5 + 3 * np.random.default_rng(seed).standard_normal((pixels, 2, B, 4))
    y, _ = layer.forward(layer.init(np.random.default_rng(0), "float64"), x)
    each = y.reshape(pixels, 2, B, groups, -1)
    assert_close(each.mean(axis=(0, 1, 4)), 0, 1e-12)
    assert_close((each**2).mean(axis=(0, 1, 4)), 1, 1e-9)


def test_a_constant_image_is_normalised_to_the_bias():
    layer = GroupNorm(4, 2)
    y, _ = layer.forward({"g": np.ones(4), "b": np.arange(4.0)}, np.full((3, 3, 2, 4), 7.0))
    assert np.array_equal(y, np.broadcast_to(np.arange(4.0), y.shape))


def test_of_one_number_a_norm_leaves_nothing():
    x = np.random.default_rng(0).standard_normal((1, 1, 2, 4))
    kept = [GroupNorm(4, groups).forward({"g": np.ones(4), "b": np.zeros(4)}, x)[0] for groups in (4, 2)]
    assert not kept[0].any()
    assert_close(np.abs(kept[1]), 1, 1e-3, "and of two the sign")


@on_every_device
def test_softmax_takes_numbers_however_large(host):
    y, _ = Softmax().forward({}, host.asarray(np.array([[1e30, 1e30], [-1e30, 0.0]]), dtype="float32"))
    assert np.array_equal(host.to_numpy(y), [[0.5, 0.5], [0.0, 1.0]])


def test_attention_does_not_care_where_pixels_stand():
    rng, layer = np.random.default_rng(0), Attention(2)
    x, order = rng.standard_normal((3, 4, 2, 12)), np.random.default_rng(1).permutation(12)
    y = layer.forward({}, x)[0].reshape(12, 2, 4)
    moved = layer.forward({}, x.reshape(12, 2, 12)[order].reshape(3, 4, 2, 12))[0].reshape(12, 2, 4)
    assert_close(moved, y[order], 1e-14)


def test_gelu_is_nearly_x_times_the_normal_distribution():
    """5e-4: what its docstring says of the tanh form."""
    from scipy.special import ndtr

    x = np.linspace(-10, 10, 20001)
    error = np.max(np.abs(GELU().forward({}, x)[0] - x * ndtr(x)))
    assert 4e-4 < error < 5e-4


@on_every_device
@pytest.mark.parametrize("phi", [SiLU(), Tanh(), Softplus(), GELU(), ELU()])
def test_far_out_the_derivatives_of_an_activation_are_those_of_its_asymptotes(host, phi):
    """In float32, up to where u of GELU, about x³, is no number any more: nowhere 0 · ∞."""
    x = host.asarray(np.array([[-1e12, -1e9, -1e6, 1e6, 1e9, 1e12]]), dtype="float32")
    _, cache = phi.forward({}, x)
    slope, *others = (host.to_numpy(d(cache))[0] for d in (phi.slope, phi.curvature, phi.third))
    rises = 0.0 if isinstance(phi, Tanh) else 1.0
    assert np.array_equal(np.abs(slope), [0, 0, 0, rises, rises, rises])
    assert not np.any(others)


def test_elu_is_what_it_is_called():
    x = np.linspace(-30, 30, 601)
    assert_close(ELU().forward({}, x)[0], np.where(x > 0, x, np.expm1(np.minimum(x, 0))), 1e-15)


def test_what_moves_numbers_about_says_where_to():
    x = np.arange(12.0).reshape(1, 12)
    assert np.array_equal(Reshape((12,), (3, 4)).forward({}, x)[0][0], np.arange(12.0).reshape(3, 4))
    y, _ = Concat().forward({}, np.ones((3, 2)), np.zeros((1, 4)))
    assert np.array_equal(y, [[1, 1, 0, 0, 0, 0]] * 3)
    small = np.arange(4.0).reshape(2, 2, 1, 1)
    large, _ = Upsample().forward({}, small, np.zeros((3, 4, 1, 5)))
    assert np.array_equal(large[:, :, 0, 0], [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3]])


def test_dropout_keeps_the_mean_and_leaves_out_whole_channels():
    u = np.random.default_rng(0).random((4000, 3))
    y, _ = Dropout(2, 0.25, offset=1).forward({}, np.ones((2, 2, 4000, 2)), u)
    assert set(np.unique(y)) == {0.0, 1 / 0.75}
    assert np.array_equal(y, np.broadcast_to(y[:1, :1], y.shape))
    assert np.array_equal(y[0, 0] == 0, u[:, 1:] < 0.25)
    assert_mean(y[0, 0], 1.0)


@on_every_backend
def test_a_layer_that_is_left_out_hands_on_what_it_is_given(host):
    """No uniform numbers: every pass is that of the identity."""
    layer, x = Dropout(2, 0.5), host.asarray(np.ones((3, 2)))
    y, cache = layer.forward({}, x, None)
    ydot, tape = layer.jvp({}, cache, x[None, ...], None)
    for found in (y, layer.backward({}, cache, x)[0][0], layer.jvp_backward({}, cache, tape, x, ydot)[0][0]):
        assert np.array_equal(host.to_numpy(found), np.ones((3, 2)))


# ------------------------------------------------------------------ conditions


@on_every_device
def test_a_label_is_a_row_of_its_table(host):
    W = np.random.default_rng(0).standard_normal((4, 5)).astype("float32")
    layer, params, label = Labels(3, 5), {"W": host.asarray(W)}, np.array([0, 3, 1, 0])
    e, cache = layer.forward(params, host.asarray(label))
    assert np.array_equal(host.to_numpy(e), W[label])
    dy = np.ones((4, 5), "float32")
    (dlabel,), grads = layer.backward(params, cache, host.asarray(dy))
    assert dlabel is None
    again = layer.jvp_backward(params, cache, None, host.asarray(dy), host.asarray(dy[None]))
    assert again[:2] == ((None,), (None,))
    assert np.array_equal(host.to_numpy(again[2]["W"]), host.to_numpy(grads["W"]))
    assert np.array_equal(host.to_numpy(grads["W"]), np.array([2.0, 1.0, 0.0, 1.0])[:, None] * np.ones(5))


mlps = {"seed": seeds, "B": st.integers(1, 4), "K": st.integers(1, 3), "embed": st.sampled_from([0, 4]),
        "kind": st.sampled_from(["classes", "n_condition"]), "dropout": st.sampled_from([0.0, 0.4]),
        "shared": st.booleans()}  # fmt: skip


@on_every_backend
@given(**mlps)
def test_every_mlp_that_is_told_a_condition_is_differentiated_rightly(host, seed, B, K, embed, kind, dropout, shared):
    net, rng = MLP((2, 5, 4, 3), embed, **{kind: 3}, dropout=dropout), np.random.default_rng([seed, 3])
    n = 1 if shared else B
    of = {"x": rng.standard_normal((B, 2)), "level": rng.uniform(-3, 2, n), "uniform": rng.random((B, net.uniforms))}
    of["condition"] = rng.integers(0, 4, n) if kind == "classes" else rng.standard_normal((n, 3))
    xs = [of[name] for name in net.inputs]
    # a vector gets an adjoint, like x, but has no tangent
    fixed = [i for i, name in enumerate(net.inputs) if i and (name != "condition" or kind == "classes")]
    check_everywhere(subject(net, host, xs, seed, K, fixed=fixed, live=[True, *[False] * (len(xs) - 1)]), seed)


def test_without_a_condition_an_mlp_is_what_it_was():
    plain, told = MLP((2, 5, 3), embed=4), MLP((2, 5, 3), embed=4, classes=2, dropout=0.5)
    assert [name for name, _, _ in plain.rows] == ["embed", "dense1", "act1", "head"]
    assert [name for name, _, _ in told.rows] == ["embed", "told", "e", "dense1", "act1", "drop1", "head"]
    assert told.inputs == ("x", "level", "condition", "uniform")
    assert (plain.uniforms, told.uniforms) == (0, 5)


def test_a_dense_layer_hands_on_the_adjoint_of_a_learned_condition_alone():
    x, e, dy = np.ones((2, 3)), np.ones((1, 4)), np.ones((2, 5))
    for learned in (False, True):
        layer = Dense(3, 5, 4, learned=learned)
        params = layer.init(np.random.default_rng(0), "float64")
        _, cache = layer.forward(params, x, e)
        (_, de), _ = layer.backward(params, cache, dy)
        assert (de is not None) == learned
        if learned:
            assert_close(de, dy.sum(axis=0, keepdims=True) @ params["T"].T, 1e-14)


@pytest.mark.parametrize("layer", [Dense(2, 3, 4), Conv(2, 3, n_cond=4)])
def test_a_condition_has_no_tangent(layer):
    """A net that makes e of x would be differentiated wrongly, so it is refused."""
    x = np.ones((2, 2) if isinstance(layer, Dense) else (1, 1, 2, 2))
    params = layer.init(np.random.default_rng(0), "float64")
    _, cache = layer.forward(params, x, np.ones((2, 4)))
    with pytest.raises(ValueError, match="conditioned on what depends on x"):
        layer.jvp(params, cache, x[None], np.ones((1, 2, 4)))


def test_an_energy_with_dropout_and_labels_has_third_derivatives():
    """Rows that no tangent reaches need no jets; dropout has them."""
    net = Net((
        ("told", Labels(2, 3), ("condition",)),
        ("a", Dense(2, 4, 3, learned=True), ("x", "told")),
        ("act", GELU(), ("a",)),
        ("drop", Dropout(4, 0.5), ("act", "uniform")),
        ("both", Concat(), ("drop", "a")),
        ("out", Dense(8, 1), ("both",)),
    ))  # fmt: skip
    rng = np.random.default_rng(0)
    xs = [rng.standard_normal((3, 2)), np.array([0, 2, 1]), rng.random((3, 4))]
    check_all(subject(net, NUMPY, xs, 0, 2, fixed=[1, 2]), 0)


@pytest.mark.parametrize("objective", [Denoising(), Implicit()])
def test_an_energy_of_other_activations_trains(objective):
    model = EnergyModel(MLP((2, 4, 1), activation=GELU()), VP(), predict="score")
    theta = random_theta(model, 0)
    loss, grad = objective(model, theta, np.random.default_rng(0).standard_normal((5, 2)), np.random.default_rng(1))
    assert np.isfinite(loss)
    assert set(views(grad, model.shapes)) == set(model.shapes)


# ------------------------------------------------------------------ refusals


@pytest.mark.parametrize(("make", "words"), [
    (lambda: Conv(2, 2, kernel=2), "kernel must be odd"), (lambda: Conv(3, 4, groups=2), "2 groups do not divide 3"),
    (lambda: Conv(0, 1), "n_in must be"), (lambda: Conv(1, 1, stride=0), "stride must be"),
    (lambda: Conv(1, 1, gain=0.0), "gain must be positive"), (lambda: GroupNorm(6, 4), "4 groups do not divide 6"),
    (lambda: GroupNorm(4, 2, eps=0.0), "eps must be positive"), (lambda: Attention(0), "heads must be"),
    (lambda: Dropout(2, -0.1), "rate must lie in"), (lambda: Labels(0, 2), "classes must be"),
    (lambda: Reshape((2, 3), (5,)), "hold different"),
    (lambda: MLP((2, 3, 2), classes=2, n_condition=1), "a label or a vector"),
    (lambda: MLP((2, 3, 2), classes=-1), "classes must be"),
    (lambda: Conv(2, 2).forward({}, np.ones((3, 3, 1, 3))), r"takes images \(H, W, B, 2\); got \(3, 3, 1, 3\)"),
    (lambda: Attention(2).forward({}, np.ones((1, 1, 1, 9))), "divided by the heads; got 9"),
    (lambda: Dropout(3, 0.1, 2).forward({}, np.ones((1, 3)), np.ones((1, 4))), "columns 2 to 5 of u, which has 4"),
])  # fmt: skip
def test_what_cannot_be_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()
