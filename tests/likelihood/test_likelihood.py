"""Chapter 11: likelihood by the probability flow, held against the mixture's own density; what spoils it, by cause."""

import itertools
import math
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from scipy.special import ndtr

from refscore import MLP, VE, VP, EnergyModel, ExactScore, GaussianMixture, Reverse, ScoreModel, log_likelihood
from refscore.laws.examples import mixture
from refscore.likelihood.adaptive import solve
from refscore.likelihood.flow import (
    FixedSteps,
    Flow,
    bits_per_dim,
    decode,
    encode,
    error_split,
    interpolate,
)
from refscore.matching.probes import gaussian, rademacher
from refscore.noise.prior import gaussian_prior
from refscore.noise.sde import SDES
from tests.oracles.close import assert_close
from tests.oracles.marks import each_sde
from tests.oracles.mixtures import UNLIKE
from tests.oracles.strategies import few, random_mixture, seeds

T_MIN = 1e-3
SEEDS = {1: 6, 2: 12, 3: 8}
QUICK = ("vp", "ve")  # the rest of the table with `-m slow`


def some(name):
    return () if name in QUICK else pytest.mark.slow


some_sdes = pytest.mark.parametrize("sde", [pytest.param(s, id=n, marks=some(n)) for n, s in SDES.items()])
exactly = partial(solve, rtol=1e-11, atol=1e-11)


def start(p, sde, n, seed=0, t=T_MIN):
    rng = np.random.default_rng(seed)
    return sde.alpha(t) * p.sample(rng, n) + sde.sigma(t) * rng.standard_normal((n, p.dim))


def log_p(p, sde, x, t):
    return p.log_prob(x, sde.alpha(t), sde.sigma(t))


# ------------------------------------------------------------------ the law


@pytest.mark.parametrize(("name", "dim"), [pytest.param(n, 1 + (i + 1) % 3, marks=some(n)) for i, n in enumerate(SDES)])
def test_the_flow_gives_the_log_density(name, dim):
    """Eq. (11.3), with the mixture's p_1 at the far end: nothing is left but the solver."""
    sde = SDES[name]
    p = random_mixture(SEEDS[dim], dim, 3)
    x, score, prior = start(p, sde, 3), ExactScore(p, sde), partial(log_p, p, sde, t=1.0)
    exact = log_p(p, sde, x, T_MIN)
    adaptive = log_likelihood(score, sde, x[:1], t_min=T_MIN, prior=prior, solve=exactly)
    assert_close(adaptive.value, exact[:1], 1e-8, "rtol 1e-11; observed up to 4e-11")
    assert not adaptive.error.any()
    # RK4 in log σ/α: a fourth-order error, which is declared: 2e-6 at 200 steps for the widest span (VE)
    errors = [
        np.abs(log_likelihood(score, sde, x, t_min=T_MIN, prior=prior, solve=FixedSteps(sde, n)).value - exact).max()
        for n in (100, 200)
    ]
    assert errors[1] <= 3e-6
    assert math.log2(errors[0] / errors[1]) >= 3.7  # order 4


@pytest.mark.slow
@given(seed=seeds, dim=st.integers(1, 3), name=st.sampled_from(sorted(SDES)))
def test_the_flow_gives_the_log_density_of_any_mixture(seed, dim, name):
    """Eq. (11.3)."""
    p, sde = random_mixture(seed, dim, 3), SDES[name]
    x = start(p, sde, 2, seed)
    found = log_likelihood(
        ExactScore(p, sde), sde, x, t_min=T_MIN, prior=partial(log_p, p, sde, t=1.0), solve=exactly
    ).value
    # log-odds on the ridge between narrow modes amplify the solver's error; 1e-8 elsewhere
    assert_close(found, log_p(p, sde, x, T_MIN), 1e-8)


