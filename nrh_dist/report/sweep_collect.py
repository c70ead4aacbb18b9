"""Read and check the folder of a sweep: nothing after this file meets a malformed value.

A sweep that is unfinished, or whose trials failed, is read as far as it got.
"""

import csv
import io
import json
from dataclasses import dataclass
from math import inf, isfinite
from pathlib import Path
from typing import Any

import msgspec
import yaml

from nrh_dist.errors import UserError
from nrh_dist.report.collect import read_json

SWEEP, TABLE, ROWS = "sweep.json", "trials.csv", "metrics.jsonl"
SCHEMA = 2
REMEDY = "bring the file back, or run the sweep again"
FINISHED, STOPPED, FAILED, RUNNING, WAITING = "finished", "stopped early", "failed", "running", "waiting"
KINDS = ("choice", "uniform", "loguniform")


class Written(msgspec.Struct):
    """``sweep.json``."""

    metrics: list[str]
    trials: int
    search: str
    scheduler: dict[str, dict[str, Any]]
    base: list[str]
    space: dict[str, dict[str, Any]]


class Origin(msgspec.Struct):
    """Whose weights a life of a trial took, and after which epoch."""

    trial: str
    epoch: int


class Assigned(msgspec.Struct):
    """``assignment.json``."""

    index: int
    life: int
    assignment: dict[str, Any]
    costs: dict[str, float] = {}
    origin: Origin | None = msgspec.field(default=None, name="from")


class Failure(msgspec.Struct):
    reason: str


@dataclass(frozen=True)
class Dimension:
    """A searched key: a ``choice`` of ``values``, or ``uniform`` / ``loguniform`` between two; where ``when`` holds."""

    key: str
    kind: str
    values: list[Any]
    when: dict[str, Any]

    def holds(self, value: Any) -> bool:
        """Whether ``value`` is one that this dimension can give."""
        if self.kind == "choice":
            return value in self.values
        return isinstance(value, int | float) and self.values[0] <= value <= self.values[1]


@dataclass(frozen=True)
class Trial:
    """A trial, or one life of it; ``values`` has the first metric by epoch, also of the epochs that it took over.

    ``assignment`` has the keys whose conditions hold; ``began`` and ``ended`` are the times of its files, in seconds.
    """

    name: str
    index: int
    life: int
    assignment: dict[str, Any]
    costs: dict[str, float]
    origin: Origin | None
    values: dict[int, float]
    status: str
    reason: str
    config: dict[str, Any]
    began: float
    ended: float

    @property
    def best(self) -> float:
        """The lowest value, infinite where there is none."""
        return min(self.values.values(), default=inf)

    @property
    def own(self) -> dict[int, float]:
        """The values of the epochs that it trained itself."""
        taken = self.origin.epoch if self.origin else 0
        return {epoch: value for epoch, value in self.values.items() if epoch > taken}

    @property
    def epochs(self) -> int:
        """The epochs behind it."""
        return max(self.values, default=0)


@dataclass(frozen=True)
class Sweep:
    """A sweep's folder. ``lives`` has every life of every trial that began, ``trials`` the latest one of each trial.

    All metrics are better lower. The first decides which trials go on; the others are costs, known before training.
    """

    folder: Path
    metrics: list[str]
    search: str
    scheduler: str
    options: dict[str, Any]
    base: list[str]
    dimensions: list[Dimension]
    lives: list[Trial]
    trials: list[Trial]

    @property
    def metric(self) -> str:
        return self.metrics[0]

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    @property
    def keys(self) -> list[str]:
        return [one.key for one in self.dimensions]

    @property
    def max_epochs(self) -> int:
        return self.options["max_epochs"]

    @property
    def epochs(self) -> int:
        """The epochs that all trials trained."""
        return sum(len(one.own) for one in self.lives)

    @property
    def best(self) -> Trial | None:
        """The life that trained the lowest value itself; the earliest of equals."""
        return min((one for one in self.lives if one.own), key=lambda one: min(one.own.values()), default=None)

    @property
    def valued(self) -> list[Trial]:
        """The trials that have a value."""
        return [one for one in self.trials if isfinite(one.best)]

    def count(self, status: str) -> int:
        """How many trials have this status."""
        return sum(one.status == status for one in self.trials)

    def objectives(self, trial: Trial) -> list[float]:
        """The values of all metrics, infinite where not known."""
        return [trial.best, *(trial.costs.get(metric, inf) for metric in self.metrics[1:])]


def is_sweep(folder: Path) -> bool:
    """Whether this is the folder of a sweep, sound or not."""
    return (folder / SWEEP).is_file()


def read(folder: Path) -> Sweep:
    """The sweep in ``folder``; ``UserError`` where it is none, has another schema or is damaged."""
    path = folder / SWEEP
    if not path.is_file():
        raise UserError(f"{folder} is not the folder of a sweep ({SWEEP}): give one that nrh tune wrote")
    written = read_json(path, Written, SCHEMA, REMEDY)
    kind = next(iter(written.scheduler), "")
    options = written.scheduler.get(kind, {})
    if not written.metrics or not isinstance(options.get("max_epochs"), int):
        raise UserError(f"{path} names no metric, or no max_epochs of its scheduler: {REMEDY}")
    dimensions = [_dimension(path, key, given) for key, given in written.space.items()]
    folders = [one for one in (folder / "trials").glob("t[0-9]*") if one.is_dir()]
    lives = [_life(one, dimensions, written.metrics[0], options["max_epochs"]) for one in folders]
    lives.sort(key=lambda one: (one.index, one.life))
    latest = {one.index: one for one in lives}
    trials = [*latest.values(), *(_waiting(index) for index in range(written.trials) if index not in latest)]
    return Sweep(
        folder=folder,
        metrics=written.metrics,
        search=written.search,
        scheduler=kind,
        options=options,
        base=[_setting(path, word) for word in written.base],
        dimensions=dimensions,
        lives=lives,
        trials=trials,
    )


