"""Scoring: checkpoints and pack rows in, one row of numbers an image and checkpoint out."""

from collections.abc import Callable, Sequence
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
from nrh_dist.models.two_stage import TwoStage
from nrh_dist.perceptual import Perceptual

Predict = Callable[[Tensor, Tensor], Prediction]

TWO_STAGE, MASKED = "two_stage", "dih_m"
TRUE_MASKS = "-true-masks"  # how the run of C_s ends; before it stands the run of C_p
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
    """One thing that is scored: a checkpoint folder, or doing nothing (``path`` None). ``run`` is its unique name.

    With ``true_masks``, the harmoniser in the two-stage checkpoint at ``path``, given the true masks.
    """

    run: str
    model: str
    path: Path | None
    size: int | None
    true_masks: bool = False


def entries(words: Sequence[str]) -> list[Entry]:
    """The checkpoints that ``words`` mean, after the row ``identity``, which is always there and always first.

    Each ``two_stage`` (C_p) is followed by its own harmoniser with the true masks (C_s), as the run ``RUN-true-masks``.
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
        run = unique_run(select.run_of(path), found)
        found.append(Entry(run, meta["model"]["name"], path, meta["size"]))
        if meta["model"]["name"] == TWO_STAGE:
            found.append(Entry(run + TRUE_MASKS, MASKED, path, meta["size"], true_masks=True))
    require_one_size(found)
    return found


def require_one_size(found: Sequence[Entry]) -> None:
    """``UserError`` where the checkpoints are of different sizes: their numbers could not stand side by side."""
    sizes = {entry.size: entry.run for entry in found if entry.size}
    if len(sizes) > 1:
        listed = ", ".join(f"{run} {size} px" for size, run in sizes.items())
        raise UserError(f"all checkpoints in one evaluation must share one size: {listed}; evaluate them apart")


def pairs(found: Sequence[Entry]) -> list[tuple[str, str]]:
    """The runs of C_p and C_s of each two-stage checkpoint."""
    return [(entry.run.removesuffix(TRUE_MASKS), entry.run) for entry in found if entry.true_masks]


class Scorer:
    """Models and pack, loaded once; scores any rows of the pack.

    One thread and fixed batches: the numbers do not depend on how the rows are spread over processes.
    """

    def __init__(self, pack: Path, entries: Sequence[Entry], lpips: bool, device: torch.device) -> None:
        be_deterministic(device)
        self.pack: Pack = open_pack(pack)
        self.entries, self.device = list(entries), device
        paths = dict.fromkeys(entry.path for entry in entries if entry.path)
        models = {path: trained_model(path)[0].to(device) for path in paths}
        self.predict = [_predictor(entry, models[entry.path]) if entry.path else None for entry in entries]
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
        for entry, predict in zip(self.entries, self.predict, strict=True):
            if predict is None:
                continue
            prediction = predict(batch.composite, batch.mask)
            pictures[entry.run] = picture(metrics.to_255(prediction.image)[0])
            if prediction.mask is not None:
                pictures[f"{entry.run}-mask"] = picture(prediction.mask[0] * 255)
        return pictures

    def _outputs(self, batch: Batch) -> list[Tensor]:
        return [predict(batch.composite, batch.mask).image if predict else batch.composite for predict in self.predict]

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


def _predictor(entry: Entry, model: nn.Module) -> Predict:
    if entry.true_masks:
        assert isinstance(model, TwoStage)
        return model.with_true_mask
    return model


def _cell(value: float) -> float | None:
    """None for what is not available; an infinite or undefined metric is an empty cell, counted in the summary."""
    return value if np.isfinite(value) else None


def be_deterministic(device: torch.device) -> None:
    """One thread on a CPU and torch's deterministic operations in this process."""
    if device.type == "cpu":
        torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True, warn_only=True)


def picture(image: Tensor) -> np.ndarray:
    """CHW float in 0..255 as HWC (or HW) uint8."""
    array = image.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    return array[..., 0] if array.shape[-1] == 1 else array


def unique_run(run: str, found: Sequence[Entry]) -> str:
    """``run``, or with the first number behind it that makes it unique, also with ``TRUE_MASKS`` added."""
    taken = {entry.run for entry in found}
    names = (run, *(f"{run}-{number}" for number in range(2, 10_000)))
    return next(name for name in names if not {name, name + TRUE_MASKS} & taken)
