"""Training: one loop, `fit`, that yields after every step."""

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from refscore.checks import check_count, check_data, check_finite, check_floating, check_like, check_number, check_same
from refscore.library import array_namespace, device, is_array_api_obj
from refscore.matching.times import FixedTime
from refscore.protocols import Array, HasSamples, IsTable, Model, Objective, Optimizer, Rng
from refscore.training.optim import EMA, EMAState, clip

Batch = tuple[Array, Array | None]  # samples and their conditions


class DivergenceError(ArithmeticError):
    """The loss is not finite, or a million times what it was at the start.

    The message names step, learning rate and gradient norm.

    Attributes
    ----------
    last_good : TrainingState or None
        The state whose parameters gave a sound loss at the last check that passed; None if none did.
    """

    def __init__(self, message: str, last_good: "TrainingState | None") -> None:
        super().__init__(message)
        self.last_good = last_good


@dataclass(frozen=True, eq=False)
class TrainingState:
    """The state after a step of training; give it to `fit` as `start` to go on.

    Parameters
    ----------
    step : int
        Number of steps taken, so 1 after the first.
    theta : Array, shape (P,)
        The parameters after this step.
    loss : Array, 0-d
        Loss of this step's batch, before the step; `float(loss)` makes a GPU wait.
    grad_norm : Array, 0-d
        Norm of its gradient, before clipping.
    first_loss : Array, 0-d
        Loss of the first step, with which later losses are compared.
    optimizer_state : object
        From `optimizer.update`.
    average : EMAState or None
        The state of the EMA, if there is one.
    """

    step: int
    theta: Array
    loss: Array
    grad_norm: Array
    first_loss: Array
    optimizer_state: Any
    average: EMAState | None


LARGEST = 1e20  # of a parameter, at the start


