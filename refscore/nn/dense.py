"""Dense: the affine map, with a second input for the noise level."""

from dataclasses import dataclass
from typing import Any

from array_api_compat import array_namespace

from refscore.arrays import Array, Params, Rng
from refscore.nn.layer import Adjoints, Grads, plus, rows, sum_to


@dataclass(frozen=True)
class Dense:
    """Affine map y = x W + e T + b on the last axis; without n_cond just y = x W + b.

    e is the embedding of the noise level, (B, n_cond), or (1, n_cond) when all samples share one
    level. The map is linear in (x, e), so the tangent pass is the same product without b, and the
    transposes are products with Wᵀ and Tᵀ. Every axis before the last is a batch axis, so a stack
    of K tangents (K, B, n_in) needs no code of its own.

    Raises
    ------
    ValueError
        When built with n_in < 1, n_out < 1 or n_cond < 0.
    """

    n_in: int
    n_out: int
    n_cond: int = 0

    def __post_init__(self) -> None:
        if min(self.n_in, self.n_out) < 1 or self.n_cond < 0:
            raise ValueError(f"{self}: n_in and n_out must be at least 1, n_cond at least 0")

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """W (n_in, n_out), T (n_cond, n_out) where there is a condition, b (n_out,)."""
        cond = {"T": (self.n_cond, self.n_out)} if self.n_cond else {}
        return {"W": (self.n_in, self.n_out), **cond, "b": (self.n_out,)}

    def init(self, rng: Rng, dtype: Any = "float32") -> Grads:
        """W ~ N(0, 1/n_in), T ~ N(0, 1/n_cond), b = 0: unit-variance inputs stay of unit order."""
        params = {
            name: rng.standard_normal(shape, dtype=dtype) * shape[0] ** -0.5
            for name, shape in self.shapes.items()
            if name != "b"
        }
        params["b"] = 0 * params["W"][0, :]
        return params

    def forward(self, params: Params, *xs: Array) -> tuple[Array, Any]:
        """x (..., n_in), e (B or 1, n_cond) -> y (..., n_out), and the cache: the inputs."""
        y = xs[0] @ params["W"]
        y += params["b"] if len(xs) == 1 else xs[1] @ params["T"] + params["b"]
        return y, xs

    def backward(self, params: Params, cache: Any, dy: Array) -> tuple[Adjoints, Grads]:
        """dx = dy Wᵀ, dW = xᵀ dy, db = Σ dy; de and dT alike."""
        dxs, grads = self._transpose(params, cache, dy)
        grads["b"] = array_namespace(dy).sum(rows(dy), axis=0)
        return dxs, grads

    def jvp(self, params: Params, cache: Any, *xdots: Array | None) -> tuple[Array | None, Any]:
        """ẏ = ẋ W + ė T; the tape: the tangents."""
        terms = [xdot @ params[name] for name, xdot in zip("WT", xdots, strict=False) if xdot is not None]
        return (sum(terms[1:], terms[0]) if terms else None), xdots

    def jvp_backward(
        self, params: Params, cache: Any, tape: Any, dy: Array | None, dydot: Array
    ) -> tuple[Adjoints, Adjoints, Grads]:
        """No curvature, so it is the transpose twice; b does not reach ẏ."""
        dxs, grads = self.backward(params, cache, dy) if dy is not None else ((None,) * len(cache), {})
        dxdots, tangent_grads = self._transpose(params, tape, dydot)
        for name, grad in tangent_grads.items():
            grads[name] = plus(grads.get(name), grad)
        return dxs, dxdots, {name: grads.get(name, 0 * params[name]) for name in self.shapes}

    def _transpose(self, params: Params, xs: Any, dy: Array) -> tuple[Adjoints, Grads]:
        """The transpose of x W + e T, in the inputs that are there and in W and T."""
        xp = array_namespace(dy)
        dxs: list[Array | None] = []
        grads: Grads = {}
        for name, x in zip("WT", xs, strict=False):
            if x is None:
                dxs.append(None)
                continue
            dz = sum_to(dy, (*x.shape[:-1], self.n_out))
            dxs.append(dz @ xp.matrix_transpose(params[name]))
            grads[name] = xp.matrix_transpose(rows(x)) @ rows(dz)
        return tuple(dxs), grads
