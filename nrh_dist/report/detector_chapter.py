"""What the page shows of one detector evaluation: headline, tables, charts and the gallery."""

from dataclasses import dataclass
from math import isnan
from pathlib import Path

from nrh_dist.report import detector_figures as figures
from nrh_dist.report import detector_strips as strips
from nrh_dist.report import detector_tables as tables
from nrh_dist.report import table_files
from nrh_dist.report.detector_collect import Detector, DetectorEvaluation, DetectorStrip, Estimate, value
from nrh_dist.report.parts import Picture, free_slug, number, slug_of
from nrh_dist.report.shown import Table


@dataclass(frozen=True)
class DetectorChapter:
    evaluation: DetectorEvaluation
    title: str
    slug: str
    headline: str
    detail: str
    errors: list[Table]
    detection: list[Table]
    error_charts: list[Picture]
    detection_charts: list[Picture]
    strips: list[Picture]
    strips_note: str

    @property
    def images(self) -> int:
        return sum(self.evaluation.summary.datasets.values())

    @property
    def protocol(self) -> str:
        return protocol(self.evaluation)


def chapters(evaluations: list[DetectorEvaluation], folder: Path) -> list[DetectorChapter]:
    """A chapter an evaluation; its tables and figures are written below ``folder``."""
    found: list[DetectorChapter] = []
    for evaluation in evaluations:
        title = "Detectors on " + " + ".join(name for name, count in evaluation.summary.datasets.items() if count)
        taken = [one.slug for one in found]
        wanted = slug_of(title.replace(" on ", " "))
        slug = free_slug(wanted, taken)
        if wanted in taken:
            title = f"{title}, {evaluation.folder.resolve().name}"
        found.append(_chapter(evaluation, title, slug, folder))
    return found


def protocol(evaluation: DetectorEvaluation) -> str:
    """The line beside each table that says what its numbers were taken from."""
    summary = evaluation.summary
    counts = ", ".join(f"{name} {count:,}" for name, count in summary.datasets.items() if count)
    return f"{evaluation.size} × {evaluation.size} px; {summary.split} split of {counts} images."


def headline(evaluation: DetectorEvaluation) -> tuple[str, str]:
    """Whether the detectors beat the constant on these photos, in one sentence, and the numbers of each."""
    human, detectors = evaluation.summary.human, evaluation.summary.detectors
    photos = f"{human.photos:,} photo{'s' if human.photos != 1 else ''}"
    if not human.photos:
        return (
            f"No human thresholds here: whether {_these(detectors)} sees what people see cannot be said",
            "The curves show what is detected, not whether people would see it.",
        )
    better = [one for one in detectors if one.errors("both").of_difference().high < 0]
    if len(detectors) == 1:
        verdict = f"The detector {_verdict(detectors[0])} on {photos}"
    elif not better:
        verdict = f"None of {len(detectors)} detectors beats a constant threshold on {photos}"
    else:
        names = ", ".join(one.run for one in better)
        verdict = f"{len(better)} of {len(detectors)} detectors beat a constant threshold on {photos}: {names}"
    constant = detectors[0].errors("both").of_constant()
    source = f" ({human.constant.source})" if human.constant and human.constant.source else ""
    best = min(detectors, key=lambda one: (isnan(error := one.errors("both").of_detector().value), error))
    numbers = f"The constant{source} errs by {_stops(constant)}. {_numbers(best, len(detectors) > 1)}"
    return verdict, numbers


def _these(detectors: list[Detector]) -> str:
    return "the detector" if len(detectors) == 1 else f"any of {len(detectors)} detectors"


def _verdict(detector: Detector) -> str:
    difference = detector.errors("both").of_difference()
    if difference.high < 0:
        return "beats a constant threshold"
    if difference.low > 0:
        return "is worse than a constant threshold"
    if isnan(difference.low):
        return "has not been shown to beat a constant threshold"
    return "does no better than a constant threshold"


def _numbers(detector: Detector, chosen: bool) -> str:
    """The detector's numbers in words; ``chosen``: as the best of several."""
    name = f"The best of them, {detector.run}, chosen here and so slightly flattered," if chosen else "The detector"
    entry = detector.errors("both")
    difference, rank = entry.of_difference(), entry.of_rank()
    text = f"{name} errs by {_stops(entry.of_detector())}, a difference of {number(difference.value, 3, True)}"
    if isnan(difference.low):
        text += ", without an interval"
    else:
        text += f" (95 % interval {number(difference.low, 3, True)} to {number(difference.high, 3, True)})"
    if isnan(rank.value):
        return f"{text}; it has no rank correlation with people."
    text += f"; its rank correlation with people is {number(rank.value, 2)}"
    if not isnan(rank.low):
        text += f" ({number(rank.low, 2)} to {number(rank.high, 2)})"
        if rank.low <= 0 <= rank.high:
            text += ", which cannot be told from none"
    return f"{text}."


