"""The budget of false alarms: what is random declares how often it fails for nothing, and the run adds it up."""

import ast
import os
import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import chi2, norm

from refscore import GaussianMixture
from tests.oracles import statistics
from tests.oracles.book import ROOT, parsed
from tests.oracles.statistics import (
    ALPHA,
    assert_bounded,
    assert_cdf,
    assert_from,
    assert_law,
    assert_mean,
    assert_share,
    assert_spread,
    assert_vector,
    assert_within,
)

# ------------------------------------------------------------------ nobody averages draws without declaring

AVERAGES = {
    "mean", "average", "var", "std", "cov", "corrcoef", "median", "quantile", "percentile", "bincount", "histogram",
    "count_nonzero", "kstest",
}  # fmt: skip
CLOSE = {"assert_close", "assert_allclose"}
DRAWS = {
    "default_rng", "sample", "standard_normal", "random", "uniform", "normal", "integers", "permutation", "choice",
    "simulate", "fit", "trained", "command", "run", "main",
}  # fmt: skip
ROUNDING = 1e-5  # a comparison with a number as small as that is of the same draws, not of their law
FAR, EXACT, TRAINED = "by far, whatever is drawn", "exact: of the same draws, or of none", "what training leaves"
EXEMPT = {  # what averages and declares nothing, and why it may
    "commands/test_commands.py::test_pictures_of_a_file_are_in_its_units": FAR,
    "commands/test_train.py::test_samples_are_as_fine_as_the_data": FAR,
    "commands/test_train.py::test_told_a_column_the_others_are_drawn_from_their_posterior": TRAINED,
    "commands/test_train.py::test_the_likelihood_of_a_gaussian_model_is_that_of_the_gaussian": EXACT,
    "data/test_sets.py::test_a_split_takes_the_same_part_of_each_class": EXACT,
    "data/test_sets.py::test_points_of_any_number_of_columns_are_scaled_and_come_back": EXACT,
    "data/test_sets.py::test_an_outlier_and_a_missing_class_are_said": EXACT,
    "experiments/test_failures.py::test_the_low_density_experiment_is_the_papers": EXACT,
    "test_patients.py::test_samplers_run_and_the_right_ones_give_the_law": FAR,
    "experiments/test_digits.py::test_bits_of_a_network_that_knows_the_width_alone_are_those_of_its_normal_law": EXACT,
    "experiments/test_digits.py::test_memory_sees_the_training_image_and_the_mean_of_all": FAR,
    "experiments/test_digits.py::test_completions_of_the_posterior_obey_what_refutes_others": FAR,
    "laws/test_tails.py::test_log_odds_in_float32_keep_their_promise_in_many_dimensions": FAR,
    "matching/test_probes.py::test_probes_of_different_samples_are_different": FAR,
    "matching/test_score_matching.py::test_the_training_points_have_a_lower_floor_than_their_law": FAR,
    "measure/test_floor.py::test_floor_over_times_adds_the_errors_of_its_levels": FAR,
    "measure/test_neighbours.py::test_two_samples_of_laws_that_overlap_state_their_error_too": FAR,
    "nn/test_layers.py::test_a_convolution_starts_with_outputs_of_unit_variance": FAR,
    "nn/test_networks_by_hand.py::test_a_forgotten_term_of_a_norm_leaves_the_curvature_symmetric": FAR,
    "nn/test_networks_by_hand.py::test_the_fast_form_does_four_ninths_of_the_products_and_rounds_more": FAR,
    "nn/test_unet.py::test_a_unet_learns_that_one_image_is_all_there_is": TRAINED,
    "noise/test_suggest.py::test_on_a_spectrum_as_pictures_have_it_little_is_lost": EXACT,
    "noise/test_suggest.py::test_a_suggestion_can_be_walked": FAR,
    "sampling/test_annealed.py::test_one_network_learns_every_level": TRAINED,
    "sampling/test_langevin.py::test_taking_means_over_the_batch_couples_the_samples": FAR,
    "sampling/test_samplers.py::test_heun_has_order_2_on_the_closed_flow_of_a_gaussian": EXACT,
    "sampling/test_samplers.py::test_heun_has_order_2_on_a_mixture": EXACT,
    "training/test_checkpoint.py::test_the_average_comes_back_with_what_rounding_cut_off": EXACT,
    "training/test_condition.py::test_denoising_is_least_at_the_conditional_score": FAR,
    "training/test_condition.py::test_a_network_learns_every_component_and_without_a_label_all_of_them": TRAINED,
}


