"""The figures of chapter 3 and of "Is my loss normal?": python docs/figures/chapter03.py

03-field.png            the field that the loop of section 3.5 learns, beside the true one; its loss, and the floor
03-variance.svg         spread of the loss of one draw against σ
03-price.svg            price of the gradient's noise against σ
03-four-techniques.svg  a network's error by step; a linear score's excess by sample size
03-floor.svg            the floor at every noise level, between memory and the best affine score
"""

from pathlib import Path
from typing import Any

import numpy as np
from where import HERE

from refscore import (
    MLP,
    VE,
    Adam,
    Denoising,
    ExactScore,
    Explicit,
    FiniteDifference,
    GaussianMixture,
    Implicit,
    ScoreModel,
    Sliced,
    fit,
)
from refscore.laws.examples import mixture
from refscore.laws.expectation import quadrature_grid
from refscore.matching.times import FixedTime
from refscore.measure.distance import score_error
from refscore.measure.floor import denoising_floor
from refscore.plots import EXACT, INK, LEARNED, arrows, density, figure, save
from refscore.training.optim import WarmupCosine

P, SDE, SIGMA = mixture("tilted"), VE(0.01, 10.0), 0.5
T = float(SDE.time(SIGMA))
SKY, GREY = "#7fb7d6", "#8a8a8a"
COLORS = {"explicit": INK, "denoising": LEARNED, "implicit": EXACT, "sliced": SKY, "finite difference": GREY}
LINES = {"explicit": "-", "denoising": "-", "implicit": "--", "sliced": "-", "finite difference": ":"}
MARKS = {"explicit": "o", "denoising": "s", "implicit": "^", "sliced": "D", "finite difference": "v"}

# ------------------------------------------------------------------ the loop of section 3.5


def by_hand(steps: int = 3000) -> tuple[list[float], Any]:
    """The losses and the learned score of the loop that the chapter prints."""
    rng = np.random.default_rng(0)
    W1, b1 = rng.standard_normal((2, 64)), rng.standard_normal(64)
    W2, b2 = np.zeros((64, 2)), np.zeros(2)
    losses = []
    for step in range(steps):
        x0, z = P.sample(rng, 256), rng.standard_normal((256, 2))
        x = x0 + SIGMA * z
        h = np.tanh(x @ W1 + b1)
        r = SIGMA * (h @ W2 + b2) + z
        losses.append(0.5 * np.mean(np.sum(r**2, axis=1)))
        ds = SIGMA * r / 256
        dh = ds @ W2.T * (1 - h**2)
        rate = 0.3 * (1 - step / steps)
        for w, dw in ((W1, x.T @ dh), (b1, dh.sum(axis=0)), (W2, h.T @ ds), (b2, ds.sum(axis=0))):
            w -= rate * dw
    return losses, lambda x: np.tanh(x @ W1 + b1) @ W2 + b2


def field(path: Path = HERE / "03-field.png") -> str:
    losses, score = by_hand()
    noised, box = P.diffuse(1.0, SIGMA), (-4.0, 3.5, -3.75, 3.75)
    fig, (axes,) = figure(2, size=4.6)
    density(axes[0], noised.log_prob, box)
    arrows(axes[0], noised.score, box, 6.0, EXACT, n=15)
    arrows(axes[0], score, box, 6.0, LEARNED, n=15)
    for color, label in ((EXACT, "exact"), (LEARNED, "learned")):
        axes[0].plot([], [], color=color, label=label)
    axes[0].set_title("score of $p_σ$, σ = 0.5 (arrows cut at 6)", fontsize=10)
    axes[0].legend(fontsize=8, loc="lower left")
    axes[1].plot(np.arange(25, 3000, 50), np.reshape(losses, (60, 50)).mean(axis=1), color=LEARNED, label="the loop")
    least = denoising_floor(Denoising(times=FixedTime(T)), P, SDE).value
    axes[1].axhline(least, color=EXACT, ls="--", label=f"the floor, exact: {least:.3f}")
    axes[1].set(xlabel="step", ylabel="denoising loss times σ²", ylim=(0, 1.1), title="the loss does not go to zero")
    axes[1].legend(fontsize=8)
    return save(fig, path)


