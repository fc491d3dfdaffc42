"""A score model of digits: each measure says what it should of models whose answer is known; slow, what one learns."""

import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.integrate import quad

from refscore import VP
from refscore.data.sets import load_data
from refscore.experiments import digits
from refscore.laws.examples import mixture
from refscore.laws.posterior import linear_posterior
from refscore.likelihood.flow import bits_per_dim
from refscore.measure.neighbours import nearest
from tests.oracles.book import ROOT
from tests.oracles.statistics import assert_mean, assert_within


def table(first):
    """Label -> cells, of the table of chapter 15 whose header begins so."""
    text = (ROOT / "docs" / "chapters" / "15-images.md").read_text(encoding="utf-8")
    lines = text[text.index(first) :].split("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {label: [[float(n) for n in re.findall(r"\d+\.?\d*", re.sub(r"\(.*?\)", "", c))] for c in row]
            for label, *row in cells}  # fmt: skip


@pytest.fixture(scope="module")
def tiny():
    return digits.train(0, steps=4, widths=(8, 8), batch=16)


def by_label(data, labels):
    """A classifier that knows the training images, and says 0 to all others."""
    known = {x.tobytes(): label for x, label in zip(data.x, data.labels, strict=True)}
    return lambda x: np.array([known.get(image.tobytes(), 0) for image in x])


def test_a_run_learns_something_and_is_the_same_for_the_same_seed(tiny):
    assert tiny.curve[-1, 0] == 4
    assert tiny.curve[-1, 2] < tiny.curve[0, 2]
    again = digits.train(0, steps=4, widths=(8, 8), batch=16)
    assert (again.theta == tiny.theta).all()
    assert (again.curve == tiny.curve).all()
    assert tiny.theta.dtype == np.float32


def test_training_is_told_what_it_is_asked_for(monkeypatch):
    told = {}
    monkeypatch.setattr(digits, "fit", lambda *args, **options: told.update(options) or ())
    with pytest.raises(UnboundLocalError):  # no state came
        digits.train(0, steps=7, widths=(8, 8), batch=16)
    assert (told["steps"], told["batch"], told["max_norm"], told["unlabelled"]) == (7, 16, 100.0, 0.2)


def test_a_row_of_the_curve_is_the_mean_loss_since_the_row_before(monkeypatch):
    states = [SimpleNamespace(step=i, loss=float(i), theta=None, average=None) for i in range(1, 62)]
    monkeypatch.setattr(digits, "fit", lambda *args, **options: states)
    monkeypatch.setattr(digits, "_averaged", lambda ema, state: state.step)
    monkeypatch.setattr(digits, "held_out_loss", lambda data, model, theta, seed: 100.0 * theta + seed)
    found, ends = digits.train(3, steps=61, widths=(8, 8)), [*range(2, 61, 2), 61]
    means = [np.mean(range(a + 1, b + 1)) for a, b in zip([0, *ends[:-1]], ends, strict=True)]
    np.testing.assert_array_equal(found.curve, np.transpose([ends, means, [100.0 * end + 3 for end in ends]]))
    assert found.theta == 61


def test_a_network_is_kept_and_found_again(tiny, tmp_path, monkeypatch):
    path = tmp_path / "kept.npz"
    settings = {"steps": 4, "widths": (8, 8), "batch": 16}
    first = digits.kept(path, 0, **settings)
    monkeypatch.setattr(digits, "train", None)  # not again
    second = digits.kept(path, 0, **settings)
    for found in (first, second):
        assert (found.theta == tiny.theta).all()
        assert (found.curve == tiny.curve).all()
    assert second.model == tiny.model


