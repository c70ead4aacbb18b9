"""One photo of any size through a harmoniser: files that keep all they hold, and arrays."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nrh_dist.data.images import ImageProblem, resize_mask
from nrh_dist.engine.network import Network, open_network
from nrh_dist.photo import array, correction, writing
from nrh_dist.photo.correction import Answer, Correction
from nrh_dist.photo.image import Photo, Small, Vips, open_photo, pixels, problems
from nrh_dist.photo.orientation import upright

LIGHTNESS = [0.299, 0.587, 0.114]  # of R, G, B


class Found(NamedTuple):
    """What a network says of a photo. ``correction`` None: it needs none. ``share``: of its area that changes."""

    small: Small
    answer: Answer
    correction: Correction | None
    share: float


@dataclass(frozen=True)
class Harmoniser:
    """A trained model for photos of any size; ``nrh_dist.load`` makes one."""

    network: Network

    def __call__(self, image: np.ndarray, mask: np.ndarray | None = None, strength: float = 1.0) -> np.ndarray:
        """The harmonised photo, of the same shape and type.

        ``image``: H x W x 3 or H x W, sRGB, uint8, uint16 or floats in [0, 1]. ``mask``: H x W in [0, 1], where it may
        change; ``dih_m`` needs it. ``strength``: from 0, no change, to 1, all of it. ``ValueError`` for anything else.
        """
        photo = array.checked(image)
        if not 0 <= strength <= 1:
            raise ValueError(f"strength {strength:g}: it goes from 0, no change, to 1, all of it")
        if mask is not None:
            array.check_mask(mask, photo)
        if mask is None and self.network.needs_mask:
            raise ValueError(f"{self.network.name} needs the mask of the object")
        size = self.network.size
        small_mask = None if mask is None else resize_mask(np.rint(mask * 255).astype(np.uint8), size) / np.float32(255)
        found = self.found(array.small(photo, size), small_mask, photo.shape[:2] == (size, size))
        if found.correction is None:
            return image.copy()
        return array.changed(photo, found.correction, strength, mask).reshape(image.shape)

    def look(self, photo: Photo, mask: np.ndarray | None = None) -> Found:
        """What is to be done about a file; ``mask`` uint8 at its upright size."""
        size = self.network.size
        small_mask = None if mask is None else resize_mask(mask, size) / np.float32(255)
        return self.found(photo.small(size), small_mask, (photo.width, photo.height) == (size, size))

    def found(self, small: Small, mask: np.ndarray | None, is_of_this_size: bool) -> Found:
        """What is to be done about a photo; ``mask`` at the model's size, in [0, 1]."""
        answer = self.network(small.srgb, mask)
        share = correction.changing(small, answer, mask)
        if share == 0:
            return Found(small, answer, None, 0.0)
        return Found(small, answer, correction.of(small, answer, is_of_this_size), share)


def load(path: str | Path) -> Harmoniser:
    """The harmoniser of a checkpoint: a run, sweep, checkpoint or exported folder, or an exported ``.onnx`` file.

    ``UserError`` where it is none.
    """
    return Harmoniser(open_network(path))


def write(
    photo: Photo, found: Found, out: Path, strength: float = 1.0, mask: np.ndarray | None = None, strip: bool = False
) -> None:
    """Write ``photo`` as ``found`` to ``out``, whole or not at all; a copy where there is no change.

    ``mask``, uint8 at the photo's upright size, limits the change. ``ImageProblem`` as ``writing.write``.
    """
    wanted = found.correction if strength else None
    if wanted is None and not strip:
        copy(photo.path, out)
        return

    def change(colours: Vips) -> Vips:
        if wanted is None:
            return colours * 0
        made = correction.change_of(wanted, colours, photo.orientation) * strength
        return made if mask is None else made * writing.as_stored_image(mask, photo.orientation)

    writing.write(photo, change, out, strip)


def write_mask(photo: Photo, found: Found, out: Path) -> None:
    """Write what the model detected in ``photo`` as a grey PNG of its upright size, whole or not at all."""
    assert found.answer.mask is not None
    maps = correction.opening(found.small, found.answer.mask)
    writing.write_mask(photo, lambda colours: correction.opened(maps, colours, photo.orientation), out)


def copy(source: Path, out: Path) -> None:
    """The same bytes at ``out``, whole or not at all. ``ImageProblem`` where the disk does not take them."""
    with writing.in_one_step(out) as partial:
        shutil.copyfile(source, partial)


def read_mask_of(photo: Photo, path: Path) -> np.ndarray:
    """A mask file for ``photo``, uint8, of its upright size. ``ImageProblem`` where it is none.

    The file is of any kind that a photo may be. Colours count by their lightness (ITU-R BT.601).
    """
    given = open_photo(path)
    if given.has_alpha:
        raise ImageProblem(path, "has transparent parts, which say nothing of a mask: give a grey picture without")
    with problems(path):
        colours, _ = given.decoded(in_order=False)
        grey = colours.recomb([LIGHTNESS]) if given.channels == 3 else colours
        mask = upright(pixels((grey * 255 / given.most).rint().cast("uchar")), given.orientation)[..., 0]
    width, height = photo.upright_size
    if mask.shape != (height, width):
        raise ImageProblem(path, f"is {mask.shape[1]}x{mask.shape[0]} pixels, but its photo is {width}x{height}")
    return mask
