"""Samplers in ten lines, as people write them, and what they write instead. Chapters 9, 10 and 17.

Each walks x through pairs of levels (t, s), from noise to data. `model(x, t)` gives the noise and the data that the
network sees in x, `normal()` fresh noise. These are the right ones; `MISTAKES` are edits of their lines.
"""

from collections.abc import Callable, Sequence
from math import exp, expm1, inf, log, sqrt
from struct import pack, unpack
from typing import Any, NamedTuple

from refscore.museum.mistake import Mistake


class Level(NamedTuple):
    """A noise level: x = α x₀ + σ z; and where it lies on an SDE, if it does.

    Parameters
    ----------
    alpha, sigma : float
        α and σ.
    time, f, g : float, optional
        Its time, and f and g of dx = f x dt + g dw there.
    da, ds : float, optional
        dα/dt and dσ/dt, which are finite where α = 0 and f and g are not.
    at : callable, optional
        The level at a time.
    """

    alpha: float
    sigma: float
    time: float = float("nan")
    f: float = float("nan")
    g: float = float("nan")
    da: float = float("nan")
    ds: float = float("nan")
    at: Any = None

    @property
    def ratio(self) -> float:
        """σ/α, the level of who keeps α = 1."""
        return self.sigma / self.alpha if self.alpha else inf

    @property
    def snr(self) -> float:
        """λ = log α/σ."""
        return log(self.alpha / self.sigma) if self.sigma and self.alpha else (-inf if self.sigma else inf)


Model = Callable[[Any, Level], tuple[Any, Any]]
Steps = Sequence[tuple[Level, Level]]
Normal = Callable[[], Any]


def ddim(model: Model, x: Any, steps: Steps, normal: Normal, eta: float = 0.0) -> Any:
    """Song, Meng and Ermon 2021; with eta 0 also DPM-Solver++(1), and the Euler step in σ/α."""
    for t, s in steps:
        noise, data = model(x, t)
        std = eta * s.sigma * sqrt(1 - (t.alpha * s.sigma / (s.alpha * t.sigma)) ** 2)
        x = s.alpha * data + sqrt(s.sigma**2 - std**2) * noise
        if std > 0:
            x = x + std * normal()
    return x


def ddpm(model: Model, x: Any, steps: Steps, normal: Normal) -> Any:
    """Ho et al. 2020 with the variance of the posterior, β̃; also DDIM with eta 1 and k-diffusion's ancestral Euler."""
    for t, s in steps:
        noise, data = model(x, t)
        beta = 1 - (t.alpha / s.alpha) ** 2 * s.sigma**2 / t.sigma**2
        mean = s.alpha * beta * data + t.alpha / s.alpha * s.sigma**2 / t.sigma**2 * x
        variance = s.sigma**2 * beta
        x = mean
        if s.sigma > 0:
            x = x + sqrt(variance) * normal()
    return x


def ddpm_large(model: Model, x: Any, steps: Steps, normal: Normal) -> Any:
    """Ho et al. 2020 with the variance of the forward step, β; also score_sde's ancestral sampler for VP."""
    for t, s in steps:
        noise, data = model(x, t)
        variance = t.sigma**2 - (t.alpha / s.alpha) ** 2 * s.sigma**2
        mean = s.alpha / t.alpha * (x - variance / t.sigma * noise)
        x = mean
        if s.sigma > 0:
            x = x + sqrt(variance) * normal()
    return x


def reverse_diffusion(model: Model, x: Any, steps: Steps, normal: Normal, denoise: bool = False) -> Any:
    """Song et al. 2021, their predictor: the forward step of the chain, reversed; the last may leave its noise out."""
    for t, s in steps:
        noise, data = model(x, t)
        score = -noise / t.sigma
        keep = t.alpha / s.alpha
        variance = t.sigma**2 - keep**2 * s.sigma**2
        x = (2 - keep) * x + variance * score
        if not (denoise and s is steps[-1][1]):
            x = x + sqrt(variance) * normal()
    return x


def euler_beta(model: Model, x: Any, steps: Steps, normal: Normal, denoise: bool = False) -> Any:
    """Euler-Maruyama of the reverse VP equation with β of the chain: x + ½ β x + β s + √β z."""
    for t, s in steps:
        noise, data = model(x, t)
        score = -noise / t.sigma
        beta = 1 - (t.alpha / s.alpha) ** 2
        x = x + 0.5 * beta * x + beta * score
        if not (denoise and s is steps[-1][1]):
            x = x + sqrt(beta) * normal()
    return x


def euler_maruyama(model: Model, x: Any, steps: Steps, normal: Normal, denoise: bool = False) -> Any:
    """Euler-Maruyama of the reverse SDE (Anderson 1982), dx = (f x - g² s) dt + g dw."""
    for t, s in steps:
        noise, data = model(x, t)
        score = -noise / t.sigma
        dt = s.time - t.time
        x = x + (t.f * x - t.g**2 * score) * dt
        if not (denoise and s is steps[-1][1]):
            x = x + t.g * sqrt(-dt) * normal()
    return x


