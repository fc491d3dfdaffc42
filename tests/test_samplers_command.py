"""`refscore samplers`, from the command line inwards; and the affine law that it reads off the code."""

import builtins
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from scipy.linalg import sqrtm

from refscore import ExactScore, GaussianMixture, cli
from refscore.commands import samplers
from refscore.laws.affine_chain import Gaussian, probe, wasserstein
from refscore.measure import work_precision
from refscore.noise.sde import SDES
from refscore.sampling.transitions import SAMPLERS
from tests.backends import TestBackend
from tests.laws.test_samplers import law as law_of_maps
from tests.laws.test_samplers import probe as probe_with_unit_rows
from tests.laws.test_transitions import PROCESSES, Counting
from tests.strategies import seeds


def run(*args: object) -> int:
    return cli.main(["samplers", *map(str, args)])


# ------------------------------------------------------------------ the affine law


def random_gaussian(rng: np.random.Generator, D: int) -> Gaussian:
    A = rng.standard_normal((D, D))
    return Gaussian(rng.standard_normal(D), A @ A.T + 0.01 * np.eye(D))


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_law_read_off_is_that_of_the_tests_own_probe(name: str) -> None:
    """Eq. (10.11)."""
    rng = np.random.default_rng(0)
    for sde in (PROCESSES["vp"], PROCESSES["ve"]):
        score = ExactScore(work_precision.GAUSSIAN, sde)

        def chain(x: Any, rng: Any, sde: Any = sde, score: Any = score) -> Any:
            return work_precision.sample(score, sde, name, 6, x, rng)

        counting: Any = Counting()
        chain(np.zeros((1, 2)), counting)
        start = random_gaussian(rng, 2)
        found = probe(chain, np.zeros(2)).law(start)
        if counting.n:
            wanted = law_of_maps(probe_with_unit_rows(chain, 2, counting.n), *start)
        else:
            A, _, c = probe_with_unit_rows(chain, 2, 0)
            wanted = A @ start.mean + c, A @ start.cov @ A.T
        for a, b in zip(found, wanted, strict=True):
            assert np.max(np.abs(a - b)) <= 1e-12 * (1 + np.max(np.abs(b)))


def test_the_probe_runs_on_any_back_end(backend: TestBackend) -> None:
    A, B = np.array([[0.5, 0.2, 0.0], [0.1, -0.3, 0.4], [0.0, 0.7, 1.0]]), np.diag([1.0, 2.0, 3.0])
    A_there, B_there = backend.asarray(A), backend.asarray(B)

    def chain(x: Any, rng: Any) -> Any:
        for _ in range(2):
            x = x @ A_there + 1.0 + rng.standard_normal(x.shape, dtype=x.dtype) @ B_there
        return x

    found = probe(chain, backend.asarray(np.zeros(3)))
    assert np.max(np.abs(backend.to_numpy(found.matrix) - (A @ A).T)) <= 1e-15
    assert np.max(np.abs(backend.to_numpy(found.shift) - (np.ones(3) @ A + 1))) <= 1e-15
    assert np.max(np.abs(backend.to_numpy(found.noise) - (A.T @ B @ B @ A + B @ B))) <= 1e-14


@given(seed=seeds)
def test_the_distance_of_two_gaussians_is_bures(seed: int) -> None:
    """Eq. (10.12): ‖m - m'‖² + tr(S + S' - 2 (S^½ S' S^½)^½)."""
    rng = np.random.default_rng(seed)
    D = int(rng.integers(1, 5))
    p, q = random_gaussian(rng, D), random_gaussian(rng, D)
    root = np.real(sqrtm(p.cov))
    traces = np.trace(p.cov + q.cov - 2 * np.real(sqrtm(root @ q.cov @ root)))
    wanted = float(np.sum((p.mean - q.mean) ** 2) + traces)
    assert abs(wasserstein(p, q) ** 2 - wanted) <= 1e-10 * (1 + wanted)  # the traces cancel
    assert wasserstein(p, p) <= 1e-13 * (1 + np.max(p.cov))
    assert abs(wasserstein(p, Gaussian(p.mean + 3 * np.eye(D)[0], p.cov)) - 3) <= 1e-12
    assert wasserstein(p, q) == pytest.approx(wasserstein(q, p), rel=1e-10)


def test_the_distance_of_near_gaussians_is_not_lost_in_rounding() -> None:
    """Commuting covariances: the distance of the roots of the variances, also at 1e-12; and singular ones."""
    for d in (1e-3, 1e-8, 1e-12):
        found = wasserstein(
            Gaussian(np.zeros(2), np.diag([1.0, 4.0])), Gaussian(np.zeros(2), np.diag([1.0, (2 + d) ** 2]))
        )
        assert found == pytest.approx(d, rel=1e-3)
    point = Gaussian(np.zeros(2), np.zeros((2, 2)))
    assert wasserstein(point, Gaussian(np.zeros(2), np.diag([1.0, 4.0]))) == pytest.approx(math.sqrt(5), rel=1e-14)


# ------------------------------------------------------------------ what the prior costs


