"""Our own pool of Ray actors: every item is done once, whatever actor dies."""

from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any

from nrh_dist.engine.progress import Say

RETRIES = 3


def map_over_actors(
    start: Callable[[], Any], items: Sequence[Any], actors: int, done: Callable[[int, Any], None], say: Say
) -> None:
    """Call ``actor.work(item)`` for every item, on ``actors`` actors made by ``start``, one item in flight on each.

    ``done(index, result)`` is called once for each item, in order of completion. When an actor dies, its item goes
    back to the queue and a new actor takes its place; an item that loses ``RETRIES`` actors raises RuntimeError: it is
    the likely killer. An exception inside ``work`` is raised here as it was there.
    """
    import ray
    from ray.exceptions import RayActorError, RayTaskError

    waiting = deque(range(len(items)))
    lost: Counter[int] = Counter()
    idle = [start() for _ in range(min(actors, len(items)))]
    busy: dict[Any, tuple[Any, int]] = {}
    try:
        while waiting or busy:
            while waiting and idle:
                actor, index = idle.pop(), waiting.popleft()
                busy[actor.work.remote(items[index])] = (actor, index)
            (finished,), _ = ray.wait(list(busy), num_returns=1)
            actor, index = busy.pop(finished)
            try:
                result = ray.get(finished)
            except RayTaskError as error:
                raise error.cause from None
            except RayActorError as error:
                lost[index] += 1
                if lost[index] >= RETRIES:
                    raise RuntimeError(f"item {index} lost {RETRIES} actors in a row: {error}") from None
                say("an actor died; its item is done again on a new one")
                waiting.append(index)
                idle.append(start())
                continue
            idle.append(actor)
            done(index, result)
    finally:
        for actor in [*idle, *(actor for actor, _ in busy.values())]:
            ray.kill(actor)
