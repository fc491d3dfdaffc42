"""Optimisers against the plainest transcription of what they cite."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refscore import EMA, SGD, Adam
from refscore.training.optim import WarmupCosine, clip
from tests.oracles.close import assert_close
from tests.oracles.strategies import seeds


def gradients(seed, steps, size=7):
    """Gradients over eight orders of magnitude, some of them zero."""
    rng = np.random.default_rng(seed)
    g = rng.standard_normal((steps, size)) * 10.0 ** rng.uniform(-6, 2, size)
    g[rng.random(g.shape) < 0.1] = 0.0
    return g


def textbook_adam(theta, g, rate, b1, b2, eps):
    """Algorithm 1 of Kingma and Ba 2015, line by line; and how far each parameter went on the way."""
    m, v, way = np.zeros_like(theta), np.zeros_like(theta), np.abs(theta)
    for n, gn in enumerate(g, start=1):
        m = b1 * m + (1 - b1) * gn
        v = b2 * v + (1 - b2) * gn**2
        m_hat, v_hat = m / (1 - b1**n), v / (1 - b2**n)
        step = rate(n) * m_hat / (np.sqrt(v_hat) + eps)
        theta, way = theta - step, way + np.abs(step)
    return theta, way


def run(optimizer, theta, g):
    state = optimizer.init(theta)
    for gn in g:
        theta, state = optimizer.update(gn, state, theta)
    assert state.step == len(g)
    return theta


@given(
    seed=seeds, steps=st.integers(1, 60), b1=st.floats(0, 0.99), b2=st.floats(0, 0.9999),
    eps=st.sampled_from([1e-8, 1e-3]), schedule=st.booleans(),
)  # fmt: skip
def test_adam_is_algorithm_1(seed, steps, b1, b2, eps, schedule):
    rate = (lambda n: 0.1 / n) if schedule else (lambda n: 0.1)
    theta, g = np.random.default_rng([seed, 1]).standard_normal(7), gradients(seed, steps)
    found = run(Adam(rate if schedule else 0.1, b1, b2, eps), theta, g)
    wanted, way = textbook_adam(theta, g, rate, b1, b2, eps)
    # Relative to the way gone: steps cancel, and a gradient that vanishes can make one very long.
    assert_close(found, wanted, 1e-13 * way)


@given(seed=seeds)
def test_the_first_step_of_adam_is_the_rate_against_the_sign(seed):
    theta, (g,) = np.zeros(7), gradients(seed, 1)
    moved = run(Adam(0.02, eps=1e-30), theta, [g])
    assert_close(moved + 0.02 * np.sign(g), 0, 1e-16)


@given(seed=seeds, steps=st.integers(1, 30), momentum=st.floats(0, 0.99))
def test_sgd_moves_by_the_rate_times_the_running_sum(seed, steps, momentum):
    theta, g = np.zeros(7), np.random.default_rng(seed).standard_normal((steps, 7))
    # After n steps each g_i has been applied Σ_{j < n-i} momentumʲ times.
    times = np.array([sum(momentum**j for j in range(steps - i)) for i in range(steps)])
    found = run(SGD(0.1, momentum), theta, g)
    assert_close(found + 0.1 * times @ g, 0, 1e-13 * np.sum(np.abs(times)))


def test_sgd_asks_its_schedule_for_step_1_2_3():
    asked = []

    def rate(step):
        asked.append(step)
        return 10.0**-step

    theta = run(SGD(rate), np.zeros(1), np.ones((3, 1)))
    assert asked == [1, 2, 3]
    assert abs(theta[0] + 0.111) <= 1e-16


@pytest.mark.parametrize("optimizer", [Adam(0.1), SGD(0.1, 0.9)])
def test_an_optimiser_changes_nothing_in_place(any_backend, optimizer):
    theta = any_backend.asarray(np.arange(4.0), dtype="float32")
    g = any_backend.asarray(np.array([1.0, -2.0, 3.0, 0.0]), dtype="float32")
    state = optimizer.init(theta)
    kept = [any_backend.to_numpy(a).copy() for a in (theta, g, *state[1:])]
    once, later = optimizer.update(g, state, theta)
    again, _ = optimizer.update(g, state, theta)
    assert np.array_equal(any_backend.to_numpy(once), any_backend.to_numpy(again))
    for a, b in zip((theta, g, *state[1:]), kept, strict=True):
        assert np.array_equal(any_backend.to_numpy(a), b)
    assert all(a.dtype == theta.dtype for a in (once, *later[1:]))


# ------------------------------------------------------------------ averaging


@given(seed=seeds, steps=st.integers(1, 50), decay=st.floats(0, 0.9999))
def test_an_ema_is_the_weighted_mean_of_what_was_visited(seed, steps, decay):
    thetas = np.random.default_rng(seed).standard_normal((steps, 5))
    ema = EMA(decay)
    state = ema.init(np.full(5, 1e6))  # the starting point has no weight
    for theta in thetas:
        state = ema.update(state, theta)
    w = decay ** np.arange(steps - 1, -1, -1.0)
    # Σ dⁱ by its closed form, (1 - dⁿ)/(1 - d), loses the digits that 1 - d does: 1e4 roundings.
    assert_close(ema.mean(state), w @ thetas / w.sum(), 1e-11)


PATHS = {
    "equal": lambda n: 0.3,
    "a step": lambda n: 1.0 if n < 10 else -0.7,
    "drift": lambda n: 0.5 + 1e-6 * n,
    "there and back": lambda n: 1.0 if n % 2 else -1.0,
    "far once": lambda n: 100.0 if n == 1 else 0.1,
    "noise": lambda n: math.sin(n * n),
}


@pytest.mark.parametrize("decay", [0.9, 0.999, 0.9999, 0.99999, 1 - 1e-6])
def test_an_ema_in_float32_is_the_weighted_mean_at_any_decay(decay):
    """Late steps move it by less than a float32 holds: what was rounded off is not lost."""
    ema, steps = EMA(decay), 20_000
    thetas = np.array([[path(n) for path in PATHS.values()] for n in range(steps)], dtype="float32")
    state = ema.init(thetas[0])
    for theta in thetas:
        state = ema.update(state, theta)
    w = decay ** np.arange(steps - 1.0, -1, -1)
    wanted = w @ thetas.astype("float64") / w.sum()
    largest = np.max(np.abs(thetas), axis=0)
    assert ema.mean(state).dtype == np.float32
    assert np.max(np.abs(ema.mean(state) - wanted) / largest) <= 1e-6
    assert abs(state.weight - w.sum()) <= 1e-9 * w.sum()


def test_the_state_of_an_ema_knows_its_weight():
    """Read with another decay it is the same mean; gone on with another, it is still a weighted mean."""
    state = EMA(0.9).init(np.zeros(2))
    for theta in (np.array([1.0, 2.0]), np.array([3.0, 2.0])):
        state = EMA(0.9).update(state, theta)
    assert np.array_equal(EMA(0.999).mean(state), EMA(0.9).mean(state))
    state = EMA(0.5).update(state, np.array([7.0, 2.0]))
    np.testing.assert_allclose(EMA().mean(state), [(0.45 * 1 + 0.5 * 3 + 7) / 1.95, 2.0], rtol=1e-14)


def test_adams_normalisers_meet_their_sums_in_float32():
    """A constant gradient moves θ by the rate, whatever its size, up to u/(1 - b2): the rounding of the sum."""
    g = np.array([1.0, 0.3, 1e-3], dtype="float32")
    adam, theta = Adam(1.0), np.zeros(3, dtype="float32")
    state = adam.init(theta)
    for _ in range(20_000):
        moved, state = adam.update(g, state, theta)
    assert_close(moved + 1, 0, 2.0**-24 / (1 - adam.b2) + 1e-5, "eps = 1e-8 beside 1e-3")


def test_an_ema_of_nothing_is_refused():
    with pytest.raises(ValueError, match="nothing has been averaged"):
        EMA().mean(EMA().init(np.zeros(2)))


# ------------------------------------------------------------------ clipping


@given(seed=seeds, size=st.integers(1, 9), max_norm=st.floats(0.01, 10.0))
def test_clip_shortens_what_is_too_long_and_turns_nothing(seed, size, max_norm):
    g = np.random.default_rng(seed).standard_normal(size) * 2
    clipped, norm = clip(g, max_norm)
    exact = math.sqrt(math.fsum(g**2))
    assert norm.shape == ()
    assert abs(norm - exact) <= 1e-14 * exact
    wanted = g if exact <= max_norm else g * (max_norm / exact)
    assert_close(clipped, wanted, 1e-14 * np.max(np.abs(g)))


def test_clip_leaves_zero_and_unbounded_gradients_alone(any_backend):
    for g in (np.zeros(3), np.array([3.0, 4.0, 0.0])):
        x = any_backend.asarray(g, dtype="float32")
        for max_norm in (math.inf, 5.0):
            clipped, norm = clip(x, max_norm)
            assert np.array_equal(any_backend.to_numpy(clipped), g)
            assert float(any_backend.to_numpy(norm)) == np.linalg.norm(g)
            assert clipped.dtype == x.dtype == norm.dtype


# ------------------------------------------------------------------ schedules


def test_warmup_cosine_goes_through_its_corners():
    rate = WarmupCosine(0.3, steps=110, warmup=10, end=0.1)
    assert abs(rate(1) - 0.03) <= 1e-16
    assert abs(rate(5) - 0.15) <= 1e-16
    assert rate(10) == 0.3
    assert abs(rate(60) - 0.2) <= 1e-15  # halfway down
    assert abs(rate(35) - (0.2 + 0.1 * math.sqrt(0.5))) <= 1e-15  # a quarter: cos 45°
    assert rate(110) == 0.1
    assert rate(10_000) == 0.1
    without = WarmupCosine(0.3, steps=100)
    assert abs(without(1) - 0.15 * (1 + math.cos(math.pi / 100))) <= 1e-16
    assert without(100) == 0.0
    with pytest.raises(ValueError, match="step 101 is past the last of this schedule, 100, where the rate is 0"):
        without(101)


@given(st.integers(2, 200), st.floats(0, 0.99), st.floats(0, 1))
def test_warmup_cosine_rises_then_falls_between_its_ends(steps, share, end):
    warmup = int(share * steps)
    schedule = WarmupCosine(1.0, steps, min(warmup, steps - 1), end)
    rates = [schedule(n) for n in range(1, steps + 1)]
    top = max(schedule.warmup - 1, 0)
    assert all(a < b for a, b in pairwise(rates[: top + 1]))
    assert all(a >= b for a, b in pairwise(rates[top:]))
    assert all(min(end, rates[0]) <= r <= 1.0 for r in rates)


# ------------------------------------------------------------------ refusals


@pytest.mark.parametrize("rate", [0.0, -1.0, math.nan, math.inf])
def test_rates_must_be_positive(rate):
    for make in (Adam, SGD):
        with pytest.raises(ValueError, match=r"rate must be positive and finite"):
            make(rate)
    with pytest.raises(ValueError, match=r"peak must be positive"):
        WarmupCosine(rate, 10)


@pytest.mark.parametrize("make", [
    lambda: Adam(b1=1.0), lambda: Adam(b1=-0.1), lambda: Adam(b2=1.0), lambda: Adam(b2=math.nan), lambda: Adam(eps=0.0),
    lambda: SGD(momentum=1.0), lambda: SGD(momentum=-0.1), lambda: EMA(1.0), lambda: EMA(-0.1), lambda: EMA(math.nan),
    lambda: WarmupCosine(1.0, 10, end=2.0), lambda: WarmupCosine(1.0, 10, end=-1.0),
    lambda: WarmupCosine(1.0, 10, warmup=10), lambda: WarmupCosine(1.0, 10, warmup=-1), lambda: WarmupCosine(1.0, 0),
])  # fmt: skip
def test_hyper_parameters_out_of_range_are_refused(make):
    with pytest.raises(ValueError, match=r"must|need"):
        make()


@given(a=st.floats(-0.9, 0.99), decay=st.floats(0.0, 0.999))
def test_an_average_of_a_stationary_walk_has_less_variance(a, decay):
    """Eq. (22.6): θ' = a θ + ξ and its average m' = d m + (1 - d) θ', by the covariance that one step leaves alone."""
    step = np.array([[a, 0.0], [(1 - decay) * a, decay]])
    push = np.array([1.0, 1 - decay])
    cov = np.linalg.solve(np.eye(4) - np.kron(step, step), np.outer(push, push).ravel()).reshape(2, 2)
    wanted = (1 - decay) / (1 + decay) * (1 + a * decay) / (1 - a * decay)
    assert abs(cov[1, 1] / cov[0, 0] / wanted - 1) < 1e-6
    walk = np.random.default_rng(0).standard_normal(50)  # `EMA` is that recursion once its weights have filled up
    ema, m, filled = EMA(decay), np.zeros(1), 0.0
    state = ema.init(m)
    for theta in walk:
        m, filled = decay * m + (1 - decay) * theta, decay * filled + (1 - decay)
        state = ema.update(state, np.array([theta]))
    assert_close(ema.mean(state) * filled, m, 1e-12)
