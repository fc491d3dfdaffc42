"""Score-based generative models: a textbook that runs.

The nouns and the two loops can be imported from here: `fit` trains, `simulate` walks steps. Grids, levels, distances
and experiments live in the modules that their chapters name.
"""

from refscore.denoising import Denoising
from refscore.langevin import Langevin
from refscore.likelihood import log_likelihood
from refscore.mixture import GaussianMixture
from refscore.nn import MLP, EnergyModel, ScoreModel
from refscore.objectives import Explicit, FiniteDifference, Implicit, Sliced
from refscore.optim import EMA, SGD, Adam
from refscore.reverse import ExactScore, Forward, Reverse
from refscore.samplers import AnnealedLangevin, EulerMaruyama, First, Heun, Repeat, RungeKutta, Stay, Then
from refscore.sde import OU, VE, VP, SubVP, prior
from refscore.simulation import simulate, watch
from refscore.train import fit
from refscore.transitions import DDIM, EDM, Ancestral, DPMSolver, ReverseDiffusion

__version__ = "0.1.0"

__all__ = [
    "DDIM",
    "EDM",
    "EMA",
    "MLP",
    "OU",
    "SGD",
    "VE",
    "VP",
    "Adam",
    "Ancestral",
    "AnnealedLangevin",
    "DPMSolver",
    "Denoising",
    "EnergyModel",
    "EulerMaruyama",
    "ExactScore",
    "Explicit",
    "FiniteDifference",
    "First",
    "Forward",
    "GaussianMixture",
    "Heun",
    "Implicit",
    "Langevin",
    "Repeat",
    "Reverse",
    "ReverseDiffusion",
    "RungeKutta",
    "ScoreModel",
    "Sliced",
    "Stay",
    "SubVP",
    "Then",
    "fit",
    "log_likelihood",
    "prior",
    "simulate",
    "watch",
]
