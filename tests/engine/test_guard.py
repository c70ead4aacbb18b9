"""Steps that are not finite on one rank: left out on all, rolled back, and at last reported with steps and samples."""

import json
from dataclasses import dataclass

import pytest
import torch
from packs import write_small_pack
from recorded import MISTAKE, STEPS, Spoil, configured, digest_of, ends, record, starts, steps, train

from nrh_dist.data.feed import Feed
from nrh_dist.data.order import epoch_order, step_rows
from nrh_dist.data.pack import open_pack
from nrh_dist.engine import checkpoint, speed
from nrh_dist.engine.assemble import new_model
from nrh_dist.engine.dist import Place
from nrh_dist.engine.fit import BAD_STEPS, Fit, seed_step
from nrh_dist.engine.guard import Decision, decide
from nrh_dist.engine.run import split_rows
from nrh_dist.engine.state import TrainState
from nrh_dist.engine.tasks import task_of
from nrh_dist.schema import Train

SAVING = ("train.checkpoint_steps=2", "train.keep_checkpoints=50")
WORDS = ("model.name=dih_nm", *SAVING)
WITH_DROPOUT = ("model.name=ptc", "stage=thresholds", "model.dropout=true", *SAVING)
BAD = 6  # a step in the middle of the second epoch; the checkpoint before is that of step 4


@pytest.mark.parametrize(
    ("is_finite", "in_a_row", "rollbacks", "expected"),
    [
        (True, 0, 0, Decision.TAKE),
        (True, 2, 2, Decision.TAKE),
        (False, 0, 0, Decision.SKIP),
        (False, 1, 0, Decision.SKIP),
        (False, 2, 0, Decision.ROLL_BACK),
        (False, 2, 1, Decision.ROLL_BACK),
        (False, 2, 2, Decision.STOP),
        (False, 0, 2, Decision.SKIP),
    ],
)
def test_the_policy(is_finite, in_a_row, rollbacks, expected):
    state = TrainState(bad_in_a_row=in_a_row, rollbacks=rollbacks)
    assert decide(is_finite, state, Train(bad_steps=3, rollbacks=2)) is expected


def test_the_policy_without_patience():
    assert decide(False, TrainState(), Train(bad_steps=1, rollbacks=0)) is Decision.STOP


@dataclass(frozen=True)
class ByHand:
    """In place of the loop: the plainest one, which never begins step ``left_out``."""

    left_out: int

    def __call__(self, place):
        def run(fit, feed):
            train = fit.config.train
            for epoch in range(train.epochs):
                fit.learner.train()
                order = epoch_order(fit.train_rows, fit.config.seed, epoch)
                for number in range(STEPS):
                    step = epoch * STEPS + number
                    if step + 1 == self.left_out:
                        continue
                    rows = step_rows(order, number, train.batch_size, place.rank, place.world)
                    whole = step_rows(order, number, train.batch_size, 0, 1)
                    seed_step(fit.config.seed, step, place.rank)
                    losses = fit.task.losses(fit.learner, feed.gather(rows), epoch)
                    fit.optimiser.zero_grad(set_to_none=True)
                    (losses.sum() * (place.world / len(whole))).backward()
                    fit.optimiser.step()

        Fit.run = run


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return write_small_pack(tmp_path_factory.mktemp("guard")).root


@pytest.mark.parametrize(
    ("words", "world", "rank", "gradient"),
    [(WORDS, 2, 1, False), (WORDS, 2, 0, True), (WITH_DROPOUT, 1, 0, False)],
    ids=["NaN", "infinite gradient", "alone, with dropout"],
)
def test_a_bad_step_on_one_rank_is_left_out_on_all(tmp_path, pack, words, world, rank, gradient):
    """Weights and BatchNorm's statistics are those of a loop that never began this step; the training ends."""
    assert train(tmp_path / "spoilt", pack, words, world, Spoil((BAD,), rank, gradient)) == [0] * world
    assert train(tmp_path / "by-hand", pack, words, world, ByHand(left_out=BAD)) == [0] * world
    spoilt = ends(tmp_path / "spoilt", world)
    assert all(one == spoilt[0] and "weights" in one for one in spoilt)
    assert spoilt == ends(tmp_path / "by-hand", world)
    for each in range(world):
        assert starts(tmp_path / "spoilt", each) == [list(range(1, 3 * STEPS + 1))]
    assert rows_of(tmp_path / "spoilt")[-1]["skipped_steps"] == 1
    said = (tmp_path / "spoilt" / "said.txt").read_text()
    assert said.count("was not finite") == 1 and f"step {BAD} was not finite and is skipped on all ranks" in said
    found = checkpoint.read_weights(checkpoint.newest(tmp_path / "spoilt").path)
    assert spoilt[0]["weights"] == digest_of(found)


