"""Writes small detector evaluation folders, as ``nrh evaluate`` does, with procedural pictures."""

import csv
from pathlib import Path

import evaluations
import numpy as np
from PIL import Image

THRESHOLDS = (
    "dataset", "run", "name", "area_fraction", "human_negative", "human_positive", "predicted_negative",
    "predicted_positive", "never_negative", "never_positive",
)  # fmt: skip
OFFSETS = ("run", "transform", "offset_stops", "images", "detection_rate", "iou", "soft_f1", "mean_probability", "auc")
SIGNS = ("negative", "positive")
STRIP_OFFSETS = (-0.75, -0.25, 0.0, 0.25, 0.75)


def write(
    folder: Path,
    runs: dict[str, float] | None = None,
    images: int = 47,
    human: bool = True,
    transforms: tuple[str, ...] = ("exposure",),
    strips: int = 1,
    size: int = 64,
    dataset: str = "Thresholds",
    seed: int = 0,
) -> Path:
    """An evaluation of these detectors, each with how well it follows people: 0 not at all, 1 to the letter."""
    runs = {"detector": 0.1} if runs is None else runs
    random = np.random.default_rng(seed)
    people = np.clip(random.lognormal(np.log(0.21), 0.5, (images, 2)), 0.03, 0.9).round(6)
    constant = [0.231, 0.209]
    rows, detectors = [], []
    for run, skill in runs.items():
        noise = np.clip(random.lognormal(np.log(0.26), 0.45, (images, 2)), 0, 1)
        predicted = np.clip(skill * people + (1 - skill) * noise, 0, 1).round(6)
        never = random.random((images, 2)) > 0.94 + 0.06 * skill
        predicted[never] = 1.0
        for i in range(images):
            cells = [f"{one:.6f}" for one in people[i]] if human else ["", ""]
            cells += [f"{one:.6f}" for one in predicted[i]] + [f"{one:d}" for one in never[i]]
            rows.append([dataset, run, f"{i:04d}", "0.120000", *cells])
        entries = [
            _entry(sign, people[:, part], predicted[:, part], np.array(constant)[part], never[:, part], human)
            for sign, part in (("negative", [0]), ("positive", [1]), ("both", [0, 1]))
        ]
        verdict = "not shown to beat the constant" if human else "no human thresholds here"
        if human and entries[2]["difference_high"] < 0:
            verdict = "better than the constant"
        detectors.append(
            {"run": run, "transforms": list(transforms), "images": images, "thresholds": entries, "verdict": verdict}
        )
    folder.mkdir(parents=True)
    write_rows(folder / "thresholds.csv", THRESHOLDS, rows)
    write_rows(folder / "offsets.csv", OFFSETS, _offsets(runs, transforms, images))
    source = {"negative": constant[0], "positive": constant[1], "source": "median of 188 training photos"}
    summary = {
        "schema": 1,
        "kind": "detector",
        "size": size,
        "data": "data/thresholds",
        "split": "test",
        "pack": "0" * 64,
        "protocol": {
            "threshold": "scan of 0 to 1 stop in steps of 0.02, first crossing of mean in-mask probability 0.5",
            "soft F1": "2 sum(p m) / (sum(p) + sum(m)), p not thresholded",
        },
        "datasets": {dataset: images},
        "checkpoints": [
            {
                "run": run,
                "model": "ptc",
                "checkpoint": "epoch-0005-step-000100",
                "epoch": 5,
                "step": 100,
                "config": {"model.name": "ptc", "optim.lr": 0.0001},
            }
            for run in runs
        ],
        "human": {"photos": images if human else 0, "constant": source if human else None},
        "detectors": detectors,
    }
    evaluations.write_json(folder / "summary.json", summary)
    if strips:
        _write_strips(folder / "strips", runs, dataset, size, strips, human)
    return folder


