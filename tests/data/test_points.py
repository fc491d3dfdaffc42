"""Points from files: what is taken, and that everything else is refused without being executed."""

import io
import math
import os
import pickle
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refscore.data import files
from refscore.data.points import DataFileError, load_points, read_points
from refscore.laws.examples import MIXTURES, mixture
from tests.oracles.pickles import Bomb
from tests.oracles.strategies import seeds

POINTS = np.random.default_rng(0).standard_normal((20, 2))


def test_a_file_is_not_written_over_what_is_read(tmp_path):
    out, other = (written(tmp_path / name) for name in ("out.npy", "other.npy"))
    files.check_apart(out, other, None, tmp_path / "nothing.npy", "digits")
    files.check_apart(tmp_path / "new.npy", other)
    for same in (out, f"{tmp_path}/../{tmp_path.name}/out.npy"):
        with pytest.raises(ValueError, match="would be overwritten"):
            files.check_apart(out, other, same)


@pytest.mark.skipif(os.name == "nt", reason="no modes there")
def test_what_is_written_may_be_read_by_all_and_run_by_nobody(tmp_path):
    files.save_text(tmp_path / "a.txt", "a")
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o644


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="no list of open files there")
def test_nothing_stays_open_where_something_was_written(tmp_path):
    files.save_text(tmp_path / "a.txt", "a")
    opened = len(os.listdir("/proc/self/fd"))
    files.save_text(tmp_path / "b.txt", "b")
    assert len(os.listdir("/proc/self/fd")) == opened


def written(path, points=POINTS):
    """Points in the format that the ending asks for."""
    if path.suffix.lower() == ".npy":
        np.save(path, points)
    elif path.suffix.lower() == ".npz":
        np.savez(path, points=points)
    else:
        np.savetxt(path, points, delimiter=",", fmt="%.17g")
    return path


ENDINGS = ("points.npy", "points.npz", "points.csv")


# ------------------------------------------------------------------ taken


@pytest.mark.parametrize("name", ENDINGS)
def test_points_come_back_as_they_were_written(tmp_path, name):
    path = written(tmp_path / name)
    for given_as in (path, str(path)):
        points = load_points(given_as)
        assert points.dtype == np.float64
        assert np.array_equal(points, POINTS)


@given(seed=seeds, n=st.integers(2, 6), dim=st.integers(1, 5))
def test_any_dimension_comes_back(tmp_path_factory, seed, n, dim):
    points = np.random.default_rng(seed).standard_normal((n, dim))
    folder = tmp_path_factory.mktemp("points")
    for name in ENDINGS:
        assert np.array_equal(load_points(written(folder / name, points), dim=dim), points)
        with pytest.raises(DataFileError, match=rf"\({n}, {dim}\)"):
            load_points(folder / name, dim=dim + 1)


@pytest.mark.parametrize("dtype", ["float16", "float32", "int8", "uint16", "int64", ">f8", ">i4", "longdouble"])
@pytest.mark.parametrize("name", ENDINGS[:2])
def test_real_numbers_of_every_type_become_float64(tmp_path, name, dtype):
    points = np.arange(6).reshape(3, 2).astype(dtype)
    out = load_points(written(tmp_path / name, points))
    assert out.dtype == np.float64
    assert out.dtype.isnative
    assert np.array_equal(out, np.arange(6).reshape(3, 2))


def test_fortran_order_is_taken(tmp_path):
    assert np.array_equal(load_points(written(tmp_path / "a.npy", np.asfortranarray(POINTS))), POINTS)


def test_endings_may_be_capitals(tmp_path):
    path = tmp_path / "A.CSV"
    path.write_text("1,2\n3,4\n")
    assert np.array_equal(load_points(path), [[1, 2], [3, 4]])


@pytest.mark.parametrize(
    "text",
    [
        "1,2\n3,4\n", "1,2\n3,4", "x,y\n1,2\n3,4\n", "first column, second\n1, 2\n3, 4\n", "1,2\r\n3,4\r\n",
        "x,y\r\n1.0,2.0\r\n3.0,4e0\r\n", " 1 , 2 \n 3 , 4 \n", '"x","y"\n1,2\n3,4\n', "1,2\n\n3,4\n\n",
        "α,σ\n1,2\n3,4\n",
    ],
)  # fmt: skip
def test_tables_of_numbers_are_taken_with_or_without_a_header(tmp_path, text):
    path = tmp_path / "a.csv"
    path.write_bytes(text.encode("utf-8"))
    assert np.array_equal(load_points(path), [[1.0, 2.0], [3.0, 4.0]])


