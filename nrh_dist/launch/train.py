"""``nrh train`` and ``nrh pretrain``: the loop of engine/fit.py under Ray Train."""

import os
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from threading import Event
from typing import Any

from nrh_dist import config as configuration
from nrh_dist.engine import copied, fetched, mirror, rundir
from nrh_dist.engine.assemble import part_checkpoints
from nrh_dist.engine.dist import Place
from nrh_dist.engine.notice import Notice, ask_to_stop
from nrh_dist.engine.progress import Say
from nrh_dist.engine.run import find_pack
from nrh_dist.engine.storage import Storage, StorageProblem
from nrh_dist.errors import UserError
from nrh_dist.launch import session
from nrh_dist.launch.pinning import pin
from nrh_dist.launch.relay import Wire, relayed
from nrh_dist.launch.telling import tell_and_wait
from nrh_dist.launch.worker import LOG, work
from nrh_dist.schema import Config

# With scale.min_workers. Ray's own are a minute each; a machine that has just died counts as room for 20 s.
RESIZE_SECONDS = 60.0  # between two looks whether there is room for more workers: each that finds some costs a restart
ROOM_SECONDS = 20.0  # that a start waits for room which was said to be there, before it looks again
# Ray's shards of Ray Data, which nothing here is of; and, on a Ray of one's own, its clean-up after a controller that
# died, which ``session.free_orphans`` does.
IDLE_HELPERS = ("DatasetsCallback", "PlacementGroupCleanerCallback")


def train(config: Config, say: Say) -> Path:
    """Train ``config`` with ``scale.workers`` DDP workers (``scale.min_workers`` at least) and return the run's folder.

    A run that was interrupted continues from its newest verified checkpoint, also with another number of workers; a
    finished one says so. ``UserError`` for what a user can mend, before Ray starts where that is possible.
    """
    part_checkpoints(config)
    if session.is_local():
        require_workers(config, say)
    pack = find_pack(config, say)
    with rundir.claimed(config, say) as folder:
        if rundir.is_finished(folder, config):
            mirror.complete(config, folder, say)
            say(f"{folder} is finished: {config.train.epochs} epochs; nothing to do")
            return folder
        session.connect(say)
        say(f"training {config.model.name} with {_workers(config)} into {folder}")
        with session.followed(folder / LOG, say):
            run_workers(config, pack, folder, say)
        if copy := copied.copy_of(config):  # what a worker on another machine made
            copied.bring(copy, folder, say)
    return folder


def run_workers(config: Config, pack: Path, folder: Path, say: Say, is_trial: bool = False) -> None:
    """Run the loop on Ray Train workers until the last epoch; those of a trial go on when Tune knows of the last one.

    Whatever dies (a worker, a node, Ray's controller), all start again from the newest checkpoint, up to
    ``scale.max_failures`` times without a new one. SIGTERM and Ctrl-C let the workers save a checkpoint and stop.
    """
    require_workers(config, say)
    gpus = gpus_per_worker(config)
    if not gpus:
        say(f"{_workers(config)} train on CPUs; scale.gpus_per_worker=1 asks for a GPU each")
    # A worker that does not even answer Ray is as dead as one that makes no step.
    os.environ["RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S"] = str(config.scale.hang_seconds)
    if config.scale.min_workers:
        os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = str(ROOM_SECONDS)
    carried = relayed(folder) if may_see_other_disks(config) else nullcontext()
    with session.stopping(lambda: ask_to_stop(folder), say) as asked, carried as relay:
        _outlive(lambda: _trainer(config, pack, folder, gpus, relay, is_trial), config, folder, asked, say)


def _outlive(trainer: Callable[[], Any], config: Config, folder: Path, asked: Event, say: Say) -> None:
    """Fit a new ``trainer`` until one ends by itself; ``UserError`` for a user's mistake that its workers met.

    A start that got to a new checkpoint before it died is no failure: on spot machines there is no end of such.
    """
    from ray.exceptions import RayActorError
    from ray.train.v2.api.exceptions import TrainingFailedError

    left, copy = config.scale.max_failures, copied.copy_of(config)
    reached = _reached(copy, folder, "")
    while True:
        # Ray's own record of the run is disposable, and a damaged one would stop every restart under this name.
        shutil.rmtree(folder / "ray", ignore_errors=True)
        try:
            trainer().fit()
        except (TrainingFailedError, RayActorError) as error:
            if mistake := session.raised(error, UserError):
                raise mistake from None
            reason = session.cause(error)
            if isinstance(error, RayActorError):
                reason = f"Ray's controller of the training died ({reason})"
            if asked.is_set():
                raise UserError(f"{folder} was asked to stop, and {reason}: the same command goes on") from error
            newest = _reached(copy, folder, reached)
            left = left - 1 if newest == reached else config.scale.max_failures
            reached = newest
            if left < 0:
                raise UserError(
                    f"{folder} stopped after {config.scale.max_failures} restarts without a new checkpoint: {reason}"
                ) from error
            say(f"{reason}; starting again from the newest checkpoint (restarts left without a new one: {left})")
        else:
            return
        finally:
            shutil.rmtree(folder / "ray", ignore_errors=True)


def _reached(copy: Storage | None, folder: Path, before: str) -> str:
    """The name of the newest checkpoint, on this disk or in the copy; ``before`` while the storage does not answer."""
    try:
        return copied.reached(copy, folder)
    except StorageProblem:
        return before


