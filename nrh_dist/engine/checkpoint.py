"""Checkpoints: one writer, ours. A checkpoint exists if and only if its manifest verifies.

``<run>/checkpoints/epoch-0003-step-000420/`` holds ``model.safetensors`` (weights), ``training_state.pt`` (what resume
needs), ``meta.json`` (model, size, metrics) and ``manifest.json``, written last. The manifest holds the sha256 of the
other three and nothing that does not follow from them, so that every change of any of the four files is seen. An
exported folder (export.py) is one without the training state and with ``config.yaml``.
"""

import errno
import hashlib
import io
import json
import math
import os
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from nrh_dist.engine.files import sync_folder
from nrh_dist.errors import UserError

SCHEMA = 1
WEIGHTS, STATE, META, MANIFEST = "model.safetensors", "training_state.pt", "meta.json", "manifest.json"
OWN, EXPORTED = (WEIGHTS, STATE, META), (WEIGHTS, META, "config.yaml")  # what a manifest covers
FOLDER, BEST = "checkpoints", "best.json"  # of a run
NAME = re.compile(r"epoch-(\d+)-step-(\d+)")
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)

Result = TypeVar("Result")


class Newest(NamedTuple):
    """The newest checkpoint that verifies (None: there is none), and the newer ones that do not, with the reason."""

    path: Path | None
    skipped: list[tuple[Path, str]]


def checkpoint_name(epoch: int, step: int) -> str:
    """The folder name; ``epoch`` counts finished epochs, ``step`` optimiser steps since the start."""
    return f"epoch-{epoch:04d}-step-{step:06d}"


def store(
    run: Path, weights: dict[str, Tensor], state: dict[str, Any], meta: dict[str, Any], keep: int, best: Path | None
) -> Path:
    """``save`` into the run folder ``run``, read it back, and ``prune`` to ``keep`` and ``best``; returns its folder.

    A full disk: as ``making_room`` decides. A folder that is gone or cannot be written to, or a disk that gives back
    something else than was written: ``UserError``. Older checkpoints that stay are as they were.
    """
    contents = _contents(weights, state, meta)
    path = making_room(run, best, lambda: _write(run / FOLDER, meta, contents), sum(map(len, contents.values())))
    if reason := fault(path):
        raise UserError(f"{path} was written and reads back damaged ({reason}): check that disk; {_way_on(run)}")
    _prune(run, path, keep, best)
    return path


def making_room(run: Path, best: Path | None, write: Callable[[], Result], needed: int = 0) -> Result:
    """``write()``, which writes ``needed`` bytes or so into the run folder, as a decision about a disk that is full.

    Then all checkpoints but the newest that verifies and the ``best`` are deleted, and it is tried once more. What
    fails all the same, or for another reason of the disk, is a ``UserError`` that tells what is there still.
    """
    try:
        try:
            return write()
        except OSError as error:
            if error.errno not in DISK_FULL:
                raise
            prune(run, 1, best)
            return write()
    except OSError as error:
        raise UserError(_cannot_write(run, error, needed)) from None


def save(parent: Path, weights: dict[str, Tensor], state: dict[str, Any], meta: dict[str, Any]) -> Path:
    """Write a checkpoint named by ``meta["epoch"]`` and ``meta["step"]`` under ``parent`` and return its folder.

    Temporary folder, fsync of each file, manifest, rename: a reader sees the whole checkpoint or none, and an
    ``OSError`` or a kill leaves the others as they were. A sound one of the same step, left by a run that was killed
    after saving, stays; a damaged one is replaced.
    """
    parent.mkdir(parents=True, exist_ok=True)
    return _write(parent, meta, _contents(weights, state, meta))


