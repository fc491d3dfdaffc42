"""Conditional sampling without a conditional model: guidance, and inpainting by replacement. Chapter 13.

What they sample instead of the conditional law is known, and measured, on mixtures (`refscore.laws.posterior`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from refscore.arrays import ask, per_sample
from refscore.checks import check_floating, check_like, check_range, is_number, plain, settle
from refscore.library import array_namespace, is_array_api_obj
from refscore.noise.reverse import mean_without_signal
from refscore.protocols import SDE, Array, Rng, Score, Step, Time


@dataclass(frozen=True)
class Guided:
    """The score s + w (s_y - s): classifier guidance, and classifier-free guidance                   Eq. (13.7).

    s_y - s is the gradient of log p_t(y | x): from a classifier of noisy x (Dhariwal and Nichol 2021), or from two
    scores (Ho and Salimans 2022, whose w is ours less 1). w = 1 is the conditional score, w = 0 the unconditional. For
    any other w it is the score of p_t(x) p_t(y | x)^w at each t, but these are not the marginals of noise added
    to p(x) p(y | x)^w, nor to any other law: the flow and the reverse SDE then end in different laws, Eq. (13.10).

    Parameters
    ----------
    unconditional : callable (x, t) -> (B, ...)
        The score s of p_t(x).
    conditional : callable (x, t) -> (B, ...)
        The score s_y of p_t(x | y).
    weight : float
        w, without unit.
    interval : (float, float), default (0.0, 1.0)
        Times between which w counts; before and after it is 1, the conditional score, and `unconditional` is not asked
        where t is a number (Kynkäänniemi et al. 2024). Eq. (22.8) is what that does to a Gaussian.

    Raises
    ------
    ValueError
        Unless 0 <= interval[0] < interval[1] <= 1; at the call, where a score answers in another shape than that of x.

    Examples
    --------
    >>> import numpy as np
    >>> from refscore.sampling.guidance import Guided
    >>> score = Guided(lambda x, t: -x, lambda x, t: 1 - x, weight=3.0)  # N(0, 1) is guided towards N(1, 1)
    >>> score(np.array([[0.0]]), np.array([0.5]))  # 0 + 3 (1 - 0)
    array([[3.]])
    """

    unconditional: Score
    conditional: Score
    weight: float
    interval: tuple[float, float] = (0.0, 1.0)
    takes_numbers: ClassVar[bool] = True

    def __post_init__(self) -> None:
        settle(self)
        check_range(-1e100, 1e100, weight=self.weight)
        if not (len(self.interval) == 2 and 0 <= self.interval[0] < self.interval[1] <= 1):
            raise ValueError(f"interval must be two times, 0 <= first < second <= 1; got {self.interval}")

    def __call__(self, x: Array, t: Time) -> Array:
        """Return the guided score of x (B, ...) at t, a float or an array (1,) or (B,): (B, ...)."""
        return self._mixed(x, t, ask)

    def posterior_mean(self, x: Array, t: Time) -> Array:
        """Return the guided x̂₀, mixed as the scores are, which where α = 0 does not follow from them: (B, ...)."""
        return self._mixed(x, t, lambda score, x, t, who: mean_without_signal(score, x, t))

    def _mixed(self, x: Array, t: Time, of: Callable[[Score, Array, Time, str], Array]) -> Array:
        """What both scores say, with the weight that counts at t."""
        u_y, (low, high) = of(self.conditional, x, t, "the conditional score"), self.interval
        if is_number(t) and not low <= t <= high:
            return u_y
        u = of(self.unconditional, x, t, "the unconditional score")
        guided = u + self.weight * (u_y - u)
        if is_number(t) or self.interval == (0.0, 1.0):
            return guided
        return array_namespace(x).where(per_sample((low <= t) & (t <= high), x), guided, u_y)


@dataclass(frozen=True)
class Replace:
    """Inpainting by replacement (Song et al. 2021): after each step known coordinates are noised data  Eq. (13.12).

    Noised afresh. The unknown ones are moved by the unconditional score, which sees that noise, and not by the
    conditional one: their law is another, however many steps there are; Eqs. (13.13), (13.14) say which. With moves > 1
    each step is taken, undone by forward noise, and taken again (Lugmayr et al. 2022): that comes nearer. A multistep
    method then takes first steps only: what it remembers is of a path that was left, and repeated it diverges.

    Parameters
    ----------
    step : callable (x, t, s, rng, memory) -> (x, memory)
        The sampler without condition, for example `DDIM`.
    sde : SDE
        The one that the score of the step belongs to: its noise is added to the known values.
    known : Array (B, ...) or broadcastable to x
        Clean values; only those under the mask count.
    mask : Array, broadcastable to x
        1 (or True) where known, 0 (or False) where not.
    moves : int, default 1
        How often each step is taken; an evaluation of the score each time.

    Raises
    ------
    TypeError
        Unless known is a float32 or float64 array, and the mask an array of the same library.
    ValueError
        Unless moves is an integer >= 1 and the mask 0 or 1; at the call, where known does not broadcast to x.

    Examples
    --------
    >>> import numpy as np
    >>> from refscore import VP, Stay
    >>> from refscore.sampling.guidance import Replace
    >>> step = Replace(Stay(), VP(), known=np.array([[1.0, 2.0]]), mask=np.array([[True, False]]))
    >>> x, memory = step(np.array([[7.0, 7.0]]), 0.5, 0.0, np.random.default_rng(0))
    >>> x  # at s = 0 the known value is clean, and the other is what the step made of it
    array([[1., 7.]])
    """

    step: Step
    sde: SDE
    known: Array
    mask: Array
    moves: int = 1

    def __post_init__(self) -> None:
        settle(self, moves=1)
        check_floating("known", self.known)
        xp = array_namespace(self.known)
        if not is_array_api_obj(self.mask) or array_namespace(self.mask) is not xp:
            raise TypeError(f"mask must be an array of {xp.__name__}, as known is; got {type(self.mask).__name__}")
        object.__setattr__(self, "mask", xp.astype(self.mask, self.known.dtype))
        if not bool(xp.all((self.mask == 0) | (self.mask == 1))):
            raise ValueError("mask must be 1 where a coordinate is known and 0 where not, and nothing else")
        if not bool(xp.all((self.mask == 0) | xp.isfinite(self.known))):
            raise ValueError("known holds values that are not finite where mask is 1")

    def __call__(self, x: Array, t: float, s: float, rng: Rng, memory: object = None) -> tuple[Array, object]:
        """Move x (B, ...) from time t to time s; the memory is that of the step, and with moves > 1 None."""
        check_like(rng=rng)
        alpha, sigma = plain(self.sde.alpha(s)), plain(self.sde.sigma(s))
        a = plain(self.sde.alpha(t)) / alpha
        back = max(plain(self.sde.sigma(t)) ** 2 - (a * sigma) ** 2, 0.0) ** 0.5
        for move in range(self.moves):
            if move:
                x = a * x + back * rng.standard_normal(x.shape, dtype=x.dtype)
            x, found = self.step(x, t, s, rng, memory if self.moves == 1 else None)
            noised = alpha * self.known + sigma * rng.standard_normal(x.shape, dtype=x.dtype)
            if noised.shape != x.shape:
                raise ValueError(f"known {tuple(self.known.shape)} does not broadcast to x {tuple(x.shape)}")
            x = array_namespace(x).where(self.mask == 1, noised, x)  # not a product: the unknown may be NaN in `known`
        return x, found if self.moves == 1 else None
