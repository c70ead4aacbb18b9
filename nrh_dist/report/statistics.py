"""Means over images: overall, by object size, and against doing nothing. All is per image first, then averaged."""

from dataclasses import dataclass

import numpy as np

from nrh_dist.report import bootstrap
from nrh_dist.report.bootstrap import Estimate
from nrh_dist.report.groups import Groups, tenths
from nrh_dist.report.result import Result

PSNR_CAP = 100.0  # dB, for outputs without any error
WORSE = 0.01  # dMSE = output - input, above which an image counts as changed for the worse
WORSE1 = 1.0  # the same for the headline
MOST_WORSE = 0.05  # the share of images that a model which people apply blindly may make worse by more than WORSE1


@dataclass(frozen=True)
class Means:
    """Means over the images that have a value (NaN where none has), and the counts of those that needed a decision."""

    images: int
    mse: float
    psnr: float
    fmse: float
    lpips: float
    worse: float
    worse1: float
    psnr_capped: int
    fmse_empty: int
    without_mse: int


@dataclass(frozen=True)
class Bin:
    """The images of a group that have an error; NaN means where there are none."""

    label: str
    count: int
    mse: float
    identity_mse: float


def mean(values: np.ndarray) -> float:
    """The mean of the values that are not NaN; NaN without any."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float("nan")


def median(values: np.ndarray) -> float:
    """The median of the values that are not NaN; NaN without any."""
    values = values[~np.isnan(values)]
    return float(np.median(values)) if len(values) else float("nan")


def weighted_mean(values: np.ndarray, counts: np.ndarray) -> float:
    """sum(values x counts) / sum(counts) over the bins that hold images; NaN without any."""
    values, counts = np.asarray(values, float), np.asarray(counts)
    filled = counts > 0
    return float(values[filled] @ counts[filled] / counts[filled].sum()) if filled.any() else float("nan")


def means(result: Result) -> Means:
    """The means of Table 2 for one run."""
    return Means(
        images=len(result),
        mse=mean(result.mse),
        psnr=mean(result.psnr),
        fmse=mean(result.fmse),
        lpips=mean(result.lpips),
        worse=worse_share(result, WORSE),
        worse1=worse_share(result, WORSE1),
        psnr_capped=int((result.psnr >= PSNR_CAP).sum()),
        fmse_empty=int((np.isnan(result.fmse) & ~np.isnan(result.mse)).sum()) if result.has("fmse") else 0,
        without_mse=int(np.isnan(result.mse).sum()),
    )


def worse_share(result: Result, threshold: float) -> float:
    """The share of images whose MSE rose by more than ``threshold`` over the input's. In [0, 1], NaN without images."""
    return share(result.mse - result.identity_mse, threshold)


def share(values: np.ndarray, threshold: float) -> float:
    """The share of the values above ``threshold``, those that are NaN left out. In [0, 1], NaN without any."""
    values = values[~np.isnan(values)]
    return float((values > threshold).mean()) if len(values) else float("nan")


def is_worse(mse: np.ndarray, identity_mse: np.ndarray) -> np.ndarray:
    """Whether an output is worse than the input by more than 1; one that is not finite (NaN) is."""
    return ~(mse - identity_mse <= WORSE1)


def by_bin(result: Result) -> list[Bin]:
    """Means by tenths of the object's size; images without a value or an area are left out."""
    return by_group(result, tenths(result.area_fraction))


def by_group(result: Result, groups: Groups) -> list[Bin]:
    """Means by group; images without a value are left out."""
    identity = np.where(np.isnan(result.mse), np.nan, result.identity_mse)
    columns = groups.labels, groups.counts(result.mse), groups.means(result.mse), groups.means(identity)
    return [
        Bin(label, int(count), float(mse), float(before)) for label, count, mse, before in zip(*columns, strict=True)
    ]


def change(result: Result) -> Estimate | None:
    """Mean MSE against identity's as a ratio minus 1, its verdict against doing nothing; None where identity has no
    error at all."""
    found = bootstrap.ratios(result.photos, result.mse[:, None], result.identity_mse[:, None])[0]
    if np.isnan(found.value):
        return None
    return found.scaled(1.0, -1.0)
