"""``nrh evaluate``: checkpoints scored on a data folder by a pool of actors.

<out>/per_image.csv      one row an image and model: ``measures.PROTOCOL`` says what each number is
<out>/summary.json       means, medians, counts and shares by data set, model and size bin; the protocol
<out>/strips/            pictures of images chosen by rule, with strips.json
<out>/provenance.json    command, code, machine and cost: what does not shape a number

The first three are the same bytes for any number of actors.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from nrh_dist import perceptual
from nrh_dist.data import coco_exp
from nrh_dist.data.layouts import Source
from nrh_dist.data.pack import RESIZE, Pack
from nrh_dist.engine import detection, measures, provenance, results, score, summary
from nrh_dist.engine.dist import name_of, own_device
from nrh_dist.engine.files import write_json
from nrh_dist.engine.progress import Say
from nrh_dist.engine.score import Entry, Scorer
from nrh_dist.engine.shards import Shards
from nrh_dist.engine.summary import Images, Scores
from nrh_dist.errors import UserError
from nrh_dist.launch import detectors, scoring, session, strips

BATCH = 16  # images at a time: fixed, so that no number depends on how many actors there are
FIRST = ("dataset", "model", "run", "name", "mse", "psnr", "fmse", "lpips", "area_fraction")
FACTS = ("group", "category", "shift_stops")  # the last two: of COCO-Exp, from the set's manifest.csv


class Options(NamedTuple):
    """What an evaluation is asked for beside checkpoints and data."""

    split: str = "test"
    actors: int = 1
    annotations: Path | None = None  # COCO instances JSON: all of it is scored
    thresholds: Path | None = None  # of people, for detectors
    peaks: bool = False  # PSNR by the conventions of others, too
    paste: bool = False  # masked models with their background pasted back, too


def evaluate(words: Sequence[str], data: Path, out: Path, options: Options, say: Say) -> Path:
    """Score the checkpoints that ``words`` mean on a list of ``data``; returns ``out``.

    Harmonisers are scored beside doing nothing. Detectors, by themselves, are held against human thresholds:
    ``detectors`` says in which files. The files appear under ``out`` together, when all are done; what a killed
    evaluation had scored is not scored again. An earlier evaluation there is replaced.
    """
    is_of_detectors = any(detection.is_detector(word) for word in words)
    found = detection.entries(words) if is_of_detectors else score.entries(words, options.paste)
    if options.thresholds and not is_of_detectors:
        raise UserError(f"--thresholds {options.thresholds} is for detectors; none of {', '.join(words)} is one")
    if options.peaks and is_of_detectors:
        raise UserError(f"--psnr-peaks is for harmonisers; {', '.join(words)} are detectors: leave it out")
    if options.paste and not any(entry.pasted for entry in found):
        raise UserError(f"--paste-background is for dih_m, and none of {', '.join(words)} is one: leave it out")
    if session.is_local():
        scoring.require_actors(options.actors, say)
    pack = scoring.open_data(Source(data, options.annotations), found, say)
    rows = np.arange(len(pack)) if options.annotations else pack.rows(options.split)
    if not len(rows):
        raise UserError(f"the {options.split} list of {data} is empty: nothing to score; see --split")
    if is_of_detectors:
        rows, human = detectors.with_objects(pack, rows), detectors.human_thresholds(options.thresholds, pack)
    started, start = provenance.now(), time.monotonic()
    with scoring.staged(out) as folder:
        session.connect(say)
        scoring.require_actors(options.actors, say)
        about = {
            "schema": 1,
            "size": pack.size,
            "data": str(data),
            "split": options.annotations.stem if options.annotations else options.split,
            "pack": pack.digest,
            **scoring.left_out(pack, say),
            "checkpoints": [scoring.described(entry) for entry in found if entry.path],
        }
        if is_of_detectors:
            lines, before = detectors.score(found, pack, rows, human, options.actors, about, folder, say)
        else:
            lines, before = _score(found, pack, rows, _facts(data, pack, rows, say), options, about, folder, say)
        cost = {"started": started, "seconds": before + time.monotonic() - start, "images": len(rows)}
        write_json(folder / "provenance.json", _provenance(found, options.actors, cost))
    for line in lines:
        say(line)
    say(f"wrote {out}")
    return out


def _score(
    found: list[Entry],
    pack: Pack,
    rows: np.ndarray,
    facts: dict[str, list[Any]],
    options: Options,
    about: dict[str, Any],
    folder: Path,
    say: Say,
) -> tuple[list[str], float]:
    """Score harmonisers into ``folder``; returns the lines that sum it up, and the seconds that earlier lives took."""
    if not pack.has_composites:
        say("these photos hold no composites: the models are shown untouched photos, and whatever they change is wrong")
    missing = perceptual.missing()
    if missing:
        say(f"the LPIPS column stays empty: {missing}")
    say(f"scoring {len(found)} models on {len(rows):,} images at {pack.size} px with {options.actors} actor(s)")
    names = measures.names(options.peaks)
    header = scoring.header(found, pack, rows, lpips=missing is None, columns=names)
    shards = Shards(folder, header, len(rows), len(found) * len(names), BATCH)
    with scoring.open_pool(Scorer, pack, found, options.actors, say, missing is None, options.peaks) as pool:
        scoring.fill(shards, pool, rows, options.actors, say)
        scores = [_scores(entry, shards, number, names) for number, entry in enumerate(found)]
        strips.write(pool, folder / "strips", pack, rows, found, scores)
    columns = list(dict.fromkeys([*FIRST, *measures.NAMES, *FACTS, *names]))
    scoring.write_csv(folder / "per_image.csv", columns, _per_image(pack, rows, facts, scores))
    images = Images(np.array([pack.datasets[row] for row in rows]), pack.area_fractions[rows])
    content = {
        **about,
        "protocol": {**{name: measures.PROTOCOL[name] for name in names}, **summary.PROTOCOL, "resize": RESIZE},
        "lpips": missing,
        "datasets": scoring.counts_by_dataset(pack, rows),
        "models": summary.summarise(images, scores),
        "differences": summary.differences(images, scores, score.pairs(found)),
    }
    write_json(folder / "summary.json", content)
    return results.lines(content), shards.seconds


def _scores(entry: Entry, shards: Shards, number: int, names: Sequence[str]) -> Scores:
    """What was measured of one entry; a value that is not finite is not there."""
    columns = {name: shards.column(number * len(names) + place) for place, name in enumerate(names)}
    return Scores(entry.run, entry.model, {key: np.where(np.isfinite(v), v, np.nan) for key, v in columns.items()})


def _facts(data: Path, pack: Pack, rows: np.ndarray, say: Say) -> dict[str, list[Any]]:
    """``FACTS``: each image's group, and what the manifest of a COCO-Exp set says of its composites, else None."""
    manifest: list[dict[str, str]] = []
    if coco_exp.SUBSET in pack.datasets:
        with suppress(UserError):  # of another program: it is no condition for an evaluation
            manifest = coco_exp.read_manifest(coco_exp.set_of(data))
        if not manifest:
            say(f"categories and shifts of COCO-Exp stay empty: {data} has no {coco_exp.MANIFEST} that tells them")
    known = {row["composite"].rpartition(".")[0]: row for row in manifest}
    own = [known.get(pack.names[row], {}) if pack.datasets[row] == coco_exp.SUBSET else {} for row in rows]
    return {
        "group": [pack.groups[row] for row in rows],
        "category": [one.get("category") for one in own],
        "shift_stops": [_number(one.get("shift_stops", "")) for one in own],
    }


