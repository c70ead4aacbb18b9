"""What a model says at its own size, as a change of the photo at full size that keeps its texture.

A model answers at S x S pixels. Its picture is never enlarged. What is enlarged is how the photo has to change, as a
function of the photo's own colours: change(x) = opening(x) * (slope @ x + offset), with smooth coefficients.

* Models with an affine colour field (``gated``): slope is the field's gain, offset its offset, as the model has them.
  ``opening`` is the gate, fitted to the small photo (``guided.py``), so that it follows the edges of the large one.
* All others: slope and offset are fitted to what the model changed; opening is 1. A decoder draws the whole picture
  and loses fine texture, which must not be taken for a change that it wants: so its picture is compared with the photo
  as blurred as it is (``blur_of``).

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
# Of the fits: pixels at the model's size, and a deviation of 0.01 squared. On composites of COCO photos, seven times as
# large as a model that knew the truth, wider windows lost 1 to 3 dB inside the object.
RADIUS, EPSILON = 1, 1e-4
BLURS = (0, 0.35, 0.5, 0.6, 0.7, 0.85, 1.0, 1.25, 1.5, 2.0)  # deviations in such pixels, of which ``blur_of`` chooses
DETAIL = 1.5  # deviation of the blur, without which a picture is its detail
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


def changing(small: Small, answer: Answer, mask: np.ndarray | None = None) -> float:
    """The share of the area that changes, where ``mask`` (S x S in [0, 1]) allows it.

    0, and the photo stays as it is: a shut gate, a detector that found nothing, or a change that nobody could see.
    """
    if answer.mask is not None and (answer.mask.max() <= 0 if answer.is_gated else answer.mask.max() < DETECTED):
        return 0.0
    change = abs(answer.image - small.srgb).max(axis=-1) * (1 if mask is None else mask)
    return float((change >= LEAST).mean())


def of(small: Small, answer: Answer, is_of_this_size: bool) -> Correction:
    """The change that ``answer`` asks for. ``is_of_this_size``: the photo is S x S itself."""
    support = _support(answer)
    if is_of_this_size:
        change = _own_change(small, answer)
        return Correction(np.zeros((*change.shape, change.shape[-1]), np.float32), change, support=support)
    if answer.field is not None and answer.mask is not None and small.to_own is None:
        slope, offset = _field_of(answer.field, small.own.shape[-1])
        return Correction(slope, offset, opening(small, answer.mask), support)
    deviation = blur_of(small.srgb, answer.image)
    drawn = Small(_blurred(small.own, deviation), _blurred(small.srgb, deviation), small.to_own)
    return Correction(*guided.fit(drawn.own, _own_change(drawn, answer), RADIUS, EPSILON), support=support)


def blur_of(photo: np.ndarray, drawn: np.ndarray) -> float:
    """Which of ``BLURS`` a decoder's picture has against the photo: that whose loss of detail is most like its own."""
    wanted = drawn - _blurred(drawn, DETAIL)

    def distance(deviation: float) -> float:
        blurred = _blurred(photo, deviation)
        return float(np.median(abs(blurred - _blurred(blurred, DETAIL) - wanted)))

    return min(BLURS, key=distance)


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


def _blurred(image: np.ndarray, deviation: float) -> np.ndarray:
    if not deviation:
        return image
    blurred: np.ndarray = cv2.GaussianBlur(image, (0, 0), deviation)
    return blurred.reshape(image.shape)


def _dot(maps: pyvips.Image, colours: pyvips.Image) -> pyvips.Image:
    product = maps * colours
    return product if product.bands == 1 else product.recomb([[1.0] * product.bands])


def _flat(slope: np.ndarray) -> np.ndarray:
    return slope.reshape(*slope.shape[:2], -1)
