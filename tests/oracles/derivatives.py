"""One checker for every hand-written derivative.

It knows the four passes only by what they are (see `refscore.nn.layer`), so it serves a layer, a network and a
score model alike:

    check_jvp            ẏ  is the directional derivative of forward
    check_backward       <dy, ∂F (ẋ, θ̇)> = <dx, ẋ> + <dθ, θ̇>: the transpose, in inputs and parameters
    check_jvp_backward   <dy, ∂F> + <dẏ, ∂jvp> = <dx, ξ> + <dẋ, ξ̇> + <dθ, θ̇> along any (ξ, ξ̇, θ̇)
    check_jet            where there are jets: the derivative of jvp along a second tangent, and its transpose

Directional derivatives are taken by the complex step, Im f(x + ih v)/h, which has no difference to cancel and is
right to rounding; and once more by Richardson differences, which know nothing of complex numbers. Every check
returns its error relative to the sum of the absolute terms, and asserts it.
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

    Tangents stand beside the inputs; None where there is none. Inputs in `fixed` (the noise level) have no
    derivative at all. A score model takes fewer tangents than inputs: `tangents` is as long as its jvp wants.
    """

    layer: Any
    backend: Any
    params: dict[str, np.ndarray]
    xs: tuple[np.ndarray, ...]
    tangents: tuple[np.ndarray | None, ...]
    fixed: frozenset[int] = field(default=frozenset())

    def move(self, a: Any, dtype: str | None = None) -> Any:
        return None if a is None else self.backend.asarray(a, dtype=dtype)

    def host(self, a: Any) -> Any:
        return None if a is None else self.backend.to_numpy(a)

    def forward(self, xs: Sequence[np.ndarray], params: dict[str, np.ndarray]) -> np.ndarray:
        return self.host(self.layer.forward(self._params(params), *map(self.move, xs))[0])

    def both(self, xs: Sequence[Any], tangents: Sequence[Any], params: dict[str, np.ndarray]) -> tuple[Any, Any]:
        params = self._params(params)
        y, cache = self.layer.forward(params, *map(self.move, xs))
        ydot, _ = self.layer.jvp(params, cache, *map(self.move, tangents))
        return self.host(y), self.host(ydot)

    def backward(self, dy: np.ndarray) -> tuple[tuple[Any, ...], dict[str, Any]]:
        params = self._params(self.params)
        _, cache = self.layer.forward(params, *map(self.move, self.xs))
        dxs, grads = self.layer.backward(params, cache, self.move(dy))
        return tuple(map(self.host, dxs)), {k: self.host(v) for k, v in grads.items()}

    def jvp_backward(self, dy: Any, dydot: np.ndarray) -> tuple[tuple[Any, ...], tuple[Any, ...], dict[str, Any]]:
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
    """A layer at random parameters (biases too: they start at zero, where mistakes hide) with K random tangents."""
    rng = np.random.default_rng(seed)
    live = [i not in fixed for i in range(len(xs))] if live is None else live
    params = {k: 0.6 * rng.standard_normal(shape) for k, shape in layer.shapes.items()}
    tangents = tuple(rng.standard_normal((K, *x.shape)) if alive else None for x, alive in zip(xs, live, strict=False))
    return Subject(layer, backend, params, tuple(xs), tangents, frozenset(fixed))


# ------------------------------------------------------------------ directional derivatives

Point = tuple[list[Any], list[Any], dict[str, Any]]  # inputs, tangents, parameters


def complex_step(f: Callable[..., Any], at: Point, along: Point) -> tuple[Any, ...]:
    """Im f(at + ih along)/h for each output of f."""
    return tuple(None if y is None else y.imag / STEP for y in f(*_moved(at, along, 1j * STEP)))


def richardson(f: Callable[..., Any], at: Point, along: Point) -> tuple[Any, ...]:
    """(8 (f(h) - f(-h)) - (f(2h) - f(-2h))) / 12h: fourth order."""
    far, near = [[f(*_moved(at, along, sign * h)) for sign in (1, -1)] for h in (2 * H, H)]
    return tuple(
        None if a is None else (8 * (a - b) - (c - d)) / (12 * H)
        for (a, b), (c, d) in zip(zip(*near, strict=True), zip(*far, strict=True), strict=True)
    )


