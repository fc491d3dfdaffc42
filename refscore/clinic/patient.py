"""Runs a patient's code on prepared numbers: its network answers what it is told to, its noise is ours.

Torch's, NumPy's and JAX's random functions are replaced while the patient runs, so that code which draws by itself is
served as well; two draws from one state of a generator get one noise, as they would.
"""

import hashlib
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from typing import Any
from unittest.mock import patch

import numpy as np

from refscore.clinic.arrays import HostArray, host, made, place


@dataclass
class Run:
    """What was seen of one run of a sampler.

    Parameters
    ----------
    answer : callable (k, x) -> array
        The network's answer to its k-th call.
    noise : callable (j, shape) -> array
        The j-th draw.
    states : list of arrays, default empty
        The x of each call of the network, on the host.
    labels : list of floats, default empty
        What it was told.
    draws : list of tuples, default empty
        Of each draw its kind and its shape.
    served : dict, default empty
        Draws by the state of the generator.
    repeated : int, default 0
        How often a state came again.
    end : array, optional
        What the patient returned.
    """

    answer: Callable[[int, HostArray], HostArray]
    noise: Callable[[int, tuple[int, ...]], HostArray]
    states: list[HostArray] = field(default_factory=list)
    labels: list[Any] = field(default_factory=list)
    draws: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)
    served: dict[Any, int] = field(default_factory=dict)
    repeated: int = 0
    end: HostArray | None = None

    def reply(self, x: HostArray, label: HostArray) -> HostArray:
        """The network's answer to x."""
        k = len(self.states)
        self.states.append(np.array(x, dtype=np.float64))
        self.labels.append(np.asarray(label, dtype=np.float64).reshape(-1))
        return self.answer(k, self.states[-1])

    def draw(self, kind: str, shape: tuple[int, ...], token: Any = None) -> HostArray:
        """Noise of mean 0 and variance 1 for one draw; uniform numbers get the same mean and variance as theirs."""
        if token is not None and (token, shape) in self.served:
            j, self.repeated = self.served[token, shape], self.repeated + 1
        else:
            j = len(self.draws)
            self.draws.append((kind, shape))
            if token is not None:
                self.served[token, shape] = j
        z = np.asarray(self.noise(j, shape), dtype=np.float64)
        return z if kind == "normal" else 0.5 + z / 12**0.5


ACTIVE: list[Run] = []  # the run going on, looked up late: compiled functions outlive a run


class Model:
    """The network that a patient is given: model(x, label) on its own arrays."""

    def __call__(self, x: Any, label: Any, *args: Any, **kwargs: Any) -> Any:
        """Answer in the library, dtype and device of x."""
        if type(x).__name__.endswith("Tracer") or type(label).__name__.endswith("Tracer"):
            jax = import_module("jax")
            reply = lambda x, label: ACTIVE[-1].reply(x, label).astype(x.dtype)  # noqa: E731
            shape = jax.ShapeDtypeStruct(x.shape, x.dtype)  # once a call: io_callback, since a pure one may run twice
            return import_module("jax.experimental").io_callback(reply, shape, x, jax.numpy.asarray(label))
        return place(ACTIVE[-1].reply(host(x), host(label)), x)


class ReplayedGenerator(np.random.Generator):
    """A NumPy generator whose normal and uniform numbers are the clinic's.

    Parameters
    ----------
    seed : object, optional
        Two generators of one seed serve the same numbers.
    """

    def __init__(self, seed: Any = None) -> None:
        super().__init__(np.random.PCG64(0))
        self.seed, self.count = seed, 0

    def _draw(self, kind: str, size: Any, dtype: Any = np.float64) -> Any:
        self.count += 1
        token = None if self.seed is None else ("numpy", str(self.seed), self.count)
        shape = () if size is None else (size,) if isinstance(size, int) else tuple(size)
        return ACTIVE[-1].draw(kind, shape, token).astype(dtype)[()]

    def standard_normal(self, size: Any = None, dtype: Any = np.float64, out: Any = None) -> Any:
        """The clinic's normal numbers."""
        return self._draw("normal", size, dtype)

    def normal(self, loc: Any = 0.0, scale: Any = 1.0, size: Any = None) -> Any:
        """The clinic's normal numbers, moved and scaled."""
        return loc + scale * self._draw("normal", size if size is not None else np.broadcast(loc, scale).shape)

    def random(self, size: Any = None, dtype: Any = np.float64, out: Any = None) -> Any:
        """The clinic's uniform numbers."""
        return self._draw("uniform", size, dtype)

    def uniform(self, low: Any = 0.0, high: Any = 1.0, size: Any = None) -> Any:
        """The clinic's uniform numbers in [low, high)."""
        return low + (high - low) * self._draw("uniform", size)


