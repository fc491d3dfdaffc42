"""Is it the log density?  Anybody's likelihood against the exact one, and against what slips make of it. Chapter 17.

Along the probability flow log p(x) = log N(x₁; 0, ς²) + ∫ f D dt - ½ ∫ g² tr ∇s dt: a constant, a square and an
integral, of which each slip changes one. They are computed along the right flow, and along two wrong ones.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from refscore.clinic.arrays import place
from refscore.clinic.diagnosis import RIGHT, UNKNOWN, WRONG, Diagnosis
from refscore.clinic.exact import TimeConvention, asked, network, ranked
from refscore.clinic.replay import replayed
from refscore.laws.mixture import GaussianMixture
from refscore.museum.likelihoods import slips
from refscore.protocols import SDE

GOOD = 0.05  # nats, root mean square: what a solver of 50 steps and a prior leave
ROWS, REPEATS = 16, 4


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
        What its label is: "index", "time", "sigma" or "log-snr"; see `TimeConvention`.
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
        As `TimeConvention`; for other units.

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
    way = TimeConvention(sde, predicts, told)
    if units not in ("nats", "bits"):
        raise ValueError(f'units must be "nats" or "bits" (per dimension), got {units!r}')
    x, D = mixture.sample(np.random.default_rng(seed), ROWS), mixture.dim
    model, given, draws = network(way, mixture, like), place(x, like), []
    for i in range(REPEATS):
        draws.append(asked("likelihood", partial(replayed, fn, seed + i, model, given), (ROWS,)))
        if isinstance(draws[-1], Diagnosis):
            return draws[-1]
        if i == 1 and np.array_equal(*draws):  # it draws nothing
            break
    unit = 1.0 if units == "nats" else -D * math.log(2)
    found, noise = np.mean(draws, axis=0) * unit, float(np.mean(np.std(draws, axis=0))) * abs(unit)
    spread, exact = noise / math.sqrt(len(draws) - 1), np.asarray(mixture.log_prob(x))

    def off(guess: Any) -> float:
        with np.errstate(all="ignore"):
            gap = float(np.sqrt(np.mean((found - guess) ** 2)))
        return gap if math.isfinite(gap) else math.inf

    error, mean = off(exact), float(np.mean(found - exact))
    right = error < GOOD + 3 * spread
    causes = ranked(() if right else slips(mixture, way.sde, x, found, units), off, max(0.3 * error, 2 * spread))
    lines = [cause.says for cause in causes[:1]]
    lines.append(f"off by {error:.2g} nats (root mean square), by {mean:+.3g} on average")
    if noise:
        lines.append(f"it is random: one answer varies by {noise:.2g} nats, the mean of {len(draws)} by {spread:.2g}")
    if not (right or causes) and np.max(found - exact) < 3 * spread + GOOD:
        lines.append("it lies below the density everywhere, as a bound (ELBO) does")
    numbers = {"error": error, "mean": mean, "noise": noise, "found": found.tolist(), "exact": exact.tolist()}
    assumed = (f"the model predicts {predicts} and is told {told}", way.noise, f"the answer is in {units}")
    verdict = RIGHT if right else WRONG if causes or error > 10 * GOOD else UNKNOWN
    name = "log density" if right else causes[0].name if causes else ""
    return Diagnosis("likelihood", verdict, name, tuple(lines), tuple(causes), numbers, assumed)
