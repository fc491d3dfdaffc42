"""Write score_mpmath.json: scores, their derivatives, densities and posteriors in 400-digit arithmetic.

    python tests/oracles/make_score_mpmath.py

Needs mpmath, which the tests do not. The parameters of `mixture.diffuse(alpha, sigma)` are taken as the
exact numbers that they are in float64, so that the table judges the evaluation, not the rounding of its
input; a posterior is that of the mixture, alpha and sigma as they are. A log density below -1.8e308 is stored as
-Infinity. 400 digits, because at |x| = 1e150 the odds of two modes hang on the 300th.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from mpmath import mp, mpf

from refscore import GaussianMixture

mp.dps = 400
ALONG = [1.0, -2.0, 0.5]  # the derivative of the score is taken along its first D entries


def vector(x: Any) -> Any:
    return mp.matrix([mpf(float(a)) for a in x])


def matrix(C: np.ndarray, D: int) -> Any:
    return mp.matrix(np.diag(np.broadcast_to(C, D)).tolist() if C.ndim < 2 else C.tolist())


def mean(r: list[Any], terms: list[Any]) -> Any:
    """Σ r_k terms_k."""
    total = r[0] * terms[0]
    for a, term in zip(r[1:], terms[1:], strict=True):
        total += a * term
    return total


def log_joint(w: float, y: Any, S: Any) -> Any:
    """log w N(y; 0, S)."""
    square, log_det = (y.T * mp.lu_solve(S, y))[0], mp.log(mp.det(S))
    return mp.log(mpf(float(w))) - (square + log_det + len(y) * mp.log(2 * mp.pi)) / 2


def normalised(logs: list[Any]) -> list[Any]:
    r = [mp.exp(log - max(logs)) for log in logs]
    return [a / mp.fsum(r) for a in r]


def exact(p: Any, x: np.ndarray) -> dict[str, Any]:
    """∇ log p, log p, J v and div ∇ log p at x (D,)."""
    D, logs, pulls, precisions = p.dim, [], [], []
    for w, m, C in zip(p.weights, p.means, p.covariances, strict=True):
        if w > 0:
            y, S = vector(x) - vector(m), matrix(C, D)
            logs.append(log_joint(w, y, S))
            precisions.append(S**-1)
            pulls.append(-precisions[-1] * y)
    r, v = normalised(logs), vector(ALONG[:D])
    s = mean(r, pulls)
    J = mean(r, [(g - s) * (g - s).T - P for g, P in zip(pulls, precisions, strict=True)])
    log_p = max(logs) + mp.log(mp.fsum(mp.exp(log - max(logs)) for log in logs))
    return {
        "score": [float(a) for a in s], "log_p": float(log_p), "jvp": [float(a) for a in J * v],
        "divergence": float(mp.fsum(J[d, d] for d in range(D))),
    }  # fmt: skip


def posterior(p: Any, alpha: float, sigma: float, x: np.ndarray) -> dict[str, Any]:
    """Mean (D,) and covariance (the upper triangle, row by row) of x₀ given α x₀ + σ z = x."""
    D, a, logs, means, within = p.dim, mpf(alpha), [], [], []
    for w, m, C in zip(p.weights, p.means, p.covariances, strict=True):
        if w > 0:
            y, Ck = vector(x) - a * vector(m), matrix(C, D)
            S = a**2 * Ck + mpf(sigma) ** 2 * mp.eye(D)
            gain = a * Ck * S**-1
            logs.append(log_joint(w, y, S))
            means.append(vector(m) + gain * y)
            within.append(Ck - a * gain * Ck)
    r = normalised(logs)
    centre = mean(r, means)
    cov = mean(r, [C + (m - centre) * (m - centre).T for C, m in zip(within, means, strict=True)])
    return {"mean": [float(a) for a in centre], "cov": [float(cov[i, j]) for i in range(D) for j in range(i, D)]}


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
            rows.append({"mixture": f"modes-{D}", "alpha": 1.0, "sigma": sigma, "x": x.tolist(), "between": True,
                         **exact(p.diffuse(1.0, sigma), x), **posterior(p, 1.0, sigma, x)})  # fmt: skip
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
                rows.append({"mixture": name, "alpha": alpha, "sigma": sigma, "x": x.tolist(), "between": False,
                             **exact(q, x), **posterior(p, alpha, sigma, x)})  # fmt: skip
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
