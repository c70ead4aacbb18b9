"""What a model says at its own size, as a change of the photo at full size that keeps its texture.

A model answers at S x S pixels. Its picture is never enlarged. What is enlarged is how the photo has to change, as a
function of the photo's own colours: change(x) = opening(x) * (slope @ x + offset), with smooth coefficients.

* Models with an affine colour field (``gated``): slope is the field's gain, offset its offset, as the model has them.
  ``opening`` is the gate, fitted to the small photo (``guided.py``), so that it follows the edges of the large one.
* All others: slope and offset are fitted to what the model changed; opening is 1. Both sides of the fit are blurred a
  little before, because a decoder loses fine texture, which must not be taken for a change that it wants.

Where a photo is as large as the model works, its answer is taken as it is. Colours are in [0, 1].
"""

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import pyvips

from nrh_dist.photo import guided
from nrh_dist.photo.image import Small
from nrh_dist.photo.orientation import as_stored

LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)  # of a change of grey; Rec. 709
RADIUS, EPSILON = 4, 1e-4  # of the fits: pixels at the model's size, and a deviation of 0.01 squared
BLUR = 1.5  # deviation in such pixels, of both sides of the fit to a decoder's picture
DETECTED = 0.5  # a detector whose mask stays below has found nothing; failures.py counts alike
LEAST = 0.5 / 255  # a change below half a level everywhere is none
AROUND = 2  # pixels at the model's size around an open gate, up to which the photo may change


class Answer(NamedTuple):
    """Of a model, for one photo. ``image``: S x S x 3 in sRGB, [0, 1], clamped.

    ``mask``: S x S in [0, 1], what the detector or the gate says; None where the model has none. ``is_gated``: where
    the mask is 0, nothing changes. ``field``: gain and offset for R, G, B, grid x grid x 6, for colours in [-1, 1].
    """

    image: np.ndarray
    mask: np.ndarray | None = None
    is_gated: bool = False
    field: np.ndarray | None = None


@dataclass(frozen=True)
class Correction:
    """change(x) = opening(x) * (slope @ x + offset) for upright colours x of K channels in [0, 1], in maps of any size.

    ``slope`` h x w x K x K, ``offset`` h x w x K; ``opening`` a map g x g x (K + 1): clip(its first K @ x + its last,
    0, 1), None means 1; ``support`` S x S, 0 where nothing may change.
    """

    slope: np.ndarray
    offset: np.ndarray
    opening: np.ndarray | None = None
    support: np.ndarray | None = None


def found_nothing(small: Small, answer: Answer) -> bool:
    """Whether a photo stays as it is: a shut gate, a detector that found nothing, or a change that nobody could see."""
    if answer.mask is not None and (answer.mask.max() <= 0 if answer.is_gated else answer.mask.max() < DETECTED):
        return True
    return bool(abs(answer.image - small.srgb).max() < LEAST)


def of(small: Small, answer: Answer, is_of_this_size: bool) -> Correction:
    """The change that ``answer`` asks for. ``is_of_this_size``: the photo is S x S itself."""
    support = _support(answer)
    if is_of_this_size:
        change = _own_change(small, answer)
        return Correction(np.zeros((*change.shape, change.shape[-1]), np.float32), change, support=support)
    if answer.field is not None and answer.mask is not None and small.to_own is None:
        slope, offset = _field_of(answer.field, small.own.shape[-1])
        return Correction(slope, offset, opening(small, answer.mask), support)
    guide, change = _blurred(small.own), _blurred(_own_change(small, answer))
    return Correction(*guided.fit(guide, change, RADIUS, EPSILON), support=support)


def opening(small: Small, mask: np.ndarray) -> np.ndarray:
    """``mask``, S x S, as maps S x S x (K + 1): clip(first K @ colours + last, 0, 1), which follows a photo's edges."""
    slope, offset = guided.fit(small.own, mask[..., None], RADIUS, EPSILON)
    return np.concatenate([slope[..., 0, :], offset], axis=-1)


def change_of(correction: Correction, colours: pyvips.Image, orientation: int = 1) -> pyvips.Image:
    """What is added to ``colours``, float in [0, 1], of a photo that is stored in ``orientation``."""

    def large(small_map: np.ndarray) -> pyvips.Image:
        return enlarged(as_stored(small_map, orientation), colours.width, colours.height)

    channels = colours.bands
    slope, offset = large(_flat(correction.slope)), large(correction.offset)
    rows = [_dot(slope[k * channels : (k + 1) * channels], colours) for k in range(channels)]
    change = (rows[0].bandjoin(rows[1:]) if channels > 1 else rows[0]) + offset
    if correction.opening is not None:
        change *= opened(correction.opening, colours, orientation)
    if correction.support is not None:
        change = (large(correction.support[..., None]) > 0).ifthenelse(change, 0)
    return change


def opened(maps: np.ndarray, colours: pyvips.Image, orientation: int = 1) -> pyvips.Image:
    """The mask of ``opening`` at the size of ``colours``: one band in [0, 1]."""
    large = enlarged(as_stored(maps, orientation), colours.width, colours.height)
    return (_dot(large[: colours.bands], colours) + large[colours.bands]).clamp(min=0, max=1)


def enlarged(small_map: np.ndarray, width: int, height: int) -> pyvips.Image:
    """h x w x bands float -> bilinear, pixels being squares whose values stand in their middle."""
    image = pyvips.Image.new_from_array(np.ascontiguousarray(small_map, np.float32))
    x, y = width / image.width, height / image.height
    return image.affine(
        [x, 0, 0, y],
        interpolate=pyvips.Interpolate.new("bilinear"),
        oarea=[0, 0, width, height],
        idx=0.5,
        idy=0.5,
        odx=-0.5,
        ody=-0.5,
        extend="copy",
    )


def _own_change(small: Small, answer: Answer) -> np.ndarray:
    """The change that the model made at its own size, in the photo's space: exactly 0 where it made none."""
    before, after = (small.to_own(one) if small.to_own else one for one in (small.srgb, answer.image))
    change = after - before
    if change.shape[-1] > small.own.shape[-1]:
        change = (change @ LUMA)[..., None]
    unchanged = (answer.image == small.srgb).all(axis=-1, keepdims=True)
    return np.where(unchanged, 0, change).astype(np.float32)


def _field_of(field: np.ndarray, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Slope and offset of a field for colours in [-1, 1], for a change of colours in [0, 1]."""
    gain, offset = np.split(field, 2, axis=-1)
    offset = (offset - gain) / 2
    if channels == 1:
        gain, offset = (gain @ LUMA)[..., None], (offset @ LUMA)[..., None]
    return gain[..., None] * np.eye(channels), offset


def _support(answer: Answer) -> np.ndarray | None:
    if not answer.is_gated or answer.mask is None:
        return None
    around = np.ones((2 * AROUND + 1, 2 * AROUND + 1), np.uint8)
    return cv2.dilate((answer.mask > 0).astype(np.float32), around)


def _blurred(image: np.ndarray) -> np.ndarray:
    blurred = cv2.GaussianBlur(image.astype(np.float64), (0, 0), BLUR)
    return blurred.reshape(image.shape)


def _dot(maps: pyvips.Image, colours: pyvips.Image) -> pyvips.Image:
    product = maps * colours
    return product if product.bands == 1 else product.recomb([[1.0] * product.bands])


def _flat(slope: np.ndarray) -> np.ndarray:
    return slope.reshape(*slope.shape[:2], -1)
