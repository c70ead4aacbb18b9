import shutil

import pytest
from choices import make_evaluation, make_run

from nrh_dist.engine import checkpoint, select
from nrh_dist.errors import UserError


def test_best_over_runs_and_sweeps(tmp_path):
    make_run(tmp_path / "sweep" / "trials", "t0000", [5.0, 3.0])
    make_run(tmp_path, "alone", [9.0, 2.0, 4.0])
    found = select.candidates([tmp_path], "val/mse")
    assert [(one.run, one.epoch) for one in found[:2]] == [("alone", 2), ("t0000", 2)]


def test_ties_go_to_the_earlier_epoch_then_the_name(tmp_path):
    make_run(tmp_path, "b", [7.0, 2.0])
    make_run(tmp_path, "c", [2.0, 7.0])
    make_run(tmp_path, "a", [2.0, 7.0])
    assert [(one.run, one.epoch) for one in select.candidates([tmp_path], "val/mse")[:3]] == [
        ("a", 1),
        ("c", 1),
        ("b", 2),
    ]


def test_damaged_checkpoints_are_no_candidates(tmp_path):
    run = make_run(tmp_path, "r", [5.0, 1.0])
    (run / "checkpoints" / "epoch-0002-step-000020" / checkpoint.META).write_text("{}")
    assert [one.epoch for one in select.candidates([run], "val/mse")] == [1]


def test_unknown_metric_names_those_there(tmp_path):
    make_run(tmp_path, "r", [5.0])
    with pytest.raises(UserError, match=r"no checkpoint with val/psnr .*val/loss, val/mse"):
        select.candidates([tmp_path], "val/psnr")
    with pytest.raises(UserError, match="no folder"):
        select.candidates([tmp_path / "none"], "val/mse")


def test_resolve_run_checkpoint_and_mistakes(tmp_path, monkeypatch):
    run = make_run(tmp_path, "r", [5.0, 1.0])
    inner = run / "checkpoints" / "epoch-0002-step-000020"
    assert select.resolve(inner) == inner
    with pytest.raises(UserError, match=r"no best\.json"):
        select.resolve(run)
    select.write_best(run, inner, "val/mse", 1.0)
    assert select.resolve(str(run)) == inner
    assert select.run_of(inner) == "r"
    monkeypatch.chdir(run)
    assert select.run_of(select.resolve(".")) == "r" and select.run_of(select.resolve("../r")) == "r"
    with pytest.raises(UserError, match="no checkpoint, run or sweep folder"):
        select.resolve(tmp_path / "none")


@pytest.mark.parametrize("content", ["", "{", "[]", '"word"', "{}", '{"checkpoint": 3}', "null", "\x00"])
def test_a_damaged_best_file_is_one_line(tmp_path, content):
    run = make_run(tmp_path, "r", [5.0])
    (run / "best.json").write_text(content)
    with pytest.raises(UserError, match=r"best\.json is damaged: delete it"):
        select.resolve(run)


def test_a_damaged_best_names_the_way_out(tmp_path):
    run = make_run(tmp_path / "sweep" / "trials", "r", [5.0, 1.0, 3.0])
    one, two, three = checkpoint.checkpoints(run)
    for folder in (run, tmp_path / "sweep"):  # a sweep's best lies in a trial
        select.write_best(folder, two, "val/mse", 1.0)
    (two / checkpoint.STATE).write_bytes(b"")
    for folder in (run, tmp_path / "sweep"):
        with pytest.raises(UserError, match=rf"training_state\.pt does not match .* val/mse 3, is {three}: give that$"):
            select.resolve(folder)
    meta = {"epoch": 4, "step": 40, "metrics": {}}
    newest = checkpoint.save(run / "checkpoints", {}, {}, meta)
    for path in (one, three):
        (path / checkpoint.WEIGHTS).unlink()
    with pytest.raises(UserError, match=rf"the newest that is sound is {newest}: give that$"):
        select.resolve(run)
    (newest / checkpoint.MANIFEST).unlink()
    with pytest.raises(UserError, match=rf"{run} holds no other that is sound: train again$"):
        select.resolve(run)


def test_the_best_psnr_is_the_highest(tmp_path):
    run = make_run(tmp_path, "r", [20.0, 30.0, 25.0], metric="val/psnr")
    found = select.candidates([run], "val/psnr")
    assert [one.value for one in found] == [30.0, 25.0, 20.0]


def test_an_evaluation_of_what_is_gone_is_not_the_best_of_a_sweep(tmp_path):
    kept, lost = make_run(tmp_path / "sweep", "kept", [5.0]), make_run(tmp_path, "lost", [1.0])
    scores = {"kept": {"mse": 5.0}, "lost": {"mse": 1.0}}
    checkpoints = {run.name: checkpoint.checkpoints(run)[0] for run in (kept, lost)}
    make_evaluation(tmp_path / "sweep" / "evaluation", scores, checkpoints)
    shutil.rmtree(lost)
    assert [one.run for one in select.candidates([tmp_path / "sweep"], "mse")] == ["kept"]
