"""`refscore train`, `sample` and `evaluate`: one folder from data to judgement, and nothing lost on the way."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import fields, replace
from itertools import count

import numpy as np
import pytest

from refscore import Denoising, cli, load, save
from refscore.commands import evaluate, pictures, saved_run, train
from refscore.commands.chunks import in_chunks
from refscore.commands.drawing import Drawing
from refscore.commands.saved_run import CHECKPOINT, METRICS, SETTINGS
from refscore.commands.train_config import Settings, as_toml, build, fitting_sde, settle
from refscore.data.files import alone_in
from refscore.data.sets import load_data
from refscore.laws.examples import mixture
from refscore.matching.times import UniformLogSNR
from refscore.matching.weights import g_squared
from refscore.measure.floor import denoising_floor
from refscore.noise.prior import prior_mismatch_bound
from refscore.noise.sde import SDES
from refscore.training.loop import fit
from refscore.training.parallel import Sharded
from refscore_backends import get
from tests.oracles.close import assert_close
from tests.oracles.statistics import assert_mean, assert_within

RNG = np.random.default_rng(0)
POINTS = RNG.standard_normal((60, 3)) * [1.0, 2.0, 3.0] + [0.0, 5.0, -1.0]
IMAGES = RNG.integers(0, 4, (40, 5, 4), dtype="uint8")
LABELS = np.arange(40) % 3
SMALL = {
    "mlp": ["--widths", "4", "--batch", "8"],
    "unet": ["--widths", "8", "8", "--batch", "4", "--levels", "4"],
    "energy": ["--net", "energy", "--widths", "4", "--batch", "8"],
    "energy of images": ["--net", "energy", "--widths", "8", "--batch", "4"],
}


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Small pictures in few steps, and a flow of few steps: but for two tests of its numbers, which want them all."""
    monkeypatch.setattr(pictures, "SHOWN", 4)
    monkeypatch.setattr(pictures, "POINTS", 20)
    monkeypatch.setattr(pictures, "STEPS", 2)
    monkeypatch.setattr(evaluate, "FLOW", 4)


@pytest.fixture
def files(tmp_path):
    """Points without labels, images with them."""
    np.save(tmp_path / "points.npy", POINTS)
    np.savez(tmp_path / "images.npz", images=IMAGES, labels=LABELS)
    return {kind: str(tmp_path / name) for kind, name in (
        ("mlp", "points.npy"), ("energy", "points.npy"), ("unet", "images.npz"), ("energy of images", "images.npz"),
    )}  # fmt: skip


@pytest.fixture(scope="module")
def run_of_images(tmp_path_factory):
    """A run for tests that only read it."""
    folder = tmp_path_factory.mktemp("run")
    np.savez(folder / "images.npz", images=IMAGES, labels=LABELS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "SHOWN", 2)
        return trained({"unet": folder / "images.npz"}, folder, "unet", 2)


def command(*args):
    assert cli.main([str(arg) for arg in args]) == 0


def trained(files, tmp_path, net="mlp", steps=4, *flags):
    out = tmp_path / "run"
    command("train", "--data", files[net], "--out", out, "--steps", steps, *SMALL[net], *flags)
    return out


def refused(capsys, *args):
    capsys.readouterr()
    assert cli.main([str(arg) for arg in args]) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("refscore: ")
    return message


# ------------------------------------------------------------------ train


@pytest.mark.parametrize("net", SMALL)
def test_a_run_leaves_a_model_its_settings_and_its_metrics(net, files, tmp_path, capsys):
    out = trained(files, tmp_path, net, 5)
    assert settle({}, out / SETTINGS) == settle({}, out / SETTINGS)
    kept = load(out / CHECKPOINT)
    assert (kept.state.step, kept.config["settings"]["steps"]) == (5, 5)
    assert kept.model.classes == (3 if "images" in files[net] else 0)
    head, *rows = (out / METRICS).read_text().splitlines()
    assert head == "step,loss,excess,held_out,grad_norm,per_second,seconds"
    assert [int(row.split(",")[0]) for row in rows] == [1, 2, 3, 4, 5]
    assert all(float(row.split(",")[3]) > 0 for row in rows)
    assert "next: refscore sample" in capsys.readouterr().out
    assert sorted(p.name for p in out.glob("*.png")) == (
        [f"samples-{n:06d}.png" for n in range(1, 6)] if "images" in files[net] else []
    )


class Stop:
    """Raises KeyboardInterrupt when the metrics of a step are written."""

    def __init__(self, step):
        self.step, self.add = step, train.Metrics.add

    def __call__(self, metrics, state, *args):
        self.add(metrics, state, *args)
        if state.step == self.step:
            raise KeyboardInterrupt


@pytest.mark.parametrize(("net", "objective"), [
    ("mlp", "denoising"), ("mlp", "sliced"), ("unet", "denoising"), ("unet", "sliced"),
    ("energy of images", "denoising"),
])  # fmt: skip
def test_a_run_that_was_stopped_goes_on_in_the_same_bits(net, objective, files, tmp_path, monkeypatch):
    flags = ["--objective", objective, *(["--dropout", "0.2", "--flips"] if net == "unet" else [])]
    whole = trained(files, tmp_path, net, 6, *flags)
    stopped = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        stop = Stop(3)
        patch.setattr(train.Metrics, "add", lambda metrics, *args: stop(metrics, *args))
        command("train", "--data", files[net], "--out", stopped, "--steps", 6, *SMALL[net], *flags)
    assert load(stopped / CHECKPOINT).state.step == 3
    command("train", "--out", stopped, "--resume")
    one, other = (load(folder / CHECKPOINT) for folder in (whole, stopped))
    assert np.array_equal(one.theta, other.theta)
    assert np.array_equal(one.average, other.average)
    rows = [[row.split(",")[:5] for row in (f / METRICS).read_text().splitlines()] for f in (whole, stopped)]
    assert rows[0] == rows[1]
    command("train", "--out", stopped, "--resume")  # done: nothing happens
    assert load(stopped / CHECKPOINT).state.step == 6


class Halfway:
    """An objective during whose call number n, after it has drawn its numbers, Ctrl-C comes."""

    def __init__(self, objective, n):
        self.objective, self.n = objective, n

    def __call__(self, *args):
        made = self.objective(*args)
        self.n -= 1
        if not self.n:
            raise KeyboardInterrupt
        return made


