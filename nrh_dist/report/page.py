"""The page as text: its parts put into the templates."""

import re
from dataclasses import dataclass, field
from itertools import groupby
from math import isnan
from pathlib import Path

import jinja2
import markupsafe

from nrh_dist.report import made, paper, protocol, strips
from nrh_dist.report.collect import Evaluation
from nrh_dist.report.detector_chapter import DetectorChapter
from nrh_dist.report.detector_collect import DetectorEvaluation
from nrh_dist.report.harmoniser_chapter import HarmoniserChapter
from nrh_dist.report.parts import Picture, number
from nrh_dist.report.shown import Column, Table
from nrh_dist.report.sweep_chapter import SweepChapter

GENERATOR = '<meta name="generator" content="nrh report">'
KINDS = {"csv": "CSV", "md": "Markdown", "tex": "LaTeX"}  # of the files beside the page that hold a table


@dataclass(frozen=True)
class Compared:
    """What changed against the evaluation in ``folder``: by model, and the images that changed most."""

    folder: Path
    protocol: str
    models: Table
    images: Table
    chart: Picture


@dataclass(frozen=True)
class Content:
    """What the page shows; ``published`` are the tables of others."""

    chapters: list[HarmoniserChapter] = field(default_factory=list)
    detectors: list[DetectorChapter] = field(default_factory=list)
    sweeps: list[SweepChapter] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)
    compared: Compared | None = None
    published: list[Table] = field(default_factory=list)
    command: str = ""


def render(content: Content, folder: Path | None = None) -> str:
    """The page; ``folder`` is where it will lie, with the files of its tables below ``tables``, if there are any."""
    evaluations: list[Evaluation | DetectorEvaluation] = [
        *content.evaluations,
        *(chapter.evaluation for chapter in content.detectors),
    ]
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("nrh_dist", "report/templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=number, order=_order, term=protocol.term, linked=_linked)
    environment.globals.update(
        column_groups=_column_groups,
        starts_group=_starts_group,
        downloads=lambda name: _downloads(name, folder),
        paper=paper,
        limit=strips.DIFFERENCE_LIMIT,
    )
    return environment.get_template("page.html").render(
        generator=GENERATOR,
        headlines=[*content.chapters, *content.detectors, *content.sweeps],
        kickers=_kickers(content),
        links=_links(content, bool(evaluations)),
        chapters=content.chapters,
        detectors=content.detectors,
        sweeps=content.sweeps,
        has_tables=folder is not None,
        evaluations=evaluations,
        compared=content.compared,
        field=content.published,
        sizes=sorted({evaluation.size for evaluation in evaluations}),
        command=content.command,
        facts=made.facts,
        evaluate_command=made.command,
    )


def _kickers(content: Content) -> list[str]:
    """What was judged, in a few words a chapter."""
    found = []
    for one in content.chapters:
        section = one.section
        place = f"{section.title} {section.evaluation.summary.split}"
        found.append(f"{place}, {len(section.identity):,} {section.kind} at {section.size} px")
    for chapter in content.detectors:
        evaluation = chapter.evaluation
        place = f"{chapter.title}, {evaluation.summary.split}"
        found.append(f"{place}, {chapter.images:,} images at {evaluation.size} px")
    return found + [f"{chapter.title}, {len(chapter.sweep.trials)} trials" for chapter in content.sweeps]


def _links(content: Content, has_evaluations: bool) -> list[tuple[str, str]]:
    """The addresses within the page, with their names."""
    found = [(one.section.slug, one.section.title) for one in content.chapters]
    found += [(one.slug, one.title) for one in content.detectors]
    found += [(one.slug, one.title) for one in content.sweeps]
    if content.compared:
        found.append(("against", "What changed"))
    if content.chapters:
        found.append(("context", "The field"))
    return [*found, ("made", "How this was made")] if has_evaluations else found


def _downloads(name: str, folder: Path | None) -> list[tuple[str, str]]:
    """The files beside the page that hold the table ``name``: their kinds and addresses."""
    files = [(kind, f"tables/{name}.{suffix}") for suffix, kind in KINDS.items()] if folder else []
    return [(kind, file) for kind, file in files if folder and (folder / file).is_file()]


def _order(value: float) -> str:
    """What a cell is sorted by; nothing where it is not available."""
    return "" if isnan(value) else repr(float(value))


def _linked(sentence: str) -> markupsafe.Markup:
    """The sentence, in which files of tables become links."""
    escaped = str(markupsafe.escape(sentence))
    return markupsafe.Markup(re.sub(r"tables/([\w.-]+\.csv)", r'<a href="tables/\1">\1</a>', escaped))


def _column_groups(columns: list[Column]) -> list[dict[str, object]]:
    """The headings above the columns: each group's title and how many neighbours it spans."""
    return [
        {"title": title, "span": len(list(found))} for title, found in groupby(columns, lambda column: column.group)
    ]


def _starts_group(columns: list[Column], i: int) -> bool:
    return bool(columns[i].group) and (i == 0 or columns[i - 1].group != columns[i].group)
