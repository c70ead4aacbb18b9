import json
import os
import re
import subprocess
import sys
import time
from contextlib import suppress

import psutil
import pytest
from packs import write_small_pack

from nrh_dist import config
from nrh_dist.engine import checkpoint, select
from nrh_dist.errors import UserError
from nrh_dist.launch.train import IDLE_HELPERS, train

PINS = hasattr(os, "sched_setaffinity")  # as Linux does
COMMON = ("preset=tiny", "model.name=dih_nm", "model.width=0.1", "data.val_fraction=0.3", "train.batch_size=4")


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return write_small_pack(tmp_path_factory.mktemp("train"), train=24)


def configured(folder, pack, *words):
    return config.load(None, [*COMMON, f"data.pack={pack.root}", f"run.root={folder}", "run.name=r", *words])


def rows_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_two_ddp_workers_on_ray_train(ray_session, tmp_path, pack):
    said, may_use = [], {}

    def say(line):
        said.append(line)
        may_use.update(cpus_of_workers())

    folder = train(configured(tmp_path, pack, "train.epochs=6", "scale.workers=2"), say)
    rows = rows_of(folder)
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5, 6] and rows[0]["world_size"] == 2
    if PINS:
        allowed = sorted(os.sched_getaffinity(0))
        share = len(allowed) // 2
        assert sorted(may_use.values()) == [allowed[:share], allowed[share : 2 * share]], "each has CPUs of its own"
    assert any("epoch 6 of 6" in line and "images/s" in line for line in said)
    assert select.read_best(folder)["metric"] == "val/loss"
    assert checkpoint.fault(select.resolve(folder)) is None
    again = []
    train(configured(tmp_path, pack, "train.epochs=6", "scale.workers=1"), again.append)
    assert "is finished" in again[-1] and rows_of(folder) == rows


def cpus_of_workers():
    """By process, the CPUs of each worker of a Ray of one's own, whose processes are below this one."""
    found = {}
    for process in psutil.Process().children(recursive=True) if PINS else ():
        with suppress(psutil.Error):
            if any("RayTrainWorker" in word for word in process.cmdline()):
                found[process.pid] = process.cpu_affinity()
    return found


def test_what_is_left_out_of_ray_train_is_there_to_be_left_out(ray_session):
    """A new version of Ray may call it otherwise."""
    from ray.train.torch import TorchTrainer

    assert set(IDLE_HELPERS) <= {type(one).__name__ for one in TorchTrainer(print)._create_default_callbacks()}


def test_an_unnamed_run_on_relative_paths(ray_session, tmp_path, pack, monkeypatch):
    """As the help's example has it; the workers have another working folder."""
    (tmp_path / "pack").symlink_to(pack.root)
    monkeypatch.chdir(tmp_path)
    folder = train(config.load(None, [*COMMON, "data.pack=pack", "train.epochs=1"]), print)
    assert str(folder).startswith("runs/dih_nm-seed0-")
    assert select.read_best(folder)


def test_more_workers_than_cpus_and_workers_mistakes(ray_session, tmp_path, pack):
    with pytest.raises(UserError, match=r"64 workers need 64 CPUs and this Ray has"):
        train(configured(tmp_path, pack, "scale.workers=64"), print)
    with pytest.raises(UserError, match=r"lower optim\.lr"):
        train(configured(tmp_path, pack, "optim.lr=1e30", "run.name=diverges"), print)


@pytest.mark.slow
def test_where_a_minimum_is_given_those_train_that_there_is_room_for(ray_session, tmp_path, pack):
    import ray

    cpus = int(ray.cluster_resources()["CPU"])
    with pytest.raises(UserError, match=f"{cpus + 1} workers need {cpus + 1} CPUs"):
        train(configured(tmp_path, pack, f"scale.min_workers={cpus + 1}", f"scale.workers={cpus + 2}"), print)
    said = []
    words = ["train.epochs=1", "scale.workers=2", "scale.min_workers=1"]
    folder = train(configured(tmp_path, pack, *words), said.append)
    assert any("with 1 to 2 workers" in line for line in said)
    assert [row["world_size"] for row in rows_of(folder)] == [min(2, cpus)]


@pytest.mark.slow
def test_a_killed_driver_continues_from_its_last_checkpoint(tmp_path, pack):
    """As a user does it: nrh train, kill -9, nrh train again."""
    words = [*COMMON, f"data.pack={pack.root}", f"run.root={tmp_path}", "run.name=r", "train.epochs=100"]
    command = [sys.executable, "-m", "nrh_dist", "train", *words]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as first:
        while not len(checkpoint.checkpoints(tmp_path / "r")) >= 2:
            time.sleep(0.05)
        first.kill()
    reached = checkpoint.read_meta(checkpoint.newest(tmp_path / "r").path)["epoch"]
    second = subprocess.run(command, capture_output=True, text=True, check=True)
    # Workers outlive their driver by moments: the second run may find a later epoch than was there at the kill.
    continued = re.search(r"continuing from epoch-(\d+)", second.stdout)
    assert continued and int(continued[1]) >= reached
    assert [row["epoch"] for row in rows_of(tmp_path / "r")] == list(range(1, 101))
