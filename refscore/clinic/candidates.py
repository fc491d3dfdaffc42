"""Right samplers and planted mistakes, run beside a patient's table: which is the same? Chapter 17."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache, partial
from itertools import pairwise
from typing import Any

import numpy as np

from refscore.clinic.arrays import HostArray
from refscore.clinic.convention import DATA, SCALES, Convention
from refscore.clinic.table import Table
from refscore.museum import readings, samplers
from refscore.museum.mistake import Mistake, fits, plant
from refscore.museum.samplers import Level
from refscore.museum.schedules import KNOWN

SHORT, PREFIX, KEPT = 4, 10, 40  # calls of a short walk; those compared at first; candidates compared to the end
BLOWN_UP = 1e8  # of a state: a sampler that diverges
LAWS = ((0.0, 1.0), (1.0, 0.25), (-1.0, 0.04), (0.5, 4.0), (2.0, 1e-3), (0.0, 0.5))  # means and variances of data
PAIRED = ("heun", "heun-flow", "heun-velocity", "midpoint-velocity", "midpoint", "dpmpp-2s", "dpmpp-sde")  # two calls
CALLS = {**dict.fromkeys(PAIRED, 2), "rk4-velocity": 4}  # of the network, a step
TIMED = ("euler-maruyama", "euler-flow", "heun-flow", "euler-velocity", "heun-velocity", "midpoint-velocity",
         "rk4-velocity")  # fmt: skip
TITLES = {
    "ddim": "DDIM, eta 0 (also DPM-Solver++(1), and Euler in σ/α)",
    "ddpm": "DDPM with β̃, the posterior's variance (also DDIM with eta 1, ancestral Euler)",
    "ddpm-large": "DDPM with β, the forward step's variance (score_sde's ancestral sampler of VP)",
    "reverse-diffusion": "score_sde's reverse diffusion",
    "euler-beta": "Euler-Maruyama with the chain's β",
    "euler-maruyama": "Euler-Maruyama of the reverse SDE in t",
    "euler-flow": "Euler of the probability flow in t",
    "heun-flow": "Heun of the probability flow in t",
    "euler-velocity": "Euler of the flow by its velocity",
    "heun-velocity": "Heun of the flow by its velocity",
    "midpoint-velocity": "the midpoint method of the flow by its velocity",
    "rk4-velocity": "Runge-Kutta 4 of the flow by its velocity",
    "unipc": "UniPC",
    "euler-ancestral": "ancestral Euler (the same as DDPM with β̃)",
    "heun": "Heun in σ/α (EDM, Karras et al.)",
    "midpoint": "DPM-Solver-2, the geometric midpoint (k-diffusion's dpm_2)",
    "dpmpp-2m": "DPM-Solver++(2M)",
    "dpmpp-2m-sde": "SDE-DPM-Solver++(2M)",
    "dpmpp-2s": "DPM-Solver++(2S)",
    "dpmpp-sde": "DPM-Solver++ SDE (k-diffusion)",
    "plms": "Adams-Bashforth on the noise (PLMS, iPNDM)",
    "lms": "linear multistep in σ/α (LMS)",
    "renoise": "guess the data and noise them again (consistency sampling)",
    "langevin": "annealed Langevin",
    "euler-churn": "Euler in σ/α with churn",
}
ORDER = tuple(TITLES)  # of two that are the same on this grid, the first is named


@dataclass(frozen=True)
class Other:
    """Levels that the steps may use instead of those that the network is told.

    Parameters
    ----------
    name, says : str
        As of a mistake.
    level : callable
        From a label to the level that the steps use.
    right : bool, default False
        Whether that is no mistake.
    """

    name: str
    says: str
    level: Callable[[float], Level]
    right: bool = False


@dataclass(frozen=True)
class Candidate:
    """One sampler of the museum, with one mistake or none.

    Parameters
    ----------
    family : str
        Its name.
    options : tuple of pairs, default ()
        Name and value of its options.
    step, reading, grid : Mistake, optional
        What is wrong in its loop, in what it takes the network's answer for, in its levels: one of them.
    end : Level, default DATA
        Where its last step leads.
    error : float, default infinity
        How far it is from the patient, once that is known.
    other : Other, optional
        Levels of its own.
    """

    family: str
    options: tuple[tuple[str, Any], ...] = ()
    step: Mistake | None = None
    reading: Mistake | None = None
    grid: Mistake | None = None
    end: Level = DATA
    error: float = math.inf
    other: Other | None = None

    @property
    def mistake(self) -> Mistake | Other | None:
        """The one mistake."""
        other = None if self.other is None or self.other.right else self.other
        return self.step or self.reading or self.grid or other

    @property
    def rank(self) -> tuple[float, int, int]:
        """What comes first: the nearest; of those that are the same to rounding, the plainest."""
        return (self.error if self.error > 1e-7 else 0.0, len(self.options), ORDER.index(self.family))

    @property
    def name(self) -> str:
        """Name and options: "ddim, eta=0.5"."""
        options = [f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in self.options]
        return ", ".join([self.family, *options])


class Stop(Exception):
    """A candidate that asks more often than the patient."""


@dataclass
class Patient:
    """A table beside which candidates are run, with the exact networks of a few Gaussians: one a row.

    Parameters
    ----------
    table : Table
        What the patient does.
    way : Convention
        How its network is told, and what it predicts.
    levels, ends : list of Level
        The levels that the network was told, and where the last step may lead.

    Raises
    ------
    ValueError
        Where a candidate cannot walk these levels.
    """

    table: Table
    way: Convention
    levels: list[Level]
    ends: list[Level]
    states: HostArray = field(init=False)

    def __post_init__(self) -> None:
        table, calls = self.table, self.table.calls
        rng = np.random.default_rng(1)
        self.rows = rng.standard_normal((table.states.shape[1], len(LAWS), 1))
        self.rows[0] *= self.levels[0].sigma / max(abs(float(table.states[0, 0])), 1e-300)
        self.extra = rng.standard_normal((64, len(LAWS), 1))
        self.first = {state: j for j, state in enumerate(table.fresh)}  # one noise a state
        parts = [[self.way.answer(level, *law) for law in LAWS] for level in self.levels]
        self.answers = np.array(parts)[..., None]  # (K, laws, 2, 1): p and q of the exact network's p x + q
        self.states = np.empty((calls + 1, len(LAWS), 1))
        self._walk()
        if not np.abs(self.states).max() < BLOWN_UP:  # few digits would be left
            self.answers = np.stack(
                [np.zeros_like(self.answers[:, :, 0]), rng.standard_normal((calls, len(LAWS), 1))], axis=2
            )
            self._walk()

    def _walk(self) -> None:
        """Go where the networks of these laws lead the patient."""
        calls = self.table.calls
        for k in range(calls + 1):
            self.states[k] = np.tensordot(self.table.states[k], self.rows, axes=1)
            if k < calls:
                self.rows[1 + k] = self.answer(k, self.states[k])

    def answer(self, k: int, x: Any) -> Any:
        """What the exact networks, one a row, answer to x at the k-th call."""
        return self.answers[k, :, 0] * x + self.answers[k, :, 1]

    def steps(self, candidate: Candidate, stop: int | None = None) -> list[tuple[Level, Level]]:
        """The pairs of levels that the candidate walks, read from the labels; of the first calls alone, or of all."""
        stop = None if stop is None else stop + 3
        labels, levels = self.table.labels[:stop], self.levels[:stop]
        each = CALLS.get(candidate.family, 1)
        level = self.way.level if candidate.other is None else candidate.other.level
        told = candidate.grid is None and candidate.other is None
        if candidate.family == "heun" and told:  # churn: a step leads to the label of its second call
            here, there = levels[0::2], [*levels[1::2], candidate.end][: len(levels[0::2])]
            if all(s.ratio < t.ratio for t, s in zip(here, there, strict=True)):
                return list(zip(here, there, strict=True))
        labels = labels[0::each]
        make = edited(readings.grid, candidate.grid)
        pairs = make(labels, level, candidate.end, self.way.stride(self.table.labels))
        if candidate.family == "euler-churn":
            pairs = [(t, self._before(i + 1, s)) for i, (t, s) in enumerate(pairs)]
            lifts = [t.ratio / s.ratio for (_, s), (t, _) in pairwise(pairs) if s.ratio]
            lifts = [lift for lift in lifts if lift > 1 + 1e-9]
            if lifts and max(lifts) > min(lifts) * (1 + 1e-3):
                raise ValueError("churn lifts each level by the same factor")
        return pairs

    def last(self, candidate: Candidate) -> Level:
        """Where the candidate's last step leads: a method that asks there has told it."""
        return self.steps(candidate)[-1][1]

    def noise(self, state: int) -> float | None:
        """The coefficient of the noise that is seen first in a state."""
        j = self.first.get(state)
        return None if j is None else float(self.table.states[state, 1 + self.table.calls + j])

    def _before(self, state: int, level: Level) -> Level:
        """The level below which churn has lifted x, from the noise that is seen."""
        up = self.noise(state)
        if up is None or state == self.table.calls:
            return level
        ratio = math.sqrt(max(level.ratio**2 - (up / level.alpha) ** 2, 0.0))
        return Level(level.alpha, ratio * level.alpha) if level.alpha == 1 else samplers.between(level, level, ratio)

    def distance(self, candidate: Candidate, stop: int | None = None) -> float:
        """How far the candidate's states are from the patient's, relative, over the first `stop` or all."""
        specimen = edited(samplers_by_name()[candidate.family], candidate.step)
        reading = edited(readings.READINGS[self.way.predicts], candidate.reading)
        calls, told = self.table.calls, candidate.grid is None and candidate.other is None
        last = calls if stop is None else stop
        made: list[Any] = []
        used: set[int] = set()
        worst = 0.0

        def model(x: Any, t: Level) -> tuple[Any, Any]:
            nonlocal worst
            k = len(made)
            if k >= calls or (stop is not None and k > stop):
                raise Stop
            made.append(x)
            if told and not math.isclose(t.ratio, self.levels[k].ratio, rel_tol=1e-4):
                worst = max(worst, 0.1)
            return reading(self.answer(k, x), x, t)

        def normal() -> Any:
            k = len(made)
            if candidate.step is not None and candidate.step.name == "same-noise":
                k = next((state for state in self.table.fresh if state >= k), k)
            if k in self.first and k not in used:
                used.add(k)
                return self.rows[1 + calls + self.first[k]]
            return self.extra[k % 64]

        start = self.table.states[0, 0] * self.rows[0]
        end = None
        try:
            with np.errstate(all="ignore"):
                end = specimen(model, start, self.steps(candidate, stop), normal, **dict(candidate.options))
        except Stop:
            pass
        except (ValueError, ZeroDivisionError, OverflowError, TypeError, IndexError):  # it cannot walk these levels
            return math.inf
        for k in range(1, min(len(made), last + 1)):
            worst = max(worst, _off(made[k], self.states[k]))
        if stop is None:
            if len(made) != calls or end is None:
                return math.inf
            worst = max(worst, min(_off(end / a, self._end) for a in {1.0, candidate.end.alpha}))
        return worst if math.isfinite(worst) else math.inf

    def law_without(self, wrong: Candidate, mean: float, variance: float, start: float) -> tuple[float, float]:
        """What the candidate would make of N(mean, variance) without its mistake: mean and variance, exactly.

        From a start N(0, start²), on the levels that its steps begin at, of which the network is told.
        """
        reading, specimen = readings.READINGS[self.way.predicts], samplers_by_name()[wrong.family]
        pairs, first = self.steps(replace(wrong, other=None)), float(self.table.states[0, 0]) * start
        if wrong.grid is not None:
            pairs = list(pairwise([*(t for t, _ in pairs), wrong.end]))

        def run(rows: int) -> tuple[Any, int]:  # row 0: nothing; row 1: the start; a row for each draw
            draws, drawn, units = iter(range(2, rows)), list[int](), np.eye(rows)

            def model(x: Any, t: Level) -> tuple[Any, Any]:
                p, q = self.way.answer(t, mean, variance)
                return reading(p * x + q, x, t)

            def normal() -> Any:
                drawn.append(next(draws, 0))
                return units[drawn[-1]] if drawn[-1] else np.zeros(rows)

            return specimen(model, first * units[1], pairs, normal, **dict(wrong.options)), len(drawn)

        end, draws = run(2)
        end, _ = run(2 + draws)
        return float(end[0]), float(np.sum((end[1:] - end[0]) ** 2))

    @property
    def _end(self) -> Any:
        """The last state; images in [0, 1] are put back to [-1, 1]."""
        return self.states[-1] * (2.0 if math.isclose(self.table.offset, 0.5, abs_tol=1e-6) else 1.0)


