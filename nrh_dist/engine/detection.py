"""What a detector sees of an object whose appearance is shifted from one stop below to one stop above.

The published measure of the PTC (Dolhasz et al., CVPR 2020): the threshold that it predicts for an object is the
smallest shift that it detects, and people's thresholds are what it should be. How the scan is done is ours.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from nrh_dist.data.feed import Batch, gather
from nrh_dist.data.pack import Pack, open_pack
from nrh_dist.data.shifts import shift
from nrh_dist.engine import checkpoint, score, select
from nrh_dist.engine.assemble import trained_model
from nrh_dist.engine.score import Entry, picture
from nrh_dist.errors import UserError
from nrh_dist.metrics import to_255
from nrh_dist.models.blocks import resize
from nrh_dist.models.ptc import NEGATIVE, POSITIVE
from nrh_dist.schema import TRANSFORMS

OFFSETS = np.arange(-50, 51) / 50  # stops
ZERO = 50  # the place of no shift in OFFSETS
DETECTED = 0.5  # mean probability inside the mask from which on the object counts as detected
FAR = 1.0  # stops; the threshold of an object that is not detected anywhere in the scan
PICTURED = (-0.75, -0.25, 0.0, 0.25, 0.75)  # stops
BATCH = 16  # shifted copies at a time: what bounds the memory at full size


class Curves(NamedTuple):
    """One detector on one image, for T transforms over ``OFFSETS`` (K).

    ``probability``: T x K x 2, mean inside the mask of the classes negative and positive. ``iou`` and ``soft_f1``:
    T x K, of the class of the shift's sign with the true mask; nan at no shift, where there is nothing to find.
    """

    probability: np.ndarray
    iou: np.ndarray
    soft_f1: np.ndarray

    def flat(self) -> np.ndarray:
        """All values in a row: 4 T K."""
        return np.concatenate([self.probability, self.iou[..., None], self.soft_f1[..., None]], axis=-1).ravel()


def curves_in(row: np.ndarray, counts: Sequence[int]) -> list[Curves]:
    """Each detector's curves, from the row that ``Curves.flat`` of all makes; ``counts`` are their transforms."""
    parts = np.split(row, np.cumsum(counts)[:-1] * len(OFFSETS) * 4)
    values = [part.reshape(count, len(OFFSETS), 4) for part, count in zip(parts, counts, strict=True)]
    return [Curves(one[..., :2], one[..., 2], one[..., 3]) for one in values]


def is_detector(word: str) -> bool:
    """Whether ``word`` means a checkpoint of the detector's pre-training. ``UserError`` where it means none at all."""
    return word != select.IDENTITY and checkpoint.read_meta(select.resolve(word))["stage"] != "harmonisation"


def entries(words: Sequence[str]) -> list[Entry]:
    """The detectors that ``words`` mean. ``UserError`` for other checkpoints and for different sizes."""
    found: list[Entry] = []
    for word in words:
        if not is_detector(word):
            raise UserError(f"{word} is no detector, and detectors are evaluated by themselves: leave it out")
        path = select.resolve(word)
        meta = checkpoint.read_meta(path)
        if meta["stage"] != "thresholds":
            raise UserError(f"{word} is of stage {meta['stage']} and detects nothing yet: give one of stage=thresholds")
        found.append(Entry(score.unique_run(select.run_of(path), found), "ptc", path, meta["size"]))
    score.require_one_size(found)
    return found


def transforms_of(entry: Entry) -> list[str]:
    """Exposure, by which thresholds are measured, and what else the detector was trained to see; as in TRANSFORMS."""
    assert entry.path is not None
    trained = checkpoint.read_meta(entry.path)["config"].get("data.transforms", [])
    return [name for name in TRANSFORMS if name == "exposure" or name in trained]


def predicted_threshold(probabilities: np.ndarray) -> tuple[float, bool]:
    """The shift in stops where ``probabilities`` (at 0, 0.02, ... 1 stop) first reach 0.5, and whether they never do.

    Linear between two steps; 0 where an unchanged object is detected already.
    """
    crossed = np.flatnonzero(probabilities >= DETECTED)
    if not len(crossed):
        return FAR, True
    first = int(crossed[0])
    if first == 0:
        return 0.0, False
    before, after = probabilities[first - 1 : first + 1]
    step = OFFSETS[1] - OFFSETS[0]
    return float((first - 1 + (DETECTED - before) / (after - before)) * step), False


def predicted_thresholds(curves: Curves) -> tuple[tuple[float, bool], tuple[float, bool]]:
    """``predicted_threshold`` of the negative and of the positive exposure shifts."""
    exposure = curves.probability[0]
    return predicted_threshold(exposure[ZERO::-1, NEGATIVE]), predicted_threshold(exposure[ZERO:, POSITIVE])


def detected(curves: Curves) -> np.ndarray:
    """T x K: whether the object is detected with the right sign; unchanged, with either: a false alarm."""
    return mean_probability(curves) >= DETECTED


def mean_probability(curves: Curves) -> np.ndarray:
    """T x K: the mean probability of the shift's sign inside the mask; of the likelier one where nothing is shifted."""
    negative, positive = curves.probability[..., NEGATIVE], curves.probability[..., POSITIVE]
    return np.where(OFFSETS < 0, negative, np.where(OFFSETS > 0, positive, np.maximum(negative, positive)))


