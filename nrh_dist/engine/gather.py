"""What there is to choose from below folders: the kept checkpoints of runs, and what evaluations found of them."""

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from nrh_dist.engine import checkpoint
from nrh_dist.engine.files import read_lines
from nrh_dist.engine.ranking import Candidate, Values, is_of_training, note
from nrh_dist.engine.summary import ALL
from nrh_dist.errors import UserError

IDENTITY = "identity"
DAMAGED = (OSError, ValueError, KeyError, TypeError, AttributeError, StopIteration)  # of a summary.json
SCORES = ("mse", "psnr", "fmse", "lpips", "worse", "worse1")


class Found(NamedTuple):
    """The candidates, what doing nothing gives where it was measured too, and what was skipped, a line each."""

    candidates: list[Candidate]
    identity: Values
    notes: list[str]


def gather(folders: Iterable[Path]) -> Found:
    """Every kept checkpoint of the runs, sweeps and evaluations below ``folders``.

    A run's checkpoint has the values of its row in metrics.jsonl; what an evaluation found joins that of the same
    checkpoint, wherever it lies. One that is damaged is skipped; one that was evaluated and is gone since has values
    and no path: both are noted. ``UserError`` for a folder with nothing in it.
    """
    gathering, folders = _Gathering(), list(folders)
    for folder in folders:  # all runs first: evaluations refer to them
        gathering.add_runs(folder)
    for folder in folders:
        gathering.add_evaluations(folder)
    for folder in folders:
        if not any(place.is_relative_to(folder.resolve()) for place in gathering.places):
            skipped = f" ({gathering.notes[0]})" if gathering.notes else ""
            raise UserError(
                f"no checkpoint with values and no evaluation below {folder}{skipped}: give folders of nrh train, tune "
                "or evaluate"
            )
    return Found(gathering.candidates, gathering.identity, gathering.notes)


