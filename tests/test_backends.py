"""The back ends: moving arrays, drawing numbers, and saying in one sentence what is missing."""

import copy
import json
import pickle
import subprocess
import sys
import types

import numpy as np
import pytest

from refscore import (
    EMA,
    MLP,
    VP,
    Adam,
    Denoising,
    EulerMaruyama,
    Reverse,
    ScoreModel,
    Sliced,
    fit,
    last,
    load,
    save,
)
from refscore.matching.times import UniformTime
from refscore.training.optim import clip
from refscore_backends import BACKENDS, BackendUnavailable, HostRng, get, keep_memory
from refscore_backends.base import check_seed, dtype_name
from refscore_backends.cupy import CupyBackend
from refscore_backends.numpy import NumpyBackend
from refscore_backends.strict import StrictBackend
from refscore_backends.torch import TorchBackend
from tests.oracles.close import assert_close
from tests.oracles.statistics import assert_mean


@pytest.mark.parametrize("name", ["pytorch", "", "NumPy", "cuda"])
def test_an_unknown_name_is_refused_with_the_known_ones(name):
    with pytest.raises(ValueError, match=f"no back end called {name!r}; there are numpy, cupy, torch, jax, strict"):
        get(name)


@pytest.mark.parametrize("name", ["numpy", "strict"])
def test_get_makes_the_back_end_of_that_name(name):
    backend = get(name)
    assert isinstance(backend, BACKENDS[name])
    assert backend.name.startswith(name)
    assert isinstance(backend.device(), str)
    backend.synchronize()


def without(monkeypatch, *modules):
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)


def one_sentence(error):
    message = str(error)
    assert "\n" not in message
    assert len(message) < 130
    return message


def test_without_cupy_one_sentence_says_what_to_install(monkeypatch):
    without(monkeypatch, "cupy", "array_api_compat.cupy")
    with pytest.raises(BackendUnavailable, match="CuPy is not installed") as caught:
        get("cupy")
    assert '".[cuda12]" or ".[cuda13]" in the checkout' in one_sentence(caught.value)


def test_without_a_gpu_one_sentence_speaks_of_the_driver(monkeypatch):
    cupy = types.ModuleType("cupy")
    cupy.is_available = lambda: False
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setitem(sys.modules, "array_api_compat.cupy", types.ModuleType("array_api_compat.cupy"))
    with pytest.raises(BackendUnavailable, match="no usable GPU") as caught:
        CupyBackend()
    assert "driver" in one_sentence(caught.value)


def test_without_array_api_strict_one_sentence_says_so(monkeypatch):
    without(monkeypatch, "array_api_strict")
    with pytest.raises(BackendUnavailable, match=r"\.\[test\]") as caught:
        get("strict")
    one_sentence(caught.value)


# ------------------------------------------------------------------ arrays

NARROW_TOO = ("float32", "int64", "bool")


@pytest.mark.parametrize("dtype", NARROW_TOO)
@pytest.mark.parametrize("shape", [(), (0, 2), (3,), (2, 3, 4)])
def test_there_and_back_again_changes_nothing(any_backend, dtype, shape):
    x = (10 * np.random.default_rng(0).random(shape)).astype(dtype)
    there = any_backend.asarray(x)
    back = any_backend.to_numpy(there)
    assert type(back) is np.ndarray
    assert back.dtype == x.dtype
    assert there.shape == shape
    assert np.array_equal(back, x)


def test_asarray_converts_where_asked(backend):
    x = backend.asarray([[1, 2], [3, 4]], dtype="float32")
    assert dtype_name(x.dtype) == "float32"
    assert dtype_name(backend.asarray(x, dtype="float64").dtype) == "float64"
    assert dtype_name(backend.asarray(x).dtype) == "float32"
    assert dtype_name(backend.asarray(np.ones(2, dtype=complex)).dtype) == "complex128"