def test_images_are_drawn_by_label_weight_and_mask(tiny):
    rng, labels = np.random.default_rng(0), np.array([3, 1, 4])
    x = digits.draw(tiny, labels, rng, steps=5)
    assert x.shape == (3, 8, 8, 1)
    assert x.dtype == np.float32
    assert digits.draw(tiny, None, rng, 2, steps=5).shape == (2, 8, 8, 1)
    plain, guided = (digits.draw(tiny, labels, np.random.default_rng(1), weight=w, steps=5) for w in (0.0, 3.0))
    without = digits.draw(tiny, None, np.random.default_rng(1), 3, steps=5)
    np.testing.assert_array_equal(plain, without)  # w = 0 knows no label
    assert np.abs(guided - without).max() > 0
    known = tiny.data.held_out[:3]
    masked = digits.draw(tiny, labels, np.random.default_rng(1), weight=3.0, steps=5, mask=np.ones((8, 8, 1), bool))
    np.testing.assert_array_equal(masked, guided)  # nothing is known
    unmasked = digits.draw(tiny, labels, np.random.default_rng(1), weight=3.0, steps=5, known=known)
    np.testing.assert_array_equal(unmasked, guided)
    half = digits.lower_half(tiny.data, known, tiny, rng, 2)
    np.testing.assert_array_equal(half[:, :4], known[:, :4])
    assert np.abs(half[:, 4:] - known[:, 4:]).max() > 0.1
    assert set(np.unique(tiny.data.scaling.undo(half))) <= set(range(17))


def test_images_are_drawn_on_levels_from_all_noise_to_the_least_whose_seventh_roots_are_even(tiny, monkeypatch):
    """The last is where `denoise` takes over."""
    grids = []
    monkeypatch.setattr(digits, "simulate", lambda step, x, times, rng: grids.append(times) or [x])
    digits.draw(tiny, None, np.random.default_rng(0), 1, steps=9)
    levels = np.array([float(VP().sigma(t) / VP().alpha(t)) for t in grids[0]])
    assert grids[0][0] == 1.0
    assert levels[-1] == pytest.approx(digits.LEAST, rel=1e-9)
    roots = levels ** (1 / 7)
    np.testing.assert_allclose(np.diff(roots), (roots[-1] - roots[0]) / 8, rtol=1e-6)


def test_bits_of_a_network_that_knows_the_width_alone_are_those_of_its_normal_law(tiny):
    """Eq. (15.3): with parameters 0 EDM's F leaves the score of N(0, σ_d² I), whose density is known."""
    model = replace(tiny.model, predict="F")
    x = tiny.data.held_out[:6]
    found = digits.bits(
        replace(tiny, model=model, theta=np.zeros_like(tiny.theta)), x, tiny.data.held_out_labels[:6],
        np.random.default_rng(0), steps=40,
    )  # fmt: skip
    u = np.random.default_rng(0).random(x.shape, dtype="float32")
    variance = (VP().alpha(digits.T_MIN) * model.data_std) ** 2 + VP().sigma(digits.T_MIN) ** 2
    squares = np.sum(tiny.data.scaling.dequantise(x, u).astype("float64") ** 2, axis=(1, 2, 3)) / variance
    bits = bits_per_dim(-0.5 * squares - 32 * np.log(2 * np.pi * variance), 64, 2 / 17)
    assert found.value == pytest.approx(bits.mean(), rel=1e-4)
    assert found.error == pytest.approx(bits.std() / np.sqrt(6), rel=1e-3)


def test_memory_sees_the_training_image_and_the_mean_of_all(tiny):
    """Eq. (15.1), (15.7): with little noise the image itself, with all of it the mean."""
    x0 = tiny.data.x[:2]
    t = float(VP().time(0.05))
    x = float(VP().alpha(t)) * x0 + 0.05 * np.random.default_rng(0).standard_normal(x0.shape, dtype="float32")
    network, recalled = digits.denoised(tiny, x, t)
    assert network.shape == recalled.shape == x0.shape
    cell = tiny.data.scaling.width / np.sqrt(12)
    assert np.abs(recalled - x0).max() < 5 * cell  # within the cells, which count as blurred
    _, mean = digits.denoised(tiny, np.random.default_rng(0).standard_normal(x0.shape, dtype="float32"), 1.0)
    np.testing.assert_allclose(mean[0], tiny.data.x.mean(axis=0), atol=0.05)


