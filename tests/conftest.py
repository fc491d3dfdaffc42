"""Fixtures: every back end there is, and floating-point errors as exceptions; one process a core.

What is random is under two switches, `--rotate SEED` and `--shuffle SEED`, and one account: the rates of false alarms.
"""

import contextlib
import importlib.util
import random
from itertools import groupby

import numpy as np
import pytest
from hypothesis import settings
from threadpoolctl import threadpool_limits

from refscore_backends import BACKENDS, BackendUnavailable
from tests.oracles import rotation, statistics
from tests.oracles.backends import FRAMEWORKS, LAW_BACKENDS, NARROW_BACKENDS, choose

settings.register_profile("quick", max_examples=25, derandomize=True, deadline=None, database=None)
settings.register_profile("ci", max_examples=100, derandomize=True, deadline=None, database=None, print_blob=True)
settings.register_profile("nightly", max_examples=5000, derandomize=False, deadline=None, print_blob=True)
settings.register_profile("compiled", settings.get_profile("quick"), max_examples=5)
settings.register_profile("rotated", settings.get_profile("quick"), derandomize=False)
settings.load_profile("quick")  # `pytest --hypothesis-profile=nightly` chooses another


# One BLAS thread: small products gain nothing from two, and lose much where a neighbour is busy.
threadpool_limits(1, user_api="blas")


def pytest_addoption(parser):
    """pyproject.toml asks for one process a core; where pytest-xdist is not installed, for nothing."""
    if importlib.util.find_spec("xdist") is None:
        parser.addoption("--numprocesses", help="ignored: pytest-xdist is not installed")
    parser.addoption("--backends", help=f"run what is given a back end, on these alone: some of {','.join(BACKENDS)}")
    parser.addoption("--rotate", type=int, metavar="SEED", help="mix this into every seed, Hypothesis's too")
    parser.addoption("--shuffle", type=int, metavar="SEED", help="files in random order, and the tests of each")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    """Before any test module is read, since many take the back ends as parameters, or draw."""
    rotation.rotate(config.getoption("--rotate"))
    if config.getoption("--rotate") is not None:
        config.option.hypothesis_profile = config.option.hypothesis_profile or "rotated"
        if config.option.hypothesis_seed is None:
            config.option.hypothesis_seed = config.getoption("--rotate")
    names = (config.getoption("--backends") or "").split(",")
    if names == [""]:
        return
    if unknown := [name for name in names if name not in BACKENDS]:
        raise pytest.UsageError(f"--backends: no back end called {unknown[0]!r}; there are {', '.join(BACKENDS)}")
    try:
        choose(names)
    except BackendUnavailable as error:
        raise pytest.UsageError(f"--backends: {error}") from error
    if "jax" in names and not config.getoption("--hypothesis-profile"):
        settings.load_profile("compiled")  # JAX compiles every shape that is drawn


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
    if config.getoption("--shuffle") is not None:
        shuffled = random.Random(config.getoption("--shuffle"))
        files = [[*tests] for _, tests in groupby(items, lambda item: item.path)]
        for tests in (files, *files):
            shuffled.shuffle(tests)
        items[:] = [item for tests in files for item in tests]


@pytest.fixture(autouse=True)
def _no_silent_overflow():
    """Division by zero, overflow and invalid operations raise; underflow of a probability is normal."""
    with np.errstate(divide="raise", over="raise", invalid="raise"):
        yield


@pytest.fixture(autouse=True)
def _false_alarms(request, record_property):
    """What the stochastic assertions of a test declare goes into its report; a recorded number keeps its seeds."""
    statistics.DECLARED.clear()
    with rotation.as_written() if request.node.get_closest_marker("recorded") else contextlib.nullcontext():
        yield
    record_property("false alarms", list(statistics.DECLARED))


def pytest_terminal_summary(terminalreporter):
    """The budget: how often a run of these tests fails where nothing is wrong."""
    reports = [r for those in terminalreporter.stats.values() for r in those if getattr(r, "when", "") == "teardown"]
    told = [value for report in reports for name, value in report.user_properties if name == "false alarms"]
    rates = [rate for of_a_test in told for rate in of_a_test]
    terminalreporter.write_line(f"false alarms: {len(rates)} stochastic assertions, {sum(rates):.1e} in sum")
