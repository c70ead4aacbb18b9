import json

import numpy as np
import pytest
import torch
from packs import write_small_pack, write_tree
from ranks import run_ranks
from torch.optim.optimizer import register_optimizer_step_pre_hook

from nrh_dist import config
from nrh_dist.data.pack import open_pack
from nrh_dist.engine import checkpoint, fit, rundir, select
from nrh_dist.engine.dist import Place
from nrh_dist.engine.run import find_pack, run, split_rows
from nrh_dist.errors import UserError

COMMON = ("preset=tiny", "model.width=0.1", "data.val_fraction=0.3", "train.batch_size=4", "train.epochs=4")


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return write_small_pack(tmp_path_factory.mktemp("fit"), train=24)


def configured(folder, name, *words):
    return config.load(None, [*COMMON, f"run.root={folder}", f"run.name={name}", *words])


def train(one, pack, place=None, said=None):
    rows = []
    folder = config.run_dir(one)
    folder.mkdir(parents=True, exist_ok=True)
    run(one, pack.root, place or Place(), rows.append, (said if said is not None else []).append)
    return folder, rows


def weights_of(folder):
    return checkpoint.read_weights(checkpoint.newest(folder).path)


def train_rank(place, folder, pack_root, words, dtype):
    """One rank of a training whose arithmetic is of ``dtype``."""
    from nrh_dist.data.feed import Batch, Feed
    from nrh_dist.engine import run as engine_run

    new_model, finished = engine_run.new_model, Feed._finished
    engine_run.new_model = lambda *given: new_model(*given).to(dtype)
    Feed._finished = lambda *given: Batch(*(x.to(dtype) if torch.is_tensor(x) else x for x in finished(*given)))
    try:
        return train(configured(folder, f"world{place.world}", *words), open_pack(pack_root), place)[1]
    finally:
        engine_run.new_model, Feed._finished = new_model, finished


GATED = ("model.name=gated", "loss.gate=1", "loss.harm=1", "model.fusion_width=8", "data.clean_fraction=0.3")
FUSED = ("model.name=ptc_att_dih", "model.fusion_width=8")


@pytest.mark.parametrize(
    ("model", "dtype", "tolerance"),
    [pytest.param(FUSED, torch.float32, 1e-4, marks=pytest.mark.slow), (GATED, torch.float64, 1e-9)],
)
def test_two_workers_give_the_losses_of_one(tmp_path, pack, model, dtype, tolerance):
    """First 10 steps, the last batch of each epoch ragged, dropout off: equal to rounding, which Adam amplifies."""
    words = (*model, "model.freeze=none", "model.dropout=false", "train.batch_size=5")
    torch.set_num_threads(1)
    alone = train_rank(Place(), tmp_path, pack.root, words, dtype)
    together = run_ranks(train_rank, 2, tmp_path / "ranks", tmp_path, pack.root, words, dtype)[0]
    assert alone[-1]["step"] >= 10
    for one, two in zip(alone, together, strict=True):
        for key in ("train/loss", "val/loss", "val/mse"):
            assert two[key] == pytest.approx(one[key], rel=tolerance), key
    assert together[0]["world_size"] == 2


