"""What a page shows of one sweep: headline, charts, the table of trials and what failed."""

import shlex
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from nrh_dist.report import sweep_figures as figures
from nrh_dist.report.parts import Picture, free_slug, slug_of
from nrh_dist.report.sweep_collect import (
    FAILED,
    FINISHED,
    RUNNING,
    STOPPED,
    TABLE,
    WAITING,
    Dimension,
    Sweep,
    Trial,
    placeless,
)
from nrh_dist.report.sweep_collect import write_table as write_csv

SLUG = "sweep"  # how the addresses of all sweeps begin
SETTINGS = ("model.name", "preset", "seed", "data.root", "data.pack", "data.size", "train.batch_size")


@dataclass(frozen=True)
class Cell:
    """A cell of the table: what is shown, and what it is sorted by; None comes last in either direction."""

    text: str
    order: float | str | None


@dataclass(frozen=True)
class SweepChapter:
    """``facts`` are terms with their descriptions; ``rows`` are the trials, the best first, ``best`` its number."""

    sweep: Sweep
    title: str
    slug: str
    headline: str
    detail: str
    facts: list[tuple[str, str]]
    charts: list[Picture]
    wide_chart: Picture | None
    notes: list[str]
    columns: list[str]
    rows: list[list[Cell]]
    best: int | None
    failures: list[tuple[str, str]]
    table: str
    commands: list[tuple[str, str]]


def chapters(sweeps: list[Sweep], folder: Path) -> list[SweepChapter]:
    """A chapter a sweep; its table and figures are written below ``folder``."""
    found: list[SweepChapter] = []
    for sweep in sweeps:
        slug = free_slug(f"{SLUG}-{slug_of(sweep.name) or 'trials'}", [one.slug for one in found])
        table = f"tables/{slug}.csv"
        write_csv(sweep, folder / table)
        found.append(chapter(sweep, slug, folder, table))
    return found


def chapter(sweep: Sweep, slug: str, folder: Path, table: str = TABLE) -> SweepChapter:
    """The chapter of one sweep, its figures written below ``folder``; ``table`` is the address of its CSV file."""
    charts, wide_chart, notes = _charts(sweep, slug, folder)
    columns, rows = _table(sweep)
    verdict, detail = headline(sweep)
    return SweepChapter(
        sweep=sweep,
        title=f"Sweep {sweep.name}",
        slug=slug,
        headline=verdict,
        detail=detail,
        facts=_facts(sweep),
        charts=charts,
        wide_chart=wide_chart,
        notes=notes,
        columns=columns,
        rows=rows,
        best=sweep.best.index if sweep.best else None,
        failures=[(one.name, one.reason) for one in sweep.lives if one.status == FAILED],
        table=table,
        commands=_commands(sweep),
    )


def headline(sweep: Sweep) -> tuple[str, str]:
    """The best trial in one sentence, and how many trials and epochs stand behind it."""
    counts = [(sweep.count(status), status) for status in (FINISHED, STOPPED, FAILED, RUNNING, WAITING)]
    spent, most = sweep.epochs, len(sweep.trials) * sweep.max_epochs
    states = ", ".join(f"{count} {status}" for count, status in counts if count)
    detail = f"{_trials(len(sweep.trials))}: {states}. {spent:,} of at most {most:,} epochs were spent."
    best = sweep.best
    if best is None:
        if sweep.count(FAILED) == len(sweep.trials):
            return f"All {_trials(len(sweep.trials))} of {sweep.name} failed", detail
        return f"No trial of {sweep.name} has a value yet", detail
    values = ", ".join(f"{key} {figures.short(value)}" for key, value in best.assignment.items())
    epoch, value = min(best.own.items(), key=lambda item: item[1])
    so_far = " so far" if sweep.count(RUNNING) + sweep.count(WAITING) else ""
    if len(sweep.valued) > 1:
        detail += (
            f" The best is the lowest of {len(sweep.valued)} on the photos that it was chosen by, so slightly "
            "flattered: judge it on the test split."
        )
    return (
        f"Best{so_far} of {sweep.name}: {sweep.metric} {value:.4g} with {values} ({best.name}, epoch {epoch})",
        detail,
    )


def _charts(sweep: Sweep, slug: str, folder: Path) -> tuple[list[Picture], Picture | None, list[str]]:
    """The charts, the one that needs the whole width, and why any other is not there."""
    if sweep.best is None:
        return [], None, ["No trial has a value: there is nothing to draw."]
    charts: list[Picture] = []
    notes: list[str] = []

    def add(name: str, caption: str) -> Path:
        charts.append(
            Picture(
                f"figures/{name}{slug.removeprefix(SLUG)}.png", f"{caption} The table below has the numbers.", caption
            )
        )
        return folder / charts[-1].file

    path = add("best-so-far", _best_so_far_caption(sweep))
    figures.draw_best_so_far(figures.best_so_far(sweep), sweep.metric, path)
    path = add("learning-curves", _curves_caption(sweep))
    figures.draw_curves(figures.learning_curves(sweep), sweep.metric, path)
    importance, front = figures.importance(sweep), figures.pareto(sweep)
    if isinstance(importance, str):
        notes.append(f"Importance of the searched keys. {importance}")
    else:
        path = add("importance", _importance_caption(sweep, importance))
        figures.draw_importance(importance, path)
    if len(sweep.metrics) > 1 and front.names:
        path = add("pareto", "Filled: the Pareto front; no other trial is better in one metric and as good in all.")
        figures.draw_pareto(front, path)
    path = add("parallel", _parallel_caption(sweep))
    figures.draw_parallel(figures.parallel(sweep), path)
    return charts[:-1], charts[-1], notes


