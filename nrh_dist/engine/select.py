"""Which checkpoint is meant, and which is best by one metric."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from nrh_dist.engine import checkpoint, fetched, gather, ranking
from nrh_dist.engine.files import write_json
from nrh_dist.errors import UserError
from nrh_dist.location import is_remote, is_safe

BEST = checkpoint.BEST
IDENTITY = gather.IDENTITY


class Candidate(NamedTuple):
    """A checkpoint with the value of the metric that it is judged by."""

    value: float
    run: str
    checkpoint: Path
    epoch: int


def write_best(folder: Path, best: Path, metric: str, value: float) -> None:
    """Write ``best.json`` of a run or sweep ``folder``; the path in it is relative to the folder."""
    relative = str(best.relative_to(folder))
    write_json(folder / BEST, {"schema": 1, "checkpoint": relative, "metric": metric, "mode": "min", "value": value})


def read_best(folder: Path) -> dict[str, Any] | None:
    """``best.json`` of a run or sweep folder; None if there is none yet."""
    path = folder / BEST
    if not path.exists():
        return None
    try:
        best = json.loads(path.read_text())
        if is_safe(str(best["checkpoint"])):
            return {**best, "checkpoint": folder / best["checkpoint"]}
        raise ValueError("it leads out of the folder")
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{path} is damaged: delete it and name a checkpoint folder instead") from None


def resolve(word: str | Path) -> Path:
    """The checkpoint folder that CHECKPOINT means: itself, also exported, or the best one of a run or sweep folder.

    An address, as s3://bucket/runs/my-run, is fetched into the cache. ``UserError`` if ``word`` names none, or the best
    one does not verify: never silently another.
    """
    path = fetched.checkpoint_folder(str(word)) if is_remote(word) else Path(word)
    if not path.is_dir():
        raise UserError(f"no checkpoint, run or sweep folder at {path}: give one that nrh train, pretrain or tune made")
    if (path / checkpoint.MANIFEST).exists():
        return path
    if best := read_best(path):
        if reason := checkpoint.fault(best["checkpoint"]):
            raise UserError(_best_is_damaged(best, reason))
        return best["checkpoint"]
    raise UserError(f"{path} holds no checkpoint and no {BEST}: give a finished run, a sweep or a checkpoint folder")


def _best_is_damaged(best: dict[str, Any], reason: str) -> str:
    damaged = best["checkpoint"]
    run = damaged.parent.parent
    line = f"the best checkpoint {damaged} is damaged: {reason}"
    if other := checkpoint.best_of(run, best.get("metric", "")):
        return f"{line}; the next best, with {best['metric']} {other[1]:.6g}, is {other[0]}: give that"
    if newest := checkpoint.newest(run).path:
        return f"{line}; the newest that is sound is {newest}: give that"
    return f"{line}; {run} holds no other that is sound: train again"


def run_of(path: Path) -> str:
    """The name of the run that a checkpoint folder belongs to (its own name where it lies alone)."""
    path = Path(os.path.abspath(path))  # of "." and ".." too, and a link keeps its own name
    return path.parent.parent.name if path.parent.name == "checkpoints" else path.name


def candidates(folders: Iterable[Path], metric: str) -> list[Candidate]:
    """Every kept checkpoint of the runs below ``folders`` with a value of ``metric``, best first.

    Ties as in ``ranking.TIES``. ``UserError`` where there is none.
    """
    ranked = ranking.rank(ranking.comparable(gather.gather(folders).candidates, [metric]), [metric])
    return [Candidate(one.value(metric), one.run, one.path, one.epoch) for one in ranked if one.path]
