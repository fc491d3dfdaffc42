"""The one checker of passes written by hand: ours, and anybody's. Chapter 14.

It knows the passes only by what they are (see `refscore.nn.layer`), so it serves a layer, a network, a score model and
two functions of somebody else alike:

    check_jvp            ẏ  is the directional derivative of forward
    check_backward       <dy, ∂F (ẋ, θ̇)> = <dx, ẋ> + <dθ, θ̇>: the transpose, in inputs and parameters
    check_jvp_backward   <dy, ∂F> + <dẏ, ∂jvp> = <dx, ξ> + <dẋ, ξ̇> + <dθ, θ̇> along any (ξ, ξ̇, θ̇)

Directional derivatives are taken by the complex step, Im f(x + ih v)/h, which has no difference to cancel and is
right to rounding; and once more by Richardson differences, which know nothing of complex numbers. Every check
returns its error relative to the sum of the absolute terms, and asserts it. `derivatives` says of anybody's passes
which is wrong, for which argument, by what factor, at which smallest shape.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from refscore_backends.numpy import NumpyBackend

COMPLEX = 1e-12  # complex step: rounding only, u times the length of the sums; observed 1e-15
DIFFERENCE = 1e-8  # Richardson, h = 2e-4: truncation h⁴ ~ 2e-15, rounding u/h ~ 1e-12, times third derivatives
FLAT = 1e-3  # of y: where tanh is flat its slope 1 - y² keeps the digits of y, not its own
DIGITS = 0.1  # of what comes in: far out GELU's derivatives keep the digits of 1 ± tanh u, times x u'²
STEP = 1e-30  # of the complex step: its square is lost beside anything
H = 2e-4  # of the differences


@dataclass(frozen=True)
class Subject:
    """A layer at a point: parameters, inputs and tangents, as float64 arrays on the host.

    A score model takes fewer tangents than inputs: `tangents` is as long as its jvp wants.

    Parameters
    ----------
    layer : object
        With the passes of `refscore.nn.layer`.
    backend : object
        With `name`, `asarray` and `to_numpy`: the library that the passes run on.
    params : dict of str to array
        The parameters by name.
    xs : tuple of arrays
        The inputs.
    tangents : tuple of arrays (K, ...) or None
        Beside the inputs; None where there is none.
    fixed : frozenset of int, default frozenset()
        Inputs that have no derivative at all, as the noise level.
    """

    layer: Any
    backend: Any
    params: dict[str, np.ndarray]
    xs: tuple[np.ndarray, ...]
    tangents: tuple[np.ndarray | None, ...]
    fixed: frozenset[int] = field(default=frozenset())

    def move(self, a: Any, dtype: str | None = None) -> Any:
        """Return an array in the library of the passes; None stays None."""
        return None if a is None else self.backend.asarray(a, dtype=dtype)

    def host(self, a: Any) -> Any:
        """Return an array in NumPy; None stays None."""
        return None if a is None else self.backend.to_numpy(a)

    def forward(self, xs: Sequence[np.ndarray], params: dict[str, np.ndarray]) -> np.ndarray:
        """Return y at inputs and parameters."""
        return self.host(self.layer.forward(self._params(params), *map(self.move, xs))[0])

    def both(self, xs: Sequence[Any], tangents: Sequence[Any], params: dict[str, np.ndarray]) -> tuple[Any, Any]:
        """Return y and ydot at inputs, tangents and parameters."""
        params = self._params(params)
        y, cache = self.layer.forward(params, *map(self.move, xs))
        ydot, _ = self.layer.jvp(params, cache, *map(self.move, tangents))
        return self.host(y), self.host(ydot)

    def backward(self, dy: np.ndarray) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the adjoints of inputs and parameters for dy."""
        params = self._params(self.params)
        _, cache = self.layer.forward(params, *map(self.move, self.xs))
        dxs, grads = self.layer.backward(params, cache, self.move(dy))
        return tuple(map(self.host, dxs)), {k: self.host(v) for k, v in grads.items()}

    def jvp_backward(self, dy: Any, dydot: np.ndarray) -> tuple[tuple[Any, ...], tuple[Any, ...], dict[str, Any]]:
        """Return the adjoints of inputs, tangents and parameters for dy and dydot."""
        params = self._params(self.params)
        _, cache = self.layer.forward(params, *map(self.move, self.xs))
        _, tape = self.layer.jvp(params, cache, *map(self.move, self.tangents))
        dxs, dxdots, grads = self.layer.jvp_backward(params, cache, tape, self.move(dy), self.move(dydot))
        return tuple(map(self.host, dxs)), tuple(map(self.host, dxdots)), {k: self.host(v) for k, v in grads.items()}

    def _params(self, params: dict[str, np.ndarray]) -> dict[str, Any]:
        return {name: self.move(value) for name, value in params.items()}


