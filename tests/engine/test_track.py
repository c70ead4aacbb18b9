import json
import subprocess
import sys

import pytest
import wandb

from nrh_dist import config
from nrh_dist.engine import track

ROW = {"epoch": 1, "step": 3, "val/mse": 4.0}


def test_rows_of_epochs_done_again_are_replaced(tmp_path):
    for epoch in (1, 2, 3):
        track.append_row(tmp_path, {"epoch": epoch, "step": epoch})
    track.append_row(tmp_path, {"epoch": 2, "step": 20})
    assert [row["step"] for row in track.rows_up_to(tmp_path, 9)] == [1, 20]
    track.drop_rows_after(tmp_path, 1)
    assert [row["epoch"] for row in track.rows_up_to(tmp_path, 9)] == [1]


def test_a_line_cut_off_by_a_crash_is_left_out(tmp_path):
    (tmp_path / track.METRICS).write_text(json.dumps(ROW) + '\n{"epoch": 2, "st')
    assert track.rows_up_to(tmp_path, 9) == [ROW]


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
    shown = subprocess.run(
        [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(run)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "my-sweep" in shown and "model.name" in shown
    assert shown.count("val/mse") >= 2


def test_a_failing_tracker_does_not_stop_training(tmp_path, monkeypatch, capsys):
    class Run:
        def define_metric(self, *_, **__): ...

        def log(self, *_):
            raise ConnectionError("gone")

        def finish(self):
            raise AssertionError("must not be reached after a failure")

    calls = []

    def init(mode, **_):
        calls.append(mode)
        if mode == "online":
            raise wandb.errors.CommError("no server")
        return Run()

    monkeypatch.setattr(wandb, "init", init)
    tracker = track.WandbTracker(config.load(None, []), tmp_path, "online")
    assert calls == ["online", "offline"]
    tracker.log(ROW)
    tracker.finish()
    assert "training goes on without it" in capsys.readouterr().out


def _environment():
    import os

    return {key: value for key, value in os.environ.items() if not key.startswith("WANDB")}
