"""Samplers: their exact law on a Gaussian, their order, and that samples never meet.

On one Gaussian a sampler whose steps do not look at x is affine in its start x and its noise z_1 ... z_N. So the
code itself, fed with unit vectors, tells the mean and covariance of what it makes: no sampling, no tolerance for it.
"""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from refscore import (
    MLP,
    VE,
    VP,
    EulerMaruyama,
    ExactScore,
    Forward,
    Heun,
    Langevin,
    Reverse,
    ScoreModel,
    prior,
    simulate,
)
from refscore.laws.examples import mixture
from refscore.sampling.compose import First, Repeat, Stay
from refscore.sampling.loop import NotFiniteWarning, last
from tests.oracles.affine import TARGETS, M, law, marginal, probe, start
from tests.oracles.close import assert_close
from tests.oracles.orders import slopes
from tests.oracles.replay import ReplayRng
from tests.oracles.strategies import seeds

VES = VE(0.01, 10.0)
SDES = {"vp": VP(), "ve": VES}
sdes = pytest.mark.parametrize("sde", SDES.values(), ids=SDES)


targets = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)


# ------------------------------------------------------------------ probing


def moments_of_euler_maruyama(sde, target, lam, times):
    """m' = m + h (f m - ½(1+λ²) g² S⁻¹ (α m₀ - m)), and so on: the recursion on paper."""
    mean, cov = start(sde, target)
    for t, s in pairwise(times):
        h, m, S = s - t, *marginal(sde, target, t)
        pull = 0.5 * (1 + lam**2) * sde.g(t) ** 2 * np.linalg.inv(S)
        A = np.eye(2) + h * (sde.f(t) * np.eye(2) + pull)
        mean, cov = A @ mean - h * pull @ m, A @ cov @ A.T + abs(h) * lam**2 * sde.g(t) ** 2 * np.eye(2)
    return mean, cov


GRID = (np.linspace(1, 0.05, 31) ** 1.5).tolist()


@sdes
@targets
@pytest.mark.parametrize("lam", [1.0, 0.5, 0.0])
def test_euler_maruyama_has_the_law_of_its_moment_recursion(sde, target, lam):
    step = EulerMaruyama(Reverse(sde, ExactScore(target, sde), lam))
    found = law(probe(lambda x, rng: last(simulate(step, x, GRID, rng)), 2, len(GRID) - 1), *start(sde, target))
    wanted = moments_of_euler_maruyama(sde, target, lam, GRID)
    for a, b in zip(found, wanted, strict=True):
        scale = 1 + np.max(np.abs(start(sde, target)[1]))  # what is contracted to b on the way
        assert_close(a, b, 1e-12 * scale)


def weak_errors(sde, target, N, end):
    """Errors of mean and covariance at `end` after N uniform steps from the true law, each step probed on its own."""
    step = EulerMaruyama(Reverse(sde, ExactScore(target, sde)))
    mean, cov = start(sde, target)
    for t, s in pairwise(np.linspace(1, end, N + 1).tolist()):
        mean, cov = law(probe(lambda x, rng, t=t, s=s: step(x, t, s, rng)[0], 2, 1), mean, cov)
    m, S = marginal(sde, target, end)
    return np.array([np.linalg.norm(mean - m), np.linalg.norm(cov - S)])


def test_euler_maruyama_has_weak_order_1():
    errors = np.stack([weak_errors(VP(), TARGETS["gaussian"], N, 0.05) for N in (200, 400, 800)])
    assert_close(-np.diff(np.log2(errors), axis=0), 1, 0.02, errors)
    # VE: at the ends of its short steps the covariance errors of early and late steps nearly cancel (at t = 0.05
    # they change sign near N = 300); at 0.5 they do not. The mean has no error: there is no drift but the score.
    errors = np.stack([weak_errors(VES, TARGETS["gaussian"], N, 0.5) for N in (800, 1600)])
    assert np.max(errors[:, 0]) <= 1e-13
    assert abs(math.log2(errors[0, 1] / errors[1, 1]) - 1) <= 0.02, errors


