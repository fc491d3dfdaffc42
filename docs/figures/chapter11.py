"""The figures of chapter 11: python docs/figures/chapter11.py

11-split.png   where the error of a likelihood comes from, against the steps of the solver
11-probes.png  exact and estimated log likelihoods; the spread against the number of probes
"""

from pathlib import Path
from typing import Any

import numpy as np
from where import HERE

from refscore import EMA, MLP, VP, Adam, Denoising, ExactScore, ScoreModel, fit, log_likelihood
from refscore.laws.examples import mixture
from refscore.likelihood.flow import FixedSteps, error_split
from refscore.matching.probes import gaussian, rademacher
from refscore.matching.times import UniformLogSNR
from refscore.matching.weights import g_squared
from refscore.plots import EXACT, INK, LEARNED, figure, save
from refscore.sampling.loop import last

P, SDE, T_MIN = mixture("tilted"), VP(), 1e-3
CAUSES = ("truncation", "prior", "score", "discretisation", "probes")
COLOURS = (EXACT, "#7aa95c", LEARNED, INK, "#b08bbf")


def learned(steps: int = 8000) -> Any:
    """A small network, trained for some seconds with the weight of the likelihood, averaged over its last steps."""
    model, ema = ScoreModel(MLP((2, 64, 64, 2), embed=16), SDE, 1.5, "F"), EMA(0.999)
    objective = Denoising(weight=g_squared, times=UniformLogSNR(T_MIN))
    state = last(fit(model, objective, P, Adam(1e-3), np.random.default_rng(0), steps=steps, batch=512, ema=ema))
    return model.bind(ema.mean(state.average).astype("float64"))


def split(score: Any, path: Path = HERE / "11-split.png") -> str:
    x = P.sample(np.random.default_rng(2), 100)
    v = rademacher(np.random.default_rng(3), (1, *x.shape), np.float64)
    counts = (10, 20, 40, 80, 160)
    fine = FixedSteps(SDE, 320)
    parts = {
        n: error_split(score, P, SDE, x, t_min=T_MIN, probes=v, solve=FixedSteps(SDE, n), fine=fine) for n in counts
    }
    fig, (axes,) = figure(2, size=4.4)
    for cause, colour in zip(CAUSES, COLOURS, strict=True):
        size = [np.sqrt(np.mean(getattr(parts[n], cause) ** 2)) for n in counts]
        axes[0].loglog(counts, size, "o-", ms=4, color=colour, label=cause)
        print(cause, [f"{s:.2e}" for s in size], f"mean {np.mean(getattr(parts[160], cause)):+.2e}")
    print("total", [f"{np.sqrt(np.mean(parts[n].total ** 2)):.2e}" for n in counts])
    axes[0].set(xlabel="steps of RK4", ylabel="root mean square, nats", title="error of log p(x), by cause")
    axes[0].legend(fontsize=8)
    exact = P.log_prob(x)
    axes[1].scatter(exact, parts[160].score, s=8, color=LEARNED)
    axes[1].axhline(0, color=INK, lw=0.8)
    axes[1].set(xlabel="exact log p(x), nats", ylabel="part of the score, nats", title="the learned score's part")
    return save(fig, path)


def probes(path: Path = HERE / "11-probes.png") -> str:
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
    for law, colour in ((gaussian, INK), (rademacher, LEARNED)):
        spread = []
        for K in counts:
            v = law(np.random.default_rng(6 + K), (K, *x.shape), np.float64)
            value = log_likelihood(score, SDE, x, t_min=T_MIN, probes=v, solve=steps).value
            spread.append(float(np.sqrt(np.mean((value - whole.value) ** 2))))
        print(law.__name__, [f"{s:.2f}" for s in spread])
        axes[1].loglog(counts, spread, "o-", ms=4, color=colour, label=law.__name__)
    axes[1].plot(counts, spread[0] * np.array(counts, dtype=float) ** -0.5, ":", color=INK, lw=1, label=r"$1/\sqrt{K}$")
    axes[1].set(xlabel="probes K", ylabel="rms error, nats", title="D = 2, one draw of probes per K")
    axes[1].legend(fontsize=8)
    return save(fig, path)


if __name__ == "__main__":
    print(split(learned()), probes())
