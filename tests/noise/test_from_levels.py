"""A list of σ or of ᾱ is enough: the chain that has exactly these levels, under every sampler."""

import doctest
import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refscore import DDIM, EDM, Ancestral, ExactScore, prior, simulate
from refscore.laws.examples import mixture
from refscore.noise import chains
from refscore.noise.chains import Chain, ddpm, from_alphas_bar, from_betas, from_sigmas, smld
from refscore.noise.grids import karras_times, level_times
from refscore.noise.sde import LinearVE
from refscore.sampling.loop import last
from refscore_backends.numpy import NumpyBackend

LINEAR = LinearVE(80.0)
TIMES = [1.0, *karras_times(LINEAR, 12)[1:]]  # the first may be one rounding below 1, which churn then fills
KARRAS = [LINEAR.sigma(t) for t in TIMES]  # 80 down to 0.002, and 0
STEPS = {
    "ddim": DDIM, "edm": EDM, "edm-churn": lambda sde, score: EDM(sde, score, churn=0.3), "ancestral": Ancestral,
    "ancestral-large": lambda sde, score: Ancestral(sde, score, "large"),
}  # fmt: skip


def walk(build, sde, times):
    rng = np.random.default_rng(3)
    x = prior(sde, (6, 2), rng, "float64")
    return last(simulate(build(sde, ExactScore(mixture("tilted"), sde)), x, times, rng))


@pytest.mark.parametrize("build", STEPS.values(), ids=STEPS)
def test_a_chain_of_somebody_s_list_is_the_linear_sde_at_these_levels(build):
    sde = from_sigmas(KARRAS)
    a, b = walk(build, sde, sde.times), walk(build, LINEAR, TIMES)
    assert np.max(np.abs(a - b)) <= 1e-12


ladders = st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=12, unique_by=lambda s: round(math.log(s), 9))


@given(levels=ladders)
def test_the_grid_of_the_chain_walks_exactly_these_levels(levels):
    down = sorted(levels, reverse=True)
    sde = from_sigmas(down)
    assert [sde.sigma(t) for t in sde.times] == [*down, 0.0]
    assert all(sde.alpha(t) == 1 and sde.f(t) == 0 for t in sde.times)
    assert sde.prior_std == down[0]
    assert sde.n == len(down)


@given(levels=ladders)
def test_the_levels_are_found_again_by_who_asks_for_their_times(levels):
    """Levels in training and annealed Langevin ask the SDE for the time of a σ: there σ is the level, to rounding."""
    down = sorted(levels, reverse=True)
    sde = from_sigmas(down)
    found = level_times(sde, down)
    np.testing.assert_allclose([sde.sigma(t) for t in found], [*down, 0.0], rtol=1e-9)
    nearest = min((1 - (b / a) ** 2 for a, b in pairwise(down)), default=1.0)  # the rounding of σ² over a step's share
    np.testing.assert_allclose(found, sde.times, rtol=0, atol=1e-12 + 1e-15 / (sde.n * nearest))


@given(levels=ladders)
def test_rising_or_falling_with_or_without_zero_it_is_one_chain(levels):
    up = sorted(levels)
    chain = from_sigmas(up)
    for same in (up[::-1], [*up[::-1], 0.0], [0.0, *up], tuple(up), np.array(up)):
        assert from_sigmas(same) == chain


def test_smld_is_the_chain_of_its_own_levels():
    assert from_sigmas(smld(20).sigmas) == smld(20)


@given(betas=st.lists(st.floats(1e-5, 0.5), min_size=1, max_size=50))
def test_from_betas_and_from_their_products_are_one_chain(betas):
    a, b = from_betas(betas), from_alphas_bar(np.cumprod(1 - np.array(betas)))
    n = len(betas)
    np.testing.assert_allclose(a.alphas, b.alphas, rtol=1e-15 * n)
    np.testing.assert_allclose(np.square(a.sigmas), np.square(b.sigmas), rtol=0, atol=3e-16 * n)  # of 1 - ᾱ
    assert a.prior_std == b.prior_std == 1
    assert from_alphas_bar([1.0, *np.cumprod(1 - np.array(betas))]) == b


