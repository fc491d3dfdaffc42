"""Write docs/mistakes.md: every mistake of the museum, what one sees of it, what it does, and what the clinic says.

    python docs/make_mistakes.py

Each mistake is planted into the first specimen that it fits, and the clinic examines that as it would anybody's code.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from refscore import VP
from refscore.clinic.convention import DATA, Convention
from refscore.clinic.derivatives import derivatives
from refscore.clinic.diagnosis import Diagnosis
from refscore.clinic.exact import TimeConvention as Told
from refscore.clinic.exact import network
from refscore.clinic.likelihood import likelihood
from refscore.clinic.loss import loss
from refscore.clinic.sampler import sampler
from refscore.clinic.schedule import schedule
from refscore.clinic.score import score
from refscore.clinic.table import Ill, read
from refscore.laws.mixture import GaussianMixture
from refscore.museum import layers, likelihoods, losses, readings, samplers, schedules, scores
from refscore.museum.mistake import Mistake, fits, plant
from refscore.museum.samplers import Level
from refscore.noise.chains import ddpm, from_sigmas
from refscore.noise.grids import geometric_levels
from refscore.noise.sde import LinearVE

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "mistakes.md"
sys.path.append(str(ROOT))
from tests.oracles.plants import PLANTS  # noqa: E402 - the matrix of our own suite

N = 50  # steps of a sampler
NOTHING = Diagnosis("", "unknown", "", ())
Finding = tuple[str, Diagnosis]  # the effect in words, and what the clinic says
HEAD = """# The museum of mistakes

