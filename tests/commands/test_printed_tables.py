"""What the commands print: every number stands beside its own name, and sums up what it says it sums up."""

import contextlib
import math
import re

import numpy as np
import pytest

from refscore import VP, ExactScore, GaussianMixture
from refscore.commands import demo, reproduce, samplers
from refscore.experiments import failures, song_ermon_2019
from refscore.laws.expectation import Estimate
from refscore.measure.tables import ModeRow, SampleTable, ScoreRow
from refscore.training.loop import TrainingState
from refscore_backends import get


def line_with(words, lines):
    (found,) = [line for line in lines if words in line]
    return found


def numbers_in(text):
    return [float(word) for word in re.findall(r"-?\d+\.?\d*(?:e[-+]?\d+)?", text)]


# ------------------------------------------------------------------ the demo's


def full_report():
    report = demo.Report("tilted", "numpy", 0, 1234, False, 5.0)
    report.loss = [9.0] * 5 + [2.0, 4.0] * 5
    report.floor, report.excess = Estimate(2.5, 0.0), Estimate(0.125, 0.0625)
    report.scores = [ScoreRow(0.1, 0.25, Estimate(0.01, 0.001)), ScoreRow(2.0, 0.75, Estimate(0.03, 0.002)),
                     ScoreRow(5.0, 0.875, Estimate(0.02, 0.003))]  # fmt: skip
    modes = [
        ModeRow(0.8, Estimate(0.71, 0.01), Estimate(0.79, 0.02)),
        ModeRow(0.2, Estimate(0.29, 0.03), Estimate(0.21, 0.04)),
    ]
    report.samples = SampleTable(0.5, 0.25, Estimate(0.125, 0.0625), modes)
    report.held_out_distance, report.held_out_floor = 7.5, 6.5
    return report


def test_every_number_of_the_demo_stands_beside_its_name():
    lines = "\n".join(demo.tables(full_report())).splitlines()
    assert numbers_in(line_with("which no model can beat", lines)) == [2.5]
    assert numbers_in(line_with("excess loss, measured", lines)) == [0.125, 0.0625]
    rows = [numbers_in(line) for line in lines if "±" in line]
    for row in ([0.1, 0.25, 0.01, 0.001], [2.0, 0.75, 0.03, 0.002], [5.0, 0.875, 0.02, 0.003],
                [0.8, 0.71, 0.01, 0.79, 0.02], [0.2, 0.29, 0.03, 0.21, 0.04]):  # fmt: skip
        assert row in rows
    assert numbers_in(line_with("worst:", lines)) == [0.03, 2.0]
    head = line_with("mode weights", lines)
    assert head.index("true") < head.index("learned") < head.index("exact")
    (learned, *_), (exact, *_) = (
        [line for line in lines if line.startswith(f"  {word} score")] for word in ("learned", "exact")
    )
    assert (numbers_in(learned), numbers_in(exact)) == ([0.5], [0.25])
    assert numbers_in(line_with("two sets of fresh data", lines)) == [0.125, 0.0625]
    assert numbers_in(line_with("training points", lines)) == [6.5]
    assert [7.5] in [numbers_in(line) for line in lines if "learned score" in line]


def test_the_loss_in_words_is_the_mean_of_ten_reports_with_its_error_less_the_floor():
    """2, 4, 2, 4, ...: mean 3, deviation √(10/9), over √10: ⅓."""
    (line,) = [text for text in demo.tables(full_report()) if "trained" in text]
    assert numbers_in(line.split(";")[1]) == [0.5, 0.333]
    assert numbers_in(line.split(";")[0]) == [1234, 5]


def test_what_was_not_measured_is_not_printed():
    (line,) = demo.tables(demo.Report("points.npy", "numpy", 0, 3, False, 1.0))
    assert "no loss reported" in line


