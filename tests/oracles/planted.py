"""Every mistake of a kind in every specimen that it fits."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from refscore.clinic.diagnosis import Diagnosis
from refscore.museum.mistake import Mistake, fits


def planted(mistakes: Sequence[Mistake], specimens: Sequence[Callable[..., Any]]) -> Any:
    """The argument of `pytest.mark.parametrize(("mistake", "specimen"), ...)`."""
    pairs = [(m, s) for m in mistakes for s in specimens if fits(m, s)]
    return [pytest.param(m, s, id=f"{m.name} in {s.__name__}") for m, s in pairs]


def assert_named(found: Diagnosis, mistake: Mistake) -> None:
    """Something is wrong, and this is among the first three causes."""
    assert found.verdict == "wrong", f"{found}"
    assert mistake.name in [cause.name for cause in found.causes[:3]], f"{found}"


def assert_right(found: Diagnosis) -> None:
    """It is right, and says so in words and in JSON."""
    found.assert_is()
    assert "right" in str(found)
    assert '"status": 0' in found.json()
