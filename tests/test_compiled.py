"""Compiled functions do what the functions do: every step, every objective, layers; as programs and as kernels.

The kernels written for a GPU are run here on the host: their C goes through the host's C++ compiler.
"""

import copy
import pickle
import warnings
import weakref
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import array_api_compat.numpy as xp_numpy
import numpy as np
import pytest

from refscore import (
    EMA,
    MLP,
    SGD,
    VE,
    VP,
    Adam,
    Denoising,
    EnergyModel,
    EulerMaruyama,
    ExactScore,
    First,
    Langevin,
    Reverse,
    ScoreModel,
    Sliced,
    Stay,
    SubVP,
    Then,
    UNet,
    fit,
    simulate,
)
from refscore.laws.examples import mixture
from refscore.matching.objectives import OBJECTIVES
from refscore.matching.times import UniformTime
from refscore.nn import shifts
from refscore.sampling.guidance import Guided, Replace
from refscore.sampling.langevin import LevelStep
from refscore.sampling.loop import last
from refscore.sampling.transitions import DDIM, SAMPLERS
from refscore.training.optim import WarmupCosine
from refscore.training.parallel import Sharded
from refscore_backends.recorded import cuda
from refscore_backends.recorded.compiled import MOST, Compiled, NotCompiledWarning
from refscore_backends.recorded.plain import build
from refscore_backends.recorded.plan import Assemble, Call, Elementwise, Plan, Product, Reduce, View
from refscore_backends.recorded.structure import Leaves
from refscore_backends.recorded.tape import RecordedRng, Tape
from refscore_backends.strict import StrictBackend
from tests.oracles.close import assert_close
from tests.oracles.cuda_on_host import as_program, needs_compiler, planned

STRICT = StrictBackend()
P = mixture("tilted", np.asarray, "float64")
TIMES = [1.0, 0.8, 0.6, 0.4, 0.2, 0.1, 0.05]
X = np.random.default_rng(1).standard_normal((5, 2))


STEPS = SAMPLERS | {
    "langevin": lambda sde, score: First(Langevin(score, 1e-3), Stay()),
    "predictor-corrector": lambda sde, score: Then(DDIM(sde, score), Langevin(score, LevelStep(sde, 1e-4, 0.1))),
    "replace": lambda sde, score: Replace(DDIM(sde, score), sde, np.ones((1, 2)), np.array([[True, False]]), 2),
    "guided": lambda sde, score: DDIM(sde, Guided(score, lambda x, t: -x, 2.0)),
}


def walked(step, times, seed=0):
    return list(simulate(step, X, times, np.random.default_rng(seed)))


# ---------------------------------------------------------------- programs: the same bits


@pytest.mark.parametrize("sde", [VP(), VE(1e-2, 5.0), SubVP()], ids=lambda sde: type(sde).__name__)
@pytest.mark.parametrize("make", STEPS.values(), ids=STEPS)
def test_every_step_as_a_program_gives_the_same_bits(make, sde):
    step = make(sde, ExactScore(P, sde))
    compiled = as_program(step)
    for grid in (TIMES, TIMES[::2]):
        for found, wanted in zip(walked(compiled, grid), walked(step, grid), strict=True):
            assert np.array_equal(found, wanted)
    assert sum(map(len, compiled.programs.values())) <= 4  # whatever the times are


@pytest.mark.parametrize("name", ["ancestral", "ddim", "dpm-solver++2m", "edm"])
def test_a_step_that_ends_without_noise_is_a_program_of_its_own(name):
    step = SAMPLERS[name](VP(), ExactScore(P, VP()))
    compiled = as_program(step)
    assert all(map(np.array_equal, walked(compiled, [*TIMES, 0.0]), walked(step, [*TIMES, 0.0])))
    assert max(map(len, compiled.programs.values())) == 2


def trained(objective, model, data, compile, optimizer=Adam(1e-3), **more):  # noqa: B008
    rng = np.random.default_rng(1)
    return list(fit(model, objective, data, optimizer, rng, steps=4, batch=8, ema=EMA(0.9), compile=compile, **more))


