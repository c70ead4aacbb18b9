"""Our own pool of Ray actors: every item is done once, whatever actor dies."""

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from nrh_dist.engine.progress import Say
from nrh_dist.errors import UserError

RETRIES = 3
IN_FLIGHT = 2  # items on each actor: when one is done, the next is there already


@dataclass(eq=False)
class _Member:
    """An actor and what it was given: futures with the numbers of their items, in the order in which it does them."""

    actor: Any
    given: deque[tuple[Any, int]] = field(default_factory=deque)


class Pool:
    """``count`` actors made by ``start``, each with a method ``work(item)``; a context that ends them.

    ``IN_FLIGHT`` items are on each actor, which does them one after the other. When an actor dies, its items go back to
    the queue and a new actor takes its place. From then on each of them has an actor for itself: the answer to an item
    can be lost with the actor that the next one killed. An item that loses ``RETRIES`` actors raises ``UserError``.
    """

    def __init__(self, start: Callable[[], Any], count: int, say: Say) -> None:
        self._start, self._say = start, say
        self._members = [_Member(start()) for _ in range(count)]

    def map(self, items: Sequence[Any], done: Callable[[int, Any], None]) -> None:
        """Call ``done(index, result)`` once for every item, in order of completion.

        An exception inside ``work`` is raised here as it was there, and ends the map. So does one in the making of an
        actor, as ``UserError``: another actor would fare no better.
        """
        import ray
        from ray.exceptions import NodeDiedError, ObjectLostError, OutOfMemoryError, RayActorError, RayTaskError

        waiting = deque(range(len(items)))
        lost: Counter[int] = Counter()
        suspects: set[int] = set()
        while True:
            self._give(items, waiting, suspects)
            first = {member.given[0][0]: member for member in self._members if member.given}
            if not first:
                return
            (finished,), _ = ray.wait(list(first), num_returns=1)
            member = first[finished]
            index = member.given[0][1]
            try:
                result = ray.get(finished)
            except RayTaskError as error:
                self._drain()
                raise error.cause from None
            except (RayActorError, NodeDiedError, ObjectLostError, OutOfMemoryError) as error:
                if getattr(error, "actor_init_failed", False):
                    raise UserError(f"no actor can be made: {str(error).strip().splitlines()[-1]}") from None
                lost[index] += 1
                if lost[index] >= RETRIES:
                    reason = " ".join(str(error).split())
                    raise UserError(f"item {index} lost {RETRIES} actors in a row; the last one: {reason}") from None
                waiting.extend(given := self._replace(member))
                suspects.update(given)
                continue
            member.given.popleft()
            done(index, result)

    def _give(self, items: Sequence[Any], waiting: deque[int], suspects: set[int]) -> None:
        """Fill up all actors from ``waiting``, the emptiest first; a suspect shares its actor with none."""
        for length in range(IN_FLIGHT):
            for member in self._members:
                if waiting and len(member.given) == length:
                    if member.given and not suspects.isdisjoint((member.given[0][1], waiting[0])):
                        continue
                    index = waiting.popleft()
                    member.given.append((member.actor.work.remote(items[index]), index))

    def _replace(self, member: _Member) -> list[int]:
        """Put a new actor in the place of a dead one; returns the items that it was given."""
        import ray

        ray.kill(member.actor)  # one that is only out of reach would keep its CPU
        self._say("an actor died; its items are done again on a new one")
        self._members[self._members.index(member)] = _Member(self._start())
        return [index for _, index in member.given]

    def _drain(self) -> None:
        """Wait for what is in flight and forget it: a later map must not take it for its own."""
        import ray

        for member in self._members:
            for future, _ in member.given:
                ray.wait([future])
            member.given.clear()

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *_: object) -> None:
        import ray

        for member in self._members:
            ray.kill(member.actor)
