"""The figure of chapter 17: python docs/figures/chapter17.py

17-mistakes.svg  what ten mistakes make of the variance of N(1, ¼), by the number of steps: exact laws, no samples
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from where import HERE

from refscore.museum import readings, samplers
from refscore.museum.mistake import Mistake, fits, plant
from refscore.museum.samplers import Level
from refscore.noise.chains import ddpm
from refscore.plots import INK, figure, save

MEAN, VARIANCE = 1.0, 0.25
APART = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9")  # told apart by every eye, and by their marks
STEPS = (25, 50, 100, 200, 400, 1000)
LASTING = {  # more steps do not cure them: specimen, mistake
    "ddpm": ("noise-doubled", "root-of-the-deviation"), "ddpm_large": ("root-forgotten", "not-rescaled"),
    "euler_beta": ("beta-score-halved",),
}  # fmt: skip
FADING = {
    "ddpm": ("posterior-of-here",), "ddpm_large": ("noise-of-next-level", "noise-at-the-end"),
    "grid": ("told-one-index-high", "told-the-step-before"),
}  # fmt: skip


def law(walk: Callable[..., Any], told: list[Level], steps: Any) -> float:
    """Variance of what a sampler makes of noise with the exact network: one row for the start, one for each noise."""
    rows, drawn, labels = np.eye(len(steps) + 1), iter(range(1, len(steps) + 1)), iter(told)

    def model(x: Any, t: Level) -> tuple[Any, Any]:
        at = next(labels)
        noise = at.sigma / (at.alpha**2 * VARIANCE + at.sigma**2) * x  # the mean, a constant, is left out
        return noise, (x - t.sigma * noise) / t.alpha

    end = walk(model, rows[0], steps, lambda: rows[next(drawn)])
    return float(end @ end)


def variance(name: str, mistake: Mistake | None, n: int) -> float:
    """The same for a specimen of the museum, or for DDPM on a mistaken grid, on the DDPM chain of n steps."""
    chain, make = ddpm(n), readings.grid
    walk = samplers.ddpm_large if name == "grid" else getattr(samplers, name)
    if mistake is not None and name == "grid":
        make = plant(mistake, make)
    elif mistake is not None:
        walk = plant(mistake, walk)

    def level(i: float) -> Level:
        return Level(chain.alphas[min(int(i) + 1, n)], chain.sigmas[min(int(i) + 1, n)])

    late = mistake is not None and mistake.name == "told-one-index-high"  # told 1 to n, and knows 0 to n - 1
    labels = [float(i + late) for i in range(n - 1, -1, -1)]
    return law(walk, [level(i) for i in labels], make(labels, level, Level(1.0, 0.0), 1.0)) / VARIANCE


def found(name: str) -> Mistake:
    """The mistake of that name in samplers and grids."""
    return next(m for m in (*samplers.MISTAKES, *readings.MISTAKES) if m.name == name)


def mistakes(path: Path = HERE / "17-mistakes.svg") -> str:
    """Two panels: those that stay, and those that fade as steps get many."""
    fig, (axes,) = figure(2, size=4.6)
    for ax, chosen, title in zip(
        axes, (LASTING, FADING), ("more steps do not cure it", "it fades with more steps"), strict=True
    ):
        for name, style in (("ddpm", "-"), ("ddpm_large", "--")):
            ax.plot(STEPS, [variance(name, None, n) for n in STEPS], color=INK, ls=style, lw=2, label=f"right: {name}")
        pairs = [(name, m) for name, names in chosen.items() for m in names]
        for (name, m), mark, color in zip(pairs, "osD^v", APART, strict=True):
            assert name == "grid" or fits(found(m), getattr(samplers, name))
            ax.plot(STEPS, [variance(name, found(m), n) for n in STEPS], color=color, marker=mark, ms=4, lw=1, label=m)
        ax.set(xscale="log", yscale="log" if chosen is LASTING else "linear", xlabel="steps", title=title)
        ax.set_ylabel("variance over the true one")
        ax.set_xticks(STEPS, [str(n) for n in STEPS])
        ax.minorticks_off()
        ax.legend(fontsize=7)
    return save(fig, path)


if __name__ == "__main__":
    print(mistakes())
