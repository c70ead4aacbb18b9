"""The plots of a study: learning, size of object, risk against coverage, ablations. White, readable at 500 px."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from nrh_dist.report import figures
from nrh_dist.report.figures import COLOURS, OTHER_COLOUR, STYLE, save
from nrh_dist.report.statistics import MOST_WORSE
from nrh_dist.report.study import compare, risk
from nrh_dist.report.study.collect import IDENTITY, TESTS, Study
from nrh_dist.report.study.compare import Difference

WIDTH = 7.0
TEST_COLOURS = {"test-lab": "#0072B2", "test-exp": "#D55E00"}
PLAIN = FuncFormatter(lambda value, _: f"{value:g}".replace("-", "−"))


@matplotlib.rc_context(STYLE)
def draw_learning(study: Study, path: Path) -> None:
    """val/mse against epochs: the mean of the seeds, and their range."""
    figure, (axes,) = _figure(1, 3.6)
    curves = defaultdict(list)
    for curve in study.curves:
        if curve.system in study.main and len(curve.val_mse) > 1:
            curves[curve.system].append(curve.val_mse)
    for name in (name for name in study.main if name in curves):
        values = np.array([one[: min(map(len, curves[name]))] for one in curves[name]])
        epochs = np.arange(1, values.shape[1] + 1)
        axes.fill_between(epochs, values.min(axis=0), values.max(axis=0), color=_colour(name), alpha=0.15, linewidth=0)
        axes.plot(epochs, values.mean(axis=0), _line(name), color=_colour(name), linewidth=1.4, label=study.label(name))
    axes.axhline(study.curves[0].identity_mse, color=COLOURS[IDENTITY], linewidth=0.9, label=study.label(IDENTITY))
    axes.set(yscale="log", xlabel="epoch", ylabel="MSE on validation composites")
    for which in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        which(PLAIN)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(fontsize=8, framealpha=1, edgecolor="none", loc="center left", bbox_to_anchor=(1.01, 0.5))
    save(figure, path)


@matplotlib.rc_context(STYLE)
def draw_sizes(study: Study, path: Path) -> None:
    """MSE - MSE of the input by size of the object, with intervals, a panel a test."""
    figure = Figure((WIDTH, 6.4), layout="constrained")
    panels = figure.subplots(len(study.tests), 1)
    names = [name for name in study.main if name != IDENTITY]
    for axes, test in zip(panels, study.tests.values(), strict=True):
        groups = compare.size_groups(test)
        for number, name in enumerate(names):
            own = test.systems[name].mean_mse - test.identity
            changes = [compare.mean(test, own, group.chosen) for group in groups]
            places = np.arange(len(groups)) + 0.7 * (number / max(1, len(names) - 1) - 0.5)
            values = np.array([change.value for change in changes])
            low, high = np.array([change.bounds for change in changes]).T
            axes.errorbar(
                places,
                values,
                np.nan_to_num(np.stack([values - low, high - values])),
                fmt=figures.MARKERS[number % len(figures.MARKERS)],
                color=_colour(name),
                markersize=4.5,
                linewidth=0.9,
                markerfacecolor="white" if name.endswith("_calibrated") else _colour(name),
                label=study.label(name),
            )
        axes.axhline(0, color="black", linewidth=0.8)
        axes.set_yscale("symlog", linthresh=10)
        axes.yaxis.set_major_formatter(PLAIN)
        axes.set_xticks(range(len(groups)), [f"{group.name}, {group.photos} photos" for group in groups], fontsize=9)
        axes.set_title(TESTS[test.name])
        axes.set_ylabel("MSE − MSE of the input", fontsize=9)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=8, loc="outside lower center", ncols=3, frameon=False)
    save(figure, path)


@matplotlib.rc_context(STYLE)
def draw_risk(study: Study, path: Path) -> None:
    """Images changed against images made worse, and against the gain: by the gates' threshold, and by least change."""
    figure = Figure((WIDTH, 3.2 * (1 + len(study.tests))), layout="constrained")
    panels = figure.subplots(1 + len(study.tests), 2, sharex=True, sharey="col")
    for row in panels:
        row[0].axhline(100 * MOST_WORSE, color="black", linewidth=0.8, linestyle=":")
        row[0].set_ylabel("made worse by > 1, %")
        row[1].axhline(0, color="black", linewidth=0.8)
        row[1].set_ylabel("MSE of the input − MSE")
    _draw_thresholds(study, panels[0])
    for row, test in zip(panels[1:], study.tests.values(), strict=True):
        row[0].set_title(f"By least change: {TESTS[test.name]}", loc="left")
        for name in risk.uncalibrated(study):
            found = risk.curve(test, test.systems[name])
            style: dict[str, Any] = {"color": _colour(name), "linestyle": _line(name), "linewidth": 1.3}
            row[0].plot(100 * found.changed, 100 * found.worse1, label=study.label(name), **style)
            row[1].plot(100 * found.changed, found.gain, **style)
    for axes in panels[-1]:
        axes.set_xlabel("images that are changed, %")
    panels[0, 1].legend(*panels[0, 0].get_legend_handles_labels(), fontsize=7.5, frameon=False, loc="lower left")
    handles, labels = panels[1, 0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=8, loc="outside lower center", ncols=4, frameon=False)
    save(figure, path)


