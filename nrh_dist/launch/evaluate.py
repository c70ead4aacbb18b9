"""``nrh evaluate``: checkpoints scored on a data folder by a pool of actors."""

import csv
import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nrh_dist import perceptual
from nrh_dist.data.pack import RESIZE, Pack, cached_pack, open_pack
from nrh_dist.engine import checkpoint, results, rundir, score, summary
from nrh_dist.engine.dist import own_device
from nrh_dist.engine.files import write_json
from nrh_dist.engine.progress import Progress, Say
from nrh_dist.engine.score import Entry, Scorer
from nrh_dist.errors import UserError
from nrh_dist.launch import session
from nrh_dist.launch.pool import Pool

CHUNK = 16  # images in one work item and one batch, so that no number depends on how many actors there are
STRIPS = 6
DEFAULT_SIZE = 256
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


def evaluate(words: Sequence[str], data: Path, split: str, actors: int, out: Path, say: Say) -> Path:
    """Score the checkpoints that ``words`` mean, and doing nothing, on the ``split`` list of ``data``; returns ``out``.

    Writes per_image.csv, strips/ and summary.json; the files are the same for any number of actors. They appear under
    ``out`` together, when all are done. An earlier evaluation there is replaced.
    """
    found = score.entries(words)
    if session.is_local():
        session.require(actors, 0, f"{actors} actors", say)
    pack = _open(data, found, say)
    rows = pack.rows(split)
    if not len(rows):
        raise UserError(f"the {split} list of {data} is empty: nothing to score; see --split")
    with _staged(out) as folder:
        session.connect(say)
        session.require(actors, 0, f"{actors} actors", say)
        missing = perceptual.missing()
        if missing:
            say(f"the LPIPS column stays empty: {missing}")
        say(f"scoring {len(found)} models on {len(rows)} images at {pack.size} px with {actors} actor(s)")
        with Pool(_starter(pack, found, missing is None, actors), actors, say) as pool:
            per_image = _score(pool, found, rows, say)
            _write_strips(pool, folder / "strips", pack, found, _strip_rows(pack, rows, per_image))
        _write_csv(folder / "per_image.csv", per_image)
        content = {
            "schema": 1,
            "size": pack.size,
            "protocol": {**PROTOCOL, "resize": RESIZE},
            "lpips": missing,
            "data": str(data),
            "split": split,
            "pack": pack.digest,
            "datasets": {name: sum(pack.datasets[row] == name for row in rows) for name in _datasets(pack, rows)},
            "checkpoints": [_described(entry) for entry in found if entry.path],
            "models": summary.summarise(per_image),
            "differences": summary.differences(per_image, score.pairs(found)),
        }
        write_json(folder / "summary.json", content)
    for line in results.lines(content):
        say(line)
    say(f"wrote {out}")
    return out


def _open(data: Path, found: list[Entry], say: Say) -> Pack:
    """The data at the size of the checkpoints; for ``identity`` alone, a pack at its own size."""
    size = next((entry.size for entry in found if entry.size), None)
    if size is None and (data / "pack.json").exists():
        return open_pack(data)
    return cached_pack(data, size or DEFAULT_SIZE, say)


def _score(pool: Pool, found: list[Entry], rows: np.ndarray, say: Say) -> list[dict[str, Any]]:
    """One row an image and entry, ordered by entry, then by position in the pack."""
    chunks = [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]
    scored: dict[int, list[list[dict[str, Any]]]] = {}
    progress = Progress(len(rows), say)

    def done(index: int, result: list[list[dict[str, Any]]]) -> None:
        scored[index] = result
        progress.add(len(chunks[index]), "scored")

    pool.map([("score", chunk) for chunk in chunks], done)
    return [row for entry in range(len(found)) for index in range(len(chunks)) for row in scored[index][entry]]


def _strip_rows(pack: Pack, rows: np.ndarray, per_image: list[dict[str, Any]]) -> list[int]:
    identity = [row["identity_mse"] for row in per_image[: len(rows)]]
    order = sorted(range(len(rows)), key=lambda position: (identity[position], pack.names[rows[position]]))
    count = min(STRIPS, len(rows))
    return [int(rows[order[int((index + 0.5) * len(rows) / count)]]) for index in range(count)]


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


def _starter(pack: Pack, found: list[Entry], lpips: bool, actors: int) -> Callable[[], Any]:
    """What starts an actor; where there are GPUs, the actors share them."""
    import ray

    gpus = gpu_share(actors, int(session.resources().get("GPU", 0)))
    actor = ray.remote(num_cpus=1, num_gpus=gpus)(ScoringActor)
    entries = [entry._replace(path=entry.path.absolute() if entry.path else None) for entry in found]
    return lambda: actor.remote(pack.root.absolute(), entries, lpips)


def gpu_share(actors: int, gpus: int) -> float:
    """The part of a GPU that each actor reserves, so that all fit: a share never spans two GPUs. 0 without any."""
    return 1 / math.ceil(actors / gpus) if gpus else 0.0


class ScoringActor:
    """A process of the pool, with all models loaded once."""

    def __init__(self, pack: Path, entries: list[Entry], lpips: bool) -> None:
        self._scorer = Scorer(pack, entries, lpips, own_device())

    def work(self, item: tuple[str, Any]) -> Any:
        """Score a chunk of rows, or render one."""
        verb, rows = item
        return self._scorer.score(rows) if verb == "score" else self._scorer.render(rows)


@contextmanager
def _staged(out: Path) -> Iterator[Path]:
    """A temporary folder beside ``out`` that takes its name when all is written; refuses what is no evaluation."""
    if out.exists() and not (out / "summary.json").exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists and is no evaluation: choose another --out")
    partial = out.with_name(f".{out.name}.partial")
    with rundir.locked(partial):
        for old in partial.iterdir():
            if old.name != ".lock":
                shutil.rmtree(old) if old.is_dir() else old.unlink()
        try:
            yield partial
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        (partial / ".lock").unlink()
        if out.exists():
            shutil.rmtree(out)
        os.replace(partial, out)


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, score.COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows({column: _cell(row.get(column)) for column in score.COLUMNS} for row in rows)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6f}" if isinstance(value, float) else str(value)


def _datasets(pack: Pack, rows: np.ndarray) -> list[str]:
    return list(dict.fromkeys(pack.datasets[row] for row in rows))


def _described(entry: Entry) -> dict[str, Any]:
    assert entry.path is not None
    meta = checkpoint.read_meta(entry.path)
    return {
        "run": entry.run,
        "model": entry.model,
        "checkpoint": entry.path.name,
        "epoch": meta["epoch"],
        "step": meta["step"],
        "config": {} if entry.true_masks else meta["config"],  # C_s: that of its two_stage
    }
