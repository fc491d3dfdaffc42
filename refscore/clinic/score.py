"""Is it the score?  Anybody's function against the exact score of a mixture, level by level. Chapter 17."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from refscore.clinic.arrays import place
from refscore.clinic.diagnosis import RIGHT, UNKNOWN, WRONG, Diagnosis
from refscore.clinic.exact import TimeConvention, asked, ranked
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
        What the label is: "index", "time", "sigma" or "log-snr"; see `TimeConvention`.
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
        As `TimeConvention`.

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
    way = TimeConvention(sde, predicts, told)
    rng, times = np.random.default_rng(seed), way.levels(16)
    B, L = 48, len(times)
    t = np.repeat(times, B)
    x0 = mixture.sample(rng, L * B)
    x = way.sde.alpha(t)[:, None] * x0 + way.sde.sigma(t)[:, None] * rng.standard_normal(x0.shape)
    far = np.arange(L * B) % 4 == 3
    x = np.where(far[:, None], 3 * x, x)
    label, q = way.label(t), np.empty_like(x)
    for i in range(L):
        at = slice(i * B, (i + 1) * B)
        given = place(x[at], like), place(label[at], like)
        answer = asked("score", partial(fn, *given), (B, mixture.dim))
        if isinstance(answer, Diagnosis):
            return replace(answer, findings=(*answer.findings, f"at t = {times[i]:.4g}"))
        q[at] = answer
    exact = way.exact(mixture, x, t)
    scale = np.sqrt(np.mean(np.sum(exact**2, axis=1).reshape(L, B), axis=1, keepdims=True)) + 1e-300

    def off(guess: Any) -> Any:  # (L, B)
        with np.errstate(all="ignore"):
            return np.sqrt(np.sum((q - guess) ** 2, axis=1)).reshape(L, B) / scale

    each = off(exact)
    by_level, error = _rms(each, axis=1), float(_rms(each))
    right, worst = bool(np.max(by_level) < EXACT), int(np.argmax(by_level))
    guesses = () if right else slips(way, mixture, x, t, q)
    causes = ranked(guesses, lambda guess: float(_rms(off(guess))), 0.1 * error)
    near, beyond = (float(_rms(each.ravel()[rows])) for rows in (~far, far))
    lines = [cause.says for cause in causes[:1]] + [
        f"relative error {error:.1e}, the largest {by_level[worst]:.1e} at t = {times[worst]:.3g}",
        f"where the data are {near:.1e}, three times as far out {beyond:.1e}",
    ]
    if not (right or causes):
        lines.append("no single known mistake explains it; a trained network may be that far off")
    numbers = {
        "error": error,
        "near": near,
        "far": beyond,
        "times": times.tolist(),
        "error_by_level": by_level.tolist(),
    }
    assumed = (f"it predicts {predicts} and is told {told}", way.noise, "exact means the mixture's own score")
    verdict = RIGHT if right else WRONG if causes or error > LEARNT else UNKNOWN
    name = predicts if right else causes[0].name if causes else ""
    return Diagnosis("score", verdict, name, tuple(lines), tuple(causes), numbers, assumed)


def _rms(a: Any, axis: int | None = None) -> Any:
    return np.sqrt(np.mean(a**2, axis=axis))
