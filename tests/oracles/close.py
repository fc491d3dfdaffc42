"""One comparison for all tests: what is close, and what is printed where it is not."""

from typing import Any

import numpy as np


def assert_close(found: Any, wanted: Any, scale: Any, why: object = "") -> None:
    """|found - wanted| <= scale at every place, NaN nowhere; scale is an array or a number, and `why` its reason.

    Where it does not hold, the worst place is told: the one furthest out as a multiple of its own scale.
    """
    found, wanted, scale = np.broadcast_arrays(*(np.asarray(each) for each in (found, wanted, scale)))
    apart = np.abs(found - wanted)
    out = ~(apart <= scale)
    if np.any(out):
        with np.errstate(all="ignore"):
            excess = np.where(np.isnan(apart), np.inf, apart / scale)
        place = np.unravel_index(np.argmax(np.where(out, excess, -1.0)), out.shape)
        raise AssertionError(
            f"{np.sum(out)} of {out.size} places are off; the worst, {tuple(map(int, place))}: found {found[place]!r}, "
            f"wanted {wanted[place]!r}, {apart[place]:.3g} apart, allowed {scale[place]:.3g}"
            + (f" ({why})" if str(why) else "")
        )
