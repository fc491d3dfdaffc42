"""Is it the log density?  Anybody's likelihood against the exact one, and against what slips make of it. Chapter 17.

Along the probability flow log p(x) = log N(x₁; 0, ς²) + ∫ f D dt - ½ ∫ g² tr ∇s dt: a constant, a square and an
integral, of which each slip changes one. They are computed along the right flow, and along two wrong ones.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from refscore.clinic.diagnosis import RIGHT, UNKNOWN, WRONG, Cause, Diagnosis
from refscore.clinic.exact import Convention, asked, network, place
from refscore.clinic.replay import replayed
from refscore.laws.mixture import GaussianMixture
from refscore.likelihood.flow import FixedSteps, Flow
from refscore.noise.exact_score import ExactScore
from refscore.protocols import SDE

GOOD = 0.05  # nats, root mean square: what a solver of 50 steps and a prior leave
ROWS, REPEATS = 16, 4
Guess = tuple[str, str, Any]


@dataclass(frozen=True)
class Scaled:
    """A score and its derivative, times a factor."""

    score: Any
    factor: float

    def __call__(self, x: Any, t: Any) -> Any:
        """Return the factor times the score."""
        return self.factor * self.score(x, t)

    def jvp(self, x: Any, t: Any, v: Any) -> tuple[Any, Any]:
        """Return both, times the factor."""
        s, sdot = self.score.jvp(x, t, v)
        return self.factor * s, self.factor * sdot


def likelihood(
    fn: Callable[..., Any],
    mixture: GaussianMixture,
    sde: SDE,
    *,
    predicts: str = "noise",
    told: str = "time",
    units: str = "nats",
    like: Any = None,
    seed: int = 0,
) -> Diagnosis:
    """Whether a likelihood is right, given an exact model; and what is wrong with it.

    Parameters
    ----------
    fn : callable (model, x (B, D)) -> (B,)
        The patient: the log density of each x by the probability flow of `model(x_t, label)`.
    mixture : GaussianMixture
        The law of the data, in NumPy.
    sde : SDE
        The noise.
    predicts : str, default "noise"
        What the model predicts: "score", "noise", "data", "v", "velocity" or "denoiser".
    told : str, default "time"
        What its label is: "index", "time", "sigma" or "log-snr"; see `Convention`.
    units : str, default "nats"
        "nats", or "bits": bits per dimension, -log₂ p/D.
    like : array, optional
        One of the patient's arrays; NumPy's float64 by default.
    seed : int, default 0
        Of the points, and of the patient's probes.

    Returns
    -------
    Diagnosis
        Of kind "likelihood".

    Raises
    ------
    ValueError
        As `Convention`; for other units.

    Examples
    --------
    >>> import numpy as np
    >>> from refscore import VP
    >>> from refscore.clinic.likelihood import likelihood
    >>> from refscore.laws.examples import mixture
    >>> p = mixture("tilted")
    >>> likelihood(lambda model, x: p.log_prob(x), p, VP()).verdict
    'right'
    >>> likelihood(lambda model, x: p.log_prob(x) + 2 * np.log(128), p, VP()).causes[0].name
    'offset-of-7-bits'
    """
    way = Convention(sde, predicts, told)
    if units not in ("nats", "bits"):
        raise ValueError(f'units must be "nats" or "bits" (per dimension), got {units!r}')
    x, model, D = mixture.sample(np.random.default_rng(seed), ROWS), network(way, mixture, like), mixture.dim
    given = place(x, like)
    draws: list[Any] = []
    for i in range(REPEATS):
        draws.append(asked("likelihood", lambda i=i: replayed(fn, seed + i, model, given), (ROWS,)))  # type: ignore[misc]
        if isinstance(draws[-1], Diagnosis):
            return draws[-1]
        if i == 1 and np.array_equal(*draws):
            break
    found = np.mean(draws, axis=0) * (1.0 if units == "nats" else -D * math.log(2))
    noise = float(np.mean(np.std(draws, axis=0))) * (1.0 if units == "nats" else D * math.log(2))
    spread = noise / math.sqrt(len(draws) - 1)
    exact = mixture.log_prob(x)

    def off(guess: Any) -> float:
        with np.errstate(all="ignore"):
            gap = float(np.sqrt(np.mean((found - guess) ** 2)))
        return gap if math.isfinite(gap) else math.inf

    error, mean = off(exact), float(np.mean(found - exact))
    right = error < GOOD + 3 * spread
    best: dict[str, Cause] = {}
    for name, says, guess in [] if right else _guesses(mixture, sde, x, found, units):
        gap = off(guess)
        if gap < min(best[name].error if name in best else math.inf, 0.3 * error):
            best[name] = Cause(name, says, gap)
    causes = sorted(best.values(), key=lambda c: c.error + GOOD * (c.name == "constant-offset"))[:3]  # any offset is one
    says = [f"off by {error:.2g} nats (root mean square), by {mean:+.3g} on average"]
    if noise:
        says.append(f"it is random: one answer has a deviation of {noise:.2g} nats, the mean of {len(draws)} of {spread:.2g}")
    if not right and not causes and mean < 0 and max(found - exact) < 3 * spread + GOOD:
        says.append("it lies below the density everywhere, as a bound (ELBO) does")
    numbers = {"error": error, "mean": mean, "noise": noise, "found": found.tolist(), "exact": exact.tolist()}
    assumed = (f"the model predicts {predicts} and is told {told}", way.noise, f"the answer is in {units}")
    if right or not causes:
        verdict = RIGHT if right else UNKNOWN if error < 10 * GOOD else WRONG
        return Diagnosis("likelihood", verdict, "log density" if right else "", tuple(says), (), numbers, assumed)
    return Diagnosis("likelihood", WRONG, causes[0].name, (causes[0].says, *says), tuple(causes), numbers, assumed)


def _guesses(mixture: GaussianMixture, sde: SDE, x: Any, found: Any, units: str) -> Iterator[Guess]:
    D, bit, exact = mixture.dim, math.log(2), mixture.log_prob(x)
    yield "sign-flipped", "it is minus the log density", -exact
    yield "per-dimension", "it is divided by the number of dimensions", exact / D
    if units == "nats":
        yield "bits-for-nats", "it is in bits: divided by ln 2", exact / bit
        yield "bits-per-dimension-for-nats", "it is -log₂ p per dimension", -exact / (D * bit)
    else:
        yield "nats-for-bits", "it is in nats: ln 2 is missing", exact * bit
        yield "not-per-dimension", "it is not divided by the number of dimensions", exact * D
    for t in (0.003, 0.01, 0.03, 0.1, 0.3):
        yield "density-of-noised-data", f"it is the density at t = {t}, of data with that noise", mixture.log_prob(x, sde.alpha(t), sde.sigma(t))
    variance, once = float(sde.prior_std) ** 2, 0.5 * math.log(2 * math.pi)
    offsets = {
        "prior-constant-missing": ("½ D log 2π of the prior is missing", D * once),
        "prior-constant-once": ("½ log 2π of the prior is counted once, and not D times", (D - 1) * once),
        "prior-width-forgotten": ("log σ of the prior is missing", 0.5 * D * math.log(variance)),
    }  # fmt: skip
    for bits in (7, 8):
        for sign, word in ((1, "high"), (-1, "low")):
            offsets[f"offset-of-{bits}-bits"] = (f"it is {bits} bits a dimension too {word}", sign * bits * D * bit)
            yield f"offset-of-{bits}-bits", offsets[f"offset-of-{bits}-bits"][0], exact + sign * bits * D * bit
    for k, word in ((127.5, "127.5"), (255.0, "255"), (2.0, "2")):
        for sign in (1, -1):
            yield f"log-of-{word}-a-dimension", f"it is off by D log {word}: the data's units", exact + sign * D * math.log(k)
    for name, (says, offset) in offsets.items():
        yield name, says, exact + offset
    yield "constant-offset", f"it is off by a constant, {np.mean(found - exact):+.4g} nats", exact + np.mean(found - exact)
    yield from _along_flows(mixture, sde, x, found)


def _along_flows(mixture: GaussianMixture, sde: SDE, x: Any, found: Any) -> Iterator[Guess]:
    """What slips in the prior, the divergence and the flow itself make."""
    D, variance = mixture.dim, float(sde.prior_std) ** 2
    start = 1e-5 if not hasattr(sde, "n") else 1 / sde.n
    drift = D * float(np.log(sde.alpha(1.0) / sde.alpha(start)))
    for factor, flow, why in (
        (1.0, "", ""), (2.0, "half-missing-in-drift", "the flow has g² s, and not ½ g² s"),
        (-1.0, "sign-of-score-in-drift", "the flow has the score with the wrong sign"),
        (0.0, "score-missing-in-drift", "the flow has no score"),
    ):  # fmt: skip
        with np.errstate(all="ignore"):
            y = FixedSteps(sde, 60)(Flow(sde, Scaled(ExactScore(mixture, sde), factor), (D,)), np.concatenate([x, np.zeros((len(x), 1))], axis=1), start, 1.0)
        square, trace = -0.5 * np.sum(y[:, :D] ** 2, axis=1) / variance, y[:, D] - drift
        const = -0.5 * D * math.log(2 * math.pi * variance)
        if flow:
            for c in (1.0, 0.5, -1.0):  # such a flow may expand without end, each solver by its own factor
                rest = const + drift + c * trace
                yield flow, why, rest + np.sum(square * (found - rest)) / np.sum(square**2) * square
            continue
        yield "divergence-sign-flipped", "the integral of the divergence has the wrong sign", const + square - drift - trace
        yield "divergence-missing", "the integral of the divergence is missing", const + square
        yield "drift-divergence-missing", "the divergence f D of the linear drift is missing", const + square + trace
        yield "trace-missing", "the trace of the score's derivative is missing", const + square + drift
        yield "trace-sign-flipped", "the trace of the score's derivative has the wrong sign", const + square + drift - trace
        yield "half-missing-in-divergence", "the divergence has g² tr ∇s, and not ½ g² tr ∇s", const + square + drift + 2 * trace
        yield "drift-divergence-not-summed", "the divergence of the linear drift is f, and not f D", const + square + drift / D + trace
        yield "half-missing-in-prior", "the prior has |x|², and not ½ |x|²", const + 2 * square + drift + trace
        other = -0.5 * D * math.log(2 * math.pi) + variance * square + drift + trace
        yield "prior-of-other-variance", "the prior has variance 1", other
        for name, part, rest in (("drift and all", drift + trace, 0.0), ("the trace", trace, drift)):
            k = float(np.sum(part * (found - const - square - rest)) / np.sum(part * part))
            if abs(k - round(k)) < 0.1 * max(k, 0.0) and round(k) >= 2:
                says = f"the probes are summed and not averaged: {name} counts {round(k)} times"
                yield "probes-summed", says, const + square + rest + round(k) * part
            if 0.05 < k < 0.7 and abs(1 / k - round(1 / k)) < 0.1 / k:
                says = f"the trace is averaged over the dimensions: {name} counts 1/{round(1 / k)}"
                yield "trace-averaged", says, const + square + rest + part / round(1 / k)