@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize("step", [2, 4])
def test_ctrl_c_in_the_middle_of_a_step_costs_no_bits(shards, step, files, tmp_path, monkeypatch):
    """The step that is cut off has drawn numbers, and seeds of shards, which the next one must draw again."""
    flags = ["--shards", shards, "--held-out", 0]
    whole = trained(files, tmp_path, "mlp", 6, *flags)
    stopped, walk = tmp_path / "stopped", train._walk

    def interrupted(run, *args):
        halves = Halfway(run.objective, shards * (step - 1) + 1)
        monkeypatch.setattr(train, "fit", lambda model, objective, *a, **k: fit(
            model, halves if shards == 1 else Sharded(halves, shards), *a, **k))  # fmt: skip
        return walk(run, *args)

    with monkeypatch.context() as patch:
        patch.setattr(train, "_walk", interrupted)
        command("train", "--data", files["mlp"], "--out", stopped, "--steps", 6, *SMALL["mlp"], *flags)
    monkeypatch.setattr(train, "fit", fit)
    assert load(stopped / CHECKPOINT).state.step == step - 1
    command("train", "--out", stopped, "--resume")
    assert np.array_equal(load(whole / CHECKPOINT).theta, load(stopped / CHECKPOINT).theta)


def test_two_runs_do_not_share_a_folder(files, tmp_path, capsys):
    out = tmp_path / "run"
    out.mkdir()
    with alone_in(out):
        assert "another process is at work in" in refused(capsys, "train", "--data", files["mlp"], "--out", out)
    assert not list(out.iterdir())
    trained(files, tmp_path)


