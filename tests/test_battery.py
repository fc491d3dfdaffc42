"""One battery for everything public, made from signatures and from one valid call of each.

A call is corrupted argument by argument, or given the same numbers in another form. What is required stands in
`CHECKS`; each is run on all public functions, classes and methods of a module, and a new name is in by itself
(`tests/oracles/calls.py`). What is refused is refused by ValueError, TypeError, OSError or a class of the package:
never by an AttributeError from inside, never by a NaN in the answer, never by a warning of NumPy.
"""

import copy
import dataclasses
import inspect
import math
import pickle
import signal
import sys
import warnings
from collections import Counter
from collections.abc import Mapping
from contextlib import contextmanager
from fnmatch import fnmatch
from numbers import Real
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

import refscore.nn
from refscore_backends.strict import StrictBackend
from tests.oracles.book import ROOT, parsed
from tests.oracles.calls import Call, calls, functions, numbers
from tests.oracles.waiting import BACKEND, Waited, nobody_waits

NAMES = sorted({name for name, _ in functions().values()})
MODULES = sorted({".".join(name.split(".")[: 1 if name.startswith("arrays.") else 2]) for name in NAMES})

# Whose kinds are in: all of a table is called, and these are what it has in common; a lock, for `with`.
ABSTRACT = {
    "data.files.alone_in", "measure.work_precision.likelihood_split",
    "matching.base.ScoreMatching.__call__", "matching.objectives.OfProbes",
    *(f"nn.activation.Activation.{name}" for name in ("curvature", "forward", "slope", "third")),
    "nn.linear.Linear.apply", "nn.linear.Linear.back",
    *(f"noise.interpolant.Interpolant.{name}" for name in ("alpha", "sigma", "rates")),
}  # fmt: skip

# No doors: here the arguments come from another function of the package, which has looked at them. A pass that looked
# at values would make a GPU wait at every layer; a wrong shape is reported by the product that meets it.
INSIDE = (
    "arrays.*", "nn.layer.*", "nn.shifts.*", "nn.winograd.*", "nn.softmax.*", "nn.linear.*", "matching.base.*",
    *(f"nn.*.{name}" for name in (
        "forward", "backward", "jvp", "jvp_backward", "jet", "jet_backward", "slope", "curvature", "third", "apply",
        "keep", "scales", "part", "energy", "energy_backward", "row",
    )),
    "data.files.*", "data.labels.read_column", "data.points.standardise", "data.points.outliers",
    "data.sets.condition_on", "matching.times.*.at", "matching.probes.units", "training.optim.*.init",
    "training.optim.*.update", "training.optim.*.mean", "nn.embed.condition", "sampling.transitions.transition",
    "laws.mixture.transposed",
)  # fmt: skip

# What functions answer with: made by them, for the eyes of the user.
RECORDS = (
    "laws.expectation.Estimate", "measure.coverage.Coverage", "measure.tables.*Row", "measure.tables.SampleTable",
    "measure.neighbours.Memorised",
    "noise.suggest.Suggestion", "training.loop.TrainingState", "training.checkpoint.Checkpoint", "data.points.Table",
    "data.images.Images", "data.sets.Data", "nn.score_model.BoundScore",
)  # fmt: skip


def is_inside(name):
    return any(fnmatch(name, pattern) for pattern in (*INSIDE, *RECORDS))


def of_module(module, doors=False, kind="float64"):
    """The calls of a module; of the doors alone."""
    found = [call for name, call in sorted(calls(kind).items()) if f"{name}.".startswith(f"{module}.")]
    return [call for call in found if not (doors and is_inside(call.name))]


# ------------------------------------------------------------------ what comes of a call


class TooLong(BaseException):
    """Instead of a hang."""


@contextmanager
def at_most(seconds):
    def stop(*_):
        raise TooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def outcome(call, strictly=True, **changed):
    """ "answered", "NaN", "refused", or the name of what it should not have come to."""
    how = ("raise", "error") if strictly else ("ignore", "ignore")
    try:
        with warnings.catch_warnings(), np.errstate(divide=how[0], over=how[0], invalid=how[0]), at_most(SECONDS):
            warnings.simplefilter(how[1])
            found = numbers(call(**changed))
    except TooLong:
        return "takes for ever"
    except (ValueError, TypeError, MemoryError, OSError):  # OSError: of a path
        return "refused"
    except RuntimeError as error:  # array-api-strict says so of arrays of two devices
        return "refused" if "device" in str(error) else type(error).__name__
    except Exception as error:
        return "refused" if type(error).__module__.startswith("refscore.") else type(error).__name__
    return "NaN" if any(a.dtype.kind in "fc" and np.isnan(a).any() for a in found) else "answered"


