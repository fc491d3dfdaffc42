"""What does this loss minimise?  Weight, target, noise and times of anybody's loss, read from its answers. Chapter 17.

With its random numbers replayed, a loss is asked again with other data and other predictions. If it is what it should
be, x_t = α x₀ + S with S = σ z, and the loss is quadratic in the prediction q of each row,

    L = Σ_b w_b ‖q_b - τ_b‖² + ...,     τ_b = A_b x₀ + C_b S_b

so that α is read from two calls with different x₀; w and τ from the first and second differences in q. For each target
A and C are known: q = a x_t + b s at s = -S/σ², hence A = a α and C = a - b/σ².
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from refscore.clinic.diagnosis import RIGHT, UNKNOWN, WRONG, Cause, Diagnosis
from refscore.clinic.exact import Convention, failed, host, place
from refscore.clinic.replay import replayed
from refscore.noise.parametrisation import PARAMETRISATIONS
from refscore.protocols import SDE

B, DRAWS, BATCH = 24, 8, 4096  # rows that are probed one by one; batches that only show times and noise
H = 30.0  # step of the differences, large: they are exact for squares, and rounding is small beside them
SAME = 1e-3  # float32 inside
Pair = tuple[Any, Any]


@dataclass(frozen=True)
class Seen:
    """What one call of a loss showed: x_t (B, D), labels (B,), the value summed."""

    x: Any
    label: Any
    value: float
    size: int


class Odd(Exception):
    """A patient that cannot be asked; args are the name and the sentence of the cause."""


def loss(
    fn: Callable[..., Any],
    sde: SDE,
    *,
    predicts: str = "noise",
    told: str = "time",
    shape: tuple[int, ...] = (5,),
    like: Any = None,
    seed: int = 0,
) -> Diagnosis:
    """Which noise, target, weight and law of times a loss uses, and what is wrong with them.

    Parameters
    ----------
    fn : callable (model, x0 (B, ...)) -> loss
        The patient: draws its own times and noise, calls `model(x_t, label)`, and returns a number or one a sample.
    sde : SDE
        The noise that it should use.
    predicts : str, default "noise"
        What the model predicts: "score", "noise", "data", "v", "velocity" or "denoiser".
    told : str, default "time"
        What its label is: "index", "time", "sigma" or "log-snr"; see `Convention`.
    shape : tuple of int, default (5,)
        The shape of one sample.
    like : array, optional
        One of the patient's arrays; NumPy's float64 by default.
    seed : int, default 0
        Of the data, and of the patient's draws.

    Returns
    -------
    Diagnosis
        Of kind "loss".

    Raises
    ------
    ValueError
        As `Convention`.

    Examples
    --------
    >>> import numpy as np
    >>> from refscore import VP
    >>> from refscore.clinic.loss import loss
    >>> sde = VP()
    >>> def mine(model, x0):
    ...     t = np.random.rand(len(x0))
    ...     z = np.random.randn(*x0.shape)
    ...     x = sde.alpha(t)[:, None] * x0 + sde.sigma(t)[:, None] * z
    ...     return np.mean((model(x, t) - z) ** 2)
    >>> loss(mine, sde).name
    'noise, λ = σ²'
    """
    way, rng = Convention(sde, predicts, told), np.random.default_rng(seed)
    assumed = (f"the model predicts {predicts} and is told {told}", way.noise)
    D = math.prod(shape)

    def ask(x0: Any, q: Any = None, draw: int = seed) -> Seen:
        calls: list[tuple[Any, Any]] = []

        def model(x: Any, label: Any, *_: Any, **__: Any) -> Any:
            calls.append((host(x), host(label)))
            return place(np.zeros(calls[-1][0].shape) if q is None else q.reshape(calls[-1][0].shape), x)

        value = host(replayed(fn, draw, model, place(x0.reshape(-1, *shape), like)))
        if not calls:
            raise Odd("model-not-called", "it never calls the model")
        x, label = calls[-1]
        if x.size != x0.size or label.size not in (1, len(x0)):
            raise Odd("wrong-shape", f"for x0 {(len(x0), *shape)} the model gets x {x.shape} and labels {label.shape}")
        if not (np.isfinite(x).all() and np.isfinite(value).all()):
            raise Odd("not-finite", "the noised samples or the loss are not finite")
        return Seen(x.reshape(-1, D), np.broadcast_to(label.ravel(), (len(x0),)), float(value.sum()), value.size)

    try:
        X, nothing = rng.standard_normal((B, D)), np.zeros((B, D))
        seen, bare = ask(X), ask(nothing)
        if not np.array_equal(ask(X).x, seen.x):
            says = "its random numbers could not be repeated: give it a generator that it holds, or a global one"
            return Diagnosis("loss", UNKNOWN, "", (says,), (), {}, assumed)
        S, shown = bare.x, seen.x - bare.x
        d = S / (np.linalg.norm(S, axis=1, keepdims=True) + 1e-300) + X / np.linalg.norm(X, axis=1, keepdims=True)
        (w, to_X, bent), (_, to_0, _) = (_probe(ask, x0, d) for x0 in (X, nothing))
        many = [ask(np.zeros((BATCH, D)), draw=seed + 1 + i) for i in range(DRAWS)]
    except Odd as odd:
        return failed("loss", *odd.args, assumed)
    except Exception as error:  # a patient may raise anything
        return failed("loss", "raises", f"it raises {type(error).__name__}: {error}", assumed)

    if not S.any():
        clean = bool(np.allclose(seen.x, X))
        name, says = ("model-sees-clean-data", "the model is given x₀, and not x_t") if clean else ("no-noise", "no noise is added to the data")
        return failed("loss", name, says, assumed)
    with np.errstate(all="ignore"):
        alpha = np.sum(shown * X, axis=1) / np.sum(X * X, axis=1)
        C, A = to_0 / np.sum(d * S, axis=1), (to_X - to_0) / np.sum(d * X, axis=1)
    causes = [*_of_times(way, many), *_of_noise(many)]
    if np.max(np.abs(shown - alpha[:, None] * X)) > SAME * np.max(np.abs(shown)):
        causes.append(Cause("rows-mixed", "x_t is not α x₀ and noise of the same sample", 1.0))
    if bent > SAME:
        causes.append(Cause("not-squared", "it is no squared error of each row: its minimum is not the mean", bent))
    if np.min(w) <= 0:
        causes.append(Cause("weight-not-positive", "some levels have weight 0 or less: nothing is learnt there", 1.0))
    name, error, found = _of_target(way, seen.label, alpha, A, C, many)
    causes += found
    t = np.clip(way.time(seen.label), 1e-12, 1.0)
    weight, constant, factor, found = _of_weight(way, t, w, D)
    causes += found
    reduction = f"{factor}, {'one number a sample' if seen.size == B else 'one number'}"
    says = [f"target {name}, to {error:.1e}", f"weight λ = {weight}; {reduction}"]
    lowest, highest = min(m.label.min() for m in many), max(m.label.max() for m in many)
    says.append(f"labels from {lowest:.4g} to {highest:.4g}, {_law(np.concatenate([m.label for m in many]), told)}")
    numbers: dict[str, Any] = {"error": error, "constant": constant, "times": t.tolist(), "weights": w.tolist()}
    if not causes and weight in _weights(way, t):
        numbers |= _floor(ask, way, weight, constant, X, seed)
        says.append("the exact model of data N(0, I) loses {loss:.4g} ± {loss_error:.1g}, the floor is {floor:.4g}".format(**numbers))
        if abs(numbers["loss"] - numbers["floor"]) > 6 * numbers["loss_error"] + SAME * numbers["floor"]:
            causes.append(Cause("not-at-the-floor", "the exact model does not reach the floor", 1.0))
    causes = sorted({c.name: c for c in causes}.values(), key=lambda c: c.error)[:3]
    title = f"{name}, λ = {weight}"
    if causes:
        return Diagnosis("loss", WRONG, title, (causes[0].says, *says), tuple(causes), numbers, assumed)
    return Diagnosis("loss", RIGHT if weight in _weights(way, t) else UNKNOWN, title, tuple(says), (), numbers, assumed)


def _probe(ask: Callable[..., Seen], x0: Any, d: Any) -> tuple[Any, Any, float]:
    """w (B,) and d·τ (B,) of each row, and by how much it is not a sum of squares of rows."""
    rest = ask(x0).value
    up, down = (np.asarray([ask(x0, s * H * d * (np.arange(B) == b)[:, None]).value for b in range(B)]) for s in (1, -1))
    slope, bend = (up - down) / (2 * H), (up + down - 2 * rest) / H**2
    w = bend / (2 * np.sum(d * d, axis=1))
    with np.errstate(all="ignore"):
        tau = np.where(w == 0, np.nan, -slope / (2 * w))
    whole = ask(x0, 2 * H * d).value - rest
    squares = np.sum(2 * H * slope + 2 * H**2 * bend)
    return w, tau, float(abs(whole - squares) / (np.sum(np.abs(2 * H**2 * bend)) + 1e-300))


def _levels(way: Convention, t: Any) -> Iterator[tuple[str, str, Pair]]:
    """α and σ that a patient may use who should use those of t."""
    sde, N = way.sde, getattr(way.sde, "n", None)

    def at(s: Any) -> Pair:
        s = np.clip(s, 1e-9, 1.0)
        return sde.alpha(s), sde.sigma(s)

    alpha, sigma = at(t)
    yield "", "", (alpha, sigma)
    if N:
        yield "one-index-late", "x has the noise of one index more than the model is told", at(t + 1 / N)
        yield "one-index-early", "x has the noise of one index less than the model is told", at(t - 1 / N)
        step = alpha / sde.alpha(np.clip(t - 1 / N, 0.0, 1.0))
        yield "single-step", "x has the noise of one step, √(1 - β) and √β, and not of all up to t", (step, np.sqrt(1 - step**2))
        yield "single-step", "x has the noise of one step, with β for √β", (step, 1 - step**2)
    yield "time-reversed", "x has the noise of the other end of the time", at(1 - t + (1 / N if N else 0.0))
    yield "root-of-alpha-missing", "x₀ is scaled by ᾱ = α² and not by its root", (alpha**2, sigma)
    yield "root-of-sigma-missing", "the noise is scaled by σ² and not by its root", (alpha, sigma**2)
    yield "roots-missing", "x₀ and the noise are scaled by α² and σ² and not by their roots", (alpha**2, sigma**2)
    yield "alpha-and-sigma-exchanged", "α and σ are exchanged", (sigma, alpha)
    yield "alpha-forgotten", "x₀ is not scaled by α", (np.ones_like(t), sigma)
    yield "sigma-forgotten", "the noise is not scaled by σ", (alpha, np.ones_like(t))


def _targets(way: Convention, t: Any, used: Pair) -> Iterator[tuple[str, str, Pair]]:
    """A and C of what a patient may regress on, who noised with `used`; the right one first."""
    alpha, sigma = used
    mine = "data" if way.predicts == "denoiser" else way.predicts
    zero, one, right = 0 * t, np.ones_like(t), way.sde.sigma(np.clip(t, 1e-9, 1.0))
    a, b = way.affine(t, "velocity")
    found = {
        "noise": (zero, 1 / sigma), "data": (one, zero), "score": (zero, -1 / sigma**2),
        "v": (-sigma, alpha / sigma), "velocity": (a * way.sde.alpha(t), (a - b / right**2) * right / sigma),
    }  # fmt: skip
    yield "", "", found[mine]
    for name, (A, C) in found.items():
        if name != mine:
            yield f"target-is-{name}", f"the model should predict {mine}, and is held to the {name}", (A, C)
            yield f"target-is-minus-{name}", f"the model is held to minus the {name}", (-A, -C)
    A, C = found[mine]
    yield "target-sign-flipped", "the sign of the target is wrong", (-A, -C)
    yield "target-noise-scaled", "the target is σ z, the noise that was added, and not z", (zero, one)
    yield "target-not-divided", "the target is -z, and is not divided by σ", (zero, -1 / sigma)
    yield "target-divided-again", "the target is divided by σ once too often", (A / sigma, C / sigma)
    if mine in ("v", "velocity"):
        yield "target-sign-of-one-term", "one of the two terms of the target has the wrong sign", (-A, C)
    yield "target-exchanged", "x₀ and the noise are exchanged in the target", (alpha, -one)
    yield "target-is-x", "the target is x_t itself", (alpha, one)
    yield "target-of-the-right-noise", "", (zero, -1 / (sigma * right))


def _of_target(way: Convention, label: Any, alpha: Any, A: Any, C: Any, many: list[Seen]) -> tuple[str, float, list[Cause]]:
    """Name of the target and how well it fits; causes where another noise or target fits better."""
    t = way.time(label)
    inside = bool(np.all((t > 0) & (t < 1 + 1e-9)))
    t, name, fits = np.clip(t, 1e-9, 1.0), "data" if way.predicts == "denoiser" else way.predicts, []
    stat = np.concatenate([m.x for m in many])
    label_all = np.clip(way.time(np.concatenate([m.label for m in many])), 1e-9, 1.0)
    rms = np.sqrt(np.mean(stat**2, axis=1))
    with np.errstate(all="ignore"):
        spread = [(n, used) for n, _, used in _levels(way, label_all)]
        for (noise, said, used), (_, wide) in zip(_levels(way, t), spread, strict=True):
            level = abs(math.log(float(np.median(rms / wide[1])) / _median(stat.shape[1])))
            for target, says, (wanted_A, wanted_C) in _targets(way, t, used):
                terms = (_gap(alpha, used[0]), _gap(A, wanted_A), _gap(C * used[1], wanted_C * used[1]), 0.0 if level < 0.05 else level)
                fits.append((max(terms), bool(noise) + bool(target), noise, target, said, says))
    right = fits[0][0]
    if right < SAME and inside:
        return name, right, []
    causes = []
    for error, slips, noise, target, said, says in sorted(fits, key=lambda f: (f[0] > SAME, f[1] if f[0] <= SAME else f[0])):
        if error < 0.3 * min(right, 1.0) and slips and len(causes) < 3:
            causes += [Cause(n, s, error) for n, s in ((noise, said), (target, says)) if n]
    if not (causes and causes[0].error < SAME):
        causes = [*_of_label(way, label, alpha), *causes]
    if not causes or causes[0].error > 0.1:
        if np.std(C * way.sde.sigma(t)) > 0.3 * np.mean(np.abs(C * way.sde.sigma(t))) and _gap(A, 0 * A) < SAME:
            causes.insert(0, Cause("target-of-other-noise", "the target is another draw of the noise than the one in x", 0.0))
        causes.append(Cause("target-unknown", "noise and target are none of the known ones", right))
    return name, right, causes


def _of_label(way: Convention, label: Any, alpha: Any) -> list[Cause]:
    """Where α tells the time, what the label is of it."""
    grid = np.linspace(1e-6, 1.0, 20001) if not hasattr(way.sde, "n") else np.arange(1, way.sde.n + 1) / way.sde.n
    levels = way.sde.alpha(grid)
    if np.ptp(levels) == 0:
        return []
    t = grid[np.argmin(np.abs(levels[None, :] - alpha[:, None]), axis=1)]
    due = way.label(t).astype("float64")
    if np.max(np.abs(way.sde.alpha(t) - alpha)) > SAME or np.ptp(label) == 0:
        name = "label-constant" if np.ptp(label) == 0 and np.ptp(alpha) > SAME else ""
        return [Cause(name, "the model is not told the time: its label never changes", 0.0)] if name else []
    k, c = np.polyfit(due, label, 1)
    error = float(np.max(np.abs(k * due + c - label)) / (np.ptp(label) + 1e-300))
    if error > 1e-2 or abs(k - 1) < 1e-2:
        return []
    return [Cause("label-scaled", f"the label is {k:.4g} times what it should be", error)]


def _gap(found: Any, wanted: Any) -> float:
    return float(np.max(np.abs(found - wanted) / (np.abs(wanted) + 1e-2 * np.max(np.abs(wanted)) + 0.1)))


def _median(D: int) -> float:
    """Median of the root mean square of D normal numbers (Wilson and Hilferty)."""
    return (1 - 2 / (9 * D)) ** 1.5


def _of_times(way: Convention, many: list[Seen]) -> list[Cause]:
    label = np.concatenate([m.label for m in many])
    if all(np.ptp(m.label) == 0 for m in many) and np.ptp(label) > 0:
        return [Cause("one-time-for-the-batch", "all samples of a batch get one time: gradients are noisier for nothing", 0.0)]
    if way.told == "index":
        n, drawn = way.sde.n, np.unique(label)  # type: ignore[attr-defined]
        if n * 21 > label.size:
            return []
        missing = np.setdiff1d(np.arange(n), drawn)
        if missing.size == 0 or np.ptp(label) == 0 or drawn.max() >= n:
            return []
        name = {0: "first-level-never-drawn", n - 1: "last-level-never-drawn"}.get(int(missing[0]) if missing.size == 1 else -1, "levels-never-drawn")
        return [Cause(name, f"{missing.size} of {n} indices are never drawn, such as {missing[0]}", 0.0)]
    with np.errstate(all="ignore"):
        t = np.clip(way.time(label), 1e-9, 1.0)
        ratio, ends = (np.log(way.sde.sigma(s) / way.sde.alpha(s)) for s in (t, np.asarray([1e-3, 1 - 1e-9])))
    covered = (min(ratio.max(), ends[1]) - max(ratio.min(), ends[0])) / (ends[1] - ends[0])
    if np.ptp(label) > 0 and covered < 0.6:
        says = f"the levels σ/α drawn run from {math.exp(ratio.min()):.3g} to {math.exp(ratio.max()):.3g} alone"
        return [Cause("levels-never-drawn", says, 0.0)]
    return []


def _of_noise(many: list[Seen]) -> list[Cause]:
    """Whether S is Gaussian, and of each sample its own."""
    x = np.concatenate([m.x for m in many])
    z = x / (np.sqrt(np.mean(x * x, axis=1, keepdims=True)) + 1e-300)
    if abs(np.mean(z[::2] * z[1::2])) > 0.99:
        return [Cause("one-noise-for-the-batch", "all samples of a batch get the same noise", 0.0)]
    if x.shape[1] < 3:
        return []
    D, kurtosis = x.shape[1], float(np.mean(z**4))
    if abs(np.mean(z)) > 0.05 or abs(kurtosis - 3 * D / (D + 2)) > 0.1:  # of a point on a sphere
        return [Cause("noise-not-gaussian", f"the noise is not normal: mean {np.mean(z):.2g}, kurtosis {kurtosis:.3g} for {3 * D / (D + 2):.3g}", 0.0)]
    return []


def _weights(way: Convention, t: Any) -> dict[str, Any]:
    """λ of known weights, as of a loss of the score: λ ‖s - s*‖²."""
    alpha, sigma, g = way.sde.alpha(t), way.sde.sigma(t), way.sde.g(t)
    snr, data = (alpha / sigma) ** 2, sigma**4 / alpha**2
    edm = {f"EDM's, data of deviation {s}": ((sigma / alpha) ** 2 + s**2) * snr / s**2 * data for s in (0.5, 1.0)}
    plain = {name: way.affine(t, name)[1] ** 2 for name in PARAMETRISATIONS if name not in ("F", "score", "noise", "data")}
    return {
        "σ²": sigma**2, "g²": g**2, "1": np.ones_like(t), "σ⁴/α² (of the data)": data,
        **{f"that of the {name}": value for name, value in plain.items()}, **edm,
        "σ² min(SNR, 5)/SNR": sigma**2 * np.minimum(snr, 5) / snr,
    }  # fmt: skip


def _of_weight(way: Convention, t: Any, w: Any, D: int) -> tuple[str, float, str, list[Cause]]:
    """The weight's name, its constant, that in words, and what may be wrong with it."""
    b2, (alpha, sigma) = way.affine(t)[1] ** 2, (way.sde.alpha(t), way.sde.sigma(t))
    snr, ratio, g = (alpha / sigma) ** 2, (sigma / alpha) ** 2, way.sde.g(t)
    with np.errstate(all="ignore"):
        lam = w * b2

        def fit(candidate: Any) -> tuple[float, float]:
            logs = np.log(lam / candidate)
            return float(np.std(logs)), float(np.exp(np.mean(logs)))

        fits = {name: fit(value) for name, value in _weights(way, t).items()}
        name = min(fits, key=lambda n: fits[n][0] if math.isfinite(fits[n][0]) else math.inf)
        spread, constant = fits[name]
        known = {
            (1.0 if k == 1 else 0.5) / d / b: ("½ " if k == 2 else "") + words
            for k in (1, 2)
            for d, b, words in ((1, 1, "the sum over all"), (D, 1, "the mean over dimensions, the sum over samples"), (1, B, "the sum over dimensions, the mean over samples"), (D, B, "the mean over all"))
        }
        near = min(known, key=lambda c: abs(math.log(constant / c))) if constant > 0 else 1.0
        if spread < SAME:
            exact = abs(constant / near - 1) < SAME
            factor = known[near] if exact else f"{constant:.4g} times the sum over all"
            causes = []
            if not exact and np.ptp(t) > 0 and _varies(constant, near):
                causes.append(Cause("weights-averaged-over-the-batch", f"the weights meet as (B,) and (B, 1) or the like: the constant {constant:.4g} is none that a mean or a sum makes", abs(constant / near - 1)))
            return name, constant, factor, causes
        slips = {
            "weight-root-missing": ("λ is σ, and not σ²", sigma),
            "diffusion-for-its-square": ("λ is g, and not g²", g), "weight-inverted": ("the weight is inverted", sigma**4 / g**2),
            "min-snr-of-noise": ("min(SNR, 5)/SNR is the weight for noise; of v it is min(SNR, 5)/(SNR + 1), of the data min(SNR, 5)", b2 * np.minimum(snr, 5) / snr),
            "edm-weight-without-square": ("(ς² + σ_d²)/(ς σ_d) lacks the square below", b2 * (ratio + 0.25) / (np.sqrt(ratio) * 0.5)),
        }  # fmt: skip
        found = {n: (fit(value)[0], says) for n, (says, value) in slips.items()}
    causes = [Cause(n, says, gap) for n, (gap, says) in found.items() if gap < min(SAME, 0.1 * spread)]
    return "unknown (see the table of weights)", constant, "a constant cannot be told", causes


