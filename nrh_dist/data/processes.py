"""A function over many tasks in parallel processes, whose results come in the order of the tasks."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from nrh_dist.errors import UserError

Task = TypeVar("Task")
Result = TypeVar("Result")


def ordered_map(
    function: Callable[[Task], Result], tasks: Sequence[Task], workers: int | None
) -> Generator[Result, None, None]:
    """``function(task)`` for each task, in order; ``workers`` None means one per core. One worker: no new process.

    The function must be importable, tasks and results picklable. Its exceptions come out at their place in the order.
    A process that dies (killed for memory, say) raises ``UserError``. The processes end when their parent does.
    """
    workers = min(workers or _cores(), max(1, len(tasks)))
    if workers == 1:
        yield from map(function, tasks)
        return
    spawn = multiprocessing.get_context("spawn")  # safe beside threads and an initialised GPU, unlike fork
    try:
        with ProcessPoolExecutor(workers, mp_context=spawn, initializer=_follow_parent) as pool:
            yield from pool.map(function, tasks)
    except BrokenProcessPool:
        raise UserError(
            f"one of {workers} processes was killed, probably for memory; run again to continue, with fewer workers"
        ) from None


def _cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _follow_parent() -> None:
    """End when the parent ends: killed, it cannot stop its processes, and their own queue would keep them for ever.

    Ctrl-C reaches all of them at once and is left to the parent.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
