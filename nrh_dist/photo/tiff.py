"""The tags of a TIFF file that say something about its picture, put into another TIFF file.

Layout as in TIFF 6.0 and BigTIFF: directories of tags, each with a type, a count, and the value or its place. Places
are counted from the start of the file, so that tags cannot be copied as bytes: they are read, and written anew.
"""

import mmap
import struct
from pathlib import Path
from typing import NamedTuple

# Tags that tell how pixels are stored; all others are about the picture, or about what was done with it.
STRUCTURE = {
    *range(254, 260),  # kind, width, height, bits, compression
    *(262, 263, 264, 265, 266),  # meaning of the values, thresholds, order of bits
    *(273, 277, 278, 279, 280, 281, 284),  # strips, samples, planes
    *range(288, 294),  # grey curves, fax
    *(301, 317, 320, 321, 322, 323, 324, 325),  # transfer curve, predictor, palette, tiles
    *(330, 332, 333, 334, 336, 338, 339, *range(340, 348)),  # other pictures, inks, alpha
    *range(512, 522),  # JPEG within TIFF
    *(529, 530, 531, 532, 559),  # YCbCr
}
COMPRESSION, PROFILE = 259, 34675
DIRECTORIES = (34665, 34853, 40965)  # EXIF, GPS, interoperability: their value is the place of more tags
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
LONG_KINDS = (16, 17, 18)  # of BigTIFF alone
RATIONALS = (5, 10)  # pairs of 4 bytes
LONG = 4
TAG_LIMIT, DEPTH_LIMIT = 4096, 3
ORDERS = {b"II": "<", b"MM": ">"}
BIG = 43  # version of BigTIFF

Content = bytes | mmap.mmap


class BadTags(ValueError):
    """A TIFF file whose tags lead out of it or into a circle."""


class Tag(NamedTuple):
    """Type, amount of values, and these as little-endian bytes; or the tags of a directory."""

    kind: int
    amount: int
    value: "bytes | dict[int, Tag]"


Tags = dict[int, Tag]


def append(tags: Tags, path: Path, profile: bool) -> None:
    """Give the TIFF file ``path``, little-endian and of the classic kind, those of ``tags`` that are not ``STRUCTURE``.

    ``profile``: its ICC profile too. They are written behind all that is there.
    """
    kept = {number: tag for number, tag in tags.items() if number not in STRUCTURE and (profile or number != PROFILE)}
    with path.open("r+b") as file:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            own, end = read(content), len(content) + len(content) % 2
        written, place = _written(own | kept, end)
        file.seek(end)
        file.write(written)
        file.seek(4)
        file.write(struct.pack("<I", place))


def read(content: Content) -> Tags:
    """The tags of the first picture. Raises ``BadTags``."""
    order = ORDERS.get(content[:2])
    if order is None:
        raise BadTags("not a TIFF file")
    (version,) = _unpack(f"{order}H", content, 2)
    is_big = version == BIG
    (place,) = _unpack(order + ("Q" if is_big else "I"), content, 8 if is_big else 4)
    return _read(content, place, order, is_big, 0)


def compression(tags: Tags) -> int:
    """The number of how pixels are packed, 1 for not at all."""
    tag = tags.get(COMPRESSION)
    return int.from_bytes(tag.value, "little") if tag and isinstance(tag.value, bytes) else 1


def _read(content: Content, place: int, order: str, is_big: bool, depth: int) -> Tags:
    head, entry, pointer = ("Q", "HHQ", "Q") if is_big else ("H", "HHI", "I")
    (count,) = _unpack(order + head, content, place)
    if count > TAG_LIMIT or depth > DEPTH_LIMIT:
        raise BadTags("more tags than a picture can have")
    place += struct.calcsize(order + head)
    tags = {}
    for _ in range(count):
        number, kind, values = _unpack(order + entry, content, place)
        at = place + struct.calcsize(order + entry)
        place = at + struct.calcsize(order + pointer)
        if kind not in SIZES:
            continue  # of a later standard: readers skip it
        length = SIZES[kind] * values
        start = at if length <= struct.calcsize(order + pointer) else _unpack(order + pointer, content, at)[0]
        if start + length > len(content):
            raise BadTags(f"the value of tag {number} leads out of the file")
        value = content[start : start + length]
        if number in DIRECTORIES and length in (4, 8):
            inner = int.from_bytes(value, "little" if order == "<" else "big")
            tags[number] = Tag(LONG, 1, _read(content, inner, order, is_big, depth + 1))
        else:
            tags[number] = Tag(kind, values, value if order == "<" else _swapped(value, kind))
    return tags


def _unpack(form: str, content: Content, place: int) -> tuple[int, ...]:
    if place + struct.calcsize(form) > len(content):
        raise BadTags(f"tags at byte {place} lead out of the file")
    return struct.unpack_from(form, content, place)


def _swapped(value: bytes, kind: int) -> bytes:
    size = 4 if kind in RATIONALS else SIZES[kind]
    return b"".join(value[at : at + size][::-1] for at in range(0, len(value), size))


def _written(tags: Tags, start: int) -> tuple[bytes, int]:
    """The values and directories of ``tags`` as they stand from byte ``start`` on, and the place of the outermost."""
    values, entries = b"", []
    for number in sorted(tags):
        kind, count, value = tags[number]
        if kind in LONG_KINDS:
            continue
        if isinstance(value, dict):
            inner, place = _written(value, start + len(values))
            values, value = values + inner, struct.pack("<I", place)
        elif len(value) > 4:
            place = start + len(values)
            values, value = values + value + b"\0" * (len(value) % 2), struct.pack("<I", place)
        entries.append(struct.pack("<HHI", number, kind, count) + value.ljust(4, b"\0"))
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + struct.pack("<I", 0)
    return values + directory, start + len(values)
