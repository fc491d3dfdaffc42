"""Is it the score?  Anybody's function against the exact score of a mixture, level by level. Chapter 17."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from refscore.clinic.diagnosis import RIGHT, UNKNOWN, WRONG, Cause, Diagnosis
from refscore.clinic.exact import Convention, asked, levels, place
from refscore.laws.mixture import GaussianMixture
from refscore.noise.parametrisation import PARAMETRISATIONS
from refscore.protocols import SDE

EXACT = 1e-4  # relative; float32 at the least noise is off by 1e-5
LEARNT = 0.3  # a network may be that far off and be a network
POWERS = {
    (1, 0): ("not-divided-by-sigma", "it is σ times too large: a division by σ is missing"),
    (2, 0): ("not-divided-by-variance", "it is σ² times too large: a division by σ² is missing"),
    (-1, 0): ("divided-by-sigma-again", "it is divided by σ once too often: σ² where σ is meant"),
    (-2, 0): ("divided-by-variance-again", "it is divided by σ² once too often"),
    (0, 1): ("alpha-too-many", "it is α times too large"),
    (0, -1): ("alpha-missing", "a factor α is missing"),
}
Guess = tuple[str, str, Any]  # name, sentence, what such a patient would say


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
    rng, times = np.random.default_rng(seed), levels(sde, 16)
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
    guesses = [*_guesses(way, mixture, x, t), *_scaled(way, exact, q, t), *_other_time(way, mixture, x, t, q)]
    best: dict[str, Cause] = {}
    for name, says, guess in guesses:
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


def _guesses(way: Convention, mixture: GaussianMixture, x: Any, t: Any) -> Iterator[Guess]:
    """What it would say if it were another quantity, or made from one wrongly, or of a mixture with a slip."""
    exact = way.exact(mixture, x, t)
    yield "sign-flipped", "its sign is wrong", -exact
    mine, (a2, b2) = "data" if way.predicts == "denoiser" else way.predicts, _columns(way, t)
    for name in PARAMETRISATIONS:
        other, (a, b) = way.exact(mixture, x, t, name), _columns(way, t, name)
        with np.errstate(all="ignore"):
            yield f"it-is-minus-{name}", f"it is minus the {name}", -other
            yield "sign-of-x", f"on the way from {name} to {mine} x has the wrong sign", a2 * x + b2 / b * (other + a * x)
            for used in PARAMETRISATIONS:
                if used != name:
                    a, b = _columns(way, t, used)
                    says = f"the {name} is used as if it were the {used}" if used != mine else f"it is the {name}, and not the {mine}"
                    yield f"it-is-{name}", says, a2 * x + b2 / b * (other - a * x)
    alpha, sigma, one, C = way.sde.alpha(t), way.sde.sigma(t), np.ones_like(t), mixture.covariances
    equal = np.full_like(mixture.weights, 1 / mixture.n_components)
    for name, says, other in (
        ("mean-not-scaled", "the means of the data are not scaled by α", _each(mixture, x, alpha, sigma, 1, 0)),
        ("width-not-scaled", "the data's variance is not scaled by α²", _each(mixture, x, alpha, sigma, 0, 1)),
        ("data-not-scaled", "the data are not scaled by α", mixture.score(x, one, sigma)),
        ("modes-without-volume", "the modes are weighed without the normalisers of their Gaussians", _each(mixture, x, alpha, sigma)),
        ("width-forgotten", "the data's own variance is forgotten beside σ²", GaussianMixture(mixture.weights, mixture.means, 0 * C).score(x, alpha, sigma)),
        ("weights-ignored", "the weights of the modes are ignored", GaussianMixture(equal, mixture.means, C).score(x, alpha, sigma)),
        ("x-not-scaled", "x is not divided by α", mixture.score(x, one, sigma / alpha) / alpha[:, None]),
    ):  # fmt: skip
        yield name, says, a2 * x + b2 * other


def _columns(way: Convention, t: Any, predicts: str | None = None) -> tuple[Any, Any]:
    a, b = way.affine(t, predicts)
    return a[:, None], b[:, None]


def _each(p: GaussianMixture, x: Any, alpha: Any, sigma: Any, mean: int | None = None, width: int = 0) -> Any:
    """The score level by level, with means or variances not scaled by α; or with √det S_k in the weights."""
    found = np.empty_like(x)
    for a, s in np.unique(np.stack([alpha, sigma], axis=1), axis=0).tolist():
        rows, m, w = (alpha == a) & (sigma == s), a * p.means, p.weights
        if mean is None:
            log_w = np.log(w) + 0.5 * np.sum(np.log(np.broadcast_to(a**2 * p.variances + s**2, p.means.shape)), axis=1)
            w = np.exp(log_w - log_w.max()) / np.sum(np.exp(log_w - log_w.max()))
        found[rows] = GaussianMixture(w, p.means if mean else m, (1 if width else a**2) * p.covariances).score(x[rows], 1.0, s)
    return found


def _scaled(way: Convention, exact: Any, q: Any, t: Any) -> Iterator[Guess]:
    """A factor c σ^k α^l: by least squares at each level, then in the logarithms."""
    times = np.unique(t)
    c = np.asarray([np.sum(q[t == s] * exact[t == s]) / np.sum(exact[t == s] ** 2) for s in times])
    log_sigma, log_alpha = (np.log(f(times)) for f in (way.sde.sigma, way.sde.alpha))
    for (k, m), (name, says) in POWERS.items():
        if m == 0 or np.ptp(log_alpha) > 0:
            factor = np.exp(k * np.log(way.sde.sigma(t)) + m * np.log(way.sde.alpha(t)))
            yield name, says, factor[:, None] * exact
    if np.all(c > 0) and np.std(np.log(c)) < 0.3:
        k = float(np.exp(np.mean(np.log(c))))
        yield "constant-factor", f"it is {k:.4g} times too large, at every level", k * exact
    A = np.stack([np.ones_like(times), log_sigma, log_alpha], axis=1)
    if np.all(c > 0):
        const, k, m = np.linalg.lstsq(A, np.log(c), rcond=None)[0]
        yield (
            "power-of-noise", f"it is {math.exp(const):.3g} σ^{k:.2f} α^{m:.2f} times too large",
            np.exp(const + k * np.log(way.sde.sigma(t)) + m * np.log(way.sde.alpha(t)))[:, None] * exact,
        )  # fmt: skip


def _other_time(way: Convention, mixture: GaussianMixture, x: Any, t: Any, q: Any) -> Iterator[Guess]:
    """What it would say at a time other than it was told."""
    N = getattr(way.sde, "n", 1000)
    ratio = np.log(way.sde.sigma(t) / way.sde.alpha(t))
    with np.errstate(all="ignore"):
        maps = {
            "one-index-late": ("it is the answer of one index later", t + 1 / N),
            "one-index-early": ("it is the answer of one index earlier", t - 1 / N),
            "time-reversed": ("time runs the other way: it is exact at 1 - t", 1 - t + (way.told == "index") / N),
            "time-squared": ("it is exact at t²", t**2),
            "root-of-time": ("it is exact at √t", np.sqrt(t)),
            "time-for-sigma": ("its time is used as σ", way.sde.time_at_log_ratio(np.log(t))),
            "variance-for-sigma": ("σ² is used as σ", way.sde.time_at_log_ratio(2 * ratio)),
            "sigma-for-time": ("σ is used as the time", np.exp(ratio)),
        }  # fmt: skip
        (a2, b2), same = _columns(way, t), {way.predicts, "noise", "data", "v"}
        for name, (says, other) in maps.items():
            if np.all(np.abs(other) < 10):
                then = np.clip(other, 1e-6 if N == 1000 else 1 / N, 1.0)
                for via in sorted(same):
                    a, b = _columns(way, t, via)
                    yield name, says + f", in its {via}", a2 * x + b2 / b * (way.exact(mixture, x, then, via) - a * x)
    fitted = np.empty_like(t)
    for s in np.unique(t):
        rows, tries = t == s, levels(way.sde, 200, 1e-5)
        many = way.exact(mixture, np.repeat(x[rows], tries.size, axis=0), np.tile(tries, int(rows.sum())))
        gap = np.sum((many.reshape(-1, tries.size, x.shape[1]) - q[rows][:, None, :]) ** 2, axis=(0, 2))
        fitted[rows] = tries[int(np.argmin(gap))]
    some = ", ".join(f"{s:.3g} -> {fitted[t == s][0]:.3g}" for s in np.unique(t)[::5])
    yield "another-time", f"at each level it is nearest to the exact answer of another time: {some}", way.exact(mixture, x, fitted)
