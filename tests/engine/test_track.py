import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest
from packs import write_small_pack
from wandb_server import WandbServer

from nrh_dist import config
from nrh_dist.engine import checkpoint, select, track
from nrh_dist.engine.files import write_lines

ROW = {"epoch": 1, "step": 3, "val/mse": 4.0}


def test_rows_of_epochs_done_again_are_replaced(tmp_path):
    for epoch in (1, 2, 3):
        track.append_row(tmp_path, {"epoch": epoch, "step": epoch})
    track.append_row(tmp_path, {"epoch": 2, "step": 20})
    assert [row["step"] for row in track.rows_up_to(tmp_path, 9)] == [1, 20]
    track.drop_rows_after(tmp_path, 1)
    assert [row["epoch"] for row in track.rows_up_to(tmp_path, 9)] == [1]


def test_lines_cut_off_by_a_crash_or_damaged_are_left_out(tmp_path):
    lines = [json.dumps(ROW).encode(), b"\xff\x00", b"null", b'{"fpoch": 2}', json.dumps({**ROW, "epoch": 3}).encode()]
    (tmp_path / track.METRICS).write_bytes(b"\n".join([*lines, b'{"epoch": 4, "st']))
    assert track.rows_up_to(tmp_path, 9) == [ROW, {**ROW, "epoch": 3}]


def test_a_file_that_cannot_be_written_leaves_nothing_behind(tmp_path):
    track.append_row(tmp_path, ROW)
    (tmp_path / track.METRICS).rename(tmp_path / "rows")
    (tmp_path / track.METRICS).mkdir()
    with pytest.raises(OSError, match="Is a directory"):
        write_lines(tmp_path / track.METRICS, [ROW])
    assert sorted(path.name for path in tmp_path.iterdir()) == [track.METRICS, "rows"]


@pytest.mark.parametrize(
    ("environment", "key", "asked", "expected"),
    [
        ("", "", "online", "offline"),
        ("", "secret", "online", "online"),
        ("", "", "offline", "offline"),
        ("disabled", "secret", "online", "disabled"),
        ("offline", "secret", "disabled", "offline"),
    ],
)
def test_mode(monkeypatch, tmp_path, environment, key, asked, expected):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in (("WANDB_MODE", environment), ("WANDB_API_KEY", key)):
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name, raising=False)
    assert track.wandb_mode(config.load(None, [f"track.wandb={asked}"])) == expected


def test_offline_runs_hold_group_config_and_history(tmp_path):
    """In a process of its own, as the SDK leaves threads behind; read back with W&B's own reader."""
    code = f"""
from pathlib import Path
from nrh_dist import config
from nrh_dist.engine import track
one = config.load(None, ["track.group=my-sweep", "run.name=t0001"])
tracker = track.open_tracker(one, Path({str(tmp_path)!r}))
for epoch in (1, 2):
    tracker.log({{"epoch": epoch, "val/mse": 10.0 / epoch}})
tracker.finish()
"""
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={**_environment(), "WANDB_MODE": "offline"}, timeout=120
    )
    (run,) = (tmp_path / "wandb").glob("offline-run-*")
    shown = inspected(run)
    assert "my-sweep" in shown and "model.name" in shown
    assert shown.count("val/mse") >= 2


# A small real training; tells how long the tracker held it, and waits after the first epoch until W&B had its say, so
# that the run is under way when the fault comes.
TRAINING = """
import sys, time
from nrh_dist.engine import run, track

class Timed(track.WandbTracker):
    held = 0.0
    def log(self, row):
        started = time.monotonic()
        super().log(row)
        Timed.held = max(Timed.held, time.monotonic() - started)
        while sys.argv[1] != "init" and self._process.poll() is None and self._about() != b"!":
            time.sleep(0.02)
    def finish(self):
        started = time.monotonic()
        super().finish()
        print("TIMES", Timed.held, time.monotonic() - started)

track.WandbTracker = Timed
run.main(sys.argv[2:])
"""
EPOCHS = 3
KEY = "0f1e2d3c4b" * 4


class Trained(NamedTuple):
    folder: Path
    output: str
    held: float  # seconds, the longest log of a row
    finish: float  # seconds

    def result(self):
        """Everything that a tracker must not change: rows but for their times, and the bytes of the weights."""
        rows = track.rows_up_to(self.folder, EPOCHS)
        timeless = [{key: row[key] for key in row if key not in ("time_s", "images_per_s")} for row in rows]
        best = select.resolve(self.folder)
        return timeless, best.name, (best / checkpoint.WEIGHTS).read_bytes()


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return write_small_pack(tmp_path_factory.mktemp("track")).root


