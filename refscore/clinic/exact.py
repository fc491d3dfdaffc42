"""The exact model in somebody else's convention: what it predicts, what it is told, whose arrays. Chapter 17."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from refscore.clinic.arrays import host, place
from refscore.clinic.diagnosis import WRONG, Cause, Diagnosis
from refscore.laws.mixture import GaussianMixture
from refscore.library import array_namespace, device
from refscore.noise.parametrisation import PARAMETRISATIONS, affine
from refscore.noise.sde import log_ratio

PREDICTS = (*PARAMETRISATIONS, "denoiser", "velocity-to-data")
LINES = {  # what a label is of the time, k t + c; N is the number of steps
    "index": ("N", -1), "index-from-1": ("N", 0), "index-of-sigmas": ("-N", "N"), "index-over-n": (1, 0),
    "time": (1, 0), "999-time": (999, 0), "1000-time": (1000, 0), "time-from-noise": (-1, 1),
}  # fmt: skip
RATIOS = {"sigma", "log-sigma-4", "log-snr"}


@dataclass(frozen=True)
class Path:
    """The SDE of any α(t) and σ(t): rates by differences, times by interpolation.

    Parameters
    ----------
    of_time : callable t -> (α, σ)
        On arrays.
    """

    of_time: Callable[[Any], tuple[Any, Any]]

    @property
    def prior_std(self) -> float:
        """The deviation of the noise at t = 1."""
        return float(self.sigma(1.0))

    def alpha(self, t: Any) -> Any:
        """Return the signal scale α(t)."""
        return self.of_time(t)[0]

    def sigma(self, t: Any) -> Any:
        """Return the noise scale σ(t)."""
        return self.of_time(t)[1]

    def f(self, t: Any) -> Any:
        """Return d log α/dt."""
        low, high = t * (1 - 1e-5), t + (1 - t) * 1e-5
        return (self.alpha(high) - self.alpha(low)) / (high - low) / (self.alpha(t) + 1e-300)

    def g(self, t: Any) -> Any:
        """Return the root of dσ²/dt - 2 f σ²."""
        low, high = t * (1 - 1e-5), t + (1 - t) * 1e-5
        rise = (self.sigma(high) ** 2 - self.sigma(low) ** 2) / (high - low)
        return abs(rise - 2 * self.f(t) * self.sigma(t) ** 2) ** 0.5

    def time(self, sigma: Any) -> Any:
        """Return the time of σ, on a grid of 10 000."""
        return self._inverse(self.sigma, sigma)

    def time_at_log_ratio(self, ratio: Any) -> Any:
        """Return the time of log σ/α, on a grid of 10 000."""
        return self._inverse(lambda t: np.log(self.sigma(t) / self.alpha(t)), ratio)

    def _inverse(self, f: Callable[[Any], Any], value: Any) -> Any:
        t = np.geomspace(1e-6, 1 - 1e-9, 10_001)
        return np.interp(np.asarray(value), f(t), t)


@dataclass(frozen=True)
class TimeConvention:
    """What a model predicts and what it is told, and the way between that and scores and times of an SDE.

    Beside `Convention`, which knows the levels that labels mean, it finds the labels of given times.

    Parameters
    ----------
    sde : SDE, or callable t -> (α, σ)
        The noise; a chain for indices.
    predicts : str
        "score", "noise", "data", "v", "velocity" (z - x₀), "velocity-to-data" (x₀ - z), "F" or "denoiser", EDM's
        name of "data".
    told : str
        "index" (0 to N - 1, where i has the noise of step i + 1), "index-from-1", "index-of-sigmas" (0 has the most
        noise), "index-over-n", "time" (t), "999-time", "1000-time", "time-from-noise" (1 - t), "sigma" (σ/α),
        "log-sigma-4" (¼ log σ/α) or "log-snr" (2 log α/σ).

    Raises
    ------
    ValueError
        For other words; for an index and an SDE that is no chain.
    """

    sde: Any
    predicts: str
    told: str

    def __post_init__(self) -> None:
        for name, value, allowed in (("predicts", self.predicts, PREDICTS), ("told", self.told, (*LINES, *RATIOS))):
            if value not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(sorted(allowed))}; got {value!r}")
        if not hasattr(self.sde, "alpha"):
            object.__setattr__(self, "sde", Path(self.sde))
        if self.told.startswith("index") and not self.steps:
            raise ValueError(f"an index needs a chain, such as from_betas(betas); {self.sde} is none")

    @property
    def steps(self) -> int:
        """The number of steps of a chain; 0 of what is none."""
        return getattr(self.sde, "n", 0)

    @property
    def noise(self) -> str:
        """The SDE in few words."""
        return f"the noise is that of {f'a chain of {self.steps} steps' if self.steps else self.sde}"

    def _line(self) -> tuple[float, float]:
        named = {"N": self.steps, "-N": -self.steps}
        k, c = (named.get(v, v) for v in LINES[self.told])  # type: ignore[call-overload]
        return k, c

    def label(self, t: Any) -> Any:
        """Return what the model is told at the times t (B,) of NumPy."""
        if self.told in LINES:
            k, c = self._line()
            return (
                np.rint(k * t + c).astype("int64")
                if self.steps and self.told in ("index", "index-from-1", "index-of-sigmas")
                else k * t + c
            )
        ratio: Any = log_ratio(self.sde, t)
        return {"sigma": np.exp(ratio), "log-sigma-4": ratio / 4, "log-snr": -2 * ratio}[self.told]

    def time(self, label: Any) -> Any:
        """Return the times of labels, of any library; outside [0, 1] they mean nothing."""
        if self.told in LINES:
            k, c = self._line()
            return (label - c) / k
        with np.errstate(all="ignore"):
            ratio = {
                "sigma": lambda y: array_namespace(y).log(y),
                "log-sigma-4": lambda y: 4 * y,
                "log-snr": lambda y: -0.5 * y,
            }
            return self.sde.time_at_log_ratio(ratio[self.told](label))

    def affine(self, t: Any, predicts: str | None = None) -> tuple[Any, Any]:
        """Return a and b (B,) of q = a x + b s, of what it predicts or of another quantity."""
        name = predicts or self.predicts
        if name.startswith("velocity"):  # z - x₀, and not dx/dt: the same on straight paths
            sign, alpha, sigma = -1 if name == "velocity-to-data" else 1, self.sde.alpha(t), self.sde.sigma(t)
            return -sign / alpha, -sign * (sigma + sigma**2 / alpha)
        return affine("data" if name == "denoiser" else name, self.sde, t)

    def levels(self, n: int, least: float = 1e-3) -> Any:
        """Return up to n times from `least` (or the first step of a chain) to 1, equally spaced in log σ/α."""
        ends: Any = log_ratio(
            self.sde, np.asarray([1 / self.steps if self.steps else least, 1.0 if self.steps else 1 - 1e-9])
        )
        t = np.asarray(self.sde.time_at_log_ratio(np.linspace(ends[0], ends[1], n)))
        return (
            np.unique(np.clip(np.rint(t * self.steps), 1, self.steps)) / self.steps
            if self.steps
            else np.clip(t, 1e-9, 1 - 1e-9)
        )

    def exact(self, mixture: GaussianMixture, x: Any, t: Any, predicts: str | None = None) -> Any:
        """Return the exact prediction for x (B, D) at t (B,)."""
        a, b = (c[:, None] for c in self.affine(t, predicts))
        return a * x + b * mixture.score(x, self.sde.alpha(t), self.sde.sigma(t))


def network(way: TimeConvention, mixture: GaussianMixture, like: Any = None) -> Callable[[Any, Any], Any]:
    """Return the exact model (x, label) -> prediction, in the patient's library: its derivatives can be had there.

    Parameters
    ----------
    way : TimeConvention
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
        t = way.time(label)
        a, b = way.affine(t)
        return a[:, None] * x + b[:, None] * law.score(x, way.sde.alpha(t), way.sde.sigma(t))

    return model


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
    assumed : tuple of str, default ()
        What was taken for granted.

    Returns
    -------
    Diagnosis
        Whose verdict is "wrong".
    """
    return Diagnosis(kind, WRONG, "", (says,), (Cause(name, says, 0.0),), {}, assumed)


def ranked(guesses: Iterable[tuple[str, str, Any]], off: Callable[[Any], float], least: float) -> list[Cause]:
    """Return the causes that explain a patient best, each name once.

    Parameters
    ----------
    guesses : iterable of (name, sentence, answer)
        What a patient with that slip would answer.
    off : callable
        How far the patient is from an answer.
    least : float
        What is farther is no explanation.

    Returns
    -------
    list of Cause
        The nearest first, three at most; what was fitted comes after what is as near without.
    """
    best: dict[str, Cause] = {}
    for name, says, answer in guesses:
        gap = off(answer)
        if gap < (best[name].error if name in best else least):
            best[name] = Cause(name, says, gap)
    nearest = min((c.error for c in best.values()), default=0.0) + 0.1 * least
    fitted = ("constant-", "another-", "power-")

    def order(c: Cause) -> tuple[bool, int, float]:
        rank = next((i for i, start in enumerate(fitted, start=1) if c.name.startswith(start)), 0)
        return c.error > nearest, rank if c.error <= nearest else 0, c.error

    return sorted(best.values(), key=order)[:3]
