"""What a training run is made of: one flat table of settings, from the data, a TOML file and flags, in that order."""

import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from refscore.checks import check_count, check_number, check_positive
from refscore.commands.progress import check_ends
from refscore.data.sets import Data, condition_on, load_data
from refscore.data.training import Dequantised
from refscore.matching.base import ScoreMatching
from refscore.matching.objectives import OBJECTIVES
from refscore.matching.times import UniformLogSNR
from refscore.matching.weights import g_squared
from refscore.nn.energy_model import EnergyModel
from refscore.nn.mlp import MLP
from refscore.nn.score_model import ScoreModel
from refscore.nn.unet import UNet
from refscore.noise.interpolant import Rectified
from refscore.noise.parametrisation import PARAMETRISATIONS
from refscore.noise.sde import OU, SDES, VE, VP, CosineVP, LinearVE, SubVP
from refscore.noise.suggest import suggest_beta_max, suggest_sigma_max
from refscore.protocols import SDE
from refscore.training.optim import EMA, Adam, WarmupCosine
from refscore_backends import BACKENDS, Backend
from refscore_backends.base import check_seed

NETS = ("mlp", "unet", "energy")
LEARNABLE = tuple(name for name in OBJECTIVES if name != "explicit")  # which needs to know the score


@dataclass(frozen=True)
class Settings:
    """All that decides a run, by the names of the flags of `refscore train`; None where the data decide.

    Parameters
    ----------
    data : str
        A name or a file, as `load_data` takes them.
    labels : str, optional
        Where a file's labels are, as `load_data` takes them.
    condition : tuple of str, optional
        Columns of points under whose values the others are learned.
    levels : int, optional
        Number of grey levels of images of integers, as `load_data` takes it.
    span : tuple of two floats, optional
        Least and largest value of images of floats, as `load_data` takes it.
    unconditional : bool, default False
        Whether labels that there are are left out.
    held_out : float, default 0.1
        Part of the data that is not trained on.
    net : str, optional
        "mlp", "unet" or "energy": an MLP, or for images a U-Net, whose answer is an energy.
    widths : tuple of int, optional
        Widths of the hidden layers, or of a U-Net's levels.
    dropout : float, default 0.0
        Rate of dropout in the network.
    sde : str, default "vp"
        Name of the SDE; its end is chosen so that the data's mismatch with the prior is at most .01 nats.
    objective : str, default "denoising"
        What is minimised, with the likelihood's weighting and times uniform in log SNR.
    predict : str, default "noise"
        What the network predicts.
    t_min : float, default 1e-3
        The least time of training.
    steps : int, optional
        Training steps.
    batch : int, optional
        Samples in each.
    rate : float, optional
        Largest learning rate; it warms up and falls as a cosine.
    unlabelled : float, default 0.1
        Share of labels withheld, for guidance.
    dequantise : bool, default True
        Whether grey levels are spread over their cells.
    flips : bool, default False
        Whether images are mirrored at random.
    shards : int, default 1
        Parts of each batch, which workers share; the numbers depend on it, and not on the workers.
    seed : int, default 0
        Of everything random.
    backend : str, default "numpy"
        The array library.
    """

    data: str = ""
    labels: str | None = None
    condition: tuple[str, ...] | None = None
    levels: int | None = None
    span: tuple[float, ...] | None = None
    unconditional: bool = False
    held_out: float = 0.1
    net: str | None = None
    widths: tuple[int, ...] | None = None
    dropout: float = 0.0
    sde: str = "vp"
    objective: str = "denoising"
    predict: str = "noise"
    t_min: float = 1e-3
    steps: int | None = None
    batch: int | None = None
    rate: float | None = None
    unlabelled: float = 0.1
    dequantise: bool = True
    flips: bool = False
    shards: int = 1
    seed: int = 0
    backend: str = "numpy"

    def __post_init__(self) -> None:
        for name, table in (
            ("net", (None, *NETS)), ("sde", SDES), ("objective", LEARNABLE), ("predict", PARAMETRISATIONS),
            ("backend", BACKENDS),
        ):  # fmt: skip
            if getattr(self, name) not in table:
                known = ", ".join(str(each) for each in table if each)
                raise ValueError(f"no {name} called {getattr(self, name)!r}; there are {known}")
        for name, least in (("steps", 1), ("batch", 1), ("shards", 1), ("levels", 2)):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name), least)
        check_ends("steps", self.steps or 1, 1e-4)
        for name in ("held_out", "dropout", "unlabelled"):
            if not 0 <= check_number(name, getattr(self, name)) < 1:
                raise ValueError(f"{name} must lie in [0, 1), got {getattr(self, name)}")
        if not 0 < check_number("t_min", self.t_min) < 1:
            raise ValueError(f"t_min must lie in (0, 1), got {self.t_min}: at t = 0 there is no noise to learn from")
        if self.rate is not None:
            check_positive(rate=self.rate)
        if self.widths is not None and (not self.widths or min(self.widths) < 1):
            raise ValueError(f"widths are integers of at least 1, one or more, got {list(self.widths)}")
        if self.span is not None and not (len(self.span) == 2 and -math.inf < self.span[0] < self.span[1] < math.inf):
            raise ValueError(f"span is two finite numbers, the least and the largest value; got {list(self.span)}")
        check_seed(self.seed)


