import json
import shutil

import pytest
from choices import make_evaluation, make_run

from nrh_dist.engine import checkpoint
from nrh_dist.engine.gather import gather
from nrh_dist.errors import UserError

IDENTITY = {"identity": {"mse": 20.0}}


def values(one):
    return {metric: one.value(metric) for metric in one.values}


def test_runs_sweeps_and_folders_in_each_other(tmp_path):
    make_run(tmp_path / "sweep" / "trials", "t0000", [5.0, 3.0])
    run = make_run(tmp_path, "alone", [9.0])
    found = gather([tmp_path, run])
    assert [(one.run, one.epoch) for one in found.candidates] == [("alone", 1), ("t0000", 1), ("t0000", 2)]
    assert values(found.candidates[0]) == {"val/mse": 9.0, "val/loss": 0.09}


def test_an_evaluation_joins_the_checkpoint_of_a_run(tmp_path):
    run = make_run(tmp_path / "runs", "r", [5.0, 3.0])
    one, two = checkpoint.checkpoints(run)
    scores = {**IDENTITY, "r": {"mse": 8.0}, "r-2": {"mse": 7.0}}
    evaluation = make_evaluation(tmp_path / "e", scores, {"r": one, "r-2": two})
    for folders in ([tmp_path], [evaluation, run], [run, evaluation]):
        found = gather(folders)
        assert [(values(one)["mse"], values(one)["val/mse"]) for one in found.candidates] == [(8.0, 5.0), (7.0, 3.0)]
        assert found.candidates[1].evaluations == [(evaluation, "r-2")] and found.notes == []
        assert list(found.identity["mse"].values()) == [20.0]


def test_an_evaluation_alone_knows_its_checkpoint(tmp_path):
    (path,) = checkpoint.checkpoints(make_run(tmp_path / "runs", "r", [5.0]))
    found = gather([make_evaluation(tmp_path / "e", {**IDENTITY, "x": {"mse": 8.0}}, {"x": path})])
    (one,) = found.candidates
    assert (one.run, one.path, one.epoch) == ("x", path, 1)
    assert values(one)["Sample/mse"] == values(one)["mse"] == 8.0 and "lpips" not in one.values


def test_several_data_sets_each_have_their_own(tmp_path):
    (path,) = checkpoint.checkpoints(make_run(tmp_path / "runs", "r", [5.0]))
    datasets = ("HCOCO", "HFlickr")
    (one,) = gather([make_evaluation(tmp_path / "e", {"r": {"mse": 8.0}}, {"r": path}, datasets=datasets)]).candidates
    assert [values(one)[name] for name in ("HCOCO/mse", "HFlickr/mse", "mse")] == [8.0, 9.0, 10.0]


@pytest.mark.parametrize("what", ["deleted", "another"])
def test_a_checkpoint_that_is_gone_can_be_ranked_still(tmp_path, what):
    run = make_run(tmp_path / "runs", "r", [5.0])
    evaluation = make_evaluation(tmp_path / "e", {"r": {"mse": 8.0}}, {"r": checkpoint.checkpoints(run)[0]})
    shutil.rmtree(run)
    if what == "another":
        make_run(tmp_path / "runs", "r", [6.0])
    found = gather([evaluation])
    (one,) = found.candidates
    assert one.path is None and values(one)["mse"] == 8.0
    assert len(found.notes) == 1 and "r of" in found.notes[0] and "is gone, damaged or another now" in found.notes[0]


def test_an_evaluation_that_does_not_tell_where_its_checkpoints_are_can_be_ranked(tmp_path):
    run = make_run(tmp_path / "runs", "r", [5.0])
    evaluation = make_evaluation(tmp_path / "e", {"r": {"mse": 8.0}}, {"r": checkpoint.checkpoints(run)[0]})
    summary = json.loads((evaluation / "summary.json").read_text())
    del summary["checkpoints"][0]["path"], summary["checkpoints"][0]["digest"]
    (evaluation / "summary.json").write_text(json.dumps(summary))
    found = gather([tmp_path])
    assert [(one.path is None, set(one.values) & {"mse", "val/mse"}) for one in found.candidates] == [
        (False, {"val/mse"}),
        (True, {"mse"}),
    ]
    assert "does not tell where it is" in found.notes[0]


