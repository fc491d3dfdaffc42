"""Maximum likelihood of an energy by its MCMC gradient: what score matching spares us. Chapter 4."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from refscore.arrays import answer, flat, views
from refscore.checks import check_array, check_like, check_positive, check_time, settle
from refscore.library import array_namespace
from refscore.nn.energy_model import EnergyModel
from refscore.protocols import Array, HasEnergy, NeedsNoise, Rng
from refscore.sampling.langevin import Langevin


def from_data(x: Array, rng: Rng) -> Array:
    """Start the chain at the data: contrastive divergence                                   Hinton 2002.

    Parameters
    ----------
    x : Array, shape (B, n)
        The batch of data.
    rng : Rng
        Not used; it is here because every start takes it.

    Returns
    -------
    Array, shape (B, n)
        x itself.
    """
    return x


@dataclass(frozen=True)
class FromNoise:
    """Start the chain at N(0, std² I).

    Parameters
    ----------
    std : float
        Standard deviation of the start, per coordinate, in the units of x.

    Raises
    ------
    ValueError
        Unless std > 0.
    """

    std: float

    def __post_init__(self) -> None:
        settle(self)
        check_positive(std=self.std)

    def __call__(self, x: Array, rng: Rng) -> Array:
        """Draw one start a sample: x (B, n), of which only shape and dtype are used -> (B, n)."""
        check_like(rng=rng)
        check_array(x=x)
        return self.std * rng.standard_normal(x.shape, dtype=x.dtype)


@dataclass(frozen=True)
class MaximumLikelihood:
    """∇_θ(-log p_θ) = E_data ∇_θE - E_model ∇_θE, the second with samples of the current model    Eq. (1.2).

    They come from `moves` steps of Langevin dynamics at every step of training, each a gradient of the network in x. A
    short chain has not arrived at the model: from the data its gradient is too short, Eq. (4.8), and for one small
    step it is that of implicit score matching, Eq. (4.9); from noise it is wrong. The loss that is returned,
    E(data) - E(samples), is no likelihood and need not fall.

    Parameters
    ----------
    moves : int
        Langevin steps from the start to the samples.
    step : float
        Their ε, in squared data units. Below twice the smallest variance of the model, or they diverge.
    start : callable (x, rng) -> x, default `from_data`
        `from_data` (default) or `FromNoise(std)`.
    t : float, default 0.0
        Time at which the model is evaluated; the data are taken as they are. 0 (default) needs a model that is finite
        there: `EnergyModel(..., predict="score")`.

    Raises
    ------
    ValueError
        Unless moves is an integer >= 1, step > 0 and 0 <= t <= 1.
    TypeError
        At the call, for a model that has no energy.

    Examples
    --------
    With the energy ½ x² - w x - b of N(w, 1) the gradient in w is the samples' mean less that of the data, 1 - 2:

    >>> import numpy as np
    >>> from refscore import MLP, VP, EnergyModel
    >>> from refscore.matching.maximum_likelihood import MaximumLikelihood
    >>> model = EnergyModel(MLP((1, 1)), VP(), predict="score")  # theta = (w, b)
    >>> data, samples = np.array([[1.0], [3.0]]), np.array([[0.0], [2.0]])
    >>> loss, gradient = MaximumLikelihood(moves=1, step=0.1).at(model, np.array([0.0, 0.0]), data, samples)
    >>> float(loss), gradient.round(6)  # ½ (1 + 9)/2 - ½ (0 + 4)/2
    (1.5, array([-1.,  0.]))
    """

    moves: int
    step: float
    start: Callable[[Array, Rng], Array] = from_data
    t: float = 0.0

    def __post_init__(self) -> None:
        settle(self, moves=1)
        check_positive(step=self.step)
        object.__setattr__(self, "t", check_time(self.t))

    def __call__(self, model: EnergyModel, theta: Array, x0: Array, rng: Rng) -> tuple[Array, Array]:
        """Run the chain from data x0 (B, n) -> E(data) - E(samples) (0-d), and the gradient (P,) at theta (P,)."""
        check_array(x0=x0, theta=theta)
        check_like(rng=rng)
        if not isinstance(model, HasEnergy):
            raise TypeError(f"maximum likelihood needs an energy: give an EnergyModel, got {type(model).__name__}")
        if self.t == 0 and isinstance(model, NeedsNoise):
            model.check_clean()
        kernel, x = Langevin(model.bind(theta), self.step), answer("start", self.start(x0, rng), x0)
        for _ in range(self.moves):
            x = kernel(x, self.t, rng)
        return self.at(model, theta, x0, x)

    def at(self, model: EnergyModel, theta: Array, x0: Array, x: Array) -> tuple[Array, Array]:
        """The loss without randomness: data x0 (B, n), samples x (M, n) -> loss (0-d) and gradient (P,)   Eq. (1.2)."""
        check_like(model=model)
        check_array(x0=x0, x=x, theta=theta)
        xp, (each, cache) = array_namespace(x0), self._losses(model, theta, x0, x)
        dE = xp.concat([xp.ones_like(x0[:, 0]) / x0.shape[0], -xp.ones_like(x[:, 0]) / x.shape[0]])
        _, grads = model.energy_backward(views(theta, model.shapes), cache, dE)
        return xp.mean(each), flat(grads, model.shapes, theta)

    def losses(self, model: EnergyModel, theta: Array, x0: Array, x: Array) -> Array:
        """The loss of each point of the data, E(x0) less the mean E of the samples: their mean is the loss of `at`.

        Parameters
        ----------
        model : EnergyModel
        theta : Array, shape (P,)
        x0 : Array, shape (B, n)
            Data.
        x : Array, shape (M, n)
            Samples of the model.

        Returns
        -------
        Array (B,)
            In nats; small where the model thinks a point likely.

        Examples
        --------
        >>> import numpy as np
        >>> from refscore import MLP, VP, EnergyModel
        >>> from refscore.matching.maximum_likelihood import MaximumLikelihood
        >>> model = EnergyModel(MLP((1, 1)), VP(), predict="score")  # E = ½ x² - x W - b at t = 0
        >>> x0, x = np.array([[0.0], [4.0]]), np.array([[2.0]])
        >>> MaximumLikelihood(1, 0.1).losses(model, np.zeros(2), x0, x).tolist()
        [-2.0, 6.0]
        """
        check_like(model=model)
        check_array(x0=x0, x=x, theta=theta)
        return self._losses(model, theta, x0, x)[0]

    def _losses(self, model: EnergyModel, theta: Array, x0: Array, x: Array) -> tuple[Array, Any]:
        xp, B = array_namespace(x0), x0.shape[0]
        if not B or not x.shape[0]:
            raise ValueError("there are no samples: of nothing there is no mean loss")
        E, cache = model.energy(views(theta, model.shapes), xp.concat([x0, x]), self.t)
        return E[:B] - xp.mean(E[B:]), cache
