"""What a driver and its workers tell each other where they share no disk: to stop, and the lines of the log.

On one disk, files of the run's folder do it. For workers that see another disk, an actor beside the driver carries the
contents of the same files: ``.stop`` to them, ``train.log`` from them. Trials of a sweep are such workers, too, of
which each tells when it has stopped.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from nrh_dist.engine.notice import Notice, forget, is_asked_to_stop
from nrh_dist.launch.repeated import repeated
from nrh_dist.launch.worker import LOG

LOOK_SECONDS = 0.5  # between two looks of the driver
ANSWER_SECONDS = 5.0  # that a worker waits for an answer: its next look is a second later
MARK = ".driver"  # in the run's folder: the name of the relay whose driver sees it, too


class Post:
    """The actor: holds lines until the driver takes them, and whether the run shall stop."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._left: list[str] = []
        self._is_asked = False

    def tell(self, line: str) -> None:
        """A line from a worker."""
        self._lines.append(line)

    def leave(self, trial: str) -> None:
        """``trial``, a folder below the sweep's, does not train any more."""
        self._left.append(trial)

    def take(self, is_asked: bool) -> tuple[list[str], list[str]]:
        """The lines and the trials that left since the last call; for the driver, who says whether all shall stop."""
        self._is_asked = is_asked
        taken = self._lines, self._left
        self._lines, self._left = [], []
        return taken

    def is_asked(self) -> bool:
        """Whether the run shall stop."""
        return self._is_asked


class Wire:
    """A worker's end. ``given`` is what ``relayed`` yielded; on the driver's disk, and for None, it carries nothing."""

    def __init__(self, given: tuple[str, Any] | None, folder: Path) -> None:
        name, post = given or ("", None)
        mark = folder / MARK
        is_same_disk = mark.exists() and mark.read_text() == name
        self._post = None if is_same_disk else post

    @property
    def is_needed(self) -> bool:
        """Whether the driver sees another disk."""
        return self._post is not None

    def tell(self, line: str) -> None:
        """Hand a line of the log over."""
        if self._post:
            self._post.tell.remote(line)

    def leave(self, trial: str) -> None:
        """Tell the driver that ``trial``, a folder below the sweep's, does not train any more."""
        if self._post:
            self._post.leave.remote(trial)

    def asked(self) -> Notice:
        """STOP where the driver's folder says so. A driver that is too busy to answer asks for nothing."""
        import ray

        with suppress(ray.exceptions.RayError):
            if self._post and ray.get(self._post.is_asked.remote(), timeout=ANSWER_SECONDS):
                return Notice.STOP
        return Notice.NONE

    def close(self) -> None:
        """Wait until the lines are with the driver."""
        self.asked()


@contextmanager
def relayed(folder: Path) -> Iterator[tuple[str, Any]]:
    """Carry between ``folder``, the driver's, and workers that do not see it while the block runs.

    Yields what each of them needs for its ``Wire``.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    post: Any = ray.remote(Post).options(num_cpus=0, scheduling_strategy=here).remote()
    name = uuid4().hex
    (folder / MARK).write_text(name)

    def carry() -> None:
        with suppress(ray.exceptions.RayError):
            lines, left = ray.get(post.take.remote(is_asked_to_stop(folder)))
            for trial in left:
                forget(folder / trial)
            if lines:
                with (folder / LOG).open("a") as log:
                    log.writelines(f"{line}\n" for line in lines)

    try:
        with repeated(carry, LOOK_SECONDS):
            yield name, post
    finally:
        carry()
        (folder / MARK).unlink(missing_ok=True)
        ray.kill(post)
