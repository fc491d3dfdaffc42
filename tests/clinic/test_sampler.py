"""The clinic names right samplers, and finds the museum's mistakes in them: all by running them as patients."""

import math
from functools import partial

import numpy as np
import pytest

from refscore import VP
from refscore.clinic import sampler
from refscore.clinic.convention import DATA, Convention
from refscore.museum import readings, samplers
from refscore.museum.mistake import fits, plant
from refscore.noise.sde import CosineVP
from tests.oracles.statistics import assert_within

BETAS = np.linspace(1e-3, 0.12, 100).tolist()
INDICES = [92, 84, 70, 63, 55, 41, 30, 22, 13, 4]  # uneven, so that ratios of steps show
SIGMAS = [20.0, 11.0, 7.5, 4.0, 2.6, 1.2, 0.7, 0.3, 0.12, 0.04]
TIMES = [1.0, 0.86, 0.75, 0.62, 0.5, 0.36, 0.25, 0.12, 0.06, 0.02]
CHAINED = ("ddim", "ddpm", "ddpm_large", "reverse_diffusion", "euler_beta", "dpmpp_2m", "dpmpp_2m_sde", "plms", "unipc",
           "renoise")  # fmt: skip
BY_TIME = ("euler_maruyama", "euler_flow", "heun_flow", "euler_velocity", "heun_velocity", "midpoint_velocity",
           "rk4_velocity")  # fmt: skip
STOCHASTIC = {"ddim": {"eta": 0.6}, "midpoint": {"eta": 1.0}, "dpmpp_2s": {"eta": 1.0}}


def convention(name):
    """What the network of a specimen is told: (keywords of the clinic, labels, the label of a level)."""
    if name in CHAINED:
        way = Convention(told="index", betas=BETAS)
        labels = {round(level.ratio, 9): float(i) for i, level in enumerate(way.levels)}
        return {"told": "index", "betas": BETAS}, INDICES, lambda t: labels[round(t.ratio, 9)]
    if name in BY_TIME:
        return {"told": "time", "sde": VP()}, TIMES, lambda t: t.time
    return {"told": "sigma"}, SIGMAS, lambda t: t.ratio


def churned(labels):
    """Pairs of levels of which each begins 1.2 times higher than the one before ended."""
    below = [samplers.Level(1.0, sigma) for sigma in labels[1:]]
    above = [samplers.Level(1.0, labels[0]), *(samplers.Level(1.0, 1.2 * t.sigma) for t in below)]
    return list(zip(above, [*below, DATA], strict=True))


def patient(specimen, predicts="noise", slip=None, reading=None, grid=None, churn=False, **options):
    """A specimen as somebody's sampler, with one mistake or none, and how its network is told."""
    way, labels, label_of = convention(specimen.__name__)
    if specimen.__name__ == "langevin":
        labels = [sigma for sigma in labels for _ in range(3)]
    known = Convention(predicts, **way)
    walk = specimen if slip is None else plant(slip, specimen)
    read = readings.READINGS[predicts]
    read = read if reading is None else plant(reading, read)
    end = known.level(1e-3) if specimen.__name__ in BY_TIME else DATA
    pairs = (readings.grid if grid is None else plant(grid, readings.grid))(
        labels, known.level, end, known.stride(labels)
    )
    if churn:
        pairs = churned(labels)

    def run(model, x, rng):
        calls = iter(labels)

        def network(x, t):
            return read(model(x, next(calls) if grid is not None else label_of(t)), x, t)

        return walk(network, x, pairs, lambda: rng.standard_normal(x.shape), **options)

    return partial(sampler, run, predicts=predicts, **way)


@pytest.mark.parametrize("specimen", samplers.SPECIMENS, ids=lambda s: s.__name__)
def test_a_right_sampler_is_named(specimen):
    name = specimen.__name__
    options = {"step": 0.25} if name == "langevin" else {}
    found = patient(specimen, **options)()
    same = {"euler_ancestral": "ddpm", "euler_churn": "ddim", "langevin": "langevin, step=0.25"}.get(name, name)
    same = same.replace("_", "-")
    assert found.verdict == "right", str(found)
    found.assert_is(same)
    assert found.numbers["error of the nearest right sampler"] < 1e-11


@pytest.mark.parametrize("predicts", [name for name in readings.READINGS if name not in ("denoiser", "F")])
def test_whatever_the_network_predicts(predicts):
    patient(samplers.ddim, predicts)().assert_is("ddim")


def test_churn_and_its_noise_scale_are_read():
    patient(samplers.heun, churn=True, s_noise=1.003)().assert_is("heun, s_noise=1.003")
    patient(samplers.euler_churn, churn=True)().assert_is("euler-churn")


def all_planted():
    """(mistake, specimen as a patient, keywords), of each mistake everywhere it fits."""
    for mistake in samplers.MISTAKES:
        for specimen in samplers.SPECIMENS:
            if fits(mistake, specimen):
                options = {"churn": True} if "churn" in mistake.name else STOCHASTIC.get(specimen.__name__, {})
                if specimen.__name__ == "langevin":
                    options = {"step": 0.25}
                yield mistake, specimen, {"slip": mistake, **options}
    for mistake in readings.MISTAKES:
        for predicts, reading in readings.READINGS.items():
            if predicts not in ("denoiser", "F") and fits(mistake, reading):
                yield mistake, samplers.ddim, {"reading": mistake, "predicts": predicts}
        if fits(mistake, readings.grid):
            yield mistake, samplers.ddim, {"grid": mistake}


PLANTED = list(all_planted())
FIRST = list({mistake.name: (mistake, specimen, more) for mistake, specimen, more in reversed(PLANTED)}.values())


