"""What the commands print: every number stands beside its own name, and sums up what it says it sums up."""

import math
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from refscore import VP, ExactScore, GaussianMixture, budget, demo
from refscore.distance import Estimate
from refscore.evaluate import ModeRow, SampleTable, ScoreRow
from refscore.train import TrainingState
from refscore_backends import get


def line_with(words: str, lines: list[str]) -> str:
    (found,) = [line for line in lines if words in line]
    return found


def numbers_in(text: str) -> list[float]:
    return [float(word) for word in re.findall(r"-?\d+\.?\d*(?:e[-+]?\d+)?", text)]


# ------------------------------------------------------------------ the demo's


def full_report() -> demo.Report:
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


def test_every_number_of_the_demo_stands_beside_its_name() -> None:
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


def test_the_loss_in_words_is_the_mean_of_ten_reports_with_its_error_less_the_floor() -> None:
    """2, 4, 2, 4, ...: mean 3, deviation √(10/9), over √10: ⅓."""
    (line,) = [text for text in demo.tables(full_report()) if "trained" in text]
    assert numbers_in(line.split(";")[1]) == [0.5, 0.333]
    assert numbers_in(line.split(";")[0]) == [1234, 5]


def test_what_was_not_measured_is_not_printed() -> None:
    (line,) = demo.tables(demo.Report("points.npy", "numpy", 0, 3, False, 1.0))
    assert "no loss reported" in line


@pytest.mark.parametrize("steps", [7, 100, 250])
def test_the_losses_of_the_report_are_means_of_all_steps_up_to_the_one_that_is_named(
    steps: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """Losses 1, 2, 3, ...: the mean of those since the report before."""
    zero = np.zeros(())

    def counting(model: Any, *args: Any, **kwargs: Any) -> Iterator[TrainingState]:
        theta = model.init(np.random.default_rng(0))
        for n in range(1, steps + 1):
            yield TrainingState(n, theta, np.asarray(float(n)), zero, zero, None, None)

    monkeypatch.setattr(demo, "fit", counting)
    monkeypatch.setattr("refscore.plots.demo", lambda *args: [])
    monkeypatch.setattr(demo, "denoising_floor", lambda *args: Estimate(0.0, 0.0))
    for name in ("SAMPLES", "SCORE_SAMPLES", "EXCESS_SAMPLES"):
        monkeypatch.setattr(demo, name, 50)
    report = demo.run("two-modes", get("numpy"), steps, 0, tmp_path, lambda text: None)
    every = max(1, steps // 100)
    assert report.steps == steps
    assert report.loss_step == list(range(every, steps + 1, every))
    assert report.loss == [step - (every - 1) / 2 for step in report.loss_step]


# ------------------------------------------------------------------ those of `evaluate`


def test_every_error_stands_below_its_budget_and_beside_its_sampler() -> None:
    report = budget.Report("tilted", "vp", "exact", "sliced Wasserstein, sampled", 0, 100, [4, 16, 64])
    report.rows = [
        budget.Row("rk4", [0, 13, 61], [None, 0.25, 0.125], 0.5),
        budget.Row("ddim", [4, 16, 64], [3.0, 2.0, 1.0], 0.75),
    ]
    report.floor, report.prior, report.likelihood = Estimate(0.03125, 0.001), 0.0104, {"score": 0.2, "prior": 0.3}
    lines = "\n".join(budget.tables(report)).splitlines()
    assert line_with("sampler ", lines).split() == ["sampler", "4", "16", "64", "prior"]
    assert line_with("  rk4", lines).split() == ["rk4", "-", "0.25", "0.125", "0.5"]
    assert line_with("  ddim", lines).split() == ["ddim", "3", "2", "1", "0.75"]
    assert "64 evaluations, started from the prior" in line_with("prior:", lines)
    assert numbers_in(line_with("two sets of exact samples", lines)) == [0.0312, 0.001]
    assert numbers_in(line_with("apart", lines)) == [0.0104]
    assert line_with("  score ", lines).split() == ["score", "0.2"]


def test_the_score_part_of_the_likelihood_is_that_of_a_law_known_to_be_shifted() -> None:
    """N(0, I) taken for N(d, I): log p' - log p = d·x - ½ d² ~ N(-½ d², d²), root mean square d √(1 + d²/4)."""
    one, d = np.ones(1), 0.3
    sde, exact = VP(), GaussianMixture(one, np.zeros((1, 2)), one)
    split = budget.likelihood_split(ExactScore(GaussianMixture(one, np.array([[d, 0.0]]), one), sde), exact, sde, 0)
    # a mean of 100 squares, nearly χ²: relative deviation √(2/100); 6.1 of them on the square
    assert (split["score"] / d) ** 2 / (1 + d * d / 4) == pytest.approx(1, abs=6.1 * math.sqrt(2 / 100))
    for cause in ("truncation", "prior", "discretisation"):
        assert split[cause] < 1e-3, cause
    assert math.isfinite(split["probes"])
