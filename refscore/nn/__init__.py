"""Layers and networks with four hand-written passes each; see `refscore.nn.layer`."""

from collections.abc import Callable

from refscore.nn.activation import SiLU, Softplus, Tanh
from refscore.nn.add import Add
from refscore.nn.dense import Dense
from refscore.nn.embed import Fourier
from refscore.nn.energy_model import EnergyModel
from refscore.nn.layer import Layer
from refscore.nn.mlp import MLP
from refscore.nn.net import Net
from refscore.nn.score_model import ScoreModel

__all__ = [
    "LAYERS",
    "MLP",
    "Add",
    "Dense",
    "EnergyModel",
    "Fourier",
    "Layer",
    "Net",
    "ScoreModel",
    "SiLU",
    "Softplus",
    "Tanh",
]

# How to build each layer on n features: the derivative checker loops over this table.
LAYERS: dict[str, Callable[[int], Layer]] = {
    "dense": lambda n: Dense(n, n + 1),
    "dense-with-condition": lambda n: Dense(n, n + 1, n_cond=3),
    "add": lambda n: Add(),
    "silu": lambda n: SiLU(),
    "tanh": lambda n: Tanh(),
    "softplus": lambda n: Softplus(),
}