def same_training(found, wanted):
    for a, b in zip(found, wanted, strict=True):
        assert (a.step, a.average.step, a.average.weight) == (b.step, b.average.step, b.average.weight)
        for name in ("theta", "loss", "grad_norm", "first_loss"):
            assert np.array_equal(getattr(a, name), getattr(b, name))
        assert np.array_equal(a.average.value + a.average.low, b.average.value + b.average.low)


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
@pytest.mark.parametrize("energy", [False, True], ids=["score", "energy"])
def test_training_as_a_program_gives_the_same_bits(objective, energy):
    kind, out = (EnergyModel, 1) if energy else (ScoreModel, 2)
    model = kind(MLP((2, 8, 8, out), embed=4), VP(), data_std=1.6)
    objective = replace(objective, times=UniformTime())
    data = np.random.default_rng(3).standard_normal((40, 2), dtype=np.float32)
    for optimizer in (Adam(WarmupCosine(1e-3, 10, warmup=2)), SGD(1e-3, 0.9)):
        same_training(*(trained(objective, model, data, c, optimizer, max_norm=1.0) for c in (as_program, None)))


def test_labels_dropout_and_a_law_of_the_data_are_compiled_too():
    rng = np.random.default_rng(5)
    data = rng.standard_normal((20, 8, 8, 1), dtype=np.float32), rng.integers(0, 3, 20)
    unet = ScoreModel(UNet(1, widths=(8, 16), classes=3, dropout=0.1), VE())
    same_training(*(trained(Denoising(), unet, data, c, unlabelled=0.2) for c in (as_program, None)))
    model = ScoreModel(MLP((2, 4, 2), embed=4), VP(), data_std=1.6)
    law = mixture("tilted", np.asarray, "float32")
    same_training(*(trained(Denoising(), model, law, c) for c in (as_program, None)))


def test_the_shards_of_a_batch_are_compiled_with_generators_of_their_own():
    model = ScoreModel(MLP((2, 8, 2), embed=4), VP(), data_std=1.6)
    data = np.random.default_rng(3).standard_normal((40, 2), dtype=np.float32)
    same_training(*(trained(Sharded(Denoising(), 2), model, data, c) for c in (as_program, None)))


def test_fit_says_what_compile_is():
    with pytest.raises(TypeError, match=r"such as backend\.compile; got True"):
        trained(Denoising(), ScoreModel(MLP((2, 4, 2), embed=4), VP()), X, True)


def test_a_generator_that_cannot_spawn_is_named():
    one = RecordedRng(Tape(xp_numpy), 0, object())
    with pytest.raises(TypeError, match="can spawn others is needed, and a object cannot"):
        one.spawn(2)


def test_a_program_runs_on_a_device_that_refuses_every_transfer():
    p = mixture("tilted", STRICT.asarray, "float64")
    step = EulerMaruyama(Reverse(VP(), ExactScore(p, VP())))
    found, wanted = (last(simulate(s, STRICT.asarray(X), TIMES, STRICT.rng(0))) for s in (STRICT.compile(step), step))
    assert np.array_equal(STRICT.to_numpy(found), STRICT.to_numpy(wanted))
    assert found.device == wanted.device


def test_a_walk_ends_where_a_simulation_does():
    step = SAMPLERS["dpm-solver++2m"](VP(), ExactScore(P, VP()))
    assert np.array_equal(as_program(step).walk(X, TIMES, np.random.default_rng(0)), walked(step, TIMES)[-1])


# ---------------------------------------------------------------- what a program is good for


def test_a_branch_on_a_number_is_a_program_of_its_own():
    f = as_program(lambda x, t: x + 1 if t > 0.5 else x * 2)
    for t in (0.9, 0.1, 0.8, 0.2):
        assert np.array_equal(f(X, t), X + 1 if t > 0.5 else X * 2)
    [programs] = f.programs.values()
    assert len(programs) == 2


def test_other_shapes_and_dtypes_are_programs_of_their_own():
    f = as_program(lambda x: x * 3)
    for x in (X, X[:2], X.astype("float32")):
        assert f(x).dtype == x.dtype
        assert np.array_equal(f(x), 3 * x)
    assert len(f.programs) == 3


