"""Fixtures: every back end there is, and floating-point errors as exceptions; one process a core."""

import importlib.util

import numpy as np
import pytest
from hypothesis import settings
from threadpoolctl import threadpool_limits

from tests.oracles.backends import LAW_BACKENDS, NARROW_BACKENDS

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


def pytest_collection_modifyitems(items):
    """`pytest -m gpu` runs every test that is given CuPy's back end."""
    for item in items:
        given = item.callspec.params.values() if hasattr(item, "callspec") else ()
        if any(getattr(value, "name", "") == "cupy" for value in given):
            item.add_marker("gpu")


@pytest.fixture(params=LAW_BACKENDS, ids=lambda b: b.name)
def backend(request):
    """Back ends on which float64 laws hold: NumPy, read-only NumPy, strict device1, CuPy where present."""
    return request.param


@pytest.fixture(params=LAW_BACKENDS + NARROW_BACKENDS, ids=lambda b: b.name)
def any_backend(request):
    """The same and a device without float64: for dtype and float32 tests."""
    return request.param


@pytest.fixture(autouse=True)
def _no_silent_overflow():
    """Division by zero, overflow and invalid operations raise; underflow of a probability is normal."""
    with np.errstate(divide="raise", over="raise", invalid="raise"):
        yield
