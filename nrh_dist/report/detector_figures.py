"""The figures of a detector evaluation: each one's data is computed in one function and drawn in another."""

from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from nrh_dist.report import figures, paper
from nrh_dist.report.detector_collect import SIGNS, DetectorEvaluation, Estimate, value
from nrh_dist.report.detector_tables import CONSTANT, transform_title
from nrh_dist.report.parts import number, shortened

# Okabe and Ito's colours; people and the constant are grey and black.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
CONSTANT_COLOUR, PEOPLE_COLOUR = "#555555", "#000000"
STYLES = ("-", "--", "-.", ":")
MEDIAN_STYLE: dict[str, Any] = {"color": PEOPLE_COLOUR, "linestyle": (0, (1, 2)), "linewidth": 1.3}
SMALL = 8.5  # points
DIRECTIONS = {
    "exposure": ("darkened", "brightened"),
    "white_balance": ("cooler", "warmer"),
    "saturation": ("less saturated", "more saturated"),
    "contrast": ("less contrast", "more contrast"),
}


@dataclass(frozen=True)
class ErrorRow:
    """One detector, or the constant, and one sign: error and, but for the constant, difference; both in stops."""

    label: str
    detector: int | None
    error: Estimate
    difference: Estimate | None


@dataclass(frozen=True)
class CurveLine:
    """``values`` over ``offsets`` without offset 0, whose value is ``at_zero``; NaN where there is none."""

    label: str
    detector: int
    offsets: np.ndarray
    values: np.ndarray
    at_zero: float


@dataclass(frozen=True)
class Curves:
    """One measure of all detectors under one transform; ``medians`` are the human ones, signed, in stops."""

    transform: str
    measure: str
    images: int
    lines: list[CurveLine]
    medians: list[float]


@dataclass(frozen=True)
class SignPoints:
    """One sign's photos that have a human threshold; ``constant`` is what the constant says, NaN without."""

    sign: str
    human: np.ndarray
    predicted: np.ndarray
    never: np.ndarray
    constant: float
    rank: Estimate


@dataclass(frozen=True)
class Scatter:
    """One detector's thresholds against the human ones; ``human_limit`` is common to all detectors."""

    label: str
    detector: int
    signs: list[SignPoints]
    human_limit: float


def error_rows(evaluation: DetectorEvaluation) -> dict[str, list[ErrorRow]]:
    """By sign, the constant first: both, negative, positive."""
    found = {}
    for sign in ("both", *SIGNS):
        entries = [detector.errors(sign) for detector in evaluation.summary.detectors]
        found[sign] = [ErrorRow(CONSTANT.lower(), None, entries[0].of_constant(), None)] + [
            ErrorRow(shortened(detector.run, 20), i, entry.of_detector(), entry.of_difference())
            for i, (detector, entry) in enumerate(zip(evaluation.summary.detectors, entries, strict=True))
        ]
    return found


def curves(evaluation: DetectorEvaluation, transform: str, measure: str) -> Curves:
    """``measure`` over the offsets of ``transform``; human medians for exposure, the only transform they exist for."""
    runs = [detector.run for detector in evaluation.summary.detectors]
    lines, images = [], 0
    for curve in evaluation.curves:
        if curve.transform != transform:
            continue
        zero = np.isclose(curve.offsets, 0, atol=1e-6)
        at_zero = float(curve.values[measure][zero][0]) if zero.any() else float("nan")
        offsets, values = curve.offsets[~zero], curve.values[measure][~zero]
        lines.append(CurveLine(shortened(curve.run), runs.index(curve.run), offsets, values, at_zero))
        images = max(images, curve.images)
    medians = human_medians(evaluation) if transform == "exposure" else []
    return Curves(transform, measure, images, lines, medians)


def human_medians(evaluation: DetectorEvaluation) -> list[float]:
    """The medians of the human thresholds as signed offsets, negative and positive; without any: none."""
    found = []
    for i, sign in enumerate((-1, 1)):
        human = evaluation.thresholds[0].human[:, i]
        human = human[~np.isnan(human)]
        if len(human):
            found.append(sign * float(np.median(human)))
    return found


