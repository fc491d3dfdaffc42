"""A mistake as a reader would make it: one line of a right program, written otherwise."""

import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any


@dataclass(frozen=True)
class Mistake:
    """One edit of one line that leaves a program running and makes its results wrong.

    Parameters
    ----------
    name : str
        In words with hyphens, "beta-for-beta-tilde"; unique in the museum.
    kind : str
        What it is made in: "sampler", "loss", "schedule", "likelihood", "score" or "layer".
    old, new : str
        The text as it should be and as it was written. It can be made in every specimen that has `old` exactly once.
    says : str
        What is wrong, in one sentence, as the clinic says it.
    sees : str
        What its owner sees: in pictures, losses or numbers.
    origin : str
        Where it was made: a project and issue, a paper, or "textbook" where it is a classic without a place.
    only : tuple of str, optional
        Names of the specimens it is shown in; by default all that have `old` once.
    """

    name: str
    kind: str
    old: str
    new: str
    says: str
    sees: str
    origin: str
    only: tuple[str, ...] = ()


@cache
def source(specimen: Callable[..., Any]) -> str:
    """Return the text of a specimen, at the left margin and without its docstring.

    Parameters
    ----------
    specimen : callable
        A function of the museum.

    Returns
    -------
    str
        Its source, from `def` on.
    """
    text = textwrap.dedent(inspect.getsource(specimen))
    if specimen.__doc__:
        head, _, rest = text.partition('"""')
        text = head.rstrip() + rest.partition('"""')[2]
    return text


def fits(mistake: Mistake, specimen: Callable[..., Any]) -> bool:
    """Whether the mistake can be made in the specimen.

    Parameters
    ----------
    mistake : Mistake
        The edit.
    specimen : callable
        A function of the museum.

    Returns
    -------
    bool
        True where `old` stands in its text exactly once, and `only` does not say otherwise.
    """
    return source(specimen).count(mistake.old) == 1 and (not mistake.only or specimen.__name__ in mistake.only)


def plant(mistake: Mistake, specimen: Callable[..., Any]) -> Callable[..., Any]:
    """Return the specimen with the mistake in it.

    Parameters
    ----------
    mistake : Mistake
        The edit.
    specimen : callable
        A function of the museum; it stays as it is.

    Returns
    -------
    callable
        A function of the same name and arguments.

    Raises
    ------
    ValueError
        If it does not fit.
    """
    if not fits(mistake, specimen):
        raise ValueError(f"{mistake.name} cannot be made in {specimen.__name__}: {mistake.old!r} must stand there once")
    space = dict(specimen.__globals__)
    text = source(specimen).replace(mistake.old, mistake.new)
    exec(compile(text, f"<{specimen.__name__} with {mistake.name}>", "exec"), space)
    return space[specimen.__name__]
