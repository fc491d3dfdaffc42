"""What was measured, as text: one table for each workload and number of threads, the aims, the curves; and a figure."""

import json
import math
from collections import defaultdict
from statistics import median

import workloads as w

TITLES = {
    "W1": f"one step of denoising score matching, batch {w.BATCH}",
    "W2": f"one step of denoising score matching, U-Net, {w.UNET_BATCH} images of {w.SIDE} x {w.SIDE}",
    "W3-net": f"{w.UNIT_STEPS} of {w.STEPS} Euler-Maruyama steps, {w.SAMPLES} samples, network score",
    "W3-mixture": f"{w.UNIT_STEPS} of {w.STEPS} Euler-Maruyama steps, {w.SAMPLES} samples, exact score",
    "W4": f"one step of sliced score matching, batch {w.BATCH}",
}
BEGIN, END = "<!-- tables: written by tests/benchmarks/run.py --docs -->", "<!-- end of the tables -->"
COMPILED = "refscore-jax-compiled"
AIMS = (  # workload, threads, ours, peer, the least that peer / ours should be
    ("W1", 1, "refscore", "torch-best", 1.9),
    ("W1", 1, "refscore", "torch-avx512", 0.96),
    ("W2", 1, "refscore", "torch", 1.0),
    ("W2", 1, "refscore", "torch-best", 0.95),
    ("W2", 2, "refscore-workers", "torch", 1.0),
    ("W2", 2, "refscore-workers", "torch-best", 1.0),
    ("W3-net", 1, "refscore", "torch-best", 1.7),
    ("W3-net", 1, "refscore", "torch-avx512", 0.82),
    ("W3-net", 1, COMPILED, "torch-avx512", 0.95),
    ("W3-mixture", 1, "refscore-fast", "torch-best", 0.65),
    ("W3-mixture", 1, COMPILED, "torch-best", 1.15),
    ("W4", 1, "refscore", "torch-best", 2.0),
    ("W4", 1, "refscore", "torch-avx512", 1.2),
    ("W1", 1, COMPILED, "jax", 0.95),
    ("W3-net", 1, COMPILED, "jax", 0.95),
    ("W3-mixture", 1, COMPILED, "jax-best", 0.95),
    ("W4", 1, COMPILED, "jax", 0.95),
)
ZEN = (
    "the aim is that of a Zen 5, where MKL's kernels for AMD run at half the rate of OpenBLAS; on a Zen 4, which "
    "computes 512 bits in two halves, and on Intel, both libraries' products run at one rate, and "
)
BETWEEN = (
    "PyTorch takes one pass over an activation for a SiLU, or for its derivative, and one over the parameters for "
    "Adam, where NumPy takes five, four and ten."
)
CHUNKS = (
    "`torch-best` walks 512 samples at a time through all steps, with buffers that stay in the cache; SiLU is one pass."
)
ONE_CALL = (
    "a step is one call of a compiled program, as JAX's is, and a second one draws the batch; the host's part beside "
    "them, which takes the state apart and puts it together again, is on the same processor."
)
LOOPS = "both are one loop (`lax.scan`); "
WHY = {  # (workload, ours, peer) -> what is in the way, where a ratio is below its aim
    ("W1", "refscore", "torch-best"): ZEN + BETWEEN,
    ("W1", "refscore", "torch-avx512"): BETWEEN,
    (
        "W2",
        "refscore",
        "torch",
    ): "oneDNN's convolutions read each image once; ours form sums of its columns, multiply, and "
    "form sums again, and each is a pass through memory.",
    ("W2", "refscore", "torch-best"): "as for `torch`; channels last in memory saves oneDNN the reordering, too.",
    ("W2", "refscore-workers", "torch"): "the processes send gradients through a pipe, and Adam is the work of one.",
    (
        "W2",
        "refscore-workers",
        "torch-best",
    ): "the processes send gradients through a pipe, and Adam is the work of one.",
    ("W3-net", "refscore", "torch-best"): ZEN + CHUNKS,
    ("W3-net", "refscore", "torch-avx512"): CHUNKS,
    ("W3-net", COMPILED, "torch-avx512"): CHUNKS,
    (
        "W3-mixture",
        "refscore-fast",
        "torch-best",
    ): "a third of the time is normal numbers, which PyTorch draws in a quarter "
    "of NumPy's time (`refscore-boxmuller` takes half), and as much is Python's part of some sixty calls a step.",
    ("W3-mixture", COMPILED, "torch-best"): "JAX's normal numbers take longer than PyTorch's, and are drawn step by "
    "step; the rest is the library's lines, which were not written for one compiler.",
    ("W4", "refscore", "torch-best"): ZEN
    + "what is saved by the tangent pass beside a second backward is less than half.",
    ("W4", "refscore", "torch-avx512"): BETWEEN,
    ("W1", COMPILED, "jax"): ONE_CALL,
    ("W3-net", COMPILED, "jax"): LOOPS + "`jax` embeds the levels of all steps before it.",
    ("W3-mixture", COMPILED, "jax-best"): LOOPS + "`jax-best` draws the noise of all fifty steps at once, with samples "
    "on the last axis throughout.",
    ("W4", COMPILED, "jax"): ONE_CALL,
}