@some_sdes
def test_the_bias_of_the_prior_is_the_ratio_of_the_two_densities_at_the_far_end(sde):
    """Eq. (11.7): predicted, not tolerated."""
    p = random_mixture(3, 2, 3)
    x, score, steps = start(p, sde, 4), ExactScore(p, sde), FixedSteps(sde, 100)
    x1 = encode(score, sde, x, T_MIN, steps)
    gap = gaussian_prior(sde)(x1) - log_p(p, sde, x1, 1.0)
    found = log_likelihood(score, sde, x, t_min=T_MIN, solve=steps).value
    exact = log_likelihood(score, sde, x, t_min=T_MIN, solve=steps, prior=partial(log_p, p, sde, t=1.0)).value
    assert_close(found - exact, gap, 1e-10, "the same steps: rounding")
    wanted = np.zeros((1, 2))
    normal = GaussianMixture(np.ones(1), wanted, np.full(1, sde.prior_std**2))
    np.testing.assert_allclose(gaussian_prior(sde)(x1), normal.log_prob(x1), rtol=0, atol=1e-12)
    assert np.max(np.abs(gap)) > 1e-6  # there is something to predict


@each_sde
def test_along_the_flow_the_density_falls_by_its_divergence(sde):
    """Eqs. (11.1), (11.2), (11.4): by a five-point difference along the path, and the trace from the mixture itself."""
    p, t, D = random_mixture(11, 3, 3), 0.3, 3
    x, score = start(p, sde, 5, t=t), ExactScore(p, sde)
    flow = Flow(sde, score, (D,))
    slope = flow(np.concatenate([x, np.zeros((5, 1))], axis=1), t)
    np.testing.assert_allclose(slope[:, :D], Reverse(sde, score, 0.0).drift(x, t), rtol=1e-13)
    div = sde.f(t) * D - 0.5 * sde.g(t) ** 2 * p.divergence(x, sde.alpha(t), sde.sigma(t))
    scale = 1 + np.abs(div)
    assert np.max(np.abs(slope[:, D] - div) / scale) <= 1e-12
    # d/dt log p_t(x(t)) = ∂_t log p + v·s
    ht = 1e-5
    dt = lambda h: (log_p(p, sde, x, t + h) - log_p(p, sde, x, t - h)) / (2 * h)  # noqa: E731
    total = (4 * dt(ht) - dt(2 * ht)) / 3 + np.sum(slope[:, :D] * score(x, t), axis=1)
    assert np.max(np.abs(total + div) / scale) <= 1e-7  # a fourth-order difference: rounding 1e-16/h, and h⁴


@given(x=st.floats(-3, 3), seed=seeds, name=st.sampled_from(["vp", "linear-ve", "ou"]))
def test_in_one_dimension_the_flow_carries_quantiles(x, seed, name):
    """Eq. (11.1): F_1(x(1)) = F_ε(x(ε)), whatever the mixture."""
    p, sde = random_mixture(seed, 1, 3, low=0.1), SDES[name]

    def cdf(y, t):
        alpha, sigma = sde.alpha(t), sde.sigma(t)
        widths = np.sqrt(alpha**2 * p.variances[:, 0] + sigma**2)
        return float(np.sum(p.weights * ndtr((y[0, 0] - alpha * p.means[:, 0]) / widths)))

    there = np.array([[x]])
    code = encode(ExactScore(p, sde), sde, there, 0.05, FixedSteps(sde, 40))
    assert abs(cdf(code, 1.0) - cdf(there, 0.05)) <= 1e-5  # RK4 in 40 steps over 3 to 7 units of log σ/α


# ------------------------------------------------------------------ there and back, and volume


@some_sdes
def test_there_and_back_is_the_identity(sde):
    p = random_mixture(7, 2, 3)
    x, score = start(p, sde, 3), ExactScore(p, sde)
    way = partial(solve, rtol=1e-10, atol=1e-10)
    code = encode(score, sde, x[:1], T_MIN, way)
    assert_close(decode(score, sde, code, T_MIN, way), x[:1], 1e-7)
    steps = FixedSteps(sde, 150)
    again = decode(score, sde, encode(score, sde, x, T_MIN, steps), T_MIN, steps)
    assert_close(again, x, 2e-5, "two RK4 errors, VE the largest")


def random_model(kind, sde, D, seed=0):
    model = kind(MLP((D, 12, 12, D if kind is ScoreModel else 1), embed=4), sde, predict="F")  # about a Gaussian
    theta = model.init(np.random.default_rng(seed), "float64")
    return model.bind(theta + 0.1 * np.random.default_rng(seed + 1).standard_normal(theta.shape))


