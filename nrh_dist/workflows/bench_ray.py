"""Steady state of training on Ray Train, against the same loop under torchrun; both on CPUs.

Both sides are processes of their own, started one after the other in turns: ``nrh train`` and ``torchrun ... -m
nrh_dist.engine.run``, with the same keys and one thread a worker. What is compared is images_per_s of the last half of
the epochs, as the run itself writes it, when Ray's helpers have started up: validation is not in it, what reports and
checkpoints do to the next epoch is. By one worker, which leaves a core of two to Ray's helpers; and by two, each of
which waits for the one that a helper has interrupted.
"""

import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from nrh_dist.engine.files import read_lines
from nrh_dist.engine.progress import Say
from nrh_dist.workflows.command import run
from nrh_dist.workflows.measure import Figure, figure, in_turns, ratios
from nrh_dist.workflows.sample import sample_pack

TARGET = 0.95
WORKERS = {1: "one worker", 2: "two workers"}


@dataclass(frozen=True)
class Settings:
    """``pairs`` of runs of ``epochs`` epochs with each number of workers; the last half of the epochs counts."""

    size: int = 128
    width: float = 0.5
    epochs: int = 16
    pairs: int = 5


def bench(say: Say, settings: Settings | None = None) -> list[Figure]:
    """A figure for each number of workers. ``UserError`` with the last line of a run that failed."""
    settings = settings or Settings()
    with TemporaryDirectory(prefix="nrh-bench-") as temporary:
        folder = Path(temporary)
        pack = sample_pack(folder, settings.size, say)
        words = [
            *("preset=tiny", "model.name=dih_m", f"model.width={settings.width}", f"data.size={settings.size}"),
            *(f"data.pack={pack.root}", f"train.epochs={settings.epochs}", f"run.root={folder / 'runs'}"),
        ]
        return [_of_workers(count, words, folder, settings, say) for count in WORKERS]


def _of_workers(count: int, words: list[str], folder: Path, settings: Settings, say: Say) -> Figure:
    nrh = [sys.executable, "-m", "nrh_dist", "train", f"scale.workers={count}"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(count)]
    torchrun += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", "-m", "nrh_dist.engine.run"]

    def cost(command: list[str], name: str) -> float:
        say(f"ray: {WORKERS[count]}, {name} of {settings.pairs} pairs")
        name = f"{name}-{count}"
        return 1 / images_per_second([*command, *words, f"run.name={name}"], folder / "runs" / name)

    costs = in_turns(
        {
            "ours": lambda number: cost(nrh, f"ray-{number + 1}"),
            "peer": lambda number: cost(torchrun, f"torchrun-{number + 1}"),
        },
        settings.pairs,
    )
    ours, peer = costs["ours"], costs["peer"]
    unit = f"images/s by {WORKERS[count]} on CPUs, in the last half of the epochs"
    name = f"steady state on Ray Train, {WORKERS[count]}"
    found = figure(name, ratios(peer, ours), TARGET, "the same loop under torchrun", unit)
    return found.above(ours, peer, "the loop under torchrun itself")


def images_per_second(command: list[str], folder: Path) -> float:
    """The median over the last half of the epochs of a run that ``command`` makes in ``folder``."""
    run(command, folder.parent)
    rates = [row["images_per_s"] for row in read_lines(folder / "metrics.jsonl")]
    return statistics.median(rates[len(rates) // 2 :])