def load(path):
    """The records of a file; a later one of the same side, workload and number of threads replaces an earlier one."""
    records = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        key = next((k for k in ("machine", "took", "floor", "curve", "workload") if k in record), None)
        if key is None:
            raise ValueError(f"{path}: what kind of record is {line[:80]}?")
        named = () if key == "machine" else (record[key], record.get("threads"), record.get("variant"))
        records.pop((key, *named), None)
        records[key, *named] = record
    return list(records.values())


def text(records):
    """All tables, in Markdown."""
    parts = [heading(r) for r in records if "machine" in r]
    floors = {(r["floor"], r["threads"]): r for r in records if "floor" in r}
    groups = defaultdict(dict)
    for r in records:
        if "workload" in r:
            groups[r["threads"], r["workload"]][r["variant"]] = r
    for threads, name in sorted(groups, key=lambda key: (key[0], w.NAMES.index(key[1]))):
        parts.append(f"### {name}: {TITLES[name]}; {threads} thread{'s' * (threads > 1)}")
        parts.append(table(groups[threads, name].values(), floors.get((name, threads))))
    if met := aims(groups):
        parts += ["### Aims", met]
    if curves := [r for r in records if "curve" in r]:
        parts += ["### How refscore's times grow, one thread", growth(curves)]
    parts += [f"To measure {r['took']} took {r['seconds'] / 60:.1f} minutes." for r in records if "took" in r]
    return "\n\n".join(parts)


def heading(r):
    """The machine."""
    took = f"load {r['load']:.2f} before the start" if r["load"] is not None else "load unknown"
    settings = ", ".join(f"{name}={value or '(not set)'}" for name, value in r["settings"].items())
    return (
        f"**{r['date']}**, {r['machine']}, {r['processors']} processors, {r['system']}, {took}; NumPy {r['numpy']}, "
        f"{r['blas']} ({settings}); memory kept by malloc for: {r['memory']}."
    )


def table(sides, floor):
    """The table of one workload."""
    rows = ["| side | ms, median (min-max) | side / refscore | to the first result, s | peak MiB | units x rounds | |"]
    rows.append("|---|---|---|---|---|---|---|")
    for r in sides:
        if "trouble" in r:
            rows.append(f"| {r['variant']} | {r['trouble']} | | | | | |")
            continue
        rows.append(
            f"| {r['variant']} | {spread(r['ms'])} | {spread(r['ratios'])} | {r['first']:.1f} | {r['mib']:.0f} "
            f"| {r['units']} x {len(r['ms'])} | {r['about']} |"
        )
    if floor:
        rows.append(
            f"| *floor* | {floor['products'] + floor['bytes']:.2f} | | | | | products {floor['products']:.2f} "
            f"({floor['gflop']:.3g} GFLOP at {floor['gflops']:.0f} GFLOP/s) + bytes {floor['bytes']:.2f} "
            f"({floor['mib']:.0f} MiB at {floor['gbs']:.0f} GB/s); beside them functions, noise {floor['rest']:.2f} |"
        )
    return "\n".join(rows)


