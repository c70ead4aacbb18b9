import io
import pickle
import threading
from pathlib import Path
from unittest.mock import Mock

import pytest
from ray import cloudpickle
from rich.console import Console

from nrh_dist.launch import progress as module
from nrh_dist.launch import space, trials
from nrh_dist.launch.progress import SHOWN, Progress, callback

SPACE = """\
metric: val/mse
trials: 30
scheduler: {asha: {max_epochs: 3}}
base: {preset: tiny, model.name: dih_nm}
space:
  optim.lr: {loguniform: [0.0001, 0.01]}
"""


@pytest.fixture
def sweep(tmp_path):
    (tmp_path / "space.yaml").write_text(SPACE)
    searched, said = space.read(tmp_path / "space.yaml", []), []
    (tmp_path / "trials").mkdir()
    return Progress(searched, tmp_path, said.append), said


def tell(progress, known, index, epoch, value, status="RUNNING"):
    """As Tune tells a callback, with the same trial each time."""
    trial = known.setdefault(index, Mock())
    trial.config = {"trial": {"index": index, "life": 1, "assignment": {"optim.lr": 0.001}}}
    trial.status = status
    row = {"epoch": epoch, "val/mse": value, "images_per_s": 10.0, "config": trial.config}
    told = callback(progress)
    told.on_trial_result(0, [*known.values()], trial, row)
    return told, trial


def shown(progress):
    console = Console(file=io.StringIO(), width=120)
    console.print(progress.table())
    return console.file.getvalue()


def test_tune_can_write_it_down_whatever_says_its_lines(sweep):
    """Ray replaces print on a cluster, and then finds that the old one cannot be pickled."""
    progress, _ = sweep
    lock = threading.Lock()
    progress.say = lambda line: lock
    assert isinstance(pickle.loads(cloudpickle.dumps(progress)), Progress)


def test_a_line_an_epoch_where_there_is_no_terminal(sweep):
    progress, said = sweep
    known = {}
    tell(progress, known, 0, 1, 5.0)
    tell(progress, known, 1, 1, 4.0)
    tell(progress, known, 1, 2, 4.5)
    assert said[-1] == "t0001: epoch 2, val/mse 4.5, 10.0 images/s (3 of at most 90 epochs; best 4 by t0001)"


def test_a_table_on_a_terminal_those_that_train_first_then_the_best(sweep, monkeypatch):
    progress, said = sweep
    monkeypatch.setattr(module.sys.stdout, "isatty", lambda: True, raising=False)
    known = {}
    for index in range(SHOWN + 2):
        tell(progress, known, index, 1, 30.0 - index, "TERMINATED")
    tell(progress, known, 0, 2, 29.0)
    progress.close()
    assert said == []
    head, *rows = shown(progress).splitlines()
    assert "23 of at most 90 epochs; best 9 by t0021" in head and "2 more trials in trials.csv" in head
    names = [row.split()[1] for row in rows if row.startswith("│")]
    assert names[:3] == ["t0000", "t0021", "t0020"] and len(names) == SHOWN and "t0001" not in names
    assert "training" in "".join(rows)


def test_what_the_scheduler_ends_is_noted_and_what_a_stop_ends_is_not(sweep, tmp_path):
    progress, _ = sweep
    for index, is_stopping in ((0, False), (1, True)):
        known = {}
        told, trial = tell(progress, known, index, 1, 5.0, "TERMINATED")
        trials.note(tmp_path / "trials" / trials.life_name(index), trial.config["trial"], {})
        progress.is_stopping = is_stopping
        told.on_trial_complete(0, [trial], trial)
        assert trials.is_stopped(tmp_path / "trials" / trials.life_name(index)) != is_stopping
    assert (tmp_path / trials.TABLE).exists()


def test_why_a_trial_failed_is_noted_and_said_at_once(sweep, tmp_path):
    """Of one that died, by Ray's error; one that ended by itself has noted it better."""
    progress, said = sweep
    for index, noted in ((0, ""), (1, "diverged: try a lower optim.lr")):
        told, trial = tell(progress, {}, index, 1, 5.0, "ERROR")
        folder = tmp_path / "trials" / trials.life_name(index)
        trials.note(folder, trial.config["trial"], {})
        if noted:
            trials.note_failure(folder, noted)
        trial.error_file = str(tmp_path / "error.txt")
        Path(trial.error_file).write_text("Failure # 1\nno memory\nFailure # 2\nIt died.\nIts process was killed.\n")
        told.on_trial_error(0, [trial], trial)
        reason = noted or "Its process was killed."
        assert trials.failures(tmp_path)[folder.name] == reason
        assert said[-1] == f"{folder.name} failed ({reason}); the sweep goes on"
        assert reason in (tmp_path / trials.TABLE).read_text()
