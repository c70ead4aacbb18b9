"""The copy of a sweep in the storage: for a resume on another disk, and for trials of machines that share none.

Each trial keeps the copy of its own folder, see ``engine.mirror``. The driver adds the sweep's own files and what it
notes about trials, and fetches what trials on other machines have reached.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nrh_dist.engine import copied, track
from nrh_dist.engine.checkpoint import BEST
from nrh_dist.engine.copied import ROWS
from nrh_dist.engine.progress import Say
from nrh_dist.engine.storage import Storage, StorageProblem, open_storage
from nrh_dist.errors import UserError
from nrh_dist.launch.repeated import repeated
from nrh_dist.launch.trials import FAILURE, STOPPED

SWEEP = "sweep.json"
SECONDS = 20.0  # between two looks while the sweep runs


class SweepCopy:
    """Keeps ``folder``, a sweep on this disk, and its copy in ``place`` alike; of checkpoints see ``fetch_best``."""

    def __init__(self, place: Storage, folder: Path) -> None:
        self._place, self._folder = place, folder
        self._sent: dict[str, Any] = {}  # by name: what tells the version that was sent

    def holds_a_sweep(self) -> bool:
        """Whether one was begun there. ``UserError`` where the storage does not answer."""
        return self._place.read(SWEEP) is not None

    def fetch(self) -> None:
        """Fetch small files that this disk lacks, and all those of a trial that got further elsewhere.

        ``UserError`` where the copy is that of another sweep.
        """
        stated, own = self._place.read(SWEEP), self._folder / SWEEP
        if stated is not None and own.exists() and own.read_bytes() != stated:
            raise UserError(f"{self._place} holds another sweep: choose another run.name, or give the same words")
        there = {name: size for name, size in self._place.sizes().items() if name.count("/") in (0, 2)}
        rows = (name for name in there if name.endswith(f"/{ROWS}"))
        further = {Path(name).parent for name in rows if there[name] > _size(self._folder / name)}
        for name, size in there.items():
            path = self._folder / name
            if not path.exists() or Path(name).parent in further:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._place.get(name, path, size)

    def send(self) -> None:
        """Send the sweep's own files and the driver's notes, those that changed."""
        notes = (path for name in (STOPPED, FAILURE) for path in self._folder.glob(f"trials/t*/{name}"))
        files = (path for path in self._folder.iterdir() if path.is_file() and not path.name.startswith("."))
        for path in (*files, *notes):
            facts = path.stat()
            version = (facts.st_ino, facts.st_size, facts.st_mtime_ns)
            name = str(path.relative_to(self._folder))
            if self._sent.get(name) != version:
                self._place.put(path, name)
                self._sent[name] = version

    def reopen(self) -> None:
        """Remove the sweep's best.json, and what is noted of trials that failed: it is not finished any more."""
        for name in self._place.sizes():
            if name == BEST or (name.count("/") == 2 and name.endswith(f"/{FAILURE}")):
                self._place.remove(name)

    def fetch_best(self, metric: str, say: Say) -> None:
        """Fetch the checkpoints of the trial with the lowest ``metric``, where this disk lacks them."""
        lowest = {
            trial: min((row[metric] for row in track.rows_up_to(trial, 2**31)), default=float("inf"))
            for trial in sorted((self._folder / "trials").glob("t*"))
        }
        if lowest:
            best = min(lowest, key=lambda trial: lowest[trial])
            copied.bring(self._place.child(f"trials/{best.name}"), best, say)

    @contextmanager
    def followed(self, say: Say) -> Iterator[None]:
        """Fetch and send now and then while the block runs, and at its end. A storage that fails is said, once."""
        told: set[str] = set()

        def follow() -> None:
            try:
                self.fetch()
                self.send()
            except (StorageProblem, OSError) as problem:
                if str(problem) not in told:
                    say(f"{problem}; the sweep goes on")
                told.add(str(problem))

        with repeated(follow, SECONDS):
            yield
        self.fetch()


class NoCopy:
    """Of a sweep without ``storage``."""

    def holds_a_sweep(self) -> bool:
        """There is none."""
        return False

    def fetch(self) -> None:
        """Do nothing."""

    def send(self) -> None:
        """Do nothing."""

    def reopen(self) -> None:
        """Do nothing."""

    def fetch_best(self, metric: str, say: Say) -> None:
        """Do nothing."""

    @contextmanager
    def followed(self, say: Say) -> Iterator[None]:
        """Do nothing."""
        yield


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def copy_of(storage: str | None, folder: Path) -> SweepCopy | NoCopy:
    """The copy of the sweep in ``folder``: ``storage`` and its name."""
    return SweepCopy(open_storage(storage).child(folder.name), folder) if storage else NoCopy()
