"""The clinic says what a likelihood computes."""

import numpy as np
import pytest

from refscore import VP
from refscore.clinic.likelihood import likelihood
from refscore.laws.mixture import GaussianMixture
from refscore.museum.likelihoods import MISTAKES, SPECIMENS
from refscore.museum.mistake import fits, plant
from refscore.noise.sde import LinearVE

P = GaussianMixture(np.array([0.7, 0.3]), np.array([[-2.0, 0.5], [1.5, 1.5]]), np.array([0.5, 0.1]))
USED = {
    "flow_vp": (VP(), "noise", "time", "nats"), "hutchinson_sigma": (LinearVE(80.0), "denoiser", "sigma", "nats"),
    "flow_bits": (VP(), "noise", "time", "bits"),
}  # fmt: skip


def asked(specimen):
    sde, predicts, told, units = USED[specimen.__name__]
    return likelihood(specimen(sde), P, sde, predicts=predicts, told=told, units=units)


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
