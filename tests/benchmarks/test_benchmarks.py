"""The sides compute the same thing, or the comparison is worth nothing; and the command keeps what it measures.

Runs with whatever is installed: `python -m pytest tests/benchmarks`; with `-m slow` what is compiled, too.
"""

import importlib.util
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from refscore_backends import BACKENDS, get

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # the sides are scripts beside each other, not a package

import floors  # noqa: E402
import report  # noqa: E402
import run  # noqa: E402
import scaling  # noqa: E402
import workloads as w  # noqa: E402

# ------------------------------------------------------------------ the sides


def cases():
    """Each side whose library is installed, refscore's on each back end; what is compiled, or JAX's a line, is slow."""
    there = {name for name in ("torch", "jax") if importlib.util.find_spec(name)}
    able = {name for name in there if hasattr(BACKENDS[name], "compile")}
    found = [("refscore", {}, False)] + [(name, {}, False) for name in sorted(there)]
    found += [("refscore", {"REFSCORE_BACKEND": name}, False) for name in sorted(there)]
    found += [("refscore", {"REFSCORE_BACKEND": name, "REFSCORE_COMPILE": "1"}, True) for name in sorted(able)]
    found += [("torch", {}, True)] if "torch" in there else []
    for library, environment, compiled in found:
        name = "-".join([library, *environment.values()]) + "-compiled" * compiled
        slow = compiled or "jax" in environment.values()
        yield pytest.param((library, environment, compiled), id=name, marks=[pytest.mark.slow] if slow else [])


@pytest.fixture(params=cases())
def side(request, monkeypatch):
    """A side as a module, and whether its compiled variants are meant; refscore's is another for each back end."""
    library, environment, compiled = request.param
    for name in ("REFSCORE_BACKEND", "REFSCORE_COMPILE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    spec = importlib.util.spec_from_file_location(
        "_".join([library, "side", *environment.values()]), HERE / f"{library}_side.py"
    )
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    module.compiled = compiled
    yield module
    if environment.get("REFSCORE_BACKEND") == "jax":
        import jax

        jax.config.update("jax_enable_x64", False)  # the back end has switched it on


def builders(side, name):
    """The different ways in which a side does a workload."""
    found = {}
    for variant, (_, has, environment) in run.VARIANTS.items():
        on = environment.get("REFSCORE_BACKEND", "numpy") == getattr(side, "BACKEND", get("numpy")).name
        if variant in side.VARIANTS and name in has and on and ("compile" in variant) == side.compiled:
            found[id(side.VARIANTS[variant][name])] = side.VARIANTS[variant][name]
    return list(found.values())


def library_of(side):
    return side.__name__.partition("_")[0]


def relative_error(got, wanted):
    """The largest error, in units of the largest wanted value."""
    return float(np.max(np.abs(np.asarray(got) - wanted)) / np.max(np.abs(wanted)))


def check_samples(x, name, path):
    """The side's first samples are where the reference ends."""
    score = {"W3-net": w.network_score, "W3-mixture": w.mixture_score}[name]
    assert relative_error(np.asarray(x)[:200], w.follow(path, score, rows=200)) < 2e-5  # float32, 50 steps


def check_gradient(value, grad, loss, *inputs, at=None):
    """The side's loss and gradient are the reference's, the gradient one tensor at a time.

    Along itself, where nothing cancels, and at the same time along a random direction: a gradient that lacks an
    entry is right along itself.
    """
    params, inputs = at or w.parameters(), tuple(a.astype(np.float64) for a in inputs)
    assert value == pytest.approx(loss(params, *inputs), rel=1e-5)  # float32
    rng = np.random.default_rng(0)
    for name in params:
        g, other = np.asarray(grad[name], np.float64), rng.standard_normal(params[name].shape)
        size = float(np.linalg.norm(g))
        direction = g / size + other / np.linalg.norm(other)
        slope = loss(params | {name: params[name] + 1e-20j * direction}, *inputs).imag / 1e-20
        assert np.sum(g * direction) == pytest.approx(slope, abs=3e-5 * size)  # float32


def inputs(n=w.BATCH):
    """Data, log σ, noise and probe of a step of W1 or W4."""
    rng = np.random.default_rng(3)
    log_sigma = rng.uniform(np.log(w.SIGMA_MIN), np.log(w.SIGMA_MAX), n).astype(np.float32)
    noise = rng.standard_normal((n, w.DIMENSION), dtype=np.float32)
    return w.pool()[:n], log_sigma, noise, rng.choice(np.float32([-1, 1]), size=noise.shape)


