"""What all benches share: rounds in turns, ratios against a peer, distances to a floor, and how they are told and kept.

A timing means something only beside another one of the same run: so there are ratios here, and times of a GPU alone.

    bench-<machine>.json    {"schema": 2, "benches": {NAME: {"command": ..., "machine": {...}, "figures": [...]}}}
"""

import json
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from pathlib import Path
from shutil import disk_usage
from typing import Any

from nrh_dist.engine.files import write_json
from nrh_dist.engine.progress import Say
from nrh_dist.errors import UserError

SCHEMA = 2
REPORTS, MEMORY = Path("reports"), Path("/dev/shm")
LIBRARIES = (
    *("numpy", "opencv-python-headless", "pillow", "pycocotools", "msgspec", "ray", "scikit-image", "torch"),
    "webdataset",
)
INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")  # that the speed of a CPU depends on most
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

Side = Callable[[int], float]  # gets the number of the round, returns a cost


@dataclass(frozen=True)
class Figure:
    """How many times better than ``peer`` something is: the median of ``rounds`` ratios, and the range of all of them.

    ``target`` is the least ratio that is wanted, None where the figure is only told. ``unit`` is what was counted on
    both sides, ``note`` what a reader has to know beside the ratio. ``floor`` is our cost over that of ``floor_is``,
    the least that any way of doing this takes, measured in the same run: 1 is perfect. ``absolute`` holds times and
    rates, which mean something on a GPU only.
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
    floor: float | None = None
    floor_is: str = ""
    absolute: dict[str, float] = field(default_factory=dict)

    @property
    def is_reached(self) -> bool:
        """Whether the ratio is at least the target; true without a target."""
        return self.target is None or self.ratio >= self.target

    def line(self) -> str:
        """The figure as a user reads it."""
        spread = f"{self.low:.3g} to {self.high:.3g} in {self.rounds} rounds, {self.unit}"
        parts = [f"{self.name}: {self.ratio:.3g} times {self.peer} ({spread})"]
        if self.target is not None:
            verdict = {True: "reached", False: "NOT reached"}[self.is_reached]
            parts.append(f"target {self.target:g}: {verdict}")
        if self.floor is not None:
            parts.append(f"{self.floor:.3g} times the floor, {self.floor_is}")
        parts += [f"{value:.4g} {name}" for name, value in self.absolute.items()]
        return "; ".join([*parts, self.note] if self.note else parts)

    def above(self, ours: Sequence[float], floor: Sequence[float], floor_is: str) -> "Figure":
        """The same figure with its distance to a floor: the median of our costs over those of the floor."""
        return replace(self, floor=_rounded(statistics.median(ratios(ours, floor))), floor_is=floor_is)


def figure(name: str, ratios: Sequence[float], target: float | None, peer: str, unit: str, note: str = "") -> Figure:
    """The figure of several rounds' ratios."""
    middle, low, high = (_rounded(value) for value in (statistics.median(ratios), min(ratios), max(ratios)))
    return Figure(name, middle, low, high, len(ratios), target, peer, unit, note)


def in_turns(sides: Mapping[str, Side], rounds: int) -> dict[str, list[float]]:
    """The cost of each side by round. All take their turn in every round, and turns at going first."""
    costs: dict[str, list[float]] = {name: [] for name in sides}
    names = [*sides]
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            costs[name].append(sides[name](number))
    return costs


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """One cost over another, round by round."""
    return [one / other for one, other in zip(above, below, strict=True)]


def cpu_seconds(function: Callable[..., Any], *arguments: Any) -> float:
    """CPU seconds of this process: what others do on the machine meanwhile is not counted."""
    started = time.process_time()
    function(*arguments)
    return time.process_time() - started


def seconds(function: Callable[..., Any], *arguments: Any) -> float:
    """Seconds on the clock."""
    started = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - started


@contextmanager
def one_thread() -> Iterator[None]:
    """Processes started meanwhile use one thread each for linear algebra, as workers on Ray do."""
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(ONE_THREAD)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def new_process() -> ProcessPoolExecutor:
    """A process of its own to measure in."""
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"))


def memory_folder(needed: int) -> Path | None:
    """A file system in memory with room for ``needed`` bytes, or None for the usual temporary folder."""
    return MEMORY if MEMORY.is_dir() and disk_usage(MEMORY).free > needed else None


def peak_memory() -> float:
    """The most memory this process has held so far, in MiB."""
    found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found, "Linux tells every process its peak"
    return int(found[1]) / 1024


def machine() -> dict[str, Any]:
    """CPU and its instructions, cores, GPU where there is one, and the versions of what the work is done with."""
    gpu = _gpu()
    return {
        "cpu": _cpu(),
        "instructions": [one for one in INSTRUCTIONS if re.search(rf"^flags.*\b{one}\b", _cpuinfo(), re.MULTILINE)],
        "cores": len(os.sched_getaffinity(0)),
        **({"gpu": gpu} if gpu else {}),
        "python": platform.python_version(),
        "libraries": {name: found for name in LIBRARIES if (found := _version(name))},
    }


def default_file() -> Path:
    """``bench-<machine>.json`` in ``reports`` where the current folder has one, else in the current folder.

    The machine is named by its GPU, or by its CPU and the number of cores.
    """
    facts = _gpu() or f"{_cpu()} {len(os.sched_getaffinity(0))} cores"
    name = Path(f"bench-{re.sub(r'[^a-z0-9]+', '-', facts.lower()).strip('-')}.json")
    return REPORTS / name if REPORTS.is_dir() else name


def read(path: Path) -> dict[str, Any]:
    """The benches kept in ``path``, by name; none where there is no such file. ``UserError`` for another file."""
    if not path.exists():
        return {}
    if path.is_dir():
        raise UserError(f"--out {path} is a folder: give a file name")
    try:
        content = json.loads(path.read_text())
        if content["schema"] != SCHEMA:
            raise ValueError
        return dict(content["benches"])
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{path} holds no benches of schema {SCHEMA}: choose another --out, or delete it") from None


def write(bench: str, command: str, figures: Sequence[Figure], path: Path, say: Say) -> None:
    """Print the figures of ``bench`` and put them into ``path`` with the machine and the command that made them.

    The other benches in the file stay. ``UserError`` as ``read``, and if it cannot be written.
    """
    for one in figures:
        say(one.line())
    entry = {"command": command, "machine": machine(), "figures": [asdict(one) for one in figures]}
    benches = read(path) | {bench: entry}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"schema": SCHEMA, "benches": benches})
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; choose another --out") from None
    say(f"written to {path}")


def _gpu() -> str | None:
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None


def _cpu() -> str:
    """Name, family and model: a cloud may call generations of a CPU by one name."""
    found = [
        re.search(rf"^{key}\s*:\s*(.+)", _cpuinfo(), re.MULTILINE) for key in ("model name", "cpu family", "model")
    ]
    name, family, model = (one[1].strip() if one else "" for one in found)
    return f"{name} family {family} model {model}" if name else platform.machine()


def _cpuinfo() -> str:
    return Path("/proc/cpuinfo").read_text()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