def test_a_run_goes_on_from_any_folder_and_with_data_that_have_moved(files, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command("train", "--data", "points.npy", "--out", "run", "--steps", 2, *SMALL["mlp"])
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    command("train", "--out", "../run", "--resume")
    command("evaluate", "../run", "--n", 2, "--points", 2, "--steps", 2)
    (tmp_path / "points.npy").rename(tmp_path / "moved.npy")
    assert "there is no such file" in refused(capsys, "evaluate", "../run")
    command("evaluate", "../run", "--n", 2, "--points", 2, "--steps", 2, "--data", "../moved.npy")
    command("train", "--out", "../run", "--resume", "--data", "../moved.npy")
    assert "are not those that the " in refused(capsys, "evaluate", "../run", "--data", "moons")


def test_what_is_read_is_never_written(files, tmp_path, monkeypatch, capsys):
    out = trained(files, tmp_path)
    before = (out / CHECKPOINT).read_bytes(), (tmp_path / "points.npy").read_bytes()
    for name in (out / CHECKPOINT, tmp_path / "points.npy"):
        assert "would be overwritten" in refused(capsys, "sample", out, "--out", name)
    assert ((out / CHECKPOINT).read_bytes(), (tmp_path / "points.npy").read_bytes()) == before
    (tmp_path / SETTINGS).write_text(f"data = {json.dumps(files['mlp'])} # mine")
    assert "would be overwritten" in refused(capsys, "train", "--config", tmp_path / SETTINGS, "--out", tmp_path)
    assert (tmp_path / SETTINGS).read_text().endswith("# mine")
    assert "is not the demo's" in refused(capsys, "demo", "--data", "digits", "--out", out)
    assert (out / CHECKPOINT).exists()


@pytest.mark.parametrize(("centre", "scale"), [(2e9, 1.0), (0.0, 1e-300), (0.0, 1e300), (-1e-200, 1e-200)])
def test_samples_are_as_fine_as_the_data(centre, scale, tmp_path, capsys):
    """A column of seconds since 1970, say: in float32 its samples would be the mean, or 0, or infinite."""
    np.save(tmp_path / "a.npy", centre + scale * np.stack([POINTS[:, 0], RNG.standard_normal(60)], axis=1))
    command(
        "train", "--data", tmp_path / "a.npy", "--out", tmp_path / "run", "--steps", 2, "--predict", "F", "--widths", 4
    )
    command("sample", tmp_path / "run", "--n", 50, "--out", tmp_path / "x.npy", "--trajectory", "--steps", 5)
    x = np.load(tmp_path / "x.npy")[-1]
    assert len(np.unique(x)) == 100
    assert np.all(np.std((x - centre) / scale, axis=0) > 0.1)


def test_a_terminated_process_has_saved_its_run(files, tmp_path):
    out = tmp_path / "run"
    args = [sys.executable, "-m", "refscore.cli", "train", "--data", files["mlp"], "--out", str(out), *SMALL["mlp"]]
    process = subprocess.Popen(
        [*args, "--steps", "1000000"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    while not (out / CHECKPOINT).exists():
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert load(out / CHECKPOINT).state.step > 1
    assert "go on with refscore train" in process.stdout.read()


def test_a_run_is_the_same_by_flags_and_by_file_and_flags_win(files, tmp_path):
    out = trained(files, tmp_path, "mlp", 4, "--seed", 3)
    config = out / SETTINGS
    assert "widths = [4]\n" in config.read_text()
    command("train", "--config", config, "--out", tmp_path / "again")
    command("train", "--config", config, "--out", tmp_path / "other", "--seed", 4)
    thetas = [load(tmp_path / name / CHECKPOINT).theta for name in ("run", "again", "other")]
    assert np.array_equal(thetas[0], thetas[1])
    assert not np.array_equal(thetas[0], thetas[2])


def test_settings_survive_their_file(tmp_path):
    settings = settle({"data": 'a"b\\c.npy', "widths": [3, 4], "rate": 1e-3, "flips": True, "net": "mlp"}, None)
    (tmp_path / "a.toml").write_text(as_toml(settings))
    assert settle({}, tmp_path / "a.toml") == settings


@pytest.mark.parametrize("name", SDES)
def test_the_sde_ends_where_the_data_are_noise(name):
    data = load_data("digits")
    for size in (1, 5, 30):
        wide = replace(data, x=size * data.x)
        assert prior_mismatch_bound(fitting_sde(name, wide), wide.x.astype("float64")) <= 0.01


@pytest.mark.parametrize(("flags", "says"), [
    (["--data", "nothing"], "no data set called 'nothing'"),
    (["--data", "{points}", "--net", "unet"], "holds points, and a U-Net takes images: --net mlp"),
    (["--data", "{images}", "--net", "mlp"], "holds images: --net unet or energy"),
    (["--data", "{points}", "--labels", "missing.npy"], "missing.npy"),
    (["--data", "{points}", "--unlabelled", "1"], r"unlabelled must lie in [0, 1), got 1.0"),
    (["--data", "{points}", "--rate", "-1"], "rate must be positive and finite, got -1.0"),
    (["--data", "{points}", "--rate", "inf"], "rate must be positive and finite, got inf"),
    (["--data", "{points}", "--t-min", "0"], "t_min must lie in (0, 1), got 0.0"),
    (["--data", "{points}", "--widths", "0"], "widths are integers of at least 1, one or more, got [0]"),
    (["--data", "{images}", "--levels", "-3"], "levels must be an integer of at least 2, got -3"),
    (["--data", "{images}", "--span", "5", "1"], "the least and the largest value; got [5.0, 1.0]"),
    (["--data", "{points}", "--steps", "0"], "steps must be an integer of at least 1, got 0"),
    (["--data", "{points}", "--steps", str(10**18)], f"steps={10**18} would take 3e+06 years on a fast machine"),
    (["--data", "{points}", "--seed", "-1"], "seed must lie in"),
    ([], "what should be learned? give --data NAME or --data FILE"),
    (["--data", "{points}", "--resume"], "holds no checkpoint.npz to go on from"),
    (["--data", "{images}", "--net", "energy", "--objective", "sliced", "--widths", "8"], "no passes jet"),
    (["--config", "{points}s"], "cannot be read: No such file"),
    (["--config", "{toml}"], "sets colour; what may be set is backend, batch, condition, data"),
    (["--config", "{broken}"], "is not TOML"),
    (["--config", "{kind}"], "steps = '7' in"),
])  # fmt: skip
def test_what_cannot_be_trained_is_refused_before_anything_is_written(flags, says, files, tmp_path, capsys):
    texts = {"toml": "colour = 3", "broken": "= 3", "kind": 'steps = "7"'}
    for name, text in texts.items():
        (tmp_path / f"{name}.toml").write_text(text)
    known = {"points": files["mlp"], "images": files["unet"]} | {k: tmp_path / f"{k}.toml" for k in texts}
    out = tmp_path / "run"
    args = [flag.format(**known) for flag in flags]
    assert says in refused(capsys, "train", "--out", out, *args)
    assert not out.exists()


@pytest.mark.parametrize(
    "value", ["7", '"7"', "2.5", "true", "[]", "[7]", "[0.5]", '["a"]', "[[7]]", "2020-01-01", "nan"]
)
@pytest.mark.parametrize("name", [field.name for field in fields(Settings)])
def test_a_setting_of_any_kind_is_taken_or_refused_with_a_sentence(name, value, tmp_path):
    """Nothing else than ValueError comes out, and what is taken survives its file."""
    (tmp_path / "a.toml").write_text(f"{name} = {value}")
    try:
        settings = settle({} if name == "data" else {"data": "digits"}, tmp_path / "a.toml")
    except ValueError:
        return
    (tmp_path / "b.toml").write_text(as_toml(settings))
    assert settle({}, tmp_path / "b.toml") == settings


def test_a_run_is_neither_overwritten_nor_changed_on_the_way(files, tmp_path, capsys):
    out = trained(files, tmp_path)
    assert "holds a run already: go on with it by --resume" in refused(
        capsys, "train", "--data", "tilted", "--out", out
    )
    assert "leave out --batch" in refused(capsys, "train", "--out", out, "--resume", "--batch", 9)
    assert "leave --config out" in refused(capsys, "train", "--out", out, "--resume", "--config", out / SETTINGS)
    np.save(files["mlp"], POINTS + 1 * (np.arange(3) == 1) * RNG.standard_normal((60, 3)))
    for name in ("train", "evaluate"):
        where = ["--out", out, "--resume"] if name == "train" else [out]
        assert "are not those that the " in refused(capsys, name, *where)


# ------------------------------------------------------------------ sample


def test_samples_come_in_the_units_of_the_file(files, tmp_path):
    """The network's units are undone: levels are levels, points are centre + scale x."""
    out = trained(files, tmp_path, "unet")
    command("sample", out, "--n", 7, "--labels", 0, 1, 2, "--out", tmp_path / "new.npz", "--steps", 3)
    with np.load(tmp_path / "new.npz") as made:
        assert made["images"].shape == (7, 5, 4, 1)
        assert made["images"].dtype == np.uint8
        assert made["images"].max() <= 3
        assert made["labels"].tolist() == [0, 1, 2, 0, 1, 2, 0]
    (tmp_path / "run").rename(tmp_path / "images")
    out = trained(files, tmp_path, "mlp")
    command("sample", out, "--n", 5, "--out", tmp_path / "new.npy", "--steps", 3, "--sampler", "ddim", "--seed", 2)
    saved, backend = saved_run.read(out, get("numpy")), get("numpy")
    *_, x = Drawing(saved.model, saved.theta, (3,), backend, "ddim", 3)(5, *backend.rng(2).spawn(1))
    assert np.array_equal(np.load(tmp_path / "new.npy"), saved.scaling.undo(x.astype("float64")))


def test_samples_of_a_model_that_is_a_gaussian_are_its_samples(files, tmp_path):
    """With θ = 0 EDM's F is the score of N(0, σ_d² I): means and variances."""
    out = gaussian(files, tmp_path)
    command("sample", out, "--n", 4000, "--out", tmp_path / "x.npy", "--sampler", "heun", "--steps", 20)
    x = saved_run.read(out, get("numpy")).scaling.apply(np.load(tmp_path / "x.npy").astype("float64"))
    std = load(out / CHECKPOINT).model.data_std
    assert_mean(x / std, 0.0)
    assert_mean((x / std) ** 2, 1.0, bias=0.02)  # 20 steps err by less than a hundredth, in the deviation


def gaussian(files, tmp_path):
    out = trained(files, tmp_path, "mlp", 1, "--predict", "F")
    kept = load(out / CHECKPOINT)
    save(out / CHECKPOINT, kept.model, 0 * kept.theta, config=kept.config)
    return out


@pytest.mark.parametrize("ending", [".png", ".gif", ".npy", ".npz"])
def test_every_ending_shows_samples_and_their_way(ending, files, tmp_path):
    out = trained(files, tmp_path, "unet")
    way = ["--trajectory"] if ending != ".npy" else []
    command("sample", out, "--n", 3, "--out", tmp_path / f"new{ending}", "--steps", 4, *way)
    content = (tmp_path / f"new{ending}").read_bytes()
    assert content.startswith({".png": b"\x89PNG", ".gif": b"GIF89a", ".npy": b"\x93NUMPY", ".npz": b"PK"}[ending])
    if ending == ".npz":
        with np.load(tmp_path / "new.npz") as made:
            assert made["trajectory"].shape == (5, 3, 5, 4, 1)


def test_points_of_a_plane_have_pictures(tmp_path):
    out = tmp_path / "run"
    command("train", "--data", "moons", "--out", out, "--steps", 2, *SMALL["mlp"])
    assert (out / "samples-000002.png").exists()
    command("sample", out, "--n", 1, "--steps", 2, "--out", tmp_path / "one.png")  # without a warning
    for name in ("a.png", "a.gif"):
        command(
            "sample", out, "--n", 9, "--steps", 2, "--out", tmp_path / name, *(["--trajectory"] * (name == "a.gif"))
        )
        assert (tmp_path / name).stat().st_size > 1000


def test_guidance_goes_from_the_unconditional_score_through_the_conditional_one(files, tmp_path):
    out, made = trained(files, tmp_path, "unet", 40), {}
    for name, flags in {
        "plain": [], "0": ["--labels", 1, "--guidance", 0], "none": ["--labels", 3],
        "told": ["--labels", 1], "1": ["--labels", 1, "--guidance", 1], "3": ["--labels", 1, "--guidance", 3],
    }.items():  # fmt: skip
        command("sample", out, "--n", 4, "--steps", 3, "--out", tmp_path / f"{name}.npz", "--trajectory", *flags)
        with np.load(tmp_path / f"{name}.npz") as found:
            made[name] = found["trajectory"][-1]
    assert np.array_equal(made["plain"], made["0"])
    scale = np.max(np.abs(made["plain"]))
    assert_close(made["plain"], made["none"], 1e-3 * scale)  # one row for all, or one a sample: float32's last digits
    assert np.array_equal(made["told"], made["1"])
    assert not np.array_equal(made["told"], made["plain"])
    assert not np.array_equal(made["told"], made["3"])


def test_what_is_sampled_is_the_average_and_guided_from_the_unconditional_score(files, tmp_path):
    out, backend = trained(files, tmp_path, "unet"), get("numpy")
    saved, kept = saved_run.read(out, backend), load(out / CHECKPOINT)
    assert np.array_equal(saved.theta, kept.average)
    assert not np.array_equal(saved.theta, kept.theta)
    x, labels = RNG.standard_normal((3, 5, 4, 1)).astype("float32"), np.array([0, 1, 2])
    s, s_y = (saved.model.bind(saved.theta, told)(x, 0.5) for told in (None, labels))
    guided = Drawing(saved.model, saved.theta, saved.shape, backend, guidance=3.0).score(labels)(x, 0.5)
    assert_close(guided, s + 3 * (s_y - s), 1e-4 * np.max(np.abs(s_y - s)))


def test_what_is_minimised_is_what_the_pages_say(files):
    settings = settle({"data": files["unet"], "levels": 4}, None)
    wanted = Denoising(weight=g_squared, times=UniformLogSNR(1e-3), antithetic=True)
    assert build(settings, get("numpy")).objective == wanted


def test_what_is_known_is_kept_and_the_rest_is_drawn(files, tmp_path):
    out = trained(files, tmp_path, "unet")
    mask = np.zeros((5, 4), dtype=bool)
    mask[:, :2] = True
    np.save(tmp_path / "mask.npy", mask)
    np.save(tmp_path / "one.npy", IMAGES[:1])
    flags = ["--known", tmp_path / "one.npy", "--mask", tmp_path / "mask.npy"]
    command("sample", out, "--n", 6, "--steps", 3, "--out", tmp_path / "filled.npy", *flags)
    filled = np.load(tmp_path / "filled.npy")[..., 0]
    assert np.array_equal(filled[:, :, :2], np.broadcast_to(IMAGES[:1, :, :2], (6, 5, 2)))
    assert len(np.unique(filled[:, :, 2:], axis=0)) > 1


def test_known_columns_of_points_are_kept(files, tmp_path):
    out = trained(files, tmp_path)
    np.save(tmp_path / "known.npy", np.array([1.0, np.nan, -2.0]))
    np.save(tmp_path / "mask.npy", np.array([1, 0, 1]))
    flags = ["--known", tmp_path / "known.npy", "--mask", tmp_path / "mask.npy"]
    command("sample", out, "--n", 6, "--steps", 3, "--out", tmp_path / "filled.npy", *flags)
    filled = np.load(tmp_path / "filled.npy")
    assert_close(filled[:, [0, 2]], np.tile([1.0, -2.0], (6, 1)), 1e-5)
    assert len(np.unique(filled[:, 1])) == 6


def test_samples_do_not_depend_on_how_many_are_drawn_at_once(files, tmp_path, monkeypatch):
    """But for which numbers they are given: a chunk begins where the last one ended."""
    out = trained(files, tmp_path)
    monkeypatch.setattr("refscore.commands.sample.CHUNK", 3)
    command("sample", out, "--n", 8, "--steps", 3, "--out", tmp_path / "a.npy")
    command("sample", out, "--n", 8, "--steps", 3, "--out", tmp_path / "b.npy", "--workers", 2)
    made = np.load(tmp_path / "a.npy")
    assert made.shape == (8, 3)
    assert len(np.unique(made, axis=0)) == 8
    assert np.array_equal(made, np.load(tmp_path / "b.npy"))


def interrupted(f, n):
    """f, but for call number n, in which Ctrl-C comes."""
    calls = count(1)

    def g(*args, **kwargs):
        if next(calls) == n:
            raise KeyboardInterrupt
        return f(*args, **kwargs)

    return g


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_keeps_the_samples_of_finished_chunks(workers, files, tmp_path, monkeypatch, capsys):
    """They are the first of those that were asked for; none is lost that a thread has begun."""
    out = trained(files, tmp_path)
    monkeypatch.setattr("refscore.commands.sample.CHUNK", 3)
    flags = ["--n", 12, "--steps", 2, "--workers", workers]
    command("sample", out, *flags, "--out", tmp_path / "whole.npy")
    whole = np.load(tmp_path / "whole.npy")
    with monkeypatch.context() as patch:
        patch.setattr(Drawing, "__call__", interrupted(Drawing.__call__, 3))
        command("sample", out, *flags, "--out", tmp_path / "part.npy")
    part = np.load(tmp_path / "part.npy")
    assert len(part) in ((6,) if workers == 1 else (3, 6))  # the second to be drawn may be the third to begin
    assert np.array_equal(part, whole[: len(part)])
    assert f"interrupted: the first {len(part)} of 12 samples are kept" in capsys.readouterr().out
    with monkeypatch.context() as patch:
        patch.setattr(Drawing, "__call__", interrupted(Drawing.__call__, 1))
        assert cli.main(["sample", str(out), "--n", "12", "--out", str(tmp_path / "none.npy")]) == 130
    assert not (tmp_path / "none.npy").exists()


def test_ctrl_c_waits_for_the_chunks_that_threads_have_begun(files, tmp_path, monkeypatch):
    out = trained(files, tmp_path)
    monkeypatch.setattr("refscore.commands.sample.CHUNK", 3)
    flags = ["--n", 60, "--steps", 2, "--workers", 2, "--out"]
    command("sample", out, *flags, tmp_path / "whole.npy")
    draw, calls = Drawing.__call__, count(1)

    def signalled(*args):
        call = next(calls)
        for i, x in enumerate(draw(*args)):
            if (call, i) == (3, 1):
                time.sleep(0.1)  # until all chunks are handed out
                os.kill(os.getpid(), signal.SIGINT)
            yield x

    monkeypatch.setattr(Drawing, "__call__", signalled)
    command("sample", out, *flags, tmp_path / "part.npy")
    part = np.load(tmp_path / "part.npy")
    assert len(part) >= 9
    assert np.array_equal(part, np.load(tmp_path / "whole.npy")[: len(part)])


def test_what_is_kept_has_no_holes(capsys):
    """The third chunk is finished when the second is stopped: then its rows would be taken for others."""
    third = threading.Event()

    def work(rows, rng):
        if rows.start == 4:
            third.set()
        if rows.start == 2:
            assert third.wait(20)
            raise KeyboardInterrupt
        return rows.start

    assert in_chunks(work, 6, np.random.default_rng(0), 2, 2, print, "points") == [0]
    assert capsys.readouterr().out == "interrupted: the first 2 of 6 points are kept\n"


def test_threads_are_refused_where_a_generator_has_no_children():
    """CuPy's: a traceback would come out of a thread."""
    with pytest.raises(ValueError, match="--workers are threads on the host; builtins works on all samples at once"):
        in_chunks(lambda rows, rng: rows, 3, object(), 2, 2, print, "samples")
    rows = [slice(0, 2), slice(2, 3)]
    assert in_chunks(lambda rows, rng: rows, 3, object(), None, 2, print, "samples") == rows


def test_an_evaluation_is_the_same_for_any_workers(files, tmp_path, monkeypatch):
    """Of images: dequantised, by probes, under labels."""
    out, found = trained(files, tmp_path, "unet", 2), []
    monkeypatch.setattr(evaluate, "CHUNK", 2)
    for workers in ([], ["--workers", 2]):
        command("evaluate", out, "--n", 4, "--points", 4, "--steps", 2, *workers)
        found.append(json.loads((out / "evaluation.json").read_text()))
    assert found[0] == found[1]


def test_an_evaluation_that_is_stopped_keeps_what_it_has(files, tmp_path, monkeypatch, capsys):
    out = trained(files, tmp_path)
    monkeypatch.setattr(evaluate, "CHUNK", 2)
    flags = [out, "--n", 4, "--points", 4, "--steps", 2]
    command("evaluate", *flags)
    whole = json.loads((out / "evaluation.json").read_text())
    samples, points = (Drawing, "__call__"), (evaluate, "log_likelihood")
    for place, stop, kept_points, n in ((samples, 1, 4, 0), (samples, 2, 4, 2), (points, 2, 2, 0)):
        with monkeypatch.context() as patch:
            patch.setattr(*place, interrupted(getattr(*place), stop))
            command("evaluate", *flags)
        kept = json.loads((out / "evaluation.json").read_text())
        assert (kept["points"], kept["n"], kept["distance"] is None) == (kept_points, n, n == 0)
        assert (kept["nats"] == whole["nats"]) == (kept_points == 4)
        assert "interrupted: " in capsys.readouterr().out
    monkeypatch.setattr(*points, interrupted(getattr(*points), 1))
    assert cli.main(["evaluate", str(out)]) == 130


def test_workers_share_a_batch_and_change_nothing(files, tmp_path, capsys):
    alone = trained(files, tmp_path, "unet", 3, "--shards", 2)
    out = tmp_path / "shared"
    command("train", "--data", files["unet"], "--out", out, "--steps", 3, *SMALL["unet"], "--shards", 2, "--workers", 2)
    assert np.array_equal(load(alone / CHECKPOINT).theta, load(out / CHECKPOINT).theta)
    flags = ["--data", files["mlp"], "--out", tmp_path / "x"]
    assert "4 shards do not divide a batch of 6" in refused(capsys, "train", *flags, "--batch", 6, "--workers", 2)
    assert "this run has one: --shards N" in refused(capsys, "train", *flags, "--shards", 1, "--workers", 2)


@pytest.mark.parametrize(("flags", "says"), [
    (["--sampler", "nobody"], "no sampler called 'nobody'; there are euler-maruyama"),
    (["--n", "0"], "n must be an integer of at least 1"),
    (["--n", str(10**18)], f"n={10**18} would take 1e+05 years"),
    (["--steps", str(10**15)], f"steps={10**15} would take 3e+03 years"),
    (["--labels", "3", "5"], "labels are 0 to 2, and 3 for no label; got [3, 5]"),
    (["--guidance", "2"], "guidance goes towards a label: give --labels"),
    (["--labels", "1", "--guidance", "inf"], "guidance must be finite, got inf"),
    (["--out", "x.jpg"], "x.jpg must end in .npy, .npz, .png, .gif"),
    (["--out", "x.gif"], "a GIF shows a trajectory: add --trajectory"),
    (["--mask", "{mask}"], "inpainting takes both"),
    (["--known", "{images}", "--mask", "{mask}"], "mask of shape (4, 5); wanted is (5, 4, 1) or (5, 4)"),
    (["--known", "{levels}", "--mask", "{ones}"], "values under the mask that are not grey levels 0 ... 3"),
    (["--known", "{nan}", "--mask", "{ones}"], "values under the mask that are not finite"),
    (["--known", "{words}", "--mask", "{ones}"], "words.npy holds <U1, not real numbers"),
    (["--known", "{mask}", "--mask", "{mask}"], "an array of shape (4, 5); wanted is (5, 4, 1), or one for each"),
])  # fmt: skip
def test_what_cannot_be_sampled_is_refused(flags, says, run_of_images, tmp_path, capsys):
    out = run_of_images
    np.save(tmp_path / "mask.npy", np.zeros((4, 5)))
    ones = np.ones((5, 4))
    for name, array in {
        "images": IMAGES[:1], "ones": ones, "levels": 4 * ones, "nan": np.nan * ones, "words": np.full((5, 4), "a"),
    }.items():  # fmt: skip
        np.save(tmp_path / f"{name}.npy", array)
    names = {path.stem: path for path in tmp_path.glob("*.npy")}
    flags = [flag.format(**names) for flag in flags]
    flags = flags if "--out" in flags else [*flags, "--out", tmp_path / "x.npy"]
    assert says in refused(capsys, "sample", out, *flags)


def test_what_is_no_folder_of_a_run_is_refused(files, tmp_path, capsys):
    for name in ("sample", "evaluate"):
        more = ["--out", tmp_path / "x.npy"] if name == "sample" else []
        assert "give the folder of a `refscore train`" in refused(capsys, name, tmp_path, *more)
        (tmp_path / "bad.npz").write_bytes(b"PK no zip")
        assert "bad.npz" in refused(capsys, name, tmp_path / "bad.npz", *more)
    out = trained(files, tmp_path)
    assert "the model was told no labels" in refused(
        capsys, "sample", out, "--labels", 1, "--out", tmp_path / "x.npy")  # fmt: skip
    (tmp_path / "folder.npy").mkdir()
    assert "is a folder: name a file" in refused(capsys, "sample", out, "--out", tmp_path / "folder.npy")
    assert "are no picture" in refused(capsys, "sample", out, "--out", tmp_path / "x.png")


# ------------------------------------------------------------------ told columns


def related(tmp_path, n=2000):
    """a ~ N(0, 1), b = 10 + 4 (a + noise): given b, a is N((b - 10)/8, ½)."""
    a, noise = np.random.default_rng(3).standard_normal((2, n))
    path = tmp_path / "related.csv"
    path.write_text("a,b\n" + "\n".join(f"{x},{10 + 4 * (x + z)}" for x, z in zip(a, noise, strict=True)))
    return path


@pytest.mark.slow
def test_told_a_column_the_others_are_drawn_from_their_posterior(tmp_path, monkeypatch):
    """Means and deviations at three observations, and the log likelihood, within what 2000 steps of training leave.

    The worst of six pilot seeds: .11 in the means, .08 in the deviations, .04 in the mean log likelihood (±.05).
    """
    monkeypatch.setattr(evaluate, "FLOW", 20)
    path, out = related(tmp_path), tmp_path / "run"
    flags = ["--condition", "b", "--steps", 2000, "--batch", 256, "--widths", 32, 32]
    command("train", "--data", path, "--out", out, *flags)
    for b in (4, 10, 14):
        command("sample", out, "--out", tmp_path / "a.npy", "--n", 2000, "--given", b, "--steps", 20)
        a = np.load(tmp_path / "a.npy")
        assert a.shape == (2000, 1)
        assert abs(np.mean(a) - (b - 10) / 8) < 0.2
        assert abs(np.std(a) - np.sqrt(0.5)) < 0.15
    command("evaluate", out, "--n", 50, "--points", 200, "--steps", 10)
    found = json.loads((out / "evaluation.json").read_text())["nats"]
    exact = -0.5 - 0.5 * np.log(2 * np.pi * 0.5)
    assert abs(found["value"] - exact) < 0.08 + 4 * found["error"]


def test_given_values_are_in_the_units_of_the_data(tmp_path):
    path, out, backend = related(tmp_path, 40), tmp_path / "run", get("numpy")
    command("train", "--data", path, "--condition", "b", "--out", out, "--steps", 2, *SMALL["mlp"])
    command("sample", out, "--n", 3, "--given", 7, "--steps", 2, "--out", tmp_path / "a.npy")
    saved, scaling = saved_run.read(out, backend), load_data(path).scaling
    told = np.full((3, 1), (7 - scaling.centre[1]) / scaling.scale[1], "float32")
    *_, x = Drawing(saved.model, saved.theta, (1,), backend, steps=2)(3, *backend.rng(0).spawn(1), told)
    assert_close(np.load(tmp_path / "a.npy"), saved.scaling.undo(x.astype("float64")), 1e-5)


@pytest.mark.parametrize(("flags", "says"), [
    (["--condition", "c"], "has no column 'c', or two; there are a, b"),
    (["--condition", "a", "b"], "a condition is some of the columns a, b, not all"),
    (["--condition", "a", "--labels", "b"], "columns are a condition of points without labels"),
])  # fmt: skip
def test_columns_that_cannot_be_a_condition_are_refused(flags, says, tmp_path, capsys):
    path = tmp_path / "a.csv"
    path.write_text("a,b\n" + "\n".join(f"{x},{i % 3}" for i, x in enumerate(RNG.standard_normal(30))))
    assert says in refused(capsys, "train", "--data", path, "--out", tmp_path / "run", *flags)


def test_given_values_that_do_not_fit_are_refused(files, tmp_path, capsys):
    plain, out = trained(files, tmp_path), tmp_path / "told"
    command("train", "--data", related(tmp_path, 40), "--condition", "b", "--out", out, "--steps", 2, *SMALL["mlp"])
    for folder, flags, says in (
        (out, [], "one value for each of b: --given; got []"), (out, ["--given", 1, 2], "one value for each of b"),
        (out, ["--given", "nan"], "given values must be finite"),
        (plain, ["--given", 1], "leave --given out; got [1.0]"),
    ):  # fmt: skip
        assert says in refused(capsys, "sample", folder, "--out", tmp_path / "x.npy", *flags)


# ------------------------------------------------------------------ evaluate


def test_the_likelihood_of_a_gaussian_model_is_that_of_the_gaussian(files, tmp_path, monkeypatch):
    """In the units of the file; the flow's 40 steps and its three exact tangents err by less than 1e-3."""
    monkeypatch.setattr(evaluate, "FLOW", 40)
    out = gaussian(files, tmp_path)
    command("evaluate", out, "--n", 4, "--steps", 3)
    found = json.loads((out / "evaluation.json").read_text())
    kept = load(out / CHECKPOINT)
    data, std = load_data(files["mlp"]), kept.model.data_std
    nats = -0.5 * np.sum((data.held_out / std) ** 2, axis=1) - 1.5 * np.log(2 * np.pi * std**2)
    exact = np.mean(nats) - data.scaling.log_det(3)
    assert found["points"] == len(data.held_out)
    assert abs(found["nats"]["value"] - exact) < 2e-3
    assert found["bits_per_dim"] is None


def test_bits_per_dimension_of_a_gaussian_model_of_levels(tmp_path, monkeypatch):
    """Dequantised, and in bits: the mean over the noise in each cell is known."""
    monkeypatch.setattr(evaluate, "FLOW", 40)
    np.save(tmp_path / "images.npy", RNG.integers(0, 4, (300, 3, 2), dtype="uint8"))
    out = tmp_path / "run"
    command("train", "--data", tmp_path / "images.npy", "--out", out, "--steps", 1, "--predict", "F", "--widths", "8",
            "--batch", "4", "--held-out", 0.4, "--levels", 4)  # fmt: skip
    kept = load(out / CHECKPOINT)
    save(out / CHECKPOINT, kept.model, 0 * kept.theta, config=kept.config)
    command("evaluate", out, "--n", 4, "--steps", 2, "--points", 120)
    found = json.loads((out / "evaluation.json").read_text())["bits_per_dim"]
    x, std = load_data(tmp_path / "images.npy", levels=4, held_out=0.4).held_out, kept.model.data_std
    square = np.mean(x.astype("float64") ** 2) + 0.5**2 / 12  # cells are ½ wide
    exact = (0.5 * square / std**2 + 0.5 * np.log(2 * np.pi * std**2)) / np.log(2) + 1
    noise = np.std(x) * 0.5 / np.sqrt(12) / std**2 / np.log(2) / np.sqrt(x.size)
    assert_within(found["value"], exact, noise, bias=1e-3, n=x.size)


def test_a_law_that_is_known_tells_why_the_likelihood_errs(tmp_path, monkeypatch):
    """To any number of workers the same."""
    monkeypatch.setattr(evaluate, "CHUNK", 8)
    out = tmp_path / "run"
    command("train", "--data", "two-modes", "--out", out, "--steps", 2, *SMALL["mlp"])
    made = []
    for workers in ([], ["--workers", 2]):
        command("evaluate", out, "--n", 20, "--points", 10, "--steps", 2, *workers)
        made.append(json.loads((out / "evaluation.json").read_text()))
    found, shared = made
    assert found == shared
    assert found["split"]
    assert found["exact_floor"]["value"] > 0
    kept, (_, *rows) = load(out / CHECKPOINT), (out / METRICS).read_text().splitlines()
    floor = denoising_floor(kept.objective, mixture("two-modes"), kept.model.sde).value
    for row in rows:
        loss, excess = map(float, row.split(",")[1:3])
        assert abs(loss - excess - floor) < 1e-5 * loss


def test_a_model_that_copies_is_found_out(files, tmp_path, monkeypatch, capsys):
    out = trained(files, tmp_path, "unet")
    x = load_data(files["unet"], levels=4).x
    monkeypatch.setattr(Drawing, "__call__", lambda self, n, rng, labels=None: iter([x[:n]]))
    command("evaluate", out, "--points", 4)
    copies = json.loads((out / "evaluation.json").read_text())["copies"]
    assert copies["share"]["value"] == 1
    assert copies["samples"] == 0 < copies["held_out"]
    assert (out / "neighbours.png").exists()
    assert "distance to the nearest training point" in capsys.readouterr().out


def works_on(backend, files, tmp_path):
    """The trajectories of samples there and on NumPy."""
    out, there = tmp_path / "run", ["--backend", backend]
    command("train", "--data", files["unet"], "--out", out, "--steps", 2, *SMALL["unet"], "--flips", *there)
    command("train", "--out", out, "--resume", *there)
    for name, more in (("a", [*there, "--workers", 2]), ("b", [])):
        flags = ["--n", 3, "--steps", 2, "--labels", 0, 1, "--guidance", 2, *more]
        command("sample", out, "--out", tmp_path / f"{name}.npz", "--trajectory", *flags)
    command("evaluate", out, "--n", 3, "--points", 2, "--steps", 2, *there)
    for name, more in (("c", there), ("d", [])):
        flags = ["--data", "two-modes", "--samples", 200, *more]  # round: axes have signs of each library's own
        command("samplers", "--samplers", "edm-churn", "--evaluations", 8, "--out", tmp_path / name, *flags)
    c, d = (json.loads((tmp_path / name / "numbers.json").read_text()) for name in "cd")
    assert c["rows"][0]["errors"] == pytest.approx(d["rows"][0]["errors"], rel=1e-9)
    assert c["likelihood"] == pytest.approx(d["likelihood"], rel=1e-6, abs=1e-9)
    return [np.load(tmp_path / f"{name}.npz")["trajectory"] for name in "ab"]


def test_compiled_steps_train_and_draw_the_same_bits_and_say_how_long_they_took(files, tmp_path, capsys):
    runs = []
    for flags in ((), ("--compile",)):
        (tmp_path / str(len(flags))).mkdir()
        out = trained(files, tmp_path / str(len(flags)), "mlp", 4, "--backend", "strict", *flags)
        command("sample", out, "--n", 4, "--steps", 3, "--out", out / "x.npy", "--backend", "strict", *flags)
        runs.append((load(out / CHECKPOINT).theta, np.load(out / "x.npy")))
        said = capsys.readouterr().out
        assert bool(flags) == ("compiled step: its first call took" in said)
        assert bool(flags) == ("compiled DPMSolver: its first call took" in said)
    assert all(map(np.array_equal, *runs))


def test_every_command_works_on_a_device(files, tmp_path):
    """On array-api-strict's pretended one, which refuses what a GPU would; the same samples as NumPy's."""
    a, b = works_on("strict", files, tmp_path)
    assert_close(a[0], b[0], 0)
    assert_close(a[-1], b[-1], 1e-4 * np.max(np.abs(b[-1])))


def test_every_command_works_on_a_framework(framework, files, tmp_path):
    a, b = works_on(framework.name, files, tmp_path)
    assert a.shape == b.shape
    assert np.isfinite(a).all()


def test_a_run_on_a_framework_goes_on_in_the_same_bits_there_and_in_others_elsewhere(
    framework, files, tmp_path, monkeypatch, capsys
):
    there = ["--backend", framework.name]
    whole = trained(files, tmp_path, "mlp", 6, *there)

    def stopped_and_resumed(name, first, then):
        """What is said when it goes on."""
        stop = Stop(3)
        with monkeypatch.context() as patch:
            patch.setattr(train.Metrics, "add", lambda metrics, *args: stop(metrics, *args))
            command("train", "--data", files["mlp"], "--out", tmp_path / name, "--steps", 6, *SMALL["mlp"], *first)
        capsys.readouterr()
        command("train", "--out", tmp_path / name, "--resume", *then)
        return capsys.readouterr().out

    stopped_and_resumed("here", there, there)
    said = stopped_and_resumed("elsewhere", there, ["--backend", "numpy"])
    assert "the generator of the run is not one of numpy's" in said
    assert f"each is copied to {framework.name}" in stopped_and_resumed("from NumPy", [], there)
    here, elsewhere, other, wanted = (
        load(folder / CHECKPOINT) for folder in (*(tmp_path / n for n in ("here", "elsewhere", "from NumPy")), whole)
    )
    assert np.array_equal(here.theta, wanted.theta)
    assert not np.array_equal(elsewhere.theta, wanted.theta)
    assert elsewhere.state.step == other.state.step == 6


def test_help_has_an_example_for_every_command(capsys):
    for name in cli.COMMANDS:
        with pytest.raises(SystemExit) as ended:
            cli.main([name, "--help"])
        assert ended.value.code == 0
        assert "example: refscore" in capsys.readouterr().out


def test_nothing_is_left_of_a_run_that_could_not_begin(files, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert "file" in refused(capsys, "train", "--data", files["mlp"], "--out", tmp_path / "file" / "run")
    assert not os.path.isdir(tmp_path / "file")


# ------------------------------------------------------------------ a device that fails


def failing(error, after):
    """`fit`, whose device gives out after so many steps."""

    def states(*args, **more):
        for n, state in enumerate(fit(*args, **more), 1):
            yield state
            if n == after:
                raise error

    return states


def test_a_device_without_memory_costs_no_step(files, tmp_path, monkeypatch, capsys):
    """What was learned until then is saved, and training goes on from there to what it would have been."""
    whole = trained(files, tmp_path / "whole", steps=9)
    kind = type("OutOfMemoryError", (MemoryError,), {"__module__": "cupy.cuda.memory"})
    monkeypatch.setattr(
        train, "fit", failing(kind("Out of memory allocating 8,589,934,592 bytes (allocated so far: 5)."), 7)
    )
    out = tmp_path / "run"
    args = ["train", "--data", files["mlp"], "--out", str(out), "--steps", "9", *SMALL["mlp"]]
    assert cli.main(args) == 2
    said = capsys.readouterr()
    assert f"stopped after step 7: saved; go on with refscore train --out {out} --resume" in said.out
    assert said.err.splitlines()[-1] == (
        "refscore: not enough memory: 8 GiB were asked for; give a smaller --batch or --widths"
    )
    assert load(out / CHECKPOINT).state.step == 7
    monkeypatch.setattr(train, "fit", fit)
    command("train", "--out", out, "--resume")
    assert np.array_equal(load(out / CHECKPOINT).theta, load(whole / CHECKPOINT).theta)


def test_a_device_that_is_gone_leaves_the_last_checkpoint(files, tmp_path, monkeypatch, capsys):
    kind = type("CUDARuntimeError", (RuntimeError,), {"__module__": "cupy_backends.cuda.api.runtime"})
    monkeypatch.setattr(train, "fit", failing(kind("cudaErrorIllegalAddress: an illegal memory access"), 3))
    wrote, kept = saved_run.write, []

    def write(folder, run, state, *more):
        if state.step == 3:
            raise kind("cudaErrorIllegalAddress")
        kept.append(state.step)
        wrote(folder, run, state, *more)

    monkeypatch.setattr(saved_run, "write", write)
    args = ["train", "--data", files["mlp"], "--out", str(tmp_path / "run"), "--steps", "90", *SMALL["mlp"]]
    assert cli.main(args) == 2
    said = capsys.readouterr()
    assert said.err.splitlines()[-1] == "refscore: CuPy failed: cudaErrorIllegalAddress: an illegal memory access"
    assert "saved; go on" not in said.out
    assert load(tmp_path / "run" / CHECKPOINT).state.step == kept[-1] == 1


def test_a_mistake_of_ours_keeps_its_traceback(files, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "fit", failing(KeyError("ours"), 2))
    with pytest.raises(KeyError, match="ours"):
        trained(files, tmp_path, steps=9)
    assert load(tmp_path / "run" / CHECKPOINT).state.step == 2


def test_a_run_whose_generator_could_not_be_saved_goes_on_in_the_same_way_each_time(files, tmp_path, monkeypatch):
    """As CuPy's: with other random numbers, of the same law, and every resumption with those."""
    monkeypatch.setattr(saved_run, "snapshot", lambda rng: None)
    ends = []
    for name in ("one", "two"):
        out = trained(files, tmp_path / name, steps=4)
        settings = out / SETTINGS
        settings.write_text(settings.read_text().replace("steps = 4", "steps = 8"))
        command("train", "--out", out, "--resume")
        ends.append(load(out / CHECKPOINT))
    assert ends[0].state.step == 8
    assert np.array_equal(ends[0].theta, ends[1].theta)