@pytest.mark.parametrize("steps", [7, 100, 250])
def test_the_losses_of_the_report_are_means_of_all_steps_up_to_the_one_that_is_named(steps, monkeypatch, tmp_path):
    """Losses 1, 2, 3, ...: the mean of those since the report before. And `fit` is told what the comments promise."""
    zero, given = np.zeros(()), {}

    def counting(model, objective, data, adam, rng, **kwargs):
        given.update(kwargs, rate=adam.rate)
        theta = model.init(np.random.default_rng(0))
        for n in range(1, steps + 1):
            yield TrainingState(n, theta, np.asarray(float(n)), zero, zero, None, None)

    monkeypatch.setattr(demo, "fit", counting)
    monkeypatch.setattr("refscore.commands.demo.draw", lambda *args: [])
    monkeypatch.setattr(demo, "denoising_floor", lambda *args: Estimate(0.0, 0.0))
    for name in ("SAMPLES", "SCORE_SAMPLES", "EXCESS_SAMPLES"):
        monkeypatch.setattr(demo, name, 50)
    report = demo.demo("two-modes", get("numpy"), steps, 0, tmp_path, lambda text: None)
    every = max(1, steps // 100)
    assert report.steps == steps
    assert report.loss_step == list(range(every, steps + 1, every))
    assert report.loss == [step - (every - 1) / 2 for step in report.loss_step]
    assert given["steps"] == steps
    assert given["rate"](min(100, steps - 1)) == pytest.approx(demo.RATE)
    assert given["rate"](steps) == pytest.approx(demo.RATE / 100)


@pytest.mark.parametrize(("steps", "averaged"), [(100, 6), (1980, 100), (100_000, 1000)])
def test_parameters_are_averaged_over_a_twentieth_of_a_run_and_a_thousand_steps_at_most(
    steps, averaged, monkeypatch, tmp_path
):
    class SeenError(Exception):
        pass

    def seen(*args, ema, **kwargs):
        raise SeenError(ema.decay)

    monkeypatch.setattr(demo, "fit", seen)
    monkeypatch.setattr(failures, "fit", seen)
    monkeypatch.setattr(demo, "denoising_floor", lambda *args: Estimate(0.0, 0.0))
    for run in (
        lambda: demo.demo("two-modes", get("numpy"), steps, 0, tmp_path, lambda text: None),
        lambda: failures.manifold_curve(0.1, steps, 0, lambda step, words: None),
    ):
        with pytest.raises(SeenError) as caught:
            run()
        assert 1 / (1 - caught.value.args[0]) == pytest.approx(averaged)


def test_the_demo_holds_its_model_and_the_exact_score_apart(monkeypatch, tmp_path):
    """After one step of training the model's samples are far off, those of the exact score at the floor."""
    monkeypatch.setattr("refscore.commands.demo.draw", lambda *args: [])
    monkeypatch.setattr(demo, "denoising_floor", lambda *args: Estimate(0.0, 0.0))
    for name in ("SAMPLES", "SCORE_SAMPLES", "EXCESS_SAMPLES"):
        monkeypatch.setattr(demo, name, 200)
    report = demo.demo("two-modes", get("numpy"), 2, 0, tmp_path, lambda text: None)
    assert report.samples is not None
    assert report.samples.learned > report.samples.floor.value + 6 * report.samples.floor.error
    assert report.samples.exact < report.samples.floor.value + 6 * report.samples.floor.error
    assert all(row.error.value > 0.1 for row in report.scores)


# ------------------------------------------------------------------ those of `samplers`


def test_every_error_stands_below_its_budget_and_beside_its_sampler():
    report = samplers.Report("tilted", "vp", "exact", "sliced Wasserstein, sampled", 0, 100, [4, 16, 64])
    report.rows = [
        samplers.Row("rk4", [0, 13, 61], [None, 0.25, 0.125], 0.5),
        samplers.Row("ddim", [4, 16, 64], [3.0, 2.0, 1.0], 0.75),
    ]
    report.floor, report.prior, report.likelihood = Estimate(0.03125, 0.001), 0.0104, {"score": 0.2, "prior": 0.3}
    lines = "\n".join(samplers.tables(report)).splitlines()
    assert line_with("sampler ", lines).split() == ["sampler", "4", "16", "64", "prior"]
    assert line_with("  rk4", lines).split() == ["rk4", "-", "0.25", "0.125", "0.5"]
    assert line_with("  ddim", lines).split() == ["ddim", "3", "2", "1", "0.75"]
    assert "64 evaluations, started from the prior" in line_with("prior:", lines)
    assert numbers_in(line_with("two sets of exact samples", lines)) == [0.0312, 0.001]
    assert numbers_in(line_with("apart", lines)) == [0.0104]
    assert line_with("  score ", lines).split() == ["score", "0.2"]


def test_the_score_part_of_the_likelihood_is_that_of_a_law_known_to_be_shifted():
    """N(0, I) taken for N(d, I): log p' - log p = d·x - ½ d² ~ N(-½ d², d²), root mean square d √(1 + d²/4)."""
    one, d = np.ones(1), 0.3
    sde, exact = VP(), GaussianMixture(one, np.zeros((1, 2)), one)
    split = samplers.likelihood_split(ExactScore(GaussianMixture(one, np.array([[d, 0.0]]), one), sde), exact, sde, 0)
    # a mean of 100 squares, nearly χ²: relative deviation √(2/100); 6.1 of them on the square
    assert (split["score"] / d) ** 2 / (1 + d * d / 4) == pytest.approx(1, abs=6.1 * math.sqrt(2 / 100))
    for cause in ("truncation", "prior", "discretisation"):
        assert split[cause] < 1e-3, cause
    assert math.isfinite(split["probes"])


# ------------------------------------------------------------------ bars


@pytest.fixture
def shown(monkeypatch):
    """(step, of how many) for every sign of progress."""
    seen = []

    @contextlib.contextmanager
    def progress(total, say):
        yield lambda step, words: seen.append((step, total))

    for module in (samplers, reproduce):
        monkeypatch.setattr(module, "progress", progress)
    return seen


def assert_a_bar(shown):
    """It never goes back, never stands still, and is full at the end."""
    steps, (total,) = [step for step, _ in shown], {total for _, total in shown}
    assert steps == sorted(set(steps))
    assert steps[0] > 0
    assert steps[-1] == total


def test_the_bar_of_samplers_counts_every_error(shown, monkeypatch, tmp_path):
    monkeypatch.setattr(samplers, "likelihood_split", lambda *args: {})
    monkeypatch.setattr(samplers, "_draw", lambda *args: "", raising=False)
    samplers.compare(None, ["ddim", "rk4"], [2, 8], "vp", 100, 0, None, tmp_path, get("numpy"), lambda text: None)
    assert_a_bar(shown)
    assert len(shown) == 2 * 3  # two budgets and the prior, for each


def test_the_bar_of_reproduce_counts_every_step_of_training(shown, monkeypatch, tmp_path):
    """180 and 180 on the circle, 600 without noise and 600 with it; kept results are no progress, but the end is."""

    def curve(noise, steps, seed, show, backend):
        show(steps, "loss")
        return np.zeros(60)

    def low(steps, seed, show, backend):
        show(steps, "loss")
        show(2 * steps - 1, "loss")
        z = np.zeros(10)
        return failures.LowDensity(z, z, z, z, 0.0, 0.0, z)

    z = np.zeros((3, 2))
    monkeypatch.setattr(song_ermon_2019, "manifold_curve", curve)
    monkeypatch.setattr(song_ermon_2019, "low_density", low)
    monkeypatch.setattr(song_ermon_2019, "weights", lambda seed, backend: failures.Weights(*[0.0] * 5, z, z))
    reproduce.measure(tmp_path, [0], 600, get("numpy"), lambda text: None)
    assert_a_bar(shown)
    assert [step for step, _ in shown] == [180, 360, 960, 1559, 1560]
    shown.clear()
    reproduce.measure(tmp_path, [0], 600, get("numpy"), lambda text: None)
    assert [step for step, _ in shown] == [1560]
