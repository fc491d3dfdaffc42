"""The tests themselves: a folder for each folder of the package, and what two files share is written once."""

import ast
from collections import defaultdict

import pytest

import refscore
from tests.oracles.book import ROOT, parsed

TESTS = ROOT / "tests"
FILES = [path for path in sorted(TESTS.rglob("*.py")) if "benchmarks" not in path.parts]
IN_FOLDERS = [path for path in FILES if path.name.startswith("test_") and path.parent != TESTS]
CHECKED = [path for path in FILES if path.parent.name == "oracles" or path.name == "typing_examples.py"]  # by mypy
SMALL = 60  # characters: what is shorter says too little to be shared, as np.ones(1)


def name(path):
    return path.relative_to(TESTS).as_posix()


def imported(path):
    """Modules, and for names from the face of the package the modules that they come from."""
    found = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.ImportFrom) and node.module == "refscore":
            found |= {getattr(getattr(refscore, a.name, 0), "__module__", f"refscore.{a.name}") for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def test_every_folder_of_the_package_has_its_tests():
    package = {path.parent.name for path in (ROOT / "refscore").glob("*/__init__.py")}
    assert package <= {path.parent.name for path in IN_FOLDERS}
    assert {path.parent.name for path in IN_FOLDERS} - package <= {"typing"}  # beside what tests share


@pytest.mark.parametrize("path", IN_FOLDERS, ids=name)
def test_a_file_tests_the_folder_it_stands_in(path):
    folder = f"refscore.{path.parent.name}"
    assert any(f"{module}.".startswith(f"{folder}.") for module in imported(path))


@pytest.mark.parametrize("path", FILES, ids=name)
def test_test_files_import_only_what_is_shared(path):
    others = {module for module in imported(path) if module.startswith("tests.")}
    assert all(module.startswith("tests.oracles.") for module in others), others


@pytest.mark.parametrize("path", [path for path in FILES if path not in CHECKED], ids=name)
def test_annotations_stand_only_where_they_are_checked(path):
    """mypy reads tests/oracles and typing_examples; elsewhere in the tests an annotation would be a claim of nobody."""
    functions = [node for node in ast.walk(parsed(path)) if hasattr(node, "returns")]
    taken = [arg for f in functions for arg in ast.walk(f.args) if isinstance(arg, ast.arg)]
    assert not [node.lineno for node in functions if node.returns]
    assert not [arg.lineno for arg in taken if arg.annotation]


def test_what_two_test_files_need_is_written_once():
    """Functions and classes but for names and docstrings, and constants that say something."""
    places = defaultdict(list)
    for path in FILES:
        for node in parsed(path).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and path.name != "conftest.py":
                body = node.body[1:] if ast.get_docstring(node) else node.body
                parts = [*node.decorator_list, node.args, *body] if isinstance(node, ast.FunctionDef) else body
                what = "\n".join(ast.unparse(part) for part in parts)
                places[what].append(f"{name(path)}::{node.name}")
            elif isinstance(node, ast.Assign):
                places[ast.unparse(node.value)].append(f"{name(path)}::{ast.unparse(node.targets[0])}")
    twice = {what: where for what, where in places.items() if len(where) > 1 and len(what) > SMALL}
    assert not twice, twice
