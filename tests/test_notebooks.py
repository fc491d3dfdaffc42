"""Notebooks are the chapters: made from them, the same blocks in the same order, with what these print."""

import importlib.util
import json
import re

import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

from tests.oracles.book import ROOT

SPEC = importlib.util.spec_from_file_location("make_notebooks", ROOT / "docs" / "make_notebooks.py")
make = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(make)

NOTEBOOKS = ROOT / "docs" / "notebooks"
PAGES = make.chapters()
ELSEWHERE = "https://github.com/someone/a-book"  # an address, as pyproject.toml may have one some day


def source(cell):
    return "".join(cell["source"])


def read(page):
    return json.loads((NOTEBOOKS / f"{page.stem}.ipynb").read_text(encoding="utf-8"))


def told(notebook):
    return "\n".join(source(cell) for cell in notebook["cells"] if cell["cell_type"] == "markdown")


def test_notebooks_are_up_to_date():
    made = make.files()
    assert {path.name for path in NOTEBOOKS.iterdir()} - {".ipynb_checkpoints"} == set(made)
    stale = [name for name, text in made.items() if (NOTEBOOKS / name).read_text(encoding="utf-8") != text]
    assert stale == [], "run: python docs/make_notebooks.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_notebook_has_the_blocks_of_its_chapter_and_what_they_print(page):
    """tests/test_book.py runs these blocks in this order, and compares what they print."""
    code = [cell for cell in read(page)["cells"] if cell["cell_type"] == "code" and not cell["metadata"]]
    wanted = list(Sybil(parsers=[PythonCodeBlockParser()]).parse(page).examples())
    assert [source(cell) for cell in code] == [example.parsed.rstrip("\n") for example in wanted]
    for cell, example in zip(code, wanted, strict=True):
        shown = re.match(r"\s*```text\n(.*?)```", example.document.text[example.region.end :], flags=re.S)
        assert printed(cell) == (shown[1].strip() if shown else "")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_nothing_of_a_chapter_is_lost(page):
    """Formulas in dollars with their numbers, sections, pictures; every link leads somewhere from the new folder."""
    text, notebook = page.read_text(encoding="utf-8"), read(page)
    markdown = told(notebook)
    assert "$`" not in markdown
    assert "```math" not in markdown
    assert markdown.count("$$") == 2 * text.count("```math")
    kept, had = (re.sub(r"```.*?```", "", prose, flags=re.S) for prose in (markdown, text))
    for what in (r"^#+ .*$", r"([\w-]+\.(?:png|svg))\)"):
        assert re.findall(what, kept, flags=re.M) == re.findall(what, re.sub(r"\$`|`\$", "$", had), flags=re.M)
    tag = re.compile(r"\\tag\{\d+\.\d+\}")
    assert tag.findall(markdown) == tag.findall(text)
    for target in re.findall(r"\]\(([^)#\s]+)", re.sub(r"```.*?```|`[^`]*`", "", markdown, flags=re.S)):
        assert "://" in target or (NOTEBOOKS / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_notebook_has_the_format(page):
    notebook = read(page)
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    names = [cell["id"] for cell in notebook["cells"]]
    assert len(names) == len(set(names))
    pytest.importorskip("nbformat").validate(notebook)


def test_one_click_needs_an_address():
    """Absent, not broken: no link without one; with one, Colab and Binder, and every page and picture there."""
    name, text = "01-a", "# 1. A\n\n![p](../figures/p.svg)\n[next](02-b.md#21-here) [code](../../refscore/nn/net.py)"
    alone, there = (make.notebook(name, text, repository) for repository in (None, ELSEWHERE))
    assert "http" not in told(alone)
    for link in ("../figures/p.svg", "../chapters/02-b.md#21-here", "../../refscore/nn/net.py"):
        assert f"]({link})" in told(alone)
    notebook = "docs/" + "notebooks/01-a.ipynb"
    for link in (
        f"https://colab.research.google.com/github/someone/a-book/blob/main/{notebook}",
        f"https://mybinder.org/v2/gh/someone/a-book/main?urlpath=lab/tree/{notebook}",
        f"{ELSEWHERE}/raw/main/docs/" + "figures/p.svg",
        f"{ELSEWHERE}/blob/main/docs/" + "chapters/02-b.md#21-here",
        f"{ELSEWHERE}/blob/main/refscore/nn/net.py",
    ):
        assert f"]({link})" in told(there)
    install = [source(cell) for cell in there["cells"] if cell["cell_type"] == "code"]
    assert len(install) == 1
    assert f"%pip install -q git+{ELSEWHERE}" in install[0]
    assert make.listing(None).count("colab") == 0
    assert make.listing(ELSEWHERE).count("colab.research") == len(PAGES)


@pytest.mark.parametrize("written", [None, ELSEWHERE, f"{ELSEWHERE}/", f"{ELSEWHERE}.git"])
def test_the_address_is_that_of_pyproject(written, tmp_path, monkeypatch):
    urls = f'[project.urls]\nRepository = "{written}"\n' if written else ""
    (tmp_path / "pyproject.toml").write_text(f'[project]\nname = "refscore"\n{urls}', encoding="utf-8")
    monkeypatch.setattr(make, "ROOT", tmp_path)
    assert make.address() == (written and ELSEWHERE)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_notebook_runs_in_jupyter(page, tmp_path):
    """The whole notebook in a kernel, as a reader runs it: no cell fails, and each prints what is shown."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    notebook = nbformat.read(NOTEBOOKS / f"{page.stem}.ipynb", as_version=4)
    shown = [printed(cell) for cell in notebook.cells]
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    for before, cell in zip(shown, notebook.cells, strict=True):
        assert before in ("", printed(cell))


def printed(cell):
    """What the cell of a notebook has written to standard output."""
    told = [output["text"] for output in cell.get("outputs", []) if output.get("name") == "stdout"]
    return "".join("".join(text) for text in told).strip()
