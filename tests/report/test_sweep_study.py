"""The Optuna study of a sweep: what a dashboard would show is what trials.csv says."""

import csv
from pathlib import Path

import optuna
import pytest
import sweeps
from optuna.trial import TrialState

from nrh_dist.report import sweep_study
from nrh_dist.report.sweep_collect import read

STATES = {
    "finished": TrialState.COMPLETE,
    "stopped early": TrialState.PRUNED,
    "failed": TrialState.FAIL,
    "running": TrialState.RUNNING,
}


def exported(folder: Path, name: str = "study.db") -> optuna.Study:
    sweep_study.export(read(folder), folder / name)
    return optuna.load_study(study_name=None, storage=f"sqlite:///{folder / name}")


def test_the_study_is_what_the_table_says(tmp_path: Path) -> None:
    folder = sweeps.write(tmp_path / "s", failed=(4,), begun=10, running=2)
    study = exported(folder)
    rows = [row for row in csv.DictReader((folder / "trials.csv").open()) if row["status"] != "waiting"]
    assert study.study_name == "s"
    assert len(study.trials) == len(rows) == 10
    for row, trial in zip(rows, study.trials, strict=True):
        assert trial.state == STATES[row["status"]]
        assert {key: str(value) for key, value in trial.params.items()} == {key: row[key] for key in sweeps.SPACE}
        assert len(trial.intermediate_values) == int(row["epochs"])
        assert min(trial.intermediate_values.values()) == float(row["val/mse"])
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
            assert trial.value == float(row["val/mse"])
        assert trial.user_attrs.get("reason", "") == row["reason"]
        assert trial.user_attrs["folder"] == row["folder"]
    finished = [row for row in rows if row["status"] == "finished"]
    assert study.best_value == min(float(row["val/mse"]) for row in finished)


def test_the_same_sweep_gives_the_same_study(tmp_path: Path) -> None:
    folder = sweeps.write(tmp_path / "s", failed=(1,))
    assert exported(folder, "one.db").trials == exported(folder, "two.db").trials


def test_several_objectives(tmp_path: Path) -> None:
    study = exported(sweeps.write(tmp_path / "s", metrics=("val/mse", "cost/parameters")))
    assert len(study.directions) == 2
    assert all(trial.values[1] >= 4e6 for trial in study.trials)
    assert study.best_trials


def test_conditional_keys_and_lists(tmp_path: Path) -> None:
    space = {
        "model.freeze": {"choice": ["encoder", "none"], "when": {}},
        "data.transforms": {"choice": [["exposure"], ["exposure", "contrast"]], "when": {"model.freeze": "none"}},
        "optim.eps": {"uniform": [0.0, 1.0], "when": {}},
    }
    for trial in exported(sweeps.write(tmp_path / "s", space=space)).trials:
        assert ("data.transforms" in trial.params) == (trial.params["model.freeze"] == "none")
        assert trial.params.get("data.transforms", '["exposure"]') in ('["exposure"]', '["exposure", "contrast"]')


def test_a_later_life_is_the_trial(tmp_path: Path) -> None:
    folder = sweeps.write(tmp_path / "s", 1, scheduler="pbt", max_epochs=2, begun=0)
    drawn = {"model.fusion_width": 128, "model.freeze": "none", "optim.lr": 0.001}
    sweeps.write_trial(folder, 0, drawn, [4.0])
    sweeps.write_trial(folder, 0, drawn, [3.0, 2.0], life=2, origin={"trial": "t0007", "epoch": 1})
    (trial,) = exported(folder).trials
    assert (trial.value, trial.user_attrs["trial"], trial.user_attrs["from"]) == (2.0, "t0000-2", "t0007, epoch 1")


@pytest.mark.parametrize("name", ["a b", "50 %", "why?"])
def test_any_folder_name_will_do(tmp_path: Path, name: str) -> None:
    folder = sweeps.write(tmp_path / name, 2)
    sweep_study.export(read(folder), folder / "study.db")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (folder / "study.db").stat().st_size > 0
    assert not list(folder.glob("study.db-*"))
