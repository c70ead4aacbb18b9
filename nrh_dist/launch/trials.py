"""The trials of a sweep on the disk, each an ordinary run in ``<sweep>/trials/tNNNN``, and the table of them all.

A trial of population-based training that took over another's weights goes on in ``tNNNN-2``: its second life.
"""

import csv
import io
import json
from pathlib import Path
from typing import Any

from nrh_dist.engine import track
from nrh_dist.engine.files import write_json, write_text
from nrh_dist.launch.space import Space

ASSIGNMENT, FAILURE, STOPPED, TABLE = "assignment.json", "failure.json", "stopped.json", "trials.csv"


def life_name(index: int, life: int = 1) -> str:
    """The folder name of a life of trial ``index``."""
    return f"t{index:04d}" if life == 1 else f"t{index:04d}-{life}"


def name_of(trial: Any) -> str:
    """The folder name of a trial as Tune has it."""
    return life_name(trial.config["trial"]["index"], trial.config["trial"]["life"])


def note(folder: Path, trial: dict[str, Any], costs: dict[str, float], origin: dict[str, Any] | None = None) -> None:
    """Write down what ``folder`` tries: ``index``, ``life``, ``assignment`` of a trial, and whose weights it took."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / ASSIGNMENT, {"schema": 2, **trial, "costs": costs, "from": origin})


def note_failure(trial: Path, reason: str) -> None:
    """Write down why a trial ended without a result, also of one that died before it had a folder."""
    trial.mkdir(parents=True, exist_ok=True)
    write_json(trial / FAILURE, {"schema": 1, "reason": reason})


def note_stopped(folder: Path, epoch: int) -> None:
    """Write down that the scheduler ended a trial after ``epoch``: a sweep that is resumed leaves it at that."""
    folder.mkdir(parents=True, exist_ok=True)  # of a trial on another disk
    write_json(folder / STOPPED, {"schema": 1, "epoch": epoch})


def is_stopped(folder: Path) -> bool:
    """Whether the scheduler ended this trial before its last epoch."""
    return (folder / STOPPED).exists()


def forget_failures(sweep: Path) -> None:
    """Let the failed trials of an earlier start be tried anew."""
    for path in sweep.glob(f"trials/t*/{FAILURE}"):
        path.unlink()


def failures(sweep: Path) -> dict[str, str]:
    """The reason of each failed trial, by the name of its folder."""
    return {path.parent.name: json.loads(path.read_text())["reason"] for path in sweep.glob(f"trials/t*/{FAILURE}")}


def noted(folder: Path) -> dict[str, Any]:
    """What ``note`` wrote: ``index``, ``life``, ``assignment``, ``costs`` and ``from``."""
    return json.loads((folder / ASSIGNMENT).read_text())


def begun(sweep: Path) -> dict[int, Path]:
    """The folder of each trial that ever started, in its latest life, by index in order."""
    lives = [(noted(path.parent), path.parent) for path in (sweep / "trials").glob(f"t*/{ASSIGNMENT}")]
    lives.sort(key=lambda one: (one[0]["index"], one[0]["life"]))
    return {trial["index"]: folder for trial, folder in lives}


def write_table(sweep: Path, searched: Space) -> Path:
    """Write trials.csv: one row a trial, in its latest life; a key whose condition does not hold has an empty cell."""
    text = io.StringIO()
    columns = ["trial", *searched.keys, *searched.metrics, "epochs", "status", "reason", "folder"]
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(table_rows(sweep, searched))
    write_text(sweep / TABLE, text.getvalue())
    return sweep / TABLE


def table_rows(sweep: Path, searched: Space) -> list[dict[str, Any]]:
    """The rows of trials.csv."""
    failed, there = failures(sweep), begun(sweep)
    rows = []
    for index in range(searched.trials):
        name = there[index].name if index in there else life_name(index)
        row = {"trial": name, "epochs": 0, "status": "waiting"}
        if index in there:
            row = _row(searched, there[index])
        if name in failed:  # perhaps before it noted what it tries
            row |= {"status": "failed", "reason": failed[name], "folder": f"trials/{name}"}
        rows.append(row)
    return rows


def _row(searched: Space, folder: Path) -> dict[str, Any]:
    trial, last = noted(folder), searched.schedule.max_epochs
    rows = track.rows_up_to(folder, last)
    epochs = rows[-1]["epoch"] if rows else 0
    return {
        "trial": folder.name,
        **searched.active(trial["assignment"]),
        searched.metric: min((row[searched.metric] for row in rows), default=""),
        **trial["costs"],
        "epochs": epochs,
        "status": "finished" if epochs == last else "stopped early" if is_stopped(folder) else "running",
        "folder": f"trials/{folder.name}",
    }