def test_denoising_errors_are_of_the_pictures_that_their_rows_say(tiny):
    silent = replace(tiny, model=replace(tiny.model, predict="noise"), theta=np.zeros_like(tiny.theta))
    found = digits.denoising_errors(silent, np.array([0.3, 1.0]), 0)
    assert found.shape == (4, 2)
    np.testing.assert_allclose(found[:2], [[0.3, 1.0]] * 2, rtol=0.02)  # noise 0 predicted: nothing is removed
    assert found[3, 0] < 0.3 * found[2, 0]  # memory knows the training images, and not the new ones


def test_spread_is_the_deviation_within_classes():
    x = np.array([0.0, 2.0, 10.0, 10.0, 30.0])[:, None, None, None]
    assert digits.spread(x, np.array([0, 0, 1, 1, 2])) == pytest.approx(np.sqrt(2 / 5), rel=1e-12)


def test_what_is_said_of_samples_is_said_of_the_right_ones(tiny, monkeypatch):
    """A generator that returns training images of the label: agreement and share 1, spread that of the data."""
    data = load_data("digits", seed=0)

    def copies(trained, labels, rng, n=0, **options):
        return np.stack([data.x[rng.choice(np.flatnonzero(data.labels == k))] for k in labels])

    monkeypatch.setattr(digits, "draw", copies)
    asked = []
    monkeypatch.setattr(digits, "bits", lambda *args: asked.append(args))
    found = digits.judge(tiny, by_label(data, data.labels), 0, n=100)
    assert (found.agreement.value, found.copies.share.value, found.copies.samples) == (1.0, 1.0, 0.0)
    (_, held_out, of_held_out, _), (_, some, of_some, _) = asked
    assert np.array_equal(held_out, data.held_out)
    assert np.array_equal(of_held_out, data.held_out_labels)
    assert len(some) == len(held_out)
    assert np.array_equal(by_label(data, data.labels)(some), of_some)
    assert found.agreement_held_out.value == pytest.approx(np.mean(data.held_out_labels == 0), abs=1e-12)
    for accuracy in (found.two_sample, found.two_sample_real):
        assert_within(accuracy.value, 179 / 359, accuracy.error, n=360)
    one = digits.guidance(tiny, by_label(data, data.labels), 2.0, 0, n=2000)
    assert (one.weight, one.agreement.value) == (2.0, 1.0)
    assert one.spread == pytest.approx(1.0, abs=0.03)
    first = np.stack([data.x[data.labels == k][0] for k in range(10)])
    monkeypatch.setattr(digits, "draw", lambda trained, labels, rng, n=0, **options: first[labels])
    assert digits.guidance(tiny, by_label(data, data.labels), 2.0, 0, n=20).spread < 1e-6  # one image a label


@pytest.mark.parametrize("told", [False, True])
def test_completions_are_compared_below_the_middle_with_each_other_and_the_truth(tiny, monkeypatch, told):
    """Lower halves off by ½ and by -¼; what stands above does not count."""
    data, made, asked = tiny.data, [], []

    def shifted(data, x, trained, rng, moves, labels):
        asked.append((moves, labels))
        made.append(x + np.where(np.arange(8)[:, None, None] < 4, 9.0, [0.5, -0.25][len(made)]))
        return made[-1]

    monkeypatch.setattr(digits, "lower_half", shifted)
    right = np.arange(len(data.held_out)) % 4 > 0
    found = digits.inpaint(tiny, lambda x: np.where(right & (x is made[0]), data.held_out_labels, -1), 3, 0, told)
    assert (found.moves, found.agreement.value) == (3, np.mean(right))
    assert found.between == pytest.approx(0.75, rel=1e-6)
    assert found.to_truth == pytest.approx(0.5, rel=1e-6)
    assert [moves for moves, _ in asked] == [3, 3]
    assert all(labels is (data.held_out_labels if told else None) for _, labels in asked)


