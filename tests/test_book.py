"""README and docs say the truth: their code runs, their equations are indexed, their links lead somewhere."""

import importlib.util
import re
from functools import cache

import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

from tests.oracles.book import PAGES, ROOT

WITH_CODE = [page for page in PAGES if "```python" in page.read_text(encoding="utf-8")]
SHOWN = re.compile(r"\s*```text\n(.*?)```", flags=re.S)  # below a block: what it prints


@pytest.mark.recorded("what a page prints")
@pytest.mark.parametrize("page", WITH_CODE, ids=lambda p: p.name)
def test_every_python_block_runs_and_prints_what_is_shown(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    examples = list(Sybil(parsers=[PythonCodeBlockParser()]).parse(page).examples())
    assert examples
    for example in examples:
        example.evaluate()
        printed = capsys.readouterr().out
        if shown := SHOWN.match(example.document.text, example.region.end):
            assert printed.strip() == shown[1].strip(), f"{page.name}, line {example.line}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```|`[^`]*`", "", page.read_text(encoding="utf-8"), flags=re.S)
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
    assert list(_script("mend_links").broken(page)) == [], "run: python docs/mend_links.py"


def test_a_link_to_a_section_that_moved_is_seen_and_mended(tmp_path, monkeypatch):
    """Renumbered in its page or moved to another one, with the number in its text; of other words it stays broken."""
    mend = _script("mend_links")
    monkeypatch.setattr(mend, "ROOT", tmp_path)
    (tmp_path / "docs" / "chapters").mkdir(parents=True)
    two, three, page = (tmp_path / "docs" / "chapters" / name for name in ("02-b.md", "03-c.md", "04-d.md"))
    two.write_text("# 2. B\n## 2.7 It's `here`, now\n```text\n# no heading\n```\n", encoding="utf-8")
    three.write_text("# 3. C\n## 3.1 Gone\n## Twice\n## Twice\n", encoding="utf-8")
    sound = "[2.7](02-b.md#27-its-here-now) [2](03-c.md#twice-1)"
    page.write_text(f"{sound} [see 2.6](02-b.md#26-its-here-now) [2.1](02-b.md#21-gone)", encoding="utf-8")
    assert len(list(mend.broken(page))) == 2
    assert mend.mended(page) == f"{sound} [see 2.7](02-b.md#27-its-here-now) [3.1](03-c.md#31-gone)"
    page.write_text("[2.1](02-b.md#21-other-words) [a](#none)", encoding="utf-8")
    assert len(list(mend.broken(page))) == 2
    assert mend.mended(page) == page.read_text(encoding="utf-8")


@cache
def _script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _index():
    return _script("make_equations")


def test_equation_index_is_up_to_date():
    index = _index()
    written = (ROOT / "docs" / "equations.md").read_text(encoding="utf-8")
    assert written == index.page(), "run: python docs/make_equations.py"


def test_every_equation_has_a_test_and_every_citation_an_equation():
    index = _index()
    known = set(index.equations())
    tests = set(index.citations("tests"))
    assert known <= tests, f"equations that no test cites: {sorted(known - tests)}"
    cited = tests | set(index.citations("refscore"))
    assert cited <= known, f"cited, but displayed nowhere: {sorted(cited - known)}"


def test_equations_are_numbered_in_order():
    numbers = [tuple(map(int, n.split("."))) for n in _index().equations()]
    assert numbers == sorted(numbers)
    for chapter in {c for c, _ in numbers}:
        own = [n for c, n in numbers if c == chapter]
        assert own == list(range(1, len(own) + 1))


def test_readme_is_short_and_ci_runs_its_test_command():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme.count("\n") <= 120
    commands = re.findall(r"^python3 -m venv .*$", readme, flags=re.M)
    assert len(commands) == 2
    assert (ROOT / ".ci" / "run").read_text(encoding="utf-8").count(commands[1]) == 1


def test_every_figure_is_made_by_a_script_and_shown():
    figures = ROOT / "docs" / "figures"
    scripts = "".join(p.read_text(encoding="utf-8") for p in figures.glob("*.py"))
    text = "".join(p.read_text(encoding="utf-8") for p in PAGES)
    for picture in (p for p in figures.iterdir() if p.suffix in (".png", ".svg")):
        assert picture.name in scripts
        assert picture.name in text


SOURCES = [
    *PAGES,
    *sorted(p for folder in ("refscore", "backends", "tests", "docs") for p in (ROOT / folder).rglob("*.py")),
]
TESTS = {path.stem for path in (ROOT / "tests").rglob("test_*.py")}
TESTS |= {name for p in (ROOT / "tests").rglob("*.py") for name in re.findall(r"def (test_\w+)", p.read_text("utf-8"))}
FILE = re.compile(r"\b(?:tests|refscore|docs|backends)/[\w/.-]+\.(?:py|md|txt|json|png|svg)\b")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_files_and_tests_that_are_named_exist(path):
    text = path.read_text(encoding="utf-8")
    assert [name for name in FILE.findall(text) if not (ROOT / name).exists()] == []
    told = set(re.findall(r"`(test_\w+)`", text)) if path.suffix == ".md" else set()
    assert told - TESTS == set()