def test_probing_sees_five_percent_of_the_noise():
    """The power of the tests above: a sampler with 1.05 times the noise has another law."""
    sde, target = VP(), TARGETS["gaussian"]
    right = Reverse(sde, ExactScore(target, sde))

    class Louder:
        drift = staticmethod(right.drift)

        def noise(self, x, t):
            return 1.05 * right.noise(x, t)

    run = lambda x, rng: last(simulate(EulerMaruyama(Louder()), x, GRID, rng))  # noqa: E731
    found = law(probe(run, 2, len(GRID) - 1), *start(sde, target))[1]
    assert np.max(np.abs(found - moments_of_euler_maruyama(sde, target, 1.0, GRID)[1])) > 1e-3


def test_euler_maruyama_runs_any_process_in_either_direction():
    """dx = -x dt + c dw forwards: x(s) = (1 - h) x + c √h z, a step at a time."""

    class Process:
        def drift(self, x, t):
            return -x

        def noise(self, x, t):
            return 3.0

    z = np.random.default_rng(0).standard_normal((2, 4, 2))
    x = np.ones((4, 2))
    up = last(simulate(EulerMaruyama(Process()), x, [0.2, 0.3, 0.7], ReplayRng(*z)))
    by_hand = 0.6 * (0.9 * x + 3 * math.sqrt(0.1) * z[0]) + 3 * math.sqrt(0.4) * z[1]
    assert_close(up, by_hand, 1e-14)
    down = last(simulate(EulerMaruyama(Process()), x, [0.7, 0.3, 0.2], ReplayRng(*z)))
    by_hand = 1.1 * (1.4 * x + 3 * math.sqrt(0.4) * z[0]) + 3 * math.sqrt(0.1) * z[1]
    assert_close(down, by_hand, 1e-13)


# ------------------------------------------------------------------ Heun


def test_heun_is_its_formula():
    x = np.array([[1.0, -2.0]])
    h = -0.3
    linear, _ = Heun(lambda x, t: x)(x, 0.8, 0.5, None)
    assert_close(linear, (1 + h + h * h / 2) * x, 1e-15)
    in_time, _ = Heun(lambda x, t: t + 0 * x)(x, 0.8, 0.5, None)  # the trapezoid rule: exact for t
    assert_close(in_time, x + (0.25 - 0.64) / 2, 1e-15)


@given(seed=seeds, n=st.integers(1, 6))
def test_heun_is_exact_on_a_point_mass_in_the_time_sigma(seed, n):
    """dx/dσ = (x - c)/σ has straight paths: any grid will do."""
    rng = np.random.default_rng(seed)
    c, x = rng.standard_normal(2), rng.standard_normal((3, 2))
    grid = np.sort(rng.uniform(0.01, 1, n + 1))[::-1].tolist()
    y = last(simulate(Heun(lambda x, t: (x - c) / t), x, grid, None))
    wanted = c + grid[-1] / grid[0] * (x - c)
    assert_close(y, wanted, 1e-13 * (1 + np.max(np.abs(x))))


def run_heun(sde, score, x, times):
    return last(simulate(Heun(Reverse(sde, score, lam=0.0).drift), x, times.tolist(), ReplayRng()))


def grid_between(sde, high, low, N):
    return np.linspace(sde.time(high), sde.time(low), N + 1)


@sdes
@targets
def test_heun_has_order_2_on_the_closed_flow_of_a_gaussian(sde, target):
    """x(s) = α_s m + U diag√((α_s² λ + σ_s²)/(α_t² λ + σ_t²)) Uᵀ (x(t) - α_t m)."""
    high, low = (0.99, 0.1) if sde is not VES else (9.0, 0.1)
    lam, U = np.linalg.eigh(target.covariances[0])
    (t, s) = grid_between(sde, high, low, 1)
    x = np.random.default_rng(0).standard_normal((16, 2)) * high

    def spread(t):
        return np.sqrt(sde.alpha(t) ** 2 * np.maximum(lam, 0) + sde.sigma(t) ** 2)

    exact = sde.alpha(s) * M + ((x - sde.alpha(t) * M) @ U * spread(s) / spread(t)) @ U.T
    score = ExactScore(target, sde)
    errors = [
        float(np.sqrt(np.mean((run_heun(sde, score, x, grid_between(sde, high, low, N)) - exact) ** 2)))
        for N in (400, 800)
    ]
    assert errors[-1] > 1e-10  # above the floor of rounding
    assert_close(slopes(errors), 2, 0.02, errors)


