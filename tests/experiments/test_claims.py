"""The claims of `reproduce`: each changes its verdict where it should, and what is kept in the folder is data only."""

import pickle
from dataclasses import replace

import numpy as np
import pytest

from refscore import cli
from refscore.commands import reproduce
from refscore.experiments import song_ermon_2019
from refscore.experiments.failures import LowDensity, Weights
from tests.oracles.pickles import Bomb
from tests.oracles.statistics import quantile

FLOOR = song_ermon_2019.manifold_floor(song_ermon_2019.NOISE)
SAMPLES = np.random.default_rng(0).standard_normal((1300, 2))
GOOD = {
    "bare": np.linspace(-10, -2e4, 60),
    # not flat: the last quarter is 3.6 % above the floor, all but the first quarter 11 %
    "noised": np.linspace(0.7 * FLOOR, FLOOR, 60),
    "density": LowDensity(
        np.array([0.3] * 9 + [1e-4]), np.full(10, 1e-3), np.full(5, 0.3), np.full(12, 0.01), 0.6, 0.78, np.zeros((9, 9))
    ),
    "weights": Weights(0.51, 0.78, 0.509, 0.782, 0.0035, SAMPLES, SAMPLES),
}  # fmt: skip


def claims(*seeds):
    """What is said of seeds that measured GOOD but for what each dict changes."""
    each = [{**GOOD, **seed} for seed in seeds]
    return song_ermon_2019.song_ermon_2019(song_ermon_2019.Results(*([seed[name] for seed in each] for name in GOOD)))


def density(**changed):
    return {"density": replace(GOOD["density"], **changed)}


def weights(**changed):
    return {"weights": replace(GOOD["weights"], **changed)}


def deciles(low, high):
    return np.array([low] * 3 + [1e-2] * 6 + [high])


# ------------------------------------------------------------------ each verdict


# For each claim, what a seed measures on either side of its verdict, hardly inside and hardly outside.
ALLOWED = quantile() * 0.0035 + 1e-3
SIDES = [
    # quarters at -10, -10, ., -q: falls by (q - 10)/q of itself
    (0, {"bare": np.repeat([-10.0, -10.0, -11.0, -12.6], 15)}, {"bare": np.repeat([-10.0, -10.0, -11.0, -12.4], 15)}),
    (1, {"noised": np.full(60, 0.951 * FLOOR)}, {"noised": np.full(60, 0.949 * FLOOR)}),
    (2, density(deciles=deciles(1.01e-2, 1e-3)), density(deciles=deciles(0.99e-2, 1e-3))),
    (3, density(walk_annealed=np.array([0.049] * 12)), density(walk_annealed=np.array([0.01] * 11 + [0.051]))),
    (3, density(walk=np.array([0.01] * 4 + [0.101])), density(walk=np.array([0.01] * 4 + [0.099]))),
    (4, weights(plain=0.509 + 0.99 * ALLOWED), weights(plain=0.509 + 1.01 * ALLOWED)),
    (4, weights(plain=0.509 - 0.99 * ALLOWED), weights(plain=0.509 - 1.01 * ALLOWED)),
    (4, weights(plain=0.8 - 1.01 * ALLOWED, plain_law=0.775), weights(plain=0.8 - 0.99 * ALLOWED, plain_law=0.775)),
    (4, weights(plain=0.8 + 1.01 * ALLOWED, plain_law=0.825), weights(plain=0.8 + 0.99 * ALLOWED, plain_law=0.825)),
    (5, weights(annealed=0.782 - 0.99 * ALLOWED), weights(annealed=0.782 - 1.01 * ALLOWED)),
    (5, weights(annealed=0.751, annealed_law=0.751), weights(annealed=0.749, annealed_law=0.749)),
    (5, weights(annealed=0.849, annealed_law=0.849), weights(annealed=0.851, annealed_law=0.851)),
]


@pytest.mark.parametrize(("which", "inside", "outside"), SIDES, ids=lambda v: str(v) if isinstance(v, int) else "")
def test_a_claim_changes_its_verdict_at_its_threshold_and_no_other_does(which, inside, outside):
    assert [c.match for c in claims(inside)] == [True] * 6
    assert [c.match for c in claims(outside)] == [i != which for i in range(6)]


@pytest.mark.parametrize(
    ("which", "bad"),
    [
        (0, {"bare": np.full(60, -10.0)}),
        (1, {"noised": np.full(60, 0.5 * FLOOR)}),
        (2, density(deciles=np.full(10, 0.3))),
        (3, density(walk_annealed=np.full(12, 0.2))),
        (3, density(walk=np.full(5, 0.01))),
        (4, weights(plain=0.6)),
        (5, weights(annealed=0.6)),
    ],
)
def test_one_bad_seed_among_good_ones_is_a_mismatch(which, bad):
    """First, last or between: a claim holds for every seed, not for the best."""
    for seeds in ((bad, {}, {}), ({}, bad, {}), ({}, {}, bad)):
        assert [c.match for c in claims(*seeds)] == [i != which for i in range(6)]


def test_one_seed_that_finds_the_weight_is_a_mismatch_though_its_law_does_too():
    lost, found = weights(plain=0.77, plain_law=0.785), weights(plain=0.79, plain_law=0.785)
    assert claims(lost, lost)[4].match
    assert not claims(lost, found)[4].match


