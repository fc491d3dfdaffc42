"""tests/gpu/run.sh does every part whatever becomes of the others: tried with a Python that fails and hangs."""

import os
import shutil
import subprocess

import pytest

from tests.oracles.book import ROOT

SCRIPT = ROOT / "tests" / "gpu" / "run.sh"
PYTHON = """#!/usr/bin/env bash
case "$*" in
    *"import sys"*) [ -z "$NO_DEVICE" ] || { echo "base.BackendUnavailable: no GPU here"; exit 1; } ;;
    *test_parity*) echo "a test failed"; exit 1 ;;
    *" demo "*) echo begun; sleep 60 ;;
    *" train "*) mkdir -p "$out/resumed"; echo "steps = 20" >"$out/resumed/config.toml"; echo trained ;;
    *) echo "$*" ;;
esac
"""


@pytest.fixture
def run(tmp_path):
    """Runs the script with a Python of ours; gives what it printed, and the folder of results."""
    python = tmp_path / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)

    def script(*args, **more):
        environment = {**os.environ, "LIMIT": "2", **more}
        command = ["bash", str(SCRIPT), *map(str, args or (tmp_path / "out", python))]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)

    return script


def needs_timeout():
    if shutil.which("bash") is None or shutil.which("timeout") is None:
        pytest.skip("needs bash and timeout")


def test_a_part_that_fails_or_hangs_costs_none_of_the_others(run, tmp_path):
    needs_timeout()
    done = run()
    assert done.returncode == 1
    parts = dict(line.split(": ", 1) for line in (tmp_path / "out" / "summary.txt").read_text().splitlines())
    begun = "machine laws parity torch jax limits clinic demo compiled resume benchmark"
    assert list(parts) == begun.split()
    ends = {name: said.rsplit(", ", 1)[0] for name, said in parts.items()}
    assert ends["parity"] == "failed with status 1"
    assert ends["demo"] == ends["compiled"] == "stopped after 2 s"
    assert {ends[name] for name in ("machine", "laws", "resume", "benchmark")} == {"done"}
    assert (tmp_path / "out" / "demo.txt").read_text() == "begun\n"
    assert "-m gpu and not slow" in (tmp_path / "out" / "laws.txt").read_text()
    assert "parity: failed" in done.stdout


def test_without_a_device_nothing_is_run_and_one_line_says_why(run, tmp_path):
    needs_timeout()
    done = run(NO_DEVICE="1")
    assert done.returncode == 2
    assert done.stdout.splitlines()[0] == "no GPU here"
    assert (tmp_path / "out" / "summary.txt").read_text() == ""


def test_the_limits_of_all_parts_add_up_to_less_than_fifteen_minutes():
    lines = [line.strip() for line in SCRIPT.read_text().splitlines() if "part " in line and line.strip()[0] != "#"]
    limits = [
        int(line.split("part ", 1)[1].split()[1]) * (2 if "$other" in line else 1) for line in lines if "()" not in line
    ]
    assert len(limits) == 10
    assert sum(limits) < 900
