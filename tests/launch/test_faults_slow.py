"""Whole runs with a Ray of their own that are signalled, and workers that a signal stopped. Minutes."""

import os
import re
import signal
import subprocess
import time

import pytest
from packs import write_small_pack
from test_faults import (
    DEADLINE,
    command,
    meanwhile,
    newest_step,
    processes,
    require_stopped_at_a_checkpoint,
    require_whole,
    signalled,
    wait_for,
)
from test_train import configured

from nrh_dist import config
from nrh_dist.engine import checkpoint
from nrh_dist.launch import train

pytestmark = pytest.mark.slow
WORDS = ["train.epochs=40", "data.val_fraction=0.5", "train.batch_size=1"]


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return write_small_pack(tmp_path_factory.mktemp("faults"), train=24)


def require_going_on(words, folder):
    """The same command ends well, with every epoch."""
    reached = newest_step(folder)
    second = subprocess.run(words, capture_output=True, text=True, timeout=2 * DEADLINE)
    assert second.returncode == 0, second.stderr[-2000:]
    continued = re.search(r"continuing from epoch-\d+-step-(\d+)", second.stdout)
    assert continued and int(continued[1]) >= reached
    require_whole(folder, 40, second.stdout.splitlines())


@pytest.mark.parametrize(("number", "group"), [(signal.SIGTERM, False), (signal.SIGINT, True)], ids=["term", "ctrl-c"])
def test_a_signal_saves_a_checkpoint_and_stops(tmp_path, pack, number, group):
    """SIGTERM as Kubernetes sends it, to the one process; Ctrl-C as a terminal does, to its whole group."""
    words = command(tmp_path, pack, *WORDS)
    ended = signalled(words, tmp_path / "r", number, group=group)
    print(ended)
    require_stopped_at_a_checkpoint(ended, tmp_path / "r")
    require_going_on(words, tmp_path / "r")


def test_sigterm_of_every_process_at_once(tmp_path, pack):
    """As scancel and systemd send it: Ray itself goes, there is no time for a checkpoint, and nothing is spoilt."""
    words = command(tmp_path, pack, *WORDS)
    ended = signalled(words, tmp_path / "r", signal.SIGTERM, group=True)
    print(ended)
    assert ended.code != 0 and ended.seconds < 60
    require_going_on(words, tmp_path / "r")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_that_a_signal_stopped_is_replaced(ray_session, tmp_path, pack, workers):
    """SIGSTOP: alone it does not answer Ray, of two the other one waits for it in vain."""
    one = configured(tmp_path, pack, *WORDS, f"scale.workers={workers}", "scale.hang_seconds=10")
    folder, seen = config.run_dir(one), {}

    def stop():
        wait_for(lambda: checkpoint.checkpoints(folder), "a checkpoint")
        seen["stopped"] = processes("RayTrainWorker")[-1]
        os.kill(seen["stopped"], signal.SIGSTOP)
        started = time.monotonic()
        wait_for(lambda: seen["stopped"] not in processes("RayTrainWorker"), "the end of the stopped worker")
        seen["seconds"] = time.monotonic() - started

    said = []
    with meanwhile(stop):
        train.train(one, said.append)
    print(seen, said)
    assert any("died" in line and "starting again" in line for line in said)
    assert seen["seconds"] < 60
    require_whole(folder, 40, said)
