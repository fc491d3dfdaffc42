"""Steps that use the exact transition of a linear SDE: ancestral sampling, DDIM, DPM-Solver++, reverse diffusion.

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

from refscore.arrays import ask, namespace
from refscore.checks import (
    check_array,
    check_inverse,
    check_like,
    check_made_for,
    check_number,
    check_range,
    plain,
    settle,
)
from refscore.library import array_namespace
from refscore.noise.interpolant import BELOW
from refscore.noise.reverse import Reverse, mean_without_signal
from refscore.protocols import SDE, Array, Rng, Score, Step
from refscore.sampling.solvers import EULER, MIDPOINT, RK4, EulerMaruyama, Heun, RungeKutta


class Transition(NamedTuple):
    """The numbers of a step from t down to s, all Python floats; `transition` makes them.

    Parameters
    ----------
    alpha_t, alpha_s : float
        Signal scales α at t and at s.
    sigma_t, sigma_s : float
        Noise scales σ at t and at s, in data units.
    h : float
        Half the gain in log signal-to-noise ratio, positive; infinite where σ_s = 0 or α_t = 0.
    """

    alpha_t: float
    alpha_s: float
    sigma_t: float
    sigma_s: float
    h: float  # half the gain in log signal-to-noise ratio; infinite where σ_s = 0 or α_t = 0

    @property
    def a(self) -> float:
        """The signal that x_t keeps of x_s, α_t/α_s."""
        return self.alpha_t / self.alpha_s

    @property
    def lost(self) -> float:
        """1 - e^{-2h}: the part of the noise variance at t that came after s."""
        return -namespace(self.h).expm1(-2 * self.h)


def transition(sde: SDE, t: float, s: float, x: Array | None = None) -> Transition:
    """The numbers that a step from t down to s is made of                                    Eqs. (10.1), (10.2).

    Parameters
    ----------
    sde : SDE
        The linear SDE that is stepped through.
    t, s : float
        Times in [0, 1], s < t.
    x : Array, optional
        Samples that the step will move: in float32 an α(t) that it cannot hold is refused.

    Returns
    -------
    Transition
        α and σ at both times, and h.

    Raises
    ------
    ValueError
        Unless s < t, and there is noise at t, and more than at s: these steps remove noise.

    Examples
    --------
    >>> from refscore.noise.sde import LinearVE
    >>> from refscore.sampling.transitions import transition
    >>> p = transition(LinearVE(1.0), 1.0, 0.5)  # σ from 1 to ½: h = log 2
    >>> p.sigma_s, round(p.h, 4), round(p.lost, 4)
    (0.5, 0.6931, 0.75)
    """
    check_like(sde=sde)
    t, s = check_number("t", t), check_number("s", s)
    if not s < t:
        raise ValueError(f"this step goes down in time, from noise to data; got t = {t}, s = {s}")
    alpha_t, alpha_s, sigma_t, sigma_s = (plain(v) for v in (sde.alpha(t), sde.alpha(s), sde.sigma(t), sde.sigma(s)))
    if x is not None:
        check_array(x=x)
    if x is not None and 0 < alpha_t <= 1e-36 and x.dtype == array_namespace(x).float32:
        raise ValueError(f"α({t}) = {alpha_t:.3g} is less than float32 holds: take float64, or an SDE with less noise")
    if sigma_t <= 0:
        raise ValueError(f"there is no noise to remove at t = {t}")
    log = namespace(sigma_t).log
    h = math.inf if sigma_s == 0 or alpha_t == 0 else log(alpha_s / alpha_t) + log(sigma_t / sigma_s)
    if not h > 0:
        raise ValueError(f"t = {t} and s = {s} have the same noise: they are too near each other")
    return Transition(alpha_t, alpha_s, sigma_t, sigma_s, h)


@dataclass(frozen=True)
class Ancestral:
    """Draw x_s from its law given x_t and x̂₀: x_s = (x + σ²_{t|s} s)/a + c z              Eq. (10.4); Ho et al. 2020.

    variance "small" is c² = σ_s² (1 - e^{-2h}), that of x_s given x_t and x₀ (β̃ in DDPM): exact where the data are one
    point. "large" is c² = σ²_{t|s} (β in DDPM): exact for a VP SDE where the data are N(0, I). A function of t, the
    mean square of the score E‖s(x_t, t)‖²/D, gives the best c² for the data at hand, the mean variance of x_s given
    x_t: c² = (σ_{t|s}/a)² (1 - σ²_{t|s} E‖s‖²/D), Eq. (10.21); Bao et al. 2022. It is never below "small".

    Parameters
    ----------
    sde : SDE
        The forward SDE, whose α and σ are used.
    score : callable (x, t) -> (B, ...)
        ∇ log p_t(x) under this SDE, for x (B, ...) and t an array (1,).
    variance : str or callable t -> float, default "small"
        "small", "large", or the mean square of the score, per coordinate, as a function of a Python float t.

    Raises
    ------
    ValueError
        For another variance, or a mean square that is negative or not finite; for a score that was made for another
        SDE; at a step that removes no noise (`transition`).

    Examples
    --------
    >>> import numpy as np
    >>> from refscore import Ancestral
    >>> from refscore.noise.sde import LinearVE
    >>> score = lambda x, t: -x / (1 + t**2)  # data N(0, 1) with noise of σ = t
    >>> x, memory = Ancestral(LinearVE(1.0), score)(np.array([[2.0]]), 1.0, 0.0, np.random.default_rng(0))
    >>> x  # a step to 0 ends at x̂₀ = x + σ² s = x/2, without noise
    array([[1.]])
    """

    sde: SDE
    score: Score
    variance: str | Callable[[float], float] = "small"

    def __post_init__(self) -> None:
        settle(self)
        check_made_for(self.score, self.sde)
        function = callable(self.variance) and not isinstance(self.variance, type)
        if not function and self.variance not in ("small", "large"):
            raise ValueError(f"variance must be 'small' (β̃), 'large' (β) or a function of t, got {self.variance!r}")

    def __call__(self, x: Array, t: float, s: float, rng: Rng, memory: None = None) -> tuple[Array, None]:
        """Move x (B, ...) from time t to time s < t; there is nothing to remember (None)."""
        p = transition(self.sde, t, s, x)
        if p.alpha_t == 0:  # a = 0: x_t knows nothing of x_s
            mean = p.alpha_s * mean_without_signal(self.score, x, t)
        else:
            mean = (x + p.sigma_t**2 * p.lost * ask(self.score, x, t)) / p.a
        return _noisy(mean, self._std(p, t), p, rng), None

    def _std(self, p: Transition, t: float) -> float:
        """c, the deviation of the fresh noise."""
        if callable(self.variance) and p.a:  # where α_t = 0 the score says nothing of the data: large
            # between "small", where x₀ is certain given x_t, and nothing known: a true score never leaves these bounds
            mean_square = check_number("variance(t)", self.variance(t))
            check_range(0.0, 1e100, **{"variance(t)": mean_square})
            known = min(p.sigma_t**2 * mean_square, 1.0)
            return p.sigma_t / p.a * (p.lost * (1 - p.lost * known)) ** 0.5
        return (p.sigma_s if self.variance == "small" else p.sigma_t) * p.lost**0.5


@dataclass(frozen=True)
class ReverseDiffusion:
    """The forward chain's step, undone: x_s = (2 - a) x + σ²_{t|s} s + σ_{t|s} z           Song et al. 2021.

    How they discretise the reverse SDE. For VP its mean differs from that of `Ancestral` by terms of order β²; for VE
    the means are the same, and it is `Ancestral` with the large variance.

    Parameters
    ----------
    sde, score : see `Ancestral`.

    Raises
    ------
    ValueError
        For a score that was made for another SDE; at a step that removes no noise (`transition`).

    Examples
    --------
    >>> import numpy as np
    >>> from refscore import VP, ReverseDiffusion
    >>> step = ReverseDiffusion(VP(2.0, 2.0), lambda x, t: -x)  # data N(0, 1), α = 1/e at t = 1
    >>> x, memory = step(np.array([[1.0]]), 1.0, 0.0, np.random.default_rng(0))
    >>> x.round(4)  # 2 - 1/e - (1 - 1/e²)
    array([[0.7675]])
    """

    sde: SDE
    score: Score

    def __post_init__(self) -> None:
        settle(self)
        check_made_for(self.score, self.sde)

    def __call__(self, x: Array, t: float, s: float, rng: Rng, memory: None = None) -> tuple[Array, None]:
        """Move x (B, ...) from time t to time s < t; there is nothing to remember (None)."""
        p = _with_signal(transition(self.sde, t, s, x), t, self)
        variance = p.sigma_t**2 * p.lost
        return _noisy((2 - p.a) * x + variance * ask(self.score, x, t), variance**0.5, p, rng), None


@dataclass(frozen=True)
class DDIM:
    """Denoising diffusion implicit model, x_s = α_s x̂₀ + √(σ_s² - c²) ẑ + c z,  c = η σ_s √(1 - e^{-2h})  Eq. (10.10).

    Song, Meng and Ermon 2021. In this form for every linear SDE (their c, printed with α alone, is VP's). η = 0 draws
    nothing: Euler's method in σ/α, DPM-Solver++ of order 1. η = 1 is `Ancestral` with the small variance.

    Parameters
    ----------
    sde, score : see `Ancestral`.
    eta : float, default 0
        η, the share of fresh noise, from 0 to 1.

    Raises
    ------
    ValueError
        Unless 0 <= eta <= 1; for a score that was made for another SDE; at a step that removes no noise (`transition`).

    Examples
    --------
    >>> import numpy as np
    >>> from refscore import DDIM
    >>> from refscore.noise.sde import LinearVE
    >>> score = lambda x, t: -x / (1 + t**2)  # data N(0, 1) with noise of σ = t
    >>> x, memory = DDIM(LinearVE(1.0), score)(np.array([[2.0]]), 1.0, 0.5, np.random.default_rng(0))
    >>> x  # x̂₀ = 1 and ẑ = 1, so 1 + ½ · 1
    array([[1.5]])
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
        """Move x (B, ...) from time t to time s < t; there is nothing to remember (None)."""
        p = transition(self.sde, t, s, x)
        if p.alpha_t == 0:
            noise, data = x / p.sigma_t, mean_without_signal(self.score, x, t)
        else:
            noise = -p.sigma_t * ask(self.score, x, t)
            data = (x - p.sigma_t * noise) / p.alpha_t
        c = self.eta * p.sigma_s * p.lost**0.5
        return _noisy(p.alpha_s * data + (p.sigma_s**2 - c**2) ** 0.5 * noise, c, p, rng), None


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
    sde, score : see `Ancestral`.
    order : int, default 2
        1 or 2.
    stochastic : bool, default False
        False follows the probability flow, True the reverse SDE.

    Raises
    ------
    ValueError
        For another order, or a score that was made for another SDE; at a step that removes no noise (`transition`).

    Examples
    --------
    >>> import numpy as np
    >>> from refscore import DPMSolver, simulate
    >>> from refscore.noise.sde import LinearVE
    >>> score = lambda x, t: -x / (1 + t**2)  # data N(0, 1) with noise of σ = t
    >>> step = DPMSolver(LinearVE(1.0), score)
    >>> for x in simulate(step, np.array([[2.0]]), [1.0, 0.5, 0.25], np.random.default_rng(0)):
    ...     print(x.round(4))  # x̂₀ = 1, so 1 + ½ · 1; then x̂₀ = 1.2, m = 1.3, so ½ · 1.5 + ½ · 1.3
    [[1.5]]
    [[1.4]]
    """

    sde: SDE
    score: Score
    order: int = 2
    stochastic: bool = False

    def __post_init__(self) -> None:
        settle(self, order=0)
        check_made_for(self.score, self.sde)
        if self.order not in (1, 2):
            raise ValueError(f"order must be 1 or 2, got {self.order}")

    def __call__(
        self, x: Array, t: float, s: float, rng: Rng, memory: tuple[Array, float] | None = None
    ) -> tuple[Array, tuple[Array, float]]:
        """Move x (B, ...) from time t to time s < t; it remembers x̂₀ and h."""
        p = transition(self.sde, t, s, x)
        if p.alpha_t == 0:
            m = data = mean_without_signal(self.score, x, t)
        else:
            m = data = (x + p.sigma_t**2 * ask(self.score, x, t)) / p.alpha_t
        if self.order == 2 and memory is not None and p.h < math.inf:
            before, h = memory
            m = data + 0.5 * p.h / h * (data - before)
        if self.stochastic:
            mean = p.sigma_s / p.sigma_t * namespace(p.h).exp(-p.h) * x + p.alpha_s * p.lost * m
            return _noisy(mean, p.sigma_s * p.lost**0.5, p, rng), (data, p.h)
        return p.sigma_s / p.sigma_t * x - p.alpha_s * namespace(p.h).expm1(-p.h) * m, (data, p.h)


@dataclass(frozen=True)
class EDM:
    """Heun's method in ς = σ/α with churn: noise is added before each step                           Eq. (10.9).

    Karras et al. 2022, Algorithm 2, whose x is x/α and whose t is ς = σ/α here: there every linear SDE has the flow
    dx/dς = (x - x̂₀)/ς = d. Raise ς to ς̂ = (1 + γ) ς with fresh noise, which makes x̂; then one Heun step from ς̂ to the
    next level (Euler where that is without noise). Without churn it is deterministic.

    Parameters
    ----------
    sde, score : see `Ancestral`.
    churn : float, default 0
        γ, from 0 to √2 - 1; theirs is min(S_churn/N, √2 - 1); 0 is none.
    low, high : float, default 0 and infinity
        Churn only where low <= ς <= high.
    inflate : float, default 1
        S_noise, positive: factor of the fresh noise.

    Raises
    ------
    TypeError
        For churn with an SDE that has no `time_at_log_ratio`.
    ValueError
        Unless 0 <= churn <= √2 - 1, inflate > 0 and low <= high; for a score that was made for another SDE; at a step
        that removes no noise (`transition`).

    Examples
    --------
    >>> import numpy as np
    >>> from refscore import EDM
    >>> from refscore.noise.sde import LinearVE
    >>> score = lambda x, t: -x / (1 + t**2)  # data N(0, 1) with noise of σ = t
    >>> x, memory = EDM(LinearVE(1.0), score)(np.array([[2.0]]), 1.0, 0.5, np.random.default_rng(0))
    >>> x.round(4)  # slopes (x - x̂₀)/ς: 1 at (2, 1), 0.6 at (1.5, ½), so 2 - ½ · 0.8; the exact flow gives 1.5811
    array([[1.6]])
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
        """Move x (B, ...) from time t to time s < t; there is nothing to remember (None)."""
        p = _with_signal(transition(self.sde, t, s, x), t, self)
        x_hat, now, end = x / p.alpha_t, p.sigma_t / p.alpha_t, p.sigma_s / p.alpha_s
        hat = now
        # Raise the noise, from now to hat; there is none beyond t = 1.
        if self.churn > 0 and self.low <= now <= self.high:
            end_alpha = plain(self.sde.alpha(1.0))
            hat = min((1 + self.churn) * now, self.sde.sigma(1.0) / end_alpha if end_alpha else math.inf)
            check_like(rng=rng)
            z = rng.standard_normal(x.shape, dtype=x.dtype)
            x_hat = x_hat + self.inflate * max(hat**2 - now**2, 0.0) ** 0.5 * z
            t = min(plain(self.sde.time_at_log_ratio(namespace(hat).log(hat))), 1.0)
        # Euler step, from hat to end.
        d = self._slope(x_hat, t, hat)
        x_next = x_hat + (end - hat) * d
        # Second-order correction.
        if end > 0:
            d_next = self._slope(x_next, s, end)
            x_next = x_hat + 0.5 * (end - hat) * (d + d_next)
        return p.alpha_s * x_next, None

    def _slope(self, y: Array, t: float, level: float) -> Array:
        """dy/dς = (y - x̂₀)/ς = -σ s(α y)."""
        alpha = plain(self.sde.alpha(t))
        return -level * alpha * ask(self.score, alpha * y, t)


def _with_signal(p: Transition, t: float, step: Step) -> Transition:
    """Refuse α_t = 0 for a step that is not written in x̂₀ and ẑ."""
    if p.alpha_t == 0:
        raise ValueError(f"at t = {t} α is 0, and {type(step).__name__} divides by it: {BELOW}")
    return p


def _noisy(mean: Array, std: float, p: Transition, rng: Rng) -> Array:
    """mean + std z, unless the step ends without noise, or adds none."""
    if std == 0 or p.sigma_s == 0:
        return mean
    check_like(rng=rng)
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
