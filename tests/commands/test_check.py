"""`refscore check`, from the command line inwards."""

import json

import numpy as np
import pytest

from refscore import cli
from refscore.commands import check

MINE = """
import numpy as np
from refscore import VP
betas, vp = np.linspace(1e-3, 0.9, 8), VP()
bar = np.cumprod(1 - betas)
class Many:
    half = betas / 2
def root(betas_root):
    def sample(model, x, rng):
        for i in range(7, -1, -1):
            x = (x - betas[i] / np.sqrt(1 - bar[i]) * model(x, i)) / np.sqrt(1 - betas[i])
            if i > 0:
                x = x + betas[i]**betas_root * rng.standard_normal(x.shape)
        return x
    return sample
sample, forgotten = root(0.5), root(1.0)
def flow(model, x, rng):
    for sigma, s in ((9.0, 3.0), (3.0, 1.0), (1.0, 0.0)):
        x = x + (s - sigma) / sigma * (x - model(x, sigma))
    return x
def clipped(model, x, rng):
    for sigma, s in ((9.0, 3.0), (3.0, 1.0), (1.0, 0.0)):
        x = x + (s - sigma) / sigma * (x - np.clip(model(x, sigma), -1, 1))
    return x
def loss(model, x0):
    t = np.random.randint(0, 8, len(x0))
    z = np.random.randn(*x0.shape)
    return np.mean((model(np.sqrt(bar[t])[:, None] * x0 + np.sqrt(1 - bar[t])[:, None] * z, t) - z) ** 2)
def linear(N=1000):
    return np.linspace(1e-4, 0.02, N)
log_prob = lambda model, x: np.zeros(len(x))
score = lambda x, t: np.zeros_like(x)
tanh, x = (np.tanh, lambda dy, x: dy * (1 - np.tanh(x) ** 2)), np.array([[0.3, -1.2, 0.5]])
slope = (np.tanh, lambda dy, x: dy * (1 - np.tanh(x)))
def rows(batch, width):
    return (np.linspace(-1, 1, batch * width).reshape(batch, width),)
torch_tanh = (lambda x: x.tanh(), lambda dy, x: dy * (1 - x.tanh() ** 2))
"""