def rows_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").open()]


def test_without_a_fault_nothing_is_left_out(tmp_path, pack):
    """The reference by hand is the loop itself: it can tell a step left out from one that was not."""
    assert train(tmp_path / "whole", pack, WORDS) == [0]
    for left_out in (0, BAD):
        assert train(tmp_path / f"{left_out}", pack, WORDS, 1, ByHand(left_out)) == [0]
    whole, every, fewer = (ends(tmp_path / name, 1)[0]["weights"] for name in ("whole", "0", f"{BAD}"))
    assert whole == every != fewer


def test_a_fault_that_passes_is_mended_by_going_back(tmp_path, pack):
    """Three bad steps in a row, before the rollback only: the weights and rows of a run without the fault."""
    world = 2
    assert train(tmp_path / "whole", pack, WORDS, world) == [0] * world
    bad = (5, 6, 7)
    assert train(tmp_path / "spoilt", pack, WORDS, world, Spoil(bad, rank=1, once=True)) == [0] * world
    assert ends(tmp_path / "spoilt", world) == ends(tmp_path / "whole", world)
    for rank in range(world):
        assert starts(tmp_path / "spoilt", rank) == [[*range(1, 8), *range(5, 3 * STEPS + 1)]]
    for one, other in zip(rows_of(tmp_path / "spoilt"), rows_of(tmp_path / "whole"), strict=True):
        assert {key: one[key] for key in one if key not in ("time_s", "images_per_s")} == {
            key: other[key] for key in other if key not in ("time_s", "images_per_s")
        }
    assert not (tmp_path / "spoilt" / BAD_STEPS).exists()
    assert "3 bad steps in a row: back to step 4 (1 of 2)" in (tmp_path / "spoilt" / "said.txt").read_text()


def test_a_fault_that_stays_ends_the_run_with_steps_and_samples(tmp_path, pack):
    """Back ``train.rollbacks`` times; then one line naming step and sample, and the report; nothing spoilt saved."""
    world, bad, folder = 2, (6, 7, 8), tmp_path / "spoilt"
    codes = train(folder, pack, (*WORDS, "train.rollbacks=1"), world, Spoil(bad, rank=1))
    assert codes == [MISTAKE] * world
    for rank in range(world):
        assert starts(folder, rank) == [[1, 2, 3, 4, 5, 6, 7, 8, 5, 6, 7, 8]]
    names = open_pack(pack).names
    spoilt = {line["step"]: names[line["rows"][0]] for line in steps(folder, 1)}
    whole = {step: names_of(folder, step, world, names) for step in bad}
    report = json.loads((folder / BAD_STEPS).read_text())
    assert report["rollbacks"] == 1
    assert [one["step"] for one in report["bad_steps"]] == [*bad, *bad]
    for one in report["bad_steps"]:
        assert one["epoch"] == 2
        assert one["samples"] == whole[one["step"]]
        assert one["not_finite"] == [spoilt[one["step"]]]
    message = record(folder)[-1]["mistake"]
    assert "3 steps in a row, the last at epoch 2, step 8" in message and f"sample {spoilt[8]}" in message
    assert str(folder / BAD_STEPS) in message and "\n" not in message
    assert [path.name for path in checkpoint.checkpoints(folder)][-1] == "epoch-0001-step-000004"


def names_of(folder, step, world, names):
    """The samples of a step, rank after rank."""
    rows = [next(line["rows"] for line in steps(folder, rank) if line["step"] == step) for rank in range(world)]
    return [names[row] for part in rows for row in part]


def test_batchnorm_keeps_its_statistics(tmp_path, pack):
    """In this process: a step on NaN inputs would spoil them for ever; put back they are what they were."""
    from nrh_dist.engine.guard import Guard

    one = configured(tmp_path / "r", *WORDS)
    model = new_model(one, lambda _: None)
    data = open_pack(pack)
    feed = Feed(data, split_rows(data, one)[0], "cpu")
    learner = speed.learner(model, one, Place(), lambda _: None)
    guard = Guard(model, Place())
    batch = feed.gather(data.rows("train")[:4])
    before = {key: value.clone() for key, value in model.state_dict().items()}
    learner.train()
    guard.remember()
    task_of(one, data).losses(learner, batch._replace(composite=batch.composite * torch.nan), 0)
    assert any(value.isnan().any() for value in model.state_dict().values())
    guard.put_back()
    after = model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