class _Gathering:
    def __init__(self) -> None:
        self.candidates: list[Candidate] = []
        self.identity: Values = {}
        self.notes: list[str] = []
        self.by_digest: dict[str, list[Candidate]] = defaultdict(list)
        self.seen: set[Path] = set()
        self.places: set[Path] = set()  # runs and evaluations with something in them

    def add_runs(self, folder: Path) -> None:
        """Add the checkpoints of all runs below ``folder``."""
        if not folder.is_dir():
            raise UserError(f"no folder at {folder}")
        for file in sorted(folder.rglob("metrics.jsonl")):
            if self._is_new(file):
                self._add_run(file.parent)

    def add_evaluations(self, folder: Path) -> None:
        """Add what all evaluations below ``folder`` found."""
        for file in sorted(folder.rglob("summary.json")):
            if not self._is_new(file) or file.parent.name.startswith("."):  # under way, or left by a kill
                continue
            try:
                summary = json.loads(file.read_text())
                if "checkpoints" in summary:  # else another program's
                    self._add_evaluation(file.parent, summary)
            except DAMAGED as error:
                self.notes.append(f"skipped the evaluation {file.parent}: its summary.json is damaged ({error!r})")

    def _add_run(self, run: Path) -> None:
        rows: dict[tuple[Any, Any], dict[str, Any]] = defaultdict(dict)
        for row in read_lines(run / "metrics.jsonl"):
            rows[row.get("epoch"), row.get("step")].update(row)
        for path in checkpoint.checkpoints(run):
            try:
                meta = checkpoint.read_meta(path)
            except UserError:
                self.notes.append(f"skipped {path}: {checkpoint.fault(path)}")
                continue
            if measured := rows.get((meta["epoch"], meta["step"])):
                values = finite({key: value for key, value in measured.items() if is_of_training(key)})
                self._add_checkpoint(run.name, path, meta).add(values, _validation(meta))
                self._note_identity(values, _validation(meta))
                self.places.add(run.resolve())

    def _add_checkpoint(self, run: str, path: Path, meta: Mapping[str, Any]) -> Candidate:
        one = Candidate(run, meta["epoch"], path, meta.get("model", {}), meta.get("size", 0))
        self.candidates.append(one)
        self.by_digest[checkpoint.digest(path)].append(one)
        return one

    def _add_evaluation(self, folder: Path, summary: dict[str, Any]) -> None:
        data = f"the {summary['split']} list of pack {summary['pack'][:8]} at {summary['size']} px"
        means = _by_run(summary)
        note(self.identity, means.get(IDENTITY, {}), data)
        with_true_masks = {row["true_masks_run"] for row in summary.get("differences", ())}
        for entry in summary["checkpoints"]:
            if entry["run"] in with_true_masks or entry.get("derived"):
                continue
            self.places.add(folder.resolve())
            for one in self._evaluated(folder, entry, summary["size"]):
                one.add(means[entry["run"]], data)
                one.evaluations.append((folder, entry["run"]))

    def _evaluated(self, folder: Path, entry: dict[str, Any], size: int) -> list[Candidate]:
        """The candidates that are the checkpoint of an ``entry``: as a rule one, more where it was copied."""
        digest, path = entry.get("digest", ""), Path(entry.get("path", ""))
        if digest and (known := self.by_digest.get(digest)):
            return known
        if digest and checkpoint.digest(path) == digest and checkpoint.fault(path) is None:
            return [self._add_checkpoint(entry["run"], path, checkpoint.read_meta(path))]
        was = f"{path} is gone, damaged or another now" if digest else "the evaluation does not tell where it is"
        self.notes.append(f"{entry['run']} of {folder} is ranked, but cannot be exported: {was}")
        model = {key.removeprefix("model."): value for key, value in entry["config"].items() if key[:6] == "model."}
        one = Candidate(entry["run"], entry["epoch"], None, model, size)
        self.candidates.append(one)
        self.by_digest[digest or f"{folder} {entry['run']}"].append(one)
        return [one]

    def _note_identity(self, values: Mapping[str, float], data: str) -> None:
        if "val/identity_mse" in values:
            note(self.identity, {"val/mse": values["val/identity_mse"]}, data)

    def _is_new(self, path: Path) -> bool:
        """False from the second time on: folders may lie in each other."""
        resolved = path.resolve()
        is_new = resolved not in self.seen
        self.seen.add(resolved)
        return is_new


def finite(values: Mapping[str, Any]) -> dict[str, float]:
    """What of ``values`` is a finite number."""
    return {key: value for key, value in values.items() if isinstance(value, int | float) and math.isfinite(value)}


def _validation(meta: Mapping[str, Any]) -> str:
    """What a run was validated on."""
    config = meta.get("config", {})
    deciding = ["data.val_fraction", "data.drop_leaked"]
    if config.get("data.val_fraction") != 0:  # 0: the val list of the data, whatever the seed
        deciding = ["seed", *deciding]
    drawn = ", ".join(f"{key}={config.get(key)}" for key in deciding)
    return f"validation of pack {str(meta.get('pack'))[:8]} at {meta.get('size')} px, {drawn}"


def _by_run(summary: dict[str, Any]) -> dict[str, dict[str, float]]:
    """The means of each run of an evaluation: ``mse`` over all images, ``HCOCO/mse`` over those of a sub-set."""
    means: dict[str, dict[str, float]] = defaultdict(dict)
    for row in summary.get("models", ()):
        values = finite({metric: row[metric] for metric in SCORES})
        if row["dataset"] == ALL or len(summary["datasets"]) == 1:
            means[row["run"]].update(values)
        if row["dataset"] != ALL:
            means[row["run"]].update({f"{row['dataset']}/{metric}": value for metric, value in values.items()})
    for detector in summary.get("detectors", ()):
        both = (one["error"] for one in detector["thresholds"] if one["sign"] == "both")
        means[detector["run"]] = finite({"threshold_error": next(both, None)})
    return means
