"""The pictures of an evaluation, of images that ``examples`` chose by its rules."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nrh_dist.data.pack import Pack
from nrh_dist.engine import examples
from nrh_dist.engine.examples import Example
from nrh_dist.engine.files import write_json
from nrh_dist.engine.score import Entry
from nrh_dist.engine.summary import Scores
from nrh_dist.launch.pool import Pool


def write(pool: Pool, folder: Path, pack: Pack, rows: np.ndarray, found: list[Entry], scores: Sequence[Scores]) -> None:
    """Make ``folder``: the inputs, each run's output and its detector's mask as PNG files, and strips.json."""
    folder.mkdir()
    run = examples.judged(scores)
    names = [pack.names[row] for row in rows]
    if run is None:
        places = examples.spread(scores[0].values["identity_mse"], names, examples.SPREAD)
        chosen = [Example(place, "", float("nan")) for place in places]
    else:
        chosen = examples.choose(run, names, [f"{pack.datasets[row]}/{pack.groups[row]}" for row in rows])
    strips: dict[int, dict[str, Any]] = {}

    def done(index: int, pictures: dict[str, np.ndarray]) -> None:
        pictures = _known(pack, int(rows[chosen[index].place])) | pictures
        files = {}
        for name, pixels in pictures.items():
            files[name] = f"{index + 1:04d}-{name}.png"
            Image.fromarray(np.asarray(pixels)).save(folder / files[name])
        strips[index] = _strip(pack, int(rows[chosen[index].place]), chosen[index], run, found, files)

    pool.map([("render", int(rows[one.place])) for one in chosen], done)
    groups = dict.fromkeys(one.group for one in chosen if one.group)
    content = {
        "schema": 1,
        "rule": examples.rule(run),
        "rules": {group: examples.RULES[group] for group in groups},
        "strips": [strips[index] for index in sorted(strips)],
    }
    write_json(folder / "strips.json", content)


def _known(pack: Pack, row: int) -> dict[str, np.ndarray]:
    return {"composite": pack.composites[row], "real": pack.reals[row], "mask": pack.masks[row]}


def _strip(
    pack: Pack, row: int, example: Example, run: Scores | None, found: Sequence[Entry], files: dict[str, str]
) -> dict[str, Any]:
    runs = [entry.run for entry in found if entry.path]
    chosen = {"group": example.group, "run": run.run} if run else {}
    return {
        "dataset": pack.datasets[row],
        "name": pack.names[row],
        **chosen,
        **({"change": example.change} if np.isfinite(example.change) else {}),
        "images": {
            **{name: files[name] for name in ("composite", "real", "mask")},
            "outputs": {one: files[one] for one in runs},
            "masks": {one: files[f"{one}-mask"] for one in runs if f"{one}-mask" in files},
        },
    }
