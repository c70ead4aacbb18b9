"""Population-based training: how a trial takes over weights and varied values of a better one, as a life of its own.

A run folder has one configuration from its first to its last epoch. So a trial that takes over another's weights goes
on in a new folder, ``t0003-2``, that begins with the donor's rows and checkpoints.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nrh_dist.engine import checkpoint, track
from nrh_dist.engine.files import write_lines
from nrh_dist.errors import UserError
from nrh_dist.launch.space import Assignment, Dimension

RESAMPLE = 0.25  # the chance of a new draw, as in Ray's own scheduler; else a factor
FACTORS = (0.8, 1.2)


def varied(dimensions: Sequence[Dimension], assignment: Assignment, generator: np.random.Generator) -> Assignment:
    """Each value drawn anew or moved by a factor, within its range; a choice moves to a neighbour or stays."""
    return {one.key: _varied(one, assignment[one.key], generator) for one in dimensions}


def _varied(one: Dimension, value: Any, generator: np.random.Generator) -> Any:
    if generator.random() < RESAMPLE:
        return one.draw(generator)
    if one.kind == "choice":
        place = one.values.index(value) + int(generator.integers(-1, 2))
        return one.values[min(max(place, 0), len(one.values) - 1)]
    low, high = one.values
    return float(min(max(value * FACTORS[generator.integers(2)], low), high))


def take_over(donor: Path, epoch: int, folder: Path) -> None:
    """Make the run ``folder`` begin with what the run ``donor`` had after ``epoch``: rows and checkpoints.

    Checkpoints are never written to again, and so are linked rather than copied where the file system can.
    ``UserError`` if the donor has no sound checkpoint of that epoch.
    """
    shutil.rmtree(folder, ignore_errors=True)  # what an interrupted exchange left
    sound = [path for path in checkpoint.checkpoints(donor) if _is_by(path, epoch)]
    if not sound or checkpoint.read_meta(sound[-1])["epoch"] != epoch:
        raise UserError(f"{donor} has no sound checkpoint of epoch {epoch} to take over")
    for path in sound:
        shutil.copytree(path, folder / path.relative_to(donor), copy_function=_link)
    write_lines(folder / track.METRICS, track.rows_up_to(donor, epoch))


def _is_by(path: Path, epoch: int) -> bool:
    """Whether this is a sound checkpoint of ``epoch`` or before: the donor may have begun its next one already."""
    try:
        meta = checkpoint.read_meta(path)
    except UserError:  # damaged
        return False
    return meta["epoch"] < epoch or (meta["epoch"] == epoch and bool(meta["metrics"]))


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)
