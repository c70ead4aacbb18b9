"""The two stages of the detector's pre-training (Dolhasz et al., CVPR 2020), as tasks of the ordinary loop.

Both take the real photo and the object's mask of each sample and shift the object's exposure themselves, or whatever
else ``data.transforms`` names: one of them a sample, drawn anew each epoch and fixed for validation.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nrh_dist import losses
from nrh_dist.data import thresholds
from nrh_dist.data.feed import Batch
from nrh_dist.data.pack import Pack
from nrh_dist.data.shifts import NEGATIVE_MEAN, POSITIVE_MEAN, shift, threshold_triplet
from nrh_dist.engine.draws import VALIDATION_EPOCH, row_uniform
from nrh_dist.models.ptc import NONE
from nrh_dist.schema import TRANSFORMS, Config

TRANSFORM_STREAM = 3  # of the random draws, beside those of the offsets


class Equivariance:
    """Stage 1: regress the map of mask x offset in stops from a photo and its shifted copy; MSE in stops^2.

    One map a transform, of which one is not zero. Offsets are uniform in +-``data.transform_stops``.
    """

    metrics = ("loss",)

    def __init__(self, config: Config) -> None:
        self.config = config

    def losses(self, model: nn.Module, batch: Batch, epoch: int) -> Tensor:
        """Mean squared error of the offset maps, one value an image (N)."""
        uniform = row_uniform(self.config.seed, epoch, batch.rows)
        limit, names = self.config.data.transform_stops, self.config.data.transforms
        stops = torch.from_numpy((2 * uniform - 1) * limit).to(batch.real)
        drawn = _drawn(self.config, epoch, batch.rows)
        predicted = model(batch.real, shift(batch.real, batch.mask, stops, drawn))
        is_drawn = torch.tensor(drawn[:, None] == [TRANSFORMS.index(name) for name in names]).to(stops)  # N x maps
        offsets = batch.mask * (stops[:, None] * is_drawn)[..., None, None]  # N x maps x H x W
        target = F.interpolate(offsets, size=predicted.shape[-2:], mode="bilinear", align_corners=False, antialias=True)
        return losses.mse(predicted, target)

    def evaluate(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """The loss on offsets that stay the same from epoch to epoch."""
        return {"loss": self.losses(model, batch, VALIDATION_EPOCH)}


class Thresholds:
    """Stage 2: classify each pixel as visibly darkened, visibly brightened or neither; focal loss over a triplet.

    ``accuracy`` is the share of pixels whose class is right; ``iou`` that of the detected and true object pixels of the
    two visible shifts.
    """

    metrics = ("loss", "accuracy", "iou")

    def __init__(self, config: Config, pack: Pack) -> None:
        self.config = config
        self.thresholds = human_thresholds(config, pack)

    def losses(self, model: nn.Module, batch: Batch, epoch: int) -> Tensor:
        """Focal loss, the mean over the triplet, one value a photo (N)."""
        return self._focal(*self._classified(model, batch, epoch))

    def evaluate(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Loss, accuracy and intersection over union on shifts that stay the same from epoch to epoch."""
        logits, target, inside = self._classified(model, batch, VALIDATION_EPOCH)
        predicted = logits.argmax(dim=1)
        correct = (predicted == target).double().mean(dim=(1, 2)).view(3, -1).mean(dim=0)
        visible = slice(0, 2 * len(batch.rows))
        found, true = predicted[visible] != NONE, target[visible] != NONE
        both = ((predicted[visible] == target[visible]) & true).sum(dim=(1, 2))
        either = (found | true).sum(dim=(1, 2)).clamp(min=1)
        iou = (both.double() / either).view(2, -1).mean(dim=0)
        return {"loss": self._focal(logits, target, inside), "accuracy": correct, "iou": iou}

    def _focal(self, logits: Tensor, target: Tensor, inside: Tensor) -> Tensor:
        """The mean over each photo's triplet: N values."""
        share = self.config.loss.object_share
        weight = losses.object_weight(inside, share) if share else None
        return losses.focal(logits, target, weight).view(3, -1).mean(dim=0)

    def _classified(self, model: nn.Module, batch: Batch, epoch: int) -> tuple[Tensor, Tensor, Tensor]:
        """Of the triplets: logits (3N x 3 x h x w), target classes and which pixels are the object's (3N x h x w)."""
        seed, limit = self.config.seed, self.config.data.transform_stops
        draws = np.stack([row_uniform(seed, epoch, batch.rows, stream) for stream in range(3)], axis=1)
        thresholds = torch.from_numpy(self.thresholds[batch.rows])
        drawn = _drawn(self.config, epoch, batch.rows)
        triplet = threshold_triplet(batch.real, batch.mask, torch.from_numpy(draws), drawn, limit, thresholds)
        logits = model(triplet.images)
        inside = (batch.mask >= 0.5).float().repeat(3, 1, 1, 1)
        full = torch.cat([triplet.target[:, None].float(), inside], dim=1)
        target, inside = F.interpolate(full, size=logits.shape[-2:], mode="nearest-exact").unbind(dim=1)
        return logits, target.long(), inside > 0


def human_thresholds(config: Config, pack: Pack) -> np.ndarray:
    """Negative and positive threshold of each sample in stops, N x 2; the published means where none was measured.

    ``UserError`` like ``thresholds.read``.
    """
    means = np.tile((NEGATIVE_MEAN, POSITIVE_MEAN), (len(pack), 1))
    if not config.data.thresholds:
        return means
    measured = thresholds.read(Path(config.data.thresholds), pack.names)
    return np.where(np.isnan(measured), means, measured)


def _drawn(config: Config, epoch: int, rows: np.ndarray) -> np.ndarray:
    """The transform of each row, as a number in TRANSFORMS."""
    numbers = np.array([TRANSFORMS.index(name) for name in config.data.transforms])
    return numbers[(row_uniform(config.seed, epoch, rows, TRANSFORM_STREAM) * len(numbers)).astype(int)]