def _draw_thresholds(study: Study, panels: Sequence[Axes]) -> None:
    """The gated models on both tests, a point a threshold: the means over seeds."""
    panels[0].set_title("By threshold of the gate", loc="left")
    for test, model in product(study.tests, ("gated", "gated_swept")):
        rows = [row for row in study.risk if (row["set"], row["model"]) == (test, model)]
        if not rows:
            continue
        by_seed = [[row for row in rows if row["seed"] == seed] for seed in sorted({row["seed"] for row in rows})]
        opened, gain = 100 * _mean(by_seed, "opened"), _mean(by_seed, "identity_mse") - _mean(by_seed, "mse")
        style: dict[str, Any] = {"color": TEST_COLOURS[test], "linestyle": _line(model), "linewidth": 1.3}
        label = f"{study.label(model)}; {TESTS[test]}"
        panels[0].plot(opened, 100 * _mean(by_seed, "worse1"), marker=".", label=label, **style)
        panels[1].plot(opened, gain, marker=".", **style)


@matplotlib.rc_context(STYLE)
def draw_differences(study: Study, found: dict[str, Sequence[Difference]], path: Path) -> None:
    """Ablations: MSE of each - MSE of ``gated``, with corrected intervals; to the right of 0 the ingredient helps."""
    names = [one.one for one in next(iter(found.values()))]
    figure, (axes,) = _figure(1, 1.2 + 0.42 * len(names))
    for offset, (test, differences), colour in zip((-0.12, 0.12), found.items(), TEST_COLOURS.values(), strict=True):
        values = np.array([one.value for one in differences])
        low, high = np.array([one.interval for one in differences]).T
        places = -np.arange(len(names)) - offset
        axes.errorbar(
            values, places, xerr=[values - low, high - values], fmt="o", color=colour, markersize=4, label=TESTS[test]
        )
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(-np.arange(len(names)), [study.label(name) for name in names], fontsize=8)
    axes.set_xlabel("MSE − MSE of gated; right of 0, what was changed is better as it was", fontsize=9, loc="right")
    figure.legend(fontsize=8, loc="outside lower center", ncols=2, frameon=False)
    save(figure, path)


def _mean(by_seed: list[list[dict[str, str]]], column: str) -> np.ndarray:
    return np.array([[float(row[column]) for row in rows] for rows in by_seed]).mean(axis=0)


def _line(name: str) -> str:
    """The swept and the unswept model have one colour."""
    return "--" if name.endswith("_swept") else "-"


def _colour(name: str) -> str:
    return next(
        (COLOURS[model] for model in sorted(COLOURS, key=len, reverse=True) if name.startswith(model)), OTHER_COLOUR
    )


def _figure(panels: int, height: float) -> tuple[Figure, list[Axes]]:
    figure = Figure((WIDTH, height), layout="constrained")
    found = figure.subplots(1, panels, squeeze=False)
    return figure, [*found[0]]
