"""Exact laws on a back end, and a float32 score for their float64 samples."""

from dataclasses import dataclass
from typing import Any

from refscore.laws.mixture import GaussianMixture
from refscore.library import array_namespace
from refscore_backends import Backend


def law_on(backend: Backend, law: GaussianMixture) -> GaussianMixture:
    """The law with float64 arrays of a back end.

    Parameters
    ----------
    backend : Backend
        Where to.
    law : GaussianMixture
        The law.

    Returns
    -------
    GaussianMixture
        The same law.
    """
    parts = (law.weights, law.means, law.covariances)
    return GaussianMixture(*(backend.asarray(part, "float64") for part in parts))


@dataclass(frozen=True)
class Widened:
    """A score in float32, for float64 samples, with its derivative.

    Parameters
    ----------
    score : callable (x, t) -> (B, ...)
        With a method jvp, as `model.bind(theta)` has.
    """

    score: Any

    def __call__(self, x: Any, t: Any) -> Any:
        """x (B, ...) -> (B, ...)."""
        xp = array_namespace(x)
        return xp.astype(self.score(*(xp.astype(a, xp.float32) for a in (x, t))), x.dtype)

    def jvp(self, x: Any, t: Any, v: Any) -> tuple[Any, Any]:
        """v (K, B, ...) -> s (B, ...) and ∇s v (K, B, ...)."""
        xp = array_namespace(x)
        s, sdot = self.score.jvp(*(xp.astype(a, xp.float32) for a in (x, t, v)))
        return xp.astype(s, x.dtype), xp.astype(sdot, x.dtype)
