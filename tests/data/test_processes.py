import os
import signal

import pytest

from nrh_dist.data.processes import ordered_map
from nrh_dist.errors import UserError


def square(value: int) -> int:
    return value * value


def die_at_three(value: int) -> int:
    if value == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return value


def fail_at_three(value: int) -> int:
    if value == 3:
        raise UserError("three is refused")
    return value


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_order_and_an_error_at_its_place(workers: int) -> None:
    assert list(ordered_map(square, range(7), workers)) == [0, 1, 4, 9, 16, 25, 36]
    results = ordered_map(fail_at_three, range(7), workers)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(UserError, match="three is refused"):
        next(results)


def test_no_tasks_no_results() -> None:
    assert list(ordered_map(square, [], None)) == []


def test_a_killed_process_is_an_error_with_a_way_out() -> None:
    with pytest.raises(UserError, match=r"was killed.*fewer workers"):
        list(ordered_map(die_at_three, range(7), 2))
