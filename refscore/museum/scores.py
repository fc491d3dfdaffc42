"""Scores as people write them, from a mixture or around a network; and what they wrote instead. Chapter 17.

A specimen takes the law of the data, the SDE and an exact network (None where it needs none) and returns the score.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from refscore.laws.mixture import GaussianMixture
from refscore.museum.mistake import Mistake
from refscore.noise.parametrisation import PARAMETRISATIONS


def of_mixture(mixture: Any, sde: Any, network: Any = None) -> Any:
    """The score of a mixture of diagonal Gaussians, in one function."""
    w, m, C = mixture.weights, mixture.means, mixture.covariances

    def score(x: Any, t: Any) -> Any:
        alpha, sigma = sde.alpha(t)[:, None, None], sde.sigma(t)[:, None, None]
        v = alpha**2 * C + sigma**2
        d = alpha * m - x[:, None, :]
        log_r = np.log(w) - 0.5 * np.sum(d**2 / v + np.log(v), axis=2)
        r = np.exp(log_r - log_r.max(axis=1, keepdims=True))
        r = r / r.sum(axis=1, keepdims=True)
        return np.sum(r[:, :, None] * d / v, axis=1)

    return score


def from_noise(mixture: Any, sde: Any, network: Any) -> Any:
    """The score of a network that predicts the noise at one of N indices."""
    N = sde.n

    def score(x: Any, t: Any) -> Any:
        index = np.rint(t * N).astype(int) - 1
        eps = network(x, index)
        return -eps / sde.sigma(t)[:, None]

    return score


def from_denoiser(mixture: Any, sde: Any, network: Any) -> Any:
    """The score of EDM's D(x, σ), told σ."""

    def score(x: Any, sigma: Any) -> Any:
        D = network(x, sigma)
        return (D - x) / sigma[:, None] ** 2

    return score


def from_v(mixture: Any, sde: Any, network: Any) -> Any:
    """The score of a network that predicts v = α z - σ x₀."""

    def score(x: Any, t: Any) -> Any:
        alpha, sigma = sde.alpha(t)[:, None], sde.sigma(t)[:, None]
        v = network(x, t)
        eps = sigma * x + alpha * v
        return -eps / sigma

    return score


SPECIMENS = (of_mixture, from_noise, from_denoiser, from_v)

