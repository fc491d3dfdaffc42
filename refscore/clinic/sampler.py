"""Which sampler is this, and what is wrong with it?  Anybody's sampling loop beside the museum's. Chapter 17."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any

import numpy as np

from refscore.clinic.coefficients import causes as by_coefficients
from refscore.clinic.coefficients import wanted_of
from refscore.clinic.convention import DATA, SCALES, Convention, index_grid, spacing
from refscore.clinic.diagnosis import RIGHT, UNKNOWN, WRONG, Cause, Diagnosis
from refscore.clinic.patient import ACTIVE, LIBRARIES, walk
from refscore.clinic.table import SEEN, Ill, Table, read
from refscore.museum import readings, samplers
from refscore.museum.mistake import Mistake, fits, plant
from refscore.museum.samplers import Level

EXACT, SINGLE = 1e-9, 4e-3  # relative distance of two tables that are the same, in double; with coefficients in single
SHORT, PREFIX, KEPT = 4, 10, 40  # calls of a short walk; those compared at first; candidates compared to the end
LINEAR = 1e-4  # relative: more is not rounding, not even single precision's
ROWS = 5  # random combinations of a table, instead of all its columns
PAIRED = ("heun", "heun_flow", "heun_velocity", "midpoint_velocity", "midpoint", "dpmpp_2s", "dpmpp_sde")  # two calls
CALLS = {**dict.fromkeys(PAIRED, 2), "rk4_velocity": 4}  # of the network, a step
TIMED = ("euler_maruyama", "euler_flow", "heun_flow", "euler_velocity", "heun_velocity", "midpoint_velocity",
         "rk4_velocity")  # fmt: skip
TITLES = {
    "ddim": "DDIM, eta 0 (also DPM-Solver++(1), and Euler in σ/α)",
    "ddpm": "DDPM with β̃, the posterior's variance (also DDIM with eta 1, ancestral Euler)",
    "ddpm_large": "DDPM with β, the forward step's variance (score_sde's ancestral sampler of VP)",
    "reverse_diffusion": "score_sde's reverse diffusion",
    "euler_beta": "Euler-Maruyama with the chain's β",
    "euler_maruyama": "Euler-Maruyama of the reverse SDE in t",
    "euler_flow": "Euler of the probability flow in t",
    "heun_flow": "Heun of the probability flow in t",
    "euler_velocity": "Euler of the flow by its velocity",
    "heun_velocity": "Heun of the flow by its velocity",
    "midpoint_velocity": "the midpoint method of the flow by its velocity",
    "rk4_velocity": "Runge-Kutta 4 of the flow by its velocity",
    "unipc": "UniPC",
    "euler_ancestral": "ancestral Euler (the same as DDPM with β̃)",
    "heun": "Heun in σ/α (EDM, Karras et al.)",
    "midpoint": "DPM-Solver-2, the geometric midpoint (k-diffusion's dpm_2)",
    "dpmpp_2m": "DPM-Solver++(2M)",
    "dpmpp_2m_sde": "SDE-DPM-Solver++(2M)",
    "dpmpp_2s": "DPM-Solver++(2S)",
    "dpmpp_sde": "DPM-Solver++ SDE (k-diffusion)",
    "plms": "Adams-Bashforth on the noise (PLMS, iPNDM)",
    "lms": "linear multistep in σ/α (LMS)",
    "renoise": "guess the data and noise them again (consistency sampling)",
    "langevin": "annealed Langevin",
    "euler_churn": "Euler in σ/α with churn",
}


ORDER = tuple(TITLES)  # of two that are the same on this grid, the first is named


@dataclass(frozen=True)
class Other:
    """Levels that the steps may use instead of those that the network is told."""

    name: str
    says: str
    level: Callable[[float], Level]
    right: bool = False


@dataclass(frozen=True)
class Candidate:
    """One sampler of the museum, with one mistake or none."""

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
        return ", ".join([self.family, *(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in self.options)])


class Stop(Exception):
    """A candidate that asks more often than the patient."""


@dataclass
class Patient:
    """A table beside which candidates are run, as random combinations of its columns."""

    table: Table
    way: Convention
    levels: list[Level]
    ends: list[Level]
    rows: np.ndarray[Any, Any] = field(init=False)
    states: np.ndarray[Any, Any] = field(init=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(1)
        self.rows = rng.standard_normal((self.table.states.shape[1], ROWS, 1))
        self.states = np.einsum("in,nbd->ibd", self.table.states, self.rows)
        self.extra = rng.standard_normal((64, ROWS, 1))
        self.first = {state: j for j, state in enumerate(self.table.fresh)}  # one noise a state

    def steps(self, candidate: Candidate, stop: int | None = None) -> list[tuple[Level, Level]]:
        """The pairs of levels that the candidate walks, read from the labels; of the first calls alone, or of all."""
        stop = None if stop is None else stop + 3
        labels, levels = self.table.labels[:stop], self.levels[:stop]
        each = CALLS.get(candidate.family, 1)
        level = self.way.level if candidate.other is None else candidate.other.level
        if candidate.family == "heun" and candidate.grid is None and candidate.other is None:  # churn: a step leads to the label of its second call
            here, there = levels[0::2], [*levels[1::2], candidate.end][: len(levels[0::2])]
            if all(s.ratio < t.ratio for t, s in zip(here, there, strict=True)):
                return list(zip(here, there, strict=True))
        labels = labels[0::each]
        make = _edited(readings.grid, candidate.grid)
        pairs = make(labels, level, candidate.end, self.way.stride(self.table.labels))
        if candidate.family == "euler_churn":
            pairs = [(t, self._before(i + 1, s)) for i, (t, s) in enumerate(pairs)]
        return pairs

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
        specimen = _edited(samplers_by_name()[candidate.family], candidate.step)
        reading = _edited(readings.READINGS[self.way.predicts], candidate.reading)
        calls = self.table.calls
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
            if candidate.grid is None and candidate.other is None and not math.isclose(t.ratio, self.levels[k].ratio, rel_tol=1e-4):
                worst = max(worst, 0.1)
            return reading(self.rows[1 + k], x, t)

        def normal() -> Any:
            k = len(made)
            if candidate.step is not None and candidate.step.name == "same-noise":
                k = next((state for state in self.table.fresh if state >= k), k)
            if k in self.first and k not in used:
                used.add(k)
                return self.rows[1 + calls + self.first[k]]
            return self.extra[k % 64]

        steps = self.steps(candidate, stop)
        start = self.table.states[0, 0] * self.rows[0]
        end = None
        try:
            with np.errstate(all="ignore"):
                end = specimen(model, start, steps, normal, **dict(candidate.options))
        except Stop:
            pass
        except (ValueError, ZeroDivisionError, OverflowError, TypeError):
            return math.inf
        for k in range(1, min(len(made), last + 1)):
            worst = max(worst, _off(made[k], self.states[k]))
        if stop is None:
            if len(made) != calls or end is None:
                return math.inf
            last_level = candidate.end
            worst = max(worst, min(_off(end / a, self._end) for a in {1.0, last_level.alpha}))
        return worst if math.isfinite(worst) else math.inf

    @property
    def _end(self) -> Any:
        """The last state; images in [0, 1] are put back to [-1, 1]."""
        return self.states[-1] * (2.0 if math.isclose(self.table.offset, 0.5, abs_tol=1e-6) else 1.0)


def _off(a: Any, b: Any) -> float:
    off = float(np.abs(a - b).max() / max(float(np.abs(b).max()), 1e-300))
    return off if math.isfinite(off) else math.inf


@cache
def samplers_by_name() -> dict[str, Callable[..., Any]]:
    """The museum's samplers."""
    return {specimen.__name__: specimen for specimen in samplers.SPECIMENS}


