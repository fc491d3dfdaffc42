"""The figures of chapter 14: python docs/figures/chapter14.py

14-steps.svg  the error of difference quotients against their step, beside complex steps
14-unet.svg   the U-Net as the graph that its rows are, and one of its blocks
14-sees.svg   what one pixel of the answer depends on
"""

from pathlib import Path
from typing import Any

import numpy as np
from where import HERE

from refscore import MLP, UNet
from refscore.nn import Conv, GroupNorm, Inside, Net, Outside, SiLU
from refscore.plots import EXACT, INK, LEARNED, figure, save

GREEN, SAND = "#4f772d", "#e9a03b"

# ------------------------------------------------------------------ difference quotients


def steps(path: Path = HERE / "14-steps.svg") -> str:
    """Relative errors of <a, F' v> and <a, F''[v, v]>, root mean square over points, of a small MLP."""
    net, rng, B = MLP((2, 64, 64, 2)), np.random.default_rng(0), 200
    params = net.init(rng, "float64")
    x, v, a = rng.standard_normal((3, B, 2))

    def f(x: Any, params: Any = params) -> Any:
        return np.sum(a.astype(x.real.dtype) * net.forward(params, x)[0], axis=1)

    def slope(x: Any) -> Any:
        _, cache = net.forward(params, x)
        return np.sum(a * net.jvp(params, cache, v[None] + 0 * x)[0][0], axis=1)

    _, cache = net.forward(params, x)
    _, tape = net.jvp(params, cache, v[None])
    (dx,), _, _ = net.jvp_backward(params, cache, tape, None, a[None])
    first, second = slope(x), np.sum(dx * v, axis=1)
    narrow = {name: value.astype("float32") for name, value in params.items()}
    x4, v4 = x.astype("float32"), v.astype("float32")

    def single(h: float) -> Any:
        h4 = np.float32(h)
        return (f(x4 + h4 * v4, narrow).astype("float64") - f(x4 - h4 * v4, narrow)) / (2 * h)

    def error(found: Any, wanted: Any) -> float:
        return float(np.sqrt(np.mean((found - wanted) ** 2) / np.mean(wanted**2)))

    far, near = np.geomspace(1e-24, 1, 97), np.geomspace(1e-15, 1, 61)
    ways = [
        ("forward, $(f(x + hv) - f(x))/h$", near, lambda h: (f(x + h * v) - f(x)) / h, SAND, first, 0),
        ("central, in float32", np.geomspace(1e-8, 1, 33), single, GREEN, first, 0),
        ("central, $(f(x + hv) - f(x - hv))/2h$", near,
         lambda h: (f(x + h * v) - f(x - h * v)) / (2 * h), EXACT, first, 0),
        ("complex, Im $f(x + ihv)/h$", far, lambda h: f(x + 1j * h * v).imag / h, LEARNED, first, 0),
        ("of values, $(f_+ - 2f + f_-)/h^2$", near,
         lambda h: (f(x + h * v) - 2 * f(x) + f(x - h * v)) / h**2, SAND, second, 1),
        ("of jvp, central", near, lambda h: (slope(x + h * v) - slope(x - h * v)) / (2 * h), EXACT, second, 1),
        ("of jvp, complex", far, lambda h: slope(x + 1j * h * v).imag / h, LEARNED, second, 1),
    ]  # fmt: skip
    fig, (axes,) = figure(2, size=4.4)
    for label, hs, way, color, wanted, panel in ways:
        errors = [error(way(float(h)), wanted) for h in hs]
        axes[panel].loglog(hs, errors, color=color, label=label)
        print(f"{label}: least {min(errors):.2g} at h = {hs[int(np.argmin(errors))]:.2g}")
    for ax, title in zip(axes, ("first derivative", "second derivative"), strict=True):
        ax.set(xlabel="step h", ylim=(1e-17, 30), xlim=(1e-24, 1.5), title=title)
        ax.legend(fontsize=8, loc="lower left", bbox_to_anchor=(0.0, 0.1))
    axes[0].set(ylabel="relative error")
    return save(fig, path)


# ------------------------------------------------------------------ the graph


def shown(net: UNet, size: int) -> dict[str, tuple[int, ...]]:
    """Shape of what every row of a net makes of one image: (H, W, C), or (C,)."""
    params, shapes = net.init(np.random.default_rng(0), "float32"), {}
    values: dict[str, Any] = {"x": np.zeros((1, size, size, 1), "float32"), "level": np.zeros(1, "float32")}
    for name, layer, inputs in net.rows:
        own = {key: params[f"{name}.{key}"] for key in layer.shapes}
        values[name] = layer.forward(own, *(values[i] for i in inputs))[0]
        shape = values[name].shape
        shapes[name] = (*shape[:2], shape[-1]) if len(shape) == 4 and name != "outside" else shape[1:]
    return shapes


NET = {  # across, down
    "first": (0, 0), "down0.0": (1, 0), "pool0": (1.6, 1), "down1.0": (2.6, 1), "pool1": (3.2, 2), "down2.0": (4.2, 2),
    "up2.0": (5.2, 2), "double1": (5.8, 1), "beside1": (6.8, 1), "up1.0": (7.8, 1), "double0": (8.4, 0),
    "beside0": (9.4, 0), "up0.0": (10.4, 0), "last": (11.4, 0),
}  # fmt: skip
BLOCK = {
    "pool0": (1, 0), "norm1": (1, 1), "act1": (1, 2), "conv1": (1, 3), "e": (2, 3), "norm2": (1, 4), "act2": (1, 5),
    "conv2": (1, 6), "skip": (-0.5, 3), "down1.0": (1, 7),
}  # fmt: skip


