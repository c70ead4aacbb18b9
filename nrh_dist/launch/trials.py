"""The trials of a sweep on the disk: ``<sweep>/trials/tNNNN``, each an ordinary run, and the table of them all."""

import csv
import io
import json
from pathlib import Path
from typing import Any

from nrh_dist.engine import track
from nrh_dist.engine.files import write_json, write_text
from nrh_dist.launch.space import Assignment, Space

ASSIGNMENT, FAILURE, TABLE = "assignment.json", "failure.json", "trials.csv"


def trial_name(index: int) -> str:
    """The folder name of trial ``index``."""
    return f"t{index:04d}"


def note(trial: Path, index: int, assignment: Assignment) -> None:
    """Write down what the trial folder ``trial`` tries."""
    write_json(trial / ASSIGNMENT, {"schema": 1, "index": index, "assignment": assignment})


def note_failure(trial: Path, reason: str) -> None:
    """Write down why a trial ended without a result, also of one that died before it had a folder."""
    trial.mkdir(parents=True, exist_ok=True)
    write_json(trial / FAILURE, {"schema": 1, "reason": reason})


def forget_failures(sweep: Path) -> None:
    """Let the failed trials of an earlier start be tried anew."""
    for path in sweep.glob(f"trials/t*/{FAILURE}"):
        path.unlink()


def failures(sweep: Path) -> dict[str, str]:
    """The reason of each failed trial, by the name of its folder."""
    return {path.parent.name: json.loads(path.read_text())["reason"] for path in sweep.glob(f"trials/t*/{FAILURE}")}


def assignment_of(trial: Path) -> Assignment:
    """The searched values of a trial folder."""
    return json.loads((trial / ASSIGNMENT).read_text())["assignment"]


def begun(sweep: Path) -> list[Path]:
    """The folders of all trials that ever started, in order."""
    return sorted(path.parent for path in (sweep / "trials").glob(f"t*/{ASSIGNMENT}"))


def write_table(sweep: Path, searched: Space) -> Path:
    """Write trials.csv: one row a trial; a key whose condition does not hold has an empty cell."""
    failed = failures(sweep)
    rows = [_row(searched, trial, failed.get(trial.name, "")) for trial in begun(sweep)]
    text = io.StringIO()
    columns = ["trial", *searched.keys, searched.metric, "epochs", "status", "reason", "folder"]
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(sweep / TABLE, text.getvalue())
    return sweep / TABLE


def _row(searched: Space, trial: Path, reason: str) -> dict[str, Any]:
    rows = track.rows_up_to(trial, searched.asha.max_epochs)
    epochs = rows[-1]["epoch"] if rows else 0
    ended = "finished" if epochs == searched.asha.max_epochs else "stopped early"
    return {
        "trial": trial.name,
        **searched.active(assignment_of(trial)),
        searched.metric: min((row[searched.metric] for row in rows), default=""),
        "epochs": epochs,
        "status": "failed" if reason else ended,
        "reason": reason,
        "folder": f"trials/{trial.name}",
    }
