"""JAX: the same lines on its arrays; its automatic derivatives are not used."""

from collections.abc import Callable
from typing import Any

import numpy as np

from refscore_backends.base import BackendUnavailable, HostRng, check_seed, dtype_name, host_copy, shape_of
from refscore_backends.recorded.compiled import Compiled
from refscore_backends.recorded.plain import drawn, runner
from refscore_backends.recorded.program import Program, Run, references
from refscore_backends.recorded.structure import Leaves

KIND = "threefry2x32"  # JAX's own default: the same numbers on every device


class JaxBackend:
    """JAX on its default device.

    Parameters
    ----------
    host_noise : bool
        Draw noise with NumPy and move it, so that runs can be compared with the NumPy back
        end number by number. Default False.
    precise : bool
        Set two switches of JAX, for the whole process: float64, which it answers in float32 otherwise, and products
        of float32 matrices in float32, which a GPU rounds to eleven bits otherwise (TF32). Other code of the process
        then makes float64 where it names no dtype. Default True; with False the switches are left as they are, and
        float64 is refused where it is off.

    Raises
    ------
    BackendUnavailable
        Without JAX.
    """

    name = "jax"

    def __init__(self, host_noise: bool = False, precise: bool = True) -> None:
        try:
            import jax
        except ImportError as error:
            raise BackendUnavailable('JAX is not installed: pip install -e ".[jax]" in the checkout') from error
        if precise:
            jax.config.update("jax_enable_x64", True)
            jax.config.update("jax_default_matmul_precision", "highest")
        self.xp = jax.numpy
        self._jax = jax
        self._host_noise = host_noise

    def asarray(self, x: Any, dtype: str | None = None) -> Any:
        """Copy x (an array or numbers) to the default device, as `dtype` if that is given."""
        if not isinstance(x, self._jax.Array):
            x = host_copy(x, dtype)
        return self.xp.array(x, dtype=_allowed(x.dtype if dtype is None else dtype))

    def to_numpy(self, x: Any) -> np.ndarray[Any, Any]:
        """Copy x to the host, as a NumPy array; waits for the device."""
        return np.array(x)

    def rng(self, seed: int) -> Any:
        """Make a `JaxRng`, or with host_noise NumPy's generator with a copy for each draw."""
        seed = check_seed(seed)
        if self._host_noise:
            return HostRng(np.random.default_rng(seed), self.asarray)
        rng = JaxRng(None)
        rng.set_state({"bit_generator": f"jax-{KIND}", "state": f"{seed:016x}"})  # jax.random.key takes 63 bits
        return rng

    def compile(self, function: Callable[..., Any]) -> Compiled:
        """Record the function, and let jax.jit compile the program, its draws in it; the keys go in and come out."""
        return Compiled(function, self._built, lambda: self.rng(0), self._jax.eval_shape, self._scan)

    def _built(self, program: Program) -> Run:
        return _Jitted(self._jax, program, runner(program, self.xp, put=_put, put_into=_put))

    def _scan(self, compiled: Compiled, x: Any, pairs: Any, rng: Any, memory: Any) -> tuple[Any, Any, int]:
        """As many steps as the first one's program is good for, in one loop on the device."""
        taken = Leaves()
        skeleton = taken.take((x, *pairs[0], rng, memory))
        found = compiled.find(taken, skeleton)
        if found is None or not isinstance(rng, JaxRng):
            return x, memory, 0
        program = found[0]
        kinds = [program.tape.values[name] for name in (*program.arrays[: len(taken.arrays)], *_arrays(program.out))]
        if kinds[: len(taken.arrays)] != kinds[len(taken.arrays) :]:  # it does not answer with what it is given
            return x, memory, 0
        assert isinstance(program.run, _Jitted)
        key = (tuple(pairs), tuple(taken.numbers[2:]))
        if program.run.known is None or program.run.known[0] != key:  # the same grid is often walked again
            program.run.known = key, *self._numbers_ahead(program, x, pairs, rng, skeleton, taken.numbers)
        _, steps, stacks = program.run.known
        if len(steps) < 2:
            return x, memory, 0
        arrays = program.run.scan(taken.arrays, compiled.held, stacks, rng)
        x, memory = program.answer(arrays, steps[-1])
        return x, memory, len(steps)

    def _numbers_ahead(
        self, program: Program, x: Any, pairs: Any, rng: Any, skeleton: Any, given: list[float]
    ) -> tuple[list[dict[str, float]], dict[str, Any]]:
        """The numbers of as many steps as the program is good for, known beforehand; and one array of each."""
        steps, answers = list[dict[str, float]](), [program.tape.values[name] for name in program.returned]
        for t, s in pairs:
            given = [t, s, *given[2:]]
            if (numbers := program.numbers(given)) is None:
                break
            steps.append(numbers)
            after = Leaves()
            if after.take((x, t, s, rng, program.answer(answers, numbers)[1]))[1:] != skeleton[1:]:
                break
            given = after.numbers
        types = {n: x.dtype if isinstance(v, float) else None for n, v in steps[0].items()}  # integers stay integers
        used = dict.fromkeys(program.used)
        return steps, {n: self.xp.asarray(np.asarray([step[n] for step in steps]), dtype=types[n]) for n in used}

    def synchronize(self) -> None:
        """Wait until all arrays that there are have been computed."""
        self._jax.block_until_ready(self._jax.live_arrays())

    def device(self) -> str:
        """Return the name of the default device."""
        return str(self._jax.devices()[0].device_kind)


