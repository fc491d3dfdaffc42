"""Is it the derivative?  The one checker of passes written by hand: ours, and anybody's. Chapters 14 and 17.

It knows the passes only by what they are (see `refscore.nn.layer`), so it serves a layer, a network, a score model and
two functions of somebody else alike:

    check_jvp            ẏ  is the directional derivative of forward
    check_backward       <dy, ∂F (ẋ, θ̇)> = <dx, ẋ> + <dθ, θ̇>: the transpose, in inputs and parameters
    check_jvp_backward   <dy, ∂F> + <dẏ, ∂jvp> = <dx, ξ> + <dẋ, ξ̇> + <dθ, θ̇> along any (ξ, ξ̇, θ̇)

Directional derivatives are taken by the complex step, Im f(x + ih v)/h, which has no difference to cancel and is
right to rounding; and once more by Richardson differences, which know nothing of complex numbers. Every check
returns its error relative to the sum of the absolute terms, and asserts it. `derivatives` goes on where one fails:
which pass, for which argument, by what factor, at which smallest shape.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from refscore.clinic.diagnosis import RIGHT, WRONG, Cause, Diagnosis
from refscore.clinic.exact import failed, host, place
from refscore_backends.numpy import NumpyBackend

COMPLEX = 1e-12  # complex step: rounding only, u times the length of the sums; observed 1e-15
DIFFERENCE = 1e-8  # Richardson, h = 2e-4: truncation h⁴ ~ 2e-15, rounding u/h ~ 1e-12, times third derivatives
FLAT = 1e-3  # of y: where tanh is flat its slope 1 - y² keeps the digits of y, not its own
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
    fixed : frozenset of int, optional
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
    """(8 (f(h) - f(-h)) - (f(2h) - f(-2h))) / 12h: fourth order.

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


METHODS = {"complex step": (complex_step, COMPLEX), "Richardson": (richardson, DIFFERENCE)}


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
    return _within(_gap(left, right), method, "jvp_backward is not the transpose of d(forward, jvp)")


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


def _gap(left: list[tuple[Any, Any]], right: list[tuple[Any, Any]]) -> float:
    """|Σ<a, b> on the left - the same on the right|, relative to the sum of all absolute terms."""
    value = sum(float(np.sum(a * b)) for a, b in left) - sum(float(np.sum(a * b)) for a, b in right)
    scale = sum(float(np.sum(np.abs(a * b))) for a, b in left + right)
    return abs(value) / (scale + 1e-300)


def _within(error: float, method: str, message: str) -> float:
    assert error <= METHODS[method][1], f"{message}: off by {error:.3g} ({method})"
    return error


# ------------------------------------------------------------------ anybody's


