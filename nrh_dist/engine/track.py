"""Tracking: one JSON line an epoch always; Weights & Biases or nothing beside it, never on the critical path."""

import hashlib
import json
import math
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
INIT_SECONDS = 30.0  # that a W&B server has to take a run, beside the training
LATE_SECONDS = 3.0  # that it has for it still when the training is done
FINISH_SECONDS = 8.0  # that it has to take the rest of a run that it took
LOCAL_SECONDS = 60.0  # for what waits for no server; a machine may be busy
PIPE_BYTES = 2**20  # some thousand rows


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

    A tracker must not stop, slow or change a training. Nothing here waits for W&B before the end, and there for
    ``FINISH_SECONDS`` at most. A server that did not take the run at the start makes it an offline one, with all rows.
    Any other failure is said once and ends tracking; the rows are in ``metrics.jsonl``.
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
                "finish_timeout": FINISH_SECONDS - 1,
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
        while self._process:
            _pipe(self._process).close()
            self._wait()
            self._bury()

    def _wait(self) -> None:
        """Until the process ended, or had the time for what it is about; then it is ended."""
        assert self._process
        since: dict[bytes, float] = {}
        patience = {wandb_process.ASKING: LATE_SECONDS, wandb_process.TAKEN: FINISH_SECONDS}
        while self._process.poll() is None:
            about = self._about() if self._options["mode"] == "online" else b""
            if time.monotonic() - since.setdefault(about, time.monotonic()) > patience.get(about, LOCAL_SECONDS):
                self._process.kill()
                self._process.wait()
            time.sleep(0.02)

    def _start(self) -> None:
        script = Path(wandb_process.__file__)
        environment = {key: value for key, value in os.environ.items() if key != "WANDB_SERVICE"}
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(script)],  # -P: the modules beside it are not to stand in for Python's own
                bufsize=0,
                pipesize=PIPE_BYTES,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment | {"WANDB_SILENT": "true"},
                start_new_session=True,  # Ctrl-C ends the training; this ends with it
            )
        except OSError as error:
            print(f"W&B failed ({error.strerror}): training goes on without it", flush=True)
            return
        self._output = b""
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe
            os.set_blocking(pipe.fileno(), False)
        for line in (self._options, *self._rows):
            self._send(line)

    def _send(self, line: dict[str, Any]) -> None:
        assert self._process
        content = json.dumps(line).encode() + b"\n"
        with suppress(BrokenPipeError):  # it is gone, which the next row or the end will find
            if _pipe(self._process).write(content) != len(content):  # it is so far behind that the pipe is full
                self._process.kill()

    def _about(self) -> bytes:
        """The last of ``wandb_process``'s marks; empty while the SDK is being loaded."""
        assert self._process and self._process.stdout
        self._output += self._process.stdout.read() or b""
        marks = wandb_process.ASKING + wandb_process.TAKEN
        return self._output[: len(self._output) - len(self._output.lstrip(marks))][-1:]

    def _bury(self) -> None:
        """Clear up after the process that ended; begin again offline where the server did not take the run."""
        assert self._process
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # the SDK's own service
        taken, code = self._about() == wandb_process.TAKEN, self._process.returncode
        reason = self._output.decode(errors="replace").lstrip("?!") or "no answer in time" if code else ""
        self._process = None
        if not taken and self._options["mode"] == "online":
            print(f"W&B does not answer ({reason}): this run is tracked offline", flush=True)
            self._options["mode"] = "offline"
            self._start()
        elif code:
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
    return [row for row in read_lines(folder / METRICS) if row.get("epoch", math.inf) <= epoch]


def drop_rows_after(folder: Path, epoch: int) -> None:
    """Drop the rows of epochs that a resumed run will do again."""
    write_lines(folder / METRICS, rows_up_to(folder, epoch))


def _netrc_has_wandb() -> bool:
    path = Path.home() / ".netrc"
    return path.exists() and "api.wandb.ai" in path.read_text()