@pytest.mark.parametrize(("kind", "sde"), [(ScoreModel, VE(0.01, 10.0)), (EnergyModel, VP())], ids=["score", "energy"])
def test_the_likelihood_of_a_network_is_the_volume_of_its_own_flow(kind, sde):
    """Eq. (11.3): log π(x(1)) + log |det ∂x(1)/∂x(ε)|, the determinant by differences of `encode`."""
    D, t_min, steps = 2, 0.05, FixedSteps(sde, 80)
    score = random_model(kind, sde, D)
    x = np.random.default_rng(2).standard_normal((3, D))
    h = 1e-5
    moved = np.concatenate([x + sign * h * e for e in np.eye(D) for sign in (1, -1)])
    ends = encode(score, sde, moved, t_min, steps).reshape(D, 2, 3, D)
    J = np.swapaxes((ends[:, 0] - ends[:, 1]) / (2 * h), 0, 1)
    wanted = gaussian_prior(sde)(encode(score, sde, x, t_min, steps)) + np.linalg.slogdet(J)[1]
    found = log_likelihood(score, sde, x, t_min=t_min, solve=steps).value
    # RK4 of the divergence is not the determinant of RK4's map: both err by their step to the fourth
    assert_close(found, wanted, 1e-5)


def test_what_a_network_says_integrates_to_one():
    """Eq. (11.3): no normaliser is missing, for any network at all."""
    sde = VP()
    x = np.linspace(-14, 14, 1401)
    nats = log_likelihood(random_model(ScoreModel, sde, 1), sde, x[:, None], t_min=0.1, solve=FixedSteps(sde, 40)).value
    assert abs((x[1] - x[0]) * np.sum(np.exp(nats)) - 1) <= 1e-5  # RK4 in 40 steps; observed 1e-7


@given(w=st.floats(0, 1), seed=seeds)
def test_interpolation_on_the_quarter_circle_keeps_the_law(w, seed):
    """Eq. (11.11): for Gaussian data about 0 the flow is linear, so the quarter circle of codes is that of data."""
    rng = np.random.default_rng(seed)
    p = GaussianMixture(np.ones(1), np.zeros((1, 2)), np.exp(rng.uniform(-1, 1, (1, 2))))
    x, y, sde = p.sample(rng, 2), p.sample(rng, 2), VP()
    found = interpolate(ExactScore(p, sde), sde, x, y, w, 0.05, FixedSteps(sde, 15))
    wanted = math.cos(0.5 * math.pi * w) * x + math.sin(0.5 * math.pi * w) * y  # again N(0, C) for independent x, y
    assert_close(found, wanted, 1e-3, "RK4 in 15 steps, there and back")


# ------------------------------------------------------------------ probes

SIGNS = np.array(list(itertools.product((-1.0, 1.0), repeat=3)))  # (8, 3)


def test_all_sign_vectors_together_know_the_divergence():
    """Eq. (11.5): E vvᵀ = I is all that is used, and the average, not the sum, is taken."""
    p, sde = random_mixture(2, 3, 3), VP()
    x, score, steps = start(p, sde, 2), ExactScore(p, sde), FixedSteps(sde, 50)
    v = np.broadcast_to(SIGNS[:, None, :], (8, 2, 3))
    exact = log_likelihood(score, sde, x, t_min=T_MIN, solve=steps).value
    once = log_likelihood(score, sde, x, t_min=T_MIN, solve=steps, probes=v)
    twice = log_likelihood(score, sde, x, t_min=T_MIN, solve=steps, probes=np.concatenate([v, v]))
    for found in (once, twice):
        assert_close(found.value, exact, 1e-10)
    np.testing.assert_allclose(twice.error / once.error, math.sqrt(7 / 15), rtol=1e-8)  # the same spread, K - 1


