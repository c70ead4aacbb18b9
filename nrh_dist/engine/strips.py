"""Image strips of a few validation photos: what the model under training makes of them, for a person to look at."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from nrh_dist.data.feed import Batch, Feed
from nrh_dist.data.shifts import shift
from nrh_dist.metrics import to_255
from nrh_dist.models.blocks import resize
from nrh_dist.models.ptc import NEGATIVE, POSITIVE
from nrh_dist.schema import TRANSFORMS, Config

FOLDER = "strips"  # of a run
COUNT = 4
STOPS = (-0.5, 0.5)  # of the exposure shifts that a detector is shown; people notice about 0.24
GAP = 4  # white pixels between two panels


def chosen(rows: np.ndarray) -> np.ndarray:
    """Up to ``COUNT`` of the validation rows, evenly spaced: the same ones for every epoch, resume and trial."""
    return rows[np.linspace(0, len(rows) - 1, min(COUNT, len(rows))).astype(int)]


@torch.no_grad()
def write(config: Config, model: nn.Module, feed: Feed, rows: np.ndarray, folder: Path) -> list[tuple[str, str]]:
    """One PNG for each of ``rows`` into ``folder``; returns captions and paths.

    harmonisation: composite, output, real, mask. thresholds: darkened photo and what is detected in it (red darker,
    green brighter), brightened photo and what is detected, mask. equivariance: photo, brightened photo, the map of
    stops that is seen (grey: none), mask. The model is in eval mode, and nothing of it changes.
    """
    batch = feed.gather(rows)
    panels = {"harmonisation": _harmonised, "thresholds": _detected, "equivariance": _mapped}[config.stage](
        model, batch
    )
    names, images = list(panels), [_pixels(panel) for panel in panels.values()]
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for number, row in enumerate(rows):
        path = folder / f"{number}.png"
        gap = np.full((feed.pack.size, GAP, 3), 255, np.uint8)
        parts = [part for image in images for part in (image[number], gap)][:-1]
        Image.fromarray(np.concatenate(parts, axis=1)).save(path, compress_level=1)
        written.append((f"{feed.pack.names[row]}: {' | '.join(names)}", str(path.absolute())))
    return written


def _harmonised(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    known = {} if batch.features is None else {"features": batch.features}
    output = model(batch.composite, batch.mask, **known).image
    return {"composite": batch.composite, "output": output, "real": batch.real, "mask": batch.mask * 2 - 1}


def _detected(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    panels: dict[str, Tensor] = {}
    for stops, word in zip(STOPS, ("darkened", "brightened"), strict=True):
        shifted = _shifted(batch, stops)
        found = model(shifted).softmax(dim=1)
        colours = torch.stack([found[:, NEGATIVE], found[:, POSITIVE], torch.zeros_like(found[:, 0])], dim=1)
        panels |= {word: shifted, f"detected in {word}": resize(colours, shifted.shape[-1]) * 2 - 1}
    return {**panels, "mask": batch.mask * 2 - 1}


def _mapped(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    shifted = _shifted(batch, STOPS[1])
    seen = model(batch.real, shifted)[:, :1]  # the first transform's
    return {
        "photo": batch.real,
        "brightened": shifted,
        "stops seen": resize(seen, shifted.shape[-1]),
        "mask": batch.mask * 2 - 1,
    }


def _shifted(batch: Batch, stops: float) -> Tensor:
    exposure = np.full(len(batch.rows), TRANSFORMS.index("exposure"))
    return shift(batch.real, batch.mask, torch.full((len(batch.rows),), stops).to(batch.real), exposure)


def _pixels(panel: Tensor) -> np.ndarray:
    """N3HW or N1HW in [-1, 1] as uint8 NHW3."""
    return to_255(panel).round().to(torch.uint8).expand(-1, 3, -1, -1).permute(0, 2, 3, 1).cpu().numpy()
