"""Small models for tests: of everything a graph can have, linear ones, and what a pass of one costs."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from refscore import MLP, VE, VP, EnergyModel, ScoreModel
from refscore.laws.examples import mixture
from refscore.nn import (
    Add,
    Attention,
    AvgPool,
    Concat,
    Conv,
    Dense,
    Dropout,
    Fourier,
    GroupNorm,
    Inside,
    Net,
    Outside,
    ScaleShift,
    SiLU,
    Softplus,
    Tanh,
    Total,
    Upsample,
)


def inputs(layer: Any, n: int, B: int, seed: int, shared: bool = False) -> list[np.ndarray]:
    """x as the layer wants it, built for n features by the table of layers, and what it reads beside.

    Images are of any small size. What a layer is conditioned on is one row a sample, or one for all.
    """
    rng = np.random.default_rng([seed, 7])
    height, width = (int(n) for n in rng.integers(1, 6, 2))
    rows = 1 if shared else B
    channels = {Conv: "n_in", GroupNorm: "n", Attention: "heads"}
    if isinstance(layer, (Inside, Outside)):
        shape: tuple[int, ...] = (B, height, width, n)
    elif isinstance(layer, Attention):
        shape = height, width, B, 3 * n * layer.heads
    elif type(layer) in channels or isinstance(layer, (ScaleShift, AvgPool, Upsample, Total)):
        shape = height, width, B, getattr(layer, channels.get(type(layer), ""), n)
    else:
        shape = (B, *getattr(layer, "before", (n,)))
    if isinstance(layer, Upsample):
        shape = (-(-height // 2), -(-width // 2), *shape[2:])
    xs = [2 * rng.standard_normal(shape)]
    if getattr(layer, "n_cond", 0):
        xs.append(rng.standard_normal((rows, layer.n_cond)))
    if isinstance(layer, (Add, Concat)):
        xs.append(rng.standard_normal((rows, n)))
    if isinstance(layer, ScaleShift):
        xs.append(rng.standard_normal((rows, 2 * n)))
    if isinstance(layer, Upsample):
        xs.append(rng.standard_normal((height, width, B, 1)))
    if isinstance(layer, Dropout):
        xs.append(rng.random((B, n + 2)))
    return xs


def without_adjoint(layer: Any) -> list[int]:
    """Inputs to which a layer sends no adjoint: a condition that is not learned, a size, uniform numbers."""
    constant = isinstance(layer, (Upsample, Dropout)) or (isinstance(layer, Dense) and not layer.learned)
    return [1] if constant and not (isinstance(layer, Dense) and not layer.n_cond) else []


def tangle(n: int) -> Net:
    """A net with everything a graph can have: skips, a value read thrice, twice by one row, a dead end."""
    return Net((
        ("embed", Fourier(4), ("level",)),
        ("a", Dense(n, 3, 4), ("x", "embed")),
        ("h", Tanh(), ("a",)),
        ("dead end", Dense(3, 2), ("h",)),
        ("deader end", SiLU(), ("dead end",)),
        ("twice", Add(), ("h", "h")),
        ("g", Softplus(), ("twice",)),
        ("b", Dense(n, 3), ("x",)),
        ("skip", Add(), ("g", "b")),
        ("s", SiLU(), ("skip",)),
        ("of the level alone", Dense(4, 3), ("embed",)),
        ("bent", Tanh(), ("of the level alone",)),
        ("out", Add(), ("s", "a", "bent")),
        ("last", Dense(3, n, 4), ("out", "embed")),
    ))  # fmt: skip


def random_theta(model: Any, seed: int, spread: float = 0.3) -> np.ndarray:
    """Initial parameters, pushed about: biases start at zero, where mistakes hide."""
    rng = np.random.default_rng([seed, 11])
    theta = model.init(rng, "float64")
    return theta + spread * rng.standard_normal(theta.shape)


class Counted(np.ndarray):
    """An array that counts the multiplications of all matrix products it takes part in."""

    made = 0

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        plain = [np.asarray(a) if isinstance(a, Counted) else a for a in inputs]
        if "out" in kwargs:
            kwargs["out"] = tuple(a.view(np.ndarray) for a in kwargs["out"])
        y = getattr(ufunc, method)(*plain, **kwargs)
        if ufunc is np.matmul:
            Counted.made += math.prod(y.shape) * plain[0].shape[-1]
        return y.view(Counted) if isinstance(y, np.ndarray) else y


class CountedRng:
    """Noise whose products are counted too."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)

    def standard_normal(self, size: Any = None, dtype: Any = None) -> Any:
        return self.rng.standard_normal(size).view(Counted)

    def random(self, size: Any = None, dtype: Any = None) -> Any:
        return self.rng.random(size)

    def integers(self, low: int, high: int, size: Any = None) -> Any:
        return self.rng.integers(low, high, size=size)


@dataclass(frozen=True)
class Linear:
    """s = φ(x) W: linear in its parameters, with the four passes, for x of any shape (B, ...)."""

    basis: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]  # x (B, D) -> φ (B, M), ∇φ (B, M, D)
    size: int
    dim: int
    sde: Any = VE(0.01, 10.0)  # noqa: RUF009

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"W": (self.size, self.dim)}

    def forward(self, params: Any, x: np.ndarray, t: Any) -> tuple[np.ndarray, Any]:
        phi, slopes = self.basis(x.reshape(len(x), -1))
        return (phi @ params["W"]).reshape(x.shape), (phi, slopes)

    def backward(self, params: Any, cache: Any, dy: np.ndarray) -> Any:
        return (None,), {"W": cache[0].T @ dy.reshape(len(dy), -1)}

    def jvp(self, params: Any, cache: Any, xdot: np.ndarray) -> tuple[np.ndarray, Any]:
        tape = np.einsum("bmd,kbd->kbm", cache[1], xdot.reshape(*xdot.shape[:2], -1))
        return (tape @ params["W"]).reshape(xdot.shape), tape

    def jvp_backward(self, params: Any, cache: Any, tape: Any, dy: np.ndarray, dydot: np.ndarray) -> Any:
        dW = cache[0].T @ dy.reshape(len(dy), -1)
        return (None,), (None,), {"W": dW + np.einsum("kbm,kbd->md", tape, dydot.reshape(*dydot.shape[:2], -1))}


KINDS = {"score": (ScoreModel, 2), "energy": (EnergyModel, 1)}


TILTED = mixture("tilted")


MODEL = ScoreModel(MLP((2, 6, 2), embed=4), VP(), data_std=1.6)


POINTS = TILTED.sample(np.random.default_rng(0), 50)


def energy(dim: int, hidden: list[int], embed: int, phi: Any, sde: Any, predict: str) -> EnergyModel:
    return EnergyModel(MLP((dim, *hidden, 1), embed, phi), sde, data_std=1.7, predict=predict)