def walk(run: Callable[[Any, Any, Any], Any], x: HostArray, answer: Any, noise: Any, library: str, device: Any) -> Run:
    """Run a patient once.

    Parameters
    ----------
    run : callable (model, x, rng) -> x
        The patient.
    x : array, shape (B, ...)
        Its start, on the host.
    answer, noise : callable
        As of `Run`.
    library : str
        Whose arrays it takes.
    device : object
        Of torch.

    Returns
    -------
    Run
        What was seen.
    """
    seen = Run(answer, noise)
    ACTIVE.append(seen)
    try:
        with replaced(), np.errstate(all="ignore"):  # the patient's own affair; what is not finite is seen
            seen.end = host(run(Model(), made(x, library, device), generator(library, device)))
    finally:
        ACTIVE.pop()
    return seen


def generator(library: str, device: Any) -> Any:
    """Return the patient's source of randomness: NumPy's generator, or torch's with NumPy's methods as well.

    Parameters
    ----------
    library : str
        One of `LIBRARIES`.
    device : object
        Of torch.

    Returns
    -------
    Generator
        Which serves the clinic's numbers.
    """
    if library != "torch":
        return ReplayedGenerator()
    torch = import_module("torch")
    replay = ReplayedGenerator()

    class TorchGenerator(torch.Generator):  # type: ignore[misc, name-defined]
        """Torch's generator, which can be asked as NumPy's can."""

        def __getattr__(self, name: str) -> Any:
            method = getattr(replay, name)
            return lambda *args, **kwargs: torch.as_tensor(method(*args, **kwargs))

    return TorchGenerator(device=device or "cpu")


@contextmanager
def replaced() -> Iterator[None]:
    """Serve the clinic's numbers, within, by the random functions of the libraries that are loaded.

    Yields
    ------
    None
        Nothing.
    """
    with ExitStack() as stack:
        for name, function in _numpy().items():
            stack.enter_context(patch.object(np.random, name, function))
        if "jax" in sys.modules:
            random = import_module("jax").random
            for name, kind in (("normal", "normal"), ("uniform", "uniform")):
                stack.enter_context(patch.object(random, name, partial(_jax, getattr(random, name), kind)))
        if "torch" in sys.modules:
            stack.enter_context(_torch_mode())
        yield


def _numpy() -> dict[str, Any]:
    replay = ReplayedGenerator()
    return {
        "randn": lambda *shape: replay.standard_normal(shape or None), "standard_normal": replay.standard_normal,
        "normal": replay.normal, "rand": lambda *shape: replay.random(shape or None), "random": replay.random,
        "random_sample": replay.random, "uniform": replay.uniform, "default_rng": ReplayedGenerator,
    }  # fmt: skip


def _jax(original: Any, kind: str, key: Any, shape: Any = (), dtype: Any = None, *args: Any, **kwargs: Any) -> Any:
    """One draw of JAX's, by its key: the same key, the same noise."""
    jax = import_module("jax")
    like = jax.eval_shape(lambda k: original(k, shape, *(() if dtype is None else (dtype,))), key)
    data = jax.random.key_data(key)
    draw = lambda k: ACTIVE[-1].draw(kind, tuple(like.shape), bytes(np.asarray(k))).astype(like.dtype)  # noqa: E731
    if type(key).__name__.endswith("Tracer"):
        z = import_module("jax.experimental").io_callback(draw, like, data)
    else:
        z = jax.numpy.asarray(draw(data))
    bounds = [*args, kwargs.get("minval", 0.0), kwargs.get("maxval", 1.0)][:2]
    return z if kind == "normal" else bounds[0] + (bounds[1] - bounds[0]) * z


def _torch_mode() -> Any:
    torch = import_module("torch")
    kinds = {
        torch.randn: "normal", torch.randn_like: "normal", torch.normal: "normal", torch.Tensor.normal_: "normal",
        torch.rand: "uniform", torch.rand_like: "uniform", torch.Tensor.uniform_: "uniform",
    }  # fmt: skip

    class Mode(import_module("torch.overrides").TorchFunctionMode):  # type: ignore[misc]
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            if function not in kinds:
                return function(*args, **kwargs)
            given = kwargs.get("generator")
            states = [given.get_state()] if given is not None else [torch.get_rng_state()]
            if given is None and torch.cuda.is_initialized():  # each device draws from a generator of its own
                states += torch.cuda.get_rng_state_all()
            out = function(*args, **kwargs)  # advances the generator, and knows shape, dtype and device
            token = hashlib.sha1(b"".join(state.cpu().numpy().tobytes() for state in states)).digest()
            z = torch.as_tensor(ACTIVE[-1].draw(kinds[function], tuple(out.shape), token), dtype=out.dtype)
            z = z.to(out.device)
            if function is torch.normal:
                mean, std = (torch.as_tensor(v, device=out.device) for v in (*args, 0.0, 1.0)[:2])
                z = kwargs.get("mean", mean) + kwargs.get("std", std) * z
            elif function in (torch.Tensor.normal_, torch.Tensor.uniform_):
                low, high = (*args[1:], *(0.0, 1.0)[len(args) - 1 :])[:2]
                low, high = kwargs.get("mean", kwargs.get("from", low)), kwargs.get("std", kwargs.get("to", high))
                return out.copy_(low + (high if kinds[function] == "normal" else high - low) * z)
            return z.requires_grad_(out.requires_grad)

    return Mode()
