"""Chapter 12: score, noise, posterior mean, v, EDM's F and the flow's velocity are one thing in six dialects."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refscore import MLP, VP, Denoising, ExactScore, GaussianMixture, Reverse, ScoreModel
from refscore.arrays import per_sample
from refscore.laws.examples import mixture
from refscore.matching.weights import sigma_squared
from refscore.noise.parametrisation import PARAMETRISATIONS, LossOf, affine, convert, size
from refscore.noise.sde import SDES, LinearVE
from tests.oracles.close import assert_close
from tests.oracles.derivatives import check_all, check_dtype, subject
from tests.oracles.marks import each_sde
from tests.oracles.strategies import random_mixture, seeds

NAMES = sorted(PARAMETRISATIONS)
names = pytest.mark.parametrize("name", NAMES)
times = st.floats(1e-4, 1.0)


# ------------------------------------------------------------------ what each of them is


@given(seed=seeds, t=times, name=st.sampled_from(sorted(SDES)), dim=st.integers(1, 3))
def test_each_is_what_its_name_says(seed, t, name, dim):
    """Eqs. (12.1), (12.2), (12.3): from the mixture's posterior mean, which knows of no score, and from `Reverse`."""
    p, sde = random_mixture(seed, dim, 3), SDES[name]
    alpha, sigma, rng = sde.alpha(t), sde.sigma(t), np.random.default_rng(seed)
    x = alpha * p.sample(rng, 5) + sigma * rng.standard_normal((5, dim))
    s, x0 = p.score(x, alpha, sigma), p.posterior_mean(x, alpha, sigma)
    z = (x - alpha * x0) / sigma  # the posterior mean of z, for x = α x₀ + σ z
    data_std, level = 0.5, sigma / alpha
    skip, out = (data_std**2 / (level**2 + data_std**2), level * data_std / math.hypot(level, data_std))
    wanted = {
        "score": s,
        "noise": z,
        "data": x0,
        "v": alpha * z - sigma * x0,
        "F": (x0 - skip * x / alpha) / out,
        "velocity": Reverse(sde, ExactScore(p, sde), 0.0).drift(x, t),
    }
    assert set(wanted) == set(PARAMETRISATIONS)
    for target, exact in wanted.items():
        a, b = affine(target, sde, t, data_std)
        found = convert(s, x, t, sde, "score", target, data_std)
        # Tweedie's agreement, relative to the terms that cancel
        scale = abs(a) * np.abs(x) + abs(b) * (np.abs(s) + (1 + np.abs(x) / sigma) / sigma)
        assert np.max(np.abs(found - exact) / scale) <= 1e-11, target


@given(t=times, x=st.floats(-5, 5))
def test_v_has_nothing_to_say_of_a_standard_normal(t, x):
    """Eq. (12.2): where α² + σ² = 1 and s = -x, v = -(σ/α)(x + s) = 0; exercise 5."""
    sde, there = VP(), np.array([[x]])
    p = GaussianMixture(np.ones(1), np.zeros((1, 1)), np.ones(1))
    s = p.score(there, sde.alpha(t), sde.sigma(t))
    assert abs(convert(s, there, t, sde, "score", "v")[0, 0]) <= 1e-12 / sde.alpha(t)


@given(seed=seeds, t=times, name=st.sampled_from(sorted(SDES)), array=st.booleans())
def test_from_any_to_any_and_back(seed, t, name, array):
    """Eq. (12.4): all 36 pairs, relative to what the noise resolves, 1 + |x|/σ in units of 1/σ of score."""
    sde, rng = SDES[name], np.random.default_rng(seed)
    sigma = sde.sigma(t)
    x = 10 ** rng.uniform(-2, 2) * rng.standard_normal((4, 3))
    s = rng.standard_normal((4, 3)) / sigma
    time = np.full(4, t) if array else t
    unit = (1 + np.abs(x) / sigma) / sigma + np.abs(s)
    if sde.g(t) ** 2 < 1e-6 * abs(sde.f(t)):
        return  # the velocity hardly tells the score there
    turn = 2 * abs(sde.f(t)) / sde.g(t) ** 2 * np.abs(x)  # the velocity's own cancellation
    for source in NAMES:
        q = convert(s, x, time, sde, "score", source)
        for target in NAMES:
            there = convert(q, x, time, sde, source, target)
            back = convert(there, x, time, sde, target, source)
            b = abs(affine(source, sde, t)[1])
            assert np.max(np.abs(back - q) / (b * (unit + turn))) <= 1e-12, (source, target)
    assert_close(convert(s, x, time, sde, "score", "score"), s, 1e-15 * np.max(np.abs(s)))


@each_sde
def test_on_the_data_side_the_round_trip_is_relative_to_the_data(sde):
    """Eq. (12.4): x̂₀ -> q -> x̂₀ loses no more than rounding of x/α."""
    rng, t = np.random.default_rng(0), 0.2
    x, x0 = rng.standard_normal((2, 50, 3))
    for target in NAMES:
        q = convert(x0, x, t, sde, "data", target)
        back = convert(q, x, t, sde, target, "data")
        assert np.max(np.abs(back - x0) / (1 + np.abs(x) / sde.alpha(t))) <= 1e-12, target


