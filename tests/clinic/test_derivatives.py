"""The clinic says which derivative is wrong, and by what."""

import numpy as np
import pytest

from refscore.clinic.derivatives import derivatives
from refscore.museum.layers import dense, sizes
from refscore.nn import Dense, SiLU, Tanh

X = np.random.default_rng(0).standard_normal((4, 3))


@pytest.mark.parametrize("layer", [Dense(3, 2), Tanh(), SiLU()])
def test_ours_are_right_in_all_passes(layer):
    derivatives(layer, X).assert_is()


class Wrong(Dense):
    """A dense layer with factors on its passes."""

    def __init__(self, **factors):
        super().__init__(3, 2)
        vars(self).update(factors)

    def jvp(self, params, x, xdot):
        ydot, tape = super().jvp(params, x, xdot)
        return vars(self).get("of_jvp", 1) * ydot, tape

    def jvp_backward(self, params, x, tape, dy, dydot):
        dxs, dxdots, grads = super().jvp_backward(params, x, tape, dy, dydot)
        grads["W"] = vars(self).get("of_W", 1) * grads["W"]
        return dxs, tuple(vars(self).get("of_tangent", 1) * d for d in dxdots), grads


@pytest.mark.parametrize(("factors", "words"), [
    ({"of_jvp": -1}, "jvp, input 0: the sign is wrong"),
    ({"of_tangent": 2}, "jvp_backward, tangent 0: it is 2 times what it should be"),
    ({"of_W": 0.5}, "jvp_backward, W: it is 0.5 times what it should be"),
])  # fmt: skip
def test_pass_argument_and_factor_are_told(factors, words):
    found = derivatives(Wrong(**factors), X)
    assert found.verdict == "wrong"
    assert words in found.findings


def test_the_smallest_failing_shape_is_found():
    forward, backward = dense()
    broken = lambda dy, cache: (backward(dy, cache)[0], *(g * (len(dy) < 3) for g in backward(dy, cache)[1:]))  # noqa: E731
    found = derivatives((forward, broken), at=sizes(dense))
    assert found.numbers["smallest"] == [3, 1]
    assert "the smallest that fails: batch 3, width 1" in found.findings


@pytest.mark.parametrize(("forward", "backward", "name"), [
    (np.tanh, lambda dy, x: (dy, dy)[:0], "gradient-missing"), (np.tanh, lambda dy, x: (dy * 0 + 1)[0], "wrong-shape"),
    (np.tanh, lambda dy, x: dy.T @ x, "wrong-shape"), (np.tanh, lambda dy, x: dy.backward(), "raises"),
    (np.abs, lambda dy, x: 0 * dy, "gradient-zero"),
    (lambda x: x**3, lambda dy, x: dy * x**2, "constant-factor"),
])  # fmt: skip
def test_what_a_gradient_is_instead_is_told(forward, backward, name):
    found = derivatives((forward, backward), X)
    assert (found.verdict, found.causes[0].name) == ("wrong", name)


def test_where_complex_steps_are_wrong_differences_are_taken():
    found = derivatives((lambda x: np.abs(x) ** 3, lambda dy, x: 3 * dy * x * np.abs(x)), X)
    found.assert_is()
    assert found.numbers["method"] == "Richardson"


def test_an_input_without_derivative_is_left_alone():
    patient = (lambda x, t: x * t, lambda dy, x, t: (dy * t, None))
    derivatives(patient, X, np.ones((4, 1)), fixed=[1]).assert_is()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_layer_of_torch(dtype):
    torch = pytest.importorskip("torch")
    right = (torch.tanh, lambda dy, x: dy * (1 - torch.tanh(x) ** 2))
    like = torch.zeros(1, dtype=getattr(torch, dtype))
    derivatives(right, X, like=like).assert_is()
    assert derivatives((torch.tanh, lambda dy, x: dy), X, like=like).causes[0].name == "slope-missing"


@pytest.mark.parametrize("arguments", [(object(), X), ((np.tanh, np.tanh),)])
def test_what_is_no_layer_is_refused(arguments):
    with pytest.raises(TypeError, match="forward"):
        derivatives(*arguments)
