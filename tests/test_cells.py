"""Every cell of SDE × sampler × corrector × parametrisation × shape runs, on every back end, in either precision.

Four steps with a small network: finite samples of the right dtype and shape, and nothing on the way makes a device
wait for the host. And a sample does not know of its batch.
"""

from itertools import combinations, product

import array_api_strict
import numpy as np
import pytest

from refscore import MLP, ExactScore, First, Langevin, ScoreModel, Then, prior, simulate, watch
from refscore.laws.examples import mixture
from refscore.noise.parametrisation import PARAMETRISATIONS
from refscore.noise.sde import SDES
from refscore.sampling.compose import AnnealedLangevin
from refscore.sampling.langevin import LevelStep
from refscore.sampling.loop import NotFiniteError, NotFiniteWarning, last
from refscore.sampling.transitions import SAMPLERS
from refscore_backends.numpy import NumpyBackend
from refscore_backends.strict import StrictBackend
from tests.oracles.close import assert_close
from tests.oracles.marks import PROCESSES, each_sampler
from tests.oracles.replay import ReplayRng
from tests.oracles.waiting import nobody_waits

R = 0.16
CORRECTORS = {
    "none": lambda step, kernel: step,
    "then": Then,
    "first": lambda step, kernel: First(kernel, step),
}
STRICT = StrictBackend("device1")
BACKENDS = {"numpy": NumpyBackend(), "strict": STRICT}
SHAPES = ((3, 2), (3, 3, 2))
TIMES = [1.0, 0.6, 0.2, 0.05]  # above 0: a network has no score without noise
NET = MLP((2, 4, 2), embed=4)


def run_cell(sde, sampler, corrector, predict, shape, on, dtype):
    backend = BACKENDS[on]
    kind = getattr(np if on == "numpy" else array_api_strict, dtype)
    rng = backend.rng(0)
    model = ScoreModel(NET, sde, data_std=1.5, predict=predict)
    score = model.bind(model.init(rng, kind))
    kernel = Langevin(score, LevelStep(sde, 2 * R**2, 1.0))
    step = CORRECTORS[corrector](SAMPLERS[sampler](sde, score), kernel)
    x = prior(sde, shape, rng, kind)
    states = simulate(step, x, TIMES, rng)
    if on == "strict":
        with nobody_waits():
            x = last(states)
    else:
        x = last(states)
    assert x.dtype == kind
    assert tuple(x.shape) == shape
    assert np.isfinite(backend.to_numpy(x)).all()


WAYS = list(product(PARAMETRISATIONS, SHAPES, BACKENDS, ("float32", "float64")))  # 48


def way(sde, sampler, corrector):
    """One of the 48 for each of the 270 cells, so that no pair is left out: also of 9 SDEs and 21 samplers."""
    a, b, c = (list(table).index(name) for table, name in ((SDES, sde), (SAMPLERS, sampler), (CORRECTORS, corrector)))
    return WAYS[(19 * a + 18 * b + 37 * c) % 48]


@each_sampler
@pytest.mark.parametrize("sde", SDES)
def test_every_sampler_runs_on_every_sde_with_every_corrector(sde, name):
    """Each in one of the 48 ways, so that each way is taken five or six times; `-m slow` takes all in all."""
    for corrector in CORRECTORS:
        run_cell(SDES[sde], name, corrector, *way(sde, name, corrector))


def test_the_quick_cells_meet_every_pair():
    """Sampler × parametrisation, sampler × back end, and so on: no pair of choices is left out."""
    met = [(*cell, *way(*cell)) for cell in product(SDES, SAMPLERS, CORRECTORS)]
    axes = [list(SDES), list(SAMPLERS), list(CORRECTORS), list(PARAMETRISATIONS), list(SHAPES), list(BACKENDS),
            ["float32", "float64"]]  # fmt: skip
    for i, j in combinations(range(len(axes)), 2):
        missing = set(product(axes[i], axes[j])) - {(m[i], m[j]) for m in met}
        assert not missing, missing


@pytest.mark.slow
@each_sampler
@pytest.mark.parametrize("sde", SDES)
def test_every_cell_runs(sde, name):
    """All 12 960 of them: some minutes."""
    for corrector, way in product(CORRECTORS, WAYS):
        run_cell(SDES[sde], name, corrector, *way)


@each_sampler
@pytest.mark.parametrize("chain", ["ddpm chain", "smld chain"])
def test_every_sampler_runs_on_chains(chain, name):
    run_cell(PROCESSES[chain], name, "then", "noise", (3, 2), "strict", "float32")


# ------------------------------------------------------------------ samples never meet


def noise(n, shape):
    return list(np.random.default_rng(1).standard_normal((n, *shape)))


