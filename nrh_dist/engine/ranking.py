"""Which of several models is best: the good end of each metric, order and ties, the Pareto front. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nrh_dist.engine.cost import COSTS
from nrh_dist.errors import UserError

Values = dict[str, dict[str, float]]  # metric -> {the data that it was measured on: value}

LOWER = ("loss", "mse", "fmse", "lpips", "worse", "worse1", "threshold_error", "parameters", "gflop", "latency_ms")
HIGHER = ("psnr", "accuracy", "iou")
TIES = "the earlier epoch, then the run's name, then its folder"


@dataclass
class Candidate:
    """A model with what is known of it.

    ``path`` is its checkpoint folder, None where that is gone; ``model`` and ``size`` are as in meta.json;
    ``evaluations`` are the folders of those that scored it, with the run that it is there.
    """

    run: str
    epoch: int
    path: Path | None
    model: dict[str, Any] = field(default_factory=dict)
    size: int = 0
    values: Values = field(default_factory=dict)
    evaluations: list[tuple[Path, str]] = field(default_factory=list)

    def value(self, metric: str) -> float:
        """The value of a metric that was measured on one data only."""
        (value,) = self.values[metric].values()
        return value

    def add(self, values: Mapping[str, float], data: str) -> None:
        """Note what was measured on ``data``."""
        note(self.values, values, data)


def note(values: Values, measured: Mapping[str, float], data: str) -> None:
    """Add what was ``measured`` on ``data`` to ``values``."""
    for metric, value in measured.items():
        values.setdefault(metric, {})[data] = value


def is_metric(name: str) -> bool:
    """Whether it is known which end of ``name`` is the good one; what stands before its last slash does not matter."""
    return _end(name) in (*LOWER, *HIGHER)


def sign(metric: str) -> int:
    """What makes the best value of ``metric`` the lowest one: 1, or -1 where higher is better."""
    return -1 if _end(metric) in HIGHER else 1


def is_of_training(metric: str) -> bool:
    """Whether a training measures it, on validation data of its own."""
    return metric.split("/")[0] in ("val", "train")


def comparable(candidates: Sequence[Candidate], metrics: Sequence[str]) -> list[Candidate]:
    """Those with a value of every metric; at least one.

    ``UserError`` for a metric that none has, naming those there are; for one that evaluations measured on different
    data; and where none has all.
    """
    known = sorted({metric for one in candidates for metric in one.values if is_metric(metric)} - {*COSTS})
    for metric in metrics:
        if metric not in {*known, *COSTS}:
            raise UserError(f"no checkpoint with {metric} there; metrics there: {', '.join([*known, *COSTS])}")
        measured = sorted({data for one in candidates for data in one.values.get(metric, ())})
        if len(measured) > 1 and not is_of_training(metric):
            raise UserError(f"{metric} was measured on different data ({'; '.join(measured)}): rank them apart")
    found = [one for one in candidates if all(metric in one.values for metric in metrics)]
    if not found:
        raise UserError(f"no checkpoint has all of {', '.join(metrics)}: evaluate those of the runs first")
    return found


def point(one: Candidate, metrics: Sequence[str]) -> tuple[float, ...]:
    """The values of ``metrics``, those where higher is better negated: all of them to be minimised."""
    return tuple(sign(metric) * one.value(metric) for metric in metrics)


def rank(candidates: Sequence[Candidate], metrics: Sequence[str]) -> list[Candidate]:
    """Best first: by the first metric, ties by the next one, and after the last by ``TIES``."""
    return sorted(candidates, key=lambda one: (*point(one, metrics), one.epoch, one.run, str(one.path)))


def front(points: Sequence[Sequence[float]]) -> list[bool]:
    """Which of the points are on the Pareto front, where every coordinate is to be minimised.

    A point is off it if another one is nowhere higher and somewhere lower; equal points are on it, or off, together.
    """
    return [not any(_dominates(other, one) for other in points) for one in points]


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    return tuple(one) != tuple(other) and all(a <= b for a, b in zip(one, other, strict=True))


def _end(metric: str) -> str:
    return metric.rsplit("/", 1)[-1]
