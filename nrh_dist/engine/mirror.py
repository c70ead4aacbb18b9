"""A run's folder sent to its copy in the storage while the training goes on."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any, Protocol

from nrh_dist.engine import checkpoint, copied, notice
from nrh_dist.engine.checkpoint import FOLDER, MANIFEST, OWN, position
from nrh_dist.engine.copied import ROWS
from nrh_dist.engine.dist import Place, from_main, gather_objects
from nrh_dist.engine.progress import Say
from nrh_dist.engine.storage import Storage, StorageProblem
from nrh_dist.errors import UserError
from nrh_dist.schema import Config

WAIT_SECONDS = 120.0  # that a save waits for the sending of the one before


class Copy(Protocol):
    """What a training tells the copy of its folder."""

    def bring(self) -> None:
        """At the start, make the folder hold what the copy has; see ``copied.bring``."""

    def send(self) -> None:
        """Bring the copy up to date while the training goes on."""

    def settle(self) -> None:
        """Wait until what ``send`` was called for is there, or has failed."""

    def finish(self) -> None:
        """Bring the copy up to date. ``UserError`` where it cannot be."""

    def share(self, path: Path, place: Place) -> None:
        """Let each rank's folder hold the checkpoint ``path``, which the main rank's holds. All ranks must call it."""


class Nowhere:
    """The copy of a run without ``storage``."""

    def bring(self) -> None:
        """Do nothing."""

    def send(self) -> None:
        """Do nothing."""

    def settle(self) -> None:
        """Do nothing."""

    def finish(self) -> None:
        """Do nothing."""

    def share(self, path: Path, place: Place) -> None:
        """Do nothing: without a storage, all ranks see the same disk."""


NOWHERE = Nowhere()


class Mirror:
    """Sends a run's folder to ``copy`` in a thread, one sending at a time.

    A sending that fails is said with its reason, and the next one sends what is missing: a training does not end for
    it. A save waits for the sending before, but not longer than ``patience`` seconds, so that at most one checkpoint
    interval and one sending are ever lost; a storage that is slower than that gets the newest when it is ready again.
    """

    def __init__(self, copy: Storage, folder: Path, say: Say, patience: float = WAIT_SECONDS) -> None:
        self._copy, self._folder, self._say, self._patience = copy, folder, say, patience
        self._thread: Thread | None = None
        self._is_brought = False
        self._there: dict[str, int] | None = None  # what the copy holds; None: to be asked for
        self._sent: dict[str, Any] = {}  # by name: what tells the version that was sent

    def bring(self) -> None:
        """``copied.bring``, the first time: later, what this process has is the newest."""
        if not self._is_brought:
            copied.bring(self._copy, self._folder, self._say)
        self._is_brought = True

    def send(self) -> None:
        """Hand over what is in the folder now; what is deleted from it later is sent all the same."""
        self._join(self._patience)
        if self._thread:
            self._say(f"the storage {self._copy} is slower than the checkpoints: the next one waits for its turn")
            return
        try:
            opened = _Opened(self._folder, self._sent)
        except OSError as error:
            self._say(f"{self._folder} cannot be read, to be sent ({error.strerror or error})")
            return
        self._thread = Thread(target=self._send, args=(opened,), daemon=True, name="mirror")
        self._thread.start()

    def settle(self) -> None:
        """Wait for the sending under way, if there is one: each of its requests has a time limit."""
        self._join(None)

    def finish(self) -> None:
        """Send what is missing. ``UserError`` names what is only on this disk."""
        self._join(None)
        with _Opened(self._folder, self._sent) as opened:
            try:
                self._transfer(opened)
            except StorageProblem as problem:
                self._there = None
                raise UserError(
                    f"only on this disk, in {self._folder}: {', '.join(opened.missing(self._sent))}; {problem}; the "
                    "same command sends it"
                ) from None

    def share(self, path: Path, place: Place) -> None:
        """Send the checkpoint where a rank lacks it, and fetch it there. ``UserError``, on all ranks, if that fails."""
        lacks = checkpoint.fault(path) is not None
        if not any(gather_objects(lacks, place)):
            return
        mistake = _mistake(self.finish) if place.is_main else None
        if mistake := from_main(mistake, place):
            raise UserError(mistake)
        mistakes = gather_objects(_mistake(lambda: self._fetch(path.name)) if lacks else None, place)
        if mistake := next(filter(None, mistakes), None):
            raise UserError(mistake)

    def _fetch(self, name: str) -> None:
        if not copied.fetch(self._copy, self._folder, name, self._say):
            raise UserError(f"the checkpoint {name} cannot be read from {self._copy}: give the same command again")

    def _join(self, seconds: float | None) -> None:
        if self._thread:
            self._thread.join(seconds)
            if not self._thread.is_alive():
                self._thread = None

    def _send(self, opened: "_Opened") -> None:
        with opened:
            try:
                self._transfer(opened)
            except StorageProblem as problem:
                self._there = None
                self._say(f"{problem}; the training goes on, and the next checkpoint tries again")

    def _transfer(self, opened: "_Opened") -> None:
        """Checkpoints, the newest first; then the other files; then away with the checkpoints that are gone here."""
        if self._there is None:
            self._there = self._copy.sizes()
        there = self._there
        for name in reversed(opened.checkpoints):
            if name not in self._sent:
                self._send_checkpoint(opened, name)
        for name in opened.files:
            self._send_file(opened, name)
        last = position(opened.checkpoints[-1]) if opened.checkpoints else ()
        for name in sorted(copied.names(there)):
            if name not in opened.checkpoints and () < position(name) < last:  # a newer one is another's, or damaged
                self._copy.remove(f"{FOLDER}/{name}/{MANIFEST}")
                self._copy.remove_folder(f"{FOLDER}/{name}")
                own = f"{FOLDER}/{name}/"
                self._there = there = {one: size for one, size in there.items() if not one.startswith(own)}
                self._sent.pop(name, None)

    def _send_checkpoint(self, opened: "_Opened", name: str) -> None:
        assert self._there is not None
        stated, place = opened.read(f"{FOLDER}/{name}/{MANIFEST}"), f"{FOLDER}/{name}/{MANIFEST}"
        is_there = place in self._there and self._copy.read(place) == stated
        if not (is_there and name in copied.whole(self._there)):
            if place in self._there:
                self._copy.remove(place)
                del self._there[place]
            sums = {}
            for file in OWN:
                part = f"{FOLDER}/{name}/{file}"
                sums[file] = self._copy.put_open(opened.descriptors[part], part)
                self._there[part] = 0
            if checkpoint.manifest_of(sums) != stated:
                self._say(f"the checkpoint {name} reads back damaged from this disk and is not sent")
                return
            if ROWS in opened.files:
                self._send_file(opened, ROWS)
            self._copy.put(stated, place)
            self._there[place] = 0
        self._sent[name] = True

    def _send_file(self, opened: "_Opened", name: str) -> None:
        if self._sent.get(name) != opened.files[name]:
            self._copy.put_open(opened.descriptors[name], name)
            self._sent[name] = opened.files[name]


class _Opened:
    """The files of a run's folder as they are now, held open: those that were not ``sent`` yet."""

    def __init__(self, folder: Path, sent: dict[str, Any]) -> None:
        self.descriptors: dict[str, int] = {}
        self.files: dict[str, Any] = {}  # those in the folder itself: what tells their version
        self.checkpoints = [path.name for path in checkpoint.checkpoints(folder) if (path / MANIFEST).exists()]
        try:
            for name in self.checkpoints:
                for file in (*OWN, MANIFEST) if name not in sent else ():
                    self._open(folder, f"{FOLDER}/{name}/{file}")
            for path in sorted(folder.iterdir()):
                if path.is_file() and not path.is_symlink() and not path.name.startswith("."):
                    facts = os.fstat(self._open(folder, path.name))
                    self.files[path.name] = (facts.st_ino, facts.st_size, facts.st_mtime_ns)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "_Opened":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the files."""
        while self.descriptors:
            os.close(self.descriptors.popitem()[1])

    def read(self, name: str) -> bytes:
        """The content of a small file."""
        return os.pread(self.descriptors[name], os.fstat(self.descriptors[name]).st_size, 0)

    def missing(self, sent: dict[str, Any]) -> list[str]:
        """What is not in the copy as it is here."""
        checkpoints = [f"{FOLDER}/{name}" for name in self.checkpoints if name not in sent]
        return [*checkpoints, *(name for name, version in self.files.items() if sent.get(name) != version)]

    def _open(self, folder: Path, name: str) -> int:
        self.descriptors[name] = os.open(folder / name, os.O_RDONLY)
        return self.descriptors[name]


def mirror_of(config: Config, folder: Path, say: Say) -> Copy:
    """The copy of the run in ``folder``, to be told of what happens there."""
    copy = copied.copy_of(config)
    # A wait must end before the watchdog of this rank, and of those that wait for it, thinks that it stands still.
    return Mirror(copy, folder, say, min(WAIT_SECONDS, 4 * config.scale.hang_seconds)) if copy else NOWHERE


def complete(config: Config, folder: Path, say: Say) -> None:
    """Send what the end of a training could not. ``UserError`` names what is only on this disk."""
    copy = copied.copy_of(config)
    if copy and copied.is_behind(copy, folder):
        Mirror(copy, folder, say).finish()


@contextmanager
def completed(copy: Copy, place: Place, say: Say) -> Iterator[None]:
    """Have the main rank complete the copy when the block ends.

    Where that fails after a training that ended as it should, or stopped or left as it was asked to, the error tells
    what is only on this disk. After a mistake it is only said, and after a crash nothing is tried: who starts the run
    again sends it.
    """
    try:
        yield
    except (notice.Stopped, notice.Left) as ended:  # on all ranks, which wait: a launcher ends all when one has ended
        mistake = _mistake(copy.finish) if place.is_main else None
        if mistake := from_main(mistake, place):
            raise type(ended)(f"{ended}; {mistake}") from None
        raise
    except UserError:
        if place.is_main and (mistake := _mistake(copy.finish)):
            say(mistake)
        raise
    if place.is_main:
        copy.finish()


def _mistake(act: Callable[[], None]) -> str | None:
    try:
        act()
    except UserError as error:
        return str(error)
    return None
