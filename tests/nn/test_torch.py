"""Layers are what torch calls by their names, forwards and backwards; see tests/oracles/make_layers_torch.py."""

from pathlib import Path

import numpy as np
import pytest

from refscore.nn import ELU, GELU, Attention, AvgPool, Conv, GroupNorm, SiLU, Softmax, Softplus, Tanh, Upsample
from tests.oracles.close import assert_close
from tests.oracles.marks import on_every_backend

with np.load(Path(__file__).parents[1] / "oracles" / "layers_torch.npz") as file:
    TORCH = dict(file)
CASES = list(dict.fromkeys(key.rsplit(".", 1)[0] for key in TORCH if key != "version"))
ACTIVATIONS = {
    "gelu": GELU(),
    "elu": ELU(),
    "silu": SiLU(),
    "tanh": Tanh(),
    "softplus": Softplus(),
    "softmax": Softmax(),
}
FORMS = {
    "strided": (2, 1),
    "strided-odd": (2, 1),
    "strided-many": (2, 1),
    "dilated": (1, 2),
    "depthwise": (2, 1),
    "all": (2, 2),
}  # not (1, 1)


def inside(a):
    """(B, C, H, W) -> (H, W, B, C), and vectors as they are."""
    return a.transpose(2, 3, 0, 1) if a.ndim == 4 else a


def kernel(a):
    """(O, C, k, k) -> (k, k, C, O)."""
    return a.transpose(2, 3, 1, 0)


def build(case, of):
    """Our layer of the same name and sizes, and the inputs that it reads beside x."""
    kind, name = case.split(".")
    if kind == "conv":
        O, C, k, _ = of["W"].shape
        n_in = of["x"].shape[1]
        return Conv(n_in, O, k, *FORMS.get(name, (1, 1)), groups=n_in // C)
    if kind == "norm":
        n = of["x"].shape[1]
        return GroupNorm(n, {"group": 3, "layer": 1, "instance": n, "vectors": 1}[name])
    if kind == "attention":
        return Attention({"one-head": 1, "two-heads": 2}[name])
    return {"upsample": Upsample(), "avg-pool": AvgPool()}.get(kind) or ACTIVATIONS[name]


@on_every_backend
@pytest.mark.parametrize("case", CASES)
def test_a_layer_is_what_torch_calls_by_its_name(host, case):
    of = {key.removeprefix(f"{case}."): value for key, value in TORCH.items() if key.startswith(f"{case}.")}
    layer, move = build(case, of), host.asarray
    params = {key: move(kernel(of[key]) if key == "W" else of[key]) for key in layer.shapes}
    beside = [move(inside(of["y"]))] if isinstance(layer, Upsample) else []
    y, cache = layer.forward(params, move(inside(of["x"])), *beside)
    (dx, *_), grads = layer.backward(params, cache, move(inside(of["dy"])))
    found = {"y": y, "dx": dx} | {f"d{key}": grad for key, grad in grads.items()}
    for key, ours in found.items():
        wanted = kernel(of[key]) if key == "dW" else inside(of[key])
        assert_close(host.to_numpy(ours), wanted, 1e-11 * (1 + np.max(np.abs(wanted))), key)


def test_every_kind_of_layer_is_recorded():
    kinds = {case.split(".")[0] for case in CASES}
    assert kinds == {"conv", "norm", "attention", "upsample", "avg-pool", "activation"}
    assert len(CASES) == 29
