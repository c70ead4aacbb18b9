"""``nrh tune``: a search space explored by Ray Tune, each trial an ordinary run in ``<sweep>/trials``.

A trial that fits one device trains inside its Tune process; ``scale.workers`` above 1 in ``base`` makes each trial a
TorchTrainer of its own. Ray keeps nothing that matters: ``--resume`` starts Tune anew, and every trial replays the rows
of its ``metrics.jsonl`` to the scheduler before it goes on from its own checkpoint.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nrh_dist.config import PLACE_KEYS, Config, with_absolute_paths
from nrh_dist.engine import rundir, select, track
from nrh_dist.engine.assemble import part_checkpoints
from nrh_dist.engine.dist import Place, own_device
from nrh_dist.engine.files import write_text
from nrh_dist.engine.progress import Say
from nrh_dist.engine.run import find_pack, run
from nrh_dist.errors import UserError
from nrh_dist.launch import session, space
from nrh_dist.launch.space import Assignment, Space
from nrh_dist.launch.train import cpus_per_worker, gpus_per_worker, require_workers, run_workers
from nrh_dist.launch.trials import (
    assignment_of,
    begun,
    failures,
    forget_failures,
    note,
    note_failure,
    trial_name,
    write_table,
)

SWEEP = "sweep.json"
CLUSTER_TRIALS = 8  # at once on a cluster, at least; a TorchTrainer takes 1.2 GB of the head for each


def describe(path: Path, words: Sequence[str], say: Say) -> None:
    """Print the plan of a sweep and start nothing."""
    searched = space.read(path, words)
    asha = searched.asha
    say(f"{path}: {searched.trials} trials by {searched.search} search, lowest {searched.metric}")
    say(f"at most {searched.trials * asha.max_epochs} epochs: {asha.max_epochs} a trial; ASHA keeps 1 in "
        f"{asha.reduction_factor} at each rung, the first after epoch {asha.grace_epochs}")  # fmt: skip
    for one in searched.dimensions:
        condition = "".join(f", when {key}={value}" for key, value in one.when)
        say(f"  {one.key}: {one.kind} of {', '.join(map(str, one.values))}{condition}")
    say(f"sweep folder: {sweep_dir(searched)}")


def tune(path: Path, words: Sequence[str], resume: bool, say: Say) -> Path:
    """Run the sweep of the space file ``path`` and return its folder.

    Writes trials.csv (one row a trial: every searched key, the metric, epochs run, status, reason, run folder) and
    best.json (the best trial's best checkpoint). A trial that crashes or diverges is recorded with its reason and does
    not stop the sweep. ``UserError`` if the folder holds another sweep, or an unfinished one and ``resume`` is not set.
    """
    searched = space.read(path, words)
    first = searched.config(searched.first)
    part_checkpoints(first)
    if session.is_local():
        require_workers(first, say)
    pack = find_pack(first, say)
    folder = sweep_dir(searched)
    if (folder / rundir.CONFIG).exists():
        raise UserError(f"{folder} is the folder of a run: choose another run.name for the sweep")
    if resume and not (folder / SWEEP).exists():
        raise UserError(f"there is no sweep to resume in {folder}")
    with rundir.locked(folder):
        if _is_done(folder, searched, resume):
            say(f"{folder} is finished: {searched.trials} trials; nothing to do")
            return folder
        session.connect(say)
        say(f"sweep of {searched.trials} trials into {folder}")
        forget_failures(folder)
        _run(searched, first, pack, folder, say)
        table = write_table(folder, searched)
        failed = failures(folder)
        if len(failed) == len(begun(folder)):
            raise UserError(f"all {len(failed)} trials failed, the first with: {min(failed.items())[1]}; see {table}")
        found = select.candidates([folder / "trials"], searched.metric)[0]
        select.write_best(folder, found.checkpoint, searched.metric, found.value)
        say(f"best: {found.run}, {searched.metric} {found.value:.4g} at epoch {found.epoch}; table in {table}")
    return folder


def sweep_dir(searched: Space) -> Path:
    """``run.root/run.name`` of the base; the name defaults to the file's name."""
    run = searched.config(searched.first).run
    return Path(run.root) / (run.name or searched.name)


def trial_config(searched: Space, assignment: Assignment, index: int) -> Config:
    """The configuration of trial ``index``: its run folder is ``<sweep>/trials/tNNNN``."""
    config = searched.config(assignment)
    sweep = sweep_dir(searched)
    config.run.root, config.run.name = str(sweep / "trials"), trial_name(index)
    config.track.group = config.track.group or sweep.name
    return config


def _run(searched: Space, first: Config, pack: Path, folder: Path, say: Say) -> None:
    """Run Tune to its end. A trial that dies goes on from its checkpoint, up to ``scale.max_failures`` times."""
    from ray import tune as ray_tune
    from ray.tune.schedulers import ASHAScheduler

    shutil.rmtree(folder / "ray", ignore_errors=True)
    scheduler = ASHAScheduler(
        time_attr="epoch",
        # At max_t ASHA would kill the winners in their last report.
        max_t=searched.asha.max_epochs + 1,
        grace_period=searched.asha.grace_epochs,
        reduction_factor=searched.asha.reduction_factor,
    )
    need, concurrent = _trial_resources(first, say)
    trial = ray_tune.with_parameters(_trial, searched=searched, pack=str(pack.absolute()), home=str(Path.cwd()))
    results: Any = ray_tune.Tuner(
        ray_tune.with_resources(trial, need),
        param_space=_parameters(searched, first.seed),
        tune_config=ray_tune.TuneConfig(
            metric=searched.metric,
            mode="min",
            num_samples=searched.trials if searched.search == "optuna" else 1,
            scheduler=scheduler,
            search_alg=_searcher(searched, first.seed, folder),
            max_concurrent_trials=concurrent,
        ),
        run_config=ray_tune.RunConfig(
            name="ray",
            storage_path=str(folder.absolute()),
            verbose=0,
            callbacks=[_spoken(searched.metric, say)],
            failure_config=ray_tune.FailureConfig(max_failures=first.scale.max_failures),
        ),
    ).fit()
    shutil.rmtree(folder / "ray", ignore_errors=True)
    known = failures(folder)
    for result in results:
        name = trial_name(result.config["trial"]["index"])
        if result.error and name not in known:
            note_failure(folder / "trials" / name, session.cause(result.error))


def _trial(parameters: dict[str, Any], searched: Space, pack: str, home: str) -> None:
    """One trial in its Tune process."""
    from ray import tune as ray_tune
    from ray.tune.integration.ray_train import TuneReportCallback

    index, assignment = parameters["trial"]["index"], parameters["trial"]["assignment"]
    config = with_absolute_paths(trial_config(searched, assignment, index), Path(home))
    with rundir.claimed(config) as folder, (folder / "train.log").open("a", buffering=1) as log:
        note(folder, index, assignment)

        def say(line: str) -> None:
            log.write(line + "\n")

        for row in track.rows_up_to(folder, config.train.epochs):  # the scheduler starts anew after a resume
            ray_tune.report(row)
        if rundir.is_finished(folder, config):
            return
        if reason := failures(folder.parents[1]).get(folder.name):
            raise UserError(reason)
        try:
            if config.scale.workers > 1:
                run_workers(config, Path(pack), folder, [TuneReportCallback()], say)
            else:
                run(config, Path(pack), Place(device=own_device()), ray_tune.report, say)
        except UserError as error:  # as a diverging loss: to train again would be in vain
            note_failure(folder, str(error))
            raise


def _trial_resources(first: Config, say: Say) -> tuple[dict[str, float], int]:
    """What one trial's process reserves, and how many trials run at once.

    A trial with workers of its own reserves nothing on the head beside them: two drivers that hold all CPUs while
    their workers wait for some would wait for ever.
    """
    gpus, workers = gpus_per_worker(first), first.scale.workers
    require_workers(first, say)
    have = session.resources()
    cpus = workers * cpus_per_worker(first, gpus) if workers > 1 else 1
    concurrent = have.get("GPU", 0) // (workers * gpus) if gpus else have.get("CPU", 1) // cpus
    if not session.is_local():  # trials that wait make an autoscaling cluster grow
        concurrent = max(concurrent, CLUSTER_TRIALS)
    need = {"CPU": 1.0, **({"GPU": gpus} if gpus else {})} if workers == 1 else {"node:__internal_head__": 0.001}
    return need, max(1, int(concurrent))


def _parameters(searched: Space, seed: int) -> dict[str, Any]:
    """What Tune hands out: the trials that are drawn up front; nothing where a searcher draws them."""
    from ray import tune as ray_tune

    if searched.search == "optuna":
        return {}
    drawn = [{"index": index, "assignment": one} for index, one in enumerate(searched.assignments(seed))]
    return {"trial": ray_tune.grid_search(drawn)}


def _searcher(searched: Space, seed: int, folder: Path) -> Any:
    """Optuna's TPE over all dimensions, first asked for the trials that an interrupted sweep already began."""
    if searched.search != "optuna":
        return None
    import optuna
    from optuna.distributions import CategoricalDistribution, FloatDistribution
    from ray.tune.search.optuna import OptunaSearch

    distributions: dict[str, Any] = {}
    for one in searched.dimensions:
        if one.kind == "choice":
            distributions[one.key] = CategoricalDistribution(one.values)
        else:
            low, high = one.values
            distributions[one.key] = FloatDistribution(low, high, log=one.kind == "loguniform")

    class NumberedSearch(OptunaSearch):
        """Optuna's suggestions in the shape of ``_parameters``: Tune's own ids of them are random."""

        count = 0

        def suggest(self, trial_id: str) -> dict[str, Any] | None:
            assignment = super().suggest(trial_id)
            if assignment is None:
                return None
            self.count += 1
            return {"trial": {"index": self.count - 1, "assignment": assignment}}

    tried = [assignment_of(trial) for trial in begun(folder)]
    sampler = optuna.samplers.TPESampler(seed=seed)
    return NumberedSearch(
        space=distributions, metric=searched.metric, mode="min", sampler=sampler, points_to_evaluate=tried or None
    )


def _spoken(metric: str, say: Say) -> Any:
    """A Tune callback that says one line for each reported epoch and each failed trial."""
    from ray.tune import Callback

    class Spoken(Callback):
        def on_trial_result(
            self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any
        ) -> None:
            name = trial_name(trial.config["trial"]["index"])
            say(
                f"{name}: epoch {result['epoch']}, {metric} {result[metric]:.4g}, {result['images_per_s']:.1f} images/s"
            )

        def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
            say(f"{trial_name(trial.config['trial']['index'])} failed; the sweep goes on")

    return Spoken()


def _is_done(folder: Path, searched: Space, resume: bool) -> bool:
    """Bind the folder to this sweep; whether there is nothing left to do in it."""
    written = folder / SWEEP
    text = json.dumps({"schema": 1, **_identity(searched)}, indent=1) + "\n"
    if not written.exists():
        write_text(written, text)
        return False
    if written.read_text() != text:
        raise UserError(f"{folder} holds another sweep: choose another run.name, or give the same space file and words")
    finished = (folder / select.BEST).exists()
    if not finished and not resume:
        raise UserError(f"{folder} holds an unfinished sweep: add --resume to continue it, or choose another run.name")
    return finished and not (resume and failures(folder))


def _identity(searched: Space) -> dict[str, Any]:
    dimensions = {one.key: {one.kind: one.values, "when": dict(one.when)} for one in searched.dimensions}
    return {
        "metric": searched.metric,
        "trials": searched.trials,
        "search": searched.search,
        "asha": vars(searched.asha),
        "base": [word for word in searched.base if word.split(".")[0] not in PLACE_KEYS],
        "space": dimensions,
    }
