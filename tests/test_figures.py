"""Every figure is made by its script, and is the one that is committed. Minutes a script: `pytest -m slow`."""

import ast
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

FIGURES = Path(__file__).resolve().parent.parent / "docs" / "figures"
SCRIPTS = sorted(path for path in FIGURES.glob("*.py") if path.name != "where.py")
DRAWN = {".png", ".svg"}
MATPLOTLIB = "3.11.2"  # what the committed pictures were drawn with; another version may move a line by a pixel
TRAINED = {  # a network on the way: training enlarges the last bit, another on another machine; or roundings themselves
    "03-field", "03-four-techniques", "04-energy", "04-likelihood", "05-density", "05-manifold", "05-pipeline",
    "06-levels", "11-split", "14-steps", "15-errors", "15-guidance", "15-inpainting", "15-levels", "15-passing",
    "15-samples", "21-stopping", "demo-field",
}  # fmt: skip


def told(script):
    """The pictures that the docstring of a script lists."""
    return set(re.findall(r"^([\w-]+\.(?:png|svg)) ", script.read_text(encoding="utf-8").split('"""')[1], flags=re.M))


def test_each_picture_has_one_script():
    names = [name for script in SCRIPTS for name in sorted(told(script))]
    assert sorted(names) == sorted(path.name for path in FIGURES.iterdir() if path.suffix in DRAWN)


def test_every_script_writes_where_it_is_told():
    for script in SCRIPTS:
        text = script.read_text(encoding="utf-8")
        assert "from where import HERE" in text, script.name
        assert "__file__" not in text, script.name


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_what_a_script_imports_is_there(script):
    """In seconds what the slow test below finds in minutes."""
    tree = ast.parse(script.read_text(encoding="utf-8"))
    for node in [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module != "where"]:
        pytest.importorskip(node.module.split(".")[0])
        for alias in node.names:
            there = hasattr(importlib.import_module(node.module), alias.name)
            assert there or importlib.util.find_spec(f"{node.module}.{alias.name}"), f"{node.module}.{alias.name}"


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_makes_the_pictures_that_are_committed(script, tmp_path):
    matplotlib = pytest.importorskip("matplotlib")
    environment = os.environ | {"REFSCORE_FIGURES": str(tmp_path)}
    run = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert {path.name for path in tmp_path.iterdir() if path.suffix in DRAWN} == told(script)
    for name in (name for name in told(script) if Path(name).stem not in TRAINED):
        assert difference(tmp_path / name, FIGURES / name) <= (0 if matplotlib.__version__ == MATPLOTLIB else 0.02)


def difference(made, committed):
    """Mean difference of the grey levels in [0, 1] of two PNGs, sizes within 8 pixels; of two SVGs see below."""
    if made.suffix == ".svg":
        return numbers_apart(made.read_text(encoding="utf-8"), committed.read_text(encoding="utf-8"))
    from matplotlib.image import imread

    a, b = (imread(path)[..., :3].mean(axis=2) for path in (made, committed))
    assert np.abs(np.subtract(a.shape, b.shape)).max() <= 8, (made.name, a.shape, b.shape)
    rows, columns = np.minimum(a.shape, b.shape)
    return float(np.abs(a[:rows, :columns] - b[:rows, :columns]).mean())


def numbers_apart(made, committed):
    """Share of the numbers of two drawings (points, marks in the same order) that differ by more than half a point."""
    a, b = (np.asarray(re.findall(r"-?\d+\.\d+", text), dtype=float) for text in (made, committed))
    if a.shape != b.shape:
        return np.inf
    return float(np.mean(np.abs(a - b) > 0.5)) if a.size else 0.0


def test_a_drawing_that_differs_is_seen():
    """One label further left, one curve bent, one mark gone; the same drawing is the same."""
    drawing = "".join(f"L {x}.5 {2 * x}.25\n" for x in range(50))
    assert numbers_apart(drawing, drawing) == 0
    assert numbers_apart(drawing.replace("L 7.5 ", "L 9.5 "), drawing) == 0.01
    assert numbers_apart(drawing.replace("L 7.5 14.25\n", ""), drawing) == np.inf
