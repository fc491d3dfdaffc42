"""Protocols: which methods arrays, randomness, scores, SDEs, steps, models and objectives must have."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeAlias, runtime_checkable


class Array(Protocol):
    """An array of any library of the array API standard: what the formulas here use of it.

    NumPy's, CuPy's and array-api-strict's arrays are Arrays to a type checker; a string, a list or None is not.
    Operators answer with `Any`, since the stubs of these libraries disagree on the types of results. What comes back
    from a function here can be given to NumPy's functions; methods that the standard does not have (`x.sum()`, `x.T`)
    a type checker refuses, unless the variable is annotated: `x: numpy.ndarray = ...`.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""

    @property
    def ndim(self) -> int:
        """Number of axes."""

    @property
    def dtype(self) -> Any:
        """Type of the elements, an object of the library's own."""

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        """The same numbers in NumPy, where the library allows it without being asked by name."""

    def __getitem__(self, key: Any, /) -> Any:
        """self[key]."""

    def __add__(self, other: Any, /) -> Any:
        """self + other."""

    def __radd__(self, other: Any, /) -> Any:
        """other + self."""

    def __sub__(self, other: Any, /) -> Any:
        """self - other."""

    def __rsub__(self, other: Any, /) -> Any:
        """other - self."""

    def __mul__(self, other: Any, /) -> Any:
        """self * other."""

    def __rmul__(self, other: Any, /) -> Any:
        """other * self."""

    def __truediv__(self, other: Any, /) -> Any:
        """self / other."""

    def __rtruediv__(self, other: Any, /) -> Any:
        """other / self."""

    def __pow__(self, other: Any, /) -> Any:
        """self ** other."""

    def __matmul__(self, other: Any, /) -> Any:
        """self @ other."""

    def __lt__(self, other: Any, /) -> Any:
        """self < other."""

    def __le__(self, other: Any, /) -> Any:
        """self <= other."""

    def __gt__(self, other: Any, /) -> Any:
        """self > other."""

    def __ge__(self, other: Any, /) -> Any:
        """self >= other."""

    def __and__(self, other: Any, /) -> Any:
        """self & other."""

    def __or__(self, other: Any, /) -> Any:
        """self | other."""

    def __eq__(self, other: Any, /) -> Any:
        """self == other, element by element."""

    def __ne__(self, other: Any, /) -> Any:
        """self != other, element by element."""

    def __neg__(self) -> Any:
        """-self."""

    def __abs__(self) -> Any:
        """|self|."""

    def __invert__(self) -> Any:
        """~self, of booleans."""

    def __float__(self) -> float:
        """The number in a 0-d array; a GPU waits."""

    def __int__(self) -> int:
        """The integer in a 0-d array; a GPU waits."""

    def __bool__(self) -> bool:
        """The truth in a 0-d array; a GPU waits."""


Time: TypeAlias = float | Array  # a number, or an array of shape (1,) or (B,)
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

    def __call__(self, x: Array, t: Any) -> Array:
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


# ------------------------------------------------------------------ what a noun may offer besides
#
# Asked for by isinstance, which looks for the names alone.


@runtime_checkable
class NeedsNoise(Protocol):
    """A model, or a bound score, that cannot be evaluated at t = 0."""

    def check_clean(self) -> None:
        """Raise ValueError, saying why, if it divides by zero at t = 0."""


@runtime_checkable
class HasStableStep(Protocol):
    """A score that bounds the step of Langevin dynamics."""

    def stable_step(self, t: float) -> float:
        """The step from which on the dynamics is unstable at time t."""


@runtime_checkable
class HasTangents(Protocol):
    """A model or a layer with the two passes for tangents; see `refscore.nn.layer`."""

    def jvp(self, params: Any, cache: Any, *xdots: Any) -> Any:
        """Tangents of the inputs -> tangent of the output, and the tape."""

    def jvp_backward(self, params: Any, cache: Any, tape: Any, dy: Any, dydot: Any) -> Any:
        """Adjoints of output and tangent -> adjoints of inputs and tangents, and gradients."""


@runtime_checkable
class HasJets(Protocol):
    """A layer whose inputs may carry two tangents at once. Where u is there, v is there too; w may be missing."""

    def jet(self, params: Any, cache: Any, us: Any, vs: Any, ws: Any) -> Any:
        """u, v, w (K, ...) for each input -> (y_u, y_v, y_w), each (K, ...), and the tape             Eq. (14.27)."""

    def jet_backward(self, params: Any, cache: Any, tape: Any, dy: Any, djet: Any) -> Any:
        """dy and (dy_u, dy_v, dy_w) -> (dx for each input, (du, dv, dw) for each input, gradients)."""


@runtime_checkable
class ReadsLabels(Protocol):
    """A layer that embeds labels."""

    def check_labels(self, labels: Any) -> None:
        """Raise ValueError or TypeError for labels that it does not know; None is "no label"."""


@runtime_checkable
class HasEnergy(Protocol):
    """A model whose score is minus the gradient of an energy."""

    def energy(self, params: Any, x: Any, t: Any) -> Any:
        """The energy of each sample, and its cache."""


@runtime_checkable
class HasSamples(Protocol):
    """A law that can be sampled, as data for `fit`."""

    def sample(self, rng: Any, n: int) -> Any:
        """Draw n samples, an array (n, ...)."""


@runtime_checkable
class HasRows(Protocol):
    """A velocity that treats each sample in its own way, for solvers that take one sample at a time."""

    def row(self, i: int) -> Any:
        """The velocity of sample i alone."""


@runtime_checkable
class HasLevels(Protocol):
    """An SDE that finds the time of a noise level."""

    def time_at_log_ratio(self, ratio: Any) -> Any:
        """The t at which log σ/α is the ratio."""


@runtime_checkable
class HasRates(Protocol):
    """An SDE that knows α' and σ', finite also where α = 0 and its f and g are not."""

    def rates(self, t: Any) -> Any:
        """The derivatives of α and σ in t."""


@runtime_checkable
class HasPosteriorMean(Protocol):
    """A score that knows E[x₀ | x_t = x] by itself: where α = 0 the score alone does not tell it."""

    def posterior_mean(self, x: Any, t: Any) -> Any:
        """E[x₀ | x_t = x], the shape of x."""


@runtime_checkable
class HasState(Protocol):
    """A generator whose state can be written down as NumPy's can, in a file or by `copy.deepcopy`."""

    def get_state(self) -> dict[str, Any]:
        """The kind of generator, as `bit_generator`, and where its stream is: numbers, strings and lists."""

    def set_state(self, state: Any) -> None:
        """Go on from a state of a generator of the same kind."""


@runtime_checkable
class HasSDE(Protocol):
    """A score that was made for one SDE."""

    @property
    def sde(self) -> Any:
        """The SDE whose scores these are."""


@runtime_checkable
class HasJvp(Protocol):
    """A score that can be differentiated."""

    def jvp(self, x: Any, t: Any, v: Any) -> Any:
        """The score, and its derivative along each v."""


@runtime_checkable
class IsTable(Protocol):
    """A data frame: its own `sample` means another thing than ours."""

    def to_numpy(self, *args: Any, **kwargs: Any) -> Any:
        """The numbers in it."""