def fault(path: Path) -> str | None:
    """Why the checkpoint or exported folder at ``path`` must not be read, or None if it verifies.

    Files beside those that the manifest covers do not matter.
    """
    name = MANIFEST
    try:
        stated = (path / MANIFEST).read_bytes()
        sums = {}
        for name in EXPORTED if EXPORTED[-1].encode() in stated else OWN:
            with (path / name).open("rb") as file:
                sums[name] = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return f"{name} is missing"
    except OSError as error:
        return f"{name} cannot be read ({error.strerror or error})"
    for name, actual in sums.items():
        if actual.encode() not in stated:
            return f"{name} does not match its sha256 in {MANIFEST}"
    return None if stated == manifest_of(sums) else f"{MANIFEST} was altered"


def digest(path: Path) -> str:
    """What tells this checkpoint from all others, wherever it lies: the sha256 of its manifest. "" without one."""
    manifest = path / MANIFEST
    return hashlib.sha256(manifest.read_bytes()).hexdigest() if manifest.is_file() else ""


def newest(run: Path) -> Newest:
    """The newest verified checkpoint of the run folder ``run``."""
    skipped: list[tuple[Path, str]] = []
    for path in reversed(checkpoints(run)):
        reason = fault(path)
        if reason is None:
            return Newest(path, skipped)
        skipped.append((path, reason))
    return Newest(None, skipped)


def best_of(run: Path, metric: str) -> tuple[Path, float] | None:
    """The verified checkpoint with the lowest finite ``meta["metrics"][metric]``, and the value; of equals, the first.

    None where no checkpoint that verifies has one: those within an epoch have no metrics.
    """
    found = []
    for path in checkpoints(run):
        with suppress(UserError):  # damaged
            value = read_meta(path).get("metrics", {}).get(metric)
            if isinstance(value, int | float) and math.isfinite(value):
                found.append((path, float(value)))
    return min(found, key=lambda one: one[1], default=None)


def checkpoints(run: Path) -> list[Path]:
    """All checkpoint folders of a run, oldest first (verified or not)."""
    return sorted((path for path in (run / FOLDER).glob("epoch-*-step-*") if _position(path)), key=_position)


def prune(run: Path, keep: int, best: Path | None) -> None:
    """Delete all but the newest verified checkpoint, the ``keep`` - 1 before, the ``best`` and that of ``best.json``.

    The latter two differ while a new best is being written. Newer ones are damaged, and would push sound ones out if
    they counted. Where none verifies, nothing is deleted.
    """
    last = newest(run).path
    if last is not None:
        _prune(run, last, keep, best)


def read_meta(path: Path) -> dict[str, Any]:
    """``meta.json`` of a verified checkpoint; ``UserError`` for a folder that is none or is damaged."""
    if not (path / MANIFEST).exists():
        raise UserError(f"{path} is not a checkpoint: it holds no {MANIFEST}")
    if reason := fault(path):
        raise UserError(f"the checkpoint {path} is damaged: {reason}; use an earlier one or train again")
    return _read(path / META, lambda file: json.loads(file.read_text()))


def is_detector(path: Path) -> bool:
    """Whether it harmonises nothing. ``UserError`` as ``read_meta``."""
    return read_meta(path)["model"]["name"] == "ptc"


def read_weights(path: Path) -> dict[str, Tensor]:
    """The weights of a checkpoint, on the CPU. ``UserError`` where they cannot be read."""
    return _read(path / WEIGHTS, safetensors.torch.load_file)


def read_state(path: Path) -> dict[str, Any]:
    """``training_state.pt``, read without unpickling objects. ``UserError`` where it cannot be read, or holds such."""
    return _read(path / STATE, lambda file: torch.load(file, map_location="cpu", weights_only=True))


def manifest(contents: dict[str, bytes]) -> bytes:
    """``manifest.json`` of a folder with these files."""
    return manifest_of({name: hashlib.sha256(content).hexdigest() for name, content in contents.items()})


def write_files(folder: Path, contents: dict[str, bytes]) -> None:
    """Make ``folder`` with these files in it, all of it on the disk when this returns."""
    folder.mkdir()
    for name, content in contents.items():
        with (folder / name).open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    sync_folder(folder)