def write_table(sweep: Sweep, path: Path) -> None:
    """Write the trials as ``trials.csv`` of the sweep has them."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", *sweep.keys, *sweep.metrics, "epochs", "status", "reason", "folder"])
    for one in sweep.trials:
        values = [value if isfinite(value) else "" for value in sweep.objectives(one)]
        place = "" if one.status == WAITING else f"trials/{one.name}"
        cells = [one.assignment.get(key, "") for key in sweep.keys]
        writer.writerow([one.name, *cells, *values, one.epochs, one.status, one.reason, place])
    path.write_text(text.getvalue(), encoding="utf-8")


def _setting(path: Path, word: str) -> str:
    """A word of ``base`` as others may see it."""
    key, equals, value = word.partition("=")
    if not equals:
        raise UserError(f"{path} has '{word}' in base, which is no key=value: {REMEDY}")
    return f"{key}={placeless(value)}"


def _dimension(path: Path, key: str, given: dict[str, Any]) -> Dimension:
    kind = next((one for one in KINDS if one in given), "")
    values, when = given.get(kind), given.get("when", {})
    is_range = kind == "choice" or (isinstance(values, list) and len(values) == 2 and values[0] < values[1])
    if not isinstance(values, list) or not values or not is_range or not isinstance(when, dict):
        raise UserError(f"{path} says of {key} neither a choice nor a range: {REMEDY}")
    return Dimension(key, kind, values, when)


def _life(folder: Path, dimensions: list[Dimension], metric: str, last: int) -> Trial:
    name, _, life = folder.name[1:].partition("-")
    if not name.isdecimal() or not (life or "1").isdecimal():
        raise UserError(f"{folder} is no folder of a trial, which are called t0000 or t0000-2: move it elsewhere")
    failure = folder / "failure.json"
    reason = read_json(failure, Failure, 1, REMEDY).reason if failure.is_file() else ""
    noted = folder / "assignment.json"
    if not noted.is_file():  # it died, or waits, before it wrote one
        status = FAILED if reason else RUNNING
        return _waiting(int(name), folder.name, int(life or 1), status, reason)
    assigned = read_json(noted, Assigned, SCHEMA, REMEDY)
    if (assigned.index, assigned.life) != (int(name), int(life or 1)):
        raise UserError(f"{noted} is of another trial than its folder says: {REMEDY}")
    config, rows = _config(folder / "config.yaml"), folder / ROWS
    values = _values(rows, metric, last)
    reached = FINISHED if max(values, default=0) == last else RUNNING
    if reached == RUNNING and (folder / "stopped.json").exists():
        reached = STOPPED
    began = noted.stat().st_mtime
    return Trial(
        folder.name,
        assigned.index,
        assigned.life,
        _active(noted, dimensions, assigned.assignment, config),
        assigned.costs,
        assigned.origin,
        values,
        FAILED if reason else reached,
        reason,
        config,
        began,
        max(began, rows.stat().st_mtime) if rows.is_file() else began,
    )


def _waiting(index: int, name: str = "", life: int = 1, status: str = WAITING, reason: str = "") -> Trial:
    return Trial(name or f"t{index:04d}", index, life, {}, {}, None, {}, status, reason, {}, 0.0, 0.0)


def _active(path: Path, dimensions: list[Dimension], given: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    """The part of an assignment whose conditions hold, checked against the space."""
    known, active = {**config, **given}, {}
    for one in dimensions:
        if any(known.get(key) != value for key, value in one.when.items()):
            continue
        if one.key not in given or not one.holds(given[one.key]):
            raise UserError(f"{path} gives {one.key} no value of the space in {SWEEP}: {REMEDY}")
        active[one.key] = given[one.key]
    return active


def _config(path: Path) -> dict[str, Any]:
    """The configuration of a trial by dotted keys; none of one that ended before it wrote any."""
    if not path.exists() and not path.with_name(ROWS).exists():
        return {}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path} is no readable configuration ({' '.join(str(error).split())}): {REMEDY}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is no configuration: {REMEDY}")
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat.update(
            {f"{key}.{name}": inner for name, inner in value.items()} if isinstance(value, dict) else {key: value}
        )
    return flat


def _values(path: Path, metric: str, last: int) -> dict[int, float]:
    """The metric by epoch; a line that a crash cut off is left out, as the training does."""
    values = {}
    for line in path.read_bytes().splitlines() if path.is_file() else []:
        try:
            row = json.loads(line)
            epoch, value = int(row["epoch"]), float(row[metric])
        except (ValueError, KeyError, TypeError):
            continue
        if epoch <= last and isfinite(value):
            values[epoch] = value
    return dict(sorted(values.items()))


def placeless(value: Any) -> str:
    """A value as others may see it: of a path, the last name."""
    text = str(value).strip('"')
    return Path(text).name if "/" in text else str(value)
