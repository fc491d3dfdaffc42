"""One door for names and files: what comes out is scaled, split, described, and the same for the same seed."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refscore.data.points import DataFileError
from refscore.data.sets import NAMES, load_data, split
from tests.oracles.statistics import assert_share
from tests.oracles.strategies import seeds


def whole(data):
    """Both parts as (N, ...)."""
    return np.concatenate([data.x, data.held_out])


# ------------------------------------------------------------------ by name


@pytest.mark.parametrize("name", NAMES)
def test_every_name_gives_data_of_the_same_form(name):
    data, again, other = load_data(name, n=200), load_data(name, n=200), load_data(name, n=200, seed=1)
    assert data.name == name
    assert data.x.dtype == data.held_out.dtype == np.float32
    assert np.array_equal(data.x, again.x)
    assert np.array_equal(data.held_out, again.held_out)
    assert not np.array_equal(data.x, other.x)
    assert np.all(np.isfinite(whole(data)))
    assert data.std == pytest.approx(math.sqrt(np.mean(data.x.astype("float64") ** 2)), rel=1e-12)
    if name == "digits":
        assert (data.kind, data.classes, data.law, data.columns) == ("images", 10, None, ())
        assert (data.x.shape, data.held_out.shape) == ((1617, 8, 8, 1), (180, 8, 8, 1))
    else:
        assert (data.kind, data.classes, data.labels, data.columns) == ("points", 0, None, ("x1", "x2"))
        assert (data.x.shape, data.held_out.shape) == ((180, 2), (20, 2))
        assert data.scaling.to_dict() == {"centre": 0.0, "scale": 1.0, "levels": None}
        assert (data.law is None) == (name in ("moons", "swissroll", "2spirals"))
        assert data.said[0].endswith("no closed form" if data.law is None else "exact")
    if data.law is not None:
        assert np.all(np.isfinite(data.law.log_prob(data.x.astype("float64"))))


def test_the_digits_are_split_class_by_class():
    """Of each class a tenth, up to one image; no image is in both parts, and none is lost."""
    data = load_data("digits")
    counts, apart = np.bincount(data.labels), np.bincount(data.held_out_labels)
    assert np.all(np.abs(apart - (counts + apart) / 10) < 1.1)
    rows = {x.tobytes() for x in whole(data)}
    assert len(rows) == 1797  # no two are alike
    assert data.said == (
        "read digits: 1797 images of 8×8 pixels, 1 channels", "integers from 0 to 16, taken for 17 grey levels",
        "10 classes, of 174 to 183 images", "1617 to train on, 180 held out",
    )  # fmt: skip


@given(seed=seeds, n=st.integers(2, 60), part=st.floats(0.001, 0.999), classes=st.integers(1, 9))
def test_a_split_takes_the_same_part_of_each_class(seed, n, part, classes):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    for given_labels in (None, labels):
        apart = split(n, part, rng, given_labels)
        counts = np.bincount(labels) if given_labels is not None else np.asarray([n])
        spare = np.maximum(counts - 1, 0)  # each class keeps one to train on
        count = min(max(round(part * n), 1), n - 1)
        taken = np.bincount((labels if given_labels is not None else 0 * labels)[apart], minlength=len(counts))
        assert np.all(taken <= spare)
        given_back = np.sum((spare == taken) & (counts > 0))  # by classes of which all would have gone
        assert min(count, 1, np.sum(spare)) <= np.sum(taken) <= count <= np.sum(taken) + given_back
        share = np.minimum(counts * count / n, spare)
        assert np.all(np.abs(taken - share) < 1 + 1e-9)
    assert not np.any(split(n, 0.0, rng, labels))


def test_a_split_is_random():
    """Each sample of a class is held out as often as any other of it."""
    rng = np.random.default_rng(0)
    apart = np.stack([split(10, 0.3, rng, np.asarray([0, 0, 0, 1, 1, 1, 1, 1, 1, 1])) for _ in range(4000)])
    for own, share in ((apart[:, :3], 1 / 3), (apart[:, 3:], 2 / 7)):  # one of three, and two of seven
        assert np.all(own.sum(axis=1) == round(share * own.shape[1]))
        assert_share(own, share, sees=0.07)


# ------------------------------------------------------------------ from a file


@given(seed=seeds, dim=st.integers(1, 6), labelled=st.booleans())
def test_points_of_any_number_of_columns_are_scaled_and_come_back(tmp_path_factory, seed, dim, labelled):
    rng = np.random.default_rng(seed)
    points, labels = 10 ** rng.uniform(-3, 3, dim) * (rng.standard_normal((30, dim)) + 5), np.arange(30) % 3
    path = tmp_path_factory.mktemp("points") / "a.npz"
    np.savez(path, points=points, **({"y": labels} if labelled else {}))
    data = load_data(path, held_out=0.2)
    assert (data.x.shape, data.held_out.shape) == ((24, dim), (6, dim))
    unit = whole(data).astype("float64")
    assert np.mean(unit, axis=0) == pytest.approx(np.zeros(dim), abs=1e-5)
    assert np.std(unit, axis=0) == pytest.approx(np.ones(dim), rel=1e-5)
    back = data.scaling.undo(unit)
    order = np.argsort(points[:, 0])
    assert np.allclose(back[np.argsort(back[:, 0])], points[order], rtol=1e-5)
    if labelled:
        both = np.concatenate([data.labels, data.held_out_labels])
        assert np.array_equal(both[np.argsort(back[:, 0])], labels[order])
        assert np.array_equal(np.bincount(data.held_out_labels), [2, 2, 2])
    assert data.classes == 3 * labelled
    assert data.columns == tuple(f"x{i + 1}" for i in range(dim))


def test_a_table_may_hold_its_labels_in_a_column_or_elsewhere(tmp_path):
    path, rng = tmp_path / "a.csv", np.random.default_rng(0)
    table = np.column_stack([rng.standard_normal(20), np.arange(20) % 4, rng.standard_normal(20)])
    np.savetxt(path, table, delimiter=",", header="east,kind,north", comments="")
    (tmp_path / "kinds.csv").write_text("kind\n" + "\n".join(str(i % 4) for i in range(20)))
    data, apart = load_data(path, labels="kind"), load_data(path, labels=tmp_path / "kinds.csv")
    assert data.columns == ("east", "north")
    assert apart.columns == ("east", "kind", "north")
    assert data.classes == apart.classes == 4
    assert load_data(path).labels is None
    with pytest.raises(DataFileError, match=r"a\.csv, column east holds the label"):
        load_data(path, labels="east")
    with pytest.raises(DataFileError, match="colour cannot be read: there is no such file"):
        load_data(path, labels="colour")


def test_images_of_a_file_are_scaled_and_split_with_their_labels(tmp_path):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (20, 4, 5, 3)).astype("uint8"), np.arange(20) % 2
    np.savez(tmp_path / "a.npz", images=images, labels=labels)
    data = load_data(tmp_path / "a.npz", held_out=0.25)
    assert (data.x.shape, data.held_out.shape, data.classes) == ((15, 4, 5, 3), (5, 4, 5, 3), 2)
    back = data.scaling.undo(whole(data))
    place = [int(np.flatnonzero(np.all(images == x, axis=(1, 2, 3)))[0]) for x in back]
    assert sorted(place) == list(range(20))
    assert np.array_equal(labels[place], np.concatenate([data.labels, data.held_out_labels]))
    assert np.array_equal(load_data(tmp_path / "a.npz", held_out=0).x, data.scaling.apply(images))
    assert load_data(tmp_path / "a.npz", levels=300).scaling.levels == 300


def test_an_outlier_and_a_missing_class_are_said(tmp_path):
    points = np.random.default_rng(0).standard_normal((50, 3))
    points[7, 1] = 1e4
    np.savez(tmp_path / "a.npz", points=points, labels=2 * (np.arange(50) % 2))
    said = "\n".join(load_data(tmp_path / "a.npz").said)
    assert "a.npz: 3 columns: x1, x2, x3; 50 rows" in said
    assert "warning: 10000 in column x2, point 8, rules the scale" in said
    assert "2 classes" not in said
    assert "3 classes, of 25 to 25 points" in said
    assert "warning: 1 classes below the largest label never occur, the first is 1" in said
    assert f"log densities are the network's minus {np.sum(np.log(np.std(points, axis=0))):.4g}" in said
    assert said.endswith("45 to train on, 5 held out")


# ------------------------------------------------------------------ refused


@pytest.mark.parametrize(("options", "message"), [
    ({"source": "moonz"}, r"no data set called 'moonz'; there are digits, tilted.*2spirals, or give a file"),
    ({"source": "moons", "labels": "y"}, "moons is a data set, not a file: labels, levels and span are not for it"),
    ({"source": "digits", "levels": 17}, "digits is a data set, not a file"),
    ({"source": "moons", "held_out": 1.0}, r"held_out is a part, in \[0, 1\), got 1.0"),
    ({"source": "moons", "held_out": -0.1}, r"held_out is a part"),
    ({"source": "moons", "held_out": math.nan}, r"held_out is a part"),
    ({"source": "moons", "n": 1}, "n must be"),
    ({"source": "nothing.npy"}, r"nothing\.npy cannot be read: there is no such file"),
    ({"source": "nothing.csv"}, r"nothing\.csv cannot be read: there is no such file"),
])  # fmt: skip
def test_what_is_no_data_set_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        load_data(**options)


@pytest.mark.parametrize(("array", "options", "message"), [
    (np.ones((5, 3)), {}, "all points are the same in column x1"),
    (np.zeros((1, 3)), {}, r"shape \(1, 3\); points are \(N, D\), N >= 2, D >= 1"),
    (np.zeros((3, 0)), {}, r"shape \(3, 0\); points are"),
    (np.zeros(4), {}, r"shape \(4,\); points are"),
    (np.asarray(1.0), {}, "one number"),
    (np.zeros((2, 2, 2, 2, 2)), {}, "images are"),
    (np.eye(3), {"levels": 2}, "holds points: levels and span are for images"),
    (np.eye(3), {"span": (0, 1)}, "holds points: levels and span are for images"),
])  # fmt: skip
def test_what_a_file_should_not_hold_is_refused(tmp_path, array, options, message):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(DataFileError, match=rf"a\.npy.*{message}"):
        load_data(tmp_path / "a.npy", **options)


def test_a_file_may_be_called_as_a_set_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").write_bytes(bytes([0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 1, 3, 9]))
    assert load_data("digits").kind == "images"
    assert load_data("./digits").scaling.undo(whole(load_data("./digits"))).ravel() == pytest.approx([3, 9], abs=1e-6)


def test_a_column_of_labels_has_a_name_of_its_own(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("x,y,y\n1,2,0\n3,4,1\n")
    with pytest.raises(DataFileError, match=r"a\.csv has 2 columns called y"):
        load_data(path, labels="y")


def test_many_columns_are_not_all_named(tmp_path):
    np.save(tmp_path / "a.npy", np.random.default_rng(0).standard_normal((20, 500)))
    said = load_data(tmp_path / "a.npy").said[0]
    assert "500 columns: x1, " in said
    assert said.endswith("x10, ..., x500; 20 rows")
