"""The trainings of a study: each an ordinary run in a process of its own, as many at once as there are devices.

The loop needs no Ray. A training that was interrupted goes on from its checkpoint, a finished one is not begun again.
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

import torch

from nrh_dist import config as configuration
from nrh_dist.engine import rundir, select
from nrh_dist.engine.progress import Say, duration
from nrh_dist.errors import UserError

STOP_SECONDS = 60.0  # for a training to save and end
DIVERGED = "try a lower optim.lr"  # in what a training says whose loss or gradient is not finite
MARK = "diverged"  # file in the folder of such a run


@dataclass(frozen=True)
class Run:
    """A training: the folder's ``name``, and ``words`` as for ``nrh train``. ``may_diverge``: without a result then."""

    name: str
    words: tuple[str, ...]
    may_diverge: bool = False


def slots() -> list[dict[str, str]]:
    """One environment for each training at once: a GPU each, or a core each."""
    if torch.cuda.is_available():
        return [{"CUDA_VISIBLE_DEVICES": str(number)} for number in range(torch.cuda.device_count())]
    return [{"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""} for _ in range(len(os.sched_getaffinity(0)))]


class Trainer:
    """Trains runs below ``folder``/runs, with ``words`` that all have; their lines go to ``folder``/logs."""

    def __init__(self, folder: Path, words: Sequence[str], say: Say) -> None:
        self.folder, self.words, self.say = folder, tuple(words), say
        self.free: SimpleQueue[dict[str, str]] = SimpleQueue()
        for one in slots():
            self.free.put(one)
        self.count = self.free.qsize()
        self.lock = threading.Lock()
        self.children: set[subprocess.Popen[bytes]] = set()

    def path(self, name: str) -> Path:
        """The folder of a run."""
        return self.folder / "runs" / name

    def train(self, what: str, wanted: Sequence[Run]) -> dict[str, float]:
        """Train all of ``wanted``; returns the best value of each by name, without those that diverged.

        ``UserError`` with the last line of a training that failed and may not; the others are stopped first.
        """
        values: dict[str, float] = {}
        missing = [run for run in wanted if not self._is_finished(run)]
        if missing:
            self.say(f"{what}: {len(missing)} of {len(wanted)} trainings, {self.count} at once")
        started = time.monotonic()
        with ThreadPoolExecutor(self.count) as pool, self._stopping():
            futures = [pool.submit(self._train, run) for run in missing]
            try:
                done, _ = wait(futures, return_when=FIRST_EXCEPTION)
                for future in done:
                    future.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        if missing:
            self.say(f"{what}: done in {duration(time.monotonic() - started)}")
        for run in wanted:  # what diverged in a later epoch has a best one before
            if not self._has_diverged(run) and (best := select.read_best(self.path(run.name))):
                values[run.name] = best["value"]
        return values

    def _words(self, run: Run) -> list[str]:
        return [*self.words, *run.words, f"run.root={self.folder / 'runs'}", f"run.name={run.name}"]

    def _is_finished(self, run: Run) -> bool:
        config = configuration.load(None, self._words(run))
        return self._has_diverged(run) or rundir.is_finished(self.path(run.name), config)

    def _has_diverged(self, run: Run) -> bool:
        return (self.path(run.name) / MARK).exists()

    def _train(self, run: Run) -> None:
        log = self.folder / "logs" / f"{run.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        own = self.free.get()
        started = time.monotonic()
        try:
            with log.open("ab") as file:
                # It is told who started it: that process may be gone before it can look.
                child = ["nrh_dist.workflows.study.child", str(os.getpid())]
                command = [sys.executable, "-m", *child, *self._words(run)]
                # Ctrl-C is for the study, which then asks its trainings to save and end.
                process = subprocess.Popen(
                    command, env=os.environ | own, stdin=subprocess.DEVNULL, stdout=file, stderr=file, process_group=0
                )
                with self._known(process):
                    code = process.wait()
        finally:
            self.free.put(own)
        if not code and (best := select.read_best(self.path(run.name))):
            took = duration(time.monotonic() - started)
            self.say(f"  {run.name}: {best['metric']} {best['value']:.4g}, {took}")
            return
        last = (log.read_text(errors="replace").strip().splitlines() or ["nothing"])[-1]
        if code == 1 and run.may_diverge and DIVERGED in last:
            (self.path(run.name) / MARK).write_text(f"{last}\n")
            self.say(f"  {run.name}: {last}")
            return
        how = "failed" if code == 1 else f"ended with exit code {code}"  # a signal, or its own watchdog
        raise UserError(f"{run.name} {how} and said: {last}; all its lines are in {log}; the same command goes on")

    @contextmanager
    def _known(self, child: "subprocess.Popen[bytes]") -> Iterator[None]:
        with self.lock:
            self.children.add(child)
        try:
            yield
        finally:
            with self.lock:
                self.children.discard(child)

    @contextmanager
    def _stopping(self) -> Iterator[None]:
        """On the way out by an error or Ctrl-C, let trainings save and end."""
        try:
            yield
        except BaseException:
            with self.lock:
                left = [*self.children]
            for child in left:
                child.terminate()
            for child in left:
                try:
                    child.wait(STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    child.kill()
            raise
