"""Writes folders of sweeps, as ``nrh tune`` does, with made-up metrics."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

SPACE = {
    "model.fusion_width": {"choice": [128, 256, 512, 1024], "when": {}},
    "model.freeze": {"choice": ["encoder", "none", "encoder_until:10"], "when": {}},
    "optim.lr": {"loguniform": [0.0001, 0.003], "when": {}},
}
BASE = ['preset="tiny"', 'model.name="ptc_att_dih"', "data.root=sample/iharmony4"]


def write(
    folder: Path,
    trials: int = 12,
    scheduler: str = "asha",
    max_epochs: int = 9,
    metrics: tuple[str, ...] = ("val/mse",),
    space: dict[str, Any] | None = None,
    begun: int | None = None,
    running: int = 0,
    failed: tuple[int, ...] = (),
    seed: int = 0,
) -> Path:
    """A sweep whose error depends on the learning rate most, then on the width; some rungs stop trials.

    ``begun`` of the trials have a folder, the last ``running`` of these are on their way, those in ``failed`` failed.
    """
    space = SPACE if space is None else space
    options = {"max_epochs": max_epochs, **({"grace_epochs": 1, "reduction_factor": 3} if scheduler == "asha" else {})}
    write_json(
        folder / "sweep.json",
        {
            "schema": 2,
            "metrics": list(metrics),
            "trials": trials,
            "search": "random",
            "scheduler": {scheduler: options},
            "base": BASE,
            "space": space,
        },
    )
    generator = np.random.default_rng(seed)
    begun = trials if begun is None else begun
    drawn = [{key: _draw(given, generator) for key, given in space.items()} for _ in range(begun)]
    curves = [_curve(one, max_epochs, generator) for one in drawn]
    rungs = [3**k for k in range(9) if 3**k < max_epochs] if scheduler == "asha" else []
    for index, (assignment, curve) in enumerate(zip(drawn, curves, strict=True)):
        epochs, stopped = max_epochs, None
        for rung in rungs:
            seen = sorted(other[rung - 1] for other in curves[: index + 1])
            if curve[rung - 1] > seen[(len(seen) - 1) // 3] and len(seen) > 2:
                epochs = stopped = rung
                break
        reason = "the loss is not finite after 3 bad steps and 2 rollbacks: lower optim.lr" if index in failed else None
        if index in failed:
            epochs, stopped = min(epochs, 2), None
        elif index >= begun - running:
            epochs, stopped = max(1, max_epochs // 2), None
        costs = _costs(assignment, metrics)
        write_trial(folder, index, assignment, list(curve[:epochs]), costs=costs, stopped=stopped, reason=reason)
    write_table(folder)
    return folder


def write_trial(
    sweep: Path,
    index: int,
    assignment: dict[str, Any],
    values: list[float],
    life: int = 1,
    costs: dict[str, float] | None = None,
    origin: dict[str, Any] | None = None,
    stopped: int | None = None,
    reason: str | None = None,
) -> Path:
    folder = sweep / "trials" / (f"t{index:04d}" if life == 1 else f"t{index:04d}-{life}")
    note = {"schema": 2, "index": index, "life": life, "assignment": assignment, "costs": costs or {}, "from": origin}
    write_json(folder / "assignment.json", note)
    config: dict[str, Any] = {"preset": "tiny", "seed": 0, "run": {"root": str(sweep / "trials"), "name": folder.name}}
    config |= {"data": {"root": "sample/iharmony4", "size": 64, "val_fraction": 0.1}, "train": {"batch_size": 8}}
    for key, value in assignment.items():
        part, name = key.split(".")
        config.setdefault(part, {})[name] = value
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    rows = [
        {"epoch": epoch, "step": 40 * epoch, "val/mse": value, "val/psnr": 30.0, "time_s": 2.0 * epoch}
        for epoch, value in enumerate(values, start=1)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if stopped:
        write_json(folder / "stopped.json", {"schema": 1, "epoch": stopped})
    if reason:
        write_json(folder / "failure.json", {"schema": 1, "reason": reason})
    return folder


def write_table(sweep: Path) -> None:
    """``trials.csv`` from the files of the trials, the way ``nrh tune`` makes it; no conditions, no second lives."""
    written = json.loads((sweep / "sweep.json").read_text())
    keys, metrics = list(written["space"]), written["metrics"]
    last = next(iter(written["scheduler"].values()))["max_epochs"]
    rows = []
    for index in range(written["trials"]):
        name = f"t{index:04d}"
        folder = sweep / "trials" / name
        if not folder.exists():
            rows.append({"trial": name, "epochs": 0, "status": "waiting"})
            continue
        trial = json.loads((folder / "assignment.json").read_text())
        values = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        failure = folder / "failure.json"
        reason = json.loads(failure.read_text())["reason"] if failure.exists() else ""
        ended = "finished" if len(values) == last else "running"
        ended = "stopped early" if (folder / "stopped.json").exists() else ended
        rows.append(
            {"trial": name, **trial["assignment"], **trial["costs"], "folder": f"trials/{name}", "reason": reason}
            | {metrics[0]: min((row["val/mse"] for row in values), default=""), "epochs": len(values)}
            | {"status": "failed" if reason else ended}
        )
    with (sweep / "trials.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["trial", *keys, *metrics, "epochs", "status", "reason", "folder"])
        writer.writeheader()
        writer.writerows(rows)


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1) + "\n")


def _draw(given: dict[str, Any], generator: np.random.Generator) -> Any:
    if "choice" in given:
        return given["choice"][generator.integers(len(given["choice"]))]
    low, high = given.get("loguniform") or given["uniform"]
    if "uniform" in given:
        return float(generator.uniform(low, high))
    return float(np.exp(generator.uniform(np.log(low), np.log(high))))


def _curve(assignment: dict[str, Any], epochs: int, generator: np.random.Generator) -> np.ndarray:
    rate = np.log10(assignment.get("optim.lr", 0.001) / 0.0009)
    width = np.log2(assignment.get("model.fusion_width", 256) / 512)
    end = 95 + 140 * rate**2 + 6 * width**2 + 8 * (assignment.get("model.freeze") == "none")
    steps = np.arange(1, epochs + 1)
    return (end + 160 * np.exp(-steps / 2.5)) * generator.lognormal(0, 0.03, epochs)


def _costs(assignment: dict[str, Any], metrics: tuple[str, ...]) -> dict[str, float]:
    width = assignment.get("model.fusion_width", 256)
    known = {"cost/parameters": 4_000_000.0 + 9000 * width, "cost/gflop": 12.5 + width / 100}
    return {metric: known[metric] for metric in metrics[1:]}
