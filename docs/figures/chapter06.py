"""The figures of chapter 6: python docs/figures/chapter06.py

06-fields.svg    p_σ and its score at four noise levels, in the plane and along the line through the modes
06-annealed.svg  the law of annealed Langevin dynamics along the line through the modes, beside p_σ and plain Langevin
06-weights.svg   the weight of the larger mode, predicted and measured
06-levels.svg    score error by level: networks of one level, of ten, and other weights

It prints the numbers that the text quotes.
"""

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import ndtr
from where import HERE

from refscore import (
    EMA,
    MLP,
    VE,
    Adam,
    AnnealedLangevin,
    Denoising,
    ExactScore,
    GaussianMixture,
    ScoreModel,
    fit,
    simulate,
)
from refscore.laws.examples import mixture
from refscore.laws.grid_chain import GridLaw, gap, grid_law
from refscore.matching.times import FixedTime, Levels
from refscore.matching.weights import sigma_squared, unweighted
from refscore.measure.distance import score_error
from refscore.noise.exact_score import FastExactScore
from refscore.noise.grids import geometric_levels, level_times
from refscore.plots import EXACT, INK, LEARNED, SHADE, arrows, density, figure, save
from refscore.sampling.loop import last
from refscore.training.optim import WarmupCosine

SDE, REACH, E = VE(), math.sqrt(50), 0.05
LADDER = geometric_levels(20.0, 0.5, 10)
LINE = GaussianMixture(np.array([0.8, 0.2]), np.array([[REACH], [-REACH]]), np.ones(2))
PLANE = mixture("two-modes")
MOVES = (10, 30, 100, 300)


def triangle(u: Any) -> Any:
    """Distribution function of (x₁ + x₂)/√2, x uniform on [-8, 8]²."""
    y = np.clip(u / (8 * math.sqrt(2)), -1, 1)
    return np.where(y < 0, 0.5 * (1 + y) ** 2, 1 - 0.5 * (1 - y) ** 2)


STARTS: dict[str, tuple[Callable[[Any], Any], Callable[[Any, int], Any]]] = {
    "minor mode": (lambda u: ndtr(u + REACH), lambda rng, n: rng.standard_normal((n, 2)) - 5),
    "uniform box": (triangle, lambda rng, n: rng.uniform(-8, 8, (n, 2))),
    "major mode": (lambda u: ndtr(u - REACH), lambda rng, n: rng.standard_normal((n, 2)) + 5),
}


# ------------------------------------------------------------------ laws, without a sample


def kernels(levels: Sequence[float], e: float, moves: int, least: int = 600) -> list[tuple[GridLaw, Any]]:
    """For each level a grid and the matrix of one move, ε = e σ², as in tests/sampling/test_annealed.py."""
    found, score, v = [], ExactScore(LINE, SDE), 1 + levels[0] ** 2
    for s in levels:
        t, eps, S = float(SDE.time(s)), e * s**2, 1 + s**2
        limit, half = S / (1 - eps / (2 * S)), REACH + 8 * math.sqrt(v)
        v = limit + (1 - eps / S) ** (2 * moves) * (v - limit)  # how wide a chain around one mode is after the level
        stretch = max(1.25, 1 - eps / S + eps * (REACH / S) ** 2)
        n = max(least, 2 * math.ceil(half * stretch / math.sqrt(2 * eps)))
        grid = GridLaw(-half, half, np.full(n, 1 / n))
        move = lambda u, t=t, eps=eps: u + eps * score(u[:, None], t)[:, 0]  # noqa: E731
        found.append((grid, grid.transition(move, math.sqrt(2 * eps))))
    return found


def chain(start: Callable[[Any], Any], levels: Sequence[float], moves: int, e: float = E) -> Iterator[GridLaw]:
    """The law of annealed Langevin dynamics after every move."""
    cdf = start
    for grid, matrix in kernels(levels, e, moves):
        law = grid_law(grid.low, grid.high, len(grid.mass), cdf)
        for _ in range(moves):
            law = law.push(matrix)
            yield law
        edges, total = law.edges, np.concatenate([[0], np.cumsum(law.mass)])
        cdf = lambda u, edges=edges, total=total: np.interp(u, edges, total)  # noqa: E731


def right(law: GridLaw) -> float:
    return law.mean(lambda u: (u > 0) * 1.0)


def side(s: float) -> float:
    """P(u > 0) under p_σ."""
    d = REACH / math.sqrt(1 + s**2)
    return float(0.8 * ndtr(d) + 0.2 * ndtr(-d))


