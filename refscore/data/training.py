"""Training data that is made anew each time it is drawn: grey levels spread over their cells, images mirrored."""

from dataclasses import dataclass
from typing import Any

from refscore.checks import check_floating, check_like
from refscore.data.images import flip
from refscore.data.scaling import Scaling
from refscore.library import array_namespace
from refscore.protocols import Array, Rng


@dataclass(frozen=True, eq=False)
class Dequantised:
    """Rows of an array, drawn with replacement, with fresh noise inside the cell of each grey level.

    A density of grey levels has no maximum: it may be infinite at each of them, and a network learns to make it so.
    Spread over their cells they have a density that bounds their probabilities (`Scaling.dequantise`).

    Parameters
    ----------
    x : Array, shape (N, ...)
        Centres of cells, as `Scaling.apply` gives them.
    scaling : Scaling, optional
        Whose cells; None for data without levels.
    labels : Array, shape (N,), optional
        Their labels; then pairs are drawn.
    flips : bool, default False
        Whether each image (H, W, C) is mirrored or not with equal chances.

    Raises
    ------
    TypeError, ValueError
        For an argument that cannot be what it is given as, by its name.

    Examples
    --------
    >>> import numpy as np
    >>> from refscore.data.scaling import Scaling
    >>> from refscore.data.training import Dequantised
    >>> scaling = Scaling.of_levels(2)  # cells [-1, 0] and [0, 1]
    >>> data = Dequantised(np.array([[-0.5], [0.5]]), scaling, np.array([0, 1]))
    >>> x, labels = data.sample(np.random.default_rng(0), 1000)
    >>> bool(np.all((x[:, 0] > 0) == labels)), round(float(np.std(x[labels == 1])), 2)  # 1/√12
    (True, 0.29)
    """

    x: Array
    scaling: Scaling | None = None
    labels: Array | None = None
    flips: bool = False

    def __post_init__(self) -> None:
        check_floating("x", self.x)

    def sample(self, rng: Rng, n: int) -> Any:
        """Draw n samples (n, ...), or with labels a pair of samples and labels (n,)."""
        check_like(rng=rng)
        xp, which = array_namespace(self.x), rng.integers(0, self.x.shape[0], size=(n,))
        x = xp.take(self.x, which, axis=0)
        if self.flips:
            x = flip(x, rng.random((n,), dtype=x.dtype) < 0.5)
        if self.scaling is not None:
            x = self.scaling.dequantise(x, rng.random(x.shape, dtype=x.dtype))
        return x if self.labels is None else (x, xp.take(self.labels, which, axis=0))
