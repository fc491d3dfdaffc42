"""A valid call of every public function, class and method, as it was seen while everything public was run.

Whoever adds a public name has it run in `EVERYTHING`, or here if it is of NumPy alone: then it is in the battery.
"""

import atexit
import copy
import dataclasses
import importlib
import inspect
import pkgutil
import shutil
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Executor
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

import refscore
import refscore.data.files as files
import refscore.data.images as images
import refscore.data.labels as labels
import refscore.data.points as points
import refscore.data.sets as sets
import refscore.laws.examples as examples
import refscore.laws.plane as plane
import refscore.measure.work_precision as work_precision
import refscore.noise.suggest as suggest
from refscore import DDIM, VP, Adam, Denoising, ExactScore, fit, last, load, save, watch
from refscore.data.idx import read_idx
from refscore.laws.grid_chain import gap, grid_law, langevin_law
from refscore.matching.objectives import OBJECTIVES
from refscore.matching.times import Levels, LogNormal
from refscore.nn import LAYERS
from refscore.noise.sde import SDES
from refscore.training.optim import SGD, WarmupCosine
from refscore.training.parallel import Sharded
from refscore.training.safetensors import export_safetensors, import_safetensors
from refscore_backends.numpy import NumpyBackend
from refscore_backends.strict import StrictBackend
from tests.oracles.everything import EVERYTHING, UNET, Place, leaves
from tests.oracles.models import MODEL, POINTS, TILTED

NOT_CALLED = (
    "commands",
    "experiments",
    "plots",
    "cli",
    "checks",
    "protocols",
    "library",
    "clinic",
    "museum",
)  # on the host
HOSTS_OWN = StrictBackend("device1").to_numpy
CANDIDATES = 4  # calls of each, of which the first that is answered is taken
FIRST = 8  # of what a generator yields


@dataclasses.dataclass(frozen=True)
class Call:
    """A function with valid arguments by name; a method has its noun as `self`."""

    name: str
    function: Callable[..., Any]
    given: dict[str, Any]

    def arguments(self) -> dict[str, Any]:
        """Copies, that a call may use up."""
        return copy.deepcopy(self.given)

    def __call__(self, /, **changed: Any) -> Any:
        """What it answers, with some of the arguments exchanged; the first of what a generator yields."""
        given, args, named = {**self.arguments(), **changed}, [], {}
        for p in inspect.signature(self.function).parameters.values():
            if p.kind == p.VAR_POSITIONAL:
                args += list(given[p.name])
            elif p.kind == p.KEYWORD_ONLY:
                named[p.name] = given[p.name]
            elif p.kind == p.VAR_KEYWORD:
                named |= given[p.name]
            else:
                args.append(given[p.name])
        found = self.function(*args, **named)
        return list(islice(found, FIRST)) if inspect.isgenerator(found) else found


def functions() -> dict[Any, tuple[str, Callable[..., Any]]]:
    """The code of everything public that can be called, its name and itself."""
    found: dict[Any, tuple[str, Callable[..., Any]]] = {}
    for info in pkgutil.walk_packages(refscore.__path__, "refscore."):
        name = info.name.removeprefix("refscore.")
        if name.split(".")[0] in NOT_CALLED:
            continue
        module = importlib.import_module(info.name)
        for own, thing in vars(module).items():
            if own[0] == "_" or getattr(thing, "__module__", "") != info.name:
                continue
            if inspect.isclass(thing):
                found |= {code: (f"{name}.{own}{dot}", f) for code, dot, f in of_class(thing)}
            elif inspect.isfunction(inspect.unwrap(thing)):
                found[inspect.unwrap(thing).__code__] = (f"{name}.{own}", thing)
    return found


def of_class(thing: Any) -> Iterator[tuple[Any, str, Callable[..., Any]]]:
    """Its constructor, and its methods; those of a Protocol and of errors are nobody's."""
    if getattr(thing, "_is_protocol", False) or issubclass(thing, BaseException):
        return
    for own, method in vars(thing).items():
        if inspect.isfunction(method) and (own[0] != "_" or own == "__call__"):
            yield method.__code__, f".{own}", method
        elif own == "__init__" and inspect.isfunction(method):
            yield method.__code__, "", thing


