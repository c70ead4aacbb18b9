"""Writes small evaluation folders, as ``nrh evaluate`` does, with procedural pictures."""

import csv
import json
from pathlib import Path

import numpy as np
from PIL import Image

COLUMNS = (
    "dataset", "model", "run", "name", "mse", "psnr", "fmse", "lpips", "area_fraction", "identity_mse", "identity_psnr",
)  # fmt: skip
FURTHER = (
    "mse_outside", "mse_edge", "chroma_drift", "correction", "change_outside", "detected", "detected_outside",
    "category", "shift_stops", "psnr_range", "psnr_target_max",
)  # fmt: skip
CATEGORIES = ("person", "chair", "car", "dog", "cup", "bird")
DETECTORS = ("ptc_dih", "gated", "two_stage")
# How much of the input's error each model leaves, on average.
LEAVES = {"dih_m": 0.5, "dih_nm": 1.1, "ptc_att_dih": 0.95, "ptc_dih": 0.7, "two_stage": 1.0, "gated": 0.75}

PROVENANCE = {
    "schema": 1,
    "command": "nrh evaluate runs/ptc_dih-seed0 --data data/iharmony4 --out evaluations/one",
    "version": "0.1.0",
    "commit": "0123456789abcdef0123456789abcdef01234567+changes",
    "started": "2026-01-02T03:04:05+00:00",
    "seconds": 120.5,
    "images": 40,
    "images_per_s": 12.5,
    "actors": 2,
    "device": "cpu",
    "gpus": 0,
    "gpu_hours": 0.0,
    "cpu_hours": 0.066944,
    "environment": {"python": "3.12.3", "torch": "2.14.0", "platform": "Linux"},
    "training": {"ptc_dih-seed0": {"hours": 1.5, "workers": 2, "device_hours": 3.0, "device": "CPU"}},
}


def _runs(models: tuple[str, ...]) -> list[tuple[str, str]]:
    """(model, run) of all rows: identity, then each model, two_stage with the run of its true masks."""
    runs = [("identity", "identity")]
    for model in models:
        runs.append((model, f"{model}-seed0"))
        if model == "two_stage":
            runs.append(("dih_m", f"{model}-seed0-true-masks"))
    return runs


def psnr(mse: float) -> float:
    return min(100.0, 10 * np.log10(255**2 / mse)) if mse > 0 else 100.0


