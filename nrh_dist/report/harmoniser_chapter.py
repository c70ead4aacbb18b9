"""What the page shows of one section of a harmoniser evaluation: headline, analyses and strips."""

from dataclasses import dataclass
from math import isnan
from pathlib import Path

from nrh_dist.report import paper, protocol
from nrh_dist.report.analysis import Analysis, analyses
from nrh_dist.report.bootstrap import FEWEST_PHOTOS
from nrh_dist.report.collect import IDENTITY, Evaluation
from nrh_dist.report.gallery import Gallery, gallery
from nrh_dist.report.sections import Section, sections
from nrh_dist.report.statistics import change, means


@dataclass(frozen=True)
class HarmoniserChapter:
    """``protocols`` holds, by the name of a table, the line that says what its numbers are."""

    section: Section
    headline: str
    detail: str
    analyses: list[Analysis]
    protocols: dict[str, str]
    gallery: Gallery


def chapters(evaluations: list[Evaluation], folder: Path) -> list[HarmoniserChapter]:
    """A chapter for each section of the evaluations; tables and figures are written below ``folder``."""
    return [_chapter(section, folder) for section in sections(evaluations)]


def _chapter(section: Section, folder: Path) -> HarmoniserChapter:
    found = analyses(section, folder)
    lines = {table.name: protocol.line(section, table) for one in found for table in one.tables}
    return HarmoniserChapter(section, *headline(section), found, lines, gallery(section, folder))


def headline(section: Section) -> tuple[str, str]:
    """One sentence that says what the best mask-free model did against doing nothing, and one with the numbers."""
    candidates = [r for r in section.results if r.model != IDENTITY and not isnan(means(r).mse)]
    mask_free = [r for r in candidates if r.model not in paper.SEES_THE_MASK]
    if not candidates and len(section.results) > 1:
        return (
            f"No model gave a finite result on {section.title} at {section.size} px",
            f"The input's own error is MSE {means(section.identity).mse:,.2f}.",
        )
    if not candidates:
        return (
            f"Doing nothing on {section.title} at {section.size} px: no model was evaluated",
            f"The input's own error is MSE {means(section.identity).mse:,.2f}.",
        )
    rivals = mask_free or candidates
    best = min(rivals, key=lambda result: means(result).mse)
    values, identity, found = means(best), means(section.identity), change(best)
    label = section.labels[best.run]
    worse = f"with {100 * values.worse1:.0f}\N{NO-BREAK SPACE}% of the images made worse"
    if found is None and not values.mse:
        verdict = f"{label} leaves untouched images of {section.title} as they are"
    elif found is None:
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
    if len(rivals) > 1:
        which = "runs without the mask" if mask_free else "runs"
        numbers += f" Chosen here as the lowest MSE of {len(rivals)} {which}, so slightly flattered."
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
