"""An evaluation as a W&B run: its numbers, its tables, and the checkpoints that it is about."""

import hashlib
import json
import math
import shutil
from pathlib import Path
from typing import Any

from nrh_dist.engine import checkpoint
from nrh_dist.engine.progress import Say
from nrh_dist.engine.track import checkpoint_artifact, wandb_mode
from nrh_dist.engine.wandb_run import WandbRun
from nrh_dist.errors import UserError
from nrh_dist.schema import Config

BINS = ("dataset", "run", "bin", "count", "mse", "psnr", "identity_mse")
ABOUT = ("data", "split", "size", "pack", "datasets", "protocol")


def track(folder: Path, config: Config, say: Say) -> str:
    """Make the evaluation in ``folder`` a W&B run and return its id; one that is already is left as it is.

    Its checkpoints become inputs of that run, by their content: W&B joins them with what their training logged.
    ``UserError`` where ``folder`` holds no evaluation, W&B is turned off, or fails.
    """
    mode = wandb_mode(config)
    if mode == "disabled":
        raise UserError("W&B is disabled (track.wandb, or WANDB_MODE): nothing to track an evaluation with")
    text, summary = _read(folder)
    id = f"{folder.resolve().name[:80]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    if any(folder.glob(f"wandb/*run-*-{id}")):
        say(f"{folder} is W&B run {id} already; to make it anew, delete {folder / 'wandb'}")
        return id
    options = {
        "mode": mode,
        "project": config.track.project,
        "group": config.track.group,
        "job_type": "evaluation",
        "name": folder.resolve().name,
        "id": id,
        "config": {key: summary[key] for key in ABOUT if key in summary},
    }
    run = WandbRun(folder, options, config.track.finish_seconds, say)
    for path in _checkpoints(summary, folder, say):
        run.tell("artifact", **checkpoint_artifact(folder, path, [], used=True))
    run.tell("summary", values=numbers(summary))
    if bins := [[one[key] for key in BINS] for one in _bins(summary)]:
        run.tell("rows", key="size_bins", columns=BINS, rows=bins)
    for table in sorted(folder.glob("*.csv")):
        run.tell("table", key=table.stem, path=str(table.absolute()))
    run.finish()
    if run.has_failed:
        for failed in folder.glob(f"wandb/*run-*-{id}"):  # others may not be sent yet
            shutil.rmtree(failed, ignore_errors=True)
        raise UserError(f"W&B made no run of {folder}, for the reason above: the same command tries again")
    is_offline = any(folder.glob(f"wandb/offline-run-*-{id}"))
    say(f"{folder} is W&B run {id}" + (f"; nrh track sync {folder} sends it" if is_offline else ""))
    return id


def numbers(summary: dict[str, Any]) -> dict[str, float]:
    """The means of an evaluation by ``run/metric``, or ``run/dataset/metric`` where there are several data sets."""
    several = len(summary.get("datasets", ())) > 1
    found: dict[str, Any] = {}
    for row in summary.get("models", ()):
        place = f"{row['run']}/{row['dataset']}" if several else row["run"]
        found |= {f"{place}/{key}": value for key, value in row.items() if isinstance(value, int | float)}
    for detector in summary.get("detectors", ()):
        found |= {f"{detector['run']}/{one['sign']}/error": one["error"] for one in detector["thresholds"]}
    return {key: value for key, value in found.items() if value is not None and math.isfinite(value)}


def _bins(summary: dict[str, Any]) -> list[dict[str, Any]]:
    return [{**row, **one} for row in summary.get("models", ()) for one in row["bins"]]


def _checkpoints(summary: dict[str, Any], folder: Path, say: Say) -> list[Path]:
    """The checkpoint folders that were scored, as far as they are where they were; says which are not."""
    found: dict[Path, None] = {}
    for entry in summary["checkpoints"]:
        path = Path(entry.get("path", ""))
        if entry.get("digest") and checkpoint.digest(path) == entry["digest"] and checkpoint.fault(path) is None:
            found[path] = None
        else:
            say(f"{entry['run']} is not linked: its checkpoint is not where {folder} was made from")
    return list(found)


def _read(folder: Path) -> tuple[str, dict[str, Any]]:
    path = folder / "summary.json"
    try:
        text = path.read_text()
        summary = json.loads(text)
        summary["checkpoints"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{folder} is no evaluation: it holds no readable summary.json of nrh evaluate") from None
    return text, summary
