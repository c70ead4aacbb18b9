"""``nrh tune FILE --dry-run``: what a sweep will do, need and take, without starting it."""

import math
import os
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from nrh_dist import models
from nrh_dist.data.layouts import Source, index
from nrh_dist.data.pack import open_pack
from nrh_dist.data.processes import ordered_map
from nrh_dist.data.samples import is_held_out
from nrh_dist.engine import features
from nrh_dist.engine.dist import own_device
from nrh_dist.engine.progress import Say, duration
from nrh_dist.engine.run import split_rows
from nrh_dist.errors import UserError
from nrh_dist.launch import session, space
from nrh_dist.launch.rehearsal import rehearse
from nrh_dist.launch.schedule import Asha
from nrh_dist.launch.schedulers import scheduler
from nrh_dist.launch.space import Space
from nrh_dist.launch.trial import sweep_dir
from nrh_dist.launch.tune import require_startable, room_for
from nrh_dist.schema import Config
from nrh_dist.workflows import floors
from nrh_dist.workflows.measure import peak_memory
from nrh_dist.workflows.steps import Step, random_images

REHEARSALS = 100
RAY_SECONDS, START_SECONDS = 10.0, 3.0  # to start Ray, and a trial's process, on two cores
MEASURED = 4  # trials; as many side by side as will train so
WARM_STEPS, STEPS = 2, 5


class Cost(NamedTuple):
    """Of one trial, measured: a training step, a validation batch (seconds), the most memory (bytes)."""

    step: float
    validation: float
    memory: float
    device: str


def describe(path: Path, words: Sequence[str], say: Say) -> None:
    """Print the plan of a sweep and start nothing. ``UserError`` as ``nrh tune`` would raise it for file and words.

    The data need not be here: without them time and memory are unknown, and nothing is measured.
    """
    searched = space.read(path, words)
    config = searched.config(searched.first)
    require_startable(config, sweep_dir(searched), say)
    if not session.is_local():
        say("RAY_ADDRESS is set: times are those of this machine, and the cluster is not looked at")
    say(f"{path}: {searched.trials} trials by {searched.search} search, lowest {', '.join(searched.metrics)}")
    for one in searched.dimensions:
        condition = "".join(f", when {key}={value}" for key, value in one.when)
        say(f"  {one.key}: {one.kind} of {', '.join(map(str, one.values))}{condition}")
    room = room_for(config, say)
    wanted = ", ".join(f"{amount:g} {name}" for name, amount in room.need.items())
    if room.together is None:
        wanted = f"{config.scale.workers} workers of Ray Train"
    at_once = min(room.concurrent, searched.trials)
    say(f"resources: a trial takes {wanted}; {at_once} at once")
    most = searched.trials * searched.schedule.max_epochs
    expected = expected_epochs(searched, at_once, config.seed)
    text = f"; about {expected:.0f} expected, if trials keep their rank" if expected else ""
    say(f"epochs: at most {most}, {searched.schedule.max_epochs} a trial{text}")
    try:
        counts = _images(config)
    except UserError as error:  # the data may lie on the cluster only
        say(f"time and memory: unknown ({error})")
    else:
        costs = measured_costs(searched, config, at_once)
        _say_costs(config, costs, at_once * config.scale.workers, say)
        _say_time(config, searched, costs, counts, at_once, expected or most, most, say)
    say(f"sweep folder: {sweep_dir(searched)}")


def expected_epochs(searched: Space, concurrent: int, seed: int) -> float | None:
    """The mean over rehearsals of ASHA in which trials have random values that do not cross; None for the others."""
    schedule = searched.schedule
    if not isinstance(schedule, Asha):
        return None
    random = np.random.default_rng(seed)

    def epochs() -> int:
        values = random.permutation(searched.trials).astype(float)

        def curve(index: int) -> list[float] | None:
            return [values[index]] * schedule.max_epochs if index < searched.trials else None

        asha = scheduler(searched, Path(), seed, print)
        return sum(1 for _ in rehearse(asha, searched.metric, curve, concurrent))

    return statistics.fmean(epochs() for _ in range(REHEARSALS))


def measured_costs(searched: Space, config: Config, at_once: int) -> list[Cost]:
    """Of some of the trials, as many side by side as will train so."""
    trials = [searched.config(one) for one in searched.assignments(config.seed)[:MEASURED]]
    beside = 1 if torch.cuda.is_available() else min(at_once * config.scale.workers, os.cpu_count() or 1)
    return list(ordered_map(measured, trials, beside))


def _say_costs(config: Config, costs: Sequence[Cost], processes: int, say: Say) -> None:
    steps = sorted(one.step * 1000 for one in costs)
    memory = max(one.memory for one in costs) * processes / 1e9
    say(
        f"measured on {len(costs)} of the trials: {steps[0]:.0f} to {steps[-1]:.0f} ms a step of "
        f"{config.train.batch_size} images on {costs[0].device}; {memory:.1f} GB for all at once"
    )


def _say_time(
    config: Config,
    searched: Space,
    costs: Sequence[Cost],
    counts: tuple[int, int],
    at_once: int,
    expected: float,
    most: int,
    say: Say,
) -> None:
    train, val = (math.ceil(count / config.train.batch_size) for count in counts)
    epochs = [(train * one.step + val * one.validation) / config.scale.workers for one in costs]
    start = RAY_SECONDS + searched.trials * START_SECONDS / at_once
    mean = start + expected * statistics.fmean(epochs) / at_once
    say(
        f"time: about {duration(mean)}, at most {duration(start + most * max(epochs) / at_once)}; "
        f"{duration(max(epochs))} at most an epoch of {counts[0]} images"
    )


def _images(config: Config) -> tuple[int, int]:
    """Training and validation images. ``UserError`` where no data are named, or are not here."""
    data = config.data
    if data.pack:
        train, val = split_rows(open_pack(Path(data.pack)), config)
        return len(train), len(val)
    if not data.root:
        raise UserError("no data: give data.root=FOLDER or data.pack=PACK")
    samples = index(Source(Path(data.root), Path(data.annotations) if data.annotations else None))
    held_out = [is_held_out(one.group, data.val_fraction, config.seed) for one in samples if one.split == "train"]
    return len(held_out) - sum(held_out), sum(held_out)


def measured(config: Config) -> Cost:
    """Steps on noise of the right size, on one thread as a trial has it."""
    torch.set_num_threads(1)
    device = own_device()
    size = config.data.size
    images = random_images(config.train.batch_size, size, device)
    model = models.build(asdict(config.model), size)
    kept = config.speed.features and features.is_exact(config, model)
    step = Step(config, images, device, lambda _: None, plain=False, features=kept)
    for _ in range(WARM_STEPS):
        step()
    seconds = floors.timed(step, STEPS, device)
    step.validate()
    validation = floors.timed(step.validate, 1, device)
    memory = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_memory() * 2**20
    return Cost(seconds, validation, memory, device.type)
