from unittest.mock import Mock

import pytest

from nrh_dist.launch.rehearsal import rehearse
from nrh_dist.launch.schedule import Asha, HyperBand, Median, Schedule
from nrh_dist.launch.schedulers import scheduler, searcher
from nrh_dist.launch.space import Dimension, Space


def played(schedule, curves, concurrent=1, end=lambda index, value: None):
    searched = Space("s", ("val/mse",), len(curves), "random", schedule, (), ())
    begin = dict(enumerate(curves)).get
    return list(rehearse(scheduler(searched, None, 0), "val/mse", begin, concurrent, end))


def test_without_a_scheduler_every_trial_trains_to_its_end():
    ended = {}
    curves = [[3.0, 2.0], [5.0, 4.0], [1.0, 6.0]]
    events = played(Schedule(2), curves, 2, ended.__setitem__)
    assert sorted(events) == [
        (index, epoch + 1, curve[epoch]) for index, curve in enumerate(curves) for epoch in (0, 1)
    ]
    assert [index for index, _, _ in events[:2]] == [0, 1], "two at once"
    assert ended == {0: 2.0, 1: 4.0, 2: 6.0}


def test_asha_by_hand():
    """Rungs after epochs 1 and 2, half goes on: 0 is alone there, 1 is worse than it, 2 is better than both."""
    curves = [[5.0] * 4, [6.0] * 4, [4.0] * 4]
    epochs = {index: epoch for index, epoch, _ in played(Asha(4, 1, 2), curves)}
    assert epochs == {0: 4, 1: 1, 2: 4}


@pytest.mark.parametrize("schedule", [Asha(3, 1, 2), Median(3, 1, 1), HyperBand(3, 2)])
def test_no_scheduler_ends_a_trial_in_its_last_report(schedule):
    """At its max_t Ray would kill it there, before it has closed its run."""
    searched = Space("s", ("val/mse",), 1, "random", schedule, (), ())
    judge, trial = scheduler(searched, None, 0), Mock(trial_id="0", status="RUNNING", is_saving=False)
    judge.on_trial_add(None, trial)
    others = Mock(get_live_trials=lambda: [trial, Mock(status="PENDING")])
    rows = [{"epoch": epoch, "val/mse": 1.0, "training_iteration": epoch} for epoch in (1, 2, 3)]
    decisions = [judge.on_trial_result(others, trial, row) for row in rows]
    assert decisions[-1] == "CONTINUE"
    assert schedule.pauses or "PAUSE" not in decisions, "a trial that is not given a checkpoint to go on from"


@pytest.mark.parametrize("concurrent", [1, 3])
def test_no_epoch_twice_and_none_left_out(concurrent):
    curves = [[float((7 * index) % 10)] * 9 for index in range(10)]
    events = played(Asha(9, 1, 3), curves, concurrent)
    for index in range(10):
        own = [epoch for trial, epoch, _ in events if trial == index]
        assert own == list(range(1, len(own) + 1))
    best = min(range(10), key=lambda index: curves[index][0])
    assert (best, 9, 0.0) in events, "the best is never stopped"
    assert len(events) < 90


def test_a_resumed_search_begins_with_the_trials_that_are_there():
    """Trial 1 may have died before it noted what it tries, when trial 2 had already."""
    searched = Space("s", ("val/mse",), 5, "optuna", Schedule(2), (), (Dimension("optim.lr", "uniform", (0.0, 1.0)),))
    asked = searcher(searched, 0, {0: {"optim.lr": 0.25}, 2: {"optim.lr": 0.75}})
    given = [asked.suggest(str(number))["trial"] for number in range(4)]
    assert [one["index"] for one in given] == [0, 2, 1, 3]
    assert [one["assignment"]["optim.lr"] for one in given[:2]] == [0.25, 0.75]
