"""The toy results of Song and Ermon 2019, measured again: claim, measurement, match or mismatch. Chapter 5.

What a seed has measured is kept in the output folder under a name that holds its settings, so an interrupted run goes
on where it stopped.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from refscore.data.files import read_arrays, save_arrays
from refscore.experiments.failures import (
    LowDensity,
    Show,
    Weights,
    low_density,
    manifold_curve,
    manifold_floor,
    weights,
)
from refscore_backends import Backend, get

NOISE = 0.1  # what cures the circle
FALLS = 0.2  # a loss that falls by more, from the second to the last quarter, has not settled
SETTLED = 0.05  # a loss that is less above its floor has found it


@dataclass(frozen=True)
class Claim:
    """What was published, what was measured, and whether they agree."""

    where: str
    claim: str
    measured: str
    match: bool


@dataclass(frozen=True)
class Results:
    """Everything that was measured, one entry a seed."""

    bare: list[Any]  # loss curves on the circle, without noise
    noised: list[Any]  # and with
    density: list[LowDensity]
    weights: list[Weights]


def measure_seed(
    out: Path, seed: int, steps: int, show: Show, backend: Backend | None = None
) -> tuple[Any, Any, LowDensity, Weights]:
    """What one seed measures, an entry for each field of `Results`: run if it is not in the folder yet, else loaded.

    Rounding differs between libraries, and after many steps of training it shows: each has files of its own.
    """
    backend = backend or get("numpy")
    short, own = _short(steps), seed if backend.name == "numpy" else f"{seed}-{backend.name}"

    def curve(noise: float, before: int) -> dict[str, Any]:
        return {"curve": manifold_curve(noise, short, seed, _after(before, show), backend)}

    low = _after(2 * short, show)
    parts: list[tuple[Path, Callable[[], Any], Collection[str]]] = [
        (out / f"manifold-0-{short}-{own}.npz", lambda: curve(0.0, 0), ["curve"]),
        (out / f"manifold-{NOISE:g}-{short}-{own}.npz", lambda: curve(NOISE, short), ["curve"]),
        (
            out / f"density-{steps}-{own}.npz",
            lambda: asdict(low_density(steps, seed, low, backend=backend)),
            LowDensity.__annotations__,
        ),
        (out / f"weights-{own}.npz", lambda: asdict(weights(seed, backend=backend)), Weights.__annotations__),
    ]
    for path, _, names in parts:  # what is damaged is said before anything is computed
        if path.exists():
            _read(path, names)
    for path, compute, _ in parts:
        if not path.exists():
            save_arrays(path, **compute())
    bare, noised, density, moded = (_read(path, names) for path, _, names in parts)
    show(work(steps), f"seed {seed} done")
    return bare["curve"], noised["curve"], LowDensity(**density), Weights(**moded)


def work(steps: int) -> int:
    """How many training steps a seed takes: the length of its progress bar."""
    return 2 * _short(steps) + 2 * steps


def _short(steps: int) -> int:
    """The circle is learned faster than the mixture."""
    return 3 * steps // 10


def _after(before: int, show: Show) -> Show:
    """A part of a longer progress bar."""
    return lambda step, words: show(before + step, words)


def _read(path: Path, names: Collection[str]) -> dict[str, Any]:
    """The arrays of these names in a file that was kept; numbers come back as numbers.

    Raises
    ------
    ValueError
        If the file holds anything else: it is not ours to overwrite.
    """
    try:
        arrays = read_arrays(path)
        if set(arrays) != set(names):
            raise ValueError(f"it holds {sorted(arrays)}, not {sorted(names)}")
        if any(array.dtype.kind not in "fiu" for array in arrays.values()):
            raise ValueError("it holds what is not a number")
    except Exception as error:  # whatever a reader says of a damaged file
        raise ValueError(f"{path} is not what was kept there ({error}); delete it to have it measured again") from error
    return {name: array if array.ndim else float(array) for name, array in arrays.items()}


# ------------------------------------------------------------------ the claims


def song_ermon_2019(r: Results) -> list[Claim]:
    """Figures 1 to 3 of Song and Ermon 2019, at toy scale."""

    floor = manifold_floor(NOISE)
    bare, excess = [fall(c) for c in r.bare], [excess_over_floor(c) for c in r.noised]
    low, high = (np.array([np.mean(d.deciles[part]) for d in r.density]) for part in (slice(0, 3), slice(9, 10)))
    walked, annealed = (np.array([np.max(getattr(d, way)) for d in r.density]) for way in ("walk", "walk_annealed"))
    plain, recovered = (np.array([getattr(w, way) for w in r.weights]) for way in ("plain", "annealed"))
    law, loss = r.weights[0], [np.mean(c[-15:]) for c in r.bare]
    allowed = 6.11 * law.error + 1e-3  # false alarm 1e-9, and the width of the grid's cells
    return [
        Claim(
            "Figure 1, left",
            "on a manifold the sliced score matching loss does not settle",
            f"it falls by {_spread(bare, '.0%')} of itself from the second to the last quarter of training, "
            f"to {_spread(loss, '.3g')}",
            min(bare) > FALLS,
        ),
        Claim(
            "Figure 1, right",
            "with a little noise it does",
            f"with noise {NOISE:g} its last quarter is {_spread(excess, '.1%')} above -½E‖s‖² = {floor:.4g}, "
            "the least possible",
            max(excess) < SETTLED,
        ),
        Claim(
            "Figure 2",
            "the learned score is right where the density is high, and wrong where it is low",
            f"relative error {_spread(low, '.2g')} in the three least dense tenths of the box, "
            f"{_spread(high, '.2g')} in the densest",
            bool(np.min(low / high) > 10),
        ),
        Claim(
            "Section 4",
            "noise at many levels gives a good score wherever the sampler comes",
            f"worst relative error at the end of a level of annealed Langevin {_spread(annealed, '.2g')}, "
            f"on the way of plain Langevin {_spread(walked, '.2g')}",
            bool(np.max(annealed) < 0.05 and np.min(walked) > 0.1),
        ),
        Claim(
            "Figure 3, middle",
            "Langevin dynamics with the exact score loses the weights .8 and .2",
            f"weight {_spread(plain, '.4f')} ± {law.error:.4f}; the law of the same chain has {law.plain_law:.4f}",
            bool(np.all(np.abs(plain - law.plain_law) < allowed) and np.all(np.abs(plain - 0.8) > allowed)),
        ),
        Claim(
            "Figure 3, right",
            "annealed Langevin dynamics recovers them",
            f"weight {_spread(recovered, '.4f')} ± {law.error:.4f}; the law of the same chain has "
            f"{law.annealed_law:.4f}, near .8 and not equal to it",
            bool(np.all(np.abs(recovered - law.annealed_law) < allowed) and abs(law.annealed_law - 0.8) < 0.05),
        ),
    ]


def fall(curve: Any) -> float:
    """How much lower the last quarter is than the second, relative to itself."""
    quarters = [np.mean(part) for part in np.array_split(curve, 4)]
    return float((quarters[1] - quarters[3]) / abs(quarters[3]))


def excess_over_floor(curve: Any) -> float:
    """How far the last quarter is above the least possible, relative to it."""
    floor = manifold_floor(NOISE)
    return float(np.mean(curve[-15:]) - floor) / abs(floor)


def _spread(values: Sequence[float] | Any, form: str) -> str:
    """'median (least to greatest)' over the seeds."""
    low, mid, high = (format(float(f(values)), form) for f in (np.min, np.median, np.max))
    return mid if len(values) == 1 else f"{mid} ({low} to {high})"