def _off(a: Any, b: Any) -> float:
    off = float(np.abs(a - b).max() / max(float(np.abs(b).max()), 1e-300))
    return off if math.isfinite(off) else math.inf


@cache
def samplers_by_name() -> dict[str, Callable[..., Any]]:
    """Return the museum's samplers.

    Returns
    -------
    dict
        Name -> specimen.
    """
    return {specimen.__name__.replace("_", "-"): specimen for specimen in samplers.SPECIMENS}


@cache
def edited(specimen: Callable[..., Any], mistake: Mistake | None) -> Callable[..., Any]:
    """Return the specimen with the mistake, or as it is.

    Parameters
    ----------
    specimen : callable
        Of the museum.
    mistake : Mistake or None
        An edit that fits it.

    Returns
    -------
    callable
        As the specimen.
    """
    return specimen if mistake is None else plant(mistake, specimen)


@cache
def _fitting(specimen: Callable[..., Any], mistakes: tuple[Mistake, ...]) -> list[Mistake]:
    return [mistake for mistake in mistakes if fits(mistake, specimen)]


def ends(way: Convention, labels: list[float], levels: list[Level]) -> list[Level]:
    """Return where the last step may lead: data, the first level, one more step of the grid, the SDE's usual ends.

    Parameters
    ----------
    way : Convention
        Of the network.
    labels : list of floats
        What it was told.
    levels : list of Level
        What that means.

    Returns
    -------
    list of Level
        Data first.
    """
    ends = [DATA]
    steps = [label for i, label in enumerate(labels) if i == 0 or label != labels[i - 1]]
    further = []
    if len(steps) > 1:
        further.append(2 * steps[-1] - steps[-2])
        if way.told == "sigma" and steps[-2]:
            further.append(steps[-1] ** 2 / steps[-2])
    if way.told in ("index", "index-from-1", "index-over-n", "index-of-sigmas"):
        further.append(labels[-1] - way.stride(labels))
    elif way.told in SCALES:
        scale = SCALES[way.told]
        further += [1 - t if scale < 0 else scale * t for t in (1e-2, 1e-3, 1e-4, 1e-5)]
    for level in [*(way.level(label) for label in [*further, labels[-1]]), *way.levels[:1]]:
        if all(not math.isclose(level.ratio, e.ratio, rel_tol=1e-9) or level.time < e.time for e in ends):
            ends.append(level)
    return ends


