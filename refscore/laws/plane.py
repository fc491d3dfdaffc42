"""The sets of points in the plane that people draw: as laws where the density is exact, else as samplers.

Circles, rings, checkerboard and pinwheel are defined so that their density is known; of the first three also when
noise is added, so `ExactScore` takes them in the place of a mixture. All is computed by NumPy in float64, for |x|
below 1e100, and answered in the dtype of x. Moons, the Swiss roll and the two
spirals are curves with Gaussian noise around them: their densities are integrals without a closed form, and a
function draws them. "8gaussians" is the mixture `circle` of `laws.examples`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import i0e, i1e, log_ndtr, logsumexp

from refscore.checks import (
    check_count,
    check_data,
    check_kind,
    check_like,
    check_positive,
    check_range,
    is_number,
    plain,
    settle,
)
from refscore.laws.examples import mixture
from refscore.protocols import Rng, Time

Points = Any  # numpy.ndarray (B, 2)


@dataclass(frozen=True)
class Rings:
    """Concentric circles about 0, equally likely, with Gaussian noise in the plane.

    The angle is uniform, so a ring of radius R with noise of deviation s has the density

        p(x) = exp(-(r² + R²)/2s²) I₀(r R/s²) / 2πs²,    r = |x|,

    I₀ the modified Bessel function; and αx + σz is a ring again, of radius αR and variance α²s² + σ².

    Parameters
    ----------
    radii : tuple of float
        One for each circle, in data units.
    std : float
        Standard deviation s of the noise, in each coordinate.

    Raises
    ------
    ValueError
        Unless all are positive; by the methods, for points that are not (B, 2).

    Examples
    --------
    >>> import numpy as np
    >>> from refscore.laws.plane import Rings
    >>> Rings((2.0,), std=0.5).log_prob(np.array([[2.0, 0.0], [0.0, 0.0]])).round(4)
    array([-2.7487, -8.4516])
    """

    radii: tuple[float, ...]
    std: float

    def __post_init__(self) -> None:
        settle(self)
        check_positive(std=self.std, radii=min(self.radii, default=0.0))

    def sample(self, rng: Rng, n: int) -> Points:
        """Draw n points (n, 2) with rng, on the host."""
        check_like(rng=rng)
        n = check_count("n", n, 0)
        R = np.asarray(self.radii)[rng.integers(0, len(self.radii), n)]
        return R[:, None] * _direction(2 * math.pi * rng.random(n)) + self.std * rng.standard_normal((n, 2))

    def log_prob(self, x: Points, alpha: Time = 1.0, sigma: Time = 0.0) -> Any:
        """Return the log density of αx₀ + σz in nats, x (B, 2) -> (B,)."""
        return _typed(logsumexp(self._log_joint(x, alpha, sigma)[0], axis=0) - math.log(len(self.radii)), x)

    def score(self, x: Points, alpha: Time = 1.0, sigma: Time = 0.0) -> Points:
        """Return ∇ log p of αx₀ + σz, x (B, 2) -> (B, 2): of a ring (R² I₁(κ)/(κ I₀(κ)) / s² - 1) x/s², κ = rR/s²."""
        log_joint, kappa, R, variance = self._log_joint(x, alpha, sigma)
        r = np.exp(log_joint - logsumexp(log_joint, axis=0))
        tiny = kappa < 1e-8  # there I₁/κ is ½
        ratio = np.where(tiny, 0.5, i1e(kappa) / np.where(tiny, 1.0, kappa) / i0e(kappa))
        return _typed(np.sum(r * (R * R * ratio / variance - 1) / variance, axis=0)[:, None] * x, x)

    def _log_joint(self, x: Points, alpha: Time, sigma: Time) -> tuple[Any, Any, Any, Any]:
        _check_level(alpha, sigma)
        x, R = _points(x), np.asarray(self.radii)[:, None] * alpha
        variance = (alpha * self.std) ** 2 + sigma * sigma
        r = np.hypot(x[:, 0], x[:, 1])
        kappa = r * R / variance
        return np.log(i0e(kappa)) - (r - R) ** 2 / (2 * variance) - np.log(2 * math.pi * variance), kappa, R, variance


@dataclass(frozen=True)
class Checkerboard:
    """The uniform law on the dark squares of a board of 4×4, centred at 0: eight squares, the lower left one dark.

    The density is 1/(8 side²) there and 0 elsewhere. With noise, αx + σz, an interval [a, b] becomes the difference
    of two normal distribution functions, Φ((x - αa)/σ) - Φ((x - αb)/σ), and each square a product of two.

    Parameters
    ----------
    side : float, default 2.0
        Of a square, in data units: the board is [-2 side, 2 side]².

    Raises
    ------
    ValueError
        Unless side > 0; and by `score`, without noise: there the density has jumps.

    Examples
    --------
    >>> import numpy as np
    >>> from refscore.laws.plane import Checkerboard
    >>> np.exp(Checkerboard().log_prob(np.array([[-3.0, -3.0], [-1.0, -3.0]])))  # 1/32, and a light square
    array([0.03125, 0.     ])
    """

    side: float = 2.0

    def __post_init__(self) -> None:
        settle(self)
        check_positive(side=self.side)

    def sample(self, rng: Rng, n: int) -> Points:
        """Draw n points (n, 2) with rng, on the host."""
        check_like(rng=rng)
        n = check_count("n", n, 0)
        row, half = np.asarray(rng.integers(0, 4, n)), rng.integers(0, 2, n)
        corner = np.stack([row, 2 * half + row % 2], axis=1) - 2
        return self.side * (corner + rng.random((n, 2)))

    def log_prob(self, x: Points, alpha: Time = 1.0, sigma: Time = 0.0) -> Any:
        """Return the log density of αx₀ + σz in nats, α > 0, x (B, 2) -> (B,); -inf on light squares without noise."""
        _check_level(alpha, sigma)
        constant = np.log(8 * (alpha * self.side) ** 2)
        if is_number(sigma) and sigma == 0:
            cell = np.floor(_points(x).T / (alpha * self.side))
            dark = np.all((cell >= -2) & (cell < 2), axis=0) & (np.sum(cell, axis=0) % 2 == 0)
            return _typed(np.where(dark, 0.0, -np.inf) - constant, x)
        (left, _), (right, _) = (self._intervals(column, alpha, sigma) for column in _points(x).T)
        return _typed(logsumexp(self._dark(left, right), axis=(0, 1)) - constant, x)

    def score(self, x: Points, alpha: Time = 1.0, sigma: Time = 0.0) -> Points:
        """Return ∇ log p of αx₀ + σz, α > 0, σ > 0, x (B, 2) -> (B, 2)."""
        if is_number(sigma) and sigma == 0:
            raise ValueError("the checkerboard has no score without noise: its density has jumps; give sigma > 0")
        _check_level(alpha, sigma)
        (left, dleft), (right, dright) = (self._intervals(column, alpha, sigma) for column in _points(x).T)
        joint = self._dark(left, right)
        r = np.exp(joint - logsumexp(joint, axis=(0, 1)))
        return _typed(np.stack([np.sum(r * d, axis=(0, 1)) for d in (dleft[:, None], dright)], axis=1), x)

    def _intervals(self, x: Any, alpha: Time, sigma: Time) -> tuple[Any, Any]:
        """Of the four intervals of a side (4, B): log of their probability of x, and its derivative."""
        edges = self.side * np.arange(-2.0, 3.0)[:, None] * alpha
        u, v = (x - edges[:-1]) / sigma, (x - edges[1:]) / sigma
        near, far = np.where(v > 0, -v, u), np.where(v > 0, -u, v)  # Φ(u) - Φ(v) = Φ(-v) - Φ(-u): keep to the left tail
        log_near = log_ndtr(near)
        log_p = log_near + np.log(-np.expm1(log_ndtr(far) - log_near))
        du, dv = (np.exp(-0.5 * w * w - log_p) / math.sqrt(2 * math.pi) for w in (u, v))
        return log_p, (du - dv) / sigma

    @staticmethod
    def _dark(left: Any, right: Any) -> Any:
        """Log joint density (4, 4, B) of the squares, -inf for light ones."""
        dark = (np.arange(4)[:, None] + np.arange(4)) % 2 == 0
        return np.where(dark[..., None], left[:, None] + right, -np.inf)


@dataclass(frozen=True)
class Pinwheel:
    """Arms that are Gaussians on a ray, each point of which is turned by an angle that grows with its radius.

    f = (1 + radial z₁, tangential z₂) is turned by 2πk/arms + rate exp(|f|) and stretched by `scale`. As in Johnson et
    al. 2016, but for the angle, which there grows with the first coordinate of f: a turn by |f| keeps areas and can be
    undone, so that the density is that of f at the point turned back.

    Parameters
    ----------
    arms : int, default 5
        Number of arms.
    radial, tangential : float, default 0.3 and 0.1
        Standard deviations along an arm and across, before the stretch.
    rate : float, default 0.25
        How much the arms are bent.
    scale : float, default 2.0
        The stretch.

    Raises
    ------
    ValueError
        Unless arms >= 1, and radial, tangential and scale are positive.

    Examples
    --------
    >>> import numpy as np
    >>> from refscore.laws.plane import Pinwheel
    >>> Pinwheel(arms=1, radial=1.0, tangential=1.0, rate=0.0, scale=1.0).log_prob(np.array([[1.0, 0.0]])).round(4)
    array([-1.8379])
    """

    arms: int = 5
    radial: float = 0.3
    tangential: float = 0.1
    rate: float = 0.25
    scale: float = 2.0

    def __post_init__(self) -> None:
        settle(self, arms=1)
        check_range(-1e2, 1e2, rate=self.rate)
        check_positive(radial=self.radial, tangential=self.tangential, scale=self.scale)

    def sample(self, rng: Rng, n: int) -> Points:
        """Draw n points (n, 2) with rng, on the host."""
        check_like(rng=rng)
        n = check_count("n", n, 0)
        f = np.asarray([1.0, 0.0]) + rng.standard_normal((n, 2)) * [self.radial, self.tangential]
        return self.scale * _turned(f, self._bend(f) + 2 * math.pi / self.arms * rng.integers(0, self.arms, n))

    def log_prob(self, x: Points) -> Any:
        """Return the log density in nats, x (B, 2) -> (B,)."""
        y = _points(x) / self.scale
        each = [_turned(y, -self._bend(y) - 2 * math.pi / self.arms * k) for k in range(self.arms)]
        z = (np.stack(each) - [1.0, 0.0]) / [self.radial, self.tangential]
        constant = math.log(2 * math.pi * self.radial * self.tangential * self.scale**2 * self.arms)
        return _typed(logsumexp(-0.5 * np.sum(z * z, axis=2), axis=0) - constant, x)

    def _bend(self, f: Points) -> Any:
        return self.rate * np.exp(np.minimum(np.hypot(f[:, 0], f[:, 1]), 30.0))  # no point is as far out as that


def moons(rng: Rng, n: int, std: float = 0.2) -> Points:
    """Draw from two half circles of radius 2, the one reaching into the other, with Gaussian noise; the mean is 0.

    The upper is (2 cos t - 1, 2 sin t - ½) with t uniform on [0, π], the lower the upper turned by π. The density has
    no closed form.

    Parameters
    ----------
    rng : Rng
        Draws on the host.
    n : int
        Number of points.
    std : float, default 0.2
        Standard deviation of the noise, in each coordinate.

    Returns
    -------
    numpy.ndarray, shape (n, 2)
        The points.

    Raises
    ------
    TypeError, ValueError
        For an argument that cannot be what it is given as, by its name.
    """
    check_like(rng=rng)
    n = check_count("n", n, 0)
    check_range(0.0, 1e100, std=std)
    upper = 2 * _direction(math.pi * rng.random(n)) - [1.0, 0.5]
    return upper * (1 - 2 * rng.integers(0, 2, n))[:, None] + std * rng.standard_normal((n, 2))


def swissroll(rng: Rng, n: int, std: float = 0.2) -> Points:
    """Draw from the spiral t (cos t, sin t)/5, t uniform on [1½π, 4½π], with Gaussian noise.

    The density has no closed form.

    Parameters
    ----------
    rng, n : see `moons`
    std : float, default 0.2
        Standard deviation of the noise, in each coordinate.

    Returns
    -------
    numpy.ndarray, shape (n, 2)
        The points.

    Raises
    ------
    TypeError, ValueError
        For an argument that cannot be what it is given as, by its name.
    """
    check_like(rng=rng)
    n = check_count("n", n, 0)
    check_range(0.0, 1e100, std=std)
    t = math.pi * (1.5 + 3 * rng.random(n))
    return t[:, None] / 5 * _direction(t) + std * rng.standard_normal((n, 2))


def two_spirals(rng: Rng, n: int, std: float = 0.1) -> Points:
    """Draw from two spirals, ±t (-cos t, sin t)/3, with t = 3π√u and u uniform, with Gaussian noise.

    The density has no closed form.

    Parameters
    ----------
    rng, n : see `moons`
    std : float, default 0.1
        Standard deviation of the noise, in each coordinate.

    Returns
    -------
    numpy.ndarray, shape (n, 2)
        The points.

    Raises
    ------
    TypeError, ValueError
        For an argument that cannot be what it is given as, by its name.
    """
    check_like(rng=rng)
    n = check_count("n", n, 0)
    check_range(0.0, 1e100, std=std)
    t = 3 * math.pi * np.sqrt(rng.random(n))
    one = t[:, None] / 3 * _direction(math.pi - t)
    return one * (1 - 2 * rng.integers(0, 2, n))[:, None] + std * rng.standard_normal((n, 2))


def _points(x: Points) -> Points:
    """x (B, 2) in float64."""
    check_data("x", x)
    if not isinstance(x, np.ndarray) or x.ndim != 2 or x.shape[1] != 2 or not len(x):
        raise ValueError(f"points of the plane are a NumPy array (B, 2), got {type(x).__name__} of shape {x.shape}")
    if np.max(np.abs(x)) > 1e6:
        raise ValueError("x holds numbers beyond 1e6: so far out the differences of these laws are rounding")
    return np.asarray(x, dtype="float64")


def _check_level(alpha: Time, sigma: Time) -> None:
    """Of an array the values are not looked at."""
    for name, value in (("alpha", alpha), ("sigma", sigma)):
        if not is_number(value):
            check_kind(name, value)
        elif name == "alpha" or value != 0:
            check_range(1e-6, 1e6, **{name: plain(value)})


def _typed(y: Any, x: Points) -> Any:
    """What was computed in float64, in the dtype of x."""
    return y.astype(np.result_type(x, np.float32))


def _direction(angle: Any) -> Points:
    return np.stack([np.cos(angle), np.sin(angle)], axis=-1)


def _turned(x: Points, angle: Any) -> Points:
    c, s = np.cos(angle), np.sin(angle)
    return np.stack([c * x[:, 0] - s * x[:, 1], s * x[:, 0] + c * x[:, 1]], axis=1)


LAWS: dict[str, Callable[[], Any]] = {  # with sample(rng, n) and log_prob(x)
    "8gaussians": lambda: mixture("circle"),
    "circles": lambda: Rings((1.5, 3.0), 0.24),
    "rings": lambda: Rings((0.75, 1.5, 2.25, 3.0), 0.08),
    "checkerboard": Checkerboard,
    "pinwheel": Pinwheel,
}
CURVES: dict[str, Callable[[Rng, int], Points]] = {
    "moons": moons,
    "swissroll": swissroll,
    "2spirals": two_spirals,
}