def _contents(weights: dict[str, Tensor], state: dict[str, Any], meta: dict[str, Any]) -> dict[str, bytes]:
    """The files of a checkpoint. In memory first: only Python's own writing tells a full disk from other errors."""
    pickled = io.BytesIO()
    torch.save(state, pickled)
    contents = {
        WEIGHTS: safetensors.torch.save({key: value.detach().cpu().contiguous() for key, value in weights.items()}),
        STATE: pickled.getvalue(),
        META: _json({"schema": SCHEMA, **meta}),
    }
    return contents | {MANIFEST: manifest(contents)}


def _write(parent: Path, meta: dict[str, Any], contents: dict[str, bytes]) -> Path:
    parent.mkdir(exist_ok=True)  # its own parent, the run folder, must be there still
    for left in parent.glob(".epoch-*"):  # by a kill
        shutil.rmtree(left, ignore_errors=True)
    final = parent / checkpoint_name(meta["epoch"], meta["step"])
    if _is_of_step(final, meta):
        return final
    partial = parent / f".{final.name}.partial"
    try:
        write_files(partial, contents)
        if final.exists():
            final.rename(parent / f".{final.name}.damaged")
        partial.rename(final)
        sync_folder(parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    shutil.rmtree(parent / f".{final.name}.damaged", ignore_errors=True)
    return final


def _is_of_step(path: Path, meta: dict[str, Any]) -> bool:
    try:
        there = read_meta(path)
    except UserError:  # none, or damaged
        return False
    return all(there.get(key) == meta[key] for key in ("epoch", "step"))


def _prune(run: Path, last: Path, keep: int, best: Path | None) -> None:
    found = checkpoints(run)
    end = found.index(last) + 1
    kept = {path.name for path in found[max(0, end - keep) : end]} | {named_best(run), best.name if best else ""}
    for path in found:
        if path.name not in kept:
            shutil.rmtree(path, ignore_errors=True)  # half deleted, it does not verify, and the next time takes it


def named_best(run: Path) -> str:
    """The folder name in ``best.json``; empty where there is none, or none that can be read."""
    try:
        return Path(json.loads((run / BEST).read_text())["checkpoint"]).name
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _cannot_write(run: Path, error: OSError, needed: int) -> str:
    line = f"cannot write to {run}: {error.strerror or error}"
    if error.errno in DISK_FULL:
        free = shutil.disk_usage(run).free
        line += f" ({needed:,} bytes needed, {free:,} free)" if needed else f" ({free:,} bytes free)"
        line += "; make room"
    elif not run.is_dir():
        return f"{line}: the folder is gone; bring it back (is its disk mounted?) and give the same command again"
    return f"{line}; {_way_on(run)}"


def _way_on(run: Path) -> str:
    there = [path.name for path in checkpoints(run) if fault(path) is None]
    if not there:
        return "no checkpoint is there yet, so that the same command starts from the beginning"
    return f"sound and still there: {', '.join(there)}; the same command goes on from {there[-1]}"


def _read(file: Path, reader: Callable[[Path], Any]) -> Any:
    try:
        return reader(file)
    except Exception as error:  # torch and safetensors raise many kinds for what is not theirs
        reason = str(error).strip().split("\n")[0]
        raise UserError(f"{file} cannot be read ({type(error).__name__}: {reason})") from None


def manifest_of(sums: dict[str, str]) -> bytes:
    """``manifest.json`` of a folder whose files have these sha256 sums."""
    return _json({"schema": SCHEMA, "sha256": sums})


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, allow_nan=False) + "\n").encode()


def position(name: str) -> tuple[int, ...]:
    """(step, epoch) of a checkpoint by its folder's name; () where the name is another's."""
    match = NAME.fullmatch(name)
    return (int(match[2]), int(match[1])) if match else ()


def _position(path: Path) -> tuple[int, ...]:
    return position(path.name) if path.is_dir() else ()
