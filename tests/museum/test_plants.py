"""The museum as the kill matrix of our own suite: each mistake, planted in our source, makes a quick test fail."""

import ast
import random
import sys
from functools import cache

import pytest

from refscore.museum import layers, likelihoods, losses, readings, samplers, schedules, scores
from tests.oracles.book import ROOT, parsed
from tests.oracles.plants import NOWHERE, PLANTS, status

ROOMS = (samplers, readings, losses, schedules, scores, likelihoods, layers)
IDS = [f"{n}-{plant.mistake.replace(' ', '-')}" for n, plant in enumerate(PLANTS)]
forks = pytest.mark.skipif(sys.platform == "win32", reason="no forks there")
passes = cache(lambda test: status(test) == 0)


def test_every_mistake_of_the_museum_is_planted_in_our_source_or_has_no_place_there():
    museum = {f"{mistake.kind} {mistake.name}" for room in ROOMS for mistake in room.MISTAKES}
    planted = {plant.mistake for plant in PLANTS}
    assert planted | NOWHERE.keys() == museum
    assert not planted & NOWHERE.keys()


def test_a_plant_is_one_edit():
    sources = {file: (ROOT / "refscore" / file).read_text(encoding="utf-8") for file in {p.file for p in PLANTS}}
    assert not [plant for plant in PLANTS if sources[plant.file].count(plant.old) != 1 or plant.old == plant.new]


def test_the_test_of_a_plant_exists_and_is_quick():
    for plant in PLANTS:
        file, name = plant.test.split("[")[0].split("::")
        found = [f for f in parsed(ROOT / "tests" / file).body if getattr(f, "name", "") == name]
        assert len(found) == 1, plant
        assert not [mark for mark in found[0].decorator_list if ast.unparse(mark).endswith("mark.slow")], plant


@forks
@pytest.mark.parametrize("plant", random.Random(12).sample(PLANTS, 1), ids=lambda plant: plant.mistake)
def test_a_few_plants_are_noticed(plant):
    assert status(plant.test, plant) == pytest.ExitCode.TESTS_FAILED


@forks
@pytest.mark.slow
@pytest.mark.parametrize("plant", PLANTS, ids=IDS)
def test_every_plant_is_noticed_by_a_test_that_passes_without_it(plant):
    assert passes(plant.test)
    assert status(plant.test, plant) == pytest.ExitCode.TESTS_FAILED
