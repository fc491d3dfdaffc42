"""Adaptive ODE solvers, on the host: SciPy's, one sample at a time. Chapter 11."""

from collections.abc import Callable
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device
from scipy.integrate import solve_ivp

from refscore.checks import check_data, check_time
from refscore.protocols import Array


class SolverError(ArithmeticError):
    """The solver stopped on a sample before its end; the message names the row and the reason."""


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
    velocity : callable (x, t) -> (B, ...)
        The right-hand side, for a float t.
    x : Array, shape (B, ...)
        The state at t.
    t, s : float
        Start and end, in [0, 1].
    rtol, atol : float, default 1e-08 and 1e-08
        Relative error, and absolute error in the units of x, allowed at each step.
    method : str, default 'DOP853'
        A method of `scipy.integrate.solve_ivp`.

    Returns
    -------
    Array, shape (B, ...)
        The state at s.

    Raises
    ------
    ValueError, TypeError
        For x that is not a batch of finite floats, times outside [0, 1].
    SolverError
        Where the solver gives up, or the velocity is not finite.
    """
    check_data("x", x)
    for time in (t, s):
        check_time(time)
    xp, like = array_namespace(x), device(x)
    ends = []
    for row in range(x.shape[0]):
        one: Callable[[Array, float], Array] = velocity.row(row) if hasattr(velocity, "row") else velocity

        def right(time: float, y: Any, row: int = row, one: Callable[[Array, float], Array] = one) -> Any:
            time = min(max(time, min(t, s)), max(t, s))  # SciPy 1.13 looks beyond s to choose its first step
            there = xp.asarray(y.reshape((1, *x.shape[1:])), dtype=x.dtype, device=like)
            slope = np.asarray(_host(one(there, float(time))), dtype="float64").ravel()
            if not np.all(np.isfinite(slope)):  # the solver would try ever again
                raise SolverError(f"row {row}: the velocity is not finite at t = {time:.6g}")
            return slope

        start = np.asarray(_host(x[row, ...]), dtype="float64").ravel()
        found = solve_ivp(right, (t, s), start, method, rtol=rtol, atol=atol)
        if not found.success:
            raise SolverError(f"row {row}: stopped at t = {found.t[-1]:.6g}: {found.message}")
        ends.append(xp.asarray(found.y[:, -1].reshape(x.shape[1:]), dtype=x.dtype, device=like))
    return xp.stack(ends)


def _host(x: Array) -> Any:
    """A NumPy copy of an array of any library."""
    if hasattr(x, "get"):  # CuPy copies to the host only when asked by name
        return x.get()
    return np.asarray(getattr(x, "_array", x))
