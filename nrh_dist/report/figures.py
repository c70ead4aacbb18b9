"""The figures: each one's data is computed in one function and drawn in another. White cards, readable at 500 px."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nrh_dist.report.collect import IDENTITY
from nrh_dist.report.parts import shortened
from nrh_dist.report.sections import Section
from nrh_dist.report.statistics import WORSE1, mean, worse_share

Transform = Callable[[np.ndarray], np.ndarray]

# Okabe and Ito's colours, told apart with every kind of colour vision.
COLOURS = {
    IDENTITY: "#555555",
    "dih_m": "#009E73",
    "dih_nm": "#D55E00",
    "ptc_att_dih": "#CC79A7",
    "ptc_dih": "#0072B2",
    "two_stage": "#B8860B",
    "gated": "#56B4E9",
}
OTHER_COLOUR = "#000000"
BETTER_COLOUR, WORSE_COLOUR, UNCHANGED_COLOUR = "#0072B2", "#D55E00", "#777777"
MARKERS = "osD^vP*X"
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "figure.facecolor": "white",
    "text.parse_math": False,  # a run may be called a_$b$
}
WIDTH = 5.0  # inches
DOTS_PER_INCH = 200
FEW_IMAGES = 10  # bins with fewer are drawn hollow
LONGEST_LABEL = 26  # letters; the tables have the whole name
LOWEST_MSE = 0.1  # where the log axes of MSE start; smaller values are drawn there


@dataclass(frozen=True)
class Ridge:
    """``values`` of the images that have one; ``note`` is printed at the row's right end."""

    label: str
    model: str
    values: np.ndarray
    note: str


@dataclass(frozen=True)
class Ridges:
    """One histogram a row on a common axis; ``scale`` is linear, log or signed (linear near 0, log beyond 1)."""

    rows: list[Ridge]
    title: str
    scale: str


def ridges(section: Section, quantity: str) -> Ridges:
    """The distribution over images of ``quantity``: mse, psnr, lpips, or change (MSE of the output - of the input)."""
    rows = []
    for result in section.results:
        if quantity == "change" and result.model == IDENTITY:
            continue
        values = result.mse - result.identity_mse if quantity == "change" else getattr(result, quantity)
        values = values[~np.isnan(values)]
        if quantity == "change":
            note = f"{100 * worse_share(result, WORSE1):.0f} % worse"
        else:
            note = f"mean {mean(values):,.3g}" if quantity == "lpips" else f"mean {mean(values):,.1f}"
        if len(values):
            rows.append(Ridge(section.labels[result.run], result.model, values, note))
    titles = {
        "mse": ("MSE of each image (log scale)", "log"),
        "psnr": ("PSNR of each image, dB", "linear"),
        "lpips": ("LPIPS of each image", "linear"),
        "change": ("MSE of the output − MSE of the input", "signed"),
    }
    return Ridges(rows, *titles[quantity])


@matplotlib.rc_context(STYLE)
def draw_ridges(data: Ridges, path: Path) -> None:
    """A histogram a row, each to its own height, with the median and the quartiles below it."""
    figure, axes = _figure(1.1 + 0.55 * len(data.rows))
    forward, backward = axis_scale(data.scale)
    everything = forward(np.concatenate([row.values for row in data.rows]))
    low, high = everything.min(), everything.max()
    edges = histogram_edges(low, high, max(len(row.values) for row in data.rows), centred=data.scale == "signed")
    for i, row in enumerate(data.rows):
        base, values = -float(i), forward(row.values)
        counts, _ = np.histogram(values, edges)
        colours: str | list[str] = COLOURS.get(row.model, OTHER_COLOUR)
        if data.scale == "signed":
            colours = [_side(left, right) for left, right in pairwise(edges)]
        heights = 0.72 * counts / counts.max()
        axes.bar(edges[:-1], heights, np.diff(edges), base, align="edge", color=colours, alpha=0.75)
        first, median, third = np.quantile(values, (0.25, 0.5, 0.75))
        axes.plot([first, third], [base - 0.07] * 2, color="black", linewidth=2, solid_capstyle="butt")
        axes.plot([median], [base - 0.07], "o", color="white", markeredgecolor="black", markersize=4.5)
        axes.annotate(row.note, (1.02, base + 0.2), xycoords=("axes fraction", "data"), fontsize=9, va="center")
    axes.set_yticks(
        [-i + 0.2 for i in range(len(data.rows))], [shortened(row.label, LONGEST_LABEL) for row in data.rows]
    )
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    if data.scale != "linear":
        ticks = axis_ticks(data.scale, *backward(edges[[0, -1]]))
        axes.set_xticks(forward(np.array(ticks)), [f"{tick:g}".replace("-", "−") for tick in ticks], fontsize=9)
    if data.scale == "signed":
        axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(-len(data.rows) + 0.75, 0.85)
    axes.set_title(data.title)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    save(figure, path)


def histogram_edges(low: float, high: float, images: int, centred: bool) -> np.ndarray:
    """Histogram edges from ``low`` to ``high``; 0 is one of them or, if ``centred``, the middle of a bin."""
    step = max(high - low, 0.1) / np.clip(2.5 * images**0.4, 14, 60)
    shift = 0.5 if centred else 0.0
    return step * (np.arange(np.floor(low / step + shift), np.floor(high / step + shift) + 2) - shift)


def _side(left: float, right: float) -> str:
    """The colour of a bin of changes: to the left of 0, to the right, or around it."""
    return UNCHANGED_COLOUR if left < 0 < right else WORSE_COLOUR if left >= 0 else BETTER_COLOUR


def axis_scale(name: str) -> tuple[Transform, Transform]:
    """The axis's transform and its inverse; the signed one is sign(x) log10(1 + |x|)."""
    if name == "log":
        return lambda x: np.log10(np.maximum(x, LOWEST_MSE)), lambda t: 10.0**t
    if name == "signed":
        return lambda x: np.sign(x) * np.log10(1 + np.abs(x)), lambda t: np.sign(t) * (10.0 ** np.abs(t) - 1)
    return lambda x: x, lambda t: t


def axis_ticks(name: str, low: float, high: float) -> list[float]:
    """Powers of ten between the two, of both signs and 0 on the signed scale (without 1 where 0 would touch it)."""
    if name == "log":
        return [10.0**k for k in range(-1, 6) if low <= 10.0**k <= high]
    powers = [10.0**k for k in range(0 if max(-low, high) < 100 else 1, 6)]
    return [tick for tick in [*(-p for p in reversed(powers)), 0.0, *powers] if low <= tick <= high]


def _figure(height: float) -> tuple[Figure, Axes]:
    figure = Figure((WIDTH, height), layout="constrained")
    return figure, figure.subplots()


def save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=DOTS_PER_INCH, metadata={"Software": None})