@pytest.mark.parametrize("make", [NumpyBackend, StrictBackend])
def test_asarray_copies(make):
    x = np.zeros(3)
    y = make().asarray(x)
    x += 1
    assert not make().to_numpy(y).any()


def test_arrays_of_another_device_are_moved():
    one, other = StrictBackend("device1"), StrictBackend("CPU_DEVICE")
    x = other.asarray(one.asarray(np.arange(3.0)))
    assert x.device == other.asarray(0.0).device != one.asarray(0.0).device
    assert np.array_equal(other.to_numpy(x), np.arange(3.0))


# ------------------------------------------------------------------ random numbers


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_back_end_draws_the_numbers_of_numpy(backend, dtype):
    rng, exact = backend.rng(7), np.random.default_rng(7)
    dtype_here = backend.asarray(0.0, dtype=dtype).dtype
    for _ in range(2):
        pairs = [
            (rng.standard_normal((3, 2), dtype=dtype_here), exact.standard_normal((3, 2), dtype=dtype)),
            (rng.random((4,), dtype=dtype_here), exact.random((4,), dtype=dtype)),
            (rng.integers(0, 9, size=(5,)), exact.integers(0, 9, size=(5,))),
        ]
        for found, wanted in pairs:
            assert np.array_equal(backend.to_numpy(found), wanted)
            assert dtype_name(found.dtype) == dtype_name(wanted.dtype)


def test_host_noise_is_moved_once_for_each_draw():
    moved = []
    rng = HostRng(np.random.default_rng(7), lambda z: moved.append(z) or z)
    z = rng.standard_normal((2,), dtype="float32")
    assert len(moved) == 1
    assert moved[0] is z
    assert z.dtype == np.float32


def test_equal_seeds_give_equal_streams_and_others_do_not(any_backend):
    one, same, other = (
        any_backend.to_numpy(any_backend.rng(seed).standard_normal((50,), dtype="float32")) for seed in (3, 3, 4)
    )
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("make", [NumpyBackend, StrictBackend])
@pytest.mark.parametrize(("seed", "error"), [
    (None, TypeError), (True, TypeError), (1.0, TypeError), ("1", TypeError), (np.random.default_rng(0), TypeError),
    ([1, 2], TypeError), (-1, ValueError), (2**64, ValueError), (2**70, ValueError),
])  # fmt: skip
def test_seeds_that_are_no_seeds_are_refused(make, seed, error):
    with pytest.raises(error, match=r"seed must (be an integer|lie in \[0, 2\*\*64\)), got"):
        make().rng(seed)


@pytest.mark.parametrize("seed", [0, 1, 2**64 - 1, np.int64(5), np.uint64(2**63)])
def test_integers_from_0_to_2_to_the_64_are_seeds(seed):
    assert check_seed(seed) == seed
    assert type(check_seed(seed)) is int


@pytest.mark.parametrize(("dtype", "name"), [
    ("float32", "float32"), (np.float32, "float32"), (np.dtype("float64"), "float64"),
    (StrictBackend().asarray(0.0, dtype="float32").dtype, "float32"),
])  # fmt: skip
def test_dtypes_have_one_name(dtype, name):
    assert dtype_name(dtype) == name


def test_keep_memory_may_be_called_anywhere():
    for _ in range(2):
        assert keep_memory() is None


