"""`refscore check`: is YOUR sampler, loss, schedule, likelihood, score or backward pass right? Chapter 17."""

import argparse
import importlib.util
import sys
from dataclasses import asdict, replace
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from refscore.clinic.arrays import LIBRARIES, host, made
from refscore.clinic.derivatives import derivatives
from refscore.clinic.diagnosis import RIGHT, Diagnosis
from refscore.clinic.likelihood import likelihood
from refscore.clinic.loss import loss
from refscore.clinic.sampler import sampler
from refscore.clinic.schedule import schedule
from refscore.clinic.score import score
from refscore.data.files import check_apart, read_array, save_json
from refscore.laws.examples import MIXTURES, mixture
from refscore.noise.chains import from_alphas_bar, from_betas, from_sigmas
from refscore.noise.sde import SDES

HELP = "is your own sampler, loss, schedule, likelihood, score or backward pass right?"
EPILOG = (
    "example: refscore check mine.py:sample --kind sampler --betas betas --json report.json; exit status: 0 right, "
    "1 wrong (or not what --is says), 3 cannot tell, 2 a call that makes no sense"
)
LISTS = {"betas": from_betas, "alphas_bar": from_alphas_bar, "sigmas": from_sigmas}
NETWORK = {*LISTS, "sde", "predicts", "told", "library"}
TAKES = {  # options of each kind
    "sampler": {*NETWORK, "bounded"},
    "loss": NETWORK,
    "likelihood": {*NETWORK, "data"},
    "score": {*NETWORK, "data"},
    "schedule": {"holds"},
    "derivatives": {"at", "library"},
}
CALLED = {
    "sampler": "run(model, x, rng) -> x", "loss": "loss(model, x0)", "likelihood": "log_prob(model, x) -> (B,)",
    "score": "score(x, t) -> (B, D)",
}  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """FILE.py:NAME, --kind, what its network is like, --is, --json."""
    parser.epilog = EPILOG
    parser.add_argument("patient", metavar="FILE.py:NAME", help="a function of your file (a list, for a schedule)")
    parser.add_argument("--kind", required=True, choices=list(TAKES), help="what it is")
    parser.add_argument("--predicts", help="what the network predicts: noise (default), data, score, v, ...")
    parser.add_argument("--told", help="what its second argument is: index (default with a list), time, sigma, ...")
    for name in LISTS:
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, metavar="LIST", help="the schedule of the network: a name in FILE.py, or a .npy file")
    parser.add_argument("--sde", metavar="NAME", help=f"instead: {', '.join(SDES)}, or a name in FILE.py")
    parser.add_argument("--library", choices=LIBRARIES, help="whose arrays it takes (default: numpy)")
    parser.add_argument("--bounded", action="store_true", default=None, help="a sampler may clip: data lie in [-1, 1]")
    parser.add_argument("--data", metavar="NAME", help=f"law of the data: {', '.join(MIXTURES)} (default: tilted)")
    parser.add_argument("--holds", choices=list(LISTS), help="what the list of a schedule holds (default: betas)")
    parser.add_argument(
        "--at", metavar="NAME", help="inputs of derivatives in FILE.py, or a function of sizes that makes them"
    )
    parser.add_argument("--is", dest="name", metavar="NAME", help="what it should be, as the report names it: ddim")
    parser.add_argument("--json", type=Path, metavar="OUT", help="file for the report")


def run(args: argparse.Namespace) -> int:
    """`refscore check`."""
    file, _, name = args.patient.rpartition(":")
    if not file or not name:
        raise ValueError(f"say which object of which file is meant, FILE.py:NAME; got {args.patient!r}")
    options = {key: getattr(args, key) for key in set().union(*TAKES.values()) if getattr(args, key) is not None}
    for key in options:
        if key not in TAKES[args.kind]:
            takes = ", ".join(f"--{k.replace('_', '-')}" for k in sorted(TAKES[args.kind]))
            raise ValueError(f"--{key.replace('_', '-')} says nothing about a {args.kind}, which takes {takes}")
    if args.json:
        check_apart(args.json, file)
    module = imported(Path(file))
    found = examined(args.kind, named(module, name), options, module)
    names = (found.name, *found.also)
    status = found.status if args.name is None or found.verdict != RIGHT or args.name in names else 1
    if args.json:  # before anything is printed
        save_json(args.json, asdict(found) | {"status": status, "patient": args.patient, "should_be": args.name})
    print(found)
    if status != found.status:
        print(f"  it should be {args.name}, and is {found.name}")
    return status


