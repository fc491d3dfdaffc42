"""The exhibits: every mistake can be made somewhere, says what it is and where it comes from."""

import pytest

from refscore.museum.mistake import fits, plant
from tests.oracles.planted import ROOMS as ASKED

ROOMS = [room for room, _ in ASKED.values()]


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.__name__)
def test_every_mistake_can_be_made_and_is_described(room):
    for mistake in room.MISTAKES:
        homes = [specimen for specimen in room.SPECIMENS if fits(mistake, specimen)]
        assert homes, mistake.name
        assert all(plant(mistake, home).__name__ == home.__name__ for home in homes)
        assert min(map(len, (mistake.says, mistake.sees, mistake.origin))) > 5, mistake.name


def test_there_are_enough_of_each():
    least = {"layer": 8, "likelihood": 8, "loss": 14, "schedule": 10, "score": 6}
    names = {(m.kind, m.name) for room in ROOMS for m in room.MISTAKES}
    assert len(names) >= 45
    for kind, n in least.items():
        assert sum(k == kind for k, _ in names) >= n, kind
