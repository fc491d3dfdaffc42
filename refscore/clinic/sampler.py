"""Which sampler is this, and what is wrong with it?  Anybody's sampling loop beside the museum's. Chapter 17."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from refscore.clinic.arrays import LIBRARIES
from refscore.clinic.behaviour import LINEAR, adaptive, behaviours
from refscore.clinic.candidates import CALLS, TITLES, Candidate, Patient, elsewhere, ends, samplers_by_name, search
from refscore.clinic.coefficients import by_coefficients, steps_of, wanted_of
from refscore.clinic.convention import TOLD, Convention, index_grid, spacing
from refscore.clinic.diagnosis import RIGHT, UNKNOWN, WRONG, Cause, Diagnosis, near
from refscore.clinic.table import SEEN, Ill, Table, read
from refscore.museum.readings import READINGS

EXACT, SINGLE = 1e-9, 1e-4  # relative distance of what is the same, in double; with coefficients in single
NEAR = 1e-3  # of a known mistake
CAUTION = "clips-the-data"  # right for data in [-1, 1], which a sampler cannot know


def sampler(
    run: Callable[[Any, Any, Any], Any],
    *,
    predicts: str = "noise",
    told: str = "index",
    betas: Sequence[float] | None = None,
    alphas_bar: Sequence[float] | None = None,
    sigmas: Sequence[float] | None = None,
    sde: Any = None,
    start_std: float | None = None,
    library: str = "numpy",
    device: Any = None,
    dims: int = 2,
    bounded: bool = False,
    finer: dict[int, Callable[[Any, Any, Any], Any]] | None = None,
) -> Diagnosis:
    """Say which sampler a loop is, on which grid, and what is wrong with it.

    The loop is run half a dozen times on prepared numbers: unit vectors for the start, for each answer of the network
    and for each draw of noise. So its coefficients are read exactly, step by step, whatever the network; and compared
    with those of known samplers, right and with one known mistake, on the levels that the network was told.

    Parameters
    ----------
    run : callable (model, x, rng) -> x
        The patient: walks x (B, dims) from noise to data, asking model(x, label), which answers in the patient's own
        convention. Noise comes from rng (a Generator of NumPy; for torch one of torch's that has NumPy's methods as
        well; a key of JAX is made from its `integers`) or from the library's own functions, which are replaced while
        it runs.
    predicts : str, default "noise"
        What the network predicts, see `Convention`.
    told : str, default "index"
        What its second argument means, see `TOLD`.
    betas, alphas_bar, sigmas : sequence of floats, optional
        The schedule that the network was trained on, from data to noise: one of them.
    sde : SDE, or callable t -> (α, σ), optional
        Instead of a list, for a network that is told a time.
    start_std : float, optional
        Deviation of the x that the patient is started with; by default that of the first level.
    library : str, default "numpy"
        Whose arrays the patient takes: "numpy", "torch", "jax" or "cupy".
    device : object, optional
        The torch device of x.
    dims : int, default 2
        Length of the rows of x.
    bounded : bool, default False
        Whether the data lie in [-1, 1], so that clipping the predicted data is right.
    finer : dict of int to callable, optional
        The same patient with other numbers of steps, by that number: its order is measured from two and more.

    Returns
    -------
    Diagnosis
        Verdict, the sampler's name and options, its grid, causes with their effects, and what was measured.

    Raises
    ------
    ValueError
        For a convention that is not known, or without the schedule it needs.
    TypeError
        For a patient that cannot be called.

    Examples
    --------
    >>> import numpy as np
    >>> from refscore.clinic import sampler
    >>> betas = np.linspace(1e-4, 0.02, 100)
    >>> bar = np.cumprod(1 - betas)
    >>> def mine(model, x, rng):
    ...     for i in range(99, -1, -1):
    ...         x = (x - betas[i] / np.sqrt(1 - bar[i]) * model(x, i)) / np.sqrt(1 - betas[i])
    ...         if i > 0:
    ...             x = x + betas[i] * rng.standard_normal(x.shape)  # and not its root
    ...     return x
    >>> found = sampler(mine, betas=betas)
    >>> found.verdict, found.name, found.causes[0].name
    ('wrong', 'ddpm-large', 'root-forgotten')
    """
    if not callable(run):
        raise TypeError(f"the patient must be callable as run(model, x, rng), got {type(run).__name__}")
    if library not in LIBRARIES:
        raise ValueError(f"library must be one of {', '.join(LIBRARIES)}; got {library!r}")
    way = Convention(predicts, told, betas, alphas_bar, sigmas, sde)
    assumed = [f"the network predicts {predicts} and is told {told}: {TOLD[told]}"]
    with np.errstate(all="ignore"):  # of a wrong patient anything may come; what is not finite is looked at
        try:
            table = read(run, way, dims, library, device)
        except Ill as ill:
            name, says = ill.args
            if name == "adaptive":
                return adaptive(run, way, says, start_std, dims, library, device, assumed)
            return Diagnosis("sampler", WRONG, "", (says,), (Cause(name, says),), assumed=tuple(assumed))
        found = _diagnosed(table, way, start_std, bounded, assumed)
        order = (_order(finer, way, library, device, found.numbers.get("end", (1.0, 0.0))),) if finer else ()
    return replace(found, findings=found.findings + order)


def _diagnosed(table: Table, way: Convention, start_std: float | None, bounded: bool, assumed: list[str]) -> Diagnosis:
    """What a table is, beside the museum's."""
    levels = [way.level(label) for label in table.labels]
    if levels[0].ratio < levels[-1].ratio:  # no candidate does
        seen = list(behaviours(table, way, levels, 1.0, bounded))
        return Diagnosis("sampler", WRONG, "", (seen[-1].says,), tuple(seen), assumed=tuple(assumed))
    patient = Patient(table, way, levels, ends(way, table.labels, levels))
    found = sorted(search(patient), key=lambda c: c.rank)
    if found[0].error > SINGLE:
        found = sorted([*found, *elsewhere(patient)], key=lambda c: c.rank)
    right, wrong = [c for c in found if c.mistake is None], _distinct(found)
    nearest = next(c for c in sorted(right, key=lambda c: c.rank[1:]) if c.error <= 3 * right[0].error + EXACT / 10)
    if start_std is None:
        start_std = levels[0].sigma / max(abs(float(table.states[0, 0])), 1e-300)
        assumed.append(f"x starts with deviation {start_std:.4g}, as the first level has it")
    seen = [*behaviours(table, way, levels, start_std, bounded), *_left_over(patient, nearest)]
    inside = [c for c in wrong if c.error <= SINGLE and not patient.last(c).time < 0]
    beyond = patient.last(nearest).time < 0 and inside  # coefficients of straight paths are the same on both sides of 0
    is_right = not beyond and nearest.error <= (EXACT if wrong and wrong[0].error < nearest.error / 8 else SINGLE)
    best = nearest if is_right or not wrong or nearest.error <= wrong[0].error else wrong[0]
    numbers, effect = _effect(patient, nearest, best if best.mistake else None, start_std)
    causes: list[Cause] = []
    if is_right:
        faults = [cause for cause in seen if cause.name != CAUTION]
        verdict, causes = (WRONG if faults else RIGHT), seen
    elif best.mistake is not None and best.error <= NEAR:
        verdict = WRONG
        causes = [_cause(c) for c in wrong if c.error <= max(30 * best.error, EXACT)][:5] + seen
    elif seen:
        verdict, causes = WRONG, seen
    else:
        read_off = _by_coefficients(patient, sorted(right, key=lambda c: c.error))
        alone = len(read_off) == 1 and read_off[0].name != "last-step"  # which may be a choice
        verdict = WRONG if alone and not _chosen_variance(patient, read_off[0]) else UNKNOWN
        listed = [_cause(c) for c in wrong[:3] if not alone or c.error < nearest.error]
        causes = read_off + listed if alone else listed + read_off
    if causes:
        causes[0] = replace(causes[0], effect=effect)
    name = best.name if best.error <= SINGLE else f"nearest: {best.name}"
    also = tuple(c.name for c in right if is_right and c.error <= SINGLE and c.name != best.name)
    said = tuple(_findings(patient, best, effect))
    return Diagnosis("sampler", verdict, name, said, tuple(causes), numbers, tuple(assumed), also)


