"""Runs and evaluations to choose from, made without training."""

from dataclasses import asdict

import torch

from nrh_dist import config, models
from nrh_dist.engine import checkpoint, track
from nrh_dist.engine.files import write_json
from nrh_dist.engine.summary import ALL

PACK = "abcdef0123456789"
TINY = ["preset=tiny", "model.width=0.05", "seed=3"]


def make_run(root, name, values, metric="val/mse", **meta):
    """A run of one checkpoint an epoch, without weights, whose ``metric`` had these ``values``."""
    for epoch, value in enumerate(values, start=1):
        about = {"epoch": epoch, "step": epoch * 10, "pack": PACK, "metrics": {metric: value}, **meta}
        checkpoint.save(root / name / "checkpoints", {}, {}, about)
        track.append_row(root / name, {"epoch": epoch, "step": epoch * 10, metric: value, "val/loss": value / 100})
    return root / name


def make_real_run(root, name, model, *words, **metrics):
    """A run of one checkpoint of a small random model, as a training keeps it; returns the checkpoint."""
    one = config.load(None, [*TINY, f"model.name={model}", *words])
    torch.manual_seed(one.seed)
    network = models.build(asdict(one.model), one.data.size)
    for key, value in network.state_dict().items():
        if key.endswith("head.weight"):  # zero at first in gated, which would hide everything before it
            torch.nn.init.normal_(value)
    row = {"epoch": 1, "step": 7, "val/mse": 12.5, "val/psnr": 31.25, "val/identity_mse": 20.0, **metrics}
    meta = {
        "stage": one.stage,
        "model": asdict(one.model),
        "size": one.data.size,
        "epoch": 1,
        "step": 7,
        "pack": PACK,
        "world_size": 1,
        "metrics": row,
        "config": config.identity(one),
    }
    path = checkpoint.save(root / name / "checkpoints", network.state_dict(), {"state": {}}, meta)
    track.append_row(root / name, row)
    return path


def make_evaluation(folder, scores, checkpoints, pack=PACK, datasets=("Sample",)):
    """An evaluation whose runs have these ``scores``: by run, a dictionary of metrics; by run, a checkpoint folder."""
    named = [*datasets, *([ALL] if len(datasets) > 1 else [])]
    models = [
        {"dataset": dataset, "model": "identity" if run == "identity" else "m", "run": run, "count": 2}
        | {"mse": 9.0, "psnr": 30.0, "fmse": None, "lpips": None, "worse": 0.5, "worse1": 0.25}
        | {key: value + number if value is not None else None for key, value in values.items()}
        for number, dataset in enumerate(named)
        for run, values in scores.items()
    ]
    described = []
    for run, path in checkpoints.items():
        meta = checkpoint.read_meta(path)
        described.append(
            {
                "run": run,
                "model": "m",
                "checkpoint": path.name,
                "path": str(path),
                "digest": checkpoint.digest(path),
                "epoch": meta["epoch"],
                "step": meta["step"],
                "config": meta.get("config", {}),
            }
        )
    folder.mkdir(parents=True)
    summary = {
        "schema": 1,
        "size": 64,
        "data": "/somewhere/secret/test-photos",
        "split": "test",
        "pack": pack,
        "checkpoints": described,
        "protocol": {"mse": "how it is measured"},
        "datasets": dict.fromkeys(datasets, 2),
        "models": models,
        "differences": [],
    }
    write_json(folder / "summary.json", summary)
    return folder
