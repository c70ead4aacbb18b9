"""The plain line every few seconds: share, speed and time left, by a clock that the test sets."""

import pytest

from nrh_dist.engine import progress
from nrh_dist.engine.progress import Progress, duration


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still; ``clock(s)`` lets ``s`` seconds pass."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])

    def wait(seconds):
        now[0] += seconds

    return wait


def test_share_speed_and_time_left(clock):
    said = []
    told = Progress(1000, said.append)
    clock(4.9)
    told.add(48, "scored")
    assert said == [], "not before five seconds"
    clock(0.1)
    told.add(52, "scored")
    assert said == ["scored: 10 %, 20.0 images/s, 45 s left"]
    clock(4)
    told.add(300, "scored")
    assert len(said) == 1, "five seconds since the last line, not since the start"
    clock(6)
    told.add(100, "epoch 2")
    assert said[1:] == ["epoch 2: 50 %, 33.3 images/s, 15 s left"], "the speed is that of all of it"


def test_work_that_is_repeated_is_never_more_than_all(clock):
    said = []
    told = Progress(10, said.append, interval=1)
    clock(2)
    told.add(30, "again")
    assert said == ["again: 100 %, 15.0 images/s, 0 s left"]


def test_nothing_to_do_divides_by_nothing(clock):
    said = []
    told = Progress(0, said.append, interval=1)
    clock(2)
    told.add(1, "empty")
    assert said == ["empty: 100 %, 0.5 images/s, 0 s left"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599.4, "59 min 59 s"),
        (3600, "1 h 00 min"),
        (7500, "2 h 05 min"),
        (360_000, "100 h 00 min"),
    ],
)
def test_duration(seconds, text):
    assert duration(seconds) == text
