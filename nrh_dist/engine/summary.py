"""Means over images and paired differences, by data set, model and size bin: the content of a summary.json."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from nrh_dist.metrics import FIELD_BINS, PSNR_CAP, SIZE_BINS

ALL = "all"
WORSE, WORSE1 = 0.01, 1.0  # how much larger the output's MSE must be than the input's, on the 0..255 scale
MEANS = ("mse", "psnr", "fmse", "lpips")
DIFFERENCES = ("mse", "psnr", "lpips")
PROTOCOL = {
    "worse": f"output MSE - input MSE > {WORSE}",
    "worse1": f"output MSE - input MSE > {WORSE1:g}",
    "size_bin": "floor(10 x area fraction) of the full-size mask (>= 128)",
    "field_bin": "area fraction below 5 %, from 5 % below 15 %, from 15 % on, as DoveNet's tables have it",
    "identity": "doing nothing: output = input",
    "photos": "composites of one group: of one photo, told by its COCO id across sub-sets, or of one scene of "
    "Hday2night; intervals and tests are over photos",
}


class Images(NamedTuple):
    """What is known of N images whatever model sees them."""

    datasets: np.ndarray  # N names
    area_fractions: np.ndarray  # N in [0, 1]


class Scores(NamedTuple):
    """The numbers of one run: per column N float64, nan where one is not there."""

    run: str
    model: str
    values: Mapping[str, np.ndarray]


def summarise(images: Images, scores: Sequence[Scores]) -> list[dict[str, Any]]:
    """One summary for each (data set, run), and for ``all`` where there are several data sets; in order of appearance.

    A mean or median is over the images that have the value; null where none has.
    """
    return [
        _summary(dataset, one, chosen, images.area_fractions)
        for dataset, chosen in by_dataset(images.datasets)
        for one in scores
    ]


def differences(images: Images, scores: Sequence[Scores], pairs: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """C_p - C_s image by image, for each data set and each of ``pairs``: the run of C_p, that of C_s.

    ``better1`` and ``worse1`` count the images whose MSE is lower or higher with the predicted mask by more than 1. A
    mean is over the images where both sides have the value; data sets as in ``summarise``.
    """
    by_run = {one.run: one.values for one in scores}
    found = []
    for run, true_masks_run in pairs:
        difference = {name: by_run[run][name] - by_run[true_masks_run][name] for name in DIFFERENCES}
        for dataset, chosen in by_dataset(images.datasets):
            mse = difference["mse"][chosen]
            found.append(
                {
                    "dataset": dataset,
                    "run": run,
                    "true_masks_run": true_masks_run,
                    "count": int((~np.isnan(mse)).sum()),
                    **{name: mean(difference[name][chosen]) for name in DIFFERENCES},
                    "better1": int((mse < -WORSE1).sum()),
                    "worse1": int((mse > WORSE1).sum()),
                }
            )
    return found


def by_dataset(datasets: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Each data set with which of the N images are its own, in order of appearance; then ``all`` where several."""
    names = list(dict.fromkeys(datasets.tolist()))
    found = [(name, datasets == name) for name in names]
    return [*found, (ALL, np.ones(len(datasets), bool))] if len(names) > 1 else found


def _summary(dataset: str, one: Scores, chosen: np.ndarray, area_fractions: np.ndarray) -> dict[str, Any]:
    values = {name: column[chosen] for name, column in one.values.items()}
    areas = area_fractions[chosen]
    scored = ~np.isnan(values["mse"])
    change = (values["mse"] - values["identity_mse"])[scored]
    tenths = np.minimum(10 * areas, len(SIZE_BINS) - 1).astype(int)
    field = np.searchsorted(list(FIELD_BINS.values())[:-1], areas, side="right")
    return {
        "dataset": dataset,
        "model": one.model,
        "run": one.run,
        "count": len(areas),
        "not_finite": int((~scored).sum()),
        **{name: mean(values[name]) for name in MEANS},
        **{f"median_{name}": median(values[name]) for name in MEANS},
        "psnr_capped": int((values["psnr"][scored] >= PSNR_CAP).sum()),
        "fmse_empty": int((np.isnan(values["fmse"]) & scored).sum()),
        "worse": mean(change > WORSE),
        "worse1": mean(change > WORSE1),
        "bins": _bins(SIZE_BINS, tenths, values, ("mse", "psnr", "identity_mse")),
        "field_bins": _bins(tuple(FIELD_BINS), field, values, ("mse", "psnr", "fmse", "identity_mse")),
    }


def _bins(
    labels: Sequence[str], places: np.ndarray, values: Mapping[str, np.ndarray], names: Sequence[str]
) -> list[dict[str, Any]]:
    """The bins that hold images, with the means of ``names`` in each."""
    return [
        {
            "bin": labels[place],
            "count": int((places == place).sum()),
            **{name: mean(values[name][places == place]) for name in names},
        }
        for place in np.unique(places)
    ]


def mean(values: Iterable[float] | np.ndarray) -> float | None:
    """The mean of the values that are not nan, exactly rounded; None of none."""
    there = [float(value) for value in values if not math.isnan(value)]
    return math.fsum(there) / len(there) if there else None


def median(values: np.ndarray) -> float | None:
    """The median of the values that are not nan; None of none."""
    there = values[~np.isnan(values)]
    return float(np.median(there)) if len(there) else None
