"""`refscore reproduce`: claims against measurements, kept and found again."""

import json

import pytest

from refscore import cli
from refscore.commands import reproduce
from refscore.experiments import song_ermon_2019
from refscore_backends import get
from tests.oracles.measured import fake


def measured(good):
    return song_ermon_2019.Results(*([part, part] for part in fake(good)))


def test_published_results_match_and_others_do_not():
    assert all(claim.match for claim in song_ermon_2019.song_ermon_2019(measured(True)))
    assert not any(claim.match for claim in song_ermon_2019.song_ermon_2019(measured(False)))


@pytest.fixture
def counted(monkeypatch):
    """The experiments, replaced by what they might give; the list says which ran."""
    ran = []
    fall, noised, density, w = fake()

    def curve(noise, steps, seed, show, backend):
        ran.append(f"curve {noise:g}")
        show(steps, "loss")
        return noised if noise else fall

    def low(steps, seed, show, backend):
        ran.append("density")
        return density

    monkeypatch.setattr(song_ermon_2019, "manifold_curve", curve)
    monkeypatch.setattr(song_ermon_2019, "low_density", low)
    monkeypatch.setattr(song_ermon_2019, "weights", lambda seed, backend: (ran.append("weights"), w)[1])
    return ran


def test_the_command_prints_claims_and_writes_numbers_and_pictures(tmp_path, counted, capsys):
    assert cli.main(["reproduce", "song-ermon-2019", "--seeds", "2", "--out", str(tmp_path)]) == 0
    assert counted == ["curve 0", "curve 0.1", "density", "weights"] * 2
    said = capsys.readouterr().out
    assert said.count("  match") == 6
    assert "MISMATCH" not in said
    assert "Figure 3, right" in said
    claims = json.loads((tmp_path / "claims.json").read_text())
    assert [claim["match"] for claim in claims] == [True] * 6
    assert {p.name for p in tmp_path.glob("*.png")} == {"manifold.png", "density.png", "weights.png"}


def test_what_was_measured_is_not_measured_again(tmp_path, counted, monkeypatch):
    monkeypatch.setattr(reproduce, "save", lambda fig, path: str(path))
    run = ["reproduce", "song-ermon-2019", "--seeds", "1", "--out", str(tmp_path)]
    assert cli.main(run) == 0
    (tmp_path / "weights-0.npz").unlink()  # as if interrupted before
    counted.clear()
    assert cli.main(run) == 0
    assert counted == ["weights"]
    counted.clear()
    assert cli.main([*run, "--steps", "700"]) == 0  # other settings: other files
    assert counted == ["curve 0", "curve 0.1", "density"]


def test_without_a_name_it_lists_what_there_is(capsys):
    assert cli.main(["reproduce"]) == 0
    assert capsys.readouterr().out.startswith("song-ermon-2019 ")


@pytest.mark.parametrize(("args", "message"), [
    (["nothing"], "nothing called 'nothing' to reproduce; there is song-ermon-2019"),
    (["song-ermon-2019", "--seeds", "0"], "seeds must be an integer of at least 1, got 0"),
    (["song-ermon-2019", "--steps", "10"], "steps must be at least 600"),
    (["song-ermon-2019", "--out", "/proc/nowhere"], "cannot write to the folder /proc/nowhere"),
])  # fmt: skip
def test_it_refuses_before_any_work(args, message, counted, capsys):
    assert cli.main(["reproduce", *args]) == 2
    assert message in capsys.readouterr().err
    assert counted == []


@pytest.mark.slow
def test_the_published_claims_hold(tmp_path):
    """The experiment itself, one seed: about a minute."""
    claims = song_ermon_2019.song_ermon_2019(reproduce.measure(tmp_path, [0], 10_000, get("numpy")))
    assert all(claim.match for claim in claims), claims
