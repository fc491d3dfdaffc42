"""ScoreModel: a network of ordinary size, made into a score at every noise level."""

from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol, Self

from refscore.arrays import as_array, beside, constant, flat, namespace, per_sample, views
from refscore.checks import check_like, check_positive, is_number, settle
from refscore.library import array_namespace
from refscore.nn.layer import Adjoints, Grads, plus, times
from refscore.nn.net import Net
from refscore.noise.parametrisation import PARAMETRISATIONS, affine, affine_in_mean, size
from refscore.noise.sde import log_ratio
from refscore.protocols import SDE, Array, Params, Rng, Shapes, Time


@dataclass(frozen=True)
class Preconditioning:
    """The scalings around a network of ordinary size that make its output a score: s = skip x + factor F(c x, ℓ).

    c = 1/√(α² σ_d² + σ²): inputs have unit variance at every level. ℓ = log σ/α is the level, given to bodies that read
    it. What F predicts is a choice, each with targets of unit size:

        "noise"      E[z | x]; skip 0, factor -1/σ; Ho et al. 2020
        "score"      s/c; skip 0, factor c: for data of one scale, and the only one that is finite without noise
        "data", "v", "F", "velocity"    see `refscore.noise.parametrisation`, divided by their `size`

    data_std=None leaves the network bare: it sees x itself, c = 1, and answers with the target itself, in its own
    units. So "score" has s = F(x, ℓ), "noise" s = -F(x, ℓ)/σ, "data" s = (α F(x, ℓ) - x)/σ².

    Parameters
    ----------
    body : Net
        The network F: reads c x and, if it has a "level" input, ℓ (B,) or (1,).
    sde : SDE
        The SDE whose marginal scores are learned; it gives α(t) and σ(t).
    data_std : float or None, default 1.0
        σ_d, standard deviation of the data about 0, per coordinate; None leaves the network bare.
    predict : str, default 'noise'
        What F predicts, a name of the table above.

    Raises
    ------
    ValueError
        Unless data_std is positive and finite, or None; for another prediction; for "F", which is made of data_std,
        where that is None.
    """

    body: Net
    sde: SDE
    data_std: float | None = 1.0
    predict: str = "noise"
    _told: tuple[Array | None, ...] = field(default=(), init=False, repr=False, compare=False)
    MEANS: ClassVar[tuple[str, ...]] = ("data", "v", "F", "velocity")  # from which E[x₀ | x] follows without signal

    def __post_init__(self) -> None:
        settle(self)
        if self.data_std is not None:
            check_positive(data_std=self.data_std)
        elif self.predict == "F":
            raise ValueError('predict="F" is scaled by data_std: give one, or another prediction for a bare network')
        if self.predict not in PARAMETRISATIONS:
            raise ValueError(f"predict must be one of {', '.join(PARAMETRISATIONS)}; got {self.predict!r}")

    @property
    def shapes(self) -> Shapes:
        """Name -> shape of every parameter: those of the body, in the order of the flat vector θ."""
        return self.body.shapes

    @property
    def classes(self) -> int:
        """K, the number of labels that the body knows, K itself being "no label"; 0 for a body that reads none."""
        return max((getattr(layer, "classes", 0) for _, layer, _ in self.body.rows), default=0)

    @property
    def uniforms(self) -> int:
        """How many uniform numbers a sample its dropout reads in training; 0 without."""
        return getattr(self.body, "uniforms", 0)

    def init(self, rng: Rng, dtype: Any = "float32") -> Array:
        """Draw the initial parameters, as one flat vector θ (P,)."""
        check_like(rng=rng)
        if 0 < self.sde.alpha(1.0) <= 1e-36 and "64" not in str(dtype):
            raise ValueError(f"{self.sde} leaves {self.sde.alpha(1.0):.3g} of the data: less than float32 holds")
        like = None if self.shapes else rng.standard_normal((0,), dtype=dtype)
        return flat(self.body.init(rng, dtype), self.shapes, like)

    def scales(self, x: Array, t: Time) -> tuple[Any, Any, Any, tuple[Any, ...]]:
        """Compute c, skip (None where it is 0), factor, each shaped to multiply x (B, ...), and the inputs after x."""
        if is_number(t) and t == 0:
            self.check_clean()
        t = beside(t, x)
        alpha, sigma = self.sde.alpha(t), self.sde.sigma(t)
        width, bare = (1.0, True) if self.data_std is None else (self.data_std, False)
        c = constant(1.0, t) if bare else 1 / namespace(t).sqrt(alpha**2 * width**2 + sigma**2)
        rest = (as_array(self._level(t, alpha, sigma), x),) if "level" in self.body.inputs else ()
        rest = (*rest, *self._tiled(x))
        if self.predict == "score":
            return per_sample(c, x), None, per_sample(c, x), rest
        unit = 1.0 if bare else size(self.predict, self.sde, t, width)
        if self.predict != "noise" and self._ends_blind:  # by way of x̂₀: finite where α = 0, and a and b are not
            A, B = affine_in_mean(self.predict, self.sde, t, width)
            skip, out = -(1 + alpha * A / B) / sigma**2, alpha * unit / (B * sigma**2)
            return per_sample(c, x), per_sample(skip, x), per_sample(out, x), rest
        a, b = affine(self.predict, self.sde, t, width)
        skip = None if self.predict == "noise" else per_sample(-a / b, x)
        return per_sample(c, x), skip, per_sample(unit / b, x), rest

    @property
    def _ends_blind(self) -> bool:
        """Whether α(1) = 0: at t = 1 there is nothing left of the data."""
        return bool(self.sde.alpha(1.0) == 0)

    def _level(self, t: Time, alpha: Time, sigma: Time) -> Time:
        """ℓ = log σ/α; for an SDE with α(1) = 0, where that is infinite, log σ/√(α² + 10⁻⁶)."""
        if not self._ends_blind:
            return log_ratio(self.sde, t)
        return namespace(t).log(sigma / namespace(t).sqrt(alpha**2 + 1e-6))

    def _mean_scales(self, x: Array, t: Time) -> tuple[Any, Any, Any, tuple[Any, ...]]:
        """Compute what `scales` does, for x̂₀ = skip x + factor F(c x, ℓ) in the place of the score."""
        c, _, _, rest = self.scales(x, t)
        t = beside(t, x)
        width = 1.0 if self.data_std is None else self.data_std
        A, B = affine_in_mean(self.predict, self.sde, t, width)
        unit = 1.0 if self.data_std is None else size(self.predict, self.sde, t, width)
        if self.predict == "score":
            unit = c
        return c, per_sample(-A / B, x), per_sample(unit / B, x), rest

    def check_signal(self, x: Array, t: Time) -> None:
        """Raise ValueError for E[x₀ | x] at α = 0 from a model that predicts none of `MEANS`; then a GPU waits."""
        if self.predict in self.MEANS:
            return
        alpha = self.sde.alpha(beside(t, x))
        if alpha == 0 if is_number(alpha) else bool(array_namespace(x).any(alpha == 0)):
            raise ValueError(
                f"at t = 1 α is 0, and a model that predicts the {self.predict} has learned nothing of the data there: "
                'train with predict="velocity", "v" or "data", or start below t = 1'
            )

    def told(self, condition: Array | None = None, uniform: Array | None = None) -> Self:
        """This model with one condition a sample, for a body that reads one; training gives it dropout's numbers too.

        Parameters
        ----------
        condition : Array, shape (B,) or (1,) of integers, or (B, m) or (1, m), optional
            Labels, or the vectors that the scores depend on. A label that is not given is K, "no label".
        uniform : Array, shape (B, M), optional
            Numbers in [0, 1), from which dropout makes its masks; by default (None) nothing is dropped.

        Returns
        -------
        ScoreModel or EnergyModel
            For batches of B samples, or of n B, n times the same conditions.

        Raises
        ------
        ValueError
            For a body that does not read what it is told. Whether it knows the labels is looked up in `bind` and `fit`,
            since a GPU waits for it.
        """
        for name, value in (("condition", condition), ("uniform", uniform)):
            if value is not None and name not in self.body.inputs:
                raise ValueError(f"the body has no input {name!r}: it reads {', '.join(self.body.inputs)}")
        kept = {"condition": condition, "uniform": uniform}
        return self._knowing(tuple(kept[name] for name in self.body.inputs if name in kept))

    def under(self, condition: Array | None) -> Self:
        """This model told a condition that was looked at, as `bind` does: ValueError for labels it does not know."""
        if condition is None:
            return self
        self.body.check_condition(condition)
        return self.told(condition)

    def row(self, i: int) -> Self:
        """This model told what sample i is told."""
        return self.part(slice(i, i + 1))

    def part(self, rows: slice) -> Self:
        """This model told what some of its samples are told."""
        return self._knowing(tuple(a if a is None or a.shape[0] == 1 else a[rows, ...] for a in self._told))

    def _knowing(self, told: tuple[Array | None, ...]) -> Self:
        model = copy(self)
        object.__setattr__(model, "_told", told)
        return model

    def _tiled(self, x: Array) -> tuple[Array | None, ...]:
        """What the body is told, once for each copy of the batch in x."""
        if not self._told:
            if "condition" in self.body.inputs:
                self.body.check_condition(None)
            return tuple(None for name in self.body.inputs if name in ("condition", "uniform"))
        return tuple(a if a is None else _tile(a, x) for a in self._told)

    def check_clean(self) -> None:
        """Raise ValueError if this model divides by zero on data without noise, t = 0."""
        level = "level" in self.body.inputs
        if self.predict != "score" or level:
            why = (
                "log σ/α, which the body reads (embed > 0), is -∞"
                if level
                else f"predict={self.predict!r} divides by σ"
            )
            raise ValueError(
                f"at t = 0 there is no noise, and {why}: take times above 0, FixedTime(sde.time(σ)), or for "
                'the data as they are a ScoreModel(MLP(widths), sde, predict="score") whose body is told no level'
            )

    @property
    def no_tangent(self) -> tuple[None, ...]:
        """The tangents of the inputs after x: (None,) if the body reads the level, else ()."""
        return (None,) * (len(self.body.inputs) - 1)