Made by `python docs/make_mistakes.py`; a test keeps it true. Each line is a right program with one line of it written
otherwise, as somebody once wrote it ("textbook": too common to have a place). The program runs, and its results are
wrong. The clinic is shown each of them as it would be shown yours ([chapter 17](chapters/17-is-yours-right.md)). The
column *clinic* has its first cause: "the same" is the mistake itself, otherwise the number tells which of its causes
the mistake is. The last column is the test of ours that fails when the same mistake is made in this library.
"""
ROOMS = {  # kind -> title, and what its effect is
    "sampler": (
        "Samplers",
        "Effect: mean, and variance over the true one, of what the sampler makes of the exact network of N(1, ¼),\n"
        "without a sample; in brackets those of the right program. The networks of most know DDPM's linear schedule\n"
        "of 1000, and are asked at every twentieth level (for mistakes in the grid at thirty uneven ones); methods in\n"
        "t know VP or straight paths, and take 50 steps; Heun in σ takes EDM's 18 levels, Langevin twelve from 20\n"
        "to .02.",
    ),
    "loss": (
        "Losses",
        "Effect: what the exact network of N(0, I) in five dimensions loses; in brackets by the right one.",
    ),
    "schedule": ("Schedules", "Effect: α²/σ² of the last level; in brackets the right one."),
    "likelihood": (
        "Likelihoods",
        "Effect: root mean square error of the log density of a mixture in the plane; in brackets the right program's.",
    ),
    "score": (
        "Scores",
        "Effect: error relative to the exact score, over all noise levels; in brackets the right program's.",
    ),
    "layer": ("Backward passes", "Effect: error of the gradients, relative to the largest of them."),
}
OTHERWISE = {  # causes that are no exhibits: what was seen, and what that may be
    "another-schedule": "The steps' coefficients are those of another published schedule than the network's.",
    "another-time": "The answer is the exact one at another time, by the same formula at all levels.",
    "answer-coefficient": "That of the answer differs, of a step's three coefficients; by what factor is said.",
    "alpha-bar-out-of-range": "ᾱ above 1: the square of a signal scale is at most 1.",
    "beta-out-of-range": "β outside (0, 1): a step cannot keep more than all or less than nothing.",
    "clips-the-data": "Linear for small numbers, not for those of size 1. A caution: right for data in [-1, 1].",
    "constant-factor": "All answers are off by one factor: a unit, a mean for a sum.",
    "constant-offset": "All log densities are off by one constant: a unit, a normaliser.",
    "ends-before-the-data": "The last step ends at a noise level above 0, which stays in the samples.",
    "gradient-missing": "Nothing is returned where a gradient is due.",
    "gradient-of-nothing": "There are more gradients than arguments.",
    "input-not-scaled": "The state is x₀ + (σ/α) z, and the network expects α x₀ + σ z (scale_model_input).",
    "label-beyond-the-schedule": "The network is told what it was not trained on: an index of N, a time above 1.",
    "label-constant": "The network is told the same at all levels.",
    "label-means-nothing": "The label is NaN, infinite, or no level at all.",
    "labels-differ": "Rows of one batch are told different levels, while all of them stand at one.",
    "last-step": "All steps but the last are those of a known sampler.",
    "looks-at-x": "Not linear in x and the answers, even where they are small: a step that depends on a norm.",
    "model-not-called": "The loss never asks the network.",
    "no-call": "The sampler never asks the network.",
    "no-noise": "The network is given α x₀ without noise.",
    "noise-coefficient": "That of the noise differs, of a step's three coefficients; by what factor is said.",
    "not-at-the-floor": "The exact network does not reach the least loss that there is: something is added, or lost.",
    "not-finite": "NaN or infinity on the way or in the answer.",
    "not-monotone": "A list of σ that neither rises nor falls throughout.",
    "one-noise-for-all": "Noise is drawn without the batch axis: all samples move together.",
    "power-of-noise": "The answer is off by a power of σ and α.",
    "raises": "The program raises an exception, which is quoted.",
    "rows-influence-each-other": "A sample is another one in other company: a mean or norm over the batch.",
    "shape": "What is returned has not the shape of x.",
    "start-scale": "At the first call x is wider or narrower than the level that the network is told.",
    "starts-too-low": "Pure noise enters at a level where something of the data should be left.",
    "target-unknown": "Noise and target are none of the known ones.",
    "uniform-noise": "Uniform numbers where normal ones belong.",
    "unit-of-time": "The steps use a thousand times the number that the network is told, or a thousandth.",
    "unseen-noise": "The same call gives another result: take random numbers from rng.",
    "walks-backwards": "The first call is told less noise than the last.",
    "wrong-shape": "The answer, or what the network is given, has another shape than is due.",
    "x-coefficient": "That of x differs, of a step's three coefficients; by what factor is said.",
}
COLUMNS = (
    "mistake", "instead of → written", "what is wrong", "what one sees", "effect", "clinic", "origin", "our test",
)  # fmt: skip


@dataclass(frozen=True)
class Exhibit:
    """A mistake, the specimen it is shown in, and how a specimen is examined."""

    mistake: Mistake
    specimen: Callable[..., Any]
    ask: Callable[..., Finding]
    first: bool  # of its name: links lead here

    def cells(self) -> list[str]:
        """What needs no computing: name, lines, sight, origin, the test that finds it."""
        m, anchor = self.mistake, f'<a id="{self.mistake.name}"></a>' * self.first
        return [
            f"{anchor}`{m.name}`",
            f"{_code(m.old)} → {_code(m.new)}",
            m.says,
            m.sees,
            m.origin,
            killed_by(f"{m.kind} {m.name}"),
        ]

    def row(self) -> str:
        """The line of the table."""
        effect, found = self.ask(plant(self.mistake, self.specimen))
        right = self.ask(self.specimen, examine=False)[0]
        name, lines, says, sees, origin, test = self.cells()
        effect = f"{effect} ({right})" if self.mistake.kind != "layer" else effect
        cells = [name, lines, says, sees, effect, self.said(found), origin, test]
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    def said(self, found: Diagnosis) -> str:
        """The clinic's first cause, or which of its causes the mistake is."""
        names = [cause.name for cause in found.causes]
        if found.verdict == "right":
            return f"right: it is `{found.name}`"
        if self.mistake.name not in names:
            return f"{found.verdict}: {', '.join(f'`{name}`' for name in names[:3]) or 'no cause'}"
        rank = names.index(self.mistake.name) + 1
        return "the same" if rank == 1 else f"`{names[0]}`; it is no. {rank}"


