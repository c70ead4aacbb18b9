"""Read and check the evaluation folders of detectors, as ``collect`` does those of harmonisers.

All thresholds and offsets are in stops. An empty or not finite value is NaN: "not available".
"""

import json
import re
from dataclasses import dataclass
from math import isfinite, nan
from pathlib import Path

import msgspec
import numpy as np

from nrh_dist.errors import UserError
from nrh_dist.report.collect import Checkpoint, check_pictures, number_in, read_csv, read_json
from nrh_dist.report.provenance import Provenance

KIND = "detector"
SIGNS = ("negative", "positive")
ALL_SIGNS = (*SIGNS, "both")
BETTER = "better than the constant"
MEASURES = ("detection_rate", "iou", "soft_f1", "mean_probability", "auc")
THRESHOLD_COLUMNS = (
    "dataset", "run", "name", "area_fraction", "human_negative", "human_positive", "predicted_negative",
    "predicted_positive", "never_negative", "never_positive",
)  # fmt: skip
OFFSET_COLUMNS = ("run", "transform", "offset_stops", "images", *MEASURES)
TOLERANCE = 1e-3  # stops, between a stated mean and that of the rows


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval; NaN where it is not available."""

    value: float
    low: float
    high: float


class SignErrors(msgspec.Struct):
    """How far a detector's thresholds of one sign are from the human ones, beside those of a constant."""

    sign: str
    photos: int
    error: float | None
    error_low: float | None
    error_high: float | None
    constant_error: float | None
    constant_low: float | None
    constant_high: float | None
    difference: float | None
    difference_low: float | None
    difference_high: float | None
    rank_correlation: float | None
    rank_low: float | None
    rank_high: float | None
    never_crossed: int | None

    def of_detector(self) -> Estimate:
        return Estimate(value(self.error), value(self.error_low), value(self.error_high))

    def of_constant(self) -> Estimate:
        return Estimate(value(self.constant_error), value(self.constant_low), value(self.constant_high))

    def of_difference(self) -> Estimate:
        return Estimate(value(self.difference), value(self.difference_low), value(self.difference_high))

    def of_rank(self) -> Estimate:
        return Estimate(value(self.rank_correlation), value(self.rank_low), value(self.rank_high))


class Detector(msgspec.Struct):
    """One run's entry; ``thresholds`` holds each of ``ALL_SIGNS`` once."""

    run: str
    transforms: list[str]
    images: int
    thresholds: list[SignErrors]
    verdict: str

    def errors(self, sign: str) -> SignErrors:
        return next(entry for entry in self.thresholds if entry.sign == sign)


class Constant(msgspec.Struct):
    """The thresholds that the constant predicts for every photo, and where they come from."""

    negative: float | None = None
    positive: float | None = None
    source: str = ""


class Human(msgspec.Struct):
    """``photos`` have human thresholds; 0: there are none, and every error is null."""

    photos: int
    constant: Constant | None = None


class DetectorSummary(msgspec.Struct):
    """``summary.json`` of a detector evaluation."""

    size: int
    data: str
    split: str
    protocol: dict[str, str]
    datasets: dict[str, int]
    human: Human
    detectors: list[Detector]
    pack: str | None = None
    checkpoints: list[Checkpoint] = []


@dataclass(frozen=True)
class Thresholds:
    """One detector's thresholds for n images: (n, 2) arrays of the two signs, magnitudes in stops."""

    run: str
    datasets: np.ndarray
    names: np.ndarray
    human: np.ndarray
    predicted: np.ndarray
    never: np.ndarray


@dataclass(frozen=True)
class Curve:
    """What one detector makes of one transform over ascending ``offsets`` in stops; NaN where a value is missing.

    ``values`` has each of ``MEASURES``, in [0, 1]; ``images`` is the largest number of images of any offset.
    """

    run: str
    transform: str
    images: int
    offsets: np.ndarray
    values: dict[str, np.ndarray]


