"""Photos in memory: arrays H x W or H x W x 3 of uint8 or uint16 levels, or of floats in [0, 1]; sRGB, upright."""

import numpy as np
import pyvips

from nrh_dist.photo import correction
from nrh_dist.photo.correction import Correction
from nrh_dist.photo.image import Small, pixels, reduced, three

MOST = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535, np.dtype(np.float32): 1, np.dtype(np.float64): 1}


def checked(image: np.ndarray) -> np.ndarray:
    """The photo as H x W x 1 or 3. ``ValueError`` where it is none."""
    _require_array(image, "a photo")
    is_photo = image.ndim == 2 or (image.ndim == 3 and image.shape[-1] in (1, 3))
    if not is_photo or 0 in image.shape or image.dtype not in MOST:
        kinds = "H x W or H x W x 3, of uint8, uint16, or floats in [0, 1]"
        raise ValueError(f"a photo is an array {kinds}: this one is {image.shape} of {image.dtype}")
    if image.dtype.kind == "f" and not (image.min() >= 0 and image.max() <= 1):
        raise ValueError(f"a photo of floats is in [0, 1]: this one holds {image.min():g} to {image.max():g}")
    return image[..., None] if image.ndim == 2 else image


def check_mask(mask: np.ndarray, photo: np.ndarray) -> None:
    """``ValueError`` where ``mask`` is none for ``photo``, which is ``checked``."""
    _require_array(mask, "a mask")
    if mask.shape != photo.shape[:2]:
        raise ValueError(f"a mask is H x W as its photo, {photo.shape[:2]}: this one is {mask.shape}")
    if not (mask.min() >= 0 and mask.max() <= 1):
        raise ValueError(f"a mask is in [0, 1], not in levels: this one holds {mask.min():g} to {mask.max():g}")


def _require_array(given: object, what: str) -> None:
    if not isinstance(given, np.ndarray):
        raise ValueError(f"{what} is a numpy array, as np.asarray(PIL image) gives: this one is {type(given).__name__}")


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