def test_a_number_that_is_looked_at_gives_up_in_the_end_and_stays_right():
    def f(x, t):
        return x * float(t)

    compiled = as_program(f)
    with pytest.warns(NotCompiledWarning, match=f"f looks at the value of a number.*after {MOST} of them"):
        found = [compiled(X, i / 8) for i in range(MOST + 3)]
    assert all(np.array_equal(x, X * (i / 8)) for i, x in enumerate(found))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(compiled(X, 0.3), X * 0.3)  # without another word


@pytest.mark.parametrize("look", [float, bool, int, list, np.asarray], ids=lambda look: look.__name__)
def test_the_values_of_an_array_are_not_looked_at(look):
    with pytest.raises(TypeError, match="may not look at the values of an array"):
        as_program(lambda x: x * look(x[0, 0]))(X)


def test_an_integer_that_is_a_shape_is_one_of_the_program():
    f = as_program(lambda n, rng: rng.standard_normal((n, 2)))
    for n in (3, 4, 3):
        assert np.array_equal(f(n, np.random.default_rng(n)), np.random.default_rng(n).standard_normal((n, 2)))


def test_a_generator_is_left_where_the_function_leaves_it():
    def f(x, rng):
        return x + rng.standard_normal(x.shape) * rng.random(x.shape), rng.integers(0, 9, (3,))

    one, other = np.random.default_rng(4), np.random.default_rng(4)
    for _ in range(3):
        assert all(map(np.array_equal, as_program(f)(X, one), f(X, other)))
    assert one.bit_generator.state == other.bit_generator.state


class Pair(NamedTuple):
    a: Any
    b: Any


@dataclass(frozen=True)
class Affine:
    factor: Any
    shift: Any

    def __call__(self, x, more):
        return Pair(self.factor * x + self.shift, {"n": more["n"] + 1, "rest": [more["y"], None, "word", True]})


def test_structures_go_in_and_come_out():
    f = Affine(2.0, np.ones(2))
    made = as_program(f)(X, {"n": 3, "y": X[:1]})
    assert np.array_equal(made.a, 2 * X + 1)
    assert isinstance(made, Pair)
    assert (made.b["n"], made.b["rest"][1:]) == (4, [None, "word", True])
    assert np.array_equal(made.b["rest"][0], X[:1])
    held = np.full(2, 5.0)  # in a function's closure
    assert np.array_equal(as_program(lambda x: x + held)(X), X + 5)
    pair, size = (held, 2.0), (1, 4)
    assert np.array_equal(as_program(lambda x: (x[size[0] : size[1], :] + pair[0]) * pair[1])(X), 2 * (X[1:4] + 5))


def test_arguments_are_never_written_into():
    def f(x, z):
        y = np.zeros(()) if False else z.__array_namespace__().zeros((4, 2), dtype=z.dtype)
        y = y.at[1:3, :].set(z) if hasattr(y, "at") else y
        return y, x * 2

    z = np.ones((2, 2))
    z.flags.writeable = False
    made = as_program(f)(X, z)[0]
    assert made.tolist() == [[0, 0], [1, 1], [1, 1], [0, 0]]
    again = as_program(lambda y, z: (y.at[0:1, :].set(z[:1, :]), y))(X, z)
    assert np.array_equal(again[1], X)
    assert again[0][0].tolist() == [1, 1]


def test_the_program_can_be_read():
    def read(x, t):
        xp = x.__array_namespace__()
        x * t  # read by nobody
        return xp.tanh(0.5 * x) @ xp.matrix_transpose(x)

    f = as_program(read)
    f(X, 0.5)
    [[program]] = f.programs.values()
    assert str(program).splitlines()[0].endswith("= 0.5 * a1")
    assert "xp.tanh(" in str(program)
    assert len(program.tape.lines) == 4


# ---------------------------------------------------------------- kernels: the host's C++ compiler runs CUDA's text