def check(mistake, specimen, more):
    """The mistake is among the first three causes; or the sampler is right all the same, and makes the same numbers."""
    found = patient(specimen, **more)()
    names = [cause.name for cause in found.causes[:3]]
    if found.verdict == "right":
        return False
    assert mistake.name in names, f"{mistake.name} in {specimen.__name__}:\n{found}"
    return True


@pytest.mark.parametrize("planted", FIRST[::8], ids=lambda p: p[0].name)
def test_a_planted_mistake_is_among_the_first_three_causes(planted):
    assert check(*planted), "it made no difference"


@pytest.mark.slow
def test_every_mistake_in_every_sampler_is_found():
    shown = {mistake.name: 0 for mistake, *_ in PLANTED}
    for mistake, specimen, more in PLANTED:
        shown[mistake.name] += check(mistake, specimen, more)
    assert not [name for name, times in shown.items() if not times]


def ddim(model, x, rng, clip=None, batch=False, uniform=False, shared=False):
    """Ten lines of somebody's, with habits."""
    bar = np.cumprod(1 - np.array(BETAS))
    for i, j in zip(INDICES, [*INDICES[1:], -1], strict=True):
        a, b = bar[i], bar[j] if j >= 0 else 1.0
        noise = model(x, i)
        data = (x - np.sqrt(1 - a) * noise) / np.sqrt(a)
        if clip:
            data = np.clip(data, -clip, clip)
        if batch:
            noise = noise / np.linalg.norm(noise) * np.sqrt(noise.size)
        std = 0.5 * np.sqrt((1 - b) / (1 - a) * (1 - a / b))
        shape = x.shape[1:] if shared else x.shape
        z = rng.uniform(size=shape) if uniform else rng.standard_normal(shape)
        x = np.sqrt(b) * data + np.sqrt(1 - b - std**2) * noise + std * z
    return x


@pytest.mark.parametrize(
    ("habit", "cause"),
    [({"clip": 1.0}, "clips-the-data"), ({"uniform": True}, "uniform-noise"), ({"shared": True}, "one-noise-for-all")],
)
def test_what_it_does_beside_its_coefficients(habit, cause):
    found = sampler(partial(ddim, **habit), betas=BETAS)
    assert found.verdict == ("right" if "clip" in habit else "wrong")  # right for data that lie within
    assert found.causes[0].name == cause, str(found)
    if "clip" in habit:
        sampler(partial(ddim, **habit), betas=BETAS, bounded=True).assert_is("ddim, eta=0.5")


def test_rows_that_influence_each_other():
    found = sampler(partial(ddim, batch=True), betas=BETAS)
    assert found.causes[0].name == "rows-influence-each-other", str(found)


def test_an_unlisted_factor_is_read_from_the_coefficients():
    def mine(model, x, rng):
        bar = np.cumprod(1 - np.array(BETAS))
        for i, j in zip(INDICES, [*INDICES[1:], -1], strict=True):
            a, b = bar[i], bar[j] if j >= 0 else 1.0
            noise = model(x, i)
            data = (x - np.sqrt(1 - a) * noise) / np.sqrt(a)
            var = (1 - b) / (1 - a) * (1 - a / b)
            x = np.sqrt(b) * data + np.sqrt(1 - b - var) * noise + 1.3 * np.sqrt(var) * rng.standard_normal(x.shape)
        return x

    found = sampler(mine, betas=BETAS)
    assert found.verdict == "wrong"
    assert found.causes[0].name == "noise-coefficient"
    assert "1.3 times" in found.causes[0].says


def test_a_patient_that_fails_is_a_diagnosis():
    def raises(model, x, rng):
        raise KeyError("alphas")

    for run, name in (
        (raises, "raises"),
        (lambda model, x, rng: x, "no-call"),
        (lambda model, x, rng: model(x, 3)[:1], "shape"),
        (lambda model, x, rng: model(x, 3) * math.nan, "not-finite"),
    ):
        found = sampler(run, betas=BETAS)
        assert found.verdict == "wrong"
        assert found.causes[0].name == name


def test_a_call_that_makes_no_sense_is_refused():
    with pytest.raises(TypeError, match="callable as run"):
        sampler(3, betas=BETAS)
    with pytest.raises(ValueError, match="needs one of betas"):
        sampler(ddim)
    with pytest.raises(ValueError, match="predicts must be one of noise"):
        sampler(ddim, betas=BETAS, predicts="epsilon")
    with pytest.raises(ValueError, match="goes with a list"):
        sampler(ddim, sde=CosineVP())


def test_the_law_is_that_of_the_run():
    """Mean and variance from the table are those of samples with the exact network."""
    found = sampler(ddim, betas=BETAS)
    way, rng = Convention(betas=BETAS), np.random.default_rng(0)

    def exact(x, i):
        p, q = way.answer(way.level(i), 1.0, 0.25)
        return p * x + q

    start = found.numbers["start std"]
    x = np.array([0.0, 1.0])[:, None] * start
    quiet = type("Quiet", (), {"standard_normal": lambda self, shape: np.zeros(shape)})()
    y = ddim(exact, x, quiet)
    assert found.numbers["mean on N(1, 1/4)"] == pytest.approx(float(y[0, 0]), abs=1e-12)
    assert found.numbers["variance on N(1, 1/4)"] > (y[1, 0] - y[0, 0]) ** 2
    x = ddim(exact, start * rng.standard_normal((200_000, 1)), rng)
    variance = found.numbers["variance on N(1, 1/4)"]
    assert_within(float(x.var()), variance, variance * math.sqrt(2 / len(x)), n=len(x))
