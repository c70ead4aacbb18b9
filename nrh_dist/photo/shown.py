"""Photos for the eye: previews that fit a screen, what was detected laid over them, before beside after."""

from pathlib import Path

import numpy as np
import pyvips
from PIL import Image

from nrh_dist.photo.correction import Answer
from nrh_dist.photo.image import GREY, Small, pixels, problems, three

SIDE = 1600  # pixels, at most, of a preview
SHARE = 0.5  # of the colour over what was detected
TOO_DARK, TOO_BRIGHT = (224, 49, 49), (47, 158, 68)  # as the detector's classes: negative red, positive green
GAP, WHITE, QUALITY = 12, 255, 92


def preview(path: Path, side: int = SIDE) -> np.ndarray:
    """A photo file upright, in sRGB, no side longer than ``side``: H x W x 3 uint8. ``ImageProblem``: it is damaged."""
    with problems(path):
        image = pyvips.Image.thumbnail(
            str(path), side, height=side, size="down", output_profile="srgb", intent="relative", fail_on="error"
        )
        image = image.colourspace("srgb").cast("uchar")
        if image.hasalpha():
            image = image.flatten(background=GREY)
        return three(pixels(image))


def overlay(shown: np.ndarray, small: Small, answer: Answer) -> np.ndarray:
    """``shown``, H x W x 3 uint8, under its ``tint``."""
    layer = tint(shown.shape[1], shown.shape[0], small, answer).astype(np.float32)
    over = layer[..., 3:] / 255
    return np.rint(shown * (1 - over) + layer[..., :3] * over).clip(0, 255).astype(np.uint8)


def tint(width: int, height: int, small: Small, answer: Answer) -> np.ndarray:
    """Red where the model found an object too dark and made it brighter, green where too bright: H x W x 4 uint8."""
    assert answer.mask is not None
    brighter = (answer.image - small.srgb).mean(axis=-1, keepdims=True) > 0
    colour = np.where(brighter, np.array(TOO_DARK, np.float32), np.array(TOO_BRIGHT, np.float32))
    share = (SHARE * answer.mask[..., None]).astype(np.float32)
    colours, over = (_enlarged(one, (width, height)) for one in (colour * share, share))
    layer = np.concatenate([colours / np.maximum(over, 1e-6), 255 * over], axis=-1)
    return np.rint(layer).clip(0, 255).astype(np.uint8)


def beside(pictures: list[np.ndarray]) -> Image.Image:
    """Pictures of one height from the left to the right, with white between them."""
    gap = np.full((pictures[0].shape[0], GAP, 3), WHITE, np.uint8)
    parts = [one for picture in pictures for one in (gap, picture)][1:]
    return Image.fromarray(np.concatenate(parts, axis=1))


def _enlarged(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    channels = [Image.fromarray(one).resize(size, Image.Resampling.BILINEAR) for one in np.moveaxis(image, -1, 0)]
    return np.stack([np.asarray(one) for one in channels], axis=-1)
