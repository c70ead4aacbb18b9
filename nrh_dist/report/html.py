"""The report: one offline page with its tables and figures beside it. ``write`` is what ``nrh report`` calls."""

import os
import shutil
from dataclasses import dataclass
from itertools import groupby
from math import isnan
from pathlib import Path

import jinja2

from nrh_dist.errors import UserError
from nrh_dist.report import against as comparison
from nrh_dist.report import (
    detector_chapter,
    detector_collect,
    figures,
    paper,
    strips,
    sweep_chapter,
    sweep_collect,
    tables,
)
from nrh_dist.report.bootstrap import FEWEST_PHOTOS
from nrh_dist.report.collect import IDENTITY, Evaluation, read
from nrh_dist.report.detector_chapter import DetectorChapter
from nrh_dist.report.detector_collect import DetectorEvaluation
from nrh_dist.report.difference_chapter import MaskComparison, compare_masks
from nrh_dist.report.parts import Picture, number
from nrh_dist.report.sections import Section, sections
from nrh_dist.report.statistics import change, means
from nrh_dist.report.sweep_chapter import SweepChapter
from nrh_dist.report.tables import Table

GENERATOR = '<meta name="generator" content="nrh report">'
PARTS = {"index.html", "tables", "figures"}
MOVERS = 5  # images shown at each end of a comparison


@dataclass(frozen=True)
class Chapter:
    """What the page shows of one section."""

    section: Section
    headline: str
    detail: str
    tables: list[Table]
    masks: MaskComparison | None
    charts: list[Picture]
    strips: list[Picture]
    strips_note: str


