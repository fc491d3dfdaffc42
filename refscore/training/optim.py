"""Optimisers on one flat parameter vector: a few vector operations each.

An optimiser is hyper-parameters and two functions, `init(theta) -> state` and
`update(grad, state, theta) -> (theta, state)`; nothing is changed in place, so a run can be
stopped and resumed anywhere.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

from refscore.arrays import constant, namespace
from refscore.checks import check_array, check_count, check_number, check_positive, settle
from refscore.library import array_namespace
from refscore.protocols import Array, Rate


class AdamState(NamedTuple):
    """Steps taken, and the running sums of g and g².

    Parameters
    ----------
    step : int
        n, the number of updates so far.
    m : Array, shape (P,)
        Σᵢ b₁ⁿ⁻ⁱ gᵢ, without the factor 1 - b₁.
    v : Array, shape (P,)
        Σᵢ b₂ⁿ⁻ⁱ gᵢ², without the factor 1 - b₂.
    """

    step: int
    m: Array
    v: Array


@dataclass(frozen=True)
class Adam:
    """Adam, steps scaled by running moments of the gradient      Kingma and Ba 2015, Algorithm 1.

        m = b₁ m + (1 - b₁) g,   v = b₂ v + (1 - b₂) g²,   θ -= rate m̂ / (√v̂ + eps)

    with m̂ = m/(1 - b₁ⁿ), v̂ = v/(1 - b₂ⁿ). The sums are kept without the factors 1 - b, which go
    into two Python floats: fewer passes over θ, the same numbers. In float32 v is good to u/(1 - b₂), 6e-5.

    Parameters
    ----------
    rate : float or callable step -> float, default 0.001
        Learning rate, or a schedule of the step 1, 2, ..., e.g. `WarmupCosine`.
    b1, b2 : float, default 0.9 and 0.999
        How much of m and of v is kept at each step; default 0.9 and 0.999.
    eps : float, default 1e-08
        Added to √v̂, in the units of g.

    Raises
    ------
    ValueError
        Unless the rate (if a number) and eps are positive and 0 <= b1, b2 < 1.

    Examples
    --------
    In the first step m̂ = g and v̂ = g²: every parameter moves by the rate, however large its gradient.

    >>> import numpy as np
    >>> from refscore import Adam
    >>> adam, theta = Adam(rate=0.1), np.array([1.0, 1.0])
    >>> theta, state = adam.update(np.array([1000.0, -0.5]), adam.init(theta), theta)
    >>> theta.round(6)
    array([0.9, 1.1])
    """

    rate: Rate = 1e-3
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8

    def __post_init__(self) -> None:
        settle(self)
        _check_rate(self.rate)
        check_positive(eps=self.eps)
        if not (0 <= self.b1 < 1 and 0 <= self.b2 < 1):
            raise ValueError(f"b1 and b2 must lie in [0, 1), got {self.b1}, {self.b2}")

    def init(self, theta: Array) -> AdamState:
        """The state before the first step: both sums are zeros of the shape of theta (P,)."""
        zero = constant(0.0, theta)
        return AdamState(0, zero, zero)

    def update(self, grad: Array, state: AdamState, theta: Array) -> tuple[Array, AdamState]:
        """Take one step: grad, theta (P,) -> new theta (P,) and new state."""
        n = state.step + 1
        m = self.b1 * state.m
        m += grad
        v = self.b2 * state.v
        v += grad * grad
        # m̂ = m_scale m, v̂ = v_scale v; the step may be an array of a compiler's, which `math` cannot take
        m_scale = (1 - self.b1) / (1 - self.b1**n)
        v_scale = (1 - self.b2) / (1 - self.b2**n)
        move = array_namespace(v).sqrt(v)
        move += self.eps / v_scale**0.5
        move = m / move
        move *= -_rate(self.rate, n) * m_scale / v_scale**0.5
        move += theta
        return move, AdamState(n, m, v)


class SGDState(NamedTuple):
    """Steps taken, and the running sum of gradients.

    Parameters
    ----------
    step : int
        n, the number of updates so far.
    m : Array, shape (P,)
        Σᵢ momentumⁿ⁻ⁱ gᵢ.
    """

    step: int
    m: Array


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent with momentum: m = momentum m + g,   θ -= rate m.

    Parameters
    ----------
    rate : float or callable step -> float, default 0.01
        Learning rate, or a schedule of the step 1, 2, ..., e.g. `WarmupCosine`.
    momentum : float, default 0.0
        How much of m is kept at each step.

    Raises
    ------
    ValueError
        Unless the rate (if a number) is positive and 0 <= momentum < 1.

    Examples
    --------
    Two steps with gradient 1: m is 1, then ½ + 1, so θ moves by 0.1 and by 0.15.

    >>> import numpy as np
    >>> from refscore import SGD
    >>> sgd, theta = SGD(rate=0.1, momentum=0.5), np.array([1.0])
    >>> theta, state = sgd.update(np.array([1.0]), sgd.init(theta), theta)
    >>> theta, state = sgd.update(np.array([1.0]), state, theta)
    >>> theta.round(6)
    array([0.75])
    """

    rate: Rate = 1e-2
    momentum: float = 0.0

    def __post_init__(self) -> None:
        settle(self)
        _check_rate(self.rate)
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must lie in [0, 1), got {self.momentum}")

    def init(self, theta: Array) -> SGDState:
        """The state before the first step: the sum is zeros of the shape of theta (P,)."""
        return SGDState(0, constant(0.0, theta))

    def update(self, grad: Array, state: SGDState, theta: Array) -> tuple[Array, SGDState]:
        """Take one step: grad, theta (P,) -> new theta (P,) and new state."""
        m = self.momentum * state.m + grad
        return theta - _rate(self.rate, state.step + 1) * m, SGDState(state.step + 1, m)