@pytest.mark.parametrize("name", ["vp", *(pytest.param(n, marks=pytest.mark.slow) for n in ("subvp", "cosine"))])
def test_the_flow_remembers_the_prior_and_the_reverse_sde_forgets_it(name: str) -> None:
    """Eq. (10.16): a wrong mean at t = 1 reaches the data times √(λ/S) by the flow, times α λ/S by the SDE."""
    sde = SDES[name]
    alpha, sigma = sde.alpha(1.0), sde.sigma(1.0)
    lam = np.array([0.5, 2.0])
    target = GaussianMixture(np.ones(1), np.zeros((1, 2)), lam[None, :])
    score, S = ExactScore(target, sde), alpha**2 * lam + sigma**2
    flow, sde_ = (
        probe(lambda x, rng, n=n: work_precision.sample(score, sde, n, 400, x, rng), np.zeros(2)).matrix
        for n in ("dpm-solver++2m", "ddim-eta1")
    )
    assert np.diag(flow) == pytest.approx(np.sqrt(lam / S), rel=1e-3)  # 400 steps of order 2
    assert np.diag(sde_) == pytest.approx(alpha * lam / S, rel=0.1)  # and of order 1
    assert np.all(np.diag(sde_) < 0.02 * np.diag(flow))


def test_a_wrong_score_hurts_the_flow_more_than_the_reverse_sde() -> None:
    """Eq. (10.17): the predicted noise off by δ in every coordinate: √λ asinh(ς/√λ) δ, and 2 √λ atan(ς/√λ) δ."""
    sde, lam, delta = SDES["vp"], np.array([0.5, 2.0]), 0.02
    target = GaussianMixture(np.ones(1), np.zeros((1, 2)), lam[None, :])
    exact, top = ExactScore(target, sde), sde.sigma(1.0) / sde.alpha(1.0)

    def biased(x: Any, t: Any) -> Any:
        return exact(x, t) - delta / sde.sigma(t)[..., None]

    for name, wanted in (
        ("dpm-solver++2m", np.sqrt(lam) * np.arcsinh(top / np.sqrt(lam))),
        ("sde-dpm-solver++2m", 2 * np.sqrt(lam) * np.arctan(top / np.sqrt(lam))),
    ):
        shift = probe(lambda x, rng, n=name: work_precision.sample(biased, sde, n, 300, x, rng), np.zeros(2)).shift
        assert np.abs(shift) == pytest.approx(delta * wanted, rel=3e-3)  # 300 steps of order 2


@pytest.mark.parametrize(("variance", "small", "large"), [(1.0, 0.0659, 2.8e-6), (0.01, 0.0090, 0.0081)])
def test_the_large_variance_gains_on_wide_data_and_little_on_thin(variance: float, small: float, large: float) -> None:
    """The text at Eq. (10.4), 128 evaluations; of the large one on N(0, I) only the end is left."""
    sde, cov = SDES["vp"], variance * np.eye(2)
    score = ExactScore(GaussianMixture(np.ones(1), np.zeros((1, 2)), cov[None, ...]), sde)
    start = Gaussian(np.zeros(2), sde.alpha(1.0) ** 2 * cov + sde.sigma(1.0) ** 2 * np.eye(2))
    for name, wanted in (("ancestral", small), ("ancestral-large", large)):
        made = probe(lambda x, rng, n=name: work_precision.sample(score, sde, n, 127, x, rng), np.zeros(2))
        assert wasserstein(made.law(start), Gaussian(np.zeros(2), cov)) == pytest.approx(wanted, rel=0.02)


# ------------------------------------------------------------------ budgets


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_budget_counts_every_evaluation_of_the_run(name: str) -> None:
    asked = []

    def score(x: Any, t: Any) -> Any:
        asked.append(t)
        return -x

    for steps in (1, 5):
        asked.clear()
        work_precision.sample(score, SDES["vp"], name, steps, np.zeros((1, 2)), np.random.default_rng(0))
        assert len(asked) == steps * work_precision.evaluations_per_step(name) + 1
    stages = {"midpoint": 2, "heun": 2, "edm": 2, "edm-churn": 2, "rk4": 4}
    assert work_precision.evaluations_per_step(name) == stages.get(name, 1)


# ------------------------------------------------------------------ the command


def test_samplers_on_a_gaussian_prints_exact_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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


def test_samplers_on_a_mixture_shows_its_sampling_floor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("SAMPLES", "SCORE_SAMPLES", "EXCESS_SAMPLES"):
            patch.setattr(f"refscore.commands.demo.{name}", 100)
        patch.setattr("refscore.commands.demo.draw", lambda *args: [])
        assert cli.main(["demo", "--data", "circle", "--steps", "20", "--out", str(folder)]) == 0
    return folder


def test_samplers_takes_the_model_of_a_demo_and_its_data(trained: Path, tmp_path: Path) -> None:
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


def test_samplers_without_matplotlib_says_which_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.split(".")[0] == "matplotlib":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
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
def test_samplers_refuses_before_any_work(
    args: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(samplers, "_row", None)
    assert run(*args, "--out", tmp_path / "out") == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_samplers_refuses_models_that_do_not_fit(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*args: object) -> str:
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


def test_samplers_refuses_a_folder_it_cannot_write_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert run("--out", tmp_path / "file" / "folder") == 2
    assert "cannot write to the folder" in capsys.readouterr().err
