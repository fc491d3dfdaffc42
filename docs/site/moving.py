"""Figures that move: one picture for each place of a slider, below one another in one file. GitHub shows the still one.

A moving figure stands below the still figure of the same name (06-fields, 08-paths, 13-guidance).
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from pathlib import Path

STARTS = 12  # paths


@dataclass(frozen=True)
class Moving:
    """A slider over `values` of a letter, what a frame shows at one of them, and what the reader should look at."""

    letter: str
    values: tuple[float, ...]
    draw: Callable
    told: str

    @property
    def first(self) -> int:
        """Where the slider stands when the page opens."""
        return len(self.values) // 3

    def html(self, name: str, source: str) -> str:
        """The figure; without a script its first frame stands still."""
        last, told, shown = len(self.values) - 1, escape(self.told), f"{self.values[self.first]:g}"
        values = " ".join(f"{value:g}" for value in self.values)
        return (
            f'<figure class="moving" id="moving-{name}"><div class="frames" role="img" aria-label="{told}" '
            f'style="--last: {last}; --at: {self.first}; background-image: url({source})"></div>'
            f'<label>{self.letter} = <output>{shown}</output><input type="range" min="0" max="{last}" '
            f'value="{self.first}" data-values="{values}" aria-label="{self.letter}" aria-valuetext="{shown}"></label>'
            f"<figcaption>{told}</figcaption></figure>\n"
        )


def field(axes, sigma: float) -> None:
    """The law p_σ of two modes and its score, and the same along the line through the modes."""
    import numpy as np

    from refscore.laws.examples import mixture
    from refscore.plots import EXACT, INK, LEARNED, arrows, density

    left, right = axes
    law = mixture("two-modes").diffuse(1.0, sigma)
    box = (-12.0, 12.0, -12.0, 12.0)
    density(left, law.log_prob, box)
    arrows(left, lambda x: sigma * law.score(x), box, 1.0, INK, n=17)
    left.set_title("density, and σ times the score (cut at 1)")
    u = np.linspace(-12.0, 12.0, 400)
    points = np.stack([u, u], axis=1)
    p = np.exp(law.log_prob(points))
    right.fill_between(u, p / p.max(), color=EXACT, alpha=0.35, lw=0, label="density, its highest at 1")
    slope = np.clip(sigma * law.score(points)[:, 0], -2, 2)
    right.plot(u, slope, color=LEARNED, lw=2, label="σ times the score, cut at 2")
    right.axhline(0, color=INK, lw=0.6)
    right.set(xlim=(-12, 12), ylim=(-2.1, 2.1), xlabel="$x_1 = x_2$", title="along the diagonal")
    right.legend(loc="upper right", fontsize=9)


def paths(axes, lam: float) -> None:
    """Paths of the reverse process from the same starts with the same noise, over the marginals."""
    import numpy as np

    from refscore import VP, EulerMaruyama, ExactScore, GaussianMixture, Reverse, simulate
    from refscore.noise.grids import uniform_times
    from refscore.plots import EXACT, LEARNED, SHADE
    from refscore.sampling.loop import last

    left, right = axes
    law, sde = GaussianMixture(np.array([0.3, 0.7]), np.array([[-1.5], [1.0]]), np.array([0.06, 0.06])), VP()
    x, times = np.linspace(-3.2, 3.2, 300)[:, None], uniform_times(800, 1e-3)
    columns = [np.exp(law.log_prob(x, sde.alpha(t), sde.sigma(t))) for t in np.linspace(1, 0, 200).tolist()]
    image = np.stack([c / c.max() for c in columns], axis=1)
    left.imshow(image, origin="lower", extent=(1, 0, -3.2, 3.2), cmap=SHADE, aspect="auto", vmax=1.4)
    process = EulerMaruyama(Reverse(sde, ExactScore(law, sde), lam))
    few = np.linspace(-1.9, 1.9, STARTS)[:, None]
    walk = np.stack([few, *simulate(process, few, times, np.random.default_rng(3))])[..., 0]
    left.plot(times, walk, lw=0.9, color=LEARNED)
    left.set(title=f"{STARTS} paths over the marginals", xlabel="t", ylabel="x", xlim=(1, 0), ylim=(-3.2, 3.2))
    many = np.random.default_rng(4).standard_normal((3000, 1))
    end = last(simulate(process, many, times[::4], np.random.default_rng(5)))
    right.hist(end[:, 0], bins=np.linspace(-3.2, 3.2, 65), density=True, color=LEARNED, alpha=0.6, label="3000 ends")
    right.plot(x[:, 0], np.exp(law.log_prob(x)), color=EXACT, lw=2, label="the law of the data")
    right.set(title="where they end", xlabel="x", xlim=(-3.2, 3.2), ylim=(0, 1.4))
    right.legend(loc="upper left", fontsize=9)


def guided(axes, w: float) -> None:
    """Samples guided to one class of three with weight w, beside the law p(x) p(class | x)^w."""
    import numpy as np

    from refscore import VP, ExactScore, Heun, Reverse, simulate
    from refscore.laws.examples import mixture
    from refscore.laws.posterior import component
    from refscore.noise.grids import log_snr_times
    from refscore.plots import INK, LEARNED, SHADE, grid
    from refscore.sampling.guidance import Guided
    from refscore.sampling.loop import last

    left, right = axes
    law, sde, box = mixture("tilted"), VP(), (-5.5, 2.5, -3.5, 4.5)
    score = Guided(ExactScore(law, sde), ExactScore(component(law, 0), sde), w)
    x = np.random.default_rng(0).standard_normal((1500, 2))
    flow = Heun(Reverse(sde, score, 0.0).drift)
    x = last(simulate(flow, x, log_snr_times(sde, 40), np.random.default_rng(1)))
    nodes, shape = grid(box, 160)
    log_q = law.log_prob(nodes) + w * np.log(np.maximum(law.responsibilities(nodes)[:, 0], 1e-300))
    q = np.exp(log_q - log_q.max())
    for ax in axes:
        ax.imshow(np.sqrt(q).reshape(shape).T, origin="lower", extent=box, cmap=SHADE, aspect="equal", vmax=1.6)
        ax.set(xlim=box[:2], ylim=box[2:], xlabel="$x_1$")
    left.scatter(*x.T, s=3, lw=0, color=LEARNED, alpha=0.7)
    left.set(title="samples of the guided flow", ylabel="$x_2$")
    right.set_title("p(x) p(class | x)$^w$, its mean and theirs")
    right.plot(*(q @ nodes / q.sum()), "o", ms=11, mfc="none", mew=2, color=INK)
    right.plot(*x.mean(axis=0), "x", ms=9, mew=2, color=LEARNED)


MOVING = {
    "06-fields": Moving(
        "σ",
        tuple(round(0.5 * 40 ** (k / 15), 2) for k in range(16)),
        field,
        "Move σ: at small noise the two modes do not know of each other, and between them the score changes its sign "
        "in a jump; at large noise there is one hill, and every arrow points to it.",
    ),
    "08-paths": Moving(
        "λ",
        tuple(k / 8 for k in range(17)),
        paths,
        "Move λ: the same starts, the same noise. At 0 nothing is drawn at random and paths do not cross; at 2 each "
        "forgets where it came from. The law at the end stays that of the data.",
    ),
    "13-guidance": Moving(
        "w",
        tuple(k / 2 for k in range(17)),
        guided,
        "Move w: 0 samples all three classes, 1 one of them; more than 1 pushes the samples (orange, mean as a cross) "
        "beyond the law whose score seems to be meant (blue, mean as a ring).",
    ),
}


def write_frames(moving: Moving, out: Path) -> None:
    """All frames of a moving figure as one PNG of 128 colours."""
    import numpy as np
    from PIL import Image

    from refscore.data.files import save_bytes
    from refscore.plots import figure

    frames = []
    for value in moving.values:
        fig, (axes,) = figure(2, size=4.5)
        moving.draw(axes, value)
        fig.set_dpi(88)
        fig.canvas.draw()
        frames.append(np.asarray(fig.canvas.buffer_rgba())[..., :3])
    for one, other in pairwise(frames):
        assert one.shape == other.shape
    f = io.BytesIO()
    Image.fromarray(np.concatenate(frames)).quantize(128, dither=Image.Dither.NONE).save(f, "PNG", optimize=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    save_bytes(out, f.getvalue())
