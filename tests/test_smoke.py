"""The shortest path through the library, on every back end."""

import pytest

from refscore import (
    EMA,
    MLP,
    VE,
    VP,
    Adam,
    Denoising,
    EulerMaruyama,
    ExactScore,
    GaussianMixture,
    Heun,
    Langevin,
    Reverse,
    ScoreModel,
    fit,
    prior,
    simulate,
)
from refscore.laws.examples import mixture
from refscore.sampling.compose import First, Stay
from refscore.sampling.loop import last


@pytest.mark.parametrize("sde", [VP(), VE(0.01, 10.0)])
def test_train_and_sample_in_float32(any_backend, sde):
    rng = any_backend.rng(0)
    p = mixture("tilted", any_backend.asarray, "float32")
    model = ScoreModel(MLP((2, 8, 8, 2), embed=4), sde, data_std=1.8)
    ema = EMA(0.9)
    state = last(fit(model, Denoising(antithetic=True), p, Adam(1e-3), rng, steps=3, batch=16, ema=ema, max_norm=1.0))
    score = model.bind(ema.mean(state.average))
    x1 = prior(sde, (5, 2), rng, p.means.dtype)
    grid = [1.0, 0.6, 0.3, 0.01]
    for s in (score, ExactScore(p, sde)):
        x = last(simulate(EulerMaruyama(Reverse(sde, s)), x1, grid, rng))
        x = last(simulate(Heun(Reverse(sde, s, 0.0).drift), x, grid, rng))
        x = last(simulate(First(Langevin(s, 1e-3), Stay()), x, grid, rng))
        assert x.shape == (5, 2)
        assert str(x.dtype).endswith("float32")
    assert isinstance(p, GaussianMixture)