def scatters(evaluation: DetectorEvaluation) -> list[Scatter]:
    """One for each detector; none without human thresholds."""
    human = np.concatenate([one.human.ravel() for one in evaluation.thresholds])
    human = human[~np.isnan(human)]
    if not len(human):
        return []
    limit = float(np.ceil(10 * human.max() + 0.2) / 10)
    constant = evaluation.summary.human.constant
    found = []
    for i, (detector, rows) in enumerate(zip(evaluation.summary.detectors, evaluation.thresholds, strict=True)):
        signs = []
        for j, sign in enumerate(SIGNS):
            known = ~np.isnan(rows.human[:, j]) & ~np.isnan(rows.predicted[:, j])
            points = (rows.human[known, j], rows.predicted[known, j], rows.never[known, j])
            guess = value(getattr(constant, sign)) if constant else float("nan")
            signs.append(SignPoints(sign, *points, guess, detector.errors(sign).of_rank()))
        found.append(Scatter(shortened(detector.run), i, signs, limit))
    return found


@matplotlib.rc_context(figures.STYLE)
def draw_errors(rows: dict[str, list[ErrorRow]], path: Path) -> None:
    """Left: errors with the published one; right: differences to the constant, better left of 0."""
    lines = sum(len(found) + 1 for found in rows.values())
    figure = Figure((figures.WIDTH, 1.35 + 0.2 * lines), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    y, ticks = 0.0, []
    for sign, found in rows.items():
        left.annotate(
            sign,
            (0, y),
            (-4, 0),
            ("axes fraction", "data"),
            "offset points",
            ha="right",
            va="center",
            style="italic",
            fontsize=SMALL,
        )
        for row in found:
            y -= 1
            ticks.append((y, row.label))
            colour = CONSTANT_COLOUR if row.detector is None else _colour(row.detector)
            _interval(left, row.error, y, colour, "s" if row.detector is None else "o")
            if row.difference:
                _interval(right, row.difference, y, colour, "o")
        y -= 1.2
    published = left.plot([paper.DETECTOR_ERROR] * 2, [0.4, y + 0.7], "--", color=PEOPLE_COLOUR, linewidth=1.2)
    left.set_yticks([place for place, _ in ticks], [label for _, label in ticks], fontsize=SMALL)
    left.set_ylim(y + 0.7, 0.5)
    left.set_xlim(left=0)
    right.axvline(0, color=CONSTANT_COLOUR, linewidth=1)
    for axes, title in ((left, "mean absolute error"), (right, "difference to constant")):
        axes.set_title(title, fontsize=9)
        axes.tick_params(axis="y", length=0)
        axes.tick_params(axis="x", labelsize=SMALL)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.grid(axis="x", color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines["left"].set_visible(False)
    left.set_xlabel("stops", fontsize=SMALL)
    right.set_xlabel("stops; left of 0: better", fontsize=SMALL)
    names = [f"published, other photos ({paper.DETECTOR_ERROR})"]
    figure.legend(published, names, loc="outside lower center", ncols=2, frameon=False, fontsize=SMALL)
    _save(figure, path)


@matplotlib.rc_context(figures.STYLE)
def draw_detection(rates: Curves, areas: Curves, path: Path) -> None:
    """The psychometric curves above, the areas under the ROC curve below; false alarms at 0 stand apart."""
    figure = Figure((figures.WIDTH, 5.3 + 0.2 * len(rates.lines)), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    _lines(above, rates, 100)
    above.axhline(50, color="#aaaaaa", linewidth=0.8)
    above.set_ylabel("images detected, %")
    above.set_ylim(-4, 104)
    above.set_title(f"Detection of a shift in {transform_title(rates.transform)}, {rates.images:,} images")
    _lines(below, areas, 1)
    below.axhline(0.5, color="#aaaaaa", linewidth=0.8)
    below.set_ylabel("AUC, 0.5 is chance")
    below.set_ylim(0.28, 1.03)
    names = [f"{line.label}: false alarms {_percent(line.at_zero)}" for line in rates.lines]
    _legend(figure, rates, names)
    _offsets_axis(below, rates.transform)
    _save(figure, path)


@matplotlib.rc_context(figures.STYLE)
def draw_overlap(iou: Curves, soft_f1: Curves, path: Path) -> None:
    """How well the detected region covers the object: IoU above, soft F1 below."""
    figure = Figure((figures.WIDTH, 4.1 + 0.2 * len(iou.lines)), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    for axes, data, title in ((above, iou, "IoU"), (below, soft_f1, "soft F1")):
        _lines(axes, data, 1)
        axes.set_ylim(-0.04, 1.04)
        axes.set_ylabel(f"mean {title}")
    above.set_title(f"Overlap with the object, {transform_title(iou.transform)}, {iou.images:,} images")
    _legend(figure, iou, [line.label for line in iou.lines])
    _offsets_axis(below, iou.transform)
    _save(figure, path)


@matplotlib.rc_context(figures.STYLE)
def draw_scatter(data: Scatter, path: Path) -> None:
    """A panel a sign: a point a photo, the diagonal (perfect), the constant; never crossed: triangles at 1."""
    figure = Figure((figures.WIDTH, 4.3), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    colour = _colour(data.detector)
    for axes, points in zip(panels, data.signs, strict=True):
        top = max(1.0, data.human_limit)
        axes.plot([0, top], [0, top], color=PEOPLE_COLOUR, linewidth=1, label="predicted = human")
        if not isnan(points.constant):
            axes.axhline(points.constant, color=CONSTANT_COLOUR, linestyle="--", linewidth=1.2, label="constant")
        crossed = ~points.never
        shared: dict[str, Any] = {"color": colour, "alpha": 0.6, "linestyle": "none"}
        axes.plot(points.human[crossed], points.predicted[crossed], "o", markersize=4.5, label="a photo", **shared)
        never = (points.human[points.never], points.predicted[points.never])
        axes.plot(*never, "^", markersize=6, markerfacecolor="none", label="never crossed, counted as 1", **shared)
        axes.set_xlim(0, data.human_limit)
        axes.set_ylim(-0.03, 1.06)
        axes.set_xlabel("human threshold, stops")
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        word = dict(zip(SIGNS, DIRECTIONS["exposure"], strict=True))[points.sign]
        rank = f"rank correlation {number(points.rank.value, 2)}"
        if not isnan(points.rank.low):
            rank += f"\n({number(points.rank.low, 2)} to {number(points.rank.high, 2)})"
        axes.set_title(
            f"{points.sign}: {word}\n{len(points.human):,} photos, {int(points.never.sum())} never crossed\n{rank}",
            fontsize=9,
        )
    panels[0].set_ylabel("predicted threshold, stops")
    figure.suptitle(data.label, fontsize=10, x=0.02, ha="left")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=SMALL)
    _save(figure, path)


def _lines(axes: Axes, data: Curves, scale: float) -> None:
    """The curves on either side of 0, a mark at 0, and the human medians as vertical lines."""
    for line in data.lines:
        style, mark = _style(line.detector), _mark(line.detector)
        for side in (line.offsets < 0, line.offsets > 0):
            axes.plot(line.offsets[side], scale * line.values[side], **style)
        axes.plot([0], [scale * line.at_zero], zorder=3, clip_on=False, **mark)
    for median in data.medians:
        axes.axvline(median, **MEDIAN_STYLE)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)


def _legend(figure: Figure, data: Curves, names: list[str]) -> None:
    """Below the axes, one entry a row: each detector as line and, of detection, mark, and the human medians."""
    marked = data.measure == "detection_rate"
    handles = [
        Line2D([], [], **(_mark(line.detector) if marked else {}) | _style(line.detector)) for line in data.lines
    ]
    if data.medians:
        handles.append(Line2D([], [], **MEDIAN_STYLE))
        names = [*names, f"median human thresholds: {' and '.join(number(one, 2, True) for one in data.medians)}"]
    figure.legend(handles, names, loc="outside lower left", frameon=False, fontsize=9, handlelength=3)


def _style(detector: int) -> dict[str, Any]:
    return {"color": _colour(detector), "linestyle": STYLES[detector % len(STYLES)], "linewidth": 1.7}


def _mark(detector: int) -> dict[str, Any]:
    """The hollow mark of offset 0."""
    shape = figures.MARKERS[detector % len(figures.MARKERS)]
    return {
        "color": _colour(detector),
        "linestyle": "none",
        "marker": shape,
        "markerfacecolor": "white",
        "markersize": 6,
    }


def _offsets_axis(axes: Axes, transform: str) -> None:
    low, high = DIRECTIONS.get(transform, ("negative", "positive"))
    axes.set_xlim(-1.03, 1.03)
    axes.set_xlabel(f"offset in stops    (left: {low}, right: {high})")


def _interval(axes: Axes, estimate: Estimate, y: float, colour: str, marker: str) -> None:
    axes.plot([estimate.low, estimate.high], [y, y], color=colour, linewidth=1.8, solid_capstyle="butt")
    axes.plot([estimate.value], [y], marker, color=colour, markersize=4.5)


def _percent(share: float) -> str:
    return "not measured" if isnan(share) else f"{100 * share:.0f} %"


def _colour(detector: int) -> str:
    return COLOURS[detector % len(COLOURS)]


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=figures.DOTS_PER_INCH, metadata={"Software": None})
