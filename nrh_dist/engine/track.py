"""Tracking: one JSON line an epoch always; Weights & Biases or nothing beside it, never on the critical path."""

import hashlib
import os
from pathlib import Path
from typing import Any, Protocol

from nrh_dist import config as configuration
from nrh_dist.engine.files import read_lines, write_lines
from nrh_dist.schema import Config

METRICS = "metrics.jsonl"


class Tracker(Protocol):
    """What the loop tells: one row an epoch, and the end."""

    def log(self, row: dict[str, Any]) -> None:
        """Record the numbers of one epoch."""

    def finish(self) -> None:
        """No more rows will come."""


class Nothing:
    """The tracker of ranks that do not write, and of ``track.wandb=disabled``."""

    def log(self, row: dict[str, Any]) -> None:
        """Do nothing."""

    def finish(self) -> None:
        """Do nothing."""


class WandbTracker:
    """A W&B run under a stable id, so that a resumed run continues it.

    A tracker must not stop a training: if the server does not answer at the start, the run goes on offline; if logging
    fails later, one warning is printed and tracking ends.
    """

    def __init__(self, config: Config, folder: Path, mode: str) -> None:
        import wandb

        os.environ.setdefault("WANDB_SILENT", "true")
        options: dict[str, Any] = {
            "project": config.track.project,
            "group": config.track.group or config.model.name,
            "name": folder.name,
            "id": _stable_id(folder),
            "resume": "allow",
            "dir": folder,
            "config": configuration.flatten(config),
            # A kill must not lose records, a dead server must not hold the end of the run.
            "settings": wandb.Settings(
                x_transaction_log_flush_interval=1, finish_timeout=8, init_timeout=30, console="off", silent=True
            ),
        }
        try:
            self._run = wandb.init(mode=mode, **options)  # type: ignore[arg-type]
        except wandb.Error as error:
            print(f"W&B does not answer ({type(error).__name__}): this run is tracked offline", flush=True)
            self._run = wandb.init(mode="offline", **options)
        self._run.define_metric("*", step_metric="epoch")
        self._failed = False

    def log(self, row: dict[str, Any]) -> None:
        """Send one row; a failure ends tracking, not training."""
        self._guard(lambda: self._run.log(row))

    def finish(self) -> None:
        """Close the run within a few seconds; what could not be sent stays in its folder for ``wandb sync``."""
        self._guard(self._run.finish)

    def _guard(self, action: Any) -> None:
        if self._failed:
            return
        try:
            action()
        except Exception as error:  # whatever a tracker raises, the training goes on
            self._failed = True
            print(f"W&B failed ({type(error).__name__}: {error}): training goes on without it", flush=True)


def _stable_id(folder: Path) -> str:
    """The same for a resumed run, another for a run of the same name elsewhere."""
    return f"{folder.name}-{hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:8]}"


def wandb_mode(config: Config) -> str:
    """``online``, ``offline`` or ``disabled``: WANDB_MODE beats the config; without a key online becomes offline."""
    mode = os.environ.get("WANDB_MODE") or config.track.wandb
    has_key = bool(os.environ.get("WANDB_API_KEY")) or _netrc_has_wandb()
    return "offline" if mode == "online" and not has_key else mode


def open_tracker(config: Config, folder: Path) -> Tracker:
    """The tracker that the configuration asks for."""
    mode = wandb_mode(config)
    return Nothing() if mode == "disabled" else WandbTracker(config, folder, mode)


def append_row(folder: Path, row: dict[str, Any]) -> None:
    """Append one epoch's row to ``metrics.jsonl``, replacing a row of the same epoch or later."""
    write_lines(folder / METRICS, [*rows_up_to(folder, row["epoch"] - 1), row])


def rows_up_to(folder: Path, epoch: int) -> list[dict[str, Any]]:
    """The rows of ``metrics.jsonl`` up to ``epoch``, in order."""
    return [row for row in read_lines(folder / METRICS) if row["epoch"] <= epoch]


def drop_rows_after(folder: Path, epoch: int) -> None:
    """Drop the rows of epochs that a resumed run will do again."""
    write_lines(folder / METRICS, rows_up_to(folder, epoch))


def _netrc_has_wandb() -> bool:
    path = Path.home() / ".netrc"
    return path.exists() and "api.wandb.ai" in path.read_text()