def forms(x, y):
    """Every elementwise form, on numbers that hold NaN, infinities and zeros of both signs."""
    xp = x.__array_namespace__()
    u, v = abs(x) + 0.5, x > y
    return (
        x + y, x - y, x * y, x / u, -x, abs(x), x**2, u**0.5, u**-1, u**-0.5, u**3, u**1.7, 2.0**y, xp.exp(x),
        xp.expm1(x), xp.log(u), xp.log1p(u), xp.sqrt(u), xp.tanh(x), xp.sin(x), xp.cos(x), xp.tan(x), xp.asinh(x),
        xp.atan2(x, u),
        xp.square(x), xp.maximum(x, y), xp.minimum(x, y), xp.where(v, x, y), xp.where(v, x, 0.0), xp.isfinite(x),
        v & (x < 0), v | (x < 0), v ^ (x < 0), ~v, xp.logical_and(v, x < 0), xp.logical_or(v, ~v), xp.logical_not(v),
        xp.astype(v, x.dtype), x <= y, x >= y, x == y, x != y, xp.full_like(x, 0.3), 1.0 / u, x * float("inf"),
        xp.astype(x > 0, xp.int64) * 3, xp.positive(x), xp.real(x), xp.zeros_like(x) + 1, xp.ones_like(x) - 2,
    )  # fmt: skip


@needs_compiler
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_elementwise_form_in_c_is_numpys(dtype):
    rng = np.random.default_rng(0)
    x, y = (3 * rng.standard_normal((7, 5)).astype(dtype) for _ in range(2))
    x[0], y[:2, 0] = [np.nan, np.inf, -np.inf, 0.0, -0.0], np.nan
    with np.errstate(all="ignore"):
        wanted = forms(xp_array(x), xp_array(y))
        found = planned(forms)(x, y)
    for i, (a, b) in enumerate(zip(found, wanted, strict=True)):
        b = np.asarray(b)
        assert a.dtype == b.dtype, i
        assert np.array_equal(np.isnan(a), np.isnan(b)), i
        sound = np.isfinite(b)
        assert np.array_equal(a[~sound], b[~sound], equal_nan=True), i
        a, b = (np.asarray(each, dtype) for each in (a, b))
        assert_close(a[sound], b[sound], 8 * np.finfo(dtype).eps * (1 + abs(b[sound])), i)


def xp_array(x):
    """NumPy's array; its namespace is that of array-api-compat."""

    class WithNamespace(np.ndarray):
        def __array_namespace__(self, api_version=None):
            return xp_numpy

    return x.view(WithNamespace)


def places(x):
    """Views of views, and arrays put together of them."""
    xp = x.__array_namespace__()
    a = x[1:, ::2, :][..., ::-1][:, None, :, 1]
    b = xp.reshape(xp.permute_dims(x, (2, 0, 1)), (4, -1))
    c = xp.matrix_transpose(x)[0, ...] @ xp.flip(x, axis=(0, 1))[1, ...]
    d = xp.broadcast_to(x[:1, :, :1], x.shape) + x
    e = xp.concat([x[:, :2, :], 2 * x, x[:, -1:, :]], axis=1)
    f = xp.stack([x[0, ...], x[1, ...] + 1], axis=-1)
    g = put_in(xp.zeros((5, 9, 4), dtype=x.dtype), (slice(1, 4), slice(0, 9, 2), slice(None)), x)
    h = put_in(x + 0, (..., slice(2, 3)), x[:, :, :1])
    i = xp.reshape(g[1:4, ::2, :], (-1, 4)) @ xp.reshape(x, (4, 15)) + xp.reshape(x[0, ...], (20,))[:15]
    return a, b, c, d, e, f, g, h, i, xp.reshape(a, (-1,)), x[2, 3, 1], b[None, 2:, ::3], x @ x[0, :4, :]


def put_in(y, where, values):
    if hasattr(y, "at"):
        return y.at[where].set(values)
    y = np.array(y)
    y[where] = values
    return y


@needs_compiler
def test_views_and_parts_lie_where_numpy_says():
    x = np.random.default_rng(0).standard_normal((3, 5, 4))
    for found, wanted in zip(planned(places)(x), places(xp_array(x)), strict=True):
        assert found.shape == wanted.shape
        assert_close(found, wanted, 1e-14 * (1 + abs(wanted)))


