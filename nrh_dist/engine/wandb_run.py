"""A run of Weights & Biases in a process of its own: whoever tells it something never waits, and never fails."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from nrh_dist.engine import wandb_process
from nrh_dist.engine.progress import Say

INIT_SECONDS = 30.0  # that a W&B server has to take a run, beside the training
LATE_SECONDS = 3.0  # that it has for it still when the training is done
PIPE_BYTES = 2**20  # some thousand rows
MARKS = wandb_process.ASKING + wandb_process.TAKEN + wandb_process.DONE


class WandbRun:
    """The run ``options["id"]`` of ``wandb.init``, in the ``folder`` where W&B keeps its files.

    Nothing here waits for W&B before the end, and there for ``seconds`` of wall clock at most. A server that did not
    take the run at the start makes it an offline one, which holds everything. Any other failure is said once and ends
    tracking: ``has_failed``.
    """

    def __init__(self, folder: Path, options: dict[str, Any], seconds: float, say: Say) -> None:
        self._folder, self._seconds, self._say = folder, seconds, say
        self._options: dict[str, Any] = {
            "resume": "allow",
            "dir": str(folder.absolute()),
            **options,
            "settings": {
                "x_transaction_log_flush_interval": 1,  # a kill must not lose records
                "x_stats_pid": os.getpid(),
                "init_timeout": INIT_SECONDS,
                "finish_timeout": seconds - 1,
                "finish_timeout_raises": True,
                "console": "off",
                "silent": True,
            },
        }
        self._lines: list[Any] = [self._options]
        self._process: subprocess.Popen[bytes] | None = None
        self.has_failed = False
        self._start()

    def tell(self, verb: str, **given: Any) -> None:
        """Hand something over, a method of ``wandb_process.Session`` with its arguments; never waits."""
        self._lines.append((verb, given))
        if self._process and self._is_gone():
            self._bury()
        elif self._process:
            self._send(self._lines[-1])

    def finish(self) -> None:
        """Close the run. What a server did not take in time stays in the folder for ``nrh track sync``."""
        deadline = time.monotonic() + self._seconds
        while self._process:
            _pipe(self._process.stdin).close()
            if self._has_ended(deadline):
                self._bury()
            else:  # offline, on a machine that is busy: it waits for no server, and ends by itself
                self._process = None

    def _has_ended(self, deadline: float) -> bool:
        """Wait for the process until ``deadline``; it is ended there, or earlier where no server takes the run."""
        is_online, late = self._options["mode"] == "online", time.monotonic() + LATE_SECONDS
        while not self._is_gone():
            now = time.monotonic()
            if is_online and (now > deadline or (now > late and self._about() == wandb_process.ASKING)):
                return True
            if now > deadline:
                return False
            time.sleep(0.02)
        return True

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
            self._fail(str(error.strerror))
            return
        self._output = b""
        for pipe in (self._process.stdin, self._process.stdout):
            os.set_blocking(_pipe(pipe).fileno(), False)
        for line in self._lines:
            self._send(line)

    def _send(self, line: Any) -> None:
        assert self._process
        content = json.dumps(line).encode() + b"\n"
        with suppress(BrokenPipeError):  # it is gone, which the next line or the end will find
            if _pipe(self._process.stdin).write(content) != len(content):  # so far behind that the pipe is full
                self._kill()

    def _is_gone(self) -> bool:
        """Whether nobody holds the other end of the process's output: it is no child, which could be waited for."""
        assert self._process
        self._process.poll()
        while read := _pipe(self._process.stdout).read():
            self._output += read
        return read is not None

    def _about(self) -> bytes:
        """The last of ``wandb_process``'s marks so far; empty while the SDK is being loaded."""
        return self._output[: len(self._output) - len(self._output.lstrip(MARKS))][-1:]

    def _bury(self) -> None:
        """Clear up after the process that ended; begin again offline where the server did not take the run."""
        self._kill()
        deadline = time.monotonic() + LATE_SECONDS
        while not self._is_gone() and time.monotonic() < deadline:  # it holds the folder until then
            time.sleep(0.02)
        assert self._process
        mark, told = self._about(), self._output.lstrip(MARKS).decode(errors="replace")
        reason = told or "no answer in time"
        is_late = _pipe(self._process.stdin).closed and (not told or told.startswith("TimeoutError"))
        is_online = self._options["mode"] == "online"
        self._process = None
        if mark == wandb_process.DONE:
            if told:
                self._say(f"W&B: {told}")
        elif is_online and mark != wandb_process.TAKEN:
            self._say(f"W&B does not answer ({reason}): this run is tracked offline")
            self._options["mode"] = "offline"
            self._start()
        elif is_online and is_late:
            self._say(f"W&B had not taken everything ({reason}): nrh track sync {self._folder} sends the rest")
        else:
            self._fail(reason)

    def _kill(self) -> None:
        """End the process and the SDK's own service."""
        assert self._process
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _fail(self, reason: str) -> None:
        self.has_failed = True
        self._say(f"W&B failed ({reason}): nothing more is tracked")


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe
    return pipe
