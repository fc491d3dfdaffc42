"""A sampler as a table: every state is a combination of the start, of the network's answers and of fresh noise.

With the network's answers prepared rather than computed, a sampler is linear in the start, the answers and the noise.
On unit vectors it returns the coefficients of each state, exactly, whatever the network; with the exact network of a
Gaussian put in afterwards, the law of what it makes. A batch holds all unit vectors, so one run is enough.
"""

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from refscore.clinic.arrays import HostArray, made
from refscore.clinic.convention import Convention
from refscore.clinic.patient import ACTIVE, Model, Run, generator, walk

SMALL = 1e-3  # scale of the unit vectors: what clips at ±1 does not clip them
SEEN = 1e-9  # relative: what is smaller is no noise


class Ill(Exception):
    """A patient that cannot be run to its end; args are the name and the sentence of the cause."""


ADAPTIVE = Ill("adaptive", "the number of its steps depends on what it meets: an adaptive step size")


@dataclass(frozen=True)
class Table:
    """What a sampler does                                                       Eq. (17.1).

    Parameters
    ----------
    states : array, shape (K + 1, 1 + K + Q)
        Of each state (K before the calls, and the end) the coefficients of the start, of the K answers and of the Q
        fresh noises, which are independent and of variance 1.
    fresh : list of ints
        Of each noise the state in which it is seen first.
    labels : list of floats
        What the network was told.
    offset : float
        What the sampler adds at its end, whatever it is given.
    draws, repeated : int
        Random arrays drawn, and how often a generator's state came again.
    facts : dict
        What else was seen, in numbers: how far it is from linear where numbers are small ("not linear") and of size 1
        ("clips"), how much a row depends on others ("rows"), what changes from run to run ("unseen noise"), draws of
        uniform numbers ("uniform") and without a batch axis ("shared noise"), rows told other labels ("labels differ").
    """

    states: HostArray
    fresh: list[int]
    labels: list[float]
    offset: float
    draws: int
    repeated: int
    facts: dict[str, Any]

    @property
    def calls(self) -> int:
        """Number of calls of the network."""
        return len(self.labels)

    def law(self, way: Convention, mean: float, variance: float, start: float) -> tuple[float, float]:
        """Mean and variance of the end on data N(mean, variance), for a start N(0, start²): Eq. (17.3)."""
        k, n = self.calls, self.states.shape[1]
        rows = np.zeros((k + 1, n + 1))  # coefficients of start, of noise, and a constant
        answers = np.zeros((k, n + 1))
        for i in range(k + 1):
            rows[i, :n] = self.states[i] * (np.arange(n) < 1)
            rows[i, 1 + k : n] = self.states[i, 1 + k :]
            rows[i] += self.states[i, 1 : 1 + k] @ answers
            if i < k:
                p, q = way.answer(way.level(self.labels[i]), mean, variance)
                answers[i] = p * rows[i]
                answers[i, n] += q
        end = rows[k]
        return float(end[n] + self.offset), float((start * end[0]) ** 2 + np.sum(end[1 + k : n] ** 2))


def read(run: Callable[..., Any], way: Convention, dims: int, library: str, device: Any) -> Table:
    """Run a patient on unit vectors.

    Parameters
    ----------
    run : callable (model, x, rng) -> x
        The patient.
    way : Convention
        How its network is told, and what it predicts.
    dims : int
        Length of the rows of x.
    library : str
        Whose arrays it takes.
    device : object
        Of torch.

    Returns
    -------
    Table
        What it does.

    Raises
    ------
    Ill
        Where it raises, returns what is no array of its x, or NaN.
    """

    def play(x: HostArray, answer: Any, noise: Any) -> Run:
        try:
            seen = walk(run, x, answer, noise, library, device)
        except Ill:
            raise
        except Exception as error:
            raise Ill("raises", f"it raises {type(error).__name__}: {error}") from error
        if seen.end is None or seen.end.shape != x.shape:
            raise Ill(
                "shape", f"it returns an array of shape {getattr(seen.end, 'shape', None)} for x of shape {x.shape}"
            )
        for i, state in enumerate([*seen.states, seen.end]):
            if not np.isfinite(state).all():
                raise Ill("not-finite", f"NaN or inf in the x of call {i} of {len(seen.states)}" if i < len(seen.states)
                          else "NaN or inf in what it returns")  # fmt: skip
        return seen

    with suppress(Exception):  # imports and compilers have their turn before random functions are replaced
        warm(run, dims, library, device)
    nothing = lambda k, x: np.zeros_like(x)  # noqa: E731
    try:
        quiet = play(np.zeros((4, dims)), nothing, lambda j, shape: np.zeros(shape))
    except Ill as ill:
        raise _looking(play, dims) if ill.args[0] == "not-finite" else ill from None
    k, m = len(quiet.states), len(quiet.draws)
    if not k:
        raise Ill("no-call", "it never asks the network")
    n = 1 + k + m
    facts = _facts(quiet)

    def unit(column: int, shape: tuple[int, ...]) -> HostArray:
        z = np.zeros(shape)
        if shape[:1] == (n + 1,):
            z[column] = SMALL
        return z

    units = _answers(k, m, unit)
    seen = play(unit(0, (n + 1, dims)), *units)
    if (len(seen.states), len(seen.draws)) != (k, m):
        raise ADAPTIVE
    states = np.stack([*seen.states, np.asarray(seen.end)])
    zero = states[:, -1:, :]
    table = (states - zero)[:, :-1, 0] / SMALL
    labels = [float(label[0]) for label in seen.labels]
    if unknown := [label for label in labels if not _means(way, label)]:
        raise Ill("label-means-nothing", f"the network is told {unknown[0]}, which is no level")
    scales = np.array([way.scale(way.level(label)) for label in labels] + [1.0])
    rng = np.random.default_rng(0)
    facts |= _behaviour(play, rng, table, zero[-1, 0], (k, m, dims))
    matrix, fresh = _independent(table * scales[:, None], k)
    return Table(matrix, fresh, labels, float(zero[-1, 0, 0]), m, quiet.repeated, facts)


