"""What does this loss minimise?  Weight, target, noise and times of anybody's loss, read from its answers. Chapter 17.

With its random numbers replayed, a loss is asked again with other data and other predictions. If it is what it should
be, x_t = α x₀ + S with S = σ z, and the loss is quadratic in the prediction q of each row,

    L = Σ_b w_b ‖q_b - τ_b‖² + ...,     τ_b = A_b x₀ + C_b S_b

so that α is read from two calls with different x₀; w and τ from the first and second differences in q. For each target
A and C are known: q = a x_t + b s at s = -S/σ², hence A = a α and C = a - b/σ².
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from refscore.clinic.arrays import host, place
from refscore.clinic.diagnosis import RIGHT, UNKNOWN, WRONG, Cause, Diagnosis, near
from refscore.clinic.exact import TimeConvention, failed
from refscore.clinic.replay import replayed
from refscore.museum.losses import levels, targets, weight_slips, weights
from refscore.protocols import SDE

B, DRAWS, BATCH = 24, 8, 4096  # rows that are probed one by one; batches that only show times and noise
H = 30.0  # step of the differences, large: they are exact for squares, and rounding is small beside them
SAME = 1e-3  # float32 inside


@dataclass(frozen=True)
class Seen:
    """What one call of a loss showed.

    Parameters
    ----------
    x : array, shape (B, D)
        The noised samples x_t.
    label : array, shape (B,)
        What the model was told.
    value : float
        The loss, summed if it is one number a sample.
    size : int
        How many numbers it is.
    """

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
        What its label is: "index", "time", "sigma" or "log-snr"; see `TimeConvention`.
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
        As `TimeConvention`.

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
    way, rng = TimeConvention(sde, predicts, told), np.random.default_rng(seed)
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
        other = ask(X, draw=seed + 1).label, _probe(lambda x0, q=None: ask(x0, q, seed + 1), X, d)[0]
        many = [ask(np.zeros((BATCH, D)), draw=seed + 1 + i) for i in range(DRAWS)]
    except Odd as odd:
        return failed("loss", odd.args[0], odd.args[1], assumed)
    except Exception as error:  # a patient may raise anything
        return failed("loss", "raises", f"it raises {type(error).__name__}: {error}", assumed)

    if not S.any() and np.allclose(seen.x, X):
        return failed("loss", "model-sees-clean-data", "the model is given x₀, and not x_t", assumed)
    if not S.any():
        return failed("loss", "no-noise", "no noise is added to the data", assumed)
    with np.errstate(all="ignore"):
        alpha = np.sum(shown * X, axis=1) / np.sum(X * X, axis=1)
        C, A = to_0 / np.sum(d * S, axis=1), (to_X - to_0) / np.sum(d * X, axis=1)
    label, noised = (np.concatenate([getattr(m, part) for m in many]) for part in ("label", "x"))
    causes = _of_noise(noised)
    for slip, says, off, least in (
        (
            "rows-mixed",
            "x_t is not α x₀ and noise of the same sample",
            np.max(np.abs(shown - alpha[:, None] * X)),
            SAME,
        ),
        ("not-squared", "it is no squared error of each row: its minimum is not the mean", bent, SAME),
        ("weight-not-positive", "some levels have weight 0 or less: nothing is learnt there", -np.min(w), -1e-300),
    ):
        causes += [Cause(slip, says, float(off))] * bool(off > least)
    name, fit, found = _of_target(way, seen.label, alpha, A, C, label[:BATCH], noised[:BATCH])
    t = np.clip(way.time(seen.label), 1e-9, 1.0)
    weight, constant, factor, slips = _of_weight(way, t, w, D, other)
    causes += [*found, *slips, *_of_times(way, label, [float(np.ptp(m.label)) for m in many])]
    known = weight in weights(way, t)
    lines = [
        f"target {name}, {near(fit)}",
        f"weight λ = {weight}; {factor}, {'one number a sample' if seen.size == B else 'one number'}",
        f"labels from {label.min():.4g} to {label.max():.4g}, {_law(label)}",
    ]
    numbers: dict[str, Any] = {"error": fit, "constant": constant, "times": t.tolist(), "weights": w.tolist()}
    if known and not causes:
        reached, gap, floor = _floor(ask, way, weight, constant, X, seed)
        numbers |= {"loss": reached, "loss_error": gap, "floor": floor}
        lines.append(f"the exact model of data N(0, I) loses {reached:.4g} ± {gap:.1g}, the floor is {floor:.4g}")
        if abs(reached - floor) > 6 * gap + SAME * floor:
            causes.append(Cause("not-at-the-floor", "the exact model does not reach the floor", reached / floor - 1))
    causes = sorted({c.name: c for c in reversed(causes)}.values(), key=lambda c: (c.error > SAME, causes.index(c)))[:3]
    lines, verdict = [c.says for c in causes[:1]] + lines, WRONG if causes else RIGHT if known else UNKNOWN
    return Diagnosis("loss", verdict, f"{name}, λ = {weight}", tuple(lines), tuple(causes), numbers, assumed)


def _probe(ask: Callable[..., Seen], x0: Any, d: Any) -> tuple[Any, Any, float]:
    """w and d·τ (B,) of each row by Eq. (17.4), and by how much it is not a sum of squares of rows."""
    rest = ask(x0).value
    up, down = (
        np.asarray([ask(x0, s * H * d * (np.arange(B) == b)[:, None]).value for b in range(B)]) for s in (1, -1)
    )
    slope, bend = (up - down) / (2 * H), (up + down - 2 * rest) / H**2
    w = bend / (2 * np.sum(d * d, axis=1))
    with np.errstate(all="ignore"):
        tau = np.where(w == 0, np.nan, -slope / (2 * w))
    whole = ask(x0, 2 * H * d).value - rest
    squares = np.sum(2 * H * slope + 2 * H**2 * bend)
    return w, tau, float(abs(whole - squares) / (np.sum(np.abs(2 * H**2 * bend)) + 1e-300))


def _of_target(
    way: TimeConvention, told: Any, alpha: Any, A: Any, C: Any, label: Any, noised: Any
) -> tuple[str, float, list[Cause]]:
    """Name of the target and how well it fits; causes where another noise or target fits better."""
    t, name = way.time(told), "data" if way.predicts == "denoiser" else way.predicts
    inside = bool(np.all((t > 0) & (t < 1 + 1e-9)))
    t, D, fits = np.clip(t, 1e-9, 1.0), noised.shape[1], []
    rms = np.sqrt(np.mean(noised**2, axis=1)) / (1 - 2 / (9 * D)) ** 1.5  # by its median, after Wilson and Hilferty
    with np.errstate(all="ignore"):
        wide = levels(way, np.clip(way.time(label), 1e-9, 1.0))
        for (noise, said, used), (_, _, (_, sigma)) in zip(levels(way, t), wide, strict=True):
            level = abs(math.log(float(np.median(rms / sigma))))
            for target, says, (wanted_A, wanted_C) in targets(way, t, used):
                terms = _gap(alpha, used[0]), _gap(A, wanted_A), _gap(C * used[1], wanted_C * used[1])
                error, parts = max(*terms, level * (level > 0.05)), [(noise, said), (target, says)]
                fits.append((error > SAME, error if error > SAME else 0.0, [p for p in parts if p[0]], error))
    right = fits[0][3]
    if right < SAME and inside:
        return name, right, []
    nearest = [f for f in sorted(fits, key=lambda f: (f[0], f[1], len(f[2]))) if f[2] and f[3] < 0.3 * min(right, 1.0)]
    fewest = min((len(f[2]) for f in nearest if not f[0]), default=2)
    causes = [Cause(n, says, error) for _, _, parts, error in nearest if len(parts) <= fewest for n, says in parts][:3]
    if not (causes and causes[0].error < SAME):
        causes = [*_of_label(way, told, alpha), *causes]
    if not causes or causes[0].error > 0.1:
        z = C * way.sde.sigma(t)
        if np.std(z) > 0.3 * np.mean(np.abs(z)) and np.max(np.abs(A)) < SAME:
            says = "the target is another draw of the noise than the one in x"
            causes = [Cause("target-of-other-noise", says, 0.0), *causes]
        causes.append(Cause("target-unknown", "noise and target are none of the known ones", right))
    return name, right, causes


def _of_label(way: TimeConvention, label: Any, alpha: Any) -> list[Cause]:
    """Where α tells the time, what the label is of it."""
    grid = np.arange(1, way.steps + 1) / way.steps if way.steps else np.linspace(1e-6, 1.0, 20_001)
    steps = way.sde.alpha(grid)
    t = grid[np.argmin(np.abs(steps[None, :] - alpha[:, None]), axis=1)]
    if np.ptp(steps) == 0 or np.max(np.abs(way.sde.alpha(t) - alpha)) > SAME:
        return []
    if np.ptp(label) == 0:
        return [Cause("label-constant", "the model is not told the time: its label never changes", 0.0)]
    k, c = np.polyfit(way.label(t).astype("float64"), label, 1)
    error = float(np.max(np.abs(k * way.label(t) + c - label)) / np.ptp(label))
    says = f"the label is {k:.4g} times what it should be"
    return [Cause("label-scaled", says, error)] * bool(error < 1e-2 < abs(k - 1))


def _gap(found: Any, wanted: Any) -> float:
    return float(np.max(np.abs(found - wanted) / (np.abs(wanted) + 1e-2 * np.max(np.abs(wanted)) + 0.1)))


def _of_times(way: TimeConvention, label: Any, within: list[float]) -> list[Cause]:
    """Whether every sample has its own time, and every level its turn."""
    if np.ptp(label) == 0:
        return []
    if max(within) == 0:
        says = "all samples of a batch get one time: gradients are noisier for nothing"
        return [Cause("one-time-for-the-batch", says, 0.0)]
    t, N = np.clip(way.time(label), 1e-9, 1.0), way.steps
    if N and label.size > 21 * N:  # of N levels drawn 21 N times none is missed but once in 1e9/N
        missing = np.setdiff1d(np.arange(1, N + 1), np.rint(t * N))
        ends = {1: "first-level-never-drawn", N: "last-level-never-drawn"}
        name = ends.get(int(missing[0]) if missing.size == 1 else -1, "levels-never-drawn")
        return [Cause(name, f"{missing.size} of {N} levels are never drawn", 0.0)] * bool(missing.size)
    with np.errstate(all="ignore"):
        ratio, ends = (np.log(way.sde.sigma(s) / way.sde.alpha(s)) for s in (t, np.asarray([1e-3, 1 - 1e-3])))
    covered = (min(ratio.max(), ends[1]) - max(ratio.min(), ends[0])) / (ends[1] - ends[0])
    says = f"the levels σ/α drawn run from {math.exp(ratio.min()):.3g} to {math.exp(min(ratio.max(), 99)):.3g} alone"
    return [Cause("levels-never-drawn", says, 0.0)] * bool(covered < 0.5)


def _of_noise(x: Any) -> list[Cause]:
    """Whether it is Gaussian, and of each sample its own."""
    D, z = x.shape[1], x / (np.sqrt(np.mean(x * x, axis=1, keepdims=True)) + 1e-300)
    if abs(np.mean(z[::2] * z[1::2])) > 0.99:
        return [Cause("one-noise-for-the-batch", "all samples of a batch get the same noise", 0.0)]
    mean, kurtosis, due = float(np.mean(z)), float(np.mean(z**4)), 3 * D / (D + 2)  # of points on a sphere
    says = f"the noise is not normal: mean {mean:.2g}, kurtosis {kurtosis:.3g} where {due:.3g} is due"
    return [Cause("noise-not-gaussian", says, 0.0)] * (D > 2 and (abs(mean) > 0.05 or abs(kurtosis - due) > 0.1))


def _of_weight(
    way: TimeConvention, t: Any, w: Any, D: int, other: tuple[Any, Any]
) -> tuple[str, float, str, list[Cause]]:
    """The weight's name, its constant, that in words, and what may be wrong with it."""

    def fit(candidate: Any, t: Any = t, w: Any = w) -> tuple[float, float]:
        with np.errstate(all="ignore"):
            logs = np.log(w * way.affine(t)[1] ** 2 / candidate)
        spread = float(np.std(logs))
        return (spread if math.isfinite(spread) else math.inf), float(np.exp(np.mean(logs)))

    (spread, constant), name = min((fit(value), name) for name, value in weights(way, t).items())
    if spread > SAME:
        slips = [(fit(value)[0], n, says) for n, (says, value) in weight_slips(way, t).items()]
        causes = [Cause(n, says, gap) for gap, n, says in slips if gap < SAME]
        return "unknown (see the table of weights)", constant, "its constant cannot be told", causes
    words: dict[float, str] = {}
    for half in (1.0, 0.5):
        for (d, of_D), (b, of_B) in product(((1, "sum"), (D, "mean")), ((1, "sum"), (B, "mean"))):
            words.setdefault(half / d / b, f"{'½ ' * (half < 1)}the {of_D} over dimensions, the {of_B} over samples")
    near = min(words, key=lambda c: abs(math.log(constant / c)))
    if abs(constant / near - 1) < SAME:
        return name, constant, words[near], []
    t2 = np.clip(way.time(other[0]), 1e-9, 1.0)
    moves = abs(fit(weights(way, t2)[name], t2, other[1])[1] / constant - 1)  # with the times of the rest of the batch
    says = "every sample gets the mean weight of the batch, as where (B,) meets (B, 1)"
    causes = [Cause("weights-averaged-over-the-batch", says, 0.0)] * bool(moves > SAME)
    return name, constant, f"{constant:.4g} times the sum over all", causes


