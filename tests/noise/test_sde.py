"""SDEs, the prior and the reverse process: what they refuse, kinds of time, dtypes, back ends."""

import math

import numpy as np
import pytest

from refscore import VE, VP, ExactScore, Reverse, prior
from refscore.noise.sde import log_ratio
from tests.oracles.marks import each_sde
from tests.oracles.statistics import assert_mean
from tests.oracles.strategies import random_mixture

NAMES = ("f", "g", "alpha", "sigma")


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf, -math.inf])
def test_parameters_must_be_positive_and_finite(bad):
    with pytest.raises(ValueError, match="beta_min must be positive and finite"):
        VP(bad, 20.0)
    with pytest.raises(ValueError, match="beta_max must be positive and finite"):
        VP(0.1, bad)
    with pytest.raises(ValueError, match="sigma_min must be positive and finite"):
        VE(bad, 50.0)
    with pytest.raises(ValueError, match="sigma_max must be positive and finite"):
        VE(0.01, bad)


def test_parameters_must_be_in_order():
    with pytest.raises(ValueError, match=r"beta_min <= beta_max, got 2\.0, 1\.0"):
        VP(2.0, 1.0)
    VP(1.0, 1.0)  # constant β is a VP SDE
    with pytest.raises(ValueError, match=r"sigma_min < sigma_max, got 2\.0, 1\.0"):
        VE(2.0, 1.0)
    with pytest.raises(ValueError, match="sigma_min < sigma_max"):
        VE(1.0, 1.0)


@each_sde
@pytest.mark.parametrize(
    "t", [-1e-300, math.nextafter(0.0, -1.0), math.nextafter(1.0, 2.0), 1 + 1e-12, -1.0, 2, math.nan, math.inf]
)
def test_a_time_outside_the_unit_interval_is_refused(sde, t):
    for name in NAMES:
        with pytest.raises(ValueError, match=r"t must lie in \[0, 1\].*got"):
            getattr(sde, name)(t)
    if isinstance(t, float):
        with pytest.raises(ValueError, match="t must lie in"):
            log_ratio(sde, t)


@each_sde
def test_the_ends_of_the_unit_interval_are_times(sde):
    for t in (0.0, 1.0, 0, 1, math.nextafter(0.0, 1.0), math.nextafter(1.0, 0.0), np.float64(0.5)):
        for name in NAMES:
            assert math.isfinite(getattr(sde, name)(t))


@each_sde
def test_every_method_answers_in_kind(sde, any_backend):
    """A float gives a float; an array keeps its dtype, device and shape."""
    for dtype in ("float32",) if "no_float64" in any_backend.name else ("float32", "float64"):
        t = any_backend.asarray([0.1, 0.5, 1.0], dtype=dtype)
        sigma = sde.sigma(t) * 0.5
        ratio = log_ratio(sde, t)
        results = [getattr(sde, name)(t) for name in NAMES] + [ratio, sde.time(sigma), sde.time_at_log_ratio(ratio)]
        for y in results:
            assert y.dtype == t.dtype
            assert y.shape == t.shape
            assert y.device == t.device
        expected = [getattr(sde, name)(np.asarray([0.1, 0.5, 1.0])) for name in NAMES]
        for y, e in zip(results, expected, strict=False):
            assert any_backend.to_numpy(y) == pytest.approx(e, rel=1e-5 if dtype == "float32" else 1e-13)
    for name in (*NAMES, "time"):
        assert isinstance(getattr(sde, name)(0.5), float)
    assert isinstance(sde.time_at_log_ratio(-1.0), float)
    assert isinstance(log_ratio(sde, 0.5), float)
    assert isinstance(sde.prior_std, float)


@each_sde
def test_an_sde_is_a_value(sde):
    again = type(sde)(*(getattr(sde, name) for name in sde.__dataclass_fields__))
    assert again == sde
    assert hash(again) == hash(sde)
    assert "=" in repr(sde)
    with pytest.raises(AttributeError):
        sde.sigma_min = 1.0


# ------------------------------------------------------------------ prior


