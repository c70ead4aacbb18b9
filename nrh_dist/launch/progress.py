"""What a sweep shows while it runs: a live table on a terminal, else one line for each epoch of each trial."""

import sys
import time
from pathlib import Path
from typing import Any

from nrh_dist.engine.progress import Say, duration
from nrh_dist.launch import session
from nrh_dist.launch.space import Space
from nrh_dist.launch.trials import failures, life_name, name_of, note_failure, note_stopped, write_table

SHOWN = 20  # trials in the live table, the running ones first, then the best


class Progress:
    """Follows the trials of a sweep by the events that Tune tells of; keeps trials.csv up to date."""

    def __init__(self, searched: Space, folder: Path, say: Say) -> None:
        self.searched, self.folder, self.say = searched, folder, say
        self.is_stopping = False
        self.last: dict[int, dict[str, Any]] = {}  # the newest row of each trial, by index
        self.best: dict[int, float] = {}
        self.trials: list[Any] = []
        self.started = time.monotonic()
        self._live: Any = None

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune writes what it calls to the disk, and a print that Ray replaced cannot go there."""
        return {}

    def running(self) -> list[Path]:
        """The run folders of the trials that train at this moment."""
        return [self.folder / "trials" / name_of(trial) for trial in self.trials if trial.status == "RUNNING"]

    def on_result(self, trials: list[Any], trial: Any, result: dict[str, Any]) -> None:
        """One epoch of one trial."""
        self.trials = trials
        index, value = trial.config["trial"]["index"], result[self.searched.metric]
        self.last[index] = {**result, "folder": name_of(trial)}
        self.best[index] = min(value, self.best.get(index, value))
        if sys.stdout.isatty():
            self._show()
            return
        rate = f"{result['images_per_s']:.1f} images/s"
        self.say(
            f"{name_of(trial)}: epoch {result['epoch']}, {self.searched.metric} {value:.4g}, {rate} ({self.summary()})"
        )

    def on_end(self, trials: list[Any], trial: Any) -> None:
        """A trial ended: by itself, or because the scheduler thinks it hopeless."""
        self.trials = trials
        row = self.last.get(trial.config["trial"]["index"])
        if row and row["epoch"] < self.searched.schedule.max_epochs and not self.is_stopping:
            note_stopped(self.folder / "trials" / name_of(trial), row["epoch"])
        write_table(self.folder, self.searched)

    def on_error(self, trials: list[Any], trial: Any) -> None:
        """A trial failed for good: by itself, which it noted, or because its process died."""
        self.trials = trials
        name = name_of(trial)
        if name not in failures(self.folder):
            # Tune's own getters look where it will have copied the file by the end of the sweep.
            died = RuntimeError(Path(trial.error_file).read_text(encoding="utf-8"))
            note_failure(self.folder / "trials" / name, session.cause(died))
        self.say(f"{name} failed ({failures(self.folder)[name]}); the sweep goes on")
        write_table(self.folder, self.searched)

    def summary(self) -> str:
        """Epochs so far and at most, the best so far."""
        most = self.searched.trials * self.searched.schedule.max_epochs
        index = min(self.best, key=lambda one: self.best[one])
        spent = sum(row["epoch"] for row in self.last.values())
        return f"{spent} of at most {most} epochs; best {self.best[index]:.4g} by {life_name(index)}"

    def close(self) -> None:
        """Leave the last table where it stands."""
        if self._live:
            self._live.update(self.table(), refresh=True)
            self._live.stop()

    def table(self) -> Any:
        """A line of where the sweep is; the trials that train, then the best of the others."""
        from rich.console import Group
        from rich.table import Table

        status = {trial.config["trial"]["index"]: trial.status for trial in self.trials}
        order = sorted(self.last, key=lambda index: (status.get(index) != "RUNNING", self.best[index]))
        hidden = len(order) - SHOWN
        more = f"; {hidden} more trials in trials.csv" if hidden > 0 else ""
        head = f"{self.summary()}; {duration(time.monotonic() - self.started)}{more}"
        table = Table()
        names = ["trial", *self.searched.keys, "epoch", self.searched.metric, "best", "status"]
        for name in names:
            table.add_column(name, justify="left" if name in ("trial", "status") else "right")
        for index in order[:SHOWN]:
            table.add_row(*self._cells(index, status.get(index, "")))
        return Group(head, table)

    def _cells(self, index: int, status: str) -> list[str]:
        row = self.last[index]
        assignment = self.searched.active(row["config"]["trial"]["assignment"])
        values = [_short(assignment.get(key, "")) for key in self.searched.keys]
        reached = [f"{row['epoch']}", f"{row[self.searched.metric]:.4g}", f"{self.best[index]:.4g}"]
        words = {"RUNNING": "training", "TERMINATED": "ended", "ERROR": "failed", "PAUSED": "waits for others"}
        return [row["folder"], *values, *reached, words.get(status, status.lower())]

    def _show(self) -> None:
        from rich.live import Live

        if not self._live:
            self._live = Live(refresh_per_second=2)
            self._live.start()
        self._live.update(self.table())


def callback(progress: Progress) -> Any:
    """Tune's events as calls of ``progress``."""
    from ray.tune import Callback

    class Told(Callback):
        def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **_: Any) -> None:
            progress.on_result(trials, trial, result)

        def on_trial_start(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
            progress.trials = trials

        def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
            progress.on_end(trials, trial)

        def on_trial_error(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
            progress.on_error(trials, trial)

    return Told()


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
