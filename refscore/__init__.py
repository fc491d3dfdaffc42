"""Score-based generative models: a textbook that runs.

Everything a reader meets in the first chapters can be imported from here; the rest lives in the
module that its chapter names.
"""

from refscore.denoising import Denoising
from refscore.langevin import Langevin
from refscore.mixture import GaussianMixture
from refscore.nn import MLP, EnergyModel, ScoreModel
from refscore.objectives import Explicit, FiniteDifference, Implicit, Sliced
from refscore.optim import EMA, SGD, Adam
from refscore.reverse import ExactScore, Reverse
from refscore.samplers import AnnealedLangevin, EulerMaruyama, Heun
from refscore.sde import VE, VP, prior
from refscore.simulation import simulate, watch
from refscore.train import fit

__version__ = "0.1.0"

__all__ = [
    "EMA",
    "MLP",
    "SGD",
    "VE",
    "VP",
    "Adam",
    "AnnealedLangevin",
    "Denoising",
    "EnergyModel",
    "EulerMaruyama",
    "ExactScore",
    "Explicit",
    "FiniteDifference",
    "GaussianMixture",
    "Heun",
    "Implicit",
    "Langevin",
    "Reverse",
    "ScoreModel",
    "Sliced",
    "fit",
    "prior",
    "simulate",
    "watch",
]
