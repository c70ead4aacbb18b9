"""Sending later what W&B runs hold on this machine only."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path

from nrh_dist.engine.lock import locked
from nrh_dist.engine.progress import Say
from nrh_dist.engine.track import KEPT, has_key
from nrh_dist.errors import UserError

CUT_OFF = "incomplete record"  # W&B's words
WRITTEN_SECONDS = 60  # after its last record a log is as long as it will ever be
# W&B itself would try for hours to reach a server that is down.
PATIENCE = {f"WANDB_X_{what}_RETRY_MAX": "4" for what in ("GRAPHQL", "FILE_STREAM", "FILE_TRANSFER")}


def sync(folders: Iterable[Path], say: Say) -> None:
    """Send every W&B run below ``folders`` that was not sent to its end, by W&B's own ``wandb sync``.

    A run that is being written is left for later. What is sent is marked by W&B, so that the same command sends nothing
    twice. ``UserError`` where there is something to send and no key, or not all of it could be sent.
    """
    runs = unsent(folders, say)
    for run in runs:
        say(f"{run.parent.parent}: {run.name}, {_nbytes(run) / 1e6:.1f} MB")
    if not runs:
        say("W&B has everything already: nothing to send")
        return
    if not has_key():
        raise UserError(f"no W&B key to send {len(runs)} run(s) with: wandb login, or set WANDB_API_KEY; then again")
    command = [sys.executable, "-m", "wandb", "sync", "--include-online", *map(str, runs)]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **PATIENCE}
    )
    told = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout).splitlines()
    for run in runs:
        if any(run.name in line and CUT_OFF in line for line in told) and _age(run) > WRITTEN_SECONDS:
            say(f"{run.name}: all was sent but the last record, which a crash cut off")
            _mark_sent(run)
    left = [run for run in runs if not _is_sent(run)]
    for place in {run.parent for run in runs} - {run.parent for run in left}:
        shutil.rmtree(place / KEPT, ignore_errors=True)
    if left:
        wrong = [line for line in told if re.search("error|fail", line, re.IGNORECASE)]
        reason = wrong[-1].removeprefix("wandb: ") if wrong else f"wandb sync ended with {done.returncode}"
        raise UserError(f"{len(left)} of {len(runs)} run(s) not sent ({reason}): try the same again")
    say(f"sent {len(runs)} run(s)")


def unsent(folders: Iterable[Path], say: Say) -> list[Path]:
    """W&B's folders below ``folders``, oldest first, that were not sent to their end and are not in use."""
    found = set()
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"no folder at {folder}")
        found |= {log.parent.resolve() for log in folder.glob("**/wandb/*run-*/run-*.wandb")}
    left = []
    for run in sorted(found, key=lambda one: (one.parent, one.name.removeprefix("offline-"))):
        if _is_sent(run):
            continue
        owner = run.parent.parent
        try:
            with locked(owner) if (owner / ".lock").exists() else nullcontext():
                left.append(run)
        except UserError:
            say(f"{owner}: being written, left for later")
    return left


def _is_sent(run: Path) -> bool:
    return any(run.glob("*.wandb.synced"))


def _mark_sent(run: Path) -> None:
    for log in run.glob("*.wandb"):
        log.with_suffix(".wandb.synced").touch()


def _age(run: Path) -> float:
    """Seconds since something was added to a run's log."""
    return time.time() - max(log.stat().st_mtime for log in run.glob("*.wandb"))


def _nbytes(run: Path) -> int:
    return sum(path.stat().st_size for path in run.rglob("*") if path.is_file())
