"""By the size of the shift: what became of objects that were darkened or brightened by so many stops of mean L."""

from pathlib import Path

from nrh_dist.report import bin_figures
from nrh_dist.report.group_table import columns_of, rows_of
from nrh_dist.report.groups import SUB_THRESHOLD_STOPS, Groups, stops
from nrh_dist.report.sections import Section
from nrh_dist.report.shown import Analysis, Table

SHORT = ["< −1", "−1 to\n−0.5", "−0.5 to\n−0.22", "−0.22\nto 0", "0 to\n0.22", "0.22\nto 0.5", "0.5\nto 1", "≥ 1"]


def analyse(section: Section, folder: Path) -> Analysis | None:
    """None where no shift is known."""
    if not section.identity.has("shift_stops"):
        return None
    charts = bin_figures.charts(section, *drawn(section), "shift", "shift of mean L in stops", folder)
    return Analysis("shift", "By size of the shift", [], [table(section)], charts)


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


def drawn(section: Section) -> tuple[Groups, range]:
    """The groups, from the lowest with images to the highest."""
    groups = Groups(SHORT, stops(section.identity.shift_stops).index)
    filled = groups.counts().nonzero()[0]
    return groups, range(filled[0], filled[-1] + 1)