@given(seed=seeds, D=st.integers(1, 4))
def test_variance_of_one_probe_at_one_point(seed, D):
    """Eq. (11.6): over all sign vectors, and over Gaussian ones by a cubature that is exact for fourth powers."""
    p, sde, t = random_mixture(seed, D, 2), VP(), 0.4
    x = start(p, sde, 1, seed, t)
    S = p.score_jvp(x, np.eye(D)[:, None, :], sde.alpha(t), sde.sigma(t))[:, 0]
    frobenius, diagonal = np.sum(S**2), np.sum(np.diag(S) ** 2)

    def estimates(v):
        y = np.concatenate([x, np.zeros((1, len(v)))], axis=1)
        return Flow(sde, ExactScore(p, sde), (D,), v[:, None, :])(y, t)[0, D:]

    quarter = 0.25 * sde.g(t) ** 4
    scale = quarter * frobenius + 1e-300
    signs = np.array(list(itertools.product((-1.0, 1.0), repeat=D)))
    assert abs(np.var(estimates(signs)) - quarter * (2 * frobenius - 2 * diagonal)) <= 1e-10 * scale
    # Gauss-Hermite in three points for each coordinate: -√3, 0, √3 with weights 1/6, 2/3, 1/6
    nodes = np.array(list(itertools.product((-math.sqrt(3), 0.0, math.sqrt(3)), repeat=D)))
    weights = np.prod(np.where(nodes == 0, 2 / 3, 1 / 6), axis=1)
    values = estimates(nodes)
    mean = weights @ values
    assert abs(weights @ (values - mean) ** 2 - quarter * 2 * frobenius) <= 1e-10 * scale


def test_the_error_of_the_probes_is_honest():
    """Eq. (11.5): over all pairs of sign vectors the mean squared error bar is the estimate's variance."""
    p, sde = random_mixture(2, 3, 3), VP()
    pairs = np.array(list(itertools.product(range(8), repeat=2)))
    v = np.swapaxes(SIGNS[pairs], 0, 1)  # (2, 64, 3)
    x = np.broadcast_to(start(p, sde, 1), (64, 3))
    found = log_likelihood(ExactScore(p, sde), sde, x, t_min=T_MIN, solve=FixedSteps(sde, 50), probes=v)
    np.testing.assert_allclose(np.mean(found.error**2), np.var(found.value), rtol=1e-9)
    one = log_likelihood(ExactScore(p, sde), sde, x[:1], t_min=0.5, solve=FixedSteps(sde, 2), probes=v[:1, :1])
    assert one.error[0] == math.inf  # one probe does not know how wrong it is


def test_an_adaptive_solver_gives_each_sample_its_own_probes():
    p, sde = random_mixture(2, 2, 3), VP()
    x = start(p, sde, 3)
    v = gaussian(np.random.default_rng(4), (2, 3, 2), np.float64)
    found, exact = (
        log_likelihood(ExactScore(p, sde), sde, x, t_min=0.01, probes=v, solve=s)
        for s in (partial(solve, rtol=1e-9, atol=1e-9), FixedSteps(sde, 300))
    )
    np.testing.assert_allclose(found.value, exact.value, rtol=0, atol=1e-6)  # RK4's error
    np.testing.assert_allclose(found.error, exact.error, rtol=0, atol=1e-6)
    assert np.min(exact.error) > 1e-3


# ------------------------------------------------------------------ arrays


class Square:
    """A score of four coordinates for data of shape (B, 2, 2)."""

    takes_numbers = True  # as what it wraps, so that bits can be compared

    def __init__(self, score):
        self.score = score

    def __call__(self, x, t):
        return self.score(x.reshape(-1, 4), t).reshape(-1, 2, 2)

    def jvp(self, x, t, v):
        s, sdot = self.score.jvp(x.reshape(-1, 4), t, v.reshape(len(v), -1, 4))
        return s.reshape(x.shape), sdot.reshape(v.shape)