class Noise(Place):
    """With a generator that can be copied, as users have it."""

    def rng(self, seed: int = 0) -> Any:
        return np.random.default_rng(seed) if self.backend.name == "numpy" else super().rng(seed)


@cache
def calls(dtype: str = "float64", backend: Any = None) -> dict[str, Call]:
    """The first call of each, as `EVERYTHING` and `HOST` make it."""
    names, seen = functions(), dict[str, list[Call]]()

    def look(frame: Any, event: str, _: Any) -> None:
        if event != "call" or frame.f_code not in names:
            return
        name, function = names[frame.f_code]
        if len(seen.get(name, ())) == CANDIDATES:
            return
        sys.setprofile(None)
        given = {own: value for own, value in frame.f_locals.items() if own in taken(frame.f_code)}
        if inspect.isclass(function):
            del given["self"]
        if not any(isinstance(value, (Generator, Executor)) for value in given.values()):  # which have no copies
            seen.setdefault(name, []).append(Call(name, function, copy.deepcopy(given)))
        sys.setprofile(look)

    def traced(run: Callable[[], Any]) -> None:
        sys.setprofile(look)
        try:
            run()
        finally:
            sys.setprofile(None)

    for make in EVERYTHING.values():
        traced(partial(run_at, make, Noise(backend or NumpyBackend(), dtype)))
    if backend is None:
        for run in HOST:
            traced(run)
    found = ((name, next(filter(answers, those), None)) for name, those in seen.items())
    return {name: call for name, call in found if call is not None}


def run_at(make: Any, place: Place) -> None:
    """Make it and run it."""
    make(place)()


def answers(call: Call) -> bool:
    """Some calls of `EVERYTHING` are refused, and caught."""
    try:
        call()
    except (ValueError, TypeError):
        return False
    return True


def taken(code: Any) -> tuple[str, ...]:
    """Names of the arguments of a function."""
    starred = bool(code.co_flags & inspect.CO_VARARGS) + bool(code.co_flags & inspect.CO_VARKEYWORDS)
    return code.co_varnames[: code.co_argcount + code.co_kwonlyargcount + starred]


# ------------------------------------------------------------------ what NumPy alone runs


