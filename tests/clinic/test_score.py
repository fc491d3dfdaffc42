"""The clinic says of a function whether it is the score, and what it is otherwise."""

import numpy as np
import pytest

from refscore import VP
from refscore.clinic.exact import Convention
from refscore.clinic.score import score
from refscore.laws.mixture import GaussianMixture
from refscore.museum.mistake import fits, plant
from refscore.museum.scores import MISTAKES, SPECIMENS
from refscore.noise.chains import ddpm
from refscore.noise.sde import LinearVE

P = GaussianMixture(
    np.array([0.5, 0.3, 0.2]),
    np.array([[-2.0, 0.5], [1.5, 1.5], [0.5, -2.0]]),
    np.array([[0.5, 0.1], [0.3, 0.05], [0.2, 0.2]]),
)
USED = {  # SDE, what its network predicts and is told, what the score is told
    "of_mixture": (VP(), None, None, "time"), "from_noise": (ddpm(1000), "noise", "index", "time"),
    "from_denoiser": (LinearVE(80.0), "denoiser", "sigma", "sigma"), "from_v": (VP(), "v", "time", "time"),
}  # fmt: skip


def asked(specimen):
    sde, predicts, told, label = USED[specimen.__name__]
    network = None
    if predicts:
        way = Convention(sde, predicts, told)
        network = lambda x, c: way.exact(P, x, way.time(c))
    return score(specimen(P, sde, network), P, sde, told=label)


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