MISTAKES = (
    Mistake(
        "mean-not-scaled",
        "score",
        "alpha * m - x",
        "m - x",
        "the means of the data are not scaled by α",
        "samples spread out too far; the error grows with the noise",
        "textbook",
    ),
    Mistake(
        "width-forgotten",
        "score",
        "alpha**2 * C + sigma**2",
        "sigma**2",
        "the data's own variance is forgotten beside σ²",
        "modes collapse to points",
        "ermongroup/ncsn, GMMDistAnneal",
    ),
    Mistake(
        "width-not-scaled",
        "score",
        "alpha**2 * C",
        "C",
        "the data's variance is not scaled by α²",
        "scores are too small in the middle of the way",
        "textbook",
    ),
    Mistake(
        "weights-ignored",
        "score",
        "np.log(w) - 0.5",
        "-0.5",
        "the weights of the modes are ignored",
        "every mode gets as many samples",
        "textbook",
    ),
    Mistake(
        "modes-without-volume",
        "score",
        "d**2 / v + np.log(v)",
        "d**2 / v",
        "the modes are weighed without the normalisers of their Gaussians",
        "wide modes take samples from narrow ones",
        "ermongroup/ncsn, gmm.py",
    ),
    Mistake(
        "sign-flipped",
        "score",
        "d / v, axis=1)",
        "-d / v, axis=1)",
        "the sign is wrong",
        "samples fly apart",
        "kamenbliznashki and others: energy and log density exchanged",
    ),
    Mistake(
        "sign-flipped",
        "score",
        "-eps / sde",
        "eps / sde",
        "the sign is wrong",
        "samples fly apart",
        "SheffieldML and others: ε points away from the data",
    ),
    Mistake(
        "not-divided-by-sigma",
        "score",
        "-eps / sde.sigma(t)[:, None]",
        "-eps",
        "the noise is given where a score is wanted: a division by σ is missing",
        "hardly any denoising at the end",
        "sp-uhh/sgmse#65; yang-song/score_sde_pytorch#49",
    ),
    Mistake(
        "divided-by-sigma-again",
        "score",
        "sde.sigma(t)[:, None]",
        "sde.sigma(t)[:, None] ** 2",
        "it is divided by σ² where σ is meant",
        "the last steps overshoot and diverge",
        "yang-song/score_sde_pytorch#26",
        only=("from_noise",),
    ),
    Mistake(
        "one-index-late",
        "score",
        ".astype(int) - 1",
        ".astype(int).clip(0, N - 1)",
        "the index is one too large",
        "nothing in pictures: 4e-3 of the score",
        "lucidrains/denoising-diffusion-pytorch#81",
    ),
    Mistake(
        "time-reversed",
        "score",
        "network(x, index)",
        "network(x, N - 1 - index)",
        "the network is told N - 1 - i",
        "noise comes out as it went in",
        "ermongroup/ncsn counts levels downwards, DDPM upwards",
    ),
    Mistake(
        "not-divided-by-sigma",
        "score",
        "sigma[:, None] ** 2",
        "sigma[:, None]",
        "D(x) - x is divided by σ where σ² is meant",
        "steps are σ times what they should be",
        "crowsonkb/k-diffusion to_d",
        only=("from_denoiser",),
    ),
    Mistake(
        "sign-of-x",
        "score",
        "sigma * x + alpha * v",
        "alpha * v - sigma * x",
        "v → ε has the wrong sign of x",
        "grey pictures",
        "huggingface/diffusers PR#1421",
    ),
    Mistake(
        "it-is-v",
        "score",
        "eps = sigma * x + alpha * v",
        "eps = v",
        "v is used where ε is meant",
        "right at the least noise only",
        "huggingface/diffusers#1733",
    ),
)

# ------------------------------------------------------------------ what slips make of the score

Guess = tuple[str, str, Any]  # name, sentence, what such a patient would say
_POWERS = {
    (1, 0): ("not-divided-by-sigma", "it is σ times too large: a division by σ is missing"),
    (2, 0): ("not-divided-by-variance", "it is σ² times too large: a division by σ² is missing"),
    (-1, 0): ("divided-by-sigma-again", "it is divided by σ once too often: σ² where σ is meant"),
    (-2, 0): ("divided-by-variance-again", "it is divided by σ² once too often"),
    (0, 1): ("alpha-too-many", "it is α times too large"),
    (0, -1): ("alpha-missing", "a factor α is missing"),
}


def slips(way: Any, mixture: GaussianMixture, x: Any, t: Any, q: Any) -> Iterator[Guess]:
    """What a patient says who makes one slip: name, sentence and answer to x (B, D) at t (B,); `q` is what it says.

    `way` is the clinic's `TimeConvention`.
    """
    yield from _guesses(way, mixture, x, t)
    yield from _scaled(way, way.exact(mixture, x, t), q, t)
    yield from _other_time(way, mixture, x, t, q)


