"""Weights in and out as safetensors, the file of named arrays that other frameworks read; needs that package.

Arrays by name and shape, and no more: what a name means, and which way round a matrix is, the two frameworks must
agree upon. Here names are those of `model.shapes`, and matrices multiply from the right, x W.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from refscore.arrays import flat, views
from refscore.checks import check_array, check_finite, check_floating, check_like
from refscore.data.files import save_bytes
from refscore.protocols import Array
from refscore.training.checkpoint import CheckpointError

Move = Callable[[Any], Any]


def export_safetensors(path: str | Path, theta: Array, model: Any, *, to_numpy: Move = np.asarray) -> None:
    """Write the parameters of a model by name, whole or not at all.

    Parameters
    ----------
    path : str or Path
        The file, by custom with the ending .safetensors; its folder must exist.
    theta : Array, shape (P,)
        Parameters, e.g. the average.
    model : ScoreModel, EnergyModel or Net
        Its `shapes` give the names.
    to_numpy : callable, default numpy.asarray
        Copies an array to the host, e.g. `backend.to_numpy`.

    Raises
    ------
    ImportError
        Without the package safetensors.
    ValueError
        For parameters of another model, or that are not finite.
    TypeError
        For parameters that are not float32 or float64.
    OSError
        If the file cannot be written; the old one is still there.
    """
    check_like(model=model)
    check_array(theta=theta)
    theta = to_numpy(theta)
    check_floating("theta", theta, ndim=1)
    check_finite("theta", theta)
    named = {name: np.ascontiguousarray(array) for name, array in views(theta, model.shapes).items()}
    save_bytes(Path(path), _library().save(named))


def import_safetensors(path: str | Path, model: Any, *, asarray: Move = np.asarray) -> Any:
    """Read the parameters of a model: every name, every shape, and one dtype, or an error.

    Parameters
    ----------
    path : str or Path
        The file.
    model : ScoreModel, EnergyModel or Net
        Its `shapes` give names, shapes and order.
    asarray : callable, default numpy.asarray
        Moves an array to where it is used, e.g. `backend.asarray`.

    Returns
    -------
    Array, shape (P,)
        The parameters, in the dtype of the file.

    Raises
    ------
    ImportError
        Without the package safetensors.
    CheckpointError
        For a file that is damaged, or holds other names, shapes or dtypes than the model.
    OSError
        If there is no such file, or it may not be read.
    """
    check_like(model=model)
    library, content = _library(), Path(path).read_bytes()
    try:
        named = library.load(content)
    except Exception as error:  # it lists no errors, and some dtypes NumPy does not know
        raise CheckpointError(f"{path} cannot be read as safetensors: {type(error).__name__}: {error}") from error
    here = {name: tuple(shape) for name, shape in model.shapes.items()}
    there = {name: array.shape for name, array in named.items()}
    if differ := [
        f"{name} {there.get(name, 'is missing')} where the model has {here.get(name, 'none')}"
        for name in (*here, *(there.keys() - here.keys()))
        if here.get(name) != there.get(name)
    ]:
        raise CheckpointError(f"{path} does not hold the parameters of this model: {'; '.join(sorted(differ))}")
    try:
        theta = flat(named, here, np.zeros(0, "float32"))
        for name, array in named.items():
            if array.dtype != theta.dtype:
                raise TypeError(f"{name} is {array.dtype}, others are not")
        check_floating("theta", theta)
        check_finite("theta", theta)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    return asarray(theta)


def _library() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError('safetensors is not installed: pip install "refscore[safetensors]"') from error
    return safetensors.numpy
