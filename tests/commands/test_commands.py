"""What every command owes: results first, printing that cannot fail, early refusals, interruptions that keep."""

import errno
import io
import json
import math
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from refscore import cli, plots
from refscore.commands import demo, demo_figures, reproduce, samplers
from refscore.commands.progress import Outlet
from refscore.data import files
from refscore.data.points import Table, outliers, standardise
from refscore.experiments import song_ermon_2019
from refscore.laws.examples import mixture
from refscore_backends import get
from tests.oracles.measured import fake


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Everything as it is, but small: these tests look at the plumbing."""
    for name in ("SAMPLES", "SCORE_SAMPLES", "EXCESS_SAMPLES"):
        monkeypatch.setattr(demo, name, 50)
    monkeypatch.setattr(demo, "denoising_floor", partial(demo.denoising_floor, levels=3))
    monkeypatch.setattr(demo, "draw", lambda *args: [])
    monkeypatch.setattr(samplers, "likelihood_split", lambda *args: {})
    monkeypatch.setattr(samplers, "_draw", lambda *args: "no picture")
    curve, noised, density, moded = fake()
    monkeypatch.setattr(song_ermon_2019, "manifold_curve", lambda noise, *args: noised if noise else curve)
    monkeypatch.setattr(song_ermon_2019, "low_density", lambda *args, backend: density)
    monkeypatch.setattr(song_ermon_2019, "weights", lambda seed, backend: moded)
    monkeypatch.setattr(reproduce, "save", lambda fig, path: str(path))
    for name in ("density", "weights"):
        monkeypatch.setattr(reproduce, f"draw_{name}", lambda results: None)


COMMANDS = {  # arguments, and the file that holds the numbers
    "demo": (["demo", "--steps", "2"], "numbers.json"),
    "samplers": (["samplers", "--samplers", "ddim", "--evaluations", "8"], "numbers.json"),
    "reproduce": (["reproduce", "song-ermon-2019", "--seeds", "1"], "claims.json"),
}


# ------------------------------------------------------------------ printing


class Failing(io.StringIO):
    """A stream that takes so many writes, and then none."""

    def __init__(self, error, after):
        super().__init__()
        self.error, self.after = error, after

    def write(self, text):
        self.after -= 1
        if self.after < 0:
            raise self.error
        return super().write(text)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(("after", "number", "status"), [(0, errno.EPIPE, 0), (3, errno.ENOSPC, 2)])
def test_a_stream_that_fails_costs_no_result(
    command, after, number, status, tmp_path,
    monkeypatch, capsys,
):  # fmt: skip
    args, name = COMMANDS[command]
    for stream in ("stdout", "stderr"):
        out = tmp_path / stream
        with monkeypatch.context() as patch:
            patch.setattr(sys, stream, Failing(OSError(number, os.strerror(number)), after))
            assert cli.main([*args, "--out", str(out)]) == (status if stream == "stdout" else 0)
        json.loads((out / name).read_text())
        assert ("cannot print: " in capsys.readouterr().err) == (status == 2 and stream == "stdout")


@pytest.mark.parametrize("command", [*COMMANDS, "info"])
@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_every_encoding_can_print_every_line(command, encoding, tmp_path, monkeypatch):
    args, name = COMMANDS.get(command, (["info"], ""))
    written = {stream: io.TextIOWrapper(io.BytesIO(), encoding=encoding) for stream in ("stdout", "stderr")}
    for stream, wrapper in written.items():
        monkeypatch.setattr(sys, stream, wrapper)
    assert cli.main([*args, *(["--out", str(tmp_path / "σ")] if name else [])]) == 0
    said = written["stdout"].buffer.getvalue().decode(encoding)
    assert ("σ" in said) == (encoding == "utf-8" and bool(name))
    assert not name or (tmp_path / "σ" / name).exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_numbers_are_on_disk_before_they_are_printed(command, tmp_path):
    """Also for a caller in Python, whose own `say` may raise."""
    name = COMMANDS[command][1]
    marks = {"demo": "trained", "samplers": "distance to the exact law", "reproduce": "measured"}

    def say(line):
        if marks[command] in line:
            raise BrokenPipeError

    run = {
        "demo": lambda: demo.demo("tilted", get("numpy"), 2, 0, tmp_path, say),
        "samplers": lambda: samplers.compare(None, ["ddim"], [8], "vp", 10, 0, None, tmp_path, get("numpy"), say),
        "reproduce": lambda: reproduce.reproduce("song-ermon-2019", tmp_path, 1, 600, get("numpy"), say),
    }[command]
    with pytest.raises(BrokenPipeError):
        run()
    json.loads((tmp_path / name).read_text())


def test_no_stream_at_all_is_no_error():
    outlet = Outlet(None)
    assert outlet.write("words\n") == 6
    outlet.flush()
    assert outlet.failure is None


def test_a_closed_pipe_and_a_full_disk_from_the_shell():
    """The exit as well: Python complains of what it cannot flush at its end."""
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    run = partial(subprocess.run, shell=True, capture_output=True, text=True, check=False, env=buffered)
    command = f"{sys.executable} -m refscore.cli info"
    closed = run(f"({command}; echo $? >&2) | true")
    assert closed.stderr == "0\n"
    if Path("/dev/full").exists():
        full = run(f"{command} > /dev/full")
        assert (full.returncode, full.stderr) == (2, "refscore: cannot print: No space left on device\n")


# ------------------------------------------------------------------ files


def test_json_holds_only_what_json_has(tmp_path):
    tree = {"a": [1.0, math.nan, {"b": math.inf}], "c": (-math.inf, None, "x", 3)}
    files.save_json(tmp_path / "a.json", tree)

    def refuse(constant):
        raise AssertionError(constant)

    back = json.loads((tmp_path / "a.json").read_text(), parse_constant=refuse)
    assert back == {"a": [1.0, "nan", {"b": "inf"}], "c": ["-inf", None, "x", 3]}
    assert float(back["a"][2]["b"]) == math.inf


def test_no_module_writes_json_but_through_the_one_door():
    for path in Path(files.__file__).parent.rglob("*.py"):
        assert "json.dump" not in path.read_text(encoding="utf-8") or path.name == "files.py", path


def test_a_sampler_that_diverges_is_a_string_in_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(samplers, "gaussian_error", lambda *of: lambda *args: math.inf)
    assert cli.main([*COMMANDS["samplers"][0], "--out", str(tmp_path)]) == 0
    (row,) = json.loads((tmp_path / "numbers.json").read_text(), parse_constant=pytest.fail)["rows"]
    assert (row["errors"], row["from_prior"]) == (["inf"], "inf")


def test_what_a_killed_process_left_is_swept_and_what_others_write_is_not(tmp_path):
    old, new, other = (tmp_path / name for name in (".theta.npy.a.tmp", ".theta.npy.b.tmp", ".numbers.json.c.tmp"))
    for path in (old, new, other):
        path.write_text("half")
    for path in (old, other):
        os.utime(path, (time.time() - 100,) * 2)
    files.save_array(tmp_path / "theta.npy", np.ones(3))
    assert {p.name for p in tmp_path.iterdir()} == {new.name, other.name, "theta.npy"}


def test_an_unfinished_file_is_hidden_and_says_whose_it_is(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(os, "replace", lambda old, new: seen.append(Path(old).name))
    files.save_text(tmp_path / "numbers.json", "{}")
    assert seen[0].startswith(".numbers.json.")
    assert seen[0].endswith(".tmp")


@pytest.mark.parametrize("save", [
    lambda p: files.save_text(p, "words"), lambda p: files.save_json(p, {}), lambda p: files.save_array(p, np.ones(9)),
    lambda p: files.save_arrays(p, x=np.ones(9)), lambda p: plots.save(plots.figure(1)[0], p),
])  # fmt: skip
def test_a_full_disk_is_one_sentence(save, tmp_path, monkeypatch):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    real = os.fdopen
    monkeypatch.setattr(
        os, "fdopen", lambda handle, mode: (os.close(handle), real(os.open("/dev/full", os.O_WRONLY), mode))[1]
    )
    with pytest.raises(OSError, match=r"cannot write .*result: No space left on device$"):
        save(tmp_path / "result")
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------ refused at the door


@pytest.mark.parametrize("command", ["demo", "samplers"])
@pytest.mark.parametrize("seed", [2**64, 2**70, -1])
def test_seeds_out_of_range_are_refused_before_any_work(command, seed, tmp_path, capsys):
    assert cli.main([*COMMANDS[command][0], f"--seed={seed}", "--out", str(tmp_path / "out")]) == 2
    assert f"seed must lie in [0, 2**64), got {seed}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["demo", "samplers"])
def test_the_greatest_seed_is_taken(command, tmp_path):
    """The demo's pictures, which draw from the seed after it: `test_pictures_of_a_file_are_in_its_units`."""
    assert cli.main([*COMMANDS[command][0], "--seed", str(2**64 - 1), "--out", str(tmp_path)]) == 0


