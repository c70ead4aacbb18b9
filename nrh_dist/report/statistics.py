"""Means over images: overall, by object size, and how sure they are. Everything is per image first, then averaged."""

from dataclasses import dataclass

import numpy as np

from nrh_dist.report.collect import Result

BINS = tuple(f"{low}-{low + 10}%" for low in range(0, 100, 10))
PSNR_CAP = 100.0  # dB, for outputs without any error
WORSE = 0.01  # dMSE = output - input, above which an image counts as changed for the worse
WORSE1 = 1.0  # the same for the headline
FEWEST_PHOTOS = 10  # with fewer, a bootstrap over photos says nothing


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
    """The images whose object covers this tenth of the image; NaN means where there are none."""

    label: str
    count: int
    mse: float
    identity_mse: float


@dataclass(frozen=True)
class Change:
    """Mean MSE against that of identity, as a ratio minus 1, with a 95 % interval (None with too few photos)."""

    ratio: float
    interval: tuple[float, float] | None
    photos: int

    @property
    def verdict(self) -> int:
        """-1: lower error than doing nothing, 1: higher, 0: cannot be told apart."""
        return _side(self.interval)


@dataclass(frozen=True)
class Difference:
    """A mean difference, image by image, with a 95 % interval (None with too few photos)."""

    mean: float
    interval: tuple[float, float] | None
    photos: int

    @property
    def verdict(self) -> int:
        """-1: below 0, 1: above, 0: cannot be told from 0."""
        return _side(self.interval)


def mean(values: np.ndarray) -> float:
    """The mean of the values that are not NaN; NaN without any."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float("nan")


def weighted_mean(values: np.ndarray, counts: np.ndarray) -> float:
    """sum(values x counts) / sum(counts) over the bins that hold images; NaN without any."""
    values, counts = np.asarray(values, float), np.asarray(counts)
    filled = counts > 0
    return float(values[filled] @ counts[filled] / counts[filled].sum()) if filled.any() else float("nan")


def means(result: Result) -> Means:
    """The means of Table 2 for one run."""
    has_fmse = not np.isnan(result.fmse).all()
    return Means(
        images=len(result),
        mse=mean(result.mse),
        psnr=mean(result.psnr),
        fmse=mean(result.fmse),
        lpips=mean(result.lpips),
        worse=worse_share(result, WORSE),
        worse1=worse_share(result, WORSE1),
        psnr_capped=int((result.psnr >= PSNR_CAP).sum()),
        fmse_empty=int(np.isnan(result.fmse).sum()) if has_fmse else 0,
        without_mse=int(np.isnan(result.mse).sum()),
    )


def worse_share(result: Result, threshold: float) -> float:
    """The share of images whose MSE rose by more than ``threshold`` over the input's. In [0, 1], NaN without images."""
    difference = result.mse - result.identity_mse
    difference = difference[~np.isnan(difference)]
    return float((difference > threshold).mean()) if len(difference) else float("nan")


def size_bins(area_fraction: np.ndarray) -> np.ndarray:
    """The position in ``BINS`` of each area, floor(10 x area fraction), 1.0 in the last; -1 where it is unknown."""
    known = ~np.isnan(area_fraction)
    return np.where(known, np.minimum(10 * np.where(known, area_fraction, 0), 9).astype(int), -1)


def by_bin(result: Result) -> list[Bin]:
    """Means by size bin; images without a value or an area are left out."""
    known = ~np.isnan(result.mse) & ~np.isnan(result.area_fraction)
    tenth = size_bins(result.area_fraction[known])
    mse, identity = result.mse[known], result.identity_mse[known]
    return [
        Bin(label, int((tenth == i).sum()), mean(mse[tenth == i]), mean(identity[tenth == i]))
        for i, label in enumerate(BINS)
    ]


def change(result: Result, seed: int = 0, draws: int = 1000) -> Change | None:
    """Mean MSE against identity's, with a 95 % interval over photos; None where identity has no error at all."""
    known = ~np.isnan(result.mse) & ~np.isnan(result.identity_mse)
    if result.identity_mse[known].sum() == 0:
        return None
    return Change(*_estimate(result, known, result.mse, result.identity_mse, -1.0, seed, draws))


def mean_difference(result: Result, values: np.ndarray, seed: int = 0, draws: int = 1000) -> Difference:
    """The mean of a value of each of ``result``'s images, with a 95 % interval over photos; NaN without any value."""
    known = ~np.isnan(values)
    if not known.any():
        return Difference(float("nan"), None, 0)
    return Difference(*_estimate(result, known, values, np.ones(len(values)), 0.0, seed, draws))


def _estimate(
    result: Result, known: np.ndarray, above: np.ndarray, below: np.ndarray, plus: float, seed: int, draws: int
) -> tuple[float, tuple[float, float] | None, int]:
    """sum(above) / sum(below) + plus over the ``known`` images, its 95 % bootstrap interval, the number of photos.

    Photos are drawn, not composites, because the composites of one photo are not independent. A photo is the part of
    the composite's name before the last two underscores.
    """
    photo_names = [
        f"{dataset}/{name.rsplit('_', 2)[0]}"
        for dataset, name in zip(result.datasets[known], result.names[known], strict=True)
    ]
    photos, index = np.unique(photo_names, return_inverse=True)
    top = np.bincount(index, above[known], len(photos))
    bottom = np.bincount(index, below[known], len(photos))
    value = float(top.sum() / bottom.sum()) + plus
    if len(photos) < FEWEST_PHOTOS:
        return value, None, len(photos)
    random = np.random.default_rng(seed)
    drawn = (random.integers(len(photos), size=len(photos)) for _ in range(draws))
    ratios = [top[chosen].sum() / bottom[chosen].sum() for chosen in drawn if bottom[chosen].any()]
    low, high = np.quantile(ratios, (0.025, 0.975)) + plus
    return value, (float(low), float(high)), len(photos)


def _side(interval: tuple[float, float] | None) -> int:
    if interval is None:
        return 0
    low, high = interval
    return -1 if high < 0 else int(low > 0)