def test_heun_has_order_2_on_a_mixture():
    """Against DOP853; on a grid that stops above σ = 0, where the flow is not smooth in t."""
    p, sde, n = mixture("tilted"), VES, 64
    score = ExactScore(p, sde)
    x = 10.0 * np.random.default_rng(0).standard_normal((n, 2))
    t, s = grid_between(sde, 9.9, 0.05, 1)
    drift = Reverse(sde, score, lam=0.0).drift
    exact = solve_ivp(
        lambda t, y: drift(y.reshape(n, 2), float(t)).ravel(), (t, s), x.ravel(), "DOP853", rtol=1e-12, atol=1e-13
    ).y[:, -1].reshape(n, 2)  # fmt: skip
    errors = [
        float(np.sqrt(np.mean((run_heun(sde, score, x, grid_between(sde, 9.9, 0.05, N)) - exact) ** 2)))
        for N in (256, 512)
    ]
    assert errors[-1] > 1e-9
    assert abs(slopes(errors)[-1] - 2) <= 0.02, errors


# ------------------------------------------------------------------ Langevin


@pytest.mark.parametrize("n", [1, 2, 30, 400])
@pytest.mark.parametrize("eps", [0.05, 0.15, 0.3])
def test_langevin_has_its_closed_law_after_n_steps(n, eps):
    """v_n = v_∞ + (1 - ε/s)²ⁿ (v₀ - v_∞), v_∞ = s/(1 - ε/(2s)), along each axis of S; from N(0, 4 I)."""
    m, S = marginal(VP(), TARGETS["gaussian"], 0.3)
    s, U = np.linalg.eigh(S)
    limit, decay = s / (1 - eps / (2 * s)), (1 - eps / s) ** n
    kernel = Repeat(Langevin(ExactScore(TARGETS["gaussian"], VP()), eps), n)
    mean, cov = law(probe(lambda x, rng: kernel(x, 0.3, rng), 2, n), np.zeros(2), 4 * np.eye(2))
    assert_close(mean, m - (U * decay) @ U.T @ m, 1e-12)
    assert_close(cov, (U * (limit + decay**2 * (4 - limit))) @ U.T, 4e-12, "it starts at 4")


def test_the_stationary_variance_of_langevin_is_inflated_by_its_step():
    sigma2, eps = 0.7, 0.2
    (A,), (B,), _ = (
        a.ravel() for a in probe(lambda x, rng: Langevin(lambda x, t: -x / sigma2, eps)(x, 0.5, rng), 1, 1)
    )
    assert abs(A - (1 - eps / sigma2)) <= 1e-15
    assert abs(B - math.sqrt(2 * eps)) <= 1e-15
    assert abs(B**2 / (1 - A**2) - sigma2 / (1 - eps / (2 * sigma2))) <= 1e-12


@pytest.mark.parametrize(("ratio", "stable"), [(1.99, True), (2.01, False)])
def test_langevin_diverges_beyond_twice_the_variance(ratio, stable):
    kernel = Repeat(Langevin(lambda x, t: -x / 0.7, ratio * 0.7), 1000)
    A, _, _ = probe(lambda x, rng: kernel(x, 0.5, rng), 1, 1000)
    assert (abs(A[0, 0]) < 1) == stable
    assert abs(abs(A[0, 0]) - abs(1 - ratio) ** 1000) <= 1e-10 * abs(1 - ratio) ** 1000  # a thousand roundings


@given(seed=seeds, eps=st.floats(1e-3, 0.5))
def test_one_langevin_step_from_the_true_law_adds_eps_squared_of_the_precision(seed, eps):
    m, S = marginal(VP(), TARGETS["gaussian"], 0.4)
    kernel = Langevin(ExactScore(TARGETS["gaussian"], VP()), eps)
    mean, cov = law(probe(lambda x, rng: kernel(x, 0.4, rng), 2, 1), m, S)
    assert_close(mean, m, 1e-12)
    assert_close(cov, S + eps**2 * np.linalg.inv(S), 1e-12)


def test_the_step_may_depend_on_the_time():
    seen = []

    def score(x, t):
        seen.append(t)
        return -x

    x, z = np.ones((3, 2)), np.random.default_rng(0).standard_normal((3, 2))
    y = Langevin(score, lambda t: 0.1 * t)(x, 0.5, ReplayRng(z))
    assert_close(y, 0.95 * x + math.sqrt(0.1) * z, 1e-15)
    assert seen[0].shape == (1,)
    assert seen[0][0] == 0.5


