"""The image-wise differences between two runs, as in the paper's figure 5: data in one function, drawing in another."""

from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from nrh_dist.report import figures
from nrh_dist.report.differences import Pair
from nrh_dist.report.figures import BETTER_COLOUR, FEW_IMAGES, UNCHANGED_COLOUR, WORSE_COLOUR
from nrh_dist.report.groups import BINS, size_bins
from nrh_dist.report.statistics import WORSE1, mean

HEIGHT = 3.4  # inches


@dataclass(frozen=True)
class Points:
    """One difference an image, over the area of its object in % of the image; NaNs are left out.

    ``side`` is -1 where the first of the two is better, 1 where it is worse, 0 where they are about the same. ``means``
    is (size bin, mean difference, number of images) of the bins with images.
    """

    areas: np.ndarray
    values: np.ndarray
    side: np.ndarray
    means: list[tuple[int, float, int]]
    title: str
    scale: str


TITLES = {
    "mse": "MSE with the predicted mask − with the true mask",
    "psnr": "PSNR with the predicted mask − with the true mask, dB",
    "lpips": "LPIPS with the predicted mask − with the true mask",
}
# The axis, and the difference up to which two images are about the same.
SCALES = {"mse": ("signed", WORSE1), "psnr": ("linear", 0.0), "lpips": ("linear", 0.0)}


def points(pair: Pair, metric: str) -> Points:
    """The differences C_p - C_s in ``metric``: mse, psnr or lpips."""
    return of(pair.difference(metric), pair.predicted.area_fraction, metric, TITLES[metric])


def of(values: np.ndarray, area: np.ndarray, metric: str, title: str) -> Points:
    """The differences of N images in ``metric``; ``area`` is that of their objects."""
    scale, same = SCALES[metric]
    known = ~np.isnan(values) & ~np.isnan(area)
    values, area = values[known], area[known]
    worse = -values if metric == "psnr" else values
    side = np.sign(np.where(np.abs(values) > same, worse, 0)).astype(int)
    bins = size_bins(area)
    means = [(i, mean(values[bins == i]), int((bins == i).sum())) for i in range(len(BINS)) if (bins == i).any()]
    return Points(100 * area, values, side, means, title, scale)


@matplotlib.rc_context(figures.STYLE)
def draw(data: Points, path: Path) -> None:
    """A point an image, the mean of each size bin as a bar (dashed for few images), and a histogram at the side."""
    figure = Figure((figures.WIDTH, HEIGHT), layout="constrained")
    axes, beside = figure.subplots(1, 2, sharey=True, width_ratios=(5, 1))
    forward, backward = figures.axis_scale(data.scale)
    y = forward(data.values)
    alpha, width = np.clip(30 / np.sqrt(len(y)), 0.15, 0.8), np.clip(120 / np.sqrt(len(y)), 1.5, 4)
    edges = figures.histogram_edges(min(0.0, y.min()), max(0.0, y.max()), len(y), centred=True)
    for side, colour in ((0, UNCHANGED_COLOUR), (-1, BETTER_COLOUR), (1, WORSE_COLOUR)):
        chosen = data.side == side
        axes.plot(data.areas[chosen], y[chosen], "o", color=colour, alpha=alpha, markersize=width, markeredgewidth=0)
    stacks = [y[data.side == side] for side in (-1, 0, 1)]
    colours = [BETTER_COLOUR, UNCHANGED_COLOUR, WORSE_COLOUR]
    beside.hist(stacks, edges, orientation="horizontal", stacked=True, color=colours, alpha=0.75)
    for one in (axes, beside):
        one.axhline(0, color="black", linewidth=0.8)
    for i, value, count in data.means:
        style = "-" if count >= FEW_IMAGES else (0, (2, 1))
        axes.plot(
            [10 * i, 10 * (i + 1)], forward(np.array([value, value])), color="black", linestyle=style, linewidth=2
        )
    if data.scale != "linear":
        ticks = figures.axis_ticks(data.scale, *backward(edges[[0, -1]]))
        axes.set_yticks(forward(np.array(ticks)), [f"{tick:+,g}".replace("-", "−") if tick else "0" for tick in ticks])
    margin = 0.03 * (edges[-1] - edges[0])
    axes.set_ylim(edges[0] - margin, edges[-1] + margin)
    axes.set_xlim(0, max(10.0, 10 * np.ceil(data.areas.max() / 10)))
    axes.set_xlabel("object size, % of the image")
    beside.set_xlabel("images")
    beside.tick_params(axis="y", length=0)
    beside.spines["left"].set_visible(False)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_title(data.title)
    figures.save(figure, path)
