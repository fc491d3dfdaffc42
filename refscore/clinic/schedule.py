"""Which schedule is it?  A list of β, ᾱ or σ against the published ones, and each of them with one slip. Chapter 17."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from refscore.clinic.diagnosis import RIGHT, UNKNOWN, WRONG, Cause, Diagnosis, near
from refscore.museum.schedules import KNOWN, SLIPS, VARIANTS, List, listed
from refscore.noise.chains import _numbers

SAME = 2e-3  # ᾱ in float32 leaves betas made from it this many digits; a slip is told by being nearer
FREE = 2e-4  # handicap of families with free ends
MISMATCH = 0.01  # nats a dimension that a prior may cost
ENDS = ((0.01, 50.0), (0.002, 80.0), (0.01, 1.0), (0.02, 100.0), (0.01, 90.0), (0.01, 348.0), (0.02, 10.0))


SHORT = "schedule-too-short"


def schedule(
    betas: Sequence[float] | None = None,
    *,
    alphas_bar: Sequence[float] | None = None,
    sigmas: Sequence[float] | None = None,
    data: Any = None,
) -> Diagnosis:
    """Which known schedule a list is, to what precision, and what is shifted, lost or cut off in it.

    Give one list of the three. It is compared with each published schedule of as many steps, and with each of them
    after one slip. What its prior costs is Eq. (17.5).

    Parameters
    ----------
    betas : sequence of N floats, optional
        β_1, ..., β_N, from data to noise.
    alphas_bar : sequence of N floats, optional
        ᾱ_i, the products of 1 - β_j; a leading ᾱ_0 = 1 may stand before them.
    sigmas : sequence of N floats, optional
        σ/α, rising or falling, with or without a 0 at the end of the data.
    data : array (B, ...), optional
        Their mean square says what the prior costs; by default it is 1.

    Returns
    -------
    Diagnosis
        Of kind "schedule".

    Raises
    ------
    TypeError
        Unless one list is given, of numbers.
    ValueError
        For an empty list.

    Examples
    --------
    >>> import numpy as np
    >>> from refscore.clinic.schedule import schedule
    >>> betas = np.linspace(1e-4, 0.02, 1000)
    >>> schedule(betas).name, schedule(alphas_bar=np.cumprod(betas)).causes[0].name
    ('linear', 'product-of-betas')
    """
    given = {k: v for k, v in (("betas", betas), ("alphas_bar", alphas_bar), ("sigmas", sigmas)) if v is not None}
    if len(given) != 1:
        raise TypeError(f"give one of betas, alphas_bar and sigmas; got {' and '.join(given) or 'none'}")
    ((kind, values),) = given.items()
    p = np.asarray(_numbers(kind, values))
    assumed: tuple[str, ...] = ("betas and alphas_bar run from data to noise, sigmas are σ/α",)
    if broken := _broken(kind, p):
        return Diagnosis("schedule", WRONG, "", (broken.says, *_bad_reading(kind, p)), (broken,), {}, assumed)
    power = 1.0 if data is None else float(np.mean(np.asarray(data, dtype="float64") ** 2))
    assumed += (f"the data have mean square {power:.3g}" + ("" if data is not None else ", as none were given"),)
    name, error, causes = _nearest(kind, p)
    snr = _terminal(kind, p)
    nats = 0.5 * (power * snr if kind == "sigmas" else power * snr / (1 + snr) + math.log1p(snr) - snr / (1 + snr))
    lost = _lost(kind, p)
    cause = causes[0] if causes else None
    if cause is None and nats > MISMATCH and not (kind == "sigmas" and data is None):
        cause = Cause(
            SHORT, f"at its end the signal-to-noise ratio is still {snr:.2g}, and sampling starts from pure noise", 0.0,
            f"the prior is off by {nats:.2g} nats a dimension",
        )  # fmt: skip
        causes = (cause,)
    says = [f"{'it is' if error < SAME else 'nearest is'} {name}, {near(error)}{_digits(p) * (error < SAME)}"]
    if cause:
        says.insert(0, cause.says)
    says += [f"terminal signal-to-noise ratio {snr:.3g}; the prior costs {nats:.2g} nats a dimension"]
    says += [f"in {half} the first {k} steps would add no noise" for half, k in lost.items() if k]
    numbers = {"steps": p.size, "error": error, "terminal_snr": snr, "prior_nats": nats, "no_noise_in": lost}
    verdict = WRONG if cause else RIGHT if error < SAME else UNKNOWN
    return Diagnosis("schedule", verdict, name, tuple(says), causes, numbers, assumed)


def _broken(kind: str, p: List) -> Cause | None:
    """What no schedule may be, whichever it is; 1 at one end is an index that starts at 0 (or zero terminal SNR)."""
    inner = p[1:] if p.size > 1 and p[0] == {"betas": 0.0, "alphas_bar": 1.0, "sigmas": 0.0}[kind] else p
    rises = np.diff(p)
    if not np.isfinite(p).all():
        return Cause("not-finite", f"{np.sum(~np.isfinite(p))} of its numbers are not finite", 0.0)
    if kind == "betas" and not (inner.min() > 0 and inner.max() <= 1):
        return Cause("beta-out-of-range", f"β runs from {p.min():.3g} to {p.max():.3g}, and must stay in (0, 1)", 0.0)
    if kind == "alphas_bar" and p.max() > 1:
        return Cause("alpha-bar-out-of-range", f"ᾱ reaches {p.max():.3g}, and may not exceed 1", 0.0)
    if kind == "sigmas" and (p.min() < 0 or (rises > 0).any() == (rises < 0).any() or (rises == 0).any()):
        at = int(np.argmax(rises * np.sign(p[-1] - p[0]) <= 0))
        return Cause(
            "not-monotone", f"σ neither rises nor falls throughout: [{at}] {p[at]:.4g}, [{at + 1}] {p[at + 1]:.4g}", 0.0
        )
    return None


def _bad_reading(kind: str, p: List) -> tuple[str, ...]:
    return (f"{p.size} {kind}, from {p[0]:.4g} to {p[-1]:.4g}",)


def _far(a: List, b: List) -> float:
    """Largest relative difference, where what is below a thousandth of the largest counts as that."""
    if a.shape != b.shape or not np.isfinite(b).all():
        return math.inf
    return float(np.max(np.abs(a - b) / (np.abs(b) + 1e-3 * np.max(np.abs(b)) + 1e-300)))


def _nearest(kind: str, p: List) -> tuple[str, float, tuple[Cause, ...]]:
    """Name and distance of the nearest right schedule; causes where one with a slip is nearer."""
    right: list[tuple[float, str]] = []
    wrong: list[tuple[float, str, str, str]] = []
    inner = p[p > 0] if kind == "sigmas" else p
    inner = inner[::-1] if kind == "sigmas" and inner[0] > inner[-1] else inner
    n, of = inner.size, partial(listed, kind)
    start = {"betas": 0.0, "alphas_bar": 1.0}.get(kind)
    with np.errstate(all="ignore"):
        for name, known in KNOWN.items():
            for label, ab in ((name, known(n)), (f"{name}, zero terminal SNR", _rescaled(known(n)))):
                right.append((_far(inner, of(ab)), label))
            if n < 1000 and 1000 % n == 0:
                right.append((_far(inner, of(known(1000)[1000 // n - 1 :: 1000 // n])), f"{name}, {n} of 1000 steps"))
            if start is not None and n > 1:
                right.append((_far(inner, np.concatenate([[start], of(known(n - 1))])), name))
            for slip, (kinds, says, make) in SLIPS.items():
                if kind in kinds.split() and not ("skipped" in slip and (n >= 1000 or 1000 % n)):
                    wrong.append((_far(inner, make(known, of, n)), slip, says, name))
        for slip, (name, says, known) in VARIANTS.items():
            wrong.append((_far(inner, of(known(n))), slip, says, name))
    right += _fitted(kind, inner)
    wrong += _fitted_wrong(kind, inner)
    error, name = min(right, key=lambda r: round(r[0], 9))  # the first of those that are the same to rounding
    nearer = sorted(w for w in wrong if w[0] < min(0.5 * error, 10 * SAME))
    if error < SAME / 100 or not nearer:  # what is right to rounding is right; free ends fit too easily for that
        return name, error - FREE * any(name == n for _, n in _fitted(kind, inner)), ()
    causes = {slip: Cause(slip, f"{says} ({of_name})", e) for e, slip, says, of_name in reversed(nearer)}
    return nearer[0][3], nearer[0][0], tuple(sorted(causes.values(), key=lambda c: c.error))[:3]


def _rescaled(ab: List) -> List:
    """Lin et al. 2024: √ᾱ shifted and stretched so that it ends at 0."""
    root = np.sqrt(ab)
    return ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2


def _fitted(kind: str, p: List) -> list[tuple[float, str]]:
    """Families with free ends: β or √β linear; σ^{1/ρ} linear."""
    if p.size < 3:
        return []
    n, a, b = p.size, p[0], p[-1]
    if kind == "betas" and a > 0:
        lines = {f"linear from {a:.4g} to {b:.4g}": 1.0, f"scaled-linear from {a:.4g} to {b:.4g}": 2.0}
        return [(_far(p, np.linspace(a ** (1 / k), b ** (1 / k), n) ** k) + FREE, name) for name, k in lines.items()]
    if kind == "sigmas":
        rho = _rho(p)
        shape = {1.0: "linear", math.inf: "geometric"}.get(rho, f"karras, rho {rho:.4g}")
        return [(_far(p, _karras(a, b, n, rho)) + FREE, f"{shape}, from {a:.4g} to {b:.4g}")] if rho >= 1 else []
    return []


def _fitted_wrong(kind: str, p: List) -> list[tuple[float, str, str, str]]:
    if kind != "sigmas" or p.size < 3:
        return []
    a, b, rho = p[0], p[-1], _rho(p)
    fit = _far(p, _karras(a, b, p.size, rho))
    found = (
        [] if rho >= 1 else [(fit, "rho-inverted", f"the powers ρ and 1/ρ are exchanged, ρ = {1 / rho:.3g}", "karras")]
    )
    for slip, says, f in (
        ("variance-for-deviation", "it is σ², and not σ", lambda s: s**2),
        ("natural-log-base-ten", "10 is raised to natural logarithms", lambda s: 10 ** math.log(s)),
        ("common-log-base-e", "e is raised to logarithms of base 10", lambda s: math.exp(math.log10(s))),
    ):
        ends = min(max(abs(a / f(low) - 1), abs(b / f(high) - 1)) for low, high in ENDS)
        if ends < SAME:
            found.append((fit, slip, says, "geometric" if rho == math.inf else f"karras, rho {rho:.4g}"))
    return found


def _karras(a: float, b: float, n: int, rho: float) -> List:
    return np.geomspace(a, b, n) if rho == math.inf else np.linspace(a ** (1 / rho), b ** (1 / rho), n) ** rho


def _rho(p: List) -> float:
    """ρ of which the middle is that of the list: by bisection in 1/ρ, from 0 (geometric) on; 1 is linear."""
    n, i = p.size, p.size // 2
    low, high = 0.0, 100.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        below = _karras(p[0], p[-1], n, 1 / middle)[i] < p[i]
        low, high = (middle, high) if below else (low, middle)
    rho = 1 / high if high > 1e-4 else math.inf
    return float(round(rho)) if rho < math.inf and abs(rho - round(rho)) < 1e-3 * rho and rho > 0.5 else rho


def _terminal(kind: str, p: List) -> float:
    """α²/σ² of the noisiest level."""
    if kind == "sigmas":
        return float(1 / p.max() ** 2)
    ab = float(np.prod(1 - p)) if kind == "betas" else max(float(p[-1]), 0.0)
    return ab / (1 - ab) if ab < 1 else math.inf


def _lost(kind: str, p: List) -> dict[str, int]:
    """How many levels lie so near 1 that ᾱ in that precision is 1."""
    if kind == "sigmas":
        return {}
    ab = np.cumprod(1 - p) if kind == "betas" else p
    return {half: int(np.sum((ab.astype(half) == 1) & (np.arange(ab.size) > 0))) for half in ("float16", "float32")}


def _digits(p: List) -> str:
    for half in ("float16", "float32"):
        if np.array_equal(p, p.astype(half).astype("float64")):
            return f" ({half} numbers)"
    return ""
