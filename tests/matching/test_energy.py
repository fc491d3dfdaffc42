"""Chapter 4: what training an energy costs, what a trained one knows, and what its objectives are in its own terms."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refscore import (
    MLP,
    VE,
    Adam,
    Denoising,
    EnergyModel,
    ExactScore,
    Explicit,
    FiniteDifference,
    Implicit,
    ScoreModel,
    Sliced,
    fit,
    last,
)
from refscore.arrays import views
from refscore.laws.expectation import quadrature_grid
from refscore.matching.maximum_likelihood import MaximumLikelihood
from refscore.matching.times import FixedTime
from refscore.nn import SiLU, Tanh
from refscore.training.optim import WarmupCosine
from tests.oracles.close import assert_close
from tests.oracles.derivatives import STEP
from tests.oracles.models import Counted, CountedRng, energy, random_theta
from tests.oracles.strategies import seeds
from tests.oracles.tilted import CLEAN, DATA_STD, FIXED, LAW, SDE, Narrow, T, truth


@pytest.mark.parametrize(("objective", "free", "conservative"), [
    (Denoising(times=FixedTime(0.5)), 3, 8), (Explicit(lambda x, t: -x), 3, 8), (FiniteDifference(), 6, 16),
    (Sliced(), 6, 24), (Implicit(), 9, 38), *((MaximumLikelihood(n, 0.01), None, 3 * n + 6) for n in (1, 10)),
], ids=["denoising", "explicit", "finite-difference", "sliced", "implicit", "1 move", "10 moves"])  # fmt: skip
def test_a_step_of_training_costs_what_the_table_says(objective, free, conservative):
    width, B = 400, 3
    for kind, cost in ((ScoreModel, free), (EnergyModel, conservative)):
        if cost is None:
            continue
        model = kind(MLP((2, width, width, 1 if kind is EnergyModel else 2)), VE(), predict="score")
        theta = model.init(np.random.default_rng(0), "float64").view(Counted)
        Counted.made = 0
        objective(model, theta, np.ones((B, 2)).view(Counted), CountedRng())
        count = Counted.made / (B * width**2)
        assert round(count) == cost
        assert abs(count / cost - 1) <= 0.02  # input and output layers


# Relative score error, and variance of E + log p under p, that 300 steps stay below: twice the worst of seeds 0 to 3,
# which had .0140, .0033, .0186, .0196, .0199 and .0170, .0014, .0166, .0142, .0138.
TRAINED = {
    "denoising": (Denoising(times=FIXED), 0.03, 0.035),
    "explicit": (Explicit(ExactScore(CLEAN, SDE), times=FIXED), 0.007, 0.003),
    "implicit": (Implicit(times=FIXED), 0.04, 0.035),
    "sliced": (Sliced(times=FIXED), 0.04, 0.03),
    "finite-difference": (FiniteDifference(times=FIXED, step=0.05), 0.04, 0.03),
}


def trained(kind, objective, steps=300, width=24, seed=0):
    model = kind(MLP((2, width, width, 1 if kind is EnergyModel else 2)), SDE, data_std=DATA_STD, predict="score")
    optimizer = Adam(WarmupCosine(0.015, steps))
    state = last(fit(model, objective, Narrow(), optimizer, np.random.default_rng(seed), steps=steps, batch=128))
    return model, state.theta.astype("float64")


@pytest.mark.parametrize("name", TRAINED)
def test_every_objective_trains_an_energy_and_finds_the_density_up_to_a_constant(name):
    """Eq. (4.5): E_p[E + log p] = -log Z + KL(p ‖ p_θ), Z by quadrature; training never asks for Z."""
    objective, error, spread = TRAINED[name]
    model, theta = trained(EnergyModel, objective)
    nodes, w, log_p, score = truth()
    s, E = model.bind(theta)(nodes, T), model.bind_energy(theta)(nodes, T)
    assert np.sum(w * np.sum((s - score) ** 2, axis=1)) <= error * np.sum(w * np.sum(score**2, axis=1))

    constant = np.sum(w * (E + log_p))
    variance = np.sum(w * (E + log_p - constant) ** 2)
    of_log_p = np.sum(w * log_p**2) - np.sum(w * log_p) ** 2
    assert abs(of_log_p - 0.98) <= 0.005  # against which the variance is small
    assert variance <= spread

    cell = w[0] / math.exp(log_p[0])
    log_Z = math.log(cell * np.sum(np.exp(-E)))
    log_q = -E - log_Z
    assert abs(cell * np.sum(np.exp(log_q)) - 1) <= 1e-13
    kl = np.sum(w * (log_p - log_q))
    assert abs(constant + log_Z - kl) <= 1e-12 * (1 + abs(constant))
    # so the constant is -log Z but for KL, which is half the variance to leading order
    assert 0 <= kl <= spread
    assert abs(kl / (0.5 * variance) - 1) <= 0.5


def test_the_trapezoid_rule_has_converged_for_a_learned_energy():
    """Z and E_p E at twice the spacing: the same numbers."""
    model, theta = trained(EnergyModel, TRAINED["denoising"][0])
    found = []
    for spacing in (0.25, 0.5):
        nodes, cell = quadrature_grid(LAW, spacing=spacing)
        E = model.bind_energy(theta)(nodes, T)
        found.append((math.log(cell * np.sum(np.exp(-E))), cell * np.sum(np.exp(LAW.log_prob(nodes)) * E)))
    assert_close(np.subtract(*found), 0, 1e-7)


def asymmetry(model, theta):
    """E_p ‖J - Jᵀ‖² / E_p ‖J‖², square root."""
    nodes, w, _, _ = truth()
    keep = w > 1e-12
    x, w, params = nodes[keep], w[keep], views(theta, model.shapes)
    _, kept = model.forward(params, x, np.full(1, T))
    J, _ = model.jvp(params, kept, np.broadcast_to(np.eye(2)[:, None, :], (2, *x.shape)))
    J = np.moveaxis(J, 1, 0)
    skew = J - np.swapaxes(J, 1, 2)
    return math.sqrt(np.sum(w[:, None, None] * skew**2) / np.sum(w[:, None, None] * J**2))


def around(model, theta, n=400):
    """∮ s·dx along the circle of radius 2: nats gained by walking once around."""
    angle = 2 * math.pi * np.arange(n) / n
    x = 2 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    dx = 4 * math.pi / n * np.stack([-np.sin(angle), np.cos(angle)], axis=1)
    return float(np.sum(model.bind(theta)(x, T) * dx))  # a periodic integrand: the rectangle rule is spectral


def test_a_learned_vector_field_is_no_gradient_and_a_learned_energy_is():
    """Eq. (4.6): the Jacobian's skew part, and the line integral around a loop."""
    objective = TRAINED["denoising"][0]
    free, conservative = trained(ScoreModel, objective), trained(EnergyModel, objective)
    assert asymmetry(*conservative) <= 1e-13
    assert abs(around(*conservative)) <= 1e-10  # exact up to the rule
    assert asymmetry(*free) >= 0.05  # .12 to .15 for seeds 0 to 3, still .11 after 3000 steps
    assert abs(around(*free)) >= 0.01


