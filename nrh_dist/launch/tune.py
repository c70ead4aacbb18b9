"""``nrh tune``: a search space explored by Ray Tune, each trial an ordinary run in ``<sweep>/trials``.

A trial that fits one device trains inside its Tune process; ``scale.workers`` above 1 in ``base`` gives each trial
workers of its own: processes beside it where one machine has room for them, else a TorchTrainer. Ray keeps nothing that
matters: ``--resume`` starts Tune anew, and every trial replays the rows of its ``metrics.jsonl`` to the scheduler
before it goes on from its own checkpoint.
"""

import json
import math
import shlex
import shutil
import time
import warnings
from collections.abc import Sequence
from contextlib import closing, nullcontext, suppress
from pathlib import Path
from typing import Any, NamedTuple

from nrh_dist.config import PLACE_KEYS, Config
from nrh_dist.engine import fetched, notice, rundir, select
from nrh_dist.engine.assemble import part_checkpoints
from nrh_dist.engine.files import write_text
from nrh_dist.engine.progress import Say
from nrh_dist.engine.run import find_pack
from nrh_dist.engine.storage import file_system, open_storage
from nrh_dist.errors import UserError
from nrh_dist.launch import session, space
from nrh_dist.launch.progress import Progress, callback
from nrh_dist.launch.relay import relayed
from nrh_dist.launch.schedulers import scheduler, searcher
from nrh_dist.launch.space import Space
from nrh_dist.launch.sweep_copy import SWEEP, copy_of
from nrh_dist.launch.train import cpus_per_worker, gpus_per_worker, may_see_other_disks, require_workers
from nrh_dist.launch.trial import Together, sweep_dir, train_trial
from nrh_dist.launch.trials import (
    begun,
    failures,
    forget_failures,
    noted,
    table_rows,
    write_table,
)
from nrh_dist.location import is_remote, parse

RECORD = ".ray"  # Ray's own, of a sweep that runs: hidden, so that no copy of the sweep takes it for a part
HEAD, HELPER = "node:__internal_head__", 0.001  # what Ray Train's own helper takes of the head, and waits for
CLUSTER_TRIALS = 8  # at once on a cluster, at least; a TorchTrainer takes 1.2 GB of the head for each
STOP_SECONDS = 60.0  # that the trials have to save where the sweep is asked to stop
FREE_SECONDS = 5.0  # between two looks for what trials reserved that Ray Train's own clean-up left


class Room(NamedTuple):
    """What one trial reserves of Ray, how many trials run at once, and what its workers get if they are together."""

    need: dict[str, float]
    concurrent: int
    together: Together | None


def tune(path: Path, words: Sequence[str], resume: bool, say: Say) -> Path:
    """Run the sweep of the space file ``path`` and return its folder.

    Writes trials.csv (one row a trial: every searched key, the metrics, epochs run, status, reason, run folder) and
    best.json (the best trial's best checkpoint). A trial that crashes or diverges is recorded with its reason and does
    not stop the sweep. SIGTERM and Ctrl-C let the trials save first, and end it with ``Stopped``. ``UserError`` if the
    folder holds another sweep, or an unfinished one and ``resume`` is not set.
    """
    searched = space.read(path, words)
    first, folder = searched.config(searched.first), sweep_dir(searched)
    require_startable(first, folder, say)
    pack = find_pack(first, say)
    copy = copy_of(first.storage, folder)
    if not copy.holds_a_sweep() and resume and not (folder / SWEEP).exists():
        raise UserError(f"there is no sweep to resume in {folder}")
    with rundir.locked(folder):
        copy.fetch()
        if _is_done(folder, searched, resume):
            copy.fetch_best(searched.metric, say)
            say(f"{folder} is finished: {searched.trials} trials; nothing to do")
            return folder
        copy.send()
        session.connect(say)
        _require_one_disk(first, searched, room_for(first, say).together)
        say(f"sweep of {searched.trials} trials into {folder}")
        forget_failures(folder)
        (folder / select.BEST).unlink(missing_ok=True)  # the sweep is finished again when its failed trials are
        copy.reopen()
        notice.forget(folder)
        progress = Progress(searched, folder, say)
        is_apart = may_see_other_disks(first)
        stopping = session.stopping(lambda: _ask_to_stop(folder, progress, is_apart), say)
        carried = relayed(folder) if is_apart else nullcontext()
        with stopping, closing(progress), copy.followed(progress.say), carried as relay:
            _run(searched, first, pack, folder, progress, relay, say)
        table = write_table(folder, searched)
        copy.send()
        if progress.is_stopping:
            command = shlex.join(["nrh", "tune", str(path), *words, "--resume"])
            raise notice.Stopped(f"stopped, as asked; what the trials reached is in {table}; to go on: {command}")
        copy.fetch_best(searched.metric, say)
        _choose(searched, folder, table, say)
        copy.send()
    return folder