def euler_flow(model: Model, x: Any, steps: Steps, normal: Normal) -> Any:
    """Euler of the probability-flow ODE in t, dx/dt = f x - ½ g² s (Song et al. 2021)."""
    for t, s in steps:
        noise, data = model(x, t)
        score = -noise / t.sigma
        x = x + (t.f * x - 0.5 * t.g**2 * score) * (s.time - t.time)
    return x


def heun_flow(model: Model, x: Any, steps: Steps, normal: Normal) -> Any:
    """Heun's method for the probability-flow ODE in t; Euler where it ends at data."""
    for t, s in steps:
        h = s.time - t.time
        noise, data = model(x, t)
        slope = t.f * x + 0.5 * t.g**2 / t.sigma * noise
        ahead = x + h * slope
        if s.sigma > 0:
            slope2 = s.f * ahead + 0.5 * s.g**2 / s.sigma * model(ahead, s)[0]
            ahead = x + h * 0.5 * (slope + slope2)
        x = ahead
    return x


def euler_ancestral(model: Model, x: Any, steps: Steps, normal: Normal) -> Any:
    """k-diffusion's ancestral Euler: down to a lower level, and noise up again; the same as `ddpm`."""
    for t, s in steps:
        up = s.ratio * sqrt(1 - (s.ratio / t.ratio) ** 2)
        down = sqrt(s.ratio**2 - up**2)
        x = x / t.alpha
        slope = (x - model(t.alpha * x, t)[1]) / t.ratio
        x = x + (down - t.ratio) * slope
        if up > 0:
            x = x + up * normal()
        x = s.alpha * x
    return x


def euler_velocity(model: Model, x: Any, steps: Steps, normal: Normal) -> Any:
    """Euler of the flow by its velocity E[α' x₀ + σ' z | x]: flow matching's sampler (Lipman et al. 2023)."""
    for t, s in steps:
        noise, data = model(x, t)
        velocity = t.da * data + t.ds * noise
        x = x + (s.time - t.time) * velocity
    return x


def heun_velocity(model: Model, x: Any, steps: Steps, normal: Normal) -> Any:
    """Heun's method for the flow by its velocity; Euler where the network is not asked at the end."""
    for t, s in steps:
        noise, data = model(x, t)
        h, slope = s.time - t.time, t.da * data + t.ds * noise
        ahead = x + h * slope
        if s.sigma > 0:
            noise, data = model(ahead, s)
            ahead = x + h * 0.5 * (slope + (s.da * data + s.ds * noise))
        x = ahead
    return x


def midpoint_velocity(model: Model, x: Any, steps: Steps, normal: Normal) -> Any:
    """The midpoint method for the flow by its velocity."""
    for t, s in steps:
        noise, data = model(x, t)
        m, slope = t.at((t.time + s.time) / 2), t.da * data + t.ds * noise
        half = x + 0.5 * (s.time - t.time) * slope
        noise, data = model(half, m)
        x = x + (s.time - t.time) * (m.da * data + m.ds * noise)
    return x


def rk4_velocity(model: Model, x: Any, steps: Steps, normal: Normal) -> Any:
    """The classical Runge-Kutta method for the flow by its velocity: four calls a step."""
    for t, s in steps:
        h, m, slopes = s.time - t.time, t.at((t.time + s.time) / 2), list[Any]()
        for level, ahead in ((t, 0.0), (m, 0.5), (m, 0.5), (s, 1.0)):
            noise, data = model(x + h * ahead * slopes[-1] if slopes else x, level)
            slopes.append(level.da * data + level.ds * noise)
        x = x + h / 6 * (slopes[0] + 2 * slopes[1] + 2 * slopes[2] + slopes[3])
    return x


def heun(model: Model, x: Any, steps: Steps, normal: Normal, s_noise: float = 1.0) -> Any:
    """Karras et al. 2022, algorithm 2: Heun in σ/α; where x is below t, noise is added first (churn)."""
    below = steps[0][0]
    for t, s in steps:
        x, before = x / below.alpha, below.ratio
        if t.ratio > before * (1 + 1e-9):
            x = x + sqrt(t.ratio**2 - before**2) * s_noise * normal()
        slope = (x - model(t.alpha * x, t)[1]) / t.ratio
        ahead = x + (s.ratio - t.ratio) * slope
        if s.sigma > 0:
            slope2 = (ahead - model(s.alpha * ahead, s)[1]) / s.ratio
            ahead = x + (s.ratio - t.ratio) * 0.5 * (slope + slope2)
        x, below = s.alpha * ahead, s
    return x