def test_completions_of_the_posterior_obey_what_refutes_others():
    """Eq. (15.6): the truth and two completions are three draws of one law; here of a mixture's posterior."""
    rng, p, H = np.random.default_rng(0), mixture("tilted"), np.array([[0.0, 1.0]])
    truth, made, mean, chances = p.sample(rng, 1500), [], [], []
    for x in truth:
        post = linear_posterior(p, H, x[1:], np.zeros((1, 1)))
        made.append(post.sample(rng, 2)[:, 0])
        mean.append(post.weights @ post.means[:, 0])
        chances.append(post.weights)
    made, chances = np.stack(made), np.stack(chances)
    between, to_truth = (made[:, 0] - made[:, 1]) ** 2, (made[:, 0] - truth[:, 0]) ** 2
    assert_mean(between - to_truth, 0.0)
    assert_mean(to_truth - 2 * (np.array(mean) - truth[:, 0]) ** 2, 0.0)  # the best guess: equality
    assert to_truth.mean() < 2 * np.mean((truth[:, 0].mean() - truth[:, 0]) ** 2)  # another guess
    guessed = np.mean(np.max(chances, axis=1))  # the best classifier of y is right so often
    assert 0.6 < guessed**2 < np.mean(np.sum(chances**2, axis=1)) < guessed


@pytest.mark.parametrize(("moves", "between", "to_truth"), [(1, 0.989, 0.944), (20, 0.732, 0.726)])
def test_replacement_on_two_correlated_pixels_spreads_more_and_comes_less_near(moves, between, to_truth):
    """Exercise 2, by Eq. (13.14) at ρ = .8: the posterior has 2 (1 - ρ²) = .72 for both."""
    rho, n = 0.8, moves
    m = n * rho * (1 - rho**2) ** (n / 2) * quad(lambda a: a**n * (1 - (rho * a) ** 2) ** (-1 - n / 2), 0, 1)[0]
    v = (2 * n - 1) * (1 - rho**2) ** n * quad(lambda a: a ** (2 * n - 2) * (1 - (rho * a) ** 2) ** -n, 0, 1)[0]
    assert 2 * v == pytest.approx(between, abs=6e-4)
    assert v + (1 - rho**2) + (rho - m) ** 2 == pytest.approx(to_truth, abs=6e-4)  # y of variance 1
    assert 0.72 < to_truth < between


# ------------------------------------------------------------------ the tables of chapter 15


@pytest.mark.recorded("the table is of these splits of the data")
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
def test_the_bits_of_laws_without_a_network_are_those_of_the_table(seed):
    """Memory is judged by a few far images: another draw within the cells moves it by a hundredth."""
    laws, rows = digits.bits_of_laws(load_data("digits", seed=seed), np.random.default_rng(0)), table("| | seed 0 |")
    assert laws["uniform"][0] == pytest.approx(rows["bits per dimension, held out"][3][0], abs=0.005)
    normal, memory = rows["a normal law for each class, held out"], rows["memory, held out"]
    assert laws["normal"] == pytest.approx((normal[seed][0], normal[3][0]), abs=0.006)
    assert laws["memory"][0] == pytest.approx(memory[seed][0], abs=0.1)
    assert laws["memory"][1] == pytest.approx(memory[3][0], abs=0.01)
    recalled = np.log2(1617) / 64 + 0.5 * np.log2(2 * np.pi * np.e / 12)  # which image, and a normal law for a cell
    assert laws["memory"][1] == pytest.approx(recalled, abs=0.005)


@pytest.mark.recorded("the table is of these splits of the data")
@pytest.mark.parametrize(("seed", "error", "right"), [(0, 0.437, 0.911), (1, 0.455, 0.922), (2, 0.438, 0.922)])
def test_what_an_upper_half_tells_of_the_lower_refutes_the_moves_of_the_table(seed, error, right):
    """Eq. (15.6): by the nearest training image, and by a classifier of upper halves."""
    data = load_data("digits", seed=seed)
    (upper, lower), (known, truth) = ((x[:, :4].copy(), x[:, 4:]) for x in (data.x, data.held_out))
    guess = lower[nearest(known, upper)[1]]
    assert np.sqrt(np.mean((guess - truth) ** 2)) == pytest.approx(error, abs=6e-4)
    pairs = [np.mean((np.random.default_rng(i).permutation(truth) - truth) ** 2) for i in range(20)]
    assert np.sqrt(np.mean(pairs)) == pytest.approx(0.74, abs=0.01)
    one, _, twenty, _ = table("| | recognised as the true digit, % |").values()
    assert one[2][seed] > np.sqrt(2) * error
    svm = pytest.importorskip("sklearn.svm").SVC(gamma=0.1).fit(upper.reshape(len(upper), -1), data.labels)
    found = np.mean(svm.predict(known.reshape(len(known), -1)) == data.held_out_labels)
    assert found == pytest.approx(right, abs=0.012)
    assert twenty[0][seed] / 100 < found**2 - 3 * np.sqrt(0.25 / 180)