class Rows:
    """Replays noise for some of the rows; as much of it as is asked for."""

    def __init__(self, z, rows):
        self.z, self.rows = iter(z), rows

    def standard_normal(self, size=None, dtype=None):
        z = next(self.z)[self.rows]
        assert z.shape == tuple(size)
        return z


def run(name, sde, score, x, z, rows):
    kernel = Langevin(score, LevelStep(sde, 2 * R**2, 1.0))
    return last(simulate(Then(SAMPLERS[name](sde, score), kernel), x[rows], TIMES, Rows(z, rows)))


@each_sampler
def test_a_sample_is_the_same_alone_in_seven_and_in_thousands(name):
    """Element by element to two units in the last place; through matrix products to 1e-13 of scale; in any order."""
    n, sde = 4096, SDES["vp"]
    x, z = np.random.default_rng(0).standard_normal((n, 2)), noise(6, (n, 2))
    scores = {
        "elementwise": (lambda x, t: -x / (1 + x * x), lambda y: 2 * np.spacing(np.abs(y))),
        "mixture": (ExactScore(mixture("tilted"), sde), lambda y: 1e-13 * (1 + np.max(np.abs(y)))),
    }
    order = np.random.default_rng(2).permutation(n)
    for score, allowed in scores.values():
        whole = run(name, sde, score, x, z, slice(None))
        assert_close(run(name, sde, score, x, z, order), whole[order], allowed(whole[order]))
        for rows in (slice(0, 1), slice(4095, 4096), slice(0, 7), slice(2000, 2007)):
            assert_close(run(name, sde, score, x, z, rows), whole[rows], allowed(whole[rows]))


@each_sampler
def test_a_whole_chain_of_a_network_is_the_same_in_any_batch(name):
    """64 steps: rounding of matrix products, carried along."""
    sde, n = SDES["vp"], 256
    model = ScoreModel(NET, sde, data_std=1.5)
    score = model.bind(model.init(np.random.default_rng(3), "float64"))
    x, z = np.random.default_rng(0).standard_normal((n, 2)), noise(64, (n, 2))
    times = np.linspace(1, 0.01, 65).tolist()
    whole = last(simulate(SAMPLERS[name](sde, score), x, times, Rows(z, slice(None))))
    for rows in (slice(0, 1), slice(100, 107), slice(255, None, -1)):
        some = last(simulate(SAMPLERS[name](sde, score), x[rows], times, Rows(z, rows)))
        assert_close(some, whole[rows], 1e-10 * (1 + np.max(np.abs(whole))))


@each_sampler
def test_a_nan_is_named_by_step_and_row_and_stays_there(name):
    sde = SDES["vp"]
    exact = ExactScore(mixture("tilted"), sde)

    def broken(x, t, bad=np.nan):
        s = exact(x, t)
        if t[0] == TIMES[1] and len(x) > 3:
            s[3] = bad
        return s

    x, z = np.random.default_rng(0).standard_normal((7, 2)), noise(3, (7, 2))
    states = watch(simulate(SAMPLERS[name](sde, broken), x, TIMES, Rows(z, slice(None))), TIMES)
    with pytest.raises(NotFiniteError, match=r"step [12] \(t = 0\.[26]\): 1 of 7 rows are not finite.*: \[3\]"):
        [next(states) for _ in range(2)]
    with pytest.warns(NotFiniteWarning, match=r"1 of 7 rows are not finite after the last step, the first: \[3\]"):
        some = last(simulate(SAMPLERS[name](sde, broken), x, TIMES, Rows(z, slice(None))))
    good = last(simulate(SAMPLERS[name](sde, lambda x, t: broken(x, t, 0.0)), x, TIMES, Rows(z, slice(None))))
    assert np.isnan(some[3]).all()
    assert np.array_equal(np.delete(some, 3, axis=0), np.delete(good, 3, axis=0))


# ------------------------------------------------------------------ doors of what is composed


def test_annealed_langevin_is_checked_when_it_is_made():
    sde = SDES["ve"]
    for bad in ({"step": 0.0}, {"last": -1.0}, {"moves": 0}):
        with pytest.raises(ValueError, match=r"must be (positive|an integer)"):
            AnnealedLangevin(lambda x, t: -x, sde, **{"step": 0.1, "last": 0.1, "moves": 1, **bad})


def test_then_does_not_correct_where_there_is_no_noise():
    step = SAMPLERS["ddim"](SDES["vp"], lambda x, t: -x)
    x = np.ones((2, 2))
    one, _ = Then(step, Langevin(lambda x, t: -x, LevelStep(SDES["vp"], 0.1, 1.0)))(x, 0.3, 0.0, ReplayRng())
    assert np.array_equal(one, step(x, 0.3, 0.0, ReplayRng())[0])
