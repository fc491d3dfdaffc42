"""The figures of chapter 11: python docs/figures/chapter11.py

11-flow.svg    paths of the flow in one dimension, and log p along one of them
11-split.svg   where the error of a likelihood comes from, against the steps of the solver
11-probes.svg  exact and estimated log likelihoods; the spread against the number of probes
"""

from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import ndtr
from where import HERE

from refscore import EMA, MLP, VP, Adam, Denoising, ExactScore, GaussianMixture, ScoreModel, fit, log_likelihood
from refscore.laws.examples import mixture
from refscore.likelihood.flow import FixedSteps, error_split
from refscore.matching.probes import gaussian, rademacher
from refscore.matching.times import UniformLogSNR
from refscore.matching.weights import g_squared
from refscore.noise.sde import log_ratio
from refscore.plots import EXACT, INK, LEARNED, figure, save
from refscore.sampling.loop import last

P, SDE, T_MIN = mixture("tilted"), VP(), 1e-3
CAUSES = ("truncation", "prior", "score", "discretisation", "probes")
LINES = (("s--", "#8c8c8c"), ("D-.", EXACT), ("o-", LEARNED), ("^:", INK), ("v-", "#b58900"))  # one for each cause


def learned(steps: int = 8000) -> Any:
    """A small network, trained for some seconds with the weight of the likelihood, averaged over its last steps."""
    model, ema = ScoreModel(MLP((2, 64, 64, 2), embed=16), SDE, 1.5, "F"), EMA(0.999)
    objective = Denoising(weight=g_squared, times=UniformLogSNR(T_MIN))
    state = last(fit(model, objective, P, Adam(1e-3), np.random.default_rng(0), steps=steps, batch=512, ema=ema))
    return model.bind(ema.mean(state.average).astype("float64"))


def split(score: Any, path: Path = HERE / "11-split.svg") -> str:
    x = P.sample(np.random.default_rng(2), 100)
    v = rademacher(np.random.default_rng(3), (1, *x.shape), np.float64)
    counts = (10, 20, 40, 80, 160)
    fine = FixedSteps(SDE, 320)
    parts = {
        n: error_split(score, P, SDE, x, t_min=T_MIN, probes=v, solve=FixedSteps(SDE, n), fine=fine) for n in counts
    }
    fig, (axes,) = figure(2, size=4.4)
    for cause, (line, colour) in zip(CAUSES, LINES, strict=True):
        size = [np.sqrt(np.mean(getattr(parts[n], cause) ** 2)) for n in counts]
        axes[0].loglog(counts, size, line, ms=5, color=colour, label=cause)
        print(cause, [f"{s:.2e}" for s in size], f"mean {np.mean(getattr(parts[160], cause)):+.2e}")
    print("total", [f"{np.sqrt(np.mean(parts[n].total ** 2)):.2e}" for n in counts])
    axes[0].set(xlabel="steps of RK4", ylabel="root mean square, nats", title="error of log p(x), by cause")
    axes[0].legend(fontsize=8)
    exact = P.log_prob(x)
    axes[1].scatter(exact, parts[160].score, s=8, color=LEARNED)
    axes[1].axhline(0, color=INK, lw=0.8)
    axes[1].set(xlabel="exact log p(x), nats", ylabel="part of the score, nats", title="the learned score's part")
    return save(fig, path)


