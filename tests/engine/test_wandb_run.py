import os
import signal
import subprocess
import sys
import time

import pytest
from tracked import epochs, wait_for_the_end, wandb_folders

from nrh_dist.engine import wandb_process
from nrh_dist.engine.wandb_run import WandbRun

ROW = {"epoch": 1, "step": 3, "val/mse": 4.0}


@pytest.fixture
def said():
    return []


def begin(folder, mode, said, seconds=8.0):
    options = {"mode": mode, "project": "p", "name": "r", "id": "r-1", "config": {}}
    return WandbRun(folder, options, seconds, said.append)


def test_no_sdk_is_no_reason_to_stop(tmp_path, monkeypatch, said):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "wandb.py").write_text("raise RuntimeError('half installed')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "broken"))
    run = begin(tmp_path, "online", said)
    run.tell("log", row=ROW, pictures=[])
    run.finish()
    assert said[-1] == "W&B failed (RuntimeError: half installed): nothing more is tracked"
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    begin(tmp_path, "offline", said).finish()
    assert said[-1] == "W&B failed (No such file or directory): nothing more is tracked"


def test_nobody_waits_for_a_process_that_stands_still(tmp_path, said):
    """More rows than the pipe takes; the process is stopped, as if the machine had swapped it out."""
    run = begin(tmp_path, "offline", said)
    time.sleep(0.5)  # it has a child by then
    os.killpg(run._process.pid, signal.SIGSTOP)
    started = time.monotonic()
    for number in range(8000):
        run.tell("log", row={**ROW, "epoch": number, "filler": "x" * 200}, pictures=[])
    assert time.monotonic() - started < 5
    run.finish()
    assert "nothing more is tracked" in said[-1]


def test_a_worker_that_is_killed_at_once_with_its_children_loses_nothing(tmp_path):
    """As Ray does it when it stops a trial: before the SDK is loaded, and nothing is left to be told of it."""
    code = f"""
import os, signal
from pathlib import Path
from nrh_dist.engine import wandb_process
from nrh_dist.engine.wandb_run import WandbRun
run = WandbRun(Path({str(tmp_path)!r}), {{"mode": "offline", "project": "p", "id": "r-1"}}, 8.0, print)
run.tell("log", row={ROW!r}, pictures=[])
run._process.wait()
for child in Path("/proc/self/task", str(os.getpid()), "children").read_text().split():
    os.kill(int(child), signal.SIGKILL)
os.kill(os.getpid(), signal.SIGKILL)
"""
    environment = {**os.environ, "HOME": str(tmp_path)}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == -signal.SIGKILL
    wait_for_the_end(f"HOME={tmp_path}")
    assert epochs(wandb_folders(tmp_path)[0]) == [1]


@pytest.mark.slow  # counts seconds, which a busy machine has not got
def test_a_kill_of_the_process_itself_loses_a_second_at_most(tmp_path, said):
    """As where the machine goes. By itself the SDK would write every 15 s only."""
    run = begin(tmp_path, "offline", said)
    deadline = time.monotonic() + 60
    while not run._is_gone() and run._about() != wandb_process.TAKEN:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    run.tell("log", row=ROW, pictures=[])
    run.tell("log", row={**ROW, "epoch": 2}, pictures=[])
    time.sleep(4)
    os.killpg(run._process.pid, signal.SIGKILL)
    (folder,) = wandb_folders(tmp_path)
    assert epochs(folder) == [1, 2]
    run.finish()
    assert said == ["W&B failed (no answer in time): nothing more is tracked"]


def test_the_end_is_bounded_by_the_clock_and_an_offline_run_ends_by_itself(tmp_path, monkeypatch, said):
    monkeypatch.setenv("HOME", str(tmp_path))
    run = begin(tmp_path, "offline", said, seconds=2)
    process = run._process.pid
    time.sleep(0.5)  # it has a child by then
    os.killpg(process, signal.SIGSTOP)
    run.tell("log", row=ROW, pictures=[])
    started = time.monotonic()
    run.finish()
    assert 2 <= time.monotonic() - started < 3
    os.killpg(process, signal.SIGCONT)
    wait_for_the_end(f"HOME={tmp_path}")
    (folder,) = wandb_folders(tmp_path)
    assert epochs(folder) == [1] and not said
