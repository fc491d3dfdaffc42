"""Record what torch says of the layers, in float64: writes layers_torch.npz, a few small arrays a case.

    pip install torch numpy
    python tests/oracles/make_layers_torch.py

Inputs, parameters and the adjoint of the output are drawn here and recorded beside torch's output and gradients, all
in torch's own layout, (B, C, H, W). The tests read the file alone. Numbers are recorded as float64; torch's version is
in the file.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

CONVS = {  # name -> (B, C, H, W, O, kernel, stride, dilation, groups)
    "plain": (2, 3, 5, 4, 4, 3, 1, 1, 1),
    "fast": (2, 9, 5, 4, 8, 3, 1, 1, 1),
    "fast-even": (1, 8, 6, 3, 9, 3, 1, 1, 1),
    "pointwise": (2, 3, 3, 2, 2, 1, 1, 1, 1),
    "strided": (2, 2, 7, 6, 3, 3, 2, 1, 1),
    "strided-odd": (1, 9, 5, 5, 2, 3, 2, 1, 1),
    "dilated": (1, 2, 7, 5, 2, 3, 1, 2, 1),
    "wide": (1, 2, 6, 5, 2, 5, 1, 1, 1),
    "grouped": (1, 4, 4, 5, 6, 3, 1, 1, 2),
    "depthwise": (1, 3, 5, 4, 3, 3, 2, 1, 3),
    "all": (1, 4, 9, 8, 4, 3, 2, 2, 2),
    "one-pixel": (1, 2, 1, 1, 2, 3, 1, 1, 1),
    "strided-many": (1, 8, 5, 3, 8, 3, 2, 1, 1),
}
NORMS = {"group": (2, 6, 3, 4, 3), "layer": (2, 4, 2, 3, 1), "instance": (2, 3, 4, 2, 3)}  # B, C, H, W, groups
HEADS = {"one-head": (2, 3, 2, 3, 1), "two-heads": (2, 4, 3, 2, 2)}  # B, C, H, W, heads
SIZES = {"even": (1, 2, 2, 3), "odd": (1, 2, 3, 2)}  # B, C and the small H, W


def coarse(rng: np.random.Generator, *shape: int) -> torch.Tensor:
    """Normal numbers rounded to sixteenths, of which a zipped file is small."""
    return torch.tensor(np.round(16 * rng.standard_normal(shape)) / 16)


def record(found: dict[str, Any], name: str, answer: Any, rng: np.random.Generator, **inputs: torch.Tensor) -> None:
    """Keep inputs, output, an adjoint of the output, and the gradients of the inputs."""
    y = answer(*inputs.values())
    dy = coarse(rng, *y.shape)
    y.backward(dy)
    kept = {"y": y, "dy": dy} | inputs | {f"d{key}": value.grad for key, value in inputs.items()}
    found |= {f"{name}.{key}": value.detach().numpy() for key, value in kept.items()}


def main() -> None:
    rng = np.random.default_rng(0)
    found: dict[str, Any] = {"version": np.array(torch.__version__)}

    def drawn(*shape: int) -> torch.Tensor:
        return coarse(rng, *shape).requires_grad_()

    for name, (B, C, H, W, O, k, s, r, groups) in CONVS.items():

        def conv(x: Any, W: Any, b: Any, s: int = s, r: int = r, k: int = k, groups: int = groups) -> Any:
            return F.conv2d(x, W, b, stride=s, padding=k // 2 * r, dilation=r, groups=groups)

        record(found, f"conv.{name}", conv, rng, x=drawn(B, C, H, W), W=drawn(O, C // groups, k, k), b=drawn(O))
    for name, (B, C, H, W, groups) in NORMS.items():

        def norm(x: Any, g: Any, b: Any, groups: int = groups) -> Any:
            return F.group_norm(x, groups, g, b)

        record(found, f"norm.{name}", norm, rng, x=drawn(B, C, H, W), g=drawn(C), b=drawn(C))
    vectors = {"x": drawn(3, 5), "g": drawn(5), "b": drawn(5)}
    record(found, "norm.vectors", lambda x, g, b: F.layer_norm(x, x.shape[1:], g, b), rng, **vectors)
    for name, (B, C, H, W, heads) in HEADS.items():

        def attend(x: Any, heads: int = heads) -> Any:
            q, k, v = x.reshape(x.shape[0], 3, heads, -1, x[0, 0].numel()).transpose(-1, -2).unbind(1)
            o = F.scaled_dot_product_attention(q, k, v)
            return o.transpose(-1, -2).reshape(x.shape[0], -1, *x.shape[2:])

        record(found, f"attention.{name}", attend, rng, x=drawn(B, 3 * C, H, W))
    for name, (B, C, H, W) in SIZES.items():
        size = (2 * H, 2 * W) if name == "even" else (2 * H - 1, 2 * W - 1)

        def up(x: Any, size: Any = size) -> Any:
            return F.interpolate(x, scale_factor=2, mode="nearest")[..., : size[0], : size[1]]

        def down(x: Any) -> Any:
            return F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)

        record(found, f"upsample.{name}", up, rng, x=drawn(B, C, H, W))
        record(found, f"avg-pool.{name}", down, rng, x=drawn(B, C, *size))
    x = np.concatenate([np.linspace(-8, 8, 25), [-30.0, 1e-3, 30.0]])
    for name, phi in {
        "gelu": lambda x: F.gelu(x, approximate="tanh"), "elu": F.elu, "silu": F.silu, "tanh": torch.tanh,
        "softplus": lambda x: F.softplus(x, threshold=1e9), "softmax": lambda x: F.softmax(x, dim=-1),
    }.items():  # fmt: skip
        record(found, f"activation.{name}", phi, rng, x=torch.tensor(x[None, :], requires_grad=True))
    np.savez_compressed(Path(__file__).with_name("layers_torch.npz"), **found)


if __name__ == "__main__":
    main()
