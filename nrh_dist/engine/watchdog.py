"""A process that stands still says where and ends, so that whoever started it can start it again."""

import faulthandler
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TextIO

FIRST = 10  # times the limit: the start, with its first (perhaps compiled) step
SLOWER = 10  # times the slowest recent step is still no standstill
RECENT = 100  # steps


class Beat(Protocol):
    """``Watchdog.beat``."""

    def __call__(self, until_slow: bool = False) -> None: ...


class Watchdog:
    """Ends this process (exit code 1) when ``beat`` was not called for too long, with the stacks of all its threads.

    Too long is ``seconds``, or ten times the slowest recent step where that is more; ten times ``seconds`` before the
    first beat, and where one says so. The stacks go to ``<folder>/stacks-rank<R>.txt``, which is there only after a
    standstill. The clock runs in C, without Python's lock: a call that never returns cannot stop it. One watchdog a
    process.
    """

    def __init__(self, folder: Path, rank: int, seconds: float) -> None:
        self.path = folder / f"stacks-rank{rank}.txt"
        self._seconds = seconds
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._file: TextIO = self.path.open("a")
        self._beaten: float | None = None
        self._armed = time.monotonic()
        faulthandler.dump_traceback_later(FIRST * seconds, exit=True, file=self._file)

    def beat(self, until_slow: bool = False) -> None:
        """Say that this process still gets on; to be called once a step, or more often.

        ``until_slow``: what comes before the next beat, as a checkpoint on a slow disk, may take as long as the start.
        """
        now = time.monotonic()
        if self._beaten is not None:
            self._recent.append(now - self._beaten)
        is_slow, self._beaten = self._beaten is None or until_slow, None if until_slow else now
        limit = FIRST * self._seconds if until_slow else max(self._seconds, SLOWER * max(self._recent, default=0.0))
        if is_slow or now - self._armed > limit / 20:
            self._armed = now
            faulthandler.dump_traceback_later(limit, exit=True, file=self._file)

    def close(self) -> None:
        """Stop watching."""
        faulthandler.cancel_dump_traceback_later()
        self._file.close()
        if not self.path.stat().st_size:
            self.path.unlink()


@contextmanager
def watched(folder: Path, rank: int, seconds: float) -> Iterator[Beat]:
    """Watch this process while the block runs; yields the function to call when it got on."""
    watchdog = Watchdog(folder, rank, seconds)
    try:
        yield watchdog.beat
    finally:
        watchdog.close()


def standstills(folder: Path) -> list[Path]:
    """The files of stacks that earlier starts of a run left."""
    return sorted(path for path in folder.glob("stacks-rank*.txt") if path.stat().st_size)
