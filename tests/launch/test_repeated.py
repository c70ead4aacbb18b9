import time
from threading import Event

import pytest

from nrh_dist.launch.repeated import repeated


def test_it_looks_again_and_again_until_the_end():
    seen, third = [], Event()

    def look():
        seen.append(time.monotonic())
        if len(seen) == 3:
            third.set()

    with repeated(look, 0.01):
        assert third.wait(20)
    count = len(seen)
    time.sleep(0.05)
    assert len(seen) == count


def test_a_look_that_is_under_way_is_waited_for():
    begun, ended = Event(), []

    def look():
        begun.set()
        time.sleep(0.1)
        ended.append(True)

    with pytest.raises(KeyError), repeated(look, 0.001):
        assert begun.wait(20)
        raise KeyError
    assert ended
