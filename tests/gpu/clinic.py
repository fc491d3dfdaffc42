"""The clinic's patients on a GPU: samplers on CuPy's, PyTorch's and JAX's arrays there, as diagnosed on the host.

    python tests/gpu/clinic.py

Says what each is, a line each, and ends with status 1 if one is not named as it should be.
"""

import importlib
import sys
from functools import partial
from time import perf_counter

import numpy as np

from refscore.clinic import sampler

BETAS = np.linspace(1e-4, 0.02, 1000)
BAR = np.cumprod(1 - BETAS)
GRID = range(980, -20, -20)


def walk(model, x, fresh, wrong):
    """DDPM in 50 of 1000 steps; wrong: the noise by its variance."""
    for i in GRID:
        a, b = BAR[i], BAR[i - 20] if i >= 20 else 1.0
        beta = 1 - a / b
        data = (x - float(np.sqrt(1 - a)) * model(x, i)) / float(np.sqrt(a))
        x = float(np.sqrt(b) * beta / (1 - a)) * data + float(np.sqrt(a / b) * (1 - b) / (1 - a)) * x
        variance = float((1 - b) / (1 - a) * beta)
        if i >= 20:
            x = x + (variance if wrong else variance**0.5) * fresh(x, i)
    return x


def patients(library):
    """The sampler as its users write it there: where its noise comes from."""
    if library == "torch":
        torch = importlib.import_module("torch")
        return lambda model, x, rng, wrong: walk(model, x, lambda x, i: torch.randn_like(x), wrong)
    if library == "jax":
        jax = importlib.import_module("jax")
        fresh = lambda x, i: jax.random.normal(jax.random.key(i), x.shape, x.dtype)  # noqa: E731
        return lambda model, x, rng, wrong: walk(model, x, fresh, wrong)
    library = importlib.import_module(library)
    fresh = lambda x, i: library.asarray(NOISE.rng.standard_normal(x.shape), dtype=x.dtype)  # noqa: E731

    def run(model, x, rng, wrong):
        NOISE.rng = rng
        return walk(model, x, fresh, wrong)

    return run


class NOISE:
    """The source of numbers of the run going on."""

    rng = None


def main():
    """Diagnose each, right and wrong."""
    failed = 0
    for library in sys.argv[1:] or ("cupy", "torch", "jax"):
        device = "cuda" if library == "torch" else None
        for wrong in (False, True):
            run, start = partial(patients(library), wrong=wrong), perf_counter()
            found = sampler(run, betas=BETAS, library=library, device=device)
            cause = found.causes[0].name if found.causes else "none"
            good = (found.verdict, cause) == (("wrong", "root-forgotten") if wrong else ("right", "none"))
            failed += not good
            where = "as it should be" if good else f"NOT AS IT SHOULD BE:\n{found}"
            print(
                f"{library}: {found.verdict}, {found.name}, {cause}, {perf_counter() - start:.1f} s, {where}",
                flush=True,
            )
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