class EMAState(NamedTuple):
    """The average so far, in two parts: the mean is `value + low`.

    Parameters
    ----------
    step : int
        n, the number of θ averaged so far.
    weight : float
        Sum of their weights, Σᵢ dⁿ⁻ⁱ.
    value : Array, shape (P,)
        The mean, rounded.
    low : Array, shape (P,)
        What the rounding cut off.
    """

    step: int
    weight: float
    value: Array
    low: Array


@dataclass(frozen=True)
class EMA:
    """Exponential moving average of the parameters: after n steps Σᵢ dⁿ⁻ⁱ θᵢ / Σᵢ dⁿ⁻ⁱ.

    Exactly a weighted mean of the θ visited, from the first step on; the starting point has no
    weight, so no warm-up is needed. Late steps move the mean by less than a float32 can hold, so what is rounded off is
    kept and added later (Kahan 1965): the mean is good to a few roundings at any decay.

    Parameters
    ----------
    decay : float, default 0.999
        d; the mean reaches back over about 1/(1 - d) steps. Default 0.999.

    Raises
    ------
    ValueError
        Unless 0 <= decay < 1.

    Examples
    --------
    With d = ½ the last of two has twice the weight of the first: (½ · 1 + 4)/(½ + 1).

    >>> import numpy as np
    >>> from refscore import EMA
    >>> ema = EMA(decay=0.5)
    >>> state = ema.init(np.array([0.0]))
    >>> for theta in (np.array([1.0]), np.array([4.0])):
    ...     state = ema.update(state, theta)
    >>> ema.mean(state).round(6)
    array([3.])
    """

    decay: float = 0.999

    def __post_init__(self) -> None:
        settle(self)
        if not 0 <= self.decay < 1:
            raise ValueError(f"decay must lie in [0, 1), got {self.decay}")

    def init(self, theta: Array) -> EMAState:
        """The state before anything is averaged; of theta (P,) only shape, dtype and device are used."""
        zero = constant(0.0, theta)
        return EMAState(0, 0.0, zero, zero)

    def update(self, state: EMAState, theta: Array) -> EMAState:
        """Add one more θ (P,) to the average: mean + (θ - mean)/w, w = 1 + d + d² + ... the weights so far."""
        weight = 1 + self.decay * state.weight
        move = theta - state.value
        move -= state.low
        move *= 1 / weight
        move += state.low
        value = state.value + move
        move -= value - state.value
        return EMAState(state.step + 1, weight, value, move)

    def mean(self, state: EMAState) -> Array:
        """The average (P,) of the parameters given to `update`; ValueError before the first update."""
        if state.step == 0:
            raise ValueError("nothing has been averaged yet")
        return state.value + state.low