def test_resume_is_bit_identical_and_drops_later_rows(tmp_path, pack):
    words = ("model.name=ptc_dih", "model.freeze=none", "train.checkpoint_steps=2", "train.keep_checkpoints=50")
    whole, rows = train(configured(tmp_path, "whole", *words), pack)
    cut, _ = train(configured(tmp_path, "cut", *words), pack)
    inside = next(
        path for path in checkpoint.checkpoints(cut) if path.name.startswith("epoch-0002-step-") and _is_inside(path)
    )
    for path in checkpoint.checkpoints(cut):  # as after a kill in the third epoch
        if int(path.name.split("-")[-1]) > int(inside.name.split("-")[-1]):
            for file in path.iterdir():
                file.write_bytes(b"")
    said = []
    _, again = train(configured(tmp_path, "cut", *words), pack, said=said)
    assert any(line.startswith("skipped the checkpoint") for line in said)
    assert f"continuing from {inside.name}" in said
    assert [row["epoch"] for row in again] == [3, 4]
    for key, value in weights_of(whole).items():
        assert torch.equal(value, weights_of(cut)[key]), key
    lines = [json.loads(line) for line in (cut / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    for one, two in zip(rows, lines, strict=True):
        assert one["train/loss"] == two["train/loss"] and one["val/mse"] == two["val/mse"]


def _is_inside(path):
    return checkpoint.read_state(path)["state"]["epoch_step"] > 0


def test_the_time_before_a_stop_counts(tmp_path, pack):
    """A checkpoint in mid-epoch knows how long its epoch took so far."""
    one = configured(tmp_path, "clock", "model.name=dih_nm", "train.checkpoint_steps=1", "train.keep_checkpoints=100")
    folder, rows = train(one, pack)
    found = [checkpoint.read_state(path)["state"] for path in checkpoint.checkpoints(folder)]
    seconds = [state["seconds"] for state in found]
    assert seconds == sorted(seconds) and len({*seconds}) == len(seconds) > len(rows)
    assert 0 < seconds[0] < rows[0]["time_s"]


def test_features_are_those_of_the_encoder_that_goes_on(tmp_path, pack, monkeypatch):
    """A second start that finds other weights for a new detector, as on a machine that lacks the first one's file."""
    from nrh_dist.engine import run as engine_run

    words = ("model.name=ptc_att_dih", "model.fusion_width=8", "train.epochs=2")
    whole, _ = train(configured(tmp_path, "whole", *words), pack)
    cut, _ = train(configured(tmp_path, "cut", *words), pack)
    (last,) = [path for path in checkpoint.checkpoints(cut) if path.name.startswith("epoch-0002")]
    (last / checkpoint.WEIGHTS).write_bytes(b"")
    new_model = engine_run.new_model
    other = configured(tmp_path, "other", *words, "seed=5")
    monkeypatch.setattr(engine_run, "new_model", lambda _, say: new_model(other, say))
    train(configured(tmp_path, "cut", *words), pack)
    for key, value in weights_of(whole).items():
        assert torch.equal(value, weights_of(cut)[key]), key


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_metric_that_is_not_finite_ends_the_run_without_a_checkpoint(tmp_path, pack, monkeypatch, value):
    """Losses and gradients were: only the validation overflows. Neither JSON nor Ray's schedulers could take it."""
    validate = fit.Fit._validate

    def overflowing(self):
        return validate(self) | ({"val/mse": value} if self.state.epoch == 1 else {})

    monkeypatch.setattr(fit.Fit, "_validate", overflowing)
    one = configured(tmp_path, "r", "model.name=dih_nm")
    with pytest.raises(UserError, match=rf"val/mse is {value} at epoch 2, .* optim\.lr=0\.001: try a lower optim\.lr"):
        train(one, pack)
    folder = config.run_dir(one)
    assert checkpoint.read_meta(checkpoint.newest(folder).path)["epoch"] == 1
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 1


def test_best_is_the_lowest_validation_loss_and_is_kept(tmp_path, pack):
    folder, rows = train(
        configured(tmp_path, "r", "model.name=dih_nm", "train.keep_checkpoints=1", "optim.lr=0.03"), pack
    )
    best = select.read_best(folder)
    lowest = min(rows, key=lambda row: row["val/loss"])
    assert best["value"] == lowest["val/loss"]
    assert checkpoint.read_meta(best["checkpoint"])["epoch"] == lowest["epoch"]
    assert checkpoint.fault(best["checkpoint"]) is None
    assert len(checkpoint.checkpoints(folder)) <= 2


def test_a_kill_before_the_best_was_named_is_mended(tmp_path, pack):
    one = configured(tmp_path, "r", "model.name=dih_nm", "train.epochs=1")
    folder, _ = train(one, pack)
    assert rundir.is_finished(folder, one)
    written = (folder / "best.json").read_text()
    for stale in (None, written.replace("epoch-0001", "epoch-0000")):
        (folder / "best.json").unlink() if stale is None else (folder / "best.json").write_text(stale)
        assert not rundir.is_finished(folder, one)
        train(one, pack)
        assert (folder / "best.json").read_text() == written


def test_rows_hold_what_others_rely_on(tmp_path, pack):
    _, rows = train(configured(tmp_path, "r", "model.name=dih_nm", "train.epochs=1"), pack)
    wanted = {"epoch", "step", "train/loss", "val/mse", "val/psnr", "lr", "images_per_s", "world_size", "time_s"}
    assert wanted <= set(rows[0])
    assert all(type(value) in (int, float) for value in rows[0].values())


def test_the_cosine_falls_with_every_step_and_restarts(tmp_path, pack):
    """As torch's scheduler of the same name, told of each step; a row has the rate of its last one."""
    words = ("model.name=dih_nm", "train.epochs=5", "optim.schedule=cosine_restarts", "optim.restart_epochs=2")
    taken = []
    hook = register_optimizer_step_pre_hook(lambda adam, *_: taken.append(adam.param_groups[0]["lr"]))
    try:
        _, rows = train(configured(tmp_path, "r", *words), pack)
    finally:
        hook.remove()
    steps = len(taken) // 5
    assert steps > 1 and len(taken) == 5 * steps
    peer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(()))], lr=1e-3)
    scheduler, wanted = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(peer, T_0=2), []
    for step in range(5 * steps):
        peer.step()
        scheduler.step(step / steps)
        wanted.append(peer.param_groups[0]["lr"])
    assert taken == pytest.approx(wanted)
    assert taken[0] == taken[2 * steps] == 1e-3 and taken[2 * steps - 1] < 1e-3 / steps
    assert [row["lr"] for row in rows] == taken[steps - 1 :: steps]


