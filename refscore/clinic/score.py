"""Is it the score?  Anybody's function against the exact score of a mixture, level by level. Chapter 17."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from refscore.clinic.diagnosis import RIGHT, UNKNOWN, WRONG, Cause, Diagnosis
from refscore.clinic.exact import Convention, asked, place
from refscore.laws.mixture import GaussianMixture
from refscore.museum.scores import slips
from refscore.protocols import SDE

EXACT = 1e-4  # relative; float32 at the least noise is off by 1e-5
LEARNT = 0.3  # a network may be that far off and be a network


def score(
    fn: Callable[..., Any],
    mixture: GaussianMixture,
    sde: SDE,
    *,
    predicts: str = "score",
    told: str = "time",
    like: Any = None,
    seed: int = 0,
) -> Diagnosis:
    """Whether a function is the score of a mixture under an SDE, how far off it is at each noise level, and why.

    Parameters
    ----------
    fn : callable (x (B, D), label (B,)) -> (B, D)
        The patient: a score, or what `predicts` says.
    mixture : GaussianMixture
        The law of the data, in NumPy.
    sde : SDE
        The noise.
    predicts : str, default "score"
        "score", "noise", "data", "v", "F", "velocity" or "denoiser".
    told : str, default "time"
        What the label is: "index", "time", "sigma" or "log-snr"; see `Convention`.
    like : array, optional
        One of the patient's arrays; NumPy's float64 by default.
    seed : int, default 0
        Of the points.

    Returns
    -------
    Diagnosis
        Of kind "score".

    Raises
    ------
    ValueError
        As `Convention`.

    Examples
    --------
    >>> from refscore import VP, ExactScore
    >>> from refscore.clinic.score import score
    >>> from refscore.laws.examples import mixture
    >>> p, sde = mixture("tilted"), VP()
    >>> score(ExactScore(p, sde), p, sde).verdict
    'right'
    >>> score(lambda x, t: ExactScore(p, sde)(x, 1 - t), p, sde).causes[0].name
    'time-reversed'
    """
    way = Convention(sde, predicts, told)
    rng, times = np.random.default_rng(seed), way.levels(16)
    B, L = 48, len(times)
    t = np.repeat(times, B)
    x0 = mixture.sample(rng, L * B)
    x = sde.alpha(t)[:, None] * x0 + sde.sigma(t)[:, None] * rng.standard_normal(x0.shape)
    far = np.arange(L * B) % 4 == 3
    x = np.where(far[:, None], 3 * x, x)
    label, q = way.label(t), np.empty_like(x)
    for i in range(L):
        at = slice(i * B, (i + 1) * B)
        answer = asked("score", lambda at=at: fn(place(x[at], like), place(label[at], like)), (B, mixture.dim))  # type: ignore[misc]
        if isinstance(answer, Diagnosis):
            return replace(answer, findings=(*answer.findings, f"at t = {times[i]:.4g}"))
        q[at] = answer
    exact = way.exact(mixture, x, t)
    scale = np.sqrt(np.mean(np.sum(exact**2, axis=1).reshape(L, B), axis=1)) + 1e-300

    def off(guess: Any) -> Any:  # (L, B)
        with np.errstate(all="ignore"):
            return np.sqrt(np.sum((q - guess) ** 2, axis=1)).reshape(L, B) / scale[:, None]

    each = off(exact)
    by_level, error = np.sqrt(np.mean(each**2, axis=1)), float(np.sqrt(np.mean(each**2)))
    best: dict[str, Cause] = {}
    for name, says, guess in slips(way, mixture, x, t, q):
        gap = float(np.sqrt(np.mean(off(guess) ** 2)))
        if gap < best.get(name, Cause(name, says, 0.1 * error)).error:
            best[name] = Cause(name, says, gap)
    causes = sorted(best.values(), key=lambda cause: cause.error)[:3]
    worst = int(np.argmax(by_level))
    places = {where: float(np.sqrt(np.mean(each.ravel()[rows] ** 2))) for where, rows in (("near", ~far), ("far", far))}
    says = [
        f"relative error {error:.1e}, the largest {by_level[worst]:.1e} at t = {times[worst]:.3g}",
        f"where the data are {places['near']:.1e}, three times as far out {places['far']:.1e}",
    ]
    numbers = {"error": error, "times": times.tolist(), "error_by_level": by_level.tolist(), **places}
    assumed = (f"it predicts {predicts} and is told {told}", way.noise, "exact means the mixture's own score")
    right = bool(by_level[worst] < EXACT)
    if right or not causes:
        verdict = RIGHT if right else UNKNOWN if error < LEARNT else WRONG
        says += [] if right else ["no single known mistake explains it; a trained network may be that far off"]
        return Diagnosis("score", verdict, predicts if right else "", tuple(says), (), numbers, assumed)
    return Diagnosis("score", WRONG, causes[0].name, (causes[0].says, *says), tuple(causes), numbers, assumed)
