"""`refscore reproduce`: published results measured again, judged and drawn."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from refscore.checks import check_count
from refscore.commands.library import add_backend
from refscore.commands.progress import progress
from refscore.commands.threads import add_threads, blas_threads
from refscore.data.files import save_json, writable_folder
from refscore.experiments.failures import BOX, LEVELS, WALK, manifold_floor
from refscore.experiments.song_ermon_2019 import (
    FALLS,
    NOISE,
    Claim,
    Results,
    excess_over_floor,
    fall,
    measure_seed,
    song_ermon_2019,
    work,
)
from refscore.laws.examples import mixture
from refscore.plots import EXACT, INK, LEARNED, density, figure, save
from refscore_backends import Backend, get

Say = Callable[[str], None]


HELP = "hold published toy results against measurements"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """NAME, --seeds, --steps, --out, --backend, --threads."""
    parser.epilog = "example: refscore reproduce song-ermon-2019 --seeds 1"
    parser.add_argument("name", nargs="?", metavar="NAME", help="what to reproduce; left out, a list of what there is")
    parser.add_argument("--seeds", type=int, default=3, help="networks to train, each from its own seed (default: 3)")
    parser.add_argument(
        "--steps", type=int, default=10_000,
        help="training steps of each, at least 600 (default: 10000, the paper's: a minute a seed)",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path("refscore-reproduce"), help="folder for numbers and pictures")
    add_backend(parser, compiles=False)
    add_threads(parser)


def run(args: argparse.Namespace) -> None:
    """`refscore reproduce`."""
    if args.name is None:
        print("\n".join(f"{name:20} {about}" for name, (about, _) in PAPERS.items()))
        return
    with blas_threads(args.threads) as said:
        print(said)
        reproduce(args.name, args.out, args.seeds, args.steps, get(args.backend))


def reproduce(name: str, out: Path, seeds: int, steps: int, backend: Backend, say: Say = print) -> list[Claim]:
    """Reproduce a paper's toy results; prints the claims, writes claims.json and figures into `out`.

    Raises
    ------
    ValueError, OSError
        Before any work: unknown name, seeds < 1, steps < 600, unwritable folder.
    """
    if name not in PAPERS:
        raise ValueError(f"nothing called {name!r} to reproduce; there is {', '.join(PAPERS)}")
    check_count("seeds", seeds)
    if steps < 600:
        raise ValueError(f"steps must be at least 600, or nothing is learned; got {steps}")
    writable_folder(out)
    results = measure(out, range(seeds), steps, backend, say)
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


def measure(out: Path, seeds: Sequence[int], steps: int, backend: Backend, say: Say = print) -> Results:
    """Run what is not in the folder yet, load what is."""
    each = []
    for seed in seeds:
        with progress(work(steps), say) as show:
            each.append(measure_seed(out, seed, steps, show, backend))
    return Results(*(list(column) for column in zip(*each, strict=True)))


PAPERS: dict[str, tuple[str, Callable[[Results], list[Claim]]]] = {
    "song-ermon-2019": ("three failures of score matching, and noise as their cure (Figures 1 to 3)", song_ermon_2019),
}


# ------------------------------------------------------------------ the figures


def draw_manifold(r: Results) -> Any:
    """The loss on the circle without noise and with it; the titles say what was measured."""
    fig, (axes,) = figure(2)
    at = (np.arange(60) + 0.5) / 60
    falls, above = min(map(fall, r.bare)), max(map(excess_over_floor, r.noised))
    for ax, curves, color, title in (
        (axes[0], r.bare, LEARNED, f"circle: the loss {'goes on falling' if falls > FALLS else 'settles'}"),
        (axes[1], r.noised, EXACT, f"noise {NOISE:g}: ends {above:z.1%} above its bound"),
    ):
        for curve in curves:
            ax.plot(at, curve, color=color, lw=1)
        ax.set(xlabel="part of training", ylabel="sliced score matching loss", title=title)
    low = manifold_floor(NOISE)
    axes[1].axhline(low, color=INK, lw=0.8, ls="--", label="lower bound -½ E‖s‖², exact")
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
        np.mean([d.errors for d in r.density], axis=0).T, origin="lower", extent=box, cmap="RdYlBu_r", vmin=-4, vmax=1,
        rasterized=True,
    )  # fmt: skip
    axis = np.linspace(-BOX, BOX, 120)
    nodes = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    axes[0].contour(
        axis, axis, np.reshape(p.log_prob(nodes), (120, 120)), levels=[-12, -8, -5, -3], colors=INK, linewidths=0.6
    )
    axes[0].set(xlabel="$x_1$", ylabel="$x_2$", title="error of a score learned without noise")
    fig.colorbar(image, ax=axes[0], shrink=0.8, extend="both", label="log₁₀ (‖$s_θ$ - s‖² / ‖s‖²)")

    tenth = np.arange(1, 11)
    for d in r.density:
        axes[1].semilogy(tenth, d.deciles, "o-", color=LEARNED, lw=1, ms=3)
        axes[1].semilogy(tenth, d.deciles_noised, "s-", color=EXACT, lw=1, ms=3)
    axes[1].legend(["without noise, against s of p", f"at σ = {LEVELS[0]:g}, against s of $p_σ$"], fontsize=8)
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
    data: Any
    data, n = p.sample(np.random.default_rng(0), 1280), 1280
    for ax, x, color, title in (
        (axes[0], data, INK, "data: weight .8"),
        (axes[1], w.plain_samples[:n], LEARNED, f"Langevin: {w.plain:.3f} (its law: {w.plain_law:.3f})"),
        (axes[2], w.annealed_samples[:n], LEARNED, f"annealed: {w.annealed:.3f} (its law: {w.annealed_law:.3f})"),
    ):
        density(ax, p.log_prob, (-9, 9, -9, 9))
        ax.scatter(*x.T, s=2, color=color, linewidths=0, alpha=0.6, rasterized=True)
        ax.set_title(title)
    return fig