@pytest.mark.parametrize(("name", "first"), [
    ("W3-net", 0), ("W3-mixture", 0), ("W3-mixture", w.STEPS - w.UNIT_STEPS),
    pytest.param("W3-net", w.STEPS - w.UNIT_STEPS, marks=pytest.mark.slow),  # the same network at other levels
])  # fmt: skip
def test_samples_without_noise_end_where_the_reference_ends(side, name, first):
    path = w.Path(first, quiet=True)
    for build in builders(side, name):
        check_samples(build(path)(), name, path)


def test_gradients_along_a_direction_are_the_complex_step(side):
    x0, log_sigma, noise, v = inputs()
    check_gradient(*side.gradient(x0, log_sigma, noise), w.denoising_loss, x0, log_sigma, noise)
    check_gradient(*side.sliced_gradient(x0, log_sigma, noise, v), w.sliced_loss, x0, log_sigma, noise, v)


def test_gradients_of_the_unet_are_the_complex_step(side):
    rng = np.random.default_rng(3)
    x0 = w.images()[:2, :8, :8]  # the network takes images of any size
    log_sigma = rng.uniform(np.log(w.SIGMA_MIN), np.log(w.SIGMA_MAX), 2).astype(np.float32)
    noise = rng.standard_normal(x0.shape, dtype=np.float32)
    check_gradient(*side.unet_gradient(x0, log_sigma, noise), w.unet_loss, x0, log_sigma, noise, at=w.unet_parameters())


def test_the_divergence_by_forward_mode_is_the_one_by_backward():
    side = pytest.importorskip("torch_side")
    x0, log_sigma, noise, v = (side.torch.tensor(a) for a in inputs())
    params = side.tensors(w.parameters())
    both = [loss(params, x0, log_sigma[:, None], noise, v) for loss in (side.sliced_loss, side.sliced_loss_forward)]
    assert both[1].item() == pytest.approx(both[0].item(), rel=1e-5)


def test_the_table_of_sides_is_the_sides_own(side):
    listed = {
        name: set(has)
        for name, (needs, has, _) in run.VARIANTS.items()
        if needs == library_of(side) and name not in run.SAME
    }
    assert listed == {name: set(builders) for name, builders in side.VARIANTS.items()}


LEARNED = {"W1": 0.63, "W4": -0.37}  # mean loss of steps 100-149; torch, JAX and refscore measured within 2 %


@pytest.mark.slow  # its gradients and its samples are looked at every day
@pytest.mark.parametrize("name", ["W1", "W4"])
def test_every_side_learns(side, name):
    for build in builders(side, name):
        step = build()
        losses = [float(step()) for _ in range(150)]
        assert np.mean(losses[-50:]) == pytest.approx(LEARNED[name], rel=0.1)


# ------------------------------------------------------------------ a side that is wrong is refused


def test_a_wrong_gradient_is_refused():
    import refscore_side as side

    *given, v = inputs()
    value, grad = side.gradient(*given)
    wrong = {
        "the loss without its half": (2 * value, grad),
        "a sign": (value, grad | {"W1": -grad["W1"]}),
        "a share": (value, grad | {"head": 1.001 * grad["head"]}),
        "one entry": (value, grad | {"T0": np.where(grad["T0"] == grad["T0"].max(), 0, grad["T0"])}),
        "nothing": (value, grad | {"b2": 0 * grad["b2"]}),
    }
    check_gradient(value, grad, w.denoising_loss, *given)
    for answer in wrong.values():
        with pytest.raises(AssertionError), np.errstate(invalid="ignore"):
            check_gradient(*answer, w.denoising_loss, *given)
    with pytest.raises(AssertionError):  # W4's divergence with another probe
        check_gradient(*side.sliced_gradient(*given, v), w.sliced_loss, *given, v[::-1])


def test_wrong_samples_are_refused(monkeypatch):
    import refscore_side as side

    path = w.Path(quiet=True)
    check_samples(side.mixture_fast(path)(), "W3-mixture", path)
    for other in (w.Path(first=1, quiet=True), w.Path()):  # one step late; with noise
        with pytest.raises(AssertionError):
            check_samples(side.mixture_fast(other)(), "W3-mixture", path)
    monkeypatch.setattr(w, "WEIGHTS", w.WEIGHTS[::-1])
    wrong = side.mixture_fast(path)()
    monkeypatch.undo()
    with pytest.raises(AssertionError):
        check_samples(wrong, "W3-mixture", path)


