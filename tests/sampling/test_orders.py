"""The order of every sampler: the slope of its error, the constant in front, and the grids it runs on. Chapter 10.

Deterministic samplers on the mixture `tilted`, VE from σ = 10 to 0.05, against DOP853; stochastic ones by their exact
law on a Gaussian.
"""

import math
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from refscore import EDM, VE, VP, ExactScore, Reverse, RungeKutta, simulate
from refscore.laws.affine_chain import Gaussian, probe, wasserstein
from refscore.laws.examples import mixture
from refscore.measure.work_precision import GAUSSIAN, starts
from refscore.noise.grids import karras_times, log_snr_times, quadratic_times, uniform_times
from refscore.noise.reverse import denoise
from refscore.noise.sde import SDES
from refscore.sampling.loop import last
from refscore.sampling.solvers import EULER, HEUN, MIDPOINT, RK4
from refscore.sampling.transitions import SAMPLERS
from tests.oracles.affine import TARGETS, law_of, marginal, start
from tests.oracles.replay import ReplayRng

SDE, END = VE(0.01, 10.0), 0.05


@cache
def exact_flow(points=64):
    """Points at σ(1), and where the probability flow takes them at σ = 0.05."""
    score = ExactScore(mixture("tilted"), SDE)
    x = SDE.prior_std * np.random.default_rng(0).standard_normal((points, 2))
    drift = Reverse(SDE, score, lam=0.0).drift
    solved = solve_ivp(
        lambda t, y: drift(y.reshape(points, 2), float(t)).ravel(), (1.0, SDE.time(END)), x.ravel(), "DOP853",
        rtol=1e-12, atol=1e-13,
    )  # fmt: skip
    return x, solved.y[:, -1].reshape(points, 2)


def flow_error(name, n):
    """Root mean square over the points, after n steps equal in log σ."""
    x, wanted = exact_flow()
    step = SAMPLERS[name](SDE, ExactScore(mixture("tilted"), SDE))
    y = last(simulate(step, x, log_snr_times(SDE, n, float(SDE.time(END))), ReplayRng()))
    return float(np.sqrt(np.mean((y - wanted) ** 2)))


ORDERS = {  # sampler: order, constant c = N^p error at the larger N, and the two N
    "euler": (1, 5.70, 1024, 4096),  # later than the others: 1.073 between 256 and 1024
    "ddim": (1, 1.412, 256, 1024),
    "dpm-solver++1": (1, 1.412, 256, 1024),
    "midpoint": (2, 7.563, 256, 1024),
    "heun": (2, 4.743, 256, 1024),
    "edm": (2, 2.738, 256, 1024),
    "dpm-solver++2m": (2, 6.431, 256, 1024),
    "rk4": (4, 21.14, 64, 256),  # beyond, rounding shows
}


@pytest.mark.recorded("the constants are of these 64 points")
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in ("euler", "midpoint") else n for n in ORDERS]
)
def test_deterministic_samplers_have_their_order_and_their_constant(name):
    """Eq. (10.17), on a mixture, with the constants of the chapter's table."""
    order, constant, few, many = ORDERS[name]
    errors = [flow_error(name, n) for n in (few, many)]
    slope = math.log(errors[0] / errors[1]) / math.log(many / few)
    assert abs(slope - order) <= 0.05, slope
    assert errors[1] * many**order == pytest.approx(constant, rel=0.1)


def weak_error(step, n, end=1e-2):
    """Of mean and covariance on a Gaussian, of the code itself, n steps equal in log SNR from the true law at 1."""
    sde, target = SDES["vp"], TARGETS["gaussian"]
    found = law_of(step, log_snr_times(sde, n, end), start(sde, target))
    return max(float(np.max(np.abs(a - b))) for a, b in zip(found, marginal(sde, target, end), strict=True))


