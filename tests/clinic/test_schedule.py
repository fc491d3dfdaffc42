"""The clinic names schedules, and what was done to them."""

import pytest

from refscore.clinic.schedule import schedule
from refscore.museum.mistake import fits, plant
from refscore.museum.schedules import MISTAKES, SPECIMENS


def ask(specimen):
    kind = specimen.__name__.split("_", 1)[1] if not specimen.__name__.endswith("alphas_bar") else "alphas_bar"
    kind = "betas" if specimen.__name__.endswith("betas") else kind
    return {kind if kind in ("betas", "alphas_bar") else "sigmas": specimen()}


@pytest.mark.parametrize("specimen", SPECIMENS, ids=lambda s: s.__name__)
def test_right(specimen):
    d = schedule(**ask(specimen))
    print(d)
    assert d.verdict == "right"


PLANTED = [(m, s) for m in MISTAKES for s in SPECIMENS if fits(m, s)]


@pytest.mark.parametrize(("m", "s"), PLANTED, ids=lambda s: getattr(s, "name", None) or s.__name__)
def test_wrong(m, s):
    d = schedule(**ask(plant(m, s)))
    print(d)
    assert d.verdict == "wrong"
    assert m.name in [c.name for c in d.causes[:3]]


def test_all():
    for m in MISTAKES:
        assert any(fits(m, s) for s in SPECIMENS), m.name
