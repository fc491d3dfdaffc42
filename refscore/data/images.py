"""Images from files: (N, H, W, C), channels last, in the units of the file, and how to scale them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from refscore.checks import check_place
from refscore.data.files import read_arrays
from refscore.data.labels import as_labels, in_words, read_labelled
from refscore.data.points import DataFileError, check_numpy, check_real
from refscore.data.scaling import Scaling
from refscore.library import array_namespace
from refscore.protocols import Array

CHANNELS = 4  # at most: grey, grey and alpha, red-green-blue, and that with alpha
SPANS = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0))  # of floats, in the order in which they are guessed


@dataclass(frozen=True, eq=False)
class Images:
    """The images of a file, their labels, and what was read, in words.

    Parameters
    ----------
    name : str
        Of the file.
    images : numpy.ndarray, shape (N, H, W, C)
        As in the file: unsigned integers are grey levels, floats lie in an interval.
    labels : numpy.ndarray, shape (N,), or None
        Classes 0 ... K-1, int64; None where there are none.
    scaling : Scaling
        Brings the images to [-1, 1], and back.
    said : tuple of str
        Lines for the user: what was read, and what was guessed.
    """

    name: str
    images: Any
    labels: Any
    scaling: Scaling
    said: tuple[str, ...]


def digits() -> Images:
    """Return the handwritten digits of UCI: 1797 images of 8×8 pixels with values 0 ... 16, and their labels.

    E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998,
    doi:10.24432/C50P49, licence CC BY 4.0. These are the test part of the original, by 13 writers; each pixel counts
    the black points in a block of 4×4 of a bitmap of 32×32. Changed: only the packing; see `digits-licence.txt` beside
    the data.

    Returns
    -------
    Images
        uint8, in the order of the original.

    Examples
    --------
    >>> from refscore.data.images import digits
    >>> some = digits()
    >>> some.images.shape, some.labels[:10]
    ((1797, 8, 8, 1), array([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]))
    """
    arrays = read_arrays(Path(__file__).with_name("digits.npz"))
    return as_images("digits", arrays["images"], as_labels("digits", arrays["labels"], 1797), levels=17)


def read_images(
    path: str | Path,
    labels: str | Path | None = None,
    levels: int | None = None,
    span: tuple[float, float] | None = None,
) -> Images:
    """Read images (N, H, W) or (N, H, W, C), and their labels, from an IDX file (also .gz), .npy or .npz.

    Parameters
    ----------
    path : str or Path
        The file.
    labels : str or Path, optional
        The name of an array in the .npz, or a file of one column: IDX, .npy, .npz or .csv. By default the array
        `labels` or `y` of the .npz, where it holds another one.
    levels : int, optional
        Number of grey levels of images of integers; by default 2 for booleans, 256, or 65536 where there are larger
        values.
    span : pair of float, optional
        Least and largest value of images of floats; by default the first of [0, 1], [-1, 1] and [0, 255] that holds
        them.

    Returns
    -------
    Images
        The images, labels, scaling, and lines that say what was guessed.

    Raises
    ------
    DataFileError
        If a file is missing, damaged, or holds anything else; the message names it.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from refscore.data.images import read_images
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(f"{folder}/a.npz", images=np.eye(3)[:, :, None] * np.ones(3), labels=[0, 1, 1])
    ...     read_images(f"{folder}/a.npz").said[1:]
    ('floats from 0 to 1, taken for [0, 1]: another span=(low, high) says otherwise', '2 classes, of 1 to 2 images')
    """
    images, found = read_labelled(path, labels)
    return as_images(str(path), images, found, levels, span)


def as_images(
    name: str, images: Any, labels: Any = None, levels: int | None = None, span: tuple[float, float] | None = None
) -> Images:
    """Check that an array holds images, and describe it.

    Parameters
    ----------
    name : str
        Of the file.
    images : numpy.ndarray, shape (N, H, W) or (N, H, W, C)
        What was read, N >= 2.
    labels : numpy.ndarray, shape (N,), optional
        Classes, as `as_labels` gives them.
    levels, span : optional
        As `read_images`.

    Returns
    -------
    Images
        The images as (N, H, W, C).

    Raises
    ------
    DataFileError
        For another shape, other types, values outside of what `levels` or `span` says, or that are not finite, and
        for images that are all the same.
    """
    check_numpy(name, images)
    if images.ndim not in (3, 4) or images.shape[0] < 2 or 0 in images.shape or images.shape[3:] > (CHANNELS,):
        hint = "; are the channels second? numpy.moveaxis(x, 1, -1) puts them last"
        raise DataFileError(
            f"{name} holds an array of shape {images.shape}; images are (N, H, W) or (N, H, W, C), N >= 2, "
            f"C <= {CHANNELS}" + hint * (images.ndim == 4 and images.shape[1] <= CHANNELS)
        )
    if images.dtype.kind == "b":
        images, levels = images.astype("uint8"), 2 if levels is None else levels
    check_real(name, images)
    if np.all(images == images[:1]):
        raise DataFileError(f"{name}: all images are the same: there is nothing to learn in them")
    images = images[..., None] if images.ndim == 3 else images
    images, scaling, guess = _scaled(name, images, levels, span)
    said = [f"{len(images)} images of {images.shape[1]}×{images.shape[2]} pixels, {images.shape[3]} channels", guess]
    flat = images.reshape(len(images), -1)
    blank = np.flatnonzero(np.all(flat == flat[:, :1], axis=1))
    if len(blank):
        said.append(f"warning: {len(blank)} images are blank, all their pixels the same; the first is image {blank[0]}")
    if labels is not None:
        said += in_words(labels, "images")
    return Images(name, images, labels, scaling, tuple(said))


def load_mask(path: str | Path, shape: tuple[int, ...]) -> Any:
    """Read the mask of an image: true, or 1, where a pixel is known.

    Parameters
    ----------
    path : str or Path
        A .npy file, .npz with one array, or IDX.
    shape : tuple of int
        (H, W, C) of the image.

    Returns
    -------
    numpy.ndarray, shape (H, W, C)
        Booleans; a mask (H, W) is that of every channel.

    Raises
    ------
    DataFileError
        If the file cannot be read, or holds another shape or other values than 0 and 1.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from refscore.data.images import load_mask
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(f"{folder}/left.npy", [[1, 0], [1, 0]])
    ...     load_mask(f"{folder}/left.npy", (2, 2, 3)).sum(axis=(0, 1))
    array([2, 2, 2])
    """
    mask, _ = read_labelled(path)
    if mask.shape not in (tuple(shape), tuple(shape[:2])):
        raise DataFileError(f"{path} holds a mask of shape {mask.shape}; wanted is {shape} or {shape[:2]}")
    if mask.dtype.kind not in "biuf" or not np.all((mask == 0) | (mask == 1)):
        raise DataFileError(f"{path} holds a mask of other values than 0 (unknown) and 1 (known)")
    return np.broadcast_to(mask if mask.shape == tuple(shape) else mask[..., None], shape).astype(bool)


def flip(x: Array, which: Array) -> Array:
    """Mirror some images left to right: an augmentation for things without a side, never for digits or letters.

    Parameters
    ----------
    x : Array, shape (B, H, W, C)
        The images.
    which : Array, shape (B,)
        Booleans, for example rng.random(B) < 0.5.

    Returns
    -------
    Array, shape (B, H, W, C)
        The images, mirrored where `which` is true.

    Raises
    ------
    TypeError, ValueError
        For an argument that cannot be what it is given as, by its name.
    """
    check_place(x, which=which)
    xp = array_namespace(x)
    return xp.where(xp.reshape(which, (-1, 1, 1, 1)), xp.flip(x, axis=2), x)


def _scaled(name: str, images: Any, levels: int | None, span: tuple[float, float] | None) -> tuple[Any, Scaling, str]:
    """The images, how to scale them, and what was guessed."""
    if span is not None and not -np.inf < span[0] < span[1] < np.inf:
        raise DataFileError(f"{name}: span is the least and the largest value, two finite numbers; got {span}")
    if levels is not None and levels < 2:
        raise DataFileError(f"{name}: grey levels are 0 ... levels - 1, at least two; got levels={levels}")
    low, high = float(images.min()), float(images.max())
    held = f"{'floats' if images.dtype.kind == 'f' else 'integers'} from {low:g} to {high:g}"
    whole = images.dtype.kind in "iu" or ((levels or high > 1) and span is None and not np.any(images % 1))
    if (levels is not None and not whole) or (span is not None and images.dtype.kind in "iu"):
        raise DataFileError(f"{name} holds {held}: give levels for integers, and span for floats")
    if whole:
        guess = levels is None
        levels = (256 if high < 256 else 65536) if levels is None else levels
        if low < 0 or high >= levels:
            raise DataFileError(f"{name} holds {held}, outside of the grey levels 0 ... {levels - 1}")
        said = f"{held}, taken for {levels} grey levels" + ": another levels=L says otherwise" * guess
        return images.astype("uint8" if levels <= 256 else "uint16"), Scaling.of_levels(levels), said
    found = next(((a, b) for a, b in ([span] if span else SPANS) if a <= low and high <= b), None)
    if found is None:
        allowed = span or "[0, 1], [-1, 1] or [0, 255]: say which span=(low, high) it is"
        raise DataFileError(f"{name} holds {held}, not within {allowed}")
    said = f"{held}, taken for [{found[0]:g}, {found[1]:g}]" + ": another span=(low, high) says otherwise" * (not span)
    return images.astype("float32" if images.dtype.itemsize <= 4 else "float64"), Scaling.of_span(*found), said
