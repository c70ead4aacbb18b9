"""One set of evaluations against an earlier one: what improved and what got worse, by model and by image."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import isnan
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nrh_dist.errors import UserError
from nrh_dist.report import against_figures, bootstrap, paired, paper
from nrh_dist.report.collect import TRUE_MASKS, Evaluation
from nrh_dist.report.parts import Picture
from nrh_dist.report.result import IDENTITY, photos_of
from nrh_dist.report.shown import Column, Row, Table, percent
from nrh_dist.report.statistics import WORSE1, mean

DATA_MOVED = 0.01  # of MSE: above it, the input itself is another one


@dataclass(frozen=True)
class Pair:
    """One image under one model in two evaluations; several runs of the model are averaged. ``group``: its photo."""

    dataset: str
    model: str
    name: str
    before: float
    now: float
    group: str


class _Image(NamedTuple):
    """Mean MSE over the runs, and what is known of the input."""

    mse: float
    identity: float
    group: str


def pairs(evaluations: Iterable[Evaluation], other: Evaluation) -> tuple[list[Pair], int]:
    """The images that both sides have by sub-set, model and name, and how many were left out: their input differs.

    Raises ``UserError`` where the sides share no image, with the same input, under the same model at the same size.
    """
    ours = [evaluation for evaluation in evaluations if evaluation.size == other.size]
    now, before = _by_image(ours), _by_image([other])
    shared = [key for key in before if key in now]
    if not shared:
        raise UserError(
            f"--against {other.folder} shares no image under the same model at the same size ({other.size} px) "
            "with the evaluations: compare evaluations of the same data, models and size"
        )
    same = [key for key in shared if not abs(now[key].identity - before[key].identity) > DATA_MOVED]
    if not same:
        raise UserError(
            f"--against {other.folder} has other images under the same names (the error of every input differs): "
            "compare evaluations of the same data"
        )
    found = [Pair(*key, before[key].mse, now[key].mse, now[key].group) for key in same]
    return found, len(shared) - len(same)


def by_model(found: Sequence[Pair], left_out: int) -> Table:
    """By model: mean MSE before and now, the mean change with a paired test, and the share of images that improved or
    got worse by more than 1."""
    columns = [
        Column("images", "Images", "", 0),
        Column("mse_before", "before", "MSE"),
        Column("mse_now", "now", "MSE"),
        Column("change_percent", "change, %", "MSE", 1),
        *paired.columns("now − before"),
    ]
    rows, tests = [], []
    for model, chosen in by_models(found).items():
        before, now = np.array([(pair.before, pair.now) for pair in chosen]).T
        photos = photos_of(*zip(*((pair.dataset, pair.name, pair.group) for pair in chosen), strict=True))
        test = paired.compare(photos, now, before)
        tests.append(test.p)
        values = [len(now), mean(before), mean(now), percent(mean(now), mean(before)), *test.cells()]
        rows.append(Row(label_of(model), values, "", model))
    corrected = zip(rows, paired.holm(tests), strict=True)
    rows = [replace(row, values=[*row.values, p]) for row, p in corrected]
    notes = [f"Several runs of one model are averaged per image. {bootstrap.NOTE} {paired.NOTE}"]
    if left_out:
        notes.append(f"{left_out:,} images were left out: the error of their input differs, so they are other images.")
    return Table("against-models", "What changed, by model", columns, rows, notes)


def by_image(found: Sequence[Pair], most: int | None = None) -> Table:
    """By image, the largest improvement first; with ``most``, that many from each end of each model's list."""
    columns = [
        Column("mse_before", "before", "MSE"),
        Column("mse_now", "now", "MSE"),
        Column("change", "change", "MSE"),
    ]
    rows = []
    for model, chosen in by_models(found).items():
        ordered = sorted(chosen, key=lambda pair: pair.now - pair.before)
        if most is not None:
            improved = [pair for pair in ordered if pair.now - pair.before < -WORSE1][:most]
            ordered = improved + [pair for pair in ordered if pair.now - pair.before > WORSE1][-most:]
        label = label_of(model)
        rows += [
            Row(f"{pair.dataset}/{pair.name}", [pair.before, pair.now, pair.now - pair.before], label, model)
            for pair in ordered
        ]
    caption = "All images" if most is None else f"The images that changed most, at most {most} each way"
    return Table("against-images", caption, columns, rows)


def chart(found: Sequence[Pair], folder: Path) -> Picture:
    """Each image's error before and now, a panel a model, drawn to ``figures`` in ``folder``."""
    panels = []
    for model, chosen in by_models(found).items():
        before, now = np.array([(pair.before, pair.now) for pair in chosen]).T
        panels.append(against_figures.Panel(label_of(model), before, now))
    file = "figures/against.png"
    against_figures.draw(panels, folder / file)
    caption = (
        "Error of each image before and now, a point an image; on the dashed line nothing changed. Blue: improved by "
        f"more than {WORSE1:g}; orange: got worse; grey: about the same."
    )
    return Picture(file, f"Scatter plots for {', '.join(panel.label for panel in panels)}. {caption}", caption)


def by_models(found: Sequence[Pair]) -> dict[str, list[Pair]]:
    """The pairs of each model, in order of appearance."""
    models: dict[str, list[Pair]] = {}
    for pair in found:
        models.setdefault(pair.model, []).append(pair)
    return models


def label_of(model: str) -> str:
    """The model's name for people."""
    name, comma, masks = model.partition(", ")
    return paper.LABELS.get(name, name) + comma + masks


def _by_image(evaluations: Iterable[Evaluation]) -> dict[tuple[str, str, str], _Image]:
    """By (sub-set, model, name); identity and missing values left out.

    The harmoniser of two_stage with true masks stays apart from other runs of its model.
    """
    found: dict[tuple[str, str, str], list[_Image]] = {}
    for evaluation in evaluations:
        for result in evaluation.results:
            if result.model == IDENTITY:
                continue
            model = f"{result.model}, true masks" if result.run.endswith(TRUE_MASKS) else result.model
            columns = result.datasets, result.names, result.mse, result.identity_mse, result.group
            for dataset, name, mse, identity, group in zip(*columns, strict=True):
                if not isnan(mse):
                    image = _Image(float(mse), float(identity), str(group))
                    found.setdefault((str(dataset), model, str(name)), []).append(image)
    return {key: v[0]._replace(mse=sum(one.mse for one in v) / len(v)) for key, v in found.items()}