@pytest.fixture(scope="module")
def trained():
    return digits.train(0)


@pytest.fixture(scope="module")
def classify(trained):
    svm = pytest.importorskip("sklearn.svm")
    data = trained.data
    fitted = svm.SVC(gamma=0.05).fit(data.x.reshape(len(data.x), -1), data.labels)
    return lambda x: fitted.predict(x.reshape(len(x), -1))


@pytest.mark.slow
def test_a_network_of_four_minutes_is_as_good_as_the_table_says(trained, classify):
    """To four errors each: training enlarges the last bit, and samples are others on another machine."""
    found, rows = digits.judge(trained, classify, 0), table("| | seed 0 |")
    said = {label: cells[0][0] for label, cells in rows.items()}
    assert found.bits.value == pytest.approx(said["bits per dimension, held out"], abs=0.03)
    assert found.bits_training.value == pytest.approx(said["the same, training images"], abs=0.03)
    assert found.bits.value - found.bits_training.value < 0.1  # not memorised, in bits
    assert found.bits.value < said["a normal law for each class, held out"] - 0.6
    assert found.agreement.value > 0.9
    assert 100 * found.agreement.value == pytest.approx(said["samples taken for their class, %"], abs=4.5)
    assert 100 * found.agreement_held_out.value == pytest.approx(99.4, abs=0.1)
    assert found.copies.samples == pytest.approx(said["distance to the nearest training image"], abs=0.12)
    assert found.copies.held_out == pytest.approx(1.94, abs=0.01)
    assert found.copies.share.value <= 0.01
    assert abs(100 * found.two_sample.value - said["told from held-out digits, %"]) < 13
    assert abs(100 * found.two_sample_real.value - 48) < 1


@pytest.mark.slow
def test_guidance_trades_variety_for_agreement_as_the_table_says(trained, classify):
    rows = table("| | samples taken for their class, % | spread")
    for w, cells in zip((0.0, 1.0, 3.0), rows.values(), strict=True):
        found, (agreement, spread, told) = digits.guidance(trained, classify, w, 0), [cell[0] for cell in cells]
        assert 100 * found.agreement.value == pytest.approx(agreement, abs=4)
        assert found.spread == pytest.approx(spread, abs=0.05)
        assert 100 * found.two_sample.value == pytest.approx(told, abs=12)
    assert found.agreement.value > 0.99


@pytest.mark.slow
def test_moves_bring_completions_nearer_to_the_truth_as_the_table_says(trained, classify):
    rows = table("| | recognised as the true digit, % |")
    for moves, cells in zip((1, 5, 20), rows.values(), strict=False):
        found, (agreement, between, to_truth) = digits.inpaint(trained, classify, moves, 0), [c[0] for c in cells]
        assert 100 * found.agreement.value == pytest.approx(agreement, abs=15)
        assert found.between == pytest.approx(between, abs=0.05)
        assert found.to_truth == pytest.approx(to_truth, abs=0.05)
    told = digits.inpaint(trained, classify, 5, 0, told=True)
    assert told.agreement.value > 0.93
    assert told.to_truth < 0.5


@pytest.mark.slow
def test_a_network_errs_on_new_images_as_on_those_of_its_training_and_memory_does_not(trained):
    network, network_training, memory, memory_training = digits.denoising_errors(
        trained, np.array([0.1, 0.205, 1.2]), 0
    )
    assert network == pytest.approx(network_training, rel=0.06)
    assert network[:2] == pytest.approx([0.068, 0.116], abs=0.006)
    assert memory[0] > 2 * 0.1  # more than the noise
    assert memory_training[:2] == pytest.approx([0.033, 0.034], abs=0.003)
    assert memory[2] < 0.97 * network[2]  # better where many images are possible
