"""The statistics of a study: intervals by photo, differences between systems, orderings that hold.

All on values that are averaged over the seeds first, image by image, and then over images; the bootstrap draws photos,
as the composites of one photo are not independent. Each section says what it corrects for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from nrh_dist.report import bootstrap, paired
from nrh_dist.report.bootstrap import Estimate
from nrh_dist.report.statistics import is_worse
from nrh_dist.report.study.collect import IDENTITY, System, Test

DRAWS = 10_000  # so that corrected intervals have draws beyond them
LEVEL = 0.05
EDGES = (0.0, 0.1, 0.2, 0.3, 1.0)
BINS = ("0–10 %", "10–20 %", "20–30 %", "≥ 30 %")
FEWEST_JUDGED = 30  # photos; a smaller bin is shown, and not judged
FEWEST_SEEDS = 2  # for a claim
ORDER = ("dih_nm", "ptc_att_dih", "ptc_dih", "dih_m")  # the paper's, the worst first
PERSON = "person"


@dataclass(frozen=True)
class Group:
    """Some of the images of a test."""

    name: str
    chosen: np.ndarray
    photos: int

    @property
    def is_judged(self) -> bool:
        """Whether it has photos enough for a verdict."""
        return self.photos >= FEWEST_JUDGED


@dataclass(frozen=True)
class Difference:
    """``one`` - ``other`` in MSE: mean, interval and p, both corrected by Holm, and each seed's own mean."""

    one: str
    other: str
    value: float
    interval: tuple[float, float]
    by_seed: tuple[float, ...]
    p: float

    @property
    def holds(self) -> int:
        """What may be claimed: -1 ``one`` is better, 1 worse, 0 nothing.

        Something, if the interval excludes 0, no smaller p of the table failed, and all seeds, two at least, agree:
        what one training has over another is as much its seed's as its recipe's.
        """
        low, high = self.interval
        sign = -1 if high < 0 else int(low > 0)
        is_shown = self.p < LEVEL and len(self.by_seed) >= FEWEST_SEEDS
        return sign if is_shown and all(np.sign(value) == sign for value in self.by_seed) else 0


def size_groups(test: Test) -> list[Group]:
    """By the share of the image that the object covers."""
    place = np.clip(np.searchsorted(EDGES, test.area, side="right") - 1, 0, len(BINS) - 1)
    return [_group(test, name, place == number) for number, name in enumerate(BINS)]


def category_groups(test: Test) -> list[Group]:
    """Persons, and all else."""
    is_person = test.category == PERSON
    return [_group(test, "person", is_person), _group(test, "non-person", ~is_person & (test.category != ""))]


def _group(test: Test, name: str, chosen: np.ndarray) -> Group:
    return Group(name, chosen, len(np.unique(test.photos[chosen])))


def mean(test: Test, values: np.ndarray, chosen: np.ndarray | None = None) -> Estimate:
    """The mean of N values, or of those that are chosen, with its 95 % interval over photos."""
    if chosen is None:
        return bootstrap.mean(test.photos, values)
    if not chosen.any():
        return Estimate(float("nan"), None, 0)
    return bootstrap.mean(np.unique(test.photos[chosen], return_inverse=True)[1], values[chosen])


def worse1(test: Test, system: System) -> Estimate:
    """The share of images made worse by more than 1, the mean over seeds."""
    return mean(test, is_worse(system.mse, test.identity).mean(axis=0))


def macro(test: Test, system: System) -> Estimate:
    """The mean over categories of each one's mean MSE, whatever the number of its images."""
    names = [name for name in np.unique(test.category) if name]
    if not names:
        return Estimate(float("nan"), None, 0)
    inside = test.category[:, None] == np.array(names)
    values = np.where(inside, system.mean_mse[:, None], np.nan)
    value = float(np.nanmean(values, axis=0).mean())
    drawn = np.nanmean(bootstrap.drawn_means(test.photos, values), axis=1)
    return Estimate(value, _quantiles(drawn, LEVEL), len(np.unique(test.photos)))


def share_closed(test: Test, mse: np.ndarray) -> Estimate:
    """How much of (min(MSE of identity, of DIH-NM) - MSE of DIH-M) N errors close: 0 nothing, 1 as good as with a mask.

    NaN where DIH-M is not better than the better of the two: then there is no way to go. No interval where that is so
    in any draw.
    """
    rows = [test.identity, test.systems["dih_nm"].mean_mse, test.systems["dih_m"].mean_mse, mse]

    def closed(means: np.ndarray) -> np.ndarray:
        start = np.minimum(means[..., 0], means[..., 1])
        way = start - means[..., 2]
        return np.where(way > 0, start - means[..., 3], np.nan) / np.where(way > 0, way, 1)

    values = np.stack(rows, axis=1)
    drawn = closed(bootstrap.drawn_means(test.photos, values))
    interval = None if np.isnan(drawn).any() else _quantiles(drawn, LEVEL)
    return Estimate(float(closed(values.mean(axis=0))), interval, len(np.unique(test.photos)))


def differences(test: Test, pairs: Sequence[tuple[str, str]]) -> list[Difference]:
    """Of each pair in MSE, with intervals that are corrected by Holm for the number of pairs.

    Seed k of the one is held against seed k of the other. The k-th smallest p of m tests has the interval of level
    1 - 0.05 / (m - k + 1).
    """
    by_seed = [_by_seed(test, one, other) for one, other in pairs]
    values = np.stack([rows.mean(axis=0) for rows in by_seed], axis=1)
    drawn = bootstrap.drawn_means(test.photos, values, DRAWS)
    p = np.minimum(1.0, 2 * np.minimum((drawn <= 0).mean(axis=0), (drawn >= 0).mean(axis=0)) + 1 / DRAWS)
    corrected, levels = paired.holm(p), np.empty(len(pairs))
    for place, number in enumerate(np.argsort(p, kind="stable")):
        levels[number] = LEVEL / (len(pairs) - place)
    return [
        Difference(
            one,
            other,
            float(np.nanmean(values[:, number])),
            _quantiles(drawn[:, number], levels[number]),
            tuple(np.nanmean(by_seed[number], axis=1).tolist()),
            corrected[number],
        )
        for number, (one, other) in enumerate(pairs)
    ]


def ordering(test: Test) -> list[Difference]:
    """All pairs of the paper's four, the one that it has as the better one first."""
    return differences(test, [(better, worse) for worse, better in combinations(ORDER, 2)])


def against_identity(test: Test, names: Sequence[str]) -> list[Difference]:
    """Each of ``names`` against doing nothing."""
    return differences(test, [(name, IDENTITY) for name in names])


def _by_seed(test: Test, one: str, other: str) -> np.ndarray:
    """S x N: as many seeds as both have; doing nothing has none, and stands against all."""
    first, second = test.systems[one].mse, test.systems[other].mse
    seeds = len(first) if other == IDENTITY else min(len(first), len(second))
    return first[:seeds] - second[:seeds]


def _quantiles(drawn: np.ndarray, level: float) -> tuple[float, float]:
    known = drawn[~np.isnan(drawn)]
    low, high = np.quantile(known, (level / 2, 1 - level / 2)) if len(known) else (np.nan, np.nan)
    return float(low), float(high)
