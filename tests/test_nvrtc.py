"""Kernels compile where there is no GPU, and what does not compile is found."""

import pytest

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
