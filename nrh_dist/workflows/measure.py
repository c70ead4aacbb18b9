"""What all benches share: interleaved rounds, a ratio against a peer, the machine, and how both are told and kept.

A timing means something only beside another one of the same run: so there are ratios here and no times.
"""

import os
import platform
import re
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from nrh_dist.engine.files import write_json
from nrh_dist.engine.progress import Say
from nrh_dist.errors import UserError

SCHEMA = 1
LIBRARIES = ("numpy", "opencv-python-headless", "pillow", "pycocotools", "msgspec", "ray", "scikit-image")


@dataclass(frozen=True)
class Figure:
    """How many times better than ``peer`` something is: the median of ``rounds`` ratios, and the range of all of them.

    ``target`` is the least ratio that is wanted, None where the figure is only told. ``unit`` is what was counted on
    both sides, ``note`` what a reader has to know beside the ratio.
    """

    name: str
    ratio: float
    low: float
    high: float
    rounds: int
    target: float | None
    peer: str
    unit: str
    note: str = ""

    @property
    def is_reached(self) -> bool:
        """Whether the ratio is at least the target; true without a target."""
        return self.target is None or self.ratio >= self.target

    def line(self) -> str:
        """The figure as a user reads it."""
        spread = f"{self.low:.3g} to {self.high:.3g} in {self.rounds} rounds, {self.unit}"
        verdict = {True: "reached", False: "NOT reached"}[self.is_reached]
        wanted = "" if self.target is None else f"; target {self.target:g}: {verdict}"
        return f"{self.name}: {self.ratio:.3g} times {self.peer} ({spread}){wanted}" + (self.note and f"; {self.note}")


def figure(name: str, ratios: Sequence[float], target: float | None, peer: str, unit: str, note: str = "") -> Figure:
    """The figure of several rounds' ratios."""
    middle, low, high = (round(value, 4) for value in (statistics.median(ratios), min(ratios), max(ratios)))
    return Figure(name, middle, low, high, len(ratios), target, peer, unit, note)


def interleaved(ours: Callable[[int], float], peer: Callable[[int], float], rounds: int) -> list[float]:
    """peer / ours of each round. Both get the round's number and return a cost; they take turns at going first."""
    ratios = []
    for number in range(rounds):
        costs: dict[Callable[[int], float], float] = {}
        for side in (ours, peer) if number % 2 == 0 else (peer, ours):
            costs[side] = side(number)
        ratios.append(costs[peer] / costs[ours])
    return ratios


def peak_memory() -> float:
    """The most memory this process has held so far, in MiB."""
    found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found, "Linux tells every process its peak"
    return int(found[1]) / 1024


def machine() -> dict[str, str | int | dict[str, str]]:
    """CPU model, number of cores, and the versions of what the work is done with."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "libraries": {name: found for name in LIBRARIES if (found := _version(name))},
    }


def default_file() -> Path:
    """``bench-<machine>.json`` in the current folder."""
    name = re.sub(r"[^a-z0-9]+", "-", _cpu().lower()).strip("-")
    return Path(f"bench-{name}-{len(os.sched_getaffinity(0))}-cores.json")


def write(figures: Sequence[Figure], path: Path, say: Say) -> None:
    """Print the figures and write them, with the machine, as JSON. ``UserError`` if that cannot be written."""
    for one in figures:
        say(one.line())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"schema": SCHEMA, "machine": machine(), "figures": [asdict(one) for one in figures]})
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; choose another --out") from None
    say(f"written to {path}")


def _cpu() -> str:
    found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    return found[1].strip() if found else platform.machine()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
