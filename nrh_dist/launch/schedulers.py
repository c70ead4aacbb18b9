"""Ray Tune's schedulers and searchers for a search space."""

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from nrh_dist.engine.progress import Say
from nrh_dist.errors import UserError
from nrh_dist.launch.population import take_over, varied
from nrh_dist.launch.schedule import Asha, HyperBand, Median, Population
from nrh_dist.launch.space import Assignment, Space
from nrh_dist.launch.trials import life_name, name_of, note, table_rows

EPOCH = "epoch"  # of a row of metrics.jsonl: what all schedulers count


def scheduler(searched: Space, folder: Path, seed: int, say: Say) -> Any:
    """The scheduler of a sweep in ``folder``."""
    from ray.tune import schedulers

    schedule = searched.schedule
    common: dict[str, Any] = {"time_attr": EPOCH, "metric": searched.metric, "mode": "min"}
    if isinstance(schedule, Asha):
        return _letting_finish(schedulers.ASHAScheduler, schedule.max_epochs)(
            **common,
            max_t=schedule.max_epochs,
            grace_period=schedule.grace_epochs,
            reduction_factor=schedule.reduction_factor,
        )
    if isinstance(schedule, HyperBand):
        return _hyperband(schedule)(
            **common,
            max_t=schedule.max_epochs,
            reduction_factor=schedule.reduction_factor,
            stop_last_trials=False,
        )
    if isinstance(schedule, Median):
        return _letting_finish(schedulers.MedianStoppingRule, schedule.max_epochs)(
            **common,
            grace_period=schedule.grace_epochs,
            min_samples_required=schedule.min_trials,
            min_time_slice=math.inf,  # else it pauses those that it cannot judge yet
        )
    if isinstance(schedule, Population):
        return _population(searched, schedule, folder, seed, common, say)
    return schedulers.FIFOScheduler()


def _letting_finish(kind: Any, last: int) -> Any:
    """A scheduler that ends no trial in its last report: it would be killed before it has closed its run."""

    class LettingFinish(kind):
        def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
            if result[EPOCH] >= last:
                return str(self.CONTINUE)
            return str(super().on_trial_result(tune_controller, trial, result))

    return LettingFinish


def _hyperband(schedule: HyperBand) -> Any:
    from ray.tune.schedulers import HyperBandScheduler

    class HyperBandOfMortals(_letting_finish(HyperBandScheduler, schedule.max_epochs)):  # type: ignore[misc]
        """Ray's, whose brackets wait for ever when a trial dies after the first halving: they stay marked as busy."""

        def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
            bracket, _ = self._trial_info[trial]
            if not self.is_halving:
                bracket.is_being_processed = False
            super().on_trial_remove(tune_controller, trial)

        is_halving = False

        def _process_bracket(self, tune_controller: Any, bracket: Any) -> str:
            self.is_halving = True
            try:
                return str(super()._process_bracket(tune_controller, bracket))
            finally:
                self.is_halving = False

    return HyperBandOfMortals


