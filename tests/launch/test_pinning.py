"""CPUs of their own for workers; in a process each, as what is pinned cannot be undone where threads are gone."""

import os
import subprocess
import sys

import pytest

from nrh_dist.launch import pinning

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="threads cannot be pinned here")

# With a thread that waits already, and one that is started later.
PINNED = """
import os, threading
from pathlib import Path
from nrh_dist.launch.pinning import pin
done = threading.Event()
threading.Thread(target=done.wait).start()
pin({rank}, {cpus})
threading.Thread(target=done.wait).start()
found = {{tuple(sorted(os.sched_getaffinity(int(one.name)))) for one in Path("/proc/self/task").iterdir()}}
done.set()
print(sorted(found))
"""


def pinned(rank, cpus):
    """What the threads of a process may use after it was pinned."""
    code = PINNED.format(rank=rank, cpus=cpus)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_each_rank_has_cpus_of_its_own_for_all_its_threads():
    allowed = sorted(os.sched_getaffinity(0))
    share = len(allowed) // 2
    if not share:
        pytest.skip("one CPU is nobody's own")
    assert [pinned(rank, share) for rank in (0, 1)] == [
        str([tuple(allowed[:share])]),
        str([tuple(allowed[share : 2 * share])]),
    ]


@pytest.mark.parametrize(("rank", "more"), [(0, 1), (1, 0), (5, 0)])
def test_where_there_are_too_few_nothing_is_pinned(rank, more):
    allowed = sorted(os.sched_getaffinity(0))
    assert pinned(rank, len(allowed) + more) == str([tuple(allowed)])


def test_where_threads_cannot_be_pinned_nothing_happens(monkeypatch):
    monkeypatch.delattr(os, "sched_setaffinity")
    pinning.pin(0, 1)


def test_where_pinning_is_forbidden_the_training_goes_on(monkeypatch):
    asked = []

    def forbidden(thread, cpus):
        asked.append(thread)
        raise PermissionError

    monkeypatch.setattr(os, "sched_setaffinity", forbidden)
    pinning.pin(0, 1)
    assert os.getpid() in asked
