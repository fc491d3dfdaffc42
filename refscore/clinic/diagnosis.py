"""What the clinic answers: plain data that prints well, and an assertion for somebody's own tests."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from refscore.data.files import as_json

RIGHT, WRONG, UNKNOWN = "right", "wrong", "unknown"
ROUNDING = 1e-9  # relative
STATUS = {RIGHT: 0, WRONG: 1, UNKNOWN: 3}  # of the command; 2 is a call that makes no sense


def near(error: float) -> str:
    """Say how near something is: errors of rounding differ from machine to machine.

    Parameters
    ----------
    error : float
        Relative.

    Returns
    -------
    str
        "to rounding" or "to 3e-05".
    """
    return "to rounding" if error < ROUNDING else f"to {error:.1g}"


@dataclass(frozen=True)
class Cause:
    """One explanation of what was found.

    Parameters
    ----------
    name : str
        Name of the mistake, as in the museum; or a word for a reading that is no exhibit.
    says : str
        What is wrong, in a sentence.
    error : float, default NaN
        How far the patient is from a program with just this mistake, relative; 0 is the same to rounding, NaN says that
        it was seen in another way.
    effect : str, default ""
        What it does to the results, with its size.
    page : str, default ""
        Where to read about it; by default its place in the catalogue, docs/mistakes.md#name.
    """

    name: str
    says: str
    error: float = math.nan
    effect: str = ""
    page: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "page", self.page or f"docs/mistakes.md#{self.name}")


@dataclass(frozen=True)
class Diagnosis:
    """What was found out about a patient.

    Parameters
    ----------
    kind : str
        "sampler", "loss", "schedule", "likelihood", "score" or "derivatives".
    verdict : str
        "right", "wrong", or "unknown" where neither could be said.
    name : str
        What it is, or what it is nearest to: "ddim", "linear", "denoising, λ = σ²".
    findings : tuple of str
        Sentences, the most important first.
    causes : tuple of Cause, default ()
        What may be wrong, the most likely first; of a right patient none, but for cautions: what is right for some
        data alone.
    numbers : mapping of str to numbers, strings or lists of them, default empty
        What was measured.
    assumed : tuple of str, default ()
        What was taken for granted.
    also : tuple of str, default ()
        Other names of the same thing.

    Examples
    --------
    >>> from refscore.clinic import Diagnosis
    >>> found = Diagnosis("sampler", "right", "ddim", ("DDIM with eta 0, to 3e-15",))
    >>> print(found)
    sampler: right (ddim)
      DDIM with eta 0, to 3e-15
    >>> found.assert_is("ddim")
    """

    kind: str
    verdict: str
    name: str
    findings: tuple[str, ...]
    causes: tuple[Cause, ...] = ()
    numbers: Mapping[str, Any] = field(default_factory=dict)
    assumed: tuple[str, ...] = ()
    also: tuple[str, ...] = ()

    @property
    def status(self) -> int:
        """Exit status of `refscore check`: 0 right, 1 wrong, 3 unknown."""
        return STATUS[self.verdict]

    def assert_is(self, name: str | None = None) -> None:
        """Say nothing where the patient is right, and is `name` if that is given.

        Parameters
        ----------
        name : str, optional
            What it should be, as `name` or `also` has it; by default anything that is right.

        Raises
        ------
        AssertionError
            With the whole diagnosis, where it is not.
        """
        if self.verdict != RIGHT or name not in (None, self.name, *self.also):
            raise AssertionError(f"expected {name or 'what is right'}, found\n{self}")

    def json(self) -> str:
        """Return the diagnosis as JSON."""
        return as_json(asdict(self) | {"status": self.status})

    def __str__(self) -> str:
        """Return the report that people read."""
        lines = [f"{self.kind}: {self.verdict}" + (f" ({self.name})" if self.name else "")]
        lines += [f"  {sentence}" for sentence in self.findings]
        for i, cause in enumerate(self.causes, start=1):
            off = "to rounding" if cause.error < ROUNDING else f"off by {cause.error:.1g}"
            lines.append(f"  {i}. {cause.name}: {cause.says}" + ("" if math.isnan(cause.error) else f" ({off})"))
            lines += [f"     effect: {cause.effect}"] * bool(cause.effect) + [f"     read: {cause.page}"]
        lines += [f"  assumed: {sentence}" for sentence in self.assumed]
        return "\n".join(lines)
