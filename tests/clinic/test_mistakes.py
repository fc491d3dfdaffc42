"""Every mistake of the museum is named by the clinic, wherever it can be made; and what is right is right."""

import pytest

from refscore.clinic.diagnosis import RIGHT
from refscore.museum.mistake import fits, plant
from tests.oracles.planted import ROOMS

SPECIMENS = [(kind, specimen) for kind, (room, _) in ROOMS.items() for specimen in room.SPECIMENS]
PLANTED = [(kind, m, s) for kind, s in SPECIMENS for m in ROOMS[kind][0].MISTAKES if fits(m, s)]


@pytest.mark.parametrize(("kind", "specimen"), SPECIMENS, ids=[f"{kind}-{s.__name__}" for kind, s in SPECIMENS])
def test_the_right_ones_are_right(kind, specimen):
    found = ROOMS[kind][1](specimen)
    found.assert_is()
    assert found.verdict == RIGHT
    assert not found.causes
    assert '"status": 0' in found.json()


@pytest.mark.parametrize(
    ("kind", "mistake", "specimen"),
    [pytest.param(*planted, marks=[pytest.mark.slow] * (i % 4 > 0)) for i, planted in enumerate(PLANTED)],
    ids=[f"{kind}-{m.name}-in-{s.__name__}" for kind, m, s in PLANTED],
)
def test_each_mistake_is_named(kind, mistake, specimen):
    found = ROOMS[kind][1](plant(mistake, specimen))
    assert found.verdict == "wrong", f"{found}"
    assert mistake.name in [cause.name for cause in found.causes[:3]], f"{found}"
    assert '"status": 1' in found.json()
