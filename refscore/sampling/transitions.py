"""Steps that know the exact transition of a linear SDE: ancestral sampling, DDIM, DPM-Solver++, reverse diffusion.

From t to s < t, with a = α_t/α_s and h = log(α_s/σ_s) - log(α_t/σ_t) > 0,

    x_t | x_s ~ N(a x_s, σ²_{t|s}),   σ²_{t|s} = σ_t² (1 - e^{-2h})
    x_s | x_t, x₀ ~ N(a (σ_s/σ_t)² x_t + α_s (1 - e^{-2h}) x₀,  σ_s² (1 - e^{-2h}))

and the score gives the best guesses of what one does not know, x̂₀ = (x + σ_t² s)/α_t and ẑ = -σ_t s. All
steps here are made of these; where σ_s = 0, h is infinite and each of them (`ReverseDiffusion` excepted, unless α = 1)
ends at x̂₀, without noise. Chapter 10.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from refscore.arrays import ask
from refscore.checks import check_inverse, check_made_for, check_number, settle
from refscore.noise.reverse import Reverse
from refscore.protocols import SDE, Array, Rng, Score, Step
from refscore.sampling.solvers import EULER, MIDPOINT, RK4, EulerMaruyama, Heun, RungeKutta


class Transition(NamedTuple):
    """The numbers of a step: all Python floats."""

    alpha_t: float
    alpha_s: float
    sigma_t: float
    sigma_s: float
    h: float  # half the gain in log signal-to-noise ratio; infinite where σ_s = 0

    @property
    def a(self) -> float:
        """α_t/α_s."""
        return self.alpha_t / self.alpha_s

    @property
    def lost(self) -> float:
        """1 - e^{-2h}: the part of the noise variance at t that came after s."""
        return -math.expm1(-2 * self.h)


def transition(sde: SDE, t: float, s: float) -> Transition:
    """What a step from t down to s is made of                                             Eqs. (10.1), (10.2).

    Raises
    ------
    ValueError
        Unless s < t, and there is noise at t, and more than at s: these steps remove noise.
    """
    t, s = check_number("t", t), check_number("s", s)
    if not s < t:
        raise ValueError(f"this step goes down in time, from noise to data; got t = {t}, s = {s}")
    alpha_t, alpha_s, sigma_t, sigma_s = (float(v) for v in (sde.alpha(t), sde.alpha(s), sde.sigma(t), sde.sigma(s)))
    if sigma_t <= 0:
        raise ValueError(f"there is no noise to remove at t = {t}")
    h = math.inf if sigma_s == 0 else math.log(alpha_s / alpha_t) + math.log(sigma_t / sigma_s)
    if not h > 0:
        raise ValueError(f"t = {t} and s = {s} have the same noise: they are too near each other")
    return Transition(alpha_t, alpha_s, sigma_t, sigma_s, h)


@dataclass(frozen=True)
class Ancestral:
    """Draw x_s from its law given x_t and x̂₀: x_s = (x + σ²_{t|s} s)/a + c z              Eq. (10.4); Ho et al. 2020.

    variance "small" is c² = σ_s² (1 - e^{-2h}), that of x_s given x_t and x₀ (β̃ in DDPM): exact where the data are one
    point. "large" is c² = σ²_{t|s} (β in DDPM): exact for a VP SDE where the data are N(0, I).

    Raises
    ------
    ValueError
        For another variance.
    """

    sde: SDE
    score: Score
    variance: str = "small"

    def __post_init__(self) -> None:
        check_made_for(self.score, self.sde)
        if self.variance not in ("small", "large"):
            raise ValueError(f"variance must be 'small' (β̃) or 'large' (β), got {self.variance!r}")

    def __call__(self, x: Array, t: float, s: float, rng: Rng, memory: None = None) -> tuple[Array, None]:
        """x (B, ...) at t -> x (B, ...) at s."""
        p = transition(self.sde, t, s)
        mean = (x + p.sigma_t**2 * p.lost * ask(self.score, x, t)) / p.a
        std = (p.sigma_s if self.variance == "small" else p.sigma_t) * math.sqrt(p.lost)
        return _noisy(mean, std, p, rng), None


@dataclass(frozen=True)
class ReverseDiffusion:
    """x_s = (2 - a) x + σ²_{t|s} s + σ_{t|s} z: the forward chain's step, undone           Song et al. 2021.

    How they discretise the reverse SDE. For VP its mean differs from that of `Ancestral` by terms of order β²; for VE
    the means are the same, and it is `Ancestral` with the large variance.
    """

    sde: SDE
    score: Score

    def __post_init__(self) -> None:
        check_made_for(self.score, self.sde)

    def __call__(self, x: Array, t: float, s: float, rng: Rng, memory: None = None) -> tuple[Array, None]:
        """x (B, ...) at t -> x (B, ...) at s."""
        p = transition(self.sde, t, s)
        variance = p.sigma_t**2 * p.lost
        return _noisy((2 - p.a) * x + variance * ask(self.score, x, t), math.sqrt(variance), p, rng), None


@dataclass(frozen=True)
class DDIM:
    """x_s = α_s x̂₀ + √(σ_s² - c²) ẑ + c z,  c = η σ_s √(1 - e^{-2h})                                   Eq. (10.10).

    Song, Meng and Ermon 2021. In this form for every linear SDE (their c, printed with α alone, is VP's). η = 0 draws
    nothing: Euler's method in σ/α, DPM-Solver++ of order 1. η = 1 is `Ancestral` with the small variance.

    Raises
    ------
    ValueError
        Unless 0 <= eta <= 1.
    """

    sde: SDE
    score: Score
    eta: float = 0.0

    def __post_init__(self) -> None:
        settle(self)
        check_made_for(self.score, self.sde)
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta must lie in [0, 1], got {self.eta}")

    def __call__(self, x: Array, t: float, s: float, rng: Rng, memory: None = None) -> tuple[Array, None]:
        """x (B, ...) at t -> x (B, ...) at s."""
        p = transition(self.sde, t, s)
        score = ask(self.score, x, t)
        noise = -p.sigma_t * score
        data = (x - p.sigma_t * noise) / p.alpha_t
        c = self.eta * p.sigma_s * math.sqrt(p.lost)
        return _noisy(p.alpha_s * data + math.sqrt(p.sigma_s**2 - c**2) * noise, c, p, rng), None


@dataclass(frozen=True)
class DPMSolver:
    """DPM-Solver++, in the data prediction, exact where x̂₀ does not change       Eqs. (10.6), (10.7), (10.8).

    Lu et al. 2022.

        x_s = (σ_s/σ_t) x + α_s (1 - e^{-h}) m                       the ODE
        x_s = (σ_s/σ_t) e^{-h} x + α_s (1 - e^{-2h}) m + σ_s √(1 - e^{-2h}) z             the SDE

    m = x̂₀ for order 1; for order 2 (2M) extrapolated to the middle of the step from the step before,
    m = (1 + 1/2r) x̂₀ - (1/2r) x̂₀', r = h'/h. The first step, and one that ends without noise, are of order 1.

    Parameters
    ----------
    order : int
        1 or 2.
    stochastic : bool
        False (default) follows the probability flow, True the reverse SDE.

    Raises
    ------
    ValueError
        For another order.
    """

    sde: SDE
    score: Score
    order: int = 2
    stochastic: bool = False

    def __post_init__(self) -> None:
        check_made_for(self.score, self.sde)
        settle(self, order=0)
        if self.order not in (1, 2):
            raise ValueError(f"order must be 1 or 2, got {self.order}")

    def __call__(
        self, x: Array, t: float, s: float, rng: Rng, memory: tuple[Array, float] | None = None
    ) -> tuple[Array, tuple[Array, float]]:
        """x (B, ...) at t -> x (B, ...) at s; remembers x̂₀ and h."""
        p = transition(self.sde, t, s)
        m = data = (x + p.sigma_t**2 * ask(self.score, x, t)) / p.alpha_t
        if self.order == 2 and memory is not None and p.h < math.inf:
            before, h = memory
            m = data + 0.5 * p.h / h * (data - before)
        if self.stochastic:
            mean = p.sigma_s / p.sigma_t * math.exp(-p.h) * x + p.alpha_s * p.lost * m
            return _noisy(mean, p.sigma_s * math.sqrt(p.lost), p, rng), (data, p.h)
        return p.sigma_s / p.sigma_t * x - p.alpha_s * math.expm1(-p.h) * m, (data, p.h)


@dataclass(frozen=True)
class EDM:
    """Heun's method in ς = σ/α with churn: noise is added before each step                           Eq. (10.9).

    Karras et al. 2022, Algorithm 2.
    In x/α, where every linear SDE has the flow dy/dς = (y - x̂₀)/ς: raise ς to ς' = (1 + γ) ς with fresh noise, then one
    Heun step from ς' to the next level (Euler where that is without noise). Without churn it is deterministic.

    Parameters
    ----------
    churn : float
        γ, theirs is min(S_churn/N, √2 - 1); 0 (default) is none.
    low, high : float
        Churn only where low <= ς <= high.
    inflate : float
        S_noise: factor of the fresh noise.

    Raises
    ------
    ValueError
        Unless 0 <= churn <= √2 - 1, inflate > 0 and low <= high.
    """

    sde: SDE
    score: Score
    churn: float = 0.0
    low: float = 0.0
    high: float = math.inf
    inflate: float = 1.0

    def __post_init__(self) -> None:
        settle(self)
        check_made_for(self.score, self.sde)
        if not (self.churn >= 0 and self.inflate > 0 and self.low <= self.high):
            raise ValueError(f"need churn >= 0, inflate > 0 and low <= high, got {self}")
        if self.churn > 0:
            check_inverse(self.sde)
        if self.churn > math.sqrt(2) - 1:
            raise ValueError(
                f"churn is γ, at most √2 - 1 = 0.414, got {self.churn}; of the S_churn of Karras et al., over N steps, "
                "it is min(S_churn/N, √2 - 1)"
            )

    def __call__(self, x: Array, t: float, s: float, rng: Rng, memory: None = None) -> tuple[Array, None]:
        """x (B, ...) at t -> x (B, ...) at s."""
        p = transition(self.sde, t, s)
        level, end = p.sigma_t / p.alpha_t, p.sigma_s / p.alpha_s
        y = x / p.alpha_t
        if self.churn > 0 and self.low <= level <= self.high:
            top = self.sde.sigma(1.0) / self.sde.alpha(1.0)
            raised = min((1 + self.churn) * level, top)  # there is no noise beyond t = 1
            z = rng.standard_normal(x.shape, dtype=x.dtype)
            y = y + self.inflate * math.sqrt(max(raised**2 - level**2, 0.0)) * z
            level, t = raised, min(float(self.sde.time_at_log_ratio(math.log(raised))), 1.0)
        slope = self._slope(y, t, level)
        step = y + (end - level) * slope
        if end > 0:
            step = y + 0.5 * (end - level) * (slope + self._slope(step, s, end))
        return p.alpha_s * step, None

    def _slope(self, y: Array, t: float, level: float) -> Array:
        """dy/dς = (y - x̂₀)/ς = -σ s(α y)."""
        alpha = float(self.sde.alpha(t))
        return -level * alpha * ask(self.score, alpha * y, t)


def _noisy(mean: Array, std: float, p: Transition, rng: Rng) -> Array:
    """mean + std z, unless the step ends without noise, or adds none."""
    if std == 0 or p.h == math.inf:
        return mean
    return mean + std * rng.standard_normal(mean.shape, dtype=mean.dtype)


# How to build each sampler from an SDE and a score.
SAMPLERS: dict[str, Callable[[SDE, Score], Step]] = {
    "euler-maruyama": lambda sde, score: EulerMaruyama(Reverse(sde, score)),
    "reverse-diffusion": ReverseDiffusion,
    "ancestral": Ancestral,
    "ancestral-large": lambda sde, score: Ancestral(sde, score, "large"),
    "ddim": DDIM,
    "ddim-eta1": lambda sde, score: DDIM(sde, score, 1.0),
    "euler": lambda sde, score: RungeKutta(Reverse(sde, score, 0.0).drift, EULER),
    "midpoint": lambda sde, score: RungeKutta(Reverse(sde, score, 0.0).drift, MIDPOINT),
    "heun": lambda sde, score: Heun(Reverse(sde, score, 0.0).drift),
    "rk4": lambda sde, score: RungeKutta(Reverse(sde, score, 0.0).drift, RK4),
    "dpm-solver++1": lambda sde, score: DPMSolver(sde, score, 1),
    "dpm-solver++2m": DPMSolver,
    "sde-dpm-solver++2m": lambda sde, score: DPMSolver(sde, score, stochastic=True),
    "edm": EDM,
    "edm-churn": lambda sde, score: EDM(sde, score, churn=0.1),
}