def write(
    folder: Path,
    datasets: dict[str, int] | None = None,
    models: tuple[str, ...] = ("dih_m", "ptc_dih"),
    size: int = 64,
    strips: int = 1,
    seed: int = 0,
    leaves: dict[str, float] | None = None,
    photos_per_dataset: int | None = None,
    lpips: str | None = "alexnet-owt-7be5be79.pth is missing: put it into ~/.cache/torch/hub/checkpoints",
    further: bool = False,
) -> Path:
    """An evaluation of these sub-sets (name -> number of images) and models; the same seed gives the same inputs.

    As ``nrh evaluate`` does, two_stage is followed by its harmoniser with the true masks. LPIPS is there if ``lpips``,
    the reason why it is missing, is None. With ``further``, everything that an evaluation may leave out as well: the
    columns ``FURTHER``, provenance.json, and strips by group.
    """
    datasets = datasets or {"Sample": 40}
    rows = []
    for dataset, count in datasets.items():
        inputs = np.random.default_rng([seed, len(dataset)])
        area = np.round(inputs.beta(0.8, 4, count), 6)
        identity = np.round(area * 1500 * inputs.lognormal(0, 0.6, count) + 2, 6)
        for model, run in _runs(models):
            noise = np.random.default_rng([seed, len(dataset), len(run) - 6]).lognormal(0, 0.35, count)
            factor = {**LEAVES, **(leaves or {})}.get(model, 1.0)
            mse = identity if model == "identity" else identity * factor * noise + 3
            for i in range(count):
                photo = i % (photos_per_dataset or max(1, count // 2))
                rows.append(
                    [dataset, model, run, f"c{photo}_{i}_1"]
                    + [f"{value:.6f}" for value in (mse[i], psnr(mse[i]), mse[i] / max(area[i], 0.02))]
                    + [
                        "" if lpips else f"{mse[i] / 5000:.6f}",
                        *(f"{value:.6f}" for value in (area[i], identity[i], psnr(identity[i]))),
                    ]
                )
            if further:
                _add_further(rows[-count:], seed)
    folder.mkdir(parents=True)
    write_rows(folder, rows, COLUMNS + (FURTHER if further else ()))
    if further:
        write_json(folder / "provenance.json", PROVENANCE)
    write_json(folder / "summary.json", _summary(rows, datasets, models, size, lpips))
    if strips:
        _write_strips(folder / "strips", list(datasets), models, size, strips)
        if further:
            _add_groups(folder / "strips" / "strips.json", models)
    return folder


def _add_further(rows: list[list[str]], seed: int) -> None:
    """To the rows of one run: what it did where, the same categories and shifts for every run."""
    images, model = np.random.default_rng([seed, 1]), rows[0][1]
    noise = np.random.default_rng([seed, 2, len(rows[0][2])])
    for row in rows:
        mse, identity = float(row[4]), float(row[9])
        shift, category = images.normal(0, 0.7), CATEGORIES[int(6 * images.random() ** 2)]
        found = noise.beta(3, 1.2) if model in DETECTORS else ""
        here: list[float | str] = [mse * 0.02, mse * 3, 2 + noise.random(), 0.0, "", "", ""]
        if model != "identity":
            correction = 1 - (mse / identity) ** 0.5 + noise.normal(0, 0.2)
            here = [mse * 0.05, mse * 3, 1 + noise.random(), correction, noise.beta(1, 4), found, found and 0.1 * found]
        here += [category, shift, float(row[5]) - 0.4, float(row[5]) - 0.2]
        row += [one if isinstance(one, str) else f"{one:.6f}" for one in here]


def _add_groups(path: Path, models: tuple[str, ...]) -> None:
    values = json.loads(path.read_text())
    groups = ("best", "worst", "not detected")
    for i, strip in enumerate(values["strips"]):
        strip |= {"group": groups[i % 3], "run": f"{models[-1]}-seed0" if models else "identity", "change": 3.5 * i}
    values["rules"] = {group: f"how the images of this group were chosen: {group}" for group in groups}
    write_json(path, values)


def write_rows(folder: Path, rows: list[list[str]], columns: tuple[str, ...] = COLUMNS) -> None:
    with (folder / "per_image.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


def read_rows(folder: Path) -> list[list[str]]:
    with (folder / "per_image.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))[1:]


def write_json(path: Path, values: dict) -> None:
    path.write_text(json.dumps(values), encoding="utf-8")


def edit_summary(folder: Path, **values: object) -> None:
    path = folder / "summary.json"
    write_json(path, {**json.loads(path.read_text()), **values})


def _summary(
    rows: list[list[str]], datasets: dict[str, int], models: tuple[str, ...], size: int, lpips: str | None
) -> dict:
    entries = []
    for model, run in _runs(models):
        for dataset in (*datasets, "all"):
            chosen = [row for row in rows if row[2] == run and dataset in (row[0], "all")]
            mse = float(np.mean([float(row[4]) for row in chosen]))
            entries.append({"dataset": dataset, "model": model, "run": run, "count": len(chosen), "mse": mse})
    return {
        "schema": 1,
        "size": size,
        "protocol": {
            "resizing": "stretched to the size: photos PIL BICUBIC, masks PIL BOX",
            "metrics": "per image, then mean",
        },
        "lpips": lpips,
        "datasets": datasets,
        "data": "data/iharmony4",
        "split": "test",
        "checkpoints": [
            {
                "run": f"{model}-seed0",
                "model": model,
                "checkpoint": f"runs/{model}-seed0/checkpoints/epoch-0004-step-000420",
                "epoch": 4,
                "step": 420,
                "config": {"model.name": model, "optim.lr": 0.001, "train.epochs": 5, "data.pack": None},
            }
            for model in models
        ],
        "models": entries,
    }


def _write_strips(folder: Path, datasets: list[str], models: tuple[str, ...], size: int, count: int) -> None:
    folder.mkdir()
    listed = []
    for i in range(count):
        real, mask = _scene(size, i)
        composite = np.clip(real * (1 + (0.45 if i % 2 else -0.4) * mask[..., None]), 0, 255)
        pictures = {"composite": composite, "real": real, "mask": 255 * mask}
        names = {key: f"{i:04d}-{key}.png" for key in pictures}
        outputs, masks = {}, {}
        for j, model in enumerate(models):
            run, share = f"{model}-seed0", 0.9 - 0.2 * j
            outputs[run] = f"{i:04d}-output-{j + 1}.png"
            pictures[run] = composite + share * mask[..., None] * (real - composite)
            names[run] = outputs[run]
            if model in DETECTORS:
                masks[run] = names[f"{run}-mask"] = f"{i:04d}-detector-{j + 1}.png"
                pictures[f"{run}-mask"] = 200 * mask
        for key, picture in pictures.items():
            Image.fromarray(np.clip(np.round(picture), 0, 255).astype(np.uint8)).save(folder / names[key])
        images = {key: names[key] for key in ("composite", "real", "mask")} | {"outputs": outputs, "masks": masks}
        dataset = datasets[i % len(datasets)]
        listed.append({"dataset": dataset, "name": f"c{i}_{i}_1", "images": images})
    rule = "evenly spaced over the images ordered by the error of the input"
    write_json(folder / "strips.json", {"schema": 1, "rule": rule, "strips": listed})


def _scene(size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A photo-like gradient with texture (HxWx3, 0..255) and a soft round mask (HxW, 0..1)."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:size, 0:size] / size
    ground = np.stack([90 + 100 * y, 110 + 60 * x, 150 - 60 * y], axis=-1) + 18 * np.sin(30 * x + 9 * y)[..., None]
    distance = np.hypot(x - random.uniform(0.35, 0.65), y - random.uniform(0.4, 0.6))
    mask = np.clip((random.uniform(0.18, 0.3) - distance) * size / 2, 0, 1)
    thing = random.uniform(80, 190, 3) + 25 * np.cos(40 * y)[..., None]
    return np.clip(ground * (1 - mask[..., None]) + thing * mask[..., None], 0, 255), mask