def clip(grad: Array, max_norm: float) -> tuple[Array, Array]:
    """Shorten a gradient to a given norm where it is longer.

    Parameters
    ----------
    grad : Array, shape (P,)
        The gradient.
    max_norm : float
        The largest norm; `math.inf` leaves every gradient as it is.

    Returns
    -------
    grad : Array, shape (P,)
        In the same direction, of norm at most max_norm.
    norm : Array, 0-d
        The norm before.

    Raises
    ------
    TypeError
        For a max_norm that is not a number.

    Examples
    --------
    >>> import numpy as np
    >>> from refscore.training.optim import clip
    >>> grad, norm = clip(np.array([3.0, 4.0]), max_norm=1.0)
    >>> grad.round(6), float(norm)
    (array([0.6, 0.8]), 5.0)
    """
    check_array(grad=grad)
    xp, max_norm = array_namespace(grad), check_number("max_norm", max_norm)
    if not max_norm > 0:
        raise ValueError(f"max_norm must be positive, got {max_norm}")
    norm = xp.sqrt(xp.vecdot(grad, grad))
    if max_norm > 1e30:  # as infinity: the float32 numbers end soon
        return grad, norm
    return grad * xp.minimum(max_norm / (norm + 1e-30), 1.0), norm


@dataclass(frozen=True)
class WarmupCosine:
    """Learning rate: up linearly over `warmup` steps to `peak`, down along half a cosine to `end`.

    Parameters
    ----------
    peak : float
        The largest rate, at step `warmup` (or at the start, if that is 0).
    steps : int
        Length of the schedule, the warm-up included.
    warmup : int, default 0
        Number of steps of the rise.
    end : float, default 0.0
        Rate at the last step, and after it.

    Raises
    ------
    ValueError
        Unless peak > 0, 0 <= end <= peak and 0 <= warmup < steps; past the last step, if end is 0.

    Examples
    --------
    >>> from refscore.training.optim import WarmupCosine
    >>> rate = WarmupCosine(peak=1.0, steps=10, warmup=2)
    >>> [round(rate(step), 6) for step in (1, 2, 6, 10)]  # half up, up, half down, down
    [0.5, 1.0, 0.5, 0.0]
    """

    peak: float
    steps: int
    warmup: int = 0
    end: float = 0.0

    def __post_init__(self) -> None:
        settle(self, steps=1, warmup=0)
        check_positive(peak=self.peak)
        if not 0 <= self.end <= self.peak:
            raise ValueError(f"need 0 <= end <= peak, got end {self.end}, peak {self.peak}")
        if not self.warmup < self.steps:
            raise ValueError(f"need 0 <= warmup < steps, got warmup {self.warmup}, steps {self.steps}")

    def __call__(self, step: int) -> float:
        """The rate at step 1, 2, ...; past the last it stays at `end`."""
        step = check_count("step", step)
        if step > self.steps and self.end == 0:
            raise ValueError(
                f"step {step} is past the last of this schedule, {self.steps}, where the rate is 0: make it as long as "
                "the training, or give it an end above 0"
            )
        if step <= self.warmup:
            return self.peak * step / self.warmup
        done = min(1.0, (step - self.warmup) / (self.steps - self.warmup))
        return self.end + (self.peak - self.end) * 0.5 * (1 + namespace(done).cos(math.pi * done))


def _rate(rate: Rate, step: int) -> float:
    if not callable(rate):
        return rate
    now = check_number("rate(step)", rate(step))
    if not 0 <= now < math.inf:
        raise ValueError(f"rate({step}) must be finite and not negative, got {now}")
    return now


def _check_rate(rate: Rate) -> None:
    if not callable(rate):
        check_positive(rate=rate)