METHODS = {"complex step": (complex_step, COMPLEX), "Richardson": (richardson, DIFFERENCE)}


def _moved(at: Point, along: Point, h: complex) -> Point:
    """at + h along; every float becomes complex with h, also where nothing moves, so that dtypes agree."""

    def go(a: Any, v: Any) -> Any:
        return None if a is None else a + h * (0 * a if v is None else v)

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

    return METHODS[method][0](f, (xs, tangents, params), along)


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


# ------------------------------------------------------------------ the checks


def check_jvp(s: Subject, method: str = "complex step") -> float:
    """Each tangent's ẏ is the derivative of forward along it."""
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
    """backward is the transpose of the Jacobian, in inputs and parameters together."""
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
    """jvp_backward is the transpose of the Jacobian of (forward, jvp), in inputs, tangents and parameters."""
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


def check_jet(s: Subject, seed: int) -> float:
    """jet is the second directional derivative, and jet_backward the transpose of the derivative of all it gives."""
    rng = np.random.default_rng([seed, 8])
    like = s.tangents
    u, v, w = ([None if t is None else rng.standard_normal(t.shape) for t in like] for _ in range(3))
    jet = _jet(s, s.xs, (u, v, w), s.params)
    zeros = [None if t is None else 0 * t for t in like]
    worst = 0.0
    for k in range(jet[1].shape[0]):
        # (x, u_k) moved along (v_k, w_k): forward gives y_v, jvp gives y_w
        each = [[None if t is None else t[k : k + 1] for t in ts] for ts in (u, v, w)]
        along: Point = ([None if t is None else t[0] for t in each[1]], each[2], {})
        y_v, y_w = _run(s, (list(s.xs), each[0], s.params), along, "complex step", jvp=True)
        for found, exact in ((jet[2][k], y_v), (jet[3][k], y_w[0])):
            scale = np.max(np.abs(exact)) + np.max(np.abs(found)) + FLAT * np.max(np.abs(jet[0])) + 1e-300
            scale += DIGITS * (_largest(u) * _largest(v) + _largest(w))
            worst = max(worst, float(np.max(np.abs(found - exact)) / scale))
    _within(worst, "complex step", "jet is not the second derivative")
    none_w = _jet(s, s.xs, (u, v, [None] * len(w)), s.params)
    zero_w = _jet(s, s.xs, (u, v, zeros), s.params)
    _same([0.0 if a is None else a for a in none_w], [0.0 if a is None else a for a in zero_w])

    adjoints = [rng.standard_normal(a.shape) for a in jet]
    for missing in (frozenset(), frozenset({0, 1, 2})):  # all adjoints, and only that of y_w, as an energy needs
        given = [None if i in missing else a for i, a in enumerate(adjoints)]
        dxs, *below, grads = _jet_backward(s, (u, v, w), given)
        direction = _direction(s, seed)
        jets = (u, v, w)
        moves: list[list[Any]] = [[None if t is None else rng.standard_normal(t.shape) for t in like] for _ in range(3)]
        h = 1j * STEP
        moved = _jet(
            s,
            [x if i in s.fixed else x + h * d for i, (x, d) in enumerate(zip(s.xs, direction[0], strict=True))],
            [
                [None if t is None else t + h * m for t, m in zip(ts, ms, strict=True)]
                for ts, ms in zip(jets, moves, strict=True)
            ],
            {k: p + h * direction[2][k] for k, p in s.params.items()},
        )  # fmt: skip
        left = [(a, y.imag / STEP) for a, y in zip(given, moved, strict=True) if a is not None]
        right = _pairs(dxs, direction[0]) + [(g, direction[2][k]) for k, g in grads.items()]
        for adjoint, move in zip(below, moves, strict=True):
            right += _pairs(adjoint, move)
        worst = max(
            worst, _within(_gap(left, right, [*u, *v, *w]), "complex step", "jet_backward is not the transpose")
        )
    return worst


def _jet(s: Subject, xs: Any, jets: Any, params: dict[str, np.ndarray]) -> list[Any]:
    """y, y_u, y_v, y_w."""
    s = _with_complex(s) if any(np.iscomplexobj(p) for p in params.values()) else s
    moved = s._params(params)
    y, cache = s.layer.forward(moved, *map(s.move, xs))
    jet, _ = s.layer.jet(moved, cache, *([s.move(t) for t in ts] for ts in jets))
    return [s.host(y), *map(s.host, jet)]


