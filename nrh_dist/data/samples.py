"""What every layout of a data folder gives: samples of three pictures each, and what is wrong with its files."""

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nrh_dist.data.coco import decode_mask
from nrh_dist.data.images import ImageProblem, check_same_size, read_mask
from nrh_dist.errors import UserError


class Segmentation(NamedTuple):
    """A mask that is kept in an annotation instead of a file; ``text`` is its JSON, see ``coco.decode_mask``."""

    annotation_id: int
    text: bytes
    height: int
    width: int


@dataclass(frozen=True)
class Sample:
    """One composite: sub-set, split (train, val or test), file stem, its three pictures, and the group it is split by.

    A photo with a marked object, for the detector, is a sample whose composite is the real photo itself.
    """

    dataset: str
    split: str
    name: str
    composite: Path
    mask: Path | Segmentation
    real: Path
    group: str


class Problem(NamedTuple):
    """What is wrong with one file, as a half-sentence that follows its path."""

    path: Path
    reason: str


def mask_of(sample: Sample) -> np.ndarray:
    """The mask of a sample as H x W uint8, 0..255. Raises ``ImageProblem``, about the photo where it has no file."""
    mask = sample.mask
    if isinstance(mask, Path):
        return read_mask(mask)
    try:
        return decode_mask(mask.text, mask.height, mask.width)
    except UserError as error:
        raise ImageProblem(sample.real, f"annotation {mask.annotation_id}: {error}") from None


def check_mask_size(sample: Sample, size: tuple[int, int], real_size: tuple[int, int]) -> None:
    """Raise ``ImageProblem`` where a mask of ``size`` (width, height) does not fit its photo of ``real_size``."""
    if isinstance(sample.mask, Path):
        check_same_size(sample.mask, size, sample.real, real_size)
    elif size != real_size:
        photo, told = "x".join(map(str, real_size)), "x".join(map(str, size))
        reason = f"is {photo} pixels, but its annotation {sample.mask.annotation_id} is for {told}"
        raise ImageProblem(sample.real, reason)


def is_held_out(group: str, fraction: float, seed: int) -> bool:
    """Whether a group is kept from training: a hash of seed and group (which names its sub-set) below ``fraction``."""
    digest = hashlib.sha256(f"{seed}/{group}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < fraction


def leaked_groups(samples: Iterable[Sample]) -> dict[str, int]:
    """Per sub-set, how many groups of its train split are in a val or test split of any sub-set; none, no entry."""
    samples = list(samples)
    tested = {sample.group for sample in samples if sample.split != "train"}
    trained = {(sample.dataset, sample.group) for sample in samples if sample.split == "train"}
    return dict(sorted(Counter(dataset for dataset, group in trained if group in tested).items()))


def by_photo(samples: list[Sample], at_least: int) -> list[list[int]]:
    """The positions of all samples in chunks of ``at_least`` or more, where no file is used by two chunks.

    All composites of one real photo, wherever they are listed, come in one chunk: every file is decoded once.
    """
    photos: dict[Path, list[int]] = {}
    for position, sample in enumerate(samples):
        photos.setdefault(sample.real, []).append(position)
    chunks: list[list[int]] = [[]]
    for positions in photos.values():
        if len(chunks[-1]) >= at_least:
            chunks.append([])
        chunks[-1] += positions
    return [chunk for chunk in chunks if chunk]
