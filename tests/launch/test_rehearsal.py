from unittest.mock import Mock

import pytest

from nrh_dist.launch.rehearsal import rehearse
from nrh_dist.launch.schedule import Asha, HyperBand, Median, Schedule
from nrh_dist.launch.schedulers import scheduler, searcher
from nrh_dist.launch.space import Dimension, Space


def played(schedule, curves, concurrent=1, end=lambda index, value: None):
    searched = Space("s", ("val/mse",), len(curves), "random", schedule, (), ())
    begin = dict(enumerate(curves)).get
    return list(rehearse(scheduler(searched, None, 0, print), "val/mse", begin, concurrent, end))


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
    judge, trial = scheduler(searched, None, 0, print), Mock(trial_id="0", status="RUNNING", is_saving=False)
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


def test_a_resumed_search_draws_something_new():
    searched = Space("s", ("val/mse",), 8, "optuna", Schedule(2), (), (Dimension("optim.lr", "uniform", (0.0, 1.0)),))
    asked = searcher(searched, 0, {})
    first = [asked.suggest(str(number))["trial"]["assignment"] for number in range(4)]
    resumed = searcher(searched, 0, dict(enumerate(first)))
    drawn = [resumed.suggest(str(number))["trial"]["assignment"]["optim.lr"] for number in range(8)]
    assert drawn[:4] == [one["optim.lr"] for one in first]
    assert len(set(drawn)) == 8


def test_hyperband_goes_on_when_a_trial_dies_after_the_first_halving():
    """Ray marks a bracket as busy for ever; the others would wait for the dead one."""
    searched = Space("s", ("val/mse",), 3, "random", HyperBand(4, 2), (), ())
    judge = scheduler(searched, None, 0, print)
    trials = [Mock(trial_id=str(number), status="RUNNING", is_saving=False) for number in range(3)]
    bracket = judge._create_bracket(2)
    judge._hyperbands = [[bracket]]
    judge._state = {"bracket": bracket, "band_idx": 0}
    controller = Mock()
    controller.stop_trial = lambda one: judge.on_trial_complete(controller, one, {})
    for one in trials:
        judge.on_trial_add(controller, one)

    def report(one, epoch):
        row = {"epoch": epoch, "val/mse": float(one.trial_id), "training_iteration": epoch}
        decision = judge.on_trial_result(controller, one, row)
        one.status = {"PAUSE": "PAUSED", "STOP": "TERMINATED", "CONTINUE": "RUNNING"}[decision]

    for one in trials:
        report(one, 1)
    assert [one.status for one in trials].count("TERMINATED") == 1
    left = [one for one in trials if one.status != "TERMINATED"]
    for one in left:
        one.status = "RUNNING"
    report(left[0], 2)
    assert left[0].status == "PAUSED"
    left[1].status = "ERROR"
    judge.on_trial_error(controller, left[1])
    assert judge.choose_trial_to_run(controller) is left[0]


def test_a_resumed_search_begins_with_the_trials_that_are_there():
    """Trial 1 may have died before it noted what it tries, when trial 2 had already."""
    searched = Space("s", ("val/mse",), 5, "optuna", Schedule(2), (), (Dimension("optim.lr", "uniform", (0.0, 1.0)),))
    asked = searcher(searched, 0, {0: {"optim.lr": 0.25}, 2: {"optim.lr": 0.75}})
    given = [asked.suggest(str(number))["trial"] for number in range(4)]
    assert [one["index"] for one in given] == [0, 2, 1, 3]
    assert [one["assignment"]["optim.lr"] for one in given[:2]] == [0.25, 0.75]
