"""EnergyModel: a network for the energy; its score is a derivative, and all the rest one order higher. Chapter 4."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from refscore.arrays import beside, constant, per_sample, row_squares, views
from refscore.checks import is_number
from refscore.library import array_namespace, device
from refscore.nn.layer import Adjoints, Grads, plus, times
from refscore.nn.score_model import BoundScore, Preconditioning
from refscore.protocols import Array, Params, Time

FACTORS = ("noise", "score", "F")


@dataclass(frozen=True)
class EnergyModel(Preconditioning):
    """E(x, t) = ½ c² ‖x‖² - (factor/c) F(c x, ℓ), F one number a sample, and the score s = -∇ₓE    Eqs. (4.1), (4.2):

        s(x, t) = -c² x + factor (∇F)(c x, ℓ)

    where `ScoreModel` has a vector, here is a gradient; so s is conservative, and E is log p up to sign and a
    constant. The first term is the energy of a Gaussian as wide as the data. A body of dense layers, sums and
    activations of bounded slope grows at most linearly, so e^-E can be normalised (Eq. (4.3)). The normaliser itself
    is never computed.
    A bare network, data_std=None, has no Gaussian beside it: E = -factor F(x, ℓ), so with "score" F is log p but
    for a constant.

    Its passes are those of a score model, written with the body's passes of one order more:

        forward        the body's `backward`
        backward       the body's `jvp` and `jvp_backward`, tangent = the adjoint of s
        jvp            the same, once for each tangent
        jvp_backward   the body's `jet` and `jet_backward`: third derivatives

    Parameters
    ----------
    body : Net
        Reads x (B, ...) and, if it has a "level" input, ℓ (B,) or (1,); returns (B, 1).
    sde : SDE
        The SDE whose noised data the energy describes; it gives α(t) and σ(t).
    data_std : float, default 1.0
        σ_d, standard deviation of the data about 0, per coordinate.
    predict : str, default 'noise'
        "noise" (default), "score" or "F": the factor, see `Preconditioning`. (EDM's skip is -c², the Gaussian that
        every energy has here.)

    Raises
    ------
    ValueError
        As for `ScoreModel`; at the call, for a body that returns anything but (B, 1).
    TypeError
        In `jvp_backward`, for a body with a layer that has no jets.

    Examples
    --------
    With all parameters 0 the energy is that of a Gaussian: at σ = 1, c² = 1/(1 + 1), E = ¼ ‖x‖² and s = -½ x.

    >>> import numpy as np
    >>> from refscore import MLP, EnergyModel
    >>> from refscore.noise.sde import LinearVE
    >>> model = EnergyModel(MLP((2, 8, 1), embed=4), LinearVE(sigma_max=2.0))
    >>> theta = np.zeros_like(model.init(np.random.default_rng(0), "float64"))
    >>> x = np.array([[2.0, 4.0]])
    >>> model.bind_energy(theta)(x, 0.5).round(6), model.bind(theta)(x, 0.5).round(6)
    (array([5.]), array([[-1., -2.]]))
    """

    MEANS = ()

    def energy(self, params: Params, x: Array, t: Time) -> tuple[Array, Any]:
        """Evaluate the energy: x (B, ...), t (B,) or (1,) -> E (B,), and the cache                        Eq. (4.1)."""
        y, cache = self._body(params, x, t)
        _, c, skip, out, _ = cache
        E = -(_column(out / c) * y)[:, 0]
        return E if skip is None else 0.5 * row_squares(c * x) + E, cache

    def energy_backward(self, params: Params, cache: Any, dE: Array) -> tuple[Adjoints, Grads]:
        """Adjoint of the energy dE (B,) -> adjoint of x, (dx,), and the gradients of the parameters."""
        kept, c, skip, out, x = cache
        (dx, *_), grads = self.body.backward(params, kept, -_column(out / c) * dE[:, None])
        well = None if skip is None else -per_sample(dE, x) * skip * x
        return (plus(well, times(c, dx)),), grads

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.predict not in FACTORS:
            raise ValueError(f"an energy's network predicts one of {', '.join(FACTORS)}; got {self.predict!r}")

    def bind(self, theta: Array, condition: Array | None = None) -> BoundScore:
        """Return the score (x, t) -> (B, ...) at parameters theta (P,), under a condition a sample: see `told`."""
        return BoundScore(self.under(condition), views(theta, self.shapes))

    def apply(self, params: Params, x: Array, t: Time) -> Array:
        """Evaluate the score as `forward` does, without the cache: x (B, ...), t -> s (B, ...)."""
        return self.forward(params, x, t)[0]

    def posterior_mean(self, params: Params, x: Array, t: Time) -> Array:
        """Evaluate E[x₀ | x] = (x + σ² s)/α: x (B, ...), t -> (B, ...); refused where α = 0."""
        self.check_signal(x, t)
        alpha, sigma = (per_sample(c, x) for c in (self.sde.alpha(beside(t, x)), self.sde.sigma(beside(t, x))))
        return (x + sigma**2 * self.apply(params, x, t)) / alpha

    def bind_energy(self, theta: Array) -> Callable[[Array, Time], Array]:
        """Return the energy (x, t) -> (B,) at the parameters theta (P,): -log p up to a constant that depends on t."""
        params = views(theta, self.shapes)
        return lambda x, t: self.energy(params, x, t)[0]

    def forward(self, params: Params, x: Array, t: Time) -> tuple[Any, Any]:
        """Evaluate the score: x (B, ...), t (B,) or (1,) -> s (B, ...), and the cache                     Eq. (4.2)."""
        y, cache = self._body(params, x, t)  # not the energy itself, whose square overflows first
        (s,), _ = self.energy_backward(params, cache, constant(-1.0, y[:, 0]))
        return constant(0.0, x) if s is None else s, cache

    def backward(self, params: Params, cache: Any, dy: Array) -> tuple[Adjoints, Grads]:
        """ds -> (dx,) and the gradients: <ds, s> = -c² ds·x + (derivative of F along factor ds)      Eq. (14.25)."""
        kept, c, skip, out, _ = cache
        dx, grads = self._second(params, kept, (out * dy)[None, ...])
        return (plus(times(skip, dy), times(c, dx)),), grads

    def jvp(self, params: Params, cache: Any, xdot: Array | None) -> tuple[Array | None, Any]:
        """ẋ (K, B, ...) -> ṡ = -c² ẋ + factor c ∇²F ẋ, one Hessian product a tangent; the tape keeps ẋ  Eq. (14.26)."""
        if xdot is None:
            return None, None
        xp, (kept, c, skip, out, _) = array_namespace(xdot), cache
        products = [self._second(params, kept, (c * v)[None, ...])[0] for v in xp.unstack(xdot)]
        return plus(times(skip, xdot), out * xp.stack(products)), xdot

    def jvp_backward(
        self, params: Params, cache: Any, tape: Any, dy: Array | None, dydot: Array
    ) -> tuple[Adjoints, Adjoints, Grads]:
        """ds, dṡ -> (dx,), (dẋ,), gradients: <dṡ, ṡ> is F's second derivative along factor dṡ and c ẋ, Eq. (14.26)."""
        kept, c, skip, out, _ = cache
        none = self.no_tangent
        _, jet_tape = self.body.jet(params, kept, (out * dydot, *none), (c * tape, *none), (None, *none))
        dF = _ones(dydot)
        (dx, *_), (_, (dv, *_), _), grads = self.body.jet_backward(params, kept, jet_tape, None, (None, None, dF))
        dv = constant(0.0, dydot) if dv is None else dv
        dx, dxdot = times(c, dx), plus(times(skip, dydot), c * dv)
        if dy is not None:
            (more,), more_grads = self.backward(params, cache, dy)
            dx = plus(dx, more)
            grads = {name: grads[name] + more_grads[name] for name in grads}
        return (dx,), (dxdot,), grads

    def _body(self, params: Params, x: Array, t: Time) -> tuple[Array, Any]:
        """F(c x, ℓ) (B, 1), and the cache."""
        c, _, out, rest = self.scales(x, t)  # the Gaussian of the energy takes the place of the skip
        y, cache = self.body.forward(params, c * x, *rest)
        if y.shape != (x.shape[0], 1):
            raise ValueError(f"the body of an energy answers with one number a sample, (B, 1); got {tuple(y.shape)}")
        skip = None if self.data_std is None else -(c**2)
        return y, (cache, c, skip, out, x)

    def _second(self, params: Params, cache: Any, v: Array) -> tuple[Array, Grads]:
        """The body's Hessian times v (1, B, ...), and the gradient in θ of its derivative along v."""
        _, tape = self.body.jvp(params, cache, v, *self.no_tangent)
        (dx, *_), _, grads = self.body.jvp_backward(params, cache, tape, None, _ones(v))
        return constant(0.0, v[0, ...]) if dx is None else dx, grads


def _column(a: Any) -> Any:
    """A factor of samples x, (B or 1, 1, ...), as one of the body's answers, (B or 1, 1); a number as it is."""
    return a if is_number(a) else array_namespace(a).reshape(a, (-1, 1))


def _ones(v: Array) -> Array:
    """The adjoint 1 of the body's answer for each tangent and sample: v (K, B, ...) -> (K, B, 1)."""
    xp = array_namespace(v)
    return xp.ones((*v.shape[:2], 1), dtype=v.dtype, device=device(v))