REDUCED = [
    ((5, 7), None), ((5, 7), 0), ((5, 7), 1), ((5, 7), -1), ((3, 4, 5), (0, 2)), ((3, 4, 5), (0, 1, 2)), ((3, 4, 5), 1),
    ((400, 3), 0), ((2, 600), 1), ((3, 200), -1), ((40, 33), 0), ((1, 6), 0), ((6, 1), 1), ((1500,), None),
]  # fmt: skip


@needs_compiler
def test_sums_and_extremes_over_any_axes_are_numpys():
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape) - 5 for shape, _ in REDUCED]  # below 0: a forgotten 0 would be the maximum

    def f(*arrays):
        xp = arrays[0].__array_namespace__()
        return [
            getattr(xp, name)(a * a * a, axis=axis, keepdims=keep)
            for i, (a, (_, axis)) in enumerate(zip(arrays, REDUCED, strict=True))
            for name, keep in ((("sum", False), ("min", True)), (("max", False), ("mean", True)))[i % 2]
        ]

    for found, wanted in zip(planned(f)(*arrays), f(*map(xp_array, arrays)), strict=True):
        assert found.shape == wanted.shape
        assert_close(found, wanted, 1e-13 * abs(wanted))


EDM = pytest.param("edm-churn", marks=pytest.mark.slow)  # its text is long


@needs_compiler
@pytest.mark.parametrize("name", ["euler-maruyama", "dpm-solver++2m", EDM])
def test_steps_as_kernels_end_where_the_steps_do(name):
    step = SAMPLERS[name](VP(), ExactScore(P, VP()))
    for found, wanted in zip(walked(planned(step), TIMES), walked(step, TIMES), strict=True):
        assert_close(found, wanted, 1e-12 * (1 + abs(wanted)))


def gradients_agree(objective, model, x0, z):
    rng = np.random.default_rng(2)
    f = lambda model, theta, x0, t, z: objective.at(model, theta, x0, t, z)  # noqa: E731
    args = model, model.init(rng, "float64"), x0, np.linspace(0.1, 0.9, len(x0)), z
    (loss, grad), (wanted, wanted_grad) = (g(*args) for g in (planned(f), f))
    assert_close(loss, wanted, 1e-12 * abs(wanted))
    assert_close(grad, wanted_grad, 1e-12 * np.max(abs(wanted_grad)))


@needs_compiler
@pytest.mark.parametrize("objective", [Denoising(), Sliced()], ids=["denoising", "sliced"])
def test_gradients_as_kernels_are_the_gradients(objective):
    rng = np.random.default_rng(0)
    model = ScoreModel(MLP((2, 8, 8, 2), embed=4), VP(), data_std=1.6)
    z = rng.standard_normal((8, 2)) if isinstance(objective, Denoising) else rng.choice([-1.0, 1.0], (1, 8, 2))
    gradients_agree(objective, model, rng.standard_normal((8, 2)), z)


@needs_compiler
@pytest.mark.slow
def test_a_unets_gradient_as_kernels_is_its_gradient(monkeypatch):
    """In the form for GPUs: one product for all shifts of a kernel."""
    rng = np.random.default_rng(0)
    monkeypatch.setattr(shifts, "side_by_side", lambda x, channels: True)
    model = ScoreModel(UNet(1, widths=(8, 16), classes=3), VE()).told(rng.integers(0, 3, 8))
    x, z = rng.standard_normal((2, 8, 8, 8, 1))
    gradients_agree(Denoising(), model, x, z)


def plan_of(function, *args):
    plans = []

    def build_plan(program):
        plans.append(Plan(program))
        return build(program, xp_numpy)

    Compiled(function, build_plan, lambda: np.random.default_rng(0))(*args)
    return plans[0]


def test_an_optimiser_with_its_average_is_one_kernel():
    adam, ema = Adam(1e-3), EMA(0.9)
    theta = np.ones(50)

    def f(grad, state, average, theta):
        theta, state = adam.update(grad, state, theta)
        return theta, state, ema.update(average, theta)

    steps = plan_of(f, theta, adam.init(theta), ema.init(theta), theta).steps
    assert [type(step) for step in steps] == [Elementwise]
    assert len(steps[0].outs) == 5  # theta, m, v, the average in two parts


