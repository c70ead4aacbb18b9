"""What a study found: for each test, every system's values by seed and image; learning curves; the gates' risk."""

import csv
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nrh_dist.errors import UserError
from nrh_dist.report.collect import read as read_evaluation
from nrh_dist.report.result import Result

SCHEMA = 2  # of study.json
RUN = re.compile(r"(?P<system>.+)-seed(?P<seed>\d+)(?P<derived>-.+)?")
TESTS = {"test-lab": "All channels of CIE Lab", "test-exp": "COCO-Exp, luminance alone"}
CONTROLS = "controls"
IDENTITY = "identity"
LABELS = {
    IDENTITY: "Identity (input)",
    "dih_m": "DIH-M",
    "dih_nm": "DIH-NM",
    "ptc_att_dih": "PTC-att-DIH",
    "ptc_dih": "PTC-DIH",
    "two_stage": "Two-stage",
    "gated": "Gated (unswept)",
    "gated_calibrated": "Gated (unswept, calibrated)",
    "gated_swept": "Gated (swept)",
    "gated_swept_calibrated": "Gated (swept, calibrated)",
}
DERIVED = {"dih_m-pasted": "the input's background pasted back"}
MASKED = ("dih_m", "dih_m-pasted", "two_stage-true-masks")


@dataclass(frozen=True, eq=False)
class System:
    """One way of harmonising, trained with S seeds: values S x N of the images of a test."""

    name: str
    seeds: tuple[int, ...]
    mse: np.ndarray
    psnr: np.ndarray
    fmse: np.ndarray
    change: np.ndarray  # MSE of the output against the input

    @property
    def mean_mse(self) -> np.ndarray:
        """Of each image, over the seeds: N."""
        return self.mse.mean(axis=0)


@dataclass(frozen=True, eq=False)
class Test:
    """One test set: what is known of its N images, and the systems by name, the first of which is identity."""

    name: str
    size: int
    photos: np.ndarray
    area: np.ndarray
    category: np.ndarray
    datasets: np.ndarray
    identity: np.ndarray
    systems: dict[str, System]


@dataclass(frozen=True)
class Curve:
    """val/mse of a run after each epoch."""

    run: str
    system: str
    seed: int
    val_mse: list[float]
    identity_mse: float
    hours: float


@dataclass(frozen=True)
class Study:
    """All of it; ``about`` is study.json."""

    about: dict[str, Any]
    tests: dict[str, Test]
    controls: Test
    curves: list[Curve]
    risk: list[dict[str, str]]

    @property
    def main(self) -> list[str]:
        """The systems that the tables compare, in their order: those of ``LABELS`` that there are."""
        known = next(iter(self.tests.values())).systems
        return [name for name in LABELS if name in known]

    def label(self, name: str) -> str:
        """What a system is called on the page."""
        differs = DERIVED.get(name) or self.about["recipes"].get(name, {}).get("differs", "")
        return LABELS.get(name) or (f"{name}: {differs}" if differs else name)


def read(folder: Path) -> Study:
    """The study in ``folder``. ``UserError`` where it is none, or is not finished."""
    file = folder / "study.json"
    if not file.is_file():
        raise UserError(f"{folder} is no study (study.json): give the --out of nrh study")
    about = json.loads(file.read_text())
    if about.get("schema") != SCHEMA:
        raise UserError(f"{file} was written by another version: make the study anew with another --out")
    if "ended" not in about:
        raise UserError(f"{folder} is a study that was not finished: the same nrh study goes on")
    tests = {name: _test(name, folder / "evaluations" / name) for name in TESTS}
    with (folder / "risk.csv").open(newline="") as rows:
        risk = list(csv.DictReader(rows))
    return Study(about, tests, _test(CONTROLS, folder / "evaluations" / CONTROLS), _curves(folder, about), risk)


def _test(name: str, folder: Path) -> Test:
    evaluation = read_evaluation(folder)
    by_system: dict[str, list[tuple[int, Result]]] = {}
    for result in evaluation.results:
        found = RUN.fullmatch(result.run)
        system = found["system"] + (found["derived"] or "") if found else result.run
        by_system.setdefault(system, []).append((int(found["seed"]) if found else 0, result))
    first = evaluation.results[0]
    if not first.has("mse_change"):
        raise UserError(f"{folder} was scored by an earlier version: delete it, and the same nrh study scores it anew")
    return Test(
        name,
        evaluation.size,
        first.photos,
        first.area_fraction,
        first.category,
        first.datasets,
        first.mse,
        {system: _system(system, sorted(runs, key=lambda one: one[0])) for system, runs in by_system.items()},
    )


def _system(name: str, runs: list[tuple[int, Result]]) -> System:
    columns = (np.stack([getattr(result, key) for _, result in runs]) for key in ("mse", "psnr", "fmse", "mse_change"))
    return System(name, tuple(seed for seed, _ in runs), *columns)


def _curves(folder: Path, about: dict[str, Any]) -> list[Curve]:
    found = []
    for run in about["runs"]:
        path = folder / "runs" / run["run"] / "metrics.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
        if rows:
            values = [row["val/mse"] for row in rows]
            hours = rows[-1]["time_s"] / 3600
            found.append(Curve(run["run"], run["system"], run["seed"], values, rows[0]["val/identity_mse"], hours))
    return found