def test_memory_is_kept_where_a_numpy_back_end_is_made_and_not_on_import():
    program = """
import numpy as np
empty, made = np.empty, []
np.empty = lambda shape, *more, **named: (made.append(shape), empty(shape, *more, **named))[1]
import refscore, refscore.cli, refscore_backends
print(31 << 20 in made)
refscore_backends.get("numpy")
print(31 << 20 in made)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["False", "True"]


# ------------------------------------------------------------------ PyTorch and JAX
#
# `framework` is one of those that `pytest --backends` names, drawing its own numbers.


def test_without_pytorch_or_jax_one_sentence_says_what_to_install(monkeypatch):
    without(monkeypatch, "torch", "array_api_compat.torch", "jax")
    for name, called in (("torch", "PyTorch"), ("jax", "JAX")):
        with pytest.raises(BackendUnavailable, match=rf"{called} is not installed: .*\.\[{name}\]") as caught:
            get(name)
        one_sentence(caught.value)


def test_a_name_that_is_not_asked_for_is_not_imported():
    """PyTorch and JAX take seconds to import."""
    code = "import sys, refscore.cli; print({'torch', 'jax', 'cupy'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_a_framework_keeps_copies_and_converts(framework):
    for dtype in ("bool", "int64", "float32", "float64", "complex128"):
        x = np.array([[0, 1], [2, 3]]).astype(dtype)
        there = framework.asarray(x)
        x[...] = 0
        assert dtype_name(there.dtype) == dtype
        assert framework.to_numpy(there).tolist() == np.array([[0, 1], [2, 3]]).astype(dtype).tolist()
        again = framework.asarray(there, "float32" if dtype != "complex128" else None)
        assert again is not there
        assert dtype_name(again.dtype) == ("float32" if dtype != "complex128" else dtype)
    assert dtype_name(framework.asarray(1.0).dtype) == "float64"
    assert framework.to_numpy(framework.asarray(np.arange(4.0)[::-2].astype(">f8"))).tolist() == [3.0, 1.0]
    framework.synchronize()


def test_a_framework_draws_in_the_dtype_and_shape_that_are_asked_for(framework):
    rng = framework.rng(0)
    for size, shape in ((None, ()), (3, (3,)), ((2, 3), (2, 3)), ([0, 2], (0, 2))):
        for dtype in ("float32", "float64", framework.xp.float32):
            for draw in (rng.standard_normal, rng.random):
                x = draw(size, dtype=dtype)
                assert tuple(x.shape) == shape
                assert dtype_name(x.dtype) == dtype_name(dtype)
        n = rng.integers(0, 9, size=size)
        assert tuple(n.shape) == shape
        assert dtype_name(n.dtype) == "int64"
    z, u, n = (framework.to_numpy(a) for a in (
        rng.standard_normal((10_000,), "float32"), rng.random((10_000,)), rng.integers(2, 5, (10_000,))
    ))  # fmt: skip
    assert_mean(z, 0.0)
    assert_mean(z.astype("float64") ** 2, 1.0)
    assert 0 <= u.min() < 0.01 < 0.99 < u.max() < 1
    assert {*n.tolist()} == {2, 3, 4}


def test_all_bits_of_a_framework_s_seed_count(framework):
    """PyTorch on the host takes 32 of them, JAX at most 63."""
    seeds = (0, 1, 2**32, 2**32 + 1, 2**63, 2**64 - 1)
    drawn = [framework.to_numpy(framework.rng(seed).random((3,))).tolist() for seed in seeds]
    assert len({*map(tuple, drawn)}) == len(seeds)
    assert drawn == [framework.to_numpy(framework.rng(np.uint64(seed)).random((3,))).tolist() for seed in seeds]
    for seed in (-1, 2**64):
        with pytest.raises(ValueError, match="seed must lie in"):
            framework.rng(seed)


def test_children_of_a_framework_s_generator_differ_and_come_again(framework):
    def family(seed):
        rng = framework.rng(seed)
        return [framework.to_numpy(child.random((4,))).tolist() for child in (rng, *rng.spawn(3), *rng.spawn(2))]

    assert family(5) == family(5) != family(6)
    assert len({*map(tuple, family(5))}) == 6


def test_a_framework_s_generator_goes_on_where_it_was(framework):
    rng = framework.rng(5)
    rng.standard_normal((7,))
    other, kept = framework.rng(0), rng.get_state()
    other.set_state(json.loads(json.dumps(kept)))
    draws = [
        [framework.to_numpy(draw(size=(9,))).tolist() for draw in (r.standard_normal, r.random)]
        for r in (pickle.loads(pickle.dumps(rng)), copy.deepcopy(rng), other, rng)
    ]
    assert draws[1:] == draws[:-1]
    assert rng.get_state() != kept
    for damaged in ({**kept, "state": kept["state"][:-2]}, {**kept, "state": "what"}):
        with pytest.raises((ValueError, RuntimeError, TypeError)):
            framework.rng(0).set_state(damaged)


def test_training_on_a_framework_goes_on_in_every_bit(framework, tmp_path):
    model, x = ScoreModel(MLP((2, 8, 2), embed=4), VP()), framework.asarray(np.random.default_rng(0).random((50, 2)))

    def train(steps, rng, start=None):
        return last(fit(model, Denoising(), x, Adam(), rng, steps=steps, batch=8, start=start, ema=EMA(0.9)))

    rng, path = framework.rng(1), tmp_path / "run.npz"
    save(path, model, train(10, rng), optimizer=Adam(), ema=EMA(0.9), rng=rng, to_numpy=framework.to_numpy)
    kept = load(path, asarray=framework.asarray, rng=framework.rng(0))
    whole, parts = train(20, framework.rng(1)), train(10, kept.rng, kept.state)
    assert np.array_equal(framework.to_numpy(parts.theta), framework.to_numpy(whole.theta))
    assert np.array_equal(framework.to_numpy(parts.average.low), framework.to_numpy(whole.average.low))
    assert load(path).rng is None  # NumPy cannot go on with this generator
    assert load(path, rng=np.random.default_rng(0)).rng is None


def test_pytorch_refuses_a_device_that_is_not_there(framework):
    if framework.name != "torch":
        pytest.skip("of PyTorch")
    with pytest.raises(BackendUnavailable, match="finds no device 'hip:7' here") as caught:
        TorchBackend("hip:7")
    one_sentence(caught.value)


def test_jax_refuses_float64_where_it_is_switched_off(framework):
    """It would answer in float32 instead; the switch is for the whole process, so this is another one."""
    if framework.name != "jax":
        pytest.skip("of JAX")
    code = """