def _code(text: str) -> str:
    lines = [line.strip() for line in text.strip().splitlines()]
    return "`" + " ⏎ ".join(lines) + "`" if text.strip() else "nothing"


@cache
def killed_by(mistake: str) -> str:
    """The test of ours that finds the mistake in this library."""
    tests = [plant.test for plant in PLANTS if plant.mistake == mistake]
    if not tests:
        return "-"
    file, _, name = tests[0].partition("::")
    return f"[`{name.partition('[')[0]}`](../tests/{file})"


# ------------------------------------------------------------------ samplers

CHAIN = {"alphas_bar": [a**2 for a in ddpm(1000).alphas[1:]]}
TIMED = ("euler_maruyama", "euler_flow", "heun_flow")
READ = {reading.__name__ for reading in readings.READINGS.values()}
STRAIGHT = ("euler_velocity", "heun_velocity", "midpoint_velocity")  # x = (1 - t) x₀ + t z
PAIRED = ("heun", "midpoint", "dpmpp_2s", "dpmpp_sde")  # two calls a step
BESIDE = {  # mistakes that show only there: specimen, options
    "noise-missing": ("ddpm", {}), "same-noise": ("ddpm", {}), "direction-without-eta": ("ddim", {"eta": 1.0}),
}  # fmt: skip


@dataclass(frozen=True)
class Walk:
    """A way of using a sampler, a reading or a grid: its levels, what the network is told there, its start."""

    predicts: str
    told: str
    noise: dict[str, Any]
    labels: tuple[float, ...]
    start: float
    options: dict[str, Any]

    def run(self, walk: Any, reading: Any, grid: Any, mistake: Mistake) -> Callable[[Any, Any, Any], Any]:
        """The patient."""
        way = self.way
        end = way.level(0.0) if self.told == "time" else DATA
        pairs = grid(self.labels, way.level, end, way.stride(self.labels))
        if "churn" in mistake.name:
            pairs = [(_up(t, 1.2 if 3 < i < 12 else 1.0), s) for i, (t, s) in enumerate(pairs)]

        def patient(model: Any, x: Any, rng: Any) -> Any:
            queue = iter(self.labels)

            def net(x: Any, t: Level) -> Any:
                label = {"time": t.time, "sigma": t.ratio}.get(self.told)
                return reading(model(x, next(queue) if label is None else label), x, t)

            return walk(net, x, pairs, lambda: rng.standard_normal(x.shape), **self.options)

        return patient

    @property
    def way(self) -> Convention:
        """What the network is told and says."""
        return Convention(predicts=self.predicts, told=self.told, **self.noise)


def _up(t: Level, factor: float) -> Level:
    return Level(t.alpha, factor * t.sigma)


