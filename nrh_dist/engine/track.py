"""Tracking: one JSON line an epoch always; Weights & Biases or nothing beside it, never on the critical path."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Protocol

from nrh_dist import config as configuration
from nrh_dist.engine import wandb_process
from nrh_dist.engine.files import read_lines, write_lines
from nrh_dist.schema import Config

METRICS = "metrics.jsonl"
INIT_SECONDS = 15.0  # that W&B has to take a run, beside the training
FINISH_SECONDS = 8.0  # that it has to take the rest of a run that is done


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
    """A W&B run under a stable id, so that a resumed run continues it, in a process of its own.

    A tracker must not stop, slow or change a training. Nothing here waits for W&B before the end, and there for the
    rest of ``INIT_SECONDS`` (after which a server that does not answer makes the run an offline one, with all rows) and
    ``FINISH_SECONDS`` at most. Any other failure is said once and ends tracking; the rows are in ``metrics.jsonl``.
    """

    def __init__(self, config: Config, folder: Path, mode: str) -> None:
        self._options: dict[str, Any] = {
            "mode": mode,
            "project": config.track.project,
            "group": config.track.group or config.model.name,
            "name": folder.name,
            "id": _stable_id(folder),
            "resume": "allow",
            "dir": str(folder.absolute()),
            "config": configuration.flatten(config),
            "settings": {
                "x_transaction_log_flush_interval": 1,  # a kill must not lose records
                "x_stats_pid": os.getpid(),
                "init_timeout": INIT_SECONDS,
                "finish_timeout": FINISH_SECONDS,
                "console": "off",
                "silent": True,
            },
        }
        self._rows: list[dict[str, Any]] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._start()

    def log(self, row: dict[str, Any]) -> None:
        """Hand one row over; never waits."""
        self._rows.append(row)
        if self._process and self._process.poll() is not None:
            self._bury()
        elif self._process:
            self._send(row)

    def finish(self) -> None:
        """Close the run within a few seconds; what could not be sent stays in its folder for ``wandb sync``."""
        deadline = time.monotonic() + INIT_SECONDS + FINISH_SECONDS
        while self._process:
            _pipe(self._process).close()
            try:
                self._process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._bury()

    def _start(self) -> None:
        script = Path(wandb_process.__file__)
        environment = {key: value for key, value in os.environ.items() if key != "WANDB_SERVICE"}
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(script)],  # -P: the modules beside it are not to stand in for Python's own
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment | {"WANDB_SILENT": "true"},
                start_new_session=True,  # Ctrl-C ends the training; this ends with it
            )
        except OSError as error:
            print(f"W&B failed ({error.strerror}): training goes on without it", flush=True)
            return
        os.set_blocking(_pipe(self._process).fileno(), False)
        for line in (self._options, *self._rows):
            self._send(line)

    def _send(self, line: dict[str, Any]) -> None:
        assert self._process
        try:
            _pipe(self._process).write(json.dumps(line).encode() + b"\n")
        except OSError:  # it is gone, or so far behind that the pipe is full
            self._process.kill()

    def _bury(self) -> None:
        """Clear up after the process that ended; begin again offline where the server did not take the run."""
        process, self._process = self._process, None
        assert process and process.stdout
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # the SDK's own service
        reason = process.stdout.read().decode(errors="replace") or f"exit code {process.returncode}"
        if process.returncode == wandb_process.NO_START and self._options["mode"] == "online":
            print(f"W&B does not answer ({reason}): this run is tracked offline", flush=True)
            self._options["mode"] = "offline"
            self._start()
        elif process.returncode:
            print(f"W&B failed ({reason}): training goes on without it", flush=True)


def _pipe(process: "subprocess.Popen[bytes]") -> IO[bytes]:
    assert process.stdin
    return process.stdin


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
