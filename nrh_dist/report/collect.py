"""Read and check evaluation folders: nothing after this file meets a malformed value.

A value that is empty or not finite in ``per_image.csv`` becomes NaN: "not available", counted and shown by the page.
So does a column that an evaluation may leave out; columns that this version does not know are passed over.
"""

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from nrh_dist.errors import UserError
from nrh_dist.report import paper
from nrh_dist.report.provenance import Provenance
from nrh_dist.report.result import FURTHER, IDENTITY, METRICS, NUMBERS, OF_THE_INPUT, WORDS, Result

SCHEMA = 1
COLUMNS = ("dataset", "model", "run", "name", *METRICS)
TRUE_MASKS = "-true-masks"  # how the run of a two-stage model's harmoniser with the true masks (C_s) ends


class Checkpoint(msgspec.Struct):
    """Where a run's weights come from, with its flat dotted configuration."""

    run: str
    model: str
    checkpoint: str
    epoch: int | None = None
    step: int | None = None
    config: dict[str, Any] = {}
    digest: str = ""


class FieldBin(msgspec.Struct):
    """The mean over the images whose object's size is in one of the field's bins, such as 5-15%."""

    bin: str
    count: int
    mse: float | None = None


class RunMeans(msgspec.Struct):
    """What the evaluation wrote for one run on one sub-set ("all": on all), to check the rows against."""

    dataset: str
    run: str
    count: int
    mse: float | None = None
    median_mse: float | None = None
    field_bins: list[FieldBin] = []


class LeftOut(msgspec.Struct):
    """Samples of the data, of whatever list, whose files could not be used; the first ``names`` of ``count``."""

    count: int
    names: list[str] = []


class Summary(msgspec.Struct):
    """``summary.json``; ``lpips`` is the reason why LPIPS was not measured, or empty."""

    size: int
    protocol: dict[str, str]
    datasets: dict[str, int]
    data: str
    split: str
    models: list[RunMeans]
    lpips: str | None = None
    left_out: LeftOut | None = None
    checkpoints: list[Checkpoint] = []


class StripImages(msgspec.Struct):
    composite: str
    real: str
    mask: str
    outputs: dict[str, str]
    masks: dict[str, str] = {}


class Strip(msgspec.Struct):
    """One image's pictures, as file names in ``strips/``; ``outputs`` and detector ``masks`` by run.

    ``group`` is why it was chosen ("best", "worst", "not detected", ...), by what ``run`` did to it; ``change`` is the
    MSE of that run - the MSE of the input. Older evaluations have none of the three.
    """

    dataset: str
    name: str
    images: StripImages
    group: str = ""
    run: str = ""
    change: float | None = None


class Strips(msgspec.Struct):
    """``rule`` says how all were chosen, ``rules`` how those of each group were."""

    rule: str
    strips: list[Strip]
    rules: dict[str, str] = {}


@dataclass(frozen=True)
class Evaluation:
    """An evaluation folder. ``results`` are in the order of the tables, identity first, all of the same n images."""

    folder: Path
    summary: Summary
    results: list[Result]
    strips: Strips | None
    provenance: Provenance | None = None

    @property
    def size(self) -> int:
        return self.summary.size


def read(folder: Path) -> Evaluation:
    """The evaluation in ``folder``; ``UserError`` where it is none, has another schema or is damaged."""
    if not (folder / "summary.json").is_file() or not (folder / "per_image.csv").is_file():
        raise UserError(
            f"{folder} is not an evaluation folder (summary.json and per_image.csv): give one that nrh evaluate wrote"
        )
    summary = read_json(folder / "summary.json", Summary)
    results = _read_rows(folder / "per_image.csv")
    for result in results:
        _check_counts(folder, result, summary.datasets)
        if [*result.datasets] != [*results[0].datasets] or [*result.names] != [*results[0].names]:
            raise UserError(
                f"{folder}: per_image.csv has other images of run {result.run} than of run {results[0].run}: "
                "make the evaluation again"
            )
    if results[0].model != IDENTITY:
        results.insert(0, _identity_of(results[0]))
    strips_file = folder / "strips" / "strips.json"
    strips = read_json(strips_file, Strips) if strips_file.is_file() else None
    if strips:
        _check_strips(strips_file, strips)
    provenance_file = folder / "provenance.json"
    provenance = read_json(provenance_file, Provenance) if provenance_file.is_file() else None
    return Evaluation(folder, summary, results, strips, provenance)


