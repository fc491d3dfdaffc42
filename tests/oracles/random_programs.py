"""Random functions of arrays and numbers: what a user may write, a dozen operations deep."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from refscore.arrays import put

Function = Callable[..., Any]
FLOATS = ("float32", "float64")
SIZES = (1, 2, 3, 4)


def random_function(seed: int, length: int = 12, whole: bool = False) -> Function:
    """A function of (arrays, t, n, rng), the same at each call: what it does follows from the seed and the shapes.

    Parameters
    ----------
    seed : int
        Which.
    length : int, default 12
        Operations.
    whole : bool, default False
        Of mixed types too, integers beside floats: what the standard leaves open, and NumPy and CuPy do alike.
    """

    def function(arrays: Any, t: float, n: int, rng: Any) -> Any:
        draw = _Draw(seed, array_namespace(arrays[0]), whole)
        for x in arrays:
            draw.keep(x)
        draw.keep(rng.standard_normal((n, 3), dtype="float64"))
        for _ in range(length):
            draw.operation(t, n)
        count = draw.rng.integers(1, 4)
        picked = [draw.pool[-1 - int(i)] for i in draw.rng.integers(0, min(6, len(draw.pool)), count)]
        return {"some": picked, "number": 2.0**t, "last": (draw.pool[-1], None)}

    function.__name__ = f"random_{seed}"
    return function


def arguments(seed: int) -> tuple[Any, float, int, Any]:
    """Arrays of every type, with infinities and NaN at times, and laid out in other ways than by rows; two numbers."""
    rng = np.random.default_rng([seed, 1])
    arrays = []
    for kind in ("float64", "float64", "float32", "int64", "bool"):
        shape = tuple(int(n) for n in rng.choice((*SIZES, 0) if rng.random() < 0.1 else SIZES, rng.integers(0, 5)))
        x: Any = np.asarray(np.round(3 * rng.standard_normal(shape), 1 + 9 * int(rng.integers(2))))
        if kind in FLOATS and rng.random() < 0.15 and x.size:
            x.reshape(-1)[rng.integers(x.size)] = rng.choice([np.nan, np.inf, -np.inf, -0.0])
        x = x > 0 if kind == "bool" else x.astype(kind)
        arrays.append(x.T if rng.random() < 0.3 else x[..., ::-1] if x.ndim and rng.random() < 0.2 else x)
    return tuple(arrays), float(rng.choice([0.0, 0.25, 0.5, 0.9])), 2, np.random.default_rng(seed)


class _Draw:
    """Chooses operations, and keeps what they gave."""

    def __init__(self, seed: int, xp: Any, whole: bool) -> None:
        self.rng, self.xp, self.whole = np.random.default_rng(seed), xp, whole
        self.pool: list[Any] = []

    def keep(self, x: Any) -> None:
        """Let later operations use x, if it is not too large."""
        if math.prod(x.shape) <= 400 and len(x.shape) <= 5:
            self.pool.append(x)

    def chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)

    def one(self, *choices: Any) -> Any:
        return choices[int(self.rng.integers(len(choices)))]

    def kind(self, x: Any) -> str:
        return str(x.dtype)

    def any(self, *kinds: str, ndim: int = 0) -> Any:
        """A value of such a type, rather a recent one."""
        fits = [x for x in self.pool if (not kinds or self.kind(x) in kinds) and len(x.shape) >= ndim]
        if not fits:
            return None
        return fits[-1 - int(min(self.rng.integers(len(fits)), self.rng.integers(len(fits))))]

    def beside(self, x: Any, t: Any) -> Any:
        """What can be combined with x: a value of a shape that fits, or a number."""
        kinds = () if self.whole and self.chance(0.3) else FLOATS if self.kind(x) in FLOATS else (self.kind(x),)
        for _ in range(5):
            y = self.any(*kinds)
            if y is not None and _fit(x.shape, y.shape):
                return y
        if self.kind(x) == "bool":
            return self.one(True, False)
        if self.kind(x) == "int64" and not (self.whole and self.chance(0.5)):
            return self.one(2, -3, 5)
        return self.one(t, 2 * t + 1, 0.3, -2.0, 3, -t)

    def operation(self, t: Any, n: Any) -> None:
        """One more value."""
        if t > 0.4 and self.chance(0.2):
            t = t * t - 0.25
        way = self.one(*[self.elementwise] * 6, *[self.moved] * 5, self.parts, self.parts, self.placed, self.placed,
                       self.reduced, self.reduced, self.product, self.made, self.carried_out)  # fmt: skip
        x = way(t)
        if x is not None:
            self.keep(x)

    def elementwise(self, t: Any) -> Any:
        xp, x = self.xp, self.any()
        y, f = self.beside(x, t), self.kind(x) in FLOATS
        if self.kind(x) == "bool":
            number = isinstance(y, bool)
            same = number or self.kind(y) == "bool"
            return self.one(
                lambda: x & y if same else x, lambda: x | y if same else ~x, lambda: ~x, lambda: x ^ y if same else x,
                lambda: xp.logical_not(x), lambda: xp.logical_and(x, x), lambda: xp.astype(x, xp.float32),
                lambda: xp.astype(x, xp.int64), lambda: self.where(x, t), lambda: self.where(x, t), lambda: x == y,
            )()  # fmt: skip
        if not f:
            return self.one(
                lambda: x + y, lambda: x - y, lambda: x * y, lambda: -x, lambda: abs(x), lambda: x < y, lambda: x == y,
                lambda: xp.astype(x, xp.float64), lambda: xp.astype(x, xp.bool), lambda: x % 3, lambda: x // 2,
                lambda: xp.maximum(x, y) if self.whole or hasattr(y, "shape") else y - x, lambda: x**2, lambda: y >= x,
                lambda: x / 2 if self.whole else x + 1, lambda: x * 0.5 if self.whole else x, lambda: ~x, lambda: x & 6,
                lambda: x < 0.5 if self.whole else x < 1, lambda: xp.square(x), lambda: x**3 if self.whole else x,
            )()  # fmt: skip
        u = abs(x) + 0.5
        return self.one(
            lambda: x + y, lambda: y - x, lambda: x - y, lambda: x * y, lambda: x / u, lambda: y / u, lambda: -x,
            lambda: +x, lambda: x**2, lambda: u**0.5, lambda: u**-1, lambda: u**-0.5, lambda: x**3,
            lambda: u ** (t + 0.5), lambda: 2.0 ** xp.tanh(x), lambda: (-2.0) ** xp.astype(x > 0, x.dtype),
            lambda: xp.exp(-u), lambda: xp.log(u), lambda: xp.tanh(x), lambda: xp.sin(x), lambda: xp.sqrt(u),
            lambda: xp.square(x), lambda: abs(x), lambda: x < y, lambda: y >= x, lambda: x != y, lambda: xp.isfinite(x),
            lambda: xp.maximum(x, y), lambda: xp.minimum(x, y), lambda: self.where(x > y, t), lambda: xp.expm1(-u),
            lambda: xp.astype(x, self.one(xp.float32, xp.float64)), lambda: xp.atan2(x, u), lambda: xp.positive(x),
            lambda: xp.astype(xp.clip(xp.where(xp.isfinite(x), x, 0.0), -9, 9), xp.int64), lambda: xp.real(x),
            lambda: x * self.xp.exp(t * u * 0 - 1.0) if self.chance(0.5) else x * 2, lambda: -abs(x) * t,
        )()  # fmt: skip

    def where(self, condition: Any, t: Any) -> Any:
        for _ in range(5):
            x = self.any()
            if _fit(condition.shape, x.shape):
                y = self.beside(x, t)
                if not hasattr(y, "shape") or _fit(np.broadcast_shapes(condition.shape, x.shape), y.shape):
                    return self.xp.where(condition, x, y) if self.chance(0.5) else self.xp.where(condition, y, x)
        return condition

    def key(self, x: Any, only_slices: bool = False) -> Any:
        keys: list[Any] = []
        for n in x.shape[: int(self.rng.integers(0, len(x.shape) + 1))]:
            if only_slices or self.chance(0.7) or n == 0:
                step = self.one(1, 1, 2, 3, *(() if only_slices else (-1, -2)))
                edges = [self.one(None, int(self.rng.integers(-n - 1, n + 2))) for _ in range(2)]
                keys.append(slice(edges[0], edges[1], step))
            else:
                keys.append(int(self.rng.integers(-n, n)))
        if self.chance(0.3):
            at = int(self.rng.integers(len(keys) + 1))
            sliced = all(isinstance(k, slice) for k in keys)
            keys = [*keys[:at], ..., *keys[at:]] if sliced or len(keys) == len(x.shape) else [*keys, ...]
        if not only_slices and self.chance(0.3):
            keys.insert(int(self.rng.integers(len(keys) + 1)), None)
        return tuple(keys) if len(keys) != 1 or self.chance(0.5) else keys[0]

    def moved(self, t: Any) -> Any:
        xp, x = self.xp, self.any(ndim=1)
        if x is None:
            return None
        d = len(x.shape)
        return self.one(
            lambda: x[self.key(x)], lambda: x[self.key(x)], lambda: x[self.key(x)],
            lambda: xp.permute_dims(x, tuple(int(i) for i in self.rng.permutation(d))),
            lambda: xp.matrix_transpose(x) if d > 1 else xp.flip(x),
            lambda: xp.flip(x, axis=self.one(None, int(self.rng.integers(-d, d)), tuple(range(d)))),
            lambda: xp.reshape(x, self.shape(math.prod(x.shape))),
            lambda: xp.reshape(x, self.shape(math.prod(x.shape))),
            lambda: xp.broadcast_to(x, (self.one(1, 2), *x.shape)),
            lambda: xp.broadcast_to(x[..., None], (*x.shape, 3)),
        )()  # fmt: skip

    def shape(self, size: int) -> tuple[int, ...]:
        if size == 0:
            return self.one((0,), (0, 2), (3, 0, 1))
        sizes: list[int] = []
        while size > 1:
            n = self.one(*[n for n in range(2, size + 1) if size % n == 0])
            sizes, size = [*sizes, n], size // n
        for _ in range(self.one(0, 0, 1)):
            sizes.insert(int(self.rng.integers(len(sizes) + 1)), 1)
        if sizes and self.chance(0.3):
            sizes[int(self.rng.integers(len(sizes)))] = -1
        return tuple(sizes)

    def parts(self, t: Any) -> Any:
        xp, x = self.xp, self.any(ndim=1)
        if x is None:
            return None
        axis = int(self.rng.integers(-len(x.shape), len(x.shape)))
        same = [y for y in self.pool if y.shape == x.shape and (self.whole or self.kind(y) == self.kind(x))]
        others = [self.one(*same) for _ in range(self.rng.integers(0, 3))]
        if self.chance(0.4):
            return xp.stack([x, *others], axis=self.one(axis, len(x.shape)))
        few = tuple(slice(0, max(0, n - 1)) if d == axis % len(x.shape) else slice(None) for d, n in enumerate(x.shape))
        return xp.concat([*others, x, *self.one((), (x[few],))], axis=None if self.chance(0.1) else axis)

    def placed(self, t: Any) -> Any:
        """Into a frame of zeros, into a copy, or into what was put together, of which views are alive."""
        xp, x = self.xp, self.any(ndim=1)
        if x is None:
            return None
        frame = self.one(
            lambda: xp.zeros(tuple(2 * n + 1 for n in x.shape), dtype=x.dtype),
            lambda: xp.zeros(x.shape, dtype=x.dtype),
            lambda: x if self.kind(x) == "bool" else x * 1, lambda: x, lambda: self.like(xp.ones_like, x),
        )()  # fmt: skip
        key = self.key(frame, only_slices=not self.chance(0.2))
        key = key if isinstance(key, tuple) else (key,)
        key = tuple(k for k in key if k is not None)
        part = frame[key]
        value = self.one(*[y for y in self.pool if y.shape == part.shape] or [part])
        if self.chance(0.2) and self.kind(frame) in FLOATS:
            value = self.one(t, 0.7)
        elif self.kind(value) != self.kind(frame) and not (self.whole and self.kind(value) in FLOATS):
            value = xp.astype(part, frame.dtype)
        if hasattr(value, "dtype") and self.kind(value) in FLOATS and self.kind(frame) not in FLOATS:
            value = part
        before = frame[..., :1]
        made = placed(frame, key, value)
        self.keep(made)
        if self.chance(0.5):
            self.keep(before)
        return placed(made, key, made[key]) if self.chance(0.2) else made

    def reduced(self, t: Any) -> Any:
        x = self.any(*FLOATS)
        if x is None:
            return None
        d = len(x.shape)
        axes = tuple(int(i) for i in self.rng.permutation(d)[: self.rng.integers(0, d + 1)])
        axis = self.one(None, axes, *axes)
        function = self.one("sum", "mean", "max", "min")
        if function in ("max", "min") and 0 in x.shape:
            function = "sum"
        if function == "mean" and 0 in x.shape:
            return None
        return getattr(self.xp, function)(self.one(x, x * x), axis=axis, keepdims=self.chance(0.4))

    def product(self, t: Any) -> Any:
        xp, x = self.xp, self.any("float64", ndim=1)
        if x is None:
            return None
        for _ in range(8):
            y = self.any("float64", ndim=1)
            if len(y.shape) == 1 and x.shape[-1] == y.shape[0]:
                return x @ y
            if (
                len(y.shape) > 1
                and x.shape[-1] == y.shape[-2]
                and (len(x.shape) == 1 or _fit(x.shape[:-2], y.shape[:-2]))
            ):
                return x @ y if self.chance(0.5) else xp.matmul(x, y)
        return x @ xp.matrix_transpose(x) if len(x.shape) > 1 else x @ x

    def like(self, make: Callable[..., Any], x: Any, *value: Any) -> Any:
        """Laid out by rows: NumPy lays it out as x, and a sum of it then rounds in another order than a program's."""
        return self.xp.reshape(make(self.xp.reshape(x, (-1,)), *value), x.shape)

    def made(self, t: Any) -> Any:
        xp, x = self.xp, self.any()
        return self.one(
            lambda: self.like(xp.ones_like, x), lambda: self.like(xp.full_like, x, 2),
            lambda: xp.full((2, 3), t, dtype=xp.float64),
            lambda: xp.zeros((3,), dtype=xp.float32), lambda: xp.arange(4), lambda: self.like(xp.zeros_like, x),
            lambda: self.like(xp.full_like, x, True), lambda: xp.eye(3, dtype=xp.float64),
        )()  # fmt: skip

    def carried_out(self, t: Any) -> Any:
        """What a plan leaves to the library."""
        xp, x = self.xp, self.any(ndim=1)
        if x is None:
            return None
        d = len(x.shape)
        f = self.kind(x) in FLOATS
        return self.one(
            lambda: xp.roll(x, 1, axis=-1), lambda: xp.expand_dims(x, axis=0), lambda: xp.moveaxis(x, 0, -1),
            lambda: xp.take(x, xp.asarray([0] * 2), axis=0) if x.shape[0] else x,
            lambda: xp.broadcast_arrays(x, x[:1, ...])[1], lambda: xp.unstack(x, axis=0)[0] if x.shape[0] else x,
            lambda: xp.cumulative_sum(x, axis=0) if f else x, lambda: xp.sum(x, axis=0) if not f else x,
            lambda: xp.tile(x, (2,) * d), lambda: xp.squeeze(x[:1, ...], axis=0) if x.shape[0] else x,
            lambda: xp.asarray(x, copy=True), lambda: xp.any(x > 0, axis=0),
            lambda: xp.meshgrid(xp.reshape(x, (-1,))[:3], xp.reshape(x, (-1,))[:2])[1],
        )()  # fmt: skip


def placed(y: Any, where: Any, values: Any) -> Any:
    """y with other values there, y itself left as it is."""
    return put(y if hasattr(y, "at") else np.array(y), where, values)


def _fit(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    return all(n == m or 1 in (n, m) for n, m in zip(reversed(a), reversed(b), strict=False))
