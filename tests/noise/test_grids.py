"""Grids of times and ladders of levels: ends, ratios, what σ(t) makes of them, refusals."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refscore import VE, VP
from refscore.matching.times import FixedTime, Levels, UniformLogSNR, UniformTime
from refscore.matching.weights import SigmaPower, sigma_squared, unweighted
from refscore.noise.chains import ddpm, smld
from refscore.noise.grids import check_levels, geometric_levels, level_times, log_snr_times, uniform_times
from refscore.noise.sde import SDES as ALL_SDES
from tests.oracles.strategies import sdes

SDES = {"vp": VP(), "ve": VE(0.01, 50.0)}
each_sde = pytest.mark.parametrize("sde", SDES.values(), ids=SDES)

ladders = st.builds(  # (high, low, n): log low, log high/low
    lambda low, ratio, n: (math.exp(low + ratio), math.exp(low), n),
    st.floats(-12, 8), st.floats(0.01, 12), st.integers(2, 300),
)  # fmt: skip


# ------------------------------------------------------------------ geometric levels


@given(ladders)
def test_geometric_levels_end_where_they_are_told_and_keep_one_ratio(ladder):
    high, low, n = ladder
    levels = geometric_levels(high, low, n)
    assert (levels[0], levels[-1], len(levels)) == (high, low, n)  # to the last bit
    ratio = (high / low) ** (1 / (n - 1))
    worst = max(abs(a / b / ratio - 1) for a, b in pairwise(levels))
    assert worst <= 1e-14 * (1 + math.log(high / low))  # a power of x errs by |log x| rounding units
    check_levels(levels)


@pytest.mark.parametrize(
    ("high", "low", "n"),
    [(1, 1, 5), (1, 2, 5), (1, 0, 5), (1, -1, 5), (math.inf, 1, 5), (math.nan, 1, 5), (2, math.nan, 5), (2, 1, 1)],
)
def test_geometric_levels_refuse_levels_that_do_not_fall(high, low, n):
    with pytest.raises(ValueError, match=r"need high > low > 0, got|n must be an integer of at least 2, got 1"):
        geometric_levels(high, low, n)


# ------------------------------------------------------------------ the times of levels


@given(sdes, st.floats(0.02, 0.9), st.floats(1.5, 50), st.integers(2, 40))
def test_the_noise_at_level_times_is_the_levels(sde, share, span, n):
    levels = geometric_levels(share * sde.sigma(1.0), share * sde.sigma(1.0) / span, n)
    times = level_times(sde, levels)
    assert len(times) == n + 1
    assert times[-1] == 0.0
    assert all(type(t) is float for t in times)
    assert all(1 >= t > s >= 0 for t, s in pairwise(times))
    found = [sde.sigma(t) for t in times]
    assert found[-1] == 0
    for sigma, level in zip(found, levels, strict=False):
        # t carries rounding of 1e-16 absolute, σ(t) for small t that over t; d log σ/d log t is at most some 20
        assert abs(sigma / level - 1) <= 1e-12


@each_sde
def test_the_noise_the_sde_ends_with_is_a_level_and_no_more_is(sde):
    top = float(sde.sigma(1.0))
    times = level_times(sde, [top, 0.3])
    assert times[0] == pytest.approx(1, abs=1e-11)  # VP: as ill-conditioned as 1 - σ = 2e-5
    assert times[0] <= 1
    assert level_times(sde, [top]) == [times[0], 0.0]
    for level in (top * (1 + 1e-9), 2 * top):
        with pytest.raises(ValueError, match=r"the level .* is beyond the noise that V.* ends with"):
            level_times(sde, [level, 0.3])


def test_the_time_of_the_largest_level_is_never_above_one():
    """Though the inverse of σ rounds, in about a fifth of these cases upwards."""
    many = [VE(0.01, m) for m in np.linspace(1, 90, 200).tolist()] + [
        VP(0.1, b) for b in np.linspace(1, 20, 200).tolist()
    ]
    tops = [float(sde.sigma(1.0)) for sde in many]
    assert any(sde.time(top) > 1 for sde, top in zip(many, tops, strict=True))
    assert all(level_times(sde, [top])[0] <= 1 for sde, top in zip(many, tops, strict=True))


def test_level_times_take_any_sequence_of_numbers():
    want = level_times(SDES["ve"], [8.0, 4.0, 0.5])
    for ladder in ((8.0, 4.0, 0.5), np.array([8.0, 4.0, 0.5]), np.array([8, 4, 0.5], dtype="float32"), [8, 4, 0.5]):
        assert level_times(SDES["ve"], ladder) == want


@pytest.mark.parametrize(
    ("levels", "words"),
    [
        ([], "at least one"),
        ((), "at least one"),
        (np.zeros(0), "at least one"),
        ([0.5, 0.0], "positive and finite"),
        ([0.5, -0.1], "positive and finite"),
        ([math.nan], "positive and finite"),
        ([math.inf, 1.0], "positive and finite"),
        ([0.5, 0.5], "fall strictly"),
        ([0.1, 0.5], "fall strictly"),
        (np.array([0.1, 0.5]), "fall strictly"),
    ],
)
def test_ladders_that_are_none_are_refused_everywhere(levels, words):
    for door in (check_levels, Levels, lambda ladder: level_times(VE(), ladder)):
        with pytest.raises(ValueError, match=words):
            door(levels)


# ------------------------------------------------------------------ levels in training


@each_sde
def test_each_level_is_drawn_as_often_as_the_others(any_backend, sde):
    """u runs once through [0, 1): level 1 + floor(u L)."""
    levels, per = (0.9, 0.5, 0.2, 0.05, 0.01), 7
    law = Levels(levels)
    assert law.atoms == 5
    u = any_backend.asarray((np.arange(5 * per) + 0.5) / (5 * per), dtype="float32")
    t, factor = law.at(sde, u)
    assert factor == 1
    assert t.shape == u.shape
    assert t.dtype == u.dtype
    times = np.repeat(level_times(sde, levels)[:-1], per)
    np.testing.assert_allclose(any_backend.to_numpy(t), times, rtol=1e-6)  # float32
    one = any_backend.asarray(np.ones(3), dtype="float32")
    np.testing.assert_allclose(any_backend.to_numpy(law.at(sde, one)[0]), times[-1], rtol=1e-6)  # u L rounded to L


@each_sde
def test_levels_beyond_the_noise_of_the_sde_are_refused_in_training(sde):
    with pytest.raises(ValueError, match="is beyond the noise that"):
        Levels((60.0, 1.0)).at(sde, np.zeros(3))


@each_sde
@given(power=st.floats(-2, 4), t=st.floats(0.01, 1.0))
def test_sigma_power_is_a_power_of_sigma(sde, power, t):
    lam = SigmaPower(power)
    assert lam(sde, t) == pytest.approx(sde.sigma(t) ** power, rel=1e-14)
    np.testing.assert_allclose(lam(sde, np.array([t, t])), lam(sde, t), rtol=1e-13)  # in kind
    assert SigmaPower(2)(sde, t) == sigma_squared(sde, t)
    assert SigmaPower(0)(sde, t) == unweighted(sde, t) == 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_no_uniform_number_leads_to_a_time_outside_the_unit_interval(dtype):
    """Not the least, nor the largest below 1, nor 1 itself, which CuPy may draw in float32."""
    u = np.asarray([0.0, np.finfo(dtype).epsneg, 1 - np.finfo(dtype).epsneg, 1.0], dtype)
    for sde in (*ALL_SDES.values(), ddpm(40), smld(12)):
        half = 0.5 * sde.sigma(1.0)
        for law in (
            *(law(t_min) for law in (UniformTime, UniformLogSNR) for t_min in np.linspace(1e-4, 0.99, 60).tolist()),
            FixedTime(1.0), Levels((half, 0.1 * half)), Levels(geometric_levels(half, 0.1 * half, 1001)),
        ):  # fmt: skip
            t, factor = law.at(sde, u)
            assert t.dtype == dtype
            assert np.all((t >= 0) & (t <= 1)), (sde, law)
            assert np.all(np.isfinite(factor)), (sde, law)


# ------------------------------------------------------------------ uniform in t, uniform in log SNR


@given(st.integers(1, 400), st.floats(0, 0.9))
def test_uniform_times_are_equal_steps(n, t_min):
    times = uniform_times(n, t_min)
    assert (times[0], times[-1], len(times)) == (1.0, t_min, n + 1)
    np.testing.assert_allclose(-np.diff(times), (1 - t_min) / n, rtol=0, atol=4e-16)


@given(sdes, st.integers(1, 100), st.floats(1e-4, 0.5))
def test_log_snr_times_are_equal_steps_of_log_snr(sde, n, t_min):
    times = log_snr_times(sde, n, t_min)
    assert (times[0], times[-1], len(times)) == (1.0, t_min, n + 1)
    level = np.array([math.log(sde.sigma(t) / sde.alpha(t)) for t in times])
    # t is rounded to 1e-16; the steepest level, VP's at t = 1, changes by β/(2σ²) ~ 200 per unit of t at most
    np.testing.assert_allclose(-np.diff(level), (level[0] - level[-1]) / n, rtol=0, atol=1e-11)


@pytest.mark.parametrize(("n", "t_min"), [(0, 0.1), (-1, 0.1), (3, 1.0), (3, -0.1), (3, math.nan)])
def test_grids_that_are_none_are_refused(n, t_min):
    for door in (lambda: uniform_times(n, t_min), lambda: log_snr_times(VP(), n, t_min)):
        with pytest.raises(ValueError, match=r"n must be an integer of at least 1|t_min must lie in"):
            door()
    with pytest.raises(ValueError, match="log σ/α is infinite at 0"):
        log_snr_times(VP(), 3, 0.0)