@cache
def folder() -> Path:
    """For the files of these calls."""
    made = Path(tempfile.mkdtemp(prefix="refscore-calls-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


def constructors() -> None:
    nouns: list[Any] = [
        *SDES.values(),
        *OBJECTIVES.values(),
        Adam(),
        SGD(),
        WarmupCosine(1e-3, 10),
        Levels((0.9, 0.5)),
        LogNormal(),
    ]
    for noun in [*nouns, *(make(2) for make in LAYERS.values())]:
        dataclasses.replace(noun)
    UNET(), Sharded(Denoising(), 2)


def in_the_plane() -> None:
    rng = np.random.default_rng(0)
    for law in (plane.Rings((1.0, 2.0), 0.2), plane.Checkerboard(), plane.Pinwheel()):
        law.log_prob(law.sample(rng, 5))
        if not isinstance(law, plane.Pinwheel):
            law.score(law.sample(rng, 5), 1.0, 0.5)
    plane.moons(rng, 5), plane.swissroll(rng, 5), plane.two_spirals(rng, 5)
    for name in ("tilted", "two_modes", "circle", "spiral"):
        getattr(examples, name)()
    examples.mixture("tilted")


def on_a_grid() -> None:
    law = grid_law(-4.0, 4.0, 20, lambda x: 0.5 + 0.125 * np.clip(x, -4, 4))
    law.mean(lambda x: x), law.push(law.transition(lambda x: 0.5 * x, 0.8), 2)
    langevin_law(law, lambda x, t: -x, [0.5, 0.2], lambda t: 0.5, 2)
    gap(law.transition(lambda x: 0.5 * x, 0.8))


def work_and_suggestions() -> None:
    score = ExactScore(TILTED, VP())
    one = work_precision.starts(VP()) and dataclasses.replace(TILTED)
    work_precision.evaluations_per_step("heun")
    work_precision.sample(score, VP(), "ddim", 3, POINTS[:4], np.random.default_rng(0))
    work_precision.gaussian_error(VP()), work_precision.sampled_error(VP(), one, 20, 0)
    suggest.overlap(1.4321, 2), suggest.overlap_ratio(7)
    suggest.level_excess(0.1, 1.5, 5), suggest.best_step(1.4321, 5)


def data_in_files() -> None:
    at, rng = folder(), np.random.default_rng(0)
    grey = rng.integers(0, 4, (6, 4, 4))
    pictures = images.as_images("grey", grey, np.arange(6) % 3, 4)
    table = points.as_table("points", POINTS, 2)
    points.check_real("x", POINTS)
    points.standardise(table)
    list(points.outliers(table))
    labels.as_labels("labels", np.arange(6) % 3, 6)
    labels.in_words(pictures.labels, "labels")
    files.writable_folder(at)
    files.save_text(at / "a.txt", "a")
    files.save_json(at / "a.json", {"a": 1})
    files.save_bytes(at / "a.bin", b"a")
    files.check_apart(at / "b.npy", at / "a.txt")
    files.save_array(at / "x.npy", POINTS)
    files.save_arrays(at / "x.npz", x=POINTS)
    files.save_array(at / "grey.npy", grey.astype("uint8"))
    files.save_array(at / "labels.npy", np.arange(6) % 3)
    files.read_array(at / "x.npy")
    files.read_arrays(at / "x.npz")
    points.load_points(at / "x.npy")
    labels.read_labelled(at / "x.npy")
    labels.read_column(at / "labels.npy")
    images.read_images(at / "grey.npy", at / "labels.npy", 4)
    images.digits()
    data = sets.load_data(at / "x.npy")
    sets.split(20, 0.1, rng)
    sets.load_data("tilted", n=20)
    files.save_text(at / "t.csv", "a,b,c\n" + "\n".join(f"{i},{i % 3},{i * 0.5}" for i in range(20)))
    sets.condition_on(sets.load_data(at / "t.csv"), ["b"])
    files.save_array(at / "mask.npy", np.ones((4, 4), bool))
    images.load_mask(at / "mask.npy", (4, 4, 1))
    (at / "a.idx").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 2, 1, 2]))
    read_idx(at / "a.idx")
    assert data.kind == "points"


def training_in_files() -> None:
    states = fit(MODEL, Denoising(), POINTS, Adam(), np.random.default_rng(0), steps=3, batch=4)
    state = last([*states])
    save(folder() / "run.npz", MODEL, state, optimizer=Adam(), objective=Denoising(), rng=np.random.default_rng(0))
    load(folder() / "run.npz")
    export_safetensors(folder() / "run.safetensors", state.theta, MODEL)
    import_safetensors(folder() / "run.safetensors", MODEL)
    list(watch([POINTS, POINTS], [1.0, 0.5, 0.1]))
    DDIM(VP(), ExactScore(TILTED, VP()))


HOST: tuple[Callable[[], None], ...] = (
    constructors, in_the_plane, on_a_grid, work_and_suggestions, data_in_files, training_in_files,
)  # fmt: skip


def numbers(answer: Any) -> list[np.ndarray]:
    """The arrays and numbers in an answer, in NumPy."""
    found = []
    for leaf in leaves(answer):
        if isinstance(leaf, (float, int, complex, np.ndarray, np.generic)) or hasattr(leaf, "__array_namespace__"):
            a = np.asarray(leaf if isinstance(leaf, (float, int, complex, np.ndarray, np.generic)) else HOSTS_OWN(leaf))
            found += [a] if a.dtype.kind in "fciub" else []
    return found