@pytest.fixture
def ask(tmp_path, monkeypatch, capsys):
    """Runs the command beside mine.py; returns its status, and what it said on both streams."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE, encoding="utf-8")
    np.save(tmp_path / "betas.npy", np.linspace(1e-3, 0.9, 8))

    def run(patient, kind, *args):
        status = cli.main(["check", patient, "--kind", kind, *map(str, args)])
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


@pytest.mark.parametrize(
    ("name", "kind", "args", "status", "told"),
    [
        ("sample", "sampler", ["--betas", "betas"], 0, "sampler: right (ddpm-large)"),
        ("forgotten", "sampler", ["--betas", "betas.npy"], 1, "root-forgotten"),
        ("flow", "sampler", ["--predicts", "denoiser"], 0, "sampler: right (ddim)"),
        ("clipped", "sampler", ["--predicts", "denoiser"], 0, "clips"),
        ("clipped", "sampler", ["--predicts", "denoiser", "--bounded"], 0, "sampler: right (ddim)"),
        ("loss", "loss", ["--alphas-bar", "bar"], 0, "weight λ = σ²"),
        ("loss", "loss", ["--betas", "Many.half"], 1, "noise"),
        ("linear", "schedule", [], 0, "schedule: right (linear)"),
        ("bar", "schedule", ["--holds", "alphas_bar"], 3, "nearest is"),
        ("log_prob", "likelihood", ["--sde", "vp"], 1, "the mixture tilted, 2 numbers a row"),
        ("score", "score", ["--sde", "vp", "--data", "two-modes"], 1, "the mixture two-modes"),
        ("tanh", "derivatives", ["--at", "x"], 0, "all passes are derivatives"),
        ("slope", "derivatives", ["--at", "rows"], 1, "the smallest that fails: batch 1, width 1"),
    ],
)  # fmt: skip
def test_each_kind_is_asked_and_the_status_tells_the_verdict(ask, name, kind, args, status, told):
    found, said, err = ask(f"mine.py:{name}", kind, *args)
    assert (found, err) == (status, "")
    assert told in said
    assert "  assumed: " in said


def test_what_a_list_or_an_sde_means_is_the_default_that_fits(ask):
    assert "is told index" in ask("mine.py:loss", "loss", "--betas", "betas")[1]
    assert "is told time" in ask("mine.py:score", "score", "--sde", "vp")[1]
    assert "is told sigma" in ask("mine.py:flow", "sampler", "--predicts", "denoiser")[1]


def test_the_report_is_json_and_written_before_a_line_is_printed(ask, tmp_path, monkeypatch):
    out, there = tmp_path / "report.json", []
    monkeypatch.setattr(check, "print", lambda *args: there.append(out.exists()), raising=False)
    assert ask("mine.py:forgotten", "sampler", "--betas", "betas", "--json", out)[0] == 1
    report = json.loads(out.read_text(encoding="utf-8"))
    assert there == [True]
    assert (report["verdict"], report["status"], report["patient"]) == ("wrong", 1, "mine.py:forgotten")
    assert report["causes"][0]["name"] == "root-forgotten"
    assert report["numbers"]["calls"] == 8


def test_a_patient_that_raises_is_reported_as_json_too(ask, tmp_path):
    (tmp_path / "bad.py").write_text("def run(model, x, rng):\n    return x / model\n", encoding="utf-8")
    assert ask("bad.py:run", "sampler", "--betas", "betas.npy", "--json", "bad.json")[0] == 1
    assert json.loads((tmp_path / "bad.json").read_text(encoding="utf-8"))["causes"][0]["name"] == "raises"


def test_right_and_another_than_it_should_be_is_wrong(ask):
    assert ask("mine.py:linear", "schedule", "--is", "linear")[0] == 0
    status, said, _ = ask("mine.py:linear", "schedule", "--is", "cosine")
    assert status == 1
    assert said.endswith("  it should be cosine, and is linear\n")


@pytest.mark.parametrize(
    ("patient", "args", "told"),
    [
        ("mine.py", ["sampler"], "FILE.py:NAME"),
        ("none.py:a", ["sampler"], "there is no file none.py"),
        ("broken.py:a", ["sampler"], "cannot import broken.py: ModuleNotFoundError"),
        ("leaves.py:a", ["sampler"], "cannot import leaves.py: SystemExit"),
        ("betas.npy:a", ["sampler"], "must end in .py"),
        ("mine.py:sampel", ["sampler"], "no 'sampel' in"),
        ("mine.py:betas", ["sampler", "--betas", "betas"], "ndarray cannot be called"),
        ("mine.py:sample", ["sampler", "--betas", "x"], "must be a list of numbers, got shape (1, 3)"),
        ("mine.py:sample", ["sampler", "--betas", "vp"], "vp is no list of numbers, but VP"),
        ("mine.py:sample", ["sampler", "--betas", "betas", "--told", "name"], "told must be one of"),
        ("mine.py:sample", ["sampler", "--sde", "vq"], "no SDE called 'vq': there are vp"),
        ("mine.py:loss", ["loss"], "give one of --betas, --alphas-bar, --sigmas and --sde"),
        ("mine.py:loss", ["loss", "--betas", "betas", "--sde", "vp"], "give one of --betas"),
        ("mine.py:score", ["score", "--sde", "vp", "--data", "mnist"], "no data called 'mnist'"),
        ("mine.py:linear", ["schedule", "--betas", "betas"], "--betas says nothing about a schedule"),
        ("mine.py:tanh", ["derivatives"], "--at"),
        ("mine.py:x", ["derivatives", "--at", "x"], "(forward, backward)"),
        ("mine.py:linear", ["schedule", "--json", "mine.py"], "would be overwritten"),
    ],
)  # fmt: skip
def test_a_call_that_makes_no_sense_is_refused_in_a_sentence(ask, tmp_path, patient, args, told):
    (tmp_path / "broken.py").write_text("import no_such_library", encoding="utf-8")
    (tmp_path / "leaves.py").write_text("raise SystemExit('usage')", encoding="utf-8")
    status, said, err = ask(patient, *args)
    assert (status, said) == (2, "")
    assert told in err
    assert err.count("\n") == 1


def test_arrays_of_another_library(ask):
    pytest.importorskip("torch")
    assert ask("mine.py:torch_tanh", "derivatives", "--at", "x", "--library", "torch")[0] == 0


def test_a_file_finds_its_neighbours_and_leaves_no_module_behind(ask, tmp_path):
    (tmp_path / "neighbour_of_mine.py").write_text("N = 1000", encoding="utf-8")
    (tmp_path / "uses_it.py").write_text(
        "import numpy as np\nfrom neighbour_of_mine import N\nb = np.linspace(1e-4, 0.02, N)", encoding="utf-8"
    )
    assert ask("uses_it.py:b", "schedule")[0] == 0
