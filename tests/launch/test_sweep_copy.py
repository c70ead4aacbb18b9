import csv
import shutil
from contextlib import nullcontext

import faulty
import pytest
from packs import write_small_pack
from test_faults import meanwhile, wait_for

from nrh_dist.engine import checkpoint, notice, select, storage
from nrh_dist.engine.files import read_lines
from nrh_dist.engine.storage import StorageProblem, open_storage
from nrh_dist.errors import UserError
from nrh_dist.launch import session, space
from nrh_dist.launch import tune as tuning
from nrh_dist.launch.sweep_copy import NoCopy, SweepCopy, copy_of
from nrh_dist.launch.tune import tune

SPACE = """\
metric: val/mse
trials: 2
scheduler: {none: {max_epochs: 2}}
base: {preset: tiny, model.name: dih_nm, model.width: 0.1, data.val_fraction: 0.3}
space:
  optim.lr: {choice: [0.001, 0.002]}
"""


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return write_small_pack(tmp_path_factory.mktemp("copy"), train=16)


@pytest.fixture
def copy(s3, tmp_path):
    (tmp_path / "sweep").mkdir()
    return copy_of(s3.address, tmp_path / "sweep")


def place_of(s3):
    return open_storage(s3.address).child("sweep")


def written(folder, name, content):
    path = folder / "sweep" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def test_who_got_further_wins(s3, copy, tmp_path):
    place = place_of(s3)
    for trial, rows in (("t0000", "1\n2\n"), ("t0001", "1\n"), ("t0002", "1\n")):
        place.put(rows.encode(), f"trials/{trial}/metrics.jsonl")
        place.put(b"there", f"trials/{trial}/best.json")
        place.put(b"there", f"trials/{trial}/train.log")
        place.put(b"x", f"trials/{trial}/checkpoints/epoch-0001-step-000001/model.safetensors")
    written(tmp_path, "trials/t0000/metrics.jsonl", "1\n")
    written(tmp_path, "trials/t0000/best.json", "here")
    written(tmp_path, "trials/t0000/train.log", "here")
    written(tmp_path, "trials/t0001/metrics.jsonl", "1\n2\n")
    written(tmp_path, "trials/t0001/best.json", "here")
    copy.fetch()
    found = {
        str(path.relative_to(tmp_path / "sweep")): path.read_text()
        for path in (tmp_path / "sweep").rglob("*")
        if path.is_file()
    }
    assert found == {
        "trials/t0000/metrics.jsonl": "1\n2\n",
        "trials/t0000/best.json": "there",
        "trials/t0000/train.log": "there",
        "trials/t0001/metrics.jsonl": "1\n2\n",
        "trials/t0001/best.json": "here",
        "trials/t0001/train.log": "there",
        "trials/t0002/metrics.jsonl": "1\n",
        "trials/t0002/best.json": "there",
        "trials/t0002/train.log": "there",
    }


def test_where_the_copy_is_does_not_tell_one_sweep_from_another(tmp_path):
    (tmp_path / "space.yaml").write_text(SPACE)
    plain, stored = (space.read(tmp_path / "space.yaml", words) for words in ([], ["storage=s3://a/b", "run.name=x"]))
    assert tuning._identity(plain) == tuning._identity(stored)
    assert tuning._identity(plain) != tuning._identity(space.read(tmp_path / "space.yaml", ["seed=1"]))


def test_the_drivers_files_and_notes_are_sent_once_and_forgotten_on_demand(s3, copy, tmp_path):
    written(tmp_path, "trials.csv", "a")
    written(tmp_path, "trials/t0000/stopped.json", "{}")
    written(tmp_path, "trials/t0001/failure.json", "{}")
    written(tmp_path, "trials/t0000/train.log", "the trial's own")
    copy.send()
    names = {"trials.csv", "trials/t0000/stopped.json", "trials/t0001/failure.json"}
    assert set(place_of(s3).sizes()) == names
    sent = len(s3.seen)
    copy.send()
    assert not [line for line in s3.seen[sent:] if line.startswith("PUT")]
    written(tmp_path, "trials.csv", "ab")
    copy.send()
    assert place_of(s3).read("trials.csv") == b"ab"
    place_of(s3).put(b"{}", "best.json")
    place_of(s3).put(b"{}", "trials/t0000/best.json")
    copy.reopen()
    assert set(place_of(s3).sizes()) == names - {"trials/t0001/failure.json"} | {"trials/t0000/best.json"}


def test_another_sweep_of_that_name(s3, copy, tmp_path):
    assert not copy.holds_a_sweep()
    place_of(s3).put(b"{}", "sweep.json")
    assert copy.holds_a_sweep()
    written(tmp_path, "sweep.json", '{"other": 1}')
    with pytest.raises(UserError, match=r"s3://.* holds another sweep: choose another run\.name"):
        copy.fetch()


def test_a_storage_that_fails_for_a_while_is_said_once_and_stops_nothing(s3, copy, monkeypatch):
    monkeypatch.setattr("nrh_dist.launch.sweep_copy.SECONDS", 0.05)
    calls, said = [], []

    def fetch():
        calls.append(1)
        if len(calls) < 4:
            raise StorageProblem("the storage fails")

    monkeypatch.setattr(copy, "fetch", fetch)
    with copy.followed(said.append):
        while len(calls) < 6:
            pass
    assert said == ["the storage fails; the sweep goes on"]


def test_without_storage_there_is_no_copy(tmp_path):
    assert isinstance(copy_of(None, tmp_path), NoCopy)
    assert isinstance(copy_of(str(tmp_path), tmp_path), SweepCopy)