class DetectorImages(msgspec.Struct):
    photo: str
    mask: str
    shifted: list[str]
    detected: dict[str, list[str]]


class DetectorStrip(msgspec.Struct):
    """One photo's pictures, as file names in ``strips/``; ``predicted`` and ``detected`` by run."""

    dataset: str
    name: str
    offsets: list[float]
    images: DetectorImages
    human: tuple[float | None, float | None] | None = None
    predicted: dict[str, tuple[float | None, float | None]] = {}


class DetectorStrips(msgspec.Struct):
    rule: str
    strips: list[DetectorStrip]


@dataclass(frozen=True)
class DetectorEvaluation:
    """A detector evaluation folder; ``thresholds`` are in the order of ``summary.detectors``, so are the ``curves``."""

    folder: Path
    summary: DetectorSummary
    thresholds: list[Thresholds]
    curves: list[Curve]
    strips: DetectorStrips | None
    provenance: Provenance | None = None

    @property
    def size(self) -> int:
        return self.summary.size

    @property
    def transforms(self) -> list[str]:
        """The transforms that have curves, in the file's order."""
        return list(dict.fromkeys(curve.transform for curve in self.curves))


def value(number: float | None) -> float:
    """The number, NaN for None and for what is not finite."""
    return number if number is not None and isfinite(number) else nan


def is_detector(folder: Path) -> bool:
    """Whether ``summary.json`` says that this folder evaluates detectors; a damaged or missing file does not."""
    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(summary, dict) and summary.get("kind") == KIND


def read(folder: Path) -> DetectorEvaluation:
    """The detector evaluation in ``folder``; ``UserError`` where a file is missing, damaged or contradicts another."""
    for name in ("summary.json", "thresholds.csv", "offsets.csv"):
        if not (folder / name).is_file():
            raise UserError(f"{folder} is a detector evaluation without {name}: make the evaluation again")
    summary = read_json(folder / "summary.json", DetectorSummary)
    _check_summary(folder / "summary.json", summary)
    rows = _read_thresholds(folder / "thresholds.csv")
    curves = _read_curves(folder / "offsets.csv")
    runs = [detector.run for detector in summary.detectors]
    _check_runs(folder / "thresholds.csv", runs, set(rows))
    _check_runs(folder / "offsets.csv", runs, {curve.run for curve in curves})
    for detector in summary.detectors:
        _check_rows(folder, summary, detector, rows[detector.run])
    file = folder / "strips" / "strips.json"
    strips = read_json(file, DetectorStrips) if file.is_file() else None
    if strips:
        _check_strips(file, strips)
    thresholds = [rows[run] for run in runs]
    made = folder / "provenance.json"
    provenance = read_json(made, Provenance) if made.is_file() else None
    return DetectorEvaluation(
        folder,
        summary,
        thresholds,
        sorted(curves, key=lambda curve: runs.index(curve.run)),
        strips,
        provenance,
    )


def _check_summary(path: Path, summary: DetectorSummary) -> None:
    runs = [detector.run for detector in summary.detectors]
    if not runs or len(set(runs)) < len(runs):
        raise UserError(f"{path} must name each detector once, but names {runs}: make the evaluation again")
    for detector in summary.detectors:
        signs = [entry.sign for entry in detector.thresholds]
        if sorted(signs) != sorted(ALL_SIGNS):
            raise UserError(
                f"{path} must have the thresholds {', '.join(ALL_SIGNS)} of {detector.run}, but has "
                f"{', '.join(signs) or 'none'}: make the evaluation again"
            )
        if (detector.verdict == BETTER) != (detector.errors("both").of_difference().high < 0):
            raise UserError(
                f"{path} says of {detector.run} '{detector.verdict}', but its difference to the constant reaches up to "
                f"{detector.errors('both').difference_high}: make the evaluation again"
            )


