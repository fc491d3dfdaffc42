"""Layers and networks with four hand-written passes each; see `refscore.nn.layer`."""

from collections.abc import Callable

from refscore.nn.activation import ELU, GELU, SiLU, Softplus, Tanh
from refscore.nn.add import Add
from refscore.nn.attention import Attention
from refscore.nn.conv import Conv
from refscore.nn.dense import Dense
from refscore.nn.dropout import Dropout
from refscore.nn.embed import Fourier, Labels
from refscore.nn.energy_model import EnergyModel
from refscore.nn.layer import Layer
from refscore.nn.linear import AvgPool, Concat, Inside, Outside, Reshape, Total, Upsample
from refscore.nn.mlp import MLP
from refscore.nn.net import Net
from refscore.nn.norm import GroupNorm, InstanceNorm, LayerNorm, ScaleShift
from refscore.nn.score_model import ScoreModel
from refscore.nn.softmax import Softmax
from refscore.nn.unet import UNet

__all__ = [
    "ELU",
    "GELU",
    "LAYERS",
    "MLP",
    "Add",
    "Attention",
    "AvgPool",
    "Concat",
    "Conv",
    "Dense",
    "Dropout",
    "EnergyModel",
    "Fourier",
    "GroupNorm",
    "Inside",
    "InstanceNorm",
    "Labels",
    "Layer",
    "LayerNorm",
    "Net",
    "Outside",
    "Reshape",
    "ScaleShift",
    "ScoreModel",
    "SiLU",
    "Softmax",
    "Softplus",
    "Tanh",
    "Total",
    "UNet",
    "Upsample",
]

# How to build each layer on n features: the derivative checker loops over this table.
LAYERS: dict[str, Callable[[int], Layer]] = {
    "dense": lambda n: Dense(n, n + 1),
    "dense-with-condition": lambda n: Dense(n, n + 1, n_cond=3),
    "dense-with-learned-condition": lambda n: Dense(n, n + 1, n_cond=3, learned=True),
    "add": lambda n: Add(),
    "silu": lambda n: SiLU(),
    "tanh": lambda n: Tanh(),
    "softplus": lambda n: Softplus(),
    "gelu": lambda n: GELU(),
    "elu": lambda n: ELU(),
    "softmax": lambda n: Softmax(),
    "dropout": lambda n: Dropout(n, 0.4, offset=1),
    "concat": lambda n: Concat(),
    "reshape": lambda n: Reshape((n, 2), (2, n, 1)),
    "conv": lambda n: Conv(n, n + 1),
    "conv-fast": lambda n: Conv(n + 7, n + 7),
    "conv-to-few": lambda n: Conv(n + 7, n),
    "conv-with-condition": lambda n: Conv(n, n + 1, n_cond=3),
    "conv-pointwise": lambda n: Conv(n, n + 1, kernel=1),
    "conv-strided": lambda n: Conv(n, n + 1, stride=2),
    "conv-dilated": lambda n: Conv(n, n + 1, dilation=2),
    "conv-grouped": lambda n: Conv(2 * n, 4, groups=2, stride=2),
    "group-norm": lambda n: GroupNorm(2 * n, groups=2, eps=0.1),  # where few numbers are nearly equal,
    "layer-norm": lambda n: LayerNorm(n + 1, eps=0.1),  # a small eps makes fifth derivatives of 1e10, in which
    "instance-norm": lambda n: InstanceNorm(n, eps=0.1),  # differences of finite step are lost
    "scale-shift": lambda n: ScaleShift(),
    "attention": lambda n: Attention(),
    "attention-with-heads": lambda n: Attention(heads=2),
    "inside": lambda n: Inside(),
    "outside": lambda n: Outside(),
    "avg-pool": lambda n: AvgPool(),
    "upsample": lambda n: Upsample(),
    "total": lambda n: Total(),
}