def _tile(a: Array, x: Array) -> Array:
    """a (B, ...) for x (n B, ...), or one a (1, ...) for all."""
    n, left = divmod(x.shape[0], a.shape[0])
    if left or not n:
        raise ValueError(
            f"told {a.shape[0]} conditions, the model is asked for {x.shape[0]} samples: give one each, or one"
        )
    return a if a.shape[0] == 1 or n == 1 else array_namespace(a).concat([a] * n)


class Differentiable(Protocol):
    """The methods of a model that a `BoundScore` uses."""

    def apply(self, params: Params, x: Array, t: Time) -> Array:
        """Evaluate the score: x (B, ...), t -> s (B, ...)."""

    def posterior_mean(self, params: Params, x: Array, t: Time) -> Array:
        """Evaluate the posterior mean E[x₀ | x] of each sample: x (B, ...), t -> (B, ...)."""

    def forward(self, params: Params, x: Array, t: Time) -> tuple[Array, Any]:
        """Evaluate the score: x (B, ...), t -> s (B, ...), and the cache."""

    def jvp(self, params: Params, cache: Any, xdot: Array | None) -> tuple[Array | None, Any]:
        """Tangents xdot (K, B, ...) of x -> tangents (K, B, ...) of the score, and the tape."""

    @property
    def sde(self) -> SDE:
        """The SDE whose scores it learns."""

    def check_clean(self) -> None:
        """Refuse t = 0, where it divides by zero."""

    def row(self, i: int) -> Self:
        """The same for sample i alone."""


