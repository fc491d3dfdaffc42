"""One step of training by several workers: the gradient of a batch is the mean of those of its shards."""

from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from refscore.checks import check_count
from refscore.library import array_namespace
from refscore.protocols import Array, Objective, Rng
from refscore.sampling.shards import children


@dataclass(frozen=True, eq=False)
class Sharded:
    """An objective whose batch is cut into equal shards, each with times, noise and probes of its own.

    The shards, and so the numbers, are the same for any number of workers. Of processes each needs a pickled copy of
    theta and sends a gradient back: it pays from some ten milliseconds a shard on (a U-Net). Threads pay on large
    batches only. Where it does, BLAS should have one thread a worker.

    Parameters
    ----------
    objective : Objective
        Minimised on each shard.
    shards : int
        Number of parts; it divides the batch.
    executor : Executor, optional
        Any of `concurrent.futures`; by default the shards are done one after the other.

    Raises
    ------
    ValueError
        For shards < 1; at the call, for a batch that they do not divide.
    TypeError
        At the call, for a generator that cannot spawn others.

    Examples
    --------
    >>> import numpy as np
    >>> from concurrent.futures import ThreadPoolExecutor
    >>> from refscore import MLP, VP, Implicit, ScoreModel
    >>> from refscore.training.parallel import Sharded
    >>> model = ScoreModel(MLP((1, 1)), VP(), predict="score")  # s(x) = w x + b, theta = (w, b)
    >>> x, theta = np.array([[1.0], [-1.0], [2.0], [-2.0]]), np.array([-1.0, 0.0])
    >>> with ThreadPoolExecutor(2) as executor:
    ...     loss, gradient = Sharded(Implicit(), 2, executor)(model, theta, x, np.random.default_rng(0))
    >>> float(loss)  # w + ½ w² E x², E x² = 2.5
    0.25
    """

    objective: Objective
    shards: int
    executor: Executor | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "shards", check_count("shards", self.shards))

    def __call__(self, model: Any, theta: Array, x0: Array, rng: Rng) -> tuple[Array, Array]:
        """The mean of loss and gradient over the shards of x0 (B, ...)."""
        n, left = divmod(x0.shape[0], self.shards)
        if left:
            raise ValueError(f"{self.shards} shards do not divide a batch of {x0.shape[0]}")
        rows = [slice(i * n, (i + 1) * n) for i in range(self.shards)]
        models = [model.part(each) if hasattr(model, "part") else model for each in rows]
        parts = [x0[each, ...] for each in rows]
        run = map if self.executor is None else self.executor.map
        made = list(run(self.objective, models, [theta] * self.shards, parts, children(rng, self.shards)))
        xp = array_namespace(theta)
        loss, gradient = (xp.mean(xp.stack(each), axis=0) for each in zip(*made, strict=True))
        return loss, gradient
