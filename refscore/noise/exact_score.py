"""The score of a mixture under an SDE: exact, and for isotropic mixtures also fast.

The fast form is two matrix products. With v_k = α² C_k + σ² the log joint density of x and component k is linear in
(x, |x|², 1),

    log w_k N(x; α m_k, v_k I) = (α m_k/v_k)·x - |x|²/2v_k + log w_k - ½ D log v_k - α²|m_k|²/2v_k + const,

one product for all samples; and the score Σ_k r_k (α m_k - x)/v_k is linear in r, another one. What is lost: the
square of a difference is taken as a difference of squares, so the odds of the components err by u |x|²/v, u the
rounding unit, and so does the score by u |x|/v, where two terms cancel. Keep to |x| below 300 standard deviations
in float32.
"""

from dataclasses import dataclass
from typing import ClassVar

from refscore.arrays import beside, long_sum
from refscore.checks import check_array, check_floating, settle
from refscore.laws.mixture import GaussianMixture, transposed
from refscore.library import array_namespace
from refscore.protocols import SDE, Array, Time


@dataclass(frozen=True)
class ExactScore:
    """The score ∇log p_t of a mixture under an SDE: it can be used in the place of any network.

    With it in a network's place the learning error is zero, and what remains is the sampler's: its steps,
    its prior, its last t.

    Parameters
    ----------
    mixture : GaussianMixture
        The law of the data, in D dimensions.
    sde : SDE
        Its α(t) and σ(t) are those of the noised data.

    Raises
    ------
    ValueError
        At the call, for x that is not (B, D), a float t outside [0, 1], or an array t of another shape.

    Examples
    --------
    >>> import numpy as np
    >>> from refscore import ExactScore, GaussianMixture
    >>> from refscore.noise.sde import LinearVE
    >>> data = GaussianMixture(np.array([1.0]), np.array([[0.0]]), np.array([1.0]))  # N(0, 1)
    >>> ExactScore(data, LinearVE(2.0))(np.array([[5.0]]), 1.0)  # σ = 2: the score of N(0, 1 + 4) at 5
    array([[-1.]])
    """

    mixture: GaussianMixture
    sde: SDE
    takes_numbers: ClassVar[bool] = True

    def __post_init__(self) -> None:
        settle(self)

    def __call__(self, x: Array, t: Time) -> Array:
        """Return the score of x (B, D) at t, a float or an array (1,) or (B,): (B, D)."""
        t = beside(t, x)
        return self.mixture.score(x, self.sde.alpha(t), self.sde.sigma(t))

    def jvp(self, x: Array, t: Time, v: Array) -> tuple[Array, Array]:
        """Return the score of x (B, D) and its derivative along each v (K, B, D): (B, D), (K, B, D)."""
        check_array(x=x, v=v)
        t = beside(t, x)
        alpha, sigma = self.sde.alpha(t), self.sde.sigma(t)
        return self.mixture.score(x, alpha, sigma), self.mixture.score_jvp(x, v, alpha, sigma)

    def posterior_mean(self, x: Array, t: Time) -> Array:
        """Return E[x₀ | x_t = x] of x (B, D), also where α = 0: there it is the mean of the data."""
        t = beside(t, x)
        return self.mixture.posterior_mean(x, self.sde.alpha(t), self.sde.sigma(t))

    def stable_step(self, t: float) -> float:
        """Return twice the smallest variance of p_t, for a float t                                     Eq. (2.6).

        A Langevin step as large as that, or larger, is unstable near one mode.
        """
        variance: float = self.sde.alpha(t) ** 2 * self.mixture.least_variance + self.sde.sigma(t) ** 2
        return 2 * variance


@dataclass(frozen=True)
class FastExactScore:
    """The same as `ExactScore`, for isotropic mixtures and one time for all samples, by two matrix products.

    It agrees with that one as said at the top of this module.

    Parameters
    ----------
    mixture, sde : see `ExactScore`.

    Raises
    ------
    ValueError
        For a mixture that is not isotropic; at the call, for more than one time.
    """

    mixture: GaussianMixture
    sde: SDE
    takes_numbers: ClassVar[bool] = True

    def __post_init__(self) -> None:
        settle(self)
        if self.mixture.covariances.ndim != 1:
            raise ValueError(f"the fast form knows isotropic mixtures only, this is {self.mixture}")

    def __call__(self, x: Array, t: Time) -> Array:
        """Return the score of x (B, D) at t, a float or an array (1,): (B, D)."""
        check_floating("x", x, ndim=2)
        t = beside(t, x)
        if getattr(t, "shape", (1,)) != (1,):
            raise ValueError(f"the fast form takes one time for all samples, got {x.shape[0]}")
        xp, D = array_namespace(x), self.mixture.dim
        alpha, means, log_weights = self.sde.alpha(t), self.mixture.means, self.mixture.log_weights[:, None]
        v = alpha**2 * self.mixture.variances + self.sde.sigma(t) ** 2  # (K, 1)
        pull = alpha * means / v
        bias = log_weights - 0.5 * D * xp.log(v) - 0.5 * alpha * long_sum(pull * means, axis=1)[:, None]
        x = transposed(x)  # (D, B)
        square = long_sum(x * x, axis=0)[None, :]
        log_joint = xp.concat([pull, -0.5 / v], axis=1) @ xp.concat([x, square], axis=0)
        log_joint += bias  # not in the product: -∞ · 0 is a NaN, and a component may have no weight
        e = xp.exp(log_joint - xp.max(log_joint, axis=0))
        # Rows: Σ e α m/v (D of them), Σ e/v, Σ e; the normaliser of r is divided out last.
        sums = xp.matrix_transpose(xp.concat([pull, 1 / v, xp.ones_like(v)], axis=1)) @ e
        return transposed((sums[:D, :] - x * sums[D, :]) / sums[D + 1, :])
