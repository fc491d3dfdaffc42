"""Images, labels and masks from files: what is taken, what is guessed and said, and what is refused by name."""

import gzip
import math
import pickle
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refscore.data.images import digits, flip, load_mask, read_images
from refscore.data.labels import as_labels
from refscore.data.points import DataFileError
from refscore.data.training import Dequantised
from tests.oracles.pickles import Bomb
from tests.oracles.statistics import assert_share
from tests.oracles.strategies import seeds

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (6, 4, 5)).astype("uint8")
GREY[0, 0, :2] = 0, 255
LABELS = np.asarray([0, 2, 1, 1, 0, 2])


def as_idx(array):
    """Bytes of unsigned integers below 256."""
    return bytes([0, 0, 8, array.ndim]) + np.asarray(array.shape, dtype=">u4").tobytes() + array.astype("u1").tobytes()


# ------------------------------------------------------------------ the digits


def test_the_digits_are_those_of_uci():
    """Shapes, range and the class distribution that the documentation of optdigits.tes gives; nothing is blank."""
    found = digits()
    assert found.images.shape == (1797, 8, 8, 1)
    assert found.images.dtype == np.uint8
    assert (found.images.min(), found.images.max()) == (0, 16)
    assert np.bincount(found.labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert int(found.images.sum()) == 561718
    assert found.images[0, :, :, 0].tolist()[0] == [0, 0, 5, 13, 9, 1, 0, 0]
    assert found.scaling.levels == 17
    assert np.array_equal(found.scaling.undo(found.scaling.apply(found.images)), found.images)
    assert not [line for line in found.said if "warning" in line]


# ------------------------------------------------------------------ taken


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_mnist_files_are_read_with_their_labels(tmp_path, pack):
    images, labels = tmp_path / "train-images-idx3-ubyte", tmp_path / "train-labels-idx1-ubyte"
    images.write_bytes(pack(as_idx(GREY)))
    labels.write_bytes(pack(as_idx(LABELS)))
    found = read_images(images, labels)
    assert np.array_equal(found.images[..., 0], GREY)
    assert np.array_equal(found.labels, LABELS)
    assert found.labels.dtype == np.int64
    assert found.scaling.levels == 256
    assert found.said == (
        "6 images of 4×5 pixels, 1 channels",
        f"integers from {GREY.min()} to {GREY.max()}, taken for 256 grey levels: another levels=L says otherwise",
        "3 classes, of 2 to 2 images",
    )


@given(
    seed=seeds, shape=st.tuples(st.integers(2, 4), st.integers(1, 5), st.integers(2, 5)), channels=st.integers(0, 4),
    kind=st.sampled_from(["uint8", "uint16", "int64", ">i4", "float32", "float64", ">f8", "float16", "bool"]),
)  # fmt: skip
def test_arrays_of_every_kind_come_back_through_the_units_of_the_network(tmp_path_factory, seed, shape, channels, kind):
    """The round trip file -> x -> file is the identity for integers, and a rounding of floats."""
    images = np.random.default_rng(seed).random(shape + ((channels,) if channels else ()))
    images = images.astype(kind) if "f" in kind else (images * (2 if kind == "bool" else 256)).astype(kind)
    images[0, 0, 0], images[1, 0, 0] = 0, 1
    folder = tmp_path_factory.mktemp("images")
    np.save(folder / "a.npy", images)
    np.savez(folder / "a.npz", pictures=images, labels=np.arange(len(images)))
    np.savez(folder / "b.npz", x=images, y=np.arange(len(images)), mine=np.zeros(len(images)))
    for name, labels in (("a.npy", None), ("a.npz", None), ("a.npz", "labels")):
        found = read_images(folder / name, labels)
        assert found.images.shape == (*shape, channels or 1)
        x = found.scaling.apply(found.images)
        assert np.all(np.abs(x) <= 1)
        assert x.dtype == ("float64" if kind in ("float64", ">f8") else "float32")
        assert np.allclose(found.scaling.undo(x), found.images, rtol=0, atol=1e-6 if "f" in kind else 0)
        assert np.array_equal(found.images.reshape(images.shape), images)
        assert (found.labels is None) == (name == "a.npy")
    with pytest.raises(DataFileError, match=r"b\.npz holds 2 arrays beside the labels, x .*, mine"):
        read_images(folder / "b.npz", "y")


@pytest.mark.parametrize(("low", "high", "said", "levels"), [
    (0.0, 1.0, "floats from 0 to 1, taken for [0, 1]: another span=(low, high) says otherwise", None),
    (0.1, 0.5, "floats from 0.1 to 0.5, taken for [0, 1]: another span=(low, high) says otherwise", None),
    (-0.9, 1.0, "floats from -0.9 to 1, taken for [-1, 1]: another span=(low, high) says otherwise", None),
    (0.5, 200.5, "floats from 0.5 to 200.5, taken for [0, 255]: another span=(low, high) says otherwise", None),
    (0.0, 200.0, "floats from 0 to 200, taken for 256 grey levels: another levels=L says otherwise", 256),
])  # fmt: skip
def test_the_range_of_floats_is_guessed_and_said(tmp_path, low, high, said, levels):
    images = np.full((3, 2, 2), low)
    images[1] = high
    np.save(tmp_path / "a.npy", images)
    found = read_images(tmp_path / "a.npy")
    assert found.said[1] == said
    assert found.scaling.levels == levels


def test_what_is_said_is_not_guessed(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, GREY % 17)
    assert read_images(path, levels=17).scaling.levels == 17
    assert "otherwise" not in read_images(path, levels=17).said[1]
    np.save(path, GREY / 255.0)
    assert read_images(path, span=(-1, 3)).scaling.apply(np.asarray([-1.0, 3.0])).tolist() == [-1.0, 1.0]
    np.save(path, (GREY > 100).astype(float))
    assert read_images(path, levels=2).images.dtype == np.uint8
    np.save(path, GREY > 100)
    assert (read_images(path).scaling.levels, read_images(path).images.dtype) == (2, "uint8")
    for largest, levels in ((255, 256), (256, 65536), (65535, 65536)):
        np.save(path, np.where(GREY.max() == GREY, largest, 0))
        assert read_images(path).scaling.levels == levels
        assert read_images(path).images.dtype == ("uint8" if levels == 256 else "uint16")


def test_labels_come_from_a_file_of_any_kind(tmp_path):
    np.save(tmp_path / "a.npy", GREY)
    np.save(tmp_path / "l.npy", LABELS.astype("float32"))
    np.savez(tmp_path / "l.npz", any=LABELS.astype("uint8"))
    (tmp_path / "l.idx").write_bytes(as_idx(LABELS))
    (tmp_path / "l.csv").write_text("label\n" + "\n".join(map(str, LABELS)))
    for name in ("l.npy", "l.npz", "l.idx", "l.csv"):
        found = read_images(tmp_path / "a.npy", tmp_path / name)
        assert np.array_equal(found.labels, LABELS)
        assert found.labels.dtype == np.int64


def test_blank_images_and_missing_classes_are_said(tmp_path):
    images = GREY.copy()
    images[3] = 7
    np.savez(tmp_path / "a.npz", images=images, labels=[0, 5, 0, 0, 5, 5])
    said = read_images(tmp_path / "a.npz").said
    assert said[2] == "warning: 1 images are blank, all their pixels the same; the first is image 3"
    assert said[4] == "warning: 4 classes below the largest label never occur, the first is 1"


# ------------------------------------------------------------------ refused


@pytest.mark.parametrize(("images", "options", "message"), [
    (np.zeros((3, 4)), {}, r"shape \(3, 4\); images are \(N, H, W\) or \(N, H, W, C\)"),
    (np.zeros((1, 4, 4)), {}, r"shape \(1, 4, 4\); images .* N >= 2"),
    (np.zeros((2, 0, 4)), {}, "images are"),
    (np.zeros((2, 3, 8, 8)), {}, r"C <= 4; are the channels second\? numpy.moveaxis\(x, 1, -1\) puts them last"),
    (np.zeros((2, 8, 8, 5)), {}, r"C <= 4$"),
    (np.zeros((3, 0, 5)), {}, r"shape \(3, 0, 5\); images are"),
    (np.full((3, 2, 2), 7), {}, "all images are the same: there is nothing to learn"),
    (np.ones((3, 1, 1)) * np.eye(2), {}, "all images are the same"),
    (GREY.astype("complex64"), {}, "complex64, not real numbers"),
    (GREY.astype("U3"), {}, "<U3, not real numbers"),
    (GREY.astype("int16") - 300, {}, "integers from -300 .* outside of the grey levels 0 ... 255"),
    (GREY.astype("int64") + 2**17, {}, r"integers from .* outside of the grey levels 0 ... 65535"),
    (GREY, {"levels": 17}, "outside of the grey levels 0 ... 16"),
    (GREY % 18, {"levels": 17}, "integers from 0 to 17, outside of the grey levels 0 ... 16"),
    (GREY, {"levels": 0}, "at least two; got levels=0"),
    (GREY / 2.0 - 3, {"span": (5, 1)}, r"two finite numbers; got \(5, 1\)"),
    (GREY / 2.0 - 3, {"span": (-math.inf, math.inf)}, r"two finite numbers; got \(-inf, inf\)"),
    (GREY, {"span": (0, 255)}, "give levels for integers, and span for floats"),
    (GREY / 256, {"levels": 256}, "give levels for integers, and span for floats"),
    (GREY / 256, {"span": (0.5, 1)}, r"floats from .* not within \(0.5, 1\)"),
    (GREY / 2.0 - 3, {}, r"floats from -3 .* not within \[0, 1\], \[-1, 1\] or \[0, 255\]: say which span="),
    (GREY * 1.5, {}, r"say which span=\(low, high\) it is"),
    (np.where(GREY[2, 1, 1] == GREY, math.nan, GREY), {}, r"\d+ values that are not finite, the first in row \d"),
    (np.where(GREY[2, 1, 1] == GREY, math.inf, GREY), {}, r"\d+ values that are not finite, the first in row \d"),
])  # fmt: skip
def test_what_are_no_images_is_refused(tmp_path, images, options, message):
    np.save(tmp_path / "a.npy", images)
    with pytest.raises(DataFileError, match=rf"a\.npy.*{message}"):
        read_images(tmp_path / "a.npy", **options)


@pytest.mark.parametrize(("labels", "message"), [
    (LABELS[:5], r"labels of shape \(5,\), there are 6 samples"),
    (LABELS[:, None], r"labels of shape \(6, 1\)"),
    (np.eye(6), r"one-hot, give argmax\(axis=1\)"),
    (np.asarray(3), r"labels of shape \(\)"),
    (LABELS - 1, "holds the label -1; those of 6 samples are 0 ... K-1"),
    (LABELS + 0.5, r"holds the label 0\.5"),
    (LABELS * 1000, "holds the label 2000"),
    (np.asarray(["a"] * 6), "not real numbers"),
    (np.asarray([0, 1, math.nan, 0, 1, 2]), "1 values that are not finite, the first in row 2"),
])  # fmt: skip
def test_what_are_no_labels_is_refused(tmp_path, labels, message):
    np.savez(tmp_path / "a.npz", images=GREY, labels=labels)
    np.save(tmp_path / "x.npy", GREY)
    np.save(tmp_path / "l.npy", labels)
    with pytest.raises(DataFileError, match=rf"a\.npz, array 'labels'.*{message}"):
        read_images(tmp_path / "a.npz")
    with pytest.raises(DataFileError, match=rf"l\.npy.*{message}"):
        read_images(tmp_path / "x.npy", tmp_path / "l.npy")


def test_what_is_alone_in_a_file_is_no_label_whatever_it_is_called(tmp_path):
    np.savez(tmp_path / "a.npz", labels=GREY)
    found = read_images(tmp_path / "a.npz")
    assert found.labels is None
    assert np.array_equal(found.images[..., 0], GREY)


def test_missing_labels_are_refused_with_what_there_is(tmp_path):
    np.savez(tmp_path / "a.npz", images=GREY, labels=LABELS)
    with pytest.raises(DataFileError, match=r"a\.npz holds no labels 'classes', .* it holds images \(6"):
        read_images(tmp_path / "a.npz", "classes")
    with pytest.raises(DataFileError, match=r"nothing\.npy cannot be read: there is no such file"):
        read_images(tmp_path / "a.npz", tmp_path / "nothing.npy")
    np.savez(tmp_path / "l.npz", a=LABELS, b=LABELS)
    np.save(tmp_path / "a.npy", GREY)
    with pytest.raises(DataFileError, match=r"l\.npz holds 2 arrays, a \(6,\), b \(6,\); labels are one"):
        read_images(tmp_path / "a.npy", tmp_path / "l.npz")
    assert as_labels("none", np.zeros(0), 0).shape == (0,)


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_images_of_unequal_size_and_pickles_are_refused_unexecuted(tmp_path, name):
    trace, path = tmp_path / "trace", tmp_path / name
    unequal = np.empty(2, dtype=object)
    unequal[0], unequal[1] = GREY[0], Bomb(trace)
    (np.save if name.endswith("y") else np.savez)(path, unequal)
    with pytest.raises(DataFileError, match=rf"{re.escape(name)} cannot be read: \(2,\) objects, .* unequal size"):
        read_images(path)
    path.write_bytes(pickle.dumps(Bomb(trace)))
    with pytest.raises(DataFileError, match=re.escape(name)):
        read_images(path)
    assert not trace.exists()


# ------------------------------------------------------------------ masks, flips


@pytest.mark.parametrize("kind", ["bool", "uint8", "int64", "float32"])
def test_a_mask_is_read_for_every_channel_or_each(tmp_path, kind):
    mask = RNG.random((4, 5)) < 0.5
    np.save(tmp_path / "m.npy", mask.astype(kind))
    out = load_mask(tmp_path / "m.npy", (4, 5, 3))
    assert out.dtype == bool
    assert np.array_equal(out, np.stack([mask] * 3, axis=-1))
    np.savez(tmp_path / "m.npz", mask=out.astype(kind))
    assert np.array_equal(load_mask(tmp_path / "m.npz", (4, 5, 3)), out)


@pytest.mark.parametrize(("mask", "message"), [
    (np.zeros((5, 4)), r"mask of shape \(5, 4\); wanted is \(4, 5, 3\) or \(4, 5\)"),
    (np.zeros((4, 5, 1)), "mask of shape"),
    (np.zeros(20), "mask of shape"),
    (np.full((4, 5), 255), "other values than 0"),
    (np.full((4, 5), 0.5), "other values than 0"),
    (np.full((4, 5), math.nan), "other values than 0"),
    (np.zeros((4, 5), dtype="complex128"), "other values than 0"),
    (np.full((4, 5), "x"), "other values than 0"),
])  # fmt: skip
def test_what_is_no_mask_is_refused(tmp_path, mask, message):
    np.save(tmp_path / "m.npy", mask)
    with pytest.raises(DataFileError, match=rf"m\.npy.*{message}"):
        load_mask(tmp_path / "m.npy", (4, 5, 3))


@given(seed=seeds)
def test_a_flip_is_its_own_inverse_and_moves_only_what_it_should(seed):
    rng = np.random.default_rng(seed)
    x, which = rng.random((4, 3, 5, 2), dtype="float32"), rng.random(4) < 0.5
    once = flip(x, which)
    assert once.dtype == np.float32
    assert np.array_equal(flip(once, which), x)
    assert np.array_equal(once[~which], x[~which])
    assert np.array_equal(once[which], x[which][:, :, ::-1])


def test_images_to_train_on_are_mirrored_or_not_with_equal_chances():
    """4096 images: another chance than ½ by .05 is seen, and by chance nothing at 1e-9."""
    x = RNG.random((3, 2, 5, 1), dtype="float32")
    drawn = Dequantised(x, labels=np.arange(3), flips=True).sample(np.random.default_rng(0), 4096)
    mirrored = np.array([not np.array_equal(image, x[k]) for image, k in zip(*drawn, strict=True)])
    assert all(
        np.array_equal(image[:, ::-1] if m else image, x[k]) for image, k, m in zip(*drawn, mirrored, strict=True)
    )
    assert_share(mirrored, 0.5)
    plain, _ = Dequantised(x, labels=np.arange(3)).sample(np.random.default_rng(0), 50)
    assert {image.tobytes() for image in plain} == {image.tobytes() for image in x}


def test_a_flip_works_on_every_back_end(any_backend):
    x = RNG.random((2, 3, 4, 1), dtype="float32")
    out = flip(any_backend.asarray(x), any_backend.asarray([True, False], "bool"))
    assert np.array_equal(any_backend.to_numpy(out)[0], x[0, :, ::-1])
