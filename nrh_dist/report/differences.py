"""C_p - C_s, image by image: one harmoniser given the predicted masks (C_p) and the true ones (C_s)."""

import csv
from dataclasses import dataclass
from math import isnan
from pathlib import Path

import numpy as np

from nrh_dist.report import bootstrap
from nrh_dist.report.bootstrap import Estimate
from nrh_dist.report.collect import TRUE_MASKS
from nrh_dist.report.groups import BINS, size_bins
from nrh_dist.report.result import Result
from nrh_dist.report.sections import Section
from nrh_dist.report.statistics import WORSE1, mean, share

TWO_STAGE = "two_stage"
CSV_COLUMNS = ("dataset", "name", "area_fraction", "mse_c_s", "mse_c_p", "difference", "psnr_difference",
               "lpips_difference", "run")  # fmt: skip


@dataclass(frozen=True)
class Pair:
    """What a two-stage model did (``predicted``, C_p) and its harmoniser with the true masks (``true``, C_s).

    Both hold the same images in the same order.
    """

    predicted: Result
    true: Result

    @property
    def run(self) -> str:
        return self.predicted.run

    def difference(self, metric: str) -> np.ndarray:
        """C_p - C_s of each image, NaN where a side has no value."""
        return getattr(self.predicted, metric) - getattr(self.true, metric)


@dataclass(frozen=True)
class Bin:
    """The differences of the images of one size bin, or of all: n images with both errors."""

    label: str
    count: int
    mse: Estimate
    psnr: float
    lpips: float
    better1: float
    worse1: float


def pairs(section: Section) -> list[Pair]:
    """Each two-stage run beside its ``-true-masks`` run, over the images that both have."""
    by_run = {result.run: result for result in section.results}
    found = []
    for result in section.results:
        true = by_run.get(result.run + TRUE_MASKS)
        if result.model == TWO_STAGE and true is not None:
            found.append(_aligned(result, true))
    return found


def by_bin(pair: Pair) -> list[Bin]:
    """All images, then each size bin that holds some. An image without an error on either side is in none of them."""
    both = ~np.isnan(pair.difference("mse"))
    bins = np.where(both, size_bins(pair.predicted.area_fraction), -1)
    groups = [("All", both), *((label, bins == i) for i, label in enumerate(BINS))]
    return [_bin(pair, label, chosen) for label, chosen in groups if label == "All" or chosen.any()]


def write_images(found: list[Pair], path: Path) -> None:
    """One line an image and two-stage run: the errors of both sides and C_p - C_s; an empty cell where unknown."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(CSV_COLUMNS)
        for pair in found:
            columns = [pair.predicted.area_fraction, pair.true.mse, pair.predicted.mse]
            columns += [pair.difference(metric) for metric in ("mse", "psnr", "lpips")]
            for i, name in enumerate(pair.predicted.names):
                cells = ["" if isnan(column[i]) else f"{column[i]:.6f}" for column in columns]
                writer.writerow([pair.predicted.datasets[i], name, *cells, pair.run])


def _aligned(one: Result, other: Result) -> Pair:
    places = {key: i for i, key in enumerate(zip(other.datasets, other.names, strict=True))}
    keys = list(zip(one.datasets, one.names, strict=True))
    chosen = [i for i, key in enumerate(keys) if key in places]
    return Pair(one.rows(chosen), other.rows([places[keys[i]] for i in chosen]))


def _bin(pair: Pair, label: str, chosen: np.ndarray) -> Bin:
    mse, count = pair.difference("mse"), int(chosen.sum())
    return Bin(
        label,
        count,
        bootstrap.mean(pair.predicted.photos, np.where(chosen, mse, np.nan)),
        mean(pair.difference("psnr")[chosen]),
        mean(pair.difference("lpips")[chosen]),
        share(-mse[chosen], WORSE1),
        share(mse[chosen], WORSE1),
    )
