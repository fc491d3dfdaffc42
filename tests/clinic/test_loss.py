"""The clinic reads what a loss minimises from its answers."""

import numpy as np
import pytest

from refscore import VP
from refscore.clinic.exact import TimeConvention
from refscore.clinic.loss import loss
from refscore.museum.losses import SPECIMENS
from refscore.noise.chains import ddpm
from tests.oracles.planted import of_loss

WEIGHTS = {
    "ddpm_simple": "σ²", "score_vp": "g²", "ncsn": "σ²", "edm": "EDM's, data of deviation 0.5",
    "v_prediction": "σ² min(SNR, 5)/SNR", "flow_matching": "that of the velocity",
}  # fmt: skip


@pytest.mark.parametrize("specimen", SPECIMENS)
def test_the_right_ones_are_right_and_reach_their_floor(specimen):
    found = of_loss(specimen)
    assert found.name.endswith(f"λ = {WEIGHTS[specimen.__name__]}")
    assert found.numbers["error"] < 1e-7
    assert found.numbers["loss"] == pytest.approx(found.numbers["floor"], abs=6 * found.numbers["loss_error"])


def simple(t=lambda n: np.random.rand(n), factor=1.0, norm=np.mean):  # noqa: NPY002
    """Noise is predicted; drawn from NumPy's global generator."""

    def mine(model, x0):
        s = t(len(x0))
        z = np.random.randn(*x0.shape)  # noqa: NPY002
        return factor * norm((model(VP().alpha(s)[:, None] * x0 + VP().sigma(s)[:, None] * z, s) - z) ** 2)

    return mine


@pytest.mark.parametrize(("options", "words"), [
    ({}, "the mean over dimensions, the mean over samples, one number"),
    ({"factor": 0.5, "norm": np.sum}, "½ the sum over dimensions, the sum over samples, one number"),
    ({"norm": lambda e: np.mean(np.sum(e, axis=1))}, "the sum over dimensions, the mean over samples, one number"),
    ({"norm": lambda e: np.sum(e, axis=1)}, "the sum over dimensions, the sum over samples, one number a sample"),
    ({"factor": 100.0}, "times the sum over all"),
])  # fmt: skip
def test_reduction_and_factor_are_read_and_no_mistakes(options, words):
    found = loss(simple(**options), VP())
    found.assert_is("noise, λ = σ²")
    assert words in str(found)


@pytest.mark.parametrize(("law", "words"), [
    (lambda n: np.random.rand(n), "uniform"),  # noqa: NPY002
    (lambda n: 1e-3 ** np.random.rand(n), "uniform in their logarithm"),  # noqa: NPY002
    (lambda n: np.minimum(np.exp(-2 + 0.5 * np.random.randn(n)), 1), "logarithm normal, mean -2.00"),  # noqa: NPY002
    (lambda n: np.random.rand(n) ** 1.5, "of an unknown law"),  # noqa: NPY002
])  # fmt: skip
def test_the_law_of_the_times_is_read(law, words):
    assert words in str(loss(simple(law), VP()))


@pytest.mark.parametrize(("patient", "name"), [
    (lambda model, x0: np.mean(x0**2), "model-not-called"),
    (lambda model, x0: np.mean(model(x0[:, :2], np.ones(len(x0)))), "wrong-shape"),
    (lambda model, x0: np.mean(model(x0, np.ones(len(x0)))) / 0 * np.nan, "not-finite"),
    (lambda model, x0: model.predict(x0), "raises"),
])  # fmt: skip
def test_a_patient_that_cannot_be_asked_is_a_diagnosis(patient, name):
    with np.errstate(all="ignore"):
        found = loss(patient, VP())
    assert (found.verdict, found.causes[0].name) == ("wrong", name)


def test_one_that_cannot_be_asked_twice_is_unknown():
    count = []

    def counts(model, x0):
        count.append(0)
        return np.mean(model(x0 + len(count), np.ones(len(x0))) ** 2)

    assert loss(counts, VP()).verdict == "unknown"


def test_generators_wherever_they_are_held_are_replayed():
    class Trainer:
        def __init__(self):
            self.rng = np.random.default_rng(1)

        def loss(self, model, x0):
            s, z = self.rng.random(len(x0)), self.rng.standard_normal(x0.shape)
            return np.mean((model(VP().alpha(s)[:, None] * x0 + VP().sigma(s)[:, None] * z, s) - z) ** 2)

    def fresh(model, x0):
        rng = np.random.default_rng()
        s, z = rng.random(len(x0)), rng.standard_normal(x0.shape)
        return np.mean((model(VP().alpha(s)[:, None] * x0 + VP().sigma(s)[:, None] * z, s) - z) ** 2)

    loss(Trainer().loss, VP()).assert_is("noise, λ = σ²")
    loss(fresh, VP()).assert_is("noise, λ = σ²")


def test_pictures_are_samples_too():
    def mine(model, x0):
        s, z = np.random.rand(len(x0), 1, 1), np.random.randn(*x0.shape)  # noqa: NPY002
        return np.mean((model(VP().alpha(s) * x0 + VP().sigma(s) * z, s[:, 0, 0]) - z) ** 2)

    loss(mine, VP(), shape=(2, 3)).assert_is("noise, λ = σ²")


@pytest.mark.parametrize("late", [0, 1])
def test_a_loss_of_torch(late):
    torch = pytest.importorskip("torch")
    alphas_bar = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), dim=0)

    def mine(model, x0):
        t = torch.randint(0, 1000, (x0.shape[0],))
        noise, a = torch.randn_like(x0), alphas_bar[t][:, None]
        return torch.nn.functional.mse_loss(model(a.sqrt() * x0 + (1 - a).sqrt() * noise, t + late), noise)

    found = loss(mine, ddpm(1000), told="index", like=torch.zeros(1))
    assert found.verdict == ("wrong" if late else "right")
    assert not late or found.causes[0].name == "one-index-early"


def test_a_loss_of_jax():
    jax = pytest.importorskip("jax")
    state = [jax.random.key(0)]

    def mine(model, x0):
        state[0], k1, k2 = jax.random.split(state[0], 3)
        t, z = jax.random.uniform(k1, (x0.shape[0],), minval=1e-3), jax.random.normal(k2, x0.shape)
        alpha = jax.numpy.exp(-0.25 * t**2 * 19.9 - 0.05 * t)[:, None]
        sigma = jax.numpy.sqrt(1 - alpha**2)
        return jax.numpy.mean((model(alpha * x0 + sigma * z, t) * sigma + z) ** 2)

    found = loss(mine, VP(), predicts="score", like=jax.numpy.zeros(1))
    assert found.verdict == "unknown"  # its key is in a list, where nobody looks for one


@pytest.mark.parametrize("predicts", ["noise", "data", "denoiser", "score", "v", "velocity", "velocity-to-data", "F"])
def test_every_target_is_known(predicts):
    def mine(model, x0):
        t = np.random.rand(len(x0))  # noqa: NPY002
        z = np.random.randn(*x0.shape)  # noqa: NPY002
        alpha, sigma = (c(t)[:, None] for c in (VP().alpha, VP().sigma))
        a, b = (c[:, None] for c in TimeConvention(VP(), predicts, "time").affine(t))
        x = alpha * x0 + sigma * z
        return np.mean((model(x, t) - a * x + b * z / sigma) ** 2)

    found = loss(mine, VP(), predicts=predicts)
    assert found.verdict != "wrong", f"{found}"
    assert found.numbers["error"] < 1e-6