SECONDS = 5.0


def arguments(call):
    """Name, value, and what is said of it; not the noun of a method, nor what a generated constructor adds."""
    parameters = inspect.signature(call.function).parameters
    for name, value in call.given.items():
        if name != "self" and name in parameters:
            yield name, value, parameters[name]


def is_read(call, name):
    """Whether anything comes of an argument: a deterministic step draws nothing from its rng."""
    return inspect.isclass(call.function) or outcome(call, **{name: object()}) != "answered"


def may_be_none(parameter):
    return parameter.default is None or type(None) in get_args(parameter.annotation)


# ------------------------------------------------------------------ what it is corrupted by

WORDS = {"None": None, "text": "abc", "an object": object(), "a class": dict}


def changed(values, i, to):
    """An array with one number exchanged."""
    values = np.array(values)
    values.flat[i % max(values.size, 1)] = to
    return values


def wrong_kinds(value):
    """What must be refused in the place of a value."""
    found = dict(WORDS)
    if is_floating(value):
        found |= {
            "list": value.tolist(), "masked": np.ma.masked_array(value, value > 0), "strings": value.astype(str),
            **{kind: value.astype(kind) for kind in ("int64", "bool", "float16", "object")},
        }  # fmt: skip
    elif is_count(value):
        found |= {"2.5": 2.5, "NaN": math.nan, "an array": np.arange(3)}
    elif is_real(value):
        found |= {"NaN": math.nan, "complex": 1j, "list": [value]}
    elif is_series(value):
        found |= {f"{wrong!r} in it": [wrong, *value[1:]] for wrong in (math.nan, "x", None)}
    elif isinstance(value, str):
        found = {**WORDS, "text": "nonsense", "bytes": b"x", "number": 5}
    elif isinstance(value, Path):
        del found["text"]
    elif isinstance(value, np.random.Generator):
        found |= {"a seed": 0}
    elif isinstance(value, np.dtype):
        found |= {kind: kind for kind in ("float16", "int64", "nonsense")}
        del found["None"]
    elif isinstance(value, bool) or value is None:
        found = {}
    elif callable(value):
        del found["a class"]
    return found


def wrong_values(value):
    """What may be refused or answered, with numbers."""
    if is_floating(value):
        found = {"0-d": np.asarray(0.5, value.dtype), "an axis more": value[None], "of another device": STRICT(value)}
        other = "float32" if value.dtype == "float64" else "float64"
        found |= {other: value.astype(other), "complex": value.astype(complex)}
        if value.ndim:
            found |= {"an axis less": value[0], "empty": value[:0], "no width": value[..., :0]}
            found |= {"twice as wide": np.concatenate([value, value], -1), "twice": np.concatenate([value, value])}
        return found
    if is_count(value):
        return {"-1": -1, "0": 0, "1": 1, "2⁷⁰": 2**70, "True": True, "2.0": np.float64(2)}
    if is_real(value):
        numbers = (-1.0, 0.0, 1 + 1e-12, 2.0, 1e308, 1e-308, math.inf, -math.inf, 3, True)
        return {repr(number): number for number in numbers}
    if is_series(value):
        found = {"backwards": value[::-1], "twice the last": [*value, value[-1]], "none": [], "one": value[:1]}
        return found | {"∞ in it": [math.inf, *value[1:]], "-1 in it": [-1, *value[1:]], "one number": value[0]}
    return {}


