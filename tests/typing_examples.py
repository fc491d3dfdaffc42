"""What a type checker refuses: `mypy tests/typing_examples.py` fails if any of these lines is accepted.

Nothing here is run. Each line is wrong in one argument, and says so; an ignore that is not needed is an error.
"""

import numpy as np

from refscore import DDIM, MLP, VP, Denoising, ExactScore, GaussianMixture, Langevin, ScoreModel, fit, simulate

x, rng = np.zeros((3, 2)), np.random.default_rng(0)
p = GaussianMixture(np.ones(1), np.zeros((1, 2)), np.ones(1))

GaussianMixture("weights", np.zeros((1, 2)), np.ones(1))  # type: ignore[arg-type]
GaussianMixture(np.ones(1), 3, np.ones(1))  # type: ignore[arg-type]
GaussianMixture(np.ones(1), np.zeros((1, 2)), None)  # type: ignore[arg-type]
p.score([1.0, 2.0])  # type: ignore[arg-type]
p.score(x, "noise")  # type: ignore[arg-type]
ExactScore(p, "vp")  # type: ignore[arg-type]
VP().alpha("0.5")  # type: ignore[arg-type]
Langevin("score", 0.1)  # type: ignore[arg-type]
Langevin(p, 0.1)  # type: ignore[arg-type]
DDIM(VP(), 3)  # type: ignore[arg-type]
simulate(DDIM(VP(), ExactScore(p, VP())), [1.0], [1.0, 0.5], rng)  # type: ignore[arg-type]
simulate(ExactScore(p, VP()), x, [1.0, 0.5], rng)  # type: ignore[arg-type]
fit(ScoreModel(MLP((2, 2)), VP()), Denoising(), x, 1e-3, rng, steps=1)  # type: ignore[arg-type]
fit(MLP((2, 2)), Denoising(), x, 1e-3, rng, steps=1)  # type: ignore[arg-type]

# And what it accepts: NumPy's arrays and numbers go in, and NumPy's functions take what comes out.
score = p.score(x, np.float64(0.5), 0.1)
np.exp(score)
score * 2 + x @ np.eye(2)
