"""Gaussian mixtures: the one family whose score is known at every noise level. Chapter 1.

If x₀ ~ Σ_k w_k N(m_k, C_k) and x = α x₀ + σ z with z ~ N(0, I), then

    x ~ Σ_k w_k N(α m_k, S_k),    S_k = α² C_k + σ² I                                 Eq. (1.9)

is a mixture again. Each C_k is decomposed once, C_k = U_k diag(λ_k) U_kᵀ, so that S_k has the
same axes U_k and the variances α² λ_k + σ²: a noise level then costs no decomposition. α and σ
are floats, or arrays of shape (1,) or (B,), one noise level a sample.

Inside, samples are the last axis, (K, D, B): sums over the few components and dimensions then
run over long rows, several times faster than over short ones.
"""

import math
import warnings
from dataclasses import dataclass, field
from typing import NamedTuple

from refscore.arrays import long_sum, one_each, real
from refscore.checks import (
    check_count,
    check_finite,
    check_floating,
    check_kind,
    check_like,
    check_number,
    check_place,
    check_same,
    is_number,
)
from refscore.library import array_namespace, device
from refscore.protocols import Array, Rng, Time


class AmbiguousCovarianceWarning(UserWarning):
    """The warning that a square matrix, read as K rows of variances, may be meant as one covariance."""


AMBIGUOUS = (
    "covariances of shape ({D}, {D}) are read as the variances of {D} diagonal components, but the matrix may be meant "
    "as one covariance for all: then give covariances[None, ...], of shape (1, {D}, {D}); if not, say so by full "
    "matrices, covariances[:, :, None] * eye({D}), or ignore this warning"
)
ONE = 2.0**62  # of weights and uniform numbers as integers: their sum stays below 2⁶³


