"""A sweep as an Optuna study, in a database that optuna-dashboard and ``optuna.load_study`` open."""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nrh_dist.report.sweep_collect import FAILED, FINISHED, STOPPED, WAITING, Dimension, Sweep, Trial

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import FrozenTrial


def export(sweep: Sweep, path: Path) -> None:
    """Write the study, named as the sweep, to a new SQLite file at ``path``.

    One trial for each that began, in their order: complete, pruned (stopped early), failed or running. Values are the
    best ones; intermediate values are those of the epochs. The same sweep gives the same trials each time.
    """
    import sqlite3

    from optuna.storages import RDBStorage

    with _quiet():
        # A path may hold what a URL cannot.
        storage = RDBStorage("sqlite://", {"creator": lambda: sqlite3.connect(path, check_same_thread=False)})
        try:
            study = _study(sweep, storage)
            study.add_trials([_trial(sweep, one) for one in sweep.trials if one.status != WAITING])
        finally:
            storage.remove_session()
            storage.engine.dispose()


def complete(sweep: Sweep, trials: Sequence[Trial], values: Iterable[float]) -> "Study":
    """A study in memory in which each of the trials is complete, with a value given here."""
    from optuna.trial import create_trial

    with _quiet():
        study = _study(sweep, None, metrics=1)
        for one, value in zip(trials, values, strict=True):
            study.add_trial(create_trial(value=float(value), **_parameters(sweep, one)))
    return study


def _study(sweep: Sweep, storage: Any, metrics: int | None = None) -> "Study":
    import optuna

    names = sweep.metrics[:metrics]
    study = optuna.create_study(storage=storage, study_name=sweep.name, directions=["minimize"] * len(names))
    study.set_user_attr("search", sweep.search)
    study.set_user_attr("scheduler", {sweep.scheduler: sweep.options})
    study.set_user_attr("base", sweep.base)
    return study


def _trial(sweep: Sweep, trial: Trial) -> "FrozenTrial":
    from optuna.trial import FrozenTrial, TrialState

    states = {FINISHED: TrialState.COMPLETE, STOPPED: TrialState.PRUNED, FAILED: TrialState.FAIL}
    state = states.get(trial.status, TrialState.RUNNING)
    values = sweep.objectives(trial)
    has_values = state in (TrialState.COMPLETE, TrialState.PRUNED) and all(isfinite(value) for value in values)
    notes = {"trial": trial.name, "folder": f"trials/{trial.name}", "epochs": trial.epochs, "reason": trial.reason}
    origin = {"from": f"{trial.origin.trial}, epoch {trial.origin.epoch}"} if trial.origin else {}
    return FrozenTrial(
        number=-1,
        trial_id=-1,
        state=state,
        value=None,
        values=values if has_values else None,
        datetime_start=datetime.fromtimestamp(trial.began),
        datetime_complete=datetime.fromtimestamp(trial.ended) if state.is_finished() else None,
        user_attrs={**{key: value for key, value in notes.items() if value != ""}, **origin},
        system_attrs={},
        intermediate_values=trial.values,
        **_parameters(sweep, trial),
    )


def _parameters(sweep: Sweep, trial: Trial) -> dict[str, Any]:
    used = [one for one in sweep.dimensions if one.key in trial.assignment]
    return {
        "params": {one.key: _value(trial.assignment[one.key]) for one in used},
        "distributions": {one.key: _distribution(one) for one in used},
    }


def _distribution(dimension: Dimension) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if dimension.kind == "choice":
        return CategoricalDistribution([_value(value) for value in dimension.values])
    low, high = dimension.values
    return FloatDistribution(low, high, log=dimension.kind == "loguniform")


def _value(value: Any) -> Any:
    """Optuna knows plain choices only."""
    return json.dumps(value) if isinstance(value, list) else value


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna's lines about every new study are none of the user's business."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
