"""Best value so far against the epochs of all trials together: how much of a search is worth its cost."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

COLOURS = (
    "#777777",
    "#56b4e9",
    "#0072b2",
    "#d55e00",
)  # told apart by those who see colours differently (Okabe and Ito 2008)


def medians(curves: Sequence[Sequence[float]]) -> list[float]:
    """The median over several searches after each epoch."""
    return [statistics.median(values) for values in zip(*curves, strict=True)]


def draw(searches: Mapping[str, Sequence[Sequence[float]]], mark: int, metric: str, path: Path) -> None:
    """One line a search, the median of its seeds, with the range of all of them; a line at ``mark`` epochs."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for (name, curves), colour in zip(searches.items(), COLOURS, strict=True):
        middle = medians(curves)
        epochs = range(1, len(middle) + 1)
        low, high = ([pick(values) for values in zip(*curves, strict=True)] for pick in (min, max))
        axes.fill_between(epochs, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.plot(epochs, middle, color=colour, label=f"{name} (median of {len(curves)}, range)")
    axes.axvline(mark, color="black", linewidth=0.8, linestyle=":")
    axes.annotate("a tenth", (mark, 0), xycoords=("data", "axes fraction"), xytext=(3, 4), textcoords="offset points")
    axes.set(xscale="log", yscale="log", xlabel="epochs of all trials together", ylabel=f"lowest {metric} so far")
    axes.legend(framealpha=1, edgecolor="none")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
