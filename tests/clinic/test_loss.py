"""The clinic reads what a loss minimises from its answers."""

import pytest

from refscore import VP
from refscore.clinic.loss import loss
from refscore.museum.losses import MISTAKES, SPECIMENS, Straight
from refscore.museum.mistake import fits, plant
from refscore.noise.chains import ddpm, from_sigmas
from refscore.noise.grids import geometric_levels
from refscore.noise.sde import LinearVE

USED = {
    "ddpm_simple": (ddpm(1000), "noise", "index"), "score_vp": (VP(), "score", "time"),
    "ncsn": (from_sigmas(geometric_levels(1.0, 0.01, 10)), "score", "index"), "edm": (LinearVE(80.0), "denoiser", "sigma"),
    "v_prediction": (ddpm(1000), "v", "index"), "flow_matching": (Straight(), "velocity", "time"),
}  # fmt: skip


def asked(specimen):
    sde, predicts, told = USED[specimen.__name__]
    return loss(specimen(sde), sde, predicts=predicts, told=told)


@pytest.mark.parametrize("specimen", SPECIMENS, ids=lambda s: s.__name__)
def test_right(specimen):
    d = asked(specimen)
    print(d)
    assert d.verdict == "right"


PLANTED = [(m, s) for m in MISTAKES for s in SPECIMENS if fits(m, s)]


@pytest.mark.parametrize(("m", "s"), PLANTED, ids=lambda s: getattr(s, "name", None) or s.__name__)
def test_wrong(m, s):
    d = asked(plant(m, s))
    print(d)
    assert d.verdict == "wrong"
    assert m.name in [c.name for c in d.causes[:3]]


def test_all():
    for m in MISTAKES:
        assert any(fits(m, s) for s in SPECIMENS), m.name
