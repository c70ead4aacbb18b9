"""The figures of a sweep: each one's data is computed in one function and drawn in another."""

import warnings
from dataclasses import dataclass
from math import inf, isfinite
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from nrh_dist.report import figures, sweep_study
from nrh_dist.report.parts import shortened
from nrh_dist.report.sweep_collect import FAILED, FINISHED, RUNNING, STOPPED, Dimension, Sweep, Trial

BEST_COLOUR, OTHER_COLOUR, STOPPED_COLOUR, FAILED_COLOUR = "#0072B2", "#777777", "#D55E00", "#000000"
GRID = "#dddddd"
SMALL = 8.5  # points
WIDE = 10.0  # a range of more than this factor gets a log axis
DECADES = 1000.0  # a log axis of more than this factor has ticks at powers of ten only
UNUSED = -0.14  # where a key stands on its axis that a trial does not use
SPREAD = 0.05  # half the height over which the lines through one choice are spread
AXIS_WIDTH = 1.35  # inches from one parallel axis to the next
FEWEST_TRIALS = 10  # for importances
TOP_TRIALS = 5  # "among the best", at least: Optuna's advice for PED-ANOVA
TOP_SHARE = 0.25  # Optuna's 0.1 finds less: of 24 trials a learning rate that decides in 14 of 16 cases, this in all
SHUFFLES = 200
CHANCE = 0.95
REPLACED = "went on with others’ weights"
ENDINGS: dict[str, dict[str, Any]] = {
    FINISHED: {"color": OTHER_COLOUR, "linestyle": "-", "marker": "o", "markersize": 3},
    STOPPED: {"color": STOPPED_COLOUR, "linestyle": "--", "marker": "s", "markersize": 4, "markerfacecolor": "white"},
    REPLACED: {"color": OTHER_COLOUR, "linestyle": "-", "marker": "v", "markersize": 5, "markerfacecolor": "white"},
    FAILED: {"color": FAILED_COLOUR, "linestyle": ":", "marker": "X", "markersize": 6, "zorder": 3},
    RUNNING: {"color": OTHER_COLOUR, "linestyle": "-.", "marker": ">", "markersize": 5, "markerfacecolor": "white"},
}


@dataclass(frozen=True)
class BestSoFar:
    """The metric of each epoch in the order in which they are counted, and the lowest until then."""

    values: np.ndarray
    best: np.ndarray


@dataclass(frozen=True)
class Curve:
    """One life of a trial: its metric over its epochs, from the row on that it took over; how it ended."""

    name: str
    epochs: np.ndarray
    values: np.ndarray
    ending: str
    is_best: bool


@dataclass(frozen=True)
class ParallelAxis:
    """One upright axis: ``ticks`` are places between 0 and 1 with their labels."""

    title: str
    ticks: list[tuple[float, str]]
    is_metric: bool = False


@dataclass(frozen=True)
class Parallel:
    """``places`` is trials x axes, the best trial first; between 0 and 1, or ``UNUSED``."""

    names: list[str]
    axes: list[ParallelAxis]
    places: np.ndarray


@dataclass(frozen=True)
class Importance:
    """``shares`` of the searched ``keys``, which add up to 1, and what shuffled results reach in 95 % of the cases."""

    keys: list[str]
    shares: np.ndarray
    chance: np.ndarray
    trials: int
    top: int


@dataclass(frozen=True)
class Pareto:
    """``values`` is trials x metrics; on the ``front`` no other trial is better in one metric and as good in all."""

    names: list[str]
    metrics: list[str]
    values: np.ndarray
    front: np.ndarray


def best_so_far(sweep: Sweep) -> BestSoFar:
    """The epochs of all trials one after the other.

    No row has a clock, so trials count in the order of their numbers, each to its end. Those of population-based
    training wait for each other, and so count epoch by epoch.
    """
    rows = [(one.index, epoch, value) for one in sweep.lives for epoch, value in one.own.items()]
    rows.sort(key=lambda row: (row[1], row[0]) if sweep.scheduler == "pbt" else row[:2])
    values = np.array([row[2] for row in rows])
    return BestSoFar(values, np.minimum.accumulate(values))


def learning_curves(sweep: Sweep) -> list[Curve]:
    """One for each life that trained."""
    curves, best = [], sweep.best
    for one in sweep.lives:
        first = one.origin.epoch if one.origin else 0
        shown = {epoch: value for epoch, value in one.values.items() if epoch >= first}
        ending = one.status if one in sweep.trials else REPLACED
        if shown:
            curves.append(Curve(one.name, np.array([*shown]), np.array([*shown.values()]), ending, one is best))
    return curves


