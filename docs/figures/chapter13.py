"""The figures of chapter 13: python docs/figures/chapter13.py

13-guidance.svg    the tilted law, and what the guided score makes: by its flow, and by its reverse SDE
13-inpainting.svg  inpainting by replacement, against the number of steps and of moves at each
"""

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
from scipy.integrate import quad, solve_ivp
from scipy.interpolate import PchipInterpolator
from scipy.stats import norm
from where import HERE

from refscore import VP, EulerMaruyama, ExactScore, GaussianMixture, Reverse
from refscore.laws.affine_chain import Gaussian, law_of
from refscore.laws.grid_chain import grid_law
from refscore.laws.posterior import component, linear_posterior
from refscore.noise.grids import uniform_times
from refscore.plots import EXACT, INK, LEARNED, figure, save
from refscore.protocols import Step
from refscore.sampling.guidance import Guided, Replace

SDE = VP()
EDGES = np.linspace(-6.0, 8.0, 561)
CENTRES = 0.5 * (EDGES[1:] + EDGES[:-1])


def guided_laws(w: float, steps: int = 150) -> dict[str, np.ndarray]:
    """Masses on the cells: of p(x) p(1 | x)^w, after the guided flow, after the guided reverse SDE."""
    p = GaussianMixture(np.array([0.5, 0.5]), np.array([[1.0], [-1.0]]), np.array([0.5, 0.5]))
    log_q = p.log_prob(CENTRES[:, None]) + w * np.log(p.responsibilities(CENTRES[:, None])[:, 0])
    score = Guided(ExactScore(p, SDE), ExactScore(component(p, 0), SDE), w)

    velocity, z = Reverse(SDE, score, 0.0), np.linspace(-8, 8, 401)  # the flow moves quantiles
    x = solve_ivp(lambda t, x: velocity.drift(x[:, None], t)[:, 0], (1, 0), z, rtol=1e-8, atol=1e-10).y[:, -1]

    process, law = Reverse(SDE, score), grid_law(EDGES[0], EDGES[-1], len(CENTRES), norm.cdf)
    for t, s in pairwise(uniform_times(steps)):
        move = lambda x, t=t, s=s: x + (s - t) * process.drift(x[:, None], t)[:, 0]  # noqa: E731
        law = law.push(law.transition(move, math.sqrt(t - s) * SDE.g(t)))
    return {
        "unguided": np.exp(p.log_prob(CENTRES[:, None])) * np.diff(EDGES),
        "tilted": np.exp(log_q) / np.exp(log_q).sum(),
        "flow": np.diff(PchipInterpolator(x, norm.cdf(z))(np.clip(EDGES, x[0], x[-1]))),
        "reverse SDE": law.mass,
    }


def guidance(path: Path = HERE / "13-guidance.svg") -> str:
    fig, (axes,) = figure(3, size=3.9)
    for ax, w in zip(axes, (1.0, 3.0, 8.0), strict=True):
        laws = guided_laws(w)
        density = {name: q / np.diff(EDGES) for name, q in laws.items()}
        ax.fill_between(CENTRES, density["unguided"], color=EXACT, alpha=0.12, lw=0, label="p(x)")
        ax.plot(CENTRES, density["tilted"], color=EXACT, lw=2.2, label="p(x) p(1 | x)$^w$")
        ax.plot(CENTRES, density["flow"], "-.", color=LEARNED, lw=1.5, label="guided flow")
        ax.plot(CENTRES, density["reverse SDE"], color=INK, lw=1.3, ls="--", label="guided reverse SDE")
        ax.set(title=f"w = {w:g}", xlabel="x", xlim=(-3, 4.5), ylim=(0, 1.3))
        for name, q in laws.items():
            m = q @ CENTRES
            far = 0.5 * np.abs(q - laws["tilted"]).sum()
            print(f"w = {w:g}  {name:12s} mean {m:.3f}  sd {(q @ (CENTRES - m) ** 2) ** 0.5:.3f}  TV {far:.3f}")
    axes[0].set_ylabel("density")
    axes[0].legend(loc="upper left", fontsize=8)
    return save(fig, path)


def exact_law(step: Step, times: list[float]) -> Gaussian:
    """The law of a chain of steps, each affine in x and its noise."""
    return law_of(step, times, Gaussian(np.zeros(2), np.eye(2)))


def unknown(law: Gaussian) -> tuple[float, float]:
    """Mean and variance of the first coordinate."""
    return float(law.mean[0]), float(law.cov[0, 0])


def inpainting(path: Path = HERE / "13-inpainting.svg", rho: float = 0.8, y: float = 1.5) -> str:
    pair = GaussianMixture(np.ones(1), np.zeros((1, 2)), np.array([[[1.0, rho], [rho, 1.0]]]))
    post = linear_posterior(pair, np.array([[0.0, 1.0]]), np.array([y]), np.zeros((1, 1)))
    mask, known = np.array([0.0, 1.0]), np.array([0.0, y])
    euler = EulerMaruyama(Reverse(SDE, ExactScore(pair, SDE)))
    counts = [10, 20, 40, 80, 160, 320]
    fig, (axes,) = figure(2, size=4.4)
    styles = [("o-", LEARNED), ("^--", "#b58900"), ("D-.", "#6ba3c6"), ("v:", "#1a3a52")]
    for (line, color), n in zip(styles, (1, 2, 5, 20), strict=True):
        step = Replace(euler, SDE, known, mask, n)
        found = np.array([unknown(exact_law(step, uniform_times(N))) for N in counts])
        m = quad(lambda a, n=n: a**n * (1 - (rho * a) ** 2) ** (-1 - n / 2), 0, 1)[0]
        v = quad(lambda a, n=n: a ** (2 * n - 2) * (1 - (rho * a) ** 2) ** -n, 0, 1)[0]
        limit = n * rho * y * (1 - rho**2) ** (n / 2) * m, (2 * n - 1) * (1 - rho**2) ** n * v
        print(f"{n} moves: {found[-1].round(4)} after {counts[-1]} steps, {np.round(limit, 4)} in the limit")
        for i, ax in enumerate(axes):
            ax.semilogx(counts, found[:, i], line, ms=5, lw=1.4, color=color, label=f"{n} move{'s' * (n > 1)} a step")
            ax.plot([320, 480], [limit[i]] * 2, color=color, lw=2.5)  # its limit of many steps
    step = EulerMaruyama(Reverse(SDE, ExactScore(post, SDE)))
    found = np.array([unknown(exact_law(step, uniform_times(N, 1e-4))) for N in counts])
    for i, (ax, truth) in enumerate(zip(axes, (rho * y, 1 - rho**2), strict=True)):
        ax.semilogx(counts, found[:, i], "s-", ms=4, lw=0.8, color=INK, label="conditional score")
        ax.axhline(truth, color=INK, lw=2.5, alpha=0.35, label="truth")
        ax.set(xlabel="steps", title=("mean", "variance")[i] + " of the unknown coordinate")
        ax.set_xticks(counts, [str(N) for N in counts])
        ax.minorticks_off()
    axes[1].legend(fontsize=8)
    return save(fig, path)


if __name__ == "__main__":
    print(guidance(), inpainting())