WEAK_ORDERS = {  # sampler: order, and c = N^p error at N = 128
    "euler-maruyama": (1, 1.77),
    "reverse-diffusion": (1, 3.53),
    "ancestral": (1, 6.23),
    "ancestral-large": (1, 0.721),
    "ddim": (1, 3.20),
    "dpm-solver++2m": (2, 6.50),
    "sde-dpm-solver++2m": (2, 17.2),
    "edm": (2, 13.5),
}


@pytest.mark.parametrize("tableau", [EULER, MIDPOINT, HEUN, RK4])
def test_a_stage_at_the_end_is_asked_at_the_end_itself(tableau):
    """t + 1 · (s - t) is another number, which may lie outside of the grid."""
    t, s, asked = 0.7, 0.1, []
    assert t + (s - t) < s
    RungeKutta(lambda x, at: asked.append(at) or x, tableau)(np.ones((1, 1)), t, s, None)
    assert asked == [s if c == 1 else t + c * (s - t) for c in tableau.c]
    assert len(asked) == len(tableau.b)


@pytest.mark.parametrize("name", WEAK_ORDERS)
def test_samplers_have_their_weak_order_on_a_gaussian(name):
    """Eq. (10.17), by the exact law: SDE-DPM-Solver++(2M) has order 2."""
    order, constant = WEAK_ORDERS[name]
    step = SAMPLERS[name](SDES["vp"], ExactScore(TARGETS["gaussian"], SDES["vp"]))
    few, many = weak_error(step, 64), weak_error(step, 128)
    assert abs(math.log2(few / many) - order) <= 0.065, (few, many)
    assert many * 128**order == pytest.approx(constant, rel=0.1)


@pytest.mark.slow
def test_churn_has_order_2_when_its_sum_is_kept_and_none_when_each_is():
    """EDM with γ = S/N; with the same γ at every N the noise of one step, not h, is what Heun's method errs by."""
    score = ExactScore(TARGETS["gaussian"], SDES["vp"])
    few, many = (weak_error(EDM(SDES["vp"], score, churn=5 / n), n) for n in (64, 128))
    assert abs(math.log2(few / many) - 2) <= 0.05
    few, many = (weak_error(EDM(SDES["vp"], score, churn=0.1), n) for n in (128, 256))
    assert math.log2(few / many) < 1.2


# ------------------------------------------------------------------ grids

PUBLISHED = (
    "80 57.586 40.786 28.375 19.352 12.910 8.401 5.315 3.257 1.923 1.088 .5853 .2964 .1395 .0599 .0229 .0075 .002"
)


def test_karras_levels_are_the_published_ones():
    """Eq. (10.18): the 18 levels of Karras et al. 2022, and then 0."""
    for sde in (SDES["linear-ve"], SDES["vp"], VE(0.002, 81.0)):
        times = karras_times(sde, 18, 80.0)
        assert len(times) == 19
        assert times[-1] == 0.0
        levels = [sde.sigma(t) / sde.alpha(t) for t in times[:-1]]
        for found, printed in zip(levels, PUBLISHED.split(), strict=True):
            digits = len(printed.partition(".")[2])
            assert abs(found - float(printed)) <= 0.501 * 10.0**-digits, printed


@pytest.mark.parametrize("sde", SDES.values(), ids=SDES)
@given(n=st.integers(2, 60), rho=st.floats(1, 10), share=st.floats(0.01, 1.0), span=st.floats(10, 1e4))
def test_karras_times_fall_from_their_highest_level_to_0(sde, n, rho, share, span):
    """Eq. (10.18)."""
    high = share * sde.sigma(1.0) / sde.alpha(1.0)
    times = karras_times(sde, n, high, high / span, rho)
    assert len(times) == n + 1
    assert all(1 >= t > s >= 0 for t, s in pairwise(times))
    roots = [(sde.sigma(t) / sde.alpha(t)) ** (1 / rho) for t in times[:-1]]
    assert roots[0] == pytest.approx(high ** (1 / rho), rel=1e-10)
    assert roots[-1] == pytest.approx((high / span) ** (1 / rho), rel=1e-10)
    # levels come back from times of precision 1e-16, to some ten digits where σ hardly changes with t
    np.testing.assert_allclose(np.diff(roots), (roots[-1] - roots[0]) / (n - 1), rtol=0, atol=1e-9 * roots[0])


