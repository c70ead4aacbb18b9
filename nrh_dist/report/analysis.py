"""What the page shows of a section: each analysis with its sentences, tables and charts, in the order of the page."""

from dataclasses import dataclass, field
from pathlib import Path

from nrh_dist.report import tables
from nrh_dist.report.difference_chapter import compare_masks
from nrh_dist.report.parts import Picture
from nrh_dist.report.sections import Section
from nrh_dist.report.tables import Table


@dataclass(frozen=True)
class Analysis:
    """``slug`` is unique within the section. ``tables`` and ``charts`` are already written."""

    slug: str
    title: str
    sentences: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    charts: list[Picture] = field(default_factory=list)


def analyses(section: Section, folder: Path) -> list[Analysis]:
    """The analyses that this section has data for; their files are written to ``tables`` and ``figures`` in ``folder``.

    Both folders must exist.
    """
    made = [Analysis("means", "Means", [], [tables.table_2(section)])]
    masks = compare_masks(section, folder)
    if masks:
        made.append(
            Analysis("masks", "The predicted mask against the true one", masks.sentences, masks.tables, masks.charts)
        )
    return made
