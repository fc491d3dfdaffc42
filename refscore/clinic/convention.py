"""How a patient's network is told the noise level, and what it predicts: labels to α and σ, a score to its answer."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from refscore.museum.readings import READINGS
from refscore.museum.samplers import Level

TOLD = {
    "index": "0 (least noise) to N - 1 of the schedule",
    "index-from-1": "1 (least noise) to N; 0 is the data",
    "index-over-n": "1/N to 1",
    "index-of-sigmas": "0 to L - 1 in the order of the list",
    "time": "t of the SDE, 0 at the data",
    "999-time": "999 t",
    "1000-time": "1000 t",
    "time-from-noise": "1 - t, 1 at the data",
    "sigma": "σ/α, with α = 1",
    "log-sigma-4": "¼ log σ/α, with α = 1, as EDM's networks are",
    "log-snr": "log α²/σ², with α² + σ² = 1",
}
SCALES = {"time": 1.0, "999-time": 999.0, "1000-time": 1000.0, "time-from-noise": -1.0}
STEP = 1e-6  # of differences of a function t -> (α, σ)
DATA = Level(1.0, 0.0, 0.0)  # the end of every walk


@dataclass(frozen=True)
class Convention:
    """What a network is told and what it predicts, on which schedule.

    Parameters
    ----------
    predicts : str, default "noise"
        "noise", "data", "denoiser", "score", "v", "velocity" (z - x₀), "velocity-to-data" (x₀ - z) or "F".
    told : str, default "index"
        A key of `TOLD`: what its second argument means.
    betas, alphas_bar, sigmas : sequence of floats, optional
        One of them: the schedule that the network was trained on, as its author has it.
    sde : SDE, or callable t -> (α, σ), optional
        Instead of a list.

    Raises
    ------
    ValueError
        For a name that is not known; unless what `told` needs is given.
    """

    predicts: str = "noise"
    told: str = "index"
    betas: Sequence[float] | None = None
    alphas_bar: Sequence[float] | None = None
    sigmas: Sequence[float] | None = None
    sde: Any = None
    levels: list[Level] = field(init=False, repr=False)  # of a list, from data to noise

    def __post_init__(self) -> None:
        for what, name, known in (("predicts", self.predicts, READINGS), ("told", self.told, TOLD)):
            if name not in known:
                raise ValueError(f"{what} must be one of {', '.join(known)}; got {name!r}")
        lists = [a for a in (self.betas, self.alphas_bar, self.sigmas) if a is not None]
        free = self.told in ("sigma", "log-sigma-4", "log-snr")
        if len(lists) + (self.sde is not None) > 1 or not (free or lists or self.sde is not None):
            raise ValueError(
                f"a network that is told {self.told!r} needs one of betas, alphas_bar, sigmas and sde: the schedule "
                "that it was trained on"
            )
        if not free and (self.told in SCALES) != (self.sde is not None):
            raise ValueError(f"told {self.told!r} goes with {'sde' if self.told in SCALES else 'a list of levels'}")
        pairs: list[tuple[float, float]] = []
        if self.sigmas is not None:
            pairs = [(1.0, float(s)) for s in self.sigmas]
            if self.told != "index-of-sigmas":
                pairs.sort(key=lambda pair: pair[1])
        elif lists:
            alphas_bar = [float(a) for a in self.alphas_bar] if self.alphas_bar is not None else []
            if self.betas is not None:
                alphas_bar = list(accumulate((1 - float(b) for b in self.betas), lambda a, b: a * b))
            pairs = [(math.sqrt(a), math.sqrt(1 - a)) for a in alphas_bar]
        object.__setattr__(self, "levels", [Level(a, s) for a, s in pairs])

    def knows(self, label: float) -> bool:
        """Whether the network was trained on what a label means, up to the rounding of single precision."""
        if self.told in SCALES or self.told == "index-over-n":
            t = 1 - label if self.told == "time-from-noise" else label / SCALES.get(self.told, 1.0)
            return (0.5 / len(self.levels) if self.levels else 0.0) - 1e-5 <= t <= 1 + 1e-5
        if self.told.startswith("index"):
            i = label - (self.told == "index-from-1")
            return -1e-3 <= i <= len(self.levels) - 1 + 1e-3
        return self.told != "sigma" or label >= 0

    def level(self, label: float) -> Level:
        """Return the α and σ that a label means; below the schedule are the data, beyond it is its last level.

        Raises
        ------
        ValueError, OverflowError
            For a label that means nothing: no number, or far beyond all levels.
        """
        if not math.isfinite(label):
            raise ValueError(f"{label} is no level")
        if self.told in SCALES:
            scale = SCALES[self.told]
            return self._at(1 - label if scale < 0 else label / scale)
        if self.told == "log-snr":
            return Level(1 / math.sqrt(1 + math.exp(-label)), 1 / math.sqrt(1 + math.exp(label)))
        if self.told in ("sigma", "log-sigma-4"):
            return Level(1.0, max(label, 0.0) if self.told == "sigma" else math.exp(4 * label))
        levels, n = self.levels, len(self.levels)
        i = label * n - 1 if self.told == "index-over-n" else label - (self.told == "index-from-1")
        near = round(i)
        if abs(i - near) < 1e-4 or not 0 < i < n - 1:
            return DATA if near < 0 else levels[min(near, n - 1)]
        low, high = (math.log(levels[j].ratio) for j in (math.floor(i), math.floor(i) + 1))
        ratio = math.exp(low + (i - math.floor(i)) * (high - low))  # between two indices, as diffusers has it
        alpha = 1 / math.sqrt(1 + ratio**2) if self.sigmas is None else 1.0
        return Level(alpha, ratio * alpha)

    def _at(self, t: float) -> Level:
        """The level at a time, with f, g, dα/dt and dσ/dt: those of the SDE, or by differences.

        A step may lead beyond the ends of time, and is as long as that; the level there is that of the end.
        """
        time, t = t, min(max(t, 0.0), 1.0)
        known = hasattr(self.sde, "alpha")
        scales = (lambda t: (float(self.sde.alpha(t)), float(self.sde.sigma(t)))) if known else self.sde
        low, high = max(t - STEP, 0.0), min(t + STEP, 1.0)
        (alpha, sigma), (a0, s0), (a1, s1) = scales(t), scales(low), scales(high)
        da, ds = (a1 - a0) / (high - low), (s1 - s0) / (high - low)
        if known and alpha:
            f, g = float(self.sde.f(t)), float(self.sde.g(t))
            da, ds = f * alpha, f * sigma + 0.5 * g**2 / sigma if sigma else ds
        else:
            f = da / alpha if alpha else -math.inf
            g = math.sqrt(max(2 * sigma * (ds - f * sigma), 0.0)) if alpha else math.inf
        return Level(float(alpha), float(sigma), time, f, g, float(da), float(ds), self._at)

    def stride(self, labels: Sequence[float]) -> float:
        """Return N//n of n labels, in their unit."""
        n = len(self.levels) or 1000
        return max(n // max(len(labels), 1), 1) / (n if self.told == "index-over-n" else 1)

    def answer(self, level: Level, mean: float, variance: float) -> tuple[float, float]:
        """The exact network on data N(mean, variance) answers p x + q at x = α x₀ + σ z: Eq. (17.2)."""
        alpha, sigma = level.alpha, level.sigma
        total = alpha**2 * variance + sigma**2
        noise = (sigma / total, -sigma * alpha * mean / total)
        data = (alpha * variance / total, sigma**2 * mean / total)
        mix = lambda a, b: (a * noise[0] + b * data[0], a * noise[1] + b * data[1])  # noqa: E731
        c = math.sqrt(level.ratio**2 + 0.25)
        gain = 2 * c / level.ratio if level.ratio else 0.0  # 1/c_out; F is 0 where there is no noise
        return {
            "noise": noise, "data": data, "denoiser": data, "score": (-1 / total, alpha * mean / total),
            "v": mix(alpha, -sigma), "velocity": mix(1.0, -1.0), "velocity-to-data": mix(-1.0, 1.0),
            "F": (gain * (data[0] - 0.25 / c**2), gain * data[1]),
        }[self.predicts]  # fmt: skip

    def scale(self, level: Level) -> float:
        """What the x that the network is given must be multiplied by to be α x₀ + σ z."""
        return math.sqrt(level.ratio**2 + 0.25) if self.predicts == "F" else 1.0


def spacing(levels: Sequence[Level], labels: Sequence[float]) -> str:
    """Say in what the steps of a grid are equal.

    Parameters
    ----------
    levels : sequence of Level
        Its levels.
    labels : sequence of floats
        What the network is told of them.

    Returns
    -------
    str
        In words.
    """
    if len(labels) < 3:
        return f"{len(labels)} levels"
    integer = all(abs(i - round(i)) < 1e-6 for i in labels)
    forms: dict[str, list[float]] = {"the label": list(labels)}
    if all(0 < level.ratio < math.inf for level in levels):
        forms["log σ/α"] = [math.log(level.ratio) for level in levels]
        forms["(σ/α)^(1/7), Karras et al."] = [level.ratio ** (1 / 7) for level in levels]
        forms["σ/α"] = [level.ratio for level in levels]
    if min(labels) >= 0:
        forms["the root of the label"] = [math.sqrt(i) for i in labels]
    off = {}
    for name, u in forms.items():
        n, span = len(u) - 1, u[-1] - u[0]
        if span:
            off[name] = max(abs(u[i] - u[0] - span * i / n) for i in range(len(u))) / abs(span)
    best = min(off, key=lambda name: off[name]) if off else "the label"
    rounding = 1.01 / abs(labels[-1] - labels[0]) if integer and best.endswith("label") else 1e-4
    if off.get(best, 1.0) > max(rounding, 1e-4):
        return "a grid of its own"
    return f"equal steps in {best}"


def index_grid(labels: Sequence[float], n: int) -> str:
    """Return the usual name of a choice of indices.

    Parameters
    ----------
    labels : sequence of floats
        Of 0 to n - 1, from noise to data.
    n : int
        Length of the chain.

    Returns
    -------
    str
        Such as "leading"; "" for another choice.
    """
    k = len(labels)
    if k == n:
        return "all"
    names: dict[str, list[float]] = {
        "leading": [float(i * (n // k)) for i in range(k)][::-1],
        "leading, offset 1": [float(i * (n // k) + 1) for i in range(k)][::-1],
        "trailing": [float(round(n - i * n / k) - 1) for i in range(k)],
        "linspace": [float(round((n - 1) * i / (k - 1))) for i in range(k)][::-1] if k > 1 else [],
    }
    for name, wanted in names.items():
        if len(wanted) == k and max(abs(a - b) for a, b in zip(labels, wanted, strict=True)) < 1:
            return name
    return ""