def test_a_layer_forward_is_a_product_and_a_kernel():
    layer = MLP((2, 8, 2))
    steps = plan_of(
        lambda params, x: layer.forward(params, x), layer.init(np.random.default_rng(0)), X.astype("float32")
    )
    kinds = [type(step) for step in steps.steps]
    assert kinds.count(Product) == 2
    assert len(kinds) <= 4
    assert Call not in kinds


def test_a_plan_does_not_depend_on_names():
    """Nor then on the order of a set of names, which is another one in each process."""
    net, rng = MLP((2, 8, 8, 2)), np.random.default_rng(0)
    params, v = net.init(rng, "float64"), X[None]

    def passes(params, x, v, unread):
        for factor in range(unread):
            x * (factor + 2.5)
        _, cache = net.forward(params, x)
        _, tape = net.jvp(params, cache, v)
        return net.jvp_backward(params, cache, tape, x, v)

    plans = [plan_of(partial(passes, unread=n), params, X, v) for n in range(30)]
    assert len({tuple(type(step).__name__ for step in plan.steps) for plan in plans}) == 1


def test_a_square_in_a_sum_is_not_written_down():
    [step] = plan_of(lambda x: x.__array_namespace__().sum(x * x, axis=0), X).steps
    assert isinstance(step, Reduce)
    assert step.inner.outs == ()


def test_a_frame_of_zeros_is_one_kernel():
    [step] = plan_of(lambda x: shifts.padded(x, (1, 1), (1, 1)), np.ones((3, 3, 2, 1))).steps
    assert isinstance(step, Assemble)


# ---------------------------------------------------------------- what was wrong once


def agrees(function, *args, ways=(as_program,)):
    """The same bits, types and shapes at each of two calls."""
    for way in ways:
        compiled = way(function)
        for _ in range(2):
            for found, wanted in zip(compiled(*args), function(*args), strict=True):
                assert np.shape(found) == np.shape(wanted)
                assert getattr(found, "dtype", float) == getattr(wanted, "dtype", float)
                assert np.array_equal(found, wanted)


def test_a_negative_number_has_brackets():
    agrees(
        lambda x, n: (((-2.0) ** np.asarray(x)) if isinstance(x, np.ndarray) else (-2.0) ** x, (-2.0) ** n), X // 1, 2
    )


def test_numbers_and_arrays_with_a_plus():
    agrees(lambda x, t: (+x, +t), X, 0.5)


def test_a_number_that_is_a_shape_or_an_axis_is_one_of_the_program():
    f = as_program(lambda x, n: x[0, 0] + x.__array_namespace__().zeros((n, 2)).shape[0])
    assert [f(X, n) - X[0, 0] for n in (3, 4, 3)] == pytest.approx([3, 4, 3])
    f = as_program(lambda x, n: x.__array_namespace__().arange(n).shape[0] + x)
    assert all(np.array_equal(f(X, n), X + n) for n in (2, 5, 2))


@pytest.mark.parametrize(
    "look", [lambda x: x[x > 0], lambda x: x.__array_namespace__().nonzero(x)], ids=["mask", "nonzero"]
)
def test_a_shape_that_values_decide_is_refused(look):
    with pytest.raises(TypeError, match="may not look at the values of an array"):
        as_program(look)(X)


def test_numpys_own_numbers_are_numbers():
    f = as_program(lambda x, t: x + t if t > 0.5 else x * (t * np.float64(2)))
    for t in (np.float64(0.9), np.float32(0.25), np.int64(1), 0.9):
        wanted = X + t if t > 0.5 else X * (t * 2)
        assert np.array_equal(f(X, t), wanted)
    assert f(X.astype("float32"), np.float64(0.9)).dtype == "float32"  # as everywhere in refscore


