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
from refscore.clinic.convention import Convention
from refscore.clinic.derivatives import derivatives
from refscore.clinic.diagnosis import Diagnosis
from refscore.clinic.exact import Convention as Told
from refscore.clinic.exact import network
from refscore.clinic.likelihood import likelihood
from refscore.clinic.loss import loss
from refscore.clinic.sampler import sampler
from refscore.clinic.schedule import schedule
from refscore.clinic.score import score
from refscore.laws.mixture import GaussianMixture
from refscore.museum import layers, likelihoods, losses, readings, samplers, schedules, scores
from refscore.museum.mistake import Mistake, fits, plant
from refscore.museum.samplers import Level
from refscore.noise.chains import ddpm, from_sigmas
from refscore.noise.grids import geometric_levels
from refscore.noise.sde import LinearVE

PAGE = Path(__file__).resolve().parent / "mistakes.md"
N = 50  # steps of a sampler
Finding = tuple[str, Diagnosis]  # the effect in words, and what the clinic says
HEAD = """# The museum of mistakes

Made by `python docs/make_mistakes.py`; a test keeps it true. Each line is a right program with one line of it written
otherwise, as somebody once wrote it ("textbook": too common to have a place). The program runs, and its results are
wrong. The clinic is shown each of them as it would be shown yours ([chapter 17](chapters/17-is-yours-right.md)). What it says is the
first of its causes; where that is not the mistake itself, the number tells which of its causes is. The last column is the
test of ours that fails when the same mistake is made in this library.
"""
ROOMS = {  # kind -> title, and what its effect is
    "sampler": (
        "Samplers",
        f"Effect: mean, and variance over the true one, of what {N} steps (20 of the methods of two calls a step) make of the exact network of\n"
        "N(1, ¼), exactly; in brackets the same of the right program. DDPM's linear noise, the VP equation, or σ from 20 to .02 for Langevin.",
    ),
    "loss": ("Losses", "Effect: the loss of the exact network of N(0, I) in five dimensions; in brackets that of the right loss."),
    "schedule": ("Schedules", "Effect: α²/σ² of the noisiest level; in brackets the right one."),
    "likelihood": ("Likelihoods", "Effect: root mean square error of the log density of a mixture in two dimensions; in brackets that of the right program."),
    "score": ("Scores", "Effect: error relative to the exact score, over all noise levels; in brackets that of the right program."),
    "layer": ("Backward passes", "Effect: error of the gradients relative to the largest of them."),
}  # fmt: skip


@dataclass(frozen=True)
class Exhibit:
    """A mistake, the specimen it is shown in, and how the clinic is asked about a specimen."""

    mistake: Mistake
    specimen: Callable[..., Any]
    ask: Callable[[Callable[..., Any]], Finding]

    def cells(self) -> list[str]:
        """What needs no computing: name, lines, sight, origin, the test that finds it."""
        m = self.mistake
        return [f"`{m.name}`", f"{_code(m.old)} → {_code(m.new)}", m.says, m.sees, m.origin, killed_by(m.name)]

    def row(self) -> str:
        """The line of the table."""
        effect, found = self.ask(plant(self.mistake, self.specimen))
        right = _right(self.specimen, self.ask)[0]
        name, lines, says, sees, origin, test = self.cells()
        effect = f"{effect} ({right})" if self.mistake.kind != "layer" else effect
        cells = [name, lines, says, sees, effect, self.said(found), origin, test]
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    def said(self, found: Diagnosis) -> str:
        """The clinic's first cause, or which of its causes the mistake is."""
        names = [cause.name for cause in found.causes]
        if self.mistake.name not in names:
            return f"**{found.verdict}: {', '.join(names[:3]) or 'nothing'}**"
        rank = names.index(self.mistake.name) + 1
        return "the same" if rank == 1 else f"`{names[0]}`; it is no. {rank}"


@cache
def _right(specimen: Callable[..., Any], ask: Callable[[Callable[..., Any]], Finding]) -> Finding:
    return ask(specimen)


