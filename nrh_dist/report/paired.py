"""One run against another on the same images: the mean difference, its interval, and a signed-rank test by photo."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import wilcoxon

from nrh_dist.report import bootstrap
from nrh_dist.report.bootstrap import FEWEST_PHOTOS, Estimate
from nrh_dist.report.shown import Column
from nrh_dist.report.statistics import WORSE1, share

NOTE = (
    "p: Wilcoxon’s signed-rank test, two-sided, on each photo’s mean difference, because the composites of one photo "
    f"are not independent; no test with fewer than {FEWEST_PHOTOS} photos or without any difference. Holm: the same, "
    "corrected for all tests of this table. 0.0000: below 0.00005."
)


def columns(group: str) -> list[Column]:
    """A table's columns for ``Paired.cells`` and the corrected p; ``group`` says what is subtracted from what."""
    return [
        Column("mse_difference", "mean", group),
        Column("mse_difference_low", "95 % from", group),
        Column("mse_difference_high", "to", group),
        Column("better1_percent", "better by > 1", "images, %", 1),
        Column("worse1_percent", "worse by > 1", "images, %", 1),
        Column("photos", "photos", "signed-rank test", 0),
        Column("p", "p", "signed-rank test", 4),
        Column("p_holm", "p, Holm", "signed-rank test", 4),
    ]


@dataclass(frozen=True)
class Paired:
    """n images with both errors: the mean difference in MSE, the shares better and worse by more than 1, and p.

    p is NaN where no test was made.
    """

    images: int
    difference: Estimate
    better1: float
    worse1: float
    p: float

    def cells(self) -> list[float]:
        """The row below ``columns``, without the corrected p."""
        shares = [100 * self.better1, 100 * self.worse1]
        return [self.difference.value, *self.difference.bounds, *shares, self.difference.photos, self.p]


def compare(photos: np.ndarray, mse: np.ndarray, other_mse: np.ndarray) -> Paired:
    """``mse`` - ``other_mse`` over N images; ``photos`` are N numbers from 0."""
    difference = mse - other_mse
    return Paired(
        int((~np.isnan(difference)).sum()),
        bootstrap.mean(photos, difference),
        share(-difference, WORSE1),
        share(difference, WORSE1),
        signed_rank(photos, difference),
    )


def signed_rank(photos: np.ndarray, difference: np.ndarray) -> float:
    """p of Wilcoxon's two-sided signed-rank test on the mean difference of each photo; NaN where it cannot be made."""
    known = ~np.isnan(difference)
    counts = np.bincount(photos[known])
    by_photo = np.bincount(photos[known], difference[known])[counts > 0] / counts[counts > 0]
    if len(by_photo) < FEWEST_PHOTOS or not by_photo.any():
        return float("nan")
    return float(wilcoxon(by_photo).pvalue)


def holm(found: Sequence[float]) -> list[float]:
    """Holm's step-down correction for the number of tests; NaN is no test and stays NaN."""
    values = np.array(found, float)
    order = [i for i in np.argsort(values) if not np.isnan(values[i])]
    corrected, largest = np.full(len(values), np.nan), 0.0
    for place, i in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - place) * values[i]))
        corrected[i] = largest
    return corrected.tolist()
