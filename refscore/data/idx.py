"""IDX files, the format of MNIST: two zero bytes, a type, the number of axes, their lengths, and the numbers."""

import gzip
import math
import struct
from pathlib import Path
from typing import IO, Any

import numpy as np

from refscore.data.files import LARGEST
from refscore.data.points import DataFileError, reading

_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}  # NumPy's name of each type


def read_idx(path: str | Path) -> Any:
    """Read an IDX file, packed by gzip or not: the header first, and then no byte more than it declares.

    Parameters
    ----------
    path : str or Path
        The file, such as MNIST's train-images-idx3-ubyte.gz; whether it is packed is seen from its content.

    Returns
    -------
    numpy.ndarray
        The array, in the byte order of the machine.

    Raises
    ------
    DataFileError
        For another kind of file, for a file shorter or longer than its header says, or damaged; and before anything
        is allocated where it declares more than `files.LARGEST` bytes in float64.

    Examples
    --------
    >>> import tempfile
    >>> from refscore.data.idx import read_idx
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with open(f"{folder}/labels-idx1-ubyte", "wb") as f:
    ...         _ = f.write(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1]))  # bytes, one axis, three of them
    ...     read_idx(f"{folder}/labels-idx1-ubyte")
    array([7, 2, 1], dtype=uint8)
    """
    with reading(path):
        with open(path, "rb") as f:
            packed = f.read(2) == b"\x1f\x8b"
        opened: Any = gzip.open if packed else open
        with opened(path, "rb") as f:
            return _read(path, f)


def _read(path: str | Path, f: IO[bytes]) -> Any:
    head = f.read(4)
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in _TYPES or head[3] == 0:
        raise DataFileError(
            f"{path} is no IDX file: it begins with {head.hex(' ') or 'nothing'}, and not with 00 00, a type of "
            f"{', '.join(f'{code:02x}' for code in _TYPES)}, and the number of axes; others end in .csv, .npy or .npz"
        )
    dtype, lengths = np.dtype(_TYPES[head[2]]), f.read(4 * head[3])
    if len(lengths) < 4 * head[3]:
        raise DataFileError(f"{path} ends within its header, which declares {head[3]} axes")
    shape = struct.unpack(f">{head[3]}I", lengths)
    if 8 * math.prod(shape) > LARGEST:
        raise DataFileError(f"{path} declares {math.prod(shape)} numbers {shape}, at most {LARGEST // 8} are read")
    size = math.prod(shape) * dtype.itemsize
    content = f.read(size + 1)  # the one more tells whether it ends there, and lets gzip check its sum
    if len(content) != size:
        held = "more" if len(content) > size else f"{len(content)}"
        raise DataFileError(f"{path} declares {shape} numbers of {dtype.itemsize} bytes, {size} bytes; it holds {held}")
    return np.frombuffer(content, dtype).reshape(shape).astype(dtype.newbyteorder("="))
