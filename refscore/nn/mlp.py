"""MLP: dense layers and activations in a row; every hidden layer reads the noise level."""

from collections.abc import Sequence

from refscore.checks import check_count
from refscore.nn.activation import SiLU
from refscore.nn.dense import Dense
from refscore.nn.embed import Fourier
from refscore.nn.layer import Layer
from refscore.nn.net import Net, Row
from refscore.protocols import HasTangents


class MLP(Net):
    """Dense layers and activations in a row: h₀ = x,   h_l = φ(h_{l-1} W_l + e T_l + b_l),   y = h_L W + b.

    Initial weights have gain 1.68 = 1/√E SiLU(z)²: a layer and SiLU keep a mean square of 1 (with the noise
    level, whose share is as large, it grows slowly). The head has gain 0.1, so that the first outputs are small.

    Parameters
    ----------
    widths : sequence of int
        (n_in, hidden, ..., n_out), e.g. (2, 64, 64, 2).
    embed : int, default 0
        Number of Fourier features e of the noise level, even; 0 (default) for a network that does not read the level.
    activation : Layer, optional
        φ; SiLU() by default.

    Raises
    ------
    TypeError
        For an activation that is not a layer.
    ValueError
        For fewer than two widths, or widths or embed that their layers refuse.

    Examples
    --------
    >>> import math
    >>> from refscore import MLP
    >>> shapes = MLP((2, 64, 2), embed=8).shapes
    >>> shapes["dense1.W"], shapes["dense1.T"], shapes["head.W"]
    ((2, 64), (8, 64), (64, 2))
    >>> sum(math.prod(shape) for shape in shapes.values())  # (2 + 8 + 1) · 64 + (64 + 1) · 2 parameters
    834
    """

    def __init__(self, widths: Sequence[int], embed: int = 0, activation: Layer | None = None) -> None:
        if len(widths) < 2:
            raise ValueError(f"widths must name at least input and output, got {tuple(widths)}")
        if activation is not None and (isinstance(activation, type) or not isinstance(activation, HasTangents)):
            raise TypeError(f"activation must be a layer, SiLU(), Tanh() or Softplus(); got {activation!r}")
        embed = check_count("embed", embed, 0)
        rows: list[Row] = [("embed", Fourier(embed), ("level",))] if embed else []
        condition = ("embed",) if embed else ()
        h = "x"
        *hidden, n_out = widths[1:]
        n = widths[0]
        for l, n_next in enumerate(hidden, start=1):
            rows.append((f"dense{l}", Dense(n, n_next, embed, gain=1.68), (h, *condition)))
            rows.append((f"act{l}", activation or SiLU(), (f"dense{l}",)))
            h, n = f"act{l}", n_next
        rows.append(("head", Dense(n, n_out, gain=0.1), (h,)))
        super().__init__(tuple(rows))
        self.keep(widths=tuple(map(int, widths)), embed=embed, activation=activation or SiLU())