def test_data_may_have_any_shape():
    p, sde = random_mixture(6, 4, 2), VP()
    x, steps = start(p, sde, 3), FixedSteps(sde, 20)
    v = rademacher(np.random.default_rng(4), (2, 3, 4), np.float64)
    flat, square = ExactScore(p, sde), Square(ExactScore(p, sde))
    for probes in (None, v):
        a = log_likelihood(flat, sde, x, solve=steps, probes=probes)
        shaped = None if probes is None else probes.reshape(2, 3, 2, 2)
        b = log_likelihood(square, sde, x.reshape(3, 2, 2), solve=steps, probes=shaped)
        np.testing.assert_allclose(a.value, b.value, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(
        encode(flat, sde, x, 0.01, steps).reshape(3, 2, 2), encode(square, sde, x.reshape(3, 2, 2), 0.01, steps)
    )


def test_float32_stays_float32_and_agrees_with_float64():
    sde, t_min = VP(), 0.01
    p64, p32 = (mixture("tilted", dtype=d) for d in ("float64", "float32"))
    x = start(p64, sde, 5, t=t_min)
    low = log_likelihood(ExactScore(p32, sde), sde, x.astype("float32"), t_min=t_min)
    assert low.value.dtype == low.error.dtype == np.float32
    high = log_likelihood(ExactScore(p64, sde), sde, x, t_min=t_min)
    assert_close(low.value, high.value, 1e-4, "800 roundings of a logarithm of order 10: 1e-5 observed")


def test_every_back_end_says_the_same(backend):
    sde, t_min, there = VP(), 0.01, mixture("tilted", backend.asarray)
    here = mixture("tilted")
    x = start(here, sde, 2, t=t_min)
    v = rademacher(np.random.default_rng(4), (2, 2, 2), np.float64)
    for s in (FixedSteps(sde, 4), partial(solve, rtol=1e-2, atol=1e-2)):
        for probes in (None, v):
            moved = None if probes is None else backend.asarray(probes)
            score = ExactScore(there, sde)
            a = log_likelihood(score, sde, backend.asarray(x), t_min=t_min, probes=moved, solve=s)
            b = log_likelihood(ExactScore(here, sde), sde, x, t_min=t_min, probes=probes, solve=s)
            np.testing.assert_allclose(backend.to_numpy(a.value), b.value, rtol=0, atol=1e-10)
            np.testing.assert_allclose(backend.to_numpy(a.error), b.error, rtol=0, atol=1e-10)
    codes = interpolate(score, sde, backend.asarray(x), backend.asarray(x[::-1].copy()), 0.3, t_min, FixedSteps(sde, 5))
    assert type(codes) is type(backend.asarray(x))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": np.zeros(3)}, "at least 2 axes"),
        ({"x": np.full((2, 2), np.nan)}, "not finite"),
        ({"probes": np.ones((2, 3))}, r"probes must have shape \(K, 2, 2\), got \(2, 3\)"),
        ({"t_min": 0.0}, r"t_min must lie in \(0, 1\), got 0.0"),
        ({"t_min": 1.5}, r"t_min must lie in \(0, 1\), got 1.5"),
    ],
)
def test_what_cannot_be_is_refused(changes, message):
    arguments = {"x": np.ones((2, 2)), **changes}
    with pytest.raises(ValueError, match=message):
        log_likelihood(ExactScore(mixture("tilted"), VP()), VP(), **arguments)


def test_a_grid_needs_a_step():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        FixedSteps(VP(), 0)


def test_fixed_steps_go_between_any_two_times():
    """To 0.6 and on to 1 is the way to 1: the grid ends where it was told to."""
    p, sde = mixture("tilted"), VP()
    v, x, steps = Reverse(sde, ExactScore(p, sde), 0.0).drift, start(p, sde, 3), FixedSteps(sde, 200)
    np.testing.assert_allclose(steps(v, steps(v, x, T_MIN, 0.6), 0.6, 1.0), steps(v, x, T_MIN, 1.0), atol=1e-7)


# ------------------------------------------------------------------ bits

NODES, WEIGHTS = (a * 0.5 for a in np.polynomial.legendre.leggauss(40))


def bits_of_cells(width):
    """Cells k, their exact -log₂ P, and the mean over uniform u in the cell of bits_per_dim of log p(k + u)."""
    low = np.arange(-4.0, 5.0, width)
    edges = np.concatenate([low, low[-1:] + width])
    P = sum(
        w * np.diff(ndtr((edges - m) / math.sqrt(v)))
        for w, m, v in zip(UNLIKE.weights, UNLIKE.means[:, 0], UNLIKE.variances[:, 0], strict=True)
    )
    u = low[:, None] + width * (0.5 + NODES)
    bits = bits_per_dim(UNLIKE.log_prob(u.reshape(-1, 1)), 1, width).reshape(u.shape)
    return np.asarray(P), -np.log2(np.maximum(P, 1e-300)), bits @ WEIGHTS