def _jet_backward(s: Subject, jets: Any, given: Sequence[Any]) -> tuple[Any, ...]:
    """dx, the adjoints of the three jets, each of all inputs, and dθ."""
    params = s._params(s.params)
    _, cache = s.layer.forward(params, *map(s.move, s.xs))
    _, tape = s.layer.jet(params, cache, *([s.move(t) for t in ts] for ts in jets))
    dxs, below, grads = s.layer.jet_backward(params, cache, tape, s.move(given[0]), tuple(map(s.move, given[1:])))
    return [*map(s.host, dxs)], *([*map(s.host, d)] for d in below), {k: s.host(g) for k, g in grads.items()}


def check_without_dydot(s: Subject, seed: int) -> None:
    """dẏ = 0 gives backward, and no dẋ; no dy is the same as dy = 0."""
    rng = np.random.default_rng([seed, 4])
    y, ydot = s.both(s.xs, s.tangents, s.params)
    dy, dydot = rng.standard_normal(y.shape), rng.standard_normal(ydot.shape)
    dxs, grads = s.backward(dy)
    dxs0, dxdots0, grads0 = s.jvp_backward(dy, 0 * ydot)
    _same([*dxs, *grads.values()], [*dxs0, *(grads0[k] for k in grads)])
    assert all(d is None or not d.any() for d in dxdots0)
    with_zero, with_none = s.jvp_backward(0 * dy, dydot), s.jvp_backward(None, dydot)
    _same([*with_zero[0], *with_zero[1], *with_zero[2].values()], [
        *with_none[0], *with_none[1], *(with_none[2][k] for k in with_zero[2])
    ])  # fmt: skip


def check_symmetry(s: Subject, seed: int) -> float:
    """v·H u = u·H v, where H u is what jvp_backward sends to x for tangent u and dẏ: the Hessian of <dẏ, F>."""
    rng = np.random.default_rng([seed, 5])

    def hessian(tangents: tuple[Any, ...]) -> tuple[Any, ...]:
        return replace(s, tangents=tangents).jvp_backward(None, dydot[None, ...])[0]

    dydot = rng.standard_normal(s.forward(s.xs, s.params).shape)
    u, v = (tuple(None if x is None else rng.standard_normal((1, *x.shape[1:])) for x in s.tangents) for _ in range(2))
    left = [(du, b[0]) for du, b in zip(hessian(u), v, strict=False) if du is not None and b is not None]
    right = [(dv, a[0]) for dv, a in zip(hessian(v), u, strict=False) if dv is not None and a is not None]
    return _within(_gap(left, right), "complex step", "mixed derivatives are not symmetric")


def check_stack(s: Subject, seed: int) -> None:
    """A stack of K tangents is K tangents: each ẏ_k and dẋ_k depends on its own, dx and dθ are sums over k."""
    rng = np.random.default_rng([seed, 6])
    y, ydot = s.both(s.xs, s.tangents, s.params)
    dy, dydot = rng.standard_normal(y.shape), rng.standard_normal(ydot.shape)
    dxs, dxdots, grads = s.jvp_backward(dy, dydot)
    total, parts = [None if d is None else 0 * d for d in (*dxs, *grads.values())], []
    K = ydot.shape[0]
    for k in range(K):
        alone = replace(s, tangents=tuple(None if x is None else x[k : k + 1] for x in s.tangents))
        _same([ydot[k]], [alone.both(s.xs, alone.tangents, s.params)[1][0]])
        dxs1, dxdots1, grads1 = alone.jvp_backward(dy / K, dydot[k : k + 1])
        total = [None if t is None else t + d for t, d in zip(total, (*dxs1, *grads1.values()), strict=True)]
        parts.append(dxdots1)
    _same([*dxs, *grads.values()], total)
    for i, whole in enumerate(dxdots):
        assert whole is None or np.allclose(whole, np.concatenate([p[i] for p in parts]), rtol=0, atol=1e-12)