def subject(
    layer: Any,
    backend: Any,
    xs: Sequence[np.ndarray],
    seed: int,
    K: int = 2,
    *,
    live: Sequence[bool] | None = None,
    fixed: Sequence[int] = (),
) -> Subject:
    """A layer at random parameters (biases too: they start at zero, where mistakes hide) with K random tangents.

    Parameters
    ----------
    layer, backend, xs : as in `Subject`
    seed : int
        Of parameters and tangents.
    K : int, default 2
        Number of tangents.
    live : sequence of bool, optional
        Which inputs have tangents; by default all that are not fixed.
    fixed : sequence of int, default ()
        Inputs without derivative.

    Returns
    -------
    Subject
        The layer there.
    """
    rng = np.random.default_rng(seed)
    live = [i not in fixed for i in range(len(xs))] if live is None else live
    params = {k: 0.6 * rng.standard_normal(shape) for k, shape in layer.shapes.items()}
    tangents = tuple(rng.standard_normal((K, *x.shape)) if alive else None for x, alive in zip(xs, live, strict=False))
    return Subject(layer, backend, params, tuple(xs), tangents, frozenset(fixed))


Point = tuple[list[Any], list[Any], dict[str, Any]]  # inputs, tangents, parameters


def complex_step(f: Callable[..., Any], at: Point, along: Point) -> tuple[Any, ...]:
    """Im f(at + ih along)/h for each output of f.

    Parameters
    ----------
    f : callable (inputs, tangents, parameters) -> tuple of arrays
        The function.
    at, along : tuple of list, list, dict
        The point and the direction: inputs, tangents, parameters.

    Returns
    -------
    tuple of arrays
        One derivative for each output; None for None.
    """
    return tuple(None if y is None else y.imag / STEP for y in f(*_moved(at, along, 1j * STEP)))


def richardson(f: Callable[..., Any], at: Point, along: Point) -> tuple[Any, ...]:
    """Differences of fourth order, (8 (f(h) - f(-h)) - (f(2h) - f(-2h))) / 12h.

    Parameters
    ----------
    f : callable (inputs, tangents, parameters) -> tuple of arrays
        The function.
    at, along : tuple of list, list, dict
        The point and the direction: inputs, tangents, parameters.

    Returns
    -------
    tuple of arrays
        One derivative for each output; None for None.
    """
    far, near = [[f(*_moved(at, along, sign * h)) for sign in (1, -1)] for h in (2 * H, H)]
    return tuple(
        None if a is None else (8 * (a - b) - (c - d)) / (12 * H)
        for (a, b), (c, d) in zip(zip(*near, strict=True), zip(*far, strict=True), strict=True)
    )


_METHODS = {"complex step": (complex_step, COMPLEX), "Richardson": (richardson, DIFFERENCE)}


def _moved(at: Point, along: Point, h: complex) -> Point:
    """at + h along; every float becomes complex with h, also where nothing moves, so that dtypes agree."""

    def go(a: Any, v: Any) -> Any:
        return None if a is None else a + h * (np.zeros_like(a) if v is None else v)

    return (
        [go(a, v) for a, v in zip(at[0], along[0], strict=True)],
        [go(a, v) for a, v in zip(at[1], along[1], strict=True)],
        {k: go(a, along[2].get(k)) for k, a in at[2].items()},
    )


def _run(s: Subject, at: Point, along: Point, method: str, jvp: bool) -> tuple[Any, ...]:
    """Derivatives of y, and of ẏ if asked, along a direction; fixed inputs stay the real numbers they are."""
    xs, tangents, params = at
    s = _with_complex(s)

    def f(moved: list[Any], tangents: list[Any], params: dict[str, Any]) -> tuple[Any, ...]:
        moved = [s.xs[i] if i in s.fixed else x for i, x in enumerate(moved)]
        return s.both(moved, tangents, params) if jvp else (s.forward(moved, params),)

    return _METHODS[method][0](f, (xs, tangents, params), along)


def _with_complex(s: Subject) -> Subject:
    """The layer on NumPy, where a library refuses products of real and complex matrices or compiles every shape."""
    return replace(s, backend=NumpyBackend()) if s.backend.name in ("torch", "jax") else s


def _direction(s: Subject, seed: int) -> Point:
    rng = np.random.default_rng([seed, 1])
    return (
        [None if i in s.fixed else rng.standard_normal(x.shape) for i, x in enumerate(s.xs)],
        [None if x is None else rng.standard_normal(x.shape) for x in s.tangents],
        {k: rng.standard_normal(v.shape) for k, v in s.params.items()},
    )


def check_jvp(s: Subject, method: str = "complex step") -> float:
    """Each tangent's ẏ is the derivative of forward along it.

    Parameters
    ----------
    s : Subject
        The layer at a point.
    method : str, default "complex step"
        Or "Richardson", which knows nothing of complex numbers.

    Returns
    -------
    float
        The error, relative; an AssertionError tells one that is too large.
    """
    y, ydot = s.both(s.xs, s.tangents, s.params)
    worst = 0.0
    for k in range(ydot.shape[0]):
        along: Point = ([None] * len(s.xs), [], {})
        for i, tangent in enumerate(s.tangents):
            along[0][i] = None if tangent is None else tangent[k]
        (exact,) = _run(s, (list(s.xs), [], s.params), along, method, jvp=False)
        scale = np.max(np.abs(exact)) + np.max(np.abs(ydot)) + FLAT * np.max(np.abs(y))
        scale += DIGITS * max(np.max(np.abs(d)) for d in along[0] if d is not None)
        worst = max(worst, float(np.max(np.abs(ydot[k] - exact))) / (float(scale) + 1e-300))
    return _within(worst, method, "jvp is not the directional derivative of forward")


