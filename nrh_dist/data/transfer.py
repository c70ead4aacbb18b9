"""Luminance (or colour) transfer from one object to another: the pixel mathematics of COCO-Exp.

``meanstd`` is Reinhard et al., Color Transfer between Images (2001): match mean and standard deviation. ``hist``
matches the whole distribution. Both work on CIE Lab and change only the pixels of the object's mask.
"""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nrh_dist.color import FloatImage, lab_to_rgb, luminance_shift_stops, rgb_to_lab

Method = Literal["meanstd", "hist"]
Channels = Literal["l", "lab"]

OBJECT_LEVEL = 128  # a mask value from here on counts as object
RATIO_LIMIT = 3.0  # bound on the ratio of deviations, both ways: beyond it noise is blown up or texture ironed out
QUANTILES = np.linspace(0, 1, 1025)
CLIP_TOLERANCE = 0.5  # in units of Lab: above rounding, below what can be seen


class Region(NamedTuple):
    """The N pixels of a photo under its mask.

    ``where``: N places in the flattened photo with mask > 0; ``weight``: N mask values in (0, 1]; ``lab``: Nx3;
    ``inside``: N, whether mask >= 128. Statistics are taken there, in ``object_lab``: Mx3.
    """

    where: NDArray[np.intp]
    weight: FloatImage
    lab: FloatImage
    inside: NDArray[np.bool_]
    object_lab: FloatImage


class Transfer(NamedTuple):
    """``composite``: HxWx3 uint8; ``shift_stops``: log2 of the gain in mean L; ``clipped_share``: see ``transfer``."""

    composite: NDArray[np.uint8]
    shift_stops: float
    clipped_share: float


def region(photo: NDArray[np.uint8], mask: NDArray[np.uint8]) -> Region:
    """The pixels of an HxWx3 photo under its HxW mask of 0..255."""
    where = np.flatnonzero(mask)
    levels = mask.ravel().take(where)
    pixels = photo.reshape(-1, 3).take(where, axis=0)
    lab = rgb_to_lab(pixels[None] / np.float32(255))[0]
    inside = levels >= OBJECT_LEVEL
    return Region(where, (levels / 255).astype(np.float32), lab, inside, lab[inside])


def transfer(
    photo: NDArray[np.uint8], target: Region, reference: FloatImage, method: Method, channels: Channels
) -> Transfer:
    """Give the object ``target`` of ``photo`` the statistics of ``reference`` (Mx3 Lab) and blend it in.

    L is clipped to 0..100, then each channel of sRGB; the blend c = m * shifted + (1 - m) * photo is done in sRGB float
    and rounded once. ``clipped_share`` is the share of object pixels whose colour the clipping moved by more than 0.5
    in L, a or b.
    """
    match = match_meanstd if method == "meanstd" else match_hist
    wanted = target.lab.copy()
    for channel in range(1 if channels == "l" else 3):
        wanted[:, channel] = match(target.lab[:, channel], target.object_lab[:, channel], reference[:, channel])
    bounded = np.concatenate([wanted[:, :1].clip(0, 100), wanted[:, 1:]], axis=1)
    shifted = lab_to_rgb(bounded[None])[0]

    composite = photo.reshape(-1, 3).copy()
    before = composite.take(target.where, axis=0) / np.float32(255)
    weight = target.weight[:, None]
    composite[target.where] = np.rint((weight * shifted + (1 - weight) * before) * 255).astype(np.uint8)

    after = rgb_to_lab(shifted[None])[0][target.inside]
    clipped = (np.abs(after - wanted[target.inside]) > CLIP_TOLERANCE).any(axis=1)
    stops = luminance_shift_stops(target.object_lab[:, 0], after[:, 0])
    return Transfer(composite.reshape(photo.shape), stops, float(clipped.mean()))


def match_meanstd(values: FloatImage, source: FloatImage, reference: FloatImage) -> FloatImage:
    """Shift and stretch ``values`` so that ``source``, a part of them, gets mean and deviation of ``reference``.

    All are 1-D. The stretch is bounded to [1/3, 3].
    """
    ratio = reference.std(dtype=np.float64) / max(source.std(dtype=np.float64), 1e-6)
    ratio = np.clip(ratio, 1 / RATIO_LIMIT, RATIO_LIMIT)
    shifted = (values - source.mean(dtype=np.float64)) * ratio + reference.mean(dtype=np.float64)
    return shifted.astype(np.float32)


def match_hist(values: FloatImage, source: FloatImage, reference: FloatImage) -> FloatImage:
    """Map ``values`` so that ``source``, a part of them, gets the distribution of ``reference``.

    All are 1-D. The distributions are tables of 1,025 quantiles, linear in between.
    """
    rank = np.interp(values, _quantiles(source), QUANTILES)
    return np.interp(rank, QUANTILES, _quantiles(reference)).astype(np.float32)


def _quantiles(values: FloatImage) -> NDArray[np.float64]:
    return np.interp(QUANTILES * (len(values) - 1), np.arange(len(values)), np.sort(values))
