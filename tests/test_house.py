"""The house itself: who may import whom, what can be imported from the top, what stands in the tables."""

import ast
import dataclasses
import inspect
from pathlib import Path

import refscore
import refscore.nn
import refscore.objectives
import refscore.sde

ROOT = Path(__file__).resolve().parent.parent
ROWS = {
    "arrays": 0, "simulation": 0,
    "mixture": 1, "quadrature": 1, "distance": 1, "probes": 1, "schedules": 1, "optim": 1, "nn.layer": 1,
    "nn.dense": 1, "nn.add": 1, "nn.activation": 1, "nn.embed": 1,
    "sde": 2, "parametrisation": 2, "levels": 3, "nn.net": 2, "nn.mlp": 2, "langevin": 2,
    "nn.score_model": 3, "nn.energy_model": 3, "nn": 3,
    "reverse": 4, "matching": 3, "denoising": 3, "objectives": 4, "contrastive": 4, "floor": 5, "fast": 5,
    "samplers": 5,
    "transitions": 6, "chains": 2, "elbo": 7,
    "affine": 1, "budget": 9,
    "conditional": 5, "host": 7, "likelihood": 6, "train": 6, "data": 6, "law": 6, "suggest": 6,
    "": 7,  # refscore/__init__.py
    "files": 5, "progress": 7, "evaluate": 8, "plots": 9, "failures": 9, "reproduce": 9, "demo": 9, "cli": 10,
}  # fmt: skip
WITH_NUMPY = {"budget", "host", "files", "failures", "reproduce", "data", "law", "suggest", "plots", "demo", "cli"}
SAME_ROW = {  # neighbours in reading order, earlier first
    ("simulation", "arrays"), ("nn.dense", "nn.layer"), ("nn.add", "nn.layer"),
    ("nn.activation", "nn.layer"), ("nn.embed", "nn.layer"),
    ("matching", "levels"), ("denoising", "matching"), ("denoising", "levels"),
    ("quadrature", "mixture"), ("distance", "mixture"), ("distance", "quadrature"),
    ("nn.energy_model", "nn.score_model"),
    ("nn", "nn.energy_model"), ("nn.mlp", "nn.net"), ("nn", "nn.score_model"), ("demo", "plots"), ("plots", "demo"),
    ("reproduce", "plots"), ("reproduce", "failures"), ("budget", "demo"), ("budget", "plots"),
}  # fmt: skip


def modules() -> dict[str, ast.Module]:
    found = {}
    for path in (ROOT / "refscore").rglob("*.py"):
        name = ".".join(path.relative_to(ROOT / "refscore").with_suffix("").parts)
        found[name.removesuffix("__init__").rstrip(".")] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def imports(tree: ast.Module) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_a_module_imports_only_from_rows_above_its_own() -> None:
    trees = modules()
    assert set(trees) == set(ROWS), "every module has its row, and no row is empty"
    for module, tree in trees.items():
        for name in imports(tree):
            other = name.removeprefix("refscore").removeprefix(".") if name.startswith("refscore") else None
            if other is None or other not in ROWS or other == module or name.startswith("refscore_backends"):
                continue
            assert ROWS[other] < ROWS[module] or (module, other) in SAME_ROW, f"{module} imports {other}"


def test_only_the_edges_choose_a_library() -> None:
    for module, tree in modules().items():
        heads = {name.split(".")[0] for name in imports(tree)}
        allowed = {"numpy", "scipy"} if module in WITH_NUMPY else set()
        assert not heads & {"numpy", "scipy", "cupy", "torch", "jax"} - allowed, module


def test_zeros_are_made_and_not_multiplied() -> None:
    """0 * x is not zero where x is infinite or NaN, and -1 + 0 * x not -1: `constant(value, like)` is."""
    for module, tree in modules().items():
        for node in ast.walk(tree):
            zero = isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult) and isinstance(node.left, ast.Constant)
            assert not (zero and node.left.value == 0), f"{module}:{node.lineno}"


def test_matplotlib_and_tqdm_are_imported_inside_functions() -> None:
    for module, tree in modules().items():
        top = {
            n
            for node in tree.body
            if isinstance(node, (ast.Import, ast.ImportFrom))
            for n in imports(ast.Module([node], []))
        }
        assert not {n.split(".")[0] for n in top} & {"matplotlib", "tqdm", "threadpoolctl"}, module


def test_back_ends_know_nothing_of_refscore() -> None:
    for path in (ROOT / "backends").rglob("*.py"):
        heads = {name.split(".")[0] for name in imports(ast.parse(path.read_text(encoding="utf-8")))}
        assert "refscore" not in heads, path


def test_public_names() -> None:
    promised = {
        "GaussianMixture", "VP", "VE", "ExactScore", "Reverse", "MLP", "ScoreModel", "Denoising", "Adam", "SGD", "EMA",
        "fit", "Langevin", "EulerMaruyama", "Heun", "simulate", "watch", "prior", "Explicit", "Implicit", "Sliced",
        "FiniteDifference", "EnergyModel", "AnnealedLangevin", "SubVP", "OU", "RungeKutta", "ReverseDiffusion",
        "Ancestral",
        "DDIM", "DPMSolver", "EDM", "Then", "First", "Repeat", "Stay", "Forward", "log_likelihood",
    }  # fmt: skip
    assert set(refscore.__all__) == promised
    for name in promised:
        assert inspect.getdoc(getattr(refscore, name)), name


def test_nouns_are_frozen() -> None:
    for name in refscore.__all__:
        thing = getattr(refscore, name)
        if inspect.isclass(thing):
            assert dataclasses.is_dataclass(thing), name
            assert thing.__dataclass_params__.frozen, name


def test_no_class_was_forgotten_in_its_table() -> None:
    def classes(module: object, *methods: str) -> set[type]:
        return {
            c for _, c in inspect.getmembers(module, inspect.isclass)
            if all(any(m in vars(base) for base in c.__mro__) for m in methods)
            and not getattr(c, "_is_protocol", False) and not inspect.isabstract(c)
            and c.__module__.startswith("refscore")
        }  # fmt: skip

    assert classes(refscore.sde, "alpha", "sigma", "time") == {type(s) for s in refscore.sde.SDES.values()}
    layers = classes(refscore.nn, "forward", "jvp_backward") - {
        refscore.nn.Net,
        refscore.nn.MLP,
        refscore.nn.ScoreModel,
        refscore.nn.EnergyModel,
    }
    assert layers - {refscore.nn.Fourier} == {type(make(2)) for make in refscore.nn.LAYERS.values()}
    assert classes(refscore.objectives, "__call__", "at") == {type(o) for o in refscore.objectives.OBJECTIVES.values()}
