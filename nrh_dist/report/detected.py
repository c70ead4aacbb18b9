"""What the detector found, and what it was worth: the gain against the mean of its mask inside the object."""

from pathlib import Path

import numpy as np

from nrh_dist.report import bin_figures, bootstrap, figures
from nrh_dist.report.bin_figures import BinLines, Line
from nrh_dist.report.groups import Groups, ranked
from nrh_dist.report.parts import Picture
from nrh_dist.report.result import Result
from nrh_dist.report.sections import Section
from nrh_dist.report.shown import Analysis, Column, Row, Table
from nrh_dist.report.statistics import WORSE1, mean, median, share

FOUND = 0.5  # of the mask inside the object, on average: the image counts as detected
PARTS = 5


def analyse(section: Section, folder: Path) -> Analysis | None:
    """None where no run has a detector."""
    runs = [result for result in section.results if result.has("detected")]
    if not runs:
        return None
    shown = [overall(section, runs), gains(section, runs)]
    return Analysis("detected", "What the detector found", [], shown, _charts(section, runs, folder))


def overall(section: Section, runs: list[Result]) -> Table:
    """The mean of the detector's mask inside and outside the object, in percent."""
    columns = [
        Column("detected_percent", "mean", "inside the object, %", 1),
        Column("detected_median_percent", "median", "inside the object, %", 1),
        Column("detected_outside_percent", "mean", "outside, %", 1),
        Column("found_percent", f"above {FOUND:g} inside", "images, %", 1),
    ]
    rows = []
    for result in runs:
        inside, outside = result.detected, result.detected_outside
        cells = [100 * v for v in (mean(inside), median(inside), mean(outside), share(inside, FOUND))]
        rows.append(Row(section.labels[result.run], cells, "", result.model, result.run))
    notes = ["Of the detector’s mask M_p, 0 to 100 %; images with an empty mask are left out."]
    return Table(f"detected-{section.slug}", "The detector’s mask inside and outside the object", columns, rows, notes)


def gains(section: Section, runs: list[Result]) -> Table:
    """The change of MSE in fifths of the images by the mean of M_p inside the object."""
    columns = [
        Column("images", "Images", "", 0),
        Column("identity_mse", "MSE of the input"),
        Column("change", "mean", "MSE of the output − of the input"),
        Column("change_low", "95 % from", "MSE of the output − of the input"),
        Column("change_high", "to", "MSE of the output − of the input"),
        Column("better1_percent", "better by > 1", "images, %", 1),
        Column("worse1_percent", "worse by > 1", "images, %", 1),
    ]
    rows = []
    for result in runs:
        change = result.mse - result.identity_mse
        groups = _fifths(result)
        spread = groups.spread(change)
        found = bootstrap.means(result.photos, spread)
        before = groups.means(np.where(np.isnan(change), np.nan, result.identity_mse))
        for i, label in enumerate(groups.labels):
            shares = [100 * share(-spread[:, i], WORSE1), 100 * share(spread[:, i], WORSE1)]
            cells = [int(groups.counts(change)[i]), float(before[i]), found[i].value, *found[i].bounds, *shares]
            rows.append(Row(label, cells, section.labels[result.run], "", result.run))
    notes = [f"In fifths of each run’s images. Below 0 the output is better than the input. {bootstrap.NOTE}"]
    return Table(f"gain-{section.slug}", "Gain by the mean of M_p inside the object", columns, rows, notes)


def gain_lines(section: Section, runs: list[Result]) -> BinLines:
    """The change of MSE in percent over the mean of M_p, a point a fifth of the images."""
    lines = []
    for result in runs:
        groups = _fifths(result)
        x = groups.means(result.detected).tolist()
        values, counts = bin_figures.changes(result, groups), groups.counts(result.mse).tolist()
        lines.append(Line(section.labels[result.run], result.model, x, values, counts))
    axis = "mean of M_p inside the object"
    return BinLines([], lines, "Change of MSE against doing nothing, %", axis, True)


def _fifths(result: Result) -> Groups:
    return ranked(np.where(np.isnan(result.mse), np.nan, result.detected), PARTS)


def _charts(section: Section, runs: list[Result], folder: Path) -> list[Picture]:
    data = gain_lines(section, [result for result in runs if result.has("mse")])
    if not any(line.values for line in data.lines):
        return []
    file = f"figures/gain-{section.slug}.png"
    bin_figures.draw(data, folder / file)
    caption = (
        "Change of mean MSE against doing nothing over what the detector found, a point a fifth of each run’s images. "
        f"Bars: 95 % intervals. Hollow: fewer than {figures.FEW_IMAGES} images."
    )
    alt = f"{data.title} over the {data.axis} for {', '.join(line.label for line in data.lines)}. {caption}"
    return [Picture(file, alt, caption)]
