"""UNet: down, across, up, as a list of rows. Chapter 14.                                    Ronneberger et al. 2015."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd

from refscore.checks import check_count, check_range
from refscore.nn.activation import chosen
from refscore.nn.add import Add
from refscore.nn.attention import Attention
from refscore.nn.conv import Conv
from refscore.nn.dense import Dense
from refscore.nn.dropout import Dropout, numbered
from refscore.nn.embed import Fourier, condition
from refscore.nn.layer import Layer, Row
from refscore.nn.linear import AvgPool, Concat, Inside, Outside, Total, Upsample
from refscore.nn.net import Net
from refscore.nn.norm import GroupNorm, ScaleShift

GAIN = 1.68  # 1/√E SiLU(z)²: a layer after it keeps the mean square, Eq. (14.24)
SMALL = 0.1  # gain of the last layer of each branch, and of the net: at the start a block is nearly the identity


class UNet(Net):
    """Images at several resolutions: halved on the way down, doubled on the way up, where each meets itself again.

        block(x)   x + conv(φ(norm(conv(φ(norm x)) + e T)))
        down       at each level some blocks, then means of 2 x 2 pixels
        up         at each level some blocks, above the lowest after doubling, beside what was there on the way down

    e, of `cond` features, is made of the noise level, and of a label or a vector where there is a condition. Images
    may have any size: an odd row or column is halved by itself, and what is doubled is cut to the size it had.

    Parameters
    ----------
    channels : int
        Number of channels of the images (B, H, W, channels).
    widths : sequence of int, default (32, 64, 64)
        Number of channels at each level, the finest first.
    blocks : int, default 1
        Residual blocks at each level and direction.
    attention : sequence of int, default (-1,)
        Levels with attention after each block, 0 the finest, -1 the lowest; () for none. At the lowest it stands
        in the middle of the net, after the blocks of the way down.
    heads : int, default 1
        Heads of the attention; they divide the widths of its levels.
    embed : int, default 64
        Number of Fourier features of the noise level, even; 0 for a network that does not read the level.
    cond : int, default 128
        Number of features of e.
    groups : int, default 8
        Groups of the norms; where they do not divide the channels, the greatest number that divides both. Where the
        lowest level has one pixel take fewer groups than channels: of one number a norm leaves nothing.
    classes : int, default 0
        Number K of classes of an input "condition" of labels 0 ... K - 1, and K for no label; 0 (default) for none.
    n_condition : int, default 0
        Number of features of an input "condition" that is a vector; 0 (default) for none.
    dropout : float, default 0.0
        Rate at which channels are left out before the second convolution of each block, by an input "uniform".
    scale_shift : bool, default False
        Whether e scales and shifts the second norm of each block, instead of being added before it.
    energy : bool, default False
        Whether to answer with one number an image, (B, 1), for an `EnergyModel`, instead of an image.
    activation : Layer, optional
        φ; SiLU() by default.

    Raises
    ------
    TypeError
        For an activation that is not a layer.
    ValueError
        For no widths, attention at a level that is not there, both kinds of condition, or numbers that the layers
        refuse.

    Examples
    --------
    >>> import numpy as np
    >>> from refscore import UNet
    >>> net = UNet(1, (8, 16), embed=8, cond=16)
    >>> params = net.init(np.random.default_rng(0), "float64")
    >>> x, level = np.zeros((2, 7, 9, 1)), np.zeros(2)  # two images of 7 x 9 pixels
    >>> net.apply(params, x, level).shape
    (2, 7, 9, 1)
    """

    def __init__(
        self,
        channels: int,
        widths: Sequence[int] = (32, 64, 64),
        *,
        blocks: int = 1,
        attention: Sequence[int] = (-1,),
        heads: int = 1,
        embed: int = 64,
        cond: int = 128,
        groups: int = 8,
        classes: int = 0,
        n_condition: int = 0,
        dropout: float = 0.0,
        scale_shift: bool = False,
        energy: bool = False,
        activation: Layer | None = None,
    ) -> None:
        widths, blocks, groups = tuple(widths), check_count("blocks", blocks), check_count("groups", groups)
        if not widths:
            raise ValueError("widths must name the channels of at least one level")
        last = len(widths) - 1
        if wrong := [l for l in attention if not -last - 1 <= l <= last]:
            raise ValueError(f"attention at levels {wrong}, of {last + 1}: they are 0 to {last}, or -1 for the lowest")
        if wrong := sorted({widths[l] for l in attention if widths[l] % check_count("heads", heads)}):
            raise ValueError(f"{heads} heads do not divide the {wrong[0]} channels of a level with attention")
        looks, phi = {l % (last + 1) for l in attention}, chosen(activation)
        n_condition = check_count("n_condition", n_condition, 0)
        check_range(0.0, 1.0, dropout=dropout)
        rows = _embedding(embed, cond, classes, n_condition, phi)
        block = _Block(phi, cond if rows else 0, groups, heads, dropout, scale_shift)

        rows += [("inside", Inside(), ("x",)), ("first", Conv(channels, widths[0]), ("inside",))]
        h, n, kept = "first", widths[0], []
        for l, width in enumerate(widths):
            for i in range(blocks):
                rows += block.rows(f"down{l}.{i}", h, n, width, l in looks)
                h, n = f"down{l}.{i}", width
            kept.append((h, n))
            if l < last:
                rows.append((f"pool{l}", AvgPool(), (h,)))
                h = f"pool{l}"
        for l in reversed(range(last + 1)):
            if l < last:
                skip, m = kept[l]
                rows += [(f"double{l}", Upsample(), (h, skip)), (f"beside{l}", Concat(), (f"double{l}", skip))]
                h, n = f"beside{l}", n + m
            for i in range(blocks):
                rows += block.rows(f"up{l}.{i}", h, n, widths[l], l in looks and l < last)
                h, n = f"up{l}.{i}", widths[l]
        rows += [("norm", block.norm(n), (h,)), ("act", phi, ("norm",))]
        if energy:
            rows += [("total", Total(), ("act",)), ("head", Dense(n, 1, gain=SMALL), ("total",))]
        else:
            rows += [("last", Conv(n, channels, gain=SMALL), ("act",)), ("outside", Outside(), ("last",))]
        super().__init__(numbered(rows))
        self.keep(
            channels=channels, widths=widths, blocks=blocks, attention=tuple(attention), heads=heads, embed=embed,
            cond=cond, groups=groups, classes=classes, n_condition=n_condition, dropout=dropout,
            scale_shift=scale_shift, energy=energy, activation=phi,
        )  # fmt: skip


def _embedding(embed: int, cond: int, classes: int, n_condition: int, phi: Layer) -> list[Row]:
    """Rows that make e of the level and of the condition, the last called "e"; none where neither is read."""
    rows: list[Row] = []
    parts = []
    if check_count("embed", embed, 0):
        rows += [
            ("fourier", Fourier(embed), ("level",)),
            ("level1", Dense(embed, cond, gain=GAIN), ("fourier",)),
            ("level1act", phi, ("level1",)),
            ("level2", Dense(cond, cond), ("level1act",)),
        ]
        parts.append("level2")
    if told := condition(classes, n_condition, cond):
        rows += told
        parts.append("told")
    if len(parts) == 2:
        rows.append(("sum", Add(), tuple(parts)))
    return [*rows, ("e", phi, (rows[-1][0],))] if rows else []


@dataclass(frozen=True)
class _Block:
    """What the residual blocks of one net have in common."""

    phi: Layer
    cond: int
    groups: int
    heads: int
    dropout: float
    scale_shift: bool

    def rows(self, name: str, x: str, n_in: int, n_out: int, looks: bool) -> list[Row]:
        """Rows of one block with inputs x and e; the last is called `name`."""
        scales = self.scale_shift and self.cond > 0
        e = ("e",) if self.cond and not scales else ()
        rows: list[Row] = [
            (f"{name}.norm1", self.norm(n_in), (x,)),
            (f"{name}.act1", self.phi, (f"{name}.norm1",)),
            (f"{name}.conv1", Conv(n_in, n_out, n_cond=self.cond if e else 0), (f"{name}.act1", *e)),
            (f"{name}.norm2", self.norm(n_out), (f"{name}.conv1",)),
        ]
        if scales:
            rows += [
                (f"{name}.told", Dense(self.cond, 2 * n_out, gain=SMALL), ("e",)),
                (f"{name}.scaled", ScaleShift(), (rows[-1][0], f"{name}.told")),
            ]
        rows.append((f"{name}.act2", self.phi, (rows[-1][0],)))
        if self.dropout:
            rows.append((f"{name}.drop", Dropout(n_out, self.dropout), (f"{name}.act2", "uniform")))
        rows.append((f"{name}.conv2", Conv(n_out, n_out, gain=SMALL), (rows[-1][0],)))
        if n_in != n_out:
            rows.append((f"{name}.skip", Conv(n_in, n_out, kernel=1), (x,)))
            x = f"{name}.skip"
        if not looks:
            return [*rows, (name, Add(), (x, f"{name}.conv2"))]
        return [
            *rows,
            (f"{name}.sum", Add(), (x, f"{name}.conv2")),
            (f"{name}.norm3", self.norm(n_out), (f"{name}.sum",)),
            (f"{name}.qkv", Conv(n_out, 3 * n_out, kernel=1), (f"{name}.norm3",)),
            (f"{name}.attention", Attention(self.heads), (f"{name}.qkv",)),
            (f"{name}.out", Conv(n_out, n_out, kernel=1, gain=SMALL), (f"{name}.attention",)),
            (name, Add(), (f"{name}.sum", f"{name}.out")),
        ]

    def norm(self, n: int) -> GroupNorm:
        """As many groups as there can be."""
        return GroupNorm(n, gcd(self.groups, n))
