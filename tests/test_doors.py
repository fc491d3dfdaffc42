"""Doors and boundaries: the last number that is taken, the first that is refused; what a failure hands back."""

import importlib
import math
import pkgutil

import numpy as np
import pytest

import refscore
import refscore_backends
from refscore import EMA, SGD, VP, Adam, Denoising, ExactScore, Reverse, fit, log_likelihood
from refscore.data.points import DataFileError, load_points
from refscore.likelihood.flow import FixedSteps, decode, encode
from refscore.nn import Dense
from refscore.noise.suggest import overlap_ratio, suggest_schedule
from refscore.training.loop import DivergenceError
from tests.oracles.models import MODEL, POINTS, TILTED

# ------------------------------------------------------------------ what a divergence hands back


def breaking(step):
    """Denoising, until its loss is infinite at one step."""
    calls = []

    def objective(model, theta, x0, rng):
        calls.append(1)
        loss, grad = Denoising()(model, theta, x0, rng)
        return (loss + math.inf if len(calls) == step else loss), grad

    return objective


@pytest.mark.parametrize(("every", "breaks", "passed"), [(1, 7, 6), (3, 9, 6), (4, 12, 8), (5, 10, 5), (2, 20, 18)])
def test_last_good_is_the_very_state_whose_parameters_passed_the_last_check(every, breaks, passed):
    """The loss of step n is that of the parameters after step n - 1: the state yielded just before the check."""
    states = []
    training = fit(
        MODEL, breaking(breaks), POINTS, Adam(1e-3), np.random.default_rng(0), steps=20, batch=8, check_every=every,
        ema=EMA(0.9),
    )  # fmt: skip
    with pytest.raises(DivergenceError) as caught:
        states.extend(training)
    assert len(states) == breaks - 1
    good = caught.value.last_good
    assert good is states[passed - 2]
    assert good.step == passed - 1


def test_the_parameters_handed_back_are_sound_where_the_next_ones_are_not():
    """A rate that explodes at step 6: the check of step 6 passes, since its loss is of the parameters before."""
    states = []
    rate = lambda step: 1e-3 if step <= 5 else 1e6  # noqa: E731
    training = fit(MODEL, Denoising(), POINTS, SGD(rate), np.random.default_rng(5), steps=50, batch=8, check_every=1)
    with pytest.raises(DivergenceError, match="by step 7") as caught:
        states.extend(training)
    good = caught.value.last_good
    assert good is states[4]

    def loss(theta):
        return float(Denoising()(MODEL, theta, POINTS, np.random.default_rng(1))[0])

    assert loss(good.theta) < 10
    assert loss(states[5].theta) > 1e6  # the state after the last check that passed


# ------------------------------------------------------------------ what a sampler gives


class Draws:
    """A distribution whose samples are whatever `make` makes of (n, 2) of them."""

    def __init__(self, make):
        self.make = make

    def sample(self, rng, n):
        return self.make(rng.standard_normal((n, 2)))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda x: x * np.nan, ValueError, "values that are not finite"),
        (lambda x: x[:, 0], ValueError, r"with at least 2 axes, got \(1,\)"),
        (lambda x: x[:, :0], ValueError, "is empty"),
        (lambda x: np.round(x).astype(int), TypeError, "must be float32 or float64, got int64"),
        (lambda x: x.astype("float16"), TypeError, "must be float32 or float64, got float16"),
        (lambda x: x.tolist(), TypeError, "must be an array of float32 or float64, got list"),
    ],
    ids=["nan", "one axis", "no width", "integers", "half", "list"],
)
def test_the_first_example_of_a_sampler_is_looked_at_before_training(make, error, message):
    with pytest.raises(error, match=message):
        fit(MODEL, Denoising(), Draws(make), Adam(1e-3), np.random.default_rng(0), steps=5)
    assert next(fit(MODEL, Denoising(), Draws(lambda x: x), Adam(1e-3), np.random.default_rng(0), steps=5)).step == 1


# ------------------------------------------------------------------ numbers at the edge


@pytest.mark.parametrize("gain", [0.0, -1.0, math.nan, math.inf])
def test_dense_refuses_a_gain_that_is_no_width(gain):
    with pytest.raises(ValueError, match="gain must be positive and finite"):
        Dense(2, 3, gain=gain)


def test_the_gain_of_a_dense_layer_multiplies_its_first_weights():
    one, two = (Dense(3, 4, 5, gain).init(np.random.default_rng(0), "float64") for gain in (1.0, 2.0))
    for name in ("W", "T"):
        np.testing.assert_allclose(two[name], 2 * one[name], rtol=1e-15)
    assert not two["b"].any()


