"""Where numbers come from: the command, the code, the machine, and what they cost. Nothing of it shapes a number."""

import hashlib
import json
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import nrh_dist
from nrh_dist.engine.checkpoint import META
from nrh_dist.engine.files import read_lines

LIBRARIES = ("torch", "ray", "lpips", "numpy")
HOUR = 3600.0


def code() -> dict[str, str | None]:
    """The version of this package, and the commit that it runs from, as far as it lies in a git checkout of its own.

    "+changes" follows a commit whose files were changed since.
    """
    return {"version": nrh_dist.__version__, "commit": _commit(Path(nrh_dist.__file__).parent)}


def source_digest() -> str:
    """The SHA-256 of the code that numbers come from: all of this package but its reports and its command line."""
    root, digest = Path(nrh_dist.__file__).parent, hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root).as_posix()
        if name.partition("/")[0] not in {"report", "workflows", "cli.py"}:
            digest.update(f"{name}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def environment() -> dict[str, str]:
    """Versions of what the numbers are computed with."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def command() -> str:
    """The words that this process was started with, as they would be typed."""
    return shlex.join(["nrh", *sys.argv[1:]])


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def training_cost(checkpoint: Path) -> dict[str, Any] | None:
    """What the training of a checkpoint's run took, from its metrics.jsonl; None where that is not there.

    ``hours`` of wall clock, ``workers``, and ``device_hours``: hours times workers, epoch by epoch. ``device`` is the
    one that the checkpoint was written on; "" for one of an earlier version.
    """
    epochs = [row for row in read_lines(checkpoint.parent.parent / "metrics.jsonl") if "time_s" in row]
    if checkpoint.parent.name != "checkpoints" or not epochs:
        return None
    hours = device_hours = before = 0.0
    for row in epochs:
        spent = row["time_s"] - before
        before = row["time_s"]
        hours += spent / HOUR
        device_hours += spent * row.get("world_size", 1) / HOUR
    workers, device = epochs[-1].get("world_size", 1), _device(checkpoint)
    return {"hours": hours, "workers": workers, "device_hours": device_hours, "device": device}


def _device(checkpoint: Path) -> str:
    try:
        return str(json.loads((checkpoint / META).read_text()).get("device", ""))
    except (OSError, ValueError):  # pruned by a training that goes on: what was scored of it is worth keeping
        return ""


def _commit(package: Path) -> str | None:
    # A checkout that merely contains this package, as one with a virtual environment in it, does not track it.
    if _git(package, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    commit = _git(package, "rev-parse", "HEAD")
    return commit and commit + ("+changes" if _git(package, "status", "--porcelain", "-uno", ".") else "")


def _git(folder: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
