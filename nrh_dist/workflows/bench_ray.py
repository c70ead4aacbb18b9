"""Steady state of training on Ray Train, against the same loop under torchrun; both on CPUs.

Both sides are trainings with the same keys and one thread a worker, ``nrh train`` and ``torchrun ... -m
nrh_dist.engine.run``, that take turns of a few epochs: Ray's helpers are stopped with the training that they help. What
is compared is images_per_s of the epochs of a turn but the first, which the last turn began, as the run itself writes
it: validation is not in it, what reports and checkpoints do to the next epoch is. After some turns both sides start
anew, as a process may have luck with the memory that it gets. By one worker, which leaves a core of two to Ray's
helpers; and by two, each of which waits for the one that a helper has interrupted.
"""

import signal
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from nrh_dist.engine.notice import restored
from nrh_dist.engine.progress import Say
from nrh_dist.workflows.measure import Figure, figure, in_turns, ratios
from nrh_dist.workflows.sample import sample_pack
from nrh_dist.workflows.turns import Training, training

TARGET = 0.95
WORKERS = {1: "one worker", 2: "two workers"}
EPOCHS = 10_000  # more than any bench takes
ENDS = (signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Settings:
    """``starts`` of both sides with each number of workers; each trains ``warm`` epochs, then takes ``turns``.

    A turn has 1 + ``counted`` epochs.
    """

    size: int = 128
    width: float = 0.5
    starts: int = 4
    turns: int = 4
    counted: int = 2
    warm: int = 3


def bench(say: Say, settings: Settings | None = None) -> list[Figure]:
    """A figure for each number of workers. ``UserError`` with the last line of a training that failed."""
    settings = settings or Settings()
    with TemporaryDirectory(prefix="nrh-bench-") as temporary, restored(*ENDS):
        for number in ENDS:  # nothing that is stopped may be left behind
            signal.signal(number, lambda number, _: sys.exit(128 + number))
        folder = Path(temporary)
        pack = sample_pack(folder, settings.size, say)
        words = [
            *("preset=tiny", "model.name=dih_m", f"model.width={settings.width}", f"data.size={settings.size}"),
            *(f"data.pack={pack.root}", f"train.epochs={EPOCHS}", f"run.root={folder / 'runs'}"),
        ]
        return [_of_workers(count, words, folder / "runs", settings, say) for count in WORKERS]


def _of_workers(count: int, words: list[str], runs: Path, settings: Settings, say: Say) -> Figure:
    ours: list[float] = []
    peer: list[float] = []
    for start in range(settings.starts):
        say(f"ray: {WORKERS[count]}, start {start + 1} of {settings.starts}")
        costs = _in_turns(count, start, words, runs, settings)
        ours += costs["ours"]
        peer += costs["peer"]
    unit = f"images/s by {WORKERS[count]} on CPUs, {settings.turns} turns from each of {settings.starts} starts"
    name = f"steady state on Ray Train, {WORKERS[count]}"
    found = figure(name, ratios(peer, ours), TARGET, "the same loop under torchrun", unit)
    return found.above(ours, peer, "the loop under torchrun itself")


def _in_turns(count: int, start: int, words: list[str], runs: Path, settings: Settings) -> dict[str, list[float]]:
    """Seconds an image of both sides, turn by turn, from one start."""
    nrh = [sys.executable, "-m", "nrh_dist", "train", f"scale.workers={count}"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(count)]
    torchrun += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", "-m", "nrh_dist.engine.run"]
    on_ray, alone = (f"{name}-{count}-{start}" for name in ("ray", "torchrun"))

    def cost(side: Training) -> float:
        return 1 / statistics.mean(side.turn(1 + settings.counted)[1:])

    with (
        training([*nrh, *words, f"run.name={on_ray}"], runs / on_ray, settings.warm) as ours,
        training([*torchrun, *words, f"run.name={alone}"], runs / alone, settings.warm, parent_waits=False) as peer,
    ):
        return in_turns({"ours": lambda _: cost(ours), "peer": lambda _: cost(peer)}, settings.turns)
