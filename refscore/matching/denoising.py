"""Denoising score matching: the score of noised data, learned from the noise. Chapters 3 and 6."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from refscore.arrays import per_sample, views
from refscore.checks import check_array, check_like
from refscore.library import array_namespace
from refscore.matching.base import ScoreMatching, Terms, noised, repeat
from refscore.matching.times import FixedTime, TimeLaw, UniformTime
from refscore.matching.weights import sigma_squared
from refscore.protocols import SDE, Array, Model, Rng, Time


@dataclass(frozen=True, kw_only=True)
class Denoising(ScoreMatching):
    """E_t λ(t) ½ E‖s_θ(x_t, t) + z/σ(t)‖², x_t = α x₀ + σ z  Vincent 2011; Song et al. 2021, Eq. (7). Eq. (3.10)

    The minimiser is ∇log p_t, the minimum is not zero: `denoising_floor` computes it. Weighted with σ² (the default)
    over `Levels` it is the objective of Song and Ermon 2019, over `UniformTime` that of Song et al. 2021.

    Parameters
    ----------
    weight : callable (sde, t) -> λ(t), default `sigma_squared`
        Default `sigma_squared`; see `ScoreMatching`.
    times : TimeLaw, default `UniformTime(t_min=0.001)`
        Default `UniformTime()`, t uniform on [0.001, 1]; see `ScoreMatching`.
    antithetic : bool, default False
        Default False; see `ScoreMatching`.
    control : bool, default False
        Subtract z·s_θ(α x₀)/σ + ½ (‖z‖² - D)/σ², Eq. (3.14), whose mean given x₀ is zero for every θ (Song and Kingma
        2021, arXiv 2101.03288): the same expected loss and gradient. At small σ the variance of the plain loss grows
        as 1/σ⁴; with it, it does not. It costs a second evaluation, and at large σ it adds variance. Default False.

    Raises
    ------
    ValueError
        For `FixedTime(0.0)`: without noise there is nothing to remove.

    Examples
    --------
    Data that are all at 0 become N(0, σ²), whose score is -x/σ², at σ = ½ -4x. Here x_t fixes the noise, and here alone
    the least loss is 0.

    >>> import numpy as np
    >>> from refscore import MLP, VP, Denoising, ScoreModel
    >>> from refscore.matching.times import FixedTime
    >>> model = ScoreModel(MLP((1, 1)), VP(), predict="score")  # s(x) = w x + b, theta = (w, b)
    >>> objective, rng = Denoising(times=FixedTime(VP().time(0.5))), np.random.default_rng(0)
    >>> loss, gradient = objective(model, np.array([-4.0, 0.0]), np.zeros((10, 1)), rng)
    >>> round(float(loss), 6)
    0.0
    """

    weight: Callable[[SDE, Time], Time] = sigma_squared
    times: TimeLaw = UniformTime()
    control: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.times == FixedTime(0.0):
            raise ValueError("denoising needs noise, and at t = 0 there is none to remove: give a time above 0")

    def __call__(self, model: Model, theta: Array, x0: Array, rng: Rng) -> tuple[Array, Array]:
        """Draw times and noise from rng: data x0 (B, ...) -> loss (0-d) and gradient (P,) at theta (P,)."""
        check_like(model=model)
        return self.at(model, theta, x0, *self.draw(model.sde, x0, rng))

    def at(self, model: Model, theta: Array, x0: Array, t: Array, z: Array, factor: Any = 1.0) -> tuple[Array, Array]:
        """The loss without randomness: x0, z (B, ...), t and factor (B,) or (1,) -> loss (0-d), gradient (P,)."""
        check_like(model=model)
        check_array(x0=x0, t=t, z=z, theta=theta)
        return self._terms(model, theta, x0, t, z, factor).mean_and_gradient(model, theta)

    def losses(self, model: Model, theta: Array, x0: Array, t: Array, z: Array, factor: Any = 1.0) -> Array:
        """The loss of each sample, weighted: their mean is the loss of `at`. No gradient.

        Parameters
        ----------
        model : ScoreModel or EnergyModel
        theta : Array, shape (P,)
        x0, z : Array, shape (B, ...)
            Data, and standard normal noise.
        t : Array, shape (B,) or (1,)
            Times above 0.
        factor : float or Array, shape (B,) or (1,)
            What undoes the law of t; `draw` returns t, z and this.

        Returns
        -------
        Array (B,)
            factor λ(t) ½ ‖s_θ(x_t, t) + z/σ(t)‖²; for the losses without λ build the objective with `unweighted`.

        Examples
        --------
        Which noise level is learned worst?

        >>> import numpy as np
        >>> from refscore import MLP, VP, Denoising, ScoreModel
        >>> model, rng = ScoreModel(MLP((2, 8, 2), embed=4), VP()), np.random.default_rng(0)
        >>> theta, x0 = model.init(rng, "float64"), rng.standard_normal((1000, 2))
        >>> t, z, factor = Denoising().draw(model.sde, x0, rng)
        >>> each = Denoising().losses(model, theta, x0, t, z, factor)
        >>> loss, _ = Denoising().at(model, theta, x0, t, z, factor)
        >>> each.shape, bool(np.isclose(each.mean(), loss))
        ((1000,), True)
        """
        check_like(model=model)
        check_array(x0=x0, t=t, z=z, theta=theta)
        return self._terms(model, theta, x0, t, z, factor).per_sample()

    def _terms(self, model: Model, theta: Array, x0: Array, t: Array, z: Array, factor: Any) -> Terms:
        xp, params = array_namespace(x0), views(theta, model.shapes)
        push = z / per_sample(model.sde.sigma(t), x0)  # minus the score of the kernel
        w = self.sample_weights(model.sde, x0, t, factor)
        x = noised(model.sde, x0, t, z)
        if not self.control:
            s, cache = model.forward(params, x, t)
            error = s + push
            ds = w * error
            return Terms(0.5 * ds * error, cache, ds)
        clean = per_sample(model.sde.alpha(t), x0) * x0
        s, cache = model.forward(params, xp.concat([x, clean]), repeat(t, 2))
        s, s_clean = s[: x0.shape[0], ...], s[x0.shape[0] :, ...]
        variance = per_sample(model.sde.sigma(t) ** -2, x0)  # of each coordinate of push
        # ½ (s + push)² less push·s_clean and ½ (push² - variance), where the two push² cancel
        loss = w * (0.5 * s * s + push * (s - s_clean) + 0.5 * variance)
        return Terms(loss, cache, xp.concat([w * (s + push), -w * push]))
