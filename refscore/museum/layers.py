"""Layers with backward passes by hand, as courses write them; and what people wrote instead. Chapter 17.

A specimen returns (forward, backward); SIZES makes its inputs.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from refscore.museum.mistake import Mistake


def dense() -> Any:
    """y = x W + b."""

    def forward(x: Any, W: Any, b: Any) -> Any:
        return x @ W + b, (x, W)

    def backward(dy: Any, cache: Any) -> Any:
        x, W = cache
        dx = dy @ W.T
        dW = x.T @ dy
        db = dy.sum(axis=0)
        return dx, dW, db

    return forward, backward


def tanh() -> Any:
    """y = tanh x."""

    def forward(x: Any) -> Any:
        y = np.tanh(x)
        return y, y

    def backward(dy: Any, y: Any) -> Any:
        return dy * (1 - y**2)

    return forward, backward


def silu() -> Any:
    """y = x s, s the logistic function of x."""

    def forward(x: Any) -> Any:
        s = 1 / (1 + np.exp(-x))
        return x * s, (x, s)

    def backward(dy: Any, cache: Any) -> Any:
        x, s = cache
        return dy * (s + x * s * (1 - s))

    return forward, backward


def layer_norm() -> Any:
    """y = γ (x - mean)/std + β, each row by itself."""

    def forward(x: Any, gamma: Any, beta: Any) -> Any:
        c = x - x.mean(axis=1, keepdims=True)
        r = np.sqrt((c * c).mean(axis=1, keepdims=True))
        n = c / r
        return gamma * n + beta, (n, r, gamma)

    def backward(dy: Any, cache: Any) -> Any:
        n, r, gamma = cache
        dn = dy * gamma
        mean, along = dn.mean(axis=1, keepdims=True), (dn * n).mean(axis=1, keepdims=True)
        dx = (dn - mean - n * along) / r
        return dx, (dy * n).sum(axis=0), dy.sum(axis=0)

    return forward, backward


def softmax() -> Any:
    """Softmax over the last axis."""

    def forward(x: Any) -> Any:
        e = np.exp(x - x[:, :1])
        y = e / e.sum(axis=1, keepdims=True)
        return y, y

    def backward(dy: Any, y: Any) -> Any:
        inner = (dy * y).sum(axis=1, keepdims=True)
        return y * (dy - inner)

    return forward, backward


def residual() -> Any:
    """y = x + tanh(x W)."""

    def forward(x: Any, W: Any) -> Any:
        h = np.tanh(x @ W)
        return x + h, (x, W, h)

    def backward(dy: Any, cache: Any) -> Any:
        x, W, h = cache
        da = dy * (1 - h**2)
        return dy + da @ W.T, x.T @ da

    return forward, backward


def convolution() -> Any:
    """y_i = Σ_j x_{i + j} k_j, each row by itself, no padding."""

    def forward(x: Any, k: Any) -> Any:
        n = x.shape[1] - k.size + 1
        y = sum(x[:, j : j + n] * k[j] for j in range(k.size))
        return y, (x, k, n)

    def backward(dy: Any, cache: Any) -> Any:
        x, k, n = cache
        dx = np.zeros_like(x)
        for j in range(k.size):
            dx[:, j : j + n] += dy * k[j]
        dk = np.array([np.sum(x[:, j : j + n] * dy) for j in range(k.size)])
        return dx, dk

    return forward, backward


def sizes(specimen: Any, seed: int = 0) -> Any:
    """Return the maker of a specimen's inputs, of two sizes; a dense layer is square here.

    Parameters
    ----------
    specimen : callable
        One of `SPECIMENS`.
    seed : int, default 0
        Of the numbers.

    Returns
    -------
    callable (batch, width) -> tuple of arrays
        For `refscore.clinic.derivatives`.
    """

    def draw(*shapes: tuple[int, ...]) -> tuple[Any, ...]:
        rng = np.random.default_rng(seed)
        return tuple(rng.standard_normal(shape) for shape in shapes)

    return {
        "dense": lambda batch, width: draw((batch, width), (width, width), (width,)),
        "layer_norm": lambda batch, width: draw((batch, width + 1), (width + 1,), (width + 1,)),
        "residual": lambda batch, width: draw((batch, width), (width, width)),
        "convolution": lambda batch, width: draw((batch, 2 * width), (width,)),
    }.get(specimen.__name__, lambda batch, width: draw((batch, width)))


SPECIMENS = (dense, tanh, silu, layer_norm, softmax, residual, convolution)

MISTAKES = (
    Mistake(
        "other-not-transposed",
        "layer",
        "dx = dy @ W.T",
        "dx = dy @ W",
        "dx lacks the transpose of W",
        "crashes unless W is square; there it trains, badly",
        "textbook",
    ),
    Mistake(
        "transposed",
        "layer",
        "dW = x.T @ dy",
        "dW = dy.T @ x",
        "dW is transposed",
        "crashes unless W is square; there it trains, badly",
        "textbook",
    ),
    Mistake(
        "mean-over-the-batch",
        "layer",
        "db = dy.sum(axis=0)",
        "db = dy.mean(axis=0)",
        "the bias has the mean over the batch, the weights the sum",
        "biases learn slower, the more the larger the batch",
        "textbook",
    ),
    Mistake(
        "not-summed-over-the-batch",
        "layer",
        "db = dy.sum(axis=0)",
        "db = dy",
        "the bias gradient is not summed over the batch",
        "the bias silently becomes (B, n) in the first update",
        "pytorch#4938",
    ),
    Mistake(
        "slope-of-something-else",
        "layer",
        "dy * (1 - y**2)",
        "dy * (1 - y)",
        "the slope of tanh lacks the square",
        "trains, badly",
        "textbook",
        only=("tanh",),
    ),
    Mistake(
        "sign-flipped",
        "layer",
        "dy * (1 - y**2)",
        "dy * (y**2 - 1)",
        "the slope has the wrong sign",
        "the loss rises",
        "textbook",
        only=("tanh",),
    ),
    Mistake(
        "slope-missing",
        "layer",
        "return dy * (1 - y**2)",
        "return dy",
        "the slope of the activation is missing",
        "trains, badly",
        "numpy-ml, FullyConnected._bwd2",
        only=("tanh",),
    ),
    Mistake(
        "not-the-gradient",
        "layer",
        "s + x * s * (1 - s)",
        "x * s * (1 - s)",
        "the product rule lacks a term",
        "trains, badly",
        "textbook",
    ),
    Mistake(
        "shift-term-missing",
        "layer",
        "dn - mean - n * along",
        "dn - n * along",
        "the mean's own dependence on x is dropped",
        "trains; deep networks drift",
        "karpathy/llm.c, doc/layernorm",
    ),
    Mistake(
        "scale-term-missing",
        "layer",
        "dn - mean - n * along",
        "dn - mean",
        "the deviation's own dependence on x is dropped",
        "trains; deep networks drift",
        "karpathy/llm.c, doc/layernorm",
    ),
    Mistake(
        "shift-term-missing",
        "layer",
        "y * (dy - inner)",
        "y * dy * (1 - y)",
        "the diagonal of the Jacobian alone: a logistic's slope",
        "attention trains, badly",
        "textbook",
    ),
    Mistake(
        "skip-branch-missing",
        "layer",
        "return dy + da @ W.T",
        "return da @ W.T",
        "the branch that skips the layer has no gradient",
        "deep networks do not learn",
        "textbook",
    ),
    Mistake(
        "writes-into-its-argument",
        "layer",
        "da = dy * (1 - h**2)",
        "da = dy; da *= 1 - h**2",
        "backward changes dy, which others use",
        "right alone, wrong beside a second branch",
        "textbook",
    ),
    Mistake(
        "kernel-not-flipped",
        "layer",
        "dy * k[j]",
        "dy * k[k.size - 1 - j]",
        "dx is the same correlation, and not its transpose",
        "trains, badly",
        "textbook",
    ),
    Mistake(
        "flipped",
        "layer",
        "for j in range(k.size)])",
        "for j in range(k.size)][::-1])",
        "dk is in reverse order",
        "filters never form",
        "textbook",
    ),
)

# ------------------------------------------------------------------ what slips make of a gradient


def slips(s: Any, gradient: Any, name: str, found: Any, exact: Any, dy: Any, y: Any) -> list[tuple[str, str, Any]]:
    """What people write in place of a gradient; `s` is a `Subject`, `gradient` (s, dy) its exact gradients."""
    batch = y.shape[0] if y.ndim else 1
    guesses = [
        ("sign-flipped", "the sign is wrong", -exact),
        ("transposed", "it is transposed", exact.T),
        ("flipped", "it is in reverse order along the last axis", exact[..., ::-1] if exact.ndim else exact),
        ("mean-over-the-batch", f"it is divided by the batch, {batch}", exact / batch),
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
        slope = {
            "1": np.ones_like(y),
            "1 - y": 1 - y,
            "1 - x²": 1 - x**2,
            "x (1 - x)": x * (1 - x),
            "y": y,
            "x": x,
            "y > 0": y > 0,
            "x > 0": x > 0,
            "dy > 0": dy > 0,
        }
        for what, u in slope.items():
            n = "slope-missing" if what == "1" else "slope-of-something-else"
            guesses.append((n, f"it is dy times {what}", dy * u))
        guesses.append(
            ("skip-branch-missing", "the gradient of the branch that skips the layer is missing", exact - dy)
        )
    for i, other in enumerate(() if name.startswith("tangent") else s.xs):
        square, long = other.shape[-1:] * 2 == other.shape, other.shape[-1:] > (1,)
        for n, says, turned in (
            ("other-not-transposed", "the other factor is not transposed", other.T if square else None),
            ("kernel-not-flipped", "the other factor is flipped on its last axis", other[..., ::-1] if long else None),
        ):
            if turned is not None and name != f"input {i}":
                xs = tuple(turned if j == i else x for j, x in enumerate(s.xs))
                guesses.append((n, says, gradient(replace(s, xs=xs), dy)[0][name]))
    return guesses
