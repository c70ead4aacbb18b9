"""Images in groups: by object size, in tenths or in the field's bins, by shift, by category, by sub-set, by a rank.

Bins of numbers are closed below and open above, the last one closed.
"""

from dataclasses import dataclass
from itertools import pairwise
from math import inf

import numpy as np

BINS = tuple(f"{low}-{low + 10}%" for low in range(0, 100, 10))
FIELD_EDGES = (0.0, 0.05, 0.15, 1.0)  # of the image: the bins of DoveNet and those after it
FIELD_BINS = ("0-5%", "5-15%", "15-100%")
SUB_THRESHOLD_STOPS = 0.22  # a smaller shift is one that people rarely see
STOPS = (-inf, -1.0, -0.5, -SUB_THRESHOLD_STOPS, 0.0, SUB_THRESHOLD_STOPS, 0.5, 1.0, inf)


@dataclass(frozen=True)
class Groups:
    """``index`` is the group of each of N images as a position in ``labels``; -1: in none, unknown."""

    labels: list[str]
    index: np.ndarray

    def counts(self, values: np.ndarray | None = None) -> np.ndarray:
        """The images of each group, or those of them that have a value."""
        chosen = self.index >= 0
        if values is not None:
            chosen = chosen & ~np.isnan(values)
        return np.bincount(self.index[chosen], minlength=len(self.labels))

    def means(self, values: np.ndarray) -> np.ndarray:
        """The mean of the values in each group that are not NaN; NaN without any.

        Weighted by ``counts(values)``, they give the mean of all values that are in a group.
        """
        chosen = (self.index >= 0) & ~np.isnan(values)
        sums = np.bincount(self.index[chosen], values[chosen], len(self.labels))
        counts = self.counts(values)
        return np.divide(sums, counts, out=np.full(len(counts), np.nan), where=counts > 0)

    def spread(self, values: np.ndarray) -> np.ndarray:
        """N x G: each image's value in the column of its group, NaN in all others."""
        return np.where(self.index[:, None] == np.arange(len(self.labels)), values[:, None], np.nan)


def size_bins(area_fraction: np.ndarray) -> np.ndarray:
    """The position in ``BINS`` of each area, floor(10 x area fraction), 1.0 in the last; -1 where it is unknown."""
    known = ~np.isnan(area_fraction)
    return np.where(known, np.minimum(10 * np.where(known, area_fraction, 0), 9).astype(int), -1)


def tenths(area_fraction: np.ndarray) -> Groups:
    """By the tenth of the image that the object covers, as in the paper."""
    return Groups([*BINS], size_bins(area_fraction))


def field_bins(area_fraction: np.ndarray) -> Groups:
    """By the three sizes of object that the field tells apart."""
    return Groups([*FIELD_BINS], _between(area_fraction, FIELD_EDGES))


def stops(shift_stops: np.ndarray) -> Groups:
    """By the shift of the object's mean L."""
    return Groups([_stops_label(low, high) for low, high in pairwise(STOPS)], _between(shift_stops, STOPS))


def words(values: np.ndarray) -> Groups:
    """By word, the most frequent first, equals by name; "" is unknown."""
    found, index, counts = np.unique(values, return_inverse=True, return_counts=True)
    order = [i for i in np.lexsort((found, -counts)) if found[i]]
    places = np.full(len(found), -1)
    places[order] = np.arange(len(order))
    return Groups([str(found[i]) for i in order], places[index])


def ranked(values: np.ndarray, parts: int) -> Groups:
    """In ``parts`` groups of about equal size by value; fewer where equal values stand at their borders."""
    known = values[~np.isnan(values)]
    if not len(known):
        return Groups([], np.full(len(values), -1))
    edges = np.unique(np.quantile(known, np.linspace(0, 1, parts + 1)))
    if len(edges) == 1:
        edges = np.repeat(edges, 2)
    labels = [f"{low:.3f}–{high:.3f}" for low, high in pairwise(edges)]
    return Groups(labels, _between(values, tuple(edges)))


def _between(values: np.ndarray, edges: tuple[float, ...]) -> np.ndarray:
    """Which bin each value is in; -1 where it is NaN or outside."""
    place = np.searchsorted(edges, values, side="right") - 1
    place[values == edges[-1]] = len(edges) - 2
    inside = ~np.isnan(values) & (place >= 0) & (place < len(edges) - 1)
    return np.where(inside, place, -1)


def _stops_label(low: float, high: float) -> str:
    over = f"from {low:g}" if high == inf else f"{low:g} to {high:g}"
    text = f"below {high:g}" if low == -inf else over
    return text.replace("-", "−")