def test_karras_times_take_the_highest_level_there_is_and_no_more():
    for sde in SDES.values():
        top = sde.sigma(1.0) / sde.alpha(1.0)
        assert karras_times(sde, 5, top)[0] == pytest.approx(1, abs=1e-9)
        assert karras_times(sde, 5) == karras_times(sde, 5, top)
        with pytest.raises(ValueError, match=r"the level .* is beyond the noise that .* ends with"):
            karras_times(sde, 5, 1.001 * top)


@pytest.mark.parametrize(
    ("n", "high", "low", "rho"),
    [(1, 80, 0.002, 7), (0, 80, 0.002, 7), (5, 1, 1, 7), (5, 1, 2, 7), (5, 80, 0, 7), (5, 80, -1, 7), (5, 80, 0.1, 0),
     (5, math.nan, 0.1, 7), (5, 80, math.nan, 7), (5, 80, 0.1, math.nan), (5, math.inf, 0.1, 7),
     (5, 80, 0.1, math.inf)],
)  # fmt: skip
def test_karras_times_refuse_levels_that_do_not_fall(n, high, low, rho):
    with pytest.raises(ValueError, match=r"need high > low > 0 and finite rho|n must be an integer"):
        karras_times(VP(), n, high, low, rho)


@given(st.integers(1, 200), st.floats(0, 0.9))
def test_quadratic_times_are_equal_steps_of_the_root(n, t_min):
    times = quadratic_times(n, t_min)
    assert (times[0], times[-1], len(times)) == (1.0, t_min, n + 1)
    np.testing.assert_allclose(-np.diff(np.sqrt(times)), (1 - math.sqrt(t_min)) / n, rtol=0, atol=1e-14)
    for bad in ((0, 0.1), (3, 1.0), (3, -0.1), (3, math.nan)):
        with pytest.raises(ValueError, match=r"n must be an integer of at least 1|t_min must lie in"):
            quadratic_times(*bad)


WORTH = {  # Gaussian, VP, 15 steps to σ/α = 0.002 and a denoising one: 2-Wasserstein distance on four grids
    "ddim": (0.187, 0.196, 0.145, 0.110),
    "dpm-solver++2m": (0.0300, 0.0970, 0.373, 0.0391),
    "euler": (0.0748, 0.0432, 0.0262, 0.0671),
    "ancestral": (0.307, 0.326, 0.232, 0.190),
    "sde-dpm-solver++2m": (0.0572, 0.179, 0.822, 0.127),
    "euler-maruyama": (0.160, 0.167, 0.0894, 0.0746),
}


@pytest.mark.parametrize("name", WORTH)
def test_no_grid_is_the_best_for_every_sampler(name):
    """The chapter's table: equal in log SNR, Karras, equal in t, equal in √t."""
    sde, n = SDES["vp"], 15
    score = ExactScore(GAUSSIAN, sde)
    end = float(sde.time_at_log_ratio(math.log(0.002)))
    karras = [1.0, *karras_times(sde, n + 1, float(sde.sigma(1.0) / sde.alpha(1.0)), 0.002)[1:-1]]
    true, begin = Gaussian(GAUSSIAN.means[0], GAUSSIAN.covariances[0]), starts(sde)[0]
    for times, wanted in zip(
        (log_snr_times(sde, n, end), karras, uniform_times(n, end), quadratic_times(n, end)), WORTH[name], strict=True
    ):

        def run(x, rng, times=times):
            y = last(simulate(SAMPLERS[name](sde, score), x, times, rng))
            return denoise(score, sde, y, times[-1])

        assert wasserstein(probe(run, true.mean).law(begin), true) == pytest.approx(wanted, rel=5e-3)