def _number(cell: str) -> float | None:
    """None where the cell of an edited manifest is no number."""
    with suppress(ValueError):
        return float(cell)
    return None


def _per_image(
    pack: Pack, rows: np.ndarray, facts: dict[str, list[Any]], scores: Sequence[Scores]
) -> Iterator[dict[str, Any]]:
    for one in scores:
        for place, row in enumerate(rows):
            yield {
                "dataset": pack.datasets[row],
                "model": one.model,
                "run": one.run,
                "name": pack.names[row],
                "area_fraction": float(pack.area_fractions[row]),
                **{name: float(column[place]) for name, column in one.values.items()},
                **{name: values[place] for name, values in facts.items()},
            }


def _provenance(found: Sequence[Entry], actors: int, cost: dict[str, Any]) -> dict[str, Any]:
    gpus = int(session.resources().get("GPU", 0))
    hours = cost["seconds"] / provenance.HOUR
    device = "GPU" if gpus and not torch.cuda.is_available() else name_of(own_device())
    training = {entry.run: provenance.training_cost(entry.path) for entry in found if entry.path}
    return {
        "schema": 1,
        "command": provenance.command(),
        **provenance.code(),
        **cost,
        "images_per_s": cost["images"] / cost["seconds"],
        "actors": actors,
        "device": device,
        "gpus": gpus,
        "gpu_hours": hours * min(actors, gpus),
        "cpu_hours": hours * actors,
        "environment": provenance.environment(),
        "training": {run: one for run, one in training.items() if one},
    }
