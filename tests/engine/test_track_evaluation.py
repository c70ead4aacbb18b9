import json
import shutil

import pytest
import torch
from tracked import KEY, records, wandb_folders
from wandb_server import WandbServer

from nrh_dist import config
from nrh_dist.engine import checkpoint, track, track_evaluation
from nrh_dist.engine.wandb_run import WandbRun
from nrh_dist.errors import UserError

OFFLINE = ["track.finish_seconds=60", "track.project=p"]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE")


@pytest.fixture
def scored(tmp_path):
    """A run's checkpoint."""
    run = tmp_path / "runs" / "r"
    run.mkdir(parents=True)
    return checkpoint.store(run, {"w": torch.ones(3)}, {"state": {}}, {"epoch": 2, "step": 20}, 2, None)


@pytest.fixture
def evaluation(tmp_path, scored):
    folder = tmp_path / "evaluation"
    folder.mkdir()
    (folder / "per_image.csv").write_text("dataset,run,name,mse,lpips\nSample,r,a.png,12.5,\nSample,r,b.png,7.5,\n")
    bins = [{"bin": "0-10%", "count": 2, "mse": 10.0, "psnr": 38.0, "identity_mse": 20.0}]
    models = [{"dataset": "Sample", "model": "dih_m", "run": "r", "count": 2, "mse": 10.0, "fmse": None, "bins": bins}]
    entry = {"run": "r", "path": str(scored), "digest": checkpoint.digest(scored)}
    about = {"schema": 1, "data": "sample", "split": "test", "size": 64, "pack": "abc", "datasets": {"Sample": 2}}
    (folder / "summary.json").write_text(json.dumps({**about, "checkpoints": [entry], "models": models}))
    return folder


def test_offline_it_holds_numbers_tables_and_the_use_of_the_checkpoint(evaluation, scored):
    said = []
    id = track_evaluation.track(evaluation, config.load(None, OFFLINE), said.append)
    assert said == [f"{evaluation} is W&B run {id}; nrh track sync {evaluation} sends it"]
    (run,) = wandb_folders(evaluation)
    (begun,) = records(run, "run")
    assert (begun["job_type"], begun["project"], begun["config"]["update"]["size"]) == ("evaluation", "p", 64)
    updates = {key: value for one in records(run, "summary") for key, value in one["update"].items()}
    assert updates["r/mse"] == 10.0 and "r/fmse" not in updates
    assert updates["per_image.nrows"] == 2 and updates["size_bins.nrows"] == 1
    (table,) = run.glob("files/media/table/per_image_*.json")
    assert json.loads(table.read_text())["data"] == [
        ["Sample", "r", "a.png", 12.5, None],
        ["Sample", "r", "b.png", 7.5, None],
    ]
    used = [one for one in records(run, "artifact") if one.get("use_after_commit")]
    assert [one["name"] for one in used] == [f"checkpoint-{track.stable_id(scored.parents[1])}"]
    assert track_evaluation.track(evaluation, config.load(None, OFFLINE), said.append) == id
    assert "already" in said[-1] and len(wandb_folders(evaluation)) == 1


def test_its_checkpoint_is_the_one_that_the_training_logged(evaluation, scored, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    run = scored.parents[1]
    with WandbServer() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        training = WandbRun(run, {"mode": "online", "project": "p", "id": track.stable_id(run)}, 60, print)
        training.tell("artifact", **track.checkpoint_artifact(run, scored, ["best", "latest"]))
        training.finish()
        id = track_evaluation.track(evaluation, config.load(None, [*OFFLINE, "track.wandb=online"]), print)
    made, used = server.store.runs[track.stable_id(run)]["made"], server.store.runs[id]["used"]
    assert made == used and server.store.artifacts[made[0]]["aliases"] == {"best", "latest"}
    assert not (evaluation / "wandb" / track.KEPT / server.store.artifacts[made[0]]["name"] / scored.name).exists()


def test_what_failed_can_be_tried_again(evaluation):
    other = evaluation / "wandb" / "offline-run-1-other"
    other.mkdir(parents=True)
    (evaluation / "per_image.csv").write_text("")
    with pytest.raises(UserError, match=r"W&B made no run of .*: the same command tries again"):
        track_evaluation.track(evaluation, config.load(None, OFFLINE), print)
    assert other.exists() and not [one for one in wandb_folders(evaluation) if one != other]
    (evaluation / "per_image.csv").write_text("run,mse\nr,1\n")
    assert track_evaluation.track(evaluation, config.load(None, OFFLINE), print)


def test_a_checkpoint_that_is_gone_is_said_and_not_linked(evaluation, scored):
    shutil.rmtree(scored)
    said = []
    track_evaluation.track(evaluation, config.load(None, OFFLINE), said.append)
    assert said[0] == f"r is not linked: its checkpoint is not where {evaluation} was made from"
    assert not [one for one in records(wandb_folders(evaluation)[0], "artifact") if one.get("use_after_commit")]


def test_what_is_no_evaluation_or_has_nowhere_to_go(tmp_path, evaluation):
    with pytest.raises(UserError, match=r"is no evaluation: it holds no readable summary\.json"):
        track_evaluation.track(tmp_path, config.load(None, []), print)
    with pytest.raises(UserError, match="W&B is disabled"):
        track_evaluation.track(evaluation, config.load(None, ["track.wandb=disabled"]), print)


def test_numbers_of_several_data_sets_and_of_detectors():
    models = [{"dataset": name, "run": "r", "mse": 1.0, "count": 3, "bins": []} for name in ("A", "B", "all")]
    found = track_evaluation.numbers({"datasets": {"A": 3, "B": 3}, "models": models})
    assert found == {
        f"r/{name}/{key}": value for name in ("A", "B", "all") for key, value in (("mse", 1.0), ("count", 3))
    }
    detector = {"run": "d", "thresholds": [{"sign": "both", "error": 0.1}, {"sign": "negative", "error": None}]}
    assert track_evaluation.numbers({"datasets": {"A": 3}, "detectors": [detector]}) == {"d/both/error": 0.1}