def test_the_chain_of_alphas_bar_keeps_the_variance():
    sde = from_alphas_bar([0.99, 0.75, 0.36])
    for t, bar in zip(sde.times, [0.36, 0.75, 0.99, 1.0], strict=True):
        assert sde.alpha(t) ** 2 == pytest.approx(bar, rel=1e-15)
        assert sde.sigma(t) ** 2 == pytest.approx(1 - bar, rel=1e-14, abs=0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_lists_of_any_kind_are_lists(backend, dtype):
    for make, numbers in ((from_sigmas, [8.0, 3.3, 0.1]), (from_alphas_bar, [0.9, 0.3]), (from_betas, [0.1, 0.3])):
        array = np.array(numbers, dtype=dtype)
        wanted = make(array.tolist())  # the same numbers, exactly
        assert make(backend.asarray(array)) == wanted
        assert make([np.asarray(v) for v in array]) == wanted  # 0-d items
        assert make(tuple(array)) == wanted
        assert {type(v) for chain in (wanted, make(array)) for v in (*chain.alphas, *chain.sigmas)} == {float}


BAD = [
    (from_sigmas, [1.0, 3.0, 2.0], ValueError, r"all rise or all fall; got sigmas\[1\] = 3.0 and then 2.0"),
    (from_sigmas, [3.0, 1.0, 1.0, 0.0], ValueError, r"sigmas\[1\] = 1.0 and then 1.0"),
    (from_sigmas, [3.0, 0.0, 0.0], ValueError, r"sigmas\[1\] = 0.0 and then 0.0"),
    (from_sigmas, [3.0, -1.0], ValueError, r"not negative, got sigmas\[1\] = -1.0"),
    (from_sigmas, [3.0, math.nan, 1.0], ValueError, r"finite and not negative, got sigmas\[1\] = nan"),
    (from_sigmas, [math.inf, 1.0], ValueError, r"got sigmas\[0\] = inf"),
    (from_sigmas, [], ValueError, "sigmas is empty"),
    (from_sigmas, [0.0], ValueError, "a level above 0"),
    (from_sigmas, [1e200, 1.0], ValueError, r"σ/α must stay below 1e18, .* got 1e\+200"),
    (from_sigmas, 80.0, TypeError, "sigmas must be a list of numbers, got 80.0"),
    (from_sigmas, "80", TypeError, "sigmas must be a list of numbers, got '80'"),
    (from_sigmas, np.ones((2, 2)), TypeError, "sigmas must be a list of numbers"),
    (from_sigmas, [3.0, None], TypeError, r"sigmas\[1\] must be a number, got None"),
    (from_alphas_bar, [0.9, 0.5, 0.0], ValueError, r"alphas_bar\[2\] = 0 \(zero terminal SNR\).*leave it out"),
    (from_alphas_bar, [0.5, 0.9], ValueError, r"fall strictly, from data to noise; got alphas_bar\[0\] = 0.5"),
    (from_alphas_bar, [0.9, 0.9], ValueError, r"got alphas_bar\[0\] = 0.9 and then 0.9"),
    (from_alphas_bar, [0.9, -0.1], ValueError, r"lie in \(0, 1\], got alphas_bar\[1\] = -0.1"),
    (from_alphas_bar, [1.1, 0.5], ValueError, r"alphas_bar\[0\] = 1.1"),
    (from_alphas_bar, [0.5, math.nan], ValueError, r"alphas_bar\[1\] = nan"),
    (from_alphas_bar, [1.0], ValueError, "a level below 1"),
    (from_alphas_bar, [], ValueError, "alphas_bar is empty"),
    (from_alphas_bar, [0.9, 1e-310], ValueError, "σ/α must stay below 1e18"),
    (from_betas, [0.9] * 400, ValueError, "σ/α must stay below 1e18"),
    (from_betas, [], ValueError, "betas is empty"),
    (from_betas, [0.1, "0.2"], TypeError, r"betas\[1\] must be a number"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "levels", "kind", "message"), BAD, ids=[f"{m.__name__} {b}"[:40] for m, b, *_ in BAD])
def test_what_is_no_ladder_is_refused_by_name_and_place(make, levels, kind, message):
    with pytest.raises(kind, match=message):
        make(levels)


def test_a_chain_in_float32_samples_in_float32():
    sde = from_sigmas(np.array(KARRAS, dtype="float32"))
    x = prior(sde, (4, 2), NumpyBackend().rng(0))
    score = ExactScore(mixture("tilted", dtype="float32"), sde)
    assert last(simulate(DDIM(sde, score), x, sde.times, NumpyBackend().rng(1))).dtype == np.float32


def test_the_examples_run():
    assert doctest.testmod(chains).failed == 0
    assert isinstance(ddpm(100), Chain)
