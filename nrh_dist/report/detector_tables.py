"""The tables of a detector evaluation: threshold errors beside those of a constant, and detection by offset."""

from math import isnan, nan

import numpy as np

from nrh_dist.report import paper
from nrh_dist.report.detector_collect import SIGNS, Curve, DetectorEvaluation, Estimate
from nrh_dist.report.parts import shortened
from nrh_dist.report.tables import Column, Row, Table

CONSTANT = "Constant"
PUBLISHED = "Published, other photos"
SIGN_TITLES = {
    "negative": "negative (object darkened)",
    "positive": "positive (object brightened)",
    "both": "both signs",
}
TRANSFORM_TITLES = {
    "exposure": "exposure",
    "white_balance": "white balance",
    "contrast": "contrast",
    "saturation": "saturation",
}
LONGEST_LABEL = 24  # characters, so that the widest table fits the page
SHOWN_OFFSETS = (-1.0, -0.5, -0.3, -0.2, -0.1, 0.0, 0.1, 0.2, 0.3, 0.5, 1.0)  # stops


def errors(evaluation: DetectorEvaluation, slug: str) -> Table:
    """By sign: mean absolute errors of the constant and of each detector, differences, rank correlations."""
    groups = ("mean absolute error, stops", "difference to the constant, stops", "rank correlation")
    columns: list[Column] = []
    for key, group, title, decimals in (
        ("error", groups[0], "error", 3),
        ("difference", groups[1], "difference", 3),
        ("rank_correlation", groups[2], "Spearman", 2),
    ):
        columns += [
            Column(key, title, group, decimals),
            Column(f"{key}_low", "95 % from", group, decimals),
            Column(f"{key}_high", "to", group, decimals),
        ]
    columns.append(Column("never_crossed", "crossed", "never", 0))
    rows = []
    for sign, words in SIGN_TITLES.items():
        first = evaluation.summary.detectors[0].errors(sign)
        title = f"{words}, {first.photos:,} photos"
        constant = [*_cells(first.of_constant()), *[nan] * 7]
        rows.append(Row(CONSTANT, constant, title, "constant"))
        for detector in evaluation.summary.detectors:
            entry = detector.errors(sign)
            cells = [
                cell for one in (entry.of_detector(), entry.of_difference(), entry.of_rank()) for cell in _cells(one)
            ]
            never = nan if entry.never_crossed is None else float(entry.never_crossed)
            better = frozenset({3}) if entry.of_difference().high < 0 else frozenset()
            label = shortened(detector.run, LONGEST_LABEL)
            rows.append(Row(label, [*cells, never], title, "detector", detector.run, bold=better))
    rows.append(Row(PUBLISHED, [paper.DETECTOR_ERROR, *[nan] * 9], rows[-1].group, "published", decimals=4))
    return Table(f"errors-{slug}", "Predicted against human thresholds", columns, rows, _notes(evaluation))


def thresholds(evaluation: DetectorEvaluation, slug: str) -> Table:
    """What people and each detector answer: mean, standard deviation and median of the thresholds of each sign."""
    columns = [
        Column(f"{sign}_{key}", title, f"{SIGN_TITLES[sign]}, stops", decimals)
        for sign in SIGNS
        for key, title, decimals in (
            ("images", "images", 0),
            ("mean", "mean", 3),
            ("deviation", "s.d.", 3),
            ("median", "median", 3),
        )
    ]
    rows = []
    if evaluation.summary.human.photos:
        people = evaluation.thresholds[0].human
        rows.append(Row("People", [cell for i in range(2) for cell in _spread(people[:, i])], "", "people"))
    for found in evaluation.thresholds:
        cells = [cell for i in range(2) for cell in _spread(found.predicted[:, i])]
        rows.append(Row(shortened(found.run, LONGEST_LABEL), cells, "", "detector", found.run))
    notes = ["The constant has no deviation. A deviation alone, without a rank correlation, is noise."]
    return Table(f"thresholds-{slug}", "The thresholds themselves", columns, rows, notes)


