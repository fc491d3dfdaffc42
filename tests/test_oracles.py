"""What the tests lean on can fail: the comparison sees what is off, and tells the worst place."""

import numpy as np
import pytest

from tests.oracles.close import assert_close


def test_what_lies_on_the_edge_is_close_and_what_lies_beyond_is_not():
    assert_close([1.0, 2.0], [1.5, 1.5], 0.5)
    assert_close(np.zeros((0, 2)), 0, 0)
    assert_close(1e-9j, 0, 1e-9)
    with pytest.raises(AssertionError):
        assert_close([1.0, 2.0], [1.5, 1.5], np.nextafter(0.5, 0))


@pytest.mark.parametrize("bad", [(np.nan, 0.0, 1.0), (0.0, np.nan, 1.0), (0.0, 0.0, np.nan), (np.inf, 0.0, 1.0)])
def test_nothing_is_close_to_nan_or_within_it(bad):
    with pytest.raises(AssertionError, match="1 of 1 places"):
        assert_close(*bad)


def test_the_worst_place_is_the_furthest_out_on_its_own_scale():
    found, wanted = np.array([[0.0, 3.0], [1.0, 0.5]]), np.zeros((2, 2))
    with pytest.raises(AssertionError) as caught:
        assert_close(found, wanted, [[1.0, 2.9], [0.1, 1.0]], "two roundings")
    said = str(caught.value)
    for part in ("2 of 4 places", "(1, 0)", "found np.float64(1.0)", "wanted np.float64(0.0)", "1 apart",
                 "allowed 0.1", "(two roundings)"):  # fmt: skip
        assert part in said, said