from refscore_backends.jax import JaxBackend
backend = JaxBackend(precise=False)
print(backend.asarray([1.0], "float32").dtype)
for make in (lambda: backend.asarray([1.0]), lambda: backend.rng(0).random((2,))):
    try:
        print(make().dtype)
    except TypeError as error:
        print(error)
print(JaxBackend().asarray([1.0]).dtype)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    assert said[0] == "float32"
    assert "jax_enable_x64" in one_sentence(said[1])
    assert said[2:] == [said[1], "float64"]


def test_steps_of_training_and_of_sampling_can_be_compiled(framework):
    """Nothing in them asks an array for its value: jax.jit would refuse. Times and the step count are arrays, too."""
    if framework.name != "jax":
        pytest.skip("of JAX")
    import jax

    sde, adam, ema, key = VP(), Adam(), EMA(), framework.rng(2).key
    model, x = ScoreModel(MLP((2, 4, 2), embed=4), sde), framework.rng(1).standard_normal((5, 2))
    theta = model.init(framework.rng(0), x.dtype)
    n, t, s = (framework.asarray(value) for value in (3.0, 0.5, 0.4))
    moments, average = adam.init(theta), ema.init(theta)

    def training(theta, n, key):
        loss, grad = Sliced(times=UniformTime(0.1))(model, theta, x, type(framework.rng(0))(key))
        moved, state = adam.update(clip(grad, 1.0)[0], moments._replace(step=n), theta)
        return loss, moved, state.v, ema.update(average._replace(weight=n), moved).low

    def sampling(theta, t, s, key):
        step = EulerMaruyama(Reverse(sde, model.bind(theta)))
        return step(x, t, s, type(framework.rng(0))(key))[0]

    for function, given in ((training, (theta, n, key)), (sampling, (theta, t, s, key))):
        plain, compiled = (jax.tree.leaves(f(*given)) for f in (function, jax.jit(function)))
        for one, other in zip(plain, compiled, strict=True):
            assert_close(framework.to_numpy(one), framework.to_numpy(other), 1e-12)
