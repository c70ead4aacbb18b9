"""How few epochs a search needs to find what a random search finds in all of its own.

Every configuration of a grid is trained once to its end, by a sweep on sample data that goes on where it was stopped.
Searches then play through these learning curves, under the schedulers and searchers of ``nrh tune``: each draws from
the whole space and gets the curve of the nearest trained learning rate. An epoch costs the same wherever it is spent.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from nrh_dist.data.layouts import Source, index
from nrh_dist.data.pack import write_pack
from nrh_dist.data.synthetic import write_sample
from nrh_dist.engine import track
from nrh_dist.engine.progress import Say
from nrh_dist.launch.rehearsal import Curve, rehearse
from nrh_dist.launch.schedule import Asha, Schedule
from nrh_dist.launch.schedulers import scheduler, searcher
from nrh_dist.launch.space import Assignment, Dimension, Space
from nrh_dist.launch.trials import begun, noted
from nrh_dist.launch.tune import tune
from nrh_dist.location import cache_dir
from nrh_dist.report.search_curves import draw
from nrh_dist.workflows.measure import Figure, default_file, figure

METRIC, SIZE, THINNED = "val/mse", 64, 3  # every third sample: 42 trainings in a quarter of an hour
RATES = tuple(float(f"{1e-4 * 10 ** (step / 3):.3g}") for step in range(7))  # 1e-4 to 1e-2, three a decade
WIDTHS, FREEZES = (16, 64, 256), ("encoder", "none")
EPOCHS, TRIALS, SEEDS, AT_ONCE = 27, 27, 5, 2
RANDOM = "random search"
TARGET = 0.99  # the best value within 1 %, at a tenth of the epochs
SPACE = f"""\
metric: {METRIC}
search: grid
scheduler: {{none: {{max_epochs: {EPOCHS}}}}}
base: {{preset: tiny, model.name: ptc_att_dih, data.val_fraction: 0.25, train.keep_checkpoints: 1}}
space:
  model.fusion_width: {{choice: {list(WIDTHS)}}}
  model.freeze: {{choice: {list(FREEZES)}}}
  optim.lr: {{choice: {list(RATES)}}}
"""

Table = dict[tuple[Any, ...], Curve]


def bench(say: Say, table: Table | None = None) -> list[Figure]:
    """Of searches that stop early: a full random search's best value over theirs at a tenth of its epochs.

    Draws ``sweep-curves.png`` beside the file of the figures.
    """
    table = table or trained(say)
    epochs = len(next(iter(table.values())))
    budget = TRIALS * epochs
    seeds = range(SEEDS)
    kinds = {
        RANDOM: (Schedule(epochs), "random"),
        "ASHA from epoch 1": (Asha(epochs, 1), "random"),
        "ASHA from epoch 3": (Asha(epochs, 3), "random"),
        "ASHA from epoch 3 and TPE": (Asha(epochs, 3), "optuna"),
    }
    searches = {
        name: [_best_so_far(_search(table, schedule, search, seed), budget) for seed in seeds]
        for name, (schedule, search) in kinds.items()
    }
    draw(searches, budget // 10, METRIC, default_file().parent / "sweep-curves.png")
    full = [one[-1] for one in searches[RANDOM]]
    return [_figure(name, found, full, budget) for name, found in searches.items()]


def trained(say: Say) -> Table:
    """The learning curve of every configuration of the grid; kept in the cache, and continued there."""
    folder = cache_dir() / "bench-sweep"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "pack" / "pack.json").exists():
        write_sample(folder / "sample", say=say)
        write_pack(index(Source(folder / "sample" / "iharmony4"))[::THINNED], folder / "pack", SIZE, None, say)
    file = folder / "space.yaml"
    file.write_text(SPACE)
    words = [f"data.pack={folder / 'pack'}", f"run.root={folder}", "run.name=grid", "track.wandb=disabled"]
    sweep = tune(file, words, (folder / "grid" / "sweep.json").exists(), say)
    curves = {}
    for trial in begun(sweep).values():
        rows = track.rows_up_to(trial, EPOCHS)
        if len(rows) == EPOCHS:  # a learning rate may have diverged
            curves[_cell(noted(trial)["assignment"])] = [row[METRIC] for row in rows]
    worst = max(map(max, curves.values()))
    return {cell: curves.get(cell, [worst] * EPOCHS) for cell in product(WIDTHS, FREEZES, RATES)}


def _cell(assignment: Assignment) -> tuple[Any, ...]:
    """The trained configuration that is nearest: in the learning rate by ratio."""
    rate = min(RATES, key=lambda one: abs(math.log(one / assignment["optim.lr"])))
    return assignment["model.fusion_width"], assignment["model.freeze"], rate


def _search(table: Table, schedule: Schedule, search: str, seed: int) -> Callable[[], Any]:
    """The events of a search without an end."""
    dimensions = (
        Dimension("model.fusion_width", "choice", WIDTHS),
        Dimension("model.freeze", "choice", FREEZES),
        Dimension("optim.lr", "loguniform", (RATES[0], RATES[-1])),
    )
    searched = Space("bench", (METRIC,), 1000, search, schedule, (), dimensions)
    asked = searcher(searched, seed, {})
    drawn = searched.assignments(seed)

    def begin(number: int) -> Curve:
        assignment = asked.suggest(str(number))["trial"]["assignment"] if asked else drawn[number]
        return table[_cell(assignment)]

    def end(number: int, value: float) -> None:
        if asked:
            asked.on_trial_complete(str(number), {METRIC: value})

    return lambda: rehearse(scheduler(searched, Path(), seed, print), METRIC, begin, AT_ONCE, end)


def _best_so_far(events: Callable[[], Any], budget: int) -> list[float]:
    """The lowest value after each epoch of all trials together."""
    best: list[float] = []
    for _, (_, _, value) in zip(range(budget), events(), strict=False):
        best.append(min(value, best[-1]) if best else value)
    return best


def _figure(name: str, found: Sequence[Sequence[float]], full: Sequence[float], budget: int) -> Figure:
    tenth = budget // 10
    needed = [_epochs_to(one, best / TARGET) for one, best in zip(found, full, strict=True)]
    equal = statistics.median(best / one[-1] for one, best in zip(found, full, strict=True))
    shares = [f"{epochs / budget:.0%}" if epochs else "never" for epochs in needed]
    return figure(
        f"best value of {name} after {tenth} epochs",
        [best / one[tenth - 1] for one, best in zip(found, full, strict=True)],
        None if name == RANDOM else TARGET,
        f"that of a random search after {budget}",
        f"lowest {METRIC}, seeds of the search",
        f"within 1 % of it after {', '.join(shares)} of its epochs; after as many epochs {equal:.3g} times",
    )


def _epochs_to(best: Sequence[float], value: float) -> int | None:
    return next((epoch for epoch, reached in enumerate(best, start=1) if reached <= value), None)