@pytest.mark.slow
def test_more_training_makes_an_energy_better_and_no_field_a_gradient():
    """The numbers of the chapter: 12 to 15 per cent of skew at 300 steps, 0.04 to 1.1 nats around; 11 at 3000."""
    objective = TRAINED["denoising"][0]
    for seed in range(4):
        free = trained(ScoreModel, objective, seed=seed)
        assert 0.11 <= asymmetry(*free) <= 0.16
        assert 0.03 <= abs(around(*free)) <= 1.2
    free, conservative = (trained(kind, objective, steps=3000) for kind in (ScoreModel, EnergyModel))
    assert 0.09 <= asymmetry(*free) <= 0.13
    assert abs(around(*free)) >= 0.1
    assert asymmetry(*conservative) <= 1e-13
    nodes, w, log_p, score = truth()
    s, E = conservative[0].bind(conservative[1])(nodes, T), conservative[0].bind_energy(conservative[1])(nodes, T)
    # .0016 and .0039 measured; a fifth of what 300 steps reach
    assert np.sum(w * np.sum((s - score) ** 2, axis=1)) <= 0.004 * np.sum(w * np.sum(score**2, axis=1))
    assert np.sum(w * (E + log_p - np.sum(w * (E + log_p))) ** 2) <= 0.01