def write_rows(path: Path, columns: tuple[str, ...], rows: list[list[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _entry(
    sign: str, people: np.ndarray, predicted: np.ndarray, constant: np.ndarray, never: np.ndarray, human: bool
) -> dict:
    """Means over photos with intervals from a normal approximation: near enough for a page."""
    entry: dict = {"sign": sign, "photos": len(people) if human else 0, "never_crossed": int(never.sum())}
    ours, theirs = np.abs(predicted - people).mean(axis=1), np.abs(constant - people).mean(axis=1)
    for key, low_high, values in (
        ("error", "error", ours),
        ("constant_error", "constant", theirs),
        ("difference", "difference", ours - theirs),
    ):
        half = 1.96 * values.std() / len(values) ** 0.5
        numbers = (values.mean(), values.mean() - half, values.mean() + half)
        for name, number in zip((key, f"{low_high}_low", f"{low_high}_high"), numbers, strict=True):
            entry[name] = float(number) if human else None
    ranks = [np.argsort(np.argsort(one.mean(axis=1))) for one in (people, predicted)]
    correlation = float(np.corrcoef(*ranks)[0, 1])
    for name, number in zip(("rank_correlation", "rank_low", "rank_high"), (0, -0.25, 0.2), strict=True):
        entry[name] = min(1.0, correlation + number) if human else None
    return entry


def _offsets(runs: dict[str, float], transforms: tuple[str, ...], images: int) -> list[list[str]]:
    rows = []
    for i, run in enumerate(runs):
        for j, transform in enumerate(transforms):
            for k in range(-50, 51):
                offset = abs(k) / 50
                rate = 1 / (1 + np.exp(-(offset - 0.25 - 0.05 * i - 0.06 * j) * (14 - 2 * j)))
                if k == 0:
                    rate = 0.09 + 0.05 * i
                overlap = "" if k == 0 else f"{0.7 * rate - 0.05 * i * rate:.6f}"
                soft = "" if k == 0 else f"{0.8 * rate - 0.05 * i * rate:.6f}"
                rate = round(rate * images) / images
                area = "" if k == 0 else f"{0.5 + 0.45 * rate:.6f}"
                cells = [f"{rate:.6f}", overlap, soft, f"{rate:.6f}", area]
                rows.append([run, transform, f"{k / 50:.2f}", str(images), *cells])
    return rows


def _write_strips(folder: Path, runs: dict[str, float], dataset: str, size: int, count: int, human: bool) -> None:
    folder.mkdir()
    listed = []
    for i in range(count):
        photo, mask = evaluations._scene(size, i)
        pictures = {f"{i:04d}-photo.png": photo, f"{i:04d}-mask.png": 255 * mask}
        shifted = [f"{i:04d}-shifted-{k}.png" for k in range(len(STRIP_OFFSETS))]
        detected = {run: [f"{i:04d}-{run}-{k}.png" for k in range(len(STRIP_OFFSETS))] for run in runs}
        for k, offset in enumerate(STRIP_OFFSETS):
            pictures[shifted[k]] = photo * (1 + (2**offset - 1) * mask[..., None])
            for j, run in enumerate(runs):
                answer = np.zeros((size, size, 3))
                answer[..., 0 if offset < 0 else 1] = 255 * mask * min(1, abs(offset) * (1.6 - 0.4 * j))
                pictures[detected[run][k]] = answer + 20
        for name, picture in pictures.items():
            Image.fromarray(np.clip(np.round(picture), 0, 255).astype(np.uint8)).save(folder / name)
        listed.append(
            {
                "dataset": dataset,
                "name": f"{i:04d}",
                "human": [0.21, 0.18] if human else None,
                "predicted": {run: [0.3, 0.2] for run in runs},
                "offsets": list(STRIP_OFFSETS),
                "images": {
                    "photo": f"{i:04d}-photo.png",
                    "mask": f"{i:04d}-mask.png",
                    "shifted": shifted,
                    "detected": detected,
                },
            }
        )
    rule = "evenly spaced over the photos ordered by the detector's error"
    evaluations.write_json(folder / "strips.json", {"schema": 1, "rule": rule, "strips": listed})
