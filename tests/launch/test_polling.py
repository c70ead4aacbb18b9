"""How often the workers of a training are polled, on a clock of our own."""

from types import SimpleNamespace

import pytest

from nrh_dist.engine.notice import ask_to_stop
from nrh_dist.launch import polling

RAYS_OWN = 0.2  # seconds that Ray itself leaves between two polls


class Clock:
    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(polling, "time", made)
    return made


def polled(**facts):
    """What a poll of two workers finds, of which the first has ``facts``."""
    nothing = {"running": True, "error": None, "training_report": None, "preemption_info": None}
    return SimpleNamespace(worker_statuses={0: SimpleNamespace(**nothing | facts), 1: SimpleNamespace(**nothing)})


def trained(clock, folder, seconds, epochs):
    """Polls of a training whose epochs take ``seconds``, the longest that a row waited, and what rows held up."""
    polls = polling.RarePolls(folder)
    polls.after_worker_group_start(None)
    count, waited, held_up, row = 0, 0.0, 0.0, clock.now + seconds  # when the next row is there
    while epochs:
        clock.sleep(RAYS_OWN)
        count += 1
        if row <= clock.now:
            waited = max(waited, clock.now - row)
            held_up += max(0.0, clock.now - (row + seconds))
            row, epochs = max(row + seconds, clock.now), epochs - 1
            polls.after_worker_group_poll_status(polled(training_report="a row"))
        else:
            polls.after_worker_group_poll_status(polled())
    return count, waited, held_up


@pytest.mark.parametrize("seconds", [0.5, 1.0, 4.8, 12.0, 60.0, 3600.0])
def test_an_epoch_is_polled_a_few_times_and_never_held_up(clock, tmp_path, seconds):
    epochs = 20
    count, waited, held_up = trained(clock, tmp_path, seconds, epochs)
    every = polling.SHARE * (1 + polling.SHARE) * seconds  # the row of the epoch before may have been heard as late
    assert held_up == 0
    assert waited <= min(every, polling.MOST_SECONDS) + 2 * RAYS_OWN
    assert count / epochs <= 3 + seconds / polling.MOST_SECONDS + 1


def test_the_first_epoch_is_not_polled_all_the_time(clock, tmp_path):
    """Where nothing is known of how long one takes."""
    assert trained(clock, tmp_path, 600.0, 1)[0] < 600 / polling.MOST_SECONDS + 15


@pytest.mark.parametrize(
    "news", [{"training_report": "a row"}, {"running": False}, {"error": OSError()}, {"preemption_info": "soon"}]
)
def test_after_news_the_controller_is_not_held_up(clock, tmp_path, news):
    polls = polling.RarePolls(tmp_path)
    polls.after_worker_group_start(None)
    clock.sleep(60)
    polls.after_worker_group_poll_status(polled(**news))
    assert clock.now == 1060


def test_who_asks_a_run_to_stop_waits_a_second_at_most(clock, tmp_path, monkeypatch):
    polls = polling.RarePolls(tmp_path)
    polls.after_worker_group_start(None)
    clock.sleep(60)
    sleep = clock.sleep

    def asked_meanwhile(seconds):
        sleep(seconds)
        ask_to_stop(tmp_path)

    monkeypatch.setattr(clock, "sleep", asked_meanwhile)
    polls.after_worker_group_poll_status(polled())
    assert clock.now <= 1061