@dataclass(frozen=True, eq=False)
class GaussianMixture:
    """The density p(x) = Σ_k w_k N(x; m_k, C_k), and its law after x -> α x + σ z.

    Every method that takes `alpha` and `sigma` is about the law of α x₀ + σ z; without them, about that of x₀
    itself. Each is a float, or an array (1,) or (B,), one noise level a sample. The methods take (B, D) arrays and
    check shapes only: a NaN in x gives a NaN out.

    Parameters
    ----------
    weights : Array, shape (K,)
        Not negative, summing to 1. A component of weight 0 is allowed and never drawn.
    means : Array, shape (K, D)
        In data units.
    covariances : Array, shape (K, D, D), (1, D, D), (K, D) or (K,)
        Full, one full matrix for all components (kept K times), diagonal (variances), or isotropic (variances).
        A singular covariance, a point or a plane, is allowed: the density then exists only for σ > 0.

    Raises
    ------
    TypeError
        Unless all three are float32 or float64 arrays, alike in library, dtype and device.
    ValueError
        For wrong shapes; for weights negative or not summing to 1; for covariances that are not
        symmetric or have a negative eigenvalue; for NaN or infinity anywhere. Also when a method needs the
        density of a singular mixture at sigma = 0.0.

    Warns
    -----
    AmbiguousCovarianceWarning
        For K = D and a (D, D) array that is a covariance matrix as well as K rows of variances.

    Notes
    -----
    The relative error of a score, in norm, is at most 1e-12 + 10 u κ (u the rounding unit, κ the largest
    condition number of the S_k), for σ from 1e-8 to 1e5 and |x| up to 1e150 in float64. Between two narrow and distant
    modes the error is that of the log odds, a small difference of two large squares: u |x - m|²/σ² root mean square
    (1e-7 at |x - m| = 3e4 σ; .006 in float32 for D = 1e5, as |x - m|² ~ D σ²) and seldom above three times that.
    Where the score itself exceeds the largest number it saturates there; log p becomes -inf. Means should stay below
    1e100 standard deviations. A full covariance of condition above 1e14 counts as singular: call
    `score(x, alpha, sigma)` of the mixture before the noise, which uses the variances exactly, rather than that of
    `diffuse(alpha, sigma)`.

    Second derivatives (`score_jvp`, `divergence`) keep the same bound relative to the terms that they sum,
    Σ_k r_k (|g_k - s|² + tr S_k⁻¹); the posterior's mean relative to √E|x₀|², its covariance to its trace. The
    squares of components of one covariance are rounded alike only up to |x - m| = σ/√u (1e8 σ, or 4e3 σ in
    float32): farther out r_k cannot choose between them, which may cost their distance in a posterior mean, and
    its square over σ⁴ in a second derivative.

    Examples
    --------
    >>> import numpy as np
    >>> from refscore import GaussianMixture
    >>> p = GaussianMixture(np.array([0.5, 0.5]), np.array([[-1.0], [1.0]]), np.array([1.0, 1.0]))
    >>> p.score(np.array([[1.0]])).round(4)  # tanh(x) - x
    array([[-0.2384]])
    >>> p.diffuse(alpha=2.0, sigma=3.0).covariances  # α² C + σ²
    array([13., 13.])
    """

    weights: Array
    means: Array
    covariances: Array
    log_weights: Array = field(init=False)  # (K,), -inf for a weight of 0
    variances: Array = field(init=False)  # eigenvalues of the covariances: (K, D), or (K, 1) if isotropic
    _axes: Array | None = field(init=False)  # (K, D, D), columns are eigenvectors
    least_variance: float = field(init=False)  # the smallest of them that has a weight
    _singular: bool = field(init=False)
    _bounds: Array | None = field(
        init=False
    )  # cumulative weights but for the last, in units of 2⁻⁶²: no rounding adds up
    _rare: bool = field(init=False)  # whether a float32 uniform number, of 24 bits, is too coarse for a weight

    def __post_init__(self) -> None:
        _check_parameters(self.weights, self.means, self.covariances)
        xp = array_namespace(self.means)
        if _may_be_shared(self.covariances):
            warnings.warn(AMBIGUOUS.format(D=self.dim), AmbiguousCovarianceWarning, stacklevel=3)
        if self.covariances.shape[0] < self.n_components:
            shared = xp.broadcast_to(self.covariances, (self.n_components, self.dim, self.dim))
            object.__setattr__(self, "covariances", shared)
        seen = self.weights > 0
        last_seen = int(xp.max(xp.where(seen, xp.arange(seen.shape[0], device=device(seen)), 0)))
        log_weights = xp.where(seen, xp.log(xp.where(seen, self.weights, 1.0)), -math.inf)
        variances, axes, singular = _decompose(self.covariances)
        with warnings.catch_warnings():  # of JAX without 64 bits, whose integers would overflow: see `sample`
            warnings.simplefilter("ignore", UserWarning)
            bounds = xp.cumulative_sum(xp.astype(self.weights * ONE, xp.int64))[:last_seen]
        for name, value in (
            ("log_weights", log_weights), ("variances", variances),
            ("least_variance", float(xp.min(xp.where(seen[:, None], variances, math.inf)))),
            ("_axes", axes), ("_singular", singular),
            ("_bounds", bounds if str(bounds.dtype).endswith("int64") else None),
            ("_rare", float(xp.min(xp.where(seen, self.weights, 1.0))) < 2.0**-14 and self.weights.dtype == xp.float32),
        ):  # fmt: skip
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        kind = {1: "isotropic", 2: "diagonal", 3: "full"}[self.covariances.ndim]
        return f"GaussianMixture({self.n_components} components in {self.dim}-D, {kind} covariances)"

    @property
    def dim(self) -> int:
        """The number D of coordinates."""
        return int(self.means.shape[1])

    @property
    def n_components(self) -> int:
        """The number K of components."""
        return int(self.means.shape[0])

    # -------------------------------------------------------------- the law

    def sample(self, rng: Rng, n: int) -> Array:
        """Return n samples (n, D), drawn with rng.

        Raises
        ------
        ValueError
            Unless n is an integer >= 0.
        TypeError
            On a library without 64-bit integers, which JAX is unless it is told otherwise.
        """
        check_like(rng=rng)
        if self._bounds is None:
            raise TypeError(
                "components are drawn by 64-bit integers, and this library has them switched off: "
                'jax.config.update("jax_enable_x64", True), or make JaxBackend() first'
            )
        xp, n = array_namespace(self.means), check_count("n", n, 0)
        u = self._uniform(rng, n)
        # The last bound is left out, so that neither rounding of the weights nor u = 1 leads past component K.
        k = xp.searchsorted(self._bounds, u, side="right")
        z = rng.standard_normal((n, self.dim), dtype=self.means.dtype)
        z = xp.take(xp.sqrt(self.variances), k, axis=0) * z
        if self._axes is not None:
            z = xp.matmul(xp.take(self._axes, k, axis=0), z[..., None])[..., 0]
        return xp.take(self.means, k, axis=0) + z

    def diffuse(self, alpha: float, sigma: float) -> "GaussianMixture":
        """Return the mixture of α x₀ + σ z, for floats α, σ >= 0                          Eq. (1.9).

        Raises
        ------
        ValueError
            Unless alpha and sigma are finite and not negative.
        """
        alpha, sigma = check_number("alpha", alpha), check_number("sigma", sigma)
        for name, value in (("alpha", alpha), ("sigma", sigma)):
            if not 0 <= value <= 1e150:
                raise ValueError(f"{name} must be finite and not negative, with a finite square; got {value}")
        C = alpha**2 * self.covariances
        if C.ndim == 3:
            xp = array_namespace(C)
            C = C + sigma**2 * xp.eye(self.dim, dtype=C.dtype, device=device(C))
        else:
            C = C + sigma**2
        with warnings.catch_warnings():  # who made this mixture was asked then
            warnings.simplefilter("ignore", AmbiguousCovarianceWarning)
            return GaussianMixture(self.weights, alpha * self.means, C)

    # -------------------------------------------------------------- density and score

    def log_prob(self, x: Array, alpha: Time = 1.0, sigma: Time = 0.0) -> Array:
        """Return the log density in nats, x (B, D) -> (B,)."""
        xp = array_namespace(x)
        view = self._per_component(x, alpha, sigma)
        top = xp.max(real(view.log_joint), axis=0)
        log_p = top + xp.log(long_sum(xp.exp(view.log_joint - top), axis=0))
        # Undo the shrinking of far samples: there, log p is a square and nothing else counts.
        number = xp.finfo(real(x).dtype)
        largest = number.max * (1 - 4 * number.eps)  # room for the roundings of a quotient and a product
        grow = xp.minimum(view.shrink, 0.5 * math.sqrt(largest)) ** 2
        room = largest / xp.maximum(xp.abs(real(log_p)), 1.0)
        log_p = log_p * xp.minimum(grow, room)
        return xp.where(grow > room, -math.inf, log_p - 0.5 * self.dim * math.log(2 * math.pi))

    def score(self, x: Array, alpha: Time = 1.0, sigma: Time = 0.0) -> Array:
        """Return the score ∇ₓ log p = Σ_k r_k(x) g_k(x), g_k = -S_k⁻¹ (x - α m_k), x (B, D) -> (B, D)  Eq. (1.10)."""
        g, r, _ = self._component_scores(x, alpha, sigma)
        return transposed(long_sum(self._from_axes(r[:, None, :] * g), axis=0))

    def responsibilities(self, x: Array, alpha: Time = 1.0, sigma: Time = 0.0) -> Array:
        """Return the posterior probability r_k of each component, x (B, D) -> (B, K)."""
        return array_namespace(x).matrix_transpose(_softmax(self._per_component(x, alpha, sigma).log_joint))

    def score_jvp(self, x: Array, v: Array, alpha: Time = 1.0, sigma: Time = 0.0) -> Array:
        """Return the derivative of the score along v, v (B, D) or a stack (N, B, D) -> the same shape.

        J v = Σ_k r_k [(g_k - s)((g_k - s)·v) - S_k⁻¹ v]                               Eq. (1.11)
        """
        check_kind("x", x)
        check_kind("v", v)
        check_place(x, v=v)
        xp = array_namespace(x)
        g, r, variances = self._component_scores(x, alpha, sigma)
        away, r = _deviations(self._from_axes(g), r), r[:, None, :]
        v = xp.expand_dims(xp.matrix_transpose(v), axis=-3)  # (..., 1, D, B)
        along = long_sum((r * away) * v, axis=-2)[..., None, :]  # r first: where it is 0, |g_k - s|² may overflow
        terms = away * along - self._from_axes(r * self._to_axes(v) / variances)
        return xp.matrix_transpose(long_sum(terms, axis=-3))

    def divergence(self, x: Array, alpha: Time = 1.0, sigma: Time = 0.0) -> Array:
        """Return div s = ∆ log p = Σ_k r_k (|g_k - s|² - tr S_k⁻¹), x (B, D) -> (B,)           Eq. (1.12)."""
        g, r, variances = self._component_scores(x, alpha, sigma)
        away = _deviations(self._from_axes(g), r)
        spread = long_sum((r[:, None, :] * away) * away, axis=1)
        trace = long_sum(1 / variances, axis=1) * (self.dim // variances.shape[1])
        return long_sum(spread - r * trace, axis=0)

    # -------------------------------------------------------------- the posterior of x₀

    def posterior_mean(self, x: Array, alpha: Time, sigma: Time) -> Array:
        """Return the mean of x₀ given x, (B, D) -> (B, D).

        E[x₀ | α x₀ + σ z = x] = Σ_k r_k [m_k + α C_k S_k⁻¹ (x - α m_k)]
        """
        xp = array_namespace(x)
        means, r, _ = self._posteriors(x, alpha, sigma)
        return xp.matrix_transpose(long_sum(r[:, None, :] * means, axis=0))

    def posterior_cov(self, x: Array, alpha: Time, sigma: Time) -> Array:
        """Return the covariance of x₀ given x, (B, D) -> (B, D, D).

        Cov[x₀ | α x₀ + σ z = x]: within components plus between their means.
        """
        xp = array_namespace(x)
        means, r, within = self._posteriors(x, alpha, sigma)
        between = _deviations(means, r)
        # Everything once more with samples first: (B, K, D).
        between, r = xp.permute_dims(between, (2, 0, 1)), xp.matrix_transpose(r)[:, :, None]
        cov = xp.matmul(xp.matrix_transpose(r * between), between)
        eye = xp.eye(self.dim, dtype=x.dtype, device=device(x))
        axes = eye[None, ...] if self._axes is None else self._axes
        for k in range(self.n_components):  # a loop, not a (B, K, D, D) array
            U = axes[min(k, axes.shape[0] - 1), ...]
            spread = xp.matrix_transpose(within[k, ...])[:, None, :]  # (1 or B, 1, D or 1)
            cov = cov + r[:, k, :][..., None] * ((U * spread) @ xp.matrix_transpose(U))
        return cov

    def posterior_variance(self, x: Array, alpha: Time, sigma: Time) -> Array:
        """Trace of `posterior_cov`, without forming it: (B, D) -> (B,)."""
        check_kind("x", x)
        means, r, within = self._posteriors(x, alpha, sigma)
        between = _deviations(means, r)
        trace = long_sum(within, axis=1) * (self.dim // within.shape[1])
        return long_sum(r * trace + long_sum((r[:, None, :] * between) * between, axis=1), axis=0)

    # -------------------------------------------------------------- inside: (K, D, B)

    def _uniform(self, rng: Rng, n: int) -> Array:
        """n uniform numbers in [0, 1], counted in 2⁻⁶²; from two draws each, the second 24 bits on, if need be."""
        xp = array_namespace(self.means)
        u = xp.astype(rng.random((n,), dtype=self.means.dtype) * ONE, xp.int64)
        if self._rare:
            u = u + xp.astype(rng.random((n,), dtype=self.means.dtype) * (ONE * 2.0**-24), xp.int64)
        return u

    def _to_axes(self, y: Array) -> Array:
        """Vectors (..., 1 or K, D, B) in every component's own axes."""
        xp = array_namespace(y)
        return y if self._axes is None else xp.matmul(xp.matrix_transpose(self._axes), y)

    def _from_axes(self, y: Array) -> Array:
        """Back from the components' axes, (..., K, D, B)."""
        return y if self._axes is None else array_namespace(y).matmul(self._axes, y)

    def _per_component(self, x: Array, alpha: Time, sigma: Time) -> "_PerComponent":
        """How every component sees x (B, D).

        Squares overflow long before x does. A sample so far that its square would (|x|/sd > 1e150
        in float64) is shrunk first: its log densities come out too small by a factor, but in the
        same order, and at that distance any difference at all decides for one component.
        """
        xp = array_namespace(x)
        alpha, sigma = self._level(x, alpha, sigma)
        x = transposed(x)
        y = self._to_axes(xp.expand_dims(x, axis=0) - alpha * self.means[..., None])
        variances = alpha**2 * self.variances[..., None] + sigma**2
        sd = xp.sqrt(variances)
        size = xp.max(xp.abs(real(x)), axis=0)
        far = math.sqrt(xp.finfo(size.dtype).max / (1000 * self.dim)) * xp.min(real(sd), axis=(0, 1))
        shrink = xp.maximum(size / far, 1.0)
        z = y / (shrink * sd)
        log_sd = long_sum(xp.log(sd), axis=1) * (self.dim // sd.shape[1])
        log_joint = self.log_weights[:, None] - log_sd - 0.5 * long_sum(z * z, axis=1)
        return _PerComponent(y, variances, log_joint, size, shrink)

    def _component_scores(self, x: Array, alpha: Time, sigma: Time) -> tuple[Array, Array, Array]:
        """g_k (K, D, B) in the components' axes, r_k (K, B), and the variances."""
        xp = array_namespace(x)
        view = self._per_component(x, alpha, sigma)
        # Saturate instead of overflowing, where |x| / variance leaves the number range.
        least = xp.minimum(xp.min(real(view.variances), axis=(0, 1)), 1.0)
        room = xp.finfo(view.size.dtype).max / (8 * self.dim) * least
        excess = xp.maximum(view.size / room, 1.0)
        return view.y / (-excess * view.variances), _softmax(view.log_joint), view.variances

    def _posteriors(self, x: Array, alpha: Time, sigma: Time) -> tuple[Array, Array, Array]:
        """Means of x₀ given x and k (K, D, B), r_k (K, B), variances of x₀ given x and k in k's axes."""
        alpha, sigma = self._level(x, alpha, sigma)
        view, lam = self._per_component(x, alpha, sigma), self.variances[..., None]
        means = self.means[..., None] + self._from_axes(alpha * lam / view.variances * view.y)
        return means, _softmax(view.log_joint), lam * sigma**2 / view.variances

    def _level(self, x: Array, alpha: Time, sigma: Time) -> tuple[Time, Time]:
        """α and σ as they go with x; what does not is refused."""
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise ValueError(f"x must have shape (B, {self.dim}) for this mixture, got {tuple(x.shape)}")
        if self._singular and is_number(sigma) and sigma == 0:
            raise ValueError("the density does not exist: a covariance is singular and sigma is 0; give sigma > 0")
        return one_each("alpha", alpha, x), one_each("sigma", sigma, x)


class _PerComponent(NamedTuple):
    """A sample as the components see it; K components, D coordinates, B samples."""

    y: Array  # (K, D, B) offsets from the means, in the components' own axes
    variances: Array  # (K, D or 1, B or 1)
    log_joint: Array  # (K, B) log w_k N(x; k) without the 2π
    size: Array  # (B,) max |x|
    shrink: Array  # (B,) what x was divided by before it was squared


def transposed(x: Array) -> Array:
    """Return the transpose, copied: a transposed view would make every later operation walk in short strides.

    Parameters
    ----------
    x : Array, shape (m, n)
        Any matrix.

    Returns
    -------
    Array, shape (n, m)
        In memory row by row.
    """
    xp = array_namespace(x)
    if 0 < x.shape[0] <= 8:  # a column at a time: NumPy would copy row by row, each of so few numbers
        return xp.concat([x[i, :][:, None] for i in range(x.shape[0])], axis=1)
    return xp.reshape(xp.reshape(xp.matrix_transpose(x), (-1,)), x.shape[::-1])


def _softmax(log_joint: Array) -> Array:
    """(K, B) log joint densities -> posterior probabilities, summing to 1 over K."""
    xp = array_namespace(log_joint)
    e = xp.exp(log_joint - xp.max(real(log_joint), axis=0))
    return e / long_sum(e, axis=0)


def _deviations(a: Array, r: Array) -> Array:
    """a_k - Σ_j r_j a_j, for a (K, D, B) in common coordinates and r (K, B).

    Measured from the likeliest component, so that the difference is exactly 0 where that one has all, or where
    all a_k are the same: rounding of a, far out, would be squared.
    """
    xp = array_namespace(a)
    likeliest = xp.argmax(real(r), axis=0)[None, None, :]
    a = a - xp.take_along_axis(a, likeliest, axis=0)
    return a - long_sum(r[:, None, :] * a, axis=0)


def _check_parameters(weights: Array, means: Array, covariances: Array) -> None:
    check_floating("means", means, ndim=2)
    check_floating("weights", weights, ndim=1)
    check_floating("covariances", covariances)
    check_same(means, weights=weights, covariances=covariances)
    K, D = means.shape
    if K < 1 or D < 1:
        raise ValueError(f"means must hold at least one component and one coordinate, got shape {(K, D)}")
    if weights.shape != (K,):
        raise ValueError(f"weights must have shape ({K},) to go with means {(K, D)}, got {tuple(weights.shape)}")
    if tuple(covariances.shape) not in ((K,), (K, D), (K, D, D), (1, D, D)):
        raise ValueError(
            f"covariances must have shape {(K, D, D)} (full), {(1, D, D)} (one full for all), {(K, D)} (diagonal) "
            f"or {(K,)} (isotropic), got {tuple(covariances.shape)}"
        )
    for name, x in (("weights", weights), ("means", means), ("covariances", covariances)):
        check_finite(name, x)
    xp = array_namespace(means)
    if float(xp.min(weights)) < 0:
        raise ValueError(f"weights must not be negative, the smallest is {float(xp.min(weights))}")
    total, slack = float(xp.sum(weights)), 1e-8 if means.dtype == xp.float64 else 1e-5
    if abs(total - 1) > slack:
        raise ValueError(f"weights must sum to 1, they sum to {total!r}: divide them by their sum first")


def _decompose(C: Array) -> tuple[Array, Array | None, bool]:
    """Variances (K, D) or (K, 1), axes (K, D, D) or None, and whether a density exists without noise."""
    xp = array_namespace(C)
    if C.ndim < 3:
        if float(xp.min(C)) < 0:
            raise ValueError(f"covariances must not be negative, the smallest variance is {float(xp.min(C))}")
        return (C if C.ndim == 2 else C[:, None]), None, float(xp.min(C)) == 0
    size, skew = xp.max(xp.abs(C), axis=(1, 2)), _asymmetry(C)
    if bool(xp.any(skew > 0)):
        k = int(xp.argmax(skew))
        raise ValueError(f"covariances[{k}] is not symmetric: it differs from its transpose by {float(skew[k])}")
    lam, axes = xp.linalg.eigh(C)
    low, high = xp.min(lam, axis=1), xp.max(lam, axis=1)
    slack = 8 * C.shape[1] * xp.finfo(C.dtype).eps  # eigh's own error, relative to the largest eigenvalue
    if bool(xp.any(low < -slack * size)):
        k = int(xp.argmin(low))
        raise ValueError(f"covariances[{k}] is indefinite: its smallest eigenvalue is {float(low[k])}")
    return xp.maximum(lam, 0.0), axes, bool(xp.any(low <= slack * high))


def _asymmetry(C: Array) -> Array:
    """How far matrices (..., D, D) are from their transposes, (...); 0 where that may be rounding."""
    xp = array_namespace(C)
    u = float(xp.finfo(C.dtype).eps)
    skew, size = (xp.max(xp.abs(a), axis=(-2, -1)) for a in (C - xp.matrix_transpose(C), C))
    # 1e-10 in float64; in float32 a thousand rounding units
    return xp.where(skew > max(1e-10, 1e3 * u if u > 1e-10 else 0.0) * size, skew, 0.0)


def _may_be_shared(C: Array) -> bool:
    """Whether K rows of variances are a covariance matrix, too: symmetric, with no negative eigenvalue.

    But not if all entries are alike: these are variances.
    """
    if C.ndim != 2 or C.shape[0] != C.shape[1]:
        return False
    xp = array_namespace(C)
    if bool(_asymmetry(C) > 0) or bool(xp.min(C) == xp.max(C)):
        return False
    slack = 8 * C.shape[0] * xp.finfo(C.dtype).eps  # as in `_decompose`
    return bool(xp.min(xp.linalg.eigvalsh(C)) >= -slack * xp.max(C))
