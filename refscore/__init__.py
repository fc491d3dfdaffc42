"""Score-based generative models: a textbook that runs.

The nouns and the two loops can be imported from here: `fit` trains, `simulate` walks steps. Grids, levels, distances
and experiments live in the modules that their chapters name.
"""

from refscore.laws.mixture import GaussianMixture
from refscore.likelihood.flow import log_likelihood
from refscore.matching.denoising import Denoising
from refscore.matching.objectives import Explicit, FiniteDifference, Implicit, Sliced
from refscore.nn import MLP, EnergyModel, ScoreModel, UNet
from refscore.noise.exact_score import ExactScore
from refscore.noise.interpolant import Rectified
from refscore.noise.prior import prior
from refscore.noise.reverse import Forward, Reverse
from refscore.noise.sde import OU, VE, VP, SubVP
from refscore.sampling.compose import AnnealedLangevin, First, Repeat, Stay, Then
from refscore.sampling.langevin import Langevin
from refscore.sampling.loop import last, simulate, watch
from refscore.sampling.solvers import EulerMaruyama, Heun, RungeKutta
from refscore.sampling.transitions import DDIM, EDM, Ancestral, DPMSolver, ReverseDiffusion
from refscore.training.checkpoint import load, save
from refscore.training.loop import fit
from refscore.training.optim import EMA, SGD, Adam

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
    "Rectified",
    "Repeat",
    "Reverse",
    "ReverseDiffusion",
    "RungeKutta",
    "ScoreModel",
    "Sliced",
    "Stay",
    "SubVP",
    "Then",
    "UNet",
    "fit",
    "last",
    "load",
    "log_likelihood",
    "prior",
    "save",
    "simulate",
    "watch",
]
