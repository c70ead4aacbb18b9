"""Search-space files: read, checked against the schema before anything starts, and drawn from.

metric: val/mse          # val/mse or val/loss of the validation photos, lower is better; or a list of objectives, the
                         # first one of these two, then cost/parameters or cost/gflop
mode: min
trials: 12               # for search: grid, every combination is tried and this line is left out
scheduler: {asha: {max_epochs: 9, grace_epochs: 1, reduction_factor: 3}}     # or another of schedule.py
search: random           # or grid, optuna
base: {model.name: gated}
space:
  model.freeze: {choice: [encoder, none]}
  optim.lr: {loguniform: [0.0001, 0.003], when: {model.freeze: encoder}}
"""

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nrh_dist import config as configuration
from nrh_dist.errors import UserError
from nrh_dist.launch.schedule import PBT_KEYS, SCHEDULES, Population, Schedule, is_count, known_options
from nrh_dist.schema import Config

KEYS = {"metric", "mode", "trials", "scheduler", "search", "base", "space"}
METRICS = ("val/mse", "val/loss")
COSTS = ("cost/parameters", "cost/gflop")
SEARCHES = ("random", "grid", "optuna")
KINDS = ("choice", "uniform", "loguniform")
FIXED = {"train.epochs": "the scheduler's max_epochs", "train.best_metric": "metric"}
# What all trials share, so that their values can be compared: place, model family, data and which of them judge.
COMMON = {*configuration.PLACE_KEYS, "preset", "stage", "seed"}
DATA_KEYS = ("data.clean_fraction", "data.drop_leaked")
INTERIOR = 0.3819660112501051  # an irrational share of a range: no whole number hides that a key takes only these

Assignment = dict[str, Any]


@dataclass(frozen=True)
class Dimension:
    """One searched key: ``choice`` of ``values``, or ``uniform`` / ``loguniform`` between two; only ``when`` holds."""

    key: str
    kind: str
    values: tuple[Any, ...]
    when: tuple[tuple[str, Any], ...] = ()

    def draw(self, generator: np.random.Generator) -> Any:
        """One value."""
        if self.kind == "choice":
            return self.values[generator.integers(len(self.values))]
        low, high = self.values
        if self.kind == "uniform":
            return float(generator.uniform(low, high))
        return float(math.exp(generator.uniform(math.log(low), math.log(high))))


@dataclass(frozen=True)
class Space:
    """A checked search space; ``base`` holds ``key=value`` words that every trial starts from.

    All ``metrics`` are to be low. The first decides which trials go on and which checkpoint is best.
    """

    name: str
    metrics: tuple[str, ...]
    trials: int
    search: str
    schedule: Schedule
    base: tuple[str, ...]
    dimensions: tuple[Dimension, ...]

    def active(self, assignment: Assignment) -> Assignment:
        """The part of ``assignment`` whose conditions hold; they speak of the base or of unconditional keys."""
        always = {one.key: assignment[one.key] for one in self.dimensions if not one.when}
        known = _flattened(tuple(self._words(always)))
        held = [one.key for one in self.dimensions if all(known[key] == value for key, value in one.when)]
        return {key: assignment[key] for key in held}

    def config(self, assignment: Assignment) -> Config:
        """The configuration of a trial."""
        return configuration.load(None, self._words(self.active(assignment)))

    def costs(self, assignment: Assignment) -> dict[str, float]:
        """What a trial costs, where that is an objective: parameters, GFLOP for an image."""
        if len(self.metrics) == 1:
            return {}
        from nrh_dist.engine.cost import costs

        found = costs(self.config(assignment))
        return {key: found[key] for key in self.metrics[1:]}

    def assignments(self, seed: int) -> list[Assignment]:
        """The trials of a random or grid search, drawn up front: trial i is a function of the file, the seed and i."""
        if self.search == "grid":
            values = itertools.product(*(one.values for one in self.dimensions))
            return [dict(zip(self.keys, chosen, strict=True)) for chosen in values]
        generator = np.random.default_rng(seed)
        return [{one.key: one.draw(generator) for one in self.dimensions} for _ in range(self.trials)]

    def _words(self, active: Assignment) -> list[str]:
        fixed = [f"train.epochs={self.schedule.max_epochs}", f"train.best_metric={self.metric}"]
        return [*self.base, *fixed, *(f"{key}={json.dumps(value)}" for key, value in active.items())]

    @property
    def metric(self) -> str:
        """The first of the metrics."""
        return self.metrics[0]

    @property
    def first(self) -> Assignment:
        """The first value of every dimension: a trial that stands for all where only base or schema matter."""
        return {one.key: one.values[0] for one in self.dimensions}

    @property
    def keys(self) -> list[str]:
        """The searched keys, in the file's order."""
        return [one.key for one in self.dimensions]