@pytest.mark.parametrize(("args", "words"), [
    (["--samples", str(10**12)], "samples must be at most 2000000, which take some 10 GB, got 1000000000000"),
    (["--evaluations", "8", str(10**12)], "a budget of evaluations must be at most 100000, got 1000000000000"),
    (["--threads", "0"], "threads must be an integer of at least 1, got 0"),
])  # fmt: skip
def test_what_no_machine_holds_is_refused_before_any_work(args, words, tmp_path, capsys):
    assert cli.main(["samplers", "--data", "tilted", *args, "--out", str(tmp_path / "out")]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_memory_that_is_not_there_is_a_sentence(tmp_path, monkeypatch, capsys):
    def allocate(*args):
        np.empty(2**60, dtype="uint8")

    monkeypatch.setattr(samplers, "_row", allocate)
    assert cli.main([*COMMANDS["samplers"][0], "--out", str(tmp_path)]) == 2
    assert "refscore: not enough memory: 1 EiB were asked for" in capsys.readouterr().err


def damaged(whole):
    """What may lie where a result was kept."""

    def archive(**arrays):
        f = io.BytesIO()
        np.savez(f, **arrays)
        return f.getvalue()

    return {
        "empty": b"", "cut short": whole[: len(whole) // 2], "pickled": pickle.dumps(np.ones(3)),
        "objects": archive(curve=np.array([None])), "other names": archive(x=np.ones(60)), "no names": archive(),
        "text": archive(curve=np.array(["a"])), "words": b"curve",
    }  # fmt: skip


def test_a_damaged_result_is_named_with_what_to_do(tmp_path, capsys):
    run = [*COMMANDS["reproduce"][0], "--out", str(tmp_path)]
    assert cli.main(run) == 0
    kept = sorted(tmp_path.glob("*.npz"))
    assert len(kept) == 4
    for path in kept:
        whole = path.read_bytes()
        for content in damaged(whole).values():
            path.write_bytes(content)
            capsys.readouterr()
            assert cli.main(run) == 2
            said = capsys.readouterr().err.splitlines()[-1]
            assert said.startswith(f"refscore: {path} is not what was kept there (")
            assert said.endswith("); delete it to have it measured again")
        path.unlink()
        assert cli.main(run) == 0
        assert path.read_bytes() == whole


@pytest.mark.parametrize("good", [True, False])
def test_titles_and_limits_follow_the_measurement(good):
    falls, noised, *rest = fake(good)
    if not good:
        noised = np.linspace(0.9, 0.1, 60) * song_ermon_2019.manifold_floor(song_ermon_2019.NOISE)
    left, right = reproduce.draw_manifold(song_ermon_2019.Results([falls], [noised], *([x] for x in rest))).axes
    assert left.get_title() == f"circle: the loss {'goes on falling' if good else 'settles'}"
    above = "0.0%" if good else f"{song_ermon_2019.excess_over_floor(noised):z.1%}"
    assert right.get_title() == f"noise 0.1: ends {above} above its bound"
    low, high = right.get_ylim()
    assert low < song_ermon_2019.manifold_floor(song_ermon_2019.NOISE) < high
    assert low < np.min(noised) <= np.max(noised[6:]) < high


# ------------------------------------------------------------------ interrupted


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_training_and_keeps_it(number, tmp_path, monkeypatch):
    original = demo.fit
    usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    before = signal.signal(number, usual)  # under `nohup`, or behind an &, some are ignored

    def signalled(*args, **kwargs):
        for state in original(*args, **kwargs):
            if state.step == 3:
                os.kill(os.getpid(), number)
            yield state

    monkeypatch.setattr(demo, "fit", signalled)
    try:
        assert cli.main(["demo", "--steps", "500", "--out", str(tmp_path)]) == 0
        assert signal.getsignal(number) is usual
    finally:
        signal.signal(number, before)
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    assert numbers["interrupted"]
    assert numbers["steps"] in (2, 3)
    assert (tmp_path / "theta.npy").exists()


def test_handlers_of_others_and_other_threads_are_left_alone():
    taken = []
    before = signal.signal(signal.SIGTERM, lambda *args: taken.append(1))
    try:
        with cli._terminated_as_interrupted():
            os.kill(os.getpid(), signal.SIGTERM)
        assert taken == [1]
    finally:
        signal.signal(signal.SIGTERM, before)
    status = []
    thread = threading.Thread(target=lambda: status.append(cli.main(["reproduce"])))
    thread.start()
    thread.join()
    assert status == [0]


def test_an_interrupted_evaluation_keeps_the_rows_it_has(tmp_path, monkeypatch, capsys):
    original = samplers._row

    def row(name, *args):
        if name == stop:
            raise KeyboardInterrupt
        return original(name, *args)

    monkeypatch.setattr(samplers, "_row", row)
    args = ["samplers", "--samplers", "ddim", "heun", "rk4", "--evaluations", "8", "--out", str(tmp_path)]
    stop = "rk4"
    assert cli.main(args) == 0
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    assert [r["sampler"] for r in numbers["rows"]] == ["ddim", "heun"]
    assert numbers["interrupted"]
    assert "interrupted: 2 of 3 samplers were measured" in capsys.readouterr().out
    stop = "ddim"
    assert cli.main(args) == 130


def test_a_training_interrupted_before_its_first_loss_is_drawn():
    report = demo.Report("tilted", "numpy", 0, 3, True, 0.0)
    (ax,) = demo_figures._loss(report).axes
    assert ax.get_title() == "interrupted before the first mean of the loss"


# ------------------------------------------------------------------ threads


def test_commands_run_on_one_thread_unless_told_otherwise(tmp_path, monkeypatch, capsys):
    from threadpoolctl import threadpool_info, threadpool_limits

    def threads():
        return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}

    used = []
    monkeypatch.setattr(samplers, "_row", lambda name, *args: (used.append(threads()), samplers.Row(name))[1])
    with threadpool_limits(2, user_api="blas"):
        if threads() != {2}:
            pytest.skip("this BLAS has one thread")
        for args in ([], ["--threads", "2"]):
            assert cli.main([*COMMANDS["samplers"][0], *args, "--out", str(tmp_path)]) == 0
        assert threads() == {2}  # as before
    assert used == [{1}, {2}]
    said = capsys.readouterr().out
    assert "BLAS threads: 1 (more gain little" in said
    assert "BLAS threads: 2 (as asked)" in said
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    assert cli.main([*COMMANDS["samplers"][0], "--out", str(tmp_path)]) == 0
    assert "threadpoolctl, which could set them, is not installed" in capsys.readouterr().out


def test_help_names_the_exit_statuses(capsys):
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "0 done" in said
    assert "2 refused or failed" in said
    assert "130 interrupted" in said


# ------------------------------------------------------------------ columns of different scale


SCALES = 10.0 ** np.arange(-6, 7, 3)


@pytest.mark.parametrize("wide", SCALES)
@pytest.mark.parametrize("narrow", SCALES)
def test_each_column_is_scaled_by_itself_and_back(wide, narrow, tmp_path):
    """Identities: unit columns, and points, scores and log densities come back."""
    scale = np.array([wide, narrow])
    points = mixture("tilted").sample(np.random.default_rng(0), 200) * scale + 7 * scale
    np.save(tmp_path / "a.npy", points)
    problem = demo.load_problem(str(tmp_path / "a.npy"), get("numpy"), 0)
    unit = np.concatenate([problem.held_out, problem.data]).astype("float64")
    assert np.mean(unit, axis=0) == pytest.approx([0, 0], abs=1e-6)  # float32
    assert np.std(unit, axis=0) == pytest.approx([1, 1], abs=1e-6)
    back = problem.in_data_units(unit)
    assert np.max(np.abs(np.sort(back, axis=0) - np.sort(points, axis=0)) / scale) <= 1e-6 * 10
    # and so do the moments of anything that is sampled: mean and deviation of each column, exactly
    x = np.random.default_rng(1).standard_normal((500, 2))
    y = problem.in_data_units(x)
    assert np.mean(y, axis=0) == pytest.approx(problem.centre + problem.scale * np.mean(x, axis=0), rel=1e-12)
    assert np.std(y, axis=0) == pytest.approx(problem.scale * np.std(x, axis=0), rel=1e-9)
    # a normal law in the network's units is N(centre, scale²) in the file's: its log density less Σ log scale
    network = -0.5 * np.sum(x**2, axis=1)
    file = -0.5 * np.sum(((y - problem.centre) / problem.scale) ** 2, axis=1) - np.sum(np.log(problem.scale))
    assert file == pytest.approx(network - np.sum(np.log(problem.scale)), rel=1e-9)


def table(*columns):
    points = np.stack([np.asarray(c, dtype="float64") for c in columns], axis=1)
    return Table("a.csv", points, ["x", "y"][: len(columns)], "")


@pytest.mark.parametrize("magnitude", [1e-300, 1e-160, 1.0, 1e160, 1e300])
def test_columns_of_any_magnitude_have_deviation_one(magnitude):
    x = magnitude * np.random.default_rng(0).standard_normal(100)
    unit, centre, scale = standardise(table(x, x + 3 * magnitude))
    assert np.std(unit, axis=0) == pytest.approx([1, 1], rel=1e-12)
    assert centre + scale * unit == pytest.approx(np.stack([x, x + 3 * magnitude], axis=1), rel=1e-12)


def test_what_has_no_scale_is_refused_by_name():
    x = np.arange(30.0)
    for bad, words in ((np.full(30, 0.1), r"all points are the same in column y \(0.1\)"),
                       (1.7e308 * (-1) ** x, "column y is wider than float64"),
                       (5e-324 * (x % 2), "all points are the same in column y")):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            standardise(table(x, bad))


def test_an_outlier_that_rules_a_scale_is_named():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 1000))
    assert not list(outliers(table(x, y)))
    y[17] = 1e12
    (line,) = outliers(table(x, y))
    assert line.startswith(
        "warning: 1e+12 in column y, point 18, rules the scale: nine tenths of the column lie between"
    )
    for far in (50, 100, 1e3):  # 12 points in 1000, however far
        z = x.copy()
        z[:12] = far
        assert bool(list(outliers(table(z, x)))) == (math.sqrt(1 + 0.012 * far**2) > 3)


