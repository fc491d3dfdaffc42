"""Weights λ(t): how much a noise level counts in training. Chapter 6."""

from dataclasses import dataclass

from refscore.arrays import constant, namespace
from refscore.checks import check_like, check_positive, check_range, check_time, is_number, settle
from refscore.protocols import SDE, Time


def sigma_squared(sde: SDE, t: Time) -> Time:
    """λ = σ²: every level counts alike, ½ E‖z - ẑ‖², Eq. (6.5); up to the ½ the "simple" loss of Ho et al. 2020.

    Parameters
    ----------
    sde : SDE
        Gives σ(t).
    t : float or Array, shape (B,) or (1,)
        Times in [0, 1].

    Returns
    -------
    float or Array, shape of t
        The weight λ(t).

    Raises
    ------
    TypeError
        For an argument that cannot be what it is given as, by its name.
    """
    check_like(sde=sde)
    return sde.sigma(t) ** 2


def g_squared(sde: SDE, t: Time) -> Time:
    """λ = g²: likelihood weighting; the excess bounds KL(data ‖ reverse SDE), up to the ends (arXiv 2101.09258).

    Parameters
    ----------
    sde, t : see `sigma_squared`

    Returns
    -------
    float or Array, shape of t
        The weight λ(t).

    Raises
    ------
    TypeError
        For an argument that cannot be what it is given as, by its name.
    """
    check_like(sde=sde)
    return sde.g(t) ** 2


def unweighted(sde: SDE, t: Time) -> Time:
    """λ = 1: the plain Fisher divergence, in which the smallest noise has the largest part.

    Parameters
    ----------
    sde, t : see `sigma_squared`

    Returns
    -------
    float or Array, shape of t
        Ones.

    Raises
    ------
    TypeError, ValueError
        For an argument that cannot be what it is given as, by its name.
    """
    return constant(1.0, check_time(t))


@dataclass(frozen=True)
class SigmaPower:
    """λ = σ^power: 2 is `sigma_squared`, the choice of Song and Ermon 2019; 0 is `unweighted`     Eq. (6.3).

    Parameters
    ----------
    power : float
        The exponent of σ.

    Raises
    ------
    TypeError
        For a power that is not a number.
    """

    power: float

    def __post_init__(self) -> None:
        settle(self)
        check_range(-100.0, 100.0, power=self.power)

    def __call__(self, sde: SDE, t: Time) -> Time:
        """The weight λ = σ(t)^power, in the shape of t."""
        check_like(sde=sde)
        return sde.sigma(t) ** self.power


@dataclass(frozen=True)
class MinSNR:
    """λ = σ² min(1, γ/SNR), SNR = α²/σ²: errors of the predicted data count min(SNR, γ)           Eq. (22.5).

    Hang et al. 2023 (arXiv 2303.09556): the simple loss, but for levels of little noise, which count less.

    Parameters
    ----------
    gamma : float, default 5.0
        γ, the SNR above which a level counts no more; without unit.

    Raises
    ------
    ValueError
        Unless gamma is positive and finite.

    Examples
    --------
    >>> from refscore.matching.weights import MinSNR
    >>> from refscore.noise.sde import LinearVE
    >>> MinSNR(4.0)(LinearVE(1.0), 0.25)  # SNR 16, of which 4 count
    0.015625
    """

    gamma: float = 5.0

    def __post_init__(self) -> None:
        settle(self)
        check_positive(gamma=self.gamma)

    def __call__(self, sde: SDE, t: Time) -> Time:
        """The weight λ = min(σ², γ σ⁴/α²), in the shape of t."""
        check_like(sde=sde)
        share = self.gamma * (sde.sigma(t) / sde.alpha(t)) ** 2  # γ/SNR
        least = min(1.0, share) if is_number(share) else namespace(share).minimum(share, constant(1.0, share))
        return sde.sigma(t) ** 2 * least