@pytest.mark.parametrize("step", [0.0, -0.1, math.nan, math.inf])
def test_langevin_refuses_steps_that_are_not_positive(step):
    with pytest.raises(ValueError, match="step must be positive and finite"):
        Langevin(lambda x, t: -x, step)


# ------------------------------------------------------------------ composition


def test_stay_goes_nowhere_and_asks_for_nothing():
    x = np.ones((2, 2))
    y, memory = Stay()(x, 1.0, 0.5, None, "kept")
    assert y is x
    assert memory is None
    assert all(state is x for state in simulate(Stay(), x, [1.0, 0.5, 0.0], None))


def test_repeat_applies_its_kernel_n_times_at_one_time():
    times = []

    def kernel(x, t, rng):
        times.append(t)
        return 2 * x

    assert Repeat(kernel, 5)(np.ones((1, 1)), 0.3, None)[0, 0] == 32
    assert times == [0.3] * 5
    for n in (0, -1):
        with pytest.raises(ValueError, match=f"n must be an integer of at least 1, got {n}"):
            Repeat(kernel, n)


def test_first_corrects_at_t_and_then_steps_to_s_with_the_memory():
    def kernel(x, t, rng):
        assert rng == "rng"
        return x + t

    def step(x, t, s, rng, memory):
        assert rng == "rng"
        return 10 * x + s, (memory, t, s)

    y, memory = First(kernel, step)(np.zeros((1, 1)), 0.8, 0.5, "rng", "memory")
    assert y[0, 0] == 8.5
    assert memory == ("memory", 0.8, 0.5)


def test_annealed_langevin_is_a_composition():
    """Levels 1, .5, 0: two moves at 1, two at .5, none at 0."""
    z = np.random.default_rng(0).standard_normal((4, 3, 2))
    step = First(Repeat(Langevin(lambda x, t: -x / t, lambda t: 0.1 * t), 2), Stay())
    y = last(simulate(step, np.ones((3, 2)), [1.0, 0.5, 0.0], ReplayRng(*z)))
    x = np.ones((3, 2))
    for t, zn in zip((1.0, 1.0, 0.5, 0.5), z, strict=True):
        x = 0.9 * x + math.sqrt(0.2 * t) * zn
    assert_close(y, x, 1e-14)


# ------------------------------------------------------------------ samples never meet


def steps(sde, score):
    """Every sampler, and how many draws a step takes."""
    return {
        "Euler-Maruyama": (EulerMaruyama(Reverse(sde, score)), 1),
        "half stochastic": (EulerMaruyama(Reverse(sde, score, 0.5)), 1),
        "Heun": (Heun(Reverse(sde, score, 0.0).drift), 0),
        "Langevin": (First(Langevin(score, 1e-3), Stay()), 1),
        "corrected": (First(Repeat(Langevin(score, 1e-3), 2), EulerMaruyama(Reverse(sde, score))), 3),
    }


TIMES = [1.0, 0.8, 0.5, 0.2, 0.05]


@sdes
@pytest.mark.parametrize("learned", [False, True], ids=["exact score", "network"])
@pytest.mark.parametrize("name", steps(VP(), lambda x, t: -x))
def test_a_sample_does_not_know_of_its_batch(backend, sde, learned, name):
    model = ScoreModel(MLP((2, 8, 2), embed=4), sde, data_std=1.6)
    score = ExactScore(mixture("tilted", backend.asarray), sde)
    if learned:
        score = model.bind(model.init(backend.rng(0), "float64"))
    step, draws = steps(sde, score)[name]
    rng = np.random.default_rng(1)
    x, z = sde.prior_std * rng.standard_normal((7, 2)), rng.standard_normal((draws * 4, 7, 2))

    def run(rows):
        replay = ReplayRng(*(backend.asarray(zn[rows]) for zn in z))
        return backend.to_numpy(last(simulate(step, backend.asarray(x[rows]), TIMES, replay)))

    whole = run(np.arange(7))
    order = rng.permutation(7)
    allowed = 1e-13 * (np.max(np.abs(x)) + np.max(np.abs(whole)))  # a matrix product may sum in another order
    assert_close(run(order), whole[order], allowed)
    for i in range(7):
        assert_close(run(slice(i, i + 1)), whole[i], allowed)


