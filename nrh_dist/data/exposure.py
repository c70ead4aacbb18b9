"""Exposure shifts of one object, for the detector's pre-training and its threshold scan; on the device of the tensors.

A stop is a gain of 2 on L of CIE Lab, not on linear light (Dolhasz et al., CVPR 2020). Images are N3HW in [-1, 1],
masks N1HW in [0, 1]; every function accepts a batch of 0 images.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from nrh_dist.color import lab_to_rgb_t, rgb_to_lab_t
from nrh_dist.models.ptc import NEGATIVE, NONE, POSITIVE

# Human thresholds in stops, mean and standard deviation over 300 images: the smallest shift that people notice.
NEGATIVE_MEAN, NEGATIVE_SD = -0.248, 0.122
POSITIVE_MEAN, POSITIVE_SD = 0.227, 0.117


class Triplet(NamedTuple):
    """Three shifts of each photo: all negative ones, then all positive ones, then all sub-threshold ones.

    ``images``: 3N x 3 x H x W in [-1, 1]; ``target``: 3N x H x W int64 classes; ``stops``: 3N.
    """

    images: Tensor
    target: Tensor
    stops: Tensor


def shift_exposure(image: Tensor, mask: Tensor, stops: Tensor) -> Tensor:
    """Multiply L by 2**stops inside the mask: N3HW, N1HW, N -> N3HW in [-1, 1].

    L is clipped to [0, 100], then each channel of sRGB to its range; the soft mask blends in sRGB.
    """
    lab = rgb_to_lab_t((image + 1) / 2)
    lightness = (lab[:, :1] * torch.exp2(stops).view(-1, 1, 1, 1)).clamp(0, 100)
    shifted = lab_to_rgb_t(torch.cat([lightness, lab[:, 1:]], dim=1)) * 2 - 1
    return mask * shifted + (1 - mask) * image


def threshold_triplet(
    photo: Tensor,
    mask: Tensor,
    draws: Tensor,
    limit_stops: float,
    negative: Tensor | float = NEGATIVE_MEAN,
    positive: Tensor | float = POSITIVE_MEAN,
) -> Triplet:
    """A visible negative, a visible positive and an invisible shift of each photo, with the classes to predict.

    ``draws`` (N x 3, uniform in [0, 1)) place the shifts uniformly in [-limit_stops, negative], [positive, limit_stops]
    and [negative, positive]. ``negative`` and ``positive`` are the human thresholds in stops, one number or N; the
    means stand in where none was measured. Pixels with mask >= 0.5 have the class of their shift, all others none.
    """
    assert draws.shape == (len(photo), 3), f"draws must be {len(photo)} x 3, not {tuple(draws.shape)}"
    u = draws.to(photo)
    stops = torch.cat(
        [
            negative - (limit_stops + negative) * u[:, 0],
            positive + (limit_stops - positive) * u[:, 1],
            negative + (positive - negative) * u[:, 2],
        ]
    )
    images = shift_exposure(photo.repeat(3, 1, 1, 1), mask.repeat(3, 1, 1, 1), stops)
    inside = mask[:, 0] >= 0.5  # NHW
    none = torch.full_like(inside, NONE, dtype=torch.int64)
    target = torch.cat([none.masked_fill(inside, NEGATIVE), none.masked_fill(inside, POSITIVE), none])
    return Triplet(images, target, stops)
