"""Habits: names that can be typed, one place for the version, and what the house promises to its contributors."""

import importlib
import importlib.metadata
import pkgutil
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

import refscore
from refscore import cli
from refscore.commands import samplers
from refscore.sampling.transitions import SAMPLERS

ROOT = Path(__file__).resolve().parent.parent


# ------------------------------------------------------------------ names


def tables():
    """Every public table (name in capitals) of the package and of the back ends."""
    for name in ("refscore", "refscore_backends"):
        package = importlib.import_module(name)
        for found in (package, *pkgutil.walk_packages(package.__path__, f"{name}.")):
            module = package if found is package else importlib.import_module(found.name)
            for table, value in vars(module).items():
                if table[0] != "_" and table.isupper() and isinstance(value, dict):
                    yield f"{module.__name__}.{table}", value


def test_every_key_of_every_table_can_be_typed_without_quotes():
    found = dict(tables())
    ends = {where.rsplit(".", 1)[1] for where in found}
    assert {
        "SDES",
        "SAMPLERS",
        "LAYERS",
        "OBJECTIVES",
        "TABLEAUX",
        "MIXTURES",
        "BACKENDS",
        "COMMANDS",
    } <= ends
    for where, table in found.items():
        for key in table:
            letter = where.endswith((".PARAMETRISATIONS", ".READINGS")) and key == "F"  # of Karras et al.'s equation
            argument = where.endswith((".KINDS", ".LISTS"))  # named as an argument of the clinic is
            assert letter or argument or re.fullmatch("[a-z0-9+-]+", key), f"{where}: {key!r}"


@pytest.mark.parametrize(("args", "words"), [
    (["--samplers", "ddim", "ddim, eta 1"], "no sampler called 'ddim, eta 1': it is now called ddim-eta1"),
    (["--samplers", "reverse diffusion"], "'reverse diffusion': it is now called reverse-diffusion"),
    (["--samplers", "ancestral, large"], "'ancestral, large': it is now called ancestral-large"),
    (["--samplers", "dpm-solver++ 1"], "'dpm-solver++ 1': it is now called dpm-solver++1"),
    (["--samplers", "dpm-solver++ 2m"], "'dpm-solver++ 2m': it is now called dpm-solver++2m"),
    (["--samplers", "sde-dpm-solver++ 2m"], "'sde-dpm-solver++ 2m': it is now called sde-dpm-solver++2m"),
    (["--samplers", "edm, churn"], "'edm, churn': it is now called edm-churn"),
    (["--samplers", "plms"], f"no sampler called 'plms'; there are {', '.join(SAMPLERS)}\n"),
    (["--sde", "linear ve"], "no SDE called 'linear ve': it is now called linear-ve"),
    (["--sde", "-"], "no SDE called '-'; there are vp, ve"),
])  # fmt: skip
def test_a_name_of_before_is_refused_with_the_new_one(args, words, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(samplers, "_row", None)  # refused before any work
    assert cli.main(["samplers", *args, "--out", str(tmp_path / "out")]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_command_whose_name_had_another_meaning_says_where_that_is(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    assert "the table of samplers is `refscore samplers`" in " ".join(capsys.readouterr().out.split())


# ------------------------------------------------------------------ the version, and where the house stands


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def texts():
    """Every text file that is ours."""
    folders = ("refscore", "backends", "docs", "tests", ".github", ".ci")
    for path in [*ROOT.glob("*"), *(p for folder in folders for p in (ROOT / folder).rglob("*"))]:
        if path.suffix in (".py", ".md", ".toml", ".yml", ".yaml", ".txt", "") and path.is_file():
            yield path.relative_to(ROOT), path.read_text(encoding="utf-8")


def test_the_version_is_written_in_one_place_and_cited_in_one():
    """`refscore/__init__.py`; the citation of the README is held to it. Measurements keep the version they are of."""
    assert "version" not in project()["project"]
    assert project()["tool"]["hatch"]["version"] == {"path": "refscore/__init__.py"}
    assert f"{{Version {refscore.__version__}}}" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"\n## {refscore.__version__}" in (ROOT / "docs" / "changelog.md").read_text(encoding="utf-8")
    places = {path.as_posix() for path, text in texts() if refscore.__version__ in text}
    assert places == {"refscore/__init__.py", "README.md", "docs/changelog.md", "docs/benchmarks.md"}


def test_what_is_installed_has_that_version():
    assert importlib.metadata.version("refscore") == refscore.__version__, 'reinstall: pip install -e ".[test]"'


def test_the_lowest_and_the_tested_pythons_are_said_once_a_place_and_agree():
    told = [c.rsplit(" ", 1)[1] for c in project()["project"]["classifiers"] if "Python :: 3." in c]
    assert told == ["3.11", "3.12", "3.13", "3.14"]
    assert project()["project"]["requires-python"] == f">={told[0]}"
    assert f"Python {told[0]} or later" in (ROOT / "README.md").read_text(encoding="utf-8")
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    assert re.search(r"python: \[(.*)\]", workflow)[1] == ", ".join(f'"{python}"' for python in told)
    assert f"Python {told[0]}." in (ROOT / ".ci" / "run").read_text(encoding="utf-8")  # has the lowest versions
    policy = (ROOT / ".github" / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for words in (f"Python {told[0]} to {told[-1]}", *project()["project"]["dependencies"]):
        assert words in policy, words


def test_workflows_may_read_alone_and_name_the_version_of_what_they_use():
    workflows = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
    assert [path.stem for path in workflows] == ["ci", "nightly", "site"]
    for path in workflows:
        text = path.read_text(encoding="utf-8")
        told = re.findall(r"^ *permissions:\n(?: +[\w-]+: (?:read|write)\n)+", text, flags=re.M)
        pages = [
            "    permissions:\n      pages: write\n      id-token: write\n"
        ]  # the job that publishes, and has no checkout
        assert told == ["permissions:\n  contents: read\n", *(pages if path.stem == "site" else [])]
        assert "secrets" not in text
        used = re.findall(r"uses: (.*)", text)
        assert used
        assert all(re.fullmatch(r"actions/[a-z-]+@v\d+", action) for action in used), used
        assert text.count("persist-credentials: false") == sum("checkout" in action for action in used)


def test_the_address_of_the_repository_stands_in_project_urls_alone():
    """Absent until there is one: an address that is wrong somewhere is worse than none. What is made from it may."""
    ours = re.compile(r"https?://\S*\brefscore\b|(github|gitlab|codeberg)\.(com|org)[:/][\w.-]+/refscore\b", flags=re.I)
    urls = set(project()["project"].get("urls", {}).values())
    for path, text in texts():
        if path.as_posix() not in ("pyproject.toml", "docs/notebooks/README.md"):
            assert not ours.search(text), f"{path}: {ours.search(text)}"
            assert not [url for url in urls if url in text], path


def test_the_top_of_the_checkout_holds_what_a_reader_looks_for_and_dot_files():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    top = {line.split("/")[0] for line in listed.stdout.splitlines()}
    assert {name for name in top if name[0] != "."} == {
        "LICENSE", "README.md", "backends", "docs", "pyproject.toml", "refscore", "tests",
    }  # fmt: skip