def _means(way: Convention, label: float) -> bool:
    with suppress(ValueError, OverflowError):
        return math.isfinite(way.level(label).sigma)
    return False


def _answers(k: int, m: int, serve: Callable[[int, tuple[int, ...]], HostArray]) -> tuple[Any, Any]:
    """Answers to k calls and m draws, by their columns in a table; who asks for more has steps of its own choice."""

    def answer(i: int, x: HostArray) -> HostArray:
        if i >= k:
            raise ADAPTIVE
        return serve(1 + i, x.shape)

    def noise(j: int, shape: tuple[int, ...]) -> HostArray:
        if j >= m:
            raise ADAPTIVE
        return serve(1 + k + j, shape)

    return answer, noise


def warm(run: Callable[..., Any], dims: int, library: str, device: Any) -> None:
    """Run a patient once with its own noise and a network that answers nothing.

    Parameters
    ----------
    run, dims, library, device : object
        As `read` has them.
    """
    seen = Run(lambda k, x: np.zeros_like(x), lambda j, shape: np.zeros(shape))
    ACTIVE.append(seen)
    try:
        run(Model(), made(np.ones((4, dims)), library, device), generator(library, device))
    finally:
        ACTIVE.pop()


def _looking(play: Any, dims: int) -> Ill:
    """Why zeros led to NaN, as random numbers show."""
    rows = np.random.default_rng(2).standard_normal((4096, 4, dims))
    go = lambda n: play(rows[0, :n], lambda i, x: rows[1 + 2 * i, : len(x)], lambda j, shape:  # noqa: E731
                        rows[2 + 2 * j, : shape[0]] if shape[1:] == (dims,) else np.zeros(shape)).end  # fmt: skip
    try:
        four, one = go(4), go(1)
    except (Ill, IndexError):
        return Ill("not-finite", "NaN or inf in its x, whatever the network answers")
    if np.abs(four[:1] - one).max() > 1e-6 * np.abs(one).max():
        return Ill("rows-influence-each-other", "a sample depends on the others of its batch, by a step from norms: a "
                   "mean over the batch")  # fmt: skip
    return Ill("looks-at-x", "a step size from norms: of zeros it makes NaN, and what it makes is not the law")


def _facts(run: Run) -> dict[str, Any]:
    kinds = [kind for kind, _ in run.draws]
    return {
        "uniform": kinds.count("uniform"),
        "shared noise": sum(shape[:1] != (4,) and len(shape) > 0 for _, shape in run.draws),
        "labels differ": any((label != label[0]).any() for label in run.labels),
    }


def _behaviour(play: Any, rng: Any, table: HostArray, zero: HostArray, sizes: tuple[int, int, int]) -> dict[str, Any]:
    """What random numbers show: whether it is linear, small and large; whether rows are alone; its precision."""
    k, m, dims = sizes
    rows = rng.standard_normal((1 + k + m, 4, dims))

    def go(scale: float, take: slice) -> HostArray:
        x = scale * rows[:, take]
        serve = lambda c, shape: x[c] if shape == x[c].shape else np.zeros(shape)  # noqa: E731
        return np.asarray(play(x[0], *_answers(k, m, serve)).end)

    linear = np.einsum("n,nbd->bd", table[-1], rows)
    size = np.abs(table[-1]) @ np.abs(rows).max(axis=(1, 2)) + np.abs(zero).max() / SMALL
    off = lambda y, scale: float(np.abs((y - zero) / scale - linear[: len(y)]).max() / max(size, 1e-300))  # noqa: E731
    small, large = go(SMALL, slice(0, 4)), go(1.0, slice(0, 4))
    alone, again = go(1.0, slice(0, 1)), go(1.0, slice(0, 4))
    return {
        "not linear": off(small, SMALL),
        "clips": off(large, 1.0),
        "rows": float(np.abs(alone - large[:1]).max() / max(np.abs(large).max(), 1e-300)),
        "unseen noise": float(np.abs(again - large).max()),
    }


def _independent(table: HostArray, k: int) -> tuple[HostArray, list[int]]:
    """Noises turned so that each is seen first in one state, with a positive sign; what has no effect is left out."""
    noise, fresh = table[:, 1 + k :], list[int]()
    basis = np.zeros((noise.shape[1], noise.shape[1]))
    for i, row in enumerate(noise):
        rest = row
        for _ in range(2):  # once more for the rounding of the first time
            known = basis[: len(fresh)]
            rest = rest - known.T @ (known @ rest)
        size = float(np.linalg.norm(rest))
        if size > SEEN * max(float(np.abs(table[i]).max()), 1e-300):
            basis[len(fresh)] = rest / size
            fresh.append(i)
    return np.concatenate([table[:, : 1 + k], noise @ basis[: len(fresh)].T], axis=1), fresh
