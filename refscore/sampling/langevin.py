"""Langevin dynamics: sample from a density knowing only its score. Chapter 2."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

from refscore.arrays import ask
from refscore.checks import check_array, check_like, check_number, check_positive, plain, settle
from refscore.library import array_namespace
from refscore.protocols import SDE, Array, HasStableStep, Rng, Score


class StepSizeWarning(UserWarning):
    """The warning that a Langevin step is beyond its stability bound."""


@dataclass(frozen=True)
class Langevin:
    """One step of unadjusted Langevin dynamics, x + ε s(x, t) + √(2ε) z, z ~ N(0, I)          Eq. (2.4).

    A kernel: time does not move. `simulate` walks steps, and `First(Langevin(...), Stay())` is one.
    Parisi 1981; many papers write ε/2 and √ε, which is the same
    chain with a step named twice as large.

    Its law tends to p_t up to a bias of order ε, Eq. (2.7): on N(0, σ²) the stationary variance is
    σ²/(1 - ε/(2σ²)), and from ε = 2σ² on there is none: the chain diverges, Eqs. (2.5), (2.6).

    Parameters
    ----------
    score : callable (x, t) -> (B, ...)
        ∇ log p_t(x). If it has a method `stable_step(t)`, as `ExactScore` has, a step beyond that gives a warning.
    step : float, or callable t -> float
        ε, in squared data units. It may depend on t alone: a step that depends on x changes the law.

    Raises
    ------
    ValueError
        For a float step that is not positive.

    Warns
    -----
    StepSizeWarning
        When a step is at or beyond `stable_step(t)`.

    Examples
    --------
    >>> import numpy as np
    >>> from refscore import Langevin, Repeat
    >>> kernel, rng = Langevin(lambda x, t: -x, step=0.5), np.random.default_rng(0)  # the score of N(0, 1)
    >>> x = Repeat(kernel, 20)(np.zeros((100_000, 1)), 0.5, rng)
    >>> print(round(x.var(), 1))  # 1/(1 - ½ ε) = 4/3, and not 1
    1.3
    """

    score: Score
    step: float | Callable[[float], float]

    def __post_init__(self) -> None:
        settle(self)
        if not callable(self.step):
            check_positive(step=self.step)

    def __call__(self, x: Array, t: float, rng: Rng) -> Array:
        """Move x (B, ...) -> (B, ...); the time stays t."""
        check_array(x=x)
        eps = check_number("step(t)", self.step(t)) if callable(self.step) else self.step
        check_positive(step=eps)
        if isinstance(self.score, HasStableStep) and eps >= (bound := self.score.stable_step(t)):
            warnings.warn(
                f"Langevin step {eps:.3g} at t = {t:.3g} is at or beyond {bound:.3g}, twice the smallest variance: "
                "there the chain overshoots by more than it was away, and diverges on a single Gaussian",
                StepSizeWarning,
                stacklevel=2,
            )
        check_like(rng=rng)
        z = rng.standard_normal(x.shape, dtype=x.dtype)
        return x + eps * ask(self.score, x, t) + (2 * eps) ** 0.5 * z


@dataclass(frozen=True)
class LevelStep:
    """The step size of annealed Langevin dynamics, ε(t) = ε σ(t)²/σ_L²                             Eq. (6.7).

    Song and Ermon 2019, Algorithm 1.
    The same fraction ε/σ_L² of the noise variance at every level: each level is as stable, and mixes as well
    within a mode, as the last. Their ε/2 is our ε.

    Parameters
    ----------
    sde : SDE
        Whose σ(t) is the noise level at t.
    step : float
        ε at the last level, in squared data units.
    last : float
        σ_L, the smallest noise level, in data units.

    Raises
    ------
    ValueError
        Unless step and last are positive.

    Examples
    --------
    >>> from refscore.noise.sde import LinearVE
    >>> from refscore.sampling.langevin import LevelStep
    >>> LevelStep(LinearVE(8.0), step=0.5, last=1.0)(0.25)  # σ = 2: four times the last step
    2.0
    """

    sde: SDE
    step: float
    last: float

    def __post_init__(self) -> None:
        settle(self)
        check_positive(step=self.step, last=self.last)

    def __call__(self, t: float) -> float:
        """Return ε(t), in squared data units, for a float t."""
        return plain(self.step * (self.sde.sigma(t) / self.last) ** 2)


@dataclass(frozen=True)
class SNRLangevin:
    """The step size rule of Song et al. 2021's corrector, sample by sample. An exhibit: its law is not p_t.

        ε = 2 (r ‖z‖/‖s‖)²                                                              Eq. (10.14)

    As ε depends on x and z, another law than p_t stays as it is, and not even a near one for small r: on N(0, I), as
    r -> 0, p(x) ∝ ‖x‖² exp(-‖x‖²/2v) with v = (D + 2)/D, whose variance is ((D + 2)/D)² times too large. And at any r
    a sample that comes near the mode, where s = 0, is thrown far out: in D <= 4 the variance is infinite.
    (The published code takes means of both norms over the batch, which hides this for large batches and
    makes every sample depend on its neighbours.) Use `Langevin` with a step that depends on t alone.

    Parameters
    ----------
    score : callable (x, t) -> (B, ...)
        ∇ log p_t(x).
    snr : float
        r, positive, without unit.

    Raises
    ------
    ValueError
        Unless snr > 0.
    """

    score: Score
    snr: float

    def __post_init__(self) -> None:
        settle(self)
        check_positive(snr=self.snr)

    def __call__(self, x: Array, t: float, rng: Rng) -> Array:
        """Move x (B, ...) -> (B, ...); the time stays t."""
        xp, axes = array_namespace(x), tuple(range(1, x.ndim))
        s = ask(self.score, x, t)
        check_like(rng=rng)
        z = rng.standard_normal(x.shape, dtype=x.dtype)
        z2, s2 = (xp.sum(a * a, axis=axes, keepdims=True) for a in (z, s))
        eps = 2 * self.snr**2 * z2 / s2
        return x + eps * s + xp.sqrt(2 * eps) * z