def fit(
    model: Model,
    objective: Objective,
    data: Any,
    optimizer: Optimizer,
    rng: Rng,
    *,
    steps: int,
    batch: int = 256,
    ema: EMA | None = None,
    max_norm: float = math.inf,
    start: Array | TrainingState | None = None,
    check_every: int = 100,
    unlabelled: float = 0.0,
    compile: Callable[[Callable[..., Any]], Callable[..., Any]] | None = None,
) -> Iterator[TrainingState]:
    """Train, yielding a state after every step.

    Parameters
    ----------
    model : Model
        E.g. a `ScoreModel`.
    objective : callable (model, theta, x0, rng) -> (loss, gradient)
        E.g. `Denoising()`: x0 (batch, ...), loss 0-d, gradient (P,).
    data : Array (N, ...), or anything with sample(rng, n) -> (n, ...)
        Fresh samples, or rows of the array, drawn with replacement. float32 or float64; the
        parameters take its dtype. For a model with a condition a pair (x, condition) of as many rows, or a `sample`
        that answers with one: the condition is labels (N,), integers, or vectors (N, m).
    optimizer : Adam, SGD, ...
        An optimiser with its learning rate.
    rng : Rng
        All randomness: initial parameters, batches, noise. Same seed, same machine: same bits.
    steps : int
        Steps to take in this call.
    batch : int, default 256
        Samples in each step.
    ema : EMA, optional
        Averages the parameters; read it with `ema.mean(state.average)`.
    max_norm : float, default infinity
        Gradients longer than this are shortened to it; by default none is.
    start : Array or TrainingState, optional
        Parameters to start from, or the state to go on from; by default `model.init(rng)`.
    check_every : int, default 100
        Check every so many steps, and at the last, whether training has diverged.
    unlabelled : float, default 0.0
        Share of the samples whose label is withheld, so that the model learns the unconditional score as well
        (classifier-free guidance, Ho and Salimans 2022). Default 0. Labels that the data lack, K, count as withheld:
        what is learned is the score of all that are told no label, of the whole law if these miss at random.
    compile : callable function -> function, optional
        Makes programs of the draw of a batch and of a step, the same numbers to rounding: a back end's `compile`.

    Yields
    ------
    TrainingState
        After every step; its numbers are those of that step's batch.

    Raises
    ------
    ValueError, TypeError
        At the call, for arguments that cannot work.
    DivergenceError
        While training; names step, learning rate and gradient norm.

    Warns
    -----
    SpreadWarning
        For data whose deviation is more than three times off the model's data_std.

    Examples
    --------
    Two parameters learn the score -x of N(0, 1); at the exact score the gradient of every batch is 0:

    >>> import numpy as np
    >>> from refscore import MLP, SGD, VP, Explicit, ScoreModel, fit
    >>> model = ScoreModel(MLP((1, 1)), VP(), predict="score")  # s(x) = w x + b, theta = (w, b)
    >>> rng = np.random.default_rng(0)
    >>> x, objective = rng.standard_normal((1000, 1)), Explicit(lambda x, t: -x)
    >>> *_, state = fit(model, objective, x, SGD(rate=0.5), rng, steps=100)
    >>> state.step, round(float(state.theta[0]), 6)
    (100, -1.0)
    """
    steps, batch = check_count("steps", steps), check_count("batch", batch)
    check_every, max_norm = check_count("check_every", check_every), check_number("max_norm", max_norm)
    unlabelled = check_number("unlabelled", unlabelled)
    if not max_norm > 0:
        raise ValueError(f"max_norm must be positive, got {max_norm}")
    check_like(model=model, objective=objective, optimizer=optimizer, rng=rng)
    if ema is not None:
        check_like(ema=ema)
    if isinstance(data, IsTable):
        raise TypeError(f"data is a {type(data).__name__}: give its numbers, data.to_numpy(dtype='float32')")
    data, condition = _pair(data)
    endless = isinstance(data, HasSamples)
    if not endless:
        check_data("data", data)
        _check_condition(model, data, condition, unlabelled)
    if isinstance(start, TrainingState):
        # Nothing is drawn here: to go on from a state must do as the uninterrupted run does.
        if (start.average is None) != (ema is None):
            raise ValueError("give the same ema (or none) as when the state was made")
        wanted, got = type(optimizer.init(start.theta)), type(start.optimizer_state)
        if wanted is not got:
            raise TypeError(
                f"start was made with another optimizer: {type(optimizer).__name__} keeps {wanted.__name__}, "
                f"start has {got.__name__}"
            )
        _check_theta(start.theta, model, start.theta if endless else data)
    else:
        example, condition = _pair(data.sample(rng, 1)) if endless else (data, condition)
        check_data("data", example)
        if endless:
            _check_condition(model, example, condition, unlabelled)
        theta = model.init(rng, example.dtype) if start is None else start
        _check_theta(theta, model, example)
        start = _begin(theta, optimizer, ema)
        if not endless:
            _check_spread(model, data)
    if callable(optimizer.rate):
        optimizer.rate(start.step + steps)  # a schedule that ends too early says so now
    draw: Callable[[Rng], Batch] = partial(_batch, data, None if endless else condition, batch, start.theta.dtype)
    take: Callable[..., TrainingState] = partial(_step, model, objective, optimizer, ema, max_norm, unlabelled)
    if compile is not None:
        if not callable(compile):
            raise TypeError(f"compile must be a function of a function, such as backend.compile; got {compile!r}")
        draw, take = compile(draw), compile(take)
    look = partial(_check, model if endless else None, objective, optimizer)  # an array's width was looked at above
    return _walk(start, start.step + steps, check_every, rng, draw, take, look)


def _check_theta(theta: Array, model: Model, data: Array) -> None:
    check_floating("theta", theta, ndim=1)
    size = sum(math.prod(shape) for shape in model.shapes.values())
    if theta.shape != (size,):
        raise ValueError(f"theta must have shape ({size},) for this model, got {tuple(theta.shape)}")
    check_same(theta, data=data)
    check_finite("theta", theta)
    xp = array_namespace(theta)
    if theta.shape[0] and (largest := float(xp.max(xp.abs(theta)))) > LARGEST:
        raise ValueError(f"theta holds numbers up to {largest:.3g}, where the products of layers overflow")


