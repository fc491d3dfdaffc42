"""Habits: names that can be typed, one place for the version, and what the house promises to its contributors."""

import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from refscore import cli
from refscore.commands import samplers
from refscore.sampling.transitions import SAMPLERS

ROOT = Path(__file__).resolve().parent.parent


# ------------------------------------------------------------------ names


def tables() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every public table (name in capitals) of the package and of the back ends."""
    for name in ("refscore", "refscore_backends"):
        package = importlib.import_module(name)
        for found in (package, *pkgutil.walk_packages(package.__path__, f"{name}.")):
            module = package if found is package else importlib.import_module(found.name)
            for table, value in vars(module).items():
                if table[0] != "_" and table.isupper() and isinstance(value, dict):
                    yield f"{module.__name__}.{table}", value


def test_every_key_of_every_table_can_be_typed_without_quotes() -> None:
    found = dict(tables())
    ends = {where.rsplit(".", 1)[1] for where in found}
    assert {
        "SDES",
        "SAMPLERS",
        "LAYERS",
        "OBJECTIVES",
        "PROBES",
        "TABLEAUX",
        "MIXTURES",
        "BACKENDS",
        "COMMANDS",
    } <= ends
    for where, table in found.items():
        for key in table:
            letter = where.endswith(".PARAMETRISATIONS") and key == "F"  # of Karras et al.'s equation
            assert letter or re.fullmatch("[a-z0-9+-]+", key), f"{where}: {key!r}"


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
def test_a_name_of_before_is_refused_with_the_new_one(
    args: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(samplers, "_row", None)  # refused before any work
    assert cli.main(["samplers", *args, "--out", str(tmp_path / "out")]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_command_of_before_says_what_it_is_called_now(capsys: pytest.CaptureFixture[str]) -> None:
    for args in (["evaluate"], ["evaluate", "--samplers", "ddim"], ["evaluate", "--help"]):
        assert cli.main(args) == 2
        said = capsys.readouterr()
        assert said.err == "refscore: `refscore evaluate` is now `refscore samplers`\n"
        assert not said.out
