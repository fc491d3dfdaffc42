"""What a network's answer means, and along which levels a sampler walks: right, and as people mistake it. Chapter 12.

A reading turns what a network predicts at x = α x₀ + σ z into the noise z and the data x₀. `grid` turns the labels
that the network is told into the pairs of levels that the steps use.
"""

from collections.abc import Callable, Sequence
from typing import Any

from refscore.museum.mistake import Mistake
from refscore.museum.samplers import Level

Reading = Callable[[Any, Any, Level], tuple[Any, Any]]


def noise(out: Any, x: Any, t: Level) -> tuple[Any, Any]:
    """The network predicts E[z | x]."""
    eps = out
    data = (x - t.sigma * eps) / t.alpha
    return eps, data


def data(out: Any, x: Any, t: Level) -> tuple[Any, Any]:
    """The network predicts E[x₀ | x]; EDM's denoiser does, with α = 1."""
    eps = (x - t.alpha * out) / t.sigma
    return eps, out


def score(out: Any, x: Any, t: Level) -> tuple[Any, Any]:
    """The network predicts ∇ log p."""
    eps = -t.sigma * out
    data = (x + t.sigma**2 * out) / t.alpha
    return eps, data


def v(out: Any, x: Any, t: Level) -> tuple[Any, Any]:
    """The network predicts α z - σ x₀ (Salimans and Ho 2022)."""
    total = t.alpha**2 + t.sigma**2
    eps = (t.alpha * out + t.sigma * x) / total
    data = (t.alpha * x - t.sigma * out) / total
    return eps, data


def velocity(out: Any, x: Any, t: Level) -> tuple[Any, Any]:
    """The network predicts z - x₀, as flow matching does."""
    eps = (x + t.alpha * out) / (t.alpha + t.sigma)
    data = (x - t.sigma * out) / (t.alpha + t.sigma)
    return eps, data


def velocity_to_data(out: Any, x: Any, t: Level) -> tuple[Any, Any]:
    """The network predicts x₀ - z: flow matching with time from noise to data."""
    eps = (x - t.alpha * out) / (t.alpha + t.sigma)
    data = (x + t.sigma * out) / (t.alpha + t.sigma)
    return eps, data


def F(out: Any, x: Any, t: Level, data_std: float = 0.5) -> tuple[Any, Any]:
    """The network is EDM's F: data = c_skip x + c_out F (Karras et al. 2022)."""
    total = t.ratio**2 + data_std**2
    data = data_std**2 / total * x / t.alpha + t.ratio * data_std / total**0.5 * out
    return (x - t.alpha * data) / t.sigma, data


def grid(labels: Sequence[float], level: Callable[[float], Level], end: Level, stride: float) -> Any:
    """The pairs of levels of a walk along the labels, to `end`."""
    here = [level(i) for i in labels]
    there = [*here[1:], end]
    return list(zip(here, there, strict=True))


READINGS: dict[str, Reading] = {
    "noise": noise, "data": data, "denoiser": data, "score": score, "v": v, "velocity": velocity,
    "velocity-to-data": velocity_to_data, "F": F,
}  # fmt: skip


def _of(name: str, old: str, new: str, says: str, sees: str, origin: str, *only: str) -> Mistake:
    return Mistake(name, "sampler", old, new, says, sees, origin, only)


