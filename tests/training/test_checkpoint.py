"""Checkpoints: what is saved comes back in every bit, and training goes on as if nothing had been."""

import dataclasses
import hashlib
import importlib
import inspect
import json
import pkgutil
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import refscore
from refscore import (
    EMA,
    MLP,
    SGD,
    VP,
    Adam,
    Denoising,
    EnergyModel,
    Explicit,
    Implicit,
    ScoreModel,
    Sliced,
    UNet,
    fit,
    last,
    load,
    save,
)
from refscore.matching.maximum_likelihood import FromNoise, MaximumLikelihood
from refscore.matching.objectives import OBJECTIVES
from refscore.matching.probes import gaussian
from refscore.matching.times import FixedTime, Levels, UniformLogSNR
from refscore.matching.weights import SigmaPower, g_squared
from refscore.nn import LAYERS, Add, Net, Tanh
from refscore.noise.chains import ddpm
from refscore.noise.parametrisation import LossOf
from refscore.noise.sde import SDES
from refscore.training import checkpoint
from refscore.training.checkpoint import STORED, CheckpointError
from refscore.training.optim import WarmupCosine
from refscore_backends.base import HostRng
from refscore_backends.strict import StrictBackend
from tests.oracles.book import ROOT
from tests.oracles.checkpoints import X, child, everything, trained
from tests.oracles.models import MODEL, POINTS, random_theta, tangle

THETA = random_theta(MODEL, 0)


def again(tmp_path, model=MODEL, state=THETA, **parts):
    save(tmp_path / "a.npz", model, state, **parts)
    return load(tmp_path / "a.npz")


# ------------------------------------------------------------------ to go on

GO_ON = """
import sys
import numpy as np
from threadpoolctl import threadpool_limits
from refscore import fit, last, load, save

threadpool_limits(1, user_api="blas")
for path in sys.argv[1:]:
    saved, x = load(path), np.load(path + ".data.npy")
    x = (x, np.arange(len(x)) % saved.model.classes) if saved.model.classes else x
    optimizer, ema, objective, rng = saved.optimizer, saved.ema, saved.objective, saved.rng
    state = last(fit(saved.model, objective, x, optimizer, rng, start=saved.state, ema=ema, **saved.config))
    save(path, saved.model, state, optimizer=optimizer, ema=ema, objective=objective, rng=rng, config=saved.config)
"""

TO_GO_ON = {
    "adam": (MODEL, Denoising(), Adam(3e-3), None),
    "adam, schedule, average": (MODEL, Denoising(weight=g_squared), Adam(WarmupCosine(3e-3, 1000, 10)), EMA(0.999)),
    "sgd, average": (MODEL, Sliced(times=UniformLogSNR(), law=gaussian), SGD(1e-3, 0.9), EMA(0.99)),
    "an energy": (
        EnergyModel(MLP((2, 6, 1), embed=4, activation=Tanh()), ddpm(50)), Denoising(antithetic=True), Adam(), EMA(),
    ),
}  # fmt: skip
IMAGES = np.random.default_rng(8).standard_normal((20, 4, 4, 1)).astype("float32")
TOLD = {"classes": 3, "dropout": 0.1}
TO_GO_ON |= {
    "a U-Net": (ScoreModel(UNet(1, (4, 8)), VP()), Denoising(), Adam(), EMA()),
    "a U-Net, labels, sgd": (ScoreModel(UNet(1, (4, 8), **TOLD), VP()), Denoising(), SGD(1e-3, 0.9), EMA()),
    "labels": (ScoreModel(MLP((2, 6, 2), embed=4, **TOLD), VP()), Denoising(), Adam(), None),
}


@pytest.mark.parametrize("half", [20, pytest.param(500, marks=pytest.mark.slow)])
def test_in_a_new_process_training_goes_on_in_every_bit(half, tmp_path):
    """The file after n steps, a save, and n steps in another process is byte for byte that of 2n steps."""
    wanted = {}
    for name, (model, objective, optimizer, ema) in TO_GO_ON.items():
        x = IMAGES if "U-Net" in name else X
        data = (x, np.arange(len(x)) % 3) if model.classes else x
        config = {"steps": half, "batch": 8, "max_norm": 5.0, "unlabelled": 0.2 if model.classes else 0.0}
        parts = {"optimizer": optimizer, "ema": ema, "objective": objective, "config": config}
        np.save(tmp_path / f"{name}.npz.data.npy", x)
        for path, steps in ((tmp_path / "whole.npz", 2 * half), (tmp_path / f"{name}.npz", half)):
            rng = np.random.default_rng(5)
            state = last(fit(model, objective, data, optimizer, rng, ema=ema, **{**config, "steps": steps}))
            save(path, model, state, rng=rng, **parts)
        wanted[name] = (tmp_path / "whole.npz").read_bytes()
        assert wanted[name] != (tmp_path / f"{name}.npz").read_bytes()
    child(GO_ON, *(tmp_path / f"{name}.npz" for name in TO_GO_ON))
    for name, whole in wanted.items():
        assert (tmp_path / f"{name}.npz").read_bytes() == whole, name