_WORDS = {str: "a string", bool: "true or false", int: "an integer", float: "a number"}
_KINDS = {  # of each setting: the type of its value, or of its parts where it has several
    f.name: (next(kind for kind in _WORDS if kind.__name__ in str(f.type)), "tuple" in str(f.type))
    for f in fields(Settings)
}


def settle(flags: Mapping[str, Any], file: Path | None) -> Settings:
    """The settings of a TOML file, overruled by the flags that were given.

    Parameters
    ----------
    flags : mapping
        Names and values; None for flags that were not given.
    file : Path or None
        A table of the same names; dashes are underscores.

    Returns
    -------
    Settings
        Checked one by one; what depends on the data is settled by `Run`.

    Raises
    ------
    ValueError
        For a file that is no TOML, unknown names, or values that cannot be; the message names the file.
    OSError
        For a file that cannot be read.
    """
    known = {f.name for f in fields(Settings)}
    table: dict[str, Any] = {}
    if file is not None:
        try:
            table = tomllib.loads(file.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{file} is not TOML: {error}") from error
        except OSError as error:
            raise OSError(f"{file} cannot be read: {error.strerror}") from error
        if unknown := sorted(set(table) - known):
            raise ValueError(f"{file} sets {', '.join(unknown)}; what may be set is {', '.join(sorted(known))}")
    given = table | {name: value for name, value in flags.items() if value is not None and name in known}
    for name, value in given.items():
        kind, several = _KINDS[name]
        value = tuple(value) if isinstance(value, list) else value
        parts = value if several and isinstance(value, tuple) else (None,) if several else (value,)
        if not all(type(part) in ((int, float) if kind is float else (kind,)) for part in parts):
            wanted = "a list, each " * several + _WORDS[kind]
            raise ValueError(f"{name} = {value!r}{f' in {file}' if name in table else ''}: wanted is {wanted}")
        given[name] = value
    if not given.get("data"):
        raise ValueError("what should be learned? give --data NAME or --data FILE")
    return Settings(**given)


def as_toml(settings: Settings) -> str:
    """The settings as a file that `settle` reads back: JSON's numbers, strings and lists are TOML's."""
    chosen = {name: value for name, value in asdict(settings).items() if value is not None}
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in chosen.items())


@dataclass(frozen=True, eq=False)
class Run:
    """A run, built: what `fit` takes, and the settings with nothing left open.

    Parameters
    ----------
    settings : Settings
        Complete.
    data : Data
        What was loaded.
    model : ScoreModel or EnergyModel
        To be trained.
    objective : ScoreMatching
        What is minimised.
    optimizer : Adam
        With its schedule.
    ema : EMA
        The average that is sampled.
    training : Array, pair or Dequantised
        The data on the back end.
    held_out : tuple of Array and Array or None
        The samples that are not trained on, and their labels, on the back end.
    """

    settings: Settings
    data: Data
    model: Any
    objective: ScoreMatching
    optimizer: Adam
    ema: EMA
    training: Any
    held_out: tuple[Any, Any]


