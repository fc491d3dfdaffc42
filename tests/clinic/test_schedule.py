"""The clinic names schedules, and what was done to them."""

import math

import numpy as np
import pytest

from refscore.clinic.schedule import schedule
from refscore.museum.schedules import KNOWN

LINEAR = np.linspace(1e-4, 0.02, 1000)


@pytest.mark.parametrize("name", KNOWN)
def test_each_known_schedule_is_recognised_as_any_list_and_in_single_precision(name):
    ab = KNOWN[name](1000)
    betas = 1 - ab / np.concatenate([[1.0], ab[:-1]])
    name = "linear" if name == "linear-scaled" else name  # at 1000 steps the same
    for kind, values in (("alphas_bar", ab), ("betas", betas), ("sigmas", np.sqrt(1 / ab - 1)[::-1])):
        found = schedule(**{kind: values})
        assert (found.verdict, found.name) == ("right", name)
        assert found.numbers["error"] < 1e-10
    found = schedule(betas=betas.astype("float32"))
    found.assert_is(name)
    assert "float32" in str(found)


def test_a_leading_one_and_a_zero_are_indices_and_no_mistakes():
    ab = np.cumprod(1 - LINEAR)
    schedule(alphas_bar=[1.0, *ab]).assert_is("linear")
    schedule([0.0, *LINEAR]).assert_is("linear")


def test_ends_and_rho_of_ones_own_are_read():
    schedule(np.linspace(2e-4, 0.03, 500)).assert_is("linear from 0.0002 to 0.03")
    levels = np.linspace(80 ** (1 / 5), 0.002 ** (1 / 5), 20) ** 5
    schedule(sigmas=[*levels, 0.0]).assert_is("karras, rho 5, from 0.002 to 80")
    assert schedule(sigmas=np.linspace(1, 100, 30)).name.startswith("linear")


def test_zero_terminal_signal_to_noise_is_right():
    root = np.sqrt(np.cumprod(1 - LINEAR))
    found = schedule(alphas_bar=((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2)
    found.assert_is("linear, zero terminal SNR")
    assert found.numbers["terminal_snr"] == 0


def test_the_prior_costs_what_it_costs():
    """KL(N(α x₀, σ²) ‖ N(0, 1)) a dimension, of data of mean square m: ½ (α² m + σ² - 1 - log σ²)."""
    found = schedule(np.linspace(1e-4, 0.02, 250), data=np.full((5, 2), 3.0))
    ab = np.prod(1 - np.linspace(1e-4, 0.02, 250))
    assert found.numbers["prior_nats"] == pytest.approx(0.5 * (9 * ab - ab - math.log1p(-ab)), rel=1e-12)
    assert found.causes[0].name == "schedule-too-short"


def test_what_half_precision_loses_is_counted():
    lost = schedule(LINEAR).numbers["no_noise_in"]
    assert lost == {"float16": 1, "float32": 0}  # the first level is ᾱ_1 = .9999, a hair's breadth from 1 in float16


@pytest.mark.parametrize(("kind", "values", "name"), [
    ("betas", [0.1, -0.1, 0.2], "beta-out-of-range"), ("betas", [0.1, 1.2], "beta-out-of-range"),
    ("betas", [0.1, math.nan], "not-finite"), ("alphas_bar", [1.5, 0.5], "alpha-bar-out-of-range"),
    ("sigmas", [1.0, 3.0, 2.0], "not-monotone"), ("sigmas", [3.0, 2.0, 2.0], "not-monotone"),
])  # fmt: skip
def test_what_no_schedule_may_be_is_said(kind, values, name):
    found = schedule(**{kind: values})
    assert (found.verdict, found.causes[0].name) == ("wrong", name)


def test_what_is_like_none_is_unknown():
    assert schedule(0.001 + 0.05 * np.random.default_rng(0).random(1000)).verdict == "unknown"


@pytest.mark.parametrize("given", [{}, {"betas": LINEAR, "sigmas": LINEAR}, {"betas": "linear"}])
def test_a_call_without_one_list_is_refused(given):
    with pytest.raises(TypeError):
        schedule(**given)