def _reads_condition(model: Any) -> bool:
    return "condition" in getattr(getattr(model, "body", None), "inputs", ())


def _check_condition(model: Any, data: Array, condition: Any, unlabelled: float) -> None:
    """Refuse conditions that are missing, or do not go with the data or the model."""
    reads = _reads_condition(model)
    if not 0 <= unlabelled < 1:
        raise ValueError(f"unlabelled is a share of the samples, in [0, 1); got {unlabelled}")
    if unlabelled and not (reads and model.classes):
        raise ValueError(f"unlabelled={unlabelled} withholds labels, and this model reads none")
    if reads != (condition is not None):
        raise ValueError(
            "the model reads a condition: give data as a pair (x, condition), labels (N,) or vectors (N, m)"
            if reads
            else "data is a pair (x, condition), and the model reads none: build its body with classes or n_condition"
        )
    if condition is None:
        return
    N = data.shape[0]
    if not is_array_api_obj(condition) or condition.shape[:1] != (N,):
        got = tuple(condition.shape) if hasattr(condition, "shape") else type(condition).__name__
        raise ValueError(f"the condition must be an array with a row for each of the {N} samples; got {got}")
    model.body.check_condition(condition)
    if condition.ndim > 1:
        check_same(data, condition=condition)


def _begin(theta: Array, optimizer: Optimizer, ema: EMA | None) -> TrainingState:
    nan = array_namespace(theta).full((), math.nan, dtype=theta.dtype, device=device(theta))
    average = None if ema is None else ema.init(theta)
    return TrainingState(0, theta, nan, nan, nan, optimizer.init(theta), average)


def _walk(
    state: TrainingState, end: int, every: int, rng: Rng,
    draw: Callable[[Rng], Batch], take: Callable[..., TrainingState], look: Callable[..., None],
) -> Iterator[TrainingState]:  # fmt: skip
    last_good = None
    while state.step < end:
        (x0, condition), before = draw(rng), state
        state = take(state, x0, condition, rng)
        if before.step == 0:  # here, so that all steps are one program where they are compiled
            state = replace(state, first_loss=state.loss)
        if state.step % every == 0 or state.step == end:
            look(state, x0, last_good)
            last_good = before  # whose parameters have just been seen to give a sound loss
        yield state


def _pair(data: Any) -> tuple[Any, Any]:
    """Samples and their conditions, None where there are none."""
    return data if isinstance(data, tuple) and len(data) == 2 else (data, None)


def _batch(data: Any, condition: Array | None, n: int, dtype: Any, rng: Rng) -> Batch:
    if not isinstance(data, HasSamples):
        xp, which = array_namespace(data), rng.integers(0, data.shape[0], size=(n,))
        return xp.take(data, which, axis=0), None if condition is None else xp.take(condition, which, axis=0)
    x0, condition = _pair(data.sample(rng, n))
    for name, part in (("array", x0), ("condition", condition)):
        if part is not None and getattr(part, "shape", ())[:1] != (n,):
            got = tuple(part.shape) if hasattr(part, "shape") else type(part).__name__
            raise ValueError(f"data.sample(rng, {n}) must answer with an {name} ({n}, ...), got {got}")
    if x0.dtype != dtype:
        raise TypeError(f"data.sample answers in {x0.dtype}, theta is {dtype}: convert one of them")
    return x0, condition


def _step(
    model: Any, objective: Objective, optimizer: Optimizer, ema: EMA | None, max_norm: float, unlabelled: float,
    state: TrainingState, x0: Array, condition: Array | None, rng: Rng,
) -> TrainingState:  # fmt: skip
    """One step of training; nothing in it waits for a device."""
    model = _tell(model, rng, x0, condition, unlabelled)
    loss, grad = _answer(objective(model, state.theta, x0, rng), state.theta)
    grad, norm = clip(grad, max_norm)
    theta, optimizer_state = optimizer.update(grad, state.optimizer_state, state.theta)
    if theta.dtype != state.theta.dtype:
        raise TypeError(f"the optimizer turned theta from {state.theta.dtype} into {theta.dtype}: convert it")
    average = ema.update(state.average, theta) if ema is not None and state.average is not None else None
    return TrainingState(state.step + 1, theta, loss, norm, state.first_loss, optimizer_state, average)


