"""What a COCO-Exp set is like, from its ``manifest.csv`` alone: a summary in lines, and a picture."""

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from nrh_dist.errors import UserError
from nrh_dist.report.figures import BETTER_COLOUR, DOTS_PER_INCH, STYLE, UNCHANGED_COLOUR, WIDTH, WORSE_COLOUR
from nrh_dist.report.groups import BINS, STOPS, SUB_THRESHOLD_STOPS, size_bins
from nrh_dist.report.paper import TABLE_3

TOP_CATEGORIES = 8
PAPER = TABLE_3["COCO-Exp"]["identity"]
BAR = 24  # characters of the longest bar in the summary


@dataclass(frozen=True)
class Composites:
    """The N composites of one split: N names, N numbers and N bool, as in the manifest."""

    category: Sequence[str]
    area_fraction: np.ndarray
    shift_stops: np.ndarray
    clipped_share: np.ndarray
    mse: np.ndarray
    is_sub_threshold: np.ndarray


@dataclass(frozen=True)
class Bars:
    """A histogram: N ``heights`` between N + 1 ``edges``."""

    title: str
    edges: np.ndarray
    heights: np.ndarray


@dataclass(frozen=True)
class Panels:
    """What the picture shows; the edges of ``mse`` are powers of ten."""

    area: Bars
    shift: Bars
    mse: Bars
    categories: list[tuple[str, int]]
    others: str
    sub_threshold: str


def read(manifest: Path, split: str) -> Composites:
    """The rows of ``split``. ``UserError`` if the file cannot be read or has none."""
    try:
        with manifest.open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["split"] == split]
        numbers = [
            np.array([float(row[column]) for row in rows])
            for column in ("area_fraction", "shift_stops", "clipped_share", "mse")
        ]
        numbers.append(np.array([bool(int(row["sub_threshold"])) for row in rows]))
    except OSError as error:
        raise UserError(f"cannot read {manifest}: {error.strerror}") from None
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{manifest} is not a manifest of COCO-Exp: {error}") from None
    if not rows:
        raise UserError(f"{manifest} has no composites of the {split} split")
    return Composites([row["category"] for row in rows], *numbers)


def summary(found: Composites, rejected: Mapping[str, int]) -> list[str]:
    """The set in some thirty aligned lines. ``rejected``: how many candidates, by reason."""
    made = len(found.mse)
    reasons = ", ".join(f"{number:,} {reason}" for reason, number in rejected.items())
    return [
        f"made        {made:,}",
        f"rejected    {sum(rejected.values()):,}" + (reasons and f" ({reasons})"),
        f"categories  {_categories_line(found)}",
        "shift of the object's mean L, in stops",
        *_shift_lines(found),
        f"            {100 * found.is_sub_threshold.mean():.1f} % sub-threshold (under {SUB_THRESHOLD_STOPS} stops)",
        "object size   composites        MSE  the paper's",
        *_size_lines(found),
        f"  all       {made:>12,} {found.mse.mean():>10,.1f}",
        "            MSE of the composites: ours at full size and before compression, the paper's (Table 3, orig) at",
        "            256 x 256 px of its own set, which was never published",
    ]


def _categories_line(found: Composites) -> str:
    counted = Counter(found.category).most_common()
    named = ", ".join(f"{name} {number:,}" for name, number in counted[:TOP_CATEGORIES])
    rest = counted[TOP_CATEGORIES:]
    return named + (f", and {len(rest)} others {sum(number for _, number in rest):,}" if rest else "")


def _shift_lines(found: Composites) -> list[str]:
    counts = np.histogram(found.shift_stops, STOPS)[0]
    names = [_interval(low, high) for low, high in pairwise(STOPS)]
    return [
        f"  {name:>16} {count:>7,} {100 * count / counts.sum():>5.1f} %  {'#' * round(BAR * count / counts.max())}"
        for name, count in zip(names, counts, strict=True)
    ]


def _interval(low: float, high: float) -> str:
    if low == -inf:
        return f"below {high:g}"
    return f"from {low:g}" if high == inf else f"{low:g} to {high:g}"