def test_two_evaluations_of_one_that_is_gone_are_one_candidate(tmp_path):
    run = make_run(tmp_path / "runs", "r", [5.0])
    (path,) = checkpoint.checkpoints(run)
    make_evaluation(tmp_path / "e" / "one", {"r": {"mse": 8.0}}, {"r": path}, datasets=("A",))
    make_evaluation(tmp_path / "e" / "two", {"r": {"mse": 7.0}}, {"r": path}, datasets=("B",), pack="other")
    shutil.rmtree(run)
    (one,) = gather([tmp_path / "e"]).candidates
    assert {"A/mse", "B/mse"} < set(one.values) and len(one.values["mse"]) == 2


def test_damaged_checkpoints_are_named_and_skipped(tmp_path):
    run = make_run(tmp_path, "r", [5.0, 1.0])
    victim = checkpoint.checkpoints(run)[1]
    (victim / checkpoint.META).write_text("{}")
    found = gather([tmp_path])
    assert [one.epoch for one in found.candidates] == [1]
    assert found.notes == [f"skipped {victim}: meta.json does not match its sha256 in manifest.json"]


@pytest.mark.parametrize("content", ["", '{"checkpoints": 3}', '{"checkpoints": [], "split": "test"}', "\x00"])
def test_a_damaged_evaluation_is_named_and_skipped(tmp_path, content):
    make_run(tmp_path, "r", [5.0])
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "summary.json").write_text(content)
    found = gather([tmp_path])
    assert len(found.candidates) == 1
    assert [line.split(":")[0] for line in found.notes] == [f"skipped the evaluation {tmp_path / 'e'}"]


def test_foreign_summaries_and_half_written_evaluations_do_not_matter(tmp_path):
    run = make_run(tmp_path, "r", [5.0])
    (tmp_path / "summary.json").write_text("[]")
    (run / "summary.json").write_text('{"tool": "another"}')
    make_evaluation(tmp_path / ".e.partial", {"r": {"mse": 8.0}}, {"r": checkpoint.checkpoints(run)[0]})
    found = gather([tmp_path])
    assert found.notes == [] and "mse" not in found.candidates[0].values


def test_the_true_masks_of_a_two_stage_model_are_no_candidate(tmp_path):
    (path,) = checkpoint.checkpoints(make_run(tmp_path / "runs", "r", [5.0]))
    scores = {"r": {"mse": 8.0}, "r-true-masks": {"mse": 1.0}}
    evaluation = make_evaluation(tmp_path / "e", scores, {"r": path, "r-true-masks": path})
    summary = json.loads((evaluation / "summary.json").read_text())
    summary["differences"] = [{"true_masks_run": "r-true-masks"}]
    (evaluation / "summary.json").write_text(json.dumps(summary))
    (one,) = gather([evaluation]).candidates
    assert values(one)["mse"] == 8.0


def test_detectors_have_the_error_of_their_thresholds(tmp_path):
    (path,) = checkpoint.checkpoints(make_run(tmp_path / "runs", "r", [5.0], metric="val/iou"))
    evaluation = make_evaluation(tmp_path / "e", {}, {"r": path})
    summary = json.loads((evaluation / "summary.json").read_text())
    del summary["models"], summary["differences"]
    thresholds = [{"sign": "negative", "error": 0.5}, {"sign": "both", "error": 0.25}]
    summary["detectors"] = [{"run": "r", "thresholds": thresholds}]
    (evaluation / "summary.json").write_text(json.dumps(summary))
    (one,) = gather([evaluation]).candidates
    assert values(one) == {"threshold_error": 0.25}


def test_nothing_there(tmp_path):
    run = make_run(tmp_path / "runs", "r", [5.0])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no checkpoint with values and no evaluation below .*empty: give folders"):
        gather([run, tmp_path / "empty"])
    with pytest.raises(UserError, match="no folder at"):
        gather([tmp_path / "none"])
    (checkpoint.checkpoints(run)[0] / checkpoint.META).unlink()
    with pytest.raises(UserError, match=r"below .*runs \(skipped .*meta\.json is missing\)"):
        gather([tmp_path / "runs"])