def _left_over(patient: Patient, nearest: Candidate) -> Iterator[Cause]:
    """The noise that is left where the indices of a chain run out before the data."""
    way, end = patient.way, patient.last(nearest)
    if way.told.startswith("index") and way.sigmas is None and nearest.error <= SINGLE and end.sigma > 0:
        says = f"the last step ends at σ/α = {end.ratio:.4g}, not at the data: its noise remains"
        yield Cause("ends-before-the-data", says)


def _cause(candidate: Candidate) -> Cause:
    mistake = candidate.mistake
    assert mistake is not None
    return Cause(mistake.name, f"{mistake.says}, in {candidate.name}", candidate.error)


def _distinct(found: list[Candidate]) -> list[Candidate]:
    """The best of each mistake."""
    seen: dict[str, Candidate] = {}
    for candidate in found:
        if candidate.mistake is not None and math.isfinite(candidate.error):
            seen.setdefault(candidate.mistake.name, candidate)
    return list(seen.values())


def _by_coefficients(patient: Patient, right: Sequence[Candidate]) -> list[Cause]:
    """What differs, coefficient by coefficient, from the right sampler of one call a step that has most in common."""
    found, best, least = steps_of(patient.table), list[Cause](), (0, 0.0)
    if found is None:
        return best
    for candidate in right[:6]:
        if candidate.family in CALLS or candidate.other is not None:
            continue
        specimen = partial(samplers_by_name()[candidate.family], **dict(candidate.options))
        try:
            pairs = patient.steps(candidate)
            wanted = wanted_of(specimen, READINGS[patient.way.predicts], pairs)
        except (ValueError, ZeroDivisionError, OverflowError):
            continue
        off, differ = by_coefficients(found, wanted, pairs, candidate.name)
        if differ and (not best or (len(differ), off) < least):
            best, least = differ, (len(differ), off)
    return best