def test_the_average_comes_back_with_what_rounding_cut_off(tmp_path):
    state, parts = trained(steps=30, ema=EMA(0.999))
    assert np.any(state.average.low != 0)
    saved = again(tmp_path, state=state, **parts)
    assert np.array_equal(saved.average, EMA(0.999).mean(state.average))
    for kept, made in zip(saved.state.average, state.average, strict=True):
        assert np.array_equal(kept, made)
    assert np.array_equal(saved.theta, state.theta)


@pytest.mark.parametrize("bits", ["PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64"])
def test_a_generator_goes_on_where_it_was(bits, tmp_path):
    """In its numbers, in the half of a word it has kept, and in the children it will have."""
    rng = np.random.Generator(getattr(np.random, bits)(2**200 + 7))
    rng.spawn(3)
    rng.integers(0, 9, 5, dtype="uint32"), rng.standard_normal(7)
    saved = again(tmp_path, rng=rng).rng
    for one, other in zip((rng, *rng.spawn(2)), (saved, *saved.spawn(2)), strict=True):
        assert np.array_equal(one.integers(0, 9, 5, dtype="uint32"), other.integers(0, 9, 5, dtype="uint32"))
        assert np.array_equal(one.standard_normal(1000), other.standard_normal(1000))


def test_a_generator_whose_numbers_are_moved_is_stored_as_the_one_inside(tmp_path):
    rng = StrictBackend("device1").rng(4)
    rng.standard_normal(3)
    saved = HostRng(again(tmp_path, rng=rng).rng, np.asarray)
    assert np.array_equal(rng.standard_normal(5)._array, saved.standard_normal(5))


# ------------------------------------------------------------------ what comes back

TWO = ScoreModel(MLP((2, 2)), VP())
MODELS = {
    **{f"an SDE, {name}": replace(MODEL, sde=sde) for name, sde in SDES.items()},
    "a chain": replace(MODEL, sde=ddpm(1000)),
    "no preconditioning": replace(MODEL, data_std=None, predict="score"),
    **{f"a layer, {name}": replace(TWO, body=Net((("it", make(2), ("x",) if "cond" not in name else ("x", "level")),)))
       for name, make in LAYERS.items()},
    "a graph": replace(TWO, body=tangle(2)),
    "an energy": EnergyModel(MLP((2, 3, 1), 4, Tanh()), VP(), predict="F"),
    "no parameters": replace(TWO, body=Net((("it", Add(), ("x", "x")),))),
}  # fmt: skip
PARTS = {
    **{name: objective for name, objective in OBJECTIVES.items() if name != "explicit"},
    "levels": Denoising(times=Levels((3.0, 1.0, 0.1)), weight=SigmaPower(1.5), control=True),
    "a fixed time": Denoising(times=FixedTime(0.25), weight=LossOf("F", 0.3)),
    "probes": Sliced(probes=3, law=gaussian, reduced=False, weight=g_squared),
    "likelihood": MaximumLikelihood(3, 0.1, FromNoise(2.0), 0.5),
    "contrastive": MaximumLikelihood(1, 0.1),
}


@pytest.mark.parametrize("name", MODELS)
def test_every_model_comes_back(name, tmp_path):
    model = MODELS[name]
    theta = model.init(np.random.default_rng(0))
    saved = again(tmp_path, model, theta)
    assert saved.model == model
    assert type(saved.model.body) is type(model.body)
    assert everything(saved)[-1] == (theta.dtype.str, theta.shape, theta.tobytes())


@pytest.mark.parametrize("name", PARTS)
def test_every_objective_comes_back(name, tmp_path):
    assert again(tmp_path, objective=PARTS[name]).objective == PARTS[name]