@cache
def _edited(specimen: Callable[..., Any], mistake: Mistake | None) -> Callable[..., Any]:
    return specimen if mistake is None else plant(mistake, specimen)


@cache
def _fitting(specimen: Callable[..., Any], mistakes: tuple[Mistake, ...]) -> list[Mistake]:
    return [mistake for mistake in mistakes if fits(mistake, specimen)]


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
        convention. Noise comes from rng (a Generator of NumPy or torch, a key of JAX) or from the library's own
        functions, which are replaced while it runs.
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
    ('wrong', 'ddpm_large', 'root-forgotten')
    """
    if not callable(run):
        raise TypeError(f"the patient must be callable as run(model, x, rng), got {type(run).__name__}")
    if library not in LIBRARIES:
        raise ValueError(f"library must be one of {', '.join(LIBRARIES)}; got {library!r}")
    way = Convention(predicts, told, betas, alphas_bar, sigmas, sde)
    assumed = [f"the network predicts {predicts} and is told {told}"]
    try:
        table = read(run, way, dims, library, device)
    except Ill as ill:
        name, says = ill.args
        if name == "adaptive":
            return _adaptive(run, way, says, start_std, dims, library, device, assumed)
        return Diagnosis("sampler", WRONG, "", (says,), (Cause(name, says, math.inf),), assumed=tuple(assumed))
    levels = [way.level(label) for label in table.labels]
    patient = Patient(table, way, levels, _ends(way, table.labels, levels))
    found = sorted(_search(patient), key=lambda c: c.rank)
    if found[0].error > SINGLE:
        found = sorted([*found, *_elsewhere(patient)], key=lambda c: c.rank)
    right = [c for c in found if c.mistake is None]
    wrong = _distinct([c for c in found if c.mistake is not None])
    nearest = next(c for c in sorted(right, key=lambda c: c.rank[1:]) if c.error <= 3 * right[0].error + EXACT / 10)
    if start_std is None:
        start_std = levels[0].sigma / max(abs(float(table.states[0, 0])), 1e-300)
        assumed.append(f"x starts with deviation {start_std:.4g}, as the first level has it")
    behaviour = list(_behaviour(table, way, levels, start_std, bounded))
    if way.told.startswith("index") and way.sigmas is None and nearest.error <= SINGLE and nearest.end.sigma > 0:
        behaviour.append(Cause("ends-before-the-data", f"the last step ends at σ/α = {nearest.end.ratio:.4g}, not at the "
                               "data: its noise remains", nearest.end.ratio))  # fmt: skip
    is_right = nearest.error <= EXACT or (nearest.error <= SINGLE and not (wrong and wrong[0].error < nearest.error / 8))
    best = nearest if is_right or not wrong or nearest.error <= wrong[0].error else wrong[0]
    numbers, effect = _effect(patient, nearest, start_std)
    if is_right and not behaviour:
        verdict, causes = RIGHT, ()
    elif is_right or (best is not nearest and best.error <= SINGLE) or behaviour:
        listed = [] if is_right else [c for c in wrong if c.error <= max(30 * wrong[0].error, SINGLE)][:5]
        causes = (*behaviour, *map(_cause, listed))
        verdict = WRONG
    else:
        read_off, listed = list(_by_coefficients(patient, nearest)), list(map(_cause, wrong[:3]))
        verdict, causes = UNKNOWN, (*read_off, *listed) if len(read_off) == 1 else (*listed, *read_off)
    return Diagnosis(
        "sampler", verdict, best.name if best.error <= SINGLE or not causes else f"nearest: {best.name}",
        tuple(_findings(patient, best, effect, finer)), (*(replace(c, effect=effect) for c in causes[:1]), *causes[1:]),
        numbers, tuple(assumed), tuple(c.name for c in right if c.error <= SINGLE and c.name != best.name) if is_right else (),
    )  # fmt: skip


def _adaptive(
    run: Any, way: Convention, says: str, start_std: float | None, dims: int, library: str, device: Any, assumed: list[str]
) -> Diagnosis:
    """A solver with steps of its own choice: of it only what it makes can be said, on N(1, ¼) with the exact network."""
    labels, draws, scale = [], 0, 1.0 if start_std is None else start_std
    x = scale * np.repeat(np.array([[0.0], [1.0], [-1.0]]), dims, axis=1)

    def answer(k: int, x: Any) -> Any:
        labels.append(float(ACTIVE[-1].labels[-1][0]))
        p, q = way.answer(way.level(labels[-1]), 1.0, 0.25)
        return p * x + q

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
    name, verdict = "probability flow, adaptive", RIGHT if not draws and off < 0.02 else UNKNOWN
    found = f"with the exact network of N(1, ¼) it makes mean {mean:.5g} and deviation {deviation / 0.5:.5g} of the truth"
    return Diagnosis("sampler", verdict, name if not draws else "adaptive", (says, found), (),
                     {"mean": mean, "deviation": deviation, "calls": len(labels)}, tuple(assumed))  # fmt: skip


def _cause(candidate: Candidate) -> Cause:
    mistake = candidate.mistake
    assert mistake is not None
    return Cause(mistake.name, f"{mistake.says}, in {candidate.name}", candidate.error, page=f"docs/mistakes.md#{mistake.name}")


def _distinct(found: list[Candidate]) -> list[Candidate]:
    """The best of each mistake."""
    seen: dict[str, Candidate] = {}
    for candidate in found:
        if candidate.mistake is not None and math.isfinite(candidate.error):
            seen.setdefault(candidate.mistake.name, candidate)
    return list(seen.values())


def _ends(way: Convention, labels: list[float], levels: list[Level]) -> list[Level]:
    """Where the last step may lead: data, the first level, one more step of the grid, the SDE's 0."""
    ends = [DATA]
    steps = [label for i, label in enumerate(labels) if i == 0 or label != labels[i - 1]]
    further = []
    if len(steps) > 1:
        further.append(2 * steps[-1] - steps[-2])
    if way.told in ("index", "index-from-1", "index-over-n", "index-of-sigmas"):
        first = {"index": 0.0, "index-from-1": 1.0, "index-over-n": way.stride([0] * len(getattr(way, "levels", ())))}
        further += [first.get(way.told, 0.0), labels[-1] - way.stride(labels)]
    elif way.told in SCALES:
        scale = SCALES[way.told]
        further += [1 - t if scale < 0 else scale * t for t in (1e-2, 1e-3, 1e-4, 1e-5)]
    for label in [*further, labels[-1]]:
        level = way.level(label) if way.told != "sigma" or label > 0 else DATA
        if all(not math.isclose(level.ratio, e.ratio, rel_tol=1e-9) for e in ends):
            ends.append(level)
    return ends


