"""The patients themselves: each runs with the exact model of a Gaussian, and the right ones give its law."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from refscore import ExactScore, GaussianMixture
from tests.oracles.patients import PATIENTS
from tests.oracles.patients.conventions import PREDICTS, TOLD, as_library, exact

MEAN, COV = [0.7, -0.4], [[0.5, 0.2], [0.2, 0.3]]
KEYS = {  # of a kind, beside those of all
    "sampler": {"library", "predicts", "told", "schedule", "prior_std"},
    "loss": {"library", "predicts", "told", "schedule"},
    "schedule": {"gives"},
    "likelihood": {"library", "predicts", "told", "schedule", "gives"},
    "score": {"library", "told", "schedule", "mixture"},
}


def marked(*kinds):
    """Their names; what needs a package, or seconds, is slow."""
    chosen = [(name, r) for name, r in PATIENTS.items() if r["kind"] in kinds]
    return [pytest.param(name, id=name, marks=[pytest.mark.slow] if r["needs"] else []) for name, r in chosen]


def installed(name):
    record = PATIENTS[name]
    for package in record["needs"]:
        module = pytest.importorskip(package, exc_type=ImportError)
        if package == "torch":
            module.manual_seed(0)
        if package == "jax":
            module.config.update("jax_enable_x64", True)
    np.random.seed(0)  # noqa: NPY002
    return record


def test_every_record_is_complete():
    for name, record in PATIENTS.items():
        needed = {"patient", "kind", "needs", "answer", "mistake"} | KEYS[record["kind"]]
        assert needed <= set(record) <= needed | {"data"}, name
        assert record.get("told", "time") in TOLD, name
        assert record.get("predicts", "noise") in PREDICTS, name
        assert record["mistake"] is None or len(record["mistake"]) > 20, name


def test_there_are_enough_of_each():
    def of(kind, mistaken):
        return sum(r["kind"] == kind and (r["mistake"] is not None) == mistaken for r in PATIENTS.values())

    for kind, right, wrong in (("sampler", 15, 15), ("loss", 3, 3), ("schedule", 3, 2), ("likelihood", 2, 2)):
        assert of(kind, False) >= right, kind
        assert of(kind, True) >= wrong, kind
    assert of("score", False) + of("score", True) >= 3


@pytest.mark.parametrize("name", marked("sampler"))
def test_samplers_run_and_the_right_ones_give_the_law(name):
    record, rng = installed(name), np.random.default_rng(1)
    x = as_library(record, record["prior_std"] * rng.standard_normal((2000, 2)))
    found = np.asarray(record["patient"](exact(record, MEAN, COV), x, rng))
    assert found.shape == (2000, 2)
    assert np.isfinite(found).all()
    if record["mistake"] is None:  # coarse grids lose a tenth of the deviation; a mistake seldom less than that
        np.testing.assert_allclose(found.mean(0), MEAN, atol=0.06)
        np.testing.assert_allclose(np.sqrt(np.diag(np.cov(found.T))), np.sqrt(np.diag(COV)), atol=0.1)


@pytest.mark.parametrize("name", marked("loss"))
def test_losses_are_finite(name):
    record, rng = installed(name), np.random.default_rng(2)
    x0 = as_library(record, rng.multivariate_normal(MEAN, COV, 500))
    assert np.isfinite(np.asarray(record["patient"](exact(record, MEAN, COV), x0))).all()


@pytest.mark.parametrize("name", marked("schedule"))
def test_schedules_are_lists_of_numbers(name):
    values = np.asarray(installed(name)["patient"]())
    assert values.ndim == 1
    assert np.isfinite(values).all()


@pytest.mark.parametrize("name", marked("likelihood"))
def test_likelihoods_are_one_number_a_sample(name):
    record, rng = installed(name), np.random.default_rng(3)
    x = rng.multivariate_normal(MEAN, COV, 20)
    found = np.asarray(record["patient"](exact(record, MEAN, COV), as_library(record, x)))
    assert found.shape == (20,)
    assert np.isfinite(found).all()
    if record["mistake"] is None and record["answer"].get("divergence") == "exact":
        np.testing.assert_allclose(found, multivariate_normal(MEAN, COV).logpdf(x), atol=2e-3)


@pytest.mark.parametrize("name", marked("score"))
def test_right_scores_are_exact(name):
    record = installed(name)
    x = np.random.default_rng(4).standard_normal((20, 2))
    truth = ExactScore(GaussianMixture(*record["mixture"]()), record["schedule"]())
    found = [np.asarray(record["patient"](as_library(record, x), t)) for t in (0.1, 0.5)]
    close = [np.allclose(s, truth(x, t), rtol=1e-5, atol=1e-6) for s, t in zip(found, (0.1, 0.5), strict=True)]
    assert all(close) == (record["mistake"] is None)
