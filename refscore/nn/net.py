"""Net: a small graph of layers, evaluated forwards and backwards. Chapter 14.                   Eqs. (14.2), (14.8).

MLP and U-Net are lists of rows (name, layer, inputs). The four passes are written once, here:
skip connections, concatenations and a noise embedding that enters every block are rows like any
other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from refscore.checks import check_like
from refscore.nn.dropout import Dropout
from refscore.nn.layer import Adjoints, Grads, Jet, Layer, Row, plus, zeros
from refscore.protocols import Array, HasJets, Params, ReadsLabels, Rng

INPUTS = ("x", "level", "condition", "uniform")  # of a whole net, in the order in which it takes them


@dataclass(frozen=True)
class Net:
    """A layer made of layers.

    Parameters
    ----------
    rows : sequence of (name, layer, names of its inputs)
        In an order in which every input is known before it is used. The inputs of the whole are
        "x", and of "level" (the noise), "condition" (a label or a vector) and "uniform" (numbers from which dropout
        makes its masks) those that a row reads; the output is that of the last row. A parameter W of row
        "block1" is called "block1.W".

    Raises
    ------
    ValueError
        If there are no rows; if a row reads a name that no earlier row gives, or takes a name that is taken.

    Examples
    --------
    A skip connection, y = x + (x W + b), here with W = 2 and b = 0:

    >>> import numpy as np
    >>> from refscore.nn import Add, Dense, Net
    >>> net = Net([("dense", Dense(1, 1), ("x",)), ("sum", Add(), ("x", "dense"))])
    >>> y, cache = net.forward({"dense.W": np.array([[2.0]]), "dense.b": np.array([0.0])}, np.array([[5.0]]))
    >>> y
    array([[15.]])
    """

    rows: Sequence[Row]

    def __post_init__(self) -> None:
        known = set(INPUTS)
        for name, _, inputs in self.rows:
            if missing := [i for i in inputs if i not in known]:
                raise ValueError(f"row {name!r} reads {missing}, which no earlier row gives")
            if name in known:
                raise ValueError(f"two rows are called {name!r}")
            known.add(name)
        if not self.rows:
            raise ValueError("a net needs at least one row")

    def keep(self, **arguments: Any) -> None:
        """Remember the arguments of a subclass's constructor: a checkpoint stores them instead of the rows."""
        object.__setattr__(self, "arguments", arguments)

    def __repr__(self) -> str:
        given = getattr(self, "arguments", {"rows": self.rows})
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in given.items())})"

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs: "x", and those of "level", "condition" and "uniform" that a row reads."""
        return tuple(i for i in INPUTS if i == "x" or any(i in inputs for _, _, inputs in self.rows))

    def check_condition(self, condition: Array | None) -> None:
        """Raise ValueError for a condition that a row which reads it cannot use; the layers say which.

        Parameters
        ----------
        condition : Array or None
            Labels or vectors; None where there are none.
        """
        for _, layer, inputs in self.rows:
            if "condition" in inputs and isinstance(layer, ReadsLabels):
                layer.check_labels(condition)
            elif "condition" in inputs and condition is None:
                raise ValueError("the body reads a vector as its condition: give one, model.bind(theta, condition)")

    @property
    def uniforms(self) -> int:
        """How many uniform numbers a sample its dropouts read: the columns of the input "uniform"; 0 without one."""
        return max((layer.offset + layer.n for _, layer, _ in self.rows if isinstance(layer, Dropout)), default=0)

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Dotted name -> shape of every parameter, row by row."""
        return {f"{name}.{key}": shape for name, layer, _ in self.rows for key, shape in layer.shapes.items()}

    def init(self, rng: Rng, dtype: Any = "float32") -> Grads:
        """Draw the initial parameters of every row, in the order of the rows, under their dotted names."""
        check_like(rng=rng)
        return {f"{name}.{key}": value for name, layer, _ in self.rows for key, value in layer.init(rng, dtype).items()}

    def forward(self, params: Params, *xs: Any) -> tuple[Array, Any]:
        """x (B, ...) and what else is read -> y, and the cache: a list of every row's cache.

        The level is (B,) or (1,), labels (B,) or (1,), a vector (B or 1, n_condition); the uniform numbers are
        (B, uniforms), or None where nothing is to be left out.
        """
        values = dict(zip(self.inputs, xs, strict=True))
        caches = []
        for name, layer, inputs in self.rows:
            values[name], cache = layer.forward(_own(params, name, layer), *(values[i] for i in inputs))
            caches.append(cache)
        return values[self._last], caches

    def apply(self, params: Params, *xs: Any) -> Array:
        """Evaluate y as `forward` does, without a cache: each array is freed after its last reader.

        On large batches that saves a fifth of the time: recently used memory is near the processor.
        """
        values = dict(zip(self.inputs, xs, strict=True))
        for n, (name, layer, inputs) in enumerate(self.rows):
            values[name] = layer.forward(_own(params, name, layer), *(values[i] for i in inputs))[0]
            for i in set(inputs):
                if self._last_reader[i] == n:
                    del values[i]
        return values[self._last]

    def backward(self, params: Params, cache: Any, dy: Array) -> tuple[Adjoints, Grads]:
        """Adjoints of the inputs and the gradients: rows in reverse order; the adjoints of all readers are added."""
        d: dict[str, Array | None] = {self._last: dy}
        grads: Grads = {}
        for (name, layer, inputs), kept in zip(reversed(self.rows), reversed(cache), strict=True):
            own = _own(params, name, layer)
            dxs: Adjoints
            if (dv := d.pop(name, None)) is None:
                dxs, own_grads = (None,) * len(inputs), zeros(own, own)
            else:
                dxs, own_grads = layer.backward(own, kept, dv)
            _collect(d, grads, name, inputs, dxs, own_grads)
        return tuple(d.get(i) for i in self.inputs), grads

    def jvp(self, params: Params, cache: Any, *xdots: Array | None) -> tuple[Array | None, Any]:
        """Tangents (K, ...) of the inputs -> tangents of y, row by row; rows that no tangent reaches are skipped."""
        dots = dict(zip(self.inputs, xdots, strict=True))
        tapes: list[Any] = []
        for (name, layer, inputs), kept in zip(self.rows, cache, strict=True):
            own = [dots[i] for i in inputs]
            if all(dot is None for dot in own):
                dots[name], tape = None, None
            else:
                dots[name], tape = layer.jvp(_own(params, name, layer), kept, *own)
            tapes.append(tape)
        return dots[self._last], tapes

    def jvp_backward(
        self, params: Params, cache: Any, tape: Any, dy: Array | None, dydot: Array
    ) -> tuple[Adjoints, Adjoints, Grads]:
        """Adjoints of inputs and tangents: the rows in reverse order, as `backward` where no tangent is."""
        d: dict[str, Array | None] = {self._last: dy}
        ddot: dict[str, Array | None] = {self._last: dydot}
        grads: Grads = {}
        for (name, layer, inputs), kept, taped in zip(
            reversed(self.rows), reversed(cache), reversed(tape), strict=True
        ):
            own, dv, dvdot = _own(params, name, layer), d.pop(name, None), ddot.pop(name, None)
            none: Adjoints = (None,) * len(inputs)
            if taped is not None and dvdot is not None:
                dxs, dxdots, own_grads = layer.jvp_backward(own, kept, taped, dv, dvdot)
            elif dv is not None:
                (dxs, own_grads), dxdots = layer.backward(own, kept, dv), none
            else:
                dxs, dxdots, own_grads = none, none, zeros(own, own)
            _collect(d, grads, name, inputs, dxs, own_grads)
            _collect(ddot, {}, name, inputs, dxdots, {})
        return tuple(d.get(i) for i in self.inputs), tuple(ddot.get(i) for i in self.inputs), grads

    def jet(self, params: Params, cache: Any, us: Adjoints, vs: Adjoints, ws: Adjoints) -> tuple[Jet, Any]:
        """Second-order tangents of the inputs -> those of y, row by row; rows that none reaches are skipped.

        Raises
        ------
        TypeError
            For a row whose layer has no jets.
        """
        jets: dict[str, Jet] = dict(zip(self.inputs, zip(us, vs, ws, strict=True), strict=True))
        tapes: list[Any] = []
        for (name, layer, inputs), kept in zip(self.rows, cache, strict=True):
            own = [jets[i] for i in inputs]
            if all(u is None for u, _, _ in own):
                jets[name], tape = (None, None, None), None
            else:
                jets[name], tape = _jets(name, layer).jet(_own(params, name, layer), kept, *zip(*own, strict=True))
            tapes.append(tape)
        return jets[self._last], tapes

    def jet_backward(
        self, params: Params, cache: Any, tape: Any, dy: Array | None, djet: Jet
    ) -> tuple[Adjoints, tuple[Adjoints, Adjoints, Adjoints], Grads]:
        """Adjoints of the inputs and of their second-order tangents: the rows in reverse order."""
        d: dict[str, Array | None] = {self._last: dy}
        djets: list[dict[str, Array | None]] = [{self._last: a} for a in djet]
        grads: Grads = {}
        for (name, layer, inputs), kept, taped in zip(
            reversed(self.rows), reversed(cache), reversed(tape), strict=True
        ):
            own, dv = _own(params, name, layer), d.pop(name, None)
            dyu, dyv, dyw = (each.pop(name, None) for each in djets)
            none: Adjoints = (None,) * len(inputs)
            below = none, none, none
            if taped is not None and not (dyu is None and dyv is None and dyw is None):
                dxs, below, own_grads = _jets(name, layer).jet_backward(own, kept, taped, dv, (dyu, dyv, dyw))
            elif dv is not None:
                dxs, own_grads = layer.backward(own, kept, dv)
            else:
                dxs, own_grads = none, zeros(own, own)
            _collect(d, grads, name, inputs, dxs, own_grads)
            for each, adjoints in zip(djets, below, strict=True):
                _collect(each, {}, name, inputs, adjoints, {})
        du, dv_, dw = (tuple(each.get(i) for i in self.inputs) for each in djets)
        return tuple(d.get(i) for i in self.inputs), (du, dv_, dw), grads

    @cached_property
    def _last_reader(self) -> dict[str, int]:
        return {i: n for n, (_, _, inputs) in enumerate(self.rows) for i in inputs}

    @property
    def _last(self) -> str:
        return self.rows[-1][0]


def _jets(name: str, layer: Layer) -> HasJets:
    """The layer, if it has the two passes for third derivatives."""
    if not isinstance(layer, HasJets):
        raise TypeError(
            f"row {name!r}: {type(layer).__name__} has no passes jet and jet_backward, which the divergence of an "
            "energy's score needs (third derivatives): train this energy with Denoising, Explicit or FiniteDifference"
        )
    return layer


def _own(params: Params, name: str, layer: Layer) -> Grads:
    """The parameters of one row, without its prefix."""
    return {key: params[f"{name}.{key}"] for key in layer.shapes}


def _collect(
    d: dict[str, Array | None], grads: Grads, name: str, inputs: Sequence[str], dxs: Adjoints, own: Grads
) -> None:
    for i, dx in zip(inputs, dxs, strict=True):
        d[i] = plus(d.get(i), dx)
    grads.update({f"{name}.{key}": value for key, value in own.items()})
