"""The folder of a training run: what `refscore train` writes, and `sample` and `evaluate` read."""

import copy
import hashlib
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from refscore.checks import check_count
from refscore.commands.train_config import Run, Settings
from refscore.data.scaling import Scaling
from refscore.data.sets import Data
from refscore.protocols import Array, HasState
from refscore.training.checkpoint import CheckpointError, load, save
from refscore_backends import Backend

CHECKPOINT, SETTINGS, METRICS = "checkpoint.npz", "config.toml", "metrics.csv"


@dataclass(frozen=True, eq=False)
class Saved:
    """A trained model as it was saved, and what is needed to use it.

    Parameters
    ----------
    model : ScoreModel or EnergyModel
        The model.
    theta : Array
        Its averaged parameters (P,), on the back end.
    config : dict
        Settings of the run, kind, shape and scaling of the data.
    step : int
        Training steps taken.
    """

    model: Any
    theta: Array
    config: dict[str, Any]
    step: int

    @property
    def scaling(self) -> Scaling:
        """Between the units of the network and those of the data."""
        return Scaling.from_dict(self.config["scaling"])

    @property
    def settings(self) -> Settings:
        """What the run was made of, but for names that this version does not know."""
        return _settings(self.config)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return tuple(self.config["shape"])


def write(folder: Path, run: Run, state: Any, rng: Any, backend: Backend) -> None:
    """Save a state of the run; on a back end whose generator cannot be read, without it.

    Parameters
    ----------
    folder : Path
        Where to.
    run : Run
        The run.
    state : TrainingState
        Its state.
    rng : Rng or None
        A `snapshot` of the generator, after the step of the state.
    backend : Backend
        Where the arrays are.
    """
    config = {
        "settings": asdict(run.settings), "kind": run.data.kind, "shape": list(run.data.x.shape[1:]),
        "scaling": run.data.scaling.to_dict(), "columns": list(run.data.columns), "data": fingerprint(run.data),
        "given": list(run.data.given), "given_scaling": run.data.given_scaling and run.data.given_scaling.to_dict(),
    }  # fmt: skip
    save(
        folder / CHECKPOINT, run.model, state, optimizer=run.optimizer, ema=run.ema, objective=run.objective, rng=rng,
        config=config, to_numpy=backend.to_numpy,
    )  # fmt: skip


def snapshot(rng: Any) -> Any:
    """A copy of a generator as it is now, or of the one inside a `HostRng`: a step that is interrupted draws on.

    Parameters
    ----------
    rng : Rng
        The generator.

    Returns
    -------
    Rng or None
        The copy; None for CuPy's, whose state cannot be read.
    """
    inside = rng if isinstance(rng, HasState) else getattr(rng, "generator", rng)
    return copy.deepcopy(inside) if isinstance(inside, (np.random.Generator, HasState)) else None


def fingerprint(data: Data) -> str:
    """SHA-256 of what is trained on: a run goes on with the same data, or not at all.

    Parameters
    ----------
    data : Data
        The data.

    Returns
    -------
    str
        Hexadecimal digits.
    """
    digest = hashlib.sha256(np.ascontiguousarray(data.x).tobytes())
    if data.labels is not None:
        digest.update(np.ascontiguousarray(data.labels).tobytes())
    return digest.hexdigest()


def read(folder: Path, backend: Backend) -> Saved:
    """Open the folder of a run.

    Parameters
    ----------
    folder : Path
        As given to `refscore train --out`; or a checkpoint itself.
    backend : Backend
        Where the parameters go.

    Returns
    -------
    Saved
        The model with its averaged parameters.

    Raises
    ------
    CheckpointError
        For a folder without a checkpoint, or one that was not made by `refscore train`.
    """
    path = folder / CHECKPOINT if folder.is_dir() else folder
    if not path.exists():
        raise CheckpointError(f"{folder} holds no {CHECKPOINT}: give the folder of a `refscore train`")
    kept = load(path, asarray=backend.asarray)
    if missing := {"settings", "kind", "shape", "scaling"} - set(kept.config):
        raise CheckpointError(f"{path} lacks {', '.join(sorted(missing))}: it is not from `refscore train`")
    try:
        _check(kept.config)
    except (TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path} is not from `refscore train`: {error}") from error
    theta = kept.theta if kept.average is None else kept.average
    return Saved(kept.model, theta, kept.config, getattr(kept.state, "step", 0))


def _settings(config: dict[str, Any]) -> Settings:
    kept, known = config["settings"].items(), {field.name for field in fields(Settings)}
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in kept if name in known}
    return Settings(**values)


def _check(config: dict[str, Any]) -> None:
    """Refuse a description of a run that `write` has not written, whatever it is made of."""
    settings = _settings(config)
    shape, columns, given = config["shape"], config.get("columns", []), config.get("given") or []
    if not isinstance(shape, list) or not shape or not all(0 < check_count("shape", n) < 2**20 for n in shape):
        raise ValueError(f"the shape of a sample is {shape!r}")
    for named in (columns, given):
        if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
            raise ValueError(f"its columns are {named!r}")
    if columns and config["kind"] == "points" and shape != [len(columns)]:
        raise ValueError(f"its columns are {columns}, the shape of a sample is {shape}")
    for name in ("data", "labels"):
        if not isinstance(getattr(settings, name), (str, type(None))):
            raise ValueError(f"its {name} are {getattr(settings, name)!r}")
    if config["kind"] not in ("points", "images"):
        raise ValueError(f"its data are {config['kind']!r}, neither points nor images")
    for numbers, n in ((config["scaling"], shape[-1]), *([(config.get("given_scaling"), len(given))] if given else [])):
        scaling = Scaling.from_dict(numbers)
        if any(isinstance(each, tuple) and len(each) != n for each in (scaling.centre, scaling.scale)):
            raise ValueError(f"{scaling} is not of {n} columns")