def _best_so_far_caption(sweep: Sweep) -> str:
    text = f"The lowest {sweep.metric} against the epochs that all trials spent."
    if sweep.scheduler == "pbt":
        return (
            f"{text} Counted by epoch: the first one of all trials, then the second one, as they wait for each other."
        )
    return (
        f"{text} The rows have no clock: trials are counted one after the other by their numbers, each to its end. "
        "Where several trained at once, the way to the same end was another."
    )


def _curves_caption(sweep: Sweep) -> str:
    text = f"{sweep.metric} by epoch, a line a trial; a mark is its end."
    if sweep.scheduler == "pbt":
        text += " A trial that took over another’s weights goes on in a line that begins at the other’s."
    return text


def _importance_caption(sweep: Sweep, found: figures.Importance) -> str:
    text = (
        f"Share of each key in being among the best {found.top} of {found.trials} trials by {sweep.metric} "
        "(PED-ANOVA). Black line: what chance gives in 19 of 20 cases; hollow: not above it."
    )
    if sweep.count(STOPPED):
        text += " Trials that were stopped early count with the best that they reached."
    return text


def _parallel_caption(sweep: Sweep) -> str:
    missing = len(sweep.trials) - len(sweep.valued)
    text = f"A line a trial; the darker, the lower its {sweep.metric}; thick: the lowest."
    text += " Lines through one choice are spread around it, the better the lower."
    return f"{text} Without {_trials(missing)} that {'has' if missing == 1 else 'have'} no value." if missing else text


def _table(sweep: Sweep) -> tuple[list[str], list[list[Cell]]]:
    """The trials, the best first; those without a value last."""
    pareto = figures.pareto(sweep)
    front = {name for name, on in zip(pareto.names, pareto.front, strict=True) if on and len(sweep.metrics) > 1}
    columns = ["Trial", *sweep.keys, *sweep.metrics, *(["Pareto"] if front else []), "Epochs", "Status"]
    rows = []
    for one in sorted(sweep.trials, key=lambda one: (one.best, one.index)):
        cells = [Cell(one.name, one.index), *(_cell(one, dimension) for dimension in sweep.dimensions)]
        cells += [Cell(figures.short(v), v) if isfinite(v) else Cell("–", None) for v in sweep.objectives(one)]
        cells += [Cell("front", 0) if one.name in front else Cell("", None)] if front else []
        rows.append([*cells, Cell(f"{one.epochs}", one.epochs), Cell(one.status, one.status)])
    return columns, rows


def _cell(trial: Trial, dimension: Dimension) -> Cell:
    if dimension.key not in trial.assignment:
        return Cell("–", None)
    value = trial.assignment[dimension.key]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return Cell(figures.short(value), value if is_number else str(value))


def _facts(sweep: Sweep) -> list[tuple[str, str]]:
    """What was searched, how, and on what."""
    options = ", ".join(f"{key} {value}" for key, value in sweep.options.items())
    config = next((one.config for one in sweep.lives if one.config), {})
    settings = ", ".join(
        f"{key} {placeless(config[key])}" for key in SETTINGS if config.get(key) is not None and key not in sweep.keys
    )
    found = [
        ("Search", f"{sweep.search}, {_trials(len(sweep.trials))}"),
        ("Scheduler", f"{sweep.scheduler}: {options}"),
        ("Metric", ", ".join(sweep.metrics) + "; on the validation photos, the lowest of a trial’s epochs"),
        *((one.key, _space(one)) for one in sweep.dimensions),
        ("Base", " ".join(sweep.base) or "–"),
    ]
    return [*found, ("Settings", settings)] if settings else found


def _space(dimension: Dimension) -> str:
    values = [figures.short(value) for value in dimension.values]
    text = ", ".join(values) if dimension.kind == "choice" else f"{values[0]} to {values[1]}"
    text = f"{dimension.kind}: {text}"
    when = " and ".join(f"{key} is {value}" for key, value in dimension.when.items())
    return f"{text}; only where {when}" if when else text


def _commands(sweep: Sweep) -> list[tuple[str, str]]:
    """What a reader can do next."""
    place = f"{sweep.folder.resolve().parent.name}/{sweep.folder.name}"
    folder = shlex.quote(place)
    found = [("The same in a dashboard", f"optuna-dashboard {shlex.quote(f'sqlite:///{place}/study.db')}")]
    if sweep.best:
        found.insert(
            0, ("Judge the best on the test split", f"nrh evaluate {folder} identity --data DATA --out evaluation")
        )
        found.insert(0, ("The best checkpoint, and why", f"nrh best {folder}"))
    unfinished = sweep.count(RUNNING) + sweep.count(WAITING)
    if unfinished + sweep.count(FAILED):
        what = "Go on" if unfinished else "Try what failed anew"
        found.insert(0, (f"{what}, with the file and words that it began with", "nrh tune FILE key=value ... --resume"))
    return found


def _trials(count: int) -> str:
    return f"{count:,} trial{'s' if count != 1 else ''}"
