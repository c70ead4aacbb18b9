"""By the size of the shift: what became of objects that were darkened or brightened by so many stops of mean L."""

from pathlib import Path

from nrh_dist.report import bin_figures
from nrh_dist.report.bin_figures import BinLines
from nrh_dist.report.group_table import columns_of, rows_of
from nrh_dist.report.groups import SUB_THRESHOLD_STOPS, Groups, stops
from nrh_dist.report.parts import Picture
from nrh_dist.report.sections import Section
from nrh_dist.report.shown import Analysis, Table
from nrh_dist.report.size_chapter import caption, names

SHORT = ["< −1", "−1 to\n−0.5", "−0.5 to\n−0.22", "−0.22\nto 0", "0 to\n0.22", "0.22\nto 0.5", "0.5\nto 1", "≥ 1"]


def analyse(section: Section, folder: Path) -> Analysis | None:
    """None where no shift is known."""
    if not section.identity.has("shift_stops"):
        return None
    return Analysis("shift", "By size of the shift", [], [table(section)], _charts(section, folder))


def table(section: Section) -> Table:
    """MSE by shift in stops; the two bins around 0 hold what people rarely see."""
    groups = stops(section.identity.shift_stops)
    middle = len(groups.labels) // 2
    named = [f"{one}, sub-threshold" if i in (middle - 1, middle) else one for i, one in enumerate(groups.labels)]
    rows = rows_of(section, Groups(named, groups.index), "shift of the object’s mean L, in stops")
    notes = [
        "Below 0 the object was darkened, above 0 brightened. Sub-threshold: by less than "
        f"{SUB_THRESHOLD_STOPS} stops, which people rarely see. Change: against the input, of the same images."
    ]
    unknown = int((groups.index < 0).sum())
    if unknown:
        notes.append(f"{unknown:,} images without a known shift are left out.")
    return Table(f"shift-{section.slug}", "MSE by size of the shift", columns_of(section), rows, notes)


def lines(section: Section, relative: bool) -> BinLines:
    """MSE by shift, or its change, from the lowest bin with images to the highest."""
    groups = Groups(SHORT, stops(section.identity.shift_stops).index)
    filled = groups.counts().nonzero()[0]
    shown = range(filled[0], filled[-1] + 1)
    return bin_figures.bin_lines(section, groups, shown, "shift of mean L in stops", relative)


def _charts(section: Section, folder: Path) -> list[Picture]:
    charts = []
    for relative in (False, True):
        data = lines(section, relative)
        if not data.lines:
            continue
        file = f"figures/shift{'-change' if relative else ''}-{section.slug}.png"
        bin_figures.draw(data, folder / file)
        charts.append(Picture(file, f"{data.title} by shift for {names(data)}.", caption(relative, "shift in stops")))
    return charts
