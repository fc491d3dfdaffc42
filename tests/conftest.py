"""Fixtures: every back end there is, and floating-point errors as exceptions; one process a core."""

import importlib.util

import numpy as np
import pytest
from hypothesis import settings
from threadpoolctl import threadpool_limits

from refscore_backends import BACKENDS, BackendUnavailable
from tests.oracles.backends import FRAMEWORKS, LAW_BACKENDS, NARROW_BACKENDS, choose

settings.register_profile("quick", max_examples=25, derandomize=True, deadline=None, database=None)
settings.register_profile("ci", max_examples=100, derandomize=True, deadline=None, database=None, print_blob=True)
settings.register_profile("nightly", max_examples=5000, derandomize=False, deadline=None, print_blob=True)
settings.load_profile("quick")  # `pytest --hypothesis-profile=nightly` chooses another


# One BLAS thread: small products gain nothing from two, and lose much where a neighbour is busy.
threadpool_limits(1, user_api="blas")


def pytest_addoption(parser):
    """pyproject.toml asks for one process a core; where pytest-xdist is not installed, for nothing."""
    if importlib.util.find_spec("xdist") is None:
        parser.addoption("--numprocesses", help="ignored: pytest-xdist is not installed")
    parser.addoption("--backends", help=f"run what is given a back end, on these alone: some of {','.join(BACKENDS)}")


def pytest_configure(config):
    """Before any test module is read, since many take the back ends as parameters."""
    names = (config.getoption("--backends") or "").split(",")
    if names == [""]:
        return
    if unknown := [name for name in names if name not in BACKENDS]:
        raise pytest.UsageError(f"--backends: no back end called {unknown[0]!r}; there are {', '.join(BACKENDS)}")
    try:
        choose(names)
    except BackendUnavailable as error:
        raise pytest.UsageError(f"--backends: {error}") from error


def pytest_generate_tests(metafunc):
    """What the arguments `backend`, `any_backend` and `framework` of tests are."""
    for name, those in {
        "backend": LAW_BACKENDS,  # where float64 laws hold: NumPy, read-only NumPy, strict device1, CuPy where present
        "any_backend": LAW_BACKENDS + NARROW_BACKENDS,  # and a device without float64: for dtype and float32 tests
        "framework": FRAMEWORKS,
    }.items():
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, those, ids=lambda b: b.name)


def pytest_collection_modifyitems(config, items):
    """`pytest -m gpu` runs every test that is given CuPy's back end; `--backends` what is given one of the named."""
    named, kept, left_out = config.getoption("--backends"), [], []
    for item in items:
        given = item.callspec.params.values() if hasattr(item, "callspec") else ()
        if any(getattr(value, "name", "") == "cupy" for value in given):
            item.add_marker("gpu")
        wanted = any(value is b for value in given for b in LAW_BACKENDS + FRAMEWORKS)
        unwanted = not wanted and (named or "framework" in getattr(item, "fixturenames", ()))
        (left_out if unwanted else kept).append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = kept


@pytest.fixture(autouse=True)
def _no_silent_overflow():
    """Division by zero, overflow and invalid operations raise; underflow of a probability is normal."""
    with np.errstate(divide="raise", over="raise", invalid="raise"):
        yield