def parallel(sweep: Sweep) -> Parallel:
    """The trials that have a value, on one axis for each searched key and metric."""
    trials = sorted(sweep.valued, key=lambda one: one.best)
    axes, columns = [], []
    for dimension in sweep.dimensions:
        given = [one.assignment.get(dimension.key) for one in trials]
        axis, places = _choices(dimension, given) if dimension.kind == "choice" else _range(dimension, given)
        axes.append(axis)
        columns.append(places)
    objectives = np.array([sweep.objectives(one) for one in trials])
    for i, metric in enumerate(sweep.metrics):
        scale = _Scale.of(objectives[:, i])
        axes.append(ParallelAxis(metric, scale.ticks(), is_metric=True))
        columns.append(scale.places(objectives[:, i]))
    return Parallel([one.name for one in trials], axes, np.array(columns).T)


def importance(sweep: Sweep) -> Importance | str:
    """What each searched key matters for being among the best, by Optuna's PED-ANOVA; or why that cannot be said.

    PED-ANOVA (https://arxiv.org/abs/2304.10255) compares the values of the best trials with those of all. A trial that
    was stopped early counts with the best that it reached. Chance: the same after the results were shuffled.
    """
    trials = [one for one in sweep.valued if one.status in (FINISHED, STOPPED)]
    if sweep.scheduler == "pbt":
        return "Not computed: a result of population-based training is due to the values of several trials in turn."
    if len(trials) < FEWEST_TRIALS:
        return f"Not computed: {len(trials)} trials came to an end with a value, and it takes at least {FEWEST_TRIALS}."
    values = np.array([one.best for one in trials])
    keys = [key for key in sweep.keys if any(key in one.assignment for one in trials)]
    top = max(TOP_TRIALS, int(TOP_SHARE * len(trials)))
    found = _divergences(sweep, trials, keys, values, top)
    if not found.sum():
        return "Not computed: the best trials have the same values as all."
    generator = np.random.default_rng(0)
    shuffled = [_divergences(sweep, trials, keys, generator.permutation(values), top) for _ in range(SHUFFLES)]
    chance = np.quantile(shuffled, CHANCE, axis=0)
    order = np.argsort(-found, kind="stable")
    return Importance(
        [keys[i] for i in order], found[order] / found.sum(), chance[order] / found.sum(), len(trials), top
    )


def pareto(sweep: Sweep) -> Pareto:
    """The trials that have a value of every metric, and which of them no other one beats."""
    trials = [one for one in sweep.trials if all(isfinite(value) for value in sweep.objectives(one))]
    values = np.array([sweep.objectives(one) for one in trials]).reshape(len(trials), len(sweep.metrics))
    beaten = [any(np.all(other <= one) and np.any(other < one) for other in values) for one in values]
    return Pareto([one.name for one in trials], sweep.metrics, values, ~np.array(beaten, dtype=bool))


@matplotlib.rc_context(figures.STYLE)
def draw_best_so_far(data: BestSoFar, metric: str, path: Path) -> None:
    """A step line of the lowest value over dots of all."""
    figure, axes = _figure(3.3)
    spent = np.arange(1, len(data.values) + 1)
    axes.plot(spent, data.values, ".", color=OTHER_COLOUR, markersize=4, alpha=0.6, label="an epoch of a trial")
    axes.step(spent, data.best, where="post", color=BEST_COLOUR, linewidth=2, label="the best so far")
    axes.annotate(
        f"{data.best[-1]:.4g}", (spent[-1], data.best[-1]), (5, 0), textcoords="offset points",
        color=BEST_COLOUR, fontsize=9, va="center", annotation_clip=False,
    )  # fmt: skip
    _value_axis(axes, data.values)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_xlabel("epochs spent by all trials")
    axes.set_title(metric)
    axes.legend(fontsize=SMALL, frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0.1)
    figures.save(figure, path)


@matplotlib.rc_context(figures.STYLE)
def draw_curves(curves: list[Curve], metric: str, path: Path) -> None:
    """A line a life, its end marked by how the trial ended; the best is thick and named."""
    figure, axes = _figure(3.6)
    for curve in curves:
        style = {**ENDINGS[curve.ending], "linewidth": 1.0, "alpha": 0.75, "markevery": [len(curve.epochs) - 1]}
        if curve.is_best:
            style.update(color=BEST_COLOUR, linewidth=2.4, alpha=1.0, zorder=4)
        axes.plot(curve.epochs, curve.values, **style)
    _value_axis(axes, np.concatenate([curve.values for curve in curves]))
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.set_xlabel("epoch")
    axes.set_title(metric)
    endings = [curve.ending for curve in curves]
    entries = [Line2D([], [], label=ending, **style) for ending, style in ENDINGS.items() if ending in endings]
    best = [f"{curve.name}, the best" for curve in curves if curve.is_best]
    entries += [Line2D([], [], color=BEST_COLOUR, linewidth=2.4, label=label) for label in best]
    axes.legend(handles=entries, fontsize=SMALL, frameon=False, loc="upper right")
    figures.save(figure, path)


