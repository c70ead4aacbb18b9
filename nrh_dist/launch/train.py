"""``nrh train`` and ``nrh pretrain``: the loop of engine/fit.py under Ray Train."""

import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from nrh_dist import config as configuration
from nrh_dist.engine import rundir
from nrh_dist.engine.assemble import part_checkpoints
from nrh_dist.engine.dist import Place
from nrh_dist.engine.progress import Say
from nrh_dist.engine.run import find_pack, run
from nrh_dist.errors import UserError
from nrh_dist.launch import session
from nrh_dist.schema import Config

LOG = "train.log"


def train(config: Config, say: Say) -> Path:
    """Train ``config`` with ``scale.workers`` DDP workers and return the run's folder.

    A run that was interrupted continues from its newest verified checkpoint, also with another number of workers; a
    finished one says so. ``UserError`` for what a user can mend, before Ray starts where that is possible.
    """
    part_checkpoints(config)
    if session.is_local():
        require_workers(config, say)
    pack = find_pack(config, say)
    with rundir.claimed(config) as folder:
        if rundir.is_finished(folder, config):
            say(f"{folder} is finished: {config.train.epochs} epochs; nothing to do")
            return folder
        session.connect(say)
        say(f"training {config.model.name} with {config.scale.workers} worker(s) into {folder}")
        with session.followed(folder / LOG, say):
            run_workers(config, pack, folder, callbacks=[], say=say)
    return folder


def run_workers(config: Config, pack: Path, folder: Path, callbacks: list[Any], say: Say) -> None:
    """Run the loop on Ray Train workers until the last epoch; ``callbacks`` see each report."""
    import ray.train
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError

    require_workers(config, say)
    gpus = gpus_per_worker(config)
    cpus = cpus_per_worker(config, gpus)
    if not gpus:
        say(f"{config.scale.workers} worker(s) train on CPUs; scale.gpus_per_worker=1 asks for a GPU each")
    # Ray's own record of the run is disposable, and a damaged one would stop every restart under this name.
    shutil.rmtree(folder / "ray", ignore_errors=True)
    trainer = TorchTrainer(
        _worker,
        train_loop_config={
            "config": configuration.to_dict(configuration.with_absolute_paths(config, Path.cwd())),
            "pack": str(pack.absolute()),
        },
        torch_config=TorchConfig(timeout_s=600),
        scaling_config=ray.train.ScalingConfig(
            num_workers=config.scale.workers,
            use_gpu=gpus > 0,
            resources_per_worker={"CPU": cpus, **({"GPU": gpus} if gpus else {})},
        ),
        run_config=ray.train.RunConfig(
            name="ray",
            storage_path=str(folder.absolute()),
            failure_config=ray.train.FailureConfig(max_failures=config.scale.max_failures),
            callbacks=callbacks,
        ),
    )
    try:
        result: Any = trainer.fit()
    except TrainingFailedError as error:
        raise UserError(
            f"{folder} stopped after {config.scale.max_failures} restarts: {session.cause(error)}"
        ) from error
    shutil.rmtree(folder / "ray", ignore_errors=True)
    if mistake := result.return_value["mistake"]:
        raise UserError(mistake)


def require_workers(config: Config, say: Say) -> None:
    """Refuse more workers than a Ray on this machine can ever hold; say that a cluster has to grow for them."""
    workers, gpus = config.scale.workers, gpus_per_worker(config)
    cpus = workers * cpus_per_worker(config, gpus)
    session.require(cpus, workers * gpus, f"{workers} workers", say)


def gpus_per_worker(config: Config) -> float:
    """``scale.gpus_per_worker``; empty: one where there are enough GPUs for all workers, else none.

    A cluster that starts GPU machines on demand shows none before: there the key must be given.
    """
    if config.scale.gpus_per_worker is not None:
        return config.scale.gpus_per_worker
    return 1.0 if session.resources().get("GPU", 0) >= config.scale.workers else 0.0


def cpus_per_worker(config: Config, gpus: float) -> int:
    """One CPU a worker; without GPUs on this machine's own Ray, an equal share of its CPUs."""
    if gpus or not session.is_local():
        return 1
    return max(1, int(session.resources().get("CPU", 1)) // config.scale.workers)


def _worker(loop_config: dict[Any, Any]) -> Any:
    """One Ray Train worker. Returns a user's mistake instead of raising it, which Ray would retry in vain."""
    import ray.train
    import ray.train.torch

    context = ray.train.get_context()
    place = Place(context.get_world_rank(), context.get_world_size(), ray.train.torch.get_device())
    config = configuration.from_dict(loop_config["config"])
    log = (configuration.run_dir(config) / LOG).open("a", buffering=1)

    def say(line: str) -> None:
        log.write(line + "\n")

    try:
        with log, rundir.writing(configuration.run_dir(config)) if place.is_main else nullcontext():
            run(config, Path(loop_config["pack"]), place, ray.train.report, say)
    except UserError as error:
        return {"mistake": str(error)}
    return {"mistake": None}
