"""``nrh evaluate``: checkpoints scored on a data folder by a pool of actors."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nrh_dist import perceptual
from nrh_dist.data.layouts import Source
from nrh_dist.data.pack import RESIZE, Pack
from nrh_dist.engine import detection, results, score, summary
from nrh_dist.engine.files import write_json
from nrh_dist.engine.progress import Say
from nrh_dist.engine.score import Entry, Scorer
from nrh_dist.errors import UserError
from nrh_dist.launch import detectors, scoring, session
from nrh_dist.launch.pool import Pool

CHUNK = 16  # images in one work item and one batch, so that no number depends on how many actors there are
STRIPS = 6
RULE = "the images nearest to {count} evenly spaced ranks of the identity MSE, from lowest to highest"
PROTOCOL = {
    "mse": "0..255 scale, prediction clamped, not rounded; all pixels and channels; per image, then mean over images",
    "psnr": "peak 255, capped at 100 dB; per image, then mean over images",
    "fmse": "squared error over pixels with mask >= 128, divided by 3 x their number; empty masks left out",
    "lpips": "package lpips, AlexNet, inputs in [-1, 1]",
    "worse": f"output MSE - input MSE > {summary.WORSE}",
    "worse1": f"output MSE - input MSE > {summary.WORSE1:g}",
    "size_bin": "floor(10 x area fraction) of the full-size mask (>= 128)",
    "identity": "doing nothing: output = input",
}


def evaluate(
    words: Sequence[str],
    data: Path,
    split: str,
    actors: int,
    out: Path,
    say: Say,
    annotations: Path | None = None,
    thresholds: Path | None = None,
) -> Path:
    """Score the checkpoints that ``words`` mean on the ``split`` list of ``data``; returns ``out``.

    Harmonisers are scored beside doing nothing: per_image.csv, strips/ and summary.json. Detectors, by themselves, are
    held against the human ``thresholds``: thresholds.csv, offsets.csv, strips/ and summary.json. The files are the same
    for any number of actors. They appear under ``out`` together, when all are done. An earlier evaluation there is
    replaced. A file of COCO ``annotations`` is one split: all of it is scored.
    """
    is_of_detectors = any(detection.is_detector(word) for word in words)
    found = detection.entries(words) if is_of_detectors else score.entries(words)
    if thresholds and not is_of_detectors:
        raise UserError(f"--thresholds {thresholds} is for detectors; none of {', '.join(words)} is one")
    if session.is_local():
        scoring.require_actors(actors, say)
    pack = scoring.open_data(Source(data, annotations), found, say)
    rows = np.arange(len(pack)) if annotations else pack.rows(split)
    if not len(rows):
        raise UserError(f"the {split} list of {data} is empty: nothing to score; see --split")
    if is_of_detectors:
        rows, human = detectors.with_objects(pack, rows), detectors.human_thresholds(thresholds, pack)
    with scoring.staged(out) as folder:
        session.connect(say)
        scoring.require_actors(actors, say)
        about = {
            "schema": 1,
            "size": pack.size,
            "data": str(data),
            "split": annotations.stem if annotations else split,
            "pack": pack.digest,
            "checkpoints": [scoring.described(entry) for entry in found if entry.path],
        }
        if is_of_detectors:
            lines = detectors.score(found, pack, rows, human, actors, about, folder, say)
        else:
            lines = _score(found, pack, rows, actors, about, folder, say)
    for line in lines:
        say(line)
    say(f"wrote {out}")
    return out


def _score(
    found: list[Entry], pack: Pack, rows: np.ndarray, actors: int, about: dict[str, Any], folder: Path, say: Say
) -> list[str]:
    """Score harmonisers into ``folder``; returns the lines that sum it up."""
    if not pack.has_composites:
        say("these photos hold no composites: the models are shown untouched photos, and whatever they change is wrong")
    missing = perceptual.missing()
    if missing:
        say(f"the LPIPS column stays empty: {missing}")
    say(f"scoring {len(found)} models on {len(rows)} images at {pack.size} px with {actors} actor(s)")
    with scoring.open_pool(Scorer, pack, found, actors, say, missing is None) as pool:
        chunks = scoring.score_in_chunks(pool, rows, CHUNK, say)
        per_image = [row for number in range(len(found)) for chunk in chunks for row in chunk[number]]
        identity = [row["identity_mse"] for row in per_image[: len(rows)]]
        _write_strips(pool, folder / "strips", pack, found, scoring.spread(rows, identity, pack.names, STRIPS))
    scoring.write_csv(folder / "per_image.csv", score.COLUMNS, per_image)
    content = {
        **about,
        "protocol": {**PROTOCOL, "resize": RESIZE},
        "lpips": missing,
        "datasets": scoring.counts_by_dataset(pack, rows),
        "models": summary.summarise(per_image),
        "differences": summary.differences(per_image, score.pairs(found)),
    }
    write_json(folder / "summary.json", content)
    return results.lines(content)


def _write_strips(pool: Pool, folder: Path, pack: Pack, found: list[Entry], rows: list[int]) -> None:
    """The pictures that the report draws, chosen by ``RULE``."""
    folder.mkdir()
    strips: dict[int, dict[str, Any]] = {}

    def done(index: int, pictures: dict[str, np.ndarray]) -> None:
        row = rows[index]
        known = {"composite": pack.composites[row], "real": pack.reals[row], "mask": pack.masks[row]}
        names = {}
        for name, array in {**known, **pictures}.items():
            names[name] = f"{index + 1:04d}-{name}.png"
            Image.fromarray(np.asarray(array)).save(folder / names[name])
        runs = [entry.run for entry in found if entry.path]
        strips[index] = {
            "dataset": pack.datasets[row],
            "name": pack.names[row],
            "images": {
                **{name: names[name] for name in known},
                "outputs": {run: names[run] for run in runs},
                "masks": {run: names[f"{run}-mask"] for run in runs if f"{run}-mask" in names},
            },
        }

    pool.map([("render", row) for row in rows], done)
    ordered = [strips[index] for index in sorted(strips)]
    write_json(folder / "strips.json", {"schema": 1, "rule": RULE.format(count=len(rows)), "strips": ordered})
