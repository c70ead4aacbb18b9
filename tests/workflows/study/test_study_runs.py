"""Trainings side by side in processes of their own: stopped, killed, diverged, and gone on with."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from packs import write_small_pack

from nrh_dist import config
from nrh_dist.engine import rundir
from nrh_dist.engine.files import read_lines
from nrh_dist.errors import UserError
from nrh_dist.workflows.study.runs import MARK, Run, Trainer

TINY = ["preset=tiny", "model.width=0.1", "model.name=dih_nm", "data.val_fraction=0.3", "track.wandb=disabled"]
LONG = "train.epochs=400"


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return write_small_pack(tmp_path_factory.mktemp("pack"))


def trainer(folder, pack, said=None):
    return Trainer(folder, [*TINY, f"data.pack={pack.root}"], (said if said is not None else []).append)


def wait_for(found, seconds=60.0):
    until = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < until
        time.sleep(0.1)


def alive(name):
    """The processes that train the run of this name."""
    return [
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if f"run.name={name}\0".encode() in _read(path) and b"study.child" in _read(path)
    ]


def _read(path):
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_all_are_trained_and_a_finished_one_is_not_trained_again(pack, tmp_path):
    said = []
    one = trainer(tmp_path, pack, said)
    runs = [Run(f"seed-{seed}", ("train.epochs=1", f"seed={seed}")) for seed in range(2)]
    values = one.train("both", runs)
    assert {*values} == {"seed-0", "seed-1"} and all(value > 0 for value in values.values())
    assert said[0] == f"both: 2 of 2 trainings, {one.count} at once"
    said.clear()
    assert one.train("both", runs) == values and said == []


def test_one_that_diverges_has_no_result_or_ends_the_study(pack, tmp_path):
    said = []
    one = trainer(tmp_path, pack, said)
    wild = Run("wild", ("train.epochs=2", "optim.lr=1e30"), may_diverge=True)
    assert one.train("rates", [wild]) == {} and "try a lower optim.lr" in said[1]
    said.clear()
    assert one.train("rates", [wild]) == {} and said == [], "that it diverged is remembered"
    with pytest.raises(UserError, match=r"strict failed and said: .*try a lower optim\.lr"):
        one.train("seeds", [Run("strict", wild.words)])


def test_what_was_good_before_it_diverged_is_no_result(pack, tmp_path):
    one, late = trainer(tmp_path, pack), Run("late", ("train.epochs=2",), may_diverge=True)
    assert one.train("rates", [late])["late"] > 0
    (one.path("late") / MARK).touch()
    assert one.train("rates", [late]) == {}


def test_an_end_lets_trainings_save(pack, tmp_path):
    """A mistake of one ends the other, which goes on where it was."""
    one = trainer(tmp_path, pack)
    folder = tmp_path / "runs" / "long"

    def fail_later():
        wait_for(lambda: len(read_lines(folder / "metrics.jsonl")) > 2)
        os.kill(alive("bad")[0], signal.SIGKILL)

    killer = threading.Thread(target=fail_later)
    killer.start()
    with pytest.raises(UserError, match="bad ended with exit code -9"):
        one.train("both", [Run("long", (LONG,)), Run("bad", (LONG, "seed=1"))])
    killer.join()
    assert not alive("long")
    done = len(read_lines(folder / "metrics.jsonl"))
    assert "stopped at step" in (tmp_path / "logs" / "long.log").read_text()
    short = Run("long", (f"train.epochs={done + 1}",))
    assert not rundir.is_finished(folder, config.load(None, [*TINY, *short.words]))


@pytest.mark.parametrize("while_it_starts", [False, True])
def test_a_killed_study_leaves_no_training_behind(pack, tmp_path, while_it_starts):
    words = [*TINY, f"data.pack={pack.root}"]
    code = "from pathlib import Path; from nrh_dist.workflows.study.runs import MARK, Run, Trainer\n"
    code += f"run = Run('orphan', ({LONG!r},)); Trainer(Path({str(tmp_path)!r}), {words!r}, print).train('one', [run])"
    driver = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    wait_for(lambda: alive("orphan") if while_it_starts else read_lines(tmp_path / "runs" / "orphan" / "metrics.jsonl"))
    driver.kill()
    driver.wait()
    wait_for(lambda: not alive("orphan"), 30)
    assert while_it_starts or "stopped at step" in (tmp_path / "logs" / "orphan.log").read_text()
