"""What a file says about its picture, carried over byte for byte: EXIF, ICC, XMP, IPTC, comments, text.

Encoders write a picture and know little of the rest. So it is written bare, and the segments, chunks or tags of the
file that it was made from are put into it as they stand there (tags of TIFF: ``tiff.py``). Files are looked at through
maps of them, and pixels are copied in blocks: no file is ever in memory as a whole.
"""

import mmap
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

from nrh_dist.photo import tiff

JFIF, ICC, MULTI_PICTURE = b"JFIF\0", b"ICC_PROFILE\0", b"MPF\0"
START, SCAN, TABLES, COMMENT = 0xD8, 0xDA, 0xDB, 0xFE  # JPEG's markers
APP0, APP1, APP2, APP14, APP15 = 0xE0, 0xE1, 0xE2, 0xEE, 0xEF
# Of PNG: what belongs to the encoded pixels. All else is said about the picture.
PNG_PIXELS = (
    *(b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"bKGD", b"hIST", b"sBIT", b"sPLT"),
    *(b"acTL", b"fcTL", b"fdAT"),
)
PNG_SIGNATURE = 8  # bytes
WEBP_FLAGS = {b"ICCP": 0x20, b"EXIF": 0x08, b"XMP ": 0x04}
WEBP_ALPHA, WEBP_ANIMATION = 0x10, 0x02
LOSSLESS_ALPHA = 0x10  # of the fifth byte of VP8L
BLOCK = 1 << 20

Content = tiff.Content


class Damaged(ValueError):
    """A file whose segments, chunks or tags do not fit into each other."""


class Segment(NamedTuple):
    """Of a JPEG before its first scan: the second byte of its marker, and the content behind its length."""

    marker: int
    content: bytes


class Chunk(NamedTuple):
    """Of PNG or WebP: its name, and where its content is."""

    name: bytes
    start: int
    length: int

    def of(self, content: Content) -> bytes:
        """Its content."""
        return content[self.start : self.start + self.length]


Piece = bytes | range  # to be written: bytes, or a part of the bare file


def carry_over(format: str, source: Path, bare: Path, out: Path, profile: bool) -> None:
    """Write ``out``: the picture of the file ``bare``, with what ``source`` says about its own; ``bare`` is gone then.

    Both files are of ``format``. Without ``profile`` the ICC profile is left out, for pixels that were in that space
    before. Raises ``Damaged``, and ``OSError`` from the disk.
    """
    with _told():
        if format == "tiff":
            with _mapped(source) as there:
                tiff.append(tiff.read(there), bare, profile)
            os.replace(bare, out)
            return
        with _mapped(source) as there, _mapped(bare) as own, bare.open("rb") as pixels, out.open("wb") as file:
            for piece in {"jpeg": _jpeg, "png": _png, "webp": _webp}[format](there, own, profile):
                _write(piece, pixels, file)
    bare.unlink()


class Facts(NamedTuple):
    """What decoders do not tell: whether it moves, whether a WebP is exact, whether more pictures hang on a JPEG.

    ``compression`` is TIFF's number for how its pixels are packed, 1 for not at all.
    """

    is_animated: bool = False
    is_lossless: bool = False
    has_more_pictures: bool = False
    compression: int = 1


def facts(format: str, path: Path) -> Facts:
    """Of a file of ``format``. Raises ``Damaged``."""
    with _told(), _mapped(path) as content:
        if format == "jpeg":
            found, _ = segments(content)
            return Facts(has_more_pictures=any(_is_index(one) for one in found))
        if format == "png":
            return Facts(is_animated=any(one.name == b"acTL" for one in _png_chunks(content)))
        if format == "webp":
            chunks = {one.name: one for one in _webp_chunks(content)}
            moves = b"VP8X" in chunks and bool(content[chunks[b"VP8X"].start] & WEBP_ANIMATION)
            return Facts(is_animated=moves, is_lossless=b"VP8L" in chunks)
        return Facts(compression=tiff.compression(tiff.read(content)))


def luminance_table(path: Path) -> tuple[int, ...]:
    """The 64 numbers of the first quantisation table of a JPEG, in the file's order. Raises ``Damaged``."""
    tables: dict[int, tuple[int, ...]] = {}
    with _told(), _mapped(path) as content:
        for segment in segments(content)[0]:
            at = 0
            while segment.marker == TABLES and at < len(segment.content):
                is_wide, number = divmod(segment.content[at], 16)
                kind = ">64H" if is_wide else ">64B"
                tables[number] = struct.unpack_from(kind, segment.content, at + 1)
                at += 1 + struct.calcsize(kind)
    if not tables:
        raise Damaged("it has no quantisation table")
    return tables[min(tables)]


def segments(content: Content) -> tuple[list[Segment], int]:
    """The segments of a JPEG between its start and its first scan, and where that scan begins."""
    found: list[Segment] = []
    at = 2
    while True:
        if content[at] != 0xFF:
            raise Damaged(f"no marker at byte {at}")
        while content[at + 1] == 0xFF:  # fill bytes
            at += 1
        marker = content[at + 1]
        if marker == SCAN:
            return found, at
        (length,) = struct.unpack_from(">H", content, at + 2)
        if length < 2 or at + 2 + length > len(content):
            raise Damaged(f"a segment at byte {at} leads out of the file")
        found.append(Segment(marker, content[at + 4 : at + 2 + length]))
        at += 2 + length