def _trainer(
    config: Config, pack: Path, folder: Path, gpus: float, relay: tuple[str, Any] | None, is_trial: bool
) -> Any:
    """A TorchTrainer of ``_worker``; of its own restarts it has only those after a preemption, without a limit."""
    import ray.train
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2.api.config import ScalingConfig

    from nrh_dist.launch.polling import RarePolls

    class Trainer(TorchTrainer):
        def _register_sigint_handler(self, controller: Any) -> None:
            """Ray's would end the workers as they stand; ``session.stopping`` lets them save."""

        def _create_default_callbacks(self) -> list[Any]:
            """Without those that start a process for nothing: each takes a per cent of a core all the time."""
            idle = IDLE_HELPERS if session.is_local() else IDLE_HELPERS[:1]
            made = super()._create_default_callbacks()  # type: ignore[misc]
            return [*(one for one in made if type(one).__name__ not in idle), RarePolls(folder.absolute())]

    session.free_orphans()
    workers, cpus = config.scale.workers, cpus_per_worker(config, gpus)
    return Trainer(
        _worker,
        train_loop_config={
            "config": configuration.to_dict(configuration.with_absolute_paths(config, Path.cwd())),
            "pack": fetched.origin(pack.absolute()),
            "folder": str(folder.absolute()),
            "relay": relay,
            "is_trial": is_trial,
            "cpus": cpus if session.is_local() and not gpus else None,
        },
        # Longer than any rank's watchdog: the rank that stands still shall say where before its peers give up.
        torch_config=TorchConfig(timeout_s=60 + round(15 * config.scale.hang_seconds)),
        scaling_config=ScalingConfig(
            num_workers=(fewest, workers) if (fewest := config.scale.min_workers) else workers,
            elastic_resize_monitor_interval_s=RESIZE_SECONDS,
            use_gpu=gpus > 0,
            resources_per_worker={"CPU": cpus, **({"GPU": gpus} if gpus else {})},
        ),
        run_config=ray.train.RunConfig(name="ray", storage_path=str(folder.absolute())),
    )


def require_workers(config: Config, say: Say) -> None:
    """Refuse more workers than a Ray on this machine can ever hold; say that a cluster has to grow for them."""
    workers, gpus = _fewest(config), gpus_per_worker(config)
    cpus = workers * cpus_per_worker(config, gpus)
    session.require(cpus, workers * gpus, f"{workers} workers", say)


def may_see_other_disks(config: Config) -> bool:
    """Whether workers may see another disk than this process: those of a cluster, where a storage holds what counts."""
    return bool(config.storage) and not session.is_local()


def _fewest(config: Config) -> int:
    return config.scale.min_workers or config.scale.workers


def _workers(config: Config) -> str:
    least, most = config.scale.min_workers, config.scale.workers
    return f"{least} to {most} workers" if least else f"{most} worker(s)"


def gpus_per_worker(config: Config) -> float:
    """``scale.gpus_per_worker``; empty: one where there are enough GPUs for all workers, else none.

    A cluster that starts GPU machines on demand shows none before: there the key must be given.
    """
    if config.scale.gpus_per_worker is not None:
        return config.scale.gpus_per_worker
    return 1.0 if session.resources().get("GPU", 0) >= _fewest(config) else 0.0


def cpus_per_worker(config: Config, gpus: float) -> int:
    """One CPU a worker; without GPUs on this machine's own Ray, an equal share of its CPUs."""
    if gpus or not session.is_local():
        return 1
    return max(1, int(session.resources().get("CPU", 1)) // config.scale.workers)


def _worker(loop_config: dict[Any, Any]) -> None:
    """One Ray Train worker."""
    import ray.train
    import ray.train.torch

    context = ray.train.get_context()
    if cpus := loop_config["cpus"]:
        pin(context.get_local_rank(), cpus)
    place = Place(context.get_world_rank(), context.get_world_size(), ray.train.torch.get_device())
    config = configuration.from_dict(loop_config["config"])
    folder = Path(loop_config["folder"])
    if config.storage:  # of a machine that perhaps shares no disk with the driver's
        folder.mkdir(parents=True, exist_ok=True)
    wire = Wire(loop_config["relay"], folder)
    pack = fetched.here(loop_config["pack"], wire.tell)

    def report(row: dict[str, Any]) -> None:
        if loop_config["is_trial"] and place.is_main:
            tell_and_wait(folder, row)
        ray.train.report(row)

    try:
        asked, is_settled = (lambda: max(wire.asked(), preemption())), loop_config["is_trial"]
        work(config, pack, folder, place, report, asked, wire.tell, is_settled)
    finally:
        wire.close()


def preemption() -> Notice:
    """LEAVE while Ray announces that a machine of this run is about to be taken away.

    Ray would let all train on until then, and what they learn after their last checkpoint would be lost. Who leaves at
    once has the time that is left for sending the checkpoint, and asks for another machine sooner. The public
    ``ray.train.get_preemption_info`` is a barrier of all ranks; this reads what this process was told.
    """
    from ray.train.v2._internal.execution.context import get_train_context

    announced = get_train_context().preemption_context.preemption_info is not None
    return Notice.LEAVE if announced else Notice.NONE