def euler_churn(model: Model, x: Any, steps: Steps, normal: Normal, s_noise: float = 1.0) -> Any:
    """The Euler step in σ/α with noise added first, as k-diffusion has it."""
    below = steps[0][0]
    for t, s in steps:
        x, before = x / below.alpha, below.ratio
        if t.ratio > before * (1 + 1e-9):
            x = x + sqrt(t.ratio**2 - before**2) * s_noise * normal()
        slope = (x - model(t.alpha * x, t)[1]) / t.ratio
        x, below = s.alpha * (x + (s.ratio - t.ratio) * slope), s
    return x


def midpoint(model: Model, x: Any, steps: Steps, normal: Normal, eta: float = 0.0) -> Any:
    """DPM-Solver-2 in σ/α by the geometric midpoint, k-diffusion's dpm_2; with eta 1 its ancestral form."""
    for t, s in steps:
        up = eta * s.ratio * sqrt(1 - (s.ratio / t.ratio) ** 2)
        down = sqrt(s.ratio**2 - up**2)
        x = x / t.alpha
        slope = (x - model(t.alpha * x, t)[1]) / t.ratio
        if down > 0:
            m = between(t, s, sqrt(t.ratio * down))
            half = x + (m.ratio - t.ratio) * slope
            slope = (half - model(m.alpha * half, m)[1]) / m.ratio
        x = x + (down - t.ratio) * slope
        if up > 0:
            x = x + up * normal()
        x = s.alpha * x
    return x


def dpmpp_2m(model: Model, x: Any, steps: Steps, normal: Normal, lower: bool = False) -> Any:
    """DPM-Solver++(2M), Lu et al. 2022; the first step is of order 1, and the last if it ends at data, or if `lower`."""
    old, h_old = None, 0.0
    for t, s in steps:
        noise, data = model(x, t)
        h = s.snr - t.snr
        if old is None or h == inf or (lower and s is steps[-1][1]):
            guess = data
        else:
            r = h_old / h
            guess = data + (data - old) / (2 * r)
        x = s.sigma / t.sigma * x - s.alpha * expm1(-h) * guess
        old, h_old = data, h
    return x


def dpmpp_2m_sde(model: Model, x: Any, steps: Steps, normal: Normal, eta: float = 1.0, kind: str = "midpoint") -> Any:
    """SDE-DPM-Solver++(2M), Lu et al. 2022."""
    old, h_old = None, 0.0
    for t, s in steps:
        noise, data = model(x, t)
        h = s.snr - t.snr
        if h == inf:
            x = data * s.alpha
            continue
        decay = (1 + eta) * h
        whole = -s.alpha * expm1(-decay)
        x = s.sigma / t.sigma * exp(-eta * h) * x + whole * data
        if old is not None:
            r = h_old / h
            second = 0.5 * whole if kind == "midpoint" else s.alpha * (expm1(-decay) / decay + 1)
            x = x + second * (data - old) / r
        if eta:
            x = x + s.sigma * sqrt(-expm1(-2 * eta * h)) * normal()
        old, h_old = data, h
    return x


def dpmpp_2s(model: Model, x: Any, steps: Steps, normal: Normal, eta: float = 0.0) -> Any:
    """DPM-Solver++(2S), the midpoint in log SNR; with eta 1 k-diffusion's ancestral form."""
    for t, s in steps:
        up = eta * s.ratio * sqrt(1 - (s.ratio / t.ratio) ** 2)
        down = sqrt(s.ratio**2 - up**2)
        x, data = x / t.alpha, model(x, t)[1]
        if down > 0:
            m = between(t, s, sqrt(t.ratio * down))
            half = m.ratio / t.ratio * x + (1 - m.ratio / t.ratio) * data
            data = model(m.alpha * half, m)[1]
        x = down / t.ratio * x + (1 - down / t.ratio) * data
        if up > 0:
            x = x + up * normal()
        x = s.alpha * x
    return x


def dpmpp_sde(model: Model, x: Any, steps: Steps, normal: Normal, eta: float = 1.0, r: float = 0.5) -> Any:
    """k-diffusion's DPM-Solver++ (stochastic): two ancestral half steps with extrapolated data."""
    for t, s in steps:
        noise, data = model(x, t)
        if s.sigma == 0:
            x = s.alpha * (x / t.alpha + (0 - t.ratio) * (x / t.alpha - data) / t.ratio)
            continue
        x, m = x / t.alpha, between(t, s, t.ratio ** (1 - r) * s.ratio**r)
        up = min(m.ratio, eta * m.ratio * sqrt(1 - (m.ratio / t.ratio) ** 2))
        down = sqrt(m.ratio**2 - up**2)
        half = down / t.ratio * x + (1 - down / t.ratio) * data + up * normal()
        middle = model(m.alpha * half, m)[1]
        up = min(s.ratio, eta * s.ratio * sqrt(1 - (s.ratio / t.ratio) ** 2))
        down = sqrt(s.ratio**2 - up**2)
        guess = (1 - 1 / (2 * r)) * data + 1 / (2 * r) * middle
        x = s.alpha * (down / t.ratio * x + (1 - down / t.ratio) * guess + up * normal())
    return x


