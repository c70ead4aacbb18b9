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
        chosen = examples.choose(run, names, [pack.groups[row] for row in rows])
    strips: dict[int, dict[str, Any]] = {}

    runs = [entry.run for entry in found]

    def done(index: int, pictures: dict[str, dict[str, np.ndarray]]) -> None:
        def save(name: str, pixels: np.ndarray) -> str:
            file = f"{index + 1:04d}-{name}.png"
            Image.fromarray(np.asarray(pixels)).save(folder / file)
            return file

        example, row = chosen[index], int(rows[chosen[index].place])
        images = {name: save(name, pixels) for name, pixels in _known(pack, row).items()}
        # By position: any name may be that of a run.
        outputs = {one: save(f"output-{runs.index(one)}", pixels) for one, pixels in pictures["outputs"].items()}
        masks = {one: save(f"detector-{runs.index(one)}", pixels) for one, pixels in pictures["masks"].items()}
        strips[index] = _strip(pack, row, example, run, {**images, "outputs": outputs, "masks": masks})

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


def _strip(pack: Pack, row: int, example: Example, run: Scores | None, images: dict[str, Any]) -> dict[str, Any]:
    chosen = {"group": example.group, "run": run.run} if run else {}
    return {
        "dataset": pack.datasets[row],
        "name": pack.names[row],
        **chosen,
        **({"change": example.change} if np.isfinite(example.change) else {}),
        "images": images,
    }
