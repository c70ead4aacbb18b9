"""Photos and masks: safe reading, and the one resize convention (stretched; photos PIL BICUBIC, masks PIL BOX).

Sizes are (width, height) as in PIL; arrays are uint8, H x W x 3 or H x W. EXIF orientation is not applied: composite,
mask and real photo of a sample are compared pixel by pixel as they are stored.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from nrh_dist.errors import UserError

PIXEL_LIMIT = 89_478_485  # 256 MiB of RGB: PIL's own line above which it suspects a decompression bomb
DRAFT_ABOVE = 4_000_000  # pixels; below it, the decoding at reduced scale would save nothing worth having
FORMATS = ("JPEG", "PNG")
EXTENSIONS = (".jpeg", ".jpg", ".png")  # of their files, in any case
SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG")
SIXTEEN_BIT_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N")


class ImageProblem(UserError):
    """A file that cannot be used as an image: ``path`` and ``reason``. Its text is ``path: reason``."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)  # as args: the error must survive the way from another process
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def read_rgb(path: Path, at_least: int | None = None) -> np.ndarray:
    """A photo as H x W x 3 uint8, whatever its mode (grey, palette, alpha dropped, 16 bit >> 8, CMYK).

    With ``at_least``, a JPEG of more than ``DRAFT_ABOVE`` pixels may come at 1/2, 1/4 or 1/8 of its size, both sides
    at least that long. Raises ``ImageProblem``: missing, empty, truncated, too many pixels, not a JPEG or PNG.
    """
    with _opened(path) as image:
        if at_least and image.width * image.height > DRAFT_ABOVE:
            image.draft("RGB", (at_least, at_least))
        return np.array(_to_rgb(image))


def read_mask(path: Path) -> np.ndarray:
    """A mask as H x W uint8 grey, 0..255 and never thresholded: grey edges stay. Raises like ``read_rgb``."""
    with _opened(path) as image:
        return np.array(_to_rgb(image).convert("L"))


def read_size(path: Path) -> tuple[int, int]:
    """(width, height) from the header alone. Raises like ``read_rgb``, but sees no truncation."""
    with _opened(path) as image:
        return image.size


def check_decodes(path: Path) -> tuple[int, int]:
    """Read the whole file, keep nothing but its (width, height). Raises like ``read_rgb``.

    Stricter than reading: a PNG must have its end mark and right checksums, which PIL's decoder does not ask for.
    """
    with _opened(path) as image:
        image.verify()
    with _opened(path) as image:
        size = image.size
        image.draft("RGB", (1, 1))  # the cheapest scale of a JPEG; every byte of it is read all the same
        image.load()
        return size


def check_same_size(path: Path, size: tuple[int, int], real: Path, real_size: tuple[int, int]) -> None:
    """Raise ``ImageProblem`` for ``path`` where its size is not that of its real photo."""
    if size != real_size:
        shape, real_shape = "x".join(map(str, size)), "x".join(map(str, real_size))
        raise ImageProblem(path, f"is {shape} pixels, but its real photo {real.name} is {real_shape}")


def resize_photo(photo: np.ndarray, size: int) -> np.ndarray:
    """H x W x 3 uint8 -> size x size x 3 uint8, stretched, PIL BICUBIC (antialiased)."""
    return np.array(Image.fromarray(photo).resize((size, size), Image.Resampling.BICUBIC))


def resize_mask(mask: np.ndarray, size: int) -> np.ndarray:
    """H x W uint8 -> size x size uint8, stretched, PIL BOX (the mean over each target pixel)."""
    return np.array(Image.fromarray(mask).resize((size, size), Image.Resampling.BOX))


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > PIXEL_LIMIT:
                raise ImageProblem(path, f"claims {image.width}x{image.height} pixels, above the limit {PIXEL_LIMIT}")
            yield image
    except ImageProblem:
        raise
    except FileNotFoundError:
        raise ImageProblem(path, "is missing") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageProblem(path, f"claims too many pixels: {str(error).split(',')[0]}") from None
    except UnidentifiedImageError:
        raise ImageProblem(path, _unidentified(path)) from None
    except Exception as error:  # PIL's decoders answer a broken file with OSError, SyntaxError, ValueError and others
        raise ImageProblem(path, _reason(error)) from None


def _unidentified(path: Path) -> str:
    with open(path, "rb") as file:
        start = file.read(4)
    if not start:
        return "is empty (0 bytes)"
    return "is truncated or damaged" if start.startswith(SIGNATURES) else "is not a JPEG or PNG image"


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror}"
    if "truncated" in str(error).lower():
        return "is truncated"
    return f"is truncated or damaged: {error}"


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in SIXTEEN_BIT_MODES:  # PIL's own conversion clips at 255 instead of scaling
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "P":
        image = image.convert("RGBA")
    return image.convert("RGB")
