"""Conditional laws that are known: a mixture given a linear observation, or given its component. Chapter 13.

The conditional score is the unconditional one plus the gradient of log p_t(y | x), Eq. (13.1). For linear observations
of a mixture, and for its components as classes, every term is known.
"""

from refscore.checks import check_count, check_finite, check_floating, check_like, check_same, check_squares
from refscore.laws.mixture import GaussianMixture
from refscore.library import array_namespace, device
from refscore.protocols import Array


def observe(mixture: GaussianMixture, H: Array, R: Array) -> GaussianMixture:
    """Return the law of y = H x + e, e ~ N(0, R): Σ_k w_k N(H m_k, H C_k Hᵀ + R)                  Eq. (13.3).

    Parameters
    ----------
    mixture : GaussianMixture
        The law of x, in D dimensions.
    H : Array, shape (M, D)
        What is observed of x.
    R : Array, shape (M, M)
        Covariance of e: symmetric, no negative eigenvalue.

    Returns
    -------
    GaussianMixture
        The law of y, in M dimensions.

    Raises
    ------
    ValueError, TypeError
        For shapes, dtypes or devices that do not go together; for an R that is no covariance.

    Examples
    --------
    >>> import numpy as np
    >>> from refscore import GaussianMixture
    >>> from refscore.laws.posterior import observe
    >>> p = GaussianMixture(np.array([1.0]), np.array([[3.0]]), np.array([1.0]))  # N(3, 1)
    >>> y = observe(p, H=np.array([[2.0]]), R=np.array([[5.0]]))
    >>> y.means, y.covariances  # 2 · 3 and 2² · 1 + 5
    (array([[6.]]), array([[[9.]]]))
    """
    check_like(mixture=mixture)
    _check_observation(mixture, H, R)
    means, _, S = _seen(mixture, H, R)
    return GaussianMixture(mixture.weights, means, S)


def linear_posterior(mixture: GaussianMixture, H: Array, y: Array, R: Array) -> GaussianMixture:
    """Return the law of x given y = H x + e, e ~ N(0, R): a mixture again                            Eq. (13.4).

        weights ∝ w_k N(y; H m_k, S_k),  means m_k + K_k (y - H m_k),  covariances (I - K_k H) C_k
        S_k = H C_k Hᵀ + R,  K_k = C_k Hᵀ S_k⁻¹                                              (Kalman's update)

    Its score at every noise level, `ExactScore(linear_posterior(...), sde)`, is the aim of a conditional sampler.

    Parameters
    ----------
    mixture : GaussianMixture
        The law of x, in D dimensions.
    H : Array, shape (M, D)
        What is observed of x.
    y : Array, shape (M,)
        The observation.
    R : Array, shape (M, M)
        Covariance of e: symmetric, no negative eigenvalue; 0 observes without noise, and then what is observed must
        have a density.

    Returns
    -------
    GaussianMixture
        The law of x given y, in D dimensions, with full covariances.

    Raises
    ------
    ValueError, TypeError
        For shapes, dtypes or devices that do not go together; for an R that is no covariance, or so small that some
        S_k is singular.

    Examples
    --------
    >>> import numpy as np
    >>> from refscore import GaussianMixture
    >>> from refscore.laws.posterior import linear_posterior
    >>> p = GaussianMixture(np.array([1.0]), np.array([[0.0]]), np.array([1.0]))  # N(0, 1)
    >>> one = np.array([[1.0]])
    >>> x = linear_posterior(p, H=one, y=np.array([3.0]), R=one)  # as much noise as signal: K = ½
    >>> x.means, x.covariances
    (array([[1.5]]), array([[[0.5]]]))
    """
    check_like(mixture=mixture)
    _check_observation(mixture, H, R, y)
    xp, C, D = array_namespace(H), full_covariances(mixture), mixture.dim
    seen, HC, S = _seen(mixture, H, R)
    # Units: each observation in its own deviation, where small means singular and not just another unit.
    std = _deviations(S)  # (K, M)
    both = std[:, :, None] * std[:, None, :]
    H, HC, R, S, residual = H / std[:, :, None], HC / std[:, :, None], R / both, S / both, (y - seen) / std
    _check_regular(S)
    # Gain, (K, D, M).
    gain = xp.matrix_transpose(xp.linalg.solve(S, HC))
    # Means.
    means = mixture.means + (gain @ residual[..., None])[..., 0]
    # Covariances, in Joseph's form (I - K H) C (I - K H)ᵀ + K R Kᵀ: no subtraction, so no negative variance.
    IKH = xp.eye(D, dtype=H.dtype, device=device(H)) - gain @ H
    covariances = IKH @ C @ xp.matrix_transpose(IKH) + gain @ R @ xp.matrix_transpose(gain)
    # Weights, relative to the largest: no observation is too unlikely.
    square = xp.sum(residual * xp.linalg.solve(S, residual[..., None])[..., 0], axis=1)
    log_det = 2 * xp.sum(xp.log(std), axis=1) + xp.linalg.slogdet(S)[1]
    log_w = mixture.log_weights - 0.5 * square - 0.5 * log_det
    w = xp.exp(log_w - xp.max(log_w))
    return GaussianMixture(w / xp.sum(w), means, 0.5 * (covariances + xp.matrix_transpose(covariances)))