def draw(ax: Any, places: dict[str, tuple[float, float]], reads: dict[str, set[str]], shapes: dict[str, Any]) -> None:
    """Boxes with the shapes of what they give, and an arrow for every reading; what lies far off is bent and red."""
    boxes = {}
    for name, (x, y) in places.items():
        look = {"boxstyle": "round,pad=0.35", "fc": "#dbe9f4" if "." in name else "white", "ec": INK, "lw": 0.8}
        words = f"{name}\n{'·'.join(map(str, shapes[name]))}"
        boxes[name] = ax.text(x, -y, words, ha="center", va="center", fontsize=8, linespacing=1.3, bbox=look)
    for name, (x, y) in places.items():
        for source in reads[name] & set(places):
            X, Y = places[source]
            far = abs(x - X) > 3
            look = {"arrowstyle": "->", "color": LEARNED if far else INK, "lw": 1.0, "shrinkA": 1, "shrinkB": 1}
            look |= {"patchA": boxes[source].get_bbox_patch(), "patchB": boxes[name].get_bbox_patch()}
            bend = -0.22 if far else 0.25 if y - Y > 2 else 0.0
            ax.annotate("", (x, -y), (X, -Y), arrowprops=look | {"connectionstyle": f"arc3,rad={bend}"})
    ax.axis("off")


def graph(path: Path = HERE / "14-unet.svg") -> str:
    net = UNet(1)
    shapes = shown(net, 28)
    reads = {name: set(inputs[:1] if name.startswith("double") else inputs) for name, _, inputs in net.rows}
    whole = {  # a block reads what its rows read
        name: {i for row, inputs in reads.items() if row == name or row.startswith(f"{name}.") for i in inputs}
        - {name, "e"}
        for name in NET
    } | {"last": {"up0.0"}}  # by way of norm and act
    fig, (axes,) = figure(2)
    fig.set_size_inches(14, 5)
    axes[0].get_gridspec().set_width_ratios([4, 1])
    draw(axes[0], NET, whole, shapes)
    axes[0].set(xlim=(-0.5, 11.9), ylim=(-2.4, 1.4), title="UNet(1), images of 28·28 pixels, height·width·channels")
    inside = {name: f"down1.0.{name}" if f"down1.0.{name}" in reads else name for name in BLOCK}
    short = {row: name for name, row in inside.items()}
    part = {name: {short.get(i, i) for i in reads[row]} for name, row in inside.items()} | {"pool0": set()}
    draw(axes[1], BLOCK, part, {name: shapes[row] for name, row in inside.items()})
    axes[1].set(xlim=(-1.0, 2.4), ylim=(-7.4, 0.4), title="its block down1.0")
    return save(fig, path)


# ------------------------------------------------------------------ what a pixel sees


def seen(net: Net, size: int = 32, seeds: int = 8) -> Any:
    """Root mean square of the derivative of one pixel of the answer in each pixel of x, over that in itself."""
    total = np.zeros((size, size))
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        params, x = net.init(rng, "float64"), rng.standard_normal((4, size, size, 1))
        y, cache = net.forward(params, x, *([np.zeros(1)] if "level" in net.inputs else []))
        dy = np.zeros_like(y)
        dy[:, size // 2, size // 2, :] = 1
        (dx, *_), _ = net.backward(params, cache, dy)
        total += np.sum(dx**2, axis=(0, 3))
    return np.sqrt(total / total.max())


def three(norm: bool) -> Net:
    """Three convolutions, two activations between them, and a group norm before the first of these, or none."""
    rows: list[Any] = [("inside", Inside(), ("x",)), ("a", Conv(1, 16), ("inside",))]
    rows += [("norm", GroupNorm(16), ("a",))] if norm else []
    rows += [("act1", SiLU(), (rows[-1][0],)), ("b", Conv(16, 16), ("act1",)), ("act2", SiLU(), ("b",))]
    return Net([*rows, ("c", Conv(16, 1), ("act2",)), ("outside", Outside(), ("c",))])


def sees(path: Path = HERE / "14-sees.svg") -> str:
    nets = {
        "three convolutions": three(False), "with a group norm": three(True),
        "U-Net, one level, no attention": UNet(1, (32,), attention=()), "U-Net, three levels": UNet(1),
    }  # fmt: skip
    fig, (axes,) = figure(4, size=3.0)
    for ax, (title, net) in zip(axes, nets.items(), strict=True):
        s = seen(net)
        picture = ax.imshow(np.log10(np.maximum(s, 1e-4)), cmap="Blues", vmin=-4, vmax=0)
        ax.set(title=title, xticks=[0, 16, 31], yticks=[0, 16, 31])
        ax.title.set_fontsize(9)
        print(f"{title}: {np.count_nonzero(s)} pixels of {s.size}, median {np.median(s):.2g}")
    bar = fig.colorbar(picture, ax=axes, ticks=[-4, -3, -2, -1, 0], shrink=0.8)
    bar.ax.set_yticklabels(["≤ .0001", ".001", ".01", ".1", "1"])
    return save(fig, path)


if __name__ == "__main__":
    print(steps(), graph(), sees())