@each_sde
def test_prior_is_gaussian_of_the_prior_deviation(sde):
    x = prior(sde, (100_000, 2), np.random.default_rng(0), dtype="float64")
    assert x.shape == (100_000, 2)
    for column in (x / sde.prior_std).T:
        assert_mean(column, 0.0)
        assert_mean(column**2, 1.0)
        assert_mean(column**4, 3.0)
    assert_mean(x[:, 0] * x[:, 1] / sde.prior_std**2, 0.0)


def test_prior_of_images_is_float32_by_default(any_backend):
    x = prior(VE(), (3, 4, 4, 1), any_backend.rng(0))
    assert x.shape == (3, 4, 4, 1)
    assert str(x.dtype).endswith("float32")


@pytest.mark.parametrize("shape", [(), (0, 2), (2, 0)])
def test_prior_of_nothing_is_refused(shape):
    with pytest.raises(ValueError, match="prior needs a shape"):
        prior(VP(), shape, np.random.default_rng(0))


# ------------------------------------------------------------------ reverse


@pytest.mark.parametrize("lam", [-1e-300, -1.0, math.nan])
def test_lambda_must_not_be_negative(lam):
    with pytest.raises(ValueError, match="lam must be finite and not negative"):
        Reverse(VP(), lambda x, t: -x, lam)


@each_sde
def test_reverse_and_exact_score_run_on_every_backend(sde, backend):
    p = random_mixture(0, 2, 3)
    q = type(p)(*(backend.asarray(a) for a in (p.weights, p.means, p.covariances)))
    x = np.random.default_rng(1).standard_normal((5, 2))
    t = np.linspace(0.1, 1, 5)
    X, T = backend.asarray(x), backend.asarray(t)
    here, there = Reverse(sde, ExactScore(p, sde), 0.7), Reverse(sde, ExactScore(q, sde), 0.7)
    for mine, theirs in ((0.3, 0.3), (t, T), (t[:1], T[:1])):
        expected = here.drift(x, mine)
        assert backend.to_numpy(there.drift(X, theirs)) == pytest.approx(expected, rel=1e-12, abs=1e-12)
        noise = there.noise(X, theirs)
        if not isinstance(noise, float):
            assert noise.shape[1:] == (1,)
            noise = backend.to_numpy(noise)
        assert noise == pytest.approx(here.noise(x, mine), rel=1e-12)
    assert isinstance(here.noise(x, 0.3), float)


@each_sde
def test_reverse_keeps_float32(sde, any_backend):
    p = random_mixture(0, 2, 3)
    q = type(p)(*(any_backend.asarray(a, dtype="float32") for a in (p.weights, p.means, p.covariances)))
    x = any_backend.asarray(np.ones((4, 2)), dtype="float32")
    t = any_backend.asarray(np.full(4, 0.5), dtype="float32")
    process = Reverse(sde, ExactScore(q, sde))
    for time in (0.5, t, t[:1]):
        assert process.drift(x, time).dtype == x.dtype
        assert process.drift(x, time).shape == (4, 2)


def test_the_score_is_told_the_time_as_an_array():
    seen = []

    def score(x, t):
        seen.append(t)
        return -x

    x = np.zeros((4, 2), dtype="float32")
    Reverse(VP(), score).drift(x, 0.25)
    Reverse(VP(), score).drift(x, np.full(4, 0.5, dtype="float32"))
    assert seen[0].shape == (1,)
    assert seen[0].dtype == np.float32
    assert seen[0][0] == 0.25
    assert seen[1].shape == (4,)


def test_vp_inverses_at_the_far_ends():
    steep = VP(0.1, 1200.0)
    assert steep.time_at_log_ratio(360.0) == pytest.approx(steep.time_at_log_ratio(np.array([360.0]))[0], rel=1e-14)
    for sigma in (1.0, -0.1, math.nan):
        with pytest.raises(ValueError, match="sigma must lie in"):
            VP().time(sigma)
    with pytest.raises(ValueError, match="sigma must not be negative"):
        VE().time(-0.1)