def _stops(estimate: Estimate) -> str:
    text = f"{number(estimate.value, 3)} stops"
    return text if isnan(estimate.low) else f"{text} ({number(estimate.low, 3)} to {number(estimate.high, 3)})"


def _chapter(evaluation: DetectorEvaluation, title: str, slug: str, folder: Path) -> DetectorChapter:
    human = evaluation.summary.human.photos > 0
    errors = [tables.errors(evaluation, slug)] if human else []
    errors.append(tables.thresholds(evaluation, slug))
    detection = [tables.detection(evaluation, slug), tables.separation(evaluation, slug)]
    for table in (*errors, *detection):
        table_files.write(table, folder / "tables", protocol(evaluation))
    return DetectorChapter(
        evaluation,
        title,
        slug,
        *headline(evaluation),
        errors,
        detection,
        _error_charts(evaluation, slug, folder) if human else [],
        _detection_charts(evaluation, slug, folder),
        *_strips(evaluation, slug, folder),
    )


def _error_charts(evaluation: DetectorEvaluation, slug: str, folder: Path) -> list[Picture]:
    file = f"figures/errors-{slug}.png"
    figures.draw_errors(figures.error_rows(evaluation), folder / file)
    caption = (
        "Errors of predicted thresholds, and their differences to the constant on the same photos; bars: 95 % "
        "intervals. A detector beats the constant where its bar on the right lies left of 0."
    )
    charts = [Picture(file, f"{caption} The numbers are in the table above.", caption)]
    for i, data in enumerate(figures.scatters(evaluation), start=1):
        file = f"figures/thresholds-{slug}-{i:02d}.png"
        figures.draw_scatter(data, folder / file)
        run = evaluation.summary.detectors[i - 1].run
        caption = f"{run}: predicted against human thresholds. On the solid line both agree; dashed: the constant."
        charts.append(Picture(file, caption, caption))
    return charts


def _detection_charts(evaluation: DetectorEvaluation, slug: str, folder: Path) -> list[Picture]:
    charts = []
    for transform in evaluation.transforms:
        data, areas = (figures.curves(evaluation, transform, measure) for measure in ("detection_rate", "auc"))
        alarms = ", ".join(f"{line.label} {number(100 * line.at_zero, 0)} %" for line in data.lines)
        file = f"figures/detection-{transform}-{slug}.png"
        figures.draw_detection(data, areas, folder / file)
        caption = (
            f"Above: share of images whose shift in {tables.transform_title(transform)} is detected. Hollow marks at "
            f"0: false alarms, of either sign ({alarms}). Below: how well shifted and unchanged objects are told "
            "apart, whatever the threshold (area under the ROC curve)."
        )
        charts.append(Picture(file, f"{caption} Some of its numbers are in the table above.", caption))
        file = f"figures/overlap-{transform}-{slug}.png"
        iou, soft_f1 = (figures.curves(evaluation, transform, measure) for measure in ("iou", "soft_f1"))
        figures.draw_overlap(iou, soft_f1, folder / file)
        caption = (
            f"Overlap of the detected region with the object, {tables.transform_title(transform)}, means over images."
        )
        charts.append(Picture(file, caption, caption))
    return charts


def _strips(evaluation: DetectorEvaluation, slug: str, folder: Path) -> tuple[list[Picture], str]:
    if evaluation.strips is None or not evaluation.strips.strips:
        return [], "The evaluation holds no strips."
    pictures = []
    for i, strip in enumerate(evaluation.strips.strips, start=1):
        file = f"figures/strip-{slug}-{i:02d}.png"
        strips.draw(strips.panels(evaluation, strip), folder / file)
        caption = f"{strip.dataset}/{strip.name}. {_thresholds(evaluation, strip)}"
        alt = f"The photo, its mask, the photo with the object shifted, and each detector's answer. {caption}"
        pictures.append(Picture(file, alt, caption))
    return pictures, f"How the images were chosen: {evaluation.strips.rule}"


def _thresholds(evaluation: DetectorEvaluation, strip: DetectorStrip) -> str:
    """The thresholds of people and detectors for one photo as signed offsets."""
    found = [("people", strip.human)] if strip.human else []
    found += [(one.run, strip.predicted[one.run]) for one in evaluation.summary.detectors if one.run in strip.predicted]
    texts = []
    for name, pair in found:
        signed = (sign * value(size) for sign, size in zip((-1, 1), pair, strict=True))
        texts.append(f"{name} {' and '.join(number(one, 2, True) for one in signed)}")
    return f"Thresholds in stops: {'; '.join(texts)}." if texts else "No thresholds of this photo."
