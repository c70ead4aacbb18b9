"""The evaluation of detectors: the smallest shifts that they see, beside those that people see.

<evaluation>/summary.json      kind "detector": errors in stops beside a constant's, rank correlations, a verdict
<evaluation>/thresholds.csv    one row an image and detector: human and predicted thresholds, as magnitudes in stops
<evaluation>/offsets.csv       one row a detector, transform and offset: detection rate, IoU, soft F1
<evaluation>/strips/           shifted photos and M_p in red (negative) and green (positive)
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nrh_dist.data import thresholds
from nrh_dist.data.pack import RESIZE, Pack, distinct_objects
from nrh_dist.engine import agreement, detection, results
from nrh_dist.engine.detection import OFFSETS, PICTURED, Curves, DetectorScorer
from nrh_dist.engine.examples import spread
from nrh_dist.engine.files import write_json
from nrh_dist.engine.progress import Say
from nrh_dist.engine.score import Entry
from nrh_dist.engine.shards import Shards
from nrh_dist.errors import UserError
from nrh_dist.launch import scoring
from nrh_dist.launch.pool import Pool

BATCH = 4  # images at a time; each is 101 shifted copies
STRIPS = 6
RULE = "the images nearest to {count} evenly spaced ranks of the object's area, from smallest to largest"
THRESHOLD_COLUMNS = (
    *("dataset", "run", "name", "area_fraction", "human_negative", "human_positive"),
    *("predicted_negative", "predicted_positive", "never_negative", "never_positive"),
)
OFFSET_COLUMNS = (
    *("run", "transform", "offset_stops", "images"),
    *("detection_rate", "iou", "soft_f1", "mean_probability", "auc"),
)
PROTOCOL = {
    "stop": "exposure: a gain of 2 on L of CIE Lab; saturation: on a and b; contrast: on the distance to the mean L; "
    "white balance: on red over blue in linear light",
    "predicted threshold": "per sign, scan of 0..1 stop in steps of 0.02: first crossing of mean in-mask probability "
    "0.5, interpolated; never crossed: 1.0 and counted; nothing is tuned on the photos scored here",
    "error": "mean absolute difference of predicted and human threshold in stops; both: the mean of the two signs",
    "constant": "predicts the same two thresholds for every photo",
    "interval": f"95 %, bootstrap over photos, {agreement.DRAWS} draws",
    "rank correlation": "Spearman's, of predicted and human thresholds; both: the mean of the two signs",
    "detection rate": "share of images with mean in-mask probability of the right sign >= 0.5; at 0: of either sign",
    "IoU": "of the pixels whose likeliest class is the shift's sign with the mask; mean over images",
    "soft F1": "2 sum(p m) / (sum p + sum m) of the shift's sign with the mask; mean over images",
    "AUC": "area under the ROC curve of the mean in-mask probability of the right sign, shifted against unchanged "
    "objects of all images; 0.5 is chance",
    "objects": "all whose mask is not empty",
}


def with_objects(pack: Pack, rows: np.ndarray) -> np.ndarray:
    """``distinct_objects`` of these rows. ``UserError`` where there are none."""
    kept = distinct_objects(pack, rows)
    if not len(kept):
        raise UserError(f"all masks in {pack.root} are empty: there is nothing to detect")
    return kept


def human_thresholds(path: Path | None, pack: Pack) -> np.ndarray:
    """Those of each sample in stops, N x 2, nan where the file has none. ``UserError`` like ``thresholds.read``."""
    return thresholds.read(path, pack.names) if path else np.full((len(pack), 2), np.nan)


def score(
    found: list[Entry],
    pack: Pack,
    rows: np.ndarray,
    human: np.ndarray,
    actors: int,
    about: dict[str, Any],
    folder: Path,
    say: Say,
) -> tuple[list[str], float]:
    """Score detectors into ``folder``, against the ``human`` thresholds of all samples.

    Returns the lines that sum it up, and the seconds that earlier lives took.
    The constant is the median of the thresholds of the training photos of the same data that are not scored, else the
    published means.
    """
    constant = agreement.constant_of(human[_training_rows(pack, rows)])
    say(f"scanning {len(found)} detector(s) over {len(rows)} photos at {pack.size} px with {actors} actor(s)")
    transforms = [len(detection.transforms_of(entry)) for entry in found]
    width = sum(transforms) * len(OFFSETS) * 4
    shards = Shards(folder, scoring.header(found, pack, rows), len(rows), width, BATCH)
    with scoring.open_pool(DetectorScorer, pack, found, actors, say) as pool:
        scoring.fill(shards, pool, rows, actors, say)
        curves = [detection.curves_in(row, transforms) for row in shards.read(slice(None))]
        per_image = _per_image(found, pack, rows, human, curves)
        names = [pack.names[row] for row in rows]
        chosen = [int(rows[place]) for place in spread(pack.area_fractions[rows], names, STRIPS)]
        _write_strips(pool, folder / "strips", pack, found, chosen, per_image)
    scoring.write_csv(folder / "thresholds.csv", THRESHOLD_COLUMNS, per_image)
    by_detector = [[image[number] for image in curves] for number in range(len(found))]
    offsets = [row for entry, own in zip(found, by_detector, strict=True) for row in _by_offset(entry, own)]
    scoring.write_csv(folder / "offsets.csv", OFFSET_COLUMNS, offsets)
    measured = ~np.isnan(human[rows]).any(axis=1)
    content = {
        **about,
        "kind": "detector",
        "protocol": {**PROTOCOL, "resize": RESIZE},
        "datasets": scoring.counts_by_dataset(pack, rows),
        "human": {"photos": int(measured.sum()), "constant": constant._asdict()},
        "detectors": [_agreement(entry, pack, per_image, constant) for entry in found],
    }
    write_json(folder / "summary.json", content)
    return results.detector_lines(content, offsets), shards.seconds


def _training_rows(pack: Pack, scored: np.ndarray) -> np.ndarray:
    """The training rows of photos none of whose objects is scored."""
    groups = {pack.groups[row] for row in scored}
    return np.array([row for row in pack.rows("train") if pack.groups[row] not in groups], dtype=int)


def _per_image(
    found: Sequence[Entry], pack: Pack, rows: np.ndarray, human: np.ndarray, curves: Sequence[Sequence[Curves]]
) -> list[dict[str, Any]]:
    """The rows of thresholds.csv, by detector, then by position in the pack."""
    written = []
    for number, entry in enumerate(found):
        for row, image in zip(rows, curves, strict=True):
            (negative, never_negative), (positive, never_positive) = detection.predicted_thresholds(image[number])
            measured = [None, None] if np.isnan(human[row]).any() else np.abs(human[row]).tolist()
            written.append(
                {
                    "dataset": pack.datasets[row],
                    "run": entry.run,
                    "name": pack.names[row],
                    "area_fraction": float(pack.area_fractions[row]),
                    "human_negative": measured[0],
                    "human_positive": measured[1],
                    "predicted_negative": negative,
                    "predicted_positive": positive,
                    "never_negative": int(never_negative),
                    "never_positive": int(never_positive),
                    "group": pack.groups[row],
                }
            )
    return written


def _by_offset(entry: Entry, curves: Sequence[Curves]) -> list[dict[str, Any]]:
    """The rows of offsets.csv of one detector: means over its images."""
    values = {
        "detection_rate": np.mean([detection.detected(one) for one in curves], axis=0),  # each T x K
        "iou": np.mean([one.iou for one in curves], axis=0),
        "soft_f1": np.mean([one.soft_f1 for one in curves], axis=0),
        "mean_probability": np.mean([detection.mean_probability(one) for one in curves], axis=0),
        "auc": detection.separation(curves),
    }
    return [
        {
            "run": entry.run,
            "transform": transform,
            "offset_stops": float(offset),
            "images": len(curves),
            **{name: None if np.isnan(value[t, k]) else float(value[t, k]) for name, value in values.items()},
        }
        for t, transform in enumerate(detection.transforms_of(entry))
        for k, offset in enumerate(OFFSETS)
    ]


def _agreement(
    entry: Entry, pack: Pack, per_image: Sequence[dict[str, Any]], constant: agreement.Constant
) -> dict[str, Any]:
    own = [row for row in per_image if row["run"] == entry.run]
    known = [row for row in own if row["human_negative"] is not None]

    def pairs(what: str) -> np.ndarray:
        return np.array([[row[f"{what}_negative"], row[f"{what}_positive"]] for row in known], float).reshape(-1, 2)

    photos = [row["group"] for row in known]
    compared = agreement.compare(pairs("predicted"), pairs("human"), pairs("never"), photos, constant)
    return {
        "run": entry.run,
        "transforms": detection.transforms_of(entry),
        "images": len(own),
        "thresholds": compared,
        "verdict": agreement.verdict(compared),
    }


def _write_strips(
    pool: Pool, folder: Path, pack: Pack, found: Sequence[Entry], rows: list[int], per_image: Sequence[dict[str, Any]]
) -> None:
    """The pictures that the report draws, chosen by ``RULE``."""
    folder.mkdir()
    strips: dict[int, dict[str, Any]] = {}

    def done(index: int, pictures: dict[str, Any]) -> None:
        row = rows[index]

        def save(name: str, pixels: np.ndarray) -> str:
            file = f"{index + 1:04d}-{name}.png"
            Image.fromarray(np.asarray(pixels)).save(folder / file)
            return file

        where = (pack.datasets[row], pack.names[row])
        own = {one["run"]: one for one in per_image if (one["dataset"], one["name"]) == where}
        first = next(iter(own.values()))
        is_measured = first["human_negative"] is not None
        strips[index] = {
            "dataset": pack.datasets[row],
            "name": pack.names[row],
            "human": [first["human_negative"], first["human_positive"]] if is_measured else None,
            "predicted": {run: [one["predicted_negative"], one["predicted_positive"]] for run, one in own.items()},
            "offsets": list(PICTURED),
            "images": {
                "photo": save("photo", pack.reals[row]),
                "mask": save("mask", pack.masks[row]),
                "shifted": [save(f"shifted-{k}", pixels) for k, pixels in enumerate(pictures["shifted"])],
                "detected": {
                    entry.run: [
                        save(f"detector-{number}-{k}", pixels)
                        for k, pixels in enumerate(pictures["detected"][entry.run])
                    ]
                    for number, entry in enumerate(found, start=1)
                },
            },
        }

    pool.map([("render", row) for row in rows], done)
    ordered = [strips[index] for index in sorted(strips)]
    write_json(folder / "strips.json", {"schema": 1, "rule": RULE.format(count=len(rows)), "strips": ordered})
