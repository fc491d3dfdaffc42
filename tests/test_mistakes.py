"""docs/mistakes.md says what the museum and the clinic say."""

import ast
import importlib.util
import re

import pytest

from refscore.clinic.coefficients import NAMES
from tests.oracles.book import ROOT, parsed

PAGE = (ROOT / "docs" / "mistakes.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def catalogue():
    """docs/make_mistakes.py."""
    spec = importlib.util.spec_from_file_location("make_mistakes", ROOT / "docs" / "make_mistakes.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows():
    """The lines of the tables of docs/mistakes.md, as cells."""
    lines = [line for line in PAGE.splitlines() if line.startswith("| <a") or line.startswith("| `")]
    return [[cell.replace("\\|", "|") for cell in re.split(r"(?<!\\)\| ?", line)[1:-1]] for line in lines]


def test_the_catalogue_has_every_mistake_in_its_own_words(catalogue):
    written = [[cell.strip() for cell in row] for row in rows()]
    assert len(written) >= 80
    assert [[*row[:4], row[6], row[7]] for row in written] == [e.cells() for e in catalogue.exhibits()], (
        "run: python docs/make_mistakes.py"
    )


def test_names_of_the_catalogue_can_be_linked_to(catalogue):
    anchors = re.findall(r'<a id="([^"]+)"></a>', PAGE)
    assert len(anchors) == len(set(anchors))
    exhibits = {name for row in rows() for name in re.findall(r"^(?:<a[^>]*></a>)?`([^`]+)`", row[0])}
    assert set(anchors) == exhibits | set(catalogue.OTHERWISE)
    assert not exhibits & set(catalogue.OTHERWISE)


def test_every_cause_that_the_clinic_can_name_has_a_place(catalogue):
    """By the names in its source: a report says `read: docs/mistakes.md#name`."""
    named = set()
    for path in (ROOT / "refscore" / "clinic").glob("*.py"):
        for call in (node for node in ast.walk(parsed(path)) if isinstance(node, ast.Call)):
            place = {"Cause": 0, "Ill": 0, "Odd": 0, "Other": 0, "failed": 1}.get(getattr(call.func, "id", ""))
            if place is not None and len(call.args) > place and isinstance(call.args[place], ast.Constant):
                named.add(call.args[place].value)
    named |= set(NAMES)
    assert {"clips-the-data", "raises", "another-schedule", "no-noise"} < named
    known = {e.mistake.name for e in catalogue.exhibits()} | set(catalogue.OTHERWISE)
    assert named - known == {"adaptive", "rounded"}  # which are no mistakes


@pytest.mark.parametrize("name", ["root-forgotten", "product-of-betas", "mean-not-scaled", "slope-missing"])
def test_lines_of_the_catalogue_are_as_they_are_computed(catalogue, name):
    exhibit = next(e for e in catalogue.exhibits() if e.mistake.name == name)
    assert exhibit.row() in PAGE.splitlines(), "run: python docs/make_mistakes.py"


@pytest.mark.slow
def test_the_catalogue_is_as_it_is_computed(catalogue):
    assert "\n".join(catalogue.page()) == PAGE


def test_the_clinic_knows_the_museum():
    """By the catalogue: the mistake is its first cause, or one of the first three."""
    said = [(row[0], row[5].strip()) for row in rows()]
    assert [pair for pair in said if not re.fullmatch(r"the same|`[^`]+`; it is no\. [23]", pair[1])] == []
    assert sum(words == "the same" for _, words in said) > 0.9 * len(said)
