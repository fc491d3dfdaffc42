"""A file of the tests run by several ranks of MPI, where there is one."""

import os
import shutil
import subprocess
import sys
from typing import Any

import pytest


def mpiexec(n: int, module: str, *args: Any) -> subprocess.CompletedProcess[str]:
    """Python's `module` with `args` on n ranks; ends after 100 s at the latest."""
    pytest.importorskip("mpi4py")
    places = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])  # as of a wheel
    launcher = shutil.which("mpiexec", path=places)
    if launcher is None:
        pytest.skip("mpi4py is installed, and no mpiexec found")
    line = [launcher, "-n", n, sys.executable, "-m", module, *args]
    paths = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run([*map(str, line)], timeout=100, env=paths, capture_output=True, text=True)