def _families(patient: Patient) -> Iterator[Candidate]:
    """The right samplers that may be meant, with the options that the table tells."""
    for name in samplers_by_name():
        needed = "ds" if "velocity" in name else "g"
        if name in TIMED and not all(math.isfinite(getattr(level, needed)) for level in patient.levels[:-1]):
            continue
        yield Candidate(name)
    eta = _eta(patient)
    if eta is not None:
        for name in ("ddim", "midpoint", "dpmpp_2m_sde", "dpmpp_2s"):
            yield Candidate(name, (("eta", eta),))
    for name in ("midpoint", "dpmpp_2s"):
        if eta != 1:
            yield Candidate(name, (("eta", 1.0),))
    yield Candidate("dpmpp_2m", (("lower", True),))
    yield Candidate("dpmpp_2m_sde", (("kind", "heun"),))
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
    for k, (t, s) in enumerate(zip(patient.levels, patient.levels[1:], strict=False)):
        c = patient.noise(k + 1)
        inside = 1 - (t.alpha * s.sigma / (s.alpha * t.sigma)) ** 2 if t.sigma and s.alpha else 0.0
        if c is not None and inside > 0 and s.sigma:
            etas.append(c / (s.sigma * math.sqrt(inside)))
    if (len(etas) != 1 and len(etas) < max(len(patient.levels) // 3, 1)) or not etas or max(etas) - min(etas) > 1e-3 * max(etas):
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


def _search(patient: Patient) -> Iterator[Candidate]:
    """All candidates beside the first calls; those that are near, to the end."""
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


def _elsewhere(patient: Patient) -> Iterator[Candidate]:
    """Right samplers on other levels than the network is told: of another schedule, another unit, or unrounded."""
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
                        lambda label, factor=factor: way.level(factor * label))  # fmt: skip
    n = len(way.levels)  # type: ignore[attr-defined]
    if not (n and way.told.startswith("index") and way.sigmas is None):
        return
    for name, betas in known_betas(n).items():
        there = Convention(way.predicts, way.told, betas=betas)
        yield Other("another-schedule", f"the steps use the {name} schedule, the network another one", there.level)
    top, low = way.levels[-1].ratio, way.levels[0].ratio  # type: ignore[attr-defined]
    k = len(labels)
    for power in (1 / 7, 0.0):
        form = (lambda u: u**power) if power else math.log
        back = (lambda u: u ** (1 / power)) if power else math.exp
        ratios = [back(form(top) + (form(low) - form(top)) * i / max(k - 1, 1)) for i in range(k)]
        if len(set(labels)) == k and all(0.8 < r / level.ratio < 1.25 for r, level in zip(ratios, levels, strict=True)):
            used = {label: samplers.between(levels[0], levels[0], r) for label, r in zip(labels, ratios, strict=True)}
            yield Other("rounded", "the network is told the nearest index", lambda label, used=used: used.get(label, DATA),
                        right=True)  # fmt: skip


def known_betas(n: int) -> dict[str, list[float]]:
    """The schedules that people take: by name, n numbers."""
    line = lambda a, b: [a + (b - a) * i / max(n - 1, 1) for i in range(n)]  # noqa: E731
    bar = [math.cos((i / n + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(n + 1)]
    return {
        "linear": line(1e-4, 0.02), "linear for 1000": line(0.1 / n, min(20 / n, 0.999)),
        "scaled linear": [b**2 for b in line(0.00085**0.5, 0.012**0.5)],
        "cosine": [min(1 - b / a, 0.999) for a, b in zip(bar, bar[1:], strict=False)],
    }  # fmt: skip


def _by_coefficients(patient: Patient, nearest: Candidate) -> Iterator[Cause]:
    """What differs, coefficient by coefficient, from the nearest right sampler of one call a step."""
    if nearest.family in CALLS or nearest.other is not None:
        return
    pairs = patient.steps(nearest)
    specimen = partial(samplers_by_name()[nearest.family], **dict(nearest.options))
    try:
        wanted = wanted_of(specimen, readings.READINGS[patient.way.predicts], pairs)
    except (ValueError, ZeroDivisionError, OverflowError):
        return
    yield from by_coefficients(patient.table, wanted, pairs, nearest.name)


def _behaviour(
    table: Table, way: Convention, levels: list[Level], start_std: float, bounded: bool
) -> Iterator[Cause]:
    """What is wrong with any sampler, known or not."""
    facts = table.facts
    if facts["unseen noise"] > 0 and facts["not linear"] > LINEAR:
        yield Cause("unseen-noise", "it draws random numbers that the clinic cannot replace: take them from rng", math.inf)
    if facts["rows"] > LINEAR:
        yield Cause("rows-influence-each-other", "a sample depends on the others of its batch: a norm or a mean over "
                    "the batch, or one step size for all", facts["rows"])  # fmt: skip
    if facts["shared noise"]:
        yield Cause("one-noise-for-all", "noise is drawn without the batch axis: all samples get the same", 1.0)
    if facts["uniform"]:
        yield Cause("uniform-noise", f"{facts['uniform']} of the draws are uniform numbers, not normal ones", 1.0)
    if facts["not linear"] > LINEAR and not facts["unseen noise"] > 0:
        yield Cause("looks-at-x", "it is not linear in x and the network's answers, even where they are small: a step "
                    "size by norms, or rescaling", facts["not linear"])  # fmt: skip
    if table.facts["clips"] > LINEAR >= table.facts["not linear"] and not bounded and facts["rows"] <= LINEAR:
        yield Cause("clips-the-data", "it clips or thresholds the predicted data: right only if the data lie in "
                    "[-1, 1] (then say bounded=True)", facts["clips"])  # fmt: skip
    if table.repeated and len(table.fresh) < table.calls // 2:
        yield Cause("same-noise", "a generator is put back to the same state: the same noise in every step", 1.0)
    if levels[0].ratio < levels[-1].ratio:
        yield Cause("walks-backwards", "the first call is told less noise than the last: it walks from data to noise", 1.0)
        return
    top, first = way.levels[-1] if way.levels else levels[0], levels[0]  # type: ignore[attr-defined]
    if first.alpha > max(3 * top.alpha, 0.1) and first.ratio < top.ratio / 3 and top.ratio < math.inf:
        yield Cause("starts-too-low", f"the first level is σ/α = {first.ratio:.4g} where the schedule goes up to "
                    f"{top.ratio:.4g}: pure noise is not its law", first.alpha)  # fmt: skip
    stands = abs(float(table.states[0, 0])) * start_std
    if levels[0].alpha and levels[0].sigma and not 0.9 < stands / math.hypot(levels[0].sigma, 0.0) < 1.2 and stands > 0:
        if not 0.9 < stands / math.hypot(levels[0].sigma, levels[0].alpha) < 1.2:
            scaled = 0.9 < stands / first.ratio < 1.1
            yield Cause("input-not-scaled", "the network is given x₀ + (σ/α) z where it expects α x₀ + σ z: multiply its "
                        "input by α (scale_model_input)", stands) if scaled else Cause("start-scale", f"at the first call x has deviation {stands:.4g}, where the level it is told has "
                        f"σ = {levels[0].sigma:.4g}", abs(stands / levels[0].sigma - 1))  # fmt: skip


def _effect(patient: Patient, nearest: Candidate, start: float) -> tuple[dict[str, Any], str]:
    """Mean and variance of what it makes of N(1, ¼), exactly, in numbers and in words."""
    mean, variance = 1.0, 0.25
    try:
        m, v = patient.table.law(patient.way, mean, variance, start)
    except (ZeroDivisionError, OverflowError):
        return {}, ""
    table = patient.table
    numbers = {
        "calls": table.calls, "draws": table.draws, "fresh noises": len(table.fresh), "labels": table.labels,
        "error of the nearest right sampler": nearest.error, "mean on N(1, 1/4)": m, "variance on N(1, 1/4)": v,
        "start": float(table.states[0, 0]), "start std": start, **{k: v for k, v in table.facts.items() if isinstance(v, float)},
    }  # fmt: skip
    return numbers, f"with the exact network of N(1, ¼) it makes mean {m:.4g} and variance {v / variance:.4g} of the truth"


def _findings(patient: Patient, best: Candidate, effect: str, finer: Any) -> Iterator[str]:
    table, way = patient.table, patient.way
    labels = table.labels[0 :: CALLS.get(best.family, 1)]
    levels = [way.level(label) for label in labels]
    title = "DDIM" if best.family == "ddim" and best.options else TITLES[best.family]
    title += "".join(f", {k} {v:.6g}" if isinstance(v, float) else f", {k} {v}" for k, v in best.options)
    if best.other is not None and best.other.right:
        title += f" ({best.other.says})"
    what = f"{title}, with one mistake" if best.mistake else title
    yield f"{what}: its coefficients agree to {best.error:.1g}" if best.error <= SINGLE else f"no known sampler; nearest is {title}, off by {best.error:.2g}"
    place = spacing(levels, labels)
    if way.told in ("index", "index-from-1"):
        place = index_grid([i - (way.told == "index-from-1") for i in labels], len(way.levels)) or place
    yield f"grid: {len(labels)} levels, {place}, σ/α from {levels[0].ratio:.4g} to {levels[-1].ratio:.4g}, then {_name(best.end, way)}"
    drawn = f"{table.draws} random arrays are drawn, {len(table.fresh)} of them matter"
    yield f"{table.calls} calls of the network; {drawn if table.draws else 'no noise'}"
    if table.facts["clips"] > LINEAR >= table.facts["not linear"]:
        yield "it clips or thresholds: linear where numbers are small, not where they are of size 1"
    if 1e-9 < table.facts["not linear"] <= LINEAR or EXACT < best.error <= SINGLE:
        yield "single precision inside (or coefficients that were)"
    if table.offset:
        yield f"it adds {table.offset:.4g} at the end, as (x + 1)/2 does"
    if effect and best.mistake is None:
        yield effect
    if finer:
        yield _order(finer, way)


def _name(end: Level, way: Convention) -> str:
    return "data" if end.sigma == 0 else f"σ/α = {end.ratio:.4g}"


def _order(finer: dict[int, Any], way: Convention) -> str:
    """The observed order: slope of the error of the deviation on N(1, ¼) over the number of steps."""
    points = []
    for n, run in sorted(finer.items()):
        table = read(run, way, 2, "numpy", None)
        top = way.level(table.labels[0])
        spread = math.sqrt(top.alpha**2 * 0.25 + top.sigma**2)
        m, v = table.law(way, 1.0, 0.25, spread / abs(float(table.states[0, 0])))
        points.append((math.log(n), math.log(max(abs(math.sqrt(v) / 0.5 - 1), SEEN))))
    x, y = zip(*points, strict=True)
    return f"order {-np.polyfit(x, y, 1)[0]:.2f} of the deviation on N(1, ¼), from {len(x)} numbers of steps"