# ------------------------------------------------------------------ the command, on sides that are made up

WORKER = """
import json, os, sys
library, variant, workload = sys.argv[1:4]
if variant == "jax":
    print(json.dumps({"trouble": "ModuleNotFoundError: No module named 'jax'"}))
    sys.exit()
ms = {"refscore": 4.0, "torch-best": 2.0}.get(variant, 8.0) * (2 if os.environ["OMP_NUM_THREADS"] == "1" else 1)
print(json.dumps({"ready": f"{library} 1.0", "first": 1.5, "unit": ms / 1000}), flush=True)
for turn, line in enumerate(sys.stdin):
    if variant == "torch" and turn == 2:
        sys.exit(3)
    print(json.dumps({"ms": ms + turn / 8}), flush=True)
print(json.dumps({"mib": 50.0}))
"""
FLOORS = """
import json, sys
threads, name = int(sys.argv[2]), sys.argv[4]
print(json.dumps({"floor": name, "threads": threads, "gflop": 0.5, "mib": 14.0, "gflops": 100.0, "gbs": 90.0,
                  "products": 5.0, "bytes": 0.25, "rest": 0.125}))
"""
SCALING = """
import json
for at in ("batch", "width"):
    ms = {"at": [1, 2, 4, 8], "ms": [3, 3, 4, 16]}
    print(json.dumps({"curve": "W1", "variant": at, "theory": 2, "threads": 1} | ms))
"""


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """The command in a folder of its own, with made-up processes; answers with what it prints."""
    for name, text in (("worker.py", WORKER), ("floors.py", FLOORS), ("scaling.py", SCALING)):
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(run, "HERE", tmp_path)
    monkeypatch.setattr(run, "PAUSE", 0)
    monkeypatch.chdir(tmp_path)

    def call(*argv):
        monkeypatch.setattr(sys, "argv", ["run.py", *argv])
        run.main()
        return capsys.readouterr().out

    return call


def lines():
    return [json.loads(line) for line in Path("benchmarks.jsonl").read_text().splitlines()]


def test_the_command_makes_a_table_and_keeps_it(command):
    sides = [a for name in ("refscore", "torch", "torch-best", "jax") for a in ("--side", name)]
    out = command("--only", "W1", *sides, "--rounds", "3", "--seconds", "0.02")
    kept = {(r["threads"], r["variant"]): r for r in lines() if "workload" in r}
    assert set(kept) == {(n, v) for n in (1, 2) for v in ("refscore", "torch", "torch-best", "jax")}
    assert kept[1, "refscore"]["ratios"] == [1, 1, 1]
    assert kept[1, "torch-best"]["ms"] == [4.125, 4.25, 4.375]
    assert kept[2, "torch-best"]["ratios"] == [2.125 / 4.125, 2.25 / 4.25, 2.375 / 4.375]
    assert kept[1, "torch"]["trouble"] == "failed with status 3"
    assert "| jax | ModuleNotFoundError: No module named 'jax' | | | | | |" in out
    assert "| refscore | 8.25 (8.12-8.38) | 1.00 (1.00-1.00) | 1.5 | 50 | 2 x 3 | refscore 1.0 |" in out
    assert "| *floor* | 5.25 | | | | | products 5.00 (0.5 GFLOP at 100 GFLOP/s) + bytes 0.25" in out
    assert "| W1 | 1 | torch-best / refscore | 1.90 | 0.52 (below) |" in out
    assert f"- W1, torch-best / refscore, 0.52 for 1.90: {report.WHY['W1', 'refscore', 'torch-best']}" in out
    assert command("--from", "benchmarks.jsonl") == out, "the table can be made again without measuring"
    assert "To measure the table took 0." in out


def test_a_part_that_is_measured_again_replaces_the_old_one(command):
    command("--only", "W1", "--side", "refscore", "--threads", "1", "--rounds", "1")
    out = command("--only", "W1", "--side", "refscore", "--threads", "1", "--rounds", "2", "--seconds", "0.08")
    assert len([r for r in lines() if "workload" in r]) == 2
    assert "10 x 2" in out
    assert "x 1 |" not in out


