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
CHROMA_DECIMALS = 2  # of a and b: the rounding errors of greys, up to 0.005 with any library, must not be ranked
CLIP_TOLERANCE = 0.5  # in units of Lab: above rounding, below what can be seen


class Distribution(NamedTuple):
    """Of one channel: its K different ``values`` in ascending order and the ``share`` of pixels up to each.

    Of a and b, whose values are rounded, half of the pixels that have the value itself are left out of its share.
    """

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
    (0, 1]; ``lab``: Nx3; ``inside``: which of the N have mask >= 128, all as a slice. ``statistics`` are taken there.
    """

    where: NDArray[np.intp]
    pixels: NDArray[np.uint8]
    weight: FloatImage
    lab: FloatImage
    inside: NDArray[np.bool_] | slice
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
    pixels = _whole_pixels(photo).take(where).view(np.uint8).reshape(-1, 3)
    lab = pixels_to_lab(pixels)
    inside = slice(None) if levels.min() >= OBJECT_LEVEL else levels >= OBJECT_LEVEL
    measured = statistics(lab[inside], method, channels)
    return Region(where, pixels, levels / np.float32(255), lab, inside, measured)


def statistics(lab: FloatImage, method: Method, channels: Channels) -> Statistics:
    """What ``method`` has to know of an object's Mx3 Lab to match these ``channels``."""
    mean, deviation = cv2.meanStdDev(lab[None])
    described = lab.T[: len(channels)] if method == "hist" else ()
    distributions = tuple(_distribution(values, channel) for channel, values in enumerate(described))
    return Statistics(mean[:, 0].astype(np.float64), deviation[:, 0].astype(np.float64), distributions)


def transfer(photo: NDArray[np.uint8], target: Region, reference: Statistics, channels: Channels) -> Transfer:
    """Give the object ``target`` of ``photo`` the statistics of ``reference`` and blend it in.

    Both have been measured for one method. L is clipped to 0..100, then each channel of sRGB; the blend
    c = m * shifted + (1 - m) * photo is done in sRGB float and rounded once. ``clipped_share`` is the share of object
    pixels whose colour the clipping moved by more than 0.5 in L, a or b.
    """
    match = match_hist if reference.distributions else match_meanstd
    wanted = [match(target.lab[:, i], target.statistics, reference, i) for i in range(len(channels))]
    lab = target.lab.copy()
    for channel, values in enumerate(wanted):
        lab[:, channel] = values
    np.clip(wanted[0], 0, 100, out=lab[:, 0])
    shifted = lab_to_rgb(lab[None])[0]
    levels = _levels(shifted)

    changed, weight = levels, target.weight[:, None]
    if weight.min() < 1:
        changed = _levels(weight * shifted + (1 - weight) * (target.pixels / np.float32(255)))
    composite = photo.copy()
    np.put(_whole_pixels(composite), target.where, _whole_pixels(changed))
    mse = cv2.norm(changed, target.pixels, cv2.NORM_L2SQR) / photo.size

    clipped = _clip_effects(lab, wanted[0], shifted, levels)
    stops = luminance_shift_stops(target.statistics.mean[0], lab[target.inside, 0])
    return Transfer(composite, mse, stops, float(clipped[target.inside].mean()))


def _levels(rgb: FloatImage) -> NDArray[np.uint8]:
    """Nx3 sRGB in [0, 1], rounded to 0..255."""
    return cv2.convertScaleAbs(rgb, alpha=255)  # type: ignore[return-value]


def _whole_pixels(pixels: NDArray[np.uint8]) -> NDArray[np.void]:
    """A view of ...x3 levels as a row of pixels, which numpy moves twice as fast."""
    return pixels.reshape(-1, 3).view("V3")[:, 0]


def _clip_effects(
    lab: FloatImage, lightness: FloatImage, shifted: FloatImage, levels: NDArray[np.uint8]
) -> NDArray[np.bool_]:
    """Which of N colours the clipping moved; ``lab`` is made to be that of ``shifted``, from what was bounded before.

    ``lightness``: L before it was bounded. A pixel without a level of 0 or 255 was not clipped and has the Lab that was
    wanted, so only the others are converted.
    """
    at_limit = (levels + np.uint8(1)) < 2
    suspects = np.flatnonzero(at_limit[:, 0] | at_limit[:, 1] | at_limit[:, 2])
    clipped = np.zeros(len(lab), np.bool_)
    if len(suspects):
        wanted = lab[suspects]
        wanted[:, 0] = lightness[suspects]
        lab[suspects] = rgb_to_lab(shifted[suspects][None])[0]
        moved = np.abs(lab[suspects] - wanted) > CLIP_TOLERANCE
        clipped[suspects] = moved[:, 0] | moved[:, 1] | moved[:, 2]
    return clipped


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

    The rank of a value is its share, linear between the values that occur: for L as in scikit-image's
    ``match_histograms``; for a and b the middle of the ranks of equal values, so that a grey object gets the median
    colour of its reference, not its most extreme one.
    """
    own, wanted = source.distributions[channel], reference.distributions[channel]
    matched = np.interp(own.share, wanted.share, wanted.values)
    return np.interp(_rankable(values, channel), own.values, matched).astype(np.float32)


def _distribution(values: FloatImage, channel: int) -> Distribution:
    ordered = np.sort(_rankable(values, channel))
    last = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]), len(ordered) - 1)  # of each run of equal values
    up_to = last + 1
    ranks = up_to - np.diff(up_to, prepend=0) / 2 if channel else up_to
    return Distribution(ordered[last], (ranks / len(ordered)).astype(np.float32))


def _rankable(values: FloatImage, channel: int) -> FloatImage:
    return np.round(values, CHROMA_DECIMALS) if channel else values