@names
def test_without_noise_only_the_score_tells_the_score(name):
    sde, x = VP(), np.ones((2, 2))
    if name == "score":
        np.testing.assert_array_equal(convert(x, x, 0.0, sde, "score", "noise"), 0 * x)
        return
    if name == "F":  # 0/0 in its c_out
        with pytest.raises(ValueError, match="there is no noise, and F is not defined"):
            convert(x, x, 0.0, sde, "F", "score")
        return
    if name == "velocity":  # VP keeps β_min at t = 0; LinearVE does not move there at all
        sde = LinearVE()
    with pytest.raises(ValueError, match=f"the {name} does not tell the score"):
        convert(x, x, 0.0, sde, name, "score")


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="no parametrisation called 'eps'; there are score, noise"):
        convert(np.ones((1, 1)), np.ones((1, 1)), 0.5, VP(), "eps", "score")
    with pytest.raises(ValueError, match="predict must be one of"):
        ScoreModel(MLP((1, 4, 1)), VP(), predict="eps")


def test_conversions_keep_kind_dtype_and_shape_on_every_back_end(any_backend):
    x, t = (any_backend.asarray(a, dtype="float32") for a in (np.ones((3, 2, 2)), np.array([0.2, 0.5, 1.0])))
    for target in NAMES:
        for time in (0.3, t):
            q = convert(0.5 * x, x, time, VP(), "noise", target)
            assert type(q) is type(x)
            assert q.dtype == x.dtype
            assert q.shape == x.shape


# ------------------------------------------------------------------ what a network is trained on


@names
@each_sde
def test_a_network_s_targets_have_the_size_that_is_said(name, sde):
    """Eq. (12.5): E q² / size² = 1 for Gaussian data of deviation σ_d; q of x₀ and z is a line in both."""
    for data_std in (0.3, 1.0, 5.0):
        for t in (1e-4, 0.1, 0.5, 1.0):
            alpha, sigma = sde.alpha(t), sde.sigma(t)
            a, b = affine(name, sde, t, data_std)
            # q* = a (α x₀ + σ z) + b (-z/σ)
            square = (a * alpha * data_std) ** 2 + (a * sigma - b / sigma) ** 2
            if name == "score":  # said of the score itself, of E s² = c², and so of F = s/c
                c = 1 / math.hypot(alpha * data_std, sigma)
                p = GaussianMixture(np.ones(1), np.zeros((1, 1)), np.full(1, data_std**2))
                x = np.array([[1.0]]) / c
                assert abs(p.score(x, alpha, sigma)[0, 0] ** 2 / c**2 - 1) <= 1e-12
                assert size(name, sde, t, data_std) == 1
            else:
                # 1e-11: for v and F the coefficient of z is a difference of terms like σ²/α² larger
                assert abs(square / size(name, sde, t, data_std) ** 2 - 1) <= 1e-11 * (1 + (a * sigma**2 / b) ** 2)


class Truth:
    """A body that answers what a network of this prediction should: q over its size, from the exact score."""

    inputs = ("x", "level")

    def __init__(self, p, sde, data_std, name, t):
        self.p, self.sde, self.data_std, self.name, self.t = p, sde, data_std, name, t

    def apply(self, params, x, level):
        sde, t, d = self.sde, self.t, self.data_std
        alpha, sigma = sde.alpha(t), sde.sigma(t)
        np.testing.assert_allclose(level, np.log(sigma / alpha), rtol=1e-12, atol=1e-12)
        c = per_sample(1 / np.sqrt(alpha**2 * d**2 + sigma**2), x)
        s = self.p.score(x / c, alpha, sigma)
        if self.name == "score":
            return s / c
        return convert(s, x / c, t, sde, "score", self.name, d) / per_sample(size(self.name, sde, t, d), x)


@names
@each_sde
def test_a_network_that_predicts_right_is_the_score(name, sde):
    """Eqs. (12.4), (12.5): what the model makes of q is s."""
    p, t = mixture("tilted"), np.array([1e-3, 0.05, 0.4, 1.0])
    x = per_sample(sde.alpha(t), np.ones((4, 2))) * p.sample(np.random.default_rng(0), 4)
    x = x + sde.sigma(t)[:, None] * np.random.default_rng(1).standard_normal((4, 2))
    found = ScoreModel(Truth(p, sde, 1.7, name, t), sde, 1.7, name).apply({}, x, t)
    s, sigma = p.score(x, sde.alpha(t), sde.sigma(t)), sde.sigma(t)[:, None]
    assert np.max(np.abs(found - s) / ((1 + np.abs(x) / sigma) / sigma + np.abs(s))) <= 1e-12