def train(pack, folder, mode, url="", breaks_at="init"):
    words = ["preset=tiny", "model.name=dih_nm", "model.width=0.1", f"data.pack={pack}", "data.val_fraction=0.3"]
    words += [f"train.epochs={EPOCHS}", f"run.root={folder}", "run.name=r", f"track.wandb={mode}"]
    environment = _environment() | {"WANDB_BASE_URL": url, "WANDB_API_KEY": KEY, "HOME": str(folder)}
    command = [sys.executable, "-c", TRAINING, breaks_at, *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    times = re.search(r"TIMES (\S+) (\S+)", done.stdout)
    return Trained(folder / "r", done.stdout, *(map(float, times.groups()) if times else (0.0, 0.0)))


@pytest.fixture(scope="module")
def untracked(pack, tmp_path_factory):
    """What training gives without a tracker."""
    return train(pack, tmp_path_factory.mktemp("untracked"), "disabled").result()


def test_rows_come_to_a_server_and_training_is_the_same(pack, untracked, tmp_path):
    with WandbServer() as server:
        trained = train(pack, tmp_path, "online", server.url, "running")
        requests = list(server.requests)
    assert trained.result() == untracked
    (created, *_) = [text for _, text in requests if "mutation UpsertBucket" in text]
    assert json.loads(created)["variables"]["groupName"] == "dih_nm"
    sent = "".join(text for path, text in requests if path.endswith("/file_stream"))
    assert sent.count("val/mse") >= EPOCHS
    assert_clean(trained.folder, server.url)


FAULTS = ("refuse", "silent", "error", "text", "truncated")
FAST = ("silent", "init")


@pytest.mark.parametrize(
    ("fault", "breaks_at"),
    [
        pytest.param(fault, breaks_at, marks=[] if (fault, breaks_at) == FAST else pytest.mark.slow)
        for fault in FAULTS
        for breaks_at in ("init", "running", "finish")
    ],
)
def test_whatever_the_server_does_training_is_the_same(pack, untracked, tmp_path, fault, breaks_at):
    """Losses and weights to the bit; no row waits; the end comes soon; the key is in no file; no process stays."""
    with WandbServer(fault, breaks_at) as server:
        trained = train(pack, tmp_path, "online", server.url, breaks_at)
        assert server.broken.is_set()
    print(f"{fault} at {breaks_at}: a row held {trained.held:.3f} s, the end took {trained.finish:.1f} s")
    assert trained.result() == untracked
    assert trained.held < 1
    if breaks_at == "init":  # begun again on this machine, which may be busy
        assert "W&B does not answer (" in trained.output and "tracked offline" in trained.output
        assert inspected(next((trained.folder / "wandb").glob("offline-run-*"))).count("val/mse") >= EPOCHS
    else:
        assert trained.finish < track.FINISH_SECONDS + 1
        assert inspected(next((trained.folder / "wandb").glob("run-*"))).count("val/mse") >= EPOCHS
    assert_clean(trained.folder, server.url)


def test_no_sdk_is_no_reason_to_stop(tmp_path, monkeypatch, capsys):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "wandb.py").write_text("raise RuntimeError('half installed')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "broken"))
    tracker = track.WandbTracker(config.load(None, []), tmp_path, "online")
    tracker.log(ROW)
    tracker.finish()
    assert "W&B failed (RuntimeError: half installed): training goes on without it" in capsys.readouterr().out
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    track.WandbTracker(config.load(None, []), tmp_path, "offline").finish()
    assert "W&B failed (No such file or directory)" in capsys.readouterr().out


def test_rows_do_not_wait_for_a_process_that_stands_still(tmp_path, capsys):
    """More rows than the pipe takes; the process is stopped, as if the machine had swapped it out."""
    tracker = track.WandbTracker(config.load(None, []), tmp_path, "offline")
    os.kill(tracker._process.pid, signal.SIGSTOP)
    started = time.monotonic()
    for number in range(8000):
        tracker.log({**ROW, "epoch": number, "filler": "x" * 200})
    assert time.monotonic() - started < 5
    tracker.finish()
    assert "training goes on without it" in capsys.readouterr().out


def inspected(run):
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(run)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def assert_clean(folder, url):
    """The key is in no file, and no process that was started for the run is there still."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 5
    assert not [path for path in files if KEY.encode() in path.read_bytes()]
    for _ in range(100):
        if not (left := [path for path in Path("/proc").glob("[0-9]*/environ") if _holds(path, url)]):
            return
        time.sleep(0.1)
    raise AssertionError(f"left over: {[(path.parent / 'cmdline').read_text() for path in left]}")


def _holds(environ, text):
    try:
        return text.encode() in environ.read_bytes()
    except OSError:
        return False


def _environment():
    return {key: value for key, value in os.environ.items() if not key.startswith("WANDB")}
