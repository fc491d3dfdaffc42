"""Checkpoints: a run of training in one file, from which it goes on in the same bits; see docs/saved-models.md.

The file is a .npz of uncompressed arrays of numbers: those of the training state; `description`, JSON that says which
classes to build and which array goes where; and `sha256`, of all the others. Nothing in a file is executed: classes and
functions are looked up by name among `STORED`, and what is not there is refused, on both ways.
"""

import dataclasses
import hashlib
import io
import json
import math
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np

import refscore
import refscore.nn as nn
from refscore.checks import check_count, check_finite, check_floating, check_like, check_same
from refscore.data.files import save_arrays
from refscore.library import is_array_api_obj
from refscore.matching.maximum_likelihood import FromNoise, MaximumLikelihood, from_data
from refscore.matching.objectives import OBJECTIVES
from refscore.matching.probes import gaussian, rademacher, sphere
from refscore.matching.times import FixedTime, Levels, LogNormal, UniformLogSNR, UniformTime
from refscore.matching.weights import MinSNR, SigmaPower, g_squared, sigma_squared, unweighted
from refscore.noise.chains import Chain
from refscore.noise.parametrisation import LossOf
from refscore.noise.sde import SDES
from refscore.protocols import Array, HasState, Rng, Shapes
from refscore.training.loop import TrainingState
from refscore.training.optim import EMA, SGD, Adam, AdamState, EMAState, SGDState, WarmupCosine

FORMAT = 1  # of the files written here; those of other formats are refused
LARGEST = 2**33  # bytes: nothing larger is written or read

# The classes and functions that a file may name: those of the tables, whatever `refscore.nn` offers (a net that makes
# its rows calls `keep`, as MLP does), and what is in no table.
STORED: tuple[Any, ...] = (
    *dict.fromkeys(type(sde) for sde in SDES.values()), Chain,
    *(thing for thing in vars(nn).values() if isinstance(thing, type) and dataclasses.is_dataclass(thing)),
    *dict.fromkeys(type(objective) for objective in OBJECTIVES.values()), MaximumLikelihood, FromNoise, from_data,
    FixedTime, Levels, LogNormal, UniformLogSNR, UniformTime,
    MinSNR, SigmaPower, LossOf, g_squared, sigma_squared, unweighted,
    gaussian, rademacher, sphere,
    Adam, AdamState, SGD, SGDState, WarmupCosine, EMA, EMAState, TrainingState,
)  # fmt: skip