# ------------------------------------------------------------------ a network


def learning_curve(objective: Any, seed: int, at: list[int]) -> list[float]:
    """Relative score error E|s_θ - s|²/E|s|² of a small network after so many steps."""
    noised = P.diffuse(1.0, SIGMA)
    x, exact = noised.sample(np.random.default_rng(9), 5000), ExactScore(P, SDE)
    model = ScoreModel(MLP((2, 64, 64, 2)), SDE, data_std=1.6)
    data, rng = mixture("tilted", dtype="float32"), np.random.default_rng(seed)
    errors = []
    for state in fit(model, objective, data, Adam(WarmupCosine(3e-3, at[-1])), rng, steps=at[-1], batch=256):
        if state.step in at:
            score = model.bind(state.theta)
            t = np.full(1, T, dtype="float32")
            learned = score(x.astype("float32"), t).astype("float64")
            errors.append(score_error(lambda x, t, learned=learned: learned, exact, x, T).value)
    return errors


def networks(ax: Any, seeds: int = 3) -> dict[str, float]:
    fixed: Any = {"times": FixedTime(T)}
    objectives = {
        "explicit": Explicit(ExactScore(mixture("tilted", dtype="float32"), SDE), **fixed),
        "denoising": Denoising(**fixed), "implicit": Implicit(**fixed), "sliced": Sliced(**fixed),
        "finite difference": FiniteDifference(step=0.05, **fixed),
    }  # fmt: skip
    at = [25, 50, 100, 200, 400, 600, 800, 1000, 1200]
    last = {}
    for name, objective in objectives.items():
        runs = np.array([learning_curve(objective, seed, at) for seed in range(seeds)])
        ax.loglog(at, runs.mean(axis=0), LINES[name], marker=MARKS[name], ms=4, color=COLORS[name], label=name)
        ax.fill_between(at, runs.min(axis=0), runs.max(axis=0), color=COLORS[name], alpha=0.15, lw=0)
        last[name] = float(runs[:, -1].mean())
    ax.set(xlabel="step", ylabel="relative score error", title="a network, fresh samples, 3 seeds")
    ax.legend(fontsize=8)
    return last


# ------------------------------------------------------------------ a score linear in its parameters


TICKS, WIDTH = np.linspace(-2.0, 2.0, 9), 0.6
CENTRES = np.stack(np.meshgrid(TICKS, TICKS, indexing="ij"), axis=-1).reshape(-1, 2)


def bumps(x: Any) -> Any:
    """81 Gaussian bumps, 1, x and y: (N, 84)."""
    along = np.exp(-0.5 * ((x[:, :, None] - TICKS) / WIDTH) ** 2)
    products = (along[:, 0, :, None] * along[:, 1, None, :]).reshape(len(x), -1)
    return np.concatenate([products, np.ones((len(x), 1)), x], axis=1)


def slopes(x: Any, phi: Any) -> Any:
    """Their gradients: (N, 84, 2)."""
    d = np.zeros((*phi.shape, 2))
    d[:, :81] = phi[:, :81, None] * (CENTRES - x[:, None, :]) / WIDTH**2
    d[:, 82:] = np.eye(2)
    return d


