"""Our own pool of Ray actors: every item is done once, whatever actor dies."""

from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any

from nrh_dist.engine.progress import Say
from nrh_dist.errors import UserError

RETRIES = 3


class Pool:
    """``count`` actors made by ``start``, each with a method ``work(item)``; a context that ends them.

    One item is in flight on each actor. When an actor dies, its item goes back to the queue and a new actor takes its
    place; an item that loses ``RETRIES`` actors raises ``UserError``: it is the likely killer.
    """

    def __init__(self, start: Callable[[], Any], count: int, say: Say) -> None:
        self._start, self._say = start, say
        self._idle = [start() for _ in range(count)]
        self._busy: dict[Any, tuple[Any, int]] = {}

    def map(self, items: Sequence[Any], done: Callable[[int, Any], None]) -> None:
        """Call ``done(index, result)`` once for every item, in order of completion.

        An exception inside ``work`` is raised here as it was there, and ends the map. So does one in the making of an
        actor, as ``UserError``: another actor would fare no better.
        """
        import ray
        from ray.exceptions import NodeDiedError, ObjectLostError, OutOfMemoryError, RayActorError, RayTaskError

        waiting = deque(range(len(items)))
        lost: Counter[int] = Counter()
        while waiting or self._busy:
            while waiting and self._idle:
                actor, index = self._idle.pop(), waiting.popleft()
                self._busy[actor.work.remote(items[index])] = (actor, index)
            (finished,), _ = ray.wait(list(self._busy), num_returns=1)
            actor, index = self._busy.pop(finished)
            try:
                result = ray.get(finished)
            except RayTaskError as error:
                self._idle.append(actor)
                self._drain()
                raise error.cause from None
            except (RayActorError, NodeDiedError, ObjectLostError, OutOfMemoryError) as error:
                if getattr(error, "actor_init_failed", False):
                    raise UserError(f"no actor can be made: {str(error).strip().splitlines()[-1]}") from None
                ray.kill(actor)  # one that is only out of reach would keep its CPU
                lost[index] += 1
                if lost[index] >= RETRIES:
                    reason = " ".join(str(error).split())
                    raise UserError(f"item {index} lost {RETRIES} actors in a row; the last one: {reason}") from None
                self._say("an actor died; its item is done again on a new one")
                waiting.append(index)
                self._idle.append(self._start())
                continue
            self._idle.append(actor)
            done(index, result)

    def _drain(self) -> None:
        """Wait for what is in flight and forget it: a later map must not take it for its own."""
        import ray

        for future, (actor, _) in self._busy.items():
            ray.wait([future])
            self._idle.append(actor)
        self._busy.clear()

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *_: object) -> None:
        import ray

        for actor in [*self._idle, *(actor for actor, _ in self._busy.values())]:
            ray.kill(actor)
