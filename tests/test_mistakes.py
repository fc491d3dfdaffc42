"""docs/mistakes.md says what the museum and the clinic say."""

import importlib.util
import re

import pytest

from tests.oracles.book import ROOT

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


def test_names_of_the_catalogue_can_be_linked_to():
    anchors = re.findall(r'<a id="([^"]+)"></a>', PAGE)
    assert len(anchors) == len(set(anchors))
    assert set(anchors) == {name for row in rows() for name in re.findall(r"^(?:<a[^>]*></a>)?`([^`]+)`", row[0])}


@pytest.mark.parametrize("name", ["root-forgotten", "product-of-betas", "mean-not-scaled", "slope-missing"])
def test_lines_of_the_catalogue_are_as_they_are_computed(catalogue, name):
    exhibit = next(e for e in catalogue.exhibits() if e.mistake.name == name)
    assert exhibit.row() in PAGE.splitlines(), "run: python docs/make_mistakes.py"


@pytest.mark.slow
def test_the_catalogue_is_as_it_is_computed(catalogue):
    assert "\n".join(catalogue.page()) == PAGE


OTHERWISE = {  # what the clinic does not call by its name; of the first group nothing is wrong: it is another sampler
    "variance-turned-over", "eta-inside-not-squared", "eta-upside-down", "up-turned-over", "two-m-order-one",
    "same-noise", "heun-told-the-first-level",
}  # fmt: skip


def test_the_clinic_knows_the_museum():
    """By the catalogue: the mistake is its first cause, or one of the first three."""
    unknown = {
        row[0].strip("`| ") for row in rows() if not re.fullmatch(r"the same|`[^`]+`; it is no\. [23]", row[5].strip())
    }
    assert {name.rpartition("`")[2] or name for name in unknown} - OTHERWISE == set()
