"""One trial of a sweep in its Tune process: an ordinary run, whose rows go to Tune's scheduler as they come."""

import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

import torch

from nrh_dist import location
from nrh_dist.config import Config, run_dir, with_absolute_paths
from nrh_dist.engine import fetched, mirror, notice, rundir, track
from nrh_dist.engine.dist import Place, own_device
from nrh_dist.engine.fetched import Origin
from nrh_dist.engine.progress import Say
from nrh_dist.engine.run import run
from nrh_dist.errors import UserError
from nrh_dist.launch import trials
from nrh_dist.launch.relay import Wire
from nrh_dist.launch.repeated import repeated
from nrh_dist.launch.space import Space
from nrh_dist.launch.spawned import spawn_workers
from nrh_dist.launch.telling import LOOK_SECONDS, Answers
from nrh_dist.launch.train import run_workers
from nrh_dist.launch.worker import logged

POINTER = "pointer.json"


def config_of(searched: Space, trial: dict[str, Any]) -> Config:
    """The configuration of a trial: its run folder is ``<sweep>/trials/tNNNN``."""
    config = searched.config(trial["assignment"])
    sweep = sweep_dir(searched)
    config.run.root, config.run.name = str(sweep / "trials"), trials.life_name(trial["index"], trial["life"])
    if config.storage:
        config.storage = str(location.parse(config.storage).child(f"{sweep.name}/trials"))
    config.track.group = config.track.group or sweep.name
    return config


def sweep_dir(searched: Space) -> Path:
    """``run.root/run.name`` of the base; the name defaults to the file's name."""
    run = searched.config(searched.first).run
    return Path(run.root) / (run.name or searched.name)


class Together(NamedTuple):
    """What each worker of a trial gets, where all are on the machine of the trial's own process, or are it."""

    cpus: int
    gpus: float


def train_trial(
    parameters: dict[str, Any],
    searched: Space,
    pack: Origin,
    home: str,
    together: Together | None,
    relay: tuple[str, Any] | None = None,
) -> None:
    """What Tune runs for a trial: from its first epoch, or from where a pause, a crash or a kill left it.

    Every row is told once to each scheduler: one that starts anew after a resume learns all that were reached before.
    A user's mistake, as a diverging loss, is noted as the trial's failure: to train again would be in vain.
    """
    trial = parameters["trial"]
    config = with_absolute_paths(config_of(searched, trial), Path(home))
    sweep = Path(config.run.root).parent
    folder = run_dir(config)
    if not (folder / trials.ASSIGNMENT).exists():  # first of all: a folder is nobody's without it
        trials.note(folder, trial, searched.costs(trial["assignment"]))
    with rundir.claimed(config), logged(folder) as say:
        tell = _Teller(trials.noted(folder)["costs"])
        for row in track.rows_up_to(folder, config.train.epochs):
            tell(row)
        if trials.is_stopped(folder) or rundir.is_finished(folder, config):
            mirror.complete(config, folder, say)
            return
        if reason := trials.failures(sweep).get(folder.name):
            raise UserError(reason)
        wire = Wire(relay, sweep)
        try:
            with _heeding(wire, sweep, folder):
                _wait_if_stopping(sweep, folder, wire)
                _train(config, fetched.here(pack, say), folder, together, tell, say)
        except UserError as error:
            _wait_if_stopping(sweep, folder, wire)
            trials.note_failure(folder, str(error))
            raise


class _Teller:
    """Reports rows to Tune, each epoch once, also over pauses and crashes.

    Tune goes on from checkpoints. What it gets is a pointer to the row: the run has its own.
    """

    def __init__(self, costs: dict[str, float]) -> None:
        self.costs = costs
        self.epoch = _told()

    def __call__(self, row: dict[str, Any]) -> None:
        from ray import tune

        if row["epoch"] <= self.epoch:
            return
        self.epoch = row["epoch"]
        with tempfile.TemporaryDirectory() as pointer:
            (Path(pointer) / POINTER).write_text(json.dumps({"epoch": self.epoch}))
            tune.report(row | self.costs, checkpoint=tune.Checkpoint.from_directory(pointer))


def _told() -> int:
    """The last epoch that this trial's scheduler knows, by the pointer that it gave back."""
    from ray import tune

    pointer = tune.get_checkpoint()
    if pointer is None:
        return 0
    with pointer.as_directory() as folder:
        return json.loads((Path(folder) / POINTER).read_text())["epoch"]


def _train(config: Config, pack: Path, folder: Path, together: Together | None, tell: _Teller, say: Say) -> None:
    """In this process, or by workers of its own, here or wherever Ray Train finds room."""
    try:
        if config.scale.workers == 1:
            device = own_device() if together and together.gpus else torch.device("cpu")
            run(config, pack, Place(device=device), tell, say, settled=True)
            return
        with _following(folder, config.train.epochs, tell):
            if together:
                spawn_workers(config, pack, folder, *together)
            else:
                run_workers(config, pack, folder, say, is_trial=True)
    finally:
        notice.forget(folder)  # whoever asked it to stop need not wait for it


@contextmanager
def _following(folder: Path, epochs: int, tell: _Teller) -> Iterator[None]:
    """Tell Tune what workers ask to be told while the block runs, and all rows that it leaves at its end."""

    def tell_up_to(epoch: int) -> None:
        for row in track.rows_up_to(folder, epoch):
            tell(row)

    with repeated(Answers(folder, tell_up_to).look, LOOK_SECONDS):
        yield
    tell_up_to(epochs)


@contextmanager
def _heeding(wire: Wire, sweep: Path, folder: Path) -> Iterator[None]:
    """Where the driver sees another disk, its wish to stop becomes that of this one while the block runs."""
    if not wire.is_needed:
        yield
        return
    notice.forget(sweep)  # of an earlier start
    was_told = Event()

    def look() -> None:
        if not was_told.is_set() and wire.asked():
            was_told.set()
            notice.ask_to_stop(sweep)
            notice.ask_to_stop(folder)

    with repeated(look, notice.LOOK_SECONDS):
        yield


def _wait_if_stopping(sweep: Path, folder: Path, wire: Wire) -> None:
    """Wait for this process's end where the sweep stops: were the trial to return, Tune would start the next one."""
    if notice.is_asked_to_stop(sweep):
        wire.leave(f"{folder.parent.name}/{folder.name}")
    while notice.is_asked_to_stop(sweep):
        notice.forget(folder)  # nobody need wait for this one
        time.sleep(LOOK_SECONDS)
