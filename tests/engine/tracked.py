"""A small real training with W&B beside it, in a process of its own, and what it left."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from nrh_dist.engine import checkpoint, select, track

EPOCHS = 3
KEY = "0f1e2d3c4b" * 4
# Tells how long the tracker held the training: to open, to log a row, to end. Waits after the first epoch until W&B had
# its say, so that the run is under way when a fault comes; is killed after an epoch, as by a machine that goes down,
# where one is named.
SCRIPT = """
import os, signal, sys, time
from nrh_dist.engine import run, track

class Timed(track.WandbTracker):
    held = opening = 0.0
    def __init__(self, *given):
        started = time.monotonic()
        super().__init__(*given)
        Timed.opening = time.monotonic() - started
    def log(self, row, draw):
        started = time.monotonic()
        super().log(row, draw)
        Timed.held = max(Timed.held, time.monotonic() - started)
        one = self._run
        while sys.argv[1] != "init" and one._process and not one._is_gone() and one._about() != b"!":
            time.sleep(0.02)
        if row["epoch"] == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
    def finish(self):
        started = time.monotonic()
        super().finish()
        print("TIMES", Timed.opening, Timed.held, time.monotonic() - started)

track.WandbTracker = Timed
run.main(sys.argv[3:])
"""


class Trained(NamedTuple):
    folder: Path
    output: str
    opening: float  # seconds
    held: float  # seconds, the longest log of a row
    finish: float  # seconds

    def result(self) -> Any:
        """Everything that a tracker must not change: rows but for their times, and the bytes of the weights."""
        rows = track.rows_up_to(self.folder, EPOCHS)
        timeless = [{key: row[key] for key in row if key not in ("time_s", "images_per_s")} for row in rows]
        best = select.resolve(self.folder)
        return timeless, best.name, (best / checkpoint.WEIGHTS).read_bytes()


def train(pack, root, mode, *words, url="", breaks_at="init", killed_after=0) -> Trained:
    """Train ``root/r`` on ``pack``; ``words`` are more configuration."""
    given = ["preset=tiny", "model.name=dih_nm", "model.width=0.1", f"data.pack={pack}", "data.val_fraction=0.3"]
    given += [f"train.epochs={EPOCHS}", f"run.root={root}", "run.name=r", f"track.wandb={mode}", *words]
    command = [sys.executable, "-c", SCRIPT, breaks_at, str(killed_after), *given]
    done = subprocess.run(command, env=environment(root, url), capture_output=True, text=True, timeout=300)
    assert done.returncode == (-9 if killed_after else 0), done.stderr
    times = re.search(r"TIMES (\S+) (\S+) (\S+)", done.stdout)
    return Trained(root / "r", done.stdout, *(map(float, times.groups()) if times else (0.0, 0.0, 0.0)))


def environment(home: Path, url: str = "") -> dict[str, str]:
    """That of a user with a key, of nothing else that W&B could find here."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("WANDB")}
    return clean | {"WANDB_API_KEY": KEY, "HOME": str(home)} | ({"WANDB_BASE_URL": url} if url else {})


def wandb_folders(folder: Path) -> list[Path]:
    """W&B's folders of one run of ours, oldest first."""
    return sorted((folder / "wandb").glob("*run-*-*"), key=lambda one: one.name.removeprefix("offline-"))


def records(run: Path, kind: str) -> list[dict[str, Any]]:
    """The records of one ``kind`` in a W&B folder, by W&B's own reader."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(run)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [one[kind] for one in map(json.loads, shown.splitlines()) if one["type"] == kind]


def epochs(run: Path) -> list[int]:
    """The epochs in the history of a W&B folder."""
    return [one["item"]["epoch"] for one in records(run, "history")]


def wait_for_the_end(mark: str) -> None:
    """Until no process is left that was started with ``mark`` in its environment."""
    for _ in range(300):
        if not (left := [path for path in Path("/proc").glob("[0-9]*/environ") if _holds(path, mark)]):
            return
        time.sleep(0.1)
    raise AssertionError(f"left over: {[(path.parent / 'cmdline').read_text() for path in left]}")


def _holds(environ: Path, text: str) -> bool:
    try:
        return text.encode() in environ.read_bytes()
    except OSError:
        return False
