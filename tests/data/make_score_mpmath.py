"""Write score_mpmath.json: scores and log densities of diffused mixtures in 60-digit arithmetic.

    python tests/data/make_score_mpmath.py

Needs mpmath, which the tests do not. The parameters of `mixture.diffuse(alpha, sigma)` are taken as the
exact numbers that they are in float64, so that the table judges the evaluation, not the rounding of its
input. A log density below -1.8e308 is stored as -Infinity.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from mpmath import mp, mpf

from refscore import GaussianMixture

mp.dps = 60


def exact(p: GaussianMixture, x: np.ndarray) -> tuple[list[float], float]:
    """∇ log p and log p at x (D,)."""
    D = p.dim
    logs, pulls = [], []
    for w, m, C in zip(p.weights, p.means, p.covariances, strict=True):
        if w == 0:
            continue
        y = mp.matrix([mpf(float(a)) - mpf(float(b)) for a, b in zip(x, m, strict=True)])
        S = mp.matrix(np.diag(np.broadcast_to(C, D)).tolist() if C.ndim < 2 else C.tolist())
        g = -mp.lu_solve(S, y)
        logs.append(mp.log(mpf(float(w))) + (y.T * g)[0] / 2 - mp.log(mp.det(S)) / 2 - D * mp.log(2 * mp.pi) / 2)
        pulls.append(g)
    top = max(logs)
    r = [mp.exp(log - top) for log in logs]
    score = [mp.fsum(a * g[d] for a, g in zip(r, pulls, strict=True)) / mp.fsum(r) for d in range(D)]
    log_p = top + mp.log(mp.fsum(r))
    return [float(s) for s in score], float(log_p)


def turned(*variances: float, seed: int) -> list[list[float]]:
    """A full covariance with these eigenvalues."""
    D = len(variances)
    Q = np.linalg.qr(np.random.default_rng(seed).standard_normal((D, D)))[0]
    C = (Q * np.asarray(variances)) @ Q.T
    return (0.5 * (C + C.T)).tolist()


MIXTURES: dict[str, tuple[Any, Any, Any]] = {
    "isotropic-1": ([0.7, 0.3], [[-1.0], [2.5]], [0.25, 0.5]),
    "diagonal-2": ([0.5, 0.2, 0.3], [[-2.0, 0.5], [1.5, 1.5], [0.5, -2.0]], [[0.5, 0.1], [1e-3, 2.0], [0.2, 0.2]]),
    "full-2": (
        [0.6, 0.4], [[-2.0, 0.5], [1.5, 1.5]], [turned(0.5, 0.1, seed=1), turned(0.3, 0.003, seed=2)]
    ),
    "full-3": (
        [0.25, 0.25, 0.5], [[1.0, 0.0, -1.0], [-2.0, 1.0, 0.5], [0.0, 3.0, 3.0]],
        [turned(1.0, 0.1, 0.01, seed=3), turned(2.0, 1.0, 1e-6, seed=4), turned(0.3, 0.3, 0.2, seed=5)],
    ),
    "points-1": ([0.5, 0.5], [[-1.0], [1.0]], [0.0, 0.0]),
    "points-3": ([0.2, 0.8], [[0.0, 1.0, 2.0], [1.0, 1.0, -1.0]], [0.0, 0.0]),
    "plane-2": ([1.0], [[0.3, -0.7]], [[1.0, 0.0]]),
    "tilted-plane-2": ([0.5, 0.5], [[0.3, -0.7], [-2.0, 0.0]], [turned(1.0, 0.0, seed=8), turned(0.5, 0.5, seed=9)]),
    "rare-1": ([1e-300, 1.0], [[40.0], [0.0]], [1.0, 1.0]),
    "rare-2": ([1e-300, 1e-20, 1.0], [[40.0, 0.0], [0.0, -9.0], [0.0, 0.0]], [[1.0, 1.0], [2.0, 0.1], [1.0, 0.5]]),
    "rare-3": (
        [1e-300, 1.0], [[20.0, 30.0, 0.0], [0.0, 0.0, 0.0]],
        [turned(1.0, 0.5, 0.1, seed=6), turned(1.0, 1.0, 2.0, seed=7)],
    ),
    "wide-and-narrow-1": ([0.5, 0.5], [[0.0], [0.0]], [1e-10, 1e8]),
    "wide-and-narrow-2": ([0.999, 0.001], [[1.0, 1.0], [0.0, 0.0]], [[1e-6, 1e-4], [1e4, 1e6]]),
    "unequal-2": ([0.0, 1.0], [[0.0, 0.0], [1.0, 2.0]], [1.0, 3.0]),
}  # fmt: skip
LEVELS = [(1.0, 1e-8, 1e150), (0.9, 1e-4, 1e120), (0.5, 0.3, 1e80), (0.1, 10.0, 1e150), (1.0, 1e5, 1e150)]


def typical(p: GaussianMixture, farthest: float, rng: np.random.Generator) -> list[np.ndarray]:
    """A typical point, one between the components, one far and one out of sight."""
    centre = p.sample(rng, 1)[0]
    u = rng.standard_normal(p.dim)
    u /= np.linalg.norm(u)
    lam = rng.uniform(0.3, 0.7)
    between = lam * p.means[0] + (1 - lam) * p.means[-1]
    return [centre, between + 0.1 * u, centre + 10.0 ** rng.uniform(2, 20) * u, farthest * u]


def between_narrow_modes(rng: np.random.Generator) -> list[dict[str, Any]]:
    """Where two modes 2 apart and up to 3e4 standard deviations off have comparable responsibilities."""
    rows = []
    for D in (1, 2, 3):
        for sigma in (1e-3, 1e-4, 3.4e-5):
            m = np.zeros((2, D))
            m[0, 0], m[1, 0] = -1.0, 1.0
            weights = [0.8, 0.2]
            p = GaussianMixture(np.asarray(weights), m, np.zeros(2))
            x = np.zeros(D)
            # log odds of the modes: log 4 - 2 x / σ² = ±1
            x[0] = (np.log(4.0) + rng.choice([-1.0, 1.0])) * sigma**2 / 2
            x[1:] = sigma * rng.standard_normal(D - 1)
            score, log_p = exact(p.diffuse(1.0, sigma), x)
            rows.append({"mixture": f"modes-{D}", "alpha": 1.0, "sigma": sigma, "x": x.tolist(), "score": score,
                         "log_p": log_p, "between": True})  # fmt: skip
    return rows


def main() -> None:
    rng = np.random.default_rng(20240)
    rows: list[dict[str, Any]] = []
    for name, parameters in MIXTURES.items():
        p = GaussianMixture(*(np.asarray(a, dtype="float64") for a in parameters))
        for alpha, sigma, farthest in LEVELS:
            if name.startswith("tilted-plane") and sigma < 1e-6:
                continue  # a full matrix of condition 1e16 does not hold its smallest eigenvalue
            q = p.diffuse(alpha, sigma)
            for x in typical(q, farthest, rng):
                score, log_p = exact(q, x)
                rows.append({"mixture": name, "alpha": alpha, "sigma": sigma, "x": x.tolist(), "score": score,
                             "log_p": log_p, "between": False})  # fmt: skip
    rows += between_narrow_modes(rng)
    mixtures: dict[str, Any] = dict(MIXTURES)
    for D in (1, 2, 3):
        mixtures[f"modes-{D}"] = ([0.8, 0.2], [[s] + [0.0] * (D - 1) for s in (-1.0, 1.0)], [0.0, 0.0])
    lines = [
        '{"mixtures": {', ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in mixtures.items()),
        '}, "rows": [', ",\n".join(json.dumps(row) for row in rows), "]}",
    ]  # fmt: skip
    Path(__file__).with_name("score_mpmath.json").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
