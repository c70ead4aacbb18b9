"""How sure a mean is: 95 % intervals by a bootstrap over photos.

Photos are drawn, not composites, because the composites of one photo are not independent. The draws depend on the
number of photos and the seed alone, so that all runs of a section, and all its groups of images, share them.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

FEWEST_PHOTOS = 10  # with fewer, a bootstrap over photos says nothing
DRAWS = 1000
BLOCK = 50  # draws at once: what fits into a processor's cache
QUANTILES = (0.025, 0.975)
NOTE = f"Intervals: 95 %, bootstrap over photos; none with fewer than {FEWEST_PHOTOS}."


@dataclass(frozen=True)
class Estimate:
    """A mean or a ratio of sums with its 95 % interval: None with too few photos."""

    value: float
    interval: tuple[float, float] | None
    photos: int

    @property
    def verdict(self) -> int:
        """-1: below 0, 1: above, 0: cannot be told from 0."""
        if self.interval is None:
            return 0
        low, high = self.interval
        return -1 if high < 0 else int(low > 0)

    @property
    def bounds(self) -> tuple[float, float]:
        """The interval; NaN without one."""
        return self.interval or (float("nan"), float("nan"))

    def scaled(self, factor: float, plus: float = 0.0) -> "Estimate":
        """The same in another unit: value x ``factor`` + ``plus``, with a ``factor`` above 0."""
        low, high = (factor * bound + plus for bound in self.bounds)
        return Estimate(factor * self.value + plus, (low, high) if self.interval else None, self.photos)


def ratios(photos: np.ndarray, above: np.ndarray, below: np.ndarray) -> list[Estimate]:
    """sum(above) / sum(below) for each of K columns, over the images where neither is NaN.

    ``photos`` are N numbers from 0, ``above`` and ``below`` N x K. A ratio is NaN where sum(below) is 0.
    """
    if not above.shape[1]:
        return []
    known = ~np.isnan(above) & ~np.isnan(below)
    total = int(photos.max()) + 1 if len(photos) else 0
    tops, bottoms, counts = (
        _by_photo(photos, values, total)
        for values in (np.where(known, above, 0), np.where(known, below, 0), known.astype(float))
    )
    values = _divided(tops.sum(0), bottoms.sum(0))
    seen = (counts > 0).sum(0)
    lows = highs = np.full(len(values), np.nan)
    if total >= FEWEST_PHOTOS:
        drawn = _drawn(np.concatenate([tops, bottoms], axis=1))
        lows, highs = _quantiles(_divided(*np.split(drawn, 2, axis=1)))
    return [
        Estimate(float(v), None if n < FEWEST_PHOTOS or np.isnan(v) else (float(low), float(high)), int(n))
        for v, low, high, n in zip(values, lows, highs, seen, strict=True)
    ]


def mean(photos: np.ndarray, values: np.ndarray) -> Estimate:
    """The mean of N values, those that are NaN left out."""
    return means(photos, values[:, None])[0]


def means(photos: np.ndarray, values: np.ndarray) -> list[Estimate]:
    """The mean of each of K columns of ``values``, N x K."""
    return ratios(photos, values, np.ones(values.shape))


def drawn_means(photos: np.ndarray, values: np.ndarray, draws: int = DRAWS) -> np.ndarray:
    """The means that ``means`` has in each draw: ``draws`` x K; NaN where a draw holds no value of a column."""
    known, total = ~np.isnan(values), int(photos.max()) + 1
    sums = [_by_photo(photos, one, total) for one in (np.where(known, values, 0), known.astype(float))]
    return _divided(*np.split(_drawn(np.concatenate(sums, axis=1), draws), 2, axis=1))


def _by_photo(photos: np.ndarray, values: np.ndarray, total: int) -> np.ndarray:
    """The sums of each column of ``values``, N x K, over the images of each photo: ``total`` x K."""
    return np.stack([np.bincount(photos, column, total) for column in values.T], axis=1)


def _drawn(sums: np.ndarray, draws: int = DRAWS) -> np.ndarray:
    """The sums over photos, P x K, of each draw: ``draws`` x K."""
    weights = _weights(len(sums), draws)
    return np.concatenate([weights[i : i + BLOCK].astype(float) @ sums for i in range(0, draws, BLOCK)])


@lru_cache(maxsize=2)
def _weights(photos: int, draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """How often each draw, with replacement, took each photo: ``draws`` x P, in bytes to stay small."""
    random = np.random.default_rng(seed)
    weights = np.empty((draws, photos), np.uint8)
    for i in range(0, draws, BLOCK):
        drawn = random.integers(photos, size=(BLOCK, photos)) + photos * np.arange(BLOCK)[:, None]
        weights[i : i + BLOCK] = np.bincount(drawn.ravel(), minlength=BLOCK * photos).reshape(BLOCK, photos)
    return weights


def _divided(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below != 0)


def _quantiles(drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The bounds of each column, NaN left out: a draw may hold no image of a small group."""
    bounds = np.full((2, drawn.shape[1]), np.nan)
    for i, column in enumerate(drawn.T):
        known = column[~np.isnan(column)]
        if len(known):
            bounds[:, i] = np.quantile(known, QUANTILES)
    return bounds[0], bounds[1]
