"""What every evaluation shares: the data at the checkpoints' size, actors that score rows, and the folder that appears
when all is done."""

import csv
import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from nrh_dist.data.layouts import Source
from nrh_dist.data.pack import Pack, cached_pack, open_source
from nrh_dist.engine import checkpoint, fetched, provenance, shards
from nrh_dist.engine.dist import own_device
from nrh_dist.engine.fetched import Origin
from nrh_dist.engine.files import sync_files, sync_folder
from nrh_dist.engine.lock import locked
from nrh_dist.engine.progress import Progress, Say
from nrh_dist.engine.score import Entry
from nrh_dist.engine.shards import Shards
from nrh_dist.errors import UserError
from nrh_dist.launch import session
from nrh_dist.launch.pool import Pool

DEFAULT_SIZE = 256
MOST_BATCHES = 8  # in an item of work
ITEMS = 8  # an actor should get of those that are left, so that the last ones end together
MOST_NAMES = 20  # of samples that were left out, in a summary
OWN = {"per_image.csv", "thresholds.csv", "offsets.csv", "summary.json", "provenance.json", "strips"}
WANDB = "wandb"  # what nrh track evaluation made, perhaps not sent yet: it outlives a new evaluation


class ScoringActor:
    """A process of the pool with its own ``scorer(pack folder, entries, *more, device)``: all models loaded once.

    ``places`` are those of the pack and of the entries' checkpoints; a machine that lacks one fetches it.
    """

    def __init__(
        self, scorer: Callable[..., Any], entries: Sequence[Entry], places: Sequence[Origin | None], more: Sequence[Any]
    ) -> None:
        pack, *paths = (place and fetched.here(place, print) for place in places)
        found = [entry._replace(path=path) for entry, path in zip(entries, paths, strict=True)]
        self._scorer = scorer(pack, found, *more, own_device())

    def work(self, item: tuple[str, Any]) -> Any:
        """Score batches of rows, one below the other, or render one row."""
        verb, rows = item
        if verb == "render":
            return self._scorer.render(rows)
        return np.concatenate([self._scorer.score(batch) for batch in rows])


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
    paths = (pack.root, *(entry.path for entry in found))
    places = [fetched.origin(path.absolute()) if path else None for path in paths]
    return Pool(lambda: actor.remote(scorer, found, places, more), actors, say)


def gpu_share(actors: int, gpus: int) -> float:
    """The part of a GPU that each actor reserves, so that all fit: a share never spans two GPUs. 0 without any."""
    return 1 / math.ceil(actors / gpus) if gpus else 0.0


def header(found: Sequence[Entry], pack: Pack, rows: np.ndarray, **more: Any) -> dict[str, Any]:
    """What decides every number of an evaluation: numbers of another header are not continued."""
    return {
        "pack": pack.digest,
        "places": hashlib.sha256(rows.astype(np.int64).tobytes()).hexdigest(),
        "entries": [[entry.run, entry.path and checkpoint.digest(entry.path), *entry[4:]] for entry in found],
        "gpu": bool(session.resources().get("GPU", 0)),
        "code": provenance.source_digest(),
        **provenance.environment(),
        **more,
    }


def fill(found: Shards, pool: Pool, rows: np.ndarray, actors: int, say: Say) -> None:
    """Score what is missing of ``found``, a chunk of which is a batch; what is there already is said.

    An item of work is several batches, so that the driver keeps up with fast devices, and the fewer the less is left,
    so that all actors end at about the same time.
    """
    missing = found.missing()
    left = sum(len(rows[found.rows_of(number)]) for number in missing)
    if left < len(rows):
        say(f"continuing: {len(rows) - left:,} of {len(rows):,} images are scored already")
    items = items_of(missing, actors)
    progress = Progress(left, say)

    def done(index: int, values: np.ndarray) -> None:
        found.write(items[index], values)
        progress.add(len(values), "scored")

    pool.map([("score", [rows[found.rows_of(number)] for number in item]) for item in items], done)


