"""An evaluation's summary.json as plain lines for a terminal."""

from collections.abc import Sequence
from typing import Any

from nrh_dist.engine.summary import WORSE1

Values = dict[str, Any]
NONE = "-"
SHOWN_OFFSETS = (-1.0, -0.5, -0.24, 0.0, 0.24, 0.5, 1.0)  # stops; people notice about 0.24
METRICS = (("mse", "MSE", 2), ("psnr", "PSNR", 2), ("fmse", "fMSE", 2), ("lpips", "LPIPS", 4))  # key, title, decimals


def lines(summary: Values) -> list[str]:
    """The means of every run as an aligned table, and the paper's Table 1 where two_stage was scored.

    ``summary`` is the content of summary.json: ``size``, ``split``, ``models`` and ``differences``.
    """
    means, found = summary["models"], summary["differences"]
    several = len({row["dataset"] for row in means}) > 1
    made = [f"means over the images of the {summary['split']} list at {summary['size']} px"]
    header = ["data set", "model", "run", "images", *(title for _, title, _ in METRICS), f"worse by >{WORSE1:g}"]
    made += _aligned(header, [_mean_cells(row) for row in means], words=3, several=several)
    made += [
        f"{row['run']}: {row['not_finite']} images of {row['dataset']} without a finite value, left out of its means"
        for row in means
        if row["not_finite"]
    ]
    if not found:
        return made
    made += ["", "one harmoniser given the true masks (C_s) and the predicted ones (C_p), as in the paper's Table 1"]
    columns = [(key, title, decimals) for key, title, decimals in METRICS if key != "fmse"]
    header = ["data set", "", "run", "images", *(title for _, title, _ in columns), "better by >1", "worse by >1"]
    by_run = {(row["dataset"], row["run"]): row for row in means}
    rows = []
    for difference in found:
        dataset = difference["dataset"]
        for label, run in (("C_s", difference["true_masks_run"]), ("C_p", difference["run"])):
            row = by_run[dataset, run]
            numbers = [_number(row[key], decimals) for key, _, decimals in columns]
            rows.append([dataset, label, run, f"{row['count']:,}", *numbers, "", ""])
        numbers = [_number(difference[key], decimals, "+") for key, _, decimals in columns]
        counts = [f"{difference[key]:,}" for key in ("count", "better1", "worse1")]
        rows.append([dataset, "C_p - C_s", "", counts[0], *numbers, *counts[1:]])
    return made + _aligned(header, rows, words=3, several=several)


def detector_lines(summary: Values, offsets: Sequence[Values]) -> list[str]:
    """What every detector sees, its errors beside the constant's as an aligned table, and what they mean.

    ``summary`` is the content of a detector evaluation's summary.json, ``offsets`` are the rows of its offsets.csv.
    """
    human, found = summary["human"], summary["detectors"]
    place = f"of the {summary['split']} list at {summary['size']} px"
    made = [f"objects detected, of {found[0]['images']} {place}; AUC: shifted against unchanged, 0.5 is chance"]
    header = ["run", "transform", "stops", "detected", "AUC"]
    shown = [_offset_cells(row) for row in offsets if row["offset_stops"] in SHOWN_OFFSETS]
    made += _aligned(["", *header], shown, words=3, several=False)
    if not human["photos"]:
        return [*made, "no human thresholds for these photos: --thresholds names a CSV file of them"]
    made += ["", f"error of predicted thresholds in stops, {human['photos']} photos {place}"]
    header = ["", "run", "sign", "error", "95 % from", "to", "rank correlation", "never crossed"]
    rows = []
    for number, entry in enumerate(found[0]["thresholds"]):
        bounds = (entry["constant_error"], entry["constant_low"], entry["constant_high"])
        rows.append(["", "constant", entry["sign"], *(_number(value, 4) for value in bounds), NONE, NONE])
        for detector in found:
            entry = detector["thresholds"][number]
            values = (entry["error"], entry["error_low"], entry["error_high"], entry["rank_correlation"])
            numbers = [_number(value, 4) for value in values]
            rows.append(["", detector["run"], entry["sign"], *numbers, f"{entry['never_crossed']:,}"])
    made += _aligned(header, rows, words=3, several=False)
    return [
        *made,
        f"the constant: {human['constant']['source']}",
        *(f"{one['run']}: {one['verdict']}" for one in found),
    ]


def _offset_cells(row: Values) -> list[str]:
    stops = f"{row['offset_stops']:+g}" if row["offset_stops"] else "unchanged"
    return ["", row["run"], row["transform"], stops, f"{100 * row['detection_rate']:.0f} %", _number(row["auc"], 3)]


def _mean_cells(row: Values) -> list[str]:
    numbers = [_number(row[key], decimals) for key, _, decimals in METRICS]
    worse = None if row["worse1"] is None else 100 * row["worse1"]
    share = f"{_number(worse, 1)} %" if worse is not None and row["model"] != "identity" else NONE
    return [row["dataset"], row["model"], row["run"], f"{row['count']:,}", *numbers, share]


def _number(value: float | None, decimals: int, sign: str = "") -> str:
    return NONE if value is None else f"{value:{sign},.{decimals}f}"


def _aligned(header: Sequence[str], rows: Sequence[Sequence[str]], words: int, several: bool) -> list[str]:
    """Columns as wide as their longest cell, the first ``words`` to the left; the first, data set, if ``several``."""
    start = 0 if several else 1
    table = [row[start:] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(
            f"{cell:{'<' if i < words - start else '>'}{width}}"
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]