def read_json(path: Path, kind: type, expected: int = SCHEMA, remedy: str = "make the evaluation again") -> Any:
    """The file as a ``kind``; ``UserError``, ending in ``remedy``, where it is damaged or has another schema."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # not JSON, or not UTF-8
        raise UserError(f"{path} is not readable JSON ({error}): {remedy}") from None
    schema = values.get("schema") if isinstance(values, dict) else None
    if schema != expected:
        raise UserError(f"{path} has schema {schema}, but this version reads schema {expected}: {remedy}")
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        raise UserError(f"{path} is not as expected: {error}; {remedy}") from None


def _read_rows(path: Path) -> list[Result]:
    """The rows by run, in the order of the tables; each image once a run, in the order of the first run's."""
    keys: dict[tuple[str, str], dict[tuple[str, str], list[float | str]]] = {}
    further = (*FURTHER, *WORDS)
    for where, row in read_csv(path, COLUMNS, further):
        dataset, model, run, name, *cells = row
        images = keys.setdefault((model, run), {})
        if (dataset, name) in images:
            raise UserError(f"{where} repeats {dataset}/{name} of run {run}: make the evaluation again")
        numbers = [number_in(cell, where) for cell in cells[: len(NUMBERS)]]
        images[dataset, name] = [*numbers, *cells[len(NUMBERS) :]]
    if not keys:
        raise UserError(f"{path} holds no images: make the evaluation again")
    order = list(next(iter(keys.values())))
    results = [_result(model, run, _in_order(images, order)) for (model, run), images in keys.items()]
    return sorted(results, key=lambda result: _position(result.model))


def read_csv(path: Path, columns: tuple[str, ...], further: tuple[str, ...] = ()) -> Iterator[tuple[str, list[str]]]:
    """The rows, each behind its place for a message; ``UserError`` where the columns or a row's cells are others.

    A row's cells are those of ``columns`` and then of ``further``, columns that a file may leave out ("" then). Given
    ``further``, the file may hold columns of other names as well.
    """
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.reader(file)
        try:
            header = next(reader, [])
            known = tuple(name for name in header if name in columns) if further else tuple(header)
            if known != columns:
                raise UserError(
                    f"{path} must have the columns {','.join(columns)}, but has {','.join(header) or 'none'}"
                )
            places = [header.index(name) if name in header else -1 for name in (*columns, *further)]
            for row in reader:
                where = f"{path}, line {reader.line_num}"
                if len(row) != len(header):
                    raise UserError(f"{where} has {len(row)} cells instead of {len(header)}: make the evaluation again")
                row.append("")  # for the columns that are not there
                yield where, [row[place] for place in places]
        except (csv.Error, UnicodeDecodeError) as error:
            raise UserError(f"{path} is not a readable CSV file ({error}): make the evaluation again") from None


def number_in(cell: str, where: str) -> float:
    """A cell's value; NaN where it is empty or not finite."""
    if not cell:
        return float("nan")
    try:
        value = float(cell)
    except ValueError:
        raise UserError(f"{where}: '{cell}' is not a number: make the evaluation again") from None
    return value if np.isfinite(value) else float("nan")


def _in_order(
    images: dict[tuple[str, str], list[float | str]], order: list[tuple[str, str]]
) -> dict[tuple[str, str], list[float | str]]:
    """The images in ``order``, those that are not in it behind."""
    return {key: images[key] for key in (*(key for key in order if key in images), *images)}


def _result(model: str, run: str, images: dict[tuple[str, str], list[float | str]]) -> Result:
    datasets, names = zip(*images, strict=True)
    columns = dict(zip((*NUMBERS, *WORDS), map(np.array, zip(*images.values(), strict=True)), strict=True))
    return Result(model, run, np.array(datasets), np.array(names), **columns)


def _identity_of(result: Result) -> Result:
    """The row that every table has, from the columns that every row carries."""
    unknown = dict.fromkeys((key for key in NUMBERS if key not in OF_THE_INPUT), np.full(len(result), np.nan))
    known = {"mse": result.identity_mse, "psnr": result.identity_psnr}
    return replace(result, model=IDENTITY, run=IDENTITY, **(unknown | known))


def _check_counts(folder: Path, result: Result, datasets: dict[str, int]) -> None:
    counts = dict(zip(*np.unique(result.datasets, return_counts=True), strict=True))
    for dataset in sorted(datasets.keys() | counts.keys()):
        expected, rows = datasets.get(dataset, 0), int(counts.get(dataset, 0))
        if expected != rows:
            raise UserError(
                f"{folder}: summary.json has {expected} images of {dataset}, but per_image.csv has {rows} of run "
                f"{result.run}: make the evaluation again"
            )


def _check_strips(path: Path, strips: Strips) -> None:
    for strip in strips.strips:
        images = strip.images
        check_pictures(
            path, [images.composite, images.real, images.mask, *images.outputs.values(), *images.masks.values()]
        )


def check_pictures(path: Path, names: Iterable[str]) -> None:
    """``UserError`` where one of the ``names`` in the file ``path`` is no file beside it."""
    for name in names:
        if Path(name).name != name or not (path.parent / name).is_file():
            raise UserError(f"{path} names '{name}', which is no file beside it: make the evaluation again")


def _position(model: str) -> int:
    order = list(paper.LABELS)
    return order.index(model) if model in order else len(order)