def test_curves_have_the_exponent_of_their_upper_half(command):
    out = command("--scaling")
    assert "| W1 | batch | 1: 3, 2: 3, 4: 4, 8: 16 | 2.00 | 2 |" in out
    assert "| W1 | width |" in out


def test_the_page_is_filled_between_its_marks_and_only_there(command):
    page = Path("page.md")
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    out = command("--only", "W4", "--side", "refscore", "--threads", "1", "--rounds", "1", "--docs", "page.md")
    for _ in range(2):  # again, and nothing changes
        assert page.read_text() == f"before\n{report.BEGIN}\n\n{out.rstrip()}\n\n{report.END}\nafter\n"
        command("--from", "benchmarks.jsonl", "--docs", "page.md")
    page.write_text("no marks")
    with pytest.raises(ValueError, match="has no place for the tables"):
        command("--from", "benchmarks.jsonl", "--docs", "page.md")


def test_the_figure_is_drawn(command):
    pytest.importorskip("matplotlib")
    command("--only", "W1", "--side", "refscore", "--side", "torch-best", "--rounds", "1", "--figure", "out.png")
    assert Path("out.png").stat().st_size > 5000


def test_each_side_has_its_environment(monkeypatch, tmp_path):
    monkeypatch.setattr(run.subprocess, "Popen", lambda command, env, **_: env)
    monkeypatch.setattr(run, "as_intel", lambda scratch: "intel.so")
    args = run.arguments([])
    asked = {variant: run.start(variant, "W1", 2, args, tmp_path).process for variant in run.VARIANTS}
    assert asked["refscore-jax-compiled"]["REFSCORE_BACKEND"] == "jax"
    assert asked["refscore-jax-compiled"]["REFSCORE_COMPILE"] == "1"
    assert "REFSCORE_COMPILE" not in asked["refscore-torch"].keys() - os.environ.keys()
    assert asked["torch-avx512"]["LD_PRELOAD"] == "intel.so"
    assert asked["torch-avx2"]["MKL_ENABLE_INSTRUCTIONS"] == "AVX2"
    assert asked["torch-best"]["OMP_NUM_THREADS"] == "2"
    assert asked["refscore-workers"]["OPENBLAS_NUM_THREADS"] == "1", "two workers, one thread of BLAS each"
    for cpu, other in (("Intel(R) Xeon(R)", "torch-avx2"), ("AMD EPYC", "torch-avx512")):
        monkeypatch.setattr(run, "processor", lambda cpu=cpu: cpu)
        assert {*run.sides("W1", 1, args)} & {"torch-avx2", "torch-avx512"} == {other}
    assert "refscore-workers" not in run.sides("W2", 1, args)
    assert "refscore-workers" in run.sides("W2", 2, args)
    asked = run.arguments(["--side", "torch-compile"])
    assert "torch-compile" not in run.sides("W2", 2, args), "minutes to compile"
    assert "torch-compile" in run.sides("W2", 2, asked)


# ------------------------------------------------------------------ what is counted, and how it grows


def test_the_counted_operations_are_those_of_the_products():
    """W1 by hand: forward and the weights' gradients 2 B 256 (66 + 320 + 320 + 2) each, adjoints 2 B 256 · 514."""
    B, n = w.BATCH, w.WIDTH
    assert floors.training().flops == 2 * B * n * (2 * (66 + 320 + 320 + 2) + 256 + 256 + 2)
    assert floors.network().flops == 2 * 50 * 4096 * (2 * 256 + 2 * 256**2 + 256 * 2)
    tangent = 2 * B * n * (2 * (2 + 256 + 256 + 2) + 256 + 256 + 2)
    assert floors.training(tangents=1).flops == floors.training().flops + tangent
    for name in w.NAMES:
        rate = {"gflops": 100.0, "gbs": 50.0, "ns_function": 0.25, "ns_normal": 8.0}
        assert min(floors.floor(floors.COUNTS[name](), rate).values()) > 0


def test_every_curve_grows(capsys):
    small = [(*curve[:2], curve[2][:2], *curve[3:]) for curve in scaling.CURVES]
    scaling.main(small, seconds=0)
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(r["curve"], r["variant"]) for r in found] == [curve[:2] for curve in scaling.CURVES]
    assert all(len(r["ms"]) == 2 and min(r["ms"]) > 0 for r in found)