def population(sigma: float) -> tuple[Any, Any, Any, dict[str, float]]:
    """A, the best W, a root of A⁻¹, and tr(A⁻¹Σ) for each objective, by quadrature over p_σ."""
    law = P.diffuse(1.0, sigma)
    grid = quadrature_grid(law)
    assert grid is not None
    x, cell = grid
    w = cell * np.exp(law.log_prob(x))
    x, w = x[w > 1e-20], w[w > 1e-20]
    phi, s = bumps(x), law.score(x)
    d, A = slopes(x, phi), (phi * w[:, None]).T @ phi
    W = np.linalg.solve(A, (phi * w[:, None]).T @ s)
    lam, U = np.linalg.eigh(A)
    root = U / np.sqrt(lam)
    fit_, leverage = phi @ W, w * np.sum((phi @ root) ** 2, axis=1)
    J = law.score_jvp(x, np.eye(2)[:, None, :] + 0 * x)
    noise = 2 / sigma**2 + J[0, :, 0] + J[1, :, 1] + np.sum(s * s, axis=1)

    def trace(g: Any) -> float:
        return float(w @ np.sum((g @ root) ** 2, axis=1))

    implicit = sum(trace(phi * fit_[:, [c]] + d[:, :, c]) for c in (0, 1))
    return A, W, root, {
        "explicit": float(leverage @ np.sum((fit_ - s) ** 2, axis=1)),
        "denoising": float(leverage @ (np.sum(fit_ * fit_ - 2 * fit_ * s, axis=1) + noise)),
        "implicit": implicit,
        "sliced": implicit + sum(trace(d[:, :, c]) for c in (0, 1)),
    }  # fmt: skip


def with_control(sigma: float, W: Any, root: Any, n: int = 100_000) -> float:
    """tr(A⁻¹Σ) of denoising with its control variate, by Monte Carlo."""
    rng = np.random.default_rng(0)
    x0, z = P.sample(rng, n), rng.standard_normal((n, 2))
    noisy, clean = bumps(x0 + sigma * z), bumps(x0)
    s, noisy, clean = noisy @ W, noisy @ root, clean @ root
    return sum(
        float(np.mean(np.sum((noisy * (s + z / sigma)[:, [c]] - clean * z[:, [c]] / sigma) ** 2, axis=1)))
        for c in (0, 1)
    )


def minimisers(seed: int, n: int) -> dict[str, Any]:
    """The least point of every objective on n samples, by its normal equations."""
    rng = np.random.default_rng(seed)
    x0, z, v = P.sample(rng, n), rng.standard_normal((n, 2)), 2.0 * rng.integers(0, 2, (n, 2)) - 1
    x = x0 + SIGMA * z
    phi = bumps(x)
    d = slopes(x, phi)
    rights = {
        "explicit": phi.T @ P.diffuse(1.0, SIGMA).score(x), "denoising": -phi.T @ z / SIGMA,
        "implicit": -d.sum(axis=0), "sliced": -np.einsum("bmd,bd->mb", d, v) @ v,
    }  # fmt: skip
    return {name: np.linalg.solve(phi.T @ phi, right) for name, right in rights.items()}


def excess_by_size(ax: Any, seeds: int = 6) -> None:
    A, W, _, price = population(SIGMA)
    sizes = [2000, 4000, 8000, 16_000, 32_000]
    found: dict[str, list[float]] = {name: [] for name in price}
    for n in sizes:
        runs = [{k: 0.5 * np.sum((V - W) * (A @ (V - W))) for k, V in minimisers(i, n).items()} for i in range(seeds)]
        for name in price:
            found[name].append(float(np.mean([run[name] for run in runs])))
    for name in price:
        ax.loglog(sizes, found[name], MARKS[name], color=COLORS[name], label=name)
        ax.loglog(sizes, price[name] / (2 * np.array(sizes)), LINES[name], lw=0.9, color=COLORS[name])
    ax.set(xlabel="samples n", ylabel="excess over the best $W$", title="84 features, 6 seeds; lines: $tr(A^{-1}Σ)/2n$")
    ax.set_xticks(sizes, [str(n) for n in sizes])
    ax.minorticks_off()
    ax.legend(fontsize=8)


def four_techniques(path: Path = HERE / "03-four-techniques.svg") -> str:
    fig, (axes,) = figure(2, size=4.6)
    print({name: f"{100 * e:.2f} %" for name, e in networks(axes[0]).items()})
    excess_by_size(axes[1])
    return save(fig, path)


# ------------------------------------------------------------------ variance against σ


