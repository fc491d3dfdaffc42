"""Dense: the affine map, with a second input for the noise level."""

from dataclasses import dataclass
from typing import Any

from refscore.arrays import constant
from refscore.checks import check_like, check_positive, settle
from refscore.library import array_namespace
from refscore.nn.layer import Adjoints, Grads, Jet, rows, sum_to, without_tangent, zeros
from refscore.protocols import Array, Params, Rng


@dataclass(frozen=True)
class Dense:
    """Affine map y = x W + e T + b on the last axis; without n_cond just y = x W + b.            Eqs. (14.6), (14.7).

    e embeds the noise level, (B, n_cond), or (1, n_cond) when all samples share one level. It does not
    depend on x, so it has no tangent; its adjoint goes on where e is learned, and is not computed otherwise.
    The map is linear in x, so the tangent pass is the same product without e and b, and the transpose a
    product with Wᵀ. Every axis before the last is a batch axis, so a stack of K tangents (K, B, n_in) needs
    no code of its own.

    Parameters
    ----------
    n_in : int
        Number of input features, the last axis of x.
    n_out : int
        Number of output features, the last axis of y.
    n_cond : int, default 0
        Number of features of the noise level e; 0 (default) for a layer without that second input.
    gain : float, default 1.0
        Standard deviation that initial W and T each give to outputs of unit-variance inputs.
    learned : bool, default False
        Whether e depends on parameters, so that its adjoint is wanted: de = dy Tᵀ.

    Raises
    ------
    ValueError
        When built with n_in < 1, n_out < 1, n_cond < 0, or a gain that is not positive.

    Examples
    --------
    >>> import numpy as np
    >>> from refscore.nn import Dense
    >>> params = {"W": np.array([[2.0], [3.0]]), "b": np.array([1.0])}
    >>> y, cache = Dense(2, 1).forward(params, np.array([[10.0, 100.0]]))
    >>> y  # 2 · 10 + 3 · 100 + 1
    array([[321.]])
    """

    n_in: int
    n_out: int
    n_cond: int = 0
    gain: float = 1.0
    learned: bool = False

    def __post_init__(self) -> None:
        settle(self, n_in=1, n_out=1, n_cond=0)
        check_positive(gain=self.gain)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the parameters: W (n_in, n_out), T (n_cond, n_out) where there is a condition, b (n_out,)."""
        cond = {"T": (self.n_cond, self.n_out)} if self.n_cond else {}
        return {"W": (self.n_in, self.n_out), **cond, "b": (self.n_out,)}

    def init(self, rng: Rng, dtype: Any = "float32") -> Grads:
        """Draw W ~ N(0, gain²/n_in) and T ~ N(0, gain²/n_cond), and set b = 0."""
        check_like(rng=rng)
        params = {
            name: rng.standard_normal(shape, dtype=dtype) * (self.gain * shape[0] ** -0.5)
            for name, shape in self.shapes.items()
            if name != "b"
        }
        params["b"] = constant(0.0, params["W"][0, :])
        return params

    def forward(self, params: Params, *xs: Array) -> tuple[Array, Any]:
        """x (..., n_in), e (B or 1, n_cond) -> y (..., n_out), and the cache: the inputs.

        Raises
        ------
        ValueError
            For an x or e whose shape does not fit.
        """
        if xs[0].shape[-1:] != (self.n_in,) or (xs[-1].ndim != xs[0].ndim and xs[-1].shape[0] != 1):
            wanted = f"x (..., {self.n_in})" + f" and e of as many axes, (..., {self.n_cond})" * (len(xs) > 1)
            raise ValueError(f"{self} takes {wanted}; got {', '.join(str(tuple(x.shape)) for x in xs)}")
        y = xs[0] @ params["W"]
        y += params["b"] if len(xs) == 1 else xs[1] @ params["T"] + params["b"]
        return y, xs

    def backward(self, params: Params, cache: Any, dy: Array) -> tuple[Adjoints, Grads]:
        """Adjoints and gradients: dx = dy Wᵀ, dW = xᵀ dy, dT = eᵀ dy, db = Σ dy; de = dy Tᵀ where e is learned."""
        xp = array_namespace(dy)
        x, *condition = cache
        grads = {"W": xp.matrix_transpose(rows(x)) @ rows(dy), "b": xp.sum(rows(dy), axis=0)}
        if condition:
            (e,) = condition
            total = sum_to(dy, (*e.shape[:-1], self.n_out))
            grads["T"] = xp.matrix_transpose(e) @ total
            de = total @ xp.matrix_transpose(params["T"]) if self.learned else None
            return (dy @ xp.matrix_transpose(params["W"]), de), grads
        return (dy @ xp.matrix_transpose(params["W"]),), grads

    def jvp(self, params: Params, cache: Any, *xdots: Array | None) -> tuple[Array | None, Any]:
        """Tangents of the output, ẏ = ẋ W (K, ..., n_out); the tape keeps ẋ."""
        without_tangent(self, *xdots[1:])
        return (None if xdots[0] is None else xdots[0] @ params["W"]), xdots[0]

    def jvp_backward(
        self, params: Params, cache: Any, tape: Any, dy: Array | None, dydot: Array
    ) -> tuple[Adjoints, Adjoints, Grads]:
        """Adjoints of x and ẋ: the transpose twice, in (x, dy) and in (ẋ, dẏ); e and b do not reach ẏ."""
        xp = array_namespace(dydot)
        none: Adjoints = (None,) * len(cache)
        if dy is None:
            dxs, grads = none, zeros(params, self.shapes)
        else:
            dxs, grads = self.backward(params, cache, dy)
        grads["W"] = grads["W"] + xp.matrix_transpose(rows(tape)) @ rows(dydot)
        return dxs, (dydot @ xp.matrix_transpose(params["W"]), *none[1:]), grads

    def jet(self, params: Params, cache: Any, us: Adjoints, vs: Adjoints, ws: Adjoints) -> tuple[Jet, Any]:
        """Second-order tangents: u W, v W, w W; the tape keeps u, v, w."""
        tangents = us[0], vs[0], ws[0]
        u, v, w = (None if a is None else a @ params["W"] for a in tangents)
        return (u, v, w), tangents

    def jet_backward(
        self, params: Params, cache: Any, tape: Any, dy: Array | None, djet: Jet
    ) -> tuple[Adjoints, tuple[Adjoints, Adjoints, Adjoints], Grads]:
        """Adjoints of x, u, v, w: no curvature, so the transpose once for each."""
        xp = array_namespace(params["W"])
        none: Adjoints = (None,) * len(cache)
        if dy is None:
            dxs, grads = none, zeros(params, self.shapes)
        else:
            dxs, grads = self.backward(params, cache, dy)
        for a, da in zip(tape, djet, strict=True):
            if a is not None and da is not None:
                grads["W"] = grads["W"] + xp.matrix_transpose(rows(a)) @ rows(da)
        du, dv, dw = ((None if da is None else da @ xp.matrix_transpose(params["W"]), *none[1:]) for da in djet)
        return dxs, (du, dv, dw), grads