def plms(model: Model, x: Any, steps: Steps, normal: Normal, order: int = 4) -> Any:
    """Adams-Bashforth on the noise, with DDIM's transfer (iPNDM; PNDM without its warm-up), Liu et al. 2022."""
    weights, past = (
        ((1,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24)),
        list[Any](),
    )
    for t, s in steps:
        past = [model(x, t)[0], *past][:order]
        noise = sum(w * e for w, e in zip(weights[len(past) - 1], past, strict=True))
        data = (x - t.sigma * noise) / t.alpha
        x = s.alpha * data + s.sigma * noise
    return x


def lms(model: Model, x: Any, steps: Steps, normal: Normal, order: int = 4) -> Any:
    """Linear multistep in σ/α: the polynomial through the last slopes, integrated (k-diffusion)."""
    past: list[Any] = []
    for t, s in steps:
        past = [(t.ratio, (x / t.alpha - model(x, t)[1]) / t.ratio), *past][:order]
        x = x / t.alpha
        for weight, slope in zip(adams([r for r, _ in past], t.ratio, s.ratio), [d for _, d in past], strict=True):
            x = x + weight * slope
        x = s.alpha * x
    return x


def unipc(model: Model, x: Any, steps: Steps, normal: Normal, order: int = 2, kind: str = "bh2") -> Any:
    """UniPC, Zhao et al. 2023: x is corrected with the answer of the next level, which costs no call."""
    before, past = None, list[Any]()
    for t, s in steps:
        noise, data = model(x, t)
        if before is not None:
            x = unified(before, t, past, data, kind)
        past = [(t, data), *past][: order if s.sigma > 0 else 1]
        before = (x, t)
        x = unified(before, s, past, None, kind)
    return x


def unified(before: tuple[Any, Level], s: Level, past: Sequence[Any], new: Any, kind: str) -> Any:
    """UniP from x at t to s by the data predicted so far; UniC where those at s are known."""
    (x, t), data = before, past[0][1]
    if s.sigma == 0:
        return s.alpha * data
    h = s.snr - t.snr
    B = expm1(-h) if kind == "bh2" else -h
    known = [((level.snr - t.snr) / h, value - data) for level, value in past[1:]]
    known += [] if new is None else [(1.0, new - data)]
    phi, wanted, factorial = expm1(-h) / -h - 1, [], 1.0
    for i in range(len(known)):
        wanted.append(phi * factorial / B)
        factorial *= i + 2
        phi = phi / -h - 1 / factorial
    weights = (
        solved([r for r, _ in known], wanted)
        if len(known) > 1 or (new is None and len(known) > 1)
        else [0.5] * len(known)
    )
    x = s.sigma / t.sigma * x - s.alpha * expm1(-h) * data
    for w, (r, difference) in zip(weights, known, strict=True):
        x = x - s.alpha * B * w * difference / r
    return x


def solved(nodes: Sequence[float], wanted: Sequence[float]) -> list[float]:
    """Weights w with Σ w r^i = wanted_i: two nodes."""
    (r0, r1), (b0, b1) = nodes, wanted
    return [(b1 - r1 * b0) / (r0 - r1), (b1 - r0 * b0) / (r1 - r0)]


def renoise(model: Model, x: Any, steps: Steps, normal: Normal) -> Any:
    """Guess the data, add fresh noise: consistency models' sampler (Song et al. 2023)."""
    for t, s in steps:
        noise, data = model(x, t)
        x = s.alpha * data
        if s.sigma > 0:
            x = x + s.sigma * normal()
    return x


def langevin(model: Model, x: Any, steps: Steps, normal: Normal, step: float = 1.0) -> Any:
    """Annealed Langevin dynamics, Song and Ermon 2019: at each level moves of size ε ∝ σ²; x keeps its scale."""
    for t, s in steps:
        noise, data = model(x, t)
        score = -noise / t.sigma
        size = step * t.sigma**2
        x = x + size * score
        x = x + sqrt(2 * size) * normal()
    return x


def half_precision(level: Level) -> Level:
    """The level whose ᾱ was kept in half precision."""
    (bar,) = unpack("e", pack("e", level.alpha**2))
    return Level(sqrt(bar), sqrt(1 - bar)) if bar < 1 else level