def not_finite(value):
    """An array with a number that is none."""
    numbers = {"NaN": math.nan, "∞": math.inf} if is_floating(value) and value.size else {}
    return {name: changed(value, value.size // 2, to) for name, to in numbers.items()}


STRICT = StrictBackend("device1").asarray


def is_floating(value):
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"


def is_count(value):
    return isinstance(value, int) and not isinstance(value, bool)


def is_real(value):
    return isinstance(value, Real) and not isinstance(value, (bool, int))


def is_series(value):
    return isinstance(value, (list, tuple)) and len(value) > 0 and all(isinstance(v, Real) for v in value)


# ------------------------------------------------------------------ the checks: what is refused

# Where an argument may be anything: a name for messages, what is passed on, the end of an open range.
ANYTHING = (
    "*(name)", "*(what)", "*(who)", "*.Generator(*)", "data.points.as_table(header)", "data.points.as_table(note)",
    "data.points.as_table(points)", "data.points.reading(path)", "sampling.shards.pool(workers)",
    "sampling.loop.last(states)", "data.sets.load_data(seed)", "data.sets.load_data(n)", "laws.examples.mixture(dtype)",
    "measure.work_precision.sampled_error(seed)", "matching.probes.gaussian(shape)", "nn.*(labels)", "nn.*(condition)",
    "matching.maximum_likelihood.MaximumLikelihood.start(*)", "data.images.flip(x)", "training.checkpoint.save(config)",
    "noise.suggest.walk_excess(fraction)", "noise.suggest.walk_excess(deviation)",  # arrays and series of any kind
    "sampling.guidance.Replace(known)",  # what is hidden by the mask
    "data.training.Dequantised(labels)", "data.training.Dequantised(scaling)",
)  # fmt: skip


def anything(call, name):
    return any(fnmatch(f"{call.name}({name})", pattern) for pattern in ANYTHING)


def check_kinds(call):
    """What is of a wrong kind is refused: None, words, lists, other dtypes, masked arrays, a seed for a generator."""
    for name, value, parameter in arguments(call):
        if anything(call, name) or not is_read(call, name):
            continue
        for kind, wrong in wrong_kinds(value).items():
            if not (wrong is None and may_be_none(parameter)):
                yield f"{name}: {kind}", outcome(call, **{name: wrong}), ("refused",)


def check_values(call):
    """Numbers, shapes, precisions and devices that it was not made for: refused, or answered without a NaN."""
    for name, value, parameter in arguments(call):
        for what, wrong in wrong_values(value).items():
            if wrong is not parameter.default:
                yield f"{name}: {what}", outcome(call, **{name: wrong}), ("refused", "answered")


def check_not_finite(call):
    """A NaN or ∞ in an array is refused by all that looks at values; what waits for no device hands it on."""
    for name, value, _ in arguments(call):
        for what, wrong in not_finite(value).items():
            looks = looks_at_values(call.name) and not anything(call, name)
            allowed = ("refused",) if looks and is_read(call, name) else ("refused", "answered", "NaN")
            yield f"{name}: {what}", outcome(call, looks, **{name: wrong}), allowed


# What looks at values: on a device it makes the host wait, and on the host there is no device.
LOOK = (
    "data.idx.*", "data.images.[!f]*", "data.labels.*", "data.points.*", "data.sets.*", "laws.affine_chain.wasserstein",
    "laws.empirical.*", "laws.examples.*", "laws.expectation.expectation", "laws.expectation.quadrature_grid",
    "laws.grid_chain.*", "laws.mixture.GaussianMixture", "laws.plane.*", "laws.posterior.component",
    "laws.posterior.linear_posterior", "laws.posterior.observe", "likelihood.adaptive.*", "likelihood.elbo.elbo",
    "likelihood.flow.decode", "likelihood.flow.encode", "likelihood.flow.error_split", "likelihood.flow.interpolate",
    "likelihood.flow.log_likelihood", "measure.distance.*", "measure.floor.*", "measure.neighbours.*",
    "measure.tables.*", "measure.work_precision.*", "noise.prior.prior_mismatch*", "noise.suggest.*",
    "sampling.guidance.Replace", "sampling.inverse.Exact",
    "sampling.loop.*", "sampling.shards.in_shards", "sampling.shards.over_shards",
    "training.checkpoint.*", "training.loop.fit", "training.safetensors.*",
)  # fmt: skip


def looks_at_values(name):
    return any(fnmatch(name, pattern) for pattern in LOOK)


@pytest.mark.slow
def test_whoever_waits_looks_and_nobody_else():
    """On array-api-strict's device, while it does not let a value go."""
    for name, call in calls("float32", BACKEND).items():
        given = call.arguments()
        try:
            with nobody_waits():
                call(**given)
        except Waited:
            assert is_inside(name) or looks_at_values(name), name
        else:
            assert not looks_at_values(name) or not any(is_floating(v) for v in calls()[name].given.values()), name


REFUSED = {"kinds": check_kinds, "values": check_values, "not finite": check_not_finite}


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("check", REFUSED)
def test_what_cannot_be_is_refused(check, module, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wrong = [
        f"{call.name}({what}) {found}"
        for call in of_module(module, doors=True)
        for what, found, allowed in REFUSED[check](call)
        if found not in allowed
    ]
    assert not wrong, "\n".join(wrong)


# ------------------------------------------------------------------ the checks: the same in another form


def close(found, wanted, tolerance=1e-12):
    """Number by number: to rounding, of the largest in an array."""
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted, strict=True):
        assert a.shape == b.shape
        if a.dtype.kind in "fc":
            near = np.isfinite(b)
            scale = np.max(np.abs(b[near]), initial=1.0)
            assert np.array_equal(near, np.isfinite(a))
            assert np.all(np.abs(a[near] - b[near]) <= tolerance * scale)
        else:
            assert np.array_equal(a, b)


def layouts(a):
    """The same numbers, otherwise in memory."""
    frozen = a.copy()
    frozen.flags.writeable = False
    yield frozen
    yield np.asfortranarray(a)
    yield a[::-1].copy()[::-1]
    yield np.repeat(a, 2, axis=-1)[..., ::2]


def check_layouts(call):
    wanted = numbers(call())
    for name, value, _ in arguments(call):
        if isinstance(value, np.ndarray) and value.ndim and call.name not in WRITES:
            for other in layouts(value):
                close(numbers(call(**{name: other})), wanted)


WRITES = ("arrays.put",)  # as it says


def check_unchanged(call):
    """Nobody writes into what is given."""
    given = call.arguments()
    before = [a.copy() for a in numbers(list(given.values()))]
    call(**given)
    if call.name not in WRITES:
        for a, b in zip(numbers(list(given.values())), before, strict=True):
            np.testing.assert_array_equal(a, b)


def check_repeated(call):
    """The same seed, the same bits."""
    for a, b in zip(numbers(call()), numbers(call()), strict=True):
        np.testing.assert_array_equal(a, b)


def check_scalars(call):
    """A number may be NumPy's own: the answer is that of Python's, in the same precision."""
    wanted = numbers(call())
    for name, value, _ in arguments(call):
        other = np.float64(value) if is_real(value) else np.int64(value) if is_count(value) else None
        if other is not None:
            found = numbers(call(**{name: other}))
            close(found, wanted)
            assert [a.dtype for a in found if a.ndim] == [a.dtype for a in wanted if a.ndim]


FORMS = {
    "layouts": (check_layouts, "float64"), "unchanged": (check_unchanged, "float64"),
    "repeated": (check_repeated, "float64"), "scalars": (check_scalars, "float32"),
}  # fmt: skip


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("check", FORMS)
def test_the_same_in_another_form_is_the_same(check, module, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    how, kind = FORMS[check]
    wrong = []
    for call in of_module(module, kind=kind):
        try:
            how(call)
        except Exception as error:
            wrong.append(f"{call.name}: {type(error).__name__} {error}"[:300])
    assert not wrong, "\n".join(wrong)


# ------------------------------------------------------------------ samples do not know of each other


class Rows:
    """Noise of its own for each of the samples, whichever are asked for."""

    def __init__(self, rows):
        self.rows = rows

    def standard_normal(self, size, dtype=None):
        return np.random.default_rng(len(size)).standard_normal((N, *size[1:])).astype(dtype)[self.rows]


N = 7
ALONE = {  # which arguments have a row for each sample; the answers have, too
    "laws.mixture.GaussianMixture.[dlpr]*": ("x",), "laws.mixture.GaussianMixture.score": ("x",),
    "laws.plane.*.[ls]*": ("x",), "noise.exact_score.*.__call__": ("x",), "noise.reverse.*.drift": ("x",),
    "noise.parametrisation.convert": ("q", "x"),
    "nn.score_model.BoundScore.__call__": ("x",), "sampling.solvers.*.__call__": ("x",),
    "sampling.transitions.*.__call__": ("x",), "sampling.langevin.*Langevin.__call__": ("x",),
    "sampling.compose.*.__call__": ("x",), "likelihood.flow.encode": ("x",), "likelihood.flow.decode": ("x1",),
    "likelihood.flow.log_likelihood": ("x",), "likelihood.elbo.noise_error": ("x0", "z"),
    "likelihood.elbo.decoder": ("x0", "z"), "measure.neighbours.nearest": ("x",),
}  # fmt: skip


def by_row():
    for name, call in sorted(calls().items()):
        for pattern, rows in ALONE.items():
            if fnmatch(name, pattern) and rows[0] in call.given:
                yield name, rows


@pytest.mark.parametrize(("name", "rows"), by_row(), ids=lambda value: value if isinstance(value, str) else "")
def test_a_sample_is_the_same_alone_and_in_any_order(name, rows):
    """In a batch of seven, by itself, and with the others in another order; a NaN stays in its row."""
    call, rng = calls()[name], np.random.default_rng(0)
    batch = {own: rng.standard_normal((N, *call.given[own].shape[1:])) for own in rows}
    if name == "measure.neighbours.nearest" and call.given["y"] is None:
        batch["y"] = rng.standard_normal((3, batch["x"].shape[1]))

    def of(index, given=batch):
        chosen = {own: given[own][index] if own in rows else given[own] for own in given}
        draws = {"rng": Rows(index)} if "rng" in call.given else {}
        with np.errstate(invalid="ignore"):
            return [a for a in numbers(call(**chosen, **draws)) if a.ndim]

    whole = of(slice(None))
    assert all(a.shape[0] == N for a in whole)
    order = rng.permutation(N)
    close(of(order), [a[order] for a in whole])
    close(of(slice(2, 3)), [a[2:3] for a in whole])
    if not looks_at_values(name):
        broken = {own: changed(a, a[0].size * 4, math.nan) if own == rows[0] else a for own, a in batch.items()}
        kept = [i for i in range(N) if i != 4]
        close([a[kept] for a in of(slice(None), broken)], [a[kept] for a in whole])


@pytest.mark.parametrize(("name", "rows"), by_row(), ids=lambda value: value if isinstance(value, str) else "")
def test_of_no_samples_there_are_no_answers(name, rows):
    """An array of none in the same precision, or a refusal where values are looked at."""
    call = calls()[name]
    none = {own: np.zeros((0, *call.given[own].shape[1:])) for own in rows}
    if outcome(call, **none) == "refused":
        assert looks_at_values(name)
    else:
        found = [a for a in numbers(call(**none)) if a.ndim]
        assert found
        assert all(a.shape[0] == 0 and a.dtype == "float64" for a in found)


def test_of_no_samples_there_is_no_loss():
    for name in ("matching.denoising.Denoising.losses", "matching.objectives.OfSamples.losses"):
        call = calls()[name]
        none = {own: value[:0] for own, value in call.given.items() if own in ("x", "x0", "z", "t")}
        with pytest.raises(ValueError, match="no samples"):
            call(**none)


# ------------------------------------------------------------------ nouns: copied, pickled, written and read


def nouns():
    """One of each class of frozen hyper-parameters, as it was met in the calls."""
    met = {}

    def look(thing):
        if isinstance(thing, (list, tuple)):
            for part in thing:
                look(part)
        elif dataclasses.is_dataclass(thing) and not isinstance(thing, type):
            if type(thing).__module__.startswith("refscore.") and "<lambda>" not in repr(thing):
                met.setdefault(type(thing).__name__, thing)
            look([getattr(thing, field.name) for field in dataclasses.fields(thing)])

    for call in calls().values():
        look(list(call.given.values()))
    return {name: thing for name, thing in sorted(met.items()) if not is_inside(f"{type(thing).__module__[9:]}.{name}")}


def same(a, b):
    """Equal part by part: laws compare as objects, since their arrays are long."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b)
    if dataclasses.is_dataclass(a):
        return all(same(getattr(a, field.name), getattr(b, field.name)) for field in dataclasses.fields(a))
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, Mapping):
        return same([*a.items()], [*b.items()])
    return a == b or (hasattr(a, "__func__") and same(a.__self__, b.__self__))  # a method, of an equal noun


SHORTER = ("<", "GaussianMixture(")  # functions, and what is a summary
COPIES = {"copy": copy.copy, "deepcopy": copy.deepcopy, "pickle": lambda noun: pickle.loads(pickle.dumps(noun))}


@pytest.mark.parametrize("way", COPIES)
def test_nouns_can_be_copied(way):
    found = nouns()
    assert len(found) > 40
    assert not [name for name, noun in found.items() if not same(COPIES[way](noun), noun)]


def test_what_is_written_of_a_noun_makes_it_again():
    """With the names of the package and NumPy's in scope, unless it holds a function or a summary."""
    scope = {**vars(np), **vars(refscore.nn), **{type(noun).__name__: type(noun) for noun in nouns().values()}}
    scope |= {call.function.__name__: call.function for call in calls().values() if inspect.isclass(call.function)}
    with np.printoptions(floatmode="unique", threshold=sys.maxsize):
        found = {name: noun for name, noun in nouns().items() if not any(word in repr(noun) for word in SHORTER)}
        wrong = [name for name, noun in found.items() if not same(eval(repr(noun), dict(scope)), noun)]
    assert len(found) > 30
    assert not wrong, {name: (found[name], eval(repr(found[name]), dict(scope))) for name in wrong[:2]}


# ------------------------------------------------------------------ nothing is left out


def test_everything_public_has_a_valid_call():
    """Add a line to `EVERYTHING`, or to the calls of NumPy alone."""
    assert set(NAMES) - set(calls()) == ABSTRACT
    assert len(calls()) > 500


def test_the_exemptions_are_of_things_that_are_there():
    for pattern in (*INSIDE, *RECORDS, *LOOK, *ALONE):
        assert any(fnmatch(name, pattern) for name in NAMES), pattern
    assert sum(map(is_inside, NAMES)) < len(NAMES) / 2


def test_the_checks_see_what_they_are_for():
    """Planted: a function that forgives all, one that writes, one that is not the same twice."""
    x = np.ones((3, 2))
    kind = Call("planted", lambda x, n=2: 0 * np.asarray(x, dtype="float64") * n, {"x": x, "n": 2})
    assert {found for _, found, allowed in check_kinds(kind) if found not in allowed} == {"answered", "NaN"}
    values = Call("planted", lambda t=0.5: np.sqrt(np.float64(t)), {"t": 0.5})
    assert {found for _, found, allowed in check_values(values) if found not in allowed} == {"FloatingPointError"}

    def writes(x):
        x += 1
        return x

    for check in (check_unchanged, check_layouts):
        with pytest.raises((AssertionError, ValueError)):
            check(Call("planted", writes, {"x": x}))
    with pytest.raises(AssertionError):
        check_repeated(Call("planted", lambda x: x * np.random.default_rng().random(), {"x": x}))
    with pytest.raises(AssertionError):
        check_scalars(Call("planted", lambda x, s: x * s, {"x": x.astype("float32"), "s": 0.1}))


# ------------------------------------------------------------------ every rule has a test

RULES = {  # of bad inputs and faults, by what happens; files under tests
    "NaN or infinity in any array": "test_battery.py::test_what_cannot_be_is_refused",
    "any wrong kind: integers, booleans, half precision, objects, lists, masked arrays":
        "test_battery.py::test_what_cannot_be_is_refused",
    "any malformed call": "test_battery.py::test_malformed_calls_are_refused_or_answered",
    "NaN while sampling: step, time, rows": "sampling/test_loop.py::test_watch_names_step_time_and_rows",
    "NaN while sampling: the other rows go on": "sampling/test_loop.py::test_the_other_rows_do_not_know",
    "wrong shapes of a law": "laws/test_mixture.py::test_shapes_that_do_not_fit_are_named",
    "wrong shapes of points": "laws/test_mixture.py::test_points_of_another_shape_are_refused",
    "an empty batch": "test_battery.py::test_of_no_samples_there_are_no_answers",
    "a loss of nothing": "test_battery.py::test_of_no_samples_there_is_no_loss",
    "B = D = K = 1": "laws/test_mixture.py::test_one_component_in_one_dimension",
    "a batch of one": "test_battery.py::test_a_sample_is_the_same_alone_and_in_any_order",
    "float32 in, float32 out": "test_parity.py::test_every_back_end_gives_numpys_numbers",
    "NumPy's own numbers": "test_battery.py::test_the_same_in_another_form_is_the_same",
    "mixed precisions, libraries, devices":
        "laws/test_mixture.py::test_arrays_of_unlike_dtype_library_or_device_are_refused",
    "parameters and data on two devices": "training/test_loop.py::test_parameters_and_data_must_share_a_device",
    "weights that are none": "laws/test_mixture.py::test_weights_must_be_probabilities",
    "weights of zero": "laws/test_mixture.py::test_a_component_without_weight_is_never_drawn",
    "covariances that are not symmetric": "laws/test_mixture.py::test_covariances_must_be_symmetric",
    "indefinite covariances":
        "laws/test_mixture.py::test_an_indefinite_covariance_is_refused_with_its_smallest_eigenvalue",
    "singular covariances": "laws/test_mixture_laws.py::test_a_singular_mixture_has_no_density_without_noise",
    "times outside [0, 1]": "test_refusals.py::test_a_score_is_asked_at_times_in_the_interval",
    "no noise where it divides": "test_shapes.py::test_a_network_is_not_evaluated_without_noise",
    "schedules: ladders": "noise/test_grids.py::test_ladders_that_are_none_are_refused_everywhere",
    "schedules: times": "sampling/test_loop.py::test_times_that_cannot_be_walked_are_refused_at_the_call",
    "schedules: chains": "noise/test_chains.py::test_what_is_no_chain_is_refused",
    "schedules: fewer steps than beta_max": "noise/test_chains.py::test_a_ddpm_chain_needs_more_steps_than_beta_max",
    "underflow": "noise/test_exact_score.py::test_fast_form_is_right_where_every_density_underflows",
    "overflow": "laws/test_tails.py::test_no_distance_and_no_noise_makes_a_score_infinite",
    "the range of float32": "laws/test_tails.py::test_float32_keeps_its_own_extremes_finite",
    "a million dimensions": "laws/test_tails.py::test_a_million_dimensions_take_memory_in_proportion",
    "very many components": "laws/test_tails.py::test_a_hundred_thousand_equal_components_are_one_in_float32",
    "memory that is not there": "commands/test_commands.py::test_memory_that_is_not_there_is_a_sentence",
    "training that diverges":
        "training/test_loop.py::test_divergence_names_step_rate_and_gradient_norm_and_keeps_the_last_good_state",
    "NaN is never written": "training/test_checkpoint.py::test_a_state_that_is_not_finite_is_never_written",
    "a Langevin step beyond its bound": "sampling/test_langevin.py::test_the_warning_comes_at_the_bound_and_not_before",
    "a chain that runs away": "sampling/test_langevin.py::test_a_chain_that_diverges_is_stopped_by_name",
    "interrupted training": "commands/test_train.py::test_ctrl_c_in_the_middle_of_a_step_costs_no_bits",
    "interrupted sampling": "commands/test_train.py::test_ctrl_c_keeps_the_samples_of_finished_chunks",
    "a checkpoint cut off": "training/test_damage.py::test_a_file_cut_off_anywhere_is_refused",
    "bits that flip": "training/test_damage.py::test_a_bit_that_flips_is_seen_or_means_nothing",
    "a consistent edit": "training/test_damage.py::test_a_file_whose_checksums_are_right_is_still_hashed",
    "pickles": "training/test_damage.py::test_no_damage_executes_anything_or_goes_unseen",
    "declared shapes": "training/test_damage.py::test_memory_is_bounded_by_what_the_file_holds",
    "bombs, names twice, paths, extra members": "training/test_damage.py::test_archives_that_are_traps_are_refused",
    "another architecture": "training/test_damage.py::test_arrays_that_are_not_the_models_are_refused",
    "older formats": "training/test_checkpoint.py::test_a_file_of_format_1_is_read",
    "kill -9": "training/test_damage.py::test_a_process_that_is_killed_while_saving_leaves_a_file_that_is_whole",
    "a full disk": "training/test_damage.py::test_a_full_disk_is_an_error_of_the_system",
    "a folder that is missing or locked": "training/test_damage.py::test_a_folder_that_is_missing_or_locked_is_named",
    "two writers": "training/test_damage.py::test_of_two_writers_the_last_wins_and_nothing_is_mixed",
    "resuming": "training/test_checkpoint.py::test_in_a_new_process_training_goes_on_in_every_bit",
    "from device to device": "test_devices.py::test_training_goes_on_on_another_device",
    "byte order and layout in files":
        "training/test_damage.py::test_big_endian_and_fortran_arrays_are_the_same_numbers",
    "byte order and layout in memory": "laws/test_mixture_laws.py::test_memory_layout_does_not_matter",
    "threads and processes": "sampling/test_shards.py::test_any_number_and_kind_of_workers_draws_the_same_samples",
    "seeds": "commands/test_commands.py::test_seeds_out_of_range_are_refused_before_any_work",
    "a function of the user: shape": "test_shapes.py::test_an_answer_that_would_broadcast_is_refused",
    "a function of the user: precision": "test_shapes.py::test_neither_noise_nor_a_step_of_ones_own_widens",
    "what is given is not written into": "test_battery.py::test_the_same_in_another_form_is_the_same",
}  # fmt: skip


@pytest.mark.parametrize(("file", "names"), sorted({
    file: {one.partition("::")[2] for one in RULES.values() if one.startswith(f"{file}::")}
    for file in {one.partition("::")[0] for one in RULES.values()}
}.items()))  # fmt: skip
def test_every_rule_has_a_test(file, names):
    found = {getattr(node, "name", "") for node in parsed(ROOT / "tests" / file).body}
    assert names <= found, names - found


# ------------------------------------------------------------------ malformed calls, drawn


def drawn(value, rng):
    """One corruption of a value: of the lists above, or a number, a shape, a series that nobody thought of."""
    found = [*wrong_kinds(value).values(), *wrong_values(value).values(), *not_finite(value).values()]
    if is_real(value):
        found += [float(rng.choice([-1, 1]) * 10 ** rng.uniform(-320, 308)) for _ in range(6)]
    elif is_count(value):
        found += [int(n) for n in rng.integers(-3, 12, 6)]
    elif is_floating(value):
        shapes = [tuple(int(n) for n in rng.integers(0, 4, rng.integers(0, 5))) for _ in range(6)]
        found += [rng.standard_normal(shape).astype(value.dtype) for shape in shapes]
        found += [changed(value, int(rng.integers(99)), 10 ** rng.uniform(-320, 308)) for _ in range(3)]
    elif is_series(value):
        found += [sorted(rng.uniform(-1, 2, int(rng.integers(0, 5))).tolist(), reverse=bool(i % 2)) for i in range(6)]
    return found[int(rng.integers(len(found)))] if found else value


def malformed(n, seed):
    """Draw n calls of doors, one or two arguments of each corrupted, and what came of them."""
    rng = np.random.default_rng(seed)
    doors = [call for name, call in sorted(calls().items()) if not is_inside(name) and [*arguments(call)]]
    for _ in range(n):
        call = doors[int(rng.integers(len(doors)))]
        given = [*arguments(call)]
        chosen = [given[i] for i in rng.choice(len(given), min(len(given), int(rng.integers(1, 3))), replace=False)]
        wrong = {name: (drawn(value, rng), parameter.default) for name, value, parameter in chosen}
        wrong = {name: value for name, (value, default) in wrong.items() if value is not default}
        handed_on = any(
            beyond(name, value) and (anything(call, name) or not looks_at_values(call.name))
            for name, value in wrong.items()
        )
        found = outcome(call, not handed_on, **wrong)
        yield found, found in ("refused", "answered") or (handed_on and found == "NaN"), f"{call.name} {wrong!r:.300}"


def beyond(name, values):
    """Whether an array is beyond what the formulas are made for, which without looking at it nobody can know.

    Times and levels have ranges that are told in the docstrings; there are numbers that no square is safe for.
    """
    if not is_floating(values):
        return False
    safe = np.isfinite(values) & (np.abs(values.astype("float64")) <= 1e100)
    return name in ("t", "sigma", "ratio", "u", "alpha", "factor") or not np.all(safe)


def fuzz(n, seed):
    counts, wrong = Counter(), []
    for found, allowed, what in malformed(n, seed):
        counts[found] += 1
        if not allowed:
            wrong.append(f"{found}: {what}")
    print(f"{n} malformed calls, seed {seed}: {dict(counts)}")
    assert not wrong, "\n".join(wrong[:40])


def test_malformed_calls_are_refused_or_answered(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fuzz(500, 0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 11))
def test_a_hundred_thousand_malformed_calls(seed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fuzz(10_000, seed)