def flow(path: Path = HERE / "11-flow.svg") -> str:
    """In one dimension the flow carries quantiles; along each path log p falls by the divergence."""
    line = GaussianMixture(np.array([0.7, 0.3]), np.array([[-1.5], [1.5]]), np.array([0.09, 0.25]))
    levels = np.linspace(log_ratio(SDE, T_MIN), log_ratio(SDE, 1.0), 300)
    times = np.minimum([float(SDE.time_at_log_ratio(level)) for level in levels], 1.0)
    dense, share = np.linspace(-6, 6, 4001), (np.arange(10) + 0.5) / 10
    cdf = []
    for t in times:
        std = np.sqrt(SDE.alpha(t) ** 2 * line.covariances.reshape(-1, 1) + SDE.sigma(t) ** 2)
        cdf.append(line.weights @ ndtr((dense - SDE.alpha(t) * line.means) / std))
    paths = np.array([np.interp(share, c, dense) for c in cdf])
    fig, (axes,) = figure(2, size=4.4)
    for i, path_ in enumerate(paths.T):
        axes[0].plot(
            times, path_, color=LEARNED if i == 2 else EXACT, lw=2.2 if i == 2 else 1, ls="--" if i == 2 else "-"
        )
    grid = np.linspace(-4, 4, 300)
    for t, edge, side in ((T_MIN, 0.0, -0.3), (1.0, 1.0, 0.3)):
        p = np.exp(line.log_prob(grid[:, None], SDE.alpha(t), SDE.sigma(t)))
        axes[0].fill_betweenx(grid, edge, edge + side * p, color=EXACT, alpha=0.25, lw=0)
    axes[0].set(xlabel="t", ylabel="x", title="ten paths; a tenth of all points between neighbours", xlim=(-0.32, 1.15))
    path_ = paths[:, 2]
    logp = [
        float(line.log_prob(np.array([[x]]), SDE.alpha(t), SDE.sigma(t))[0]) for x, t in zip(path_, times, strict=True)
    ]
    axes[1].plot(times, logp, "--", color=LEARNED, lw=2.2)
    axes[1].set(xlabel="t", ylabel="log p_t(x(t)), nats", title="log density along the dashed path")
    axes[1].grid(alpha=0.25, lw=0.5)
    return save(fig, path)


def probes(path: Path = HERE / "11-probes.svg") -> str:
    start = SDE.alpha(T_MIN) * P.sample(np.random.default_rng(4), 400)
    start = start + SDE.sigma(T_MIN) * np.random.default_rng(7).standard_normal(start.shape)
    score, steps, x = ExactScore(P, SDE), FixedSteps(SDE, 40), start[:60]
    exact = P.log_prob(x, SDE.alpha(T_MIN), SDE.sigma(T_MIN))
    fig, (axes,) = figure(2, size=4.4)
    v = rademacher(np.random.default_rng(5), (10, *x.shape), np.float64)
    found = log_likelihood(score, SDE, x, t_min=T_MIN, probes=v, solve=steps)
    axes[0].errorbar(
        exact, found.value, found.error, fmt="o", ms=3, lw=0.8, color=LEARNED, label="10 Rademacher probes"
    )
    whole = log_likelihood(score, SDE, x, t_min=T_MIN, solve=steps)
    axes[0].plot(exact, whole.value, "x", ms=5, color=EXACT, label="exact divergence")
    ends = np.concatenate([exact, whole.value, found.value - found.error, found.value + found.error])
    limits = (float(ends.min()) - 0.2, float(ends.max()) + 0.2)
    axes[0].plot(limits, limits, lw=0.8, color=INK)
    axes[0].set(xlabel="exact log p(x), nats", ylabel="by the flow, nats", xlim=limits, ylim=limits)
    axes[0].set_title("log likelihood by the flow")
    axes[0].legend(fontsize=8)
    counts, x = (1, 2, 4, 8, 16, 32), start
    whole = log_likelihood(score, SDE, x, t_min=T_MIN, solve=steps)
    for law, line, colour in ((gaussian, "s--", INK), (rademacher, "o-", LEARNED)):
        spread = []
        for K in counts:
            v = law(np.random.default_rng(6 + K), (K, *x.shape), np.float64)
            value = log_likelihood(score, SDE, x, t_min=T_MIN, probes=v, solve=steps).value
            spread.append(float(np.sqrt(np.mean((value - whole.value) ** 2))))
        print(law.__name__, [f"{s:.2f}" for s in spread])
        axes[1].loglog(counts, spread, line, ms=5, color=colour, label=law.__name__)
    axes[1].plot(counts, spread[0] * np.array(counts, dtype=float) ** -0.5, ":", color=INK, lw=1, label=r"$1/\sqrt{K}$")
    axes[1].set(xlabel="probes K", ylabel="rms error, nats", title="D = 2, one draw of probes per K")
    axes[1].legend(fontsize=8)
    return save(fig, path)


if __name__ == "__main__":
    print(flow(), split(learned()), probes())
