"""Scoring: checkpoints and pack rows in, one row of numbers an image and checkpoint out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from nrh_dist import metrics
from nrh_dist.data.feed import Batch, gather
from nrh_dist.data.pack import Pack, open_pack
from nrh_dist.engine import checkpoint, select
from nrh_dist.engine.assemble import trained_model
from nrh_dist.errors import UserError
from nrh_dist.models import Prediction
from nrh_dist.perceptual import Perceptual

COLUMNS = (
    "dataset",
    "model",
    "run",
    "name",
    "mse",
    "psnr",
    "fmse",
    "lpips",
    "area_fraction",
    "identity_mse",
    "identity_psnr",
)


class Entry(NamedTuple):
    """One thing that is scored: a checkpoint folder, or doing nothing (``path`` None). ``run`` is its unique name."""

    run: str
    model: str
    path: Path | None
    size: int | None


def entries(words: Sequence[str]) -> list[Entry]:
    """The checkpoints that ``words`` mean, after the row ``identity``, which is always there and always first.

    ``UserError`` for a word that is no checkpoint, for detectors, and for checkpoints of different sizes.
    """
    found = [Entry(select.IDENTITY, select.IDENTITY, None, None)]
    for word in words:
        if word == select.IDENTITY:
            continue
        path = select.resolve(word)
        meta = checkpoint.read_meta(path)
        if meta["stage"] != "harmonisation":
            raise UserError(
                f"{word} is a detector ({meta['stage']}): it harmonises nothing; give a harmoniser's checkpoint"
            )
        found.append(Entry(_unique(select.run_of(path), found), meta["model"]["name"], path, meta["size"]))
    sizes = {entry.size: entry.run for entry in found if entry.size}
    if len(sizes) > 1:
        listed = ", ".join(f"{run} {size} px" for size, run in sizes.items())
        raise UserError(f"all checkpoints in one evaluation must share one size: {listed}; evaluate them apart")
    return found


class Scorer:
    """Models and pack, loaded once; scores any rows of the pack.

    One thread and fixed batches: the numbers do not depend on how the rows are spread over processes.
    """

    def __init__(self, pack: Path, entries: Sequence[Entry], lpips: bool, device: torch.device) -> None:
        if device.type == "cpu":
            torch.set_num_threads(1)
        torch.use_deterministic_algorithms(True, warn_only=True)
        self.pack: Pack = open_pack(pack)
        self.entries, self.device = list(entries), device
        self.models: list[nn.Module | None] = [
            trained_model(entry.path)[0].to(device) if entry.path else None for entry in entries
        ]
        self.perceptual = Perceptual().to(device) if lpips else None

    @torch.no_grad()
    def score(self, rows: np.ndarray) -> list[list[dict[str, Any]]]:
        """For each entry, one row of ``COLUMNS`` for each of the pack's ``rows``; empty cells are None."""
        batch = gather(self.pack, rows, self.device)
        real_features = self.perceptual.features(batch.real) if self.perceptual else []
        identity = metrics.mse(batch.composite, batch.real)
        scored = []
        for entry, output in zip(self.entries, self._outputs(batch), strict=True):
            mse = metrics.mse(output, batch.real)
            values = {
                "mse": mse,
                "psnr": metrics.psnr_from_mse(mse),
                "fmse": metrics.fmse(output, batch.real, batch.mask),
                "identity_mse": identity,
                "identity_psnr": metrics.psnr_from_mse(identity),
            }
            if self.perceptual:
                values["lpips"] = self.perceptual.distance_to(output, real_features)
            scored.append(self._rows(entry, rows, values))
        return scored

    @torch.no_grad()
    def render(self, row: int) -> dict[str, np.ndarray]:
        """Pictures of one pack row, uint8: each entry's output by its run, its detector mask as ``run-mask``."""
        batch = gather(self.pack, np.array([row]), self.device)
        pictures = {}
        for entry, model in zip(self.entries, self.models, strict=True):
            if model is None:
                continue
            prediction = self._predict(model, batch)
            pictures[entry.run] = _picture(metrics.to_255(prediction.image)[0])
            if prediction.mask is not None:
                pictures[f"{entry.run}-mask"] = _picture(prediction.mask[0] * 255)
        return pictures

    def _outputs(self, batch: Batch) -> list[Tensor]:
        return [self._predict(model, batch).image if model else batch.composite for model in self.models]

    def _predict(self, model: nn.Module, batch: Batch) -> Prediction:
        return model(batch.composite, batch.mask)

    def _rows(self, entry: Entry, rows: np.ndarray, values: dict[str, Tensor]) -> list[dict[str, Any]]:
        pack = self.pack
        numbers = {name: value.double().cpu().tolist() for name, value in values.items()}
        return [
            {
                "dataset": pack.datasets[row],
                "model": entry.model,
                "run": entry.run,
                "name": pack.names[row],
                "area_fraction": float(pack.area_fractions[row]),
                "lpips": None,
                **{name: _cell(column[position]) for name, column in numbers.items()},
            }
            for position, row in enumerate(rows)
        ]


def _cell(value: float) -> float | None:
    """None for what is not available; an infinite or undefined metric is an empty cell, counted in the summary."""
    return value if np.isfinite(value) else None


def _picture(image: Tensor) -> np.ndarray:
    """CHW float in 0..255 as HWC (or HW) uint8."""
    array = image.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    return array[..., 0] if array.shape[-1] == 1 else array


def _unique(run: str, found: Sequence[Entry]) -> str:
    taken = {entry.run for entry in found}
    return next(name for name in (run, *(f"{run}-{number}" for number in range(2, 10_000))) if name not in taken)