def test_no_class_was_forgotten_among_those_that_are_stored():
    """Every noun that a model, an objective or a state may be made of; each under one name."""
    folders = (
        "refscore.nn",
        "refscore.noise.sde",
        "refscore.noise.chains",
        "refscore.matching",
        "refscore.training.opt",
    )
    nouns = set()
    for found in pkgutil.walk_packages(refscore.__path__, "refscore."):
        module = importlib.import_module(found.name) if found.name.startswith(folders) else None
        for name, thing in vars(module).items() if module else ():
            own = isinstance(thing, type) and thing.__module__ == found.name and not name.startswith("_")
            if own and dataclasses.is_dataclass(thing) and not inspect.isabstract(thing):
                nouns.add(thing)
    assert {noun.__name__ for noun in nouns - set(STORED)} == {"Preconditioning", "BoundScore"}
    names = [thing.__name__ for thing in STORED]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_state_comes_back_in_its_dtype_and_the_same_state_is_the_same_file(dtype, tmp_path):
    rng = np.random.default_rng(0)
    state = last(fit(MODEL, Implicit(times=FixedTime(0.5)), POINTS.astype(dtype), SGD(), rng, steps=2, ema=EMA()))
    parts = {"optimizer": SGD(), "ema": EMA(), "objective": Implicit(), "rng": rng, "config": {"a": [1, None, 0.1]}}
    saved = again(tmp_path, state=state, **parts)
    first = (tmp_path / "a.npz").read_bytes()
    assert saved.theta.dtype == dtype
    assert saved.version == refscore.__version__
    save(tmp_path / "b.npz", saved.model, saved.state, **{**parts, "rng": saved.rng})
    assert (tmp_path / "b.npz").read_bytes() == first
    assert everything(load(str(tmp_path / "b.npz"))) == everything(saved)


def test_a_device_holds_the_same_bits_as_the_host(any_backend, tmp_path):
    state, parts = trained()
    here = again(tmp_path, state=state, **parts)
    there = load(tmp_path / "a.npz", asarray=any_backend.asarray)
    save(tmp_path / "b.npz", there.model, there.state, **parts, to_numpy=any_backend.to_numpy)
    assert (tmp_path / "b.npz").read_bytes() == (tmp_path / "a.npz").read_bytes()
    assert type(there.theta) is type(any_backend.asarray(X))
    assert everything(load(tmp_path / "b.npz")) == everything(here)


tree = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(config=st.dictionaries(st.text(), tree, max_size=3))
def test_a_config_of_plain_data_comes_back(config, tmp_path_factory):
    """Whatever its keys are called: none is a word of the format."""
    path = tmp_path_factory.getbasetemp() / "config.npz"
    config = {**config, "class": "cats", "array": {"array": "theta"}}
    save(path, MODEL, THETA, config=config)
    found = load(path).config
    assert found == config
    assert json.dumps(found) == json.dumps(config)  # -0.0 too, and 1 is not 1.0


def test_numpy_alone_reads_it(tmp_path):
    """As docs/saved-models.md says: arrays by name, one of them JSON, one the SHA-256 of the others."""
    state, parts = trained()
    again(tmp_path, state=state, **parts)
    with np.load(tmp_path / "a.npz") as file:
        assert np.array_equal(file["theta"], state.theta)
        assert np.array_equal(file["optimizer_state.v"], state.optimizer_state.v)
        described = json.loads(file["description"].tobytes())
        digest = hashlib.sha256()
        for name in sorted(set(file.files) - {"sha256"}):
            digest.update(f"{name} {file[name].dtype.str} {file[name].shape}\n".encode() + file[name].tobytes())
        assert digest.digest() == file["sha256"].tobytes()
    assert described["model"]["sde"] == {"class": "VP", "beta_min": 0.1, "beta_max": 20.0}
    assert described["state"]["step"] == 5


# ------------------------------------------------------------------ what is refused when it is saved


class Mine(VP):
    """An SDE of a user's own."""


class Narrow(MLP):
    """A net of a user's own, which keeps the arguments of its parent."""

    def __init__(self):
        super().__init__((2, 3, 2))


class Forgetful(Net):
    """A net that makes its own rows, and does not keep what it was made from."""

    def __init__(self, n):
        super().__init__((("it", Tanh(), ("x",)),))


def bare(x):
    raise TypeError("Implicit conversion to a NumPy array is not allowed")


