"""By category of the object, where the data set knows it."""

from pathlib import Path

from nrh_dist.report.group_table import columns_of, rows_of
from nrh_dist.report.groups import words
from nrh_dist.report.sections import Section
from nrh_dist.report.shown import Analysis, Table

MOST = 20  # categories on the page


def analyse(section: Section, folder: Path) -> Analysis | None:
    """None where no category is known."""
    if not (section.identity.category != "").any():
        return None
    return Analysis("categories", "By category", [], [table(section)])


def table(section: Section) -> Table:
    """MSE by category, the most frequent first."""
    groups = words(section.identity.category)
    rows = rows_of(section, groups, "category, most frequent first")
    notes = ["Change: against the input, of the same images."]
    unknown = int((groups.index < 0).sum())
    if unknown:
        notes.append(f"{unknown:,} images without a known category are left out.")
    columns = columns_of(section)
    return Table(f"categories-{section.slug}", "MSE by category of the object", columns, rows, notes, MOST + 1)