def _population(
    searched: Space, schedule: Population, folder: Path, seed: int, common: dict[str, Any], say: Say
) -> Any:
    from ray.tune.schedulers import PopulationBasedTraining

    interval = schedule.interval_epochs
    done = interval * (_least_epochs(searched, folder) // interval)
    generator = np.random.default_rng([seed, done])

    class Exchange(_letting_finish(PopulationBasedTraining, schedule.max_epochs)):  # type: ignore[misc]
        """Ray's decides who takes over from whom, and when; weights and rows are taken over here, on the disk.

        The exchanges up to epoch ``done`` are those of an earlier start.
        """

        def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
            if trial not in self._trial_state:  # else it crashed, and comes again
                super().on_trial_add(tune_controller, trial)
                self._trial_state[trial].last_perturbation_time = done

        def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
            tune_controller.get_live_trials().discard(trial)  # the set itself: else the others wait for it for ever

        def _exploit(self, tune_controller: Any, trial: Any, trial_to_clone: Any) -> None:
            try:
                super()._exploit(tune_controller, trial, trial_to_clone)
            except (UserError, OSError) as error:  # it goes on with its own
                say(f"{name_of(trial)} cannot take over weights of {name_of(trial_to_clone)}: {error}")

        def choose_trial_to_run(self, tune_controller: Any) -> Any:
            chosen = super().choose_trial_to_run(tune_controller)
            if chosen is None and all(one.status == "PAUSED" for one in tune_controller.get_live_trials()):
                self._next_perturbation_sync += interval  # who would have come last has failed: nobody calls them
                chosen = super().choose_trial_to_run(tune_controller)
            return chosen

        def _get_new_config(self, trial: Any, trial_to_clone: Any) -> tuple[dict[str, Any], dict[str, Any]]:
            own, donor = trial.config["trial"], trial_to_clone.config["trial"]
            epoch = self._trial_state[trial_to_clone].last_train_time
            assignment = varied(searched.dimensions, donor["assignment"], generator)
            own = {**own, "life": own["life"] + 1, "assignment": assignment}
            origin = {"trial": life_name(donor["index"], donor["life"]), "epoch": epoch}
            begin_life(folder, own, origin)
            return {"trial": own}, {}

    exchange = Exchange(
        **common,
        perturbation_interval=interval,
        quantile_fraction=schedule.share,
        custom_explore_fn=dict,  # one is required; varied() explores
        synch=True,
        log_config=False,
    )
    exchange._next_perturbation_sync = done + interval
    return exchange


def _least_epochs(searched: Space, folder: Path) -> int:
    """How far the slowest trial is that may still go on."""
    rows = table_rows(folder, searched)
    going = [int(row["epochs"]) for row in rows if row["status"] in ("running", "waiting")]
    return min(going, default=0)


def begin_life(sweep: Path, trial: dict[str, Any], origin: dict[str, Any]) -> None:
    """Make the folder of a trial's next life, or nothing."""
    name = life_name(trial["index"], trial["life"])
    partial = sweep / "trials" / f".{name}.partial"
    try:
        take_over(sweep / "trials" / origin["trial"], origin["epoch"], partial)
        note(partial, trial, {}, origin)
        partial.rename(sweep / "trials" / name)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def searcher(searched: Space, seed: int, tried: dict[int, Assignment]) -> Any:
    """Optuna's TPE over all dimensions and metrics, first asked for what was ``tried``; None where trials are drawn."""
    if searched.search != "optuna":
        return None
    import optuna
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.WARNING)  # that it made a study is none of the user's business

    indices = [*tried, *(index for index in range(searched.trials) if index not in tried)]

    class NumberedSearch(OptunaSearch):
        """Optuna's suggestions with the indices of trials, those that began first: Tune's own ids are random."""

        count = 0

        def suggest(self, trial_id: str) -> dict[str, Any] | None:
            assignment = super().suggest(trial_id)
            if assignment is None:
                return None
            self.count += 1
            return {"trial": {"index": indices[self.count - 1], "life": 1, "assignment": assignment}}

    several = len(searched.metrics) > 1
    return NumberedSearch(
        space=distributions(searched),
        metric=list(searched.metrics) if several else searched.metric,
        mode=["min"] * len(searched.metrics) if several else "min",
        # A resumed search does not draw again what it drew before it was stopped.
        sampler=optuna.samplers.TPESampler(seed=int(np.random.SeedSequence([seed, len(tried)]).generate_state(1)[0])),
        points_to_evaluate=[*tried.values()] or None,
    )


def distributions(searched: Space) -> dict[str, Any]:
    """The dimensions as Optuna's distributions."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    found: dict[str, Any] = {}
    for one in searched.dimensions:
        if one.kind == "choice":
            found[one.key] = CategoricalDistribution(one.values)
        else:
            low, high = one.values
            found[one.key] = FloatDistribution(low, high, log=one.kind == "loguniform")
    return found
