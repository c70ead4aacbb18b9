"""Photos of people as files: JPEG, PNG, TIFF and WebP of 8 or 16 bits, grey or RGB, with alpha, of any size.

Pixels flow through libvips in strips, so that memory does not grow with the photo. A file is decoded once to be looked
at, small, and once more to be written.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np
import pyvips
from PIL import Image

from nrh_dist.data.images import DRAFT_ABOVE, ImageProblem
from nrh_dist.photo import metadata
from nrh_dist.photo.orientation import upright

PIXEL_LIMIT = 250_000_000
WEBP_SIGNATURE = (b"RIFF", b"WEBP")
SIGNATURES = {
    **dict.fromkeys((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), "tiff"),
    b"\x89PNG": "png",
    b"\xff\xd8\xff": "jpeg",
}
EXTENSIONS = (".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")  # of their files, in any case
COLOURS = {"srgb": 3, "rgb": 3, "rgb16": 3, "b-w": 1, "grey16": 1, "cmyk": 4}  # bands without alpha
DEPTHS = {"uchar": 8, "ushort": 16}
GREY = 128  # of 255: what stands behind transparent pixels where a photo is looked at
SURROGATES = "\ud800", "\udfff"  # what Python makes of bytes in a name that are not UTF-8
INTENT, PROFILE = "relative", "icc-profile-data"  # as libvips calls them
SRGB_TOLERANCE = 1.5 / 255  # up to which the colours of a profile are those of sRGB

pyvips.block_untrusted_set(True)
pyvips.cache_set_max(0)  # a file is read twice: what it held the first time must not stand in for it

Conversion = Callable[[np.ndarray], np.ndarray]
Vips = pyvips.Image


@dataclass(frozen=True)
class Small:
    """A photo, upright, at the size of a model: S x S x channels, float32 in [0, 1].

    ``own``: in the photo's colour space, 1 or 3 channels. ``srgb``: 3 channels, as models know colours; ``to_own``
    takes such a picture back, None where both spaces are the same.
    """

    own: np.ndarray
    srgb: np.ndarray
    to_own: Conversion | None = None


@dataclass(frozen=True)
class Photo:
    """A photo file. ``width`` and ``height`` are of the stored pixels; ``orientation`` is EXIF's, 1 to 8."""

    path: Path
    format: str
    width: int
    height: int
    colours: str  # a key of COLOURS
    depth: int
    has_alpha: bool
    orientation: int
    palette_or_bits: str  # what the file has instead of channels of 8 or 16 bits, in words; "" without
    facts: metadata.Facts

    @property
    def is_cmyk(self) -> bool:
        """Whether the colours are amounts of ink; ``decoded`` gives sRGB then."""
        return self.colours == "cmyk"

    @property
    def channels(self) -> int:
        """1 or 3, alpha not counted."""
        return 1 if COLOURS[self.colours] == 1 else 3

    @property
    def most(self) -> int:
        """The level of white: 255 or 65,535."""
        return 2**self.depth - 1

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height as it is looked at."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)

    @cached_property
    def profile(self) -> bytes | None:
        """The ICC profile of the colours that ``decoded`` gives; None means sRGB."""
        image = _load(self.path, self.format)
        return image.get(PROFILE) if image.get_typeof(PROFILE) and not self.is_cmyk else None

    def decoded(self, in_order: bool = True, shrink: int = 1) -> tuple[pyvips.Image, pyvips.Image | None]:
        """Colours, 1 or 3 bands, and alpha. ``in_order``: strips are asked for from the top to the bottom, once.

        ``shrink``: of a JPEG, at 1/2, 1/4 or 1/8 of its size.
        """
        image = _load(self.path, self.format, in_order, **({"shrink": shrink} if shrink > 1 else {}))
        bands = COLOURS[self.colours]
        colours = image[:bands] if self.has_alpha else image
        if self.is_cmyk:
            colours = colours.icc_transform(
                "srgb", embedded=True, input_profile="cmyk", intent=INTENT, depth=self.depth
            )
        return colours, image[bands] if self.has_alpha else None

    def small(self, size: int) -> Small:
        """The photo at ``size`` x ``size``, stretched, reduced as the photos that models learn from (PIL BICUBIC)."""
        with problems(self.path):
            own = self._reduced(size)
        profile = self.profile
        if profile is None:
            return Small(own, three(own))
        try:
            srgb = _to_srgb(own, profile)
            if abs(srgb - three(own)).max() < SRGB_TOLERANCE:
                return Small(own, three(own))
            _from_srgb(srgb, profile, self.channels)
        except pyvips.Error:  # a damaged profile, or one of a scanner, that leads to sRGB and not back
            return Small(own, three(own))
        return Small(own, srgb, lambda image: _from_srgb(image, profile, self.channels))

    def _reduced(self, size: int) -> np.ndarray:
        factor, scale = 1, 1
        if self.width * self.height > DRAFT_ABOVE:
            factor = max(1, min(self.width, self.height) // (2 * size))
        if self.format == "jpeg":
            scale = next(one for one in (8, 4, 2, 1) if one <= factor)
        colours, alpha = self.decoded(shrink=scale)
        if alpha is not None:
            joined = colours.bandjoin(alpha).copy(interpretation=self.colours)
            colours = joined.flatten(background=GREY * self.most // 255, max_alpha=self.most)
        if factor // scale > 1:
            colours = colours.shrink(factor // scale, factor // scale)
        return upright(reduced(pixels(colours), size, self.most), self.orientation)


def open_photo(path: Path, limit: int = PIXEL_LIMIT) -> Photo:
    """What the header of a file says. ``ImageProblem``: missing, of another kind, too large, more than one picture."""
    if not is_text(path):
        raise ImageProblem(path, "has a name that is not UTF-8, as in old archives: rename it")
    format = _format_of(path)
    with problems(path):
        image = _load(path, format)
        facts = metadata.facts(format, path)
    if image.width * image.height > limit:
        raise ImageProblem(path, f"claims {image.width}x{image.height} pixels, above the limit {limit}")
    if pages := _said(image, "n-pages", 1) - 1:
        raise ImageProblem(path, f"holds {pages + 1} pages or frames: give one photo a file")
    if facts.is_animated:
        raise ImageProblem(path, "is animated: give one photo a file")
    if image.interpretation not in COLOURS or image.format not in DEPTHS:
        kind = f"{image.interpretation} values of type {image.format}"
        raise ImageProblem(path, f"holds {kind}: RGB, grey and CMYK of 8 or 16 bits are known")
    extra = image.bands - COLOURS[image.interpretation]
    if extra not in (0, 1):
        raise ImageProblem(path, f"has {image.bands} channels: at most one beside the colours is known")
    orientation = _said(image, "orientation", 1)
    return Photo(
        path=path,
        format=format,
        width=image.width,
        height=image.height,
        colours=image.interpretation,
        depth=DEPTHS[image.format],
        has_alpha=extra == 1,
        orientation=orientation if 1 <= orientation <= 8 else 1,
        palette_or_bits=_palette_or_bits(image),
        facts=facts,
    )


def is_text(path: Path) -> bool:
    """Whether libvips can be told of it: its bindings know names in UTF-8 alone."""
    return not any(SURROGATES[0] <= letter <= SURROGATES[1] for letter in str(path))


def pixels(image: pyvips.Image) -> np.ndarray:
    """H x W x channels, also of one."""
    return image.numpy().reshape(image.height, image.width, image.bands)


def reduced(image: np.ndarray, size: int, most: float) -> np.ndarray:
    """H x W x channels, of levels up to ``most`` -> size x size x channels, float32 in [0, 1]; PIL BICUBIC, stretched.

    What is uint8 is rounded to that, as when data are packed for training.
    """
    made = []
    for channel in np.moveaxis(image, -1, 0):
        one = Image.fromarray(np.ascontiguousarray(channel if image.dtype == np.uint8 else channel.astype(np.float32)))
        made.append(np.asarray(one.resize((size, size), Image.Resampling.BICUBIC), np.float32))
    return (np.stack(made, axis=-1) / np.float32(most)).clip(0, 1)


def three(image: np.ndarray) -> np.ndarray:
    """H x W x 3 of one or three channels."""
    return np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image


@contextmanager
def problems(path: Path) -> Iterator[None]:
    """What libvips and the parsers of metadata say of ``path``, as an ``ImageProblem``."""
    try:
        yield
    except pyvips.Error as error:
        said = str(error).strip().splitlines()
        raise ImageProblem(
            path, f"is truncated or damaged: {said[-1].strip() if said else 'no reason is given'}"
        ) from None
    except metadata.Damaged as error:
        raise ImageProblem(path, f"is truncated or damaged: {error}") from None
    except OSError as error:
        raise ImageProblem(path, f"cannot be read: {error.strerror or error}") from None


def _format_of(path: Path) -> str:
    with problems(path):
        if not path.exists():
            raise ImageProblem(path, "is missing")
        with path.open("rb") as file:
            start = file.read(12)
    if not start:
        raise ImageProblem(path, "is empty (0 bytes)")
    if (start[:4], start[8:12]) == WEBP_SIGNATURE:
        return "webp"
    for signature, format in SIGNATURES.items():
        if start.startswith(signature):
            return format
    raise ImageProblem(path, "is not a JPEG, PNG, TIFF or WebP image")


def _load(path: Path, format: str, in_order: bool = True, **more: Any) -> pyvips.Image:
    """By the loader of ``format``, whatever the file's name says; a truncated file is an error."""
    loader = getattr(pyvips.Image, f"{format}load")
    image: pyvips.Image = loader(str(path), access="sequential" if in_order else "random", fail_on="error", **more)
    return image


def _palette_or_bits(image: pyvips.Image) -> str:
    if image.get_typeof("palette"):
        return "palette"
    bits = _said(image, "bits-per-sample", 8)
    return f"{bits} bits a pixel" if bits < 8 else ""


def _said(image: pyvips.Image, name: str, default: int) -> int:
    return int(image.get(name)) if image.get_typeof(name) else default


def _to_srgb(image: np.ndarray, profile: bytes) -> np.ndarray:
    """H x W x 1 or 3 in the space of ``profile`` -> H x W x 3 in sRGB; float32 in [0, 1]."""
    given = _levels(image).copy()
    given.set_type(pyvips.GValue.blob_type, PROFILE, profile)
    made = given.icc_transform("srgb", embedded=True, intent=INTENT, depth=16)
    return three(pixels(made)).astype(np.float32) / 65535


def _from_srgb(image: np.ndarray, profile: bytes, channels: int) -> np.ndarray:
    """H x W x 3 in sRGB -> H x W x ``channels`` in the space of ``profile``; float32 in [0, 1]."""
    with NamedTemporaryFile(suffix=".icc") as file:
        file.write(profile)
        file.flush()
        made = _levels(image).icc_transform(file.name, input_profile="srgb", intent=INTENT, depth=16)
        return pixels(made)[..., :channels].astype(np.float32) / 65535


def _levels(image: np.ndarray) -> pyvips.Image:
    levels = np.rint(image.clip(0, 1) * 65535).astype(np.uint16)
    kind = "rgb16" if levels.shape[-1] == 3 else "grey16"
    return pyvips.Image.new_from_array(levels, interpretation=kind)
