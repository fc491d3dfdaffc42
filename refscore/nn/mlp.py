"""MLP: dense layers and activations in a row; every hidden layer reads the noise level."""

from collections.abc import Sequence

from refscore.checks import check_count, check_range
from refscore.nn.activation import chosen
from refscore.nn.add import Add
from refscore.nn.dense import Dense
from refscore.nn.dropout import Dropout, numbered
from refscore.nn.embed import Fourier, condition
from refscore.nn.layer import Layer, Row
from refscore.nn.net import Net

FEATURES = 16  # of a label or a vector, where there are none of the level to which they are added


class MLP(Net):
    """Dense layers and activations in a row: h₀ = x,   h_l = φ(h_{l-1} W_l + e T_l + b_l),   y = h_L W + b.

    Initial weights have gain 1.68 = 1/√E SiLU(z)²: SiLU and a layer keep a mean square of 1, Eq. (14.24) (beside the
    noise level, whose share is as large, it grows). The head has gain 0.1, so that the first outputs are small.
    A label's or a vector's features are learned, and added to those of the level: every hidden layer is told both.

    Parameters
    ----------
    widths : sequence of int
        (n_in, hidden, ..., n_out), e.g. (2, 64, 64, 2).
    embed : int, default 0
        Number of Fourier features e of the noise level, even; 0 (default) for a network that does not read the level.
    activation : Layer, optional
        φ; SiLU() by default.
    classes : int, default 0
        Number K of classes of an input "condition" of labels 0 ... K - 1, and K for no label; 0 (default) for none.
    n_condition : int, default 0
        Number of features of an input "condition" that is a vector; 0 (default) for none.
    dropout : float, default 0.0
        Rate at which features of the hidden layers are left out, by an input "uniform".

    Raises
    ------
    TypeError
        For an activation that is not a layer.
    ValueError
        For fewer than two widths, both kinds of condition, or numbers that the layers refuse.

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

    def __init__(
        self,
        widths: Sequence[int],
        embed: int = 0,
        activation: Layer | None = None,
        classes: int = 0,
        n_condition: int = 0,
        dropout: float = 0.0,
    ) -> None:
        if len(widths) < 2:
            raise ValueError(f"widths must name at least input and output, got {tuple(widths)}")
        phi, embed = chosen(activation), check_count("embed", embed, 0)
        rows: list[Row] = [("embed", Fourier(embed), ("level",))] if embed else []
        n_condition = check_count("n_condition", n_condition, 0)
        check_range(0.0, 1.0, dropout=dropout)
        told = condition(classes, n_condition, embed or FEATURES)
        rows += told
        if embed and told:
            rows.append(("e", Add(), ("embed", "told")))
        e, n_cond = (rows[-1][0],) if rows else (), (embed or FEATURES) if rows else 0
        h = "x"
        *hidden, n_out = widths[1:]
        n = widths[0]
        for l, n_next in enumerate(hidden, start=1):
            rows.append((f"dense{l}", Dense(n, n_next, n_cond, gain=1.68, learned=bool(told)), (h, *e)))
            rows.append((f"act{l}", phi, (f"dense{l}",)))
            h, n = f"act{l}", n_next
            if dropout:
                rows.append((f"drop{l}", Dropout(n, dropout), (h, "uniform")))
                h = f"drop{l}"
        rows.append(("head", Dense(n, n_out, gain=0.1), (h,)))
        super().__init__(numbered(rows))
        self.keep(
            widths=tuple(map(int, widths)), embed=embed, activation=phi, classes=classes, n_condition=n_condition,
            dropout=dropout,
        )  # fmt: skip
