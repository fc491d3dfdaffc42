"""Patients: other people's samplers, losses, schedules, likelihoods and scores, with what is to be said of each.

Half are of installed public packages, half are written as tutorials, blogs, homework and papers' repositories write
them; some are right, and some have one mistake. Their code is in its authors' style, not in ours. A record says

    patient      the function: sampler run(model, x, rng) -> x; loss(model, x0) -> a scalar, or one number a sample;
                 schedule() -> a list; likelihood(model, x) -> (B,); score(x, t) -> (B, D), or, where it has a network,
                 score(model, x, t)
    kind         sampler, loss, schedule, likelihood or score
    library      of the arrays that it takes: torch, numpy or jax
    needs        the packages to be installed; imported inside the functions alone
    predicts     what the model returns (`conventions.PREDICTS`)
    told         what its second argument is (`conventions.TOLD`)
    schedule     the noise levels that the model was trained on, as its author would give them: a function without
                 arguments that returns (name, list) of "betas", "alphas_bar" or "sigmas", or an SDE of refscore, or a
                 function t -> (α, σ)
    prior_std    the deviation of the x that a sampler is started with
    answer       the usual name of what it is, its options, and its grid
    mistake      None, or its cause in a sentence
"""

import importlib
from collections.abc import Mapping
from typing import Any

FILES = ("samplers_public", "samplers_own", "losses", "schedules", "likelihoods", "scores")
PATIENTS: Mapping[str, dict[str, Any]] = {
    name: record
    for file in FILES
    for name, record in importlib.import_module(f"tests.oracles.patients.{file}").PATIENTS.items()
}