def _chosen_variance(patient: Patient, cause: Cause) -> bool:
    """Whether the noise lies between the posterior's variance and the forward step's: then it may be meant."""
    if cause.name != "noise-coefficient":
        return False
    for k, (t, s) in enumerate(pairwise(patient.levels)):
        large = t.sigma**2 - (t.alpha / s.alpha) ** 2 * s.sigma**2
        c = patient.noise(k + 1) or 0.0
        if not 0.999 * large * (s.sigma / t.sigma) ** 2 <= c**2 <= 1.001 * large:
            return False
    return True


def _effect(patient: Patient, nearest: Candidate, wrong: Candidate | None, start: float) -> tuple[dict[str, Any], str]:
    """Mean and variance of what it makes of N(1, ¼), exactly, in numbers and in words; beside what it would make."""
    mean, variance = 1.0, 0.25
    try:
        m, v = patient.table.law(patient.way, mean, variance, start)
    except (ZeroDivisionError, OverflowError):
        return {}, ""
    table = patient.table
    numbers = {
        "calls": table.calls, "draws": table.draws, "fresh noises": len(table.fresh), "labels": table.labels,
        "error of the nearest right sampler": nearest.error, "mean on N(1, 1/4)": m, "variance on N(1, 1/4)": v,
        "start": float(table.states[0, 0]), "start std": start, "end": list(patient.last(nearest)[:2]),
    }  # fmt: skip
    numbers |= {name: seen for name, seen in table.facts.items() if isinstance(seen, float)}
    said = f"with the exact network of N(1, ¼) it makes mean {m:.4g} and variance {v / variance:.4g} of the truth"
    if wrong is not None and wrong.error <= NEAR:
        with suppress(ValueError, ZeroDivisionError, OverflowError):
            m, v = patient.law_without(wrong, mean, variance, start)
            said += f"; right it would be {m:.4g} and {v / variance:.4g}"
    return numbers, said


def _findings(patient: Patient, best: Candidate, effect: str) -> Iterator[str]:
    table, way = patient.table, patient.way
    labels = table.labels[0 :: CALLS.get(best.family, 1)]
    levels = [way.level(label) for label in labels]
    title = "DDIM" if best.family == "ddim" and best.options else TITLES[best.family]
    title += "".join(f", {k} {v:.6g}" if isinstance(v, float) else f", {k} {v}" for k, v in best.options)
    if best.other is not None and best.other.right:
        title += f" ({best.other.says})"
    what = f"{title}, with one mistake" if best.mistake else title
    if best.error <= SINGLE:
        yield f"{what}: its coefficients agree {near(best.error)}"
    else:
        yield f"no known sampler; nearest is {title}, off by {best.error:.2g}"
    place = spacing(levels, labels)
    if way.told in ("index", "index-from-1"):
        place = index_grid([i - (way.told == "index-from-1") for i in labels], len(way.levels)) or place
    ratios = f"σ/α from {levels[0].ratio:.4g} to {levels[-1].ratio:.4g}"
    last = patient.last(best)
    end = "data" if last.sigma == 0 else f"σ/α = {last.ratio:.4g}"
    yield f"grid: {len(labels)} levels, {place}, {ratios}, then {end}"
    drawn = f"{table.draws} random arrays are drawn, {len(table.fresh)} of them matter"
    yield f"{table.calls} calls of the network; {drawn if table.draws else 'no noise'}"
    if table.facts["clips"] > LINEAR >= table.facts["not linear"]:
        yield "it clips or thresholds: linear where numbers are small, not where they are of size 1"
    if 1e-9 < table.facts["not linear"] <= LINEAR or EXACT < best.error <= SINGLE:
        yield "single precision inside (or coefficients that were)"
    if table.offset:
        yield f"it adds {table.offset:.4g} at the end, as (x + 1)/2 does"
    if effect and best.error <= SINGLE and best.mistake is None:
        yield effect


def _order(finer: dict[int, Any], way: Convention, library: str, device: Any, end: Sequence[float]) -> str:
    """The observed order: slope of the error of the deviation on N(1, ¼) over the number of steps.

    From the marginal at the first level to that at the last, so that nothing but steps errs.
    """
    points, true = [], math.sqrt(end[0] ** 2 * 0.25 + end[1] ** 2)
    for n, run in sorted(finer.items()):
        try:
            table = read(run, way, 2, library, device)
        except Ill as ill:
            return f"no order: with {n} steps {ill.args[1]}"
        top = way.level(table.labels[0])
        spread = math.sqrt(top.alpha**2 * 0.25 + top.sigma**2)
        _, v = table.law(way, 1.0, 0.25, spread / abs(float(table.states[0, 0])))
        points.append((math.log(n), math.log(max(abs(math.sqrt(v) / true - 1), SEEN))))
    x, y = zip(*points, strict=True)
    return f"order {-np.polyfit(x, y, 1)[0]:.2f} of the deviation on N(1, ¼), from {len(x)} numbers of steps"