def require_startable(first: Config, folder: Path, say: Say) -> None:
    """``UserError`` for what no sweep of trials like ``first`` starts with in ``folder``, whatever its data are."""
    if first.scale.min_workers:
        raise UserError(
            f"scale.min_workers={first.scale.min_workers}: the trials of a sweep keep their workers; leave it out"
        )
    part_checkpoints(first)
    if session.is_local():
        require_workers(first, say)
    if (folder / rundir.CONFIG).exists():
        raise UserError(f"{folder} is the folder of a run: choose another run.name for the sweep")


def _require_one_disk(first: Config, searched: Space, together: Together | None) -> None:
    """``UserError`` for what goes by paths of a disk that all machines see, where there may be none."""
    if session.is_local() or not first.storage or not is_remote(first.storage):
        return
    way = "give run.root in a folder that all machines see, and storage as a folder, too"
    if searched.schedule.kind == "pbt":
        raise UserError(f"storage={first.storage}: population-based training takes weights over by their path: {way}")
    if together is None:
        raise UserError(f"storage={first.storage}: trials with workers on several machines follow them by path: {way}")


def _choose(searched: Space, folder: Path, table: Path, say: Say) -> None:
    rows = table_rows(folder, searched)
    if all(row["status"] == "failed" for row in rows):
        raise UserError(f"all {len(rows)} trials failed, the first with: {rows[0]['reason']}; see {table}")
    found = select.candidates([folder / "trials"], searched.metric)[0]
    select.write_best(folder, found.checkpoint, searched.metric, found.value)
    say(f"best: {found.run}, {searched.metric} {found.value:.4g} at epoch {found.epoch}; table in {table}")


def _keep_keys_out_of_logs() -> None:
    """Tune hands the driver's AWS keys on as part of the workers' environment, which Ray writes to its logs.

    Workers of this machine inherit them anyway, and other machines have their own.
    """
    from ray.tune.execution import class_cache

    class_cache.ENV_VARS_TO_PROPAGATE = {one for one in class_cache.ENV_VARS_TO_PROPAGATE if not one.startswith("AWS")}


def _run(
    searched: Space,
    first: Config,
    pack: Path,
    folder: Path,
    progress: Progress,
    relay: tuple[str, Any] | None,
    say: Say,
) -> None:
    """Run Tune to its end. A trial that dies goes on from its checkpoint, up to ``scale.max_failures`` times."""
    from ray import tune as ray_tune

    _keep_keys_out_of_logs()
    for left in (folder / "trials").glob(".t*"):  # by a kill
        shutil.rmtree(left, ignore_errors=True)
    _drop_record(first, folder)
    room = room_for(first, say)
    places = {"pack": fetched.origin(pack.absolute()), "home": str(Path.cwd())}
    trainable = ray_tune.with_parameters(train_trial, searched=searched, **places, together=room.together, relay=relay)
    parameters = starting_points(searched, first.seed, folder)
    is_drawn = bool(parameters)
    tried = {index: noted(one)["assignment"] for index, one in begun(folder).items()}
    tuner = ray_tune.Tuner(
        ray_tune.with_resources(trainable, room.need),
        param_space={"trial": ray_tune.grid_search(parameters)} if is_drawn else {},
        tune_config=ray_tune.TuneConfig(
            num_samples=1 if is_drawn else searched.trials,
            scheduler=scheduler(searched, folder, first.seed, lambda line: progress.say(line)),
            search_alg=searcher(searched, first.seed, tried),
            # Where trials wait for each other all must be there: their resources keep them waiting.
            max_concurrent_trials=None if searched.schedule.pauses else room.concurrent,
            # A process that has trained one trial takes the next: it starts at once. No trial can tell, as each seeds
            # all that it draws. Workers beside it end with their trial's process only.
            reuse_actors=first.scale.workers == 1,
        ),
        run_config=ray_tune.RunConfig(
            name=RECORD,
            **_place_of_record(first, folder),
            verbose=0,
            stop=_stopper(progress, is_on_ray_train=room.together is None),
            callbacks=[callback(progress)],
            failure_config=ray_tune.FailureConfig(max_failures=first.scale.max_failures),
            # Of pointers; a trial may take over from one that its donor has left behind already.
            checkpoint_config=ray_tune.CheckpointConfig(num_to_keep=None if searched.schedule.pauses else 1),
        ),
    )
    with warnings.catch_warnings():
        # Processes of trials that have workers are not used again, which Ray advises for population-based training.
        warnings.filterwarnings("ignore", "Consider boosting PBT performance")
        tuner.fit()
    _drop_record(first, folder)


def _place_of_record(first: Config, folder: Path) -> dict[str, Any]:
    """Where Ray keeps its record of the sweep: in its folder; in its copy, where trials perhaps do not see that."""
    if not may_see_other_disks(first):
        return {"storage_path": str(folder.absolute())}
    place = parse(str(first.storage)).child(folder.name)
    path = place.path if place.kind else str(Path(place.path).absolute())
    return {"storage_path": path, "storage_filesystem": file_system(place)}


