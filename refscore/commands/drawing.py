"""Drawing samples from a trained model: any sampler, under labels, guided, around what is known."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

from refscore.noise.grids import karras_times
from refscore.noise.prior import prior
from refscore.noise.reverse import denoise
from refscore.protocols import Array, Score, Step
from refscore.sampling.guidance import Guided, Replace
from refscore.sampling.loop import simulate
from refscore.sampling.transitions import SAMPLERS
from refscore_backends import Backend

SAMPLER, STEPS = "dpm-solver++2m", 40
LEAST = 0.002  # noise/signal σ/α before the last step, which denoises


class Drawing:
    """How samples are drawn from a model: iterate over what it yields, the start first and the samples last.

    Parameters
    ----------
    model : ScoreModel or EnergyModel
        The model.
    theta : Array
        Its parameters.
    shape : tuple of int
        Of one sample.
    backend : Backend
        Where the arrays are.
    sampler : str, default "dpm-solver++2m"
        A key of `SAMPLERS`.
    steps : int, default 40
        Steps; the last one denoises.
    guidance : float, default 1.0
        Weight of the label.
    """

    def __init__(
        self, model: Any, theta: Array, shape: tuple[int, ...], backend: Backend, sampler: str = SAMPLER,
        steps: int = STEPS, guidance: float = 1.0,
    ) -> None:  # fmt: skip
        self.model, self.theta, self.shape, self.backend = model, theta, shape, backend
        self.sampler, self.guidance, sde = sampler, guidance, model.sde
        start = float(sde.sigma(1.0) / sde.alpha(1.0))
        self.times = [1.0, *karras_times(sde, steps, start, LEAST)[1:-1]] if steps > 1 else [1.0]

    def __call__(self, n: int, rng: Any, labels: Any = None, kept: Sequence[Any] = (None, None)) -> Iterator[Array]:
        """Draw n samples, told labels (n,) or none, with known values and a mask or none."""
        sde, score = self.model.sde, self.score(labels)
        known, mask = (None if a is None else self.backend.asarray(a) for a in kept)
        step = self._step if labels is None and mask is None else self._compiled(score, known, mask)
        x = prior(sde, (n, *self.shape), rng, self.theta.dtype)
        yield x
        if len(self.times) > 1:
            for state in simulate(step, x, self.times, rng):
                x = state
                yield x
        x = denoise(score, sde, x, self.times[-1])
        if known is not None and mask is not None:
            x = self.backend.xp.where(mask, known, x)
        yield x

    @cached_property
    def _step(self) -> Step:
        """The step without labels or mask: one for all chunks, so that it is compiled once."""
        return self._compiled(self.score(None), None, None)

    def _compiled(self, score: Score, known: Any, mask: Any) -> Step:
        step = SAMPLERS[self.sampler](self.model.sde, score)
        if known is not None and mask is not None:
            step = Replace(step, self.model.sde, known, mask, moves=5)
        return self.backend.compile(step)

    def score(self, labels: Any) -> Score:
        """The score under labels, guided."""
        if labels is None or self.guidance == 0:
            return self.model.bind(self.theta)
        conditional = self.model.bind(self.theta, self.backend.asarray(labels))
        return conditional if self.guidance == 1 else Guided(self.model.bind(self.theta), conditional, self.guidance)