@pytest.mark.parametrize("bad", [0.0, -1e-3, 1.001])
def test_steps_equal_in_log_snr_refuse_a_time_without_noise_at_either_end(bad):
    solve = FixedSteps(VP(), 3)
    for ends in ((bad, 1.0), (1.0, bad)):
        with pytest.raises(ValueError, match=r"need times in \(0, 1\]"):
            solve(lambda y, t: 0 * y, POINTS, *ends)
    np.testing.assert_array_equal(solve(lambda y, t: np.zeros_like(y), POINTS, 1e-12, 1.0), POINTS)


def test_one_step_of_a_solver_is_taken_and_none_is_not():
    score, x = ExactScore(TILTED, VP()), POINTS[:2]
    assert np.isfinite(log_likelihood(score, VP(), x, solve=FixedSteps(VP(), 1)).value).all()
    with pytest.raises(ValueError, match="steps must be an integer of at least 1, got 0"):
        FixedSteps(VP(), 0)


def test_up_to_the_code_and_back_by_the_default_solver_and_by_ones_own():
    """`encode` and `decode` are inverse, and walk from t_min to 1 and back with the solver that was given."""
    sde, walked = VP(), []
    score = ExactScore(TILTED, sde)
    there = encode(score, sde, POINTS)
    np.testing.assert_allclose(decode(score, sde, there), POINTS, atol=1e-5)  # 200 steps of order 4

    def own(velocity, y, t, s):
        walked.append((t, s))
        return y + velocity(y, 0.5)

    drift = Reverse(sde, score, 0.0).drift
    found = decode(score, sde, encode(score, sde, POINTS, 0.1, own), 0.2, own)
    np.testing.assert_array_equal(found, own(drift, own(drift, POINTS, 0, 1), 1, 0))
    assert walked[:2] == [(0.1, 1.0), (1.0, 0.2)]


# ------------------------------------------------------------------ words


def points_or_words(path):
    try:
        return load_points(path)
    except DataFileError as error:
        return str(error)


@pytest.mark.parametrize("cell", ["1_0", "١", "0x1A", "1e", "--1", "1 2"])
@pytest.mark.parametrize("row", [1, 2])
def test_a_cell_that_readers_disagree_on_is_read_or_named(cell, row, tmp_path):
    """`float` takes 1_0 and digits of every script, a reader of tables may not: then it says which, or which line."""
    lines = ["1,2", "3,4", "5,6"]
    lines[row] = f"{cell},7"
    path = tmp_path / "a.csv"
    path.write_text("\n".join(lines), encoding="utf-8")
    found = points_or_words(path)
    if isinstance(found, str):
        assert cell in found or f"line {row + 1}" in found
    else:
        assert found[row].tolist() == [float(cell), 7.0]


@pytest.mark.parametrize("dim", [1, 2, 4, 5, 8, 64])
def test_a_suggestion_gives_reasons_in_finite_numbers(dim):
    """The overlap of two levels is one half at some ratio in D > 4, and at none below: the text says which holds."""
    text = str(suggest_schedule(np.random.default_rng(0).standard_normal((40, dim)), budget=5000))
    assert "inf" not in text
    assert "nan" not in text
    assert ("above one half at any ratio" in text) == (dim <= 4)
    if 4 < dim < 64:  # above 1.5, and so cut to it
        assert f"is one half at {overlap_ratio(dim):.3g}" in text


# ------------------------------------------------------------------ nouns

# Filled in while a command runs, so that an interruption loses nothing; or while a function is recorded.
FILLED_IN = {
    "refscore_backends.recorded.plan.Plan",
    "refscore_backends.recorded.program.Program",
    "refscore_backends.recorded.tape.Tape",
    "commands.demo_report.Report",
    "commands.samplers.Row",
    "commands.samplers.Report",
    "commands.evaluate.Report",
    "clinic.candidates.Patient",
    "clinic.patient.Run",
}


def test_every_dataclass_of_the_package_is_frozen_unless_it_is_filled_in():
    seen = {}
    for package in (refscore, refscore_backends):
        for info in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            if not info.name.endswith("cupy"):  # may be absent
                for thing in vars(importlib.import_module(info.name)).values():
                    if isinstance(thing, type) and hasattr(thing, "__dataclass_params__"):
                        name = f"{thing.__module__}.{thing.__qualname__}".removeprefix("refscore.")
                        seen[name] = thing.__dataclass_params__.frozen
    assert len(seen) > 60
    assert {name for name, frozen in seen.items() if not frozen} == FILLED_IN