def check_all(s: Subject, seed: int, jets: bool = True) -> float:
    """Everything above; the worst error of the complex steps.

    The differences, which are slow, are for NumPy alone, and look once at the derivatives of y and of ẏ along
    everything: that the complex steps are derivatives. A net has jets if its rows have: say so where they have none.
    """
    worst = max(check_jvp(s), check_backward(s, seed), *(check_jvp_backward(s, seed, dy_too=d) for d in (True, False)))
    if s.backend.name == "numpy":
        check_jvp_backward(s, seed, "Richardson")
    _same([s.forward(s.xs, s.params)], [_with_complex(s).forward(s.xs, s.params)])
    check_without_dydot(s, seed)
    check_stack(s, seed)
    if jets and hasattr(s.layer, "jet"):
        worst = max(worst, check_jet(s, seed))
    return max(worst, check_symmetry(s, seed))


def check_everywhere(s: Subject, seed: int, jets: bool = True) -> None:
    """On NumPy all of the above; on another back end that every pass gives NumPy's numbers, which are right.

    The passes run there as they are used: on the device, on arrays that may refuse to be written into.
    """
    host = replace(s, backend=NumpyBackend())
    if s.backend.name == "numpy":
        check_all(s, seed, jets)
        return
    rng = np.random.default_rng([seed, 7])
    y, ydot = host.both(s.xs, s.tangents, s.params)
    dy, dydot = rng.standard_normal(y.shape), rng.standard_normal(ydot.shape)
    passes: list[Callable[[Subject], tuple[Any, ...]]] = [
        lambda of: (of.both(s.xs, s.tangents, s.params),), lambda of: of.backward(dy),
        lambda of: of.jvp_backward(dy, dydot), lambda of: of.jvp_backward(None, dydot),
    ]  # fmt: skip
    if jets and hasattr(s.layer, "jet"):
        u, v, w = ([None if t is None else rng.standard_normal(t.shape) for t in s.tangents] for _ in range(3))
        given = [rng.standard_normal(a.shape) for a in _jet(host, s.xs, (u, v, w), s.params)]
        passes.append(lambda of: (_jet(of, s.xs, (u, v, w), s.params),))
        passes.append(lambda of: _jet_backward(of, (u, v, w), given))
        passes.append(lambda of: _jet_backward(of, (u, v, w), [None, None, None, given[3]]))  # as an energy asks
    for run in passes:
        for found, wanted in zip(run(s), run(host), strict=True):
            named = isinstance(found, dict)
            assert not named or found.keys() == wanted.keys()
            _same([found[k] for k in wanted] if named else found, [*wanted.values()] if named else wanted)


def check_dtype(s: Subject, dtype: str) -> None:
    """Four passes in `dtype`: every array that comes out is of that dtype, on that library, and of its shape."""
    move = s.backend.asarray
    params = {k: move(v, dtype=dtype) for k, v in s.params.items()}
    xs = [move(x, dtype=dtype) for x in s.xs]
    tangents = [None if x is None else move(x, dtype=dtype) for x in s.tangents]
    y, cache = s.layer.forward(params, *xs)
    dxs, grads = s.layer.backward(params, cache, y)
    ydot, tape = s.layer.jvp(params, cache, *tangents)
    assert ydot.shape == (next(x for x in tangents if x is not None).shape[0], *y.shape)
    for dy in (y, None):
        dxs2, dxdots, grads2 = s.layer.jvp_backward(params, cache, tape, dy, ydot)
        for g in (grads, grads2):
            assert {k: tuple(v.shape) for k, v in g.items()} == dict(s.layer.shapes)
        for made in (y, ydot, *dxs, *dxs2, *dxdots, *grads.values(), *grads2.values()):
            if made is not None:
                assert type(made) is type(xs[0])
                assert str(made.dtype).endswith(dtype)


# ------------------------------------------------------------------ small things


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


def _same(found: Sequence[Any], wanted: Sequence[Any]) -> None:
    for a, b in zip(found, wanted, strict=True):
        a, b = (0.0 if c is None else c for c in (a, b))  # None is zero
        # the same sums, perhaps in another order
        assert np.max(np.abs(a - b), initial=0.0) <= 1e-13 * (1 + np.max(np.abs(b), initial=0.0)) * np.size(b)


def _within(error: float, method: str, message: str) -> float:
    assert error <= METHODS[method][1], f"{message}: off by {error:.3g} ({method})"
    return error
