"""Protocols: which methods arrays, randomness, scores, SDEs, steps, models and objectives must have."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeAlias

Array: TypeAlias = Any
Time: TypeAlias = Any  # a Python float, or an array of shape (1,) or (B,)
Params: TypeAlias = Mapping[str, Array]
Shapes: TypeAlias = Mapping[str, tuple[int, ...]]


class Rng(Protocol):
    """Source of random numbers: numpy.random.Generator, its CuPy twin, or a stand-in that replays recorded noise."""

    def standard_normal(self, size: Any = None, dtype: Any = ...) -> Array:
        """Draw N(0, 1) numbers of shape `size`, in `dtype` (float32 or float64)."""

    def random(self, size: Any = None, dtype: Any = ...) -> Array:
        """Draw uniform numbers in [0, 1) of shape `size`, in `dtype` (float32 or float64)."""

    def integers(self, low: int, high: int, size: Any = None) -> Array:
        """Draw uniform integers in [low, high) of shape `size`."""


class Score(Protocol):
    """∇ₓ log p_t(x), as any callable: a network, an exact score, a lambda."""

    def __call__(self, x: Array, t: Array) -> Array:
        """Evaluate at x (B, ...) and t (B,), or (1,) when all samples share one time -> (B, ...)."""


class Process(Protocol):
    """dx = drift(x, t) dt + noise(x, t) dw, in either direction of time."""

    def drift(self, x: Array, t: float) -> Array:
        """The drift at x (B, ...) and time t -> (B, ...)."""

    def noise(self, x: Array, t: float) -> Any:
        """The factor of dw at x and time t: a float, or an array that broadcasts against x."""


class Kernel(Protocol):
    """A random map that leaves p_t unchanged, or nearly so: Langevin, a corrector."""

    def __call__(self, x: Array, t: float, rng: Rng) -> Array:
        """x (B, ...) at time t -> x (B, ...) at the same time."""


class Step(Protocol):
    """One step of a sampler, from time t to time s."""

    def __call__(self, x: Array, t: float, s: float, rng: Rng, memory: Any = None) -> tuple[Array, Any]:
        """x (B, ...) at t -> x (B, ...) at s, and what the method must remember."""


class SDE(Protocol):
    """A linear SDE dx = f(t) x dt + g(t) dw on [0, 1], data at 0, noise at 1; see `refscore.noise.sde`."""

    @property
    def prior_std(self) -> float:
        """Standard deviation of the noise that sampling starts from, in data units."""

    def f(self, t: Time) -> Time:
        """Drift rate f(t), per unit time, in the shape of t."""

    def g(self, t: Time) -> Time:
        """Diffusion coefficient g(t), in data units per square root of time, in the shape of t."""

    def alpha(self, t: Time) -> Time:
        """Signal scale α(t), with α(0) = 1."""

    def sigma(self, t: Time) -> Time:
        """Noise scale σ(t), with σ(0) = 0."""

    def time(self, sigma: Time) -> Time:
        """The t at which σ(t) = sigma, in the shape of sigma."""

    def time_at_log_ratio(self, ratio: Time) -> Time:
        """The t at which log σ(t)/α(t) = ratio, in the shape of ratio."""


class ScoreWithJvp(Protocol):
    """A score that can be differentiated: `ExactScore`, or what `model.bind(theta)` returns."""

    def __call__(self, x: Array, t: Time) -> Array:
        """Evaluate the score: x (B, ...), t a float, (1,) or (B,) -> s (B, ...)."""

    def jvp(self, x: Array, t: Time, v: Array) -> tuple[Array, Array]:
        """The score s (B, ...) at x and its derivatives ∇s v (K, B, ...) along directions v (K, B, ...)."""


class Model(Protocol):
    """What an objective uses of a score model: its SDE, its layout, and the passes of a layer.

    `Implicit` and `Sliced` need `jvp` and `jvp_backward` as well (see `refscore.nn.layer`).
    """

    @property
    def sde(self) -> SDE:
        """The SDE whose marginal scores it learns."""

    @property
    def shapes(self) -> Shapes:
        """Name -> shape of every parameter: the layout of the flat vector θ."""

    def init(self, rng: Rng, dtype: Any = ...) -> Array:
        """Draw the initial parameters, as one flat vector θ (P,)."""

    def forward(self, params: Any, x: Array, t: Time) -> tuple[Array, Any]:
        """Evaluate the score: parameters by name, x (B, ...), t (B,) or (1,) -> s (B, ...), and the cache."""

    def backward(self, params: Any, cache: Any, dy: Array) -> tuple[Any, Any]:
        """Adjoint of the score dy (B, ...) -> adjoint of x, (dx,), and the gradients of the parameters by name."""


class Objective(Protocol):
    """The loss that `fit` minimises, with its gradient."""

    def __call__(self, model: Any, theta: Array, x0: Array, rng: Rng) -> tuple[Array, Array]:
        """Loss (0-d) and gradient, of the shape of theta."""


Rate = float | Callable[[int], float]


class Optimizer(Protocol):
    """What `fit` uses of an optimiser; its state is returned and given back, never kept inside."""

    @property
    def rate(self) -> Rate:
        """Learning rate, or a schedule: step (1, 2, ...) -> learning rate."""

    def init(self, theta: Array) -> Any:
        """The state before the first step, for parameters theta (P,)."""

    def update(self, grad: Array, state: Any, theta: Array) -> tuple[Array, Any]:
        """Take one step: gradient (P,), state and theta (P,) -> new theta (P,) and new state."""
