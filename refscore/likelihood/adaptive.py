"""Adaptive ODE solvers, on the host: SciPy's, one sample at a time. Chapter 11."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy.integrate import solve_ivp

from refscore.arrays import answer
from refscore.checks import check_data, check_range, check_time
from refscore.library import array_namespace, device, is_numpy_array, to_device
from refscore.protocols import Array, HasRows

HOST = 1  # memory of the host, as DLPack numbers devices


class SolverError(ArithmeticError):
    """The solver stopped on a sample before its end; the message names the row and the reason."""


class Solution(NamedTuple):
    """Where the samples end, and what it took to bring them there.

    Parameters
    ----------
    x : Array, shape (B, ...)
        The states at s.
    times : list of B lists of floats
        The accepted times of each sample, from t to s: one step between two neighbours.
    evaluations : list of B ints
        How often the velocity was asked, for each sample; rejected steps and Jacobians count too.
    """

    x: Array
    times: list[list[float]]
    evaluations: list[int]


def solve(
    velocity: Callable[[Array, float], Array],
    x: Array,
    t: float,
    s: float,
    rtol: float = 1e-8,
    atol: float = 1e-8,
    method: str = "DOP853",
) -> Array:
    """x(s) of dx/dt = velocity(x, t) from x (B, ...) at t, up or down.

    Every sample has its own steps and its own error control, so none depends on its neighbours. A velocity that differs
    from sample to sample has a method `row(i)`, the velocity of sample i alone. The state lives on the
    host in double precision; the velocity is evaluated on the device of x, in its dtype (in float32 take no rtol
    below 1e-5). For many samples and moderate precision a fixed grid of `RungeKutta` is faster.

    Parameters
    ----------
    velocity, x, t, s, rtol, atol, method : see `solution`

    Returns
    -------
    Array, shape (B, ...)
        The state at s.

    Raises
    ------
    ValueError, TypeError
        For x that is not a batch of finite floats, times outside [0, 1], a velocity that does not return the shape
        of x.
    SolverError
        Where the solver gives up, or the velocity is not finite.
    """
    return solution(velocity, x, t, s, rtol, atol, method).x


def solution(
    velocity: Callable[[Array, float], Array],
    x: Array,
    t: float,
    s: float,
    rtol: float = 1e-8,
    atol: float = 1e-8,
    method: str = "DOP853",
) -> Solution:
    """`solve`, and beside x(s) the accepted times and the number of evaluations of every sample.

    Parameters
    ----------
    velocity : callable (x, t) -> (B, ...)
        Asked of one sample at a time, x (1, ...) and a float t; or of the sample's own velocity, see `solve`.
    x : Array, shape (B, ...)
        States at time t, float32 or float64.
    t, s : float
        From and to, both in [0, 1], up or down.
    rtol, atol : float, default 1e-08 and 1e-08
        Error allowed in each step, relative and absolute, in units of x.
    method : str, default 'DOP853'
        A method of `scipy.integrate.solve_ivp`.

    Returns
    -------
    Solution
        x, times, evaluations.

    Raises
    ------
    ValueError, TypeError, SolverError
        As `solve`.

    Examples
    --------
    A stricter tolerance takes more steps and evaluations:

    >>> import numpy as np
    >>> from refscore.likelihood.adaptive import solution
    >>> loose, strict = (solution(lambda x, t: -9 * x, np.ones((1, 1)), 0.0, 1.0, tol, tol) for tol in (1e-3, 1e-9))
    >>> len(loose.times[0]) < len(strict.times[0]), loose.evaluations < strict.evaluations
    (True, True)
    >>> loose.times[0][0], loose.times[0][-1]
    (0.0, 1.0)
    """
    check_data("x", x)
    check_range(3e-14, 1.0, rtol=rtol)
    check_range(1e-100, 1e100, atol=atol)
    for time in (t, s):
        check_time(time)
    xp, like = array_namespace(x), device(x)
    ends, times, evaluations = [], [], []
    for row in range(x.shape[0]):
        asked: list[float] = []
        one: Callable[[Array, float], Array] = velocity.row(row) if isinstance(velocity, HasRows) else velocity

        def right(time: float, y: Any, row: int = row, one: Any = one, asked: list[float] = asked) -> Any:
            time = min(max(time, min(t, s)), max(t, s))  # SciPy 1.13 looks beyond s to choose its first step
            asked.append(time)
            there = xp.asarray(y.reshape((1, *x.shape[1:])), dtype=x.dtype, device=like)
            slope = np.asarray(_host(answer("the velocity", one(there, float(time)), there)), dtype="float64").ravel()
            if not np.all(np.isfinite(slope)):  # the solver would try ever again
                raise SolverError(f"row {row}: the velocity is not finite at t = {time:.6g}")
            return slope

        start = np.asarray(_host(x[row, ...]), dtype="float64").ravel()
        found = solve_ivp(right, (t, s), start, method, rtol=rtol, atol=atol)
        if not found.success:
            raise SolverError(f"row {row}: stopped at t = {found.t[-1]:.6g}: {found.message}")
        ends.append(xp.asarray(found.y[:, -1].reshape(x.shape[1:]), dtype=x.dtype, device=like))
        times.append(found.t.tolist())
        evaluations.append(len(asked))  # SciPy's own count leaves out those for a Jacobian
    return Solution(xp.stack(ends), times, evaluations)


def _host(x: Any) -> Any:
    """A NumPy array of one of any library: read where it is, or from a device copied, which wants to be asked for."""
    if is_numpy_array(x):
        return x
    return np.from_dlpack(x if x.__dlpack_device__()[0] == HOST else to_device(x, "cpu"))
