"""What the demo learns: an embedded mixture, or the points of a file."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from refscore.data.points import DataFileError, outliers, read_points, standardise
from refscore.laws.examples import MIXTURES, mixture
from refscore.laws.mixture import GaussianMixture
from refscore.noise.prior import prior_mismatch, prior_mismatch_bound
from refscore.protocols import SDE, Array
from refscore_backends import Backend


@dataclass(frozen=True)
class Problem:
    """What is to be learned: data in units the network likes, and the exact law where there is one.

    In data units x is centre + scale · x, column by column; a score there is s / scale, and a log density is the
    network's minus Σ log scale.
    """

    name: str
    data: Any  # float32 samples (N, 2), or a mixture that draws them
    held_out: Array | None  # points of a file that were not trained on
    exact: GaussianMixture | None
    std: float
    centre: Any = field(default_factory=lambda: np.zeros(2))
    scale: Any = field(default_factory=lambda: np.ones(2))
    said: tuple[str, ...] = ()  # what was read
    axes: tuple[str, ...] = ("$x_1$", "$x_2$")  # the names of the columns, as a figure writes them

    def in_data_units(self, x: Any) -> Any:
        """Points (N, 2) of the network, in NumPy, as the file would hold them."""
        return self.centre + self.scale * np.asarray(x, dtype="float64")


def load_problem(data: str, backend: Backend, seed: int) -> Problem:
    """An embedded mixture by name, or the points of a file, centred and scaled, a fifth held out."""
    if data in MIXTURES:
        exact = mixture(data, backend.asarray, "float64")
        parameters = mixture(data)
        second = parameters.means**2 + np.trace(_full(parameters), axis1=1, axis2=2)[:, None] / 2
        std = math.sqrt(float(parameters.weights @ second.mean(axis=1)))
        return Problem(data, mixture(data, backend.asarray, "float32"), None, exact, std)
    if not Path(data).suffix:
        raise ValueError(f"no data set called {data!r}; there are {', '.join(MIXTURES)}, or give a file")
    table = read_points(data)
    if len(table.points) < 20:
        raise DataFileError(f"{data} holds {len(table.points)} points; at least 20 are needed")
    unit, centre, scale = standardise(table)
    said = (f"read {data}: {table.said}", _units_in_words(table.columns, centre, scale), *outliers(table))
    unit = np.random.default_rng(seed).permutation(unit)
    cut = len(unit) // 5
    train, held_out = (backend.asarray(part, "float32") for part in (unit[cut:], unit[:cut]))
    named = table.columns != ["x1", "x2"]
    axes = tuple(name.replace("$", r"\$") for name in table.columns) if named else Problem.axes
    return Problem(data, train, held_out, None, 1.0, centre, scale, said, axes)


def _units_in_words(columns: Sequence[str], centre: Any, scale: Any) -> str:
    """How a file is standardised: by what each column is divided."""
    each = ", ".join(f"{name} = {c:.4g} ± {s:.4g}" for name, c, s in zip(columns, centre, scale, strict=True))
    return (
        f"each column in units of its own deviation: {each}; samples and pictures are in the file's units, "
        f"where log densities are the network's minus {np.sum(np.log(scale)):.4g}"
    )


def mismatch_in_words(problem: Problem, sde: SDE) -> str:
    """What sampling gets wrong by its start, before anything is trained."""
    if problem.exact is not None:
        return f"noise at t = 1 and the prior: KL = {prior_mismatch(problem.exact, sde).value:.2g} nats"
    return f"noise at t = 1 and the prior: KL <= {prior_mismatch_bound(sde, problem.data):.2g} nats"


def _full(m: GaussianMixture) -> Any:
    C = np.asarray(m.covariances)
    return C if C.ndim == 3 else C.reshape(len(C), -1, 1) * np.eye(2)
