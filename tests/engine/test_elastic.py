"""A run that goes on with another number of workers shows each remaining sample of the epoch exactly once."""

import json

import numpy as np
import pytest
import torch
from packs import write_small_pack
from recorded import STEPS, KillAtStep, configured, record, steps, train

from nrh_dist.data.order import epoch_order, step_rows, steps_per_epoch
from nrh_dist.data.pack import open_pack
from nrh_dist.engine import checkpoint
from nrh_dist.engine.run import split_rows

CHANGES = [(before, after) for before in (1, 2, 3, 4) for after in (1, 2, 3, 4) if before != after]
REAL = [(1, 2), (3, 2)]
WORDS = ("model.name=dih_nm", "train.checkpoint_steps=2", "train.keep_checkpoints=50")
KILLED, SAVED = 7, 6  # the step of the second epoch at which it dies, and that of the newest checkpoint


@pytest.mark.parametrize(("before", "after"), CHANGES)
@pytest.mark.parametrize("rows", [14, 101])
@pytest.mark.parametrize("batch", [4, 32])
def test_the_order_divides_at_every_step(before, after, rows, batch):
    """Wherever the change is made, both parts together are the epoch, each row once, in the order of one worker."""
    order = epoch_order(np.arange(rows) * 2, seed=3, epoch=1)
    total = steps_per_epoch(rows, batch)
    for change in range(total + 1):
        seen = []
        for step in range(total):
            world = before if step < change else after
            seen += [row for rank in range(world) for row in step_rows(order, step, batch, rank, world)]
        assert seen == order.tolist()


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return write_small_pack(tmp_path_factory.mktemp("elastic")).root


@pytest.fixture(scope="module")
def whole(tmp_path_factory, pack):
    """An uninterrupted run of one worker."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert train(folder, pack, WORDS) == [0]
    return folder


def check(folder, pack, whole, before, after):
    assert -9 in train(folder, pack, WORDS, before, KillAtStep(KILLED, rank=before - 1))
    kept = {step: rows for step, rows in rows_by_step(folder, range(before)).items() if step <= SAVED}
    assert train(folder, pack, WORDS, after) == [0] * after
    again = rows_by_step(folder, range(after), SAVED)
    expected = {line["step"]: line for line in steps(whole)}
    assert sorted(kept | again) == sorted(expected) and not kept.keys() & again.keys()
    for step, rows in (kept | again).items():
        assert rows == expected[step]["rows"], "in the order of the ranks: the batch of one worker"
    train_rows = split_rows(open_pack(pack), configured(folder, *WORDS))[0]
    for epoch in range(3):
        seen = [row for step in range(1, STEPS + 1) for row in (kept | again)[epoch * STEPS + step]]
        assert sorted(seen) == sorted(train_rows.tolist())
    assert_close(folder, whole)


def rows_by_step(folder, ranks, after=0):
    """The rows of all ``ranks`` together, of the last start of each, for the steps after ``after``."""
    found = {}
    for rank in ranks:
        lines = record(folder, rank)
        last = max(number for number, line in enumerate(lines) if "start" in line)
        for line in lines[last:]:
            if line.get("step", 0) > after:
                found.setdefault(line["step"], []).extend(line["rows"])
    return found


def assert_close(folder, whole):
    """To rounding, which Adam amplifies: the mean loss of each epoch, and the weights."""
    rows = [[json.loads(line) for line in (path / "metrics.jsonl").open()] for path in (folder, whole)]
    for one, other in zip(*rows, strict=True):
        for key in ("train/loss", "val/loss", "val/mse"):
            assert one[key] == pytest.approx(other[key], rel=2e-3), key
    weights = [checkpoint.read_weights(checkpoint.newest(path).path) for path in (folder, whole)]
    assert torch.cat([(weights[0][key] - weights[1][key]).float().abs().flatten() for key in weights[0]]).mean() < 1e-3


@pytest.mark.parametrize(("before", "after"), REAL)
def test_another_number_of_workers_goes_on(tmp_path, pack, whole, before, after):
    check(tmp_path / "run", pack, whole, before, after)


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), CHANGES)
def test_every_change_of_the_number_of_workers(tmp_path, pack, whole, before, after):
    check(tmp_path / "run", pack, whole, before, after)
