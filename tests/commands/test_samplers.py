"""`refscore samplers`, from the command line inwards."""

import builtins
import json

import numpy as np
import pytest

from refscore import VP, cli
from refscore.commands import samplers
from refscore.measure import work_precision
from refscore.noise.sde import SDES
from refscore_backends import get
from tests.oracles.marks import each_sde
from tests.oracles.statistics import assert_within


def run(*args):
    return cli.main(["samplers", *map(str, args)])


@pytest.fixture
def _quick(monkeypatch):
    """The likelihood in a tenth of its steps, and no picture: for tests of neither."""
    steps = work_precision.FixedSteps
    monkeypatch.setattr(work_precision, "FixedSteps", lambda sde, n: steps(sde, n // 10))
    monkeypatch.setattr(samplers, "_draw", lambda *args: "no picture")


# ------------------------------------------------------------------ the command


def test_samplers_on_a_gaussian_prints_exact_errors(tmp_path, capsys):
    names = ["ddim", "rk4", "euler-maruyama"]
    assert run("--samplers", *names, "--evaluations", 16, 4, 32, 16, "--out", tmp_path / "new") == 0
    assert {p.name for p in (tmp_path / "new").iterdir()} == {"numbers.json", "work-precision.png"}
    numbers = json.loads((tmp_path / "new" / "numbers.json").read_text())
    assert (numbers["data"], numbers["score"], numbers["budgets"]) == ("gaussian", "exact", [4, 16, 32])
    assert [row["sampler"] for row in numbers["rows"]] == names
    ddim, rk4, em = numbers["rows"]
    assert rk4["errors"][0] is None  # four evaluations and one for the end are more than four
    assert rk4["evaluations"] == [0, 13, 29]
    # the numbers of the chapter and of the page, to their three digits
    assert ddim["errors"][1:] == pytest.approx([0.196, 0.0998], rel=5e-3)
    assert rk4["errors"][1:] == pytest.approx([0.0106, 0.00284], rel=5e-3)
    assert em["errors"][1:] == pytest.approx([0.167, 0.0715], rel=5e-3)
    assert numbers["prior"] == pytest.approx(0.0104, rel=5e-3)
    split = numbers["likelihood"]
    assert list(split) == ["truncation", "prior", "score", "discretisation", "probes"]
    assert split["score"] == 0.0  # it is the exact one
    assert 0 < split["discretisation"] < 1e-3 < split["prior"] < 0.1 < split["probes"]
    said = capsys.readouterr().out
    for words in (
        "2-Wasserstein, exact",
        "sampler",
        "rk4",
        "-",
        "started from the prior",
        "part of its error, in nats",
        "picture: ",
    ):
        assert words in said


@pytest.mark.usefixtures("_quick")
def test_samplers_on_a_mixture_shows_its_sampling_floor(tmp_path, capsys):
    args = ["--data", "tilted", "--samplers", "ddim", "heun", "--evaluations", 4, 32, "--samples", 500]
    for folder in "ab":
        assert run(*args, "--out", tmp_path / folder) == 0
    a, b = ((tmp_path / folder / "numbers.json").read_text() for folder in "ab")
    assert a == b  # same seed, same numbers
    numbers = json.loads(a)
    assert numbers["floor"]["value"] > 0
    assert numbers["samples"] == 500
    for row in numbers["rows"]:
        assert row["errors"][0] > 2 * row["errors"][1]
        assert row["errors"][1] < 4 * numbers["floor"]["value"]
    assert "the sampling floor" in capsys.readouterr().out


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("SAMPLES", "SCORE_SAMPLES", "EXCESS_SAMPLES"):
            patch.setattr(f"refscore.commands.demo.{name}", 100)
        patch.setattr("refscore.commands.demo.draw", lambda *args: [])
        assert cli.main(["demo", "--data", "circle", "--steps", "20", "--out", str(folder)]) == 0
    return folder


@pytest.mark.usefixtures("_quick")
def test_samplers_takes_the_model_of_a_demo_and_its_data(trained, tmp_path):
    args = ["--model", trained, "--samplers", "ddim", "--evaluations", 8, "--samples", 300]
    assert run(*args, "--out", tmp_path / "a") == 0
    assert run(*args, "--data", "circle", "--out", tmp_path / "b") == 0
    a, b = (json.loads((tmp_path / folder / "numbers.json").read_text()) for folder in "ab")
    assert a == b
    assert a["data"] == "circle"
    assert a["score"] == str(trained)
    assert run("--data", "circle", *args[2:], "--out", tmp_path / "c") == 0
    exact = json.loads((tmp_path / "c" / "numbers.json").read_text())
    assert exact["rows"][0]["errors"] != a["rows"][0]["errors"]
    assert exact["likelihood"]["score"] == 0.0
    assert a["likelihood"]["score"] > 0.1  # twenty steps of training


def test_samplers_without_matplotlib_says_which_extra(tmp_path, monkeypatch, capsys):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.split(".")[0] == "matplotlib":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.setattr(samplers, "likelihood_split", lambda *args: {})
    assert run("--samplers", "ddim", "--evaluations", 8, "--out", tmp_path) == 0
    assert 'pip install -e ".[plots]" in the checkout' in capsys.readouterr().out
    assert [p.name for p in tmp_path.iterdir()] == ["numbers.json"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--data", "moons"], "no data set called 'moons'; there are gaussian, tilted"),
        (["--samplers", "ddim", "plms"], "no sampler called 'plms'; there are euler-maruyama, "),
        (["--sde", "vpp"], "no SDE called 'vpp'; there are vp, ve"),
        (["--evaluations", "1", "8"], "at least 2, got"),
        (["--samples", "1"], "samples must be at least 2, got 1"),
        (["--model", "nowhere"], "nowhere is not a folder of `refscore demo`"),
    ],
)
def test_samplers_refuses_before_any_work(args, words, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(samplers, "_row", None)
    assert run(*args, "--out", tmp_path / "out") == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_samplers_refuses_models_that_do_not_fit(trained, tmp_path, capsys):
    def refused(*args):
        assert run(*args, "--out", tmp_path / "out") == 2
        assert not (tmp_path / "out").exists()
        return capsys.readouterr().err

    assert "trained on circle, not on tilted" in refused("--model", trained, "--data", "tilted")
    assert "trained on circle, not on gaussian" in refused("--model", trained, "--data", "gaussian")
    assert "made for the SDE 'vp', not 've'" in refused("--model", trained, "--sde", "ve")
    other = tmp_path / "other"
    other.mkdir()
    for text, words in (("{", "cannot read its numbers"), ('{"data": "points.npy"}', "whose law is not known")):
        (other / "numbers.json").write_text(text)
        assert words in refused("--model", other)
    (other / "numbers.json").write_text('{"data": "circle"}')
    assert "cannot read" in refused("--model", other)  # there is no theta.npy
    good = np.load(trained / "theta.npy")
    for theta in (good[:-1], good.astype("float64"), good * np.float32(np.nan)):
        np.save(other / "theta.npy", theta)
        assert "does not hold the" in refused("--model", other)
    (other / "theta.npy").write_bytes((trained / "theta.npy").read_bytes()[:100])
    assert "cannot read" in refused("--model", other)


def test_samplers_refuses_a_folder_it_cannot_write_to(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert run("--out", tmp_path / "file" / "folder") == 2
    assert "cannot write to the folder" in capsys.readouterr().err


# ------------------------------------------------------------------ what it starts from and ends at


@each_sde
def test_samplers_are_started_from_the_law_of_the_data_with_noise_and_from_the_prior(sde):
    true, start = samplers.starts(sde)
    wanted = samplers.GAUSSIAN.diffuse(sde.alpha(1.0), sde.sigma(1.0))
    for found, right in ((true.mean, wanted.means[0]), (true.cov, wanted.covariances[0]), (start.mean, np.zeros(2)),
                         (start.cov, sde.prior_std**2 * np.eye(2))):  # fmt: skip
        np.testing.assert_allclose(found, right, rtol=1e-14, atol=1e-15)


# distances are like |z|, further out than z by 1.45; and 20 repeats know a deviation to a sixth: 1e-7, not 1e-9
HALF = 1.75


def measured(monkeypatch, out, sde, data, n=400):
    """31 steps of order 2 with the exact score, n points: error from the true law, from the prior, and the floor."""
    monkeypatch.setattr(samplers, "likelihood_split", lambda *args: {})
    monkeypatch.setattr(samplers, "_draw", lambda *args: "", raising=False)
    report = samplers.compare(data, ["dpm-solver++2m"], [32], sde, n, 0, None, out, get("numpy"), lambda text: None)
    (row,) = report.rows
    return row.errors[0] or 0.0, row.from_prior or 0.0, report.floor


@pytest.mark.parametrize("name", SDES)
def test_sampled_errors_of_a_good_sampler_lie_at_the_floor_for_every_sde(name, monkeypatch, tmp_path):
    """Whatever the deviation of the prior."""
    error, from_prior, floor = measured(monkeypatch, tmp_path, name, "tilted")
    for found in (error, from_prior):
        assert_within(found, floor.value, HALF * floor.error, alpha=1e-7)


def test_a_prior_that_is_wrong_is_seen_in_its_own_column(monkeypatch, tmp_path):
    """β up to 1.5 leaves α(1) = .67 and modes at ±(3.4, 3.4): begun from N(0, I) their weights come out wrong."""
    monkeypatch.setitem(SDES, "vp", VP(0.1, 1.5))
    error, from_prior, floor = measured(monkeypatch, tmp_path, "vp", "two-modes", 4000)
    assert_within(error, floor.value, HALF * floor.error, alpha=1e-7)
    assert from_prior > floor.value + 6 * floor.error
