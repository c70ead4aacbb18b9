import errno

import pytest
import torch
from ranks import run_ranks
from torch import nn

from nrh_dist import config
from nrh_dist.engine import checkpoint, select, track
from nrh_dist.engine.dist import Place
from nrh_dist.engine.keeper import Keeper
from nrh_dist.engine.state import TrainState
from nrh_dist.errors import UserError


def keeper_of(folder, said=None, digest="d", place=None):
    folder.mkdir(parents=True, exist_ok=True)
    model = nn.Linear(2, 2)
    optimiser = torch.optim.Adam(model.parameters())
    one = config.load(None, ["preset=tiny", "model.name=dih_nm", "train.keep_checkpoints=3"])
    return Keeper(one, folder, place or Place(), digest, model, optimiser, (said if said is not None else []).append)


def finished(folder, losses):
    """A run whose epochs had these validation losses, ten steps each."""
    keeper, state = keeper_of(folder), TrainState()
    for loss in losses:
        state.epoch, state.step = state.epoch + 1, state.step + 10
        keeper.finish_epoch(state, {"epoch": state.epoch, "val/loss": loss})
    return state


def break_it(path):
    (path / checkpoint.WEIGHTS).write_bytes(b"")


def test_state_and_best_come_back(tmp_path):
    state = finished(tmp_path, [3.0, 1.0, 2.0])
    assert (state.best_name, state.best_value) == ("epoch-0002-step-000020", 1.0)
    assert keeper_of(tmp_path).restore() == state
    assert select.read_best(tmp_path)["value"] == 1.0


def test_a_damaged_best_makes_way_for_the_best_that_is_left(tmp_path):
    finished(tmp_path, [3.0, 1.0, 2.0])
    break_it(tmp_path / "checkpoints" / "epoch-0002-step-000020")
    said = []
    state = keeper_of(tmp_path, said).restore()
    assert (state.epoch, state.best_name, state.best_value) == (3, "epoch-0003-step-000030", 2.0)
    assert any("epoch-0002-step-000020 is lost (model.safetensors does not match" in line for line in said)
    assert select.read_best(tmp_path)["checkpoint"].name == "epoch-0003-step-000030"


def test_rows_after_the_checkpoint_are_dropped(tmp_path):
    finished(tmp_path, [3.0, 2.0, 1.0])
    break_it(tmp_path / "checkpoints" / "epoch-0003-step-000030")
    assert keeper_of(tmp_path).restore().epoch == 2
    assert [row["epoch"] for row in track.rows_up_to(tmp_path, 99)] == [1, 2]


def test_nothing_to_restore_and_other_data(tmp_path):
    assert keeper_of(tmp_path).restore() is None
    finished(tmp_path, [1.0])
    with pytest.raises(UserError, match="other data"):
        keeper_of(tmp_path, digest="e").restore()


@pytest.mark.parametrize("function", ["append_row", "write_best"])
def test_a_full_disk_beside_a_checkpoint_is_one_line(tmp_path, monkeypatch, function):
    finished(tmp_path, [1.0])

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(track if function == "append_row" else select, function, full)
    with pytest.raises(UserError, match=r"No space left.*make room.*goes on from epoch-0001-step-000010"):
        keeper_of(tmp_path).finish_epoch(TrainState(epoch=1, step=10), {"epoch": 1, "val/loss": 0.5})
    assert checkpoint.newest(tmp_path).path.name == "epoch-0001-step-000010"


def save_on_a_full_disk(place, folder, method):
    """What this rank reads where the main rank cannot write."""

    def full(*_):
        raise UserError("the disk is full")

    checkpoint.store = track.drop_rows_after = full
    keeper = keeper_of(folder, place=place)
    acts = {
        "save": lambda: keeper.save(TrainState(), {}),
        "finish_epoch": lambda: keeper.finish_epoch(TrainState(epoch=1), {"epoch": 1, "val/loss": 1.0}),
        "restore": keeper.restore,
    }
    try:
        acts[method]()
    except UserError as error:
        return str(error)


@pytest.mark.parametrize("method", ["save", "finish_epoch", "restore"])
def test_what_the_main_rank_cannot_write_ends_all_ranks(tmp_path, method):
    assert run_ranks(save_on_a_full_disk, 2, tmp_path / "ranks", tmp_path, method) == ["the disk is full"] * 2