def called(node):
    return {getattr(n.func, "attr", getattr(n.func, "id", "")) for n in ast.walk(node) if isinstance(n, ast.Call)}


def compared(function):
    """The expressions that a test asserts, each without the message."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assert):
            yield node.test
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in CLOSE:
            yield node


def undeclared(function):
    """Lines where an average of what was drawn is compared, more loosely than rounding asks, by no helper of ours."""
    if not called(function) & DRAWS or "recorded" in "".join(map(ast.unparse, function.decorator_list)):
        return []
    assigned = [node for node in ast.walk(function) if isinstance(node, ast.Assign) and called(node.value) & AVERAGES]
    averages = {n.id for node in assigned for to in node.targets for n in ast.walk(to) if isinstance(n, ast.Name)}
    found = []
    for expression in compared(function):
        floats = [n.value for n in ast.walk(expression) if isinstance(n, ast.Constant) and isinstance(n.value, float)]
        names = {n.id for n in ast.walk(expression) if isinstance(n, ast.Name)}
        if (called(expression) & AVERAGES or names & averages) and not (floats and min(floats) <= ROUNDING):
            found.append(expression.lineno)
    return found


def test_who_averages_draws_declares_how_often_that_fails():
    """Go through tests/oracles/statistics.py, or say in the list above why not."""
    found = {}
    for path in (ROOT / "tests").rglob("test_*.py"):
        if "benchmarks" not in path.parts:
            for node in parsed(path).body:
                if isinstance(node, ast.FunctionDef) and (lines := undeclared(node)):
                    found[f"{path.relative_to(ROOT / 'tests').as_posix()}::{node.name}"] = lines
    assert {name: lines for name, lines in found.items() if name not in EXEMPT} == {}
    assert EXEMPT.keys() - found.keys() == set()  # and who no longer averages leaves the list


@pytest.mark.parametrize(("lines", "seen"), [
    ("x = rng.standard_normal(9)\nassert np.mean(x) == pytest.approx(0, abs=0.1)", True),
    ("v = sample().var()\nassert abs(v - 1) < 0.1", True),
    ("assert_close(sample().std(axis=0), 1, 0.1)", True),
    ("x = rng.standard_normal(9)\nassert np.mean(x) == pytest.approx(x.sum() / 9, rel=1e-12)", False),
    ("assert_mean(sample(), 0.0)", False),
    ("assert np.mean(np.ones(3)) == 1", False),
])  # fmt: skip
def test_the_next_one_is_found(lines, seen):
    body = "\n".join(f"    {line}" for line in lines.split("\n"))
    assert bool(undeclared(ast.parse(f"def f():\n{body}").body[0])) == seen


# ------------------------------------------------------------------ the helpers keep what they declare

PLANE = GaussianMixture(np.array([0.3, 0.7]), np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([0.5, 1.0]))
FREQUENCIES = np.array([[1.0, 0.0], [0.5, -1.0]])
MADE = {  # of each helper: an assertion that is right, and one that is off by what must be seen
    "within": lambda rng, a, off: assert_within(rng.standard_normal(3), 20.0 * off, np.ones(3), alpha=a),
    "mean": lambda rng, a, off: assert_mean(rng.standard_normal((900, 2)), [0.0, 0.4 * off], alpha=a),
    "skew": lambda rng, a, off: assert_mean(rng.exponential(size=900), 1 + 0.5 * off, alpha=a),
    "share": lambda rng, a, off: assert_share(rng.random((900, 2)) < 0.2, 0.2 + 0.2 * off, alpha=a),
    "rare": lambda rng, a, off: assert_share(rng.random(900) < 1e-3, 1e-3 + 0.05 * off, alpha=a),
    "bounded": lambda rng, a, off: assert_bounded(rng.random((900, 2)), 0.5 + 0.2 * off, 0.0, 1.0, alpha=a),
    "cdf": lambda rng, a, off: assert_cdf(rng.standard_normal(900), norm(0.6 * off).cdf, alpha=a),
    "cdf at places": lambda rng, a, off: assert_cdf(rng.standard_normal(900), norm(0.6 * off).cdf, at=[0, 1], alpha=a),
    "from": lambda rng, a, off: assert_from(rng.chisquare(300), chi2(300 + 500 * off), alpha=a),
    "vector": lambda rng, a, off: assert_vector(
        rng.standard_normal((2000, 2)) @ [[1, 1], [0, 0.1]], [0.0, 0.05 * off], alpha=a
    ),
    "law": lambda rng, a, off: assert_law(PLANE.sample(rng, 900) + 1.5 * off, PLANE, FREQUENCIES, alpha=a),
    "spread": lambda rng, a, off: assert_spread((1 + off) * rng.standard_normal(400), np.ones(400), alpha=a),
}


def test_every_helper_is_held_to_its_word():
    made = {name for name in vars(statistics) if name.startswith("assert_")}
    code = (ROOT / "tests" / "test_false_alarms.py").read_text(encoding="utf-8")
    assert {name for name in made if f": {name}(" not in code} == set()


@pytest.mark.parametrize("name", MADE)
def test_a_helper_fails_as_often_as_it_declares_and_sees_what_is_off(name, monkeypatch):
    """At alpha = .1 in 200 samples at most 51 times, which 1e-9 of all runs exceed; off by much, at 1e-9, always."""
    declared, rng, failures = [], np.random.default_rng(0), 0
    monkeypatch.setattr(statistics, "DECLARED", declared)
    for _ in range(200):
        try:
            MADE[name](rng, 0.1, 0)
        except AssertionError:
            failures += 1
    assert np.all(np.array(declared) >= 0.1)
    with pytest.raises(AssertionError, match=r"are off; the worst.*alpha = .*last seeds \[.*0\]"):
        MADE[name](rng, ALPHA, 1)
    monkeypatch.undo()
    assert_share(np.arange(200) >= failures, 1 - 0.1 / 2, bias=0.05)


def test_nan_is_off_and_too_few_draws_are_refused():
    for helper in (lambda x: assert_mean(x, 0.0), lambda x: assert_within(x[0], 0.0, 1.0)):
        with pytest.raises(AssertionError):
            helper(np.full(2000, np.nan))
    with pytest.raises(AssertionError, match=r"of numbers of skewness .* 50 are too few"):
        assert_mean(np.random.default_rng(0).exponential(size=50), 1.0)
    z = np.random.default_rng(0).standard_normal(10_000)
    assert_mean(z**2, 1.0, sees=0.14)
    with pytest.raises(AssertionError, match=r"no error of 0\.05 is sure to be seen"):
        assert_mean(z**2, 1.0, sees=0.05)


class Terminal:
    """What pytest hands to a summary, after two tests."""

    def __init__(self):
        told = [[("false alarms", [1e-9, 1e-9])], [("other", 1), ("false alarms", [2e-6])]]
        self.stats = {"": [Report(when, each) for each in told for when in ("setup", "teardown")], "passed": [object()]}
        self.lines = []

    def write_line(self, line):
        self.lines.append(line)


class Report:
    def __init__(self, when, user_properties):
        self.when, self.user_properties = when, user_properties


def test_the_sum_is_of_all_tests_once(request):
    terminal = Terminal()
    conftest = request.config.pluginmanager.get_plugin(str(ROOT / "tests" / "conftest.py"))
    conftest.pytest_terminal_summary(terminal)
    assert terminal.lines == ["false alarms: 3 stochastic assertions, 2.0e-06 in sum"]


@pytest.mark.slow
def test_the_sum_is_printed_under_any_seed_and_order():
    """Also where the tests run in other processes."""
    tests = ["tests/test_boxmuller.py", "-k", "law_is_normal"]
    options = ["-q", "-p", "no:cacheprovider", "--rotate", "7", "--shuffle", "7", "-n", "1"]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *tests], cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "backends")])},
    )  # fmt: skip
    assert "false alarms: 9 stochastic assertions, " in run.stdout, run.stdout
