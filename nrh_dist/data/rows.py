"""The rows of a pack: the value of each sample in every file, from its images at the size of the pack."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from nrh_dist.data.images import ImageProblem, check_same_size, read_rgb, read_size, resize_mask, resize_photo
from nrh_dist.data.samples import Sample, Segmentation, check_mask_size, mask_of

RESIZE = (
    "stretched to size x size; photos PIL BICUBIC (antialiased), masks PIL BOX; "
    "JPEGs above 4 megapixels decoded at a DCT scale that keeps at least twice the size"
)
COMPOSITES, REALS, MASKS = "composites.u8", "reals.u8", "masks.u8"
CHANNELS = {COMPOSITES: 3, REALS: 3, MASKS: 1}
AREAS = "area_fractions.f64"  # one float64 a row: share of the full-size mask that is >= 128

Made = TypeVar("Made")


def rows_of(
    chunk: list[tuple[int, Sample]], size: int
) -> Iterator[tuple[int, Sample, dict[str, np.ndarray] | ImageProblem]]:
    """Each row with its value in every file, or why there is none; each real photo and each mask is decoded once."""
    real: Path | None = None
    for row, sample in chunk:
        if sample.real != real:  # the samples of one photo come together
            real, decoded = sample.real, _Decoded()
        try:
            yield row, sample, _values(sample, size, decoded)
        except ImageProblem as problem:
            yield row, sample, problem


def _values(sample: Sample, size: int, decoded: "_Decoded") -> dict[str, np.ndarray]:
    def read_real() -> tuple[np.ndarray, tuple[int, int]]:
        full_size = read_size(sample.real)
        return resize_photo(read_rgb(sample.real, 2 * size), size), full_size

    def read_mask() -> tuple[np.ndarray, np.ndarray]:
        full = mask_of(sample)
        check_mask_size(sample, (full.shape[1], full.shape[0]), real_size)
        return resize_mask(full, size), np.array((full >= 128).mean())

    real, real_size = decoded.once(sample.real, read_real)
    mask, area = decoded.once(sample.mask, read_mask)
    composite = real
    if sample.composite != sample.real:
        check_same_size(sample.composite, read_size(sample.composite), sample.real, real_size)
        composite = resize_photo(read_rgb(sample.composite, 2 * size), size)
    return {COMPOSITES: composite, REALS: real, MASKS: mask, AREAS: area}


class _Decoded:
    """What the samples of one photo share, or the problem with it."""

    def __init__(self) -> None:
        self._known: dict[Path | Segmentation, Any] = {}

    def once(self, file: Path | Segmentation, make: Callable[[], Made]) -> Made:
        """``make()``, made once a file; its ``ImageProblem`` comes every time."""
        if file not in self._known:
            try:
                self._known[file] = make()
            except ImageProblem as problem:
                self._known[file] = problem
        known = self._known[file]
        if isinstance(known, ImageProblem):
            raise known
        return known