def spread(values):
    """'median (min-max)', to three or four figures."""
    if not values:
        return "-"
    digits = 1 if median(values) >= 100 else 2
    return f"{median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def ratio(group, ours, peer):
    """Median over the rounds of the peer's time over ours; None where one of them has not run."""
    mine, theirs = (group.get(name, {}).get("ratios") for name in (ours, peer))
    return median(b / a for a, b in zip(mine, theirs, strict=True)) if mine and theirs else None


def aims(groups):
    """What was aimed at, what is, and why not."""
    rows, reasons = ["| | threads | peer / ours | aim | measured |", "|---|---|---|---|---|"], []
    for name, threads, ours, peer, least in AIMS:
        found = ratio(groups.get((threads, name), {}), ours, peer)
        if found is None:
            continue
        missed = found < 0.995 * least
        rows.append(f"| {name} | {threads} | {peer} / {ours} | {least:.2f} | {found:.2f}{' (below)' * missed} |")
        if missed:
            why = WHY.get((name, ours, peer), "nobody has said why yet.")
            reasons.append(f"- {name}, {peer} / {ours}, {found:.2f} for {least:.2f}: {why}")
    return "\n".join(rows) + ("\n\n" + "\n".join(reasons) if reasons else "") if len(rows) > 2 else ""


def growth(curves):
    """Times along each curve, and the exponent of its upper half against theory's."""
    rows = ["| | | ms | exponent | theory |", "|---|---|---|---|---|"]
    for r in curves:
        half = len(r["at"]) // 2
        xs, ys = ([math.log(v) for v in r[key][half:]] for key in ("at", "ms"))
        mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
        slope = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / sum(
            (x - mean_x) ** 2 for x in xs
        )
        points = ", ".join(f"{n}: {ms:.3g}" for n, ms in zip(r["at"], r["ms"], strict=True))
        rows.append(f"| {r['curve']} | {r['variant']} | {points} | {slope:.2f} | {r['theory']} |")
    return "\n".join(rows)


def fill(page, made):
    """Put the tables between the markers of a page."""
    before, found, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, closed, after = rest.partition(END)
    if not (found and closed):
        raise ValueError(f"{page} has no place for the tables, {BEGIN} and {END}")
    page.write_text(f"{before}{BEGIN}\n\n{made}\n\n{END}{after}", encoding="utf-8")


def figure(records, path):
    """A point for each side: how many times refscore's time it takes, one panel for each number of threads."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    shown = [r for r in records if r.get("ratios")]
    counts = sorted({r["threads"] for r in shown})
    names = sorted(dict.fromkeys(r["variant"] for r in shown), key=lambda name: not name.startswith("refscore"))
    ticks = [0.1, 0.2, 0.5, 1, 2, 5, 10]
    fig, axes = plt.subplots(
        1, len(counts), figsize=(5.5 * len(counts), 5), sharey=True, squeeze=False, layout="constrained"
    )
    for ax, threads in zip(axes[0], counts, strict=True):
        for name in w.NAMES:
            own = [r for r in shown if (r["threads"], r["workload"]) == (threads, name)]
            ax.plot([median(r["ratios"]) for r in own], [names.index(r["variant"]) for r in own], "o", label=name)
        ax.axvline(1, color="grey", lw=0.8)
        ax.set(xscale="log", xlabel="time / time of refscore", title=f"{threads} thread{'s' * (threads > 1)}")
        ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        ax.minorticks_off()
        ax.set_xlim(min(0.2, *ax.get_xlim()), max(5, *ax.get_xlim()))
        ax.set_yticks(range(len(names)), names)
    axes[0][0].invert_yaxis()
    fig.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=len(w.NAMES))
    fig.savefig(path, dpi=120)
