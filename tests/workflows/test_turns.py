"""Trainings that take turns: a stand-in that writes a row every 20 ms, in a process below the one that is started."""

import sys
import time

import psutil
import pytest

from nrh_dist.engine.files import read_lines
from nrh_dist.errors import UserError
from nrh_dist.workflows import turns
from nrh_dist.workflows.turns import training

CHILD = """
import json, pathlib, sys, time
run = pathlib.Path(sys.argv[1])
run.mkdir()
with (run / "metrics.jsonl").open("a", buffering=1) as file:
    for number in range(100_000):
        time.sleep(0.02)
        file.write(json.dumps({"images_per_s": float(number)}) + chr(10))
"""
PARENT = """
import signal, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", *sys.argv[2:]])
if sys.argv[1] == "kind":
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
child.wait()
"""


def command(folder, kind="kind"):
    return [sys.executable, "-c", PARENT, kind, CHILD, str(folder)]


def rows(folder):
    return len(read_lines(folder / "metrics.jsonl"))


def test_one_that_waits_does_nothing(tmp_path):
    with (
        training(command(tmp_path / "a"), tmp_path / "a", 2) as one,
        training(command(tmp_path / "b"), tmp_path / "b", 2) as other,
    ):
        processes = [*one._all(), *other._all()]
        assert len(processes) == 4
        rates = [one.turn(5), other.turn(5), one.turn(5)]
        for rate in rates:
            assert len(rate) == 5 and rate == sorted(rate)
        assert rates[2][0] > rates[0][-1] and rows(tmp_path / "a") > rows(tmp_path / "b")
        before = rows(tmp_path / "a"), rows(tmp_path / "b")
        time.sleep(0.3)
        assert (rows(tmp_path / "a"), rows(tmp_path / "b")) == before
        assert {process.status() for process in processes} == {psutil.STATUS_STOPPED}
    assert not any(process.is_running() for process in processes)


def test_a_parent_may_have_to_go_on(tmp_path):
    with training(command(tmp_path / "a"), tmp_path / "a", 1, parent_waits=False) as one:
        parent, child = one._all()
        assert parent.status() != psutil.STATUS_STOPPED and child.status() == psutil.STATUS_STOPPED


def test_what_outlives_its_end_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(turns, "ENDING_SECONDS", 0.2)
    with training(command(tmp_path / "a", "unkind"), tmp_path / "a", 1) as one:
        _, child = one._all()
    assert not child.is_running()


def test_one_that_fails_says_why(tmp_path):
    failing = [sys.executable, "-c", "import sys; sys.exit('no room')"]
    with pytest.raises(UserError, match="failed and said: no room"), training(failing, tmp_path / "a", 1):
        pass