def build(settings: Settings, backend: Backend) -> Run:
    """Load the data, and make of the settings what `fit` takes.

    Parameters
    ----------
    settings : Settings
        What was asked for.
    backend : Backend
        Where the arrays go.

    Returns
    -------
    Run
        Everything, with all settings settled.

    Raises
    ------
    ValueError, OSError
        For data that cannot be read, or a network that does not go with them.
    """
    s, data = settings, load(settings)
    images = data.kind == "images"
    net = s.net or ("unet" if images else "mlp")
    if net == "unet" and not images:
        raise ValueError(f"{data.name} holds points, and a U-Net takes images: --net mlp")
    s = replace(
        s, net=net, widths=s.widths or _widths(data, net), steps=s.steps or (4000 if images else 6000),
        batch=s.batch or (64 if images else 512), rate=s.rate or (2e-3 if images else 3e-3),
        unconditional=s.unconditional or data.labels is None,
        dequantise=s.dequantise and data.scaling.levels is not None, flips=s.flips and images,
        data=_anywhere(s.data), labels=s.labels and _anywhere(s.labels),
    )  # fmt: skip
    assert s.steps is not None
    assert s.rate is not None
    assert s.batch is not None
    if s.batch % s.shards:
        raise ValueError(f"{s.shards} shards do not divide a batch of {s.batch}")
    x = backend.asarray(data.x, "float32")
    labels, judge = (
        None if s.unconditional or part is None else backend.asarray(part)
        for part in (data.labels, data.held_out_labels)
    )
    training: Any = x if labels is None else (x, labels)
    if s.dequantise or s.flips:
        training = Dequantised(x, data.scaling if s.dequantise else None, labels, s.flips)
    rate = WarmupCosine(s.rate, s.steps, warmup=min(100, s.steps - 1), end=s.rate / 100)
    model = _model(s, data)
    objective = replace(OBJECTIVES[s.objective], weight=g_squared, times=UniformLogSNR(s.t_min), antithetic=True)
    try:
        told, some = model if labels is None else model.told(labels[:1]), backend.rng(0)
        objective(told, model.init(some), x[:1, ...], some)
    except TypeError as error:  # a network may lack the passes that an objective calls
        raise ValueError(f"--net {net} cannot be trained with --objective {s.objective}: {error}") from error
    return Run(
        s, data, model, objective, Adam(rate), EMA(min(0.999, 1 - 20 / (s.steps + 20))), training,
        (backend.asarray(data.held_out, "float32"), judge),
    )  # fmt: skip


def _anywhere(source: str) -> str:
    """A file by its whole path, so that a run goes on from any folder; a name as it is."""
    return str(Path(source).resolve()) if Path(source).suffix and Path(source).exists() else source


def load(s: Settings) -> Data:
    """The data of the settings, split as they say.

    Parameters
    ----------
    s : Settings
        Whose data, labels, condition, levels, span, held_out and seed count.

    Returns
    -------
    Data
        As `load_data` answers.

    Raises
    ------
    ValueError, OSError
        As `load_data`.
    """
    span = None if s.span is None else (float(s.span[0]), float(s.span[1]))
    data = load_data(s.data, s.labels, s.levels, span, held_out=s.held_out, seed=s.seed)
    return data if s.condition is None else condition_on(data, s.condition)


def _widths(data: Data, net: str) -> tuple[int, ...]:
    if data.kind == "images":
        side = max(data.x.shape[1:3])
        return (32, 64) if side <= 12 else (32, 64, 64) if side <= 40 else (32, 64, 64, 128)
    width = min(512, max(128, 2 * data.x.shape[1]))
    return (width,) * 3


def _model(s: Settings, data: Data) -> Any:
    """The network of the settings around the SDE that the data want."""
    assert s.widths is not None
    classes = 0 if s.unconditional else data.classes
    told: dict[str, Any] = {"classes": classes, "n_condition": len(data.given), "dropout": s.dropout}
    energy = s.net == "energy"
    body: Any
    if data.kind == "images" and s.net != "mlp":
        body = UNet(data.x.shape[-1], s.widths, embed=32, cond=4 * s.widths[0], energy=energy, **told)
    elif data.kind == "images":
        raise ValueError(f"{data.name} holds images: --net unet or energy")
    else:
        D = data.x.shape[1]
        body = MLP((D, *s.widths, 1 if energy else D), embed=32, **told)
    kind = EnergyModel if energy else ScoreModel
    return kind(body, fitting_sde(s.sde, data), data_std=data.std, predict=s.predict)


def fitting_sde(name: str, data: Data) -> SDE:
    """The SDE of this name, which ends where the data are noise to .01 nats.

    Parameters
    ----------
    name : str
        A key of `SDES`.
    data : Data
        What is noised.

    Returns
    -------
    SDE
        With the end of `refscore.noise.suggest`, in the numbers of its class.
    """
    usual, x = SDES[name], data.x.astype("float64")
    wanted = max(20.0, math.ceil(suggest_beta_max(x, nats=0.0095)))  # of a VP; the others fall short of it by little
    half = 0.25 * (wanted + 0.1)  # ½ ∫ β: α(1) = e^-half
    far = max(10.0, math.ceil(suggest_sigma_max(x, nats=0.0095)))
    choices: dict[str, SDE] = {
        "vp": VP(beta_max=wanted), "subvp": SubVP(beta_max=wanted), "cosine": CosineVP(alpha_end=math.exp(-half)),
        "ou": OU(theta=half, diffusion=math.sqrt(2 * half)),
        "rectified": Rectified(alpha_end=min(math.exp(-half), 1e-3)),
        "ve": VE(sigma_max=far), "linear-ve": LinearVE(sigma_max=far),
    }  # fmt: skip
    return choices.get(name, usual)
