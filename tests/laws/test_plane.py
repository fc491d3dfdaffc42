"""The sets of the plane: densities that integrate to 1, samples that follow them, scores that are their gradients."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refscore import VP, ExactScore
from refscore.laws.examples import mixture
from refscore.laws.plane import CURVES, LAWS, Checkerboard, Pinwheel, Rings, moons, swissroll, two_spirals
from tests.oracles.statistics import assert_bounded, assert_mean, assert_share
from tests.oracles.strategies import seeds

NOISY = {"rings": Rings((0.5, 2.0), 0.3), "checkerboard": Checkerboard(1.5)}  # of which the law with noise is known
EVERY = {**{name: make() for name, make in LAWS.items()}, **NOISY, "one-arm": Pinwheel(1, 0.5, 0.4, 0.1, 1.0)}
FREQUENCIES = np.asarray([[0.3, 0.0], [0.0, 0.7], [0.5, 0.5], [1.0, -0.4], [1.6, 1.6], [2.5, 0.5], [0.0, 4.0]])


def grid(half, n):
    """Midpoints of n² equal cells of a square about 0, and the area of a cell."""
    line = half * (2 * np.arange(n) + 1 - n) / n
    return np.stack(np.meshgrid(line, line, indexing="ij"), axis=-1).reshape(-1, 2), (2 * half / n) ** 2


def characteristic(x, weights):
    """Σ w exp(iu·x) at every frequency."""
    return np.exp(1j * (x @ FREQUENCIES.T)).T @ weights


@pytest.mark.parametrize("name", EVERY)
def test_densities_integrate_to_one_and_samples_follow_them(name):
    """All the mass is on the grid, and the characteristic functions of sample and density agree (Hoeffding)."""
    law, (x, cell) = EVERY[name], grid(6.0, 512)
    p = cell * np.exp(law.log_prob(x))
    assert np.sum(p) == pytest.approx(1.0, abs=1e-8)
    n = 40_000
    sample = law.sample(np.random.default_rng(1), n)
    assert sample.shape == (n, 2)
    phases, exact = sample @ FREQUENCIES.T, characteristic(x, p)
    for wave, wanted in ((np.cos, exact.real), (np.sin, exact.imag)):
        assert_bounded(wave(phases), wanted, -1.0, 1.0, bias=1e-3)  # of the grid at the board's edges


@pytest.mark.parametrize("name", NOISY)
@pytest.mark.parametrize(("alpha", "sigma"), [(1.0, 0.5), (0.6, 0.8), (0.05, 1.0)])
def test_the_law_with_noise_is_the_convolution(name, alpha, sigma):
    """∫ p(x₀) N(x; αx₀, σ²) dx₀ by the midpoint rule; exact for the board up to h², for rings to all digits."""
    law, (x0, cell) = NOISY[name], grid(4.5, 300)
    x = np.asarray([[0.0, 0.0], [1.0, 0.3], [-2.0, 0.7], [3.0, -3.0], [0.1, -4.0]])
    z = (x[:, None] - alpha * x0) / sigma
    kernel = np.exp(-0.5 * np.sum(z * z, axis=2)) / (2 * math.pi * sigma**2)
    direct = cell * kernel @ np.exp(law.log_prob(x0))
    for given_as in (float, lambda a: np.full(1, a), lambda a: np.full(len(x), a)):
        out = np.exp(law.log_prob(x, given_as(alpha), given_as(sigma)))
        assert out == pytest.approx(direct, rel=2e-3 if name == "checkerboard" else 1e-9)


@pytest.mark.parametrize(("name", "radii"), [("circles", [1.5, 3.0]), ("rings", [0.75, 1.5, 2.25, 3.0])])
def test_along_a_ray_the_density_is_largest_at_the_radii_of_the_rings(name, radii):
    """A ring bends, which moves the top by std²/r or so."""
    r = np.linspace(0.3, 4.0, 2000)
    p = LAWS[name]().log_prob(np.stack([0.6 * r, -0.8 * r], axis=1))
    tops = r[1:-1][(p[1:-1] > p[:-2]) & (p[1:-1] > p[2:])]
    assert tops == pytest.approx(radii, abs=0.04)


@given(seed=seeds, name=st.sampled_from(sorted(NOISY)), alpha=st.floats(0.02, 1.0), sigma=st.floats(0.1, 5.0))
def test_scores_are_gradients(seed, name, alpha, sigma):
    law, h = NOISY[name], 1e-4
    x = np.random.default_rng(seed).standard_normal((8, 2)) * 3 * (alpha + sigma)
    score = law.score(x, alpha, sigma)
    for i, e in enumerate(np.eye(2)):
        central = (law.log_prob(x + h * e, alpha, sigma) - law.log_prob(x - h * e, alpha, sigma)) / (2 * h)
        scale = 1 + np.abs(score[:, i])
        assert np.max(np.abs(central - score[:, i]) / scale) < 1e-3  # h² times the third derivative, up to σ⁻³


@pytest.mark.parametrize("name", NOISY)
def test_scores_far_out_and_at_the_centre_are_finite(name):
    """Far out the score is that of the nearest edge of the law: -(x - αe)/σ² along an axis."""
    law = NOISY[name]
    x = np.asarray([[0.0, 0.0], [1e3, 0.0], [0.0, -1e4], [1e-12, 0.0]])
    score = law.score(x, 0.5, 0.1)
    assert np.all(np.isfinite(score))
    assert np.all(np.isfinite(law.log_prob(x, 0.5, 0.1)))
    edge, variance = (1.0, 0.01 + 0.15**2) if name == "rings" else (1.5, 0.01)
    assert score[1, 0] == pytest.approx(-(1e3 - edge) / variance, rel=1e-3)
    assert score[2, 1] == pytest.approx((1e4 - edge) / variance, rel=1e-3)
    if name == "rings":
        assert score[0] == pytest.approx([0.0, 0.0])
        assert score[3, 1] == 0.0
        near = law.score(np.asarray([[1e-4, 0.0]]), 0.5, 0.1)[0, 0]  # linear in x, but for 1e-8 R²/s⁴
        assert score[3, 0] / 1e-12 == pytest.approx(near / 1e-4, rel=1e-4)


def test_exact_score_takes_them_in_the_place_of_a_mixture():
    """At t = 1 of VP all data are noise, and every score is -x."""
    x = np.random.default_rng(0).standard_normal((5, 2))
    for law in NOISY.values():
        assert ExactScore(law, VP())(x, 1.0) == pytest.approx(-x, abs=0.03)
        assert ExactScore(law, VP())(x, np.full(5, 0.3)).shape == (5, 2)


@pytest.mark.parametrize("name", [name for name in LAWS if name != "8gaussians"])  # a mixture, tested elsewhere
def test_float32_stays_float32_and_points_have_two_columns(name):
    """Beside the rounding of x itself nothing is lost."""
    law = EVERY[name]
    assert law.sample(np.random.default_rng(0), 0).shape == (0, 2)
    x = law.sample(np.random.default_rng(0), 50).astype("float32")
    wide = x.astype("float64")
    assert law.log_prob(x).dtype == np.float32
    assert law.log_prob(x) == pytest.approx(law.log_prob(wide), rel=1e-5, abs=1e-5)
    if hasattr(law, "score"):
        assert law.score(x, 0.5, 0.5).dtype == np.float32
        assert law.score(x, 0.5, 0.5) == pytest.approx(law.score(wide, 0.5, 0.5), rel=1e-5, abs=1e-5)
    for shape in ((3,), (4, 3), (4, 1)):
        with pytest.raises(ValueError, match=r"shape|\(B, 2\)"):
            law.log_prob(np.zeros(shape))


def test_a_ring_of_narrow_noise_is_a_circle_and_of_wide_noise_a_gaussian():
    """The radius has moments E r² = R² + 2s², by adding the squares of independent coordinates."""
    x, cell = grid(8.0, 400)
    for R, s in ((2.0, 0.1), (0.01, 1.0), (3.0, 0.5)):
        p = cell * np.exp(Rings((R,), s).log_prob(x))
        assert np.sum(p * np.sum(x * x, axis=1)) == pytest.approx(R**2 + 2 * s**2, rel=1e-8)
    flat = Rings((1e-9,), 1.0).log_prob(x)
    assert flat == pytest.approx(-0.5 * np.sum(x * x, axis=1) - math.log(2 * math.pi), abs=1e-12)


def test_the_board_is_dark_where_samples_are_and_light_where_not():
    law = Checkerboard()
    x = law.sample(np.random.default_rng(0), 10_000)
    assert np.all(law.log_prob(x) == pytest.approx(-math.log(32)))
    light = x * [-1.0, 1.0]
    assert np.all(law.log_prob(light) == -math.inf)
    assert law.log_prob(np.asarray([[-3.9, -3.9], [3.9, 3.9], [-4.1, -3.9]])).tolist()[2] == -math.inf
    assert law.log_prob(0.5 * x, alpha=np.full(1, 0.5)) == pytest.approx(-math.log(8))


@given(seed=seeds)
def test_a_pinwheel_turns_back_by_its_own_symmetry(seed):
    """A fifth of a turn leaves the density alone; and without bend and stretch it is the mixture of its arms."""
    x = np.random.default_rng(seed).standard_normal((6, 2)) * 2
    c, s = math.cos(2 * math.pi / 5), math.sin(2 * math.pi / 5)
    law = Pinwheel()
    assert law.log_prob(x @ np.asarray([[c, s], [-s, c]])) == pytest.approx(law.log_prob(x), rel=1e-9)
    assert np.all(np.isfinite(law.log_prob(1e4 * x)))
    straight = Pinwheel(2, 0.5, 0.5, 0.0, 1.0).log_prob(x)
    left, right = (-0.5 * np.sum((x - [m, 0.0]) ** 2, axis=1) / 0.25 for m in (-1.0, 1.0))
    assert straight == pytest.approx(np.logaddexp(left, right) - math.log(4 * math.pi * 0.25), abs=1e-9)


def test_curves_have_the_moments_of_their_definitions():
    """E|x|² = E|c(t)|² + 2s², means by the integral over t; each point lies within noise of its curve."""
    n, pi = 100_000, math.pi
    moments = {
        "moons": (0.0, 0.0, 3 + 2.25 - 4 / pi + 2 * 0.2**2),
        "swissroll": (0.4, 2 / (15 * pi), 9.75 * pi**2 / 25 + 2 * 0.2**2),
        "2spirals": (0.0, 0.0, pi**2 / 2 + 2 * 0.1**2),
    }
    assert moments.keys() == CURVES.keys()
    for name, (first, second, square) in moments.items():
        x = CURVES[name](np.random.default_rng(2), n)
        assert x.shape == (n, 2)
        assert_mean(x[:, 0], first)
        assert_mean(x[:, 1], second)
        assert_mean(np.sum(x * x, axis=1), square)


def test_curves_without_noise_are_on_their_curves():
    rng = np.random.default_rng(3)
    x = moons(rng, 500, std=0.0)
    upper, lower = np.hypot(x[:, 0] + 1, x[:, 1] + 0.5), np.hypot(x[:, 0] - 1, x[:, 1] - 0.5)
    assert np.minimum(np.abs(upper - 2), np.abs(lower - 2)) == pytest.approx(np.zeros(500), abs=1e-12)
    x = 5 * swissroll(rng, 500, std=0.0)
    t = np.hypot(x[:, 0], x[:, 1])
    assert x == pytest.approx(np.stack([t * np.cos(t), t * np.sin(t)], axis=1), abs=1e-9)
    x = 3 * two_spirals(rng, 500, std=0.0)
    t = np.hypot(x[:, 0], x[:, 1])
    one = np.stack([-t * np.cos(t), t * np.sin(t)], axis=1)
    assert np.minimum(np.abs(x - one).max(axis=1), np.abs(x + one).max(axis=1)).max() < 1e-9
    assert_share(np.abs(x - one).max(axis=1) < 1e-9, 0.5)


def test_eight_gaussians_are_the_circle_of_the_examples():
    assert np.array_equal(LAWS["8gaussians"]().means, mixture("circle").means)


@pytest.mark.parametrize(("make", "message"), [
    (lambda: Rings((), 1.0), "radii must be"),
    (lambda: Rings((1.0, -1.0), 1.0), "radii must be"),
    (lambda: Rings((1.0,), 0.0), "std must be"),
    (lambda: Checkerboard(0.0), "side must be"),
    (lambda: Checkerboard().score(np.zeros((1, 2))), "no score without noise: its density has jumps; give sigma > 0"),
    (lambda: Pinwheel(0), "arms must be"),
    (lambda: Pinwheel(tangential=0.0), "tangential must be"),
    *((lambda law=law: law.sample(np.random.default_rng(0), -1), "n must be") for law in EVERY.values()),
])  # fmt: skip
def test_what_is_no_law_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
