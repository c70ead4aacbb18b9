"""How much faster more workers train on this machine, alone and on machines of namespaces: the table of a report.

    python tests/cluster/scaling.py        # as root, on a machine that does nothing else: a quarter of an hour

Prints rows of reports/scaling.md: images a second as ratios to one worker of the same kind. Each is measured in every
round, one after the other, so that a machine that gets slower meets all of them.
"""

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS))

import machines  # noqa: E402
from packs import write_small_pack  # noqa: E402

from nrh_dist.engine.files import read_lines  # noqa: E402

ROUNDS = 3
EPOCHS, WARM = 4, 1  # epochs of a training, and those at its start that do not count
WORDS = ["preset=tiny", "model.name=dih_nm", "model.width=1", "train.batch_size=32", f"train.epochs={EPOCHS}"]
WORDS += ["data.val_fraction=0.1", "track.wandb=disabled", "scale.gpus_per_worker=0"]
PHOTOS = 320


def rate(folder: Path, workers: int) -> float:
    """Images a second of a run: the median of its epochs, but for the first."""
    rows = read_lines(folder / "metrics.jsonl")[WARM:]
    assert len(rows) == EPOCHS - WARM and all(row["world_size"] == workers for row in rows), rows
    return statistics.median(row["images_per_s"] for row in rows)


def here(folder: Path, words: list[str]) -> None:
    """Train on this machine, by its own Ray, with one thread a worker as on the nodes."""
    command = [sys.executable, "-m", "nrh_dist", "train", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr


def rows(name: str, counts: list[int], folder: Path, train: Callable[[list[str]], object]) -> list[str]:
    """Train with each number of workers in turns; the rows of the table."""
    found: dict[int, list[float]] = {count: [] for count in counts}
    for number in range(ROUNDS):
        for count in counts:
            run = f"{name.split()[0]}-{count}-{number}"
            places = [f"data.pack={folder}/pack", f"run.root={folder}/runs", f"run.name={run}"]
            train([*WORDS, *places, f"scale.workers={count}"])
            found[count].append(rate(folder / "runs" / run, count))
            print(f"{run}: {found[count][-1]:.1f} images/s", file=sys.stderr, flush=True)
    table = []
    for count in counts:
        ratios = [one / first for one, first in zip(found[count], found[counts[0]], strict=True)]
        table.append(f"| {name} | {count} | {statistics.median(ratios):.2f} | {min(ratios):.2f}–{max(ratios):.2f} |")
    return table


def main() -> None:
    """Measure and print."""
    if reason := machines.missing():
        sys.exit(reason)
    with tempfile.TemporaryDirectory(prefix="nrh-") as name:
        folder = Path(name)
        with machines.cluster(folder, [1, 2, 3], cpus=1) as cluster:
            write_small_pack(cluster.shared, train=PHOTOS)
            table = rows("this machine", [1, 2], cluster.shared, lambda words: here(cluster.shared, words))
            cluster.up()
            job = ["submit", str(cluster.file), "cluster/job.py", "--", "train"]
            table += rows("nodes of one CPU", [1, 2, 3], cluster.shared, lambda words: cluster.ray(*job, *words))
    print("| where | workers | images/s, ratio to one worker | least–most |\n| --- | ---: | ---: | ---: |")
    print("\n".join(table))


if __name__ == "__main__":
    main()