def _code(text: str) -> str:
    lines = [line.strip() for line in text.strip().splitlines()]
    return "`" + " ⏎ ".join(lines) + "`" if text.strip() else "nothing"


@cache
def killed_by(name: str) -> str:
    """The test of ours that finds the mistake in this library."""
    try:
        from tests.museum.kills import KILLS
    except ImportError:
        return "-"
    found = KILLS.get(name)
    return f"`{found[3].rsplit('/', 1)[-1]}`" if found else "-"


# ------------------------------------------------------------------ samplers

DATA = Level(1.0, 0.0, 0.0)
CHAIN = {"alphas_bar": [a**2 for a in ddpm(1000).alphas[1:]]}
LADDER = [20.0 * 1000 ** (-i / 9) for i in range(10) for _ in range(5)]
CHURNED, EXTRA = ("heun", "euler_churn"), {"direction": {"eta": 1.0}, "eta-": {"eta": 1.0}}
PAIRED = ("heun", "midpoint", "dpmpp_2s", "dpmpp_sde")


def ask_sampler(specimen: Callable[..., Any], mistake: Mistake, where: str) -> Finding:
    """A sampler, or a reading or a grid inside DDIM."""
    reading, grid, name = readings.noise, readings.grid, specimen.__name__
    predicts = "noise"
    if where == "reading":
        reading, walk, predicts = specimen, samplers.ddim, specimen.__name__.replace("_", "-")
    elif where == "grid":
        grid, walk = specimen, samplers.ddim
    else:
        walk = specimen
    told, noise, start = "index", CHAIN, 1.0
    labels = [float(i) for i in range(1000 - 1000 // N, -1, -(1000 // N))]
    if where == "grid":  # the last of 1000, and 30 indices that are not equally far apart
        labels = [float(round(999 * i / 29)) for i in range(29, -1, -1)]
    if name in ("euler_maruyama", "euler_flow", "heun_flow"):
        told, noise, labels = "time", {"sde": VP()}, [1 - i / N for i in range(N)]
    elif name in PAIRED or (name in CHURNED and "churn" in mistake.name):
        told, noise = "log-snr", {}
        labels = [-10.0 + 19.0 * i / 19 for i in range(20)]
    elif name == "langevin":
        told, noise, start, labels = "sigma", {}, 20.0, LADDER
    way = Convention(predicts=predicts, told=told, **noise)
    options = next((o for key, o in EXTRA.items() if mistake.name.startswith(key)), {})
    if name in ("midpoint", "dpmpp_2s") and mistake.name in ("not-stepped-down", "up-squared", "up-turned-over"):
        options = {"eta": 1.0}
    options |= {"step": 0.1} if name == "langevin" else {}
    end = DATA if name not in ("euler_maruyama", "euler_flow", "heun_flow") else way.level(0.0)
    pairs = grid(labels, way.level, end, way.stride(labels))
    if "churn" in mistake.name:
        pairs = [(_up(t, 1.1 if 0 < i < 10 else 1.0), s) for i, (t, s) in enumerate(pairs)]

    def run(model: Any, x: Any, rng: Any) -> Any:
        queue = iter(labels)

        def net(x: Any, t: Level) -> Any:
            told_now = -2 * np.log(t.ratio) if told == "log-snr" else t.time if name == "heun_flow" else next(queue)
            return reading(model(x, told_now), x, t)

        return walk(net, x, pairs, lambda: rng.standard_normal(x.shape), **options)

    found = sampler(run, predicts=predicts, told=told, start_std=start, **noise)
    if "mean on N(1, 1/4)" not in found.numbers:
        return "-", found
    mean, variance = found.numbers["mean on N(1, 1/4)"], found.numbers["variance on N(1, 1/4)"]
    return f"{_number(mean)}, {_number(4 * variance)}", found


def _up(t: Level, factor: float) -> Level:
    ratio = factor * t.ratio
    return Level(1 / (1 + ratio**2) ** 0.5, ratio / (1 + ratio**2) ** 0.5)


def _number(a: float) -> str:
    return f"{a:.3g}" if abs(a) < 1e4 else f"{a:.0e}"


# ------------------------------------------------------------------ the other kinds

MIXTURE = GaussianMixture(
    np.array([0.5, 0.3, 0.2]), np.array([[-2.0, 0.5], [1.5, 1.5], [0.5, -2.0]]),
    np.array([[0.5, 0.1], [0.3, 0.05], [0.2, 0.2]]),
)  # fmt: skip
STANDARD = GaussianMixture(np.ones(1), np.zeros((1, 5)), np.ones(1))
LOSSES = {  # SDE, what the model predicts, what it is told
    "ddpm_simple": (ddpm(1000), "noise", "index"), "score_vp": (VP(), "score", "time"),
    "ncsn": (from_sigmas(geometric_levels(1.0, 0.01, 10)), "score", "index"), "edm": (LinearVE(80.0), "denoiser", "sigma"),
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


def ask_loss(specimen: Callable[..., Any]) -> Finding:
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
    return lost, loss(fn, sde, predicts=predicts, told=told)


def ask_schedule(specimen: Callable[..., Any]) -> Finding:
    """A list, and α²/σ² of its last level."""
    holds = "alphas_bar" if specimen.__name__.endswith("alphas_bar") else specimen.__name__.rpartition("_")[2]
    with np.errstate(all="ignore"):
        found = schedule(**{holds: specimen()})
    return f"{found.numbers['terminal_snr']:.2g}" if found.numbers else "-", found


def ask_likelihood(specimen: Callable[..., Any]) -> Finding:
    """A log density, and its error in nats."""
    sde, predicts, told = LIKELIHOODS[specimen.__name__]
    units = "bits" if specimen.__name__.endswith("bits") else "nats"
    likelihoods.rng.bit_generator.state = np.random.PCG64(0).state
    found = likelihood(specimen(sde), MIXTURE, sde, predicts=predicts, told=told, units=units)
    return f"{found.numbers['error']:.2g} nats" if found.numbers else "-", found


def ask_score(specimen: Callable[..., Any]) -> Finding:
    """A score, and its relative error."""
    sde, predicts, told, label = SCORES[specimen.__name__]
    way = Told(sde, predicts, told)
    found = score(specimen(MIXTURE, sde, lambda x, c: way.exact(MIXTURE, x, way.time(c))), MIXTURE, sde, told=label)
    return f"{found.numbers['error']:.1g}", found


def ask_layer(specimen: Callable[..., Any]) -> Finding:
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
    found: list[Exhibit] = []
    for mistake in samplers.MISTAKES:
        specimen = next(s for s in samplers.SPECIMENS if fits(mistake, s))
        found.append(Exhibit(mistake, specimen, partial(ask_sampler, mistake=mistake, where="step")))
    for mistake in readings.MISTAKES:
        where = "grid" if fits(mistake, readings.grid) else "reading"
        options = readings.READINGS.values() if where == "reading" else [readings.grid]
        specimen = next(s for s in options if fits(mistake, s))
        found.append(Exhibit(mistake, specimen, partial(ask_sampler, mistake=mistake, where=where)))
    for room, ask in ROUTES:
        for mistake in room.MISTAKES:
            found.append(Exhibit(mistake, next(s for s in room.SPECIMENS if fits(mistake, s)), ask))
    return found


def page() -> Iterator[str]:
    """The lines of docs/mistakes.md."""
    yield HEAD
    for kind, (title, effect) in ROOMS.items():
        shown = [e for e in exhibits() if e.mistake.kind == kind]
        yield f"## {title}: {len(shown)}\n\n{effect}\n"
        yield "| mistake | instead of → written | what is wrong | what one sees | effect | the clinic's first cause | origin | our test |"
        yield "|---|---|---|---|---|---|---|---|"
        for exhibit in shown:
            yield exhibit.row()
        yield ""


if __name__ == "__main__":
    text = "\n".join(page())
    PAGE.write_text(text, encoding="utf-8")
    sys.stdout.write(f"{len(exhibits())} mistakes\n")
