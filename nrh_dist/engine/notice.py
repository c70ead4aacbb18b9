"""What a run is asked between two steps: to save and leave its machines, or to save and stop.

Three ask: a signal (SIGTERM, where there is no launcher), the file ``.stop`` in the run's folder (a launcher that got
the signal), and whatever knows of a machine about to go (a launcher's ``more``). Any rank may be asked; the loop takes
the largest answer of all ranks.
"""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from threading import current_thread, main_thread
from types import FrameType

from nrh_dist.errors import UserError

STOP_FILE = ".stop"
LOOK_SECONDS = 1.0  # between two looks at the file and at ``more``: either may cost a network round trip


class Notice(IntEnum):
    """What is asked: nothing, or a checkpoint and the end, of this start (another one follows) or of the run."""

    NONE = 0
    LEAVE = 1
    STOP = 2


class Stopped(UserError):
    """The run saved a checkpoint and ended early, as it was asked to."""


class Left(Exception):
    """This start of the run ended early, with a checkpoint, because a machine is about to go: another one follows."""


Ask = Callable[[], Notice]


def nothing() -> Notice:
    """Nobody asks for anything."""
    return Notice.NONE


def ask_to_stop(folder: Path) -> None:
    """Ask the run in ``folder``, whichever process trains it, to save and stop."""
    (folder / STOP_FILE).touch()


def is_asked_to_stop(folder: Path) -> bool:
    """Whether ``ask_to_stop`` was called, and not forgotten since."""
    return (folder / STOP_FILE).exists()


def forget(folder: Path) -> None:
    """Drop what an earlier start of the run in ``folder`` was asked; a restart within one start heeds it."""
    (folder / STOP_FILE).unlink(missing_ok=True)


class Signal:
    """STOP from the moment of a signal on. Only the main thread of a process can be told of signals."""

    def __init__(self, *numbers: signal.Signals) -> None:
        self._seen = False
        for number in numbers:
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._seen = True
        signal.signal(number, signal.SIG_DFL)  # a second one ends the process at once

    def __call__(self) -> Notice:
        return Notice.STOP if self._seen else Notice.NONE


@contextmanager
def asked_by(*numbers: signal.Signals) -> Iterator[Ask]:
    """A ``Signal`` while the block runs; the handlers of before come back. Outside the main thread nobody asks."""
    if current_thread() is not main_thread():
        yield nothing
        return
    with restored(*numbers):
        yield Signal(*numbers)


@contextmanager
def restored(*numbers: signal.Signals) -> Iterator[None]:
    """After the block, the handlers of ``numbers`` are those of before."""
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Notices:
    """What is asked by the run's stop file, or else by ``more``."""

    def __init__(self, folder: Path, more: Ask, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder, self._more, self._clock = folder, more, clock
        self._looked = float("-inf")

    def __call__(self) -> Notice:
        now = self._clock()
        if now - self._looked < LOOK_SECONDS:
            return Notice.NONE
        self._looked = now
        return Notice.STOP if is_asked_to_stop(self._folder) else self._more()
