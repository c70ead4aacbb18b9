"""The process that talks to Weights & Biases, so that nothing that happens to it can hold, slow or end a training.

``wandb_run`` starts it and writes lines of JSON to its standard input: the options of ``wandb.init``, then one
``[verb, arguments]`` a line, a method of ``Session``. The end of the input, however it comes, is the end of the run.
Its output is ASKING when it calls W&B, TAKEN when W&B took the run, DONE when all is told, and the one line of what
went wrong.
"""

import csv
import fcntl
import json
import os
import shutil
import sys
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import IO, Any

ASKING, TAKEN, DONE = b"?", b"!", b"."


class Session:
    """What can be told of a run. Files are named by their paths, never carried."""

    def __init__(self, run: Any, options: dict[str, Any]) -> None:
        self.run, self.options = run, options
        self.problem = ""
        self._last: dict[str, Any] = {}
        self._places: list[Path] = []
        run.define_metric("*", step_metric="epoch")

    def log(self, row: dict[str, Any], pictures: list[tuple[str, str]]) -> None:
        """One epoch's numbers, and pictures as (caption, path). Its step is the epoch, however often it is resumed."""
        from wandb import Image

        shown = {"samples": [Image(path, caption=caption) for caption, path in pictures]} if pictures else {}
        self.run.log({**row, **shown}, step=row["epoch"], commit=True)  # else it waits for the next

    def table(self, key: str, path: str) -> None:
        """A CSV file, its numbers as numbers."""
        with open(path, encoding="utf-8", newline="") as file:
            columns, *rows = csv.reader(file)
        self.rows(key, columns, [[_cell(value) for value in row] for row in rows])

    def rows(self, key: str, columns: list[str], rows: list[Any]) -> None:
        """A table that is small enough to be carried."""
        from wandb import Table

        self.run.log({key: Table(columns=[*columns], rows=rows)})

    def summary(self, values: dict[str, Any]) -> None:
        """Numbers that are no history."""
        self.run.summary.update(values)

    def artifact(self, name: str, type: str, path: str, place: str, aliases: list[str], used: bool) -> None:
        """A file, or those of a folder, that the run made or ``used``; the same content is the same version to W&B.

        It is kept at ``place`` until it was sent. What cannot be read any more is left out.
        """
        from wandb import Artifact

        try:
            made = Artifact(name, type)
            kept = keep(path, place)
            files = [kept] if kept.is_file() else sorted(kept.iterdir())
            for file in files:
                made.add_file(str(file), policy="immutable", skip_cache=True)
        except (OSError, ValueError) as error:
            self.problem = f"left out {name} ({error})"
            return
        if not files:
            self.problem = f"left out {name}: {path} is gone"
            return
        self._places.append(Path(place))
        made.finalize()
        # What log_artifact and use_artifact come to; but these wait for the server, and offline nothing can be used.
        self.run._interface.publish_artifact(self.run, made, aliases, use_after_commit=used, is_user_created=used)

    def at_the_end(self, **artifact: Any) -> None:
        """An ``artifact`` for the end of the run, in the place of an earlier one."""
        self._last = artifact

    def finish(self) -> None:
        """Raises ``TimeoutError`` where the server did not take everything in time."""
        if self._last:
            self.artifact(**self._last)
        self.run.finish()
        if self.options["mode"] == "online":
            for place in self._places:
                shutil.rmtree(place, ignore_errors=True)
            for log in Path(self.run.dir).parent.glob("*.wandb"):
                log.with_suffix(".wandb.synced").touch()  # as `wandb sync` does


def keep(path: str, place: str) -> Path:
    """Give a file, or those of a folder, second names in the folder ``place``: the first may be gone when it is sent.

    That costs nothing as long as both are there. Returns ``place``, or ``path`` on a disk without second names.
    """
    source, target = Path(path), Path(place)
    try:
        target.mkdir(parents=True, exist_ok=True)
        for file in [source] if source.is_file() else source.glob("*"):
            with suppress(FileExistsError):
                (target / file.name).hardlink_to(file)
    except OSError:
        return source
    return target


def hold(place: Path, how: int) -> IO[str] | None:
    """Lock W&B's folders in ``place`` until the file is closed, for sending them or (shared) for writing one of them.

    None where another process holds them.
    """
    file = (place / ".writing").open("a+")
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file


def _cell(value: str) -> float | str | None:
    with suppress(ValueError):
        return float(value)
    return value or None


def main() -> None:
    """Do what comes. Never leaves by the interpreter's own end, where the SDK would wait for its server again.

    It is nobody's child: Ray kills those of a worker when it stops a trial.
    """
    if os.fork():
        os._exit(0)
    output = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    try:
        told = DONE.decode() + _serve(output)
    except Exception as error:  # the SDK raises many kinds
        told = f"{type(error).__name__}: {error}".split("\n")[0]
    _say(output, told[:300].encode())
    os._exit(0)


def _serve(output: int) -> str:
    """Make a run of what comes; returns what of it could not be done."""
    import wandb

    options = json.loads(sys.stdin.readline())
    settings = wandb.Settings(**options.pop("settings"))
    place = Path(options["dir"]) / "wandb"
    place.mkdir(exist_ok=True)
    with hold(place, fcntl.LOCK_SH) or nullcontext():
        _say(output, ASKING)
        session = Session(wandb.init(settings=settings, **options), options)
        _say(output, TAKEN)
        for line in sys.stdin:
            verb, given = json.loads(line)
            getattr(session, verb)(**given)
        session.finish()
    return session.problem


def _say(output: int, text: bytes) -> None:
    with suppress(BrokenPipeError):  # who asked may be gone; the run goes on to its end
        os.write(output, text)


if __name__ == "__main__":
    main()
