"""Trainings that take turns: all processes of one that waits are stopped, and go on where they were.

What a machine does to one of them in a minute it does to the other in the next, so that their rates can be compared
turn by turn. It needs Linux or macOS.
"""

import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from nrh_dist.engine.files import read_lines
from nrh_dist.workflows.command import environment, failed

POLL_SECONDS = 0.05
ENDING_SECONDS = 60.0  # to save and end, when it is asked to


class Training:
    """A training that was started as ``process``, whose run is in ``folder`` and whose words are in ``log``."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path, log: Path, parent_waits: bool) -> None:
        self.process, self.folder, self.log, self.parent_waits = process, folder, log, parent_waits

    def turn(self, epochs: int) -> list[float]:
        """Go on until ``epochs`` more have ended; their images per second. ``UserError`` where it ends before that."""
        wanted = len(self._rates()) + epochs
        self._each("resume")
        while len(rates := self._rates()) < wanted:
            if self.process.poll() is not None:
                raise failed(self.log.read_text(errors="replace"))
            time.sleep(POLL_SECONDS)
        self._each("suspend")
        return rates[-epochs:]

    def end(self) -> None:
        """Ask it to end, and kill what does not."""
        processes = self._all()
        self._each("resume")
        self.process.terminate()
        left = psutil.wait_procs(processes, timeout=ENDING_SECONDS)[1]
        for process in left:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(left)
        self.process.wait()

    def _rates(self) -> list[float]:
        return [row["images_per_s"] for row in read_lines(self.folder / "metrics.jsonl")]

    def _each(self, action: str) -> None:
        for process in self._all()[0 if self.parent_waits else 1 :]:
            with suppress(psutil.Error):
                getattr(process, action)()

    def _all(self) -> list[psutil.Process]:
        """The process that was started, and then all below it."""
        try:
            first = psutil.Process(self.process.pid)
            return [first, *first.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []


@contextmanager
def training(command: Sequence[str], folder: Path, warm: int, parent_waits: bool = True) -> Iterator[Training]:
    """Start a training whose run is in ``folder``, and stop it after ``warm`` epochs; it is ended on the way out.

    ``parent_waits``: the process that ``command`` starts is stopped with those below it. That of torchrun would take
    the time for lost contact, and does nothing meanwhile.
    """
    log = folder.with_name(f"{folder.name}.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, env=environment(folder.parent), stdin=subprocess.DEVNULL, stdout=file, stderr=file
        )
    found = Training(process, folder, log, parent_waits)
    try:
        found.turn(warm)
        yield found
    finally:
        found.end()