def test_uniform_dequantisation_bounds_the_likelihood_of_the_cells():
    """Eqs. (11.9), (11.10): Jensen in every cell; the gap vanishes as the square of the width."""
    gaps = []
    for width in (0.5, 0.25, 0.125):
        P, exact, dequantised = bits_of_cells(width)
        likely = P > 1e-12
        assert np.all(dequantised[likely] >= exact[likely] - 1e-10)  # Gauss-Legendre, rounding of P in the tails
        gaps.append(float(P @ (dequantised - exact)))
    assert_close(np.log2(np.divide(gaps[:-1], gaps[1:])), 2, 0.2, gaps)


def test_without_dequantisation_a_density_may_say_any_number_of_bits():
    """Eq. (11.10): spikes on the lattice that quantised data live on; noise in the cell puts them right."""
    width, P = 0.5, np.array([0.1, 0.6, 0.3])
    lattice = (width * np.arange(3.0))[:, None]
    entropy = -float(P @ np.log2(P))
    for delta in (1e-2, 1e-4, 1e-6):
        spikes = GaussianMixture(P, lattice, np.full(3, delta**2))
        bits = float(P @ bits_per_dim(spikes.log_prob(lattice), 1, width))
        assert abs(bits - (entropy + math.log2(delta * math.sqrt(2 * math.pi) / width))) <= 1e-9  # to minus infinity
        u = (lattice + width * NODES).reshape(-1, 1)  # centred cells: the spikes' own probabilities are P
        dequantised = bits_per_dim(spikes.log_prob(u), 1, width).reshape(3, -1) @ WEIGHTS
        assert float(P @ dequantised) > entropy


def test_densities_may_exceed_one_and_bits_may_be_negative():
    """Eq. (11.9): of a density; not of cells, whose bits are positive."""
    narrow = GaussianMixture(np.ones(1), np.zeros((1, 1)), np.array([0.01]))
    peak = narrow.log_prob(np.zeros((1, 1)))
    assert peak[0] > 0
    assert bits_per_dim(peak, 1)[0] < 0
    assert bits_per_dim(peak, 1, 1 / 256)[0] == bits_per_dim(peak, 1)[0] + 8  # the offset of 8-bit data in [0, 1]
    assert bits_per_dim(peak, 1, 1 / 128)[0] == bits_per_dim(peak, 1)[0] + 7
    for wrong, message in (
        ((peak, 0), "dim must be an integer of at least 1"),
        ((peak, 1, 0.0), "bins must be positive"),
    ):
        with pytest.raises(ValueError, match=message):
            bits_per_dim(*wrong)


# ------------------------------------------------------------------ the split


class Perturbed:
    """The exact score times 1 + d, plus e·(sin x): wrong in height and in form, with its exact derivative."""

    def __init__(self, score, d, e):
        self.score, self.d, self.e = score, d, e

    def __call__(self, x, t):
        return (1 + self.d) * self.score(x, t) + self.e * np.sin(x)

    def jvp(self, x, t, v):
        s, sdot = self.score.jvp(x, t, v)
        return (1 + self.d) * s + self.e * np.sin(x), (1 + self.d) * sdot + self.e * np.cos(x) * v


P, SDE, FINE = mixture("tilted"), VP(), FixedSteps(VP(), 100)
POINTS = P.sample(np.random.default_rng(1), 4)


def split_of(d, e, steps, probes=None, t_min=1e-3):
    score = Perturbed(ExactScore(P, SDE), d, e)
    return error_split(score, P, SDE, POINTS, t_min=t_min, probes=probes, solve=FixedSteps(SDE, steps), fine=FINE)


def test_the_causes_of_an_error_add_up():
    """Eq. (11.8)."""
    v = rademacher(np.random.default_rng(3), (4, 4, 2), np.float64)
    split, score = split_of(0.01, 0.05, 20, v), Perturbed(ExactScore(P, SDE), 0.01, 0.05)
    model = log_likelihood(score, SDE, POINTS, t_min=1e-3, probes=v, solve=FixedSteps(SDE, 20))
    assert_close(split.total, model.value - P.log_prob(POINTS), 1e-12)
    assert all(np.max(np.abs(part)) > 1e-5 for part in split)  # every cause is there


