"""Each image's error before and now, on two log axes."""

from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from nrh_dist.report import figures
from nrh_dist.report.figures import BETTER_COLOUR, LOWEST_MSE, UNCHANGED_COLOUR, WORSE_COLOUR
from nrh_dist.report.parts import shortened
from nrh_dist.report.statistics import WORSE1

COLUMNS = 2


@dataclass(frozen=True)
class Panel:
    """One model's errors of n images before and now."""

    label: str
    before: np.ndarray
    now: np.ndarray

    @property
    def side(self) -> np.ndarray:
        """-1 where an image improved by more than 1, 1 where it got worse, 0 elsewhere."""
        change = self.now - self.before
        return np.where(np.abs(change) > WORSE1, np.sign(change), 0).astype(int)


@matplotlib.rc_context(figures.STYLE)
def draw(panels: list[Panel], path: Path) -> None:
    """A square panel a model, all on the same axes; errors below ``LOWEST_MSE`` are drawn there."""
    across = min(COLUMNS, len(panels))
    down = -(-len(panels) // across)
    height = 0.3 + down * (figures.WIDTH / across + 0.1)
    figure = Figure((figures.WIDTH, height), layout="constrained")
    grid = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True)
    everything = np.concatenate([one for panel in panels for one in (panel.before, panel.now)])
    limits = (0.7 * max(LOWEST_MSE, everything.min()), 1.4 * max(LOWEST_MSE, everything.max()))
    for i, (axes, panel) in enumerate(zip(grid.flat, panels, strict=False)):
        _draw_panel(axes, panel, limits)
        axes.tick_params(labelbottom=i + across >= len(panels))
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    figure.supxlabel("MSE before", fontsize=10)
    figure.supylabel("MSE now", fontsize=10)
    figures.save(figure, path)


def _draw_panel(axes: Axes, panel: Panel, limits: tuple[float, float]) -> None:
    axes.set(xscale="log", yscale="log", xlim=limits, ylim=limits, box_aspect=1)
    axes.plot(limits, limits, "--", color="black", linewidth=0.8)
    before, now = np.maximum(panel.before, LOWEST_MSE), np.maximum(panel.now, LOWEST_MSE)
    alpha, width = np.clip(30 / np.sqrt(len(now)), 0.15, 0.8), np.clip(90 / np.sqrt(len(now)), 1.5, 4)
    for side, colour in ((0, UNCHANGED_COLOUR), (-1, BETTER_COLOUR), (1, WORSE_COLOUR)):
        chosen = panel.side == side
        axes.plot(before[chosen], now[chosen], "o", color=colour, alpha=alpha, markersize=width, markeredgewidth=0)
    for side, word, colour, x in ((-1, "improved", BETTER_COLOUR, 0.0), (1, "got worse", WORSE_COLOUR, 1.0)):
        said = f"{100 * (panel.side == side).mean():.0f} % {word}"
        axes.annotate(
            said,
            (x, 1.0),
            (0, 4),
            xycoords="axes fraction",
            textcoords="offset points",
            color=colour,
            fontsize=8.5,
            ha=("left", "right")[int(x)],
        )
    axes.set_title(shortened(panel.label, figures.LONGEST_LABEL), pad=17)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.tick_params(labelsize=9)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