def detection(evaluation: DetectorEvaluation, slug: str) -> Table:
    """The share of images in which each detector sees a shift of some sizes, in percent; at 0: false alarms."""
    rows, columns = _by_offset(evaluation, "detection_rate", "detected_percent", 100, 0)
    notes = [
        "Detected: the mean probability of the right sign inside the mask is at least 0.5; unchanged: of either sign."
    ]
    return Table(f"detection-{slug}", "Images in which the shift is detected, %", columns, rows, notes)


def separation(evaluation: DetectorEvaluation, slug: str) -> Table:
    """The area under the ROC curve, shifted against unchanged images, for some sizes."""
    rows, columns = _by_offset(evaluation, "auc", "auc", 1, 2)
    notes = [
        "Area under the ROC curve of the mean probability of the right sign inside the mask: 1 tells all shifted "
        "images from all unchanged ones, 0.5 is chance."
    ]
    return Table(f"separation-{slug}", "Shifted against unchanged, whatever the threshold: AUC", columns, rows, notes)


def _by_offset(
    evaluation: DetectorEvaluation, measure: str, key: str, scale: float, decimals: int
) -> tuple[list[Row], list[Column]]:
    """A row a detector and transform, a column for each of the offsets that are shown and have a value."""
    curves = evaluation.curves
    shown = [offset for offset in SHOWN_OFFSETS if any(not isnan(value_at(curve, measure, offset)) for curve in curves)]
    low, high = ("darkened", "brightened") if evaluation.transforms == ["exposure"] else SIGNS
    columns = [Column("images", "Images", "", 0)]
    for offset in shown:
        group = f"{high}, stops" if offset > 0 else f"{low}, stops" if offset < 0 else "unchanged"
        title = f"{offset:+g}".replace("-", "−") if offset else "false alarms"
        columns.append(Column(f"{key}_at_{offset:g}", title, group, decimals))
    rows = []
    for transform in evaluation.transforms:
        group = transform_title(transform) if len(evaluation.transforms) > 1 else ""
        rows += [
            Row(
                shortened(curve.run, LONGEST_LABEL),
                [curve.images, *(scale * value_at(curve, measure, offset) for offset in shown)],
                group,
                "detector",
                curve.run,
            )
            for curve in curves
            if curve.transform == transform
        ]
    return rows, columns


def value_at(curve: Curve, measure: str, offset: float) -> float:
    """The measure at this offset, in [0, 1]; NaN where the curve has no such offset."""
    found = np.flatnonzero(np.isclose(curve.offsets, offset, atol=1e-6))
    return float(curve.values[measure][found[0]]) if len(found) else nan


def transform_title(transform: str) -> str:
    return TRANSFORM_TITLES.get(transform, transform)


def _spread(values: np.ndarray) -> list[float]:
    """How many values there are, their mean, standard deviation and median; NaN where there are none."""
    values = values[~np.isnan(values)]
    if not len(values):
        return [0.0, nan, nan, nan]
    deviation = float(values.std(ddof=1)) if len(values) > 1 else nan
    return [float(len(values)), float(values.mean()), deviation, float(np.median(values))]


def _cells(estimate: Estimate) -> list[float]:
    return [estimate.value, estimate.low, estimate.high]


def _notes(evaluation: DetectorEvaluation) -> list[str]:
    human = evaluation.summary.human
    if not human.photos:
        return ["No photo here has human thresholds: errors cannot be taken."]
    constant = human.constant
    notes = []
    if constant and None not in (constant.negative, constant.positive):
        values = " and ".join(f"{getattr(constant, sign):.3f}" for sign in SIGNS)
        notes.append(f"Constant: {values} stops (negative, positive) for every photo, {constant.source}.")
    return [
        *notes,
        "Difference: error of the detector − error of the constant on the same photos; bold where its interval lies "
        "below 0, that is better than the constant. Intervals: 95 %, bootstrap over photos. Never crossed: thresholds "
        "beyond 1 stop, counted as 1. A constant has no rank correlation.",
        f"Published: {paper.DETECTOR_ERROR:g} stops on other photos ({paper.DETECTOR_CITATION}), for orientation only.",
    ]
