import os
import time

import pytest
from tracked import KEY, wandb_folders
from wandb_server import WandbServer

from nrh_dist.engine import track_sync
from nrh_dist.engine.wandb_run import WandbRun
from nrh_dist.errors import UserError


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Nothing of W&B is found but what a test gives."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)


@pytest.fixture
def server(monkeypatch):
    with WandbServer() as one:
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        monkeypatch.setenv("WANDB_BASE_URL", one.url)
        yield one


@pytest.fixture
def said():
    return []


def begin(folder, mode="offline", seconds=60.0, say=print):
    folder.mkdir(exist_ok=True, parents=True)
    return WandbRun(folder, {"mode": mode, "project": "p", "name": "r", "id": "r-1"}, seconds, say)


def live(folder, *epochs, mode="offline", seconds=60.0):
    """One life of a run; returns what it said."""
    said = []
    run = begin(folder, mode, seconds, said.append)
    for epoch in epochs:
        run.tell("log", row={"epoch": epoch, "val/mse": 10.0 / epoch}, pictures=[])
    run.finish()
    return said


def history(server):
    return [row["epoch"] for row in server.store.runs["r-1"]["history"]]


def test_without_a_key_it_says_what_it_would_send(tmp_path, said):
    live(tmp_path / "runs" / "r", 1)
    with pytest.raises(UserError, match=r"no W&B key to send 1 run\(s\)") as caught:
        track_sync.sync([tmp_path], said.append)
    assert "\n" not in str(caught.value)
    assert len(said) == 1 and said[0].startswith(f"{tmp_path / 'runs' / 'r'}: offline-run-")
    with pytest.raises(UserError, match="no folder at"):
        track_sync.sync([tmp_path / "nowhere"], said.append)


def test_the_lives_of_a_run_become_one_history_and_nothing_is_sent_twice(tmp_path, server, said):
    live(tmp_path / "r", 1, 2)
    time.sleep(1)  # W&B names its folders by the second
    live(tmp_path / "r", 3)
    track_sync.sync([tmp_path], said.append)
    assert said[-1] == "sent 2 run(s)" and history(server) == [1, 2, 3]
    sent = len(server.requests)
    track_sync.sync([tmp_path, tmp_path / "r"], said.append)
    assert said[-1] == "W&B has everything already: nothing to send" and len(server.requests) == sent
    live(tmp_path / "r", 4)
    track_sync.sync([tmp_path / "r"], said.append)
    assert said[-1] == "sent 1 run(s)" and history(server) == [1, 2, 3, 4]


@pytest.mark.parametrize("breaks_at", ["running", "finish"])
def test_the_rest_of_an_online_run_that_was_cut(tmp_path, monkeypatch, said, breaks_at):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    with WandbServer("silent", breaks_at) as broken:
        monkeypatch.setenv("WANDB_BASE_URL", broken.url)
        told = live(tmp_path / "r", 1, 2, 3, mode="online", seconds=5.0)
        assert "W&B had not taken everything" in told[0] and f"nrh track sync {tmp_path / 'r'}" in told[0]
    with WandbServer() as server:
        server.store.runs = broken.store.runs
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        track_sync.sync([tmp_path], said.append)
    assert said[-1] == "sent 1 run(s)" and history(server) == [1, 2, 3]


def test_a_run_in_use_is_left_for_later(tmp_path, server, said):
    run = begin(tmp_path / "r")
    run.tell("log", row={"epoch": 1}, pictures=[])
    while not wandb_folders(tmp_path / "r") or not list(wandb_folders(tmp_path / "r")[0].glob("*.wandb")):
        time.sleep(0.1)
    track_sync.sync([tmp_path], said.append)
    assert "being written, left for later" in said[0] and "nothing to send" in said[1]
    run.finish()
    track_sync.sync([tmp_path], said.append)
    assert said[-1] == "sent 1 run(s)" and history(server) == [1]


def test_a_log_that_a_crash_cut_off_is_sent_up_to_there_and_once(tmp_path, server, said):
    live(tmp_path / "r", 1, 2)
    (log,) = wandb_folders(tmp_path / "r")[0].glob("*.wandb")
    os.truncate(log, log.stat().st_size - 20)
    track_sync.sync([tmp_path], said.append)
    track_sync.sync([tmp_path], said.append)
    assert said[-2:] == ["sent 1 run(s)", "W&B has everything already: nothing to send"]
    assert history(server) == [1, 2]


def test_a_server_that_is_down(tmp_path, monkeypatch, said):
    live(tmp_path / "r", 1)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(track_sync, "PATIENCE", dict.fromkeys(track_sync.PATIENCE, "1"))
    with pytest.raises(UserError, match=r"1 of 1 run\(s\) not sent \(.*refused.*\): try the same again") as caught:
        track_sync.sync([tmp_path], said.append)
    assert "\n" not in str(caught.value)
