"""Compiled: a function that is recorded at its first call, and then runs as the program that was written down.

    compiled = Compiled(function, build, rng)         what a back end's `compile` answers with
    compiled(*args)                                   as function(*args), to rounding

A program is good for arguments of the same structure, shapes and dtypes, and where the guards on its numbers hold; for
others the function is recorded once more. What is random goes in as a generator, which is left as the function itself
would leave it.
"""

import functools
import warnings
from collections.abc import Callable, Sequence
from itertools import pairwise
from time import perf_counter
from typing import Any

from array_api_compat import array_namespace

from refscore_backends.recorded.program import Program, Run
from refscore_backends.recorded.structure import Leaves, mapped, put_back
from refscore_backends.recorded.tape import Number, Recorded, RecordedRng, Ref, Tape

MOST = 16  # programs of one signature: beyond, the function depends on its numbers in a way that no program holds


class NotCompiledWarning(UserWarning):
    """The warning that a function runs as it is, since nearly every call would need a program of its own."""


class Compiled:
    """A function, recorded and built once for each signature of its arguments.

    Parameters
    ----------
    function : callable
        Of arrays, numbers, generators and structures of them (tuples, dicts, dataclasses); pure but for the generators.
        It may be a dataclass with `__call__`, or a partial: arrays inside it are arguments too.
    build : callable Program -> callable
        Makes what runs: (arrays, numbers by name, generators) -> arrays.
    rng : callable
        Makes a generator that draws the examples on which the function is recorded.
    example : callable, optional
        Runs the recording with examples of its own: (record, arrays) -> None. By default the arguments are they.
    scan : callable, optional
        The library's own loop: (compiled, x, pairs of times, rng, memory) -> (x, memory, how many steps were taken).
    """

    def __init__(
        self, function: Callable[..., Any], build: Callable[[Program], Run], rng: Callable[[], Any],
        example: Callable[[Callable[[list[Any]], None], list[Any]], None] | None = None,
        scan: Callable[..., Any] | None = None,
    ) -> None:  # fmt: skip
        self.function, self._build, self._rng = function, build, rng
        self._example, self._scan = example, scan
        self._held = Leaves(frozen=True)
        self._skeleton = self._held.take(function)
        self.programs: dict[Any, list[Program]] = {}
        self._given_up = False
        self.say: Callable[[str], None] | None = None  # takes a line about each first call
        functools.update_wrapper(self, function, updated=())

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["function"], name)

    def __reduce__(self) -> Any:
        """Pickled and copied as the function itself, which another process may compile again."""
        return _itself, (self.function,)

    def __call__(self, *args: Any) -> Any:
        """As the function, to rounding."""
        leaves, began = Leaves(), perf_counter()
        skeleton = leaves.take(args)
        inside = any(isinstance(a, Recorded) for a in leaves.arrays)  # of another function that is being recorded
        if inside or (found := self.find(leaves, skeleton)) is None:
            return self.function(*args)
        program, numbers = found
        assert program.run is not None
        made = program.answer(program.run(leaves.arrays + self.held, numbers, leaves.rngs), numbers)
        if program.first is None:
            program.first = perf_counter() - began
            if self.say is not None:
                self.say(f"compiled {self._name}: its first call took {program.first:.2g} s")
        return made

    @property
    def _name(self) -> str:
        function = self.function.func if isinstance(self.function, functools.partial) else self.function
        return getattr(function, "__name__", type(function).__name__).strip("_")

    @property
    def held(self) -> list[Any]:
        """The arrays that the function has in itself; they are given to a program after those of the arguments."""
        return self._held.arrays

    def find(self, leaves: Leaves, skeleton: Any) -> tuple[Program, dict[str, float]] | None:
        """The program for arguments that were taken apart, recorded now if there is none, and its numbers.

        Parameters
        ----------
        leaves : Leaves
            Arrays, numbers and generators of the arguments.
        skeleton : object
            The arguments without them.

        Returns
        -------
        (Program, dict) or None
            What holds for these numbers, and what it computes from them; None where the function is given up.
        """
        if self._given_up:
            return None
        key = (skeleton, tuple((a.shape, a.dtype) for a in leaves.arrays))
        programs = self.programs.setdefault(key, [])
        for program in programs:
            if (numbers := program.numbers(leaves.numbers)) is not None:
                return program, numbers
        if len(programs) >= MOST:
            self._give_up()
            return None
        program = self._record(skeleton, leaves, leaves.arrays + self.held)
        programs.append(program)
        numbers = program.numbers(leaves.numbers)
        assert numbers is not None, "a program must hold for the numbers it was recorded with"
        return program, numbers

    def walk(self, x: Any, times: Sequence[float], rng: Any) -> Any:
        """The last state of a step (x, t, s, rng, memory) -> (x, memory) along a grid of times.

        Where the library has a loop of its own, as JAX's `scan`, steps of one program are taken in it, and the host has
        nothing to do between them.

        Parameters
        ----------
        x : Array, shape (B, ...)
            Samples at times[0].
        times : sequence of float
            Strictly monotone, in [0, 1].
        rng : Rng
            All randomness.

        Returns
        -------
        Array, shape (B, ...)
            The samples at times[-1].
        """
        pairs, memory = list(pairwise(times)), None
        while pairs:
            done = 0
            if self._scan is not None:
                x, memory, done = self._scan(self, x, pairs, rng, memory)
            if not done:
                (x, memory), done = self(x, *pairs[0], rng, memory), 1
            pairs = pairs[done:]
        return x

    def _give_up(self) -> None:
        self._given_up = True
        warnings.warn(
            f"{self._name} looks at the value of a number in a "
            f"way that needs a program for each: after {MOST} of them it runs as it is; compile its score alone",
            NotCompiledWarning,
            stacklevel=4,
        )

    def _record(self, skeleton: Any, leaves: Leaves, arrays: list[Any]) -> Program:
        made: list[Program] = []

        def record(examples: list[Any]) -> None:
            tape = Tape(array_namespace(*examples) if examples else None)
            names = [tape.fresh("a") for _ in examples]
            given = [tape.fresh("n") for _ in leaves.numbers]
            stand_ins = [Recorded(tape, n, a) for n, a in zip(names, examples, strict=True)]
            numbers = [Number(tape, n, v) for n, v in zip(given, leaves.numbers, strict=True)]
            tape.generators = len(leaves.rngs)
            rngs = [RecordedRng(tape, i, self._rng()) for i in range(tape.generators)]
            own = len(leaves.arrays)
            function = put_back(self._skeleton, stand_ins[own:], [], [])
            args = put_back(skeleton, stand_ins[:own], numbers, rngs)
            answer = function(*args)
            returned: list[str] = []

            def named(leaf: Any) -> Any:
                if isinstance(leaf, RecordedRng):
                    raise TypeError("a compiled function does not answer with a generator: it has been given it")
                if isinstance(leaf, Recorded) and leaf.name not in returned:
                    returned.append(leaf.name)
                return Ref(leaf.name) if isinstance(leaf, (Recorded, Number)) else leaf

            out = mapped(answer, named)
            used = [r for line in tape.lines for r in line.refs() if r[0] == "n"]
            made.append(Program(tape, names, given, out, returned, used))

        if self._example is None:
            record(arrays)
        else:
            self._example(record, arrays)
        program = made[0]
        program.run = self._build(program)
        return program


def _itself(function: Any) -> Any:
    return function
