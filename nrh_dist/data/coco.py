"""COCO instance annotations: a fast typed reader, and the masks of polygons and run-length encodings.

Segmentations stay raw JSON until a mask is asked for: reading the 860,000 annotations of train2017 then takes seconds.
Format: https://cocodataset.org/#format-data.
"""

import warnings
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle_codec

from nrh_dist.errors import UserError


class Photo(msgspec.Struct, frozen=True, gc=False):
    """One photo: ``file_name`` is relative to the images' folder; sizes in pixels."""

    id: int
    file_name: str
    width: int
    height: int


class Annotation(msgspec.Struct, frozen=True, gc=False):
    """One object, or a crowd of them. ``area`` in pixels; ``segmentation`` is raw JSON, see ``decode_mask``."""

    id: int
    image_id: int
    category_id: int
    area: float
    segmentation: msgspec.Raw
    iscrowd: int = 0


class Category(msgspec.Struct, frozen=True, gc=False):
    """The name of a class of objects."""

    id: int
    name: str


class Instances(msgspec.Struct, frozen=True):
    """A whole file of instance annotations."""

    images: list[Photo]
    annotations: list[Annotation]
    categories: list[Category]


def load(path: str | Path) -> Instances:
    """Read an ``instances_*.json``.

    Raises ``UserError``: no such file, not of this format (with the place), an id used twice, an annotation of an
    unknown photo or category, a photo outside its folder.
    """
    path = Path(path)
    try:
        instances = msgspec.json.decode(path.read_bytes(), type=Instances)
    except OSError as error:
        raise UserError(f"cannot read the annotations {path}: {error.strerror}") from None
    except msgspec.MsgspecError as error:
        raise UserError(f"{path} is not a COCO file of instances: {error}") from None
    photos = _unique((photo.id for photo in instances.images), "image", path)
    categories = _unique((category.id for category in instances.categories), "category", path)
    _unique((annotation.id for annotation in instances.annotations), "annotation", path)
    for photo in instances.images:
        name = PurePosixPath(photo.file_name)
        if name.is_absolute() or ".." in name.parts or not name.parts:
            raise UserError(
                f"{path}: image {photo.id} has the file name '{photo.file_name}', outside the photos' folder"
            )
    for annotation in instances.annotations:
        if annotation.image_id not in photos:
            raise UserError(
                f"{path}: annotation {annotation.id} is of image {annotation.image_id}, which is not listed"
            )
        if annotation.category_id not in categories:
            raise UserError(
                f"{path}: annotation {annotation.id} is of category {annotation.category_id}, which is not listed"
            )
    return instances


def decode_mask(segmentation: bytes, height: int, width: int) -> NDArray[np.uint8]:
    """The HxW mask, 0 or 255, of a segmentation in JSON: polygons, or run lengths as a list or in COCO's letters.

    Polygons of fewer than three corners are left out. Raises ``UserError`` where the text is none of these or is of
    another size.
    """
    try:
        value: Any = msgspec.json.decode(segmentation)
        if isinstance(value, list):
            polygons = [polygon for polygon in value if len(polygon) >= 6]
            codes = rle_codec.frPyObjects(polygons, height, width) if polygons else []
        else:
            codes = [_run_lengths(value, height, width)]
        if not codes:
            return np.zeros((height, width), np.uint8)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # pycocotools lags behind numpy's copy keyword
            column_wise = rle_codec.decode(rle_codec.merge(codes))
        mask: NDArray[np.uint8] = cv2.transpose(column_wise.T)
        return np.multiply(mask, 255, out=mask)
    except UserError:
        raise
    except Exception as error:  # pycocotools answers malformed input with errors of many types
        raise UserError(f"a segmentation is neither polygons nor run lengths: {error}") from None


def _run_lengths(value: dict[str, Any], height: int, width: int) -> dict[str, Any]:
    if value["size"] != [height, width]:
        raise UserError(f"a segmentation is of size {value['size']}, its photo of [{height}, {width}]")
    counts = value["counts"]
    if isinstance(counts, str):
        return {"size": [height, width], "counts": counts.encode()}
    if sum(counts) != height * width:
        raise UserError(f"the run lengths of a segmentation cover {sum(counts)} of {height * width} pixels")
    return rle_codec.frPyObjects(value, height, width)


def _unique(ids: Iterable[int], what: str, path: Path) -> set[int]:
    seen: set[int] = set()
    for number in ids:
        if number in seen:
            raise UserError(f"{path}: {what} id {number} is used twice; ids must be unique")
        seen.add(number)
    return seen
