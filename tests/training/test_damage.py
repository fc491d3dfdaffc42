"""Damaged checkpoints: the same contents, or one named error; nothing executed; no file half written."""

import errno
import io
import os
import pickle
import re
import resource
import signal
import threading
import tracemalloc
import zipfile
from contextlib import suppress

import numpy as np
import pytest

from refscore import MLP, VP, ScoreModel, load, save
from refscore.training import checkpoint
from refscore.training.checkpoint import Checkpoint, CheckpointError
from tests.oracles.checkpoints import child, everything, trained
from tests.oracles.damage import damaged, forged, header, members, mutated, npy, zipped
from tests.oracles.models import MODEL
from tests.oracles.pickles import Bomb

STATE, PARTS = trained()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The bytes of a sound file, what is in it, and a place for damaged ones."""
    path = tmp_path_factory.mktemp("damaged") / "a.npz"
    save(path, MODEL, STATE, **PARTS, config={"batch": 8})
    return path.read_bytes(), everything(load(path)), path


def outcome(whole, content):
    """What a file of these bytes gives: nothing but the same, or the one error."""
    _, wanted, path = whole
    path.write_bytes(content)
    try:
        return everything(load(path)) == wanted
    except CheckpointError:
        return None


def refused(whole, content, words):
    whole[2].write_bytes(content)
    with pytest.raises(CheckpointError, match=words) as caught:
        load(whole[2])
    assert str(whole[2]) in str(caught.value)


# ------------------------------------------------------------------ damage by chance


@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_a_file_cut_off_anywhere_is_refused(every, whole):
    content = whole[0]
    for end in range(0, len(content), every):
        assert outcome(whole, content[:end]) is None, end
    assert outcome(whole, content)


@pytest.mark.parametrize("every", [73, pytest.param(1, marks=pytest.mark.slow)])
def test_a_bit_that_flips_is_seen_or_means_nothing(every, whole):
    content, harmless = whole[0], 0
    for bit in range(0, 8 * len(content), every):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        found = outcome(whole, flipped)
        assert found is not False, bit
        harmless += found is True
    assert harmless < 0.15 * 8 * len(content) / every  # dates, attributes and versions of a .zip


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("files", [350, pytest.param(100_000, marks=pytest.mark.slow)])
def test_no_damage_executes_anything_or_goes_unseen(files, whole, tmp_path):
    """Flips, cuts, splices, planted headers, pickles, bombs and names: the one error, or the same content."""
    rng, canary, content = np.random.default_rng(11), tmp_path / "canary", whole[0]
    state, parts = trained(seed=4)
    save(tmp_path / "other.npz", MODEL, state, **parts)
    other = (tmp_path / "other.npz").read_bytes()
    other_is = everything(load(tmp_path / "other.npz"))
    seen = {True: 0, None: 0}
    for n in range(files):
        broken = damaged(rng, content, other, canary)
        found = outcome(whole, broken)
        if found is False:  # a splice may have been all of the other file
            assert everything(load(whole[2])) == other_is, n
            continue
        seen[found] += 1
    assert seen[None] > 0.8 * files  # the others: slack of a .zip, cuts of nothing
    assert not canary.exists()


@pytest.mark.parametrize("files", [150, pytest.param(10_000, marks=pytest.mark.slow)])
def test_a_description_that_was_rewritten_is_refused_or_builds_what_it_says(files, whole):
    """With the right SHA-256: it may say other things, but builds only what is stored, or raises the one error."""
    rng, built = np.random.default_rng(12), 0
    for _ in range(files):
        whole[2].write_bytes(forged(whole[0], lambda tree: mutated(rng, tree)))
        with suppress(CheckpointError):
            built += isinstance(load(whole[2]), Checkpoint)
    assert 0 < built < 0.6 * files


# ------------------------------------------------------------------ damage on purpose


def change(**parts):
    def by(tree):
        for where, value in parts.items():
            *path, last = where.split("__")
            node = tree
            for key in path:
                node = node[key]
            node[last] = value

    return by


FORGED = {
    "a class of the system": (change(model={"class": "os.system", "x": 1}), "the class 'os.system', which is not"),
    "a class of the module": (change(model={"class": "Path", "x": 1}), "names the class 'Path'"),
    "a function for a class": (change(objective={"class": "sigma_squared"}), "names the class 'sigma_squared'"),
    "a class for a function": (change(objective__weight={"function": "VP"}), "names the function 'VP'"),
    "a field too many": (change(model__sde__x=1), "unexpected keyword argument 'x'"),
    "a number out of range": (change(model__sde__beta_min=-1.0), "beta_min must be positive"),
    "an array in the model": (change(model__data_std={"array": "theta"}), "KeyError: 'theta'"),
    "another width": (change(model__body__widths=[2, 7, 2]), "parameters of its model are not those.*dense1.W"),
    "other names": (change(shapes=[["w", [2, 6]]]), "parameters of its model are not those"),
    "a negative step": (change(state__step=-1), "step must be an integer"),
    "a step that is a word": (change(state__optimizer_state__step="7"), "step must be an integer"),
    "a state that is a model": (change(state={"class": "VP"}), "members .* are not those"),
    "no state": (lambda tree: tree.pop("state") and None, "KeyError: 'state'"),
    "a newer format": (change(format=2), "format 2, this version reads 1; it is of a newer version of refscore"),
    "an older format": (change(format=0), "format 0, this version reads 1$"),
    "no object": (lambda tree: [tree], "cannot be read"),
    "an unknown generator": (change(rng__state__bit_generator="RandomState"), "KeyError: 'RandomState'"),
    "a generator's state of another": (change(rng__state__state={"key": [], "pos": 0}), "not that of its kind"),
    "a word for a number": (change(rng__state__has_uint32="1"), "not that of its kind"),
    "a large seed": (change(rng__seed__pool_size=10**9), "a seed of 1000000000 words"),
}  # fmt: skip


@pytest.mark.parametrize("what", FORGED)
def test_a_forged_description_is_refused_by_name(what, whole):
    by, words = FORGED[what]
    refused(whole, forged(whole[0], by), words)


@pytest.mark.parametrize(("bits", "field"), [("MT19937", "pos"), ("Philox", "buffer_pos")])
def test_a_generator_never_reads_outside_its_state(bits, field, whole):
    """NumPy takes any position, and reads there."""
    save(whole[2], MODEL, STATE, rng=np.random.Generator(getattr(np.random, bits)(0)))
    content = whole[2].read_bytes()

    def at(position):
        def by(tree):
            state = tree["rng"]["state"]
            (state["state"] if field == "pos" else state)[field] = position

        return by

    for position in (-1, 10**6):
        refused(whole, forged(content, at(position)), "position is outside its state")
    whole[2].write_bytes(forged(content, at(0)))
    load(whole[2]).rng.standard_normal(9)


def test_arrays_that_are_not_the_models_are_refused(whole):
    def put(name, array):
        return forged(whole[0], lambda tree: None, lambda arrays: arrays.update({name: array}))

    theta = STATE.theta
    refused(whole, put("theta", theta[1:]), r"theta has shape \(55,\), for this model it must be \(56,\)")
    refused(whole, put("theta", theta.reshape(8, 7)), r"theta has shape \(8, 7\)")
    refused(whole, put("average.low", theta.astype("float64")), "average.low is float64, the rest is float32")
    refused(whole, put("loss", theta), r"loss has shape \(56,\), for this model it must be \(\)")
    refused(
        whole, put("optimizer_state.v", np.full_like(theta, np.nan)), "optimizer_state.v holds 56 values that are not"
    )
    refused(whole, put("theta", theta.astype("int32")), "theta.npy holds <i4")
    refused(whole, put("more", theta), r"members \['more.npy'\] are not those of a checkpoint")
    assert outcome(whole, put("theta", theta))


def test_a_file_whose_checksums_are_right_is_still_hashed(whole):
    named = members(whole[0])
    other = np.load(io.BytesIO(named["theta.npy"])) + np.float32(1e-6)
    refused(whole, zipped({**named, "theta.npy": npy(other)}.items()), "SHA-256")
    words = named["description.npy"].replace(b'"decay": 0.9', b'"decay": 0.8')
    assert words != named["description.npy"]
    refused(whole, zipped({**named, "description.npy": words}.items()), "SHA-256")


def test_big_endian_and_fortran_arrays_are_the_same_numbers(whole):
    """NumPy writes them on other machines; the hash is of the numbers, little-endian."""
    named = members(whole[0])
    theta = np.load(io.BytesIO(named["theta.npy"]))
    content = zipped({**named, "theta.npy": npy(theta.astype(">f4"))}.items())
    assert b"'>f4'" in content
    assert outcome(whole, content)
    fortran = named["theta.npy"].replace(b"'fortran_order': False", b"'fortran_order': True ")
    assert outcome(whole, zipped({**named, "theta.npy": fortran}.items()))


def test_archives_that_are_traps_are_refused(whole, tmp_path):
    named, canary = members(whole[0]), tmp_path / "canary"
    bomb = npy(np.array([Bomb(canary)], dtype=object), allow_pickle=True)
    refused(whole, zipped({**named, "theta.npy": bomb}.items()), r"theta.npy holds \|O")
    refused(whole, zipped({**named, "theta.npy": pickle.dumps(Bomb(canary))}.items()), "cannot be read")
    refused(whole, zipped({**named, "description.npy": bomb}.items()), r"description.npy holds \|O")
    refused(whole, pickle.dumps(Bomb(canary)), "not a zip")
    assert not canary.exists()
    huge = header((10**12,))
    refused(whole, zipped({**named, "theta.npy": huge}.items()), r"declares \(1000000000000,\) numbers in 128 bytes")
    refused(whole, zipped({**named, "theta.npy": header((10**6, -1, -1))}.items()), "numbers in 128 bytes")
    refused(whole, zipped({**named, "theta.npy": named["theta.npy"] + b"more"}.items()), "declares")
    refused(whole, zipped({**named, "theta.npy": b"\x93NUMPY\x03\x00" + huge[8:]}.items()), r"of format \(3, 0\)")
    refused(whole, zipped(named.items(), zipfile.ZIP_DEFLATED), "members are compressed")
    twice = zipped([*named.items(), ("theta.npy", named["theta.npy"])])
    refused(whole, twice, "two of its members have one name")
    for name in ("../../theta.npy", "/etc/passwd", "theta.npy/", "theta"):
        refused(whole, zipped([*named.items(), (name, named["theta.npy"])]), "not those of a checkpoint")
    for name in named:
        refused(whole, zipped((k, v) for k, v in named.items() if k != name), "missing|has no description")
    refused(whole, zipped([]), "has no description; its members are $")
    deep = np.frombuffer(b"[" * 100_000, "uint8")
    refused(whole, zipped({**named, "description.npy": npy(deep)}.items()), "RecursionError")


def test_one_member_read_twice_is_not_two(whole):
    """Two names for the same bytes: an archive that declares more than it holds."""
    content = zipped((f"{n}.npy", bytes(300)) for n in range(9))
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        start, places = archive.start_dir, [info.header_offset for info in archive.infolist()]
    directory = bytearray(content[start:])
    for at, place in zip([m.start() for m in re.finditer(b"PK\x01\x02", directory)], places, strict=True):
        assert int.from_bytes(directory[at + 42 : at + 46], "little") == place
        directory[at + 42 : at + 46] = bytes(4)
    end = directory.index(b"PK\x05\x06")
    first = content[: places[1]]
    directory[end + 16 : end + 20] = len(first).to_bytes(4, "little")
    refused(whole, first + bytes(directory), "declares more than it holds")


def test_what_is_no_file_of_ours_is_refused(whole, tmp_path, monkeypatch):
    for content in (b"", b"PK", b"no zip at all", npy(np.ones(3)), zipped([("a.txt", b"words")])):
        refused(whole, content, "cannot be read as a checkpoint")
    with pytest.raises(CheckpointError, match="it is not a file"):
        load(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CheckpointError, match="it is not a file"):
        load(tmp_path / "pipe")
    monkeypatch.setattr(checkpoint, "LARGEST", 1000)
    refused(whole, whole[0], "bytes long; at most 1000 are read")
    with pytest.raises(ValueError, match=r"a checkpoint of .* bytes; at most 1000 are read"):
        save(whole[2], MODEL, STATE)


def test_memory_is_bounded_by_what_the_file_holds(tmp_path):
    model = ScoreModel(MLP((2, 900, 900, 2)), VP())
    save(tmp_path / "a.npz", model, np.ones(sum(np.prod(s) for s in model.shapes.values()), "float32"))
    content = (tmp_path / "a.npz").read_bytes()
    few = zipped({**members(content), "theta.npy": header((10**9,))}.items())
    for held, allowed in (
        (content, 2 * len(content)),
        (few, 0),
        (content[:-30], len(content)),
    ):
        (tmp_path / "a.npz").write_bytes(held)
        tracemalloc.start()
        try:
            load(tmp_path / "a.npz")
        except CheckpointError:
            assert held is not content
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < allowed + 2**20  # buffers


# ------------------------------------------------------------------ while it is written


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("call", ["fsync", "replace", "chmod", "fdopen"])
def test_what_happens_while_saving_leaves_the_old_file(call, error, whole, monkeypatch, tmp_path):
    path = tmp_path / "a.npz"
    path.write_bytes(whole[0])

    def fails(*args, **options):
        raise error

    monkeypatch.setattr(os, call, fails)
    with pytest.raises((OSError, KeyboardInterrupt)) as caught:
        save(path, MODEL, STATE)
    monkeypatch.undo()
    assert isinstance(error, KeyboardInterrupt) or f"cannot write {path}: No space left" in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]
    assert outcome((*whole[:2], path), path.read_bytes())


def test_a_full_disk_is_an_error_of_the_system(whole, tmp_path):
    """Half of the file is written, then no more."""
    path = tmp_path / "a.npz"
    path.write_bytes(whole[0])
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole[0]) // 2, before[1]))
    try:
        with pytest.raises(OSError, match=r"cannot write .*a\.npz"):
            save(path, MODEL, STATE, **PARTS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == whole[0]
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_that_is_missing_or_locked_is_named(tmp_path):
    with pytest.raises(OSError, match=r"cannot write .*nowhere/a\.npz: No such file"):
        save(tmp_path / "nowhere" / "a.npz", MODEL, STATE)
    (tmp_path / "a.npz").mkdir()
    with pytest.raises(OSError, match=r"cannot write .*a\.npz: Is a directory"):
        save(tmp_path / "a.npz", MODEL, STATE)
    assert len(list(tmp_path.iterdir())) == 1
    tmp_path.chmod(0o500)
    try:
        if not os.access(tmp_path, os.W_OK):  # root may write anywhere
            with pytest.raises(OSError, match=r"cannot write .*b\.npz: Permission denied"):
                save(tmp_path / "b.npz", MODEL, STATE)
    finally:
        tmp_path.chmod(0o700)


def test_of_two_writers_the_last_wins_and_nothing_is_mixed(tmp_path):
    path, states = tmp_path / "a.npz", [trained(seed=seed)[0] for seed in (1, 2)]
    save(path, MODEL, states[0])
    stop = threading.Event()

    def write(state):
        while not stop.is_set():
            save(path, MODEL, state)

    writers = [threading.Thread(target=write, args=(state,)) for state in states]
    for writer in writers:
        writer.start()
    seen = [load(path).theta for _ in range(60)]
    stop.set()
    for writer in writers:
        writer.join()
    one, other = ([np.array_equal(theta, state.theta) for theta in seen] for state in states)
    assert all(a != b for a, b in zip(one, other, strict=True))
    assert 0 < sum(one) < len(seen)
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]


KILLED = """
import os, random, signal, sys, time
import numpy as np
from refscore import load, save
from tests.oracles.checkpoints import trained
from tests.oracles.models import MODEL

path, kills = sys.argv[1], int(sys.argv[2])
states = [trained(seed=seed)[0] for seed in (1, 2)]
contents = []
for state in states:
    save(path, MODEL, state)
    contents.append(open(path, "rb").read())
random.seed(7)
for _ in range(kills):
    pid = os.fork()
    if pid == 0:
        while True:
            for state in states:
                save(path, MODEL, state)
    time.sleep(random.uniform(0.001, 0.02))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert any(np.array_equal(load(path).theta, state.theta) for state in states)
    assert open(path, "rb").read() in contents
print(kills, "kills,", len(os.listdir(os.path.dirname(path))) - 1, "while writing")
"""


@pytest.mark.parametrize("kills", [20, *(pytest.param(n, marks=pytest.mark.slow) for n in (200, 2000))])
def test_a_process_that_is_killed_while_saving_leaves_a_file_that_is_whole(kills, tmp_path):
    said = re.fullmatch(r"(\d+) kills, (\d+) while writing\n", child(KILLED, tmp_path / "a.npz", kills))
    assert int(said[1]) == kills
    assert int(said[2]) > 0  # some left an unfinished file beside it