REFUSED = {
    "an SDE of one's own": ({"model": replace(MODEL, sde=Mine())}, TypeError, "model.sde is a Mine, which a file"),
    "a net of one's own": ({"model": replace(TWO, body=Narrow())}, TypeError, "model.body is a Narrow"),
    "a layer of one's own": (
        {"model": replace(TWO, body=Net((("it", type("Own", (Tanh,), {})(), ("x",)),)))},
        TypeError, r"model.body.rows\[0\]\[1\] is a Own.*build the model yourself",
    ),
    "a score": (
        {"objective": Explicit(lambda x, t: -x)},
        TypeError, r"objective.score is the function .*<lambda>.*Leave objective out, and give it to `fit` again",
    ),
    "a lambda for a weight": (
        {"objective": Denoising(weight=lambda sde, t: t)},
        TypeError, "objective.weight is the function .*sigma_squared",
    ),
    "a lambda for a rate": (
        {"optimizer": Adam(rate=lambda step: 1e-3)}, TypeError, "optimizer.rate is the function .*WarmupCosine",
    ),
    "a function of that name": (
        {"objective": Denoising(weight=type(bare)(bare.__code__, {}, "sigma_squared"))},
        TypeError, "objective.weight is the function",
    ),
    "a class": ({"optimizer": Adam}, TypeError, "optimizer must be something like"),
    "a generator without state": (
        {"rng": object()}, TypeError, "whose state cannot be read.*training goes on with other random numbers",
    ),
    "NaN": ({"state": np.where(np.arange(THETA.size) == 3, np.nan, THETA)}, ValueError, r"first at theta\[3\]"),
    "theta of another model": ({"state": THETA[1:]}, ValueError, r"theta has shape \(55,\).* it must be \(56,\)"),
    "integers": ({"state": np.zeros(THETA.size, "int64")}, TypeError, "theta must be float32 or float64"),
    "a list": ({"state": [1.0]}, TypeError, "state must be a TrainingState or an array, got list"),
    "an infinite number": ({"config": {"max_norm": np.inf}}, ValueError, r"config\['max_norm'\] is inf"),
    "an array in the config": ({"config": {"m": [X]}}, TypeError, r"config\['m'\]\[0\] is a ndarray.*tolist"),
    "a key that is a number": ({"config": {"a": {1: 2}}}, TypeError, r"config\['a'\] has the key 1"),
    "arrays that cannot be copied": ({"to_numpy": bare}, TypeError, "Implicit conversion"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_a_file_cannot_hold_is_refused_by_name(what, tmp_path):
    changed, error, words = REFUSED[what]
    save(tmp_path / "a.npz", MODEL, THETA)
    before = (tmp_path / "a.npz").read_bytes()
    with pytest.raises(error, match=f"(?s){words}"):
        save(tmp_path / "a.npz", **{"model": MODEL, "state": THETA, **changed})
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]
    assert (tmp_path / "a.npz").read_bytes() == before


def test_a_net_of_the_library_that_could_not_be_built_again_is_refused_when_it_is_saved(tmp_path, monkeypatch):
    """For who adds one to `refscore.nn`: `Net.keep` is missing."""
    monkeypatch.setattr(checkpoint, "STORED", (*STORED, Forgetful))
    monkeypatch.setitem(checkpoint._BY_NAME, "Forgetful", Forgetful)
    with pytest.raises(TypeError, match="unexpected keyword argument 'rows'"):
        save(tmp_path / "a.npz", replace(TWO, body=Forgetful(3)), np.zeros(0))
    assert not list(tmp_path.iterdir())


def test_a_state_that_is_not_finite_is_never_written(tmp_path):
    state, _ = trained()
    for broken in (
        replace(state, theta=state.theta * np.float32("inf")),
        replace(state, optimizer_state=state.optimizer_state._replace(v=np.full_like(state.theta, np.nan))),
        replace(state, average=state.average._replace(low=np.full_like(state.theta, np.nan))),
    ):
        with pytest.raises(ValueError, match="not finite"):
            save(tmp_path / "a.npz", MODEL, broken)
    assert not list(tmp_path.iterdir())


@pytest.mark.recorded("a committed file holds the generator of seed 0")
def test_a_file_of_format_1_is_read():
    """Committed when the format was made; numbers that anybody can compute."""
    saved = load(ROOT / "tests" / "training" / "format_1.npz")
    size = sum(np.prod(shape, dtype=int) for shape in saved.model.shapes.values())
    numbers = np.arange(size, dtype="float32") / 8
    assert saved.model == ScoreModel(MLP((2, 3, 2), embed=2), VP(), data_std=1.5)
    assert saved.optimizer == Adam(WarmupCosine(0.01, 100, 10))
    assert saved.ema == EMA(0.99)
    assert saved.objective == Denoising()
    assert saved.config == {"batch": 8, "mean": [1.0, 3.0]}
    assert saved.state.step == saved.state.optimizer_state.step == saved.state.average.step == 7
    for n, array in enumerate((
        saved.state.theta, saved.state.optimizer_state.m, saved.state.optimizer_state.v,
        saved.state.average.value, saved.state.average.low,
    )):  # fmt: skip
        assert np.array_equal(array, numbers + n)
    assert [float(x) for x in (saved.state.loss, saved.state.grad_norm, saved.state.first_loss)] == [0.5, 0.25, 2.0]
    assert np.array_equal(saved.rng.standard_normal(9), np.random.default_rng(0).standard_normal(9))


@pytest.mark.parametrize("missing", ["nowhere/a.npz", "a.npz"])
def test_no_file_is_an_error_of_the_system(missing, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a\.npz"):
        load(tmp_path / missing)
    assert not issubclass(CheckpointError, OSError)