def _varies(constant: float, near: float) -> bool:
    return abs(math.log(constant / near)) > 10 * SAME


def _law(label: Any, told: str) -> str:
    """The law of the labels in words."""
    n = label.size
    if np.ptp(label) == 0:
        return "always the same"
    close = math.sqrt(math.log(2e9) / (2 * n)) + 1.5 / max(np.unique(label).size, 1)
    for name, y in (("uniform", label), ("uniform in their logarithm", np.log(np.maximum(label, 1e-300)))):
        low, high = y.min(), y.max()
        gap = np.max(np.abs(np.sort((y - low) / (high - low)) - (np.arange(n) + 0.5) / n))
        if gap < close:
            return name
    y = np.log(np.maximum(label, 1e-300))
    if abs(np.mean((y - y.mean()) ** 3) / y.std() ** 3) < 0.1 and abs(np.mean((y - y.mean()) ** 4) / y.std() ** 4 - 3) < 0.25:
        return f"their logarithm normal, mean {y.mean():.2f}, deviation {y.std():.2f}"
    return "of an unknown law"


def _floor(ask: Callable[..., Seen], way: Convention, weight: str, constant: float, X: Any, seed: int) -> dict[str, float]:
    """Mean loss of the exact model of N(0, I), its standard error, and the floor: Σ λ α²/σ⁴ tr Cov[x₀ | x_t]."""
    rng, found = np.random.default_rng(seed), []
    for i in range(40):
        x0 = rng.standard_normal(X.shape)
        seen = ask(x0, draw=seed + i)
        t = np.clip(way.time(seen.label), 1e-12, 1.0)
        alpha, sigma, (a, b) = way.sde.alpha(t), way.sde.sigma(t), way.affine(t)
        q = (a - b / (alpha**2 + sigma**2))[:, None] * seen.x
        lowest = constant * np.sum(_weights(way, t)[weight] * alpha**2 / (sigma**2 * (alpha**2 + sigma**2))) * X.shape[1]
        found.append((ask(x0, q, seed + i).value, lowest))
    value, lowest = np.asarray(found).T
    return {"loss": float(value.mean()), "loss_error": float(np.std(value - lowest) / math.sqrt(len(value))), "floor": float(lowest.mean())}
