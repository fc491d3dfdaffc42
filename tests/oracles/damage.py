"""Files damaged by chance and on purpose: by a disk, and by a hand that keeps the checksums right."""

import hashlib
import io
import json
import pickle
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from tests.oracles.pickles import Bomb

Rng = np.random.Generator
BEYOND = ("../../theta.npy", "/etc/passwd", "theta.npy/", "theta", "..", "C:\\theta.npy", "more.npy", "\u202eypn.a")


def members(content: bytes) -> dict[str, bytes]:
    """The arrays of a file, each as the bytes of a .npy."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(named: Iterable[tuple[str, bytes]], compression: int | None = None) -> bytes:
    """A .zip of (name, bytes), each with the right checksum; a name may come twice."""
    f = io.BytesIO()
    with zipfile.ZipFile(f, "w") as archive:
        for name, content in named:
            archive.NameToInfo.pop(name, None)  # or zipfile warns of a second one
            archive.writestr(zipfile.ZipInfo(name), content, compression)
    return f.getvalue()


def npy(array: Any, **options: Any) -> bytes:
    """An array as the bytes of a .npy."""
    f = io.BytesIO()
    np.save(f, array, **options)
    return f.getvalue()


def header(shape: tuple[int, ...], descr: str = "<f4") -> bytes:
    """The header of a .npy, which may declare what is not there."""
    f = io.BytesIO()
    np.lib.format.write_array_header_1_0(f, {"descr": descr, "fortran_order": False, "shape": shape})
    return f.getvalue()


def forged(content: bytes, change: Callable[[Any], Any], arrays: Callable[[Any], Any] = lambda a: None) -> bytes:
    """The same file with another description and other arrays, and the SHA-256 that goes with them."""
    found = {name.removesuffix(".npy"): np.load(io.BytesIO(array)) for name, array in members(content).items()}
    del found["sha256"]
    tree = json.loads(found["description"].tobytes())
    tree = change(tree) or tree
    found["description"] = np.frombuffer(json.dumps(tree).encode(), "uint8")
    arrays(found)
    digest = hashlib.sha256()
    for name in sorted(found):
        digest.update(f"{name} {found[name].dtype.str} {found[name].shape}\n".encode() + found[name].tobytes())
    found["sha256"] = np.frombuffer(digest.digest(), "uint8")
    return zipped((f"{name}.npy", npy(array)) for name, array in found.items())


def mutated(rng: Rng, node: Any) -> Any:
    """A description with one place changed: a word, a number, a list or an object for another."""
    odd: list[Any] = [
        None, True, -1, 0, 2**70, 1e300, "VP", "os.system", [], [[]], {}, {"class": "MLP"}, {"array": "theta"},
        {"function": "sigma_squared"}, {"class": "EMAState"}, {"class": [1]}, "1", 3.5, "__class__",
    ]  # fmt: skip
    if isinstance(node, (dict, list)) and node and rng.random() < 0.8:
        key = rng.choice(sorted(node)) if isinstance(node, dict) else int(rng.integers(len(node)))
        if rng.random() < 0.1:
            return {k: v for k, v in node.items() if k != key} if isinstance(node, dict) else node[:key]
        if isinstance(node, list):
            return [*node[:key], mutated(rng, node[key]), *node[key + 1 :]]
        return {**node, str(key): mutated(rng, node[key])}
    return odd[rng.integers(len(odd))]


def damaged_bytes(rng: Rng, content: bytes, other: bytes, kind: int) -> bytes:
    """Bits that flip, a part cut out, a part of another file put in, or odd bytes put between."""
    i, j = sorted(int(k) for k in rng.integers(0, len(content) + 1, 2))
    if kind == 0:
        flipped = bytearray(content)
        for bit in rng.integers(0, 8 * len(content), rng.integers(1, 9)):
            flipped[bit // 8] ^= 1 << int(bit) % 8
        return bytes(flipped)
    if kind == 1:
        return content[:i] + content[j:]
    if kind == 2:
        return content[:i] + other[i:j] + content[j:]
    if kind == 3:
        return content[:i] + rng.bytes(int(rng.integers(1, 64))) + content[i:]
    return content[:i]


def damaged(rng: Rng, content: bytes, other: bytes, canary: Path) -> bytes:
    """A checkpoint damaged in one of many ways; where it is unpickled, the canary is written."""
    kind = int(rng.integers(9))
    if kind < 5:
        return damaged_bytes(rng, content, other, kind)
    named = members(content)
    name = str(rng.choice(sorted(named)))
    if kind < 7:  # inside a member, and the .zip made anew around it
        return zipped({**named, name: damaged_bytes(rng, named[name], members(other)[name], kind - 5 + 2)}.items())
    bomb = npy(np.array([Bomb(canary)], dtype=object), allow_pickle=True)
    zeros = npy(np.zeros(10**6, "float32"))
    shapes = ((10**12,), (2**63,), (10**6, -1, -1), (0, 10**12), (), (2, 28), (57,))
    planted = [
        lambda: zipped({**named, name: header(shapes[rng.integers(len(shapes))]) + named[name][128:]}.items()),
        lambda: zipped({**named, name: header((56,), str(rng.choice(["|O", "<i4", "<c8", "|V4", "<M8[s]"])))}.items()),
        lambda: zipped({**named, name: bomb}.items()),
        lambda: zipped({**named, name: pickle.dumps(Bomb(canary))}.items()),
        lambda: pickle.dumps(Bomb(canary)) + content,
        lambda: zipped([*named.items(), (name, bomb)]),
        lambda: zipped([*named.items(), (str(rng.choice(BEYOND)), bomb)]),
        lambda: zipped({**named, name: zeros}.items(), zipfile.ZIP_DEFLATED),
        lambda: zipped({**named, name: npy(np.full(99, 91, "uint8"))}.items()),
        lambda: zipped((k, v) for k, v in named.items() if k != name),
    ]
    return planted[rng.integers(len(planted))]()