def check_backward(s: Subject, seed: int, method: str = "complex step") -> float:
    """backward is the transpose of the Jacobian, in inputs and parameters together.

    Parameters
    ----------
    s : Subject
        The layer at a point.
    seed : int
        Of the adjoints and directions.
    method : str, default "complex step"
        Or "Richardson", which knows nothing of complex numbers.

    Returns
    -------
    float
        The error, relative; an AssertionError tells one that is too large.
    """
    rng = np.random.default_rng([seed, 2])
    dy = rng.standard_normal(s.forward(s.xs, s.params).shape)
    dxs, grads = s.backward(dy)
    _check_shapes(s, dxs, (), grads)
    v = _direction(s, seed)
    (ydot,) = _run(s, (list(s.xs), [], s.params), (v[0], [], v[2]), method, jvp=False)
    left = [(dy, ydot)]
    right = _pairs(dxs, v[0]) + [(grads[k], v[2][k]) for k in grads]
    return _within(_gap(left, right), method, "backward is not the transpose of the Jacobian")


def check_jvp_backward(s: Subject, seed: int, method: str = "complex step", dy_too: bool = True) -> float:
    """jvp_backward is the transpose of the Jacobian of (forward, jvp), in inputs, tangents and parameters.

    Parameters
    ----------
    s : Subject
        The layer at a point.
    seed : int
        Of the adjoints and directions.
    method : str, default "complex step"
        Or "Richardson", which knows nothing of complex numbers.
    dy_too : bool, default True
        Whether y has an adjoint besides its tangents.

    Returns
    -------
    float
        The error, relative; an AssertionError tells one that is too large.
    """
    rng = np.random.default_rng([seed, 3])
    y, ydot = s.both(s.xs, s.tangents, s.params)
    dy, dydot = rng.standard_normal(y.shape) if dy_too else None, rng.standard_normal(ydot.shape)
    dxs, dxdots, grads = s.jvp_backward(dy, dydot)
    _check_shapes(s, dxs, dxdots, grads, dy_too)
    v = _direction(s, seed)
    along_y, along_ydot = _run(s, (list(s.xs), list(s.tangents), s.params), v, method, jvp=True)
    left = [(dydot, along_ydot)] + ([(dy, along_y)] if dy_too else [])
    right = _pairs(dxs, v[0]) + _pairs(dxdots, v[1]) + [(grads[k], v[2][k]) for k in grads]
    return _within(_gap(left, right, s.tangents), method, "jvp_backward is not the transpose of d(forward, jvp)")


def _check_shapes(
    s: Subject, dxs: Sequence[Any], dxdots: Sequence[Any], grads: dict[str, Any], dy_too: bool = True
) -> None:
    """An adjoint has the shape of its own; a fixed input and a missing tangent get none.

    Without dy a map without curvature sends nothing to x: None, that is zero.
    """
    for i, dx in enumerate(dxs):
        if i in s.fixed or (dx is None and not dy_too):
            assert dx is None, f"dxs[{i}]"
        else:
            assert dx is not None, f"dxs[{i}]"
            assert dx.shape == s.xs[i].shape, f"dxs[{i}]"
    assert len(dxdots) in (0, len(s.tangents))
    for i, d in enumerate(dxdots):
        tangent = s.tangents[i]
        assert (d is None) if tangent is None else (d is not None and d.shape == tangent.shape), f"dxdots[{i}]"
    assert {k: v.shape for k, v in grads.items()} == dict(s.layer.shapes)


def _pairs(adjoints: Sequence[Any], directions: Sequence[Any]) -> list[tuple[Any, Any]]:
    return [(a, b) for a, b in zip(adjoints, directions, strict=False) if a is not None and b is not None]


def _gap(left: list[tuple[Any, Any]], right: list[tuple[Any, Any]], tangents: Sequence[Any] = ()) -> float:
    """|Σ<a, b> on the left - the same on the right|, relative to the sum of all absolute terms.

    And to `DIGITS` of the adjoints on the left times the directions on the right, and times the tangents.
    """
    value = sum(float(np.sum(a * b)) for a, b in left) - sum(float(np.sum(a * b)) for a, b in right)
    scale = sum(float(np.sum(np.abs(a * b))) for a, b in left + right)
    adjoint, direction = _largest([a for a, _ in left]), _largest([b for _, b in right])
    scale += DIGITS * adjoint * direction * (1 + _largest(tangents))
    return abs(value) / (scale + 1e-300)


def _largest(arrays: Sequence[Any]) -> float:
    return max((float(np.max(np.abs(a), initial=0.0)) for a in arrays if a is not None), default=0.0)


def _within(error: float, method: str, message: str) -> float:
    assert error <= _METHODS[method][1], f"{message}: off by {error:.3g} ({method})"
    return error
