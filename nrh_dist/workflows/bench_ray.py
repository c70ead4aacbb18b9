"""Steady state of training on Ray Train, against the same loop under torchrun; both on CPUs.

Both sides are trainings with the same keys and one thread a worker, ``nrh train`` and ``torchrun ... -m
nrh_dist.engine.run``, that take turns of a few epochs: Ray's helpers are stopped with the training that they help. What
is compared is images_per_s of the epochs of a turn but the first, which the last turn began, as the run itself writes
it: validation is not in it, what reports and checkpoints do to the next epoch is. By one worker, which leaves a core of
two to Ray's helpers; and by two, each of which waits for the one that a helper has interrupted.
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
    """``pairs`` of turns of ``1 + counted`` epochs with each number of workers, after ``warm`` epochs of both sides."""

    size: int = 128
    width: float = 0.5
    pairs: int = 15
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
    nrh = [sys.executable, "-m", "nrh_dist", "train", f"scale.workers={count}"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(count)]
    torchrun += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", "-m", "nrh_dist.engine.run"]
    names = {"ours": f"ray-{count}", "peer": f"torchrun-{count}"}

    def cost(side: Training, number: int) -> float:
        say(f"ray: {WORKERS[count]}, {side.folder.name}, turn {number + 1} of {settings.pairs}")
        return 1 / statistics.mean(side.turn(1 + settings.counted)[1:])

    with (
        training([*nrh, *words, f"run.name={names['ours']}"], runs / names["ours"], settings.warm) as on_ray,
        training([*torchrun, *words, f"run.name={names['peer']}"], runs / names["peer"], settings.warm, False) as alone,
    ):
        sides = {"ours": lambda number: cost(on_ray, number), "peer": lambda number: cost(alone, number)}
        costs = in_turns(sides, settings.pairs)
    ours, peer = costs["ours"], costs["peer"]
    unit = f"images/s by {WORKERS[count]} on CPUs"
    name = f"steady state on Ray Train, {WORKERS[count]}"
    found = figure(name, ratios(peer, ours), TARGET, "the same loop under torchrun", unit)
    return found.above(ours, peer, "the loop under torchrun itself")