_BY_NAME = {thing.__name__: thing for thing in STORED}
_HEADER = re.compile(rb"\{'descr': '(\S*)', 'fortran_order': (?:True|False) ?, 'shape': \(([-\d, ]*)\), \} *\n")
_BITS = {name: getattr(np.random, name) for name in ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64")}
_SCALARS = ("loss", "grad_norm", "first_loss")  # of a training state; its other arrays are as long as theta


class CheckpointError(ValueError):
    """A file that cannot be read as a checkpoint, or as weights of a model; the message says why."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What `load` found in a file.

    Parameters
    ----------
    model : ScoreModel or EnergyModel
        Built anew, with the SDE.
    state : TrainingState or Array
        Give it to `fit` as `start`.
    optimizer : Adam, SGD or None
        With its schedule; None, here as below, if it was not saved.
    ema : EMA or None
        The average's decay; the average itself is in the state.
    objective : Objective or None
        What was minimised.
    rng : numpy.random.Generator, the generator given to `load`, or None
        In the state in which it was saved; None if it was not saved, or is of another library than the one given.
    config : dict
        What the user wrote down: batch, max_norm, the scaling of the data, ...
    version : str
        The version of refscore that wrote the file.
    """

    model: Any
    state: Any
    optimizer: Any
    ema: EMA | None
    objective: Any
    rng: Any
    config: dict[str, Any]
    version: str

    @property
    def theta(self) -> Array:
        """The parameters (P,) at the last step."""
        return self.state.theta if isinstance(self.state, TrainingState) else self.state

    @property
    def average(self) -> Array | None:
        """The average (P,) of the parameters, with which one samples; None if none was kept."""
        kept = self.state.average if isinstance(self.state, TrainingState) else None
        return None if kept is None else EMA().mean(kept)


def save(
    path: str | Path,
    model: Any,
    state: TrainingState | Array,
    *,
    optimizer: Any = None,
    ema: EMA | None = None,
    objective: Any = None,
    rng: Rng | None = None,
    config: Mapping[str, Any] | None = None,
    to_numpy: Callable[[Any], Any] = np.asarray,
) -> None:
    """Write a model and its training state to one file, whole or not at all.

    Parameters
    ----------
    path : str or Path
        The file, by custom with the ending .npz; its folder must exist. What was there is replaced at the end.
    model : ScoreModel or EnergyModel
        Of classes of this library.
    state : TrainingState or Array
        From `fit`; or parameters (P,) alone.
    optimizer : Adam or SGD, optional
        As given to `fit`; a schedule must be a `WarmupCosine`.
    ema : EMA, optional
        As given to `fit`.
    objective : Objective, optional
        As given to `fit`, if its parts are of this library: `Explicit`, which holds a score, is not stored.
    rng : numpy.random.Generator, HostRng or a generator of torch's or JAX's back end, optional
        As given to `fit`, between two steps. Without it training goes on with other random numbers.
    config : mapping, optional
        Whatever else should be remembered, e.g. batch and max_norm of `fit`, or the mean and scale of the data:
        numbers, strings, None, and lists and dicts of these.
    to_numpy : callable, default numpy.asarray
        Copies an array to the host, e.g. `backend.to_numpy`.

    Raises
    ------
    TypeError
        For a part that cannot be stored, by name: classes and functions that are not of this library, generators whose
        state cannot be read.
    ValueError
        For arrays that are not finite, or not of this model.
    OSError
        If the file cannot be written; the old one is still there.

    Examples
    --------
    Three steps, a file, and three steps more are six steps, in every bit:

    >>> import os, tempfile
    >>> import numpy as np
    >>> from refscore import MLP, VP, Adam, Denoising, ScoreModel, fit, last, load, save
    >>> model, adam = ScoreModel(MLP((2, 8, 2), embed=4), VP()), Adam()
    >>> x, rng = np.random.default_rng(0).standard_normal((99, 2)), np.random.default_rng(1)
    >>> state = last(fit(model, Denoising(), x, adam, rng, steps=3))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "run.npz")
    ...     save(path, model, state, optimizer=adam, objective=Denoising(), rng=rng)
    ...     saved = load(path)
    >>> more = last(fit(saved.model, saved.objective, x, saved.optimizer, saved.rng, steps=3, start=saved.state))
    >>> whole = last(fit(model, Denoising(), x, adam, np.random.default_rng(1), steps=6))
    >>> more.step, bool(np.all(more.theta == whole.theta))
    (6, True)
    """
    check_like(model=model)
    for name, part in (("optimizer", optimizer), ("ema", ema), ("objective", objective)):
        if part is not None:
            check_like(**{name: part})
    if not (isinstance(state, TrainingState) or is_array_api_obj(state)):
        raise TypeError(f"state must be a TrainingState or an array, got {type(state).__name__}")
    arrays: dict[str, Any] = {}
    tree = {
        "format": FORMAT,
        "refscore": refscore.__version__,
        "model": _plain("model", model),
        "state": _plain("theta" if is_array_api_obj(state) else "", state, arrays),
        "optimizer": _plain("optimizer", optimizer),
        "ema": _plain("ema", ema),
        "objective": _plain("objective", objective),
        "rng": None if rng is None else _plain_rng(rng),
        "config": {} if config is None else _plain_config("config", config),
    }
    tree["shapes"] = [[name, list(shape)] for name, shape in model.shapes.items()]
    words = json.dumps(tree, allow_nan=False)
    arrays = {name: np.asarray(to_numpy(array)) for name, array in arrays.items()}
    _checkpoint(json.loads(words), arrays)  # what is written can be read, or is refused now
    arrays = {name: _little(array) for name, array in arrays.items()}
    arrays["description"] = np.frombuffer(words.encode(), dtype="uint8")
    size = sum(array.nbytes + 1024 for array in arrays.values())  # with what surrounds each
    if size > LARGEST:
        raise ValueError(f"a checkpoint of {size} bytes; at most {LARGEST} are read")
    save_arrays(Path(path), **arrays, sha256=_digest(arrays))


def load(path: str | Path, *, asarray: Callable[[Any], Any] = np.asarray, rng: Any = None) -> Checkpoint:
    """Read what `save` has written: all of it, or an error.

    Parameters
    ----------
    path : str or Path
        The file. It may come from anywhere: nothing in it is executed, and no more memory is taken than it is long,
        twice.
    asarray : callable, default numpy.asarray
        Moves an array to where training goes on, e.g. `backend.asarray`.
    rng : Rng, optional
        A generator that goes on from the saved state, if that is of its kind: torch's and JAX's, which cannot be made
        here, e.g. `backend.rng(0)`. NumPy's is built anew.

    Returns
    -------
    Checkpoint
        Model, state, and what else was saved.

    Raises
    ------
    CheckpointError
        For a file that is damaged, of another format, or no checkpoint.
    OSError
        If there is no such file, or it may not be read.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> from refscore import MLP, VP, ScoreModel, load, save
    >>> model = ScoreModel(MLP((2, 8, 2), embed=4), VP(), data_std=2.0)
    >>> theta = model.init(np.random.default_rng(0))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "model.npz")
    ...     save(path, model, theta, config={"mean": [1.0, 3.0]})
    ...     saved = load(path)
    >>> saved.model == model, bool(np.all(saved.theta == theta)), saved.theta.dtype.name, saved.config
    (True, True, 'float32', {'mean': [1.0, 3.0]})
    """
    path = Path(path)
    with _named(path):
        if path.exists() and not path.is_file():
            raise ValueError("it is not a file")
    if path.stat().st_size > LARGEST:
        raise CheckpointError(f"{path} is {path.stat().st_size} bytes long; at most {LARGEST} are read")
    content = path.read_bytes()
    with _named(path):
        tree, arrays = _read(content)
    del content
    moved = {name: asarray(array) for name, array in arrays.items()}
    with _named(path):
        return _checkpoint(tree, moved, rng)


def _plain(name: str, value: Any, arrays: dict[str, Any] | None = None) -> Any:
    """A part as numbers, strings, lists and dicts; the arrays of a state are put into `arrays` under their names."""
    if arrays is not None and is_array_api_obj(value):
        arrays[name] = value
        return {"array": name}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if type(value) in STORED:
        fields = _fields(value)
        inner = {key: _plain(f"{name}.{key}".lstrip("."), part, arrays) for key, part in fields.items()}
        return {"class": type(value).__name__, **inner}
    if type(value) in (tuple, list):
        return [_plain(f"{name}[{i}]", part, arrays) for i, part in enumerate(value)]
    if isinstance(value, FunctionType) and value in STORED:
        return {"function": value.__name__}
    what = f"the function {value.__qualname__}" if isinstance(value, FunctionType) else f"a {type(value).__name__}"
    raise TypeError(
        f"{name or 'state'} is {what}, which a file cannot hold: only classes and functions of refscore are stored, by "
        f"name (for a rate WarmupCosine, for a weight sigma_squared, ...). {_instead(name)}"
    )


def _instead(name: str) -> str:
    if name.startswith("model"):
        return "Save theta alone, with numpy.save or `export_safetensors`, and build the model yourself"
    return f"Leave {name.split('.')[0] or 'it'} out, and give it to `fit` again when training goes on"


def _fields(value: Any) -> dict[str, Any]:
    """What a stored class is made from: arguments of a net that is a class of its own, else fields."""
    if hasattr(value, "arguments"):
        return dict(value.arguments)
    names = getattr(value, "_fields", None) or [f.name for f in dataclasses.fields(value) if f.init]
    return {name: getattr(value, name) for name in names}


def _plain_config(name: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        if odd := [key for key in value if not isinstance(key, str)]:
            raise TypeError(f"{name} has the key {odd[0]!r}: keys must be strings")
        return {key: _plain_config(f"{name}[{key!r}]", part) for key, part in value.items()}
    if type(value) in (tuple, list):
        return [_plain_config(f"{name}[{i}]", part) for i, part in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} is {value}, which JSON has no word for: leave it out, or write a string")
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(
        f"{name} is a {type(value).__name__}: only numbers, strings, None, and lists and dicts of these are stored; "
        "an array by its method tolist"
    )


def _plain_rng(rng: Any) -> dict[str, Any]:
    """State and seed of a generator, or of the one inside a `HostRng`."""
    if isinstance(rng, HasState):
        return {"other": rng.get_state()}
    bits: Any = getattr(getattr(rng, "generator", rng), "bit_generator", None)
    if type(bits) not in _BITS.values():
        raise TypeError(
            f"rng is a {type(rng).__module__}.{type(rng).__name__}, whose state cannot be read (CuPy does not show its "
            "generator's): save without rng, and training goes on with other random numbers, of the same law; or train "
            "with HostRng(numpy.random.default_rng(seed), backend.asarray)"
        )
    return {"state": _lists(bits.state), "seed": _lists(getattr(bits.seed_seq, "state", None))}


def _lists(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _lists(value) for key, value in tree.items()}
    return np.asarray(tree).tolist() if isinstance(tree, (np.ndarray, np.generic, tuple)) else tree


def _built(node: Any, arrays: Mapping[str, Any]) -> Any:
    """The inverse of `_plain`; a list becomes a tuple."""
    if isinstance(node, list):
        return tuple(_built(part, arrays) for part in node)
    if not isinstance(node, dict):
        return node
    if "array" in node:
        return arrays[node["array"]]
    kind = "function" if "function" in node else "class"
    thing = _BY_NAME.get(node[kind])
    if isinstance(thing, type) != (kind == "class") or thing is None:
        raise ValueError(f"it names the {kind} {node[kind]!r}, which is not among those that a file may name")
    if kind == "function":
        return thing
    return thing(**{key: _built(part, arrays) for key, part in node.items() if key != "class"})


def _built_rng(tree: dict[str, Any], rng: Any) -> Any:
    """NumPy's generator anew, or the given one in the saved state, if it is of that kind."""
    if other := tree.get("other"):
        if not isinstance(rng, HasState) or rng.get_state()["bit_generator"] != other["bit_generator"]:
            return None
        rng.set_state(other)
        return rng
    seed = tree["seed"] and dict(tree["seed"])
    if seed and not seed["pool_size"] <= 64:
        raise ValueError(f"a seed of {seed['pool_size']} words")
    bits = _BITS[tree["state"]["bit_generator"]](None if seed is None else np.random.SeedSequence(**seed))
    state = _like(bits.state, tree["state"])
    # NumPy does not check these two, and reads outside its memory
    if not (0 <= state["state"].get("pos", 0) <= 624 and 0 <= state.get("buffer_pos", 0) <= 4):
        raise ValueError("the generator's position is outside its state")
    bits.state = state
    return np.random.Generator(bits)


def _like(example: Any, value: Any) -> Any:
    """The value, if it is made as the example is; lists become arrays."""
    if isinstance(example, dict) and isinstance(value, dict) and example.keys() == value.keys():
        return {key: _like(example[key], value[key]) for key in example}
    if isinstance(example, np.ndarray):
        value = np.array(value, dtype=example.dtype)
        if value.shape == example.shape:
            return value
    elif type(example) is type(value) and not isinstance(example, dict):
        return value
    raise ValueError("the state of the generator is not that of its kind")


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Whatever zipfile, NumPy, json and the constructors say to bytes that `save` did not write is one error."""
    try:
        yield
    except Exception as error:
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise CheckpointError(f"{path} cannot be read as a checkpoint: {kind}{error}") from error


def _read(content: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """The description, and the arrays it names; nothing is allocated that the file does not hold."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = archive.infolist()
        names = [member.filename for member in members]
        if len(set(names)) < len(names):
            raise ValueError("two of its members have one name")
        if any(m.compress_type != zipfile.ZIP_STORED or m.compress_size != m.file_size for m in members):
            raise ValueError("its members are compressed, those of a checkpoint are not")
        if sum(member.file_size for member in members) > len(content):
            raise ValueError("it declares more than it holds")
        if "description.npy" not in names:
            raise ValueError(f"it has no description; its members are {', '.join(names)[:200]}")
        tree = json.loads(_array(archive, archive.getinfo("description.npy")).tobytes())
        if tree["format"] != FORMAT:
            newer = "; it is of a newer version of refscore" if tree["format"] > FORMAT else ""
            raise ValueError(f"it has format {tree['format']!r}, this version reads {FORMAT}{newer}")
        wanted = {"description.npy", "sha256.npy", *(f"{name}.npy" for name in _named_arrays(tree["state"]))}
        if missing := wanted - set(names):
            raise ValueError(f"its members {', '.join(sorted(missing))} are missing")
        if extra := set(names) - wanted:
            raise ValueError(f"its members {sorted(extra)} are not those of a checkpoint")
        arrays = {name.removesuffix(".npy"): _array(archive, archive.getinfo(name)) for name in names}
    if arrays.pop("sha256").tolist() != _digest(arrays).tolist():
        raise ValueError("its contents are not those whose SHA-256 it holds: it was damaged or changed")
    del arrays["description"]
    return tree, {name: array.astype(array.dtype.newbyteorder("="), copy=False) for name, array in arrays.items()}


def _named_arrays(node: Any) -> set[str]:
    """Names of the arrays in the tree of a state."""
    if not isinstance(node, dict):
        return set()
    return {node["array"]} if "array" in node else set().union(*(_named_arrays(part) for part in node.values()))


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Any:
    """One member, if its header, which a pattern reads and nothing evaluates, declares just what is there."""
    with archive.open(member) as f:
        version = np.lib.format.read_magic(f)
        if version != (1, 0):
            raise ValueError(f"{member.filename} is an array of format {version}, not of plain numbers")
        header = _HEADER.fullmatch(f.read(int.from_bytes(f.read(2), "little")))
        if header is None:
            raise ValueError(f"{member.filename} does not begin as an array does")
        descr, shape = header[1].decode(), tuple(int(n) for n in header[2].split(b",") if n.strip())
        if descr not in ("<f4", "<f8", ">f4", ">f8", "|u1"):
            raise ValueError(f"{member.filename} holds {descr}, not float32, float64 or bytes")
        dtype = np.dtype(descr)
        if f.tell() + dtype.itemsize * math.prod(shape) != member.file_size:
            raise ValueError(f"{member.filename} declares {shape} numbers in {member.file_size} bytes")
        f.seek(0)
        return np.lib.format.read_array(f, allow_pickle=False)


def _digest(arrays: Mapping[str, Any]) -> Any:
    """SHA-256 of names, dtypes, shapes and numbers, the names in order, as 32 bytes."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = _little(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return np.frombuffer(digest.digest(), dtype="uint8")


def _little(array: Any) -> Any:
    array = np.asarray(array)
    return array.astype(array.dtype.newbyteorder("<"), copy=False)


def _checkpoint(tree: dict[str, Any], arrays: Mapping[str, Any], rng: Any = None) -> Checkpoint:
    model, state = _built(tree["model"], {}), _built(tree["state"], arrays)
    here = [[name, list(shape)] for name, shape in model.shapes.items()]
    if here != tree["shapes"]:
        differ = [row for row in (*here, *tree["shapes"]) if (row in here) != (row in tree["shapes"])]
        raise ValueError(f"the parameters of its model are not those of this version's: {differ or 'another order'}")
    if isinstance(state, TrainingState):
        for part in (state, state.optimizer_state, *([state.average] if state.average else [])):
            check_count("step", part.step, 0)
    elif list(arrays) != ["theta"]:
        raise ValueError(f"its state is a {type(state).__name__}, neither parameters nor a state of training")
    _check_arrays(arrays, model.shapes)
    if not isinstance(tree["config"], dict) or not isinstance(tree["refscore"], str):
        raise ValueError("its config is no table of names, or its version no word")
    optimizer, ema, objective = (_built(tree[name], {}) for name in ("optimizer", "ema", "objective"))
    rng = None if tree["rng"] is None else _built_rng(tree["rng"], rng)
    return Checkpoint(model, state, optimizer, ema, objective, rng, tree["config"], tree["refscore"])


def _check_arrays(arrays: Mapping[str, Any], shapes: Shapes) -> None:
    """Refuse arrays that are not this model's: by number, by dtype, or not finite (losses may be anything)."""
    size = sum(math.prod(shape) for shape in shapes.values())
    check_floating("theta", arrays["theta"])
    for name, array in arrays.items():
        wanted = () if name in _SCALARS else (size,)
        if array.shape != wanted:
            raise ValueError(f"{name} has shape {tuple(array.shape)}, for this model it must be {wanted}")
        if wanted:
            check_finite(name, array)
        check_same(arrays["theta"], **{name: array})