@dataclass(frozen=True)
class Functions:
    """Two functions of somebody else as a layer: all arguments are inputs, and none a parameter.

    Parameters
    ----------
    there : callable (*xs) -> y, or (y, cache)
        Forward.
    back : callable (dy, cache) -> gradients, or (dy, *xs) where forward returns no cache
        Backward: one gradient an argument, in their order.
    """

    there: Callable[..., Any]
    back: Callable[..., Any]

    def forward(self, params: Any, *xs: Any) -> tuple[Any, Any]:
        """Return y, and the arguments of backward after dy."""
        y = self.there(*xs)
        return (y[0], y[1:]) if isinstance(y, tuple) else (y, xs)

    def backward(self, params: Any, cache: Any, dy: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the gradients, and no more."""
        found = self.back(dy, *cache)
        return tuple(found) if isinstance(found, (tuple, list)) else (found,), {}


@dataclass(frozen=True)
class Arrays:
    """The patient's library, as much of a back end as the checks need.

    Parameters
    ----------
    like : array, optional
        One of the patient's arrays; NumPy's float64 by default.
    name : str, default "patient"
        Of the back end.
    """

    like: Any = None
    name: str = "patient"

    def asarray(self, x: Any, dtype: str | None = None) -> Any:
        """Return x in the patient's library; complex numbers as they are, which it may refuse."""
        return np.array(x) if self.like is None or isinstance(self.like, np.ndarray) else place(np.asarray(x), self.like)

    def to_numpy(self, x: Any) -> Any:
        """Return x on the host."""
        return x if isinstance(x, np.ndarray) else host(x)


def derivatives(
    layer: Any,
    *xs: Any,
    params: dict[str, Any] | None = None,
    at: Callable[..., tuple[Any, ...]] | None = None,
    like: Any = None,
    seed: int = 0,
) -> Diagnosis:
    """Whether passes written by hand are derivatives; if not which, for which argument, by what factor, at which shape.

    Parameters
    ----------
    layer : object or pair of callables
        An object with `forward` and `backward`, perhaps also `jvp` and `jvp_backward`, of `refscore.nn.layer`; or
        (forward, backward): forward(*xs) returns y or (y, cache), backward(dy, cache), or backward(dy, *xs) without
        cache, one gradient an argument.
    *xs : array
        The inputs, of floats; some twenty numbers each are plenty.
    params : dict of str to array, optional
        Of an object with parameters; by default random ones of its `shapes`.
    at : callable of sizes -> tuple of arrays, optional
        Makes inputs of given sizes, `lambda batch, width: (x, W, b)`: then no inputs are given, and the smallest sizes
        at which it fails are found.
    like : array, optional
        One of the patient's arrays; NumPy's float64 by default.
    seed : int, default 0
        Of adjoints, tangents and parameters.

    Returns
    -------
    Diagnosis
        Of kind "derivatives".

    Raises
    ------
    TypeError
        Without inputs, or for a layer that has no passes.

    Examples
    --------
    >>> import numpy as np
    >>> from refscore.clinic.derivatives import derivatives
    >>> x = np.array([[0.3, -1.2, 0.5]])
    >>> derivatives((np.tanh, lambda dy, x: dy * (1 - np.tanh(x) ** 2)), x).verdict
    'right'
    >>> print(derivatives((np.tanh, lambda dy, x: -dy * (1 - np.tanh(x) ** 2)), x))  # doctest: +ELLIPSIS
    derivatives: wrong (sign-flipped)
      backward, input 0: the sign is wrong
    ...
    """
    if isinstance(layer, tuple):
        layer = Functions(*layer)
    if not (hasattr(layer, "forward") and hasattr(layer, "backward")) or bool(xs) == (at is not None):
        raise TypeError("give (forward, backward) or an object with these methods, and inputs or `at`, which makes them")
    sizes: tuple[int, ...] = ()
    if at is not None:
        count = at.__code__.co_argcount
        sizes = tuple(3 + i for i in range(count))
        xs = at(*sizes)
    found = _examined(layer, xs, params, like, seed)
    if at is None or found.verdict == RIGHT:
        return found
    for smaller in sorted(np.ndindex(*(4,) * len(sizes)), key=sum):
        smaller = tuple(k + 1 for k in smaller)
        small = _examined(layer, at(*smaller), params, like, seed)
        if small.verdict != RIGHT:
            where = ", ".join(f"{name} {k}" for name, k in zip(at.__code__.co_varnames, smaller, strict=False))
            return replace(found, findings=(*found.findings, f"the smallest that fails: {where}"), numbers={**found.numbers, "smallest": list(smaller)})
    return found


def _examined(layer: Any, xs: Sequence[Any], params: Any, like: Any, seed: int) -> Diagnosis:
    rng, arrays = np.random.default_rng(seed), tuple(host(x) for x in xs)
    given = {k: 0.6 * rng.standard_normal(v) for k, v in getattr(layer, "shapes", {}).items()} if params is None else params
    given = {k: host(v) for k, v in given.items()}
    second = hasattr(layer, "jvp") and hasattr(layer, "jvp_backward")
    tangents = tuple(rng.standard_normal((2, *x.shape)) for x in arrays)
    s = Subject(layer, Arrays(like), given, arrays, tangents)
    assumed = ("functions are smooth where they are looked at", "inputs and parameters are all live")
    try:
        y = s.forward(arrays, given)
        dy = rng.standard_normal(y.shape)
        before = [a.copy() for a in (dy, *arrays)]
        dxs, grads = s.backward(dy)
        if any(not np.array_equal(a, b) for a, b in zip(before, (dy, *arrays), strict=True)):
            return failed("derivatives", "writes-into-its-argument", "backward changes dy, or what it was given", assumed)
        exact, method = _gradient(s, dy)
        causes = [c for name, found in (*((f"input {i}", d) for i, d in enumerate(dxs)), *grads.items()) for c in _why(s, name, found, exact.get(name), dy, y)]
        missing = [name for name in exact if name not in {*(f"input {i}" for i in range(len(dxs))), *grads}]
        causes += [Cause("gradient-missing", f"backward, {name}: there is no gradient", 1.0) for name in missing]
        errors = {"backward": 0.0 if not causes else max(c.error for c in causes)}
        if second and not causes:
            for check in (check_jvp, check_jvp_backward):
                try:
                    errors[check.__name__[6:]] = check(s, *(seed,) * (check is check_jvp_backward), method=method)
                except AssertionError as error:
                    causes.append(Cause(f"{check.__name__[6:]}-wrong".replace("_", "-"), str(error), 1.0))
    except Exception as error:  # a patient may raise anything
        return failed("derivatives", "raises", f"it raises {type(error).__name__}: {error}", assumed)
    says = [c.says for c in causes[:3]] or [f"all passes are derivatives, by {method}"]
    numbers = {"errors": errors, "shapes": [list(x.shape) for x in arrays], "method": method}
    first = causes[0].name if causes else "derivatives"
    return Diagnosis("derivatives", WRONG if causes else RIGHT, first, tuple(says), tuple(causes[:3]), numbers, assumed)


def _gradient(s: Subject, dy: Any) -> tuple[dict[str, Any], str]:
    """The exact gradient of <dy, y>, number by number; by complex steps where differences confirm them."""
    at: Point = (list(s.xs), [], s.params)

    def along(name: str, shape: tuple[int, ...], i: int) -> Point:
        v = np.zeros(int(np.prod(shape)))
        v[i] = 1.0
        v = v.reshape(shape)
        return [v if name == f"input {j}" else None for j in range(len(s.xs))], [], {name: v} if name in s.params else {}

    def all_of(method: str) -> dict[str, Any]:
        made = {}
        for name, a in (*((f"input {j}", x) for j, x in enumerate(s.xs)), *s.params.items()):
            each = [np.sum(dy * _run(s, at, along(name, a.shape, i), method, jvp=False)[0]) for i in range(a.size)]
            made[name] = np.asarray(each).reshape(a.shape)
        return made

    plain = all_of("Richardson")
    try:
        exact = all_of("complex step")
    except Exception:  # its library has no complex numbers here
        return plain, "Richardson"
    agree = all(np.max(np.abs(exact[k] - plain[k])) <= 1e-6 * (1 + np.max(np.abs(plain[k]))) for k in plain)
    return (exact, "complex step") if agree else (plain, "Richardson")


def _why(s: Subject, name: str, found: Any, exact: Any, dy: Any, y: Any) -> list[Cause]:
    """What one gradient is, if it is not the exact one."""
    where = f"backward, {name}"
    if exact is None:
        return [Cause("gradient-of-nothing", f"{where}: there is a gradient of what is no argument", 1.0)]
    if found is None:
        return [] if not exact.any() else [Cause("gradient-missing", f"{where}: there is no gradient", 1.0)]
    size = float(np.max(np.abs(exact))) + 1e-300

    def off(guess: Any) -> float:
        return float(np.max(np.abs(found - guess))) / size if np.shape(found) == np.shape(guess) else np.inf

    precise = 1e-6 if s.backend.like is None or str(s.backend.like.dtype).endswith("64") else 1e-3
    error = off(exact)
    if error < precise:
        return []
    guesses = [(n, f"{where}: {says}", off(guess)) for n, says, guess in _slips(s, name, found, exact, dy, y)]
    causes = [Cause(n, says, gap) for n, says, gap in sorted(guesses, key=lambda g: g[2]) if gap < max(10 * precise, 1e-4)]
    if np.shape(found) != exact.shape:
        return causes[:2] or [Cause("wrong-shape", f"{where}: it has shape {np.shape(found)} and not {exact.shape}", error)]
    x = s.xs[int(name[6:])] if name.startswith("input") else None
    for n, says, flat, mine in (
        ("shift-term-missing", "a constant added to a row of x changes nothing, and the gradient says it does", exact, found),
        ("scale-term-missing", "a factor of a row of x changes nothing, and the gradient says it does", exact * x if x is not None else None, found * x if x is not None else None),
    ):
        if x is not None and np.max(np.abs(flat.sum(axis=-1))) < 1e-6 * size < np.max(np.abs(mine.sum(axis=-1))) * 1e-2:
            causes.append(Cause(n, f"{where}: {says}", error))
    return causes[:3] or [Cause("not-the-gradient", f"{where}: off by {error:.2g} of its largest number", error)]


def _slips(s: Subject, name: str, found: Any, exact: Any, dy: Any, y: Any) -> list[tuple[str, str, Any]]:
    """What people write in place of a gradient."""
    batch, guesses = y.shape[0] if y.ndim else 1, [
        ("sign-flipped", "the sign is wrong", -exact),
        ("transposed", "it is transposed", exact.T),
        ("flipped", "it is in reverse order along the last axis", exact[..., ::-1] if exact.ndim else exact),
        ("mean-over-the-batch", f"it is divided by the batch, {y.shape[0] if y.ndim else 1}", exact / (y.shape[0] if y.ndim else 1)),
        ("gradient-zero", "it is zero", np.zeros_like(exact)),
    ]  # fmt: skip
    guesses = [g for g in guesses if not (g[0] == "mean-over-the-batch" and batch == 1)]
    if np.shape(found) == exact.shape and exact.any():
        c = float(np.sum(found * exact) / np.sum(exact * exact))
        guesses.append(("constant-factor", f"it is {c:.4g} times what it should be", c * exact))
    if np.ndim(found) > exact.ndim:
        lead = tuple(range(np.ndim(found) - exact.ndim))
        if np.allclose(np.sum(found, axis=lead), exact, atol=1e-5 * np.max(np.abs(exact))):
            guesses.append(("not-summed-over-the-batch", "it is not summed over the batch", found))
    if exact.shape == y.shape:
        x = s.xs[int(name[6:])] if name.startswith("input") else y
        slope = {"1": np.ones_like(y), "1 - y": 1 - y, "1 - x²": 1 - x**2, "x (1 - x)": x * (1 - x), "y": y, "x": x, "y > 0": y > 0, "x > 0": x > 0, "dy > 0": dy > 0}
        for what, u in slope.items():
            n = "slope-missing" if what == "1" else "slope-of-something-else"
            guesses.append((n, f"it is dy times {what}", dy * u))
        guesses.append(("skip-branch-missing", "the gradient of the branch that skips the layer is missing", exact - dy))
        guesses.append(("only-the-skip-branch", "it is dy alone", dy))
    for i, other in enumerate(s.xs):
        for n, says, turn in (
            ("other-not-transposed", "the other factor is not transposed", lambda a: a.T if a.ndim == 2 and a.shape[0] == a.shape[1] else None),
            ("kernel-not-flipped", "the other factor is flipped along its last axis", lambda a: a[..., ::-1] if a.shape[-1:] > (1,) else None),
        ):  # fmt: skip
            turned = turn(other)
            if turned is not None and name != f"input {i}":
                xs = tuple(turned if j == i else x for j, x in enumerate(s.xs))
                guesses.append((n, says, _gradient(replace(s, xs=xs), dy)[0][name]))
    return guesses
