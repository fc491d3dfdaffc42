"""What our own layers are asked beyond being derivatives, which `refscore.clinic.checker` asks of anybody's.

check_jet            where there are jets: the derivative of jvp along a second tangent, and its transpose
check_all            that a stack of tangents is many tangents, that None is zero, that Hessians are symmetric
check_everywhere     that every back end gives NumPy's numbers
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from refscore.clinic.checker import (
    _METHODS as METHODS,
)
from refscore.clinic.checker import (
    DIGITS,
    FLAT,
    STEP,
    Point,
    Subject,
    _direction,
    _gap,
    _largest,
    _pairs,
    _run,
    _with_complex,
    _within,
    check_backward,
    check_jvp,
    check_jvp_backward,
    subject,
)
from refscore_backends.numpy import NumpyBackend

__all__ = [
    "METHODS", "STEP", "Subject", "check_all", "check_backward", "check_dtype", "check_everywhere", "check_jet",
    "check_jvp", "check_jvp_backward", "check_symmetry", "subject",
]  # fmt: skip


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
        gap = _gap(left, right, [*u, *v, *w])
        worst = max(worst, _within(gap, "complex step", "jet_backward is not the transpose"))
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


def _same(found: Sequence[Any], wanted: Sequence[Any]) -> None:
    for a, b in zip(found, wanted, strict=True):
        a, b = (0.0 if c is None else c for c in (a, b))  # None is zero
        # the same sums, perhaps in another order
        assert np.max(np.abs(a - b), initial=0.0) <= 1e-13 * (1 + np.max(np.abs(b), initial=0.0)) * np.size(b)