def _size_lines(found: Composites) -> list[str]:
    lines, bins = [], size_bins(found.area_fraction)
    for place, label in enumerate(BINS):
        chosen = found.mse[bins == place]
        paper = f"{PAPER[place]:,.1f}" if place < len(PAPER) else ""
        if len(chosen) or paper:
            ours = f"{chosen.mean():,.1f}" if len(chosen) else "-"
            lines.append(f"  {label:<9} {len(chosen):>12,} {ours:>10} {paper:>12}".rstrip())
    return lines


def panels(found: Composites) -> Panels:
    """The numbers of the picture; values beyond an axis count in its outermost bars."""
    counted = Counter(found.category).most_common()
    rest = counted[TOP_CATEGORIES:]
    reach = np.clip(np.quantile(np.abs(found.shift_stops), 0.98), 1.0, 3.0)
    side = np.ceil(reach / SUB_THRESHOLD_STOPS)  # bars on each side; the borders of the sub-threshold zone are edges
    edges = SUB_THRESHOLD_STOPS * np.arange(-side, side + 1)
    powers = np.arange(-1, 4.51, 0.25)
    return Panels(
        area=_bars("object, % of the photo", np.linspace(0, 100, 21), 100 * found.area_fraction),
        shift=_bars("shift of mean L, stops", edges, found.shift_stops),
        mse=_bars("MSE of the composite", powers, np.log10(np.maximum(found.mse, 1e-9))),
        categories=counted[:TOP_CATEGORIES],
        others=f"and {len(rest)} others: {sum(number for _, number in rest):,}" if rest else "",
        sub_threshold=f"grey: {100 * found.is_sub_threshold.mean():.0f} % under {SUB_THRESHOLD_STOPS} stops",
    )


def _bars(title: str, edges: np.ndarray, values: np.ndarray) -> Bars:
    return Bars(title, edges, np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0])


@matplotlib.rc_context({**STYLE, "font.size": 9, "axes.titlesize": 9})
def draw(data: Panels, path: Path) -> None:
    """Four panels: area, shift with the sub-threshold zone, MSE, categories."""
    figure = Figure((WIDTH, 4.3), layout="constrained")
    (area, shift), (mse, categories) = figure.subplots(2, 2)
    _draw_bars(area, data.area, [UNCHANGED_COLOUR] * len(data.area.heights))
    _draw_bars(mse, data.mse, [UNCHANGED_COLOUR] * len(data.mse.heights))
    mse.xaxis.set_major_locator(MaxNLocator(integer=True))
    mse.xaxis.set_major_formatter(FuncFormatter(_power))
    middles = (data.shift.edges[1:] + data.shift.edges[:-1]) / 2
    zone = np.abs(middles) < SUB_THRESHOLD_STOPS
    _draw_bars(shift, data.shift, np.where(zone, "#bbbbbb", np.where(middles < 0, BETTER_COLOUR, WORSE_COLOUR)))
    shift.axvspan(-SUB_THRESHOLD_STOPS, SUB_THRESHOLD_STOPS, color="#eeeeee", zorder=-1)
    shift.set_xlabel(data.sub_threshold, fontsize=8)
    _draw_categories(categories, data)
    figure.savefig(path, dpi=DOTS_PER_INCH, metadata={"Software": None})


def _draw_bars(axes: Axes, bars: Bars, colours: Sequence[str] | np.ndarray) -> None:
    axes.bar(bars.edges[:-1], bars.heights, np.diff(bars.edges), align="edge", color=colours, edgecolor="white", lw=0.4)
    axes.set_xlim(bars.edges[0], bars.edges[-1])
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_title(bars.title)


def _power(power: float, _: int) -> str:
    return f"{10 ** (power - 3):g}k" if power >= 3 else f"{10**power:g}"


def _draw_categories(axes: Axes, data: Panels) -> None:
    names = [name for name, _ in data.categories]
    counts = [count for _, count in data.categories]
    axes.barh(names, counts, color=UNCHANGED_COLOUR)
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0, labelsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.set_title("composites by category")
    axes.set_xlabel(data.others, fontsize=8)