def _families(patient: Patient) -> Iterator[Candidate]:
    """The right samplers that may be meant, with the options that the table tells."""
    timed, moving = (all(math.isfinite(getattr(level, rate)) for level in patient.levels[:-1]) for rate in ("g", "ds"))
    for name in samplers_by_name():
        if name not in TIMED or (moving if "velocity" in name else timed):
            yield Candidate(name)
    eta = _eta(patient)
    if eta is not None:
        for name in ("ddim", "midpoint", "dpmpp-2m-sde", "dpmpp-2s"):
            yield Candidate(name, (("eta", eta),))
    for name in ("midpoint", "dpmpp-2s"):
        if eta != 1:
            yield Candidate(name, (("eta", 1.0),))
    for name in ("reverse-diffusion", "euler-beta", *(["euler-maruyama"] if timed else [])):
        yield Candidate(name, (("denoise", True),))
    yield Candidate("dpmpp-2m", (("lower", True),))
    yield Candidate("dpmpp-2m-sde", (("kind", "heun"),))
    for order in (2, 3):
        yield Candidate("plms", (("order", order),))
        yield Candidate("lms", (("order", order),))
    for size in _langevin_sizes(patient):
        yield Candidate("langevin", (("step", size),))
    churn = _noise_scale(patient)
    if churn is not None:
        yield Candidate("heun", (("s_noise", churn),))


