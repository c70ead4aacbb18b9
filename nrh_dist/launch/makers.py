"""Who makes the composites: this process, or actors on Ray that share the work."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from nrh_dist.data.coco_exp import Maker, Outcome, Settings
from nrh_dist.data.pairs import Pair
from nrh_dist.errors import UserError
from nrh_dist.launch import session

CHUNK = 32  # pairs at a time: about a tenth of a second of work
IN_FLIGHT = 2  # chunks an actor: one in work and one waiting, so that no actor waits for the driver
RETRIES = 3  # of a chunk whose actor died

Chunk = Sequence[Pair]
Run = Callable[[Iterable[Chunk]], Iterator[list[Outcome]]]


def chunks(pairs: Sequence[Pair]) -> Iterator[Chunk]:
    """``pairs`` in their order, ``CHUNK`` at a time."""
    return (pairs[start : start + CHUNK] for start in range(0, len(pairs), CHUNK))


@contextmanager
def makers(workers: int, settings: Settings, out: Path) -> Iterator[Run]:
    """A function that makes chunks of pairs and gives the outcomes of each, in any order.

    One worker is this process; more are actors of one CPU each, on a Ray that is connected already. Ray starts an actor
    that died anew and repeats what it had in hand, to the same files. The actors end with the context. The function
    raises what ``Maker`` raises, and ``UserError`` with Ray's reason for an actor that is lost for good: its chunk
    killed it four times, its machine or its memory gave out, or it could not start.
    """
    if workers == 1:
        maker = Maker(settings, out)
        yield lambda work: map(maker.make_all, work)
        return
    import ray

    remote = ray.remote(num_cpus=1, max_restarts=-1, max_task_retries=RETRIES)(Maker)
    actors: list[Any] = [remote.remote(settings, out) for _ in range(workers)]
    try:
        yield lambda work: _shared(actors, work)
    finally:
        for actor in actors:
            ray.kill(actor)


def _shared(actors: Sequence[Any], work: Iterable[Chunk]) -> Iterator[list[Outcome]]:
    import ray
    from ray.exceptions import NodeDiedError, OutOfMemoryError, RayActorError, RayTaskError

    waiting = iter(work)
    running: dict[Any, Any] = {}
    for actor in [*actors] * IN_FLIGHT:
        running |= {actor.make_all.remote(chunk): actor for chunk in islice(waiting, 1)}
    while running:
        future = ray.wait([*running])[0][0]
        actor = running.pop(future)
        running |= {actor.make_all.remote(chunk): actor for chunk in islice(waiting, 1)}
        try:
            yield ray.get(future)
        except RayTaskError as error:
            raise error.cause from None
        except (RayActorError, NodeDiedError, OutOfMemoryError) as error:
            started = not (isinstance(error, RayActorError) and error.actor_init_failed)
            reason = " ".join(str(error).split()) if started else f"it could not start: {session.cause(error)}"
            raise UserError(
                f"a worker was lost for good ({reason}); mend that or ask for fewer --workers: the same call goes on"
            ) from None
