"""Means over images and paired differences, by data set, model and size bin: the content of a summary.json."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from nrh_dist.metrics import PSNR_CAP, SIZE_BINS, size_bin

ALL = "all"
WORSE, WORSE1 = 0.01, 1.0  # how much larger the output's MSE must be than the input's, on the 0..255 scale

Row = dict[str, Any]


def summarise(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One summary for each (data set, run), and for ``all`` where there are several data sets; in order of appearance.

    ``rows`` hold the columns of per_image.csv with None for an empty cell. A mean is over the images that have the
    value; null where none has.
    """
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    datasets = list(dict.fromkeys(row["dataset"] for row in rows))
    for row in rows:
        groups[row["dataset"], row["run"]].append(row)
        if len(datasets) > 1:
            groups[ALL, row["run"]].append(row)
    ordered = sorted(groups, key=lambda key: [*datasets, ALL].index(key[0]))
    return [_summary(dataset, groups[dataset, run]) for dataset, run in ordered]


def differences(rows: Sequence[Row], pairs: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """C_p - C_s image by image, for each data set and each of ``pairs``: the run of C_p, that of C_s.

    ``better1`` and ``worse1`` count the images whose MSE is lower or higher with the predicted mask by more than 1. A
    mean is over the images where both sides have the value; data sets as in ``summarise``.
    """
    by_run: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_run[row["run"]].append(row)
    found = []
    for run, true_masks_run in pairs:
        paired = [
            {"dataset": one["dataset"], **{name: _minus(one[name], other[name]) for name in ("mse", "psnr", "lpips")}}
            for one, other in zip(by_run[run], by_run[true_masks_run], strict=True)
        ]
        datasets = list(dict.fromkeys(row["dataset"] for row in paired))
        for dataset in [*datasets, *([ALL] if len(datasets) > 1 else [])]:
            chosen = [row for row in paired if dataset in (row["dataset"], ALL)]
            mse = [row["mse"] for row in chosen if row["mse"] is not None]
            found.append(
                {
                    "dataset": dataset,
                    "run": run,
                    "true_masks_run": true_masks_run,
                    "count": len(mse),
                    **{name: mean(row[name] for row in chosen) for name in ("mse", "psnr", "lpips")},
                    "better1": sum(value < -WORSE1 for value in mse),
                    "worse1": sum(value > WORSE1 for value in mse),
                }
            )
    return found


def _minus(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other


def _summary(dataset: str, rows: Sequence[Row]) -> dict[str, Any]:
    scored = [row for row in rows if row["mse"] is not None]
    bins: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        bins[size_bin(row["area_fraction"])].append(row)
    return {
        "dataset": dataset,
        "model": rows[0]["model"],
        "run": rows[0]["run"],
        "count": len(rows),
        "not_finite": len(rows) - len(scored),
        **{name: mean(row[name] for row in rows) for name in ("mse", "psnr", "fmse", "lpips")},
        "psnr_capped": sum(row["psnr"] >= PSNR_CAP for row in scored),
        "fmse_empty": sum(row["fmse"] is None for row in scored),
        "worse": mean(float(row["mse"] - row["identity_mse"] > WORSE) for row in scored),
        "worse1": mean(float(row["mse"] - row["identity_mse"] > WORSE1) for row in scored),
        "bins": [
            {
                "bin": SIZE_BINS[number],
                "count": len(bins[number]),
                **{name: mean(row[name] for row in bins[number]) for name in ("mse", "psnr", "identity_mse")},
            }
            for number in sorted(bins)
        ],
    }


def mean(values: Iterable[float | None]) -> float | None:
    """The mean of the values that are there, exactly rounded; None of none."""
    there = [value for value in values if value is not None]
    return math.fsum(there) / len(there) if there else None
