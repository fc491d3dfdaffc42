"""The exact model in somebody else's convention: what it predicts, what it is told, whose arrays. Chapter 17."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from refscore.clinic.diagnosis import WRONG, Cause, Diagnosis
from refscore.laws.mixture import GaussianMixture
from refscore.library import array_namespace, device
from refscore.noise.parametrisation import PARAMETRISATIONS, affine
from refscore.noise.sde import log_ratio
from refscore.protocols import SDE

PREDICTS = (*PARAMETRISATIONS, "denoiser")
TOLD = ("index", "time", "sigma", "log-snr")


@dataclass(frozen=True)
class Convention:
    """What a model predicts and what it is told, and the way between that and scores and times.

    Parameters
    ----------
    sde : SDE
        The noise; a chain for "index".
    predicts : str
        A key of `PARAMETRISATIONS`, or "denoiser", EDM's name of "data".
    told : str
        "index" (0 to N - 1, where i has the noise of step i + 1), "time" (t), "sigma" (σ/α) or "log-snr" (2 log α/σ).

    Raises
    ------
    ValueError
        For other words; for "index" and an SDE that is no chain.
    """

    sde: SDE
    predicts: str
    told: str

    def __post_init__(self) -> None:
        for name, value, allowed in (("predicts", self.predicts, PREDICTS), ("told", self.told, TOLD)):
            if value not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}; got {value!r}")
        if self.told == "index" and not hasattr(self.sde, "n"):
            raise ValueError(f"an index needs a chain, such as from_betas(betas); {self.sde} is none")

    @property
    def noise(self) -> str:
        """The SDE in few words."""
        return f"the noise is that of a chain of {self.sde.n} steps" if hasattr(self.sde, "n") else f"the noise is {self.sde}"

    def label(self, t: Any) -> Any:
        """Return what the model is told at the times t (B,) of NumPy."""
        if self.told == "index":
            return np.rint(t * self.sde.n).astype("int64") - 1  # type: ignore[attr-defined]
        ratio = log_ratio(self.sde, t)
        return {"time": t, "sigma": np.exp(ratio), "log-snr": -2 * ratio}[self.told]

    def time(self, label: Any) -> Any:
        """Return the times of labels; outside [0, 1] they mean nothing."""
        label = np.asarray(label, dtype="float64")
        if self.told in ("index", "time"):
            return (label + 1) / self.sde.n if self.told == "index" else label  # type: ignore[attr-defined]
        with np.errstate(all="ignore"):
            return np.asarray(self.sde.time_at_log_ratio(np.log(label) if self.told == "sigma" else -0.5 * label))

    def affine(self, t: Any, predicts: str | None = None) -> tuple[Any, Any]:
        """Return a and b (B,) of q = a x + b s, of what it predicts or of another quantity."""
        name = predicts or self.predicts
        return affine("data" if name == "denoiser" else name, self.sde, np.clip(t, 1e-12, 1.0))  # type: ignore[return-value]

    def exact(self, mixture: GaussianMixture, x: Any, t: Any, predicts: str | None = None) -> Any:
        """Return the exact prediction for x (B, D) at t (B,)."""
        t = np.clip(t, 1e-12, 1.0)
        a, b = (c[:, None] for c in self.affine(t, predicts))
        return a * x + b * mixture.score(x, self.sde.alpha(t), self.sde.sigma(t))


def network(way: Convention, mixture: GaussianMixture, like: Any = None) -> Callable[[Any, Any], Any]:
    """Return the exact model (x, label) -> prediction, in the patient's library: its derivatives can be had there.

    Parameters
    ----------
    way : Convention
        What it predicts, and what it is told.
    mixture : GaussianMixture
        The law of the data, in NumPy.
    like : array, optional
        One of the patient's arrays; NumPy's float64 by default.

    Returns
    -------
    callable (x (B, D), label number or (B,)) -> (B, D)
        The model.
    """
    law = GaussianMixture(*(place(a, like) for a in (mixture.weights, mixture.means, mixture.covariances)))

    def model(x: Any, label: Any) -> Any:
        xp = array_namespace(x)
        label = xp.reshape(xp.asarray(label, dtype=x.dtype, device=device(x)), (-1,))
        t = (label + 1) / way.sde.n if way.told == "index" else label  # type: ignore[attr-defined]
        if way.told in ("sigma", "log-snr"):
            t = way.sde.time_at_log_ratio(xp.log(label) if way.told == "sigma" else -0.5 * label)
        a, b = affine("data" if way.predicts == "denoiser" else way.predicts, way.sde, t)
        return a[:, None] * x + b[:, None] * law.score(x, way.sde.alpha(t), way.sde.sigma(t))

    return model


def host(a: Any) -> Any:
    """Return numbers of any library as float64 in NumPy.

    Parameters
    ----------
    a : array or number
        Of NumPy, torch, JAX, CuPy.

    Returns
    -------
    numpy.ndarray
        The same numbers.
    """
    for leave in ("detach", "cpu", "get"):  # the graph of torch, and a device
        a = getattr(a, leave)() if hasattr(a, leave) and hasattr(a, "shape") else a
    return np.asarray(a, dtype="float64")


def place(a: Any, like: Any = None) -> Any:
    """Return numbers of NumPy as an array of the patient's library, dtype and device; integers stay integers.

    Parameters
    ----------
    a : numpy.ndarray
        The numbers.
    like : array, optional
        One of the patient's; NumPy's float64 by default.

    Returns
    -------
    array
        The same numbers.
    """
    if like is None or isinstance(like, np.ndarray):
        return a if like is None or a.dtype.kind == "i" else a.astype(like.dtype)
    xp = array_namespace(like)
    return xp.asarray(np.array(a), dtype=xp.int64 if a.dtype.kind == "i" else like.dtype, device=device(like))


def asked(kind: str, run: Callable[[], Any], shape: tuple[int, ...]) -> Any:
    """Return what a patient answers as float64, or the diagnosis of one who fails to answer.

    Parameters
    ----------
    kind : str
        Of the diagnosis.
    run : callable
        Asks the patient.
    shape : tuple of int
        Which the answer must have.

    Returns
    -------
    numpy.ndarray or Diagnosis
        The answer, or what is wrong.
    """
    try:
        found = host(run())
    except Exception as error:  # a patient may raise anything
        return failed(kind, "raises", f"it raises {type(error).__name__}: {error}")
    if found.shape != shape:
        return failed(kind, "wrong-shape", f"it answers with shape {found.shape} where {shape} is due")
    if not np.isfinite(found).all():
        return failed(kind, "not-finite", f"{np.sum(~np.isfinite(found))} of {found.size} numbers are not finite")
    return found


def failed(kind: str, name: str, says: str, assumed: tuple[str, ...] = ()) -> Diagnosis:
    """Return the diagnosis of a patient of which nothing more can be said.

    Parameters
    ----------
    kind, name, says : str
        Of the diagnosis and of its cause.
    assumed : tuple of str, optional
        What was taken for granted.

    Returns
    -------
    Diagnosis
        Whose verdict is "wrong".
    """
    return Diagnosis(kind, WRONG, "", (says,), (Cause(name, says, 0.0),), {}, assumed)


def levels(sde: SDE, n: int, least: float = 1e-3) -> Any:
    """Return up to n times from `least` (or the first step of a chain) to 1, equally spaced in log σ/α.

    Parameters
    ----------
    sde : SDE
        The noise.
    n : int
        Number of times.
    least : float, default 0.001
        The first of them.

    Returns
    -------
    numpy.ndarray
        Rising; of a chain, times i/N.
    """
    steps = getattr(sde, "n", None)
    ends = log_ratio(sde, np.asarray([1 / steps if steps else least, 1.0 - 1e-9 * (steps is None)]))
    t = np.asarray(sde.time_at_log_ratio(np.linspace(ends[0], ends[1], n)))
    return np.unique(np.clip(np.rint(t * steps), 1, steps)) / steps if steps else np.clip(t, 0.0, 1.0)
