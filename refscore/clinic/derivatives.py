"""Is it the derivative?  Passes written by hand, anybody's: which is wrong, where, by what factor. Chapter 17."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from refscore.clinic.arrays import host, place
from refscore.clinic.checker import Point, Subject, _run
from refscore.clinic.diagnosis import RIGHT, WRONG, Cause, Diagnosis
from refscore.clinic.exact import failed
from refscore.museum.layers import slips


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

    Raises
    ------
    TypeError
        By `asarray`, for complex numbers in another library than NumPy.
    """

    like: Any = None
    name: str = "patient"

    @property
    def precise(self) -> float:
        """What its rounding leaves of a gradient, relative."""
        return 1e-6 if self.like is None or str(self.like.dtype).endswith("64") else 2e-3

    def asarray(self, x: Any, dtype: str | None = None) -> Any:
        """Return x in the patient's library; complex numbers as they are, which it may refuse."""
        if self.like is None or isinstance(self.like, np.ndarray):
            return np.array(x)
        if np.iscomplexobj(x):
            raise TypeError("complex steps are for NumPy")
        return place(np.asarray(x), self.like)

    def to_numpy(self, x: Any) -> Any:
        """Return x on the host."""
        return x if isinstance(x, np.ndarray) else host(x)


def derivatives(
    layer: Any,
    *xs: Any,
    params: dict[str, Any] | None = None,
    fixed: Sequence[int] = (),
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
    fixed : sequence of int, default ()
        Inputs without derivative, as a time.
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
        raise TypeError(
            "give (forward, backward) or an object with these methods, and inputs or `at`, which makes them"
        )
    rest = params, fixed, like, seed
    if at is None:
        return _examined(layer, xs, *rest)
    names = at.__code__.co_varnames[: at.__code__.co_argcount]
    found = _examined(layer, at(*range(3, 3 + len(names))), *rest)
    if found.verdict == RIGHT:
        return found
    for smaller in sorted(np.ndindex(*(4,) * len(names)), key=sum):
        smaller = tuple(k + 1 for k in smaller)
        if _examined(layer, at(*smaller), *rest).verdict != RIGHT:
            where = ", ".join(f"{name} {k}" for name, k in zip(names, smaller, strict=True))
            says = (*found.findings, f"the smallest that fails: {where}")
            return replace(found, findings=says, numbers={**found.numbers, "smallest": list(smaller)})
    return found


def _examined(layer: Any, xs: Sequence[Any], params: Any, fixed: Sequence[int], like: Any, seed: int) -> Diagnosis:
    rng, arrays, shapes = np.random.default_rng(seed), tuple(host(x) for x in xs), getattr(layer, "shapes", {})
    given = {k: 0.6 * rng.standard_normal(v) for k, v in shapes.items()} if params is None else params
    tangents = tuple(None if i in fixed else rng.standard_normal((2, *x.shape)) for i, x in enumerate(arrays))
    s = Subject(layer, Arrays(like), {k: host(v) for k, v in given.items()}, arrays, tangents, frozenset(fixed))
    assumed = ("functions are smooth where they are looked at",)
    try:
        y = s.forward(arrays, s.params)
        dy = rng.standard_normal(y.shape)
        if _writes(s, dy):
            says = "backward changes dy, or what forward was given"
            return failed("derivatives", "writes-into-its-argument", says, assumed)
        exact, method = _gradient(s, dy)
        causes = _compared("backward", s, s.backward(dy), exact, dy, y)
        if not causes and hasattr(layer, "jvp"):
            causes = _of_jvp(s, method)
        if not causes and hasattr(layer, "jvp_backward"):
            dydot = rng.standard_normal((2, *y.shape))
            exact, method = _gradient(s, dy, dydot)
            causes = _compared("jvp_backward", s, s.jvp_backward(dy, dydot), exact, dy, y)
    except Exception as error:  # a patient may raise anything
        return failed("derivatives", "raises", f"it raises {type(error).__name__}: {error}", assumed)
    lines = [c.says for c in causes[:3]] or [f"all passes are derivatives, by {method}"]
    shapes = [list(x.shape) for x in arrays]
    numbers = {"error": max([c.error for c in causes], default=0.0), "shapes": shapes, "method": method}
    name, verdict = (causes[0].name, WRONG) if causes else ("derivatives", RIGHT)
    return Diagnosis("derivatives", verdict, name, tuple(lines), tuple(causes[:3]), numbers, assumed)


def _writes(s: Subject, dy: Any) -> bool:
    placed = [s.move(a) for a in (dy, *s.xs)]
    params = s._params(s.params)
    _, cache = s.layer.forward(params, *placed[1:])
    s.layer.backward(params, cache, placed[0])
    return any(not np.allclose(s.host(p), a, rtol=1e-6, atol=1e-6) for p, a in zip(placed, (dy, *s.xs), strict=True))


def _named(s: Subject, parts: tuple[Any, ...]) -> dict[str, Any]:
    """Arrays by the names of what they belong to: of live inputs, of their tangents if there are, of parameters."""
    *rows, params = parts
    named = {f"{w} {i}": a for w, row in zip(("input", "tangent"), rows, strict=False) for i, a in enumerate(row)}
    return {k: a for k, a in named.items() if int(k.split()[1]) not in s.fixed} | dict(params)


def _gradient(s: Subject, dy: Any, dydot: Any = None) -> tuple[dict[str, Any], str]:
    """The exact gradient of <dy, y> + <dydot, ydot>, number by number; by complex steps where differences confirm."""
    tangents = [] if dydot is None else list(s.tangents)
    at: Point = (list(s.xs), tangents, s.params)
    everything = _named(s, (s.xs, tangents, s.params))

    def one(name: str, i: int, method: str) -> float:
        v = np.zeros(everything[name].size)
        v[i] = 1.0
        v = v.reshape(everything[name].shape)
        inputs, moved = (
            [v if name == f"{w} {j}" else None for j in range(len(t))]
            for w, t in (("input", s.xs), ("tangent", tangents))
        )
        found = _run(s, at, (inputs, moved, {name: v} if name in s.params else {}), method, jvp=dydot is not None)
        return float(np.sum(dy * found[0]) + (0.0 if dydot is None else np.sum(dydot * found[1])))

    def whole(method: str) -> dict[str, Any]:
        rows = {n: [one(n, i, method) for i in range(a.size)] for n, a in everything.items()}
        return {n: np.asarray(row).reshape(everything[n].shape) for n, row in rows.items()}

    plain = whole("Richardson")
    try:
        exact = whole("complex step")
    except Exception:  # its library has no complex numbers here
        return plain, "Richardson"
    agree = all(np.max(np.abs(exact[k] - plain[k])) <= 1e-6 * (1 + np.max(np.abs(plain[k]))) for k in plain)
    return (exact, "complex step") if agree else (plain, "Richardson")


def _compared(which: str, s: Subject, found: tuple[Any, ...], exact: dict[str, Any], dy: Any, y: Any) -> list[Cause]:
    """Causes from all adjoints that a pass returned, or did not return."""
    named, causes = _named(s, found), []
    for name in (*exact, *(n for n in named if n not in exact)):
        for cause in _why(s, name, named.get(name), exact.get(name), dy, y):
            causes.append(replace(cause, says=f"{which}, {name}: {cause.says}"))
    return causes


def _of_jvp(s: Subject, method: str) -> list[Cause]:
    """Of each input alone whether its tangent is pushed forward as the derivative says."""
    causes = []
    for i, x in enumerate(s.tangents):
        if x is not None:
            alone = [x[0] if j == i else None for j in range(len(s.xs))]
            (exact,) = _run(s, (list(s.xs), [], s.params), (alone, [], {}), method, jvp=False)
            only = [t if t is None or j == i else np.zeros_like(t) for j, t in enumerate(s.tangents)]
            for cause in _why(s, f"tangent {i}", s.both(s.xs, only, s.params)[1][0], exact, exact, np.zeros(())):
                causes.append(replace(cause, says=f"jvp, input {i}: {cause.says}"))
    return causes


def _why(s: Subject, name: str, found: Any, exact: Any, dy: Any, y: Any) -> list[Cause]:
    """What one gradient is, if it is not the exact one."""
    if exact is None:
        return [Cause("gradient-of-nothing", "there is a gradient of what is no argument", 1.0)]
    if found is None:
        return [Cause("gradient-missing", "there is no gradient", 1.0)] * bool(exact.any())
    arrays: Arrays = s.backend
    size, precise = float(np.max(np.abs(exact))) + 1e-300, arrays.precise

    def off(guess: Any) -> float:
        return float(np.max(np.abs(found - guess))) / size if np.shape(found) == np.shape(guess) else np.inf

    error = off(exact)
    if error < precise:
        return []
    guesses = [
        (n == "constant-factor", off(guess), n, says)
        for n, says, guess in slips(s, _gradient, name, found, exact, dy, y)
    ]
    causes = [Cause(n, says, gap) for _, gap, n, says in sorted(guesses) if gap < max(10 * precise, 1e-4)]
    if np.shape(found) != exact.shape:
        return causes[:2] or [Cause("wrong-shape", f"it has shape {np.shape(found)} and not {exact.shape}", error)]
    x = s.xs[int(name[6:])] if name.startswith("input") else np.full_like(exact, np.nan)
    for n, what, factor in (("shift", "a constant added to", 1.0), ("scale", "a factor of", x)):
        loose, mine = (np.max(np.abs(np.sum(factor * g, axis=-1))) for g in (exact, found))
        if loose < 1e-6 * size < 1e-2 * mine:
            says = f"{what} a row of x changes nothing, and the gradient says it does"
            causes.append(Cause(f"{n}-term-missing", says, error))
    return causes[:3] or [Cause("not-the-gradient", f"off by {error:.2g} of its largest number", error)]
