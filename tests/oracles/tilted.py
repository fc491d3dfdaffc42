"""The tilted mixture at one level of noise, and quadrature under it."""

from functools import cache
from typing import Any

import numpy as np

from refscore import VE
from refscore.laws.examples import mixture
from refscore.laws.expectation import quadrature_grid
from refscore.matching.times import FixedTime

CLEAN, SDE, SIGMA, DATA_STD = mixture("tilted"), VE(0.01, 10.0), 0.5, 1.55
T = float(SDE.time(SIGMA))
LAW = CLEAN.diffuse(1.0, SIGMA)
FIXED = FixedTime(T)


class Narrow:
    """float32 samples."""

    def sample(self, rng: Any, n: int) -> Any:
        return np.asarray(CLEAN.sample(rng, n), "float32")


@cache
def truth() -> tuple[Any, Any, Any, Any]:
    """Nodes of a trapezoid rule, their weights under p, and p's log density and score there."""
    grid = quadrature_grid(LAW)
    assert grid is not None  # in two dimensions there is one
    nodes, cell = grid
    log_p = LAW.log_prob(nodes)
    return nodes, cell * np.exp(log_p), log_p, LAW.score(nodes)