def _tell(model: Any, rng: Rng, x0: Array, condition: Array | None, unlabelled: float) -> Any:
    """The model, told the conditions of this batch, some labels withheld, and the numbers of its dropout."""
    xp, B, uniforms = array_namespace(x0), x0.shape[0], getattr(model, "uniforms", 0)
    if condition is None and _reads_condition(model):
        raise ValueError("data.sample must answer with a pair (x, condition): the model reads a condition")
    if condition is not None and unlabelled:
        condition = xp.where(rng.random((B,), dtype=x0.dtype) < unlabelled, model.classes, condition)
    uniform = rng.random((B, uniforms), dtype=x0.dtype) if uniforms else None
    return model if condition is None and uniform is None else model.told(condition, uniform)


def _answer(made: Any, theta: Array) -> tuple[Array, Array]:
    """What an objective answered, if it is a loss and a gradient that goes with theta."""
    shapes = [getattr(part, "shape", None) for part in made] if isinstance(made, tuple) else [type(made).__name__]
    if shapes != [(), theta.shape]:
        raise ValueError(
            f"the objective must answer with a pair, a loss () and a gradient {tuple(theta.shape)}, both arrays; got "
            f"shapes {', '.join(map(str, shapes))}"
        )
    loss, grad = made
    if grad.dtype != theta.dtype:
        raise TypeError(f"the objective answers with a gradient in {grad.dtype}, theta is {theta.dtype}: convert it")
    return loss, grad


def _check(
    model: Model | None, objective: Objective, optimizer: Optimizer, state: TrainingState, x0: Array,
    last_good: TrainingState | None,
) -> None:  # fmt: skip
    if last_good is None:
        _check_spread(model, x0, stacklevel=4)
    loss, norm, first = float(state.loss), float(state.grad_norm), float(state.first_loss)
    if math.isfinite(loss) and math.isfinite(norm) and abs(loss) <= 1e6 * max(abs(first), 1e-30):
        return
    rate = optimizer.rate(state.step) if callable(optimizer.rate) else optimizer.rate
    raise DivergenceError(
        f"training diverged by step {state.step}: loss {loss:.4g} (at the start {first:.4g}), gradient norm "
        f"{norm:.4g}, learning rate {rate:.4g}; {_advice(objective, loss, first, x0)}",
        last_good,
    )


def _advice(objective: Any, loss: float, first: float, x0: Array) -> str:
    xp = array_namespace(x0)
    if not bool(xp.all(xp.isfinite(x0))):
        return "the data hold numbers that are not finite"
    if not math.isfinite(first):
        return "look at the data, the times of the objective and what the model predicts, not at the rate"
    advice = "lower the rate or set max_norm"
    if loss < 0 or getattr(objective, "times", None) == FixedTime(0.0):
        return (
            "where data repeat, or lie on a line or a surface, a loss without noise has no floor: then take "
            f"times=FixedTime(sde.time(σ)); else {advice}"
        )
    return advice


class SpreadWarning(UserWarning):
    """The data are far wider or narrower than the model's data_std."""


def _check_spread(model: Any, x0: Array, stacklevel: int = 3) -> None:
    """Warn where data_std is more than three times off: the network then sees inputs that are not of unit size."""
    told, xp = getattr(model, "data_std", None), array_namespace(x0)
    unit = float(xp.max(xp.abs(x0))) or 1.0  # squares of large numbers overflow
    spread = unit * float(xp.mean((x0 / unit) ** 2)) ** 0.5
    if told is not None and not told / 3 <= spread <= 3 * told:
        warnings.warn(
            f"the data have deviation {spread:.3g} about 0, not about their mean, and the model was made for "
            f"data_std={told:.3g}: subtract their mean, or give data_std={spread:.3g}",
            SpreadWarning,
            stacklevel=stacklevel,
        )
