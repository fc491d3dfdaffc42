"""Conditional sampling with a known answer: observations of a mixture, guidance, inpainting. Chapter 13."""

from dataclasses import dataclass

from array_api_compat import array_namespace, device

from refscore.arrays import SDE, Array, Rng, Score, Step, Time, check_floating, check_same
from refscore.mixture import GaussianMixture


def linear_posterior(mixture: GaussianMixture, H: Array, y: Array, R: Array) -> GaussianMixture:
    """The law of x given y = H x + e, e ~ N(0, R): a mixture again.

        weights ∝ w_k N(y; H m_k, H C_k Hᵀ + R),  means m_k + K_k (y - H m_k),  covariances (I - K_k H) C_k
        K_k = C_k Hᵀ (H C_k Hᵀ + R)⁻¹                                                         (Kalman's update)

    Its score at every noise level, `ExactScore(linear_posterior(...), sde)`, is what a conditional sampler aims at.

    Parameters
    ----------
    mixture : GaussianMixture
    H : Array (M, D)
    y : Array (M,)
    R : Array (M, M)
        Symmetric, positive definite: or small, to observe without noise.

    Raises
    ------
    ValueError, TypeError
        For shapes, dtypes or devices that do not go together.
    """
    check_floating("H", H, ndim=2)
    check_same(mixture.means, H=H, y=y, R=R)
    M, D = H.shape
    if mixture.dim != D or y.shape != (M,) or R.shape != (M, M):
        raise ValueError(
            f"H must be (M, {mixture.dim}), y (M,), R (M, M); got {tuple(H.shape)}, {tuple(y.shape)}, {tuple(R.shape)}"
        )
    xp, C = array_namespace(H), full_covariances(mixture)
    Ht = xp.matrix_transpose(H)
    S = H @ C @ Ht + R  # (K, M, M)
    gain = xp.matrix_transpose(xp.linalg.solve(S, H @ C))  # (K, D, M)
    residual = y - mixture.means @ Ht  # (K, M)
    means = mixture.means + (gain @ residual[..., None])[..., 0]
    IKH = xp.eye(D, dtype=H.dtype, device=device(H)) - gain @ H
    covariances = IKH @ C @ xp.matrix_transpose(IKH) + gain @ R @ xp.matrix_transpose(gain)  # symmetric by form
    covariances = 0.5 * (covariances + xp.matrix_transpose(covariances))
    pulled = xp.linalg.solve(S, residual[..., None])[..., 0]
    log_w = mixture.log_weights - 0.5 * xp.sum(residual * pulled, axis=1) - 0.5 * xp.linalg.slogdet(S)[1]
    w = xp.exp(log_w - xp.max(log_w))
    return GaussianMixture(w / xp.sum(w), means, covariances)


def component(mixture: GaussianMixture, k: int) -> GaussianMixture:
    """Component k alone: the law of x given its class."""
    one = array_namespace(mixture.weights).ones_like(mixture.weights[k : k + 1])
    return GaussianMixture(one, mixture.means[k : k + 1, :], mixture.covariances[k : k + 1, ...])


def full_covariances(mixture: GaussianMixture) -> Array:
    """(K, D, D), whatever the mixture keeps."""
    C, xp = mixture.covariances, array_namespace(mixture.means)
    if C.ndim == 3:
        return C
    eye = xp.eye(mixture.dim, dtype=C.dtype, device=device(C))
    return (C[:, None, None] if C.ndim == 1 else C[:, :, None]) * eye


@dataclass(frozen=True)
class Guided:
    """s + w (s_y - s): classifier-free guidance (Ho and Salimans 2022); s_y - s is the gradient of log p_t(y | x).

    w = 1 is the conditional score s_y, w = 0 the unconditional. For any other w it is the score of no diffused law: it
    belongs to p_t(x) p_t(y | x)^w at each t, but those are not the marginals of noise added to p(x) p(y | x)^w.
    """

    unconditional: Score
    conditional: Score
    weight: float

    def __call__(self, x: Array, t: Time) -> Array:
        """x (B, ...) -> (B, ...)."""
        s = self.unconditional(x, t)
        return s + self.weight * (self.conditional(x, t) - s)


@dataclass(frozen=True)
class Replace:
    """Inpainting by replacement (Song et al. 2021): after each step the known coordinates are the data's, noised to s.

    The unknown ones are moved by the unconditional score, which sees noised known ones: not the conditional law.

    Parameters
    ----------
    step : Step
    sde : SDE
    known : Array (B, ...) or broadcastable
        Clean values; only those under the mask count.
    mask : Array
        1 where known, 0 where not, broadcastable to x.
    """

    step: Step
    sde: SDE
    known: Array
    mask: Array

    def __call__(self, x: Array, t: float, s: float, rng: Rng, memory: object = None) -> tuple[Array, object]:
        """x (B, ...) at t -> x (B, ...) at s."""
        x, memory = self.step(x, t, s, rng, memory)
        z = rng.standard_normal(x.shape, dtype=x.dtype)
        noised = float(self.sde.alpha(s)) * self.known + float(self.sde.sigma(s)) * z
        return self.mask * noised + (1 - self.mask) * x, memory
