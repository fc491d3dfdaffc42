"""Langevin dynamics with the Metropolis correction: no bias at any step, where the density is known. Chapter 4."""

from collections.abc import Callable
from dataclasses import dataclass

from refscore.arrays import answer, ask, constant, per_sample, row_squares
from refscore.checks import check_array, check_like, check_positive, settle
from refscore.library import array_namespace
from refscore.protocols import Array, Rng, Score, Time


@dataclass(frozen=True)
class MALA:
    """A Langevin step that is taken with the probability that leaves p_t alone, else x stays            Eq. (4.7).

        A(x, y) = min(1, p(y) q(x | y) / (p(x) q(y | x))),   q(y | x) = N(y; x + ε s(x), 2ε I)

    The Metropolis-adjusted Langevin algorithm (Hastings 1970; Roberts and Tweedie 1996). Each sample decides for
    itself. The unadjusted chain, `Langevin`, has a bias of order ε; this one has none, and a step that is too large
    shows: nothing moves. It takes values of log p, which a score alone does not give; a mixture or an energy does.

    Parameters
    ----------
    score : callable (x, t) -> (B, ...)
        ∇ log p_t(x). With a score of another law the chain is still that of log_density, only slower.
    log_density : callable (x, t) -> (B,)
        log p_t(x) up to a constant of its own at each t: minus an energy.
    step : float
        ε, in squared data units.

    Raises
    ------
    ValueError
        For a step that is not positive; at the call, where log_density answers in another shape than (B,).

    Examples
    --------
    The same step as that of `Langevin`'s example, without its bias:

    >>> import numpy as np
    >>> from refscore import Repeat
    >>> from refscore.sampling.mala import MALA
    >>> kernel, rng = MALA(lambda x, t: -x, lambda x, t: -0.5 * x[:, 0] ** 2, step=0.5), np.random.default_rng(0)
    >>> x = Repeat(kernel, 20)(np.zeros((100_000, 1)), 0.5, rng)
    >>> print(round(x.var(), 1))
    1.0
    """

    score: Score
    log_density: Callable[[Array, Time], Array]
    step: float

    def __post_init__(self) -> None:
        settle(self)
        check_positive(step=self.step)

    def __call__(self, x: Array, t: float, rng: Rng) -> Array:
        """Move x (B, ...) -> (B, ...), some samples not at all; the time stays t."""
        check_array(x=x)
        check_like(rng=rng)
        eps, xp = self.step, array_namespace(x)
        z = rng.standard_normal(x.shape, dtype=x.dtype)
        y = x + eps * ask(self.score, x, t) + (2 * eps) ** 0.5 * z
        back = x - y - eps * ask(self.score, y, t)
        gain = self._log_p(y, t) - self._log_p(x, t) + 0.5 * row_squares(z) - row_squares(back) / (4 * eps)
        u = rng.random((x.shape[0],), dtype=x.dtype)
        taken = u < xp.exp(xp.minimum(gain, constant(0.0, gain)))  # a gain that is NaN is not taken
        return xp.where(per_sample(taken, x), y, x)

    def _log_p(self, x: Array, t: Time) -> Array:
        return answer("log_density", self.log_density(x, t), row_squares(x))
