"""Workers on CPUs of their own, where a training has all those of a machine.

Ray's helpers run beside it. When one of them takes a worker's CPU, the kernel may move that worker to the CPU of
another one and leave both there for longer than the helper runs, and every other worker waits for these two. A worker
that cannot be moved only waits until the helper is done: by two workers on two CPUs, a tenth of the training was saved.
"""

import os
from contextlib import suppress
from pathlib import Path


def pin(rank: int, cpus: int) -> None:
    """Keep all threads of this process, as the ``rank``-th of its machine, to ``cpus`` of the CPUs that it may use.

    Nothing happens where it may not use enough of them, nor where threads cannot be pinned (macOS, some sandboxes).
    """
    if not hasattr(os, "sched_setaffinity"):
        return
    mine = sorted(os.sched_getaffinity(0))[rank * cpus : (rank + 1) * cpus]
    if len(mine) < cpus:
        return
    for thread in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # it has ended, or pinning is not allowed here: a training does without
            os.sched_setaffinity(int(thread.name), mine)
