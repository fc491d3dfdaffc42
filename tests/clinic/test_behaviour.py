"""What a sampler does beside its coefficients, and where it is asked what no level means, is named."""

import json
import math
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given

from refscore import VP
from refscore.clinic import sampler
from refscore.museum.schedules import KNOWN
from tests.oracles.strategies import seeds

BETAS = np.linspace(1e-3, 0.12, 100).tolist()
BAR = np.cumprod(1 - np.array(BETAS))
INDICES = [92, 84, 70, 63, 55, 41, 30, 22, 13, 4]


def steps(model, x, labels, levels):
    """DDIM along (α, σ), the network told the labels."""
    for label, ((a, s), (a2, s2)) in zip(labels, pairwise([*levels, (1.0, 0.0)]), strict=True):
        noise = model(x, label)
        x = a2 * (x - s * noise) / a + s2 * noise
    return x


def on(bar, indices):
    """The levels of a chain."""
    return [(math.sqrt(bar[i]), math.sqrt(1 - bar[i])) for i in indices]


def ddim(model, x, rng, clip=None, batch=False, uniform=False, shared=False):
    """Ten lines of somebody's, with habits."""
    for i, j in pairwise([*INDICES, -1]):
        a, b = BAR[i], BAR[j] if j >= 0 else 1.0
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


def causes(run, **network):
    found = sampler(run, **({"betas": BETAS} | network))
    assert found.verdict == "wrong", str(found)
    return [cause.name for cause in found.causes]


def test_the_steps_of_another_schedule():
    for name in ("cosine", "scaled-linear"):
        levels = on(KNOWN[name](100), INDICES)
        assert causes(lambda model, x, rng, levels=levels: steps(model, x, INDICES, levels))[0] == "another-schedule"


def test_another_unit_of_time():
    sde, times = VP(), np.linspace(1.0, 0.1, 10)
    run = lambda model, x, rng: steps(model, x, times / 1000, [(sde.alpha(t), sde.sigma(t)) for t in times])  # noqa: E731
    assert causes(run, sde=sde, betas=None, told="time")[0] == "unit-of-time"


def test_a_label_that_is_rounded_is_right():
    """Levels of Karras et al. between the ends of the schedule, and a network that knows the nearest index alone."""
    bar = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    high, low = (math.sqrt((1 - b) / b) ** (1 / 7) for b in (bar[-1], bar[0]))
    ratios = [(high + (low - high) * i / 19) ** 7 for i in range(20)]
    labels = [int(np.argmin(np.abs(np.log((1 - bar) / bar) / 2 - math.log(r)))) for r in ratios]
    levels = [(1 / math.sqrt(1 + r * r), r / math.sqrt(1 + r * r)) for r in ratios]
    found = sampler(lambda model, x, rng: steps(model, x, labels, levels), alphas_bar=bar)
    assert found.verdict == "right", str(found)
    assert "nearest index" in found.findings[0]


def test_from_data_to_noise():
    back = INDICES[::-1]
    assert causes(lambda model, x, rng: steps(model, x, back, on(BAR, back))) == ["walks-backwards"]


def test_pure_noise_at_a_low_level():
    late = INDICES[4:]
    assert "starts-too-low" in causes(lambda model, x, rng: steps(model, x, late, on(BAR, late)))


def test_a_last_step_that_ends_before_the_data():
    levels = on(BAR, INDICES)

    def run(model, x, rng):
        for label, ((a, s), (a2, s2)) in zip(INDICES, pairwise([*levels, on(BAR, [0])[0]]), strict=True):
            noise = model(x, label)
            x = a2 * (x - s * noise) / a + s2 * noise
        return x

    assert "ends-before-the-data" in causes(run)


def test_a_start_of_another_size():
    run = lambda model, x, rng: steps(model, x, INDICES, on(BAR, INDICES))  # noqa: E731
    sampler(run, betas=BETAS, start_std=1.0).assert_is("ddim")
    assert causes(run, start_std=3.0) == ["start-scale"]
    ratio = math.sqrt(1 / BAR[INDICES[0]] - 1)  # as who keeps α = 1 starts, and forgets to scale what the network sees
    assert causes(run, start_std=ratio) == ["input-not-scaled"]


def test_numbers_that_the_clinic_cannot_replace():
    own = np.random.default_rng(0)
    found = causes(lambda model, x, rng: ddim(model, x, type("Own", (), {"standard_normal": own.standard_normal})()))
    assert found[0] == "unseen-noise"


