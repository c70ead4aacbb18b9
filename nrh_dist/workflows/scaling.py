"""How training and sweeps should scale to machines that nobody here has: a model, with every constant stated.

    python -m nrh_dist.workflows.scaling       prints the tables of reports/scaling.md

A step is its arithmetic and bytes at ``EFFICIENCY`` of the floor, then what communication adds: the gradients' sum,
which overlaps with the backward pass, and the statistics of synchronised BatchNorm, which overlap with nothing.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import cache
from typing import NamedTuple

import torch
from torch import nn

from nrh_dist import config as configuration
from nrh_dist import losses, models
from nrh_dist.workflows.floors import Operation, least_seconds, operations_of
from nrh_dist.workflows.steps import has_encoder

EFFICIENCY = 0.4  # floor / step; 0.36 to 0.51 measured on CPUs, see speed.md
BACKWARD = 2 / 3  # of a step, beside which the gradients' sum can run
BUCKET = 25e6  # bytes that DDP sums at a time: the last bucket overlaps with nothing
BATCH = 32  # images, the paper's
COUNTS = (1, 2, 4, 8, 16, 32, 64)  # GPUs
MODELS = ("dih_m", "ptc_dih", "ptc_att_dih", "gated")

# Of sweeps.
TRIALS = 1000
IMAGES = 65_742  # iHarmony4 to train from
ASHA_EPOCHS = 4.5  # a trial on average, of 50 at most (eta 3)
DRIVER_SECONDS = 0.9  # a trial, measured on two cores, where a worker is used again
HELPER_BYTES = 1.2e9  # of the head, a TorchTrainer that runs


class Machine(NamedTuple):
    """``gpus`` of one kind and their network: FLOP/s and bytes/s of a GPU, bytes/s and seconds a hop of a link."""

    name: str
    gpus: int
    flops: float
    memory: float
    inside: float
    inside_hop: float
    between: float
    between_hop: float


# Makers' figures; the second one's arithmetic and memory as performance measurements usually reach them.
MACHINES = (
    Machine("g5.2xlarge: one A10G, 10 Gbit/s", 1, 70e12, 600e9, math.inf, 0.0, 1.25e9, 50e-6),
    Machine("eight H200, NVLink, 3.2 Tbit/s", 8, 790e12, 4.3e12, 450e9, 3e-6, 400e9, 15e-6),
)


class Work(NamedTuple):
    """What one step of one GPU does: ``operations`` of its images, learning ``parameters``, ``norms`` synchronised."""

    operations: tuple[Operation, ...]
    parameters: int
    norms: int


class Time(NamedTuple):
    """Of one step, in seconds: computing, then what remains of the gradients' sum, then of BatchNorm's statistics."""

    compute: float
    gradients: float
    statistics: float

    @property
    def total(self) -> float:
        """The whole step."""
        return sum(self)


@cache
def work_of(name: str, batch: int) -> Work:
    """A step of the model ``name`` at the paper's width and 256 px on ``batch`` images, features kept; runs nothing."""
    config = configuration.load(overrides=[f"model.name={name}", "preset=paper"])
    with torch.device("meta"):
        model = models.build(asdict(config.model), config.data.size).to(torch.bfloat16).train()
        images = torch.empty(batch, 3, config.data.size, config.data.size, dtype=torch.bfloat16)
    learning = [one for one in model.parameters() if one.requires_grad]
    norms = [one for one in model.modules() if isinstance(one, nn.BatchNorm2d) and one.weight.requires_grad]
    inputs = {"features": model.detector.encoder(images)} if has_encoder(name) else {}  # type: ignore

    def step() -> None:
        prediction = model(images, images[:, :1], **inputs)
        losses.mse(prediction.image, images).mean().backward()

    return Work(tuple(operations_of(step)), sum(one.numel() for one in learning), len(norms))


def sum_seconds(size: float, count: int, machine: Machine) -> float:
    """To sum ``size`` bytes over ``count`` GPUs: rings inside the machines, then one between them."""
    inside, between = min(count, machine.gpus), math.ceil(count / machine.gpus)

    def ring(members: int, rate: float, hop: float) -> float:
        return 2 * (members - 1) * (size / members / rate + hop)

    return ring(inside, machine.inside, machine.inside_hop) + ring(between, machine.between, machine.between_hop)