@names
def test_derivatives_of_a_model_of_every_prediction(name, backend):
    model = ScoreModel(MLP((2, 5, 2), embed=4), VP(), 0.7, name)
    rng = np.random.default_rng(8)
    xs = [rng.standard_normal((3, 2)), rng.uniform(0.1, 0.9, 3)]
    s = subject(model, backend, xs, 3, 2, live=[True], fixed=[1])
    check_all(s, 3)
    check_dtype(s, "float32")


@names
@each_sde
def test_loss_of_is_the_plain_squared_error(name, sde):
    """Eq. (12.6): λ ½ ‖s + z/σ‖² = ½ ‖q - q*‖², q* the same line in x and -z/σ."""
    d = 0.6
    model = ScoreModel(MLP((2, 8, 2), embed=4), sde, d)
    theta = model.init(np.random.default_rng(0), "float64")
    rng = np.random.default_rng(1)
    x0, z, t = d * rng.standard_normal((5, 2)), rng.standard_normal((5, 2)), rng.uniform(0.05, 1.0, 5)
    loss, _ = Denoising(weight=LossOf(name, d)).at(model, theta, x0, t, z)
    alpha, sigma = sde.alpha(t)[:, None], sde.sigma(t)[:, None]
    x = alpha * x0 + sigma * z
    q = convert(model.bind(theta)(x, t), x, t, sde, "score", name, d)
    level = sigma / alpha
    wanted = {  # written out, not converted
        "score": -z / sigma,
        "noise": z,
        "data": x0,
        "v": alpha * z - sigma * x0,
        "F": (x0 - d**2 / (level**2 + d**2) * x / alpha) * np.sqrt(level**2 + d**2) / (level * d),
        "velocity": sde.f(t)[:, None] * x + 0.5 * sde.g(t)[:, None] ** 2 * z / sigma,
    }[name]
    np.testing.assert_allclose(loss, 0.5 * np.sum((q - wanted) ** 2) / 5, rtol=1e-11)


@given(t=times, name=st.sampled_from(sorted(SDES)))
def test_the_weight_of_the_noise_is_the_one_of_song_and_ermon(t, name):
    """Eq. (12.6): λ = σ² for the noise, σ⁴/α² for the data: SNR times one another."""
    sde = SDES[name]
    noise, data = (LossOf(n)(sde, t) for n in ("noise", "data"))
    assert noise == sigma_squared(sde, t)
    np.testing.assert_allclose(noise / data, (sde.alpha(t) / sde.sigma(t)) ** 2, rtol=1e-12)


@given(sigma=st.floats(0.002, 79.0), data_std=st.floats(0.1, 3.0))
def test_edm_s_coefficients_are_ours_for_f(sigma, data_std):
    """Eqs. (12.2), (12.6): c_skip, c_out, c_in and λ of Karras et al. 2022, from D = x + σ² s on σ = t."""
    sde = LinearVE(80.0)
    t, x = sde.time(sigma), np.ones((1, 1))
    model = ScoreModel(MLP((1, 4, 1), embed=2), sde, data_std, "F")
    c_in, skip, factor, (level,) = model.scales(x, t)
    total = sigma**2 + data_std**2
    tight = {"rtol": 1e-12}
    np.testing.assert_allclose(c_in, 1 / math.sqrt(total), **tight)
    # 1 + σ² skip: what is left of 1 is small beside large noise
    np.testing.assert_allclose(1 + sigma**2 * skip, data_std**2 / total, rtol=0, atol=1e-12)
    np.testing.assert_allclose(sigma**2 * factor, sigma * data_std / math.sqrt(total), **tight)
    # ½ λ_D ‖D - x₀‖² is the plain loss of F: D - x₀ = σ² (s - s*)
    np.testing.assert_allclose(LossOf("F", data_std)(sde, t) / sigma**4, total / (sigma * data_std) ** 2, **tight)
    np.testing.assert_allclose(level / 4, 0.25 * math.log(sigma), rtol=1e-10, atol=1e-12)  # c_noise is ¼ of ours


@given(level=st.floats(0.01, 50.0), width=st.floats(0.1, 5.0), off=st.floats(-0.5, 0.5))
def test_edm_skips_where_an_error_of_the_network_does_least(level, width, off):
    """Eqs. (22.1), (22.2): with targets of size 1, c_out² = (1 - c)² σ_d² + c² ς² is least at c_skip."""

    def c_out(skip):
        return math.hypot((1 - skip) * width, skip * level)

    skip = width**2 / (width**2 + level**2)
    assert c_out(skip) <= c_out(skip + off)
    assert abs(c_out(skip) - width * level / math.hypot(width, level)) < 1e-12 * width
    assert c_out(skip) < min(width, level)
    sde = LinearVE(100.0)
    t = level / 100.0
    a, b = affine("F", sde, t, width)  # F = a x + b s, and D = x + ς² s
    assert abs(-a / b * level**2 + 1 - skip) < 1e-9
    assert abs(level**2 / b - c_out(skip)) < 1e-9 * c_out(skip)
    assert abs(size("F", sde, t, width) - 1) < 1e-9
