import numpy as np
import pytest
import torch

from nrh_dist.engine import checkpoint, track
from nrh_dist.engine.files import write_lines
from nrh_dist.errors import UserError
from nrh_dist.launch.population import FACTORS, take_over, varied
from nrh_dist.launch.space import Dimension

LR = Dimension("optim.lr", "loguniform", (1e-4, 1e-2))
LOSS = Dimension("loss.name", "choice", ("mse", "object_mse", "other"))


def test_values_stay_in_their_range_and_move_by_a_factor_or_anew():
    random = np.random.default_rng(0)
    moved = [varied([LR, LOSS], {"optim.lr": 1e-3, "loss.name": "other"}, random) for _ in range(400)]
    rates = np.array([one["optim.lr"] for one in moved])
    assert rates.min() >= 1e-4 and rates.max() <= 1e-2
    stepped = np.isclose(rates[:, None], 1e-3 * np.array(FACTORS)).any(axis=1)
    assert 0.65 < stepped.mean() < 0.85, "a quarter is drawn anew"
    names = [one["loss.name"] for one in moved]
    assert set(names) == {"mse", "object_mse", "other"} and names.count("mse") < names.count("object_mse")


def test_a_factor_does_not_leave_the_range():
    random = np.random.default_rng(0)
    assert max(varied([LR], {"optim.lr": 1e-2}, random)["optim.lr"] for _ in range(100)) == 1e-2


@pytest.fixture
def donor(tmp_path):
    folder = tmp_path / "t0001"
    for epoch, step, metrics in ((1, 10, {"val/mse": 3.0}), (2, 20, {"val/mse": 2.0}), (2, 25, {})):
        meta = {"epoch": epoch, "step": step, "metrics": metrics}
        checkpoint.save(folder / checkpoint.FOLDER, {"w": torch.full((2,), float(step))}, {"step": step}, meta)
    write_lines(folder / track.METRICS, [{"epoch": epoch, "val/mse": 4.0 - epoch} for epoch in (1, 2)])
    return folder


def test_rows_and_checkpoints_of_the_epoch_are_taken_over(tmp_path, donor):
    """The donor may be within its next epoch: that is its own."""
    other = tmp_path / "t0000-2"
    other.mkdir()
    (other / "left").touch()
    take_over(donor, 2, other)
    assert checkpoint.newest(other).path.name == "epoch-0002-step-000020"
    assert [path.name for path in checkpoint.checkpoints(other)] == ["epoch-0001-step-000010", "epoch-0002-step-000020"]
    assert checkpoint.read_weights(checkpoint.newest(other).path)["w"].tolist() == [20.0, 20.0]
    assert [row["epoch"] for row in track.rows_up_to(other, 9)] == [1, 2]
    assert not (other / "left").exists()
    checkpoint.prune(other, 1, None)
    assert len(checkpoint.checkpoints(donor)) == 3, "links: what one deletes the other keeps"


def test_no_checkpoint_of_that_epoch(tmp_path, donor):
    damaged = donor / checkpoint.FOLDER / "epoch-0002-step-000020" / checkpoint.WEIGHTS
    damaged.write_bytes(b"")
    with pytest.raises(UserError, match="no sound checkpoint of epoch 2"):
        take_over(donor, 2, tmp_path / "t0000-2")