def gather_seconds(count: int, machine: Machine, *, is_ring: bool) -> float:
    """To gather some numbers of each of ``count`` GPUs: hops alone, of a tree or of a ring over all."""
    inside, between = min(count, machine.gpus), math.ceil(count / machine.gpus)
    if is_ring:
        return (inside - 1) * machine.inside_hop + (between - 1) * machine.between_hop
    return math.log2(inside) * machine.inside_hop + math.log2(between) * machine.between_hop


def step_time(work: Work, count: int, machine: Machine, *, is_ring: bool = False) -> Time:
    """Of one step of ``work`` on each of ``count`` GPUs."""
    peaks = {torch.bfloat16: 1 / machine.flops, torch.float32: 2 / machine.flops}
    compute = least_seconds(work.operations, peaks, 1 / machine.memory, work.parameters) / EFFICIENCY
    size = 4.0 * work.parameters  # gradients are float32
    whole, last = (sum_seconds(one, count, machine) for one in (size, min(size, BUCKET)))
    gradients = max(last, whole - BACKWARD * compute)
    return Time(compute, gradients, 2 * work.norms * gather_seconds(count, machine, is_ring=is_ring))


def efficiency(name: str, machine: Machine, *, is_strong: bool, is_ring: bool) -> Iterator[float]:
    """Images a second of each of ``COUNTS`` GPUs over that of one alone. Strong: ``BATCH`` for all, else for each."""
    alone = step_time(work_of(name, BATCH), 1, machine).total / BATCH
    for count in COUNTS:
        batch = max(BATCH // count, 1) if is_strong else BATCH
        if is_strong and count > BATCH:
            yield math.nan
            continue
        yield alone * batch / step_time(work_of(name, batch), count, machine, is_ring=is_ring).total


def tables() -> str:
    """The Markdown of everything that the model says."""
    parts = [_steps()]
    for machine in MACHINES:
        parts += [f"**{machine.name}**", _efficiencies(machine)]
    return "\n\n".join([*parts, _sweeps(MACHINES[0])])


def _steps() -> str:
    rows = []
    for name in MODELS:
        work = work_of(name, BATCH)
        flops = sum(one.flops for one in work.operations) / BATCH / 1e9
        times = [f"{1e3 * step_time(work, 1, machine).total:.2f}" for machine in MACHINES]
        rows.append([name, f"{flops:.1f}", f"{work.parameters / 1e6:.2f}", str(work.norms), *times])
    return _table(["model", "GFLOP an image", "parameters, M", "BatchNorms", "ms, A10G", "ms, H200"], rows)


def _efficiencies(machine: Machine) -> str:
    rows = []
    for name in MODELS:
        for is_strong in (False, True):
            tree, ring = (efficiency(name, machine, is_strong=is_strong, is_ring=one) for one in (False, True))
            cells = [_between(most, least) for most, least in zip(tree, ring, strict=True)]
            rows.append([name, f"{BATCH} in all" if is_strong else f"{BATCH} each", *cells])
    return _table(["model", "images", *map(str, COUNTS)], rows)


def _sweeps(machine: Machine) -> str:
    step = step_time(work_of("dih_m", BATCH), 1, machine).total
    epoch = IMAGES / BATCH * step
    checkpoint = 12.0 * work_of("dih_m", BATCH).parameters  # weights and two moments
    rows = []
    for count in COUNTS:
        hours = TRIALS * ASHA_EPOCHS * epoch / count / 3600
        driver = TRIALS * DRIVER_SECONDS / 3600 / hours
        sent, helpers = count * checkpoint / epoch, count * HELPER_BYTES
        cells = (f"{hours:.1f}", f"{100 * driver:.0f}", f"{sent / 1e6:.0f}", f"{helpers / 1e9:.0f}")
        rows.append([str(count), *cells])
    head = ["trials at once", "hours", "driver busy, %", "sent to the storage, MB/s", "head, GB, a TorchTrainer each"]
    return _table(head, rows)


def _between(most: float, least: float) -> str:
    if math.isnan(most):
        return "–"
    high, low = (f"{100 * one:.0f}" for one in (most, least))
    return high if high == low else f"{low}–{high}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    print(tables())