def test_loss_that_stops_being_finite_ends_the_run_without_a_checkpoint(tmp_path, pack):
    with pytest.raises(
        UserError, match=r"not finite in 3 steps in a row, the last at epoch 1, step 4,.*lower optim.lr"
    ):
        train(configured(tmp_path, "r", "model.name=dih_nm", "optim.lr=1e30", "train.epochs=1"), pack)
    assert not list((tmp_path / "r" / "checkpoints").glob("epoch*"))


def test_a_model_without_a_learning_part_is_saved_as_it_is(tmp_path, pack):
    said = []
    folder, rows = train(configured(tmp_path, "r", "model.name=two_stage"), pack, said=said)
    assert [row["epoch"] for row in rows] == [4] and "train/loss" not in rows[0]
    assert any("nothing in this model learns" in line for line in said)
    assert select.read_best(folder)


def test_other_data_under_the_same_name_is_refused(tmp_path, pack):
    train(configured(tmp_path, "r", "model.name=dih_nm", "train.epochs=1"), pack)
    other = write_small_pack(tmp_path / "other", train=22)
    with pytest.raises(UserError, match="other data"):
        train(configured(tmp_path, "r", "model.name=dih_nm", "train.epochs=2"), other)


def test_split_by_group_and_its_limits(tmp_path, pack):
    train_rows, val_rows = split_rows(pack, configured(tmp_path, "r"))
    groups = [{pack.groups[row] for row in rows} for rows in (train_rows, val_rows)]
    assert not groups[0] & groups[1]
    assert sorted(np.concatenate([train_rows, val_rows])) == pack.rows("train").tolist()
    with pytest.raises(UserError, match="both must be above 0"):
        split_rows(pack, configured(tmp_path, "r", "data.val_fraction=0"))


def test_photos_in_train_and_test_are_said_and_can_be_left_out(tmp_path):
    tree = write_tree(tmp_path / "tree", train=12, test=4)
    leaked = (tree / "Sample" / "Sample_train.txt").read_text().splitlines()[:2]
    with (tree / "Sample" / "Sample_test.txt").open("a") as file:
        file.write("".join(f"{name}\n" for name in leaked))
    words = ("data.val_fraction=0.4", f"data.root={tree}")
    said = []
    find_pack(configured(tmp_path, "r", *words), said.append)
    assert any(line.startswith("1 photos or scenes are in both train and test") for line in said)
    dropping = configured(tmp_path, "r", *words, "data.drop_leaked=true")
    said = []
    pack = open_pack(find_pack(dropping, said.append))
    assert not any("both train and test" in line for line in said)
    assert (
        sum(map(len, split_rows(pack, dropping)))
        == sum(map(len, split_rows(pack, configured(tmp_path, "r", *words)))) - 2
    )