def spreads(sigma: float, n: int = 40_000) -> tuple[float, float]:
    """Standard deviation of one draw's loss (λ = 1) at the exact score: without control, with it."""
    rng = np.random.default_rng(1)
    x0, z = P.sample(rng, n), rng.standard_normal((n, 2))
    s, s_clean = P.score(x0 + sigma * z, 1.0, sigma), P.score(x0, 1.0, sigma)
    plain = 0.5 * np.sum((s + z / sigma) ** 2, axis=1)
    control = np.sum(z * s_clean, axis=1) / sigma + 0.5 * (np.sum(z * z, axis=1) - 2) / sigma**2
    return float(np.std(plain)), float(np.std(plain - control))


def variance(path: Path = HERE / "03-variance.svg") -> str:
    fig, ((ax,),) = figure(1, size=4.6)
    sigmas = np.geomspace(0.01, 5, 20)
    plain, control = np.array([spreads(s) for s in sigmas]).T
    ax.loglog(sigmas, plain, color=LEARNED, label="denoising")
    ax.loglog(sigmas, control, "--", color=EXACT, label="denoising, control variate")
    ax.loglog(sigmas, 1 / sigmas**2, ":", color=INK, lw=0.9, label="$\\sqrt{D/2}/σ^2$")
    ax.set(xlabel="σ", ylabel="standard deviation", title="loss of one draw, at the exact score")
    ax.legend(fontsize=8)
    print("spread at .01:", spreads(0.01))
    return save(fig, path)


def price(path: Path = HERE / "03-price.svg") -> str:
    fig, ((ax,),) = figure(1, size=4.6)
    sigmas = np.geomspace(0.06, 2, 12)
    found = [population(s) for s in sigmas]
    for name in ("explicit", "denoising", "implicit", "sliced"):
        each = [price[name] for *_, price in found]
        ax.loglog(sigmas, each, LINES[name], marker=MARKS[name], ms=4, color=COLORS[name], label=name)
    controlled = [with_control(s, W, root) for s, (_, W, root, _) in zip(sigmas, found, strict=True)]
    ax.loglog(sigmas, controlled, "-.", color=LEARNED, label="denoising, control variate")
    ax.set(xlabel="σ", ylabel="$tr(A^{-1}Σ)$", ylim=(0.1, 2e5), title="price of the gradient's noise, 84 features")
    ax.legend(fontsize=8, ncols=2)
    print("prices at", sigmas.round(3), {k: np.round([price[k] for *_, price in found], 1) for k in found[0][3]})
    print("with control", np.round(controlled, 1))
    return save(fig, path)


# ------------------------------------------------------------------ the floor at every level


def same_moments(p: GaussianMixture) -> GaussianMixture:
    """One Gaussian with the mean and covariance of a mixture in the plane."""
    mean = p.weights @ p.means
    away = p.means - mean
    C = np.einsum("k,kij->ij", p.weights, p.covariances + away[:, :, None] * away[:, None, :])
    return GaussianMixture(np.ones(1), mean[None, :], C[None, ...])


def floor(path: Path = HERE / "03-floor.svg") -> str:
    sigmas, n = np.geomspace(0.01, 9.9, 30), 200
    points = P.sample(np.random.default_rng(0), n)
    laws: dict[str, tuple[GaussianMixture, str, str]] = {
        "best affine score": (same_moments(P), EXACT, "--"),
        "the law of the data": (P, INK, "-"),
        f"{n} training points by heart": (GaussianMixture(np.full(n, 1 / n), points, np.zeros(n)), LEARNED, "-"),
    }
    fig, ((ax,),) = figure(1, size=4.8)
    for label, (law, color, style) in laws.items():
        values = []
        for sigma in sigmas:
            objective = Denoising(times=FixedTime(float(SDE.time(float(sigma)))))
            values.append(denoising_floor(objective, law, SDE, np.random.default_rng(1), samples=4000).value)
        ax.semilogx(sigmas, values, style, color=color, label=label)
    ax.axhline(1.0, color=INK, lw=0.6, ls=":")
    ax.text(0.011, 1.015, "D/2", fontsize=8)
    ax.set(xlabel="σ", ylabel="least loss, λ = σ²", ylim=(0, 1.2), title="the least loss at every noise level")
    ax.legend(fontsize=8, loc="upper right")
    return save(fig, path)


if __name__ == "__main__":
    print(field(), four_techniques(), variance(), price(), floor())
