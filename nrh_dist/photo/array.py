"""Photos in memory: arrays H x W or H x W x 3 of uint8 or uint16 levels, or of floats in [0, 1]; sRGB, upright."""

import numpy as np
import pyvips

from nrh_dist.photo import correction
from nrh_dist.photo.correction import Correction
from nrh_dist.photo.image import Small, pixels, reduced, three

MOST = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535, np.dtype(np.float32): 1, np.dtype(np.float64): 1}


def checked(image: np.ndarray) -> np.ndarray:
    """The photo as H x W x 1 or 3. ``ValueError`` where it is none."""
    is_photo = image.ndim == 2 or (image.ndim == 3 and image.shape[-1] in (1, 3))
    if not is_photo or 0 in image.shape or image.dtype not in MOST:
        kinds = "H x W or H x W x 3, of uint8, uint16, or floats in [0, 1]"
        raise ValueError(f"a photo is an array {kinds}: this one is {image.shape} of {image.dtype}")
    if image.dtype.kind == "f" and not (image.min() >= 0 and image.max() <= 1):
        raise ValueError(f"a photo of floats is in [0, 1]: this one holds {image.min():g} to {image.max():g}")
    return image[..., None] if image.ndim == 2 else image


def small(image: np.ndarray, size: int) -> Small:
    """At the size of a model, as ``Photo.small``; ``image`` is ``checked``."""
    own = reduced(image, size, MOST[image.dtype])
    return Small(own, three(own))


def changed(image: np.ndarray, found: Correction, strength: float, mask: np.ndarray | None) -> np.ndarray:
    """``image``, which is ``checked``, with ``strength`` of the change, where ``mask`` (H x W in [0, 1]) says so."""
    most = MOST[image.dtype]
    colours = pyvips.Image.new_from_array(np.ascontiguousarray(image)).cast("float") / most
    change = pixels(correction.change_of(found, colours)) * strength
    if mask is not None:
        change = change * mask[..., None]
    made = (image / most + change).clip(0, 1) * most
    return (made if image.dtype.kind == "f" else np.rint(made)).astype(image.dtype)
