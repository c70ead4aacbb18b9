"""Photos of every kind as files, drawn, with all that a file can say about itself."""

import zlib
from pathlib import Path

import cv2
import numpy as np
import pyvips
from PIL import Image, ImageOps, PngImagePlugin, TiffImagePlugin

XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF/></x:xmpmeta>'
EXTENSIONS = {"jpeg": "jpg", "png": "png", "tiff": "tif", "webp": "webp"}


def picture(width=96, height=64, seed=0, channels=3, most=255):
    """A smooth ramp with fine texture: H x W x channels, uint8 or uint16."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    ramp = np.stack([x / width, y / height, 1 - x / width], axis=-1)[..., :channels]
    noisy = 0.15 + 0.6 * ramp + 0.05 * rng.standard_normal(ramp.shape)
    return np.rint(noisy.clip(0, 1) * most).astype(np.uint8 if most == 255 else np.uint16)


def profile(name="p3"):
    """An ICC profile that comes with libvips: p3, srgb or cmyk."""
    return bytes(pyvips.Operation.call("profile_load", name))


def exif(orientation=1):
    """EXIF with a maker, an orientation, a date, a place and a note that is of no standard."""
    made = Image.Exif()
    made[0x010F], made[0x0112] = "Maker", orientation
    inner = made.get_ifd(0x8769)
    inner[0x9003], inner[0x927C] = "2024:05:06 07:08:09", b"\x01\x02private\x00"
    made.get_ifd(0x8825)[1] = "N"
    return made


def stored(array, orientation):
    """What a camera held that way stores of an upright picture, by Pillow."""
    turned = {
        1: lambda one: one,
        2: ImageOps.mirror,
        3: lambda one: one.transpose(Image.Transpose.ROTATE_180),
        4: ImageOps.flip,
        5: lambda one: one.transpose(Image.Transpose.TRANSPOSE),
        6: lambda one: one.transpose(Image.Transpose.ROTATE_90),
        7: lambda one: one.transpose(Image.Transpose.TRANSVERSE),
        8: lambda one: one.transpose(Image.Transpose.ROTATE_270),
    }
    return np.asarray(turned[orientation](Image.fromarray(array)))


def write(path: Path, format: str, array, orientation=1, icc=None, everything=True):
    """Save a uint8 picture, with all metadata that the format knows, by Pillow."""
    more = {}
    if everything:
        more = {"exif": exif(orientation), "xmp": XMP, "icc_profile": icc}
    if format == "jpeg":
        more |= {"quality": 93, "subsampling": 0, "comment": "a comment"} if everything else {"quality": 93}
    elif format == "png" and everything:
        texts = PngImagePlugin.PngInfo()
        texts.add_text("Author", "somebody")
        texts.add_itxt("XML:com.adobe.xmp", XMP.decode())
        del more["xmp"]
        more |= {"pnginfo": texts, "dpi": (300, 300)}
    elif format == "webp":
        more |= {"lossless": True, "exact": True}
    elif format == "tiff":
        more.pop("xmp", None)
        if everything:
            tags = TiffImagePlugin.ImageFileDirectory_v2()
            tags[271], tags[274], tags[315], tags[700] = "Maker", orientation, "somebody", XMP
            tags[34665] = {36867: "2024:05:06 07:08:09", 37500: b"\1\2private\0"}
            tags[34853] = {1: "N"}
            more["tiffinfo"] = tags
            del more["exif"]
        else:
            more["compression"] = "tiff_lzw"
    Image.fromarray(array.squeeze()).save(path, format.upper(), **{key: value for key, value in more.items() if value})
    return path


def write_16_bits(path: Path, array):
    """Save a uint16 picture as PNG or TIFF, by OpenCV: H x W, H x W x 3, or with alpha H x W x 4."""
    order = [2, 1, 0, 3][: array.shape[-1]] if array.ndim == 3 and array.shape[-1] > 1 else [0]
    assert cv2.imwrite(str(path), array[..., order] if array.ndim == 3 else array)
    return path


def read_16_bits(path: Path):
    """What ``write_16_bits`` wrote."""
    array = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    return array[..., [2, 1, 0, 3][: array.shape[-1]]] if array.ndim == 3 else array


def bomb(path: Path, width=40_000, height=10_000):
    """A PNG of a few kilobytes that claims 400 megapixels of grey."""

    def chunk(name, body):
        return len(body).to_bytes(4) + name + body + zlib.crc32(name + body).to_bytes(4)

    header = width.to_bytes(4) + height.to_bytes(4) + bytes((8, 0, 0, 0, 0))
    packed = zlib.compress(bytes((width + 1) * 64), 9) * 1
    body = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    path.write_bytes(body)
    return path
