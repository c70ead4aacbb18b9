"""A chosen checkpoint as a folder of its own, to give away: weights, configuration, model card, sums; proven to load.

``DIR/`` holds ``model.safetensors`` (all of the model, byte for byte), ``config.yaml`` and ``meta.json`` (without the
places of files), ``README.md`` (the model card, to be edited at will) and ``manifest.json`` (sha256 of the first
three). It is a CHECKPOINT wherever one is asked for.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nrh_dist import config as configuration
from nrh_dist.engine import checkpoint
from nrh_dist.engine.assemble import trained_model
from nrh_dist.engine.card import card
from nrh_dist.engine.files import sync_folder
from nrh_dist.engine.progress import Say
from nrh_dist.errors import UserError
from nrh_dist.models import Prediction

CONFIG, CARD = checkpoint.EXPORTED[-1], "README.md"
DATA_KEYS = ("data.root", "data.pack")
PATH_KEYS = [f"{section}.{key}" for section, key in configuration.PATH_KEYS]


class Calibration(NamedTuple):
    """Values of these keys of ``model`` for a finished ``gated`` one, and ``why`` these."""

    gate_threshold: float
    correction_strength: float
    least_change: float
    why: str

    @property
    def options(self) -> dict[str, float]:
        """What of ``model`` it changes."""
        return {key: value for key, value in self._asdict().items() if key != "why"}


def export(
    path: Path,
    evaluations: Sequence[tuple[Path, str]],
    out: Path,
    say: Say,
    calibration: Calibration | None = None,
) -> Path:
    """Write the checkpoint at ``path`` to the new folder ``out``, prove that it gives the same output, and return it.

    ``evaluations`` are the folders of those that scored it, each with the run that it is there: for the model card.
    With a ``calibration`` the output is that of the model with its values.
    ``UserError``, with nothing left behind, where ``out`` exists, the checkpoint is damaged or is of the stage that
    detects nothing yet, the disk does not take it, or what was written gives another output.
    """
    require_new(out)
    if out.suffix.lower() == ".onnx":
        raise UserError(f"{out} would be a folder and is called like a file: give another name")
    meta = checkpoint.read_meta(path)
    if meta["stage"] == "equivariance":
        raise UserError(f"{path} is of stage=equivariance and detects nothing yet: export one of stage=thresholds")
    changes = calibration.options if calibration else {}
    if calibration:
        meta = _calibrated(meta, calibration)
    contents = _contents(path, meta, evaluations)
    partial = out.with_name(f".{out.name}.partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)  # left by a kill
        checkpoint.write_files(partial, contents)
        prove(path, partial, changes)
        require_new(out)
        partial.rename(out)
        sync_folder(out.parent)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    say(f"exported {path} to {out}: loaded anew, it gives the same output bit for bit")
    return out


def _calibrated(meta: dict[str, Any], calibration: Calibration) -> dict[str, Any]:
    changed = {f"model.{key}": value for key, value in calibration.options.items()}
    return {
        **meta,
        "model": meta["model"] | calibration.options,
        "config": meta["config"] | changed,
        "calibration": calibration.why,
    }


def prove(path: Path, copy: Path, changes: Mapping[str, float]) -> None:
    """``UserError`` unless the checkpoints at ``path``, with ``changes``, and ``copy`` give the same, finite output."""
    for expected, found in zip(_outputs(path, changes), _outputs(copy), strict=True):
        if not expected.isfinite().all():
            raise UserError(f"{path} gives values that are not finite: choose another checkpoint")
        if not torch.equal(expected, found):
            raise UserError(f"{copy} gives another output than {path}: check this machine's disk and memory")


@torch.no_grad()
def _outputs(path: Path, changes: Mapping[str, float] | None = None) -> list[Tensor]:
    """All that the model of a checkpoint, loaded anew, makes of two fixed random images with masks."""
    network, meta = trained_model(path)
    for name, value in (changes or {}).items():
        setattr(network, name, value)
    size, fixed = meta["size"], torch.Generator().manual_seed(0)
    image = torch.rand(2, 3, size, size, generator=fixed) * 2 - 1
    mask = torch.rand(2, 1, size, size, generator=fixed)
    made = network(image) if meta["model"]["name"] == "ptc" else network(image, mask)
    return [one for one in made if one is not None] if isinstance(made, Prediction) else [made]


def _contents(path: Path, meta: dict[str, Any], evaluations: Sequence[tuple[Path, str]]) -> dict[str, bytes]:
    """The files of the exported folder, the manifest last."""
    public, text = _public(meta), card_of(meta, evaluations)
    files = {
        checkpoint.WEIGHTS: (path / checkpoint.WEIGHTS).read_bytes(),
        checkpoint.META: (json.dumps(public, indent=1) + "\n").encode(),
        CONFIG: configuration.dump(configuration.from_flat(public["config"])).encode(),
    }
    return {**files, CARD: text.encode(), checkpoint.MANIFEST: checkpoint.manifest(files)}


def card_of(meta: dict[str, Any], evaluations: Sequence[tuple[Path, str]]) -> str:
    """The model card of a checkpoint, from its meta.json and the evaluations that scored it, as for ``export``."""
    config = meta["config"]
    data = next((Path(config[key]).name for key in DATA_KEYS if config.get(key)), "")
    given = {
        key: key.rsplit(".", 1)[-1].upper()
        for key in PATH_KEYS
        if config.get(key) and key not in ("run.root", *DATA_KEYS)
    }
    scored = [(json.loads((folder / "summary.json").read_text()), run) for folder, run in evaluations]
    return card(_public(meta), data, given, scored)


def _public(meta: dict[str, Any]) -> dict[str, Any]:
    """``meta`` without the places of files."""
    return {
        **meta,
        "model": {key: None if f"model.{key}" in PATH_KEYS else value for key, value in meta["model"].items()},
        "config": {key: None if key in PATH_KEYS else value for key, value in meta["config"].items()},
    }


def require_new(out: Path) -> None:
    """``UserError`` where there is something at ``out``: an export never replaces anything."""
    if out.exists() or out.is_symlink():
        raise UserError(f"{out} exists: choose another folder to export to")
