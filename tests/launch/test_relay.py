"""A driver and workers that share no disk, only a storage and Ray."""

import re

import faulty
import pytest
from packs import write_small_pack
from test_faults import meanwhile, wait_for
from test_train import configured, rows_of

from nrh_dist import config
from nrh_dist.engine import checkpoint, copied
from nrh_dist.engine.notice import ask_to_stop
from nrh_dist.errors import UserError
from nrh_dist.launch import relay, session, train


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return write_small_pack(tmp_path_factory.mktemp("relay"), train=24)


@pytest.fixture
def apart(ray_session, s3, monkeypatch):
    """Workers see another disk than this process; the words that make it so."""
    monkeypatch.setattr(session, "is_local", lambda: False)
    monkeypatch.setattr(train, "_worker", faulty.elsewhere)
    return [f"storage={s3.address}", "scale.workers=2", "scale.gpus_per_worker=0"]


def weights(folder):
    return (checkpoint.newest(folder).path / checkpoint.WEIGHTS).read_bytes()


def untimed(folder):
    return [{key: row[key] for key in row if key not in ("images_per_s", "time_s")} for row in rows_of(folder)]


@pytest.mark.slow
def test_it_stops_says_what_goes_on_and_goes_on_to_the_same_bits(apart, s3, pack, tmp_path, monkeypatch):
    words, said = ["train.epochs=20", "train.batch_size=2"], []
    one = configured(tmp_path, pack, *words, *apart)
    folder, copy = config.run_dir(one), copied.copy_of(one)

    def stop():
        wait_for(lambda: any("epoch 1 of 20" in line for line in said), "a line of the log")
        s3.fail("stall", "PUT .*model", seconds=2)  # the rank that sends nothing waits for it
        ask_to_stop(folder)

    with meanwhile(stop), pytest.raises(UserError) as stopped:
        train.train(one, said.append)
    step = re.fullmatch(r"stopped at step (\d+), as asked: the same command goes on", str(stopped.value))
    assert not checkpoint.checkpoints(folder), "the checkpoint is elsewhere, and in the storage"
    reached = copied.reached(copy, folder)
    assert step and int(reached[-6:]) == int(step[1])
    s3.heal()
    train.train(one, said.append)
    assert any(line == f"continuing from {reached}" for line in said), said
    assert (folder / "train.log").read_text().count("epoch 1 of 20") == 1
    assert not (folder / relay.MARK).exists()
    monkeypatch.setattr(train, "_worker", faulty.REAL_WORKER)
    whole = train.train(configured(tmp_path / "whole", pack, *words, *apart[1:]), print)
    assert untimed(folder) == untimed(whole) and weights(folder) == weights(whole)


def test_a_users_mistake_is_the_users_at_once(apart, pack, tmp_path):
    said = []
    with pytest.raises(UserError, match=r"lower optim\.lr"):
        train.train(configured(tmp_path, pack, "optim.lr=1e30", *apart), said.append)
    assert not any("starting again" in line for line in said), said


@pytest.mark.slow
def test_on_the_drivers_disk_nothing_is_told_twice(ray_session, pack, tmp_path, s3, monkeypatch):
    monkeypatch.setattr(session, "is_local", lambda: False)
    said = []
    words = ["train.epochs=2", f"storage={s3.address}", "scale.gpus_per_worker=0"]
    folder = train.train(configured(tmp_path, pack, *words), said.append)
    assert sum(line.startswith("epoch 2 of 2") for line in said) == 1
    assert (folder / "train.log").read_text().count("epoch 2 of 2") == 1