@matplotlib.rc_context(figures.STYLE)
def draw_parallel(data: Parallel, path: Path) -> None:
    """A line a trial over the upright axes, coloured by its rank; the best one thick, on top."""
    count = len(data.axes)
    figure = Figure((max(figures.WIDTH, AXIS_WIDTH * (count - 1) + 1.6), 3.8), layout="constrained")
    axes = figure.subplots()
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.88, max(len(data.names), 2)))
    for i, line in reversed(list(enumerate(data.places))):
        axes.plot(
            line, color=colours[i], linewidth=3 if i == 0 else 1.3, alpha=1 if i == 0 else 0.75, zorder=2 + (i == 0)
        )
    has_unused = bool((data.places == UNUSED).any())
    for x, axis in enumerate(data.axes):
        axes.plot([x, x], [0, 1], color="black", linewidth=0.9, zorder=1)
        ticks = [*axis.ticks, *([(UNUSED, "not used")] if UNUSED in data.places[:, x] else [])]
        for place, label in ticks:
            axes.plot([x - 0.02, x + 0.02], [place, place], color="black", linewidth=0.9, zorder=1)
            axes.annotate(
                shortened(label, 16), (x, place), (4, 0), textcoords="offset points", fontsize=SMALL, va="center",
                zorder=5, bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.6},
            )  # fmt: skip
        axes.annotate(axis.title, (x, 1.09), ha="center", fontsize=9, fontweight="bold" if axis.is_metric else "normal")
    axes.set_xlim(-0.15, count - 1 + 0.5)
    axes.set_ylim(UNUSED - 0.06 if has_unused else -0.06, 1.16)
    axes.axis("off")
    figures.save(figure, path)


