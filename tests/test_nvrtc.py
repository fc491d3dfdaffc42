"""Kernels compile where there is no GPU, and what does not compile is found."""

import re

import numpy as np
import pytest

from refscore import EMA, MLP, VP, Adam, Denoising, EulerMaruyama, ExactScore, Reverse, ScoreModel, fit
from refscore.laws.examples import mixture
from tests.oracles.cuda_on_host import launcher, planned
from tests.oracles.nvrtc import elementwise, nvrtc_compiles

SILU = "const T s = T(1) / (T(1) + exp(-x)); y = x * s; d = s + y * (T(1) - s)"


@pytest.mark.parametrize(("kind", "add"), [("float", "add.rn.f32|add.f32"), ("double", "add.rn.f64|add.f64")])
def test_an_elementwise_kernel_compiles_in_its_own_precision(kind, add):
    made = nvrtc_compiles(elementwise("T x", "T y, T d", SILU, {"T": kind}))
    assert any(word in made for word in add.split("|"))
    assert (".f64" in made) == (kind == "double")  # no hidden double


@pytest.mark.parametrize(("operation", "words"), [
    ("y = x +", "expression"), ("y = silu(x)", 'identifier "silu" is undefined'), ("z = x", 'identifier "z" is'),
])  # fmt: skip
def test_what_does_not_compile_is_found_with_the_compilers_words(operation, words):
    with pytest.raises(AssertionError, match=words):
        nvrtc_compiles(elementwise("T x", "T y", operation, {"T": "float"}))


def test_a_hidden_double_is_seen_in_what_is_made():
    assert ".f64" in nvrtc_compiles(elementwise("T x", "T y", "y = x * 0.1", {"T": "float"}))


# ------------------------------------------------------------------ the kernels of compiled steps


class Made(Exception):
    pass


def sources(run):
    """The kernels that CuPy would be given, in the order in which they are made."""
    found = []

    def make(kernel):
        found.append(kernel)
        return launcher

    def compile(function):
        compiled = planned(function, make)
        build = compiled._build

        def stop(program):
            build(program)
            raise Made

        compiled._build = stop
        return compiled

    with pytest.raises(Made):
        run(compile)
    return found


def training(compile):
    """A step of training, on data that are given whole: no batch is drawn."""
    model = ScoreModel(MLP((2, 8, 8, 2), embed=4), VP(), data_std=1.6)
    law = mixture("tilted", np.asarray, "float32")
    given = lambda function: compile(function) if "step" in repr(function) else function  # noqa: E731
    next(fit(model, Denoising(), law, Adam(1e-3), np.random.default_rng(0), steps=1, ema=EMA(0.9), compile=given))


def sampling(compile):
    """A step of Euler-Maruyama from an exact score."""
    law = mixture("tilted", np.asarray, "float32")
    step = compile(EulerMaruyama(Reverse(VP(), ExactScore(law, VP()))))
    step(np.ones((4, 2), dtype=np.float32), 0.9, 0.8, np.random.default_rng(0))


@pytest.mark.parametrize("run", [training, sampling])
def test_every_kernel_of_a_step_compiles_and_computes_in_float32(run):
    kernels = sources(run)
    assert len(kernels) > 5
    for kernel in kernels:
        made = nvrtc_compiles(kernel.text)
        if not re.search(r"\b(sin|cos|tan)\(", kernel.text):  # of large angles: CUDA itself reduces them in double
            assert not re.search(r"(add|sub|mul|div|fma)\.[a-z.]*f64", made), kernel.text  # numbers come in as double