@lru_cache(maxsize=4096)
def _flattened(words: tuple[str, ...]) -> dict[str, Any]:
    return configuration.flatten(configuration.load(None, list(words)))


def read(path: Path, words: Sequence[str]) -> Space:
    """Read and check a search-space file; ``words`` are added to its base.

    Raises ``UserError`` with the file's line for an unknown key, a value outside the schema, or a missing part.
    """
    try:
        text = path.read_text(encoding="utf-8")
        lines = _lines(yaml.compose(text))
        content = OmegaConf.to_container(OmegaConf.create(text))
    except OSError as error:
        raise UserError(f"no readable search-space file at {path} ({error.strerror})") from None
    except (yaml.YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    return _Reader(path, lines).space(content, words)


class _Reader:
    """Turns the content of a file into a ``Space``; every complaint names the file and the line."""

    def __init__(self, path: Path, lines: dict[str, int]) -> None:
        self.path, self.lines = path, lines

    def space(self, content: Any, words: Sequence[str]) -> Space:
        self.require(isinstance(content, dict), "", f"must hold the keys {', '.join(sorted(KEYS))}")
        for key in content:
            self.require(key in KEYS, key, f"unknown key '{key}'; known: {', '.join(sorted(KEYS))}")
        metrics, search = self.metrics(content), content.get("search", "random")
        self.require(search in SEARCHES, "search", f"search must be one of {', '.join(SEARCHES)}, not {search}")
        dimensions = tuple(self.dimension(key, given) for key, given in self.mapping(content, "space").items())
        self.require(bool(dimensions), "space", "space must name at least one key to search")
        if search == "grid":
            for one in dimensions:
                self.require(
                    one.kind == "choice", f"space/{one.key}", f"a grid needs a choice for {one.key}, not {one.kind}"
                )
            trials = math.prod(len(one.values) for one in dimensions)
        else:
            trials = content.get("trials")
            self.require(is_count(trials), "trials", f"trials must be a number of at least 1, not {trials}")
        base = [f"{key}={json.dumps(value)}" for key, value in self.mapping(content, "base", optional=True).items()]
        for word in (*base, *words):
            key = word.split("=")[0]
            where = "base" if word in base else ""
            self.require(key not in FIXED, where, f"{word}: a sweep takes it from {FIXED.get(key)}; change it there")
            self.require(all(one.key != key for one in dimensions), f"space/{key}", f"{word}: {key} is searched here")
        schedule = self.schedule(content)
        space = Space(self.path.stem, metrics, trials, search, schedule, (*base, *words), dimensions)
        if isinstance(schedule, Population):
            self.check_population(space)
        self.check_values(space)
        return space

    def metrics(self, content: dict[str, Any]) -> tuple[str, ...]:
        given = content.get("metric")
        metrics = tuple(given) if isinstance(given, list) and given else (given,)
        rule = f"metric must be one of {', '.join(METRICS)}, or a list of one of them and {', '.join(COSTS)}"
        valid = metrics[0] in METRICS and all(one in COSTS for one in metrics[1:])
        self.require(valid and len(set(metrics)) == len(metrics), "metric", f"{rule}; not {given}")
        mode = content.get("mode", "min")
        modes = mode if isinstance(mode, list) else [mode]
        low = all(one == "min" for one in modes) and len(modes) in (1, len(metrics))
        self.require(low, "mode", f"{', '.join(metrics)}: lower is better, mode must be min")
        return metrics

    def schedule(self, content: dict[str, Any]) -> Schedule:
        scheduler = self.mapping(content, "scheduler")
        kind, given = next(iter(scheduler.items()), ("", None))
        known = ", ".join(SCHEDULES)
        valid = len(scheduler) == 1 and kind in SCHEDULES
        self.require(valid, "scheduler", f"scheduler must be one of {known}, not {', '.join(scheduler)}")
        options = known_options(kind)
        valid = isinstance(given, dict) and set(given) <= set(options) and "max_epochs" in given
        more = f" and, if you like, {', '.join(options[1:])}" if options[1:] else ""
        self.require(valid, "scheduler", f"{kind} takes max_epochs{more}")
        schedule = SCHEDULES[kind](**(given or {}))
        self.require(not schedule.fault(), "scheduler", f"{kind}: {schedule.fault()}")
        return schedule

    def check_population(self, space: Space) -> None:
        self.require(space.search == "random", "search", "pbt varies what it draws itself: search must be random")
        self.require(space.trials > 1, "trials", "pbt exchanges weights between trials: trials must be at least 2")
        self.require(len(space.metrics) == 1, "metric", f"pbt goes by one metric, not {', '.join(space.metrics)}")
        for one in space.dimensions:
            rule = f"pbt moves weights from one trial to another, so that it may search {', '.join(PBT_KEYS)} only"
            self.require(one.key in PBT_KEYS, f"space/{one.key}", f"{one.key}: {rule}; fix it in base")

    def dimension(self, key: str, given: Any) -> Dimension:
        where = f"space/{key}"
        can_vary = key.split(".")[0] not in COMMON and (not key.startswith("data.") or key in DATA_KEYS)
        self.require(can_vary, where, f"{key} is the same for all trials of a sweep: give it in base, or as a word")
        kinds = [kind for kind in KINDS if isinstance(given, dict) and kind in given]
        self.require(
            len(kinds) == 1 and set(given) <= {kinds[0], "when"},
            where,
            f"{key} takes one of {', '.join(KINDS)}, and when",
        )
        kind, values, when = kinds[0], given[kinds[0]], given.get("when", {})
        self.require(isinstance(values, list) and bool(values), where, f"{key}: {kind} takes a list of values")
        self.require(isinstance(when, dict), where, f"{key}: when takes keys and values")
        for condition in when:
            known = condition in configuration.flatten(Config())
            self.require(known, where, f"{key}: the condition's key {condition} does not exist")
        if kind != "choice":
            numbers = len(values) == 2 and all(isinstance(value, int | float) for value in values)
            self.require(numbers and values[0] < values[1], where, f"{key}: {kind} takes [low, high], not {values}")
            self.require(
                kind == "uniform" or values[0] > 0, where, f"{key}: loguniform starts above 0, not at {values[0]}"
            )
        return Dimension(key, kind, tuple(values), tuple(when.items()))

    def check_values(self, space: Space) -> None:
        """Load a configuration for values of every dimension, where its condition holds."""
        for one in space.dimensions:
            where = f"space/{one.key}"
            low, high = one.values[0], one.values[-1]
            inside = [] if one.kind == "choice" else [low + INTERIOR * (high - low)]
            for value in (*one.values, *inside):
                assignment = {**space.first, **dict(one.when), one.key: value}
                try:
                    config = space.config(assignment)
                    held = one.key in space.active(assignment)
                except UserError as error:
                    raise UserError(f"{self.where(where)}: {error}") from None
                self.require(held, where, f"{one.key}: its condition {dict(one.when)} never holds")
        self.require(config.stage == "harmonisation", "base", "a sweep searches harmonisation models")

    def mapping(self, content: dict[str, Any], key: str, optional: bool = False) -> dict[str, Any]:
        value = content.get(key, {} if optional else None)
        self.require(isinstance(value, dict), key, f"'{key}' must hold keys and values")
        return dict(value or {})

    def require(self, holds: bool, where: str, message: str) -> None:
        if not holds:
            raise UserError(f"{self.where(where)}: {message}")

    def where(self, key: str) -> str:
        line = self.lines.get(key, self.lines.get(key.split("/")[0]))
        return f"{self.path}, line {line}" if line else str(self.path)


def _lines(node: yaml.Node | None) -> dict[str, int]:
    """``{"space/optim.lr": 9}``: the line of each key of the first two levels."""
    lines: dict[str, int] = {}
    if not isinstance(node, yaml.MappingNode):
        return lines
    for key, value in node.value:
        lines[key.value] = key.start_mark.line + 1
        if isinstance(value, yaml.MappingNode):
            lines.update({f"{key.value}/{inner.value}": inner.start_mark.line + 1 for inner, _ in value.value})
    return lines