def _drop_record(first: Config, folder: Path) -> None:
    """Remove Ray's record, also one that a kill left: nothing of it is ever read again."""
    shutil.rmtree(folder / RECORD, ignore_errors=True)
    if may_see_other_disks(first):
        open_storage(str(first.storage)).child(folder.name).remove_folder(RECORD)


def starting_points(searched: Space, seed: int, folder: Path) -> list[dict[str, Any]]:
    """The trials that are drawn up front, each in the latest life that it had; none where a searcher draws them."""
    if searched.search == "optuna":
        return []
    points = []
    there = begun(folder)
    for index, assignment in enumerate(searched.assignments(seed)):
        point: dict[str, Any] = {"index": index, "life": 1, "assignment": assignment}
        if index in there:
            told = noted(there[index])
            point = {key: told[key] for key in point}
        points.append(point)
    return points


def _ask_to_stop(folder: Path, progress: Progress, is_apart: bool) -> None:
    """Let no trial begin, and ask those that train to save and stop. ``is_apart``: their folders may lie elsewhere."""
    progress.is_stopping = True
    notice.ask_to_stop(folder)
    for trial in progress.running():
        if is_apart:
            trial.mkdir(parents=True, exist_ok=True)  # here, for the answer that the relay brings
        with suppress(FileNotFoundError):  # it is about to begin, and will find the sweep's
            notice.ask_to_stop(trial)


def _stopper(progress: Progress, is_on_ray_train: bool) -> Any:
    """Ends the sweep when all trials have saved, or have had ``STOP_SECONDS`` for it, since it was asked to.

    Tune asks it in every round, also where it waits for room: what a TorchTrainer of a trial that was stopped still
    has reserved is given back here, as ``session.free_orphans`` says.
    """
    from ray.tune.stopper import Stopper

    class Stop(Stopper):
        since: float | None = None
        freed = 0.0

        def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
            return False

        def stop_all(self) -> bool:
            if is_on_ray_train and time.monotonic() - self.freed > FREE_SECONDS:
                session.free_orphans()
                self.freed = time.monotonic()
            if not progress.is_stopping:
                return False
            self.since = self.since or time.monotonic()
            is_saving = any(notice.is_asked_to_stop(trial) for trial in progress.running())
            return not is_saving or time.monotonic() - self.since > STOP_SECONDS

    return Stop()


def room_for(first: Config, say: Say) -> Room:
    """What a trial takes, and how many run at once.

    Workers that no single machine has room for are Ray Train's. Then the trial's own process reserves no CPU beside
    them, but a share of the head, so that no more trials start than there is room for: two that hold all CPUs while
    their workers wait for some would wait for ever.
    """
    require_workers(first, say)
    workers, gpus = first.scale.workers, gpus_per_worker(first)
    cpus = cpus_per_worker(first, gpus) if workers > 1 else 1
    have = session.resources()
    fitting = have.get("GPU", 0) // (workers * gpus) if gpus else have.get("CPU", 1) // (workers * cpus)
    # Trials that wait make an autoscaling cluster grow.
    concurrent = max(1, int(fitting), 1 if session.is_local() else CLUSTER_TRIALS)
    is_together = session.one_machine_has(workers * cpus, workers * gpus)
    need = {"CPU": float(workers * cpus), **({"GPU": workers * gpus} if gpus else {})}
    if workers > 1 and not is_together:
        need = {HEAD: math.floor(1e4 * (1 / concurrent - HELPER)) / 1e4}  # Ray counts in 1/10,000
    return Room(need, concurrent, Together(cpus, gpus) if workers == 1 or is_together else None)


def _is_done(folder: Path, searched: Space, resume: bool) -> bool:
    """Bind the folder to this sweep; whether there is nothing left to do in it."""
    written = folder / SWEEP
    text = json.dumps({"schema": 2, **_identity(searched)}, indent=1) + "\n"
    if not written.exists():
        write_text(written, text)
        return False
    if written.read_text(encoding="utf-8") != text:
        raise UserError(f"{folder} holds another sweep: choose another run.name, or give the same space file and words")
    finished = (folder / select.BEST).exists()
    if not finished and not resume:
        raise UserError(f"{folder} holds an unfinished sweep: add --resume to continue it, or choose another run.name")
    return finished and not (resume and failures(folder))


def _identity(searched: Space) -> dict[str, Any]:
    dimensions = {one.key: {one.kind: one.values, "when": dict(one.when)} for one in searched.dimensions}
    return {
        "metrics": searched.metrics,
        "trials": searched.trials,
        "search": searched.search,
        "scheduler": {searched.schedule.kind: vars(searched.schedule)},
        "base": [word for word in searched.base if word.partition("=")[0].split(".")[0] not in PLACE_KEYS],
        "space": dimensions,
    }