def test_two_and_two_point_nought_are_programs_of_their_own():
    f = as_program(lambda k, n: (k * n, k.__array_namespace__().full(k.shape, n)))
    for n, kind in ((2, "int64"), (2.0, "float64"), (2.5, "float64"), (2, "int64")):
        assert [str(a.dtype) for a in f(np.arange(3), n)] == [kind] * 2
    assert len(f.programs) == 2  # kernels compute in the type of the first


def test_a_nought_that_is_looked_at_has_its_sign():
    f = as_program(lambda x, t: x + np.copysign(1.0, float(t)))
    assert np.array_equal(f(X, 0.0), X + 1)
    assert np.array_equal(f(X, -0.0), X - 1)


def test_a_function_that_only_draws_has_a_namespace():
    f = lambda rng: np.tanh(rng.standard_normal((3,)))  # noqa: E731
    found = as_program(lambda rng: (z := rng.standard_normal((3,))).__array_namespace__().tanh(z))(
        np.random.default_rng(1)
    )
    assert np.array_equal(found, f(np.random.default_rng(1)))


def test_what_is_seen_through_a_view_is_not_written_into():
    def f(x):
        zero = x.__array_namespace__().zeros((4, 2))
        before, y = zero[:1, :], zero.at[0:4, :].set(x[:4, :])
        seen = y[1:3, :]
        return before, seen, y.at[1:2, :].set(-x[:1, :])

    before, seen, y = as_program(f)(X)
    assert before.tolist() == [[0, 0]]
    assert np.array_equal(seen, X[1:3])
    assert np.array_equal(y[1], -X[0])


def test_a_constant_of_the_answer_is_the_callers_own():
    for way in (as_program, planned):
        f = way(lambda x: (x.__array_namespace__().ones((2,)), x.__array_namespace__().eye(2) @ x[:2, :2]))
        f(X)[0][:] = 7
        assert f(X)[0].tolist() == [1, 1]


def test_arrays_of_the_first_call_are_not_kept():
    def f(x):
        y = x + 1
        seen.append(weakref.ref(y.value))
        y = y * 2
        seen.append(seen[0]() is None)  # dropped while it is recorded, as it would be without
        return y

    seen, x, compiled = [], np.ones(3), as_program(f)
    compiled(x)
    assert seen[1]
    given = weakref.ref(x)
    del x
    assert given() is None


@dataclass(frozen=True, slots=True)
class Slotted:
    factor: Any
    shift: float

    def __call__(self, x):
        return Slotted(self.factor * x, self.shift)


def test_dataclasses_with_slots_go_in_and_come_out():
    made = as_program(lambda s, x: s(x))(Slotted(np.ones(2), 3.0), X)
    assert (type(made), made.shift) == (Slotted, 3.0)
    assert np.array_equal(made.factor, X)
    assert np.array_equal(as_program(Slotted(np.ones(2), 3.0))(X).factor, X)


def test_a_function_may_call_itself():
    def twice(x, n):
        return x if n == 0 else twice(2 * x, n - 1)

    assert np.array_equal(as_program(twice)(X, 3), 8 * X)

    @as_program
    def decorated(x, n):
        return x if n == 0 else decorated.function(2 * x, n - 1)

    assert np.array_equal(decorated(X, 3), 8 * X)


def test_a_generator_inside_a_function_is_refused():
    rng = np.random.default_rng(0)
    for function in (partial(lambda rng, x: x + rng.random(), rng), lambda x: x + rng.random(), Slotted(rng, 0.0)):
        with pytest.raises(TypeError, match="given its generator as an argument"):
            as_program(function)
    with pytest.raises(TypeError, match="does not answer with a generator"):
        as_program(lambda rng: rng)(rng)


def test_what_is_no_structure_is_refused():
    with pytest.raises(TypeError, match=r"takes arrays, numbers, generators.*got a set"):
        as_program(lambda x, s: x)(X, {1})


def test_a_compiled_function_travels_as_the_function():
    compiled = as_program(Affine(2.0, 1.0))
    for made in (pickle.loads(pickle.dumps(compiled)), copy.copy(compiled), copy.deepcopy(compiled)):
        assert made == Affine(2.0, 1.0)


