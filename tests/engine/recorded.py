"""Trainings in processes of their own that write down every step, and that fail where a test says.

The processes are forked from one that has torch loaded, so that a start costs a tenth of a second. Nothing in the
package knows of this: what is recorded, and each fault, is put around its functions in the child alone.
"""

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
import torch.distributed as dist

from nrh_dist import config as configuration
from nrh_dist.engine import checkpoint
from nrh_dist.engine import run as engine_run
from nrh_dist.engine.dist import Place
from nrh_dist.engine.files import read_lines
from nrh_dist.engine.fit import Fit
from nrh_dist.engine.keeper import Keeper
from nrh_dist.engine.notice import Left
from nrh_dist.errors import UserError

COMMON = ("preset=tiny", "model.width=0.1", "data.val_fraction=0.3", "train.batch_size=4", "train.epochs=3")
STEPS = 4  # of an epoch, with the 14 training rows of ``write_small_pack()`` and COMMON; the last has 2 rows
RECORD = "record-rank{}.jsonl"
LIMIT = 180.0  # seconds for one training
MISTAKE = 3  # exit code of a child that met a UserError, which its record tells
LEFT = 4  # exit code of a child that left before its machine goes

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["pytest", "torch", "torch._dynamo", "torch.optim", "nrh_dist.engine.run"])

Change = Callable[[Place], Any]


def configured(folder: Path, *words: str) -> Any:
    """The configuration of a small run in ``folder``."""
    return configuration.load(None, [*COMMON, f"run.root={folder.parent}", f"run.name={folder.name}", *words])


def train(folder: Path, pack: Path, words: Sequence[str], world: int = 1, *changes: Change) -> list[int]:
    """Train in ``world`` processes, each with ``changes`` made to it; exit codes by rank (negative: a signal).

    When one was killed the others are killed too, as a launcher would. Records are appended in ``folder``.
    """
    return wait(start(folder, pack, words, world, *changes))


def start(folder: Path, pack: Path, words: Sequence[str], world: int = 1, *changes: Change) -> list[Any]:
    """The processes of a training, under way."""
    folder.mkdir(parents=True, exist_ok=True)
    store = folder / f".store-{uuid4().hex}"
    given = (world, folder, pack, tuple(words), store, changes)
    processes = [CONTEXT.Process(target=_rank, args=(rank, *given)) for rank in range(world)]
    for process in processes:
        process.start()
    return processes


def wait(processes: list[Any], limit: float = LIMIT) -> list[int]:
    """Wait for all; exit codes by rank."""
    deadline = time.monotonic() + limit
    while alive := [process for process in processes if process.exitcode is None]:
        connection.wait([process.sentinel for process in alive], timeout=1)
        is_late = time.monotonic() > deadline
        if is_late or any(process.exitcode is not None and process.exitcode < 0 for process in processes):
            for process in processes:
                process.kill()
        assert not is_late, f"{len(alive)} of {len(processes)} processes do not end"
    return [process.exitcode for process in processes]


def record(folder: Path, rank: int = 0) -> list[dict[str, Any]]:
    """What a rank wrote, over all its starts: one object a start, a step, and the end."""
    return read_lines(folder / RECORD.format(rank))


def steps(folder: Path, rank: int = 0) -> list[dict[str, Any]]:
    """The steps alone: {"step", "epoch", "rows", "losses" (as hexadecimal floats), "features"}."""
    return [line for line in record(folder, rank) if "step" in line]


def starts(folder: Path, rank: int = 0) -> list[list[int]]:
    """The steps of each start, by number."""
    parts: list[list[int]] = []
    for line in record(folder, rank):
        if "start" in line:
            parts.append([])
        elif "step" in line:
            parts[-1].append(line["step"])
    return parts


def ends(folder: Path, world: int) -> list[dict[str, Any]]:
    """The last line of each rank: {"weights": a hash of them} or {"mistake": its message}."""
    return [record(folder, rank)[-1] for rank in range(world)]


@dataclass(frozen=True)
class KillAtStep:
    """SIGKILL of ``rank`` after step ``step`` was taken and before a checkpoint of it is written."""

    step: int
    rank: int = 0

    def __call__(self, place: Place) -> None:
        if place.rank != self.rank:
            return

        def changed(fit: Fit, taken: Callable[[], Any]) -> Any:
            result = taken()
            if fit.state.step == self.step:
                die()
            return result

        around_step(changed)


@dataclass(frozen=True)
class KillAfterEpoch:
    """SIGKILL of the main rank when the checkpoint of ``epoch`` is written."""

    epoch: int

    def __call__(self, place: Place) -> None:
        finish = Keeper.finish_epoch

        def finish_epoch(keeper: Keeper, state: Any, row: Any) -> bool:
            result = finish(keeper, state, row)
            if place.is_main and state.epoch == self.epoch:
                die()
            return result

        Keeper.finish_epoch = finish_epoch  # type: ignore[method-assign]