@given(seed=seeds, B=st.integers(1, 4))
def test_implicit_score_matching_of_an_energy_is_half_a_square_less_a_laplacian(seed, B):
    """Eq. (4.4), with the Laplacian by Richardson differences of the complex step."""
    model = energy(2, [5], 0, SiLU(), VE(0.01, 10.0), "score")
    theta, x, t = random_theta(model, seed), np.random.default_rng(seed).standard_normal((B, 2)), np.full(1, 0.5)

    def dE(x, i):
        return model.bind_energy(theta)(x + 1j * STEP * np.eye(2)[i], t).imag / STEP

    laplacian, H = 0.0, 1e-3
    for i in range(2):
        near, far = (dE(x + h * np.eye(2)[i], i) - dE(x - h * np.eye(2)[i], i) for h in (H, 2 * H))
        laplacian = laplacian + (8 * near - far) / (12 * H)
    wanted = np.mean(0.5 * (dE(x, 0) ** 2 + dE(x, 1) ** 2) - laplacian)
    loss, _ = Implicit().at(model, theta, x, t)
    assert abs(loss - wanted) <= 1e-10 * (1 + abs(wanted) + np.max(np.abs(laplacian)))  # h⁴ of truncation


def test_with_samples_of_the_law_itself_implicit_is_explicit_less_a_constant():
    """The same energy, in expectation by quadrature: the factor carries the weights."""
    model = energy(2, [6, 6], 0, Tanh(), SDE, "score")
    nodes, w, _, score = truth()
    keep = w > 1e-17
    x, factor = nodes[keep], w[keep] * np.sum(keep)  # at() divides by the number of samples
    constant = 0.5 * np.sum(w[keep, None] * score[keep] ** 2)
    for seed in range(3):
        theta, t = random_theta(model, seed), np.full(1, T)
        implicit, found = Implicit().at(model, theta, x, t, factor)
        explicit, wanted = Explicit(lambda x, t: LAW.score(x)).at(model, theta, x, t, factor)
        assert abs(explicit - constant - implicit) <= 1e-7 * (1 + explicit)  # the score's poles, see quadrature_grid
        assert_close(found, wanted, 1e-7 * np.max(np.abs(wanted)))


@pytest.mark.recorded("what the solutions of the book say of these seeds")
@pytest.mark.slow
def test_the_metropolis_loop_with_other_steps():
    """Exercise 2: 0.2, 0.5 and 3.1 nats too hot without the test; with it right, at 95, 78 and 27 % of acceptance."""
    model, theta = trained(EnergyModel, Denoising(times=FIXED))
    E, s = model.bind_energy(theta), model.bind(theta)
    nodes, *_ = truth()
    boltzmann = np.exp(np.min(E(nodes, T)) - E(nodes, T))
    wanted = float(boltzmann @ E(nodes, T) / boltzmann.sum())
    for eps, hot, accepted in ((0.1, 0.2, 0.95), (0.3, 0.5, 0.78), (1.0, 3.1, 0.27)):
        for metropolis in (False, True):
            rng, taken = np.random.default_rng(0), []
            x = LAW.sample(rng, 2000)
            for _ in range(60):
                y = x + eps * s(x, T) + (2 * eps) ** 0.5 * rng.standard_normal(x.shape)
                there, back = (np.sum((b - a - eps * s(a, T)) ** 2, axis=1) for a, b in ((x, y), (y, x)))
                log_A = E(x, T) - E(y, T) + (there - back) / (4 * eps)
                take = np.log(rng.random(2000)) < log_A if metropolis else np.ones(2000, bool)
                taken.append(take.mean())
                x = np.where(take[:, None], y, x)
            off = float(np.mean(E(x, T))) - wanted
            assert off == pytest.approx(0.0 if metropolis else hot, abs=0.12)
            assert np.mean(taken) == pytest.approx(
                accepted if metropolis else 1.0, abs=0.02
            )  # another network than the chapter's
