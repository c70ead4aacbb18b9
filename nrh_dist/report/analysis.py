"""What the page shows of a section: each analysis with its sentences, tables and charts, in the order of the page."""

from pathlib import Path

from nrh_dist.report import (
    categories,
    detected,
    difference_chapter,
    distributions,
    failure_table,
    means_chapter,
    paired_chapter,
    protocol,
    shift,
    size_chapter,
    table_files,
    where,
)
from nrh_dist.report.sections import Section
from nrh_dist.report.shown import Analysis

CHAPTERS = (
    means_chapter,
    paired_chapter,
    size_chapter,
    shift,
    categories,
    where,
    detected,
    failure_table,
    difference_chapter,
    distributions,
)


def analyses(section: Section, folder: Path) -> list[Analysis]:
    """The analyses that this section has data for; their files are written to ``tables`` and ``figures`` in ``folder``.

    Both folders must exist. Of a long table the page shows ``Table.head()``.
    """
    found = [made for made in (chapter.analyse(section, folder) for chapter in CHAPTERS) if made]
    for table in (table for one in found for table in one.tables):
        table_files.write(table, folder / "tables", protocol.line(section, table))
    return found
