"""The clinic says which derivative is wrong, and by what."""

import numpy as np
import pytest

from refscore.clinic.derivatives import derivatives
from refscore.museum.layers import MISTAKES, SPECIMENS, sizes
from refscore.museum.mistake import fits, plant
from refscore.nn import Dense


@pytest.mark.parametrize("specimen", SPECIMENS, ids=lambda s: s.__name__)
def test_right(specimen):
    d = derivatives(specimen(), at=sizes(specimen))
    print(d)
    assert d.verdict == "right"


PLANTED = [(m, s) for m in MISTAKES for s in SPECIMENS if fits(m, s)]


@pytest.mark.parametrize(("m", "s"), PLANTED, ids=lambda s: getattr(s, "name", None) or s.__name__)
def test_wrong(m, s):
    d = derivatives(plant(m, s)(), at=sizes(s))
    print(d)
    assert d.verdict == "wrong"
    assert m.name in [c.name for c in d.causes[:3]]


def test_all():
    for m in MISTAKES:
        assert any(fits(m, s) for s in SPECIMENS), m.name


def test_ours():
    d = derivatives(Dense(3, 2), np.random.default_rng(0).standard_normal((4, 3)))
    print(d)
    assert d.verdict == "right"

    class Bad(Dense):
        def jvp_backward(self, params, x, tape, dy, dydot):
            a, b, g = super().jvp_backward(params, x, tape, dy, dydot)
            return a, tuple(2 * k for k in b), g

    d = derivatives(Bad(3, 2), np.random.default_rng(0).standard_normal((4, 3)))
    print(d)
    assert d.verdict == "wrong"