# ------------------------------------------------------------------ refused


def test_the_error_is_a_value_error_that_names_the_file(tmp_path):
    assert issubclass(DataFileError, ValueError)
    with pytest.raises(DataFileError, match=r"nothing\.npy"):
        load_points(tmp_path / "nothing.npy")


@pytest.mark.parametrize("name", ENDINGS)
def test_a_missing_file_is_refused(tmp_path, name):
    with pytest.raises(DataFileError, match="cannot be read"):
        load_points(tmp_path / name)
    with pytest.raises(DataFileError, match="cannot be read"):
        load_points(tmp_path / "no folder" / name)
    (tmp_path / name).mkdir()
    with pytest.raises(DataFileError, match="cannot be read"):
        load_points(tmp_path / name)


@pytest.mark.parametrize("name", ["points.txt", "points", "points.npy.gz", "points.pkl", ".npy"])
def test_an_unknown_ending_is_refused_with_the_known_ones(tmp_path, name):
    (tmp_path / name).write_bytes(b"1,2\n3,4\n")
    with pytest.raises(DataFileError, match=r"\.npy, \.npz, \.csv|cannot be read"):
        load_points(tmp_path / name)


@pytest.mark.parametrize("name", ENDINGS[:2])
def test_a_file_cut_short_anywhere_is_refused(tmp_path, name):
    whole = written(tmp_path / name).read_bytes()
    path = tmp_path / f"cut-{name}"
    for length in range(0, len(whole), 3):
        path.write_bytes(whole[:length])
        with pytest.raises(DataFileError):
            load_points(path)


def test_a_table_cut_within_a_row_is_refused(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("1,2\n3,4\n5")
    with pytest.raises(DataFileError, match=r"cannot be read|is not a row like the others"):
        load_points(path)


@pytest.mark.parametrize("name", ENDINGS)
def test_damaged_bytes_are_refused_or_are_points(tmp_path, name):
    """A flipped bit in a .npy or .csv may be another number; never another kind of error."""
    whole = written(tmp_path / name).read_bytes()
    rng = np.random.default_rng(1)
    path = tmp_path / f"bad-{name}"
    for _ in range(150):
        damaged = bytearray(whole)
        for i in rng.integers(0, len(whole), 3):
            damaged[i] ^= int(rng.integers(1, 256))
        path.write_bytes(bytes(damaged))
        try:
            points = load_points(path)
        except DataFileError:
            continue
        assert points.shape[1] == 2
        assert np.all(np.isfinite(points))


@pytest.mark.parametrize("name", ENDINGS)
@pytest.mark.parametrize(
    "content",
    [b"", b"\x00" * 100, b"\x93NUMPY", b"PK\x03\x04", b"hello", np.random.default_rng(2).bytes(200)],
    ids=["empty", "zeros", "npy-magic", "zip-magic", "word", "random"],
)
def test_a_file_of_something_else_is_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataFileError):
        load_points(tmp_path / name)


@pytest.mark.parametrize("name", ENDINGS)
def test_pickled_objects_are_refused_and_not_executed(tmp_path, name):
    trace, path = tmp_path / "trace", tmp_path / name
    bomb = np.empty((2, 2), dtype=object)
    bomb[:] = Bomb(trace)
    for i, content in enumerate((pickle.dumps(Bomb(trace)), None)):
        if content is not None:
            path.write_bytes(content)
        elif path.suffix == ".npy":
            np.save(path, bomb, allow_pickle=True)
        elif path.suffix == ".npz":
            np.savez(path, points=bomb)
        else:
            continue
        with pytest.raises(DataFileError):
            load_points(path)
        assert not trace.exists(), i


