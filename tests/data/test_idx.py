"""IDX files: what is written comes back, and whatever is damaged is refused by name."""

import gzip
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refscore.data.idx import read_idx
from refscore.data.points import DataFileError
from tests.oracles.strategies import seeds

TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}  # of the format's definition


def packed(array, code=8):
    """The bytes of an IDX file, by its definition."""
    head = bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(TYPES[code]).tobytes()


PIXELS = np.random.default_rng(0).integers(0, 256, (3, 4, 5)).astype("uint8")


@given(seed=seeds, code=st.sampled_from(sorted(TYPES)), shape=st.lists(st.integers(0, 4), min_size=1, max_size=4))
def test_every_type_and_shape_comes_back(tmp_path_factory, seed, code, shape):
    array = np.random.default_rng(seed).integers(0, 100, shape)
    path = tmp_path_factory.mktemp("idx") / "a"
    for content in (packed(array, code), gzip.compress(packed(array, code))):
        path.write_bytes(content)
        out = read_idx(path)
        assert np.array_equal(out, array)
        assert out.dtype.isnative
        assert out.dtype == np.dtype(TYPES[code]).newbyteorder("=")


def test_the_bytes_are_those_of_the_format(tmp_path):
    """Written out by hand: big-endian lengths and numbers."""
    path = tmp_path / "a"
    path.write_bytes(bytes([0, 0, 0x0B, 2, 0, 0, 0, 1, 0, 0, 0, 2, 1, 0, 0xFF, 0xFE]))
    assert read_idx(path).tolist() == [[256, -2]]


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_a_file_cut_short_or_long_anywhere_is_refused(tmp_path, pack):
    whole, path = pack(packed(PIXELS)), tmp_path / "cut"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(DataFileError, match="cut "):
            read_idx(path)
    path.write_bytes(whole + b"\0")
    if pack is bytes:
        with pytest.raises(DataFileError, match=r"cut declares .* it holds more"):
            read_idx(path)


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_a_file_damaged_anywhere_is_refused_or_holds_numbers(tmp_path, pack):
    """A flipped bit among the pixels is another pixel (but for gzip, which has a sum); never another error."""
    whole, path, survived = pack(packed(PIXELS)), tmp_path / "bad", 0
    for i in range(len(whole)):
        for flip in (1, 0x80, 0xFF):
            damaged = bytearray(whole)
            damaged[i] ^= flip
            path.write_bytes(bytes(damaged))
            try:
                out = read_idx(path)
            except DataFileError as error:
                assert "bad " in str(error)  # noqa: PT017
                continue
            survived += 1
            assert out.size == PIXELS.size
    assert survived < 3 * (len(packed(PIXELS)) if pack is bytes else 12)  # of gzip's header: time, name, system


@pytest.mark.parametrize(
    "head", ["", "00", "0000", "00000803", "01000803", "00000a0300", "00000800", "89504e470d0a", "504b0304"]
)
def test_what_is_no_idx_file_is_refused_with_what_it_begins_with(tmp_path, head):
    path = tmp_path / "a"
    path.write_bytes(bytes.fromhex(head))
    with pytest.raises(DataFileError, match=r"a (is no IDX file: it begins with|ends within its header)"):
        read_idx(path)


def test_a_sum_that_is_wrong_is_refused(tmp_path):
    """The last eight bytes of gzip, its sum and length, are read although the pixels are complete before them."""
    whole = bytearray(gzip.compress(packed(PIXELS)))
    whole[-8] ^= 1
    (tmp_path / "a").write_bytes(bytes(whole))
    with pytest.raises(DataFileError, match="CRC"):
        read_idx(tmp_path / "a")


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path):
    """16 GB declared; and 20 MB of zeros behind a header of three numbers, of which a buffer's length is unpacked."""
    path = tmp_path / "a"
    path.write_bytes(bytes([0, 0, 8, 3]) + struct.pack(">III", 2**14, 2**10, 2**10))
    with pytest.raises(DataFileError, match=r"declares 17179869184 numbers \(16384, 1024, 1024\), at most"):
        read_idx(path)
    path.write_bytes(gzip.compress(bytes([0, 0, 8, 1, 0, 0, 0, 3]) + bytes(2 * 10**7)))
    tracemalloc.start()
    with pytest.raises(DataFileError, match="it holds more"):
        read_idx(path)
    assert tracemalloc.get_traced_memory()[1] < 10**6
    tracemalloc.stop()


def test_missing_files_and_folders_are_refused(tmp_path):
    with pytest.raises(DataFileError, match="nothing cannot be read: there is no such file"):
        read_idx(tmp_path / "nothing")
    with pytest.raises(DataFileError, match="cannot be read"):
        read_idx(tmp_path)