@contextmanager
def _told() -> Iterator[None]:
    """What leads out of the file, as ``Damaged``."""
    try:
        yield
    except (struct.error, IndexError, tiff.BadTags) as error:
        raise Damaged(str(error)) from None


@contextmanager
def _mapped(path: Path) -> Iterator[Content]:
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            yield b""
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            yield content


def _write(piece: Piece, pixels: BinaryIO, file: BinaryIO) -> None:
    if isinstance(piece, bytes):
        file.write(piece)
        return
    pixels.seek(piece.start)
    left = len(piece)
    while left:
        block = pixels.read(min(BLOCK, left))
        if not block:
            raise Damaged("the picture that was written is too short")
        file.write(block)
        left -= len(block)


def _jpeg(source: Content, bare: Content, profile: bool) -> list[Piece]:
    own, scan = segments(bare)
    said = segments(source)[0]
    kept = [one for one in said if _is_about(one) and (profile or not one.content.startswith(ICC))]
    first = [one for one in said if one.marker == APP0 and one.content.startswith(JFIF)]  # it tells the size in print
    others = [one for one in own if one.marker != APP0]
    written = [_segment(one) for one in [*first, *kept, *others]]
    return [bytes((0xFF, START)), *written, range(scan, len(bare))]


def _is_about(segment: Segment) -> bool:
    """Adobe's segment (14) tells how pixels are encoded, an index leads to pictures that are not carried over."""
    if _is_index(segment) or segment.marker == APP14:
        return False
    return segment.marker == COMMENT or APP1 <= segment.marker <= APP15


def _is_index(segment: Segment) -> bool:
    return segment.marker == APP2 and segment.content.startswith(MULTI_PICTURE)


def _segment(segment: Segment) -> bytes:
    return struct.pack(">BBH", 0xFF, segment.marker, len(segment.content) + 2) + segment.content


def _png_chunks(content: Content) -> Iterator[Chunk]:
    at = PNG_SIGNATURE
    while True:
        length, name = struct.unpack_from(">I4s", content, at)
        if at + 12 + length > len(content):
            raise Damaged(f"a chunk at byte {at} leads out of the file")
        yield Chunk(name, at + 8, length)
        if name == b"IEND":
            return
        at += 12 + length


def _png(source: Content, bare: Content, profile: bool) -> list[Piece]:
    assert profile, "PNG knows no inks, so that its colour space never changes"
    kept = [_png_chunk(one.name, one.of(source)) for one in _png_chunks(source) if one.name not in PNG_PIXELS]
    header, *others = (
        range(one.start - 8, one.start + one.length + 4) for one in _png_chunks(bare) if one.name in PNG_PIXELS
    )
    return [range(PNG_SIGNATURE), header, *kept, *others]


def _png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def _webp_chunks(content: Content) -> Iterator[Chunk]:
    end = min(len(content), 8 + struct.unpack_from("<I", content, 4)[0])
    at = 12
    while at + 8 <= end:
        name, length = struct.unpack_from("<4sI", content, at)
        if at + 8 + length > end:
            raise Damaged(f"a chunk at byte {at} leads out of the file")
        yield Chunk(name, at + 8, length)
        at += 8 + length + length % 2


def _webp(source: Content, bare: Content, profile: bool) -> list[Piece]:
    assert profile, "WebP knows no inks, so that its colour space never changes"
    kept = {one.name: one.of(source) for one in _webp_chunks(source) if one.name in WEBP_FLAGS}
    if not kept:
        return [range(len(bare))]
    own = [one for one in _webp_chunks(bare) if one.name not in (*WEBP_FLAGS, b"VP8X")]
    flags = sum(WEBP_FLAGS[name] for name in kept) + WEBP_ALPHA * _has_alpha(bare)
    sizes = b"".join((side - 1).to_bytes(3, "little") for side in _webp_size(bare))
    before = [_webp_chunk(b"VP8X", struct.pack("<I", flags) + sizes)]
    before += [_webp_chunk(b"ICCP", kept.pop(b"ICCP"))] if b"ICCP" in kept else []
    pixels = [range(one.start - 8, one.start + one.length + one.length % 2) for one in own]
    after = [_webp_chunk(*one) for one in kept.items()]
    length = 4 + sum(map(len, [*before, *pixels, *after]))
    return [b"RIFF" + struct.pack("<I", length) + b"WEBP", *before, *pixels, *after]


def _webp_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack("<4sI", name, len(body)) + body + b"\0" * (len(body) % 2)


def _has_alpha(content: Content) -> bool:
    for name, start, _ in _webp_chunks(content):
        if name == b"VP8X":
            return bool(content[start] & WEBP_ALPHA)
        if name == b"VP8L":
            return bool(content[start + 4] & LOSSLESS_ALPHA)
    return False


def _webp_size(content: Content) -> tuple[int, int]:
    """Width and height, as the format's specification packs them."""
    for name, start, _ in _webp_chunks(content):
        if name == b"VP8X":
            width, height = (int.from_bytes(content[start + at : start + at + 3], "little") for at in (4, 7))
            return 1 + width, 1 + height
        if name == b"VP8L":
            bits = int.from_bytes(content[start + 1 : start + 5], "little")
            return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        if name == b"VP8 ":
            width, height = struct.unpack_from("<HH", content, start + 6)
            return width & 0x3FFF, height & 0x3FFF
    raise Damaged("no picture in it")
