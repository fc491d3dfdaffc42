"""The pictures of `refscore demo`."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from refscore.commands.demo_problem import Problem
from refscore.commands.demo_report import Report
from refscore.laws.mixture import GaussianMixture
from refscore.noise.exact_score import ExactScore
from refscore.noise.grids import uniform_times
from refscore.noise.prior import prior
from refscore.noise.reverse import Reverse
from refscore.plots import EXACT, INK, LEARNED, SHADE, Vectors, arrows, density, figure, save, square_box
from refscore.sampling.compose import First, Stay
from refscore.sampling.langevin import Langevin
from refscore.sampling.loop import simulate
from refscore.sampling.solvers import EulerMaruyama


def draw(
    problem: Problem,
    model: Any,
    score: Any,
    learned: Any,
    exact: Any,
    report: Report,
    backend: Any,
    out: Path,
) -> list[str]:
    """field.png, paths.png, samples.png and loss.png; returns their names."""
    host = backend.to_numpy
    data = problem.data.sample(backend.rng(report.seed), 4000) if problem.exact is not None else problem.data

    def units(x: Any) -> Any:
        return problem.in_data_units(host(x))

    return [
        save(_field(problem, model, score, units(data), backend), out / "field.png"),
        save(_paths(problem, model, score, units(data), units, backend, report.seed), out / "paths.png"),
        save(
            _samples(problem, units(data), units(learned), None if exact is None else units(exact)),
            out / "samples.png",
        ),
        save(_loss(report), out / "loss.png"),
    ]


def _box(problem: Problem, data: Any, margin: float = 0.15) -> tuple[float, float, float, float]:
    """A frame around nearly all of the points (N, 2), square in the network's units."""
    left, right, low, high = square_box((data - problem.centre) / problem.scale, margin)
    (left, low), (right, high) = problem.in_data_units([(left, low), (right, high)]).tolist()
    return left, right, low, high


def _frame(ax: Any, problem: Problem, box: tuple[float, float, float, float]) -> None:
    aspect = float(problem.scale[0] / problem.scale[1])  # the frame is drawn as a square
    ax.set(xlim=box[:2], ylim=box[2:], aspect=aspect, xlabel=problem.axes[0], ylabel=problem.axes[1])


def _field(problem: Problem, model: Any, score: Any, data: Any, backend: Any, level: float = 0.2) -> Any:
    """Density and score where noise is a fifth of the signal: exact | learned | difference."""
    t = float(model.sde.time_at_log_ratio(math.log(level)))
    alpha, sigma = model.sde.alpha(t), model.sde.sigma(t)
    box = _box(problem, data)

    def at_data(of: Any, dtype: str) -> Vectors:
        # x_t / α is "data plus noise of deviation σ/α": the score of that, per unit of the network, is α s.
        def field(x: Any) -> Any:
            inside = backend.asarray(alpha * (x - problem.centre) / problem.scale, dtype)
            return alpha * backend.to_numpy(of(inside, t)).astype("float64")

        return field

    learned = at_data(score, "float32")
    if problem.exact is None:
        fig, ((ax,),) = figure(1, size=5)
        ax.scatter(*data[:3000].T, s=2, color=EXACT, alpha=0.4, linewidths=0)
        _frame(ax, problem, box)
        v = learned(data[:2000])
        arrows(ax, learned, box, 2 * float(np.median(np.linalg.norm(v, axis=1))), LEARNED)
        ax.set_title(f"data and learned score at σ/α = {level:g},\neach column in its own deviation")
        return fig

    exact_score = ExactScore(problem.exact, model.sde)
    exact = at_data(exact_score, "float64")
    law = problem.exact.diffuse(1.0, sigma / alpha)
    unit = 2 * float(np.median(np.linalg.norm(exact(data[:2000]), axis=1)))
    fig, (axes,) = figure(3)
    panels: tuple[tuple[Vectors, str, str], ...] = (
        (exact, EXACT, f"exact score at σ/α = {level:g}"),
        (learned, LEARNED, "learned score"),
        (lambda x: learned(x) - exact(x), INK, "difference, same scale"),
    )
    for ax, (vectors, color, title) in zip(axes, panels, strict=True):
        density(ax, lambda x: backend.to_numpy(law.log_prob(backend.asarray(x, "float64"))), box)
        arrows(ax, vectors, box, unit, color)
        ax.set_title(title)
    return fig