@pytest.mark.parametrize("name", ["tilted", "two-modes", "circle", "spiral"])
def test_ordinary_data_have_no_outliers(name):
    rng = np.random.default_rng(0)
    assert not list(outliers(table(*mixture(name).sample(rng, 2000).T)))
    for x in (rng.random(2000), rng.laplace(size=2000), rng.exponential(size=2000), rng.standard_t(4, 2000)):
        assert not list(outliers(table(x, x)))


def test_pictures_of_a_file_are_in_its_units(tmp_path):
    """Every axis that shows data spans the data's own range, whatever the columns' scales; frames are square."""
    points = np.random.default_rng(0).standard_normal((100, 2)) * (1e4, 1e-3) + (5e5, 7.0)
    np.save(tmp_path / "a.npy", points)
    problem = demo.load_problem(str(tmp_path / "a.npy"), get("numpy"), 0)
    model = demo.ScoreModel(demo.MLP(demo.WIDTHS, embed=demo.FEATURES), demo.VP(), data_std=1.0)

    def score(x, t):
        return -x  # of a standard normal law, at every time

    units = lambda x: problem.in_data_units(x)  # noqa: E731
    data = units(problem.data)
    figures = (
        demo_figures._field(problem, model, score, data, get("numpy")),
        demo_figures._paths(problem, model, score, data, units, get("numpy"), 2**64 - 1, n=3),
        demo_figures._samples(problem, data, data, None),
    )
    axes = [ax for fig in figures for ax in fig.axes]
    assert len(axes) == 5
    time_axis = axes.pop(2)
    low, high = time_axis.get_ylim()
    assert (low + high) / 2 == pytest.approx(problem.centre[0])
    assert 1e4 < high - low < 2e5
    paths = np.stack([line.get_ydata() for line in time_axis.lines])
    assert np.max(np.abs(paths - problem.centre[0])) < 7 * problem.scale[0]  # N(0, 1) at every time, in its units
    for ax in axes:
        (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
        assert left < np.quantile(data[:, 0], 0.01) < np.quantile(data[:, 0], 0.99) < right
        assert bottom < np.quantile(data[:, 1], 0.01) < np.quantile(data[:, 1], 0.99) < top
        assert (top - bottom) * ax.get_aspect() == pytest.approx(right - left)