class JaxRng:
    """A key of JAX's with the methods of NumPy's generator: each draw splits it.

    Inside jax.jit the key is an argument, and the key that is left is an answer.

    Parameters
    ----------
    key : jax.Array
        A key of `jax.random.key`; it is replaced at each draw.
    """

    def __init__(self, key: Any) -> None:
        self.key = key

    def standard_normal(self, size: Any = None, dtype: Any = "float64") -> Any:
        """Draw N(0, 1) numbers of shape `size`, in `dtype` (float32 or float64; default float64)."""
        import jax

        return jax.random.normal(*self._split(1), shape_of(size), _allowed(dtype))

    def random(self, size: Any = None, dtype: Any = "float64") -> Any:
        """Draw uniform numbers in [0, 1) of shape `size`, in `dtype` (default float64)."""
        import jax

        return jax.random.uniform(*self._split(1), shape_of(size), _allowed(dtype))

    def integers(self, low: int, high: int, size: Any = None) -> Any:
        """Draw uniform integers in [low, high) of shape `size`."""
        import jax

        return jax.random.randint(*self._split(1), shape_of(size), low, high)

    def spawn(self, n: int) -> "list[JaxRng]":
        """Make n independent generators of the same kind."""
        return [JaxRng(key) for key in self._split(n)]

    def get_state(self) -> dict[str, str]:
        """Write down where the stream is; waits for the device."""
        import jax

        words = np.asarray(jax.random.key_data(self.key)).astype(">u4")
        return {"bit_generator": f"jax-{jax.random.key_impl(self.key)}", "state": words.tobytes().hex()}

    def set_state(self, state: dict[str, str]) -> None:
        """Go on from where `get_state` was called; ValueError for what is no such state."""
        import jax

        words = np.frombuffer(bytes.fromhex(state["state"]), ">u4").astype("uint32")
        self.key = jax.random.wrap_key_data(jax.numpy.asarray(words), impl=state["bit_generator"].removeprefix("jax-"))

    def _split(self, n: int) -> list[Any]:
        """Replace the key by a new one, and make n others."""
        import jax

        self.key, *keys = jax.random.split(self.key, n + 1)
        return keys


class _Jitted:
    """A program compiled by jax.jit: called, one step; `scan`, as many as there are numbers for."""

    def __init__(self, jax: Any, program: Program, body: Callable[..., Any]) -> None:
        self._program = program
        self.known: Any = None  # the last grid that was walked, with its numbers
        places = [program.returned.index(name) for name in _arrays(program.out)]

        def once(arrays: Any, numbers: Any, keys: Any) -> Any:
            rngs = [JaxRng(key) for key in keys]
            return body(arrays, numbers, drawn(program, rngs)), [rng.key for rng in rngs]

        def loop(arrays: Any, held: Any, numbers: Any, keys: Any) -> Any:
            def one(carry: Any, now: Any) -> Any:
                made, keys = once(carry[0] + held, now, carry[1])
                return ([made[i] for i in places], keys), None

            (made, keys), _ = jax.lax.scan(one, (arrays, keys), numbers)
            return [made[places.index(i)] for i in range(len(program.returned))], keys

        self._once, self._loop, self._body = jax.jit(once), jax.jit(loop), jax.jit(body)

    def __call__(self, arrays: list[Any], numbers: dict[str, float], rngs: list[Any]) -> list[Any]:
        """Run it once."""
        if not all(isinstance(rng, JaxRng) for rng in rngs):  # noise of the host
            return list(self._body(arrays, numbers, drawn(self._program, rngs)))
        made, keys = self._once(arrays, numbers, [rng.key for rng in rngs])
        for rng, key in zip(rngs, keys, strict=True):
            rng.key = key
        return list(made)

    def scan(self, arrays: list[Any], held: list[Any], numbers: dict[str, Any], rng: JaxRng) -> list[Any]:
        """Run it again and again, on what it answered, with one row of numbers after the other."""
        made, [rng.key] = self._loop(arrays, held, numbers, [rng.key])
        return list(made)


def _arrays(out: Any) -> list[str]:
    """Names of the arrays of an answer, in the order in which they would be arguments."""
    return [name for name in references(out) if name[0] != "n"]


def _put(x: Any, key: Any, value: Any) -> Any:
    return x.at[key].set(value)


def _allowed(dtype: Any) -> str:
    """The name of a dtype, if JAX's switch allows it: it would answer in float32 without a word."""
    import jax

    name = dtype_name(dtype)
    if name in ("float64", "complex128") and not jax.config.jax_enable_x64:
        raise TypeError('JAX has float64 switched off: jax.config.update("jax_enable_x64", True), or JaxBackend()')
    return str(name)
