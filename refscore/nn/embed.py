"""What a network is told beside x, as features: the noise level, a label or a vector."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from refscore.checks import check_count, check_like, settle
from refscore.library import array_namespace, device, is_array_api_obj
from refscore.nn.dense import Dense
from refscore.nn.layer import Adjoints, Grads, Row, zeros
from refscore.protocols import Array, Params, Rng


@dataclass(frozen=True)
class Fourier:
    """Sines and cosines of the noise level ℓ: e = √2 [sin ω_j ℓ, cos ω_j ℓ], ω_j geometric.

    ℓ (B,) or (1,) -> e (B or 1, n). ℓ = log σ/α runs over ten units or so, from data to noise;
    frequencies between 0.1 and 4 distinguish levels a tenth apart and give the two ends different features.
    The √2 gives each pair of sine and cosine the mean square 1. There are no parameters, and the level is the
    same for every network, so neither tangent nor adjoint is sent further down.

    Parameters
    ----------
    n : int
        Number of features, even: n/2 sines, then n/2 cosines.
    low, high : float, default 0.1 and 4.0
        Lowest and highest frequency ω, in radians per unit of ℓ.

    Raises
    ------
    ValueError
        Unless n is even and positive, and 0 < low < high.

    Examples
    --------
    >>> import numpy as np
    >>> from refscore.nn import Fourier
    >>> e, _ = Fourier(4).forward({}, np.array([0.0, 2.5]))
    >>> e[0, :].round(4)  # at ℓ = 0 every sine is 0 and every cosine 1, times √2
    array([0.    , 0.    , 1.4142, 1.4142])
    >>> np.mean(e**2, axis=1).round(12)
    array([1., 1.])
    """

    n: int
    low: float = 0.1
    high: float = 4.0
    shapes: ClassVar[dict[str, tuple[int, ...]]] = {}

    def __post_init__(self) -> None:
        settle(self, n=2)
        if self.n % 2:
            raise ValueError(f"the number of features must be even, got {self.n}")
        if not 0 < self.low < self.high:
            raise ValueError(f"need 0 < low < high, got {self.low}, {self.high}")

    def init(self, rng: Rng, dtype: Any = "float32") -> Grads:
        """Return an empty dict: the frequencies are fixed, so there are no parameters."""
        return {}

    def forward(self, params: Params, *xs: Array) -> tuple[Array, Any]:
        """ℓ (B,) or (1,) -> e (B, n) or (1, n), and no cache."""
        (level,) = xs
        xp = array_namespace(level)
        exponents = xp.linspace(
            math.log(self.low), math.log(self.high), self.n // 2, dtype=level.dtype, device=device(level)
        )
        phase = level[:, None] * xp.exp(exponents)
        return math.sqrt(2) * xp.concat([xp.sin(phase), xp.cos(phase)], axis=1), None

    def backward(self, params: Params, cache: Any, dy: Array) -> tuple[Adjoints, Grads]:
        """Give the level no adjoint, and no gradients."""
        return (None,), {}

    def jvp(self, params: Params, cache: Any, *xdots: Array | None) -> tuple[Array | None, Any]:
        """Give the features no tangent: the level carries none."""
        return None, None

    def jvp_backward(
        self, params: Params, cache: Any, tape: Any, dy: Array | None, dydot: Array
    ) -> tuple[Adjoints, Adjoints, Grads]:
        """Give the level no adjoint, and no gradients."""
        return (None,), (None,), {}


@dataclass(frozen=True)
class Labels:
    """e = one-hot(label) W: a row of n features for each class, and one more for "no label".        Eq. (14.23).

    Labels are integers, (B,) or (1,) -> e (B or 1, n); 0 ... classes - 1 are classes, `classes` itself means that there
    is no label. No adjoint goes to a label.

    Parameters
    ----------
    classes : int
        Number of classes, K.
    n : int
        Number of features.

    Raises
    ------
    ValueError
        For classes < 1 or n < 1.

    Examples
    --------
    >>> import numpy as np
    >>> from refscore.nn import Labels
    >>> W = np.array([[1.0, 2.0], [3.0, 4.0], [0.0, 0.0]])  # of two classes, and of no label
    >>> Labels(2, 2).forward({"W": W}, np.array([1, 2]))[0]
    array([[3., 4.],
           [0., 0.]])
    """

    classes: int
    n: int

    def __post_init__(self) -> None:
        settle(self, classes=1, n=1)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of the table: W (classes + 1, n)."""
        return {"W": (self.classes + 1, self.n)}

    def init(self, rng: Rng, dtype: Any = "float32") -> Grads:
        """Draw W ~ N(0, 1): features of mean square 1."""
        check_like(rng=rng)
        return {"W": rng.standard_normal(self.shapes["W"], dtype=dtype)}

    def check_labels(self, labels: Any) -> None:
        """Refuse labels that the table has no row for; None, no label at all, is class K for every sample.

        Parameters
        ----------
        labels : Array, shape (N,), or None
            Integers; a GPU waits for what is looked up here.

        Raises
        ------
        TypeError
            For anything but integers.
        ValueError
            For another shape than (N,), and labels outside 0 ... K.
        """
        if labels is None:
            return
        if not is_array_api_obj(labels) or not array_namespace(labels).isdtype(labels.dtype, "integral"):
            raise TypeError(f"labels are an array of integers, got {getattr(labels, 'dtype', type(labels).__name__)}")
        if labels.ndim != 1:
            raise ValueError(f"labels have shape (N,), one a sample; got {tuple(labels.shape)}")
        xp = array_namespace(labels)
        low, high = int(xp.min(labels)), int(xp.max(labels))
        if low < 0 or high > self.classes:
            K = self.classes
            raise ValueError(f"labels are 0 to {K - 1}, and {K} for no label; got some from {low} to {high}")

    def forward(self, params: Params, *xs: Any) -> tuple[Array, Any]:
        """Labels (B,), (1,) or None -> e (B or 1, n), and the cache: the labels one-hot (B or 1, classes + 1)."""
        (label,), W = xs, params["W"]
        xp = array_namespace(W)
        classes = xp.arange(self.classes + 1, dtype=None if label is None else label.dtype, device=device(W))
        hot = xp.astype((classes == self.classes)[None, :] if label is None else label[:, None] == classes, W.dtype)
        return hot @ W, hot

    def backward(self, params: Params, cache: Any, dy: Array) -> tuple[Adjoints, Grads]:
        """Give a label no adjoint; dW adds up the adjoints of each class."""
        return (None,), {"W": array_namespace(dy).matrix_transpose(cache) @ dy}

    def jvp(self, params: Params, cache: Any, *xdots: Array | None) -> tuple[Array | None, Any]:
        """Give the features no tangent: a label carries none."""
        return None, None

    def jvp_backward(
        self, params: Params, cache: Any, tape: Any, dy: Array | None, dydot: Array
    ) -> tuple[Adjoints, Adjoints, Grads]:
        """Do as `backward`: there are no tangents."""
        return (None,), (None,), zeros(params, self.shapes) if dy is None else self.backward(params, cache, dy)[1]


def condition(classes: int, n_condition: int, n: int) -> list[Row]:
    """The row that makes n features of a network's input "condition", called "told".

    Parameters
    ----------
    classes : int
        Number of classes, of labels; 0 for none.
    n_condition : int
        Number of features of a vector; 0 for none.
    n : int
        Number of features of the answer.

    Returns
    -------
    list of rows
        One row, or none where there is no condition.

    Raises
    ------
    ValueError
        For labels and a vector at once, or negative numbers.
    """
    if check_count("classes", classes, 0) and check_count("n_condition", n_condition, 0):
        raise ValueError(f"a condition is a label or a vector; got classes={classes} and n_condition={n_condition}")
    layer: Any = Labels(classes, n) if classes else Dense(n_condition, n) if n_condition else None
    return [("told", layer, ("condition",))] if layer else []