def between(t: Level, s: Level, ratio: float) -> Level:
    """The level with this σ/α: α = 1 where both ends have it, α² + σ² = 1 where both have that, else α = 1 - σ."""
    if t.alpha == s.alpha == 1:
        return Level(1.0, ratio)
    if abs(t.alpha + t.sigma - 1) < 1e-9 > abs(s.alpha + s.sigma - 1):
        return Level(1 / (1 + ratio), ratio / (1 + ratio))
    return Level(1 / sqrt(1 + ratio**2), ratio / sqrt(1 + ratio**2))


def adams(nodes: Sequence[float], start: float, end: float) -> list[float]:
    """∫ of each Lagrange polynomial of the nodes from start to end, by Gauss-Legendre with three points: exact."""
    weights, middle, half = [0.0] * len(nodes), (start + end) / 2, (end - start) / 2
    for at, w in ((-sqrt(0.6), 5 / 9), (0.0, 8 / 9), (sqrt(0.6), 5 / 9)):
        u = middle + half * at
        for i, node in enumerate(nodes):
            value = 1.0
            for other in (o for j, o in enumerate(nodes) if j != i):
                value *= (u - other) / (node - other)
            weights[i] += half * w * value
    return weights


SPECIMENS = (ddim, ddpm, ddpm_large, reverse_diffusion, euler_beta, euler_maruyama, euler_flow, heun_flow, euler_velocity,
             heun_velocity, midpoint_velocity, rk4_velocity, euler_ancestral, heun, euler_churn, midpoint, dpmpp_2m, dpmpp_2m_sde, dpmpp_2s, dpmpp_sde, plms, lms, unipc, renoise,
             langevin)  # fmt: skip


def _of(name: str, old: str, new: str, says: str, sees: str, origin: str, *only: str) -> Mistake:
    return Mistake(name, "sampler", old, new, says, sees, origin, only)


