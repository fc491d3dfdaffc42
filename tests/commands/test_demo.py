"""`refscore demo` and `refscore info`, from the command line inwards."""

import builtins
import errno
import json
import os
import re
from functools import partial

import numpy as np
import pytest
from scipy.stats import chi2

from refscore import MLP, VP, ScoreModel, __version__, cli
from refscore.commands import demo, demo_figures
from refscore.data import files
from refscore.laws.examples import MIXTURES
from refscore_backends import get
from tests.oracles.statistics import assert_from, assert_mean

FAST = ["--steps", "30"]


def run(*args):
    return cli.main(["demo", *map(str, args)])


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Everything as it is, with fewer samples: these tests look at the plumbing."""
    for name in ("SAMPLES", "SCORE_SAMPLES", "EXCESS_SAMPLES"):
        monkeypatch.setattr(demo, name, 200)
    monkeypatch.setattr(demo, "denoising_floor", partial(demo.denoising_floor, levels=6))


@pytest.fixture
def _no_pictures(monkeypatch):
    monkeypatch.setattr("refscore.commands.demo.draw", lambda *args: [])


def test_demo_writes_numbers_parameters_and_pictures(tmp_path, capsys):
    assert run(*FAST, "--out", tmp_path / "new" / "folder") == 0
    out = tmp_path / "new" / "folder"
    assert {p.name for p in out.iterdir()} == {
        "numbers.json", "theta.npy", "field.png", "paths.png", "samples.png", "loss.png",
    }  # fmt: skip
    numbers = json.loads((out / "numbers.json").read_text())
    assert numbers["steps"] == 30
    assert not numbers["interrupted"]
    assert len(numbers["scores"]) == 7
    assert all(np.isfinite(row["error"]["value"]) for row in numbers["scores"])
    assert [m["weight"] for m in numbers["samples"]["modes"]] == [0.5, 0.3, 0.2]
    said = capsys.readouterr().out
    for words in (
        "the prior: KL = 6.3e-06 nats",
        "floor of the loss",
        "worst:",
        "the sampling floor",
        "mode weights",
        "pictures:",
    ):
        assert words in said
    model = ScoreModel(MLP(demo.WIDTHS, embed=demo.FEATURES), VP())
    score = model.bind(np.load(out / "theta.npy"))  # the parameters fit the model they came from
    assert np.isfinite(score(np.zeros((2, 2), dtype="float32"), 0.5)).all()


@pytest.mark.usefixtures("_no_pictures")
@pytest.mark.parametrize("name", [n for n in MIXTURES if n != "tilted"])
def test_demo_runs_on_every_embedded_set(name, tmp_path):
    assert run("--steps", "3", "--data", name, "--out", tmp_path) == 0


@pytest.mark.usefixtures("_no_pictures")
def test_demo_is_the_same_in_every_bit_for_the_same_seed(tmp_path):
    for folder, seed in (("a", 7), ("b", 7), ("c", 8)):
        assert run(*FAST, "--seed", seed, "--out", tmp_path / folder) == 0
    a, b, c = (np.load(tmp_path / folder / "theta.npy") for folder in "abc")
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


@pytest.mark.usefixtures("_no_pictures")
def test_demo_runs_on_the_strict_back_end_with_the_same_numbers(tmp_path):
    for backend in ("numpy", "strict"):
        assert run(*FAST, "--backend", backend, "--out", tmp_path / backend) == 0
    a, b = (np.load(tmp_path / name / "theta.npy") for name in ("numpy", "strict"))
    np.testing.assert_allclose(a, b, atol=1e-4)  # float32, thirty steps


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".csv"])
def test_demo_runs_on_a_file_without_the_exact_columns(suffix, tmp_path, monkeypatch, capsys):
    points = np.random.default_rng(0).normal((100.0, -3.0), (30.0, 5.0), (400, 2))
    path = tmp_path / f"points{suffix}"
    if suffix == ".csv":
        np.savetxt(path, points, delimiter=",", header="x,y", comments="")
    else:
        (np.save if suffix == ".npy" else np.savez)(path, points)
        monkeypatch.setattr(demo, "draw", lambda *args: [])  # pictures once
    assert run(*FAST, "--data", path, "--out", tmp_path / "out") == 0
    numbers = json.loads((tmp_path / "out" / "numbers.json").read_text())
    assert numbers["floor"] is None
    assert numbers["scores"] == []
    assert 0 < numbers["held_out_floor"] < 1  # in deviations of each column
    said = capsys.readouterr().out
    assert "vs exact" not in said
    # in units of their spread about their centre E‖x‖² is 2, so the bound is α(1)² = 4.32e-5 (on four points in five)
    (bound,) = re.findall(r"the prior: KL <= (\S+) nats", said)
    assert float(bound) == pytest.approx(4.32e-5, rel=0.15)
    assert (tmp_path / "out" / "field.png").exists() == (suffix == ".csv")


def test_points_of_a_file_are_measured_from_their_centre(tmp_path):
    """Far from 0 and unlike in their coordinates: the network still sees deviation 1 about 0."""
    np.save(tmp_path / "a.npy", np.random.default_rng(0).normal((1000.0, -3.0), (30.0, 5.0), (4000, 2)))
    problem = demo.load_problem(str(tmp_path / "a.npy"), get("numpy"), 0)
    assert_mean(problem.data, 0.0, sees=0.2)
    assert_mean(problem.data**2, problem.std**2, sees=0.3)
    for found, scale in zip(problem.scale, (30.0, 5.0), strict=True):
        assert_from(4000 * (found / scale) ** 2, chi2(3999))


def test_one_point_many_times_is_refused(tmp_path, capsys):
    np.save(tmp_path / "a.npy", np.tile([0.1, 0.7], (50, 1)))
    assert run(*FAST, "--data", tmp_path / "a.npy", "--out", tmp_path) == 2
    assert "all points are the same" in capsys.readouterr().err


def test_file_points_are_centred_scaled_and_split(tmp_path):
    points = np.random.default_rng(0).normal((100.0, -3.0), (30.0, 5.0), (400, 2))
    np.save(tmp_path / "p.npy", points)
    problem = demo.load_problem(str(tmp_path / "p.npy"), get("numpy"), seed=0)
    assert problem.held_out is not None
    assert (len(problem.data), len(problem.held_out)) == (320, 80)
    unit = np.concatenate([problem.held_out, problem.data])
    assert abs(unit.mean()) < 1e-6
    back = problem.centre + problem.scale * unit.astype("float64")
    np.testing.assert_allclose(np.sort(back[:, 0]), np.sort(points[:, 0]), rtol=1e-5)


@pytest.mark.parametrize("name", list(MIXTURES))
def test_declared_scale_of_an_embedded_set_is_that_of_its_samples(name):
    problem = demo.load_problem(name, get("numpy"), seed=0)
    assert problem.exact is not None
    x = problem.exact.sample(np.random.default_rng(0), 40_000)
    assert_mean(np.mean((x / problem.std) ** 2, axis=1), 1.0, sees=0.1)


@pytest.mark.usefixtures("_no_pictures")
def test_ctrl_c_keeps_what_was_done(tmp_path, monkeypatch, capsys):
    original = demo.fit

    def interrupted(*args, **kwargs):
        for state in original(*args, **kwargs):
            yield state
            if state.step == 17:
                raise KeyboardInterrupt

    monkeypatch.setattr(demo, "fit", interrupted)
    assert run(*FAST, "--out", tmp_path) == 0
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    assert numbers["interrupted"]
    assert numbers["steps"] == 17
    assert "interrupted after step 17" in capsys.readouterr().out


def test_ctrl_c_before_the_first_step_is_an_interruption(tmp_path, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(demo, "fit", interrupted)
    assert run(*FAST, "--out", tmp_path) == 130


@pytest.mark.parametrize("missing", ["matplotlib", "tqdm"])
def test_without_an_extra_the_numbers_are_still_written(missing, tmp_path, monkeypatch, capsys):
    original = builtins.__import__

    def without(name, *args, **kwargs):
        if name.split(".")[0] == missing:
            raise ImportError(missing)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    if missing == "tqdm":
        monkeypatch.setattr(demo, "draw", lambda *args: [])
    assert run(*FAST, "--out", tmp_path) == 0
    said = capsys.readouterr().out
    assert (tmp_path / "numbers.json").exists()
    if missing == "matplotlib":
        assert 'pip install -e ".[plots]" in the checkout' in said
        assert not list(tmp_path.glob("*.png"))
    else:
        assert said.count("s left") == 10  # a line every tenth of the way


def test_divergent_training_saves_the_last_good_parameters(tmp_path, monkeypatch, capsys):
    from refscore.training.loop import DivergenceError, TrainingState

    good = TrainingState(100, np.ones(3), *(np.zeros(()),) * 3, optimizer_state=None, average=None)

    def divergent(*args, **kwargs):
        raise DivergenceError("training diverged by step 200: loss nan, gradient norm nan, learning rate 0.003", good)
        yield

    monkeypatch.setattr(demo, "fit", divergent)
    assert run(*FAST, "--out", tmp_path) == 2
    assert np.array_equal(np.load(tmp_path / "theta.npy"), np.ones(3))
    assert "learning rate 0.003" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--steps", "0"], "steps must be an integer of at least 1"),
        (["--seed", "-1"], "seed must lie in"),
        (["--data", "nonsense"], "no data set called 'nonsense'; there are tilted"),
        (["--data", "missing.npy"], "cannot be read"),
        (["--data", "points.txt"], "ending in .npy, .npz, .csv"),
    ],
)
def test_refusals_come_before_any_work(args, words, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "fit", lambda *a, **k: pytest.fail("training started"))
    assert run("--out", tmp_path / "out", *args) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert "Traceback" not in captured.err


@pytest.mark.parametrize(
    ("points", "words"),
    [
        (np.zeros((5, 2)), "at least 20 are needed"),
        (np.ones((50, 2)), "all points are the same"),
        (np.full((50, 2), np.nan), "100 values that are not finite, the first in row 0"),
        (np.zeros((50, 3)), "shape (50, 3)"),
    ],
)
def test_unusable_points_are_refused(points, words, tmp_path, capsys):
    np.save(tmp_path / "points.npy", points)
    assert run("--data", tmp_path / "points.npy", "--out", tmp_path / "out") == 2
    assert words in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_refused(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert run(*FAST, "--out", tmp_path / "file" / "out") == 2
    assert "cannot write to the folder" in capsys.readouterr().err


def test_a_failed_write_leaves_the_old_file_and_no_debris(tmp_path, monkeypatch):
    files.save_text(tmp_path / "numbers.json", "old")

    def replace(*paths):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", replace)

    with pytest.raises(OSError, match=r"cannot write .*numbers\.json: No space left on device"):
        files.save_text(tmp_path / "numbers.json", "new")
    assert (tmp_path / "numbers.json").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["numbers.json"]


def test_info_names_versions_back_ends_and_blas(capsys):
    assert cli.main(["info"]) == 0
    said = capsys.readouterr().out
    for words in (f"refscore {__version__}", "numpy 2", "back end numpy: CPU", "back end cupy:", "BLAS:", "core type"):
        assert words in said


@pytest.mark.parametrize(
    ("header", "shown"),
    [("east,price $ a_b$\n", ("east", r"price \$ a_b\$")), ("", ("$x_1$", "$x_2$"))],
)
def test_axes_are_called_as_the_columns_of_the_file(tmp_path, header, shown):
    plt = pytest.importorskip("matplotlib.pyplot")
    rows = np.random.default_rng(0).standard_normal((40, 2)).tolist()
    (tmp_path / "p.csv").write_text(header + "".join(f"{a},{b}\n" for a, b in rows))
    problem = demo.load_problem(str(tmp_path / "p.csv"), get("numpy"), seed=0)
    figure, ax = plt.subplots()
    demo_figures._frame(ax, problem, (-1.0, 1.0, -1.0, 1.0))
    figure.canvas.draw()  # a lone dollar would be mathematics, and fail here
    assert (ax.get_xlabel(), ax.get_ylabel()) == shown
    plt.close(figure)