@pytest.mark.parametrize("name", steps(VP(), lambda x, t: -x))
def test_a_nan_stays_in_its_row(name):
    exact = ExactScore(mixture("tilted"), VP())

    def score(x, t, bad=math.nan):
        s = exact(x, t)
        s[3] = bad if t[0] == 0.5 else s[3]
        return s

    rng = np.random.default_rng(1)
    x = rng.standard_normal((7, 2))
    (broken, draws), (whole, _) = steps(VP(), score)[name], steps(VP(), lambda x, t: score(x, t, 0.0))[name]
    z = rng.standard_normal((draws * 4, 7, 2))
    other = last(simulate(whole, x, TIMES, ReplayRng(*z)))
    with pytest.warns(NotFiniteWarning, match=r"the first: \[3\]"):
        one = last(simulate(broken, x, TIMES, ReplayRng(*z)))
    assert np.isnan(one[3]).all()
    assert np.array_equal(np.delete(one, 3, axis=0), np.delete(other, 3, axis=0))


@pytest.mark.parametrize("name", steps(VP(), lambda x, t: -x))
def test_samples_may_have_any_shape(any_backend, name):
    """(B, 4, 3) moves as (B, 12) does when the score treats every coordinate alike."""
    step, draws = steps(VP(), lambda x, t: -x)[name]
    rng = np.random.default_rng(0)
    x, z = rng.standard_normal((5, 4, 3)), rng.standard_normal((draws * 4, 5, 4, 3))

    def run(shape):
        replay = ReplayRng(*(any_backend.asarray(zn.reshape(shape), dtype="float32") for zn in z))
        return last(simulate(step, any_backend.asarray(x.reshape(shape), dtype="float32"), TIMES, replay))

    tall, long = run((5, 4, 3)), run((5, 12))
    assert str(tall.dtype).endswith("float32")
    assert np.array_equal(any_backend.to_numpy(tall).reshape(5, 12), any_backend.to_numpy(long))


@sdes
@pytest.mark.parametrize("name", steps(VP(), lambda x, t: -x))
def test_every_backend_makes_the_same_samples(backend, sde, name):
    x = np.random.default_rng(0).standard_normal((5, 2))
    found = []
    for asarray, to_numpy in ((np.asarray, np.asarray), (backend.asarray, backend.to_numpy)):
        step, draws = steps(sde, ExactScore(mixture("tilted", asarray), sde))[name]
        z = np.random.default_rng(1).standard_normal((draws * 4, 5, 2))
        found.append(to_numpy(last(simulate(step, asarray(x), TIMES, ReplayRng(*(asarray(zn) for zn in z))))))
    assert_close(found[0], found[1], 1e-12 * np.max(np.abs(found[0])))


# ------------------------------------------------------------------ where sampling starts


@sdes
def test_the_prior_is_the_noise_at_1_times_a_standard_normal(any_backend, sde):
    dtype = any_backend.asarray(0.0, dtype="float32").dtype
    x = prior(sde, (3, 4, 2), any_backend.rng(0), dtype)
    z = any_backend.to_numpy(any_backend.rng(0).standard_normal((3, 4, 2), dtype=dtype))
    std = 1.0 if isinstance(sde, VP) else math.sqrt(10.0**2 - 0.01**2)
    assert x.dtype == dtype
    assert_close(any_backend.to_numpy(x), np.float32(std) * z, 1e-6 * std * 5, "float32")
    assert abs(sde.prior_std - std) <= 1e-14 * std


@pytest.mark.parametrize("shape", [(), (0,), (0, 2), (2, 0)])
def test_the_prior_refuses_shapes_without_samples(shape):
    with pytest.raises(ValueError, match="without zeros"):
        prior(VP(), shape, np.random.default_rng(0))


def test_noise_is_added_in_one_direction_only():
    score, x, rng = (lambda x, t: -x), np.ones((2, 2)), np.random.default_rng(0)
    for process, wrong in ((Reverse(VP(), score), (0.3, 0.5)), (Forward(VP()), (0.5, 0.3))):
        right = (wrong[1], wrong[0])
        assert np.isfinite(EulerMaruyama(process)(x, *right, rng)[0]).all()
        with pytest.raises(ValueError, match=rf"{type(process).__name__} adds noise on its way .*; got t = {wrong[0]}"):
            EulerMaruyama(process)(x, *wrong, rng)
    flow = EulerMaruyama(Reverse(VP(), score, lam=0.0))  # without noise it is an ODE, and goes both ways
    for t, s in ((0.3, 0.5), (0.5, 0.3)):
        assert np.isfinite(flow(x, t, s, rng)[0]).all()
