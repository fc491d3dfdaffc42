"""Folders of runs that were damaged or rewritten: every command says so in a sentence, and none in a traceback."""

import numpy as np
import pytest

from refscore import cli
from refscore.commands import pictures, saved_run
from refscore.commands.saved_run import CHECKPOINT, METRICS, SETTINGS
from refscore.training.checkpoint import CheckpointError
from refscore_backends import get
from tests.oracles.damage import damaged, damaged_bytes, forged, mutated

KEPT = (CHECKPOINT, SETTINGS, METRICS)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run of two steps, and the bytes of its files."""
    folder = tmp_path_factory.mktemp("run")
    np.save(folder / "points.npy", np.random.default_rng(0).standard_normal((60, 2)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "POINTS", 20)
        patch.setattr(pictures, "STEPS", 2)
        flags = ["--steps", "2", "--widths", "4", "--batch", "8"]
        assert cli.main(["train", "--data", str(folder / "points.npy"), "--out", str(folder / "run"), *flags]) == 0
    return folder / "run", {name: (folder / "run" / name).read_bytes() for name in KEPT}


def change(rng):
    """Another description of the run, the model as it was."""
    return lambda tree: {**tree, "config": mutated(rng, tree["config"])}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("folders", [100, pytest.param(20_000, marks=pytest.mark.slow)])
def test_a_checkpoint_that_was_rewritten_with_its_checksum_is_a_run_or_is_refused(folders, run):
    rng, (folder, kept), refused = np.random.default_rng(1), run, 0
    for n in range(folders):
        (folder / CHECKPOINT).write_bytes(forged(kept[CHECKPOINT], change(rng)))
        try:
            saved = saved_run.read(folder, get("numpy"))
        except CheckpointError:
            refused += 1
            continue
        assert saved.scaling.undo(np.zeros((1, *saved.shape))).shape == (1, *saved.shape), n
    assert 0.2 * folders < refused < folders


@pytest.mark.parametrize("folders", [12, pytest.param(2000, marks=pytest.mark.slow)])
def test_no_command_ends_in_a_traceback(folders, run, tmp_path, capsys):
    """Samples, judgement and more training, of a folder with one damaged file."""
    rng, (folder, kept) = np.random.default_rng(2), run
    small = ["--steps", "2"]
    for n in range(folders):
        for name, content in kept.items():
            (folder / name).write_bytes(content)
        name, canary = KEPT[n % 3], tmp_path / "canary"
        content = damaged_bytes(rng, kept[name], kept[name], int(rng.integers(5)))
        if name == CHECKPOINT:
            by_hand = rng.random() < 0.8
            content = forged(kept[name], change(rng)) if by_hand else damaged(rng, kept[name], kept[name], canary)
        (folder / name).write_bytes(content)
        for args in (
            ["sample", folder, "--n", 2, "--out", tmp_path / "x.npy", *small],
            ["evaluate", folder, "--n", 4, "--points", 3, *small],
            ["train", "--out", folder, "--resume"],
        ):
            status = cli.main([str(arg) for arg in args])
            said = capsys.readouterr().err
            assert status in (0, 2), (n, args)
            assert status == 0 or said.strip().splitlines()[-1].startswith("refscore: "), (n, said)
        assert not canary.exists()
