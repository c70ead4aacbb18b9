"""What is read from the folder of a sweep, sound, unfinished or damaged."""

import csv
import json
from pathlib import Path

import pytest
import sweeps

from nrh_dist.errors import UserError
from nrh_dist.report import sweep_collect


def test_a_sweep_is_what_its_table_says(tmp_path: Path) -> None:
    folder = sweeps.write(tmp_path / "s", failed=(4,), begun=10, running=2)
    found = sweep_collect.read(folder)
    sweep_collect.write_table(found, tmp_path / "trials.csv")
    ours, theirs = ([*csv.DictReader(path.open())] for path in (tmp_path / "trials.csv", folder / "trials.csv"))
    assert ours == theirs
    assert {row["status"] for row in ours} >= {"finished", "stopped early", "failed", "running", "waiting"}
    assert found.epochs == sum(int(row["epochs"]) for row in ours)


def test_a_key_whose_condition_does_not_hold_is_no_part_of_a_trial(tmp_path: Path) -> None:
    space = {
        "model.freeze": {"choice": ["encoder", "none"], "when": {}},
        "optim.lr": {"loguniform": [0.0001, 0.003], "when": {"model.freeze": "none", "data.size": 64}},
        "loss.gate": {"uniform": [0, 1], "when": {"data.size": 256}},
    }
    trials = sweep_collect.read(sweeps.write(tmp_path / "s", space=space)).trials
    assert {one.assignment["model.freeze"] for one in trials} == {"encoder", "none"}
    assert all(("optim.lr" in one.assignment) == (one.assignment["model.freeze"] == "none") for one in trials)
    assert not any("loss.gate" in one.assignment for one in trials)


def test_a_later_life_counts_only_its_own_epochs(tmp_path: Path) -> None:
    folder = sweeps.write(tmp_path / "s", 2, scheduler="pbt", max_epochs=4, begun=0)
    drawn = {"model.fusion_width": 128, "model.freeze": "none", "optim.lr": 0.001}
    sweeps.write_trial(folder, 0, drawn, [9.0, 8.0])
    sweeps.write_trial(folder, 1, drawn, [7.0, 1.0, 6.0, 5.0])
    origin = {"trial": "t0001", "epoch": 2}
    sweeps.write_trial(folder, 0, drawn, [7.0, 1.0, 4.0, 3.0], life=2, origin=origin)
    found = sweep_collect.read(folder)
    assert [one.name for one in found.trials] == ["t0000-2", "t0001"]
    assert found.epochs == 2 + 4 + 2
    assert found.trials[0].own == {3: 4.0, 4: 3.0}
    assert found.best is not None
    assert found.best.name == "t0001", "who trained the lowest value, not who took it over"


def test_what_a_crash_cut_off_is_left_out(tmp_path: Path) -> None:
    folder = sweeps.write(tmp_path / "s", 3)
    rows = folder / "trials" / "t0001" / "metrics.jsonl"
    whole = len(sweep_collect.read(folder).trials[1].values)
    rows.write_text(rows.read_text() + '{"epoch": 10, "val/ms')
    assert len(sweep_collect.read(folder).trials[1].values) == whole


def test_a_trial_that_died_before_it_noted_anything_has_failed(tmp_path: Path) -> None:
    folder = sweeps.write(tmp_path / "s", 3, begun=2)
    sweeps.write_json(folder / "trials" / "t0002" / "failure.json", {"schema": 1, "reason": "no memory"})
    trial = sweep_collect.read(folder).trials[2]
    assert (trial.status, trial.reason, trial.assignment, trial.epochs) == ("failed", "no memory", {}, 0)


def test_another_folder_is_no_sweep(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not the folder of a sweep"):
        sweep_collect.read(tmp_path)


def _without(path: Path, key: str) -> None:
    values = json.loads(path.read_text())
    del values[key]
    path.write_text(json.dumps(values))


def _with(path: Path, **changed: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))


def _assign(path: Path, key: str, value: object) -> None:
    _with(path, assignment={**json.loads(path.read_text())["assignment"], key: value})


@pytest.mark.parametrize(
    ("file", "damage", "says"),
    [
        ("sweep.json", lambda path: path.write_text("{"), "is not readable JSON"),
        ("sweep.json", lambda path: _with(path, schema=1), "has schema 1, but this version reads schema 2"),
        ("sweep.json", lambda path: _without(path, "space"), "is not as expected"),
        ("sweep.json", lambda path: _with(path, scheduler={"asha": {}}), "no max_epochs"),
        ("sweep.json", lambda path: _with(path, metrics=[]), "names no metric"),
        ("sweep.json", lambda path: _with(path, base=["optim.lr"]), "has 'optim.lr' in base, which is no key=value"),
        ("sweep.json", lambda path: _with(path, space={"optim.lr": {"uniform": [2]}}), "neither a choice nor a range"),
        ("trials/t0001/assignment.json", lambda path: path.write_bytes(b"\xff"), "is not readable JSON"),
        ("trials/t0001/assignment.json", lambda path: _with(path, index=2), "is of another trial"),
        ("trials/t0001/assignment.json", lambda path: _with(path, assignment={}), "gives model.fusion_width no value"),
        (
            "trials/t0001/assignment.json",
            lambda path: _assign(path, "model.fusion_width", 300),
            "no value of the space",
        ),
        ("trials/t0001/assignment.json", lambda path: _assign(path, "optim.lr", 0.5), "gives optim.lr no value"),
        ("trials/t0001/assignment.json", lambda path: _assign(path, "optim.lr", "high"), "gives optim.lr no value"),
        ("trials/t0001/config.yaml", lambda path: path.write_text("a: ["), "is no readable configuration"),
        ("trials/t0001/config.yaml", lambda path: path.unlink(), "is no readable configuration"),
        ("trials/t0001/config.yaml", lambda path: path.write_text("7"), "is no configuration"),
        ("trials/t0001", lambda path: path.rename(path.with_name("t1-copy")), "is no folder of a trial"),
    ],
)
def test_a_damaged_folder_is_refused_in_one_line(tmp_path: Path, file: str, damage: object, says: str) -> None:
    folder = sweeps.write(tmp_path / "s", 3)
    damage(folder / file)  # type: ignore[operator]
    with pytest.raises(UserError, match=says) as caught:
        sweep_collect.read(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)
