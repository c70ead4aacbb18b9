"""The report: one offline page with its tables and figures beside it. ``write`` is what ``nrh report`` calls."""

import os
import shutil
from pathlib import Path

from nrh_dist.errors import UserError
from nrh_dist.report import against as comparison
from nrh_dist.report import (
    detector_chapter,
    detector_collect,
    files,
    harmoniser_chapter,
    made,
    sweep_chapter,
    sweep_collect,
    table_files,
    tables,
)
from nrh_dist.report.checks import check_summary
from nrh_dist.report.collect import Evaluation, read
from nrh_dist.report.harmoniser_chapter import HarmoniserChapter
from nrh_dist.report.page import GENERATOR, Compared, Content, render
from nrh_dist.report.shown import Table

PARTS = {"index.html", "tables", "figures"}
MOVERS = 5  # images shown at each end of a comparison


@files.explained()
def write(evaluations: list[Path], out: Path, against: Path | None = None) -> Path:
    """Write the report of these folders, of evaluations or sweeps, into ``out`` and return its ``index.html``.

    An earlier report in ``out`` is replaced as a whole; any other content is refused. Everything is written beside
    ``out`` first, so that a failure leaves ``out`` as it was. Raises ``UserError`` for folders that are neither or are
    damaged, for an ``against`` that shares no image with them, and for what cannot be read or written.
    """
    if not evaluations:
        raise UserError("a report needs at least one folder: give one that nrh evaluate or nrh tune wrote")
    command = made.report_command(evaluations, out, against)
    out = out.resolve()
    _check_out(out, [*evaluations, *([against] if against else [])])
    sweeps = [sweep_collect.read(one) for one in evaluations if sweep_collect.is_sweep(one)]
    evaluations = [one for one in evaluations if not sweep_collect.is_sweep(one)]
    detectors = [detector_collect.read(one) for one in evaluations if detector_collect.is_detector(one)]
    found = [read(folder) for folder in evaluations if not detector_collect.is_detector(folder)]
    if against and (detector_collect.is_detector(against) or not found):
        raise UserError(
            f"--against {against} compares evaluations of harmonisers, not of detectors or sweeps: leave it out"
        )
    for evaluation in found:
        check_summary(evaluation)
    earlier = read(against) if against else None
    pairs = comparison.pairs(found, earlier) if earlier else None
    partial = out.with_name(f".{out.name}.partial-{os.getpid()}")
    try:
        for folder in ("tables", "figures"):
            (partial / folder).mkdir(parents=True)
        chapters = harmoniser_chapter.chapters(found, partial)
        content = Content(
            chapters=chapters,
            detectors=detector_chapter.chapters(detectors, partial),
            sweeps=sweep_chapter.chapters(sweeps, partial),
            evaluations=found,
            compared=_compare(earlier, *pairs, partial) if earlier and pairs else None,
            published=_published(chapters, partial),
            command=command,
        )
        (partial / "index.html").write_text(render(content, partial), encoding="utf-8")
        files.install(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return out / "index.html"


def _compare(earlier: Evaluation, found: list[comparison.Pair], left_out: int, folder: Path) -> Compared:
    summary, places = earlier.summary, len({(pair.dataset, pair.name) for pair in found})
    protocol = (
        f"{earlier.size} × {earlier.size} px; {summary.split} split, the {places:,} images of both evaluations; MSE of "
        "each image on the 0–255 scale, then means."
    )
    models = comparison.by_model(found, left_out)
    table_files.write(models, folder / "tables", protocol)
    table_files.write_csv(comparison.by_image(found), folder / "tables" / "against-images.csv")
    movers, chart = comparison.by_image(found, MOVERS), comparison.chart(found, folder)
    return Compared(earlier.folder, protocol, models, movers, chart)


def _published(chapters: list[HarmoniserChapter], folder: Path) -> list[Table]:
    """What others have published: the paper's own tables where no chapter shows its numbers beside ours."""
    if not chapters:
        return []
    shown = any(chapter.section.collection for chapter in chapters)
    found = [tables.masked_methods(), *([] if shown else tables.published())]
    for table in found:
        table_files.write(table, folder / "tables")
    return found


def _check_out(out: Path, inputs: list[Path]) -> None:
    for folder in inputs:
        if folder.resolve().is_relative_to(out):
            raise UserError(f"--out {out} holds {folder}, which a report would replace: give another folder")
    if os.path.ismount(out):
        raise UserError(f"--out {out} is a mount point, which cannot be replaced: give a folder below it")
    if not out.exists():
        return
    if not out.is_dir():
        raise UserError(f"--out {out} is a file: give a folder")
    names = {path.name for path in out.iterdir()}
    page = out / "index.html"
    ours = names <= PARTS and page.is_file() and GENERATOR in page.read_text(encoding="utf-8", errors="replace")
    if names and not ours:
        raise UserError(f"--out {out} holds files that are not a report of nrh: give a new or empty folder")