def _walk(specimen: Callable[..., Any], mistake: Mistake) -> Walk:
    name, spaced = specimen.__name__, tuple(float(i) for i in range(1000 - 1000 // N, -1, -(1000 // N)))
    options = BESIDE.get(mistake.name, ("", {}))[1]
    if name == "grid":  # thirty indices that are not equally far apart
        return Walk("noise", "index", CHAIN, tuple(float(round(1000 - i * 1000 / 30) - 1) for i in range(30)), 1.0, {})
    if name in READ:
        return Walk(name.replace("_", "-"), "index", CHAIN, spaced, 1.0, {})
    if name in TIMED:
        return Walk("noise", "time", {"sde": VP()}, tuple(1 - i / N for i in range(N)), 1.0, {})
    if name in STRAIGHT:
        noise = {"sde": lambda t: (1 - t, t)}
        return Walk("velocity", "time", noise, tuple(1 - i / N for i in range(N)), 1.0, options)
    if name in PAIRED or "churn" in mistake.name:  # Karras et al.
        karras = tuple((80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7 for i in range(18))
        return Walk("denoiser", "sigma", {}, karras, 80.0, options)
    if name == "langevin":
        ladder = tuple(20.0 * 1000 ** (-i / 11) for i in range(12) for _ in range(5))
        return Walk("noise", "sigma", {}, ladder, 20.0, {"step": 0.5})
    if mistake.name == "direction-std-not-squared":  # the root of a negative number below σ = 1
        return Walk("noise", "sigma", {}, tuple(20.0 * 16 ** (-i / 19) for i in range(20)), 20.0, options)
    return Walk("noise", "index", CHAIN, spaced, 1.0, options)


def ask_sampler(specimen: Callable[..., Any], mistake: Mistake, examine: bool = True) -> Finding:
    """A sampler, or a reading or a grid inside DDIM."""
    walk = _walk(specimen, mistake)
    parts: list[Any] = [samplers.ddim, readings.READINGS[walk.predicts], readings.grid]
    parts[2 if specimen.__name__ == "grid" else specimen.__name__ in READ] = specimen
    run = walk.run(*parts, mistake)
    try:
        mean, variance = read(run, walk.way, 2, "numpy", None).law(walk.way, 1.0, 0.25, walk.start)
        effect = f"{_number(mean)}, {_number(4 * variance)}"
    except Ill:
        effect = "none: it stops"
    said = NOTHING if not examine else sampler(
        run, predicts=walk.predicts, told=walk.told, start_std=walk.start, **walk.noise
    )  # fmt: skip
    return effect, said


def _number(a: float) -> str:
    return "0" if abs(a) < 1e-12 else f"{a:.3g}" if abs(a) < 1e4 else f"{a:.0e}"


# ------------------------------------------------------------------ the other kinds

MIXTURE = GaussianMixture(
    np.array([0.5, 0.3, 0.2]), np.array([[-2.0, 0.5], [1.5, 1.5], [0.5, -2.0]]),
    np.array([[0.5, 0.1], [0.3, 0.05], [0.2, 0.2]]),
)  # fmt: skip
STANDARD = GaussianMixture(np.ones(1), np.zeros((1, 5)), np.ones(1))
LOSSES = {  # SDE, what the model predicts, what it is told
    "ddpm_simple": (ddpm(1000), "noise", "index"), "score_vp": (VP(), "score", "time"),
    "ncsn": (from_sigmas(geometric_levels(1.0, 0.01, 10)), "score", "index"),
    "edm": (LinearVE(80.0), "denoiser", "sigma"),
    "v_prediction": (ddpm(1000), "v", "index"), "flow_matching": (losses.Straight(), "velocity", "time"),
}  # fmt: skip
LIKELIHOODS = {
    "flow_vp": (VP(), "noise", "time"), "hutchinson_sigma": (LinearVE(80.0), "denoiser", "sigma"),
    "flow_bits": (VP(), "noise", "time"),
}  # fmt: skip
SCORES = {  # and what the score is told
    "of_mixture": (VP(), "score", "time", "time"), "from_noise": (ddpm(1000), "noise", "index", "time"),
    "from_denoiser": (LinearVE(80.0), "denoiser", "sigma", "sigma"), "from_v": (VP(), "v", "time", "time"),
}  # fmt: skip


def ask_loss(specimen: Callable[..., Any], examine: bool = True) -> Finding:
    """A loss, and what the exact network loses."""
    sde, predicts, told = LOSSES[specimen.__name__]
    fn = specimen(sde)
    losses.rng.bit_generator.state = np.random.PCG64(0).state
    model = network(Told(sde, predicts, told), STANDARD)
    x0 = np.random.default_rng(1).standard_normal((4000, 5))
    with np.errstate(all="ignore"):
        try:
            lost = _number(float(np.mean(fn(model, x0))))
        except Exception:  # it asks for a level that is none
            lost = "-"
    return lost, loss(fn, sde, predicts=predicts, told=told) if examine else NOTHING


def ask_schedule(specimen: Callable[..., Any], examine: bool = True) -> Finding:
    """A list, and α²/σ² of its last level."""
    holds = "alphas_bar" if specimen.__name__.endswith("alphas_bar") else specimen.__name__.rpartition("_")[2]
    with np.errstate(all="ignore"):
        found = schedule(**{holds: specimen()})
    return f"{found.numbers['terminal_snr']:.2g}" if found.numbers else "-", found


def ask_likelihood(specimen: Callable[..., Any], examine: bool = True) -> Finding:
    """A log density, and its error in nats."""
    sde, predicts, told = LIKELIHOODS[specimen.__name__]
    units = "bits" if specimen.__name__.endswith("bits") else "nats"
    likelihoods.rng.bit_generator.state = np.random.PCG64(0).state
    found = likelihood(specimen(sde), MIXTURE, sde, predicts=predicts, told=told, units=units)
    return f"{found.numbers['error']:.2g} nats" if found.numbers else "-", found


def ask_score(specimen: Callable[..., Any], examine: bool = True) -> Finding:
    """A score, and its relative error."""
    sde, predicts, told, label = SCORES[specimen.__name__]
    way = Told(sde, predicts, told)
    found = score(specimen(MIXTURE, sde, lambda x, c: way.exact(MIXTURE, x, way.time(c))), MIXTURE, sde, told=label)
    return _number(found.numbers["error"]), found


def ask_layer(specimen: Callable[..., Any], examine: bool = True) -> Finding:
    """A backward pass, and how far its gradients are from the right ones."""
    make = layers.sizes(specimen)
    xs = make(*range(3, 3 + make.__code__.co_argcount))
    found = []
    for forward, backward in (getattr(layers, specimen.__name__)(), specimen()):
        y, cache = forward(*xs)
        grads = backward(np.cos(np.arange(y.size, dtype="float64")).reshape(y.shape), cache)
        found.append(grads if isinstance(grads, tuple) else (grads,))
    largest = max(float(np.max(np.abs(right))) for right in found[0])
    pairs = list(zip(*found, strict=True))
    if any(np.shape(right) != np.shape(wrong) for right, wrong in pairs):
        effect = "another shape"
    else:
        effect = _number(max(float(np.max(np.abs(right - wrong))) for right, wrong in pairs) / largest)
    return effect, derivatives(specimen(), at=make)


ROUTES: tuple[tuple[Any, Any], ...] = (
    (losses, ask_loss), (schedules, ask_schedule), (likelihoods, ask_likelihood), (scores, ask_score),
    (layers, ask_layer),
)  # fmt: skip


@cache
def exhibits() -> list[Exhibit]:
    """Every mistake in the first specimen that it fits, in the order of the museum."""
    steps = (*samplers.SPECIMENS, *readings.READINGS.values(), readings.grid)
    rooms: list[tuple[Any, Any, Any]] = [(samplers.MISTAKES + readings.MISTAKES, steps, ask_sampler)]
    rooms += [(room.MISTAKES, room.SPECIMENS, ask) for room, ask in ROUTES]
    found: list[Exhibit] = []
    for mistakes, specimens, ask in rooms:
        for mistake in mistakes:
            wanted = BESIDE.get(mistake.name, ("", {}))[0]
            specimen = next(s for s in specimens if fits(mistake, s) and wanted in ("", s.__name__))
            asked = partial(ask_sampler, mistake=mistake) if ask is ask_sampler else ask
            first = all(mistake.name != other.mistake.name for other in found)
            found.append(Exhibit(mistake, specimen, asked, first))
    return found


def page() -> Iterator[str]:
    """The lines of docs/mistakes.md."""
    yield HEAD
    for kind, (title, effect) in ROOMS.items():
        shown = [e for e in exhibits() if e.mistake.kind == kind]
        yield f"## {title}: {len(shown)}\n\n{effect}\n"
        yield f"| {' | '.join(COLUMNS)} |"
        yield "|" + "---|" * len(COLUMNS)
        for exhibit in shown:
            yield exhibit.row()
        yield ""
    yield "## Seen in other ways\n\nCauses that the clinic names besides, which are no edit of a line.\n"
    yield from (f'- <a id="{name}"></a>`{name}`: {says}' for name, says in OTHERWISE.items())
    yield ""


if __name__ == "__main__":
    text = "\n".join(page())
    PAGE.write_text(text, encoding="utf-8")
    sys.stdout.write(f"{len(exhibits())} mistakes\n")