def rows_of(folder):
    with (folder / "trials.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_a_sweep_goes_on_on_an_empty_disk(ray_session, s3, pack, tmp_path):
    space = tmp_path / "space.yaml"
    space.write_text(SPACE)
    words = [f"data.pack={pack.root}", f"run.root={tmp_path / 'one'}", "run.name=sweep", f"storage={s3.address}"]
    folder = tune(space, words, False, print)
    before, best = rows_of(folder), select.read_best(folder)
    there = set(place_of(s3).sizes())
    assert {
        "sweep.json",
        "trials.csv",
        "best.json",
        "trials/t0001/metrics.jsonl",
        "trials/t0001/assignment.json",
    } <= there
    assert any(name.startswith("trials/t0000/checkpoints/") for name in there)

    # All is lost but the storage, of which the second trial is gone as well.
    shutil.rmtree(folder)
    place_of(s3).remove("best.json")
    place_of(s3).remove_folder("trials/t0001")
    words[1] = f"run.root={tmp_path / 'two'}"
    again = tune(space, words, True, print)
    assert rows_of(again) == before
    assert (again / "trials" / "t0000" / "train.log").read_text().count("epoch 1") <= 1, "it is not trained again"
    found = select.read_best(again)
    assert (found["value"], found["checkpoint"].name) == (best["value"], best["checkpoint"].name)
    assert checkpoint.fault(select.resolve(again)) is None

    shutil.rmtree(again)
    said = []
    tune(space, words, False, said.append)
    assert "is finished" in said[-1] and checkpoint.fault(select.resolve(again)) is None


@pytest.mark.parametrize(
    ("schedule", "trials"),
    [
        pytest.param("asha: {max_epochs: 2, grace_epochs: 1, reduction_factor: 2}", 3, id="asha"),
        pytest.param("hyperband: {max_epochs: 2}", 2, id="hyperband", marks=pytest.mark.slow),
    ],
)
def test_trials_on_other_disks_share_nothing_but_the_storage(
    ray_session, s3, pack, tmp_path, monkeypatch, schedule, trials
):
    """Also what Ray keeps of them while it runs: it would look for the driver's folder on their machine."""
    monkeypatch.setattr(session, "is_local", lambda: False)
    monkeypatch.setattr(tuning, "train_trial", faulty.train_trial_elsewhere)
    monkeypatch.chdir(tmp_path)
    space = tmp_path / "space.yaml"
    space.write_text(SPACE.replace("none: {max_epochs: 2}", schedule).replace("trials: 2", f"trials: {trials}"))
    words = [f"data.pack={pack.root}", "run.root=runs", "run.name=sweep", f"storage={s3.address}"]
    folder = tune(space, words, False, print)
    assert {row["status"] for row in rows_of(folder)} <= {"finished", "stopped early"}
    assert checkpoint.fault(select.resolve(folder)) is None
    pointers = [line for line in s3.seen if line.startswith("PUT") and "pointer.json" in line]
    assert pointers and all("/kept/sweep/.ray/" in line for line in pointers)
    there = place_of(s3).location
    assert not [path for path, _ in storage._Files(there).listed(there.path) if "/.ray/" in path]
    assert not (folder / tuning.RECORD).exists()


@pytest.mark.slow
def test_trials_on_other_disks_save_when_the_sweep_is_asked_to_stop(ray_session, s3, pack, tmp_path, monkeypatch):
    """And go on from there, each epoch once."""
    monkeypatch.setattr(session, "is_local", lambda: False)
    monkeypatch.setattr(tuning, "train_trial", faulty.train_trial_elsewhere)
    monkeypatch.setattr(tuning, "STOP_SECONDS", 1e6)  # the trials end the wait
    monkeypatch.chdir(tmp_path)
    space = tmp_path / "space.yaml"
    space.write_text(SPACE.replace("none: {max_epochs: 2}", "none: {max_epochs: 40}"))
    words = [f"data.pack={pack.root}", "run.root=runs", "run.name=sweep", f"storage={s3.address}"]
    folder, ask = tmp_path / "runs" / "sweep", []

    def stopping(asked, say):
        ask.append(asked)
        return nullcontext()

    monkeypatch.setattr(tuning.session, "stopping", stopping)

    def stop():
        rows = tmp_path / "elsewhere" / "runs" / "sweep" / "trials" / "t0000" / "metrics.jsonl"
        wait_for(lambda: rows.exists() and rows.read_text().count("\n") >= 2, "two epochs")
        ask[0]()

    with meanwhile(stop), pytest.raises(notice.Stopped, match="--resume"):
        tune(space, words, False, print)
    statuses = {row["status"] for row in rows_of(folder)}
    assert "finished" not in statuses and not list(folder.glob("trials/*/failure*"))
    tune(space, words, True, print)
    assert {row["status"] for row in rows_of(folder)} == {"finished"}
    trials = [*(tmp_path / "elsewhere" / "runs" / "sweep" / "trials").glob("t*")]
    assert any("continuing from" in (trial / "train.log").read_text() for trial in trials)
    for trial in trials:
        assert [row["epoch"] for row in read_lines(trial / "metrics.jsonl")] == [*range(1, 41)]


def test_weights_that_are_taken_over_by_path_need_one_disk(ray_session, s3, pack, tmp_path, monkeypatch):
    space = tmp_path / "space.yaml"
    space.write_text(SPACE.replace("{none: {max_epochs: 2}}", "{pbt: {max_epochs: 2, interval_epochs: 1}}"))
    monkeypatch.setattr(session, "is_local", lambda: False)
    words = [f"data.pack={pack.root}", f"run.root={tmp_path}", "run.name=sweep", f"storage={s3.address}"]
    with pytest.raises(UserError, match="takes weights over by their path"):
        tune(space, words, False, print)
