"""How workers of a trial tell Tune of an epoch: rank 0 asks the trial's process to, and waits until it has.

A scheduler may stop or pause a trial after any epoch. Workers that trained on meanwhile would train more epochs than
the sweep's bound, and prune the checkpoint that another trial is about to take over. The file in the run's folder is
there from the question to the answer; where Tune wants no more, there is no answer.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

from nrh_dist.engine.files import write_json

ASKED = ".asked"
LOOK_SECONDS = 0.1


def tell_and_wait(folder: Path, row: dict[str, Any]) -> None:
    """On rank 0 of the run in ``folder``, whose ``row`` is on the disk with its checkpoint."""
    write_json(folder / ASKED, {"schema": 1, "epoch": row["epoch"], "question": uuid4().hex})
    while (folder / ASKED).exists():
        time.sleep(LOOK_SECONDS)


class Answers:
    """In the trial's process: passes the epochs on that workers started after this ask about.

    A question from before is not answered: who asked it was to be stopped, and may not be quite dead.
    """

    def __init__(self, folder: Path, tell_up_to: Callable[[int], None]) -> None:
        self._path, self._tell_up_to = folder / ASKED, tell_up_to
        self._before = self._read()

    def look(self) -> None:
        """Answer, if anything is asked."""
        asked = self._read()
        if asked and asked != self._before:
            self._tell_up_to(json.loads(asked)["epoch"])
            self._path.unlink()

    def _read(self) -> str:
        return self._path.read_text(encoding="utf-8") if self._path.exists() else ""