@matplotlib.rc_context(figures.STYLE)
def draw_importance(data: Importance, path: Path) -> None:
    """A bar a key, hollow where chance gives as much; a black line marks what chance gives."""
    figure, axes = _figure(0.9 + 0.42 * len(data.keys))
    for i, (share, chance) in enumerate(zip(data.shares, data.chance, strict=True)):
        face = BEST_COLOUR if share > chance else "white"
        axes.barh(-i, share, height=0.6, color=face, edgecolor=BEST_COLOUR, linewidth=1.2)
        axes.plot([chance, chance], [-i - 0.4, -i + 0.4], color="black", linewidth=1.6)
    axes.set_yticks([-i for i in range(len(data.keys))], [shortened(key, figures.LONGEST_LABEL) for key in data.keys])
    axes.set_xlim(0, 1.05 * max(1.0, float(data.chance.max())))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.0f} %"))
    axes.grid(axis="x", color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_title(f"share in being among the best {data.top} of {data.trials} trials")
    figures.save(figure, path)


@matplotlib.rc_context(figures.STYLE)
def draw_pareto(data: Pareto, path: Path) -> None:
    """The first metric over each of the others; the trials of the front are filled and named."""
    costs = data.metrics[1:]
    figure = Figure((figures.WIDTH, 3.3 * len(costs)), layout="constrained")
    for axes, i in zip(figure.subplots(len(costs), squeeze=False)[:, 0], range(1, len(data.metrics)), strict=True):
        x, y = data.values[:, i], data.values[:, 0]
        axes.plot(x[~data.front], y[~data.front], "o", color=OTHER_COLOUR, markerfacecolor="white", markersize=5)
        order = np.argsort(x[data.front], kind="stable")
        front_x, front_y = x[data.front][order], y[data.front][order]
        if len(costs) == 1:
            axes.step(front_x, front_y, where="post", color=BEST_COLOUR, linewidth=1.5)
        axes.plot(front_x, front_y, "o", color=BEST_COLOUR, markersize=6)
        for name, a, b in zip(np.array(data.names)[data.front][order], front_x, front_y, strict=True):
            axes.annotate(name, (a, b), (4, 5), textcoords="offset points", fontsize=SMALL, color=BEST_COLOUR)
        _value_axis(axes, y)
        _log_axis(axes, x, "x")
        axes.set_xlabel(data.metrics[i])
        axes.set_title(data.metrics[0])
    figures.save(figure, path)


@dataclass(frozen=True)
class _Scale:
    """Values between ``low`` and ``high`` as places between 0 and 1, by their logarithm if ``is_log``."""

    low: float
    high: float
    is_log: bool

    @classmethod
    def of(cls, values: np.ndarray) -> "_Scale":
        known = values[np.isfinite(values)]
        low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
        return cls(low, high, _is_wide(known))

    def places(self, values: np.ndarray) -> np.ndarray:
        """NaN and infinite values are not used."""
        known = np.isfinite(values)
        shown = np.where(known, values, self.high)
        if self.high == self.low:
            places = np.full(len(values), 0.5)
        elif self.is_log:
            places = np.log(shown / self.low) / np.log(self.high / self.low)
        else:
            places = (shown - self.low) / (self.high - self.low)
        return np.where(known, np.clip(places, 0, 1), UNUSED)

    def ticks(self) -> list[tuple[float, str]]:
        """Both ends, and round numbers between them that leave room."""
        subs = (1, 2, 5) if self.high < DECADES * self.low else (1,)
        inner = LogLocator(subs=subs) if self.is_log else MaxNLocator(4)
        candidates = (
            [self.low, self.high, *inner.tick_values(self.low, self.high)] if self.high > self.low else [self.low]
        )
        ticks: list[tuple[float, str]] = []
        for value in candidates:
            if not self.low <= value <= self.high:
                continue
            place = float(self.places(np.array([value]))[0])
            if all(abs(place - other) > 0.09 for other, _ in ticks):
                ticks.append((place, short(value)))
        return ticks


def _choices(dimension: Dimension, given: list[Any]) -> tuple[ParallelAxis, np.ndarray]:
    """Evenly spaced choices; the lines through one are spread around it, the better trial the lower."""
    values = sorted(dimension.values) if _are_numbers(dimension.values) else dimension.values
    middles = [(i + 0.5) / len(values) for i in range(len(values))]
    places = np.full(len(given), UNUSED)
    for value, middle in zip(values, middles, strict=True):
        here = [i for i, one in enumerate(given) if one is not None and one == value]
        spread = min(SPREAD, 0.35 / len(values)) if len(here) > 1 else 0.0
        places[here] = middle + np.linspace(-spread, spread, len(here))
    return ParallelAxis(dimension.key, [*zip(middles, map(short, values), strict=True)]), places


def _range(dimension: Dimension, given: list[Any]) -> tuple[ParallelAxis, np.ndarray]:
    low, high = dimension.values
    scale = _Scale(low, high, dimension.kind == "loguniform")
    values = np.array([inf if one is None else float(one) for one in given])
    return ParallelAxis(dimension.key, scale.ticks()), scale.places(values)


def _divergences(sweep: Sweep, trials: list[Trial], keys: list[str], values: np.ndarray, top: int) -> np.ndarray:
    """PED-ANOVA's divergence for each key, of the ``top`` lowest ``values`` from all."""
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    study = sweep_study.complete(sweep, trials, values)
    evaluator = PedAnovaImportanceEvaluator(target_quantile=top / len(trials))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # regimes of conditional keys with a single trial
        found = get_param_importances(study, evaluator=evaluator, params=keys, normalize=False)
    return np.array([found[key] for key in keys])


def _figure(height: float) -> tuple[Figure, Axes]:
    figure = Figure((figures.WIDTH, height), layout="constrained")
    return figure, figure.subplots()


def _value_axis(axes: Axes, values: np.ndarray) -> None:
    _log_axis(axes, values, "y")
    axes.grid(axis="y", color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)


def _log_axis(axes: Axes, values: np.ndarray, name: str) -> None:
    """Make the axis a logarithmic one with plain labels, if the values range that far."""
    axis = axes.xaxis if name == "x" else axes.yaxis
    if _is_wide(values):
        axes.set(**{f"{name}scale": "log"})
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_minor_formatter(NullFormatter())
    else:
        axis.set_major_locator(MaxNLocator(6))
    axis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))


def _is_wide(values: np.ndarray) -> bool:
    return len(values) > 0 and float(values.min()) > 0 and float(values.max() / values.min()) > WIDE


def _are_numbers(values: list[Any]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def short(value: Any) -> str:
    """A value as figures and tables have room for it; large numbers in millions."""
    if isinstance(value, float) and abs(value) >= 1e5:
        return f"{value / 1e6:.4g} M"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
