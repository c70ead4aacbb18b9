"""Runs whose folders have a copy in the tests' storage."""

from test_keeper import keeper_of

from nrh_dist.engine import checkpoint
from nrh_dist.engine.mirror import Mirror
from nrh_dist.engine.state import TrainState
from nrh_dist.engine.storage import open_storage


def copy_of(s3, name="run"):
    return open_storage(s3.address).child(name)


def kept(copy):
    """The checkpoints of a copy, with a manifest."""
    return sorted(name.split("/")[1] for name in copy.sizes() if name.endswith(checkpoint.MANIFEST))


def names(folder):
    return [path.name for path in checkpoint.checkpoints(folder)]


def as_it_was(copy, folder):
    """Whether the copy holds the run's files, byte for byte."""
    there = {name: copy.read(name) for name in copy.sizes() if name.split("/")[-1] not in ("said.txt", "train.log")}
    here = [*(folder / "checkpoints").rglob("*.*"), *(folder / name for name in ("metrics.jsonl", "best.json"))]
    files = {str(path.relative_to(folder)): path.read_bytes() for path in here if path.is_file()}
    return files == {name: there.get(name) for name in files} and kept(copy) == names(folder)


def mirrored(s3, folder, losses, lines=None):
    """A run of these validation losses, each epoch in the storage."""
    copy = Mirror(copy_of(s3), folder, (lines if lines is not None else []).append)
    keeper, state = keeper_of(folder), TrainState()
    keeper.copy = copy
    for loss in losses:
        state.epoch, state.step = state.epoch + 1, state.step + 10
        keeper.finish_epoch(state, {"epoch": state.epoch, "val/loss": loss})
        copy.settle()
    return copy
