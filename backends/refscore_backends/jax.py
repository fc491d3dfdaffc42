"""JAX: the same lines on its arrays; its automatic derivatives are not used."""

from typing import Any

import numpy as np

from refscore_backends.base import BackendUnavailable, HostRng, check_seed, dtype_name, host_copy

KIND = "threefry2x32"  # JAX's own default: the same numbers on every device


class JaxBackend:
    """JAX on its default device.

    Parameters
    ----------
    host_noise : bool
        Draw noise with NumPy and move it, so that runs can be compared with the NumPy back
        end number by number. Default False.
    x64 : bool
        Switch float64 on, for the whole process: JAX answers in float32 otherwise. What is made without a dtype, in
        other code of the process too, is then float64. Default True; with False the switch is left as it is, and where
        it is off float64 is refused.

    Raises
    ------
    BackendUnavailable
        Without JAX.
    """

    name = "jax"

    def __init__(self, host_noise: bool = False, x64: bool = True) -> None:
        try:
            import jax
        except ImportError as error:
            raise BackendUnavailable('JAX is not installed: pip install -e ".[jax]" in the checkout') from error
        if x64:
            jax.config.update("jax_enable_x64", True)
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

        return jax.random.normal(*self._split(1), _shape(size), _allowed(dtype))

    def random(self, size: Any = None, dtype: Any = "float64") -> Any:
        """Draw uniform numbers in [0, 1) of shape `size`, in `dtype` (default float64)."""
        import jax

        return jax.random.uniform(*self._split(1), _shape(size), _allowed(dtype))

    def integers(self, low: int, high: int, size: Any = None) -> Any:
        """Draw uniform integers in [low, high) of shape `size`."""
        import jax

        return jax.random.randint(*self._split(1), _shape(size), low, high)

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


def _allowed(dtype: Any) -> str:
    """The name of a dtype, if JAX's switch allows it: it would answer in float32 without a word."""
    import jax

    name = dtype_name(dtype)
    if name in ("float64", "complex128") and not jax.config.jax_enable_x64:
        raise TypeError('JAX has float64 switched off: jax.config.update("jax_enable_x64", True), or JaxBackend()')
    return str(name)


def _shape(size: Any) -> tuple[int, ...]:
    return () if size is None else (size,) if isinstance(size, int) else tuple(size)