@dataclass(frozen=True, eq=False)
class BoundScore:
    """The score (x, t) -> (B, ...) of a model at given parameters, with its derivative in x.

    Parameters
    ----------
    model : Differentiable
        A `ScoreModel` or `EnergyModel`.
    params : mapping of str to Array
        Its parameters by name.
    """

    model: Differentiable
    params: Params
    takes_numbers: ClassVar[bool] = True

    @property
    def sde(self) -> SDE:
        """The SDE of its model."""
        return self.model.sde

    def check_clean(self) -> None:
        """Refuse to be evaluated at t = 0, if the model divides by zero there."""
        self.model.check_clean()

    def __call__(self, x: Array, t: Time) -> Array:
        """Evaluate the score: x (B, ...), t a float, (1,) or (B,) -> s (B, ...)."""
        return self.model.apply(self.params, x, t)

    def posterior_mean(self, x: Array, t: Time) -> Array:
        """Evaluate x̂₀ = E[x₀ | x_t = x] by what the network predicts: x (B, ...) -> (B, ...); also where α = 0."""
        return self.model.posterior_mean(self.params, x, t)

    def jvp(self, x: Array, t: Time, v: Array) -> tuple[Array, Any]:
        """The score and its derivatives along v (K, B, ...): s (B, ...) and ∇s v (K, B, ...)."""
        s, cache = self.model.forward(self.params, x, t)
        return s, self.model.jvp(self.params, cache, v)[0]

    def row(self, i: int) -> "BoundScore":
        """The score of sample i alone, under its own condition: for solvers that take one sample at a time."""
        return replace(self, model=self.model.row(i))


