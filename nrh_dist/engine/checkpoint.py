"""Checkpoints: one writer, ours. A checkpoint exists if and only if its manifest verifies.

``<run>/checkpoints/epoch-0003-step-000420/`` holds ``model.safetensors`` (weights), ``training_state.pt`` (what resume
needs), ``meta.json`` (model, size, metrics) and ``manifest.json`` (sha256 of the other three, written last).
"""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from nrh_dist.engine.files import sync_folder, write_json
from nrh_dist.errors import UserError

SCHEMA = 1
WEIGHTS, STATE, META, MANIFEST = "model.safetensors", "training_state.pt", "meta.json", "manifest.json"


class Newest(NamedTuple):
    """The newest checkpoint that verifies (None: there is none), and the newer ones that do not, with the reason."""

    path: Path | None
    skipped: list[tuple[Path, str]]


def checkpoint_name(epoch: int, step: int) -> str:
    """The folder name; ``epoch`` counts finished epochs, ``step`` optimiser steps since the start."""
    return f"epoch-{epoch:04d}-step-{step:06d}"


def save(parent: Path, weights: dict[str, Tensor], state: dict[str, Any], meta: dict[str, Any]) -> Path:
    """Write a checkpoint named by ``meta["epoch"]`` and ``meta["step"]`` under ``parent`` and return its folder.

    Temporary folder, fsync of each file, manifest, rename: a reader sees the whole checkpoint or none. A full disk or a
    kill in between leaves older checkpoints as they were.
    """
    parent.mkdir(parents=True, exist_ok=True)
    final = parent / checkpoint_name(meta["epoch"], meta["step"])
    partial = parent / f".{final.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    save_file({key: value.detach().cpu().contiguous() for key, value in weights.items()}, partial / WEIGHTS)
    torch.save(state, partial / STATE)
    write_json(partial / META, {"schema": SCHEMA, **meta})
    for name in (WEIGHTS, STATE):
        with (partial / name).open("rb") as file:
            os.fsync(file.fileno())
    sums = {name: _sha256(partial / name) for name in (WEIGHTS, STATE, META)}
    write_json(partial / MANIFEST, {"schema": SCHEMA, "sha256": sums})
    sync_folder(partial)
    if final.exists():  # left by a run that was killed after saving: same steps, same content
        shutil.rmtree(final)
    partial.rename(final)
    sync_folder(parent)
    return final


def fault(path: Path) -> str | None:
    """Why the checkpoint at ``path`` must not be read, or None if it verifies."""
    try:
        sums = json.loads((path / MANIFEST).read_text())["sha256"]
        for name in (WEIGHTS, STATE, META):
            if _sha256(path / name) != sums[name]:
                return f"{name} does not match its sha256"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{MANIFEST} cannot be read ({type(error).__name__})"
    return None


def newest(run: Path) -> Newest:
    """The newest verified checkpoint of the run folder ``run``."""
    skipped: list[tuple[Path, str]] = []
    for path in reversed(checkpoints(run)):
        reason = fault(path)
        if reason is None:
            return Newest(path, skipped)
        skipped.append((path, reason))
    return Newest(None, skipped)


def checkpoints(run: Path) -> list[Path]:
    """All checkpoint folders of a run, oldest first (verified or not)."""
    return sorted((run / "checkpoints").glob("epoch-*-step-*"), key=lambda path: (_step(path), path.name))


def prune(run: Path, keep: int, best: Path | None) -> None:
    """Delete all but the last ``keep`` checkpoints and the ``best`` one."""
    for path in checkpoints(run)[:-keep]:
        if best is None or path.name != best.name:
            shutil.rmtree(path)


def read_meta(path: Path) -> dict[str, Any]:
    """``meta.json`` of a verified checkpoint; ``UserError`` for a folder that is none or is damaged."""
    if not (path / MANIFEST).exists():
        raise UserError(f"{path} is not a checkpoint: it holds no {MANIFEST}")
    if reason := fault(path):
        raise UserError(f"the checkpoint {path} is damaged: {reason}; use an earlier one or train again")
    return json.loads((path / META).read_text())


def read_weights(path: Path) -> dict[str, Tensor]:
    """The weights of a checkpoint, on the CPU."""
    return load_file(path / WEIGHTS)


def read_state(path: Path) -> dict[str, Any]:
    """``training_state.pt``, read without unpickling objects."""
    return torch.load(path / STATE, map_location="cpu", weights_only=True)


def _step(path: Path) -> int:
    return int(path.name.rsplit("-", 1)[1])


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