NARROW, WIDE = "samples too alike: their variance is too small", "grainy samples: their variance is too large"
BLOWN, GREY = "numbers that grow without bound, at once", "grey or blurred samples, pulled to the mean"
MISTAKES = (
    _of(
        "root-forgotten",
        "sqrt(variance) * normal()",
        "variance * normal()",
        "the noise is multiplied by its variance, not by its deviation",
        NARROW,
        "acids-ircam diffusion_models #8",
    ),
    _of(
        "root-of-the-deviation",
        "sqrt(variance) * normal()",
        "variance**0.25 * normal()",
        "the root of the variance is taken twice",
        WIDE,
        "textbook",
    ),
    _of(
        "noise-doubled",
        "sqrt(variance) * normal()",
        "sqrt(2 * variance) * normal()",
        "the variance of the noise is doubled, as if it were Langevin's",
        WIDE,
        "textbook",
    ),
    _of(
        "noise-at-the-end",
        "if s.sigma > 0:\n            x = x + sqrt(variance)",
        "if True:\n            x = x + sqrt(variance)",
        "noise is added in the last step, too",
        WIDE,
        "IDEALLab/EngiOpt PR 67",
        "ddpm_large",
    ),
    _of(
        "noise-missing",
        "* normal()",
        "* 0.0",
        "no noise is added, though the step leaves room for it",
        GREY,
        "textbook",
    ),
    _of(
        "noise-one-step-early",
        "if s.sigma > 0:\n            x = x + sqrt(variance)",
        "if s is not steps[-1][1] and s is not steps[-2][1]:\n            x = x + sqrt(variance)",
        "the last two steps add no noise (t > 1 instead of t > 0)",
        NARROW,
        "AkiRusProd/numpy-diffusion",
    ),
    _of(
        "prediction-as-noise",
        "sqrt(variance) * normal()",
        "sqrt(variance) * noise",
        "the predicted noise stands where fresh noise belongs",
        GREY,
        "IDEALLab/EngiOpt #66",
    ),
    _of(
        "same-noise",
        "    for t, s in steps:",
        "    z = normal()\n    normal = lambda: z\n    for t, s in steps:",
        "the same noise is added in every step",
        "samples drift to one side, each to its own",
        "textbook",
    ),
    _of(
        "variance-of-the-level",
        "variance = s.sigma**2 * beta",
        "variance = s.sigma**2",
        "the whole noise of the next level is added, not the posterior's",
        WIDE,
        "textbook",
    ),
    _of(
        "variance-share-alone",
        "variance = s.sigma**2 * beta",
        "variance = beta",
        "the factor of the next level is missing in the variance",
        WIDE,
        "textbook",
    ),
    _of(
        "posterior-of-here",
        "s.alpha * beta * data",
        "t.alpha * beta * data",
        "the posterior mean scales the data by this level's root of alpha-bar, not by the next one's",
        "samples too dark or too narrow",
        "textbook",
    ),
    _of(
        "posterior-root-forgotten",
        "s.alpha * beta * data",
        "s.alpha**2 * beta * data",
        "alpha-bar instead of its root before the data in the posterior mean",
        GREY,
        "textbook",
    ),
    _of(
        "posterior-alpha-for-root",
        "t.alpha / s.alpha * s.sigma**2 / t.sigma**2 * x",
        "(t.alpha / s.alpha) ** 2 * s.sigma**2 / t.sigma**2 * x",
        "alpha instead of its root before x in the posterior mean",
        GREY,
        "textbook",
    ),
    _of(
        "posterior-swapped",
        "mean = s.alpha * beta * data + t.alpha / s.alpha * s.sigma**2 / t.sigma**2 * x",
        "mean = s.alpha * beta * x + t.alpha / s.alpha * s.sigma**2 / t.sigma**2 * data",
        "the two coefficients of the posterior mean are exchanged",
        BLOWN,
        "textbook",
    ),
    _of(
        "not-rescaled",
        "s.alpha / t.alpha * (x - variance",
        "(x - variance",
        "the factor 1/root alpha before the bracket is missing",
        GREY,
        "textbook",
    ),
    _of(
        "rescaled-by-alpha",
        "s.alpha / t.alpha * (x - variance",
        "(s.alpha / t.alpha) ** 2 * (x - variance",
        "1/alpha instead of 1/root alpha before the bracket",
        BLOWN,
        "textbook",
    ),
    _of(
        "alpha-bar-for-alpha",
        "s.alpha / t.alpha * (x - variance",
        "1 / t.alpha * (x - variance",
        "alpha-bar where the step's own alpha belongs",
        BLOWN,
        "cloneofsimo/minDiffusion",
    ),
    _of(
        "beta-over-alpha-bar",
        "variance / t.sigma * noise",
        "variance / t.sigma**2 * noise",
        "beta/(1 - alpha-bar) instead of beta/root(1 - alpha-bar) before the noise",
        BLOWN,
        "textbook",
    ),
    _of(
        "beta-alone",
        "variance / t.sigma * noise",
        "variance * noise",
        "1/root(1 - alpha-bar) before the noise is missing",
        "noise remains",
        "textbook",
    ),
    _of(
        "root-of-beta",
        "variance / t.sigma * noise",
        "sqrt(variance) / t.sigma * noise",
        "root beta instead of beta before the noise",
        BLOWN,
        "textbook",
    ),
    _of(
        "noise-of-next-level",
        "variance / t.sigma * noise",
        "variance / (s.sigma or t.sigma) * noise",
        "root(1 - alpha-bar) is taken at the next level",
        "samples too narrow",
        "textbook",
    ),
    _of(
        "noise-added-to-mean",
        "(x - variance",
        "(x + variance",
        "the predicted noise is added, not taken away",
        BLOWN,
        "textbook",
    ),
    _of(
        "direction-negative",
        "+ sqrt(s.sigma**2 - std**2) * noise",
        "- sqrt(s.sigma**2 - std**2) * noise",
        "the direction towards x_t is subtracted",
        "every sample in one place",
        "AkiRusProd/numpy-diffusion, DDIM",
    ),
    _of(
        "direction-without-eta",
        "sqrt(s.sigma**2 - std**2) * noise",
        "s.sigma * noise",
        "the direction keeps its full length though noise is added",
        WIDE,
        "textbook",
    ),
    _of(
        "direction-of-here",
        "sqrt(s.sigma**2 - std**2) * noise",
        "sqrt(t.sigma**2 - std**2) * noise",
        "the direction has the noise of this level instead of the next",
        "noise remains",
        "textbook",
    ),
    _of(
        "direction-root-forgotten",
        "sqrt(s.sigma**2 - std**2) * noise",
        "(s.sigma**2 - std**2) * noise",
        "the root over the direction's coefficient is missing",
        NARROW,
        "jsbaan CoursIA PR 16158",
    ),
    _of(
        "data-at-this-level",
        "x = s.alpha * data +",
        "x = t.alpha * data +",
        "the data are scaled for this level instead of the next",
        "samples too dark",
        "textbook",
    ),
    _of(
        "data-root-forgotten",
        "x = s.alpha * data +",
        "x = s.alpha**2 * data +",
        "alpha-bar instead of its root before the data",
        GREY,
        "textbook",
    ),
    _of(
        "drift-as-forward",
        "(2 - keep) * x",
        "keep * x",
        "the drift of the forward step: its sign is wrong",
        GREY,
        "textbook",
    ),
    _of("drift-not-reversed", "(2 - keep) * x", "x", "the drift is missing", GREY, "textbook"),
    _of(
        "score-halved",
        "variance * score",
        "0.5 * variance * score",
        "half the score (as in the flow) together with full noise",
        WIDE,
        "textbook",
    ),
    _of("score-subtracted", "+ variance * score", "- variance * score", "the sign of the score", BLOWN, "textbook"),
    _of("drift-without-half", "0.5 * beta * x", "beta * x", "the half of the drift is missing", BLOWN, "textbook"),
    _of(
        "drift-negative", "+ 0.5 * beta * x", "- 0.5 * beta * x", "the sign of the drift", NARROW, "sign museum, (-, +)"
    ),
    _of(
        "beta-score-halved",
        "+ beta * score",
        "+ 0.5 * beta * score",
        "half the score together with full noise",
        WIDE,
        "textbook",
    ),
    _of(
        "beta-score-negative", "+ beta * score", "- beta * score", "the sign of the score", BLOWN, "sign museum, (+, -)"
    ),
    _of(
        "noise-beta",
        "sqrt(beta) * normal()",
        "beta * normal()",
        "beta instead of root beta before the noise",
        NARROW,
        "acids-ircam diffusion_models #5",
    ),
    _of(
        "anderson-halved",
        "- t.g**2 * score) * dt",
        "- 0.5 * t.g**2 * score) * dt",
        "half the score, as in the flow, together with the SDE's noise",
        WIDE,
        "score_sde_pytorch #67",
    ),
    _of(
        "g-not-squared", "t.g**2 * score", "t.g * score", "g instead of its square before the score", NARROW, "textbook"
    ),
    _of(
        "score-sign",
        "- t.g**2 * score",
        "+ t.g**2 * score",
        "the sign of the score in the reverse drift",
        BLOWN,
        "textbook",
    ),
    _of("drift-sign", "(t.f * x -", "(-t.f * x -", "the sign of the drift", NARROW, "textbook"),
    _of("drift-left-out", "(t.f * x -", "(0 * x -", "the drift is missing", GREY, "textbook"),
    _of(
        "noise-times-dt",
        "sqrt(-dt) * normal()",
        "-dt * normal()",
        "the noise is multiplied by the step, not by its root",
        NARROW,
        "textbook",
    ),
    _of(
        "noise-without-dt",
        "t.g * sqrt(-dt) * normal()",
        "t.g * normal()",
        "the noise lacks the root of the step",
        WIDE,
        "textbook",
    ),
    _of("noise-g-squared", "t.g * sqrt(-dt)", "t.g**2 * sqrt(-dt)", "g squared before the noise", WIDE, "textbook"),
    _of("noise-without-g", "t.g * sqrt(-dt)", "sqrt(-dt)", "g before the noise is missing", NARROW, "textbook"),
    _of(
        "flow-without-half",
        "0.5 * t.g**2",
        "t.g**2",
        "the half before the score of the flow is missing",
        NARROW,
        "textbook",
    ),
    _of(
        "flow-score-sign",
        "- 0.5 * t.g**2 * score",
        "+ 0.5 * t.g**2 * score",
        "the sign of the score in the flow",
        BLOWN,
        "textbook",
    ),
    _of(
        "heun-without-half",
        "0.5 * (slope + slope2)",
        "(slope + slope2)",
        "the two slopes are added, not averaged: each step counts twice",
        BLOWN,
        "textbook",
    ),
    _of(
        "heun-second-slope-alone",
        "0.5 * (slope + slope2)",
        "slope2",
        "only the second slope is used",
        NARROW,
        "textbook",
    ),
    _of(
        "heun-divided-by-here",
        "(s.alpha * ahead, s)[1]) / s.ratio",
        "(s.alpha * ahead, s)[1]) / t.ratio",
        "the second slope is divided by this level's sigma, not by the next one's",
        WIDE,
        "diffusers #1512",
    ),
    _of(
        "heun-from-ahead",
        "ahead = x + (s.ratio - t.ratio) * 0.5",
        "ahead = ahead + (s.ratio - t.ratio) * 0.5",
        "the corrected step starts from the predicted point",
        BLOWN,
        "textbook",
    ),
    _of(
        "heun-at-old-x",
        "model(s.alpha * ahead, s)",
        "model(s.alpha * x, s)",
        "the second slope is taken at the old x",
        NARROW,
        "textbook",
    ),
    _of(
        "heun-told-the-first-time",
        "noise, data = model(ahead, s)",
        "noise, data = model(ahead, t)",
        "the second slope is taken at the time of the first",
        "order 1 instead of 2",
        "textbook",
    ),
    _of(
        "heun-told-the-first-level",
        "model(s.alpha * ahead, s)",
        "model(s.alpha * ahead, t)",
        "the network is told the first level for the second slope",
        NARROW,
        "textbook",
    ),
    _of(
        "velocity-sign",
        "x = x + (s.time - t.time) * velocity",
        "x = x - (s.time - t.time) * velocity",
        "the flow is walked backwards",
        BLOWN,
        "textbook",
    ),
    _of(
        "velocity-step-doubled",
        "(s.time - t.time) * velocity",
        "2 * (s.time - t.time) * velocity",
        "the step counts twice",
        BLOWN,
        "textbook",
    ),
    _of(
        "churn-not-squared",
        "sqrt(t.ratio**2 - before**2) * s_noise",
        "(t.ratio - before) * s_noise",
        "the churn's deviation is the difference of the levels, not the root of that of their squares",
        NARROW,
        "diffusers #590",
        "heun",
    ),
    _of(
        "churn-step-from-before",
        "(s.ratio - t.ratio) * slope",
        "(s.ratio - before) * slope",
        "the step is measured from the level before the churn",
        WIDE,
        "EluCD #2",
    ),
    _of(
        "churn-slope-of-before",
        "model(t.alpha * x, t)[1]) / t.ratio",
        "model(t.alpha * x, t)[1]) / before",
        "the slope is divided by the level before the churn",
        NARROW,
        "textbook",
        "heun",
        "euler_churn",
    ),
    _of(
        "not-stepped-down",
        "down = sqrt(s.ratio**2 - up**2)",
        "down = s.ratio",
        "noise is added though the step already ends at the next level",
        WIDE,
        "textbook",
    ),
    _of("up-squared", "up * normal()", "up**2 * normal()", "the ancestral noise by its variance", NARROW, "textbook"),
    _of(
        "down-not-squared",
        "sqrt(s.ratio**2 - up**2)",
        "s.ratio - up",
        "levels are subtracted where their squares should be",
        NARROW,
        "textbook",
    ),
    _of(
        "two-m-ratio-upside-down",
        "r = h_old / h",
        "r = h / h_old",
        "the ratio of the steps is upside down",
        "more error than first order on uneven grids",
        "k-diffusion #56",
    ),
    _of(
        "two-m-sign",
        "data + (data - old) / (2 * r)",
        "data - (data - old) / (2 * r)",
        "the extrapolation goes backwards",
        "twice the error of first order",
        "textbook",
    ),
    _of(
        "two-m-half-forgotten",
        "(data - old) / (2 * r)",
        "(data - old) / r",
        "the half of the extrapolation is missing",
        "first order at best",
        "textbook",
    ),
    _of(
        "two-m-ratio-forgotten",
        "(data - old) / (2 * r)",
        "(data - old) / 2",
        "the ratio of the steps is missing",
        "less than second order on uneven grids",
        "textbook",
    ),
    _of(
        "two-m-remembers-guess",
        "old, h_old = data, h",
        "old, h_old = guess, h",
        "the extrapolated data are remembered, not the predicted ones",
        "errors that add up",
        "textbook",
        "dpmpp_2m",
    ),
    _of(
        "two-m-log-sigma",
        "h = s.snr - t.snr",
        "h = log(t.sigma / s.sigma) if s.sigma else inf",
        "the step is taken in log sigma, not in the log of alpha/sigma",
        "wrong contrast",
        "textbook",
    ),
    _of(
        "sde-noise-not-doubled",
        "sqrt(-expm1(-2 * eta * h))",
        "sqrt(-expm1(-eta * h))",
        "the exponent under the noise lacks its 2",
        NARROW,
        "diffusers #1889",
    ),
    _of(
        "sde-noise-root-forgotten",
        "sqrt(-expm1(-2 * eta * h))",
        "-expm1(-2 * eta * h)",
        "the root over the noise is missing",
        NARROW,
        "textbook",
    ),
    _of(
        "sde-decay-forgotten",
        "exp(-eta * h) * x",
        "x",
        "x does not decay though noise is added",
        WIDE,
        "diffusers #1889",
    ),
    _of(
        "bashforth-weights",
        "(3 / 2, -1 / 2)",
        "(1 / 2, 1 / 2)",
        "the second-order weights average instead of extrapolating",
        "blurred at few steps",
        "textbook",
    ),
    _of(
        "bashforth-order-three",
        "(23 / 12, -16 / 12, 5 / 12)",
        "(23 / 12, 16 / 12, 5 / 12)",
        "a sign in the third-order weights",
        BLOWN,
        "textbook",
    ),
    _of(
        "renoised-to-here",
        "s.sigma * normal()",
        "t.sigma * normal()",
        "the noise of this level is added, not of the next",
        "noise remains",
        "textbook",
    ),
    _of(
        "langevin-root-two",
        "sqrt(2 * size)",
        "sqrt(size)",
        "the 2 under Langevin's root is missing",
        NARROW,
        "ermongroup/ncsn, toy and image runner",
    ),
    _of(
        "langevin-root-forgotten",
        "sqrt(2 * size) * normal()",
        "2 * size * normal()",
        "Langevin's root is missing",
        NARROW,
        "google-research/ibc #6",
    ),
    _of(
        "langevin-score-halved",
        "x = x + size * score",
        "x = x + 0.5 * size * score",
        "half the step for the score, the full one for the noise",
        WIDE,
        "ermongroup/ncsn",
    ),
)
