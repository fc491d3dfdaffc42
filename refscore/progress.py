"""Progress: a bar with the time left, where tqdm is installed; else a line every tenth of the way."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


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
