"""What every evaluation shares: the data at the checkpoints' size, actors that score rows, and the folder that appears
when all is done."""

import csv
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from nrh_dist.data.layouts import Source
from nrh_dist.data.pack import Pack, cached_pack, open_source
from nrh_dist.engine import checkpoint
from nrh_dist.engine.dist import own_device
from nrh_dist.engine.lock import locked
from nrh_dist.engine.progress import Progress, Say
from nrh_dist.engine.score import Entry
from nrh_dist.errors import UserError
from nrh_dist.launch import session
from nrh_dist.launch.pool import Pool

DEFAULT_SIZE = 256


class ScoringActor:
    """A process of the pool with its own scorer, made by ``scorer(*arguments, device)``: all models loaded once."""

    def __init__(self, scorer: Callable[..., Any], arguments: Sequence[Any]) -> None:
        self._scorer = scorer(*arguments, own_device())

    def work(self, item: tuple[str, Any]) -> Any:
        """Score a chunk of rows, or render one."""
        verb, rows = item
        return self._scorer.score(rows) if verb == "score" else self._scorer.render(rows)


def open_data(source: Source, found: Sequence[Entry], say: Say) -> Pack:
    """The data at the size of the checkpoints; for ``identity`` alone, a pack at its own size."""
    size = next((entry.size for entry in found if entry.size), None)
    if size is None and (source.root / "pack.json").exists():
        return open_source(source)
    return cached_pack(source, size or DEFAULT_SIZE, say)


def require_actors(actors: int, say: Say) -> None:
    """Refuse more actors than a Ray on this machine can ever hold."""
    session.require(actors, 0, f"{actors} actors", say)


def open_pool(
    scorer: Callable[..., Any], pack: Pack, found: Sequence[Entry], actors: int, say: Say, *more: Any
) -> Pool:
    """``actors`` processes with ``scorer(pack folder, entries, *more, device)`` each; they share the GPUs there are."""
    import ray

    gpus = gpu_share(actors, int(session.resources().get("GPU", 0)))
    actor = ray.remote(num_cpus=1, num_gpus=gpus)(ScoringActor)
    entries = [entry._replace(path=entry.path.absolute() if entry.path else None) for entry in found]
    arguments = (pack.root.absolute(), entries, *more)
    return Pool(lambda: actor.remote(scorer, arguments), actors, say)


def gpu_share(actors: int, gpus: int) -> float:
    """The part of a GPU that each actor reserves, so that all fit: a share never spans two GPUs. 0 without any."""
    return 1 / math.ceil(actors / gpus) if gpus else 0.0


def score_in_chunks(pool: Pool, rows: np.ndarray, chunk: int, say: Say) -> list[Any]:
    """What the actors answer for each ``chunk`` of rows, in the order of the rows whatever actor was faster."""
    chunks = [rows[start : start + chunk] for start in range(0, len(rows), chunk)]
    scored: dict[int, Any] = {}
    progress = Progress(len(rows), say)

    def done(index: int, result: Any) -> None:
        scored[index] = result
        progress.add(len(chunks[index]), "scored")

    pool.map([("score", chunk) for chunk in chunks], done)
    return [scored[index] for index in range(len(chunks))]


@contextmanager
def staged(out: Path) -> Iterator[Path]:
    """A temporary folder beside ``out`` that takes its name when all is written; refuses what is no evaluation."""
    if out.exists() and not (out / "summary.json").exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists and is no evaluation: choose another --out")
    partial = out.with_name(f".{out.name}.partial")
    with locked(partial):
        for old in partial.iterdir():
            if old.name != ".lock":
                shutil.rmtree(old) if old.is_dir() else old.unlink()
        try:
            yield partial
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        (partial / ".lock").unlink()
        if out.exists():
            shutil.rmtree(out)
        os.replace(partial, out)


def spread(rows: np.ndarray, values: Sequence[float], names: Sequence[str], count: int) -> list[int]:
    """``count`` of the rows, nearest to evenly spaced ranks of their ``values``, lowest first; ties by name."""
    order = sorted(range(len(rows)), key=lambda position: (values[position], names[int(rows[position])]))
    count = min(count, len(rows))
    return [int(rows[order[int((index + 0.5) * len(rows) / count)]]) for index in range(count)]


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows as CSV: numbers with six decimals, None an empty cell."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows({column: _cell(row.get(column)) for column in columns} for row in rows)


def counts_by_dataset(pack: Pack, rows: np.ndarray) -> dict[str, int]:
    """How many of ``rows`` each sub-set has, in order of appearance."""
    datasets = [pack.datasets[row] for row in rows]
    return {name: datasets.count(name) for name in dict.fromkeys(datasets)}


def described(entry: Entry) -> dict[str, Any]:
    """Where the weights of a checkpoint come from, by place and by digest, with its flat dotted configuration."""
    assert entry.path is not None
    meta = checkpoint.read_meta(entry.path)
    return {
        "run": entry.run,
        "model": entry.model,
        "checkpoint": entry.path.name,
        "path": str(entry.path.absolute()),
        "digest": checkpoint.digest(entry.path),
        "epoch": meta["epoch"],
        "step": meta["step"],
        "config": {} if entry.true_masks else meta["config"],  # C_s: that of its two_stage
    }


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6f}" if isinstance(value, float) else str(value)
