"""Mutants by machine, on a package of ten lines: they are made, noticed or not, and not run twice."""

import json
import subprocess
import sys

import pytest

from tests.oracles.book import ROOT

PACKAGE = '''\
"""A line: 2 is its slope."""

STEP = 2.0


class Line:
    def at(self, x, shift=1):
        """At x: 2 x + shift."""
        if x < 0:
            raise ValueError(f"x is {x - 1 + 1}")
        return STEP * x + shift

    def clipped(self, x):
        return max(self.at(abs(x)), 0.0)
'''
TESTS = """\
import pytest
from line import Line

def test_at():
    assert Line().at(3.0) == 7.0

def test_negative():
    with pytest.raises(ValueError):
        Line().at(-1e-9)

@pytest.mark.parametrize("x", [0.0, -2.0])
def test_clipped(x):
    assert Line().clipped(x) == 1 - 2 * min(x, -x)
"""
WHERE = "line/__init__.py  Line.clipped\n- return max(self.at(abs(x)), 0.0)\n+ return max("
POSITIVE, SWAPPED = f"{WHERE}self.at(abs(x)), 1.0)", f"{WHERE}0.0, self.at(abs(x)))"


@pytest.mark.skipif(sys.platform == "win32", reason="no forks there")
def test_what_no_test_notices_is_what_no_test_can_notice(tmp_path):
    """Mutants of what is tested die, in a function or at import; an equivalent one is explained, one is reported."""
    for name, text in {
        "line/__init__.py": PACKAGE, "checks/test_line.py": TESTS,
        "tests/mutation/equivalent.txt": f"{SWAPPED}\n  max of the same two.",
        "pytest.ini": "[pytest]\npythonpath = .\naddopts = --import-mode=importlib\n",
    }.items():  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    command = [sys.executable, ROOT / "tests/mutation/run.py", "--root", tmp_path, "--package", "line"]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100).stdout
    rows = (tmp_path / "build/mutation/results.jsonl").read_text().splitlines()
    killed = {record["key"]: record["killed"] for record in map(json.loads, rows)}
    assert [key for key in killed if not killed[key]] == [POSITIVE]
    assert POSITIVE in said
    assert SWAPPED not in killed
    where = [key.split("\n")[0].split("  ")[1] for key in killed]
    assert {name: where.count(name) for name in where} == {"the module": 1, "Line.at": 9, "Line.clipped": 2}
    assert f"{len(killed) + 1} drawn, 1 equivalent, {len(killed) - 1} of {len(killed)} others killed" in said
    subprocess.run([*command, "--again"], check=True, timeout=100, stdout=subprocess.DEVNULL)  # the survivor alone
    again = (tmp_path / "build/mutation/results.jsonl").read_text().splitlines()
    assert again[: len(rows)] == rows
    assert [json.loads(row)["key"] for row in again[len(rows) :]] == [POSITIVE]
