"""Luminance (or colour) transfer from one object to another: the pixel mathematics of COCO-Exp.

``meanstd`` is Reinhard et al., Color Transfer between Images (2001): match mean and standard deviation. ``hist``
matches the whole distribution. Both work on CIE Lab and change only the pixels of the object's mask; all the work is
done on these pixels.
"""

from typing import Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from nrh_dist.color import FloatImage, lab_to_rgb, luminance_shift_stops, pixels_to_lab, rgb_to_lab

Method = Literal["meanstd", "hist"]
Channels = Literal["l", "lab"]

OBJECT_LEVEL = 128  # a mask value from here on counts as object
RATIO_LIMIT = 3.0  # bound on the ratio of deviations, both ways: beyond it noise is blown up or texture ironed out
CLIP_TOLERANCE = 0.5  # in units of Lab: above rounding, below what can be seen
AT_THE_LIMIT = 1e-3  # a channel of sRGB this near to 0 or 1 may have been clipped; others cannot


class Distribution(NamedTuple):
    """Of one channel: its K different ``values`` in ascending order and the ``share`` of pixels up to each."""

    values: FloatImage
    share: FloatImage


class Statistics(NamedTuple):
    """Of an object's Lab: ``mean`` and ``deviation``: 3 values each; for ``hist``, of each channel to be matched."""

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]
    distributions: tuple[Distribution, ...]


class Region(NamedTuple):
    """The N pixels of a photo under its mask.

    ``where``: N places in the flattened photo with mask > 0; ``pixels``: Nx3 uint8; ``weight``: N mask values in
    (0, 1]; ``lab``: Nx3; ``inside``: N, whether mask >= 128. ``statistics`` are taken there.
    """

    where: NDArray[np.intp]
    pixels: NDArray[np.uint8]
    weight: FloatImage
    lab: FloatImage
    inside: NDArray[np.bool_]
    statistics: Statistics


class Transfer(NamedTuple):
    """``composite``: HxWx3 uint8; ``mse``: its mean squared error against the photo, over all pixels and channels.

    ``shift_stops``: log2 of the gain in mean L; ``clipped_share``: see ``transfer``.
    """

    composite: NDArray[np.uint8]
    mse: float
    shift_stops: float
    clipped_share: float


def region(photo: NDArray[np.uint8], mask: NDArray[np.uint8], method: Method, channels: Channels) -> Region:
    """The pixels of an HxWx3 photo under its HxW mask of 0..255, of which at least one is 128 or more."""
    _, top, _, height = cv2.boundingRect(mask)
    where = np.flatnonzero(mask[top : top + height] != 0) + top * mask.shape[1]
    levels = mask.reshape(-1).take(where)
    pixels = photo.reshape(-1, 3).take(where, axis=0)
    lab = pixels_to_lab(pixels)
    inside = levels >= OBJECT_LEVEL
    measured = statistics(lab if inside.all() else lab[inside], method, channels)
    return Region(where, pixels, levels / np.float32(255), lab, inside, measured)


def statistics(lab: FloatImage, method: Method, channels: Channels) -> Statistics:
    """What ``method`` has to know of an object's Mx3 Lab to match these ``channels``."""
    mean, deviation = cv2.meanStdDev(lab[None])
    described = lab.T[: len(channels)] if method == "hist" else ()
    distributions = tuple(_distribution(channel) for channel in described)
    return Statistics(mean[:, 0].astype(np.float64), deviation[:, 0].astype(np.float64), distributions)


def transfer(photo: NDArray[np.uint8], target: Region, reference: Statistics, channels: Channels) -> Transfer:
    """Give the object ``target`` of ``photo`` the statistics of ``reference`` and blend it in.

    Both have been measured for one method. L is clipped to 0..100, then each channel of sRGB; the blend
    c = m * shifted + (1 - m) * photo is done in sRGB float and rounded once. ``clipped_share`` is the share of object
    pixels whose colour the clipping moved by more than 0.5 in L, a or b.
    """
    match = match_hist if reference.distributions else match_meanstd
    wanted = target.lab.copy()
    for channel in range(len(channels)):
        wanted[:, channel] = match(target.lab[:, channel], target.statistics, reference, channel)
    bounded = wanted.copy()
    np.clip(wanted[:, 0], 0, 100, out=bounded[:, 0])
    shifted = lab_to_rgb(bounded[None])[0]

    before, weight = target.pixels, target.weight[:, None]
    blended = shifted if target.weight.min() == 1 else weight * shifted + (1 - weight) * (before / np.float32(255))
    changed = np.rint(blended * np.float32(255)).astype(np.uint8)
    composite = photo.copy()
    composite.reshape(-1, 3)[target.where] = changed
    mse = cv2.norm(changed, before, cv2.NORM_L2SQR) / photo.size

    after, clipped = _clipped(wanted, shifted)
    stops = luminance_shift_stops(target.statistics.mean[0], after[target.inside])
    return Transfer(composite, mse, stops, float(clipped[target.inside].mean()))


def _clipped(wanted: FloatImage, shifted: FloatImage) -> tuple[FloatImage, NDArray[np.bool_]]:
    """L of the N colours ``shifted``, and which of them are not the ``wanted`` Lab: converted only where that can be.

    A pixel without a channel at a limit was not clipped: its Lab is the wanted one.
    """
    after, clipped = wanted[:, 0].copy(), np.zeros(len(wanted), np.bool_)
    limits = np.abs(shifted - np.float32(0.5)) > 0.5 - AT_THE_LIMIT
    suspects = np.flatnonzero(limits[:, 0] | limits[:, 1] | limits[:, 2])
    if len(suspects):
        lab = rgb_to_lab(shifted[suspects][None])[0]
        after[suspects] = lab[:, 0]
        moved = np.abs(lab - wanted[suspects]) > CLIP_TOLERANCE
        clipped[suspects] = moved[:, 0] | moved[:, 1] | moved[:, 2]
    return after, clipped


def match_meanstd(values: FloatImage, source: Statistics, reference: Statistics, channel: int) -> FloatImage:
    """Shift and stretch N ``values`` of a channel so that ``source``, a part of them, gets mean and deviation.

    The stretch is bounded to [1/3, 3].
    """
    ratio = reference.deviation[channel] / max(source.deviation[channel], 1e-6)
    ratio = np.clip(ratio, 1 / RATIO_LIMIT, RATIO_LIMIT)
    offset = reference.mean[channel] - ratio * source.mean[channel]
    return values * np.float32(ratio) + np.float32(offset)


def match_hist(values: FloatImage, source: Statistics, reference: Statistics, channel: int) -> FloatImage:
    """Map N ``values`` of a channel so that ``source``, a part of them, gets the distribution of ``reference``.

    The rank of a value is the share of pixels up to it, linear between the values that occur, as in scikit-image's
    ``match_histograms``.
    """
    own, wanted = source.distributions[channel], reference.distributions[channel]
    matched = np.interp(own.share, wanted.share, wanted.values)
    return np.interp(values, own.values, matched).astype(np.float32)


def _distribution(values: FloatImage) -> Distribution:
    ordered = np.sort(values)
    last = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]), len(ordered) - 1)  # of each run of equal values
    return Distribution(ordered[last], ((last + 1) / len(ordered)).astype(np.float32))
