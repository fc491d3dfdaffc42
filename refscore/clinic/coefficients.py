"""What no exhibit explains: the coefficients of each step beside those of the nearest right sampler."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from refscore.clinic.arrays import HostArray
from refscore.clinic.diagnosis import Cause
from refscore.clinic.table import Table
from refscore.museum.samplers import Level

SAME = 1e-3  # relative
NAMES = ("x-coefficient", "answer-coefficient", "noise-coefficient")
PARTS = ("x", "the network's answer", "the noise")
CONSTANTS = ((0.0, "0"), (0.5, "½"), (2.0, "2"), (2**0.5, "√2"), (2**-0.5, "1/√2"), (-1.0, "-1"), (1 / 3, "1/3"),
             (4.0, "4"))  # fmt: skip


def steps_of(table: Table) -> HostArray | None:
    """Return the coefficients of x, of the network's answer and of fresh noise in each step.

    Parameters
    ----------
    table : Table
        What a sampler does.

    Returns
    -------
    array, shape (K, 3), or None
        None for a sampler with a memory.
    """
    rows, k = table.states, table.calls
    found = []
    for i in range(k):
        here, there = rows[i], rows[i + 1]
        fresh = [1 + k + j for j, state in enumerate(table.fresh) if state == i + 1]
        mask = np.ones(len(here), dtype=bool)
        mask[[1 + i, *fresh]] = False
        a = float(here[mask] @ there[mask] / max(float(here[mask] @ here[mask]), 1e-300))
        rest = there - a * here
        if np.abs(rest[mask]).max() > SAME * np.abs(there).max():
            return None
        found.append((a, float(rest[1 + i]), float(rest[fresh[0]]) if fresh else 0.0))
    return np.array(found)


def wanted_of(walk: Callable[..., Any], reading: Any, pairs: Sequence[tuple[Level, Level]]) -> HostArray:
    """Return the same of a right sampler of one call a step.

    Parameters
    ----------
    walk : callable
        Of the museum.
    reading : callable
        What the network predicts.
    pairs : sequence of pairs of Level
        Its steps.

    Returns
    -------
    array, shape (K, 3)
        A row a step.
    """
    rows = []
    for pair in pairs:
        parts = []
        for x, out, z in ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)):
            model = lambda y, t, out=out: reading(out, y, t)  # noqa: E731
            parts.append(float(walk(model, x, [pair], lambda z=z: z)))
        rows.append(parts)
    return np.array(rows)


def by_coefficients(
    found: HostArray, wanted: HostArray, pairs: Sequence[tuple[Level, Level]], name: str
) -> tuple[float, list[Cause]]:
    """Say where the coefficients differ, and by what factor.

    Parameters
    ----------
    found, wanted : array, shape (K, 3)
        Those of the patient, and of a right sampler.
    pairs : sequence of pairs of Level
        Its steps.
    name : str
        Its name.

    Returns
    -------
    float
        The largest difference, relative.
    list of Cause
        One a coefficient that differs; none where the two cannot be compared.
    """
    if found.shape != wanted.shape:
        return math.inf, []
    inner = slice(0, len(pairs) - 1) if len(pairs) > 2 else slice(None)
    off = np.abs(found - wanted)[inner] / np.maximum(np.abs(wanted[inner]), 1e-12)
    wrong = [i for i in range(3) if np.nanmax(off[:, i]) > SAME and np.abs(wanted[inner, i]).max() > 0]
    many = f"; {len(wrong)} of the three coefficients differ" if len(wrong) > 1 else ""
    causes = []
    for i in wrong:
        ratio = found[inner, i] / np.where(wanted[inner, i] == 0, np.nan, wanted[inner, i])
        factor = _factor(ratio, wanted[inner, i], pairs[inner])
        causes.append(Cause(NAMES[i], f"the coefficient of {PARTS[i]} is {factor} what {name} has there{many}"))
    last = np.abs(found[-1] - wanted[-1])
    if not wrong and len(pairs) > 2 and last.max() > SAME:
        i = int(last.argmax())
        says = f"only the last step differs, in the coefficient of {PARTS[i]}: {found[-1, i]:.4g} instead of "
        return float(last[i]), [Cause("last-step", f"{says}{wanted[-1, i]:.4g}")]
    return max((float(np.nanmax(off[:, i])) for i in wrong), default=0.0), causes


def _factor(ratio: HostArray, own: HostArray, pairs: Sequence[tuple[Level, Level]]) -> str:
    """A factor in words: a constant, or a power of something of the levels."""
    ratio = ratio[np.isfinite(ratio)]
    if not len(ratio):
        return "not"
    if np.ptp(ratio) < SAME * max(abs(float(ratio.mean())), SAME):
        for value, word in CONSTANTS:
            if math.isclose(float(ratio.mean()), value, rel_tol=SAME, abs_tol=SAME):
                return f"{word} times"
        return f"{ratio.mean():.4g} times"
    sign = "minus " if (ratio < 0).all() else ""
    t, s = (np.array([[level.alpha, level.sigma] for level in levels]).T for levels in zip(*pairs, strict=True))
    with np.errstate(all="ignore"):
        known = {"itself": np.abs(own), "α_t": t[0], "σ_t": t[1], "α_s": s[0], "σ_s": s[1], "(α_t/α_s)": t[0] / s[0],
                 "(σ_s/σ_t)": s[1] / t[1], "β = 1 - (α_t/α_s)²": 1 - (t[0] / s[0]) ** 2}  # fmt: skip
        for word, q in known.items():
            for power, shown in ((1, ""), (-1, "^-1"), (2, "²"), (-2, "^-2"), (0.5, "^½"), (-0.5, "^-½")):
                if len(q) != len(ratio):
                    continue
                left = np.log(np.abs(ratio)) - power * np.log(q)
                if np.isfinite(left).all() and np.ptp(left) < 3 * SAME:
                    c = math.exp(left.mean())
                    return f"{sign}{'' if abs(c - 1) < SAME else f'{c:.4g} '}{word}{shown} times"
    return f"{sign}{np.abs(ratio).min():.3g} to {np.abs(ratio).max():.3g} times"
