"""Steady state of training by two workers on Ray Train, against the same loop under torchrun; both on CPUs.

Both sides are processes of their own, started one after the other in turns: ``nrh train`` and ``torchrun ... -m
nrh_dist.engine.run``, with the same keys and one thread a worker. What is compared is images_per_s of the last half of
the epochs, as the run itself writes it, when Ray's helpers have started up: validation is not in it, what reports and
checkpoints do to the next epoch is.
"""

import os
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from nrh_dist.data.layouts import Source, index
from nrh_dist.data.pack import write_pack
from nrh_dist.data.synthetic import write_sample
from nrh_dist.engine.files import read_lines
from nrh_dist.engine.progress import Say
from nrh_dist.errors import UserError
from nrh_dist.workflows.measure import ONE_THREAD, Figure, figure, in_turns, ratios

TARGET = 0.95
WORKERS = 2


@dataclass(frozen=True)
class Settings:
    """``pairs`` of runs of ``epochs`` epochs, the last half of which counts."""

    size: int = 128
    width: float = 0.5
    epochs: int = 16
    pairs: int = 5


def bench(say: Say, settings: Settings | None = None) -> list[Figure]:
    """The figure. ``UserError`` with the last line of a run that failed."""
    settings = settings or Settings()
    with TemporaryDirectory(prefix="nrh-bench-") as temporary:
        folder = Path(temporary)
        write_sample(folder / "sample", say=say)
        pack = write_pack(index(Source(folder / "sample/iharmony4")), folder / "pack", settings.size, 1, lambda _: None)
        words = [
            *("preset=tiny", "model.name=dih_m", f"model.width={settings.width}", f"data.size={settings.size}"),
            *(f"data.pack={pack.root}", f"train.epochs={settings.epochs}", f"run.root={folder / 'runs'}"),
        ]
        nrh = [sys.executable, "-m", "nrh_dist", "train", f"scale.workers={WORKERS}"]
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(WORKERS)]
        torchrun += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", "-m", "nrh_dist.engine.run"]

        def cost(command: list[str], name: str) -> float:
            say(f"ray: {name} of {settings.pairs} pairs")
            return 1 / images_per_second([*command, *words, f"run.name={name}"], folder / "runs" / name)

        costs = in_turns(
            {
                "ours": lambda number: cost(nrh, f"ray-{number + 1}"),
                "peer": lambda number: cost(torchrun, f"torchrun-{number + 1}"),
            },
            settings.pairs,
        )
    ours, peer = costs["ours"], costs["peer"]
    unit = "images/s by two workers on CPUs, in the last half of the epochs"
    found = figure("steady state on Ray Train", ratios(peer, ours), TARGET, "the same loop under torchrun", unit)
    return [found.above(ours, peer, "the loop under torchrun itself")]


def images_per_second(command: list[str], run: Path) -> float:
    """The median over the last half of the epochs of a run that ``command`` makes in the folder ``run``."""
    done = subprocess.run(command, env=environment(run.parent), capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1]
        raise UserError(f"a run of the bench failed and said: {said}")
    rates = [row["images_per_s"] for row in read_lines(run / "metrics.jsonl")]
    return statistics.median(rates[len(rates) // 2 :])


def environment(folder: Path) -> dict[str, str]:
    """That of this process, with one thread a worker, its own Ray, no GPU, nothing sent, the cache in ``folder``."""
    kept = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    return kept | ONE_THREAD | {"CUDA_VISIBLE_DEVICES": "", "WANDB_MODE": "disabled", "NRH_CACHE": str(folder)}