def _read_thresholds(path: Path) -> dict[str, Thresholds]:
    """The rows by run; each image once a run."""
    found: dict[str, dict[tuple[str, str], list[float]]] = {}
    for where, row in read_csv(path, THRESHOLD_COLUMNS):
        dataset, run, name, *cells = row
        images = found.setdefault(run, {})
        if (dataset, name) in images:
            raise UserError(f"{where} repeats {dataset}/{name} of run {run}: make the evaluation again")
        images[dataset, name] = [number_in(cell, where) for cell in cells]
    thresholds = {}
    for run, images in found.items():
        datasets, names = (np.array(part) for part in zip(*images, strict=True))
        numbers = np.array(list(images.values()))  # n x 7: the area, then three pairs of signs
        thresholds[run] = Thresholds(run, datasets, names, numbers[:, 1:3], numbers[:, 3:5], numbers[:, 5:7] == 1)
    return thresholds


def _read_curves(path: Path) -> list[Curve]:
    found: dict[tuple[str, str], dict[float, list[float]]] = {}
    for where, row in read_csv(path, OFFSET_COLUMNS):
        run, transform, *cells = row
        offset, *numbers = (number_in(cell, where) for cell in cells)
        offsets = found.setdefault((run, transform), {})
        if not re.fullmatch("[a-z0-9_]+", transform):
            raise UserError(f"{where} has the transform '{transform}', which is no name: make the evaluation again")
        if np.isnan(offset) or offset in offsets:
            raise UserError(
                f"{where} must have an offset of its own, but has '{cells[0]}' of {transform}, run {run}: "
                "make the evaluation again"
            )
        offsets[offset] = numbers
    curves = []
    for (run, transform), rows in found.items():
        images, *columns = np.array([rows[offset] for offset in sorted(rows)]).T
        most = 0 if np.isnan(images).all() else int(np.nanmax(images))
        measures = dict(zip(MEASURES, columns, strict=True))
        curves.append(Curve(run, transform, most, np.array(sorted(rows)), measures))
    return curves


def _check_runs(path: Path, runs: list[str], found: set[str]) -> None:
    if found != set(runs):
        raise UserError(
            f"{path} must have rows of {', '.join(sorted(runs))}, but has those of "
            f"{', '.join(sorted(found)) or 'none'}: make the evaluation again"
        )


def _check_rows(folder: Path, summary: DetectorSummary, detector: Detector, rows: Thresholds) -> None:
    """Raise ``UserError`` where the rows are not as many as ``summary.json`` says, or give another mean error."""
    counts = dict(zip(*np.unique(rows.datasets, return_counts=True), strict=True))
    for dataset in sorted(summary.datasets.keys() | counts.keys()):
        expected, here = summary.datasets.get(dataset, 0), int(counts.get(dataset, 0))
        if expected != here:
            raise UserError(
                f"{folder}: summary.json has {expected} images of {dataset}, but thresholds.csv has {here} of run "
                f"{detector.run}: make the evaluation again"
            )
    for i, sign in enumerate(SIGNS):
        stated = value(detector.errors(sign).error)
        errors = np.abs(rows.predicted[:, i] - rows.human[:, i])
        errors = errors[~np.isnan(errors)]
        ours = float(errors.mean()) if len(errors) else nan
        if np.isnan(stated) != np.isnan(ours) or abs(stated - ours) > TOLERANCE:
            raise UserError(
                f"{folder}: summary.json states a {sign} error of {stated:.4f} stops for run {detector.run}, but "
                f"thresholds.csv gives {ours:.4f}: make the evaluation again"
            )


def _check_strips(path: Path, strips: DetectorStrips) -> None:
    for strip in strips.strips:
        images = strip.images
        rows = [images.shifted, *images.detected.values()]
        if any(len(row) != len(strip.offsets) for row in rows) or not strip.offsets:
            raise UserError(
                f"{path} must have a picture for each of the {len(strip.offsets)} offsets of {strip.name}, but has "
                f"{', '.join(str(len(row)) for row in rows)}: make the evaluation again"
            )
        check_pictures(path, [images.photo, images.mask, *(name for row in rows for name in row)])
