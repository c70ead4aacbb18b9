"""Lines over groups of images, by object size or by shift, with intervals: data in one function, drawing in another."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from nrh_dist.report import bootstrap, figures
from nrh_dist.report.bootstrap import Estimate
from nrh_dist.report.figures import COLOURS, FEW_IMAGES, LOWEST_MSE, MARKERS, OTHER_COLOUR
from nrh_dist.report.groups import Groups
from nrh_dist.report.parts import Picture, shortened
from nrh_dist.report.result import IDENTITY, Result
from nrh_dist.report.sections import Section

LONGEST_LABEL = 18  # letters beside a line
BESIDE = 0.07  # how far apart the points of two runs stand, so that their intervals can be told apart


@dataclass(frozen=True)
class Line:
    """A run's values at ``x``, NaN where a group has no images; ``counts`` is how many it has."""

    label: str
    model: str
    x: list[float]
    values: list[Estimate]
    counts: list[int]


@dataclass(frozen=True)
class BinLines:
    """One value a group and run; ``ticks`` name the groups, without any the axis is one of numbers."""

    ticks: list[str]
    lines: list[Line]
    title: str
    axis: str
    relative: bool


def bin_lines(section: Section, groups: Groups, shown: Sequence[int], axis: str, relative: bool) -> BinLines:
    """MSE in each of the groups ``shown`` for every run, or with ``relative`` its change against identity in percent.

    ``axis`` says what the groups are.
    """
    runs = [result for result in section.results if result.has("mse") and not (relative and result.model == IDENTITY)]
    counts = groups.counts()
    lines = []
    for i, result in enumerate(runs):
        values = changes(result, groups) if relative else bootstrap.means(result.photos, groups.spread(result.mse))
        x = [place + BESIDE * (i - (len(runs) - 1) / 2) for place in range(len(shown))]
        chosen, images = [values[j] for j in shown], [int(counts[j]) for j in shown]
        lines.append(Line(section.labels[result.run], result.model, x, chosen, images))
    title = "Change of MSE against doing nothing, %" if relative else "Mean MSE (log scale)"
    ticks = [f"{groups.labels[j]}\n{counts[j]:,}" for j in shown]
    return BinLines(ticks, lines, title, f"{axis},\nover the number of images", relative)


def charts(section: Section, groups: Groups, shown: Sequence[int], name: str, axis: str, folder: Path) -> list[Picture]:
    """Mean MSE and its change over the groups ``shown``, drawn to ``figures`` in ``folder`` where there is a run."""
    found = []
    for relative in (False, True):
        data = bin_lines(section, groups, shown, axis, relative)
        if not data.lines:
            continue
        file = f"figures/{name}{'-change' if relative else ''}-{section.slug}.png"
        draw(data, folder / file)
        runs = ", ".join(line.label for line in data.lines)
        alt = f"{data.title} by {axis} for {runs}; the numbers are in the table above."
        found.append(Picture(file, alt, _caption(relative, axis)))
    return found


def _caption(relative: bool, axis: str) -> str:
    said = (
        f"Change of mean MSE against doing nothing, by {axis}. Above the dashed line the model does harm."
        if relative
        else f"Mean MSE by {axis}; dashed: doing nothing."
    )
    return f"{said} Bars: 95 % intervals. Hollow: fewer than {FEW_IMAGES} images."


def changes(result: Result, groups: Groups) -> list[Estimate]:
    """The change of mean MSE against identity in each group, in percent."""
    found = bootstrap.ratios(result.photos, groups.spread(result.mse), groups.spread(result.identity_mse))
    return [one.scaled(100, -100) for one in found]


@matplotlib.rc_context(figures.STYLE)
def draw(data: BinLines, path: Path) -> None:
    """Lines with intervals, labelled at their right ends; hollow points stand for fewer than ``FEW_IMAGES`` images."""
    figure = Figure((figures.WIDTH, 3.6), layout="constrained")
    axes = figure.subplots()
    for i, line in enumerate(data.lines):
        _draw_line(axes, line, MARKERS[i % len(MARKERS)], data.relative)
    if data.relative:
        axes.axhline(0, color=COLOURS[IDENTITY], linestyle="--", linewidth=1.5)
    else:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.4g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    if data.ticks:
        axes.set_xticks(np.arange(len(data.ticks)), data.ticks, fontsize=8)
        axes.set_xlim(-0.4, len(data.ticks) - 0.6)
    axes.set_xlabel(data.axis)
    axes.set_title(data.title)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    _label_ends(figure, axes, data)
    figures.save(figure, path)


def _draw_line(axes: Axes, line: Line, marker: str, relative: bool) -> None:
    x, (y, low, high) = np.array(line.x), _heights(line, relative)
    colour = COLOURS.get(line.model, OTHER_COLOUR)
    axes.plot(x, y, "--" if line.model == IDENTITY else "-", color=colour, linewidth=1.5)
    axes.vlines(x, low, high, color=colour, linewidth=1, alpha=0.7)
    for few in (False, True):
        chosen = (np.array(line.counts) < FEW_IMAGES) == few
        face = "white" if few else colour
        axes.plot(x[chosen], y[chosen], marker, color=colour, markerfacecolor=face, markersize=5)


def _heights(line: Line, relative: bool) -> np.ndarray:
    """3 x groups: values, lower and upper bounds; on the log scale at least ``LOWEST_MSE``."""
    heights = np.array([(one.value, *one.bounds) for one in line.values]).reshape(-1, 3).T
    return heights if relative else np.maximum(heights, LOWEST_MSE)


def _label_ends(figure: Figure, axes: Axes, data: BinLines) -> None:
    """Each line's name at the right edge, as high as its last point, moved up or down until no two overlap."""
    figure.canvas.draw()  # the transforms below need the final layout
    height = 12 * figure.dpi / 72
    ends = []
    for line in data.lines:
        heights = _heights(line, data.relative)[0]
        known = [i for i, value in enumerate(heights) if not np.isnan(value)]
        if known:
            y = heights[known[-1]]
            ends.append((axes.transData.transform((0, y))[1], line, y))
    ends.sort(key=lambda end: end[0])
    places: list[float] = []
    for position, *_ in ends:
        places.append(max(position, places[-1] + height) if places else position)
    shift = max(0.0, (places[-1] - ends[-1][0]) / 2) if ends else 0.0
    edge = ("axes fraction", "data")
    for place, (position, line, y) in zip(places, ends, strict=True):
        offset = (4, (place - shift - position) * 72 / figure.dpi)
        colour = COLOURS.get(line.model, OTHER_COLOUR)
        label = shortened(line.label, LONGEST_LABEL)
        axes.annotate(label, (1, y), offset, edge, "offset points", color=colour, fontsize=9, va="center")
