"""Sending later what W&B runs hold on this machine only."""

import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

from nrh_dist.engine.progress import Say
from nrh_dist.engine.track import KEPT, has_key
from nrh_dist.engine.wandb_process import hold
from nrh_dist.errors import UserError

CUT_OFF = "incomplete record"  # W&B's words for a log that ends in the middle of one
# W&B itself would try for hours to reach a server that is down.
PATIENCE = {f"WANDB_X_{what}_RETRY_MAX": "4" for what in ("GRAPHQL", "FILE_STREAM", "FILE_TRANSFER")}


def sync(folders: Iterable[Path], say: Say) -> None:
    """Send every W&B run below ``folders`` that was not sent to its end, by W&B's own ``wandb sync``.

    A run that is being written is left for later. What is sent is marked as W&B does, so that the same command sends
    nothing twice. ``UserError`` where there is something to send and no key, or not all of it could be sent.
    """
    with ExitStack() as held:
        runs = _unsent(folders, held, say)
        for run in runs:
            say(f"{run.parent.parent}: {run.name}, {_nbytes(run) / 1e6:.1f} MB")
        if not runs:
            say("W&B has everything already: nothing to send")
            return
        if not has_key():
            raise UserError(
                f"no W&B key to send {len(runs)} run(s) with: wandb login, or set WANDB_API_KEY; then again"
            )
        told = _send(runs)
        left = [run for run in runs if not _is_sent(run)]
        for place in {run.parent for run in runs} - {run.parent for run in left}:
            shutil.rmtree(place / KEPT, ignore_errors=True)
    if left:
        wrong = [line for line in told if re.search("error|fail", line, re.IGNORECASE)]
        reason = wrong[-1].removeprefix("wandb: ") if wrong else "wandb sync does not say why"
        raise UserError(f"{len(left)} of {len(runs)} run(s) not sent ({reason}): try the same again")
    say(f"sent {len(runs)} run(s)")


def _unsent(folders: Iterable[Path], held: ExitStack, say: Say) -> list[Path]:
    """W&B's folders of runs below ``folders``, oldest first, that were not sent; ``held`` against other processes."""
    found: set[Path] = set()
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"no folder at {folder}")
        found |= {log.parent.resolve() for log in folder.glob("**/wandb/*run-*/run-*.wandb")}
    found = {run for run in found if not _is_sent(run)}
    free = set()
    for place in {run.parent for run in found}:
        if lock := hold(place, fcntl.LOCK_EX):
            free.add(place)
            held.enter_context(lock)
        else:
            say(f"{place.parent}: being written, left for later")
    runs = [run for run in found if run.parent in free]
    return sorted(runs, key=lambda one: (one.parent, one.name.removeprefix("offline-")))


def _send(runs: list[Path]) -> list[str]:
    """Let W&B send ``runs``; the lines that it says.

    A log that a crash cut off is sent up to there; W&B would not mark it, and send it all again.
    """
    command = [sys.executable, "-m", "wandb", "sync", "--include-online", *map(str, runs)]
    environment = {**os.environ, **PATIENCE, "WANDB_MODE": "online"}
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    told = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout).splitlines()
    for run in runs:
        if any(run.name in line and CUT_OFF in line for line in told):
            for log in run.glob("*.wandb"):
                log.with_suffix(".wandb.synced").touch()
    return told


def _is_sent(run: Path) -> bool:
    return any(run.glob("*.wandb.synced"))


def _nbytes(run: Path) -> int:
    return sum(path.stat().st_size for path in run.rglob("*") if path.is_file())