def separation(images: Sequence[Curves]) -> np.ndarray:
    """T x K: how well a detector tells shifted from unchanged objects over all images, whatever its threshold.

    The area under the ROC curve of the mean in-mask probability of the shift's sign: the share of (shifted, unchanged)
    pairs in which the shifted object gets the higher one, ties counting half; 0.5 is chance. nan at no shift.
    """
    probability = np.stack([curves.probability for curves in images])  # N x T x K x 2
    areas = np.full(probability.shape[1:3], np.nan)
    for t, k in np.ndindex(areas.shape):
        if k != ZERO:
            sign = NEGATIVE if OFFSETS[k] < 0 else POSITIVE
            unchanged, shifted = np.sort(probability[:, t, ZERO, sign]), probability[:, t, k, sign]
            below = np.searchsorted(unchanged, shifted, "left") + np.searchsorted(unchanged, shifted, "right")
            areas[t, k] = below.mean() / (2 * len(unchanged))
    return areas


class DetectorScorer:
    """Detectors and pack, loaded once; scans any rows of the pack, one image at a time, on one thread."""

    def __init__(self, pack: Path, entries: Sequence[Entry], device: torch.device) -> None:
        score.be_deterministic(device)
        self.pack: Pack = open_pack(pack)
        self.device = device
        self.detectors = [(entry, trained_model(_path(entry))[0].to(device), transforms_of(entry)) for entry in entries]

    @torch.no_grad()
    def score(self, rows: np.ndarray) -> np.ndarray:
        """For each row, the ``flat`` curves of each detector, one behind the other."""
        scanned = (self._scan(gather(self.pack, np.array([row]), self.device)) for row in rows)
        return np.stack([np.concatenate([curves.flat() for curves in image]) for image in scanned])

    @torch.no_grad()
    def render(self, row: int) -> dict[str, Any]:
        """Pictures of one row, uint8: ``shifted`` exposures at ``PICTURED``, and M_p by run (red negative, green
        positive) for each of them."""
        batch = gather(self.pack, np.array([row]), self.device)
        shifted = self._shifted(batch, "exposure", np.array(PICTURED))
        found = {entry.run: model(shifted).softmax(dim=1) for entry, model, _ in self.detectors}
        colours = {
            run: torch.stack([p[:, NEGATIVE], p[:, POSITIVE], torch.zeros_like(p[:, 0])], dim=1) * 255
            for run, p in found.items()
        }
        return {
            "shifted": [picture(image) for image in to_255(shifted)],
            "detected": {
                run: [picture(image) for image in resize(images, self.pack.size)] for run, images in colours.items()
            },
        }

    def _scan(self, batch: Batch) -> list[Curves]:
        found: list[list[list[np.ndarray]]] = [[] for _ in self.detectors]
        for name in TRANSFORMS:
            interested = [number for number, (_, _, names) in enumerate(self.detectors) if name in names]
            parts: dict[int, list[np.ndarray]] = {number: [] for number in interested}
            for start in range(0, len(OFFSETS), BATCH) if interested else ():
                offsets = OFFSETS[start : start + BATCH]
                shifted = self._shifted(batch, name, offsets)
                for number in interested:
                    probabilities = self.detectors[number][1](shifted).softmax(dim=1)
                    parts[number].append(_measure(probabilities, batch.mask, offsets))
            for number in interested:
                found[number].append(parts[number])
        return [_curves([np.concatenate(one) for one in parts]) for parts in found]

    def _shifted(self, batch: Batch, name: str, offsets: np.ndarray) -> Tensor:
        count = len(offsets)
        stops = torch.from_numpy(offsets).to(batch.real)
        which = np.full(count, TRANSFORMS.index(name))
        return shift(batch.real.expand(count, -1, -1, -1), batch.mask.expand(count, -1, -1, -1), stops, which)


def _measure(probabilities: Tensor, mask: Tensor, offsets: np.ndarray) -> np.ndarray:
    """K x 4: mean of negative and positive inside the mask, IoU and soft F1 of the shift's sign with the mask."""
    inside = resize(mask, probabilities.shape[-1])[:, 0].double()  # 1hw, soft
    p = probabilities.double()
    weight = inside.sum().clamp(min=1e-9)
    means = [(p[:, sign] * inside).sum(dim=(1, 2)) / weight for sign in (NEGATIVE, POSITIVE)]
    sign = torch.from_numpy(np.where(offsets < 0, NEGATIVE, POSITIVE)).to(p.device)
    of_sign = p[torch.arange(len(p), device=p.device), sign]  # Khw
    found, true = p.argmax(dim=1) == sign[:, None, None], inside >= 0.5
    iou = (found & true).sum(dim=(1, 2)) / (found | true).sum(dim=(1, 2)).clamp(min=1)
    soft_f1 = 2 * (of_sign * inside).sum(dim=(1, 2)) / (of_sign.sum(dim=(1, 2)) + weight)
    return torch.stack([*means, iou.double(), soft_f1], dim=1).cpu().numpy()


def _curves(transforms: Sequence[np.ndarray]) -> Curves:
    values = np.stack(transforms)  # T x K x 4
    values[:, ZERO, 2:] = np.nan
    return Curves(values[..., :2], values[..., 2], values[..., 3])


def _path(entry: Entry) -> Path:
    assert entry.path is not None
    return entry.path