def write(evaluations: list[Path], out: Path, against: Path | None = None) -> Path:
    """Write the report of these folders, of evaluations or sweeps, into ``out`` and return its ``index.html``.

    An earlier report in ``out`` is replaced as a whole; any other content is refused. Everything is written beside
    ``out`` first, so that a failure leaves ``out`` as it was. Raises ``UserError`` for folders that are neither or are
    damaged, and for an ``against`` that shares no image with them.
    """
    if not evaluations:
        raise UserError("a report needs at least one folder: give one that nrh evaluate or nrh tune wrote")
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
        tables.check_summary(evaluation)
    earlier = comparison.pairs(found, read(against)) if against else None
    partial = out.with_name(f".{out.name}.partial-{os.getpid()}")
    try:
        for folder in ("tables", "figures"):
            (partial / folder).mkdir(parents=True)
        chapters = [_chapter(section, partial) for section in sections(found)]
        detector_chapters = detector_chapter.chapters(detectors, partial)
        compared = _compare(*earlier, partial) if earlier else []
        sweep_chapters = sweep_chapter.chapters(sweeps, partial)
        page = render(chapters, detector_chapters, sweep_chapters, found, compared, against)
        (partial / "index.html").write_text(page, encoding="utf-8")
        _install(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return out / "index.html"


def headline(section: Section) -> tuple[str, str]:
    """One sentence that says what the best mask-free model did against doing nothing, and one with the numbers."""
    candidates = [r for r in section.results if r.model != IDENTITY and not isnan(means(r).mse)]
    mask_free = [r for r in candidates if r.model not in paper.SEES_THE_MASK]
    if not candidates:
        return (
            f"Doing nothing on {section.title} at {section.size} px: no model was evaluated",
            f"The input's own error is MSE {means(section.identity).mse:,.2f}.",
        )
    best = min(mask_free or candidates, key=lambda result: means(result).mse)
    values, identity, found = means(best), means(section.identity), change(best)
    label = section.labels[best.run]
    worse = f"with {100 * values.worse1:.0f}\N{NO-BREAK SPACE}% of the images made worse"
    if found is None:
        verdict = f"{label} changes untouched images of {section.title}, {worse}"
    elif found.verdict < 0:
        verdict = f"{label} beats doing nothing on {section.title}, {worse}"
    elif found.verdict > 0:
        verdict = f"{label} raises the error over doing nothing on {section.title}, {worse}"
    else:
        verdict = f"{label} cannot be told apart from doing nothing on {section.title}, {worse}"
    numbers = f"Mean MSE {values.mse:,.2f} against {identity.mse:,.2f} for the input"
    if found:
        numbers += f" ({_signed(100 * found.value)} %{_interval(found.interval, found.photos)})"
    numbers += f"; PSNR {values.psnr:.2f} against {identity.psnr:.2f} dB."
    if len(mask_free) > 1:
        numbers += f" Chosen here as the lowest MSE of {len(mask_free)} runs without the mask, so slightly flattered."
    if not mask_free:
        numbers += " This model is given the mask."
    return verdict, numbers


def _interval(interval: tuple[float, float] | None, photos: int) -> str:
    if interval is None:
        return f"; {photos} photos, too few for an interval: at least {FEWEST_PHOTOS} are needed"
    low, high = (_signed(100 * bound) for bound in interval)
    return f"; 95 % interval {low} to {high}, bootstrap over {photos:,} photos"


def _signed(value: float) -> str:
    return f"{value:+.1f}".replace("-", "−")


def _chapter(section: Section, folder: Path) -> Chapter:
    made = [tables.table_2(section), tables.table_3(section)]
    by_subset = tables.subsets(section)
    for table in (*made, by_subset):
        tables.write_csv(table, folder / "tables" / f"{table.name}.csv")
    if len(section.datasets) > 1:
        made.append(by_subset)
    pictures, note = _strips(section, folder)
    masks = compare_masks(section, folder)
    return Chapter(section, *headline(section), made, masks, _charts(section, folder), pictures, note)


def _charts(section: Section, folder: Path) -> list[Picture]:
    models = ", ".join(section.labels[result.run] for result in section.results)
    charts = []
    for relative in (False, True):
        data = figures.bin_lines(section, relative)
        if not data.lines or not any(data.counts):
            continue
        file = f"figures/bins{'-change' if relative else ''}-{section.slug}.png"
        figures.draw_bins(data, folder / file)
        caption = (
            "Change of mean MSE against doing nothing, by object size. Above the dashed line the model does harm."
            if relative
            else "Mean MSE by object size; dashed: doing nothing."
        )
        caption += f" Hollow: fewer than {figures.FEW_IMAGES} images."
        charts.append(
            Picture(file, f"{data.title} by size bin for {models}; the numbers are in the table above.", caption)
        )
    captions = {
        "change": "What each model did to each image. Blue: error lowered; orange: raised; grey: about the same.",
        "mse": f"Error of each image, values below {figures.LOWEST_MSE:g} drawn there. Dot: median; bar: quartiles.",
        "psnr": "PSNR of each image. Dot: median; bar: quartiles.",
        "lpips": "LPIPS of each image, lower is better. Dot: median; bar: quartiles.",
    }
    for quantity, caption in captions.items():
        ridges = figures.ridges(section, quantity)
        if not ridges.rows:
            continue
        file = f"figures/{quantity}-{section.slug}.png"
        figures.draw_ridges(ridges, folder / file)
        notes = "; ".join(f"{row.label}: {row.note}" for row in ridges.rows)
        charts.append(Picture(file, f"Histograms of {ridges.title} by model. {notes}.", caption))
    return charts


def _strips(section: Section, folder: Path) -> tuple[list[Picture], str]:
    if not section.strips or section.evaluation.strips is None:
        return [], "The evaluation holds no strips of these images."
    pictures = []
    for i, strip in enumerate(section.strips, start=1):
        file = f"figures/strip-{section.slug}-{i:02d}.png"
        strips.draw(strips.panels(section, strip), folder / file)
        errors = []
        for result in section.results:
            here = (result.datasets == strip.dataset) & (result.names == strip.name)
            errors += [f"{section.labels[result.run]} {number(float(mse), 1)}" for mse in result.mse[here]]
        caption = f"{strip.dataset}/{strip.name}. MSE: {', '.join(errors)}."
        alt = f"Composite, real photo and mask, then each model's output and its difference to the input. {caption}"
        pictures.append(Picture(file, alt, caption))
    return pictures, f"How the images were chosen: {section.evaluation.strips.rule}"


def _compare(found: list[comparison.Pair], left_out: int, folder: Path) -> list[Table]:
    models = comparison.by_model(found, left_out)
    for table in (models, comparison.by_image(found)):
        tables.write_csv(table, folder / "tables" / f"{table.name}.csv")
    return [models, comparison.by_image(found, MOVERS)]


def render(
    chapters: list[Chapter],
    detectors: list[DetectorChapter],
    sweeps: list[SweepChapter],
    evaluations: list[Evaluation],
    compared: list[Table],
    against: Path | None = None,
    has_tables: bool = True,
) -> str:
    """The page; ``has_tables`` says whether CSV files lie beside it in ``tables``."""
    made: list[Evaluation | DetectorEvaluation] = [*evaluations, *(chapter.evaluation for chapter in detectors)]
    field = [tables.masked_methods()]
    if not any(chapter.section.collection for chapter in chapters):
        field += tables.published()
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("nrh_dist", "report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    environment.globals.update(column_groups=_column_groups, starts_group=_starts_group)
    return environment.get_template("page.html").render(
        generator=GENERATOR,
        headlines=[*chapters, *detectors, *sweeps],
        chapters=chapters,
        detectors=detectors,
        sweeps=sweeps,
        has_tables=has_tables,
        evaluations=made,
        compared=compared,
        against=against,
        paper=paper,
        field=field,
        sizes=sorted({evaluation.size for evaluation in made}),
        limit=strips.DIFFERENCE_LIMIT,
    )


def _check_out(out: Path, inputs: list[Path]) -> None:
    for folder in inputs:
        if folder.resolve().is_relative_to(out):
            raise UserError(f"--out {out} holds {folder}, which a report would replace: give another folder")
    if not out.exists():
        return
    if not out.is_dir():
        raise UserError(f"--out {out} is a file: give a folder")
    names = {path.name for path in out.iterdir()}
    page = out / "index.html"
    ours = names <= PARTS and page.is_file() and GENERATOR in page.read_text(encoding="utf-8", errors="replace")
    if names and not ours:
        raise UserError(f"--out {out} holds files that are not a report of nrh: give a new or empty folder")


def _install(partial: Path, out: Path) -> None:
    """Put the finished report in the place of an earlier one."""
    if out.exists():
        earlier = out.with_name(f".{out.name}.earlier-{os.getpid()}")
        out.rename(earlier)
        partial.rename(out)
        shutil.rmtree(earlier)
    else:
        partial.rename(out)


def _column_groups(columns: list[tables.Column]) -> list[dict[str, object]]:
    """The headings above the columns: each group's title and how many neighbours it spans."""
    return [
        {"title": title, "span": len(list(found))} for title, found in groupby(columns, lambda column: column.group)
    ]


def _starts_group(columns: list[tables.Column], i: int) -> bool:
    return bool(columns[i].group) and (i == 0 or columns[i - 1].group != columns[i].group)
