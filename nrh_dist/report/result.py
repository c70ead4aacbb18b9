"""What one run did to the images of an evaluation: the columns of ``per_image.csv`` as arrays."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

METRICS = ("mse", "psnr", "fmse", "lpips", "area_fraction", "identity_mse", "identity_psnr")
# What an evaluation may leave out: numbers, then words. Its summary.json explains each in ``protocol``.
FURTHER = (
    "mse_outside", "mse_edge", "chroma_drift", "correction", "mse_change", "change_outside", "detected",
    "detected_outside", "shift_stops", "psnr_range", "psnr_target_max",
)  # fmt: skip
WORDS = ("category", "group")  # group: what composites of one photo have in common
NUMBERS = (*METRICS, *FURTHER)
OF_THE_INPUT = ("area_fraction", "identity_mse", "identity_psnr", "shift_stops")  # whatever a run does
IDENTITY = "identity"


@dataclass(frozen=True, eq=False)
class Result:
    """What one run did to n images: arrays of length n, NaN or "" where a value is not available."""

    model: str
    run: str
    datasets: np.ndarray
    names: np.ndarray
    mse: np.ndarray
    psnr: np.ndarray
    fmse: np.ndarray
    lpips: np.ndarray
    area_fraction: np.ndarray
    identity_mse: np.ndarray
    identity_psnr: np.ndarray
    mse_outside: np.ndarray
    mse_edge: np.ndarray
    chroma_drift: np.ndarray
    correction: np.ndarray
    mse_change: np.ndarray
    change_outside: np.ndarray
    detected: np.ndarray
    detected_outside: np.ndarray
    shift_stops: np.ndarray
    psnr_range: np.ndarray
    psnr_target_max: np.ndarray
    category: np.ndarray
    group: np.ndarray

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def photos(self) -> np.ndarray:
        """Each image's photo as n numbers from 0."""
        return photos_of(self.datasets, self.names, self.group)

    def rows(self, chosen: np.ndarray | Sequence[int]) -> "Result":
        """The images that ``chosen`` selects, as positions or as n booleans."""
        return replace(self, **{key: getattr(self, key)[chosen] for key in ("datasets", "names", *NUMBERS, *WORDS)})

    def of(self, datasets: tuple[str, ...]) -> "Result":
        """The images of these sub-sets only."""
        return self.rows(np.isin(self.datasets, datasets))

    def has(self, column: str) -> bool:
        """Whether any image has a value in this column of numbers."""
        return not np.isnan(getattr(self, column)).all()


def photos_of(datasets: Iterable[str], names: Iterable[str], groups: Iterable[str]) -> np.ndarray:
    """Each image's photo as n numbers from 0: its group.

    Where an earlier version wrote none, a photo is what stands before a name's last two underscores.
    """
    images = zip(datasets, names, groups, strict=True)
    photos = [group or f"{dataset}/{name.rsplit('_', 2)[0]}" for dataset, name, group in images]
    return np.unique(photos, return_inverse=True)[1]
