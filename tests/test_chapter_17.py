"""Chapter 17: its equations, the answers to its exercises, and its block of PyTorch."""

import re
import textwrap
from types import SimpleNamespace

import numpy as np
import pytest

from refscore.clinic.convention import Convention
from refscore.clinic.loss import loss
from refscore.clinic.sampler import sampler
from refscore.clinic.schedule import schedule
from refscore.clinic.table import read
from refscore.noise.chains import from_betas
from tests.oracles.book import ROOT
from tests.oracles.statistics import assert_within

T = 50
BETA = np.linspace(0.002, 0.4, T)
BAR = np.cumprod(1 - BETA)
PAGE = (ROOT / "docs" / "chapters" / "17-is-yours-right.md").read_text(encoding="utf-8")


def ancestral(model, x, rng):
    for t in range(T - 1, -1, -1):
        x = (x - BETA[t] / np.sqrt(1 - BAR[t]) * model(x, t)) / np.sqrt(1 - BETA[t])
        if t > 0:
            x = x + np.sqrt(BETA[t]) * rng.standard_normal(x.shape)
    return x


def gaussian(mean, variance):
    """The exact network of N(mean, variance), told an index."""
    way = Convention(betas=BETA)

    def model(x, t):
        p, q = way.answer(way.level(float(t)), mean, variance)
        return p * x + q

    return model


# ------------------------------------------------------------------ equations


def test_a_table_and_any_network_give_what_the_sampler_gives():
    """Eq. (17.1): with the noises and a network that is not even affine."""
    rng, z, asked = np.random.default_rng(0), [], []

    class Kept:
        def standard_normal(self, shape):
            z.append(rng.standard_normal(shape))
            return z[-1]

    def model(x, t):
        asked.append(np.sin(x) + 0.01 * t)
        return asked[-1]

    start = rng.standard_normal((3, 2))
    end = ancestral(model, start, Kept())
    table = read(ancestral, Convention(betas=BETA), 2, "numpy", None)
    row = table.states[-1]
    assert row.shape == (1 + T + T - 1,)
    noises = np.einsum("q,qbd->bd", row[1 + T :], np.stack(z))
    # fresh noises come in the order in which they are drawn, one a step
    np.testing.assert_allclose(
        row[0] * start + np.einsum("k,kbd->bd", row[1 : 1 + T], np.stack(asked)) + noises, end, atol=1e-9
    )


def test_the_exact_network_of_a_gaussian_is_affine():
    """Eq. (17.2): p and q, by the regression of z on x."""
    alpha, sigma, m, v = 0.8, 0.6, 1.0, 0.25
    p, q = sigma / (alpha**2 * v + sigma**2), -alpha * sigma * m / (alpha**2 * v + sigma**2)
    covariance, variance = sigma, alpha**2 * v + sigma**2  # of z and x = α x₀ + σ z; of x
    assert p == pytest.approx(covariance / variance)
    assert q == pytest.approx(-p * alpha * m)
    way = Convention(alphas_bar=[alpha**2])
    assert way.answer(way.level(0.0), m, v) == pytest.approx((p, q))


def test_the_law_of_the_end_is_that_of_samples():
    """Eq. (17.3): mean and variance without a sample, beside 40 000 of them."""
    rng = np.random.default_rng(1)
    x = ancestral(gaussian(1.0, 0.25), rng.standard_normal((40_000, 1)), rng)
    table = read(ancestral, Convention(betas=BETA), 2, "numpy", None)
    mean, variance = table.law(Convention(betas=BETA), 1.0, 0.25, 1.0)
    assert_within(np.mean(x), mean, np.sqrt(variance) / 200, n=len(x))
    assert_within(np.var(x), variance, variance * 2**0.5 / 200, n=len(x))


@pytest.mark.parametrize("h", [1e-3, 1.0, 1e3])
def test_weights_and_targets_by_differences(h):
    """Eq. (17.4): exact for any step, and not for an absolute error."""
    rng = np.random.default_rng(2)
    w, target, d = rng.uniform(1, 2, 4), rng.standard_normal((4, 3)), rng.standard_normal(3)

    def lost(b, step):
        q = np.zeros((4, 3))
        q[b] = step * d
        return np.sum(w * np.sum((q - target) ** 2, axis=1))

    for b in range(4):
        up, rest, down = lost(b, h), lost(b, 0.0), lost(b, -h)
        weight = (up - 2 * rest + down) / (2 * h**2 * d @ d)
        assert weight == pytest.approx(w[b], rel=1e-8 if h >= 1 else 1e-6)
        assert -(up - down) / (4 * h * weight) == pytest.approx(d @ target[b], rel=1e-6)


def test_what_the_prior_costs():
    """Eq. (17.5): the divergence of N(√ᾱ x₀, 1 - ᾱ) from N(0, 1), averaged over data."""
    bar, power = 0.3, 2.0
    x0 = np.array([power**0.5, -(power**0.5)])
    exact = np.mean(0.5 * (bar * x0**2 + (1 - bar) - 1 - np.log(1 - bar)))
    r = bar / (1 - bar)
    assert 0.5 * (power * r / (1 + r) + np.log1p(r) - r / (1 + r)) == pytest.approx(exact)
    found = schedule(alphas_bar=[0.9, 0.6, bar], data=x0)
    assert found.numbers["prior_nats"] == pytest.approx(exact)