@dataclass(frozen=True)
class KillWhileSaving:
    """SIGKILL of the main rank when half of ``file`` of the checkpoint of ``step`` is on the disk."""

    step: int
    file: str = checkpoint.STATE

    def __call__(self, place: Place) -> None:
        real = os.fsync

        def fsync(descriptor: int) -> None:
            path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
            if path.name == self.file and f"step-{self.step:06d}" in path.parent.name:
                os.ftruncate(descriptor, path.stat().st_size // 2)
                die()
            real(descriptor)

        os.fsync = fsync


@dataclass(frozen=True)
class Spoil:
    """Make the first loss of ``rank`` NaN at ``steps``, or with ``gradient`` leave it and make its gradient infinite.

    ``once``: before the first rollback only.
    """

    steps: tuple[int, ...]
    rank: int = 0
    gradient: bool = False
    once: bool = False

    def __call__(self, place: Place) -> None:
        if place.rank != self.rank:
            return
        fits: list[Fit] = []
        real = Fit._step

        def step(fit: Fit, *given: Any) -> Any:
            fits[:] = [fit]
            return real(fit, *given)

        def spoilt(losses: Any, batch: Any) -> Any:
            state = fits[0].state
            if state.step + 1 not in self.steps or (self.once and state.rollbacks):
                return losses
            first = torch.arange(len(losses)) == 0
            return _Infinite.apply(losses) if self.gradient else torch.where(first, losses * torch.nan, losses)

        Fit._step = step  # type: ignore[method-assign]
        around_losses(spoilt)


class _Infinite(torch.autograd.Function):
    """The identity, whose gradient overflows."""

    @staticmethod
    def forward(ctx: Any, losses: Any) -> Any:
        return losses.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        return gradient * torch.inf


def die() -> None:
    """As the kernel ends a process: at once, with nothing flushed."""
    os.kill(os.getpid(), signal.SIGKILL)


def around_step(changed: Callable[[Fit, Callable[[], Any]], Any]) -> None:
    """Put ``changed(fit, take the step)`` around every step of this process."""
    real = Fit._step

    def step(fit: Fit, *given: Any) -> Any:
        return changed(fit, lambda: real(fit, *given))

    Fit._step = step  # type: ignore[method-assign]


def around_losses(changed: Callable[[Any, Any], Any]) -> None:
    """Put ``changed(losses, batch)``, which returns the losses to use, around those of every training step."""
    real = engine_run.task_of

    def task_of(*given: Any) -> Any:
        task = real(*given)
        losses = task.losses

        def changed_losses(model: Any, batch: Any, epoch: int) -> Any:
            values = losses(model, batch, epoch)
            return changed(values, batch) if torch.is_grad_enabled() else values

        task.losses = changed_losses  # type: ignore[method-assign]
        return task

    engine_run.task_of = task_of  # type: ignore[assignment]


def digest_of(weights: dict[str, torch.Tensor]) -> str:
    """A hash of all bits of a state dictionary."""
    import hashlib

    found = hashlib.sha256()
    for key, value in sorted(weights.items()):
        found.update(key.encode() + value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


class Recorder:
    """Appends lines to the record of one rank; they are the kernel's at once, whatever happens to the process."""

    def __init__(self, folder: Path, rank: int) -> None:
        self._file = os.open(folder / RECORD.format(rank), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._losses: dict[str, Any] = {}

    def write(self, **values: Any) -> None:
        os.write(self._file, (json.dumps(values) + "\n").encode())

    def record_steps(self) -> None:
        def noted(losses: Any, batch: Any) -> Any:
            self._losses = {
                "rows": batch.rows.tolist(),
                "losses": [one.hex() for one in losses.tolist()],
                "features": batch.features is not None,
            }
            return losses

        def taken(fit: Fit, take: Callable[[], Any]) -> Any:
            number, epoch = fit.state.step + 1, fit.state.epoch
            self._losses = {}
            try:
                return take()
            finally:
                if self._losses:  # else a peer died in the forward pass
                    self.write(step=number, epoch=epoch, **self._losses)

        around_losses(noted)
        around_step(taken)

    def record_end(self) -> None:
        real = Fit.run

        def run(fit: Fit, feed: Any) -> Any:
            row = real(fit, feed)
            self.write(weights=digest_of(fit.model.state_dict()))
            return row

        Fit.run = run  # type: ignore[method-assign]


def _rank(
    rank: int, world: int, folder: Path, pack: Path, words: tuple[str, ...], store: Path, changes: tuple[Change, ...]
) -> None:
    torch.set_num_threads(1)
    os.environ["WANDB_MODE"] = "disabled"
    recorder = Recorder(folder, rank)
    recorder.write(start=os.getpid())
    if world > 1:
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    place = Place(rank, world)
    asked = []
    for change in changes:
        asked.append(change(place))
    recorder.record_steps()
    recorder.record_end()
    log = (folder / "said.txt").open("a", buffering=1)
    notice = next((one for one in asked if one is not None), engine_run.nothing)
    try:
        engine_run.run(
            configured(folder, *words), pack, place, lambda _: None, lambda line: print(line, file=log), notice
        )
    except UserError as error:
        recorder.write(mistake=str(error), kind=type(error).__name__)
        os._exit(MISTAKE)
    except Left:
        os._exit(LEFT)
    if world > 1:
        dist.barrier()
    os._exit(0)  # gloo's threads now and then abort an ordinary end of the interpreter