def test_the_noisy_loss_is_judged_by_its_last_quarter():
    """A curve that has just arrived matches; one that was at its floor before and left it does not."""
    late = np.repeat([0.0, FLOOR], [45, 15])
    assert claims({"noised": late})[1].match
    assert not claims({"noised": late[::-1]})[1].match
    assert not claims({"noised": np.repeat([FLOOR, 0.8 * FLOOR], [45, 15])})[1].match


def test_what_is_measured_is_said_in_numbers():
    """The numbers of these curves by hand, one seed, and median, least and greatest of three."""
    curve = np.repeat([-1.0, -10.0, -15.0, -40.0], 15)
    one = claims({"bare": curve, "noised": np.repeat([0.0, 0.9 * FLOOR], [45, 15])})
    places = ("Figure 1, left", "Figure 1, right", "Figure 2", "Section 4", "Figure 3, middle", "Figure 3, right")
    assert tuple(claim.where for claim in one) == places
    assert "by 75% of itself" in one[0].measured
    assert one[0].measured.endswith("to -40")
    assert "is 10.0% above" in one[1].measured
    assert "0.3 in the three least dense tenths of the box, 0.0001 in the densest" in one[2].measured
    assert "annealed Langevin 0.01, on the way of plain Langevin 0.3" in one[3].measured
    assert one[4].measured.startswith("weight 0.5100 ± 0.0035; the law of the same chain has 0.5090")
    assert one[5].measured.startswith("weight 0.7800 ± 0.0035; the law of the same chain has 0.7820")
    three = claims(weights(plain=0.52), weights(plain=0.50), weights(plain=0.505))
    assert "weight 0.5050 (0.5000 to 0.5200) ± 0.0035" in three[4].measured


def test_the_worst_place_on_a_way_counts():
    """Annealed 0.04 at one level of twelve, plain 0.2 at one step of five: both maxima are in the words."""
    measured = claims(density(walk=np.array([0, 0.2, 0, 0, 0]), walk_annealed=np.eye(12)[3] * 0.04))[3]
    assert measured.match
    assert "0.04" in measured.measured
    assert "0.2" in measured.measured


# ------------------------------------------------------------------ the command


@pytest.fixture
def steps_taken(monkeypatch):
    """The experiments replaced by what they might give; the numbers of steps that they were asked for."""
    taken = []

    def asked(steps, show):
        assert type(steps) is int, f"fit wants an integer, got {steps!r}"
        taken.append(steps)
        show(steps, "loss")

    def curve(noise, steps, seed, show, backend):
        asked(steps, show)
        return GOOD["noised"] if noise else GOOD["bare"]

    def low(steps, seed, show, backend):
        asked(steps, show)
        result = GOOD["density"]
        return result

    monkeypatch.setattr(song_ermon_2019, "manifold_curve", curve)
    monkeypatch.setattr(song_ermon_2019, "low_density", low)
    monkeypatch.setattr(song_ermon_2019, "weights", lambda seed, backend: GOOD["weights"])
    for name in ("draw_manifold", "draw_density", "draw_weights"):
        monkeypatch.setattr(reproduce, name, lambda results: None, raising=False)
    monkeypatch.setattr(reproduce, "save", lambda fig, path: str(path))
    return taken


def run(out, *args):
    return cli.main(["reproduce", "song-ermon-2019", "--seeds", "1", "--out", str(out), *map(str, args)])


@pytest.mark.parametrize(("steps", "short"), [(600, 180), (601, 180), (1001, 300)])
def test_training_takes_whole_steps_three_tenths_of_them_on_the_circle(steps, short, tmp_path, steps_taken):
    assert run(tmp_path, "--steps", steps) == 0
    assert steps_taken == [short, short, steps]


def test_600_steps_are_enough_and_599_are_not(tmp_path, steps_taken, capsys):
    assert run(tmp_path, "--steps", 600) == 0
    steps_taken.clear()
    assert run(tmp_path / "new", "--steps", 599) == 2
    assert "steps must be at least 600" in capsys.readouterr().err
    assert not steps_taken
    assert not (tmp_path / "new").exists()


@pytest.mark.usefixtures("steps_taken")
def test_the_command_says_where_its_files_are(tmp_path, capsys):
    assert run(tmp_path) == 0
    said = capsys.readouterr().out
    for name in ("claims.json", "manifold.png", "density.png", "weights.png"):
        assert str(tmp_path / name) in said


@pytest.mark.usefixtures("steps_taken")
def test_what_is_kept_in_the_folder_is_never_executed(tmp_path):
    """Whatever lies there under the name of a result: refused, or measured again."""
    out, trace = tmp_path / "out", tmp_path / "trace"
    assert run(out) == 0
    kept = sorted(out.glob("*.npz"))
    assert len(kept) == 4
    for path in kept:
        good = path.read_bytes()
        with np.load(path) as archive:
            bombs = dict.fromkeys(archive.files, np.array([Bomb(trace)], dtype=object))
        np.savez(path, **bombs)
        assert run(out) == 2 or path.read_bytes() == good
        path.write_bytes(pickle.dumps(Bomb(trace)))
        assert run(out) == 2 or path.read_bytes() == good
        path.write_bytes(good)
        assert not trace.exists(), path


def test_a_damaged_file_is_named_before_anything_is_measured(tmp_path, monkeypatch):
    def measured(*args):
        raise AssertionError("measured all the same")

    monkeypatch.setattr(song_ermon_2019, "manifold_curve", measured)
    (tmp_path / "weights-7.npz").write_bytes(b"half a file")
    with pytest.raises(ValueError, match=r"weights-7\.npz is not what was kept there"):
        song_ermon_2019.measure_seed(tmp_path, 7, 100, lambda step, words: None)
