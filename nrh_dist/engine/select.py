"""Which checkpoint is meant, and which is best."""

import json
import math
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from nrh_dist.engine import checkpoint
from nrh_dist.engine.files import read_lines, write_json
from nrh_dist.errors import UserError

BEST = checkpoint.BEST
IDENTITY = "identity"
HIGHER_IS_BETTER = ("val/psnr", "val/accuracy", "val/iou")


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
        return {**best, "checkpoint": folder / best["checkpoint"]}
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{path} is damaged: delete it and name a checkpoint folder instead") from None


def resolve(word: str | Path) -> Path:
    """The checkpoint folder that CHECKPOINT means: itself, or the best one of a run or sweep folder.

    ``UserError`` if ``word`` names none, or the best one does not verify: never silently another.
    """
    path = Path(word)
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
    return path.parent.parent.name if path.parent.name == "checkpoints" else path.name


def candidates(folders: Iterable[Path], metric: str) -> list[Candidate]:
    """Every kept checkpoint below ``folders`` with a value of ``metric``, best first: lowest, but for PSNR and shares.

    Ties: the earlier epoch, then the run's name. ``UserError`` where no run has the metric.
    """
    found = []
    known: set[str] = set()
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"no folder at {folder}")
        for rows_file in sorted(folder.rglob("metrics.jsonl")):
            run = rows_file.parent
            kept = {(meta["epoch"], meta["step"]): path for path, meta in _verified(run)}
            for row in read_lines(rows_file):
                known.update(row)
                path = kept.get((row.get("epoch"), row.get("step")))
                if path and math.isfinite(row.get(metric, math.nan)):
                    found.append(Candidate(row[metric], run.name, path, row["epoch"]))
    if not found:
        there = ", ".join(sorted(key for key in known if "/" in key)) or "none"
        raise UserError(f"no checkpoint with {metric} below {', '.join(map(str, folders))}; metrics there: {there}")
    sign = -1 if metric in HIGHER_IS_BETTER else 1
    return sorted(found, key=lambda one: (sign * one.value, one.epoch, one.run))


def describe(found: list[Candidate], metric: str, most: int = 10) -> list[str]:
    """Lines for a person: the best checkpoint with the reason, then the first ``most`` in order."""
    best = found[0]
    end = "highest" if metric in HIGHER_IS_BETTER else "lowest"
    reason = f"{end} {metric} of {len(found)} kept checkpoints; ties go to the earlier epoch, then to the run's name"
    lines = [f"{best.checkpoint}  ({reason})"]
    width = max(len(one.run) for one in found[:most])
    for rank, one in enumerate(found[:most], start=1):
        lines.append(f"{rank:3}  {one.run:{width}}  epoch {one.epoch:4}  {metric} {one.value:.6g}")
    return lines


def _verified(run: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in checkpoint.checkpoints(run):
        with suppress(UserError):  # damaged
            yield path, checkpoint.read_meta(path)
