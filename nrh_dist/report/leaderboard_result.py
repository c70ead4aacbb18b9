"""A result of the leaderboard: an evaluation's numbers in one small file, without paths of machines or pictures."""

import json
import re
import shlex
from collections.abc import Callable
from math import isnan
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from nrh_dist.errors import UserError
from nrh_dist.report import bootstrap, files
from nrh_dist.report.collect import Checkpoint, Evaluation, read_json
from nrh_dist.report.provenance import Training
from nrh_dist.report.result import IDENTITY, Result
from nrh_dist.report.sections import Section, sections
from nrh_dist.report.statistics import by_bin, change, means

SCHEMA = 1
FOLDER = "results"  # below the folder of the reports
DECIMALS = 4
REMEDY = "add the result again with nrh leaderboard --add"
Config = dict[str, Any]


class Bin(msgspec.Struct):
    """A tenth of the object's size: number of images and mean MSE."""

    bin: str
    count: int
    mse: float | None


class Run(msgspec.Struct):
    """Means of one run over a data set; shares and changes in percent, ``config`` what differs from the defaults."""

    run: str
    model: str
    label: str
    mse: float | None
    mse_interval: tuple[float, float] | None
    psnr: float | None
    fmse: float | None
    lpips: float | None
    change_percent: float | None
    change_interval: tuple[float, float] | None
    worse1_percent: float | None
    bins: list[Bin]
    config: Config = {}
    epoch: int | None = None
    step: int | None = None
    digest: str = ""
    training: Training | None = None


class DataSet(msgspec.Struct):
    """What was averaged together; ``collection`` is the paper's name of it, None for other data."""

    title: str
    collection: str | None
    counts: dict[str, int]
    photos: int
    runs: list[Run]


class Published(msgspec.Struct):
    """One evaluation; what it does not record is empty. ``lpips``: why it was not measured."""

    name: str
    note: str
    size: int
    split: str
    data_sets: list[DataSet]
    protocol: dict[str, str]
    lpips: str | None = None
    command: str = ""
    commit: str | None = None
    version: str = ""
    started: str = ""
    device: str = ""
    gpu_hours: float | None = None
    cpu_hours: float | None = None


def compact(evaluation: Evaluation, name: str, note: str, changed: Callable[[Config], Config]) -> Published:
    """The evaluation as a result ``name``; ``changed`` gives of a flat configuration what is worth telling."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise UserError(f"--name {name} may hold letters, digits, '.', '_' and '-' only, as in gated-256")
    summary, made = evaluation.summary, evaluation.provenance
    found = Published(
        name=name,
        note=note,
        size=summary.size,
        split=summary.split,
        data_sets=[_data_set(section, changed) for section in sections([evaluation])],
        protocol=summary.protocol,
        lpips=summary.lpips and placeless(summary.lpips),
    )
    if made:
        found.command, found.commit, found.version = placeless_command(made.command), made.commit, made.version
        found.started, found.device, found.gpu_hours = made.started, made.device, _rounded(made.gpu_hours)
        found.cpu_hours = _rounded(made.cpu_hours)
    return found


def save(result: Published, folder: Path) -> Path:
    """Write the result into ``folder``/results; one of the same name is replaced."""
    path = folder / FOLDER / f"{result.name}.json"
    content = {"schema": SCHEMA, **msgspec.to_builtins(result)}
    with files.explained():
        path.parent.mkdir(parents=True, exist_ok=True)
    files.write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return path


def load(folder: Path) -> list[Published]:
    """All results below ``folder``, by name; ``UserError`` where one is damaged or has another schema."""
    return [read_json(path, Published, SCHEMA, REMEDY) for path in sorted((folder / FOLDER).glob("*.json"))]


def placeless(text: str) -> str:
    """The text with each absolute path in it shortened to its last name: a result is shown to others."""
    return re.sub(r"(?<![\w.])~?/(?:[^\s/'\",;:]+/)*([^\s/'\",;:]+)/?", r"\1", text)


def placeless_command(command: str) -> str:
    """The command with each absolute path among its words shortened to its last name."""
    try:
        words = [word.rpartition("=") for word in shlex.split(command)]
    except ValueError:  # no command of a shell
        return placeless(command)
    shown = [f"{key}{sign}{Path(value).name if value[:1] in ('/', '~') else value}" for key, sign, value in words]
    return shlex.join(shown)


def training_command(run: Run) -> str:
    """The command that trains the run again; empty for one that was not trained."""
    words = [f"{key}={_word(value)}" for key, value in run.config.items() if value is not None]
    return shlex.join(["nrh", "train", *words, f"run.name={run.run}"]) if words else ""


def _word(value: object) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(str, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _data_set(section: Section, changed: Callable[[Config], Config]) -> DataSet:
    summary = section.evaluation.summary
    checkpoints = {one.run: one for one in summary.checkpoints}
    runs = [_run(section, result, checkpoints.get(result.run), changed) for result in section.results]
    counts = {name: summary.datasets[name] for name in section.datasets}
    return DataSet(section.title, section.collection, counts, len(np.unique(section.identity.photos)), runs)


def _run(section: Section, result: Result, checkpoint: Checkpoint | None, changed: Callable[[Config], Config]) -> Run:
    values, against = means(result), None if result.model == IDENTITY else change(result)
    made = section.evaluation.provenance
    found = Run(
        run=result.run,
        model=result.model,
        label=section.labels[result.run],
        mse=_rounded(values.mse),
        mse_interval=_bounds(bootstrap.mean(result.photos, result.mse)),
        psnr=_rounded(values.psnr),
        fmse=_rounded(values.fmse),
        lpips=_rounded(values.lpips),
        change_percent=_rounded(100 * against.value) if against else None,
        change_interval=_bounds(against.scaled(100)) if against else None,
        worse1_percent=None if result.model == IDENTITY else _rounded(100 * values.worse1),
        bins=[Bin(one.label, one.count, _rounded(one.mse)) for one in by_bin(result) if one.count],
        training=made.training.get(result.run) if made else None,
    )
    if checkpoint:
        found.config, found.digest = changed(checkpoint.config), checkpoint.digest
        found.epoch, found.step = checkpoint.epoch, checkpoint.step
    return found


def _bounds(estimate: bootstrap.Estimate) -> tuple[float, float] | None:
    if estimate.interval is None:
        return None
    low, high = estimate.interval
    return round(low, DECIMALS), round(high, DECIMALS)


def _rounded(value: float | None) -> float | None:
    return None if value is None or isnan(value) else round(value, DECIMALS)