def items_of(chunks: Sequence[int], actors: int) -> list[Sequence[int]]:
    """Neighbouring chunks as items of work: ``MOST_BATCHES`` at most in each, ever fewer, and one at the end."""
    items, start = [], 0
    while start < len(chunks):
        length = min(MOST_BATCHES, max(1, (len(chunks) - start) // (ITEMS * actors)))
        items.append(chunks[start : start + length])
        start += length
    return items


@contextmanager
def staged(out: Path) -> Iterator[Path]:
    """A temporary folder beside ``out`` that takes its name when all is written; refuses what is no evaluation.

    What was scored stays in it when the block or the taking of the name fails or the process dies, and the next attempt
    goes on from there. An earlier evaluation is deleted last, but for its W&B runs.
    """
    out = out.resolve()
    if os.path.ismount(out):
        raise UserError(f"{out} is a mount point, which cannot be replaced: give a folder below it as --out")
    partial, earlier = out.with_name(f".{out.name}.partial"), out.with_name(f".{out.name}.earlier")
    with locked(partial):
        try:
            _settle(out, earlier)
            _require_replaceable(out)
            _clear(partial)
            yield partial
            sync_files(partial)
            _install(partial, out, earlier)
            sync_folder(out.parent)
        except BaseException as error:
            with suppress(OSError):
                _clear(partial)
            if not shards.is_begun(partial):
                shutil.rmtree(partial, ignore_errors=True)
            if isinstance(error, OSError):
                raise _explained(error, partial, out) from None
            raise
        with suppress(OSError):  # it is done and in its place: the next attempt tries again what was left over
            shards.remove(out)
            (out / ".lock").unlink()
            _settle(out, earlier)


def _require_replaceable(out: Path) -> None:
    """``UserError`` where ``out`` holds what an evaluation did not write."""
    if not out.exists():
        return
    names = {path.name for path in out.iterdir()} if out.is_dir() else {out.name}
    if not names:
        return
    try:
        summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
        is_ours = "schema" in summary and "checkpoints" in summary
    except (OSError, ValueError, TypeError):
        is_ours = False
    if not is_ours:
        raise UserError(f"{out} exists and is no evaluation: choose another --out")
    if others := sorted(names - {*OWN, WANDB, ".lock", *shards.FILES}):
        raise UserError(f"{out} holds {others[0]}, which no evaluation wrote: move it, or choose another --out")


def _install(partial: Path, out: Path, earlier: Path) -> None:
    """Let ``partial`` take the place of ``out``, which steps aside; ``out`` is as it was where that fails."""
    if out.exists():
        os.rename(out, earlier)
    try:
        os.rename(partial, out)
    except BaseException:
        if earlier.exists():
            os.rename(earlier, out)
        raise


def _settle(out: Path, earlier: Path) -> None:
    """Delete ``earlier``, whose W&B runs move into ``out``; where a kill left no ``out``, ``earlier`` is it."""
    if not earlier.exists():
        return
    if not out.exists():
        os.rename(earlier, out)
        return
    if (earlier / WANDB).exists() and not (out / WANDB).exists():
        os.rename(earlier / WANDB, out / WANDB)
    shutil.rmtree(earlier)


def _explained(error: OSError, partial: Path, out: Path) -> UserError:
    """What failed, by name where it is not one of the evaluation's own files."""
    file = Path(error.filename) if isinstance(error.filename, str) else out
    what = f"cannot write {out}" if file == out or file.is_relative_to(partial) else str(file)
    return UserError(f"{what}: {error.strerror or error}; mend that and give the same command again")


def _clear(partial: Path) -> None:
    """Remove what a killed attempt had written for the final folder."""
    for old in partial.iterdir():
        if old.name not in {".lock", *shards.FILES}:
            shutil.rmtree(old) if old.is_dir() else old.unlink()


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Rows as CSV: numbers with six decimals, None and nan empty cells."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows({column: _cell(row.get(column)) for column in columns} for row in rows)


def counts_by_dataset(pack: Pack, rows: np.ndarray) -> dict[str, int]:
    """How many of ``rows`` each sub-set has, in order of appearance."""
    datasets = [pack.datasets[row] for row in rows]
    return {name: datasets.count(name) for name in dict.fromkeys(datasets)}


def left_out(pack: Pack, say: Say) -> dict[str, Any]:
    """``left_out`` for a summary.json, and said: what the pack lacks, of whatever list, since files were bad."""
    if not pack.skipped:
        return {}
    names = [name for name, _ in pack.skipped]
    name, reason = pack.skipped[0]
    say(f"{len(names)} samples of the data are left out, whose files cannot be used; the first is {name}, for {reason}")
    return {"left_out": {"count": len(names), "names": names[:MOST_NAMES]}}


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
        "derived": entry.is_derived,
    }


def _cell(value: Any) -> str:
    if value is None or value != value:
        return ""
    return f"{value:.6f}" if isinstance(value, float) else str(value)
