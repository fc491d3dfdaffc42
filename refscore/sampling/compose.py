"""Steps made of steps and kernels: predict and correct, repeat, stay; annealed Langevin dynamics. Chapters 6 and 10."""

from dataclasses import dataclass

from refscore.checks import settle
from refscore.protocols import SDE, Array, Kernel, Rng, Score, Step
from refscore.sampling.langevin import Langevin, LevelStep


@dataclass(frozen=True)
class Stay:
    """The step that goes nowhere: time passes, x remains."""

    def __call__(self, x: Array, t: float, s: float, rng: Rng, memory: None = None) -> tuple[Array, None]:
        """x -> x."""
        return x, None


@dataclass(frozen=True)
class Repeat:
    """A kernel applied n times at the same t.

    Raises
    ------
    ValueError
        Unless n >= 1.
    """

    kernel: Kernel
    n: int

    def __post_init__(self) -> None:
        settle(self, n=1)

    def __call__(self, x: Array, t: float, rng: Rng) -> Array:
        """x (B, ...) -> x (B, ...), both at time t."""
        for _ in range(self.n):
            x = self.kernel(x, t, rng)
        return x


@dataclass(frozen=True)
class First:
    """First the kernel at t, then the step from t to s.

    `First(Langevin(score, 0.01), Stay())` is plain Langevin dynamics as a step; with a grid that ends
    at 0 and `Repeat` around the kernel it is annealed Langevin.
    """

    kernel: Kernel
    step: Step

    def __call__(self, x: Array, t: float, s: float, rng: Rng, memory: object = None) -> tuple[Array, object]:
        """x (B, ...) at time t -> x (B, ...) at time s."""
        return self.step(self.kernel(x, t, rng), t, s, rng, memory)


@dataclass(frozen=True)
class Then:
    """First the step from t to s, then the kernel at s: predict, correct. At s = 0, without noise, no correction."""

    step: Step
    kernel: Kernel

    def __call__(self, x: Array, t: float, s: float, rng: Rng, memory: object = None) -> tuple[Array, object]:
        """x (B, ...) at time t -> x (B, ...) at time s."""
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
    sde : SDE
        Whose σ(t) the levels are, the model's own; `VE` for those of the paper.
    step : float
        ε at the last level, in squared data units: the paper's is twice as large in name.
    last : float
        σ_L, the smallest level.
    moves : int
        n, at each level.

    Raises
    ------
    ValueError
        Unless step and last are positive and moves is an integer >= 1; for a step that adds noise, or whose level is
        below the last: then grid, `last` and `sde` do not go together.
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
        """The same, as the composition it is."""
        return First(Repeat(Langevin(self.score, LevelStep(self.sde, self.step, self.last)), self.moves), Stay())

    def __call__(self, x: Array, t: float, s: float, rng: Rng, memory: object = None) -> tuple[Array, object]:
        """x (B, ...) at the level of t -> x (B, ...), after the moves there."""
        level = self.sde.sigma(t)
        if not s < t:
            raise ValueError(f"annealing goes from the largest noise to the least; got t = {t}, then s = {s}")
        if level < self.last * (1 - 1e-9):
            raise ValueError(
                f"t = {t:.6g} is the level σ = {level:.6g}, below the last one, {self.last}: take the grid "
                "level_times(sde, levels), and last = levels[-1]"
            )
        return self.one_level()(x, t, s, rng, memory)
