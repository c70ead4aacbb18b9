"""How long the trials of a sweep train, and which of them go on: the ``scheduler`` of a space file, as plain data.

scheduler: {none: {max_epochs: 9}}                                           every trial to its end
scheduler: {asha: {max_epochs: 27, grace_epochs: 1, reduction_factor: 3}}    asynchronous successive halving
scheduler: {hyperband: {max_epochs: 27, reduction_factor: 3}}                brackets of it, in step
scheduler: {median: {max_epochs: 27, grace_epochs: 1, min_trials: 3}}        stops what is below the median
scheduler: {pbt: {max_epochs: 27, interval_epochs: 3, share: 0.25}}          population-based training
"""

from dataclasses import dataclass, fields
from typing import Any, ClassVar

# What population-based training may change on the way: all but what decides the shape of a network or its data.
PBT_KEYS = ("optim.lr", "optim.eps", "loss.gate", "loss.harm", "loss.name", "data.clean_fraction")


@dataclass(frozen=True)
class Schedule:
    """Every trial trains ``max_epochs`` epochs. ``pauses``: whether trials may be stopped and continued on the way."""

    kind: ClassVar[str] = "none"
    pauses: ClassVar[bool] = False
    max_epochs: int

    def fault(self) -> str | None:
        """What is wrong with the values, in words."""
        counts = [one.name for one in fields(self) if one.type is int and not is_count(getattr(self, one.name))]
        return f"{counts[0]} must be a whole number of at least 1, not {getattr(self, counts[0])}" if counts else None


@dataclass(frozen=True)
class Asha(Schedule):
    """At each rung only the best 1 / ``reduction_factor`` of those that got there so far go on (Li et al. 2020)."""

    kind = "asha"
    grace_epochs: int = 1
    reduction_factor: int = 3

    def fault(self) -> str | None:
        """Also: a rung within the epochs, and a reduction."""
        return super().fault() or _grace_fault(self) or _reduction_fault(self)


@dataclass(frozen=True)
class HyperBand(Schedule):
    """Brackets of successive halving, each waiting for all its trials (Li et al. 2018)."""

    kind = "hyperband"
    pauses = True
    reduction_factor: int = 3

    def fault(self) -> str | None:
        """Also: a reduction."""
        return super().fault() or _reduction_fault(self)


@dataclass(frozen=True)
class Median(Schedule):
    """A trial ends whose best is worse than the median of the running means of at least ``min_trials`` others."""

    kind = "median"
    grace_epochs: int = 1
    min_trials: int = 3

    def fault(self) -> str | None:
        """Also: a first judgement within the epochs."""
        return super().fault() or _grace_fault(self)


@dataclass(frozen=True)
class Population(Schedule):
    """Every ``interval_epochs`` the worst ``share`` of the trials take weights and values of the best, and vary them.

    All wait for each other there, so that every trial trains each epoch once (Jaderberg et al. 2017, synchronous).
    """

    kind = "pbt"
    pauses = True
    interval_epochs: int = 1
    share: float = 0.25

    def fault(self) -> str | None:
        """Also: an exchange on the way, of at most half of the trials."""
        if fault := super().fault():
            return fault
        if self.interval_epochs >= self.max_epochs:
            return "interval_epochs must be below max_epochs: else nothing is ever exchanged"
        is_share = isinstance(self.share, int | float) and 0 < self.share <= 0.5
        return None if is_share else f"share must be above 0 and at most 0.5, not {self.share}"


SCHEDULES: dict[str, type[Schedule]] = {one.kind: one for one in (Schedule, Asha, HyperBand, Median, Population)}


def known_options(kind: str) -> list[str]:
    """The options of a kind of schedule, max_epochs first."""
    return [one.name for one in fields(SCHEDULES[kind])]


def is_count(value: Any) -> bool:
    """Whether ``value`` is a whole number of at least 1."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _grace_fault(one: Asha | Median) -> str | None:
    return "grace_epochs must not exceed max_epochs" if one.grace_epochs > one.max_epochs else None


def _reduction_fault(one: Asha | HyperBand) -> str | None:
    return "reduction_factor must be at least 2" if one.reduction_factor < 2 else None
