"""Observed orders, and the grids they are observed on."""

from typing import Any

import numpy as np


def slopes(errors: Any) -> np.ndarray:
    """-log₂ of the ratio of each error to the one before, for N that double."""
    return -np.diff(np.log2(np.abs(np.asarray(errors))), axis=0)


def up(N: int, end: float = 1.0) -> list[float]:
    return np.linspace(0, end, N + 1).tolist()
