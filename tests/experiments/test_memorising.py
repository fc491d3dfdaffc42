"""Learning the law, or the points: both distances are excess losses, and small data are learned by heart."""

import numpy as np
import pytest

from refscore import ExactScore
from refscore.experiments import memorising
from refscore.experiments.memorising import OBJECTIVE, SDE, Away, course, stopping
from refscore.laws.empirical import empirical
from refscore.laws.examples import mixture
from refscore.matching.base import noised
from refscore.measure.floor import denoising_floor
from tests.oracles.book import ROOT
from tests.oracles.statistics import assert_within


@pytest.mark.parametrize("of", ["law", "points"])
def test_a_distance_is_the_loss_less_its_floor(of):
    """Eq. (15.9): for the law and for the points alike; here of the score of another law, by Monte Carlo."""
    rng, law = np.random.default_rng(0), mixture("tilted")
    p, other = law if of == "law" else empirical(law.sample(rng, 8)), ExactScore(mixture("circle"), SDE)
    floor = denoising_floor(OBJECTIVE, p, SDE, rng)
    x0 = p.sample(rng, 40_000)
    t, z, factor = OBJECTIVE.draw(SDE, x0, rng)
    push = other(noised(SDE, x0, t, z), t) + z / SDE.sigma(t)[:, None]
    losses = 0.5 * factor * OBJECTIVE.weight(SDE, t) * np.sum(push**2, axis=1)
    away = Away(p, rng, 40_000)
    noise = np.std(losses) / 200  # of the loss; that of the distance is of the same size
    assert_within(losses.mean() - floor.value, away(other), 1.5 * noise + floor.error, n=40_000)
    assert away(ExactScore(p, SDE)) < 1e-5 * away(other)  # to the last digits of float32


def test_training_is_told_its_batch(monkeypatch):
    told = {}
    monkeypatch.setattr(memorising, "fit", lambda *args, **options: told.update(options) or ())
    with pytest.raises(ValueError, match="not enough values"):  # no state came
        course(0, 4, steps=50, batch=7, draws=10)
    assert (told["steps"], told["batch"]) == (50, 7)


def test_few_points_are_learned_by_heart_and_many_are_not():
    few, many = (course(0, n, steps=400, rows=6, width=48, draws=500) for n in (4, 2000))
    assert few.crossing < few.steps[-1]  # soon the points are better known than the truth would know them
    assert few.truth[-1] > 2 * few.truth.min()
    assert many.crossing == np.inf
    assert many.truth[-1] == many.truth.min()
    assert few.copies.share.value > 0.3 > 0.2 > many.copies.share.value
    assert few.truth_of_memory > 10 * many.truth_of_memory  # what complete memory would cost
    assert few.best < few.steps[-1]
    assert many.best == many.steps[-1]


def test_copies_come_after_the_score_was_nearest_to_the_truth():
    steps, copies, away = stopping(0, 4, steps=400, rows=5, width=48, count=100)
    assert steps[0] == 50 < steps[away.argmin()] < steps[-1] == 400
    assert copies[-1] > 0.3 > 0.2 > copies[away.argmin()]
    assert len(steps) == len(copies) == len(away) == 5


def rows():
    """The table of chapter 15: points, and the numbers beside them."""
    text = (ROOT / "docs" / "chapters" / "15-images.md").read_text(encoding="utf-8")
    lines = text[text.index("| points | nearest") :].split("\n\n")[0].splitlines()[2:]
    return [[float(cell.strip(" %").replace(" ", "")) for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.recorded("the table is of the draws of the experiment")
@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{row[0]:g}")
def test_where_memory_and_the_truth_stand_is_as_the_table_says(row):
    """No training: the distances of the two exact scores from each other, at the draws of the experiment."""
    n, law = int(row[0]), mixture("tilted")
    rng = np.random.default_rng([0, n])
    points = law.sample(rng, n)
    truth, memory = Away(law, rng, 4096), Away(empirical(points), rng, 4096)
    assert truth(ExactScore(memory.law, SDE)) == pytest.approx(row[4], rel=0.02)
    assert memory(ExactScore(law, SDE)) == pytest.approx(row[6], rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{row[0]:g}")
def test_training_passes_from_the_law_to_the_points_as_the_table_says(row):
    """To a third: training enlarges the last bit, which is another on another machine."""
    n, best, least, end, _, memory, _, crossing, copies = row
    run = course(0, int(n), 10_000)
    assert run.truth.min() == pytest.approx(least, rel=0.35)
    assert run.truth[-1] == pytest.approx(end, rel=0.35)
    assert run.memory[-1] == pytest.approx(memory, rel=0.35)
    assert best / 4 <= run.best <= 4 * best
    assert crossing / 2 <= run.crossing <= 2 * crossing
    assert run.copies.share.value == pytest.approx(copies / 100, abs=0.1)
