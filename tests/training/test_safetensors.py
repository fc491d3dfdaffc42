"""Weights as safetensors: the bytes that others read, and only the weights of this model come in."""

import json
import pickle

import numpy as np
import pytest

from refscore import MLP, VP, ScoreModel
from refscore.nn import Add, Net
from refscore.training import safetensors as ours
from refscore.training.checkpoint import CheckpointError
from refscore.training.safetensors import export_safetensors, import_safetensors
from tests.oracles.close import assert_close
from tests.oracles.damage import damaged_bytes, mutated
from tests.oracles.models import MODEL, random_theta
from tests.oracles.pickles import Bomb

THETA = random_theta(MODEL, 0)


DTYPES = {"float16": "F16", "float32": "F32", "float64": "F64", "int64": "I64", "uint16": "BF16"}


def read(content):
    """The format, read by hand: eight bytes for the length of a header of JSON, the header, the numbers."""
    length = int.from_bytes(content[:8], "little")
    header, numbers = json.loads(content[8 : 8 + length]), content[8 + length :]
    header.pop("__metadata__", None)
    assert sum(end - start for start, end in (told["data_offsets"] for told in header.values())) == len(numbers)
    return {
        name: np.frombuffer(numbers[slice(*told["data_offsets"])], {"F32": "<f4", "F64": "<f8"}[told["dtype"]])
        .reshape(told["shape"]) for name, told in header.items()
    }  # fmt: skip


def written(arrays):
    """The format, written by hand."""
    header, numbers = {}, b""
    for name, array in arrays.items():
        dtype = DTYPES[str(array.dtype)]
        offsets = [len(numbers), len(numbers) + array.nbytes]
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": offsets}
        numbers += array.tobytes()
    words = json.dumps(header).encode()
    return len(words).to_bytes(8, "little") + words + numbers


def named(theta, model=MODEL):
    return {name: np.array(array) for name, array in zip(model.shapes, split(theta, model), strict=True)}


def split(theta, model):
    sizes = [int(np.prod(shape)) for shape in model.shapes.values()]
    parts = np.split(theta, np.cumsum(sizes)[:-1])
    return [part.reshape(shape) for part, shape in zip(parts, model.shapes.values(), strict=True)]


@pytest.fixture
def path(tmp_path):
    pytest.importorskip("safetensors")
    return tmp_path / "weights.safetensors"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_file_holds_the_parameters_by_name(dtype, path):
    export_safetensors(path, THETA.astype(dtype), MODEL)
    there = read(path.read_bytes())
    assert there.keys() == MODEL.shapes.keys()
    for name, array in named(THETA.astype(dtype)).items():
        assert there[name].dtype == dtype
        assert np.array_equal(there[name], array), name


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_others_write_comes_in_whatever_its_order(dtype, path):
    theta = THETA.astype(dtype)
    path.write_bytes(written(dict(reversed(named(theta).items()))))
    found = import_safetensors(path, MODEL)
    assert found.dtype == dtype
    assert np.array_equal(found, theta)


def test_a_device_gets_the_same_numbers(backend, path):
    export_safetensors(path, backend.asarray(THETA), MODEL, to_numpy=backend.to_numpy)
    theta = import_safetensors(path, MODEL, asarray=backend.asarray)
    assert np.array_equal(backend.to_numpy(theta), THETA)
    x = backend.asarray(np.ones((3, 2)))
    assert_close(backend.to_numpy(MODEL.bind(theta)(x, 0.5)), MODEL.bind(THETA)(np.ones((3, 2)), 0.5), 1e-12)


def test_a_model_without_parameters_has_an_empty_file(path):
    model = ScoreModel(Net((("sum", Add(), ("x", "x")),)), VP())
    export_safetensors(path, np.zeros(0, "float32"), model)
    assert read(path.read_bytes()) == {}
    assert import_safetensors(path, model).shape == (0,)


def without(name):
    return {key: array for key, array in named(THETA).items() if key != name}


WRONG = {
    "a name that is missing": (without("head.b"), r"head.b is missing where the model has \(2,\)"),
    "a name too many": ({**named(THETA), "more": np.ones(2)}, r"more \(2,\) where the model has none"),
    "another shape": (
        {**named(THETA), "head.W": np.ones((2, 6))}, r"head.W \(2, 6\) where the model has \(6, 2\)",
    ),
    "another dtype": ({**named(THETA), "head.b": np.ones(2, "float32")}, "head.b is float32, others are not"),
    "half precision": (named(THETA.astype("float16")), "theta must be float32 or float64, got float16"),
    "integers": (named(THETA.astype("int64")), "theta must be float32 or float64, got int64"),
    "a dtype NumPy does not know": (named(np.zeros(THETA.size, "uint16")), "cannot be read|must be float32"),
    "NaN": ({**named(THETA), "head.b": np.array([1.0, np.nan])}, "theta holds 1 values that are not finite"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_what_is_not_this_model_is_refused_by_name(what, path):
    arrays, words = WRONG[what]
    path.write_bytes(written(arrays))
    with pytest.raises(CheckpointError, match=words) as caught:
        import_safetensors(path, MODEL)
    assert str(path) in str(caught.value)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("files", [400, pytest.param(100_000, marks=pytest.mark.slow)])
def test_a_damaged_file_is_refused_or_holds_other_numbers(files, path, tmp_path):
    """The format has no checksum: a flipped bit of a number goes unseen, as docs/saved-models.md says."""
    export_safetensors(path, THETA, MODEL)
    content, rng, canary = path.read_bytes(), np.random.default_rng(3), tmp_path / "canary"
    begins = 8 + int.from_bytes(content[:8], "little")
    told = json.loads(content[8:begins])
    for n in range(files):
        kind = int(rng.integers(7))
        if kind < 5:
            broken = damaged_bytes(rng, content, content[::-1], kind)
        elif kind == 5:  # a header that says other things, of the right length
            words = json.dumps(mutated(rng, told)).encode()
            broken = len(words).to_bytes(8, "little") + words + content[begins:]
        else:
            broken = pickle.dumps(Bomb(canary)) + content
        path.write_bytes(broken)
        try:
            theta = import_safetensors(path, MODEL)
        except CheckpointError:
            continue
        assert (theta.shape, theta.dtype) == (THETA.shape, THETA.dtype), n
        assert np.all(np.isfinite(theta)), n
        assert len(broken) == len(content) or kind == 5, n  # no byte is missing or left over
    assert not canary.exists()


def test_what_cannot_be_weights_is_not_written(path):
    for theta, error, words in (
        (THETA[1:], ValueError, r"theta must have shape \(56,\)"),
        (np.where(THETA[3] == THETA, np.inf, THETA), ValueError, "not finite"),
        (THETA.astype("int64"), TypeError, "theta must be float32 or float64"),
    ):
        with pytest.raises(error, match=words):
            export_safetensors(path, theta, MODEL)
    with pytest.raises(OSError, match="cannot write"):
        export_safetensors(path.parent / "nowhere" / "a.safetensors", THETA, MODEL)
    assert not path.exists()
    with pytest.raises(FileNotFoundError):
        import_safetensors(path, ScoreModel(MLP((2, 2)), VP()))


def test_without_the_package_one_is_told_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "safetensors", None)
    with pytest.raises(ImportError, match=r"pip install \"refscore\[safetensors\]\""):
        ours.export_safetensors(tmp_path / "a", THETA, MODEL)