def test_an_image_that_cannot_be_read_ends_the_training_or_is_left_out_and_said(tmp_path, monkeypatch):
    monkeypatch.setenv("NRH_CACHE", str(tmp_path / "cache"))
    root = write_tree(tmp_path / "data")
    bad = root / "Sample" / "composite_images" / "s0_0_1.png"
    bad.write_bytes(bad.read_bytes()[:99])
    given = ("model.name=dih_nm", f"data.root={root}", "train.epochs=1")
    with pytest.raises(UserError, match=f"{bad}: is truncated; .*data.max_bad_files"):
        find_pack(configured(tmp_path, "one", *given), print)
    said: list[str] = []
    one = configured(tmp_path, "one", *given, "data.max_bad_files=1")
    pack = open_pack(find_pack(one, said.append))
    assert any("lacks 1 samples whose files could not be used" in line for line in said)
    assert f"left out: Sample/{bad.stem}, for {bad.name}: is truncated" in said
    assert bad.name not in " ".join(pack.names) and train(one, pack)[1]


def settled_rank(place, root, pack_root, fitting):
    """Said by one rank of a training on ranks of which ``fitting`` have room for the data beside a step."""
    from nrh_dist.data.feed import Feed

    Feed.fits = lambda feed: not feed.is_resident and place.rank in fitting
    said = []
    train(configured(root, "r", "model.name=dih_nm", "train.epochs=2"), open_pack(pack_root), place, said)
    return [line for line in said if "fit into the GPU" in line]


@pytest.mark.parametrize(("fitting", "count"), [((0, 1), 1), ((1,), 0)])
def test_the_data_become_resident_where_they_fit_on_all_ranks(tmp_path, pack, fitting, count):
    """After the first step, once, and on no rank where they do not fit on one: it would wait for the others."""
    both = run_ranks(settled_rank, 2, tmp_path, tmp_path / "runs", pack.root, fitting)
    assert [len(lines) for lines in both] == [count, 0], "the main rank speaks for all"


def test_step_seeds_differ_by_step_and_rank():
    drawn = set()
    for step in range(3):
        for rank in range(3):
            fit.seed_step(0, step, rank)
            drawn.add(torch.rand(()).item())
    assert len(drawn) == 9


def test_a_val_list_is_used_where_no_share_is_drawn(tmp_path):
    tree = write_tree(tmp_path / "tree", train=12, test=4)
    listed = tree / "Sample" / "Sample_train.txt"
    names = listed.read_text().splitlines(keepends=True)
    listed.write_text("".join(names[4:]))
    (tree / "Sample" / "Sample_val.txt").write_text("".join(names[:4]))
    said = []
    pack = open_pack(find_pack(configured(tmp_path, "r", f"data.root={tree}", "data.val_fraction=0"), said.append))
    assert not any("val list" in line for line in said)
    for seed in (0, 1):
        train_rows, val_rows = split_rows(pack, configured(tmp_path, "r", "data.val_fraction=0", f"seed={seed}"))
        assert [pack.splits[row] for row in val_rows] == ["val"] * 4 and len(train_rows) == len(names) - 4
    drawing = configured(tmp_path, "r", f"data.root={tree}", "data.val_fraction=0.4")
    find_pack(drawing, said.append)
    assert "the val list names 4 samples, which stay unused: data.val_fraction=0 validates on them" in said
    assert {pack.splits[row] for rows in split_rows(pack, drawing) for row in rows} == {"train"}
    with (tree / "Sample" / "Sample_train.txt").open("a") as file:
        file.write(names[0])
    said.clear()
    words = (f"data.root={tree}", "data.val_fraction=0")
    leaking = open_pack(find_pack(configured(tmp_path, "r", *words), said.append))
    assert any(line.startswith("1 photos or scenes are in both train and test (or val)") for line in said)
    kept, _ = split_rows(leaking, configured(tmp_path, "r", *words, "data.drop_leaked=true"))
    assert len(kept) == len(names) - 4
