"""Where things change: outside the object, at its edge, in its colour, and how much of the correction was made."""

from pathlib import Path

from nrh_dist.report.sections import Section
from nrh_dist.report.shown import Analysis, Column, Row, Table
from nrh_dist.report.statistics import mean, median

COLUMNS = (
    (Column("mse_outside", "outside the mask", "MSE"), 1),
    (Column("mse_edge", "along its edge", "MSE"), 1),
    (Column("chroma_drift", "drift of a, b inside", "CIE Lab"), 1),
    (Column("correction", "correction, median", "of the wanted change"), 1),
    (Column("change_outside", "outside the mask, %", "of the change made", 1), 100),
)


def analyse(section: Section, folder: Path) -> Analysis | None:
    """None where the evaluation measured none of it."""
    made = table(section)
    return Analysis("where", "Where things change", [], [made]) if made.columns else None


def table(section: Section) -> Table:
    """Means by run of what was measured, the median of the correction."""
    shown = [(c, factor) for c, factor in COLUMNS if any(result.has(c.key) for result in section.results)]
    rows = []
    for result in section.results:
        cells = []
        for column, factor in shown:
            middle = median if column.key == "correction" else mean
            cells.append(factor * middle(getattr(result, column.key)))
        rows.append(Row(section.labels[result.run], cells, "", result.model, result.run))
    notes = [
        "Outside the mask nothing should change: the input’s own error there is that of its file format. Edge: a band "
        "of 1/64 of the size to each side. Correction: 0 nothing, 1 all of what separates the input from the real "
        "photo inside the mask, above 1 too much, below 0 the wrong way; median, as images with next to nothing to "
        "correct have extreme values. Means are over the images that have the value."
    ]
    caption = "Where the output differs from the real photo and from the input"
    return Table(f"where-{section.slug}", caption, [column for column, _ in shown], rows, notes)
