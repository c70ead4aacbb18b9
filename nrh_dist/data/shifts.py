"""Shifts of one object's appearance, which the detector learns to see; on the device of the tensors.

The paper's shift is exposure: a stop is a gain of 2 on L of CIE Lab, not on linear light (Dolhasz et al., CVPR 2020).
The other transforms are ours. Images are N3HW in [-1, 1], masks N1HW in [0, 1]; every function accepts a batch of 0.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from nrh_dist.color import delinearise_t, lab_to_rgb_t, linearise_t, luminance_t, rgb_to_lab_t
from nrh_dist.models.ptc import NEGATIVE, NONE, POSITIVE
from nrh_dist.schema import TRANSFORMS

# Human thresholds in stops, mean over 300 images (standard deviations 0.122 and 0.117): the smallest exposure shift
# that people notice. No such measurement exists for the other transforms: there the same numbers stand in, our choice.
NEGATIVE_MEAN, POSITIVE_MEAN = -0.248, 0.227
LEAST_STOPS = 0.02  # no threshold is taken to be nearer to zero than a step of the scan that measures them


class Triplet(NamedTuple):
    """Three shifts of each photo: all negative ones, then all positive ones, then all sub-threshold ones.

    ``images``: 3N x 3 x H x W in [-1, 1]; ``target``: 3N x H x W int64 classes; ``stops``: 3N.
    """

    images: Tensor
    target: Tensor
    stops: Tensor


def shift(image: Tensor, mask: Tensor, stops: Tensor, transforms: np.ndarray) -> Tensor:
    """Each image's object shifted by ``stops`` (N) of its transform (N numbers in TRANSFORMS), blended in by its mask.

    In Lab, where s = 2**stops: exposure multiplies L by s; saturation a and b; contrast the distance of L to the
    object's mean L. White balance multiplies red over blue by s in linear light at unchanged luminance: positive is
    warmer. L is clipped to [0, 100], then each channel of sRGB to its range; the soft mask blends in sRGB.
    """
    shifted = image.clone()
    for number in np.unique(transforms):
        rows = torch.from_numpy(np.flatnonzero(transforms == number)).to(image.device)
        change = _CHANGES[TRANSFORMS[number]]
        gain = torch.exp2(stops[rows].to(image)).view(-1, 1, 1, 1)
        changed = change((image[rows] + 1) / 2, mask[rows], gain) * 2 - 1
        shifted[rows] = mask[rows] * changed + (1 - mask[rows]) * image[rows]
    return shifted


def threshold_triplet(
    photo: Tensor, mask: Tensor, draws: Tensor, transforms: np.ndarray, limit_stops: float, thresholds: Tensor
) -> Triplet:
    """A visible negative, a visible positive and an invisible shift of each photo, with the classes to predict.

    ``thresholds`` (N x 2) are the human ones in stops, negative and positive. ``draws`` (N x 3, uniform in [0, 1))
    place the visible shifts log-uniformly between threshold and ``limit_stops`` (at the threshold where that is no
    less), the invisible one uniformly between the thresholds. Ours: drawn uniformly up to 3.3 stops, hardly one visible
    shift would lie near its threshold, and the detector would put the boundary far above it. Pixels with mask >= 0.5
    have the class of their shift, others none.
    """
    assert draws.shape == (len(photo), 3), f"draws must be {len(photo)} x 3, not {tuple(draws.shape)}"
    u = draws.to(photo)
    negative = -thresholds[:, 0].to(photo).clamp(max=-LEAST_STOPS)
    positive = thresholds[:, 1].to(photo).clamp(min=LEAST_STOPS)
    stops = torch.cat(
        [
            -negative * (limit_stops / negative).clamp(min=1) ** u[:, 0],
            positive * (limit_stops / positive).clamp(min=1) ** u[:, 1],
            -negative + (positive + negative) * u[:, 2],
        ]
    )
    images = shift(photo.repeat(3, 1, 1, 1), mask.repeat(3, 1, 1, 1), stops, np.tile(transforms, 3))
    inside = mask[:, 0] >= 0.5  # NHW
    none = torch.full_like(inside, NONE, dtype=torch.int64)
    target = torch.cat([none.masked_fill(inside, NEGATIVE), none.masked_fill(inside, POSITIVE), none])
    return Triplet(images, target, stops)


def _exposure(rgb: Tensor, _: Tensor, gain: Tensor) -> Tensor:
    lab = rgb_to_lab_t(rgb)
    return _from_lab(lab[:, :1] * gain, lab[:, 1:])


def _saturation(rgb: Tensor, _: Tensor, gain: Tensor) -> Tensor:
    lab = rgb_to_lab_t(rgb)
    return _from_lab(lab[:, :1], lab[:, 1:] * gain)


def _contrast(rgb: Tensor, mask: Tensor, gain: Tensor) -> Tensor:
    lab = rgb_to_lab_t(rgb)
    area = mask.sum(dim=(2, 3), keepdim=True).clamp(min=1e-6)
    mean = (lab[:, :1] * mask).sum(dim=(2, 3), keepdim=True) / area
    return _from_lab(mean + (lab[:, :1] - mean) * gain, lab[:, 1:])


def _white_balance(rgb: Tensor, _: Tensor, gain: Tensor) -> Tensor:
    linear = linearise_t(rgb)
    root = gain.sqrt()
    balanced = linear * torch.cat([root, torch.ones_like(root), 1 / root], dim=1)
    same_luminance = luminance_t(linear) / luminance_t(balanced).clamp(min=1e-6)
    return delinearise_t((balanced * same_luminance).clamp(0, 1))


def _from_lab(lightness: Tensor, colour: Tensor) -> Tensor:
    return lab_to_rgb_t(torch.cat([lightness.clamp(0, 100), colour], dim=1))


_CHANGES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "exposure": _exposure,
    "white_balance": _white_balance,
    "saturation": _saturation,
    "contrast": _contrast,
}
