"""What can be wrong with any sampler, known or not: what it does beside its coefficients. Chapter 17."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from refscore.clinic.convention import TOLD, Convention
from refscore.clinic.diagnosis import RIGHT, UNKNOWN, WRONG, Cause, Diagnosis
from refscore.clinic.patient import ACTIVE, walk
from refscore.clinic.table import Table
from refscore.museum.samplers import Level

LINEAR = 1e-4  # relative: more is not rounding, not even single precision's


def behaviours(table: Table, way: Convention, levels: list[Level], start_std: float, bounded: bool) -> Iterator[Cause]:
    """Say what is wrong with a sampler, known or not, beside its coefficients.

    Parameters
    ----------
    table : Table
        What was seen.
    way : Convention
        How its network is told.
    levels : list of Level
        Those of its calls.
    start_std : float
        Deviation of its start.
    bounded : bool
        Whether the data lie in [-1, 1].

    Yields
    ------
    Cause
        One a finding.
    """
    facts = table.facts
    if facts["unseen noise"] > 0 and facts["not linear"] > LINEAR:
        yield Cause("unseen-noise", "it draws random numbers that the clinic cannot replace: take them from rng")
    if facts["rows"] > LINEAR:
        yield Cause("rows-influence-each-other", "a sample depends on the others of its batch: a norm or a mean over "
                    "the batch, or one step size for all")  # fmt: skip
    if facts["shared noise"]:
        yield Cause("one-noise-for-all", "noise is drawn without the batch axis: all samples get the same")
    if facts["uniform"]:
        yield Cause("uniform-noise", f"{facts['uniform']} of the draws are uniform numbers, not normal ones")
    if facts["not linear"] > LINEAR and not facts["unseen noise"] > 0:
        yield Cause("looks-at-x", "it is not linear in x and the network's answers, even where they are small: a step "
                    "size by norms, or rescaling")  # fmt: skip
    if facts["clips"] > LINEAR >= facts["not linear"] and not bounded and facts["rows"] <= LINEAR:
        yield Cause("clips-the-data", "it clips or thresholds the predicted data: right only if the data lie in "
                    "[-1, 1] (then say bounded=True)")  # fmt: skip
    if table.repeated and len(table.fresh) < table.calls // 2:
        yield Cause("same-noise", "a generator is put back to the same state: the same noise in every step")
    if facts["labels differ"]:
        yield Cause("labels-differ", "the rows of a batch are told different levels, though all are at one")
    if beyond := [label for label in table.labels if not way.knows(label)]:
        yield Cause("label-beyond-the-schedule", f"the network is told {beyond[0]:.6g}, where it knows {TOLD[way.told]}"
                    f"{f' (N = {len(way.levels)})' if way.levels else ''}")  # fmt: skip
    if levels[0].ratio < levels[-1].ratio:
        yield Cause("walks-backwards", "the first call is told less noise than the last: from data to noise")
        return
    top, first = way.levels[-1] if way.levels else levels[0], levels[0]
    if first.alpha > max(3 * top.alpha, 0.1) and first.ratio < top.ratio / 3 and top.ratio < math.inf:
        yield Cause("starts-too-low", f"the first level is σ/α = {first.ratio:.4g} where the schedule goes up to "
                    f"{top.ratio:.4g}: pure noise is not its law")  # fmt: skip
    stands = abs(float(table.states[0, 0])) * start_std
    if not (first.alpha and first.sigma and stands):
        return
    if stands < 0.9 * first.sigma or stands > 1.2 * math.hypot(first.sigma, first.alpha):
        if 0.9 < stands / first.ratio < 1.1:
            yield Cause("input-not-scaled", "the network is given x₀ + (σ/α) z where it expects α x₀ + σ z: multiply "
                        "its input by α (scale_model_input)")  # fmt: skip
        else:
            yield Cause("start-scale", f"at the first call x has deviation {stands:.4g}, where the level it is told "
                        f"has σ = {first.sigma:.4g}")  # fmt: skip


def adaptive(
    run: Any,
    way: Convention,
    says: str,
    start_std: float | None,
    dims: int,
    library: str,
    device: Any,
    assumed: list[str],
) -> Diagnosis:
    """Diagnose a solver with steps of its own choice by what it makes of N(1, ¼) with the exact network.

    Parameters
    ----------
    run : callable
        The patient.
    way : Convention
        How its network is told.
    says : str
        How it was found to be adaptive.
    start_std : float or None
        Deviation of its start; None is 1.
    dims : int
        Length of the rows of x.
    library : str
        Whose arrays it takes.
    device : object
        Of torch.
    assumed : list of str
        What was taken for granted.

    Returns
    -------
    Diagnosis
        Right where it is deterministic and the law is within 2 percent; else unknown.
    """
    labels, draws, scale = list[float](), 0, 1.0 if start_std is None else start_std
    x = scale * np.repeat(np.array([[0.0], [1.0], [-1.0]]), dims, axis=1)

    def answer(k: int, x: Any) -> Any:
        labels.append(float(ACTIVE[-1].labels[-1][0]))
        level = way.level(labels[-1])
        p, q = way.answer(level, 1.0, 0.25)
        return p * way.scale(level) * x + q

    def noise(j: int, shape: tuple[int, ...]) -> Any:
        nonlocal draws
        draws += 1
        return np.zeros(shape)

    try:
        end = np.asarray(walk(run, x, answer, noise, library, device).end)
    except Exception as error:
        return Diagnosis("sampler", WRONG, "", (f"it raises {type(error).__name__}: {error}",), assumed=tuple(assumed))
    mean, deviation = float(end[0, 0]), float(end[1, 0] - end[2, 0]) / 2
    off = max(abs(mean - 1), abs(deviation / 0.5 - 1))
    right = not draws and off < 0.02
    found = (
        f"with the exact network of N(1, ¼) it makes mean {mean:.5g} and deviation {deviation / 0.5:.5g} of the truth"
    )
    verdict, name = (RIGHT, "probability flow, adaptive") if right else (UNKNOWN, "adaptive")
    numbers = {"mean": mean, "deviation": deviation, "calls": len(labels)}
    return Diagnosis("sampler", verdict, name, (says, found), (), numbers, tuple(assumed))
