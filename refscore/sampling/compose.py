"""Steps made of steps and kernels: predict and correct, repeat, stay; annealed Langevin dynamics. Chapters 6 and 10."""

from dataclasses import dataclass

from refscore.checks import settle
from refscore.protocols import SDE, Array, Kernel, Rng, Score, Step
from refscore.sampling.langevin import Langevin, LevelStep


@dataclass(frozen=True)
class Stay:
    """The step that does nothing: the time goes from t to s, and x stays as it is.

    Examples
    --------
    >>> import numpy as np
    >>> from refscore import Stay
    >>> Stay()(np.array([[3.0]]), 1.0, 0.5, np.random.default_rng(0))
    (array([[3.]]), None)
    """

    def __call__(self, x: Array, t: float, s: float, rng: Rng, memory: None = None) -> tuple[Array, None]:
        """Return x (B, ...) unchanged; there is nothing to remember (None)."""
        return x, None


@dataclass(frozen=True)
class Repeat:
    """A kernel that applies another kernel n times at the same time t.

    Parameters
    ----------
    kernel : callable (x, t, rng) -> x
        For example `Langevin`; x and the result have shape (B, ...).
    n : int
        How many times it is applied, at least 1.

    Raises
    ------
    ValueError
        Unless n >= 1.

    Examples
    --------
    >>> import numpy as np
    >>> from refscore import Repeat
    >>> halve = lambda x, t, rng: x / 2
    >>> Repeat(halve, 3)(np.array([[8.0]]), 0.5, np.random.default_rng(0))
    array([[1.]])
    """

    kernel: Kernel
    n: int

    def __post_init__(self) -> None:
        settle(self, n=1)

    def __call__(self, x: Array, t: float, rng: Rng) -> Array:
        """Move x (B, ...) -> (B, ...) n times; the time stays t."""
        for _ in range(self.n):
            x = self.kernel(x, t, rng)
        return x


@dataclass(frozen=True)
class First:
    """The step that first applies a kernel at t, then a step from t to s.

    `First(Langevin(score, 0.01), Stay())` is plain Langevin dynamics as a step; with a grid that ends
    at 0 and `Repeat` around the kernel it is annealed Langevin.

    Parameters
    ----------
    kernel : callable (x, t, rng) -> x
        Applied at t; for example `Langevin` or `Repeat`.
    step : callable (x, t, s, rng, memory) -> (x, memory)
        Applied to what the kernel returns; any sampler, or `Stay`.

    Raises
    ------
    TypeError, ValueError
        For an argument that cannot be what it is given as, by its name.

    Examples
    --------
    >>> import numpy as np
    >>> from refscore import First, Stay
    >>> add_time = lambda x, t, rng: x + t
    >>> First(add_time, Stay())(np.array([[0.0]]), 1.0, 0.5, np.random.default_rng(0))  # the kernel is given t = 1
    (array([[1.]]), None)
    """

    kernel: Kernel
    step: Step

    def __post_init__(self) -> None:
        settle(self)

    def __call__(self, x: Array, t: float, s: float, rng: Rng, memory: object = None) -> tuple[Array, object]:
        """Move x (B, ...) from time t to time s; the memory is that of the step."""
        return self.step(self.kernel(x, t, rng), t, s, rng, memory)


@dataclass(frozen=True)
class Then:
    """The step that first takes a step from t to s, then applies a kernel at s: predict, correct.

    At s = 0, where there is no noise, nothing is corrected.

    Parameters
    ----------
    step : callable (x, t, s, rng, memory) -> (x, memory)
        The predictor: any sampler.
    kernel : callable (x, t, rng) -> x
        The corrector, applied at s; for example `Langevin` or `Repeat`.

    Raises
    ------
    TypeError, ValueError
        For an argument that cannot be what it is given as, by its name.

    Examples
    --------
    >>> import numpy as np
    >>> from refscore import Stay, Then
    >>> add_time = lambda x, t, rng: x + t
    >>> Then(Stay(), add_time)(np.array([[0.0]]), 1.0, 0.5, np.random.default_rng(0))  # the kernel is given s = ½
    (array([[0.5]]), None)
    """

    step: Step
    kernel: Kernel

    def __post_init__(self) -> None:
        settle(self)

    def __call__(self, x: Array, t: float, s: float, rng: Rng, memory: object = None) -> tuple[Array, object]:
        """Move x (B, ...) from time t to time s; the memory is that of the step."""
        x, memory = self.step(x, t, s, rng, memory)
        return (x if s == 0 else self.kernel(x, s, rng)), memory


@dataclass(frozen=True)
class AnnealedLangevin:
    """n Langevin moves at each noise level, from the largest to the least                       Eq. (6.7).

    Song and Ermon 2019, Algorithm 1; on a Gaussian its law is Eq. (6.8).

    A step for grids `level_times(sde, levels)`, the times of the levels and then 0 (without the 0 the last level is
    left out): it is `First(Repeat(Langevin(score, LevelStep(sde, step, last)), moves), Stay())`.

    Parameters
    ----------
    score : callable (x, t) -> (B, ...)
        ∇ log p_t(x), for x (B, ...) and t an array (1,).
    sde : SDE
        Whose σ(t) the levels are, the model's own; `VE` for those of the paper.
    step : float
        ε at the last level, in squared data units: the paper's is twice as large in name.
    last : float
        σ_L, the smallest level, in data units.
    moves : int, default 100
        n, the number of moves at each level, at least 1.

    Raises
    ------
    ValueError
        Unless step and last are positive and moves is an integer >= 1; for a step that adds noise, or whose level is
        below the last: then grid, `last` and `sde` do not go together.

    Examples
    --------
    >>> import numpy as np
    >>> from refscore import AnnealedLangevin, VE, prior, simulate
    >>> from refscore.noise.grids import level_times
    >>> from refscore import last
    >>> sde, levels, rng = VE(0.01, 1.0), (0.9, 0.3, 0.1), np.random.default_rng(0)
    >>> point = lambda x, t: -x / sde.sigma(t) ** 2  # the score of data that are one point, 0
    >>> step = AnnealedLangevin(point, sde, step=0.1**2, last=0.1, moves=1)
    >>> x = last(simulate(step, prior(sde, (100_000, 1), rng, "float64"), level_times(sde, levels), rng))
    >>> print(round(x.var(), 3))  # at ε = σ² a move forgets x, and leaves noise of variance 2ε
    0.02
    """

    score: Score
    sde: SDE
    step: float
    last: float
    moves: int = 100

    def __post_init__(self) -> None:
        settle(self, moves=1)
        self.one_level()  # whose parts check what they are given

    def one_level(self) -> First:
        """Return the same step as the composition it is: `First(Repeat(Langevin(...), moves), Stay())`."""
        return First(Repeat(Langevin(self.score, LevelStep(self.sde, self.step, self.last)), self.moves), Stay())

    def __call__(self, x: Array, t: float, s: float, rng: Rng, memory: object = None) -> tuple[Array, object]:
        """Move x (B, ...) by all moves at the level of t; s is the time of the next level, or 0."""
        level = self.sde.sigma(t)
        if not s < t:
            raise ValueError(f"annealing goes from the largest noise to the least; got t = {t}, then s = {s}")
        if level < self.last * (1 - 1e-9):
            raise ValueError(
                f"t = {t:.6g} is the level σ = {level:.6g}, below the last one, {self.last}: take the grid "
                "level_times(sde, levels), and last = levels[-1]"
            )
        return self.one_level()(x, t, s, rng, memory)
