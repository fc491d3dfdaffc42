"""What a command says while it works: a progress bar, and streams whose failures do not end the work."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from refscore.checks import check_count

YEAR = 365 * 86400  # seconds


def check_ends(name: str, n: int, least: float) -> int:
    """Refuse work without an end.

    Parameters
    ----------
    name : str
        What the user calls the number.
    n : int
        How many.
    least : float
        Seconds that one takes on any machine, at the least.

    Returns
    -------
    int
        The number.

    Raises
    ------
    ValueError
        For a number below 1, or that would take more than a year.
    """
    if check_count(name, n) * least > YEAR:
        raise ValueError(f"{name}={n} would take {n * least / YEAR:.1g} years on a fast machine: ask for fewer")
    return int(n)


@contextmanager
def progress(steps: int, say: Callable[[str], None]) -> Iterator[Callable[[int, str], None]]:
    """A progress bar with time left: tqdm's where it is installed, else a line every tenth of the way."""
    try:
        from tqdm import tqdm
    except ImportError:
        started = time.perf_counter()

        def show(step: int, words: str) -> None:
            if step * 10 // steps > (step - max(1, steps // 100)) * 10 // steps:
                left = (time.perf_counter() - started) * (steps - step) / step
                say(f"  step {step} of {steps}, {words}, about {left:.0f} s left")

        yield show
        return
    with tqdm(total=steps, file=sys.stderr, unit="step", dynamic_ncols=True) as bar:

        def advance(step: int, words: str) -> None:
            bar.set_postfix_str(words, refresh=False)
            bar.update(step - bar.n)

        yield advance


class Outlet:
    """A text stream that never raises: what its encoding lacks becomes "?", and after a failure it is silent.

    A closed pipe or a full disk at the other end costs what was to be printed, not what was computed.
    """

    def __init__(self, stream: Any) -> None:
        self.stream = stream  # None where the descriptor was closed before Python started
        self.failure: Exception | None = None

    def write(self, text: str) -> int:
        """Write a text; whole lines go out at once, so that a pipe shows them while the work goes on."""
        if self.stream is not None:
            encoding = getattr(self.stream, "encoding", None) or "utf-8"
            self._try(lambda: self.stream.write(text.encode(encoding, "replace").decode(encoding)))
            if "\n" in text:
                self.flush()
        return len(text)

    def flush(self) -> None:
        """Hand on what is buffered."""
        if self.stream is not None:
            self._try(self.stream.flush)

    def _try(self, action: Callable[[], Any]) -> None:
        if self.failure is None:
            try:
                action()
            except (OSError, ValueError) as error:  # ValueError: the stream was closed
                self.failure = error
                self._silence()

    def _silence(self) -> None:
        """What is still buffered goes nowhere, or Python would complain of it when it ends."""
        with suppress(OSError, ValueError, AttributeError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.stream.fileno())
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)
