"""The clinic names right samplers, and finds the museum's mistakes in them: all by running them as patients."""

import math
from functools import partial
from itertools import pairwise

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


def chain(model, x, rng, noisy=1.0, dtype="float64"):
    """DDPM with the posterior's variance on some of the indices, as somebody has it."""
    bar = np.cumprod(1 - np.array(BETAS)).astype(dtype)
    for i, j in pairwise([*INDICES, -1]):
        a, b = bar[i], bar[j] if j >= 0 else bar.dtype.type(1)
        noise = model(x.astype(dtype), i)
        data = (x.astype(dtype) - np.sqrt(1 - a) * noise) / np.sqrt(a)
        var = (1 - b) / (1 - a) * (1 - a / b)
        z = rng.standard_normal(x.shape).astype(dtype)
        x = np.sqrt(b) * data + np.sqrt(1 - b - var) * noise + bar.dtype.type(noisy) * np.sqrt(var) * z
    return x


def test_an_unlisted_factor_is_read_from_the_coefficients():
    found = sampler(partial(chain, noisy=1.3), betas=BETAS)
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
        sampler(chain)
    with pytest.raises(ValueError, match="predicts must be one of noise"):
        sampler(chain, betas=BETAS, predicts="epsilon")
    with pytest.raises(ValueError, match="goes with a list"):
        sampler(chain, sde=CosineVP())


def test_the_law_is_that_of_the_run():
    """Mean and variance from the table are those of samples with the exact network."""
    found = sampler(chain, betas=BETAS)
    way, rng = Convention(betas=BETAS), np.random.default_rng(0)

    def exact(x, i):
        p, q = way.answer(way.level(i), 1.0, 0.25)
        return p * x + q

    start = found.numbers["start std"]
    x = np.array([0.0, 1.0])[:, None] * start
    quiet = type("Quiet", (), {"standard_normal": lambda self, shape: np.zeros(shape)})()
    y = chain(exact, x, quiet)
    assert found.numbers["mean on N(1, 1/4)"] == pytest.approx(float(y[0, 0]), abs=1e-12)
    assert found.numbers["variance on N(1, 1/4)"] > (y[1, 0] - y[0, 0]) ** 2
    x = chain(exact, start * rng.standard_normal((200_000, 1)), rng)
    variance = found.numbers["variance on N(1, 1/4)"]
    assert_within(float(x.var()), variance, variance * math.sqrt(2 / len(x)), n=len(x))


def test_the_effect_is_told_beside_what_the_right_program_does():
    """By its own steps on unit vectors: the law of the right one is that of the table of the right one."""
    right = sampler(chain, betas=BETAS)
    wrong = patient(samplers.ddpm, slip=next(m for m in samplers.MISTAKES if m.name == "root-forgotten"))()
    mean, variance = (right.numbers[f"{name} on N(1, 1/4)"] for name in ("mean", "variance"))
    assert f"right it would be {mean:.4g} and {variance / 0.25:.4g}" in wrong.causes[0].effect


def test_single_precision_is_seen():
    found = sampler(partial(chain, dtype="float32"), betas=BETAS)
    found.assert_is("ddpm")
    assert "single precision inside (or coefficients that were)" in found.findings
    assert not any("single precision" in said for said in sampler(chain, betas=BETAS).findings)


def test_names_of_the_same_steps_are_all_accepted():
    found = sampler(chain, betas=BETAS)
    assert (found.name, "ddim, eta=1" in found.also, "euler-ancestral" in found.also) == ("ddpm", True, True)
    found.assert_is("euler-ancestral")
    with pytest.raises(AssertionError, match="expected ddim, found"):
        found.assert_is("ddim")


@pytest.mark.parametrize(("specimen", "order"), [(samplers.ddim, 1), (samplers.heun, 2), (samplers.dpmpp_2m, 2)])
def test_the_order_is_measured(specimen, order):
    """From the marginal at the first level to the one at the last, on N(1, ¼), without a sample."""

    def steps(n):
        sigmas = np.geomspace(20.0, 0.02, n + 1).tolist()
        pairs = list(pairwise(samplers.Level(1.0, sigma) for sigma in sigmas))
        walk = lambda model, x, t: readings.noise(model(x, t.sigma), x, t)  # noqa: E731
        return lambda model, x, rng: specimen(partial(walk, model), x, pairs, None)

    found = sampler(steps(20), told="sigma", finer={n: steps(n) for n in (40, 80, 160)})
    observed = float(found.findings[-1].split()[1])
    assert abs(observed - order) < 0.15, found.findings[-1]


def test_an_end_that_the_labels_do_not_tell():
    """The mean of the last step of Euler-Maruyama, beyond t = 0; and a walk that stops at the lowest level."""
    sde, times = VP(), np.linspace(1.0, 1e-3, 20)
    dt = times[0] - times[1]

    def run(model, x, rng):
        for t in times:
            mean = x + (0.5 * sde.g(t) ** 2 * x + sde.g(t) ** 2 * model(x, t)) * dt
            x = mean + sde.g(t) * np.sqrt(dt) * rng.standard_normal(x.shape)
        return mean

    sampler(run, sde=sde, told="time", predicts="score").assert_is("euler-maruyama, denoise=True")
    sigmas = np.geomspace(0.005, 10.0, 200)
    used = sigmas[np.round(np.linspace(199, 0, 30)).astype(int)]
    pairs = list(pairwise(samplers.Level(1.0, sigma) for sigma in used))
    walk = lambda model, x, t: readings.noise(model(x, t.sigma), x, t)  # noqa: E731
    found = sampler(
        lambda model, x, rng: samplers.ddim(partial(walk, model), x, pairs, None), told="sigma", sigmas=sigmas
    )
    found.assert_is("ddim")
    assert found.findings[1].endswith("then σ/α = 0.005")


def test_on_straight_paths_a_network_told_too_late_is_not_a_walk_beyond_the_data():
    """α = 1 - t, σ = t: a step's coefficients depend on its length alone, before t = 0 and beyond it."""

    def run(first, model, x, rng):
        for t in np.linspace(first, first + 63 / 64, 64):  # 0 is noise here, 1 is data
            x = x + model(x, t) / 64
        return x

    told = {"sde": lambda t: (1 - t, t), "predicts": "velocity-to-data", "told": "time-from-noise"}
    sampler(partial(run, 0.0), **told).assert_is("ddim")
    late = sampler(partial(run, 1 / 64), **told)
    assert late.verdict == "wrong", late
    assert late.causes[0].name == "told-the-next-step", late
