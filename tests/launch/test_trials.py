import csv

import pytest

from nrh_dist import config as configuration
from nrh_dist.engine import track
from nrh_dist.engine.files import write_json, write_lines
from nrh_dist.errors import UserError
from nrh_dist.launch import space, trials
from nrh_dist.launch.trial import config_of
from nrh_dist.launch.tune import _choose, _identity
from nrh_dist.report import sweep_collect

SPACE = """\
metric: val/mse
trials: 6
scheduler: {asha: {max_epochs: 3}}
base: {preset: tiny, model.name: dih_nm}
space:
  optim.lr: {choice: [0.001, 0.002]}
  loss.name: {choice: [mse, object_mse], when: {optim.lr: 0.001}}
"""


@pytest.fixture
def sweep(tmp_path):
    """One trial of every kind: finished, stopped early, running, failed on the way, failed at once, waiting."""
    (tmp_path / "space.yaml").write_text(SPACE)
    searched = space.read(tmp_path / "space.yaml", [])
    folder = tmp_path / "sweep"
    folder.mkdir()
    write_json(folder / "sweep.json", {"schema": 2, **_identity(searched)})
    for index, epochs in enumerate((3, 1, 2, 1)):
        assignment = {"optim.lr": 0.001 * (1 + index % 2), "loss.name": "mse"}
        trial = folder / "trials" / trials.life_name(index)
        trials.note(trial, {"index": index, "life": 1, "assignment": assignment}, {})
        (trial / "config.yaml").write_text(configuration.dump(searched.config(assignment)))
        write_lines(trial / track.METRICS, [{"epoch": n + 1, "val/mse": 9.0 - n - index} for n in range(epochs)])
    trials.note_stopped(folder / "trials" / "t0001", 1)
    trials.note_failure(folder / "trials" / "t0003", "diverged")
    trials.note_failure(folder / "trials" / "t0004", "died in the night")
    return searched, folder


def test_the_table(sweep):
    searched, folder = sweep
    with trials.write_table(folder, searched).open() as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == [*("finished", "stopped early", "running", "failed", "failed", "waiting")]
    assert [row["reason"] for row in rows] == ["", "", "", "diverged", "died in the night", ""]
    assert [row["val/mse"] for row in rows] == ["7.0", "8.0", "6.0", "6.0", "", ""]
    assert [row["epochs"] for row in rows] == ["3", "1", "2", "1", "0", "0"]
    assert [row["loss.name"] for row in rows] == ["mse", "", "mse", "", "", ""], "where its condition holds"


def test_trials_of_a_sweep_are_one_group_of_runs_with_folders_of_their_own(tmp_path):
    """W&B gets the group, and an id that is a function of the folder."""
    (tmp_path / "space.yaml").write_text(SPACE)
    searched = space.read(tmp_path / "space.yaml", [f"run.root={tmp_path}", "run.name=night"])
    assignment = {"optim.lr": 0.002, "loss.name": "mse"}
    lives = [{"index": index, "life": life, "assignment": assignment} for index in (0, 1) for life in (1, 2)]
    found = [config_of(searched, one) for one in lives]
    assert {one.track.group for one in found} == {"night"}
    assert len({track.stable_id(configuration.run_dir(one)) for one in found}) == 4
    folders = [tmp_path / "night" / "trials" / name for name in ("t0000", "t0000-2", "t0001", "t0001-2")]
    assert [configuration.run_dir(one) for one in found] == folders
    own = space.read(tmp_path / "space.yaml", ["track.group=mine"])
    assert config_of(own, lives[0]).track.group == "mine"


def test_the_report_tells_the_same(sweep, tmp_path):
    searched, folder = sweep
    sweep_collect.write_table(sweep_collect.read(folder), tmp_path / "other.csv")
    with (tmp_path / "other.csv").open() as one, trials.write_table(folder, searched).open() as other:
        assert list(csv.DictReader(one)) == list(csv.DictReader(other))


def test_all_failed_is_an_end_and_one_that_did_not_is_none(sweep):
    searched, folder = sweep
    with pytest.raises(UserError, match="no checkpoint"):  # as there are none here
        _choose(searched, folder, folder / "trials.csv", print)
    for index in range(6):
        trials.note_failure(folder / "trials" / trials.life_name(index), "diverged")
    with pytest.raises(UserError, match="all 6 trials failed, the first with: diverged"):
        _choose(searched, folder, folder / "trials.csv", print)


def test_a_later_life_stands_for_its_trial(sweep):
    _, folder = sweep
    later = folder / "trials" / "t0001-2"
    origin = {"trial": "t0000", "epoch": 3}
    trials.note(later, {"index": 1, "life": 2, "assignment": {"optim.lr": 0.002, "loss.name": "mse"}}, {}, origin)
    assert [path.name for path in trials.begun(folder).values()] == ["t0000", "t0001-2", "t0002", "t0003"]
