"""Is it the log density?  Anybody's likelihood against the exact one, and against what slips make of it. Chapter 17.

Along the probability flow log p(x) = log N(x₁; 0, ς²) + ∫ f D dt - ½ ∫ g² tr ∇s dt: a constant, a square and an
integral, of which each slip changes one. They are computed along the right flow, and along two wrong ones.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from refscore.clinic.diagnosis import RIGHT, UNKNOWN, WRONG, Cause, Diagnosis
from refscore.clinic.exact import Convention, asked, network, place
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
    for name, says, guess in [] if right else slips(mixture, sde, x, found, units):
        gap = off(guess)
        if gap < min(best[name].error if name in best else math.inf, 0.3 * error):
            best[name] = Cause(name, says, gap)
    causes = sorted(best.values(), key=lambda c: c.error + GOOD * (c.name == "constant-offset"))[
        :3
    ]  # any offset is one
    says = [f"off by {error:.2g} nats (root mean square), by {mean:+.3g} on average"]
    if noise:
        says.append(
            f"it is random: one answer has a deviation of {noise:.2g} nats, the mean of {len(draws)} of {spread:.2g}"
        )
    if not right and not causes and mean < 0 and max(found - exact) < 3 * spread + GOOD:
        says.append("it lies below the density everywhere, as a bound (ELBO) does")
    numbers = {"error": error, "mean": mean, "noise": noise, "found": found.tolist(), "exact": exact.tolist()}
    assumed = (f"the model predicts {predicts} and is told {told}", way.noise, f"the answer is in {units}")
    if right or not causes:
        verdict = RIGHT if right else UNKNOWN if error < 10 * GOOD else WRONG
        return Diagnosis("likelihood", verdict, "log density" if right else "", tuple(says), (), numbers, assumed)
    return Diagnosis("likelihood", WRONG, causes[0].name, (causes[0].says, *says), tuple(causes), numbers, assumed)
