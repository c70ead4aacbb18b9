"""A faster way to the pixels of an ordinary JPEG: OpenCV's decoder gives those of PIL in two thirds of the time."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from nrh_dist.data import images

START, END = b"\xff\xd8\xff", b"\xff\xd9"
NOT_FRAMES = (0xC4, 0xC8, 0xCC)  # markers in 0xC0..0xCF that do not open a frame (ITU T.81, table B.1)
SIDE_LIMIT = 8192  # larger photos take the way that checks for decompression bombs


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """A photo as HxWx3 uint8: as ``images.read_rgb``, to which everything but a whole JPEG of 3 components is left."""
    try:
        content = path.read_bytes()
    except OSError:
        return images.read_rgb(path)
    if not _is_plain(content):
        return images.read_rgb(path)
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    return images.read_rgb(path) if pixels is None else pixels  # type: ignore[return-value]


def _is_plain(content: bytes) -> bool:
    """Whether this is a JPEG of 3 components of 8 bits up to its end mark, which a truncated file lacks."""
    if not (content.startswith(START) and content.endswith(END)):
        return False
    place = 2
    while place + 9 < len(content) and content[place] == 0xFF:
        marker, length = content[place + 1], int.from_bytes(content[place + 2 : place + 4])
        if 0xC0 <= marker <= 0xCF and marker not in NOT_FRAMES:
            bits, *sides, components = content[place + 4], *_sides(content, place), content[place + 9]
            return bits == 8 and components == 3 and max(sides) <= SIDE_LIMIT
        place += 2 + length
    return False


def _sides(content: bytes, frame: int) -> tuple[int, int]:
    return int.from_bytes(content[frame + 5 : frame + 7]), int.from_bytes(content[frame + 7 : frame + 9])