def examined(kind: str, patient: Any, options: dict[str, Any], module: ModuleType) -> Diagnosis:
    """Ask the clinic.

    Parameters
    ----------
    kind : str
        A key of `TAKES`.
    patient : object
        What is examined.
    options : dict of str to object
        The options that were given, by name.
    module : module
        Of the patient: names among the options are looked up in it.

    Returns
    -------
    Diagnosis
        What the clinic says, with what was assumed for want of an option.

    Raises
    ------
    ValueError
        For options that are missing or make no sense; for a patient that is not of this kind.
    """
    if kind in CALLED and not callable(patient):
        raise ValueError(f"a {kind} is called as {CALLED[kind]}, and {type(patient).__name__} cannot be called")
    if kind == "schedule":
        values = patient() if callable(patient) else patient
        return schedule(**{options.get("holds", "betas"): numbers(values, "the schedule")})
    library = options.pop("library", "numpy")
    like = made(np.zeros(1), library, None) if library != "numpy" else None
    if kind == "derivatives":
        return _derivatives(patient, options, module, like)
    lists: dict[str, Any] = {key: _list(options.pop(key), module) for key in LISTS if key in options}
    sde = options.pop("sde", None)
    sde = (
        None
        if sde is None
        else SDES.get(sde) or named(module, sde, f"no SDE called {sde!r}: there are {', '.join(SDES)}, and ")
    )
    options.setdefault("told", "index" if lists else "time" if sde is not None else "sigma")
    if kind == "sampler":
        return sampler(patient, **options, **lists, sde=sde, library=library)
    if len(lists) + (sde is not None) != 1:
        flags = ", ".join(f"--{key.replace('_', '-')}" for key in LISTS)
        raise ValueError(f"a {kind} is judged with its noise: give one of {flags} and --sde")
    for key, values in lists.items():
        sde = LISTS[key](values)
    if kind == "loss":
        return loss(patient, sde, like=like, **options)
    data = options.pop("data", None)
    if data not in (None, *MIXTURES):
        raise ValueError(f"no data called {data!r}; there are {', '.join(MIXTURES)}")
    law = mixture(data or "tilted")
    found = (likelihood if kind == "likelihood" else score)(patient, law, sde, like=like, **options)
    return replace(
        found, assumed=(*found.assumed, f"the data are the mixture {data or 'tilted'}, {law.dim} numbers a row")
    )


def _derivatives(patient: Any, options: dict[str, Any], module: ModuleType, like: Any) -> Diagnosis:
    if "at" not in options:
        raise ValueError(
            "derivatives are taken somewhere: name inputs with --at, or a function of sizes that makes them"
        )
    if not (isinstance(patient, tuple) and len(patient) == 2) and not hasattr(patient, "backward"):
        raise ValueError(
            "derivatives are those of (forward, backward), or of an object with these methods; got "
            + type(patient).__name__
        )
    at = named(module, options["at"])
    if callable(at):
        return derivatives(patient, at=at, like=like)
    return derivatives(patient, *(at if isinstance(at, (tuple, list)) else (at,)), like=like)


def imported(file: Path) -> ModuleType:
    """Import a file as Python would run it: its folder first on the path, under its own name.

    Parameters
    ----------
    file : Path
        Of Python.

    Returns
    -------
    module
        Its module.

    Raises
    ------
    ValueError
        Where it is not there, or raises.
    """
    if not file.is_file():
        raise ValueError(f"there is no file {file}")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise ValueError(f"{file} is not a Python file: its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get(file.stem)
    sys.path.insert(0, str(file.resolve().parent))
    sys.modules[file.stem] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a patient may raise anything
        raise ValueError(f"cannot import {file}: {type(error).__name__}: {error}") from error
    finally:
        sys.path.pop(0)
        if before is None:
            del sys.modules[file.stem]
        else:
            sys.modules[file.stem] = before
    return module


def named(module: ModuleType, name: str, hint: str = "") -> Any:
    """Return an object of a module; dots lead into it.

    Parameters
    ----------
    module : module
        Of the patient.
    name : str
        Of the object.
    hint : str, default ""
        What is said first where there is none.

    Returns
    -------
    object
        It.

    Raises
    ------
    ValueError
        If there is none.
    """
    try:
        return attrgetter(name)(module)
    except AttributeError:
        known = ", ".join(key for key in vars(module) if not key.startswith("_")) or "nothing"
        raise ValueError(f"{hint}no {name!r} in {module.__file__}, which has {known}") from None


def _list(source: str, module: ModuleType) -> list[float]:
    if source.endswith(".npy"):
        return numbers(read_array(Path(source)), source)
    return numbers(named(module, source), source)


def numbers(values: Any, name: str) -> list[float]:
    """Return a list of numbers of any library as Python's.

    Parameters
    ----------
    values : array or sequence of numbers
        The list.
    name : str
        What it is called in a refusal.

    Returns
    -------
    list of float
        The same numbers.

    Raises
    ------
    ValueError
        If they are no list of numbers.
    """
    try:
        array = host(values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} is no list of numbers, but {type(values).__name__}") from error
    if array.ndim != 1 or not array.size:
        raise ValueError(f"{name} must be a list of numbers, got shape {array.shape}")
    return list(map(float, array))
