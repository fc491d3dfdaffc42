"""Published toy results, measured again: claim, measurement, match or mismatch. Chapter 5.

What a seed has measured is kept in the output folder under a name that holds its settings, so an interrupted run goes
on where it stopped.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from refscore.data import mixture
from refscore.failures import (
    BOX,
    LEVELS,
    WALK,
    LowDensity,
    Show,
    Weights,
    low_density,
    manifold_curve,
    manifold_floor,
    weights,
)
from refscore.files import read_arrays, save_arrays, save_json, writable_folder
from refscore.plots import EXACT, INK, LEARNED, density, figure, save
from refscore.progress import progress

Say = Callable[[str], None]
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


def run(name: str, out: Path, seeds: int, steps: int, say: Say = print) -> list[Claim]:
    """Reproduce a paper's toy results; prints the claims, writes claims.json and figures into `out`.

    Raises
    ------
    ValueError, OSError
        Before any work: unknown name, seeds < 1, steps < 600, unwritable folder.
    """
    if name not in PAPERS:
        raise ValueError(f"nothing called {name!r} to reproduce; there is {', '.join(PAPERS)}")
    if seeds < 1:
        raise ValueError(f"seeds must be at least 1, got {seeds}")
    if steps < 600:
        raise ValueError(f"steps must be at least 600, or nothing is learned; got {steps}")
    writable_folder(out)
    results = measure(out, range(seeds), steps, say)
    claims = PAPERS[name][1](results)
    save_json(out / "claims.json", [asdict(claim) for claim in claims])  # before anything is printed
    for claim in claims:
        say(f"\n{claim.where}: {claim.claim}\n  measured  {claim.measured}\n  {'match' if claim.match else 'MISMATCH'}")
    say(f"\nnumbers: {out / 'claims.json'}")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        say('no pictures: matplotlib is not installed (pip install -e ".[plots]" in the checkout)')
        return claims
    pictures = [
        save(draw(results), out / f"{stem}.png")
        for stem, draw in (("manifold", draw_manifold), ("density", draw_density), ("weights", draw_weights))
    ]
    say(f"pictures: {', '.join(pictures)}")
    return claims


def measure(out: Path, seeds: Sequence[int], steps: int, say: Say = print) -> Results:
    """Run what is not in the folder yet, load what is."""
    each = []
    for seed in seeds:
        with progress(_short(steps) * 2 + steps * 2, say) as show:
            each.append(_measure(out, seed, steps, show))
    return Results(*(list(column) for column in zip(*each, strict=True)))


def _measure(out: Path, seed: int, steps: int, show: Show) -> tuple[Any, Any, LowDensity, Weights]:
    short = _short(steps)

    def kept(name: str, compute: Callable[[], dict[str, Any]], names: Collection[str]) -> dict[str, Any]:
        return _kept(out / f"{name}-{seed}.npz", compute, names)

    def curve(noise: float, before: int) -> dict[str, Any]:
        return {"curve": manifold_curve(noise, short, seed, _after(before, show))}

    bare = kept(f"manifold-0-{short}", lambda: curve(0.0, 0), ["curve"])["curve"]
    noised = kept(f"manifold-{NOISE:g}-{short}", lambda: curve(NOISE, short), ["curve"])["curve"]
    low = _after(2 * short, show)
    density = kept(f"density-{steps}", lambda: asdict(low_density(steps, seed, low)), LowDensity.__annotations__)
    moded = kept("weights", lambda: asdict(weights(seed)), Weights.__annotations__)
    show(2 * short + 2 * steps, f"seed {seed} done")
    return bare, noised, LowDensity(**density), Weights(**moded)


def _short(steps: int) -> int:
    """The circle is learned faster than the mixture."""
    return 3 * steps // 10


def _after(before: int, show: Show) -> Show:
    """A part of a longer progress bar."""
    return lambda step, words: show(before + step, words)


def _kept(path: Path, compute: Callable[[], dict[str, Any]], names: Collection[str]) -> dict[str, Any]:
    """The arrays of these names in the file, or computed and put there; numbers come back as numbers.

    Raises
    ------
    ValueError
        If there is a file that holds anything else: it is not ours to overwrite.
    """
    if not path.exists():
        save_arrays(path, **compute())
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
    bare, excess = [_fall(c) for c in r.bare], [_excess(c) for c in r.noised]
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


def _fall(curve: Any) -> float:
    """How much lower the last quarter is than the second, relative to itself."""
    quarters = [np.mean(part) for part in np.array_split(curve, 4)]
    return float((quarters[1] - quarters[3]) / abs(quarters[3]))


def _excess(curve: Any) -> float:
    """How far the last quarter is above the least possible, relative to it."""
    floor = manifold_floor(NOISE)
    return float(np.mean(curve[-15:]) - floor) / abs(floor)


def _spread(values: Sequence[float] | Any, form: str) -> str:
    """'median (least to greatest)' over the seeds."""
    low, mid, high = (format(float(f(values)), form) for f in (np.min, np.median, np.max))
    return mid if len(values) == 1 else f"{mid} ({low} to {high})"


PAPERS: dict[str, tuple[str, Callable[[Results], list[Claim]]]] = {
    "song-ermon-2019": ("three failures of score matching, and noise as their cure (Figures 1 to 3)", song_ermon_2019),
}


# ------------------------------------------------------------------ the figures


def draw_manifold(r: Results) -> Any:
    """The loss on the circle without noise and with it; the titles say what was measured."""
    fig, (axes,) = figure(2)
    at = (np.arange(60) + 0.5) / 60
    falls, above = min(map(_fall, r.bare)), max(map(_excess, r.noised))
    for ax, curves, color, title in (
        (axes[0], r.bare, LEARNED, f"data on a circle: the loss {'goes on falling' if falls > FALLS else 'settles'}"),
        (axes[1], r.noised, EXACT, f"noise σ = {NOISE:g}: it ends {above:z.1%} above its floor"),
    ):
        for curve in curves:
            ax.plot(at, curve, color=color, lw=1)
        ax.set(xlabel="part of training", ylabel="sliced score matching loss", title=title)
    low = manifold_floor(NOISE)
    axes[1].axhline(low, color=INK, lw=0.8, label="-½ E‖s‖², exact")
    later = [curve[6:] for curve in r.noised]  # the first fall is high
    least, most = min(low, np.min(r.noised)), max(low, np.max(later))
    pad = 0.05 * (most - least) + 1e-3 * abs(low)
    axes[1].set_ylim(least - pad, most + pad)
    axes[1].legend(fontsize=8)
    return fig


def draw_density(r: Results) -> Any:
    """Where the error is, by place, by density, and on the way of a sampler."""
    fig, (axes,) = figure(3, size=4.2)
    p, box = mixture("two-modes"), (-BOX, BOX, -BOX, BOX)
    image = axes[0].imshow(
        np.mean([d.errors for d in r.density], axis=0).T, origin="lower", extent=box, cmap="RdYlBu_r", vmin=-4, vmax=1
    )
    axis = np.linspace(-BOX, BOX, 120)
    nodes = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    axes[0].contour(
        axis, axis, p.log_prob(nodes).reshape(120, 120), levels=[-12, -8, -5, -3], colors=INK, linewidths=0.6
    )
    axes[0].set(xlabel="$x_1$", ylabel="$x_2$", title="log₁₀ relative error, learned without noise")
    fig.colorbar(image, ax=axes[0], shrink=0.8, extend="both")

    tenth = np.arange(1, 11)
    for d in r.density:
        axes[1].semilogy(tenth, d.deciles, "o-", color=LEARNED, lw=1, ms=3)
        axes[1].semilogy(tenth, d.deciles_noised, "s-", color=EXACT, lw=1, ms=3)
    axes[1].legend(["data as they are", f"noise level σ = {LEVELS[0]:g}"], fontsize=8)
    axes[1].set(xlabel="tenth of the box, from the least dense", ylabel="relative score error", title="by density")

    for d in r.density:
        axes[2].loglog(np.maximum(WALK, 0.5), d.walk, "o-", color=LEARNED, lw=1, ms=3)
        axes[2].loglog(100 * np.arange(1, len(LEVELS) + 1), d.walk_annealed, "s-", color=EXACT, lw=1, ms=3)
    axes[2].legend(["plain Langevin", "annealed Langevin"], fontsize=8)
    axes[2].set(xlabel="step (the start is drawn at ½)", ylabel="relative score error", title="where the sampler is")
    return fig


def draw_weights(r: Results) -> Any:
    """Samples of the mixture, and what both dynamics make with its exact score."""
    fig, (axes,) = figure(3)
    w, p = r.weights[0], mixture("two-modes")
    data, n = p.sample(np.random.default_rng(0), 1280), 1280
    for ax, x, color, title in (
        (axes[0], data, INK, "data: weight .8"),
        (axes[1], w.plain_samples[:n], LEARNED, f"Langevin: {w.plain:.3f} (its law: {w.plain_law:.3f})"),
        (axes[2], w.annealed_samples[:n], LEARNED, f"annealed: {w.annealed:.3f} (its law: {w.annealed_law:.3f})"),
    ):
        density(ax, p.log_prob, (-9, 9, -9, 9))
        ax.scatter(*x.T, s=2, color=color, linewidths=0, alpha=0.6)
        ax.set_title(title)
    return fig
