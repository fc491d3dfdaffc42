"""The house itself: who may import whom, what can be imported from the top, what stands in the tables."""

import ast
import dataclasses
import inspect
import re
from functools import cache
from graphlib import TopologicalSorter

import pytest

import refscore
import refscore.matching.objectives
import refscore.nn
import refscore.noise.sde
import refscore.sampling.transitions
from tests.oracles.book import ROOT, parsed

ORDER = (  # of reading: a folder, or a file beside the folders, imports only from those before it
    "library", "protocols", "checks", "arrays", "laws", "data", "plots", "noise", "sampling", "nn", "matching",
    "training", "likelihood", "measure", "museum", "clinic", "experiments", "commands", "cli",
)  # fmt: skip
WITH_NUMPY = (  # where a library is chosen, or SciPy works on the host
    "data", "plots", "laws.examples", "laws.grid_chain", "laws.plane", "noise.suggest", "likelihood.adaptive",
    "measure.work_precision", "museum", "clinic", "experiments", "commands", "cli", "training.checkpoint",
    "training.safetensors",
)  # fmt: skip


@cache
def modules():
    found = {}
    for path in (ROOT / "refscore").rglob("*.py"):
        name = ".".join(path.relative_to(ROOT / "refscore").with_suffix("").parts)
        found[name.removesuffix("__init__").rstrip(".")] = parsed(path)
    return found


@cache
def imports(tree):
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def inside(module, trees):
    """The modules of refscore that a module imports."""
    names = {n.removeprefix("refscore.") for n in imports(trees[module]) if n.startswith("refscore.")}
    return {n for n in names if n in trees and n != module}


def test_a_folder_imports_only_from_those_before_it():
    trees = modules()
    assert {module.split(".")[0] for module in trees if module} == set(ORDER), "every folder has its place"
    for module in trees:
        for other in inside(module, trees) if module else ():
            here, there = (ORDER.index(name.split(".")[0]) for name in (module, other))
            assert there <= here, f"{module} imports {other}, which comes later in the book"


def test_no_circle_inside_a_folder():
    trees = modules()
    needs = {m: {o for o in inside(m, trees) if o.split(".")[0] == m.split(".")[0]} for m in trees if m}
    order = list(TopologicalSorter(needs).static_order())  # raises CycleError, which names the circle
    assert set(order) == set(needs)


def test_the_face_is_for_users():
    """Inside the package nobody imports from `refscore` itself, but for its version."""
    for module, tree in modules().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module == "refscore":
                assert not module, f"{module}:{node.lineno} imports from the face"


WHERE = {  # what one looks for, and the file that the tree alone should lead to
    "DDIM": "sampling/transitions", "Euler": "sampling/solvers", "annealed Langevin": "sampling/compose",
    "the DDPM chain": "noise/chains", "the prior": "noise/prior", "Karras levels": "noise/grids",
    "score of a mixture": "laws/mixture", "denoising loss": "matching/denoising", "Adam": "training/optim",
    "log-likelihood": "likelihood/flow", "what `refscore demo` runs": "commands/demo",
    "what `refscore samplers` runs": "commands/samplers", "the layer protocol": "nn/layer",
    "guidance": "sampling/guidance", "reading a .csv": "data/points", "reading MNIST's files": "data/idx",
    "the digits": "data/images", "a data set by its name": "data/sets", "dequantisation": "data/scaling",
    "the checkerboard": "laws/plane", "saving a run": "training/checkpoint",
    "what `refscore check` runs": "commands/check", "is my sampler right": "clinic/sampler",
    "mistakes in samplers": "museum/samplers",
}  # fmt: skip
HOLDS = {
    "DDIM": "class DDIM", "Euler": "class EulerMaruyama", "annealed Langevin": "class AnnealedLangevin",
    "the DDPM chain": "def ddpm", "the prior": "def prior", "Karras levels": "def karras_times",
    "score of a mixture": "class GaussianMixture", "denoising loss": "class Denoising", "Adam": "class Adam",
    "log-likelihood": "def log_likelihood", "what `refscore demo` runs": "def run",
    "what `refscore samplers` runs": "def run", "the layer protocol": "class Layer(Protocol)",
    "guidance": "class Guided", "reading a .csv": "def load_points", "reading MNIST's files": "def read_idx",
    "the digits": "def digits", "a data set by its name": "def load_data", "dequantisation": "def dequantise",
    "the checkerboard": "class Checkerboard", "saving a run": "def save", "what `refscore check` runs": "def run",
    "is my sampler right": "def sampler", "mistakes in samplers": "MISTAKES",
}  # fmt: skip