QUANTILES = (np.arange(20_000) + 0.5) / 20_000


def distance(a: Any, b: Any) -> float:
    """Wasserstein-2 of two laws on the line, told by their quantiles."""
    return math.sqrt(float(np.mean((a - b) ** 2)))


def quantiles(s: float) -> Any:
    """Those of p_σ."""
    sd = math.sqrt(1 + s**2)
    u = np.linspace(-REACH - 9 * sd, REACH + 9 * sd, 100_001)
    return np.interp(QUANTILES, 0.8 * ndtr((u - REACH) / sd) + 0.2 * ndtr((u + REACH) / sd), u)


def grid_quantiles(law: GridLaw) -> Any:
    total = np.concatenate([[0], np.cumsum(law.mass)])
    return np.interp(QUANTILES, total / total[-1], law.edges)


def single_levels() -> None:
    data = quantiles(0.0)
    print("one level:   σ     var     W2  denoised  P(right)   τ")
    for s in (0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0):
        u = quantiles(s)
        clean = LINE.posterior_mean(u[:, None], 1.0, s)[:, 0]
        ((_, matrix),) = kernels((s,), E, 1, least=200)
        tau = -1 / math.log1p(-gap(matrix))
        print(f"{s:5g}  {33 + s**2:g}  {distance(u, data):.3f}  {distance(clean, data):.3f}  {side(s):.4f}  {tau:.3g}")


def ladders() -> None:
    data = quantiles(0.0)
    for e, moves in ((E, MOVES), (E, (1000,)), (0.2, (100,))):
        for n in moves:
            law = last(chain(triangle, LADDER, n, e))
            u = grid_quantiles(law)
            clean = LINE.posterior_mean(u[:, None], 1.0, LADDER[-1])[:, 0]
            numbers = f"right {right(law):.4f}, W2 {distance(u, data):.3f}, denoised {distance(clean, data):.3f}"
            mode, bare = (np.var(v[v > 3]) for v in (u, clean))
            print(f"e = {e}, {n} moves a level: {numbers}, variance of a mode {mode:.3f}, {bare:.3f}")
    u = grid_quantiles(last(chain(triangle, (3.0,), 1000)))
    clean = LINE.posterior_mean(u[:, None], 1.0, 3.0)[:, 0]
    print(f"σ = 3, 1000 moves: W2 {distance(u, data):.3f}, denoised {distance(clean, data):.3f}")


# ------------------------------------------------------------------ the real sampler


def walked(moves: int, n: int, seed: int, every: bool = False, score: Any = None) -> dict[str, list[float]]:
    """Share on the right of n chains from each start, after each level."""
    rng = np.random.default_rng(seed)
    x = np.concatenate([draw(rng, n) for _, draw in STARTS.values()])
    score = FastExactScore(PLANE, SDE) if score is None else score
    step = AnnealedLangevin(score, SDE, E * LADDER[-1] ** 2, LADDER[-1], moves)
    shares = [
        (y.sum(axis=1) > 0).reshape(len(STARTS), n).mean(axis=1)
        for y in simulate(step, x.astype("float32"), level_times(SDE, LADDER), rng)
    ]
    return {name: [float(s[i]) for s in shares] for i, name in enumerate(STARTS)}


# ------------------------------------------------------------------ figures


def annealed(path: Path = HERE / "06-annealed.svg", n: int = 30) -> str:
    top, rows, L = 22.0, 300, len(LADDER)
    u = top * (2 * (np.arange(rows) + 0.5) / rows - 1)
    start = STARTS["minor mode"][0]

    def columns(laws: Iterator[GridLaw]) -> Any:
        return np.stack([np.interp(u, law.centres, law.mass / law.width) for law in laws], axis=1)

    panels = (
        (np.stack([np.exp(LINE.log_prob(u[:, None], 1.0, s)) for s in LADDER for _ in range(n)], axis=1),
         "$p_\\sigma$, level after level"),
        (columns(chain(start, LADDER, n)), f"annealed Langevin, {n} moves a level"),
        (columns(chain(start, LADDER[-1:], n * L)), "plain Langevin at the last level"),
    )  # fmt: skip
    fig, (axes,) = figure(3, size=3.9)
    for ax, (image, title) in zip(axes, panels, strict=True):
        image = np.sqrt(image / image.max(axis=0))
        ax.imshow(
            image,
            origin="lower",
            extent=(0, n * L, -top, top),
            cmap=SHADE,
            aspect="auto",
            vmax=1.2,
            interpolation="none",
        )
        ax.set_title(title, fontsize=10)
        if ax is axes[2]:
            ax.set(xlabel="moves, all at σ = 0.5")
        else:
            ax.set_xticks([n * (i + 0.5) for i in range(L)], [f"{s:.3g}" for s in LADDER], fontsize=7)
            ax.set_xlabel("noise level σ")
    axes[0].set_ylabel("u, along the line through the modes")
    return save(fig, path)