def test_a_generator_that_is_put_back():
    def run(model, x, rng):
        for i, j in pairwise([*INDICES, -1]):
            a, b = BAR[i], BAR[j] if j >= 0 else 1.0
            z = np.random.default_rng(7).standard_normal(x.shape)
            noise = model(x, i)
            std = math.sqrt((1 - b) / (1 - a) * (1 - a / b))
            x = np.sqrt(b) * (x - np.sqrt(1 - a) * noise) / np.sqrt(a) + np.sqrt(1 - b - std**2) * noise + std * z
        return x

    assert causes(run)[0] == "same-noise"


@pytest.mark.parametrize("label", [100, 1000, -3, math.nan])
def test_an_index_that_is_none(label):
    """100 levels are 0 to 99."""
    labels = [label, *INDICES[1:]]
    found = causes(lambda model, x, rng: steps(model, x, labels, on(BAR, INDICES)))
    assert ("label-beyond-the-schedule" if label == label else "label-means-nothing") in found


@pytest.mark.parametrize("label", [1.5, -0.2, math.inf])
def test_a_time_that_is_none(label):
    sde, times = VP(), np.linspace(1.0, 0.1, 10)
    levels = [(sde.alpha(t), sde.sigma(t)) for t in times]
    run = lambda model, x, rng: steps(model, x, [label, *times[1:]], levels)  # noqa: E731
    found = causes(run, sde=sde, betas=None, told="time")
    assert ("label-beyond-the-schedule" if math.isfinite(label) else "label-means-nothing") in found


def test_rows_that_are_told_different_levels():
    def run(model, x, rng):
        tell = lambda i: np.where(np.arange(len(x)) % 2, i + 1, i)  # noqa: E731
        return steps(lambda x, i: model(x, tell(i)), x, INDICES, on(BAR, INDICES))

    assert causes(run)[0] == "labels-differ"


@pytest.mark.parametrize("noisy", [False, True])
def test_a_number_of_steps_that_depends_on_what_is_met(noisy):
    """With and without noise, whose columns stand after those of the answers."""

    def run(model, x, rng):
        for i in range(3 + (np.abs(x).max() > 0) * 2):
            x = 0.9 * x + 0.1 * model(x, 90 - i) + (rng.standard_normal(x.shape) if noisy else 0.0)
        return x

    found = sampler(run, betas=BETAS)
    assert (found.verdict, found.name) == ("unknown", "adaptive"), str(found)


@pytest.mark.parametrize("predicts", ["noise", "data", "score", "velocity", "v", "F"])
def test_a_network_that_is_asked_at_the_data(predicts):
    """At σ = 0, as a Runge-Kutta method does at its end: an answer, whatever it is, and no exception."""
    straight = lambda t: (1 - t, t)  # noqa: E731

    def run(model, x, rng):
        for t in (0.8, 0.4, 0.0):
            x = 0.5 * x + 0.1 * model(x, t)
        return x

    found = sampler(run, sde=straight, told="time", predicts=predicts)
    assert found.verdict in ("unknown", "wrong")
    assert math.isfinite(found.numbers["mean on N(1, 1/4)"])


@given(seeds)
def test_whatever_somebody_wrote_there_is_a_diagnosis(seed):
    """Loops of random coefficients, labels and draws: a verdict that can be printed and saved, never an exception."""
    rng = np.random.default_rng(seed)
    n, told = int(rng.integers(1, 9)), rng.choice(["index", "time", "sigma", "log-snr"])
    network = {"index": {"betas": BETAS}, "time": {"sde": VP()}}.get(told, {})
    labels = {"index": rng.integers(-1, 101, n), "time": rng.uniform(-0.1, 1.1, n), "sigma": rng.exponential(9.0, n),
              "log-snr": rng.normal(0, 20, n)}[told]  # fmt: skip
    labels = np.sort(labels)[::-1] if rng.random() < 0.7 else labels
    own, noisy = rng.choice([0.0, 1.0, -0.5, 1e3], (n, 4)), rng.random(n) < 0.5

    def run(model, x, generator):
        for label, (a, b, c, d), draws in zip(labels, own, noisy, strict=True):
            x = a * x + b * model(x, label) + d * (a < 0)
            x = x + c * generator.standard_normal(x.shape) if draws else x
        return x

    predicts = str(rng.choice(["noise", "data", "score", "v", "velocity", "F"]))
    found = sampler(run, told=str(told), predicts=predicts, **network)
    assert found.verdict in ("right", "wrong", "unknown")
    assert json.loads(found.json())["verdict"] == found.verdict
    assert found.kind in str(found)
