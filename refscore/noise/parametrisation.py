"""One dictionary: score, noise, posterior mean, v, EDM's F and the flow's velocity say the same. Chapter 12.

At a given x and noise level each is an affine function of the score, q = a x + b s:

    score       s                                          a = 0         b = 1
    noise       E[z | x] = -σ s                            a = 0         b = -σ
    data        E[x₀ | x] = (x + σ² s)/α                   a = 1/α       b = σ²/α
    v           E[α z - σ x₀ | x]                          a = -σ/α      b = -σ (α² + σ²)/α
    F           (E[x₀ | x] - c_skip x/α)/c_out             a = ς²/((ς² + σ_d²) α c_out),   b = σ²/(α c_out)
    velocity    dx/dt of the probability flow              a = f         b = -½ g²

with EDM's c_skip = σ_d²/(ς² + σ_d²) and c_out = ς σ_d/√(ς² + σ_d²) of ς = σ/α. So any of them turns into any other
where b is not zero: q' = a' x + (b'/b)(q - a x).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from refscore.arrays import answer, beside, constant, namespace, per_sample
from refscore.checks import check_array, check_like, check_number, check_positive, settle
from refscore.library import array_namespace
from refscore.protocols import SDE, Array, HasRates, Time

Affine = tuple[Time, Time]  # a and b


def _edm(sde: SDE, t: Time, data_std: float) -> Affine:
    alpha, sigma = sde.alpha(t), sde.sigma(t)
    total = (sigma / alpha) ** 2 + data_std**2
    c_out = sigma / alpha * data_std / namespace(t).sqrt(total)
    return (sigma / alpha) ** 2 / (total * alpha * c_out), sigma**2 / (alpha * c_out)


def _v(sde: SDE, t: Time, data_std: float) -> Affine:
    alpha, sigma = sde.alpha(t), sde.sigma(t)
    return -sigma / alpha, -sigma * (alpha**2 + sigma**2) / alpha


PARAMETRISATIONS: dict[str, Callable[[SDE, Time, float], Affine]] = {
    "score": lambda sde, t, data_std: (constant(0.0, t), constant(1.0, t)),
    "noise": lambda sde, t, data_std: (constant(0.0, t), -sde.sigma(t)),
    "data": lambda sde, t, data_std: (1 / sde.alpha(t), sde.sigma(t) ** 2 / sde.alpha(t)),
    "v": _v,
    "F": _edm,
    "velocity": lambda sde, t, data_std: (sde.f(t), -0.5 * sde.g(t) ** 2),
}


def affine(name: str, sde: SDE, t: Time, data_std: float = 1.0) -> Affine:
    """Return a and b of q = a x + b s                                                             Eqs. (12.2), (12.3).

    Parameters
    ----------
    name : str
        A key of `PARAMETRISATIONS`: "score", "noise", "data", "v", "F" or "velocity".
    sde : SDE
        Its α, σ, f and g are used.
    t : float or Array
        Times in [0, 1]; above 0 for "F".
    data_std : float, default 1
        σ_d, the deviation of the data, used by "F" alone.

    Returns
    -------
    a, b : float or Array
        As t is.

    Raises
    ------
    ValueError
        For a name that is not in `PARAMETRISATIONS`.

    Examples
    --------
    >>> from refscore.noise.parametrisation import affine
    >>> from refscore.noise.sde import LinearVE
    >>> affine("data", LinearVE(2.0), 1.0)  # E[x₀ | x] = x + σ² s, σ = 2
    (1.0, 4.0)
    """
    check_like(sde=sde)
    if name not in PARAMETRISATIONS:
        raise ValueError(f"no parametrisation called {name!r}; there are {', '.join(PARAMETRISATIONS)}")
    check_positive(data_std=data_std)
    return PARAMETRISATIONS[name](sde, t, check_number("data_std", data_std))


def rates(sde: SDE, t: Time) -> Affine:
    """Return α' and σ': from the SDE itself if it has them, else f α and f σ + ½ g²/σ, by Eq. (7.8).

    Parameters
    ----------
    sde : SDE
        Its `rates` are asked, or its α, σ, f and g.
    t : float or Array
        Times in (0, 1].

    Returns
    -------
    two floats or Arrays
        As t is.

    Raises
    ------
    TypeError, ValueError
        For an argument that cannot be what it is given as, by its name.

    Examples
    --------
    >>> from refscore import VP, Rectified
    >>> from refscore.noise.parametrisation import rates
    >>> rates(Rectified(), 1.0)
    (-1.0, 1.0)
    >>> alpha, sigma = rates(VP(2.0, 2.0), 1.0)  # α = e^-t
    >>> round(alpha, 4)
    -0.3679
    """
    check_like(sde=sde)
    if isinstance(sde, HasRates):
        up, rise = sde.rates(t)
        return up, rise
    f, sigma = sde.f(t), sde.sigma(t)
    return f * sde.alpha(t), f * sigma + 0.5 * sde.g(t) ** 2 / sigma


def affine_in_mean(name: str, sde: SDE, t: Time, data_std: float = 1.0) -> Affine:
    """Return A and B of q = A x + B x̂₀, x̂₀ = E[x₀ | x]: finite also where α = 0                        Eq. (18.8).

    There the score is -x/σ² whatever the data are, and the velocity still says x̂₀. The noise does not: B = 0.

    Parameters
    ----------
    name : str
        A key of `PARAMETRISATIONS`.
    sde : SDE
        Its α, σ and their rates are used.
    t : float or Array
        Times in (0, 1].
    data_std : float, default 1
        σ_d, the deviation of the data, used by "F" alone.

    Returns
    -------
    A, B : float or Array
        As t is.

    Raises
    ------
    ValueError
        For a name that is not in `PARAMETRISATIONS`.

    Examples
    --------
    >>> from refscore import Rectified
    >>> from refscore.noise.parametrisation import affine_in_mean
    >>> affine_in_mean("velocity", Rectified(), 0.5), affine_in_mean("velocity", Rectified(), 1.0)  # (x - x̂₀)/t
    ((2.0, -2.0), (1.0, -1.0))
    """
    check_like(sde=sde)
    check_positive(data_std=data_std)
    alpha, sigma = sde.alpha(t), sde.sigma(t)
    if name == "data":
        return constant(0.0, t), constant(1.0, t)
    if name == "score":
        return -1 / sigma**2, alpha / sigma**2
    if name == "noise":
        return 1 / sigma, -alpha / sigma
    if name == "v":
        return alpha / sigma, -(alpha**2) / sigma - sigma
    if name == "velocity":
        up, rise = rates(sde, t)
        return rise / sigma, up - alpha * rise / sigma
    if name == "F":  # x̂₀ = α σ_d² x/w² + (σ σ_d/w) F, w² = σ² + α² σ_d²
        w2 = sigma**2 + (alpha * data_std) ** 2
        w = namespace(t).sqrt(w2)
        return -alpha * data_std / (sigma * w), w / (sigma * data_std)
    raise ValueError(f"no parametrisation called {name!r}; there are {', '.join(PARAMETRISATIONS)}")


def convert(q: Array, x: Array, t: Time, sde: SDE, source: str, target: str, data_std: float = 1.0) -> Array:
    """Turn one parametrisation of a score into another                                                   Eq. (12.4).

    Parameters
    ----------
    q : Array, shape (B, ...)
        The known quantity.
    x : Array, shape (B, ...)
        Noised samples.
    t : float, or Array of shape (1,) or (B,)
        Their time.
    sde : SDE
        Its α, σ, f and g are used.
    source, target : str
        What q is, and what is wanted: "score", "noise", "data", "v", "F" or "velocity".
    data_std : float, default 1
        σ_d, the deviation of the data, used by "F" alone.

    Returns
    -------
    Array, shape (B, ...)
        The target at the same x and t.

    Raises
    ------
    ValueError
        For unknown names, or q that has not the shape of x; for a t where the source does not determine the score
        (σ = 0, or g = 0 for the velocity), which in an array is looked for, so a GPU waits.

    Examples
    --------
    >>> import numpy as np
    >>> from refscore.noise.parametrisation import convert
    >>> from refscore.noise.sde import LinearVE
    >>> score, x = np.array([[-1.0]]), np.array([[6.0]])
    >>> convert(score, x, 1.0, LinearVE(2.0), "score", "data")  # x + σ² s, σ = 2
    array([[2.]])
    """
    check_like(sde=sde)
    check_array(x=x, q=q)
    check_positive(data_std=data_std)
    t = beside(t, x)
    q = answer(f"the {source}", q, x)
    if "F" in (source, target) and _any(t == 0):
        raise ValueError(f"at t = {t} there is no noise, and F is not defined")
    (a, b), (a2, b2) = (affine(name, sde, t, data_std) for name in (source, target))
    if _any(b == 0):
        raise ValueError(f"at t = {t} the {source} does not tell the score: there is no noise")
    a, b, a2, b2 = (per_sample(c, x) for c in (a, b, a2, b2))
    return a2 * x + b2 / b * (q - a * x)


def _any(found: Any) -> bool:
    return found if isinstance(found, bool) else bool(array_namespace(found).any(found))


def size(name: str, sde: SDE, t: Time, data_std: float) -> Time:
    """Return the root mean square of the target of a network that predicts q, for data of deviation σ_d  Eq. (12.5).

    For "score" it is that of the score itself times √(α² σ_d² + σ²), not that of -z/σ.

    Parameters
    ----------
    name : str
        A key of `PARAMETRISATIONS`.
    sde : SDE
        Its α, σ, f and g are used.
    t : float or Array
        Times in (0, 1].
    data_std : float
        σ_d, the deviation of the data.

    Returns
    -------
    float or Array
        As t is.

    Raises
    ------
    TypeError, ValueError
        For an argument that cannot be what it is given as, by its name.
    """
    check_like(sde=sde)
    check_positive(data_std=data_std)
    if name not in PARAMETRISATIONS:
        raise ValueError(f"no parametrisation called {name!r}; there are {', '.join(PARAMETRISATIONS)}")
    xp = namespace(t)
    alpha, sigma = sde.alpha(t), sde.sigma(t)
    if name == "data":
        return constant(data_std, t)
    if name == "v":
        return xp.sqrt(alpha**2 + (sigma * data_std) ** 2)
    if name == "velocity":  # α' x₀ + σ' z
        up, rise = rates(sde, t)
        return xp.sqrt((up * data_std) ** 2 + rise**2)
    return constant(1.0, t)


@dataclass(frozen=True)
class LossOf:
    """The weight λ = b² that makes a score loss the plain squared error of q: λ ½ ‖s - s*‖² = ½ ‖q - q*‖²  Eq. (12.6).

    `LossOf("noise")` is λ = σ², `LossOf("data")` σ⁴/α²: the same minimiser at each level, another emphasis.

    Parameters
    ----------
    name : str
        A key of `PARAMETRISATIONS`: the quantity q.
    data_std : float, default 1
        σ_d, the deviation of the data, used by "F" alone.

    Raises
    ------
    ValueError
        For a name that is not in `PARAMETRISATIONS`; unless data_std is positive and finite.
    """

    name: str
    data_std: float = 1.0

    def __post_init__(self) -> None:
        settle(self)
        check_positive(data_std=self.data_std)
        if self.name not in PARAMETRISATIONS:
            raise ValueError(f"no parametrisation called {self.name!r}; there are {', '.join(PARAMETRISATIONS)}")

    def __call__(self, sde: SDE, t: Time) -> Time:
        """Return the weight b(t)² of the score loss at t, a float or an array."""
        return affine(self.name, sde, t, self.data_std)[1] ** 2
