"""Tracking: one JSON line an epoch always; Weights & Biases or nothing beside it, never on the critical path."""

import hashlib
import math
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from nrh_dist import config as configuration
from nrh_dist.data.pack import Pack
from nrh_dist.engine import checkpoint, wandb_process
from nrh_dist.engine.files import read_lines, write_lines
from nrh_dist.engine.progress import Say
from nrh_dist.engine.wandb_run import WandbRun
from nrh_dist.schema import Config

METRICS = "metrics.jsonl"
KEPT = "kept"  # beside W&B's folders of a run: what it is still to send

Picture = tuple[str, str]  # caption, path
Draw = Callable[[], list[Picture]]


class Tracker(Protocol):
    """What the loop tells: one row an epoch, and the end."""

    def log(self, row: dict[str, Any], draw: Draw) -> None:
        """Record the numbers of one epoch; ``draw`` makes its pictures, where they are wanted."""

    def finish(self) -> None:
        """No more rows will come."""


class Nothing:
    """The tracker of ranks that do not write, and of ``track.wandb=disabled``."""

    def log(self, row: dict[str, Any], draw: Draw) -> None:
        """Do nothing."""

    def finish(self) -> None:
        """Do nothing."""


class WandbTracker:
    """A training as a W&B run under a stable id, so that a resumed training continues it.

    A tracker must not stop, slow or change a training: see ``WandbRun``. Pictures that cannot be made are said once,
    and no more are tried.
    """

    def __init__(self, config: Config, folder: Path, pack: Pack, mode: str, say: Say) -> None:
        self._config, self._folder, self._say = config, folder, say
        self._strip_epochs = config.track.strip_epochs
        options = {
            "mode": mode,
            "project": config.track.project,
            "group": config.track.group or config.model.name,
            "job_type": config.stage,
            "name": folder.name,
            "id": stable_id(folder),
            "config": configuration.to_dict(config),
        }
        is_new = not (folder / "wandb").exists()
        self._run = WandbRun(folder, options, config.track.finish_seconds, say)
        for row in read_lines(folder / METRICS) if is_new else ():  # of a donor, or from before W&B was asked for
            self._run.tell("log", row=row, pictures=[])
        if config.track.artifacts != "none":
            self._run.tell("artifact", **pack_artifact(folder, pack))
            self._offer_best()

    def log(self, row: dict[str, Any], draw: Draw) -> None:
        """Hand one row over, with pictures every ``track.strip_epochs`` and after the last; never waits."""
        self._run.tell("log", row=row, pictures=self._pictures(row["epoch"], draw))
        if self._config.track.artifacts == "best":
            self._offer_best()
        elif self._config.track.artifacts == "all":
            path = self._folder / checkpoint.FOLDER / checkpoint.checkpoint_name(row["epoch"], row["step"])
            aliases = ["best", "latest"] if path.name == checkpoint.named_best(self._folder) else ["latest"]
            artifact = checkpoint_artifact(self._folder, path, aliases)
            with suppress(OSError):
                wandb_process.keep(artifact["path"], artifact["place"])  # at once: it may soon be pruned
            self._run.tell("artifact", **artifact)

    def finish(self) -> None:
        """Close the run within ``track.finish_seconds``."""
        self._run.finish()

    def _offer_best(self) -> None:
        """Have the best checkpoint so far sent when the run ends, however it ends."""
        if self._config.track.artifacts == "best" and (name := checkpoint.named_best(self._folder)):
            path = self._folder / checkpoint.FOLDER / name
            self._run.tell("at_the_end", **checkpoint_artifact(self._folder, path, ["best", "latest"]))

    def _pictures(self, epoch: int, draw: Draw) -> list[Picture]:
        every = self._strip_epochs
        if not every or (epoch % every and epoch < self._config.train.epochs):
            return []
        try:
            return draw()
        except Exception as error:  # a full disk, no memory left on the GPU
            self._strip_epochs = 0
            self._say(f"no more image strips: {type(error).__name__}: {str(error).split(chr(10))[0]}")
            return []


def stable_id(folder: Path) -> str:
    """The same for a resumed run, another for a run of the same name elsewhere."""
    return f"{folder.name[:80]}-{hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:8]}"


def pack_artifact(folder: Path, pack: Pack) -> dict[str, Any]:
    """What a training used, for the W&B run in ``folder``: the manifest of its data, never the pixels."""
    return _artifact(folder, f"pack-{pack.digest[:12]}", "dataset", pack.root / "pack.json", ["latest"], used=True)


def checkpoint_artifact(folder: Path, path: Path, aliases: list[str], used: bool = False) -> dict[str, Any]:
    """What a training made, or an evaluation ``used``: a checkpoint folder, one more version of its run's."""
    run = path.parent.parent if path.parent.name == checkpoint.FOLDER else path
    return _artifact(folder, f"checkpoint-{stable_id(run)}", "model", path, aliases, used)


def _artifact(folder: Path, name: str, type: str, path: Path, aliases: list[str], used: bool) -> dict[str, Any]:
    place = folder / "wandb" / KEPT / name / path.name
    paths = {"path": str(path.absolute()), "place": str(place.absolute())}
    return {"name": name, "type": type, **paths, "aliases": aliases, "used": used}


def wandb_mode(config: Config) -> str:
    """``online``, ``offline`` or ``disabled``: WANDB_MODE beats the config; without a key online becomes offline."""
    mode = os.environ.get("WANDB_MODE") or config.track.wandb
    return "offline" if mode == "online" and not has_key() else mode


def has_key() -> bool:
    """Whether W&B finds a key, in the environment or where ``wandb login`` puts it."""
    return bool(os.environ.get("WANDB_API_KEY")) or _netrc_has_key()


def open_tracker(config: Config, folder: Path, pack: Pack, say: Say) -> Tracker:
    """The tracker that the configuration asks for."""
    mode = wandb_mode(config)
    return Nothing() if mode == "disabled" else WandbTracker(config, folder, pack, mode, say)


def append_row(folder: Path, row: dict[str, Any]) -> None:
    """Append one epoch's row to ``metrics.jsonl``, replacing a row of the same epoch or later."""
    write_lines(folder / METRICS, [*rows_up_to(folder, row["epoch"] - 1), row])


def rows_up_to(folder: Path, epoch: int) -> list[dict[str, Any]]:
    """The rows of ``metrics.jsonl`` up to ``epoch``, in order."""
    return [row for row in read_lines(folder / METRICS) if row.get("epoch", math.inf) <= epoch]


def drop_rows_after(folder: Path, epoch: int) -> None:
    """Drop the rows of epochs that a resumed run will do again."""
    write_lines(folder / METRICS, rows_up_to(folder, epoch))


def _netrc_has_key() -> bool:
    path = Path(os.environ.get("NETRC") or Path.home() / ".netrc")
    host = urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").hostname or ""
    try:
        return host in path.read_text(errors="replace").split()
    except OSError:
        return False