@dataclass(frozen=True)
class ScoreModel(Preconditioning):
    """s(x, t) = skip x + factor F(c x, ℓ): the network F returns a vector, see `Preconditioning`.

    A layer like any other: t takes the place of the second input, and carries no tangent.

    Parameters
    ----------
    body : Net
        Reads x (B, ...) and, if it has a "level" input, ℓ (B,) or (1,); returns the shape of x.
    sde : SDE
        The SDE whose marginal scores are learned; it gives α(t) and σ(t).
    data_std : float or None, default 1.0
        σ_d, standard deviation of the data about 0, per coordinate. None leaves the network bare: it sees x itself and
        answers in the units of what it predicts.
    predict : str, default 'noise'
        "noise" (default), "score", "data", "v", "F" or "velocity".

    Raises
    ------
    ValueError
        Unless data_std is positive and finite, or None; for an unknown prediction; for "F" without data_std.

    Examples
    --------
    With all parameters 0, EDM's F leaves the score of N(0, (1 + σ²) I), here σ = 1 and s = -x/2:

    >>> import numpy as np
    >>> from refscore import MLP, ScoreModel
    >>> from refscore.noise.sde import LinearVE
    >>> model = ScoreModel(MLP((2, 8, 2), embed=4), LinearVE(sigma_max=2.0), predict="F")
    >>> theta = np.zeros_like(model.init(np.random.default_rng(0), "float64"))
    >>> model.bind(theta)(np.array([[2.0, 4.0]]), 0.5).round(6)
    array([[-1., -2.]])

    A bare network is the score itself:

    >>> import numpy as np
    >>> from refscore import MLP, VP, ScoreModel
    >>> model = ScoreModel(MLP((2, 2)), VP(), data_std=None, predict="score")  # s = x W + b
    >>> theta = np.array([-1.0, 0.0, 0.0, -1.0, 0.5, 0.0])
    >>> model.bind(theta)(np.array([[1.0, 2.0]]), 0.3)
    array([[-0.5, -2. ]])
    """

    def bind(self, theta: Array, condition: Array | None = None) -> BoundScore:
        """Return the score (x, t) -> (B, ...) at the parameters theta (P,), under a condition a sample: see `told`."""
        return BoundScore(self.under(condition), views(theta, self.shapes))

    def apply(self, params: Params, x: Array, t: Time) -> Array:
        """Evaluate the score as `forward` does, without the cache: x (B, ...), t -> s (B, ...)."""
        c, skip, out, rest = self.scales(x, t)
        y = self.body.apply(params, c * x, *rest)
        _check_answer(y, x)
        return out * y if skip is None else out * y + skip * x

    def posterior_mean(self, params: Params, x: Array, t: Time) -> Array:
        """Evaluate x̂₀ = E[x₀ | x]: x (B, ...), t -> (B, ...); finite where α = 0, and for "noise" refused there."""
        self.check_signal(x, t)
        c, skip, out, rest = self._mean_scales(x, t)
        y = self.body.apply(params, c * x, *rest)
        _check_answer(y, x)
        return out * y + skip * x

    def forward(self, params: Params, x: Array, t: Time) -> tuple[Array, Any]:
        """Evaluate the score: x (B, ...), t (B,) or (1,) -> s (B, ...), and the cache."""
        c, skip, out, rest = self.scales(x, t)
        y, cache = self.body.forward(params, c * x, *rest)
        _check_answer(y, x)
        return (out * y if skip is None else out * y + skip * x), (cache, c, skip, out)

    def backward(self, params: Params, cache: Any, dy: Array) -> tuple[Adjoints, Grads]:
        """Adjoint of the score ds (B, ...) -> adjoint of x, (dx,), and the gradients of the parameters."""
        cache, c, skip, out = cache
        dxs, grads = self.body.backward(params, cache, out * dy)
        return (plus(times(c, dxs[0]), times(skip, dy)),), grads

    def jvp(self, params: Params, cache: Any, xdot: Array | None) -> tuple[Array | None, Any]:
        """Tangents ẋ (K, B, ...) of x -> tangents ṡ (K, B, ...) of the score, and the tape."""
        cache, c, skip, out = cache
        ydot, tape = self.body.jvp(params, cache, times(c, xdot), *self.no_tangent)
        return plus(times(out, ydot), times(skip, xdot)), tape

    def jvp_backward(
        self, params: Params, cache: Any, tape: Any, dy: Array | None, dydot: Array
    ) -> tuple[Adjoints, Adjoints, Grads]:
        """Adjoints ds (B, ...) and dṡ (K, B, ...) -> (dx,), (dẋ,) and the gradients of the parameters."""
        cache, c, skip, out = cache
        dxs, dxdots, grads = self.body.jvp_backward(params, cache, tape, times(out, dy), out * dydot)
        # a linear body sends x nothing unless ds does
        dx, dxdot = plus(times(c, dxs[0]), times(skip, dy)), plus(times(c, dxdots[0]), times(skip, dydot))
        return (dx,), (dxdot,), grads


def _check_answer(y: Array, x: Array) -> None:
    if y.shape != x.shape:
        raise ValueError(
            f"the body answers with shape {tuple(y.shape)} to x of shape {tuple(x.shape)}: a score has "
            "the shape of x, so a body's last width is its first"
        )