def _guesses(way: Any, mixture: GaussianMixture, x: Any, t: Any) -> Iterator[Guess]:
    """What it would say if it were another quantity, or made from one wrongly, or of a mixture with a slip."""
    exact = way.exact(mixture, x, t)
    yield "sign-flipped", "its sign is wrong", -exact
    mine, (a2, b2) = "data" if way.predicts == "denoiser" else way.predicts, _columns(way, t)
    for name in PARAMETRISATIONS:
        other, (a, b) = way.exact(mixture, x, t, name), _columns(way, t, name)
        with np.errstate(all="ignore"):
            yield f"it-is-minus-{name}", f"it is minus the {name}", -other
            yield (
                "sign-of-x",
                f"on the way from {name} to {mine} x has the wrong sign",
                a2 * x + b2 / b * (other + a * x),
            )
            for used in PARAMETRISATIONS:
                if used != name:
                    a, b = _columns(way, t, used)
                    says = (
                        f"the {name} is used as if it were the {used}"
                        if used != mine
                        else f"it is the {name}, and not the {mine}"
                    )
                    yield f"it-is-{name}", says, a2 * x + b2 / b * (other - a * x)
    alpha, sigma, one, C = way.sde.alpha(t), way.sde.sigma(t), np.ones_like(t), mixture.covariances
    equal = GaussianMixture(np.full_like(mixture.weights, 1 / mixture.n_components), mixture.means, C)
    points = GaussianMixture(mixture.weights, mixture.means, np.zeros_like(C))
    volume = "the modes are weighed without the normalisers of their Gaussians"
    for name, says, other in (
        ("mean-not-scaled", "the means of the data are not scaled by α", _each(mixture, x, alpha, sigma, 1, 0)),
        ("width-not-scaled", "the data's variance is not scaled by α²", _each(mixture, x, alpha, sigma, 0, 1)),
        ("data-not-scaled", "the data are not scaled by α", mixture.score(x, one, sigma)),
        ("modes-without-volume", volume, _each(mixture, x, alpha, sigma)),
        ("width-forgotten", "the data's own variance is forgotten beside σ²", points.score(x, alpha, sigma)),
        ("weights-ignored", "the weights of the modes are ignored", equal.score(x, alpha, sigma)),
        ("x-not-scaled", "x is not divided by α", mixture.score(x, one, sigma / alpha) / alpha[:, None]),
    ):
        yield name, says, a2 * x + b2 * other


def _columns(way: Any, t: Any, predicts: str | None = None) -> tuple[Any, Any]:
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
        found[rows] = GaussianMixture(w, p.means if mean else m, (1 if width else a**2) * p.covariances).score(
            x[rows], 1.0, s
        )
    return found


def _scaled(way: Any, exact: Any, q: Any, t: Any) -> Iterator[Guess]:
    """A factor c σ^k α^l: by least squares at each level, then in the logarithms."""
    times = np.unique(t)
    c = np.asarray([np.sum(q[t == s] * exact[t == s]) / np.sum(exact[t == s] ** 2) for s in times])
    log_sigma, log_alpha = (np.log(f(times)) for f in (way.sde.sigma, way.sde.alpha))
    for (k, m), (name, says) in _POWERS.items():
        if m == 0 or np.ptp(log_alpha) > 0:
            factor = np.exp(k * np.log(way.sde.sigma(t)) + m * np.log(way.sde.alpha(t)))
            yield name, says, factor[:, None] * exact
    if np.all(c > 0) and np.std(np.log(c)) < 0.3:
        times_exact = float(np.exp(np.mean(np.log(c))))
        yield "constant-factor", f"it is {times_exact:.4g} times too large, at every level", times_exact * exact
    A = np.stack([np.ones_like(times), log_sigma, log_alpha], axis=1)
    if np.all(c > 0):
        const, p, r = (float(v) for v in np.linalg.lstsq(A, np.log(c), rcond=None)[0])
        yield (
            "power-of-noise", f"it is {math.exp(const):.3g} σ^{p:.2f} α^{r:.2f} times too large",
            np.exp(const + p * np.log(way.sde.sigma(t)) + r * np.log(way.sde.alpha(t)))[:, None] * exact,
        )  # fmt: skip


def _other_time(way: Any, mixture: GaussianMixture, x: Any, t: Any, q: Any) -> Iterator[Guess]:
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
        rows, tries = np.flatnonzero(t == s)[:12], way.levels(200, 1e-5)
        many = way.exact(mixture, np.repeat(x[rows], tries.size, axis=0), np.tile(tries, rows.size))
        gap = np.sum((many.reshape(-1, tries.size, x.shape[1]) - q[rows][:, None, :]) ** 2, axis=(0, 2))
        fitted[t == s] = tries[int(np.argmin(gap))]
    some = ", ".join(f"{s:.3g} -> {fitted[t == s][0]:.3g}" for s in np.unique(t)[::5])
    yield (
        "another-time",
        f"at each level it is nearest to the exact answer of another time: {some}",
        way.exact(mixture, x, fitted),
    )