# ------------------------------------------------------------------ exercises


def exercise(name):
    """A function of the exercises, as the page has it."""
    space = {"np": np, "T": T, "alpha_bar": BAR}
    for block in re.findall(r"^   ```python\n(.*?)^   ```", PAGE, flags=re.S | re.M):
        exec(textwrap.dedent(block), space)
    return space[name]


def test_exercises_1_and_2_numbers():
    p, q = 0.6 / 0.52, -0.48 / 0.52
    assert (p, q, -q / p) == pytest.approx((1.154, -0.923, 0.8), abs=5e-4)
    way = Convention(alphas_bar=[0.64])
    assert way.answer(way.level(0.0), 1.0, 0.25) == pytest.approx((p, q))
    nats = schedule(alphas_bar=[0.9, 0.5, 0.08], data=np.array([1.0, -1.0])).numbers["prior_nats"]
    assert nats == pytest.approx(-0.5 * np.log1p(-0.08))
    assert (nats, 3072 * nats) == pytest.approx((0.0417, 128.1), abs=0.05)


def test_exercise_3_one_noise_for_all_steps():
    """The table has one column of noise; its numbers are positive, and add up before they are squared."""

    def once(model, x, rng):
        z = rng.standard_normal(x.shape)
        return ancestral(model, x, SimpleNamespace(standard_normal=lambda shape: z))

    found = sampler(once, betas=BETA)
    assert (found.verdict, found.causes[0].name) == ("wrong", "same-noise")
    assert found.numbers["variance on N(1, 1/4)"] / 0.25 == pytest.approx(26.2, abs=0.05)


@pytest.mark.parametrize(
    ("name", "way", "cause"),
    [
        ("first", {"betas": BETA}, "data-root-forgotten"),
        ("second", {"betas": BETA, "predicts": "v"}, "v-sign"),
        ("third", {"predicts": "denoiser", "told": "sigma"}, "heun-divided-by-here"),
        ("fourth", {"predicts": "score", "told": "sigma"}, "langevin-root-two"),
    ],
)  # fmt: skip
def test_exercises_4_to_7_what_is_wrong_here(name, way, cause):
    found = sampler(exercise(name), **way)
    assert (found.verdict, found.causes[0].name) == ("wrong", cause)


def test_exercise_7_which_factor_is_wrong_is_a_matter_of_the_step():
    """Half the score and the noise as it is are the same chain with half the step."""

    def chain(model, x, rng, move, noise):
        for sigma in np.geomspace(20.0, 0.02, 12):
            for _ in range(5):
                x = x + move * sigma**2 * model(x, sigma) + noise**0.5 * sigma * rng.standard_normal(x.shape)
        return x

    for move, noise in ((0.2, 0.4), (0.1, 0.2)):
        found = sampler(lambda model, x, rng: chain(model, x, rng, move, noise), predicts="score", told="sigma")  # noqa: B023
        assert found.verdict == "right"


def test_exercise_8_the_end_is_the_last_answer():
    """Of a denoiser: with noise at the end there is one more column, and nothing takes that noise away again."""
    way = Convention(betas=BETA, predicts="data")

    def run(model, x, rng, extra=0.0):
        for t in range(T - 1, -1, -1):
            a, s = BAR[t], BAR[t - 1] if t else 1.0
            x0 = model(x, t)
            x = s**0.5 * x0 + (1 - s) ** 0.5 * (x - a**0.5 * x0) / (1 - a) ** 0.5
        return x + extra * rng.standard_normal(x.shape)

    end = read(run, way, 2, "numpy", None).states[-1]
    np.testing.assert_allclose(end, np.arange(1 + T) == T, atol=1e-12)
    end = read(lambda *args: run(*args, extra=0.1), way, 2, "numpy", None).states[-1]
    np.testing.assert_allclose(end[[-2, -1]], [1.0, 0.1], atol=1e-12)


def test_exercise_9_who_never_asks():
    assert sampler(lambda model, x, rng: 0.5 * x, betas=BETA).causes[0].name == "no-call"
    # by (17.3) M is 0 for all k: nothing but answers brings the mean of the data in


def test_exercise_10_an_absolute_error_bends_nowhere():
    def absolute(model, x0):
        t = np.random.randint(0, T, len(x0))  # noqa: NPY002
        z = np.random.standard_normal(x0.shape)  # noqa: NPY002
        return np.mean(np.abs(model(np.sqrt(BAR[t])[:, None] * x0 + np.sqrt(1 - BAR[t])[:, None] * z, t) - z))

    found = loss(absolute, from_betas(BETA.tolist()), predicts="noise", told="index")
    assert "not-squared" in [cause.name for cause in found.causes]


# ------------------------------------------------------------------ the block of PyTorch


def test_the_block_of_pytorch_is_what_the_page_says_of_it():
    torch = pytest.importorskip("torch", exc_type=ImportError)
    space = {}
    exec(re.search(r"^```py\n(.*?)^```", PAGE, flags=re.S | re.M)[1], space)
    found = sampler(space["sample"], betas=space["beta"].tolist(), library="torch")
    assert (found.verdict, found.name, found.causes[0].name) == ("wrong", "ddpm-large", "told-one-index-high")
    assert torch.is_grad_enabled()
