import os
import signal
import threading
import time
from itertools import pairwise
from pathlib import Path

import pytest

from nrh_dist.errors import UserError
from nrh_dist.launch.pool import Pool

pytestmark = pytest.mark.usefixtures("ray_session")


class Worker:
    """Squares numbers; leaves its process id, dies of 13 and fails on negative numbers."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        (self.folder / f"pid-{os.getpid()}").touch()

    def work(self, item: int) -> int:
        if item == 13:
            os._exit(1)
        if item < 0:
            raise ValueError("negative")
        time.sleep(0.05)
        return item * item


class Broken(Worker):
    """Is never made."""

    def __init__(self, folder: str) -> None:
        super().__init__(folder)
        raise OSError("the file of weights\nis gone")


def run(tmp_path, items, actors, said, kind=Worker):
    import ray

    actor = ray.remote(num_cpus=1)(kind)
    results = []
    with Pool(lambda: actor.remote(str(tmp_path)), actors, said.append) as pool:
        pool.map(items, lambda *result: results.append(result))
    return results


def test_every_item_once_on_any_number_of_actors(tmp_path):
    for actors in (1, 2):
        assert sorted(run(tmp_path, list(range(10)), actors, [])) == [(i, i * i) for i in range(10)]
    assert run(tmp_path, [], 2, []) == []


def test_the_actors_of_a_pool_are_kept_for_the_next_map(tmp_path):
    import ray

    actor = ray.remote(num_cpus=1)(Worker)
    results = []
    with Pool(lambda: actor.remote(str(tmp_path)), 2, print) as pool:
        for items in ([1, 2, 3], [4, 5]):
            pool.map(items, lambda *result: results.append(result))
        with pytest.raises(ValueError, match="negative"):
            pool.map([-1, 8, 9], print)
        pool.map([6], lambda *result: results.append(result))
    assert sorted(value for _, value in results) == [1, 4, 9, 16, 25, 36]
    assert len(list(tmp_path.glob("pid-*"))) == 2


def test_a_killed_actor_costs_nothing_but_time(tmp_path):
    def kill() -> None:
        while not (pids := list(tmp_path.glob("pid-*"))):
            time.sleep(0.02)
        time.sleep(0.3)
        os.kill(int(pids[0].name.split("-")[1]), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    said = []
    results = run(tmp_path, list(range(100, 160)), 2, said)
    killer.join()
    assert sorted(results) == [(i, (100 + i) ** 2) for i in range(60)]
    assert said == ["an actor died; its items are done again on a new one"]


class Slow:
    """Takes a moment over every item, and says when it began with it."""

    def work(self, item: int) -> tuple[int, float, float]:
        began = time.monotonic()
        time.sleep(0.2)
        return os.getpid(), began, time.monotonic()


def test_an_actor_has_its_next_item_already_when_one_is_done():
    """Nobody waits for the driver, however long it takes over a result."""
    import ray

    actor = ray.remote(num_cpus=1)(Slow)
    times = []

    def done(_: int, result: tuple[int, float, float]) -> None:
        times.append(result)
        time.sleep(0.15)

    with Pool(actor.remote, 1, print) as pool:
        pool.map([0], lambda *_: None)
        pool.map([0] * 5, done)
    assert max(later[1] - earlier[2] for earlier, later in pairwise(times)) < 0.1


def test_a_few_items_are_spread_over_all_actors():
    import ray

    actor = ray.remote(num_cpus=1)(Slow)
    found = []
    with Pool(actor.remote, 2, print) as pool:
        pool.map([0] * 2, lambda _, result: found.append(result[0]))
    assert len(set(found)) == 2


def test_an_item_is_not_blamed_for_the_one_before_it(tmp_path):
    """Whatever stands behind the killer is done; only the killer runs out of actors."""
    import ray

    actor = ray.remote(num_cpus=1)(Worker)
    found = []
    with (
        pytest.raises(UserError, match="item 1 lost 3 actors"),
        Pool(lambda: actor.remote(str(tmp_path)), 1, print) as pool,
    ):
        pool.map([1, 13, 3, 4], lambda index, value: found.append((index, value)))
    assert sorted(found) == [(0, 1), (2, 9), (3, 16)]


def test_an_item_is_not_blamed_for_the_one_behind_it(tmp_path):
    """An answer that died on its way, as the next item killed the actor: here both are at work at once."""
    import ray

    actor = ray.remote(num_cpus=1, max_concurrency=2)(Worker)
    found = []
    with (
        pytest.raises(UserError, match="item 1 lost 3 actors"),
        Pool(lambda: actor.remote(str(tmp_path)), 1, print) as pool,
    ):
        pool.map([2, 13, 2, 2, 2], lambda index, value: found.append((index, value)))
    assert sorted(found) == [(0, 4), (2, 4), (3, 4), (4, 4)]


def test_an_item_that_kills_its_actors_ends_the_run(tmp_path):
    with pytest.raises(UserError, match="lost 3 actors"):
        run(tmp_path, [1, 13], 1, [])


def test_an_actor_that_cannot_be_made_is_not_made_again(tmp_path):
    said = []
    with pytest.raises(UserError, match=r"^no actor can be made: is gone$"):
        run(tmp_path, [1, 2], 1, said, Broken)
    assert not said and len(list(tmp_path.glob("pid-*"))) == 1


def test_a_result_that_died_with_its_machine_is_made_again(tmp_path, monkeypatch):
    import ray
    from ray.exceptions import ObjectReconstructionFailedError

    get, lost = ray.get, []

    def get_once_lost(future):
        if not lost:
            lost.append(future)
            raise ObjectReconstructionFailedError(future.hex(), None, None)
        return get(future)

    monkeypatch.setattr(ray, "get", get_once_lost)
    said = []
    assert sorted(run(tmp_path, [1, 2, 3], 1, said)) == [(0, 1), (1, 4), (2, 9)]
    assert said == ["an actor died; its items are done again on a new one"]


def test_a_failing_item_raises_what_it_raised(tmp_path):
    with pytest.raises(ValueError, match="negative"):
        run(tmp_path, [1, -1], 1, [])
