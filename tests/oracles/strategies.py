"""Mixtures, SDEs and points inside the promised domain, drawn by Hypothesis.

Drawn through a seed and a few sizes: raw floats() would spend the search on 5e-324 and 1.8e308,
that is on the domain check. Out-of-domain values have tests of their own.
"""

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from refscore import OU, VE, VP, GaussianMixture, SubVP
from refscore.noise.interpolant import Rectified
from refscore.noise.sde import CosineVP, LinearVE
from refscore.protocols import Time

KINDS = ("full", "diagonal", "isotropic")


def random_mixture(
    seed: int, dim: int, components: int, kind: str = "full", low: float = 0.02, high: float = 2.0, box: float = 3.0
) -> GaussianMixture:
    """Weights by softmax of U[-3, 3], means in ±box, covariance eigenvalues log-uniform in [low, high]."""
    rng = np.random.default_rng(seed)
    logits = rng.uniform(-3, 3, components)
    weights = np.exp(logits - logits.max())
    weights /= weights.sum()
    means = rng.uniform(-box, box, (components, dim))
    variances = np.exp(rng.uniform(np.log(low), np.log(high), (components, dim)))
    if kind == "isotropic":
        return GaussianMixture(weights, means, variances[:, 0])
    if kind == "diagonal":
        return GaussianMixture(weights, means, variances)
    Q = np.linalg.qr(rng.standard_normal((components, dim, dim)))[0]
    C = (Q * variances[:, None, :]) @ np.swapaxes(Q, 1, 2)
    return GaussianMixture(weights, means, 0.5 * (C + np.swapaxes(C, 1, 2)))


seeds = st.integers(0, 2**32 - 1)
kinds = st.sampled_from(KINDS)
times = st.floats(0.01, 1.0)
unit = st.floats(0.0, 1.0)


def mixtures(max_dim: int = 5, max_components: int = 5, **domain: float) -> st.SearchStrategy[GaussianMixture]:
    return st.builds(
        lambda seed, dim, components, kind: random_mixture(seed, dim, components, kind, **domain),
        seeds, st.integers(1, max_dim), st.integers(1, max_components), kinds,
    )  # fmt: skip


sdes = st.one_of(
    st.builds(lambda a, r: VP(a, a * r), st.floats(0.05, 2.0), st.floats(1.0, 200.0)),
    st.builds(lambda a, r: VE(a, a * r), st.floats(1e-3, 0.1), st.floats(10.0, 5000.0)),
)


def points(mixture: GaussianMixture, alpha: Time, sigma: Time, seed: int, n: int = 7) -> np.ndarray:
    """Samples of α x₀ + σ z, and some from far around: typical points and untypical ones."""
    rng = np.random.default_rng(seed)
    x = alpha * mixture.sample(rng, n) + sigma * rng.standard_normal((n, mixture.dim))
    return np.concatenate([x, x * 3 + rng.standard_normal(x.shape)])


other_sdes = st.one_of(
    st.builds(CosineVP, st.floats(1e-3, 0.1), st.floats(1e-4, 0.1)),
    st.builds(lambda a, r: SubVP(a, a * r), st.floats(0.05, 2.0), st.floats(1.0, 200.0)),
    st.builds(LinearVE, st.floats(0.1, 200.0)),
    st.builds(OU, st.floats(0.1, 20.0), st.floats(0.1, 20.0)),
    st.builds(Rectified, st.floats(1e-3, 0.5)),
)
every_sde = st.one_of(other_sdes, sdes)  # all seven, with parameters of their own

few = settings(max_examples=settings().max_examples // 5)  # where an example takes long