@pytest.mark.parametrize("what", WHERE)
def test_the_tree_alone_tells_where_it_is(what):
    assert HOLDS[what] in (ROOT / "refscore" / f"{WHERE[what]}.py").read_text(encoding="utf-8")


def test_only_the_edges_choose_a_library():
    for module, tree in modules().items():
        heads = {name.split(".")[0] for name in imports(tree)}
        edge = any(module == name or module.startswith(name + ".") for name in WITH_NUMPY)
        assert not heads & {"numpy", "scipy", "cupy", "torch", "jax", "mpi4py"} - (
            {"numpy", "scipy"} if edge else set()
        ), module


def test_one_file_finds_the_library_of_an_array():
    """It remembers what it found: to ask array-api-compat each time is a twentieth of a small step."""
    asks = {module for module, tree in modules().items() if "array_api_compat" in imports(tree)}
    assert asks == {"library"}


def test_zeros_are_made_and_not_multiplied():
    """0 * x is not zero where x is infinite or NaN, and -1 + 0 * x not -1: `constant(value, like)` is."""
    for module, tree in modules().items():
        for node in ast.walk(tree):
            zero = isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult) and isinstance(node.left, ast.Constant)
            assert not (zero and node.left.value == 0), f"{module}:{node.lineno}"


def test_matplotlib_and_tqdm_are_imported_inside_functions():
    for module, tree in modules().items():
        top = {
            n
            for node in tree.body
            if isinstance(node, (ast.Import, ast.ImportFrom))
            for n in imports(ast.Module([node], []))
        }
        assert not {n.split(".")[0] for n in top} & {"matplotlib", "tqdm", "threadpoolctl", "safetensors"}, module


def test_back_ends_know_nothing_of_refscore():
    for path in (ROOT / "backends").rglob("*.py"):
        heads = {name.split(".")[0] for name in imports(parsed(path))}
        assert "refscore" not in heads, path


def test_public_names():
    promised = {
        "GaussianMixture", "VP", "VE", "ExactScore", "Reverse", "MLP", "ScoreModel", "Denoising", "Adam", "SGD", "EMA",
        "fit", "Langevin", "EulerMaruyama", "Heun", "simulate", "watch", "prior", "Explicit", "Implicit", "Sliced",
        "FiniteDifference", "EnergyModel", "AnnealedLangevin", "SubVP", "OU", "RungeKutta", "ReverseDiffusion",
        "Ancestral",
        "DDIM", "DPMSolver", "EDM", "Then", "First", "Repeat", "Stay", "Forward", "log_likelihood", "last",
        "save", "load", "UNet", "Rectified",
    }  # fmt: skip
    assert set(refscore.__all__) == promised
    for name in promised:
        assert inspect.getdoc(getattr(refscore, name)), name


def test_nouns_are_frozen():
    for name in refscore.__all__:
        thing = getattr(refscore, name)
        if inspect.isclass(thing):
            assert dataclasses.is_dataclass(thing), name
            assert thing.__dataclass_params__.frozen, name


def test_no_class_was_forgotten_in_its_table():
    def classes(module, *methods):
        return {
            c for _, c in inspect.getmembers(module, inspect.isclass)
            if all(any(m in vars(base) for base in c.__mro__) for m in methods)
            and not getattr(c, "_is_protocol", False) and not inspect.isabstract(c)
            and c.__module__.startswith("refscore")
        }  # fmt: skip

    assert classes(refscore.noise.sde, "alpha", "sigma", "time") == {type(s) for s in refscore.noise.sde.SDES.values()}
    layers = classes(refscore.nn, "forward", "jvp_backward") - {
        refscore.nn.Net,
        refscore.nn.MLP,
        refscore.nn.UNet,
        refscore.nn.ScoreModel,
        refscore.nn.EnergyModel,
    }
    assert layers - {refscore.nn.Fourier, refscore.nn.Labels} == {type(make(2)) for make in refscore.nn.LAYERS.values()}
    assert classes(refscore.matching.objectives, "__call__", "at") == {
        type(o) for o in refscore.matching.objectives.OBJECTIVES.values()
    }
    transitions = refscore.sampling.transitions
    steps = {c for c in classes(transitions, "__call__") if c.__module__ == transitions.__name__}
    assert steps <= {type(make(refscore.VP(), lambda x, t: -x)) for make in transitions.SAMPLERS.values()}


def test_the_readme_lists_the_folders_in_reading_order():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| [IVX]+ \| \[`(\w+)/`\]", readme, flags=re.M)
    assert rows == [name for name in ORDER if name in rows]
    folders = {path.parent.name for path in (ROOT / "refscore").glob("*/__init__.py")}
    assert {*rows, "data", "experiments", "commands"} == folders