def test_a_cause_that_is_absent_costs_nothing():
    """Eq. (11.8): each part answers to its own cause, and to no other."""
    clean, rough = split_of(0.0, 0.0, 100), split_of(0.0, 0.0, 20)
    for absent in (clean.score, clean.discretisation, clean.probes):
        assert not np.any(absent)
    assert not np.any(rough.probes)
    np.testing.assert_array_equal(rough.prior, clean.prior)
    assert np.max(np.abs(rough.discretisation)) > 1e-4
    x1 = encode(ExactScore(P, SDE), SDE, POINTS, 1e-3, FINE)
    gap = gaussian_prior(SDE)(x1) - log_p(P, SDE, x1, 1.0)
    assert_close(clean.prior, gap, 2e-5, "RK4 in 100 steps")


def test_truncation_is_of_first_order_in_the_noise_that_is_left():
    """Eq. (11.8): log p_ε - log p₀ = ½ σ² ∆p/p + (1 - α) div(x p)/p + ..., both of order ε."""
    small, smaller = (log_p(P, SDE, POINTS, t) - P.log_prob(POINTS) for t in (1e-5, 5e-6))  # σ² ~ β_min t there
    np.testing.assert_allclose(small / smaller, 2, rtol=0.01)
    np.testing.assert_allclose(split_of(0.0, 0.0, 5, t_min=1e-5).truncation, small, rtol=0, atol=1e-14)


def test_the_score_s_part_is_linear_in_the_score_s_error():
    one, half = (split_of(d, 0.0, 5).score for d in (2e-5, 1e-5))
    np.testing.assert_allclose(one, 2 * half, rtol=1e-2, atol=1e-9)


# ------------------------------------------------------------------ the bound


@few
@given(
    seed=seeds, name=st.sampled_from(["vp", "subvp", "cosine", "linear-ve", "ou"]), lam=st.sampled_from([1.0, 0.5, 2.0])
)
def test_the_weighted_error_of_the_score_bounds_the_divergence_of_its_samples(seed, name, lam):
    """Eq. (11.12): one Gaussian and an affine score, both sides from moments; never a violation."""
    assert bound_slack(seed, SDES[name], lam) >= -1e-10


def bound_slack(seed, sde, lam, factor=None):
    rng = np.random.default_rng(seed)
    m, C = rng.uniform(-1, 1), math.exp(rng.uniform(-2, 1))
    p = GaussianMixture(np.ones(1), np.array([[m]]), np.array([C]))
    exact, slope, shift = ExactScore(p, sde), rng.uniform(-0.5, 0.5), rng.uniform(-0.5, 0.5)
    t0 = 0.05

    def scale(t):
        return 1 / (sde.alpha(t) ** 2 * C + sde.sigma(t) ** 2)

    def learned(x, t):  # wrong by a slope and a shift, in units of the width
        t = float(np.ravel(t)[0])
        return exact(x, t) + scale(t) * (slope * (x - sde.alpha(t) * m) + shift / math.sqrt(scale(t)))

    reverse = Reverse(sde, learned, lam)
    if factor is None:
        factor = (1 + lam**2) ** 2 / (4 * lam**2)

    def moments(t, y):  # the affine drift of the code itself, told by two points
        at0, at1 = reverse.drift(np.array([[0.0], [1.0]]), t)[:, 0]
        noise = float(np.ravel(reverse.noise(np.zeros((1, 1)), t))[0])
        error = scale(t) * (slope**2 + shift**2)  # E over p_t of the squared error
        return [at0 + (at1 - at0) * y[0], 2 * (at1 - at0) * y[1] - noise**2, -0.5 * sde.g(t) ** 2 * error]

    y = solve_ivp(moments, (1.0, t0), [0.0, sde.prior_std**2, 0.0], "DOP853", rtol=1e-9, atol=1e-12).y[:, -1]

    def kl(m, v, n, w):
        return 0.5 * (v / w + (m - n) ** 2 / w - 1 - math.log(v / w))

    def truth(t):
        return sde.alpha(t) * m, 1 / scale(t)

    return kl(*truth(1.0), 0.0, sde.prior_std**2) + factor * y[2] - kl(*truth(t0), y[0], y[1])


def test_the_probability_flow_has_no_such_bound():
    """Eq. (11.12) is of the reverse SDE: with λ -> 0 its factor has no limit, and that of λ = 1 does not serve."""
    slacks = [bound_slack(seed, VP(), 0.0, factor=1.0) for seed in range(6)]
    assert min(slacks) < -0.01
    assert min(bound_slack(seed, VP(), 1.0) for seed in range(6)) >= -1e-10
