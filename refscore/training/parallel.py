"""One step of training by several workers or machines: the gradient of a batch is the mean of those of its shards."""

from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from refscore.checks import check_array, check_like, settle
from refscore.library import array_namespace
from refscore.protocols import Array, Objective, Rng
from refscore.sampling.shards import children


@dataclass(frozen=True, eq=False)
class Sharded:
    """An objective whose batch is cut into equal shards, each with times, noise and probes of its own.

    The shards, and so the numbers, are the same for any number of workers. Of processes each needs a pickled copy of
    theta and sends a gradient back: it pays from some ten milliseconds a shard on (a U-Net). Threads pay on large
    batches only. Where it does, BLAS should have one thread a worker.

    With MPI every rank runs the whole program, from the same seed: all draw the same batches and keep the same theta,
    each does its part of the shards, and one all-reduce a step sums their gradients. The weights are the same for any
    number of ranks, up to the order of a sum.

    Parameters
    ----------
    objective : Objective
        Minimised on each shard.
    shards : int
        Number of parts; it divides the batch.
    executor : Executor, optional
        Any of `concurrent.futures`; by default the shards are done one after the other.
    comm : mpi4py.MPI.Comm, optional
        The ranks that share the shards, whose number divides that of the shards; by default there is one.

    Raises
    ------
    ValueError
        For shards < 1, or that the ranks do not divide; at the call, for a batch that the shards do not divide, and
        for ranks that do not have the same batch and theta.
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
    comm: Any = None

    def __post_init__(self) -> None:
        settle(self, shards=1)
        if self.comm is not None and self.shards % self.comm.Get_size():
            raise ValueError(f"{self.comm.Get_size()} ranks do not divide {self.shards} shards")

    def __call__(self, model: Any, theta: Array, x0: Array, rng: Rng) -> tuple[Array, Array]:
        """The mean of loss and gradient over the shards of x0 (B, ...)."""
        check_like(model=model)
        check_array(x0=x0, theta=theta)
        n, left = divmod(x0.shape[0], self.shards)
        if left:
            raise ValueError(f"{self.shards} shards do not divide a batch of {x0.shape[0]}")
        rank, ranks = (0, 1) if self.comm is None else (self.comm.Get_rank(), self.comm.Get_size())
        mine = range(self.shards)[rank * self.shards // ranks : (rank + 1) * self.shards // ranks]
        rows = [slice(i * n, (i + 1) * n) for i in mine]
        models = [model.part(each) if hasattr(model, "part") else model for each in rows]
        rngs = children(rng, self.shards)[mine.start : mine.stop]
        run = map if self.executor is None else self.executor.map
        made = list(run(self.objective, models, [theta] * len(rows), [x0[each, ...] for each in rows], rngs))
        xp = array_namespace(theta)
        loss, gradient = (xp.mean(xp.stack(each), axis=0) for each in zip(*made, strict=True))
        return (loss, gradient) if self.comm is None else _over_ranks(self.comm, loss, gradient, theta, x0)


def _over_ranks(comm: Any, loss: Array, gradient: Array, theta: Array, x0: Array) -> tuple[Array, Array]:
    """Means over the ranks; the sums of theta and of the batch go with them, to see that all have the same."""
    xp, n = array_namespace(theta), comm.Get_size()
    own = xp.concat([gradient, xp.stack([loss, xp.sum(theta), xp.sum(x0)])])
    total = xp.empty_like(own)
    comm.Allreduce(own, total)
    mean = total / n
    for name, i in (("parameters", -2), ("batches", -1)):
        if abs(float(mean[i]) - float(own[i])) > 1e-5 * abs(float(own[i])):
            raise ValueError(f"the ranks have different {name}: give all of them the same seed, data and start")
    return mean[-3], mean[:-3]
