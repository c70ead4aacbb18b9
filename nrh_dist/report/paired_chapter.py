"""Run against run on the same images: each against doing nothing, and against the best run without the mask."""

from dataclasses import dataclass
from pathlib import Path

from nrh_dist.report import bootstrap, difference_figures, figures, paired, paper
from nrh_dist.report.collect import TRUE_MASKS
from nrh_dist.report.paired import Paired
from nrh_dist.report.parts import Picture, shortened
from nrh_dist.report.result import IDENTITY, Result
from nrh_dist.report.sections import Section
from nrh_dist.report.shown import Analysis, Column, Row, Table
from nrh_dist.report.statistics import mean

LONGEST_LABEL = 22  # letters of a run in a chart's title
COLUMNS = [Column("images", "Images", "", 0), *paired.columns("difference in MSE")]


@dataclass(frozen=True)
class Comparison:
    """``one`` - ``other``."""

    one: Result
    other: Result
    found: Paired


def analyse(section: Section, folder: Path) -> Analysis | None:
    """None where no run can be compared."""
    found = comparisons(section)
    if not found:
        return None
    return Analysis("pairs", "Run against run", [], [table(section, found)], _charts(section, folder))


def best_without_the_mask(section: Section) -> Result | None:
    """The run with the lowest mean MSE of those that do not see the mask, doing nothing left aside."""
    runs = [r for r in section.results if r.has("mse") and r.model not in (IDENTITY, *paper.SEES_THE_MASK)]
    return min(runs, key=lambda result: mean(result.mse), default=None)


def comparisons(section: Section) -> list[Comparison]:
    """Each run against identity, then each other run against the best one without the mask."""
    runs = [result for result in section.results if result.model != IDENTITY and result.has("mse")]
    best = best_without_the_mask(section)
    pairs = [(run, section.identity) for run in runs]
    pairs += [(run, best) for run in runs if best is not None and run is not best]
    return [Comparison(one, other, paired.compare(one.photos, one.mse, other.mse)) for one, other in pairs]


def table(section: Section, found: list[Comparison]) -> Table:
    """Mean difference with interval, shares better and worse, and the tests corrected for their number."""
    rows = []
    for one, corrected in zip(found, paired.holm([one.found.p for one in found]), strict=True):
        against = section.labels[one.other.run]
        group = "against doing nothing" if one.other.model == IDENTITY else f"against {against}, the best without mask"
        cells = [one.found.images, *one.found.cells(), corrected]
        rows.append(Row(section.labels[one.one.run], cells, group, one.one.model, one.one.run))
    notes = [f"Below 0 the run has the lower error. {bootstrap.NOTE} {paired.NOTE}"]
    if any(one.other.model != IDENTITY for one in found):
        notes.append(
            "The best without mask was chosen on these images and so is slightly flattered, against doing nothing too."
        )
    caption = "Differences between runs, image by image"
    return Table(f"pairs-{section.slug}", caption, COLUMNS, rows, notes)


def _charts(section: Section, folder: Path) -> list[Picture]:
    best = best_without_the_mask(section)
    if best is None:
        return []
    masked = [r for r in section.results if r.model in paper.SEES_THE_MASK and not r.run.endswith(TRUE_MASKS)]
    charts = []
    for name, other in zip(("input", "masked"), [section.identity, *masked[:1]], strict=False):
        one, against = section.labels[best.run], "input" if name == "input" else section.labels[other.run]
        title = f"MSE of {shortened(one, LONGEST_LABEL)} − of {shortened(against, LONGEST_LABEL)}"
        data = difference_figures.of(best.mse - other.mse, best.area_fraction, "mse", title)
        if not len(data.values):
            continue
        file = f"figures/pairs-{name}-{section.slug}.png"
        difference_figures.draw(data, folder / file)
        said = (
            f"{one} against {'doing nothing' if name == 'input' else against}, a point an image, as in the paper’s "
            f"Figure 5. Blue: {one} has the lower error; orange: the higher; grey: by 1 at most; logarithmic beyond "
            f"±1. Bars: mean of a size bin, dashed with fewer than {figures.FEW_IMAGES} images."
        )
        charts.append(Picture(file, f"Scatter plot of {data.title} over the object's size. {said}", said))
    return charts
