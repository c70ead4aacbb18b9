"""What workers do besides training: a log that no full disk stops, and reports that wait for the storage."""

import os

import pytest
from packs import write_small_pack

from nrh_dist import config
from nrh_dist.engine import checkpoint
from nrh_dist.engine.dist import Place
from nrh_dist.engine.run import run
from nrh_dist.engine.storage import open_storage
from nrh_dist.launch import spawned, worker
from nrh_dist.launch import train as training


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_full_disk_costs_a_line_of_the_log(tmp_path):
    (tmp_path / worker.LOG).symlink_to("/dev/full")
    with worker.logged(tmp_path) as say:
        say("nothing of this is kept")


def test_the_log_is_gone_on_with(tmp_path):
    for line in ("one", "zwei ü"):
        with worker.logged(tmp_path) as say:
            say(line)
    assert (tmp_path / worker.LOG).read_text(encoding="utf-8") == "one\nzwei ü\n"


def test_workers_of_a_trial_report_what_the_storage_has(tmp_path, monkeypatch):
    """Tune may end them as soon as it knows of an epoch."""
    given = []
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(spawned, "torchrun_place", lambda gpus: Place())
    monkeypatch.setattr(spawned, "work", lambda *_, settled: given.append(settled))
    spawned._worker(0, os.getppid(), 1, 1, 1, 0.0, config.load(None, []), "pack", str(tmp_path))
    assert given == [True]


def test_a_finished_run_sends_what_its_end_could_not(tmp_path, s3):
    pack = write_small_pack(tmp_path, train=16)
    words = ["preset=tiny", "model.width=0.1", "model.name=dih_nm", "data.val_fraction=0.3", "train.epochs=1"]
    words += [f"data.pack={pack.root}", f"run.root={tmp_path}", "run.name=one"]
    run(config.load(None, words), pack.root, Place(), lambda _: None, lambda _: None)
    folder, said = tmp_path / "one", []
    assert training.train(config.load(None, [*words, f"storage={s3.address}"]), said.append) == folder
    assert "is finished" in said[-1]
    newest, copy = checkpoint.newest(folder).path, open_storage(s3.address).child("one")
    assert copy.read(f"checkpoints/{newest.name}/manifest.json") == (newest / "manifest.json").read_bytes()
    assert copy.read("metrics.jsonl") == (folder / "metrics.jsonl").read_bytes()
