"""Read and check evaluation folders: nothing after this file meets a malformed value.

A value that is empty or not finite in ``per_image.csv`` becomes NaN: "not available", counted and shown by the page.
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

SCHEMA = 1
METRICS = ("mse", "psnr", "fmse", "lpips", "area_fraction", "identity_mse", "identity_psnr")
COLUMNS = ("dataset", "model", "run", "name", *METRICS)
IDENTITY = "identity"
TRUE_MASKS = "-true-masks"  # how the run of a two-stage model's harmoniser with the true masks (C_s) ends


@dataclass(frozen=True)
class Result:
    """What one run did to n images: float64 arrays of length n, NaN where a value is not available."""

    model: str
    run: str
    datasets: np.ndarray
    names: np.ndarray
    mse: np.ndarray
    psnr: np.ndarray
    fmse: np.ndarray
    lpips: np.ndarray
    area_fraction: np.ndarray
    identity_mse: np.ndarray
    identity_psnr: np.ndarray

    def __len__(self) -> int:
        return len(self.names)

    def of(self, datasets: tuple[str, ...]) -> "Result":
        """The rows of these sub-sets only."""
        keep = np.isin(self.datasets, datasets)
        return replace(self, **{key: getattr(self, key)[keep] for key in ("datasets", "names", *METRICS)})


class Checkpoint(msgspec.Struct):
    """Where a run's weights come from, with its flat dotted configuration."""

    run: str
    model: str
    checkpoint: str
    epoch: int | None = None
    step: int | None = None
    config: dict[str, Any] = {}


class RunMeans(msgspec.Struct):
    """The mean that the evaluation wrote for one run on one sub-set ("all": on all), to check the rows against."""

    dataset: str
    run: str
    count: int
    mse: float | None = None


class Summary(msgspec.Struct):
    """``summary.json``; ``lpips`` is the reason why LPIPS was not measured, or empty."""

    size: int
    protocol: dict[str, str]
    datasets: dict[str, int]
    data: str
    split: str
    models: list[RunMeans]
    lpips: str | None = None
    checkpoints: list[Checkpoint] = []


class StripImages(msgspec.Struct):
    composite: str
    real: str
    mask: str
    outputs: dict[str, str]
    masks: dict[str, str] = {}


class Strip(msgspec.Struct):
    """One image's pictures, as file names in ``strips/``; ``outputs`` and detector ``masks`` by run."""

    dataset: str
    name: str
    images: StripImages


class Strips(msgspec.Struct):
    rule: str
    strips: list[Strip]


@dataclass(frozen=True)
class Evaluation:
    """An evaluation folder. ``results`` are in the order of the tables, identity first."""

    folder: Path
    summary: Summary
    results: list[Result]
    strips: Strips | None

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
    if results[0].model != IDENTITY:
        results.insert(0, _identity_of(results[0]))
    strips_file = folder / "strips" / "strips.json"
    strips = read_json(strips_file, Strips) if strips_file.is_file() else None
    if strips:
        _check_strips(strips_file, strips)
    return Evaluation(folder, summary, results, strips)


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
    """The rows by run, in the order of the tables; each image once a run."""
    keys: dict[tuple[str, str], dict[tuple[str, str], list[float]]] = {}
    for where, row in read_csv(path, COLUMNS):
        dataset, model, run, name, *cells = row
        images = keys.setdefault((model, run), {})
        if (dataset, name) in images:
            raise UserError(f"{where} repeats {dataset}/{name} of run {run}: make the evaluation again")
        images[dataset, name] = [number_in(cell, where) for cell in cells]
    if not keys:
        raise UserError(f"{path} holds no images: make the evaluation again")
    results = [_result(model, run, images) for (model, run), images in keys.items()]
    return sorted(results, key=lambda result: _position(result.model))


def read_csv(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, list[str]]]:
    """The rows, each behind its place for a message; ``UserError`` where the columns or a row's cells are others."""
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.reader(file)
        try:
            header = next(reader, [])
            if tuple(header) != columns:
                raise UserError(
                    f"{path} must have the columns {','.join(columns)}, but has {','.join(header) or 'none'}"
                )
            for row in reader:
                where = f"{path}, line {reader.line_num}"
                if len(row) != len(columns):
                    raise UserError(
                        f"{where} has {len(row)} cells instead of {len(columns)}: make the evaluation again"
                    )
                yield where, row
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


def _result(model: str, run: str, images: dict[tuple[str, str], list[float]]) -> Result:
    datasets, names = zip(*images, strict=True)
    columns = dict(zip(METRICS, np.array(list(images.values())).T, strict=True))
    return Result(model, run, np.array(datasets), np.array(names), **columns)


def _identity_of(result: Result) -> Result:
    """The row that every table has, from the columns that every row carries."""
    unknown = np.full(len(result), np.nan)
    return replace(
        result,
        model=IDENTITY,
        run=IDENTITY,
        mse=result.identity_mse,
        psnr=result.identity_psnr,
        fmse=unknown,
        lpips=unknown,
    )


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