def _eta(patient: Patient) -> float | None:
    """DDIM's eta, where all steps agree on it."""
    etas = []
    for k, (t, s) in enumerate(pairwise(patient.levels)):
        c = patient.noise(k + 1)
        inside = 1 - (t.alpha * s.sigma / (s.alpha * t.sigma)) ** 2 if t.sigma and s.alpha else 0.0
        if c is not None and inside > 0 and s.sigma:
            etas.append(c / (s.sigma * math.sqrt(inside)))
    few = len(etas) != 1 and len(etas) < max(len(patient.levels) // 3, 1)  # one alone: the same noise in each step
    if few or max(etas) - min(etas) > 1e-3 * max(etas):
        return None
    return 1.0 if abs(etas[0] - 1) < 1e-6 else round(float(np.median(etas)), 6)


def _langevin_sizes(patient: Patient) -> Iterator[float]:
    """Langevin's ε/σ², by the first noise and by the first answer of the network."""
    table, t, c = patient.table, patient.levels[0], patient.noise(1)
    if len(set(table.labels)) == table.calls:
        return
    if c is not None:
        yield 0.5 * (c / t.sigma) ** 2
    reading = readings.READINGS[patient.way.predicts]
    score = -(reading(1.0, 0.0, t)[0] - reading(0.0, 0.0, t)[0]) / t.sigma  # of an answer of 1
    if score:
        yield float(table.states[1, 1]) / score / t.sigma**2


def _noise_scale(patient: Patient) -> float | None:
    """S_noise of churn: the noise seen, over √(σ̂² - σ²)."""
    for k in range(2, len(patient.levels) - 1, 2):
        c, up, low = patient.noise(k), patient.levels[k], patient.levels[k - 1]
        if c is not None and up.ratio > low.ratio * (1 + 1e-9):
            return round(c / up.alpha / math.sqrt(up.ratio**2 - low.ratio**2), 6)
    return None


def search(patient: Patient) -> Iterator[Candidate]:
    """Compare all candidates over the first calls, and those that are near, to the end.

    Parameters
    ----------
    patient : Patient
        Beside which they are run.

    Yields
    ------
    Candidate
        With its error and its end.
    """
    calls = patient.table.calls
    stop = min(PREFIX, calls - 2) if calls > SHORT else None
    reading = readings.READINGS[patient.way.predicts]
    pool: list[Candidate] = []
    for family in _families(patient):
        specimen = samplers_by_name()[family.family]
        pool.append(family)
        pool += [replace(family, step=m) for m in _fitting(specimen, samplers.MISTAKES)]
        pool += [replace(family, reading=m) for m in _fitting(reading, readings.MISTAKES)]
        pool += [replace(family, grid=m) for m in _fitting(readings.grid, readings.MISTAKES)]
    if stop is not None:
        pool = [replace(c, error=patient.distance(c, stop)) for c in pool]
        pool.sort(key=lambda c: c.error)
    kept = pool[: KEPT if calls <= 200 else KEPT // 4] if stop is not None else pool
    kept += [c for c in pool if c.mistake is None and c not in kept][:5]
    for candidate in kept:
        errors = [(patient.distance(replace(candidate, end=end)), i) for i, end in enumerate(patient.ends)]
        error, i = min(errors)
        yield replace(candidate, error=error, end=patient.ends[i])


def elsewhere(patient: Patient) -> Iterator[Candidate]:
    """Compare right samplers on other levels than the network is told: of another schedule or unit, or unrounded.

    Parameters
    ----------
    patient : Patient
        Beside which they are run.

    Yields
    ------
    Candidate
        With its error and its end.
    """
    for other in _others(patient):
        for family in _families(patient):
            candidate = replace(family, other=other)
            error, i = min((patient.distance(replace(candidate, end=end)), i) for i, end in enumerate(patient.ends[:2]))
            yield replace(candidate, error=error, end=patient.ends[i])


def _others(patient: Patient) -> Iterator[Other]:
    way, labels, levels = patient.way, patient.table.labels, patient.levels
    for factor in (1000.0, 1e-3, 999.0, 1 / 999):
        if way.told in SCALES:
            yield Other("unit-of-time", f"the steps use {factor:.4g} times the number that the network is told",
                        partial(_scaled, way, factor))  # fmt: skip
    n = len(way.levels)
    if not (n and way.told.startswith("index") and way.sigmas is None):
        return
    for name, known in KNOWN.items():
        alphas_bar = known(n).tolist()
        if min(alphas_bar) < 0:  # β above 1: it is no schedule of so few steps
            continue
        there = Convention(way.predicts, way.told, alphas_bar=alphas_bar)
        yield Other("another-schedule", f"the steps use the {name} schedule, the network another one", there.level)
    top, low = way.levels[-1].ratio, way.levels[0].ratio
    k = len(labels)
    for power in (1 / 7, 0.0):
        form, back = (partial(_power, p=power), partial(_power, p=1 / power)) if power else (math.log, math.exp)
        ratios = [back(form(top) + (form(low) - form(top)) * i / max(k - 1, 1)) for i in range(k)]
        if len(set(labels)) == k and all(0.8 < r / level.ratio < 1.25 for r, level in zip(ratios, levels, strict=True)):
            used = {label: samplers.between(levels[0], levels[0], r) for label, r in zip(labels, ratios, strict=True)}
            yield Other("rounded", "the network is told the nearest index", partial(_looked_up, used), right=True)


def _looked_up(used: dict[float, Level], label: float) -> Level:
    return used.get(label, DATA)


def _scaled(way: Convention, factor: float, label: float) -> Level:
    return way.level(factor * label)


def _power(u: float, p: float) -> float:
    return u**p