def _paths(
    problem: Problem, model: Any, score: Any, data: Any, units: Vectors, backend: Any, seed: int, n: int = 12
) -> Any:
    """Ways to the data: Langevin dynamics at one small noise level, and the reverse SDE through all of them."""
    rng, sde = backend.rng((seed + 1) % 2**64), model.sde
    fig, (axes,) = figure(2, size=4.6)

    t = float(sde.time_at_log_ratio(math.log(0.1)))
    x = backend.asarray(2 * problem.std * np.random.default_rng(seed).uniform(-1, 1, (n, 2)), "float32")
    # A step of a tenth of the squared noise level is well inside the stability bound 2σ².
    langevin = First(Langevin(lambda x, _: score(x, t), 0.1 * sde.sigma(t) ** 2), Stay())
    walk = np.stack([units(y) for y in [x, *simulate(langevin, x, uniform_times(1000), rng)]])
    ax = axes[0]
    ax.scatter(*data[:4000].T, s=2, color=EXACT, alpha=0.25, linewidths=0, label="data")
    ax.plot(walk[:, :, 0], walk[:, :, 1], lw=0.5, color=LEARNED, alpha=0.7)
    ax.scatter(*walk[0].T, s=18, facecolors="none", edgecolors=INK, label="start", zorder=3)
    ax.scatter(*walk[-1].T, s=14, color=INK, label="end", zorder=3)
    _frame(ax, problem, _box(problem, data, margin=0.4))
    ax.set_title("Langevin dynamics, learned score at σ/α = 0.1")
    ax.legend(loc="upper right", fontsize=8)

    times = uniform_times(500, 1e-3)
    x = prior(sde, (2 * n, 2), rng, backend.xp.float32)
    steps = [x, *simulate(EulerMaruyama(Reverse(sde, score)), x, times, rng)]
    down = np.stack([units(y)[:, 0] for y in steps])
    ax = axes[1]
    ax.plot(times, down, lw=0.5, color=LEARNED, alpha=0.8)
    centre = float(problem.centre[0])
    reach = 1.15 * float(np.abs(down - centre).max())
    if problem.exact is not None:
        _marginals(ax, problem, sde, backend, reach)
    ax.set(xlim=(1, 0), ylim=(centre - reach, centre + reach))
    ax.set(xlabel="t, from noise (1) to data (0)", ylabel=f"{problem.axes[0]} at time t")
    ax.set_title("reverse SDE, learned score" + (", over the exact $p_t$" if problem.exact is not None else ""))
    return fig


def _marginals(ax: Any, problem: Problem, sde: Any, backend: Any, reach: float, n: int = 240) -> None:
    """Shade the exact density of the first coordinate at every t, each t on its own scale."""
    m, host = problem.exact, backend.to_numpy
    assert m is not None
    C = host(m.covariances)
    first = GaussianMixture(host(m.weights), host(m.means)[:, :1], C.reshape(len(C), -1)[:, 0])
    x = np.linspace(-reach, reach, n)[:, None]
    columns = [np.exp(first.log_prob(x, sde.alpha(t), sde.sigma(t))) for t in np.linspace(1, 0, n).tolist()]
    image = np.stack([c / c.max() for c in columns], axis=1)
    ax.imshow(image, origin="lower", extent=(1, 0, -reach, reach), cmap=SHADE, aspect="auto", vmax=1.4)


def _samples(problem: Problem, data: Any, learned: Any, exact: Any) -> Any:
    panels = [(data, EXACT, "data"), (learned, LEARNED, "samples, learned score")]
    if exact is not None:
        panels.append((exact, INK, "samples, exact score, same sampler"))
    box = _box(problem, data)
    fig, (axes,) = figure(len(panels))
    for ax, (x, color, title) in zip(axes, panels, strict=True):
        ax.scatter(*x[:4000].T, s=2, color=color, alpha=0.5, linewidths=0)
        _frame(ax, problem, box)
        ax.set_title(title)
    return fig


def _loss(report: Report) -> Any:
    fig, ((ax,),) = figure(1)
    step, loss = np.array(report.loss_step), np.array(report.loss)
    if not report.loss:
        ax.set(title="interrupted before the first mean of the loss", ylabel="loss")
    elif report.floor is not None:
        ax.plot(
            step,
            loss - report.floor.value,
            lw=0.8,
            color=LEARNED,
            alpha=0.4,
            label="mean of 1 % of the steps",
        )
        kernel = np.ones(min(10, len(loss))) / min(10, max(1, len(loss)))
        smooth = np.convolve(loss, kernel, "valid") - report.floor.value
        ax.plot(step[len(step) - len(smooth) :], smooth, color=LEARNED, label="mean of 10 %")
        ax.axhline(0, color=INK, lw=0.8, label=f"floor: loss = {report.floor.value:.3f}")
        ax.set_yscale("symlog", linthresh=0.1)
        ax.set(title="excess over the exact floor", ylabel="loss - floor")
        ax.legend(fontsize=8)
    else:
        ax.plot(step, loss, color=LEARNED)
        ax.set(title="training loss (its floor is not known)", ylabel="loss")
    ax.set(xlabel="step")
    return fig