def _law(label: Any) -> str:
    """The law of the labels in words."""
    if np.ptp(label) == 0:
        return "always the same"
    n, log = label.size, np.log(np.maximum(label, 1e-300))
    close = math.sqrt(math.log(2e9) / (2 * n)) + 1.5 / np.unique(label).size  # Dvoretzky, Kiefer and Wolfowitz
    for name, y in (("uniform", label), ("uniform in their logarithm", log)):
        u = np.sort((y - y.min()) / np.ptp(y))
        if np.max(np.abs(u - (np.arange(n) + 0.5) / n)) < close:
            return name
    z = (log - log.mean()) / log.std()
    if abs(np.mean(z**3)) < 0.1 and abs(np.mean(z**4) - 3) < 0.25:
        return f"their logarithm normal, mean {log.mean():.2f}, deviation {log.std():.2f}"
    return "of an unknown law"


def _floor(
    ask: Any, way: TimeConvention, weight: str, constant: float, X: Any, seed: int
) -> tuple[float, float, float]:
    """Mean loss of the exact model of N(0, I), its standard error, and the floor: Σ λ α²/σ⁴ tr Cov[x₀ | x_t]."""
    rng, n = np.random.default_rng(seed), 40
    data = [rng.standard_normal(X.shape) for _ in range(n)]
    seen = [ask(x0, draw=seed + i) for i, x0 in enumerate(data)]
    t = np.clip(way.time(np.concatenate([one.label for one in seen])), 1e-9, 1.0)
    alpha, sigma, (a, b) = way.sde.alpha(t), way.sde.sigma(t), way.affine(t)
    total = alpha**2 + sigma**2
    least = constant * X.shape[1] * weights(way, t)[weight] * alpha**2 / (sigma**2 * total)
    q = np.reshape((a - b / total)[:, None] * np.concatenate([one.x for one in seen]), (n, *X.shape))
    gap = [ask(data[i], q[i], seed + i).value - np.sum(least[i * B : (i + 1) * B]) for i in range(n)]
    floor = float(np.sum(least)) / n
    return floor + float(np.mean(gap)), float(np.std(gap)) / math.sqrt(n), floor