def ticks(ax: Any, places: Sequence[float]) -> None:
    """Plain numbers on a logarithmic axis."""
    ax.set_xticks(places, [f"{x:g}" for x in places])
    ax.set_xticks([], minor=True)


COLORS = (LEARNED, EXACT, INK)


def weights(path: Path = HERE / "06-weights.svg") -> str:
    fig, (axes,) = figure(2, size=4.8)
    ax = axes[0]
    ax.plot(LADDER, [side(s) for s in LADDER], color=INK, lw=2, label="exact: the mass of $p_\\sigma$ there")
    for n, shade in zip(MOVES, ("#e9b5a7", "#d98a75", LEARNED, "#7a2f1f"), strict=True):
        measured = walked(n, 4000, n) if n <= 30 else {}
        for name, style in (("minor mode", "-"), ("major mode", "--")):
            ends = [right(law) for law in list(chain(STARTS[name][0], LADDER, n))[n - 1 :: n]]
            ax.plot(LADDER, ends, style, color=shade, label=f"{n} moves a level" if style == "-" else None)
            if name in measured:
                ax.plot(LADDER, measured[name], "o", ms=3.5, color=shade)
    ax.plot([], [], "o", ms=3.5, color=INK, label="4000 chains")
    ax.set(xscale="log", xlabel="noise level σ", ylabel="probability of u > 0 after the level", ylim=(0.3, 0.85))
    ax.invert_xaxis()
    ticks(ax, (20, 10, 5, 2, 1, 0.5))
    ax.set_title("from the minor (—) and the major mode (- -)", fontsize=10)
    ax.legend(fontsize=7.5, loc="lower right")

    ax, grid = axes[1], (3, 5, 10, 20, 30, 50, 100, 200, 300)
    for (name, (cdf, _)), color in zip(STARTS.items(), COLORS, strict=True):
        ax.plot(
            grid, [right(last(chain(cdf, LADDER, n))) for n in grid], color=color, label=f"annealed, from the {name}"
        )
        plain = right(last(chain(cdf, LADDER[-1:], 1000)))
        ax.plot(grid, [plain] * len(grid), ":", color=color)
    for n in (3, 10, 30):
        for (name, share), color in zip(walked(n, 10_000, 100 + n).items(), COLORS, strict=True):
            print(f"{n} moves, from the {name}: {share[-1]:.4f}, predicted", end=" ")
            print(f"{right(last(chain(STARTS[name][0], LADDER, n))):.4f}")
            ax.plot(n, share[-1], "o", ms=4, color=color)
    ax.axhline(0.8, color=INK, lw=0.8)
    ax.plot([], [], ":", color=INK, label="plain, at σ = 0.5, 1000 moves")
    ax.set(xscale="log", xlabel="moves a level", ylabel="probability of u > 0 at the end", ylim=(-0.03, 1.03))
    ticks(ax, (3, 10, 30, 100, 300))
    ax.set_title("predicted (lines) and measured (dots, 10,000 chains)", fontsize=10)
    ax.legend(fontsize=7.5, loc="lower right", bbox_to_anchor=(1, 0.08))
    return save(fig, path)


def trained(times: Any, weight: Any, steps: int = 1000) -> Any:
    model = ScoreModel(MLP((2, 64, 64, 2), embed=16), SDE, data_std=math.sqrt(26))
    objective, ema = Denoising(times=times, weight=weight, antithetic=True), EMA(0.995)
    adam, data = Adam(WarmupCosine(3e-3, steps, warmup=50, end=3e-5)), mixture("two-modes", dtype="float32")
    state = last(fit(model, objective, data, adam, np.random.default_rng(0), steps=steps, ema=ema))
    return model.bind(ema.mean(state.average))


