import os
import signal
import sys
import time

import pytest
from tracked import epochs, wait_for_the_end, wandb_folders

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
    os.kill(run._process.pid, signal.SIGSTOP)
    started = time.monotonic()
    for number in range(8000):
        run.tell("log", row={**ROW, "epoch": number, "filler": "x" * 200}, pictures=[])
    assert time.monotonic() - started < 5
    run.finish()
    assert "nothing more is tracked" in said[-1]


def test_the_end_is_bounded_by_the_clock_and_an_offline_run_ends_by_itself(tmp_path, monkeypatch, said):
    monkeypatch.setenv("HOME", str(tmp_path))
    run = begin(tmp_path, "offline", said, seconds=2)
    process = run._process.pid
    os.kill(process, signal.SIGSTOP)
    run.tell("log", row=ROW, pictures=[])
    started = time.monotonic()
    run.finish()
    assert 2 <= time.monotonic() - started < 3
    os.kill(process, signal.SIGCONT)
    os.waitpid(process, 0)
    wait_for_the_end(f"HOME={tmp_path}")
    (folder,) = wandb_folders(tmp_path)
    assert epochs(folder) == [1] and not said