def component(mixture: GaussianMixture, k: int) -> GaussianMixture:
    """Return component k alone: the law of x given its class; ∇ log p_t(k | x) = g_k - s              Eq. (13.6).

    Parameters
    ----------
    mixture : GaussianMixture
        Of K components.
    k : int
        Which, from 0 to K - 1.

    Returns
    -------
    GaussianMixture
        Of one component, with weight 1.

    Raises
    ------
    ValueError
        Unless 0 <= k < K.

    Examples
    --------
    >>> from refscore.laws.examples import mixture
    >>> from refscore.laws.posterior import component
    >>> component(mixture("two-modes"), 1).means
    array([[-5., -5.]])
    """
    check_like(mixture=mixture)
    k = check_count("k", k, 0)
    if k >= mixture.n_components:
        raise ValueError(f"k must lie in [0, {mixture.n_components}), got {k}")
    one = array_namespace(mixture.weights).ones_like(mixture.weights[k : k + 1])
    return GaussianMixture(one, mixture.means[k : k + 1, :], mixture.covariances[k : k + 1, ...])


def full_covariances(mixture: GaussianMixture) -> Array:
    """Return the covariances as full matrices.

    Parameters
    ----------
    mixture : GaussianMixture
        With full, diagonal or isotropic covariances.

    Returns
    -------
    Array, shape (K, D, D)
        One a component.

    Raises
    ------
    TypeError
        For an argument that cannot be what it is given as, by its name.
    """
    check_like(mixture=mixture)
    C, xp = mixture.covariances, array_namespace(mixture.means)
    if C.ndim == 3:
        return C
    eye = xp.eye(mixture.dim, dtype=C.dtype, device=device(C))
    return (C[:, None, None] if C.ndim == 1 else C[:, :, None]) * eye


def _seen(mixture: GaussianMixture, H: Array, R: Array) -> tuple[Array, Array, Array]:
    """H m_k (K, M), H C_k (K, M, D), and H C_k Hᵀ + R (K, M, M)."""
    xp = array_namespace(H)
    Ht, HC = xp.matrix_transpose(H), H @ full_covariances(mixture)
    S = HC @ Ht + R
    return mixture.means @ Ht, HC, 0.5 * (S + xp.matrix_transpose(S))


def _deviations(S: Array) -> Array:
    """Of each coordinate, (K, M, M) -> (K, M); 1 where it has none."""
    xp = array_namespace(S)
    std = xp.sqrt(xp.linalg.diagonal(S))
    return xp.where(std > 0, std, 1.0)


def _check_regular(correlation: Array) -> None:
    """Refuse correlations (K, M, M) of the observations that are singular to rounding. Waits for the device."""
    xp, M = array_namespace(correlation), correlation.shape[-1]
    least = float(xp.min(xp.linalg.eigvalsh(correlation)))
    if not least > 8 * M * xp.finfo(correlation.dtype).eps:
        raise ValueError(f"H C Hᵀ + R is singular (least eigenvalue of its correlations {least:.3g}): give a larger R")


def _check_observation(mixture: GaussianMixture, H: Array, R: Array, y: Array | None = None) -> None:
    check_floating("H", H, ndim=2)
    given = {"H": H, "R": R} if y is None else {"H": H, "y": y, "R": R}
    check_same(mixture.means, **given)
    M, D = H.shape
    if M < 1 or mixture.dim != D or R.shape != (M, M) or (y is not None and y.shape != (M,)):
        wanted = f"H must be (M, {mixture.dim}), R (M, M)" + ("" if y is None else " and y (M,)")
        raise ValueError(f"{wanted}; got " + ", ".join(f"{n} {tuple(v.shape)}" for n, v in given.items()))
    for name, value in given.items():
        check_finite(name, value)
        check_squares(**{name: value})
    try:
        GaussianMixture(array_namespace(R).ones_like(mixture.weights[:1]), R[:1, :], R[None, ...])
    except ValueError as error:
        raise ValueError(f"R must be a covariance: {error}") from None