def test_a_compiled_function_in_a_compiled_one_is_part_of_its_program():
    inner = as_program(lambda x: x * 2)
    outer = as_program(lambda x: inner(x) + 1)
    assert np.array_equal(outer(X), 2 * X + 1)
    assert not inner.programs


def test_a_function_given_up_says_so_once_on_a_walk():
    step = as_program(lambda x, t, s, rng, memory: (x * float(t), None))
    with pytest.warns(NotCompiledWarning) as said:
        [step(X, i / 8, 0.0, None, None) for i in range(MOST + 3)]
    assert len(said) == 1
    assert step.find(Leaves(), ()) is None


def test_a_long_chain_of_a_smaller_shape_is_planned_at_once():
    """Each line read twice: looked at without a list of what was seen, 2**60 looks."""

    def f(x):
        y = x[0, :]
        for _ in range(2000):
            y = y + y
        return y + x

    assert plan_of(f, np.zeros((5, 2))).steps


def parts_and_types(x, k):
    """What a kernel must not take for something else: integers, other types, places that are no slices."""
    xp = x.__array_namespace__()
    narrow, zero = xp.astype(x, xp.float32), xp.zeros((4, 2), dtype=x.dtype)
    u, v = xp.broadcast_arrays(x, x[:1, :])
    return (
        k * 0.5, k / 2, k < 1.5, ~k, abs(k), xp.where(k > 1, k, 0.5), (k > 1) * 3, k * narrow[0, 0], k**3, k % 2,
        xp.concat([narrow, x]), xp.concat([x, x], axis=None), xp.stack([narrow, x], axis=1), xp.flip(x, axis=0),
        put_in(zero, (slice(1, 3), slice(None)), narrow[:2, :]), put_in(zero, (slice(1, 3), slice(None)), 0.5),
        put_in(zero, (1, slice(None)), x[0, :]), put_in(zero, (slice(None, None, -1), slice(None)), x[:4, :]),
        u + 1, v + 1, v[1:, :] * 2, put_in(k > 1, (slice(0, 1),), k[:1] > 5), xp.sum(k), xp.sum(x[:0, :], axis=0),
        x[:0, :] + 1, xp.reshape(x[3:0, 1:], (0,)), (x + 1)[5:, :],
    )  # fmt: skip


@needs_compiler
def test_kernels_take_nothing_for_another_type():
    x, k = X, np.arange(4)
    for i, (found, wanted) in enumerate(
        zip(planned(parts_and_types)(x, k), parts_and_types(xp_array(x), xp_array(k)), strict=True)
    ):
        assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype), i
        assert_close(found * 1.0, wanted * 1.0, 1e-15 * (1 + abs(wanted * 1.0)), i)


def test_an_index_beyond_31_bits_is_a_long_one():
    """Of a kernel with many elements, and of one that reads few of a large array."""
    large, few = View("a", (3, 2**30), (2**30, 1)), View("a", (3, 2), (2**30, 1))
    types = {"a": "float32"}
    for view, seen in ((large, "long long"), (few, "long long"), (View("a", (3, 2), (2, 1)), "int")):
        inner = Elementwise((), view.shape, {"a": view}, (), (), types)
        moved = Assemble("b", view.shape, "float32", ((view, ((0, 1), (0, 1))),))
        reduced, *_ = cuda.reduce(Reduce("b", "sum", "a", (1,), inner, view.shape[:1]))
        texts = cuda.elementwise(inner).text, cuda.assemble(moved).text, reduced.text
        assert [f"{seen} i = " in texts[0], f"{seen} c0 = " in texts[1], f"{seen} r = " in texts[2]] == [True] * 3


@needs_compiler
def test_a_nan_is_the_extreme_wherever_it_stands():
    x = np.where(np.eye(9, dtype=bool), np.nan, np.arange(9.0))[:, None, :] * np.ones((9, 4, 9))

    def f(x):
        xp = x.__array_namespace__()
        return [getattr(xp, name)(x, axis=axis) for name in ("max", "min") for axis in (2, (1, 2))]

    assert all(np.all(np.isnan(found)) for found in planned(f)(x))
