"""The U-Net: its derivatives at any shape, what it answers to, and that every objective can train it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refscore import (
    VP,
    Adam,
    Denoising,
    EnergyModel,
    Explicit,
    FiniteDifference,
    Implicit,
    ScoreModel,
    Sliced,
    UNet,
    fit,
)
from refscore.arrays import views
from refscore.matching.objectives import OBJECTIVES
from refscore.matching.times import FixedTime, UniformTime
from refscore.nn import ELU, GELU, Attention, Dropout, SiLU, Tanh
from refscore_backends.numpy import NumpyBackend
from tests.oracles.backends import ReadOnlyNumpy
from tests.oracles.close import assert_close
from tests.oracles.derivatives import (
    METHODS,
    check_all,
    check_backward,
    check_dtype,
    check_everywhere,
    check_jvp,
    subject,
)
from tests.oracles.marks import on_every_backend, on_every_device
from tests.oracles.models import random_theta
from tests.oracles.strategies import few, seeds
from tests.oracles.waiting import BACKEND, nobody_waits

NUMPY = NumpyBackend()
TINY = {"embed": 4, "cond": 3, "groups": 2}


def asked(net, seed, B, height, width, channels=1, shared=False):
    """All inputs of a net, and which of them are constants of the sample."""
    rng = np.random.default_rng([seed, 5])
    n = 1 if shared else B
    of = {
        "x": rng.standard_normal((B, height, width, channels)),
        "level": rng.uniform(-3, 2, n),
        "uniform": rng.random((B, net.uniforms)),
    }
    layers = {name: layer for name, layer, _ in net.rows}
    if "told" in layers:
        classes = getattr(layers["told"], "classes", 0)
        of["condition"] = rng.integers(0, classes + 1, n) if classes else rng.standard_normal((n, layers["told"].n_in))
    return [of[name] for name in net.inputs]


nets = st.fixed_dictionaries({
    "widths": st.lists(st.sampled_from([8, 12]), min_size=1, max_size=3),
    "blocks": st.integers(1, 2), "attention": st.sampled_from([(), (-1,), (0,)]), "heads": st.integers(1, 2),
    "embed": st.sampled_from([0, 4]), "classes": st.sampled_from([0, 2]), "dropout": st.sampled_from([0.0, 0.3]),
    "scale_shift": st.booleans(), "energy": st.booleans(), "activation": st.sampled_from([None, GELU(), Tanh()]),
})  # fmt: skip


def check_net(check, host, how, seed, channels, B, height, width, K, shared):
    net = UNet(channels, cond=3, groups=2, **how)
    xs = asked(net, seed, B, height, width, channels, shared)
    s = subject(net, host, xs, seed, K, fixed=range(1, len(xs)))
    check(s, seed, jets=False)


sizes = {"seed": seeds, "channels": st.integers(1, 2), "B": st.integers(1, 3), "height": st.integers(1, 7),
         "width": st.integers(1, 7), "K": st.integers(1, 2), "shared": st.booleans()}  # fmt: skip


@few
@given(how=nets, **sizes)
def test_every_unet_is_differentiated_rightly(how, seed, channels, B, height, width, K, shared):
    """By complex steps: where a group has few numbers and they are nearly equal, differences are lost."""
    check_net(check_all, ReadOnlyNumpy(), how, seed, channels, B, height, width, K, shared)


@on_every_backend
def test_a_unet_is_differentiated_rightly_on_every_backend(host):
    how = {"widths": (4, 8), "embed": 4, "classes": 2, "dropout": 0.3, "attention": (-1,), "heads": 2}
    check_net(check_everywhere, host, how, 3, 2, 2, 3, 4, 2, False)
    check_net(check_everywhere, host, how | {"scale_shift": True, "energy": True}, 4, 1, 2, 5, 2, 1, True)


@on_every_device
def test_float32_stays_float32_in_a_unet(host):
    net = UNet(2, (4, 8), classes=3, dropout=0.2, **TINY)
    check_dtype(subject(net, host, asked(net, 0, 3, 5, 4, 2), 0, fixed=range(1, 4)), "float32")


def test_float32_gradients_are_those_of_float64():
    """To 1e-5 of their size, parameter by parameter."""
    net = UNet(1, (16, 32), embed=8, cond=16)
    params = views(random_theta(ScoreModel(net, VP()), 0, 0.05), net.shapes)
    x, level = asked(net, 0, 8, 12, 11)
    y, cache = net.forward(params, x, level)
    _, wide = net.backward(params, cache, y)
    narrow = {name: value.astype("float32") for name, value in params.items()}
    z, cache = net.forward(narrow, x.astype("float32"), level.astype("float32"))
    _, found = net.backward(narrow, cache, z)
    assert_close(z, y, 1e-5 * np.max(np.abs(y)))
    for name, grad in wide.items():
        assert_close(found[name], grad, 1e-5 * np.max(np.abs(grad)), name)


# ------------------------------------------------------------------ what it is


@pytest.mark.parametrize("widths", [(8,), (8, 16), (4, 8, 8, 8)])
@pytest.mark.parametrize("size", [(1, 1), (8, 8), (7, 9), (28, 13)])
def test_images_of_any_size_keep_it_at_any_depth(widths, size):
    net = UNet(3, widths, embed=4, cond=4)
    params = net.init(np.random.default_rng(0), "float32")
    x = np.ones((2, *size, 3), "float32")
    y = net.apply(params, x, np.zeros(2, "float32"))
    assert y.shape == x.shape
    assert y.dtype == x.dtype


def test_the_rows_of_the_usual_net():
    net = UNet(1)
    names = [name for name, _, _ in net.rows]
    assert [name for name in names if "." not in name and "level" not in name] == [
        "fourier", "e", "inside", "first", "pool0", "pool1", "double1", "beside1", "double0", "beside0",
        "norm", "act", "last", "outside",
    ]  # fmt: skip
    assert [name for name in names if name.count(".") == 1] == [
        f"{way}.0" for way in ("down0", "down1", "down2", "up2", "up1", "up0")
    ]
    assert [name for name, layer, _ in net.rows if isinstance(layer, Attention)] == ["down2.0.attention"]
    assert net.inputs == ("x", "level")
    assert net.uniforms == 0


def test_samples_of_a_batch_do_not_meet():
    net = UNet(1, (4, 8), classes=2, **TINY)
    params = net.init(np.random.default_rng(0), "float64")
    xs = asked(net, 0, 5, 6, 5)
    whole = net.apply(params, *xs)
    for b in range(5):
        assert_close(net.apply(params, *(x[b : b + 1] for x in xs)), whole[b : b + 1], 1e-13 * np.max(np.abs(whole)))


def test_a_level_or_label_for_all_is_the_same_repeated():
    net = UNet(1, (4, 8), classes=2, scale_shift=True, **TINY)
    params = net.init(np.random.default_rng(0), "float64")
    x = asked(net, 0, 3, 4, 4)[0]
    one = net.apply(params, x, np.array([0.3]), np.array([1]))
    each = net.apply(params, x, np.full(3, 0.3), np.full(3, 1))
    assert_close(one, each, 1e-13 * np.max(np.abs(each)))
    assert np.max(np.abs(net.apply(params, x, np.array([0.3]), np.array([2])) - one)) > 1e-3 * np.max(np.abs(one))


def test_every_dropout_reads_columns_of_its_own():
    net = UNet(1, (4, 8), dropout=0.5, **TINY)
    drops = [layer for _, layer, _ in net.rows if isinstance(layer, Dropout)]
    columns = [c for layer in drops for c in range(layer.offset, layer.offset + layer.n)]
    assert columns == list(range(net.uniforms))
    assert len(drops) == 4
    params = net.init(np.random.default_rng(0), "float64")
    x, level, u = asked(net, 0, 3, 4, 4)
    off = net.apply(params, x, level, None)
    assert np.array_equal(off, UNet(1, (4, 8), **TINY).apply(params, x, level))
    assert not np.array_equal(off, net.apply(params, x, level, u))


def test_groups_that_do_not_divide_become_the_greatest_that_do():
    norms = {layer.n: layer.groups for name, layer, _ in UNet(1, (6, 12), groups=8).rows if "norm" in name}
    assert norms == {6: 2, 12: 4, 18: 2}


@pytest.mark.parametrize(("how", "words"), [
    ({"widths": ()}, "widths must name"), ({"attention": (3,)}, r"attention at levels \[3\], of 3"),
    ({"attention": (-4,)}, r"levels \[-4\]"), ({"blocks": 0}, "blocks must be an integer of at least 1"),
    ({"classes": 2, "n_condition": 3}, "a label or a vector"), ({"dropout": 1.0}, r"rate must lie in \[0, 1\)"),
    ({"groups": 0}, "groups must be"), ({"heads": 3}, "3 heads do not divide the 64 channels"),
    ({"embed": 3}, "must be even"), ({"widths": (0, 2)}, "at least 1"), ({"cond": 0}, "at least 1"),
])  # fmt: skip
def test_a_unet_refuses_what_cannot_be(how, words):
    with pytest.raises(ValueError, match=words):
        UNet(1, **how)
    with pytest.raises(TypeError, match="activation must be a layer"):
        UNet(1, activation=SiLU)


# ------------------------------------------------------------------ as the body of a model


@few
@given(
    seed=seeds, B=st.integers(1, 2), height=st.integers(2, 4), width=st.integers(2, 4), embed=st.sampled_from([0, 4])
)
def test_every_pass_of_an_energy_of_images_is_right(seed, B, height, width, embed):
    """All but the last, third derivatives: for these a U-Net has no jets."""
    net = UNet(1, (2, 4), embed=embed, cond=3, groups=2, energy=True, activation=Tanh())
    model = EnergyModel(net, VP(), data_std=1.3)
    theta, rng = random_theta(model, seed), np.random.default_rng(seed)
    x, v, t = *rng.standard_normal((2, B, height, width, 1)), rng.uniform(0.2, 1.0, B)
    slope = model.bind_energy(theta + 0j)(x + 1e-30j * v, t).imag / 1e-30
    s = model.bind(theta)(x, t)
    assert_close(np.sum(s * v, axis=(1, 2, 3)), -slope, 1e-12 * (1 + np.sum(np.abs(s))), "Eq. (4.2)")
    of = subject(model, NUMPY, [x, t], seed, live=[True], fixed=[1])
    for method in METHODS:
        check_jvp(of, method)
        check_backward(of, seed, method)


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("told", [0, 4])
def test_every_objective_trains_a_unet_and_none_waits(name, told):
    net = UNet(1, (2, 4), embed=told, cond=3, groups=2)
    model = ScoreModel(net, VP(), predict="noise" if told else "score")
    times = UniformTime() if told or name == "denoising" else FixedTime(0.0)
    objective = type(OBJECTIVES[name])(**({"score": lambda x, t: -x} if name == "explicit" else {}), times=times)
    x0 = BACKEND.asarray(np.random.default_rng(0).standard_normal((6, 3, 3, 1)), dtype="float32")
    states = fit(model, objective, x0, Adam(1e-3), BACKEND.rng(0), steps=2, batch=2)
    with nobody_waits():
        state = next(states)
    assert np.isfinite(float(state.loss))


@pytest.mark.parametrize("objective", [Denoising(), Explicit(lambda x, t: -x, times=FixedTime(0.5)),
                                       FiniteDifference(times=FixedTime(0.5))])  # fmt: skip
def test_an_energy_of_images_trains(objective):
    model = EnergyModel(UNet(1, (4, 8), energy=True, **TINY), VP())
    x0 = np.random.default_rng(0).standard_normal((16, 4, 5, 1)).astype("float32")
    states = list(fit(model, objective, x0, Adam(1e-3), np.random.default_rng(0), steps=3, batch=4))
    assert np.isfinite(float(states[-1].loss))


@pytest.mark.parametrize("objective", [Implicit(times=FixedTime(0.5)), Sliced(times=FixedTime(0.5))])
def test_an_energy_of_images_has_no_third_derivatives(objective):
    model = EnergyModel(UNet(1, (4, 8), energy=True, **TINY), VP())
    theta = model.init(np.random.default_rng(0))
    with pytest.raises(TypeError, match="row 'first': Conv has no passes jet and jet_backward"):
        objective(model, theta, np.ones((2, 4, 4, 1), "float32"), np.random.default_rng(0))


def test_a_unet_learns_that_one_image_is_all_there_is():
    """x₀ always the same image: the loss falls far below that of the answer 0."""
    x0 = np.broadcast_to(np.sin(np.arange(64.0)).reshape(8, 8, 1), (32, 8, 8, 1)).astype("float32")
    model = ScoreModel(UNet(1, (8, 16), embed=8, cond=16, activation=ELU()), VP(), data_std=0.7)
    states = fit(model, Denoising(), x0, Adam(3e-3), np.random.default_rng(0), steps=120, batch=16)
    losses = [float(state.loss) for state in states]
    assert np.mean(losses[-20:]) < 0.3 * np.mean(losses[:5])