MISTAKES = (
    _of("data-variance-for-deviation", "(x - t.sigma * eps)", "(x - t.sigma**2 * eps)",
        "1 - alpha-bar instead of its root where the data are predicted", "noise remains", "textbook"),
    _of("data-noise-not-scaled", "(x - t.sigma * eps)", "(x - eps)", "sigma before the predicted noise is missing",
        "pure noise", "k-diffusion wrappers"),
    _of("noise-without-alpha", "eps = (x - t.alpha * out)", "eps = (x - out)",
        "alpha before the data is missing where the noise is derived", "wrong contrast", "textbook"),
    _of("noise-not-divided", "eps = (x - t.alpha * out) / t.sigma", "eps = x - t.alpha * out",
        "the noise derived from the data is not divided by sigma", "noise remains", "textbook"),
    _of("levels-in-half-precision", "[level(i) for i in labels]", "[half_precision(level(i)) for i in labels]",
        "alpha-bar is kept in half precision", "the first levels add no noise", "diffusers PR 3005, #3056"),
    _of("data-not-rescaled", "(x - t.sigma * eps) / t.alpha", "(x - t.sigma * eps)",
        "the predicted data are not divided by root alpha-bar", "samples too dark", "textbook"),
    _of("data-divided-by-alpha-bar", "/ t.alpha\n    return eps, data", "/ t.alpha**2\n    return eps, data",
        "the predicted data are divided by alpha-bar, not by its root", "numbers that grow", "google-research/vdm colab"),
    _of("data-plus-noise", "(x - t.sigma * eps)", "(x + t.sigma * eps)", "the predicted noise is added", "numbers that grow",
        "textbook"),
    _of("noise-sign", "eps = out", "eps = -out", "the sign of the predicted noise", "numbers that grow", "torchebm PR 333"),
    _of("noise-read-as-score", "eps = out", "eps = -t.sigma * out", "a network that predicts noise is read as a score",
        "noise remains", "sp-uhh/sgmse #65"),
    _of("noise-read-as-data", "data = (x - t.sigma * eps) / t.alpha",
        "data, eps = eps, (x - t.alpha * eps) / t.sigma", "a network that predicts noise is read as data",
        "pure noise", "textbook"),
    _of("score-without-minus", "eps = -t.sigma * out", "eps = t.sigma * out", "the minus between noise and score is missing",
        "numbers that grow", "score_sde_pytorch #67"),
    _of("score-read-as-noise", "eps = -t.sigma * out", "eps = out", "a score is read as noise", "numbers that grow", "textbook"),
    _of("score-not-scaled", "eps = -t.sigma * out", "eps = -out", "sigma between noise and score is missing",
        "too much denoising at low noise", "score_sde_pytorch #49"),
    _of("score-scaled-twice", "eps = -t.sigma * out", "eps = -t.sigma**2 * out", "sigma squared between noise and score",
        "noise remains", "score_sde_pytorch #26"),
    _of("v-sign", "(t.alpha * x - t.sigma * out)", "(t.alpha * x + t.sigma * out)", "a sign in v -> data",
        "wrong contrast", "diffusers PR 1421"),
    _of("v-noise-sign", "(t.alpha * out + t.sigma * x)", "(t.alpha * out - t.sigma * x)", "a sign in v -> noise",
        "noise remains", "textbook"),
    _of("v-alpha-and-sigma-exchanged", "(t.alpha * x - t.sigma * out)", "(t.sigma * x - t.alpha * out)",
        "alpha and sigma exchanged in v -> data", "pure noise", "textbook"),
    _of("v-read-as-noise", "eps = (t.alpha * out + t.sigma * x) / total\n    data = (t.alpha * x - t.sigma * out) / total",
        "eps = out\n    data = (x - t.sigma * out) / t.alpha", "a network that predicts v is read as noise",
        "noise remains", "textbook"),
    _of("velocity-backwards", "eps = (x + t.alpha * out)", "out = -out\n    eps = (x + t.alpha * out)",
        "the velocity has the other sign", "numbers that grow", "textbook"),
    _of("told-one-index-low", "[level(i) for i in labels]", "[level(i + 1) for i in labels]",
        "the network is told an index one too low for the step's coefficients",
        "variance a percent off, which no picture shows", "lucidrains #18"),
    _of("told-one-index-high", "level(i) for i in labels", "level(i - 1) for i in labels",
        "the network is told an index one too high for the step's coefficients",
        "variance a percent off, which no picture shows", "latent-diffusion #136"),
    _of("told-the-next-step", "level(i) for i in labels", "level(i) for i in [2 * labels[0] - labels[1], *labels[:-1]]",
        "the network is told the level of the next step", "blurred samples", "textbook"),
    _of("told-the-step-before", "level(i) for i in labels", "level(i) for i in [*labels[1:], labels[-1]]",
        "the network is told the level of the step before", "grainy samples", "textbook"),
    _of("previous-by-stride", "there = [*here[1:], end]", "there = [*[level(i - stride) for i in labels[:-1]], end]",
        "the next level is the label less N//n, not the next label", "samples a little off",
        "diffusers #11347, #12633"),
    _of("next-one-too-far", "there = [*here[1:], end]", "there = [*here[2:], end, end]",
        "each step goes to the level after the next", "too little noise is taken away", "lucidrains #81"),
    _of("next-of-the-chain", "there = [*here[1:], end]", "there = [level(i - 1) for i in labels[:-1]] + [end]",
        "a step goes to the neighbouring index of the chain though labels are further apart", "noise remains",
        "textbook"),
    _of("next-index-one-low", "there = [*here[1:], end]", "there = [*[level(i - 1) for i in labels[1:]], end]",
        "the next level is one index too low", "variance a percent off", "latent-diffusion #136"),
    _of("next-index-one-high", "there = [*here[1:], end]", "there = [*[level(i + 1) for i in labels[1:]], end]",
        "the next level is one index too high", "variance a percent off", "lucidrains #18"),
)