def errors(score: Any) -> list[float]:
    """E‖s - s*‖²/E‖s*‖² on 20,000 points of each p_σ."""
    rng, exact, found = np.random.default_rng(9), ExactScore(PLANE, SDE), []
    learned = lambda x, t: score(x.astype("float32"), t.astype("float32"))  # noqa: E731
    for s in LADDER:
        x = PLANE.sample(rng, 20_000) + s * rng.standard_normal((20_000, 2))
        found.append(score_error(learned, exact, x, float(SDE.time(s))).value)
    return found


def levels(path: Path = HERE / "06-levels.svg") -> str:
    fig, ((ax,),) = figure(1, size=5)
    for i, color in ((0, "#a9c9dd"), (5, "#6ba3c6"), (9, EXACT)):
        own = errors(trained(FixedTime(float(SDE.time(LADDER[i]))), sigma_squared))
        print(f"one level, {LADDER[i]:.3g}:", np.round(own, 5))
        ax.plot(LADDER, own, "o-", ms=3, lw=1, color=color, label=f"one level, σ = {LADDER[i]:.3g}")
    for weight, style, name in ((unweighted, "--", "ten levels, λ = 1"), (sigma_squared, "-", "ten levels, λ = σ²")):
        score = trained(Levels(LADDER), weight)
        found = errors(score)
        print(name, np.round(found, 5))
        ax.plot(LADDER, found, f"o{style}", ms=3, color=LEARNED, label=name)
        if weight is sigma_squared:
            for n, chains in ((10, 10_000), (30, 10_000), (100, 4000)):
                print(f"learned, {n} moves:", {k: v[-1] for k, v in walked(n, chains, 7 + n, score=score).items()})
    ax.set(xscale="log", yscale="log", xlabel="noise level σ", ylabel="relative error of the score")
    ax.invert_xaxis()
    ticks(ax, (20, 10, 5, 2, 1, 0.5))
    ax.legend(fontsize=8)
    ax.set_title("1000 training steps each", fontsize=10)
    return save(fig, path)


def fields(path: Path = HERE / "06-fields.svg", half: float = 12.0) -> str:
    fig, (plane, line) = figure(4, 2, size=3.1)
    box = (-half, half, -half, half)
    u = np.linspace(-17, 17, 200)
    for ax, cut, sigma in zip(plane, line, (0.5, 2.0, 5.0, 20.0), strict=True):
        density(ax, PLANE.diffuse(1.0, sigma).log_prob, box, n=80)
        ax.images[0].set_interpolation("none")
        arrows(ax, lambda x, s=sigma: s * PLANE.score(x, 1.0, s), box, 1.0, INK, n=13)
        ax.set(title=f"σ = {sigma:g}", ylabel="$x_2$" if sigma == 0.5 else "")
        p = np.exp(LINE.log_prob(u[:, None], 1.0, sigma))
        cut.fill_between(u, 3 * p / p.max() - 4, -4, color=EXACT, alpha=0.3, lw=0)
        cut.plot(u, sigma * LINE.score(u[:, None], 1.0, sigma)[:, 0], color=EXACT, lw=1.5)
        cut.axhline(0, color=INK, lw=0.5)
        cut.set(xlim=(-17, 17), ylim=(-4, 4), xlabel="u, along the diagonal")
    line[0].set_ylabel("σ s (line); density (shade)")
    fig.suptitle("arrows: σ s; arrows longer than 1 are cut to one cell", fontsize=10)
    return save(fig, path)


def exercises() -> None:
    """What the solutions quote: the ladder upwards, from 5 only, and with one step for all levels."""
    runs = {
        "3, upwards": (LADDER[::-1], lambda s: E * s**2),
        "4, from 5": (geometric_levels(5.0, 0.5, 10), lambda s: E * s**2),
        "5, one step": (LADDER, lambda s: E * 0.5**2),
    }
    for name, (ladder, step) in runs.items():
        for mode in (-5, 5):
            rng = np.random.default_rng(4)
            x = rng.standard_normal((4000, 2)) + mode
            for s in ladder:
                for _ in range(30):
                    x = x + step(s) * PLANE.score(x, 1.0, s) + math.sqrt(2 * step(s)) * rng.standard_normal(x.shape)
            u = x.sum(axis=1) / math.sqrt(2)
            print(f"exercise {name}, from {mode}: {np.mean(u > 0):.3f} on the right, variance {u.var():.1f}")


if __name__ == "__main__":
    exercises()
    print(fields())
    single_levels()
    ladders()
    sys.stdout.write(f"{annealed()} {weights()} {levels()}\n")
