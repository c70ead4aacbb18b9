"""A photo with its colours changed, written as the photo was: format, depth, alpha, size, and all that it says."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pyvips

from nrh_dist.data.images import ImageProblem
from nrh_dist.photo import metadata
from nrh_dist.photo.image import COLOURS, INTENT, Photo, Vips
from nrh_dist.photo.orientation import as_stored

Change = Callable[[Vips], Vips]  # colours as float in [0, 1], as stored -> what is added to them

LEAST_QUALITY = 90  # of a JPEG: below it, encoding again would lose more than the photo has lost already
WEBP_QUALITY = 95  # the format does not tell its own
QUALITY_50 = 3688  # sum of the JPEG standard's table for luminance (annex K), which libjpeg scales by quality
TURNS = {1: (), 2: ("fliphor",), 3: ("rot180",), 4: ("flipver",), 5: ("rot90", "fliphor"), 6: ("rot90",)}
TURNS |= {7: ("rot270", "fliphor"), 8: ("rot270",)}
COMPRESSIONS = {1: "none", 5: "lzw", 8: "deflate", 32946: "deflate", 50000: "zstd"}


def write(photo: Photo, change: Change, out: Path, strip: bool = False) -> None:
    """Write ``photo`` with ``change`` added to ``out``, whole or not at all.

    With ``strip``, nothing stays of what the file says beside its picture: the picture is turned upright then, and its
    colours become sRGB. ``ImageProblem`` where the photo cannot be read, or the disk does not take it.
    """
    bare = _beside(out, "bare")
    try:
        with _problems(photo, out), in_one_step(out) as partial:
            bare.touch()  # what the disk refuses is said by the disk
            image = _changed(photo, change, in_order=not (strip and photo.orientation > 1))
            _encode(photo, _stripped(photo, image) if strip else image, bare)
            if strip:
                os.replace(bare, partial)
            else:
                metadata.carry_over(photo.format, photo.path, bare, partial, profile=not photo.is_cmyk)
    finally:
        _drop(bare)


def encoded_anew(photo: Photo, out: Path) -> None:
    """Decode and encode ``photo`` with nothing changed: the least that writing it can take."""
    colours, alpha = photo.decoded()
    _encode(photo, colours if alpha is None else colours.bandjoin(alpha), out)


def write_mask(photo: Photo, mask: Change, out: Path) -> None:
    """Write ``mask`` of the colours of ``photo``, in [0, 1], upright, as a grey PNG of 8 bits. Raises as ``write``."""
    with _problems(photo, out), in_one_step(out) as partial:
        colours, _alpha = photo.decoded(in_order=photo.orientation == 1)
        levels = (mask(colours.cast("float") / photo.most) * 255).rint().cast("uchar").copy(interpretation="b-w")
        _turned(photo, levels).pngsave(str(partial), keep="none")


def as_stored_image(mask: np.ndarray, orientation: int) -> Vips:
    """A mask of uint8, upright, as one band in [0, 1], as a photo of that orientation is stored."""
    return pyvips.Image.new_from_array(as_stored(mask[..., None], orientation)).cast("float") / 255


@contextmanager
def in_one_step(out: Path) -> Iterator[Path]:
    """A file to write into, which becomes ``out`` at the end of the block, once it is on the disk.

    What fails leaves nothing behind. ``ImageProblem`` where the disk does not take it.
    """
    partial = _beside(out, "partial")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, out)
    except OSError as error:
        raise ImageProblem(out, f"cannot be written: {error.strerror or error}") from None
    finally:
        _drop(partial)


def _drop(path: Path) -> None:
    with suppress(OSError):  # a file system that takes nothing has said so already
        path.unlink()


@contextmanager
def _problems(photo: Photo, out: Path) -> Iterator[None]:
    """What libvips and the parsers of metadata say while ``photo`` becomes ``out``, as an ``ImageProblem``."""
    try:
        yield
    except (pyvips.Error, metadata.Damaged) as error:
        said = str(error).strip().splitlines()[-1].strip()
        if isinstance(error, pyvips.Error) and _is_whole(photo):
            raise ImageProblem(out, f"cannot be written, as on a full disk: {said}") from None
        raise ImageProblem(photo.path, f"is truncated or damaged: {said}") from None


def _is_whole(photo: Photo) -> bool:
    """Whether it decodes to its end: libvips does not tell a fault of what it reads from one of where it writes."""
    try:
        for one in photo.decoded():
            if one is not None:
                one.avg()
    except pyvips.Error:
        return False
    return True


def _beside(out: Path, kind: str) -> Path:
    return out.with_name(f".{out.name}.{os.getpid()}.{kind}")


def _changed(photo: Photo, change: Change, in_order: bool) -> Vips:
    colours, alpha = photo.decoded(in_order)
    as_float = colours.cast("float") / photo.most
    levels = ((as_float + change(as_float)) * photo.most).rint().cast(colours.format)  # which also clips
    kind = colours.interpretation
    return (levels if alpha is None else levels.bandjoin(alpha)).copy(interpretation=kind)


def _turned(photo: Photo, image: Vips) -> Vips:
    """Upright, and without a word about it."""
    for turn in TURNS[photo.orientation]:
        image = getattr(image, turn)()
    image = image.copy()
    image.remove("orientation")
    return image


def _stripped(photo: Photo, image: Vips) -> Vips:
    image = _turned(photo, image)
    if photo.profile is None:
        return image
    kind = image.interpretation
    try:
        made = image.icc_transform("srgb", embedded=True, intent=INTENT, depth=photo.depth)
    except pyvips.Error:  # a damaged profile says nothing of the colours
        return image
    return made if COLOURS[kind] == 3 else made.colourspace(kind)


def _encode(photo: Photo, image: Vips, out: Path) -> None:
    """Without anything but the picture."""
    options = {"jpeg": _jpeg, "png": _png, "tiff": _tiff, "webp": _webp}[photo.format](photo, image)
    getattr(image, f"{photo.format}save")(str(out), keep="none", **options)


def _jpeg(photo: Photo, image: Vips) -> dict[str, object]:
    subsampling = image.get("jpeg-chroma-subsample") if image.get_typeof("jpeg-chroma-subsample") else "4:4:4"
    return {
        "Q": max(LEAST_QUALITY, _quality(photo.path)),
        "subsample_mode": "on" if subsampling == "4:2:0" else "off",
        "interlace": bool(image.get_typeof("jpeg-multiscan") and image.get("jpeg-multiscan")),
        "optimize_coding": True,
    }


def _quality(path: Path) -> int:
    """What libjpeg would call the quality of a JPEG, by its table for luminance."""
    percent = 100 * sum(metadata.luminance_table(path)) / QUALITY_50
    return round(100 - percent / 2 if percent <= 100 else 5000 / percent)


def _png(photo: Photo, image: Vips) -> dict[str, object]:
    return {"interlace": bool(image.get_typeof("interlaced") and image.get("interlaced"))}


def _tiff(photo: Photo, image: Vips) -> dict[str, object]:
    compression = COMPRESSIONS.get(photo.facts.compression, "deflate")
    return {"compression": compression, "predictor": "none" if compression == "none" else "horizontal"}


def _webp(photo: Photo, image: Vips) -> dict[str, object]:
    if photo.facts.is_lossless:
        return {"lossless": True, "exact": True}
    return {"Q": WEBP_QUALITY, "alpha_q": 100, "exact": True}