@pytest.mark.parametrize("name", ENDINGS)
@pytest.mark.parametrize("shape", [(), (2,), (0, 2), (1, 2), (3, 1), (3, 3), (3, 2, 1)])
def test_points_of_another_shape_are_refused(tmp_path, name, shape):
    if name.endswith("csv") and (shape == () or len(shape) == 3):
        shape = (4, 5)
    elif name.endswith("csv") and 0 in shape:
        (tmp_path / name).write_text("x,y\n")
        with pytest.raises(DataFileError):
            load_points(tmp_path / name)
        return
    path = written(tmp_path / name, np.zeros(shape))
    with pytest.raises(DataFileError, match=r"2-D points are \(N, 2\), N >= 2"):
        load_points(path)


@pytest.mark.parametrize("name", ENDINGS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_refused_by_row(tmp_path, name, bad):
    points = POINTS.copy()
    points[7, 1] = points[11, 0] = bad
    with pytest.raises(DataFileError, match=r"2 values that are not finite, the first in row 7"):
        load_points(written(tmp_path / name, points))


@pytest.mark.parametrize("name", ENDINGS[:2])
@pytest.mark.parametrize("dtype", ["complex128", "bool", "U3", "S3", "datetime64[s]", [("x", "f8"), ("y", "f8")]])
def test_what_is_not_a_real_number_is_refused(tmp_path, name, dtype):
    with pytest.raises(DataFileError, match=r"not real numbers|shape"):
        load_points(written(tmp_path / name, np.zeros((3, 2), dtype=dtype)))


@pytest.mark.parametrize("text", ["a,b\nc,d\ne,f\n", "1,2\n3,x\n", "1,2\n3,4,5\n", "x,y\n", "1 2\n3 4\n", "1;2\n3;4\n",
                                  "1,2\n3,\n", "1,2\n3,4+1j\n"])  # fmt: skip
def test_tables_of_anything_else_are_refused(tmp_path, text):
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(DataFileError):
        load_points(path)


def test_bytes_that_are_not_text_are_refused(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"x,y\xff\n1,2\n3,4\n")
    with pytest.raises(DataFileError, match="cannot be read"):
        load_points(path)


def test_an_archive_must_hold_one_array(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, first=POINTS, second=POINTS)
    with pytest.raises(DataFileError, match=r"first.*second.*one"):
        load_points(path)
    np.savez(path)
    with pytest.raises(DataFileError, match="one"):
        load_points(path)


def test_a_header_that_promises_more_than_there_is_allocates_nothing(tmp_path):
    """A declared shape of 8 TB in a file of 200 bytes."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f8", "fortran_order": False, "shape": (10**12, 2)})
    header = stream.getvalue()
    (tmp_path / "a.npy").write_bytes(header + b"\x00" * 64)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("points.npy", header + b"\x00" * 64)
    for name in ("a.npy", "a.npz"):
        with pytest.raises(DataFileError, match="cannot be read"):
            load_points(tmp_path / name)


# ------------------------------------------------------------------ embedded sets


@pytest.mark.parametrize("name", MIXTURES)
def test_embedded_sets_are_mixtures_on_every_backend(any_backend, name):
    p = mixture(name, any_backend.asarray, "float32")
    assert p.dim == 2
    assert str(p.means.dtype).endswith("float32")
    assert float(np.sum(any_backend.to_numpy(p.weights))) == pytest.approx(1.0, abs=1e-6)
    assert p.sample(any_backend.rng(0), 5).shape == (5, 2)


def test_an_unknown_set_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"no data set called 'moons'.*tilted.*spiral"):
        mixture("moons")


def test_the_published_sets_have_their_parameters():
    p = mixture("two-modes")  # Song and Ermon 2019
    assert p.weights.tolist() == [0.8, 0.2]
    assert p.means.tolist() == [[5.0, 5.0], [-5.0, -5.0]]
    assert p.covariances.tolist() == [1.0, 1.0]
    q = mixture("tilted")
    assert np.sort(q.variances, axis=1) == pytest.approx(np.asarray([[0.1, 0.5], [0.05, 0.3], [0.2, 0.2]]), rel=1e-12)
    c, s = math.cos(math.radians(30)), math.sin(math.radians(30))
    assert q.covariances[0] @ [c, s] == pytest.approx(0.5 * np.asarray([c, s]), rel=1e-12)
    c, s = math.cos(math.radians(-50)), math.sin(math.radians(-50))
    assert q.covariances[1] @ [c, s] == pytest.approx(0.3 * np.asarray([c, s]), rel=1e-12)
    assert q.weights.tolist() == [0.5, 0.3, 0.2]
    ring = mixture("circle")
    assert np.linalg.norm(ring.means, axis=1) == pytest.approx(np.full(8, 2.0), rel=1e-14)
    assert np.sum(ring.means, axis=0) == pytest.approx(np.zeros(2), abs=1e-14)
    assert ring.covariances == pytest.approx(np.full(8, 0.01))


@pytest.mark.parametrize(("text", "message"), [
    ("x,y\n1,2\n\n3,oops\n", r"line 4: '3,oops' is not a row like the others, of numbers separated by commas"),
    ("1,2\n3,4,5\n", "line 2: '3,4,5' is not a row like the others"),
    ("x,kind\n1,cat\n", "column 2 is 'cat'; leave columns of words out, or write classes as 0, 1, ..."),
    ("1.3;-3.6\n2;3\n", "line 1: '1.3;-3.6' is separated by semicolons"),
    ("", "holds no lines of numbers"),
    ("x,y\n", "holds no lines of numbers"),
])  # fmt: skip
def test_a_bad_line_is_named_as_an_editor_counts(text, message, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(DataFileError, match=message):
        load_points(path)


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    with pytest.raises(DataFileError, match=r"a\.csv cannot be read: there is no such file"):
        load_points(tmp_path / "a.csv")


# ------------------------------------------------------------------ no point is lost without a word


AS_POINTS = ["\ufeff1,2", '"1","2"', "1,2 # note", " 1 ,\t2 ", "# x,y\n1,2", "\n\r\n1,2", "1e0,+2.", "1.,.2e1"]
AS_NOTHING = [
    "1.O,2.0", "1.O,2.O", "NA,3", "NA,NA", "0.5,", ",0.5", ",", '"1,5","2,5"', "1,5;2,5", "1;2", "1\t2", "1 2", "1,2,",
    "1_000,2", "0x1,0x2", "1,2 note", "-,?", "N/A,null", "1st,2nd", "3,x", "x,3",
    "#N/A,3", "3,#DIV/0!", "−1.5,−2", "l.5,O.3", "$1.5,$2", "True,False", "missing,missing", ".,.",
]  # fmt: skip


@pytest.mark.parametrize("first", AS_POINTS)
def test_a_first_row_that_can_be_read_is_a_point(first, tmp_path):
    path = tmp_path / "a.csv"
    for end in ("\n", "\r\n"):
        path.write_text(first + end + "3,4" + end, encoding="utf-8", newline="")
        assert np.array_equal(load_points(path), [[1, 2], [3, 4]])


@pytest.mark.parametrize("first", AS_NOTHING)
def test_a_first_row_that_cannot_be_read_is_named(first, tmp_path):
    path = tmp_path / "a.csv"
    for header in ("", "\ufeff"):
        path.write_text(f"{header}{first}\n3,4\n5,6\n", encoding="utf-8")
        with pytest.raises(DataFileError, match="line 1: "):
            load_points(path)
    path.write_text(f"x,y\n{first}\n3,4\n5,6\n")
    with pytest.raises(DataFileError, match="line 2: "):
        load_points(path)


@given(place=st.integers(0, 9), character=st.characters(codec="utf-8", exclude_characters="#\n\r"))
def test_one_wrong_character_loses_no_point(tmp_path_factory, place, character):
    path = tmp_path_factory.mktemp("points") / "a.csv"
    row = "12.5,-3.25"
    path.write_text(row[:place] + character + row[place + 1 :] + "\n3,4\n5,6\n", encoding="utf-8", newline="")
    try:
        assert len(load_points(path)) == 3
    except DataFileError as error:
        assert "line 1" in str(error) or "line 2: '3,4'" in str(error) or "cannot be read" in str(error)  # noqa: PT017


@pytest.mark.parametrize(("text", "said"), [
    ("x,y\n1,2\n3,4\n", "2 columns: x, y; 2 rows; header"),
    (" height , weight\r\n1,2\r\n3,4\r\n", "2 columns: height, weight; 2 rows; header"),
    ("1,2\n3,4\n", "2 columns: x1, x2; 2 rows; no header"),
    ("# made by hand\nx,y\n1,2\n3,4\n", "2 columns: x, y; 2 rows; header"),
    ('"no #1","b"\n1,2\n3,4\n', "2 columns: no #1, b; 2 rows; header"),
    (",x,y\n0,1,2\n1,3,4\n", "2 columns: x, y; 2 rows; header; the first column, which has no name, was left out"),
    (
        "0,1\n1.5,2\n",
        "2 columns: x1, x2; 2 rows; no header "
        "(the first row, 0, 1, ..., is a point: delete it if it counts the columns)",
    ),
    ("0,1\n3,2\n", "2 columns: x1, x2; 2 rows; no header"),
    ("i,x\n0,1.5\n1,2.5\n", "2 columns: i, x; 2 rows; header; i counts the rows: is it an index?"),
])  # fmt: skip
def test_what_was_read_is_said(text, said, tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(text.encode())
    table = read_points(path)
    assert table.said == said
    assert table.points.shape == (2, 2)
    np.save(tmp_path / "a.npy", POINTS)
    assert read_points(tmp_path / "a.npy").said == "2 columns: x1, x2; 20 rows"


def test_infinities_are_no_names(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("inf,Infinity\n1,2\n3,4\n")
    with pytest.raises(DataFileError, match="2 values that are not finite"):
        load_points(path)


def test_an_index_beside_one_column_is_no_coordinate(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(",x\n0,1.5\n1,2.5\n2,3.5\n")
    with pytest.raises(DataFileError, match=r"shape \(3, 1\); header; the first column, which has no name"):
        load_points(path)
    assert np.array_equal(load_points(path, dim=1), [[1.5], [2.5], [3.5]])


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_text_in_another_encoding_is_refused(encoding, tmp_path):
    (tmp_path / "a.csv").write_text("größe,y\n1,2\n3,4\n", encoding=encoding)
    with pytest.raises(DataFileError, match="cannot be read: it is not UTF-8 text, from byte"):
        load_points(tmp_path / "a.csv")


def test_thousands_of_columns_are_read_or_refused_by_shape(tmp_path):
    wide = np.arange(9000.0).reshape(3, 3000)
    path = written(tmp_path / "a.csv", wide)
    assert np.array_equal(load_points(path, dim=3000), wide)
    with pytest.raises(DataFileError, match=r"shape \(3, 3000\)"):
        load_points(path)


@pytest.mark.parametrize("name", ENDINGS)
def test_what_is_too_large_is_refused_before_it_is_read(name, tmp_path, monkeypatch):
    """A file's size, a member's and a header's: each is looked at before anything is allocated."""
    zeros = np.zeros((4000, 2), dtype="int8")  # 8 kB in the file, 64 kB in float64
    path = tmp_path / name
    (np.savez_compressed if name.endswith("z") else written)(path, zeros)
    assert len(load_points(path)) == 4000
    for module in ("data.files", "data.points"):
        monkeypatch.setattr(f"refscore.{module}.LARGEST", 8 * 8000 - 1)
    monkeypatch.setattr(np.lib.format, "read_array", None)
    with pytest.raises(DataFileError, match=r"it (declares 8000 numbers \(4000, 2\)|has more than 7999)"):
        load_points(path)


def test_an_archive_that_declares_too_much_is_refused(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "a.npz", a=np.zeros(1000), b=np.zeros(1000))
    assert sorted(files.read_arrays(tmp_path / "a.npz")) == ["a", "b"]
    monkeypatch.setattr(files, "LARGEST", 9000)
    with pytest.raises(ValueError, match="it declares 16256 bytes, at most 9000 are read"):
        files.read_arrays(tmp_path / "a.npz")


def test_two_arrays_of_one_name_are_refused(tmp_path):
    stream = io.BytesIO()
    np.save(stream, POINTS)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for name in ("points.npy", "points"):
            archive.writestr(name, stream.getvalue())
    with pytest.raises(DataFileError, match=r"a\.npz cannot be read: it holds two arrays called points"):
        load_points(tmp_path / "a.npz")
