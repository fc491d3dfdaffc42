"""Everything public, ready to run on any back end with the same numbers: is it the same there, does it wait, is it all?

An entry is made at a place (a back end and a precision) and gives a function without arguments, which answers with
arrays and numbers in tuples, dicts and dataclasses. What looks at values, as constructors do, is done in the making.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import Any

import numpy as np

import refscore.likelihood.adaptive as adaptive
import refscore.measure.distance as distance
import refscore.nn.shifts as shifts
import refscore.nn.winograd as winograd
from refscore import (
    EMA,
    MLP,
    SGD,
    VP,
    Adam,
    AnnealedLangevin,
    Denoising,
    EnergyModel,
    EulerMaruyama,
    ExactScore,
    First,
    Forward,
    GaussianMixture,
    Langevin,
    Repeat,
    Reverse,
    RungeKutta,
    ScoreModel,
    Stay,
    Then,
    UNet,
    fit,
    last,
    log_likelihood,
    prior,
    simulate,
    watch,
)
from refscore.arrays import row_squares, views
from refscore.data.scaling import Scaling
from refscore.data.training import Dequantised
from refscore.laws.affine_chain import Gaussian, law_of, probe, wasserstein
from refscore.laws.empirical import collapse_level, empirical
from refscore.laws.expectation import expectation, gauss_legendre, moments, quadrature_grid
from refscore.laws.posterior import component, linear_posterior, observe
from refscore.likelihood.elbo import discrete_loss, elbo
from refscore.likelihood.flow import FixedSteps, Flow, bits_per_dim, error_split, interpolate
from refscore.matching.maximum_likelihood import FromNoise, MaximumLikelihood, from_data
from refscore.matching.objectives import OBJECTIVES, FiniteDifference, OfProbes, Sliced
from refscore.matching.probes import gaussian, rademacher, sphere
from refscore.matching.times import FixedTime, Levels, LogNormal, UniformLogSNR, UniformTime
from refscore.matching.weights import MinSNR, SigmaPower, g_squared, sigma_squared, unweighted
from refscore.measure.coverage import coverage
from refscore.measure.floor import denoising_floor
from refscore.measure.frechet import frechet_bias, frechet_distance
from refscore.measure.kernels import kernel_mean, mmd, stein_discrepancy
from refscore.measure.neighbours import memorised, nearest, two_sample_test
from refscore.measure.tables import excess_loss, flow_samples, sample_table, score_table
from refscore.nn import LAYERS, Fourier, Labels
from refscore.noise.chains import ddpm, from_alphas_bar, from_betas, from_sigmas, smld
from refscore.noise.exact_score import FastExactScore
from refscore.noise.grids import (
    geometric_levels,
    karras_times,
    level_times,
    log_snr_times,
    quadratic_times,
    uniform_times,
)
from refscore.noise.interpolant import Rectified
from refscore.noise.parametrisation import PARAMETRISATIONS, LossOf, affine_in_mean, convert, rates, size
from refscore.noise.prior import gaussian_prior, prior_kl, prior_mismatch, prior_mismatch_bound
from refscore.noise.reverse import denoise, mean_without_signal
from refscore.noise.sde import SDES, log_ratio
from refscore.noise.suggest import suggest_beta_max, suggest_schedule, suggest_sigma_max
from refscore.protocols import HasJets
from refscore.sampling.guidance import Guided, Replace
from refscore.sampling.inverse import GUESSES, Exact, Twisted
from refscore.sampling.langevin import LevelStep, SNRLangevin
from refscore.sampling.mala import MALA
from refscore.sampling.shards import PerSample, in_shards
from refscore.sampling.transitions import SAMPLERS
from refscore.training.optim import WarmupCosine
from refscore.training.parallel import Sharded
from refscore_backends import HostRng
from tests.oracles.models import inputs, without_adjoint


@dataclasses.dataclass(frozen=True)
class Place:
    """A back end and a precision, with the same noise everywhere: drawn by NumPy, and moved."""

    backend: Any
    dtype: str

    def __call__(self, a: Any) -> Any:
        return self.backend.asarray(np.asarray(a), dtype=self.dtype)

    @property
    def kind(self) -> Any:
        return self(0.0).dtype

    def normal(self, *shape: int, seed: int = 0) -> Any:
        return self(np.random.default_rng([seed, *shape]).standard_normal(shape))

    def rng(self, seed: int = 0) -> HostRng:
        return HostRng(np.random.default_rng(seed), self.backend.asarray)

    def law(self, kind: str = "full") -> GaussianMixture:
        """Three components in the plane, that of kind "full" tilted."""
        C = [[[0.5, 0.2], [0.2, 0.4]], [[0.3, 0.0], [0.0, 0.6]], [[0.4, -0.1], [-0.1, 0.2]]]
        covariances = {"full": C, "diagonal": [[0.5, 0.4], [0.3, 0.6], [0.4, 0.2]], "isotropic": [0.5, 0.3, 0.2]}[kind]
        return GaussianMixture(self([0.5, 0.3, 0.2]), self([[1.0, 2.0], [-2.0, 0.5], [0.5, -1.0]]), self(covariances))

    def model(self, sde: Any = VP(), kind: Any = ScoreModel, **more: Any) -> tuple[Any, Any]:  # noqa: B008
        """A small model and its parameters, no bias at zero."""
        model = kind(MLP((2, 6, 1 if kind is EnergyModel else 2), embed=4), sde, data_std=1.6, **more)
        return model, self.theta(model)

    def theta(self, model: Any) -> Any:
        return model.init(self.rng(), self.kind) + 0.2 * self.normal(sum(math.prod(s) for s in model.shapes.values()))


Make = Callable[[Place], Callable[[], Any]]

# ------------------------------------------------------------------ layers and networks


def layer_passes(name: str, at: Place) -> Callable[[], Any]:
    """The four passes of a layer of the table, and the two of jets where it has them."""
    layer: Any = LAYERS[name](2)
    xs = [at(x) for x in inputs(layer, 2, 3, seed=1)]
    dead = without_adjoint(layer) + [1] * bool(getattr(layer, "n_cond", 0))
    layer.init(at.rng(), at.kind)
    params = {k: 0.6 * at.normal(*shape, seed=i) for i, (k, shape) in enumerate(layer.shapes.items())}
    return _passes(layer, at, params, xs, [i not in dead for i in range(len(xs))])


def _passes(layer: Any, at: Place, params: Any, xs: Any, live: list[bool]) -> Callable[[], Any]:
    y, _ = layer.forward(params, *xs)
    dy, dydots = at.normal(*y.shape), [at.normal(2, *y.shape, seed=i) for i in range(3)]
    u, v, w = (
        [at.normal(2, *x.shape, seed=i) if alive else None for x, alive in zip(xs, live, strict=False)]
        for i in range(3)
    )

    def run() -> Any:
        y, cache = layer.forward(params, *xs)
        ydot, tape = layer.jvp(params, cache, *u)
        found = [
            y, layer.backward(params, cache, dy), ydot, layer.jvp_backward(params, cache, tape, dy, dydots[0]),
            layer.jvp_backward(params, cache, tape, None, dydots[0]),
        ]  # fmt: skip
        if isinstance(layer, HasJets):
            jets, tape = layer.jet(params, cache, u, v, w)
            found += [jets, layer.jet_backward(params, cache, tape, dy, tuple(dydots))]
        return found

    return run


def model_passes(plain: Any, x: tuple[int, ...], told: Any = None) -> Make:
    """The passes of a score model, and what it is bound to."""

    def made(at: Place) -> Callable[[], Any]:
        model, theta = plain, at.theta(plain)
        if told is not None:
            integers = np.asarray(told).dtype.kind == "i"
            condition = at.backend.asarray(np.asarray(told)) if integers else at(told)
            uniform = at(np.random.default_rng(3).random((x[0], model.uniforms))) if model.uniforms else None
            model = model.under(condition).told(condition, uniform)
        params, t, points, v = views(theta, model.shapes), at([0.3] * x[0]), at.normal(*x), at.normal(2, *x)
        run = _passes(model, at, params, [points, t], [True])
        score = model.bind(theta) if told is None else None
        if model.body.inputs == ("x",):  # else it divides by σ
            model.check_clean()
            model.bind(theta).check_clean()

        def all_of_it() -> Any:
            found = [run(), model.apply(params, points, t)]
            if score is not None:
                found += [score(points, 0.3), score.jvp(points, t, v), score.row(1)(points[1:2, ...], t[:1])]
            return found

        return all_of_it

    return made


def small(body: Any = MLP((2, 6, 2), embed=4), kind: Any = ScoreModel, **more: Any) -> Any:  # noqa: B008
    return kind(body, VP(), data_std=1.6, **more)


IMAGE = (2, 4, 4, 1)
UNET = partial(UNet, 1, (4, 4), groups=2, embed=4, cond=4)
NETWORKS: dict[str, Make] = {
    "mlp": model_passes(small(), (3, 2)),
    "mlp-with-labels": model_passes(small(MLP((2, 6, 2), embed=4, classes=3)), (3, 2), [0, 3, 1]),
    "mlp-with-a-vector": model_passes(small(MLP((2, 6, 2), embed=4, n_condition=1)), (3, 2), [[0.5], [-1.0], [2.0]]),
    "bare": model_passes(small(MLP((2, 6, 2)), predict="score"), (3, 2)),
    "energy": model_passes(small(MLP((2, 6, 1), embed=4), EnergyModel), (3, 2)),
    "unet": model_passes(small(UNET()), IMAGE),
    "unet-with-all": model_passes(small(UNET(classes=3, scale_shift=True, dropout=0.3)), IMAGE, [0, 3]),
    **{f"predicting-{name}": model_passes(small(predict=name), (3, 2)) for name in PARAMETRISATIONS},
    "embedding-of-the-level": lambda at: _passes(Fourier(4), at, {}, [at([0.5, -1.0, 0.3])], [False]),
    "embedding-of-labels": lambda at: _passes(
        Labels(3, 4), at, {"W": at.normal(4, 4)}, [at.backend.asarray(np.array([0, 2, 3]))], [False]
    ),
}


def bare_energy(at: Place) -> Callable[[], Any]:
    model, theta = at.model(kind=EnergyModel)
    x, params, t = at.normal(4, 2), views(theta, model.shapes), at([0.4] * 4)

    def run() -> Any:
        E, cache = model.energy(params, x, t)
        return E, model.energy_backward(params, cache, E), model.bind_energy(theta)(x, t)

    return run


def convolutions(at: Place) -> Callable[[], Any]:
    x, W, dy = at.normal(5, 6, 2, 9), at.normal(3, 3, 9, 8), at.normal(5, 6, 2, 8)
    return lambda: (
        shifts.convolve(x, W, 1, 1), shifts.kernel_gradient(x, dy, 3, 1, 1), shifts.image_gradient(dy, W, 5, 6, 1, 1),
        winograd.convolve(x, W), winograd.kernel_gradient(x, dy),
    )  # fmt: skip


# ------------------------------------------------------------------ noise, laws


def sde_values(sde: Any) -> Make:
    def made(at: Place) -> Callable[[], Any]:
        t, x, score = at([0.05, 0.2, 0.4]), at.normal(3, 2), lambda x, t: -x  # later σ is near 1
        forward, back = Forward(sde), Reverse(sde, score, 0.5)
        return lambda: (
            [getattr(sde, name)(t) for name in ("f", "g", "alpha", "sigma")], sde.time(sde.sigma(t)),
            sde.time_at_log_ratio(log_ratio(sde, t)), forward.drift(x, 0.3), forward.noise(x, 0.3), back.drift(x, 0.3),
            back.noise(x, 0.3), denoise(score, sde, x, t), prior(sde, (3, 2), at.rng(), at.kind),
            gaussian_prior(sde)(x), [convert(x, x, 0.3, sde, "noise", name, 1.5) for name in PARAMETRISATIONS],
            [size(name, sde, 0.3, 1.5) for name in PARAMETRISATIONS],
            [weight(sde, t) for weight in (sigma_squared, g_squared, unweighted)],
            [weight(sde, t) for weight in (SigmaPower(1.5), MinSNR(), LossOf("F", 1.5))],
        )  # fmt: skip

    return made


def straight_lines(at: Place) -> Callable[[], Any]:
    """Steps that start where nothing of the data is left, and what they ask of a score there."""
    sde, x, t = Rectified(), at.normal(4, 2), at([0.05, 0.2, 1.0])
    exact = ExactScore(at.law(), sde)
    network = ScoreModel(MLP((2, 4, 2), embed=4), sde, data_std=1.5, predict="velocity")
    energy = EnergyModel(MLP((2, 4, 1), embed=4), VP(), data_std=1.5)
    bound, low = (model.bind(model.init(at.rng(), at.kind)) for model in (network, energy))
    starts = [
        SAMPLERS["ddim"](sde, exact),
        SAMPLERS["ddim"](sde, bound),
        RungeKutta(Reverse(sde, Guided(exact, bound, 2.0), 0.0).drift),
    ]
    network.check_signal(x, 1.0)
    return lambda: (
        [step(x, 1.0, 0.5, at.rng())[0] for step in starts], sde.alpha(t), sde.sigma(t), sde.rates(t), sde.f(t[:2]),
        sde.g(t[:2]), rates(VP(), t), [affine_in_mean(name, sde, t) for name in PARAMETRISATIONS],
        mean_without_signal(exact, x, 1.0), low.posterior_mean(x, 0.5), bound(x, 1.0),
    )  # fmt: skip


def mixture_values(kind: str) -> Make:
    def made(at: Place) -> Callable[[], Any]:
        p, x, v, (a, s) = at.law(kind), at.normal(5, 2), at.normal(3, 5, 2), (0.8, 0.6)
        each = at([0.8, 0.6, 0.9, 0.7, 0.5])
        return lambda: (
            p.score(x, a, s), p.score(x), p.score(x, each, each), p.score_jvp(x, v, a, s), p.log_prob(x, a, s),
            p.divergence(x, a, s), p.responsibilities(x, a, s), p.posterior_mean(x, a, s), p.posterior_cov(x, a, s),
            p.posterior_variance(x, a, s),
            None if kind == "full" else p.sample(at.rng(), 7),  # whose axes have signs of each library's own
        )  # fmt: skip

    return made


def other_laws(at: Place) -> Callable[[], Any]:
    p, H, R, y, x = at.law(), at([[1.0, 0.5]]), at([[0.3]]), at([0.7]), at.normal(20, 2)
    points = at.normal(6, 2, seed=4)

    def run() -> Any:
        made = [observe(p, H, R), linear_posterior(p, H, y, R), component(p, 1), empirical(x), p.diffuse(0.8, 0.6)]
        return (
            [(q.weights, q.means, q.covariances) for q in made], moments(p), gauss_legendre(x, 8),
            expectation(p, lambda x: x[:, 0] ** 2, at.rng(), 50), quadrature_grid(p.diffuse(1.0, 0.5), 4000),
            made[3].score(points, 1.0, 0.5), prior_kl(VP(), x), prior_mismatch(p, VP(), at.rng()),
            prior_mismatch_bound(VP(), x), collapse_level(9, 3), repr(p).split("(")[0],
        )  # fmt: skip

    return run


def affine_chains(at: Place) -> Callable[[], Any]:
    one = GaussianMixture(at([1.0]), at([[0.5, -1.0]]), at([[[0.8, 0.3], [0.3, 0.4]]]))
    start, times = Gaussian(at([0.0, 0.0]), at([[1.0, 0.0], [0.0, 1.0]])), [1.0, 0.6, 0.2]
    step = EulerMaruyama(Reverse(VP(), ExactScore(one, VP())))

    def run() -> Any:
        found, zero = law_of(step, times, start), at([0.0, 0.0])
        return (
            found,
            probe(lambda x, rng: last(simulate(step, x, times, rng)), zero),
            wasserstein(found, start),
        )

    return run


# ------------------------------------------------------------------ sampling

Built = Callable[[Any, Any, Any], Any]  # an SDE, a score, x -> a step


def listed(name: str, sde: Any, score: Any, x: Any) -> Any:
    return SAMPLERS[name](sde, score)


STEPS: dict[str, Built] = {
    **{name: partial(listed, name) for name in SAMPLERS},
    "langevin": lambda sde, score, x: First(Langevin(score, 1e-3), Stay()),
    "mala": lambda sde, score, x: First(MALA(lambda x, t: -x, lambda x, t: -0.5 * row_squares(x), 0.1), Stay()),
    "langevin-by-level": lambda sde, score, x: First(Langevin(score, LevelStep(sde, 0.05, 1.0)), Stay()),
    "langevin-by-snr": lambda sde, score, x: First(SNRLangevin(score, 0.1), Stay()),
    "annealed-langevin": lambda sde, score, x: AnnealedLangevin(score, sde, 1e-2, 0.1, 2),
    "correct-first": lambda sde, score, x: First(
        Repeat(Langevin(score, lambda t: 1e-3 * t), 2), SAMPLERS["ddim"](sde, score)
    ),
    "correct-then": lambda sde, score, x: Then(SAMPLERS["reverse-diffusion"](sde, score), Langevin(score, 1e-3)),
    "guided": lambda sde, score, x: SAMPLERS["heun"](sde, Guided(score, lambda x, t: -x, 2.0)),
    "guided-between": lambda sde, score, x: SAMPLERS["heun"](
        sde, Guided(score, lambda x, t: -x, 2.0, interval=(0.3, 0.7))
    ),
    "inpainting": lambda sde, score, x: Replace(SAMPLERS["dpm-solver++2m"](sde, score), sde, x, x[:1, ...] > 0),
    "inpainting-again": lambda sde, score, x: Replace(SAMPLERS["ancestral"](sde, score), sde, x, x[:1, ...] > 0, 2),
    "forward": lambda sde, score, x: EulerMaruyama(Forward(sde)),
    "reverse-half": lambda sde, score, x: EulerMaruyama(Reverse(sde, score, 0.5)),
}  # fmt: skip


def bound(model: Any, theta: Any) -> Any:
    return model.bind(theta)


TIMES = (0.9, 0.6, 0.3, 0.1)
SCORES: dict[str, Callable[[Place, Any], Any]] = {
    "exact": lambda at, sde: ExactScore(at.law(), sde),
    "fast": lambda at, sde: FastExactScore(at.law("isotropic"), sde),
    "network": lambda at, sde: bound(*at.model(sde)),
    "energy": lambda at, sde: bound(*at.model(sde, EnergyModel)),
}
PROCESSES: dict[str, Any] = {**SDES, "ddpm-chain": ddpm(30), "smld-chain": smld(30)}


def walk(name: str, sde: Any, score: str) -> Make:
    def made(at: Place) -> Callable[[], Any]:
        x = at.normal(4, 2)
        step = STEPS[name](sde, SCORES[score](at, sde), x)
        times = TIMES[::-1] if name == "forward" else TIMES
        states = simulate(step, x, times, at.rng())
        return lambda: list(states)

    return made


def watched(at: Place) -> Callable[[], Any]:
    score = SCORES["exact"](at, VP())
    step = EulerMaruyama(Reverse(VP(), score))
    chains = (from_betas([0.1, 0.2]), from_alphas_bar([0.9, 0.5]), from_sigmas([0.1, 1.0]), ddpm(30), smld(30))

    def draw(n: int, rng: Any) -> Any:
        return last(watch(simulate(step, prior(VP(), (n, 2), rng, at.kind), TIMES, rng), TIMES, largest=1e8))

    def run() -> Any:
        with ThreadPoolExecutor(2) as executor:
            drawn = [in_shards(draw, 5, at.rng(), workers, size=2) for workers in (1, 2, executor)]
        each = PerSample([at.rng(0), at.rng(1)])
        drawn += [draw(2, each), each.random((2, 3), dtype=at.kind), each.integers(0, 9, (2,))]
        grids: list[Any] = [
            uniform_times(4),
            log_snr_times(VP(), 4),
            karras_times(VP(), 4, 80.0, 0.002),
            quadratic_times(4),
        ]
        grids += [karras_times(VP(), 4, 80.0, 0.002), geometric_levels(2.0, 0.5, 3), level_times(VP(), [0.9, 0.5])]
        return drawn, grids, score.stable_step(0.5), [(chain.n, chain.times) for chain in chains]

    return run


def inverse(name: str, score: str) -> Make:
    """A guess of this name: the guided score, its terms, and a walk of weighted particles."""

    def made(at: Place) -> Callable[[], Any]:
        H, y, R, x = at([[1.0, 0.5], [0.0, 1.0]]), at([0.5, -0.2]), at([[0.5, 0.1], [0.1, 0.3]]), at.normal(4, 2)
        s: Any = SCORES[score](at, VP())
        guess: Any = Exact(at.law(), VP(), H, y, R) if name == "exact" else GUESSES[name](s, VP(), H, y, R)
        t = at([0.2, 0.3, 0.4, 0.5])

        def run() -> Any:
            rng, memory, z, walk = at.rng(), None, x, []
            for a, b in ((0.9, 0.6), (0.6, 0.3), (0.3, 0.0)):
                z, memory = Twisted(guess)(z, a, b, rng, memory)
                walk.append((z, memory, memory.log_evidence, memory.effective))
            return guess(x, t), guess(x, 0.5), guess.terms(x, t), guess.clean(x), walk

        return run

    return made


# ------------------------------------------------------------------ objectives and training

LATE = UniformTime(0.1)  # the networks here are told the level
WAYS: dict[str, Any] = {
    **{name: dataclasses.replace(objective, times=LATE) for name, objective in OBJECTIVES.items()},
    "sliced-not-reduced": Sliced(probes=2, reduced=False, times=LATE),
    "sliced-gaussian": Sliced(probes=2, law=gaussian, times=LATE),
    "sliced-sphere": Sliced(probes=2, law=sphere, times=LATE),
    "denoising-control": Denoising(control=True, antithetic=True, weight=g_squared, times=UniformLogSNR()),
    "denoising-log-normal": Denoising(weight=MinSNR(), times=LogNormal(-0.5, 1.0, 0.1)),
    "denoising-levels": Denoising(times=Levels((0.9, 0.5)), weight=SigmaPower(1.0)),
    "finite-difference": FiniteDifference(times=LATE, step=0.1),  # rounding is divided by the step
    "denoising-one-time": Denoising(times=FixedTime(0.5), weight=unweighted),
}


def objective_values(name: str, kind: Any) -> Make:
    """Loss and gradient with noise of its own, without randomness, and the loss of each sample."""

    def made(at: Place) -> Callable[[], Any]:
        objective, (model, theta), x = WAYS[name], at.model(kind=kind), at.normal(6, 2)
        t, z = at([0.2, 0.3, 0.4, 0.5, 0.6, 0.7]), at.normal(6, 2, seed=1)
        own = [rademacher(at.rng(), (2, 6, 2), at.kind)] if isinstance(objective, OfProbes) else []
        own = [t, z] if isinstance(objective, Denoising) else [t, *own]
        return lambda: (
            objective(model, theta, x, at.rng()), objective.at(model, theta, x, *own),
            objective.losses(model, theta, x, *own),
        )  # fmt: skip

    return made


def contrast(at: Place) -> Callable[[], Any]:
    model, theta = at.model(kind=EnergyModel)
    x = at.normal(6, 2)
    ways = [MaximumLikelihood(2, 0.1, start, 0.5) for start in (from_data, FromNoise(1.0))]
    return lambda: [(way(model, theta, x, at.rng()), way.losses(model, theta, x, x[:3, ...])) for way in ways]


SMALL = ScoreModel(MLP((2, 6, 2), embed=4), VP())


def training(optimizer: Any, objective: Any, data: Callable[[Place], Any], model: Any = SMALL, **more: Any) -> Make:
    def made(at: Place) -> Callable[[], Any]:
        theta, mean = at.theta(model), EMA(0.9)
        states = fit(model, objective, data(at), optimizer, at.rng(), steps=9, batch=4, ema=mean, start=theta, **more)

        def run() -> Any:  # all of the state but what the average has rounded off
            return [
                (s.theta, s.loss, s.grad_norm, s.optimizer_state, s.average and mean.mean(s.average))
                for s in islice(states, 3)
            ]

        return run

    return made


def points(at: Place) -> Any:
    return at.normal(20, 2)


def labelled(at: Place) -> Any:
    return at.normal(20, 2), at.backend.asarray(np.arange(20) % 3)


TRAINING: dict[str, Make] = {
    "adam": training(Adam(WarmupCosine(1e-3, 10)), Denoising(), points, max_norm=1.0),
    "sgd": training(SGD(1e-3, 0.9), Denoising(), lambda at: at.law("diagonal")),
    "labels": training(
        Adam(), Denoising(), labelled, ScoreModel(MLP((2, 6, 2), embed=4, classes=3), VP()), unlabelled=0.3
    ),
    "dropout": training(Adam(), Denoising(), points, ScoreModel(MLP((2, 6, 2), embed=4, dropout=0.3), VP())),
    "shards": training(Adam(), Sharded(Denoising(), 2), points),
    "times": training(Adam(), Denoising(times=UniformTime(0.1)), points),
}


def data_of_training(at: Place) -> Callable[[], Any]:
    """What is done to data on the device: grey levels spread, images mirrored, columns scaled."""
    grey, columns = Scaling.of_levels(4), Scaling((1.0, -2.0), (0.5, 3.0))
    images, v = at(grey.apply(np.arange(24).reshape(6, 2, 2, 1) % 4)), at.normal(5, 2)
    labels = at.backend.asarray(np.arange(6) % 3)
    return lambda: (
        Dequantised(images, grey, labels, flips=True).sample(at.rng(), 9), columns.apply(v), columns.undo(v),
        grey.log_det(4), columns.to_dict(),
    )  # fmt: skip


def grey_levels(at: Place) -> Callable[[], Any]:
    x = at.normal(2, 3, 3, 1)
    return lambda: [Scaling.of_levels(levels).undo(x) for levels in (4, 300)]


# ------------------------------------------------------------------ likelihoods and measures


def flow_velocity(at: Place) -> Callable[[], Any]:
    score, y = SCORES["network"](at, VP()), at.normal(3, 4)
    flows = [Flow(VP(), score, (2,)), Flow(VP(), score, (2,), rademacher(at.rng(), (2, 3, 2), at.kind))]
    one = flows[1].row(0)
    return lambda: (flows[0](y[:, :3], 0.3), flows[1](y, 0.3), one(y[:1, :], 0.3))


def likelihoods(at: Place) -> Callable[[], Any]:
    p, x, (model, theta) = at.law(), at.normal(3, 2), at.model()
    exact, score, probes = ExactScore(p, VP()), model.bind(theta), rademacher(at.rng(), (2, 3, 2), at.kind)
    few = FixedSteps(VP(), 3)
    split = partial(error_split, score, p, VP(), x, t_min=0.01, solve=few, fine=few)
    return lambda: (
        log_likelihood(exact, VP(), x, t_min=0.01, solve=few), log_likelihood(score, VP(), x, t_min=0.01, solve=few),
        log_likelihood(score, VP(), x, t_min=0.01, probes=probes, solve=few),
        interpolate(score, VP(), x, x + 1.0, 0.3, 0.01, few), bits_per_dim(x[:, 0], 2, 1 / 128),
        discrete_loss(score, VP(), x, [x, x], [0.9, 0.5, 0.1]), elbo(score, VP(), x, at.rng(), 4, 0.1),
        [1 + a for a in split()], 1 + split().total,  # differences of numbers of size 1
    )  # fmt: skip


def on_the_host(at: Place) -> Callable[[], Any]:
    """What SciPy and NumPy compute for arrays of a device."""
    x, data, score = at.normal(2, 2), at.normal(30, 2, seed=5), ExactScore(at.law(), VP())
    return lambda: (
        log_likelihood(score, VP(), x, t_min=0.01, solve=partial(adaptive.solve, rtol=1e-2, atol=1e-2)),
        suggest_schedule(data), suggest_sigma_max(data), suggest_beta_max(data),
    )  # fmt: skip


def measures(at: Place) -> Callable[[], Any]:
    p, sde = at.law("diagonal"), VP()
    x, y, exact, score = at.normal(12, 2), at.normal(12, 2, seed=1), ExactScore(p, sde), SCORES["network"](at, sde)

    def run() -> Any:
        rng = at.rng()
        return (
            distance.score_error(score, exact, x, 0.5), distance.fisher_divergence(p, lambda x: -x, rng, 50),
            distance.sliced_wasserstein(x, y, rng, 8), distance.sliced_wasserstein_floor(p, 10, rng, 4, 2),
            distance.energy_distance(x, y), distance.mode_weights(p, x), nearest(x, y), nearest(x),
            memorised(x, y, at.normal(12, 2, seed=2)), two_sample_test(x, y),
            denoising_floor(Denoising(), p, sde, rng, 4, 50), score_table(score, p, sde, rng, at.kind, 20),
            excess_loss(score, p, sde, Denoising(), rng, at.kind, 20), sample_table(x, y, p, rng),
            flow_samples(score, sde, 5, 2, rng, at.kind, 4), coverage(x, y, 3), mmd(x, y, 1.5), kernel_mean(p, p, 1.5),
            stein_discrepancy(lambda x: -x, x, 1.5), frechet_distance(x, y), frechet_bias(moments(p)[1], 9),
        )  # fmt: skip

    return run


EVERYTHING: dict[str, Make] = {
    **{f"layer {name}": partial(layer_passes, name) for name in LAYERS},
    **{f"network {name}": make for name, make in NETWORKS.items()},
    "energies": bare_energy,
    "convolutions": convolutions,
    **{f"sde {name}": sde_values(sde) for name, sde in PROCESSES.items()},
    **{f"mixture {kind}": mixture_values(kind) for kind in ("full", "diagonal", "isotropic")},
    "other laws": other_laws,
    "affine chains": affine_chains,
    **{f"sampler {name}": walk(name, VP(), "network") for name in STEPS},
    **{f"sampler of the {score} score": walk("heun", SDES["ve"], score) for score in SCORES},
    **{
        f"inverse {name} of the {score} score": inverse(name, score)
        for name, score in (
            *((name, "exact") for name in ("exact", *GUESSES)),
            ("moment", "network"),
            ("pigdm", "energy"),
        )
    },
    "watched samplers": watched,
    **{f"objective {name}": objective_values(name, ScoreModel) for name in WAYS},
    **{f"objective {name} of an energy": objective_values(name, EnergyModel) for name in WAYS},
    "objective maximum-likelihood": contrast,
    "data of training": data_of_training,
    "grey levels": grey_levels,
    **{f"training {name}": make for name, make in TRAINING.items()},
    "flow": flow_velocity,
    "likelihoods": likelihoods,
    "on the host": on_the_host,
    "measures": measures,
    "straight lines": straight_lines,
}


def leaves(tree: Any) -> Iterator[Any]:
    """The arrays and numbers in an answer, in order."""
    if isinstance(tree, Mapping):
        tree = list(tree.values())
    elif dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        tree = [getattr(tree, f.name) for f in dataclasses.fields(tree)]
    if isinstance(tree, (list, tuple)):
        for part in tree:
            yield from leaves(part)
    elif tree is not None and not isinstance(tree, str):
        yield tree
