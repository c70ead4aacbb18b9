"""Random faults on trainings through Ray: the real launcher, with a Ray of its own in a process of its own.

Without a fault in between the same run is made without Ray: its weights and losses are the reference.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import recorded
from loop import FUSED, Run, say_fault, working
from packs import write_small_pack
from recorded import steps
from soak import ROOT, Fault, Piece

INTERVAL = 5  # steps
RUNS = {  # name: words, workers
    "dih_nm": (("model.name=dih_nm", "train.epochs=40"), 2),
    "thresholds": (("model.name=ptc", "stage=thresholds", "train.epochs=16"), 1),
    "gated": (
        ("model.name=gated", FUSED, "loss.gate=1", "loss.harm=1", "data.clean_fraction=0.3", "train.epochs=20"),
        2,
    ),
    "ptc_dih": (("model.name=ptc_dih", "train.epochs=10"), 1),
}
INSIDE = {"SIGKILL of a worker": 4, "SIGKILL of the controller": 3, "SIGSTOP of a worker": 1}  # the driver lives on
ENDING = {
    "SIGKILL of the driver": 3,
    "SIGTERM of the driver": 3,
    "newest checkpoint truncated": 1,
    "newest checkpoint zeroed": 2,
    "newest checkpoint: a bit flipped": 1,
    "Ray's own record damaged": 3,
}
MORE = ("scale.max_failures=100", "scale.hang_seconds=10")


def soak(count: int, seed: int, folder: Path | None) -> Piece:
    """Runs in turn, until ``count`` faults have struck."""
    started, chance = time.monotonic(), random.Random(seed)
    command = f"python tests/soak/soak.py --ray --faults {count} --seed {seed}"
    piece = Piece("ray", command, seed, INTERVAL, 0.0, 0, 0, [])
    with working(folder) as root:
        pack = write_small_pack(root / "data", train=200).root
        while len(piece.faults) < count:
            turn = seed + piece.runs
            name = list(RUNS)[turn % len(RUNS)]
            words, world = RUNS[name]
            run = RayRun(f"{name}-x{world}-{turn}", root / "runs", root, pack, (*words, *MORE), world, chance)
            reference = Run(f"{run.name}-reference", root / "runs", root, pack, (*words, *MORE), world, chance)
            for fault in run.with_faults(count - len(piece.faults)):
                piece.faults.append(fault)
                say_fault(len(piece.faults), count, fault)
            reference.to_the_end()
            differences = run.differs_from(reference)
            piece.runs += 1
            piece.wrong_results += bool(differences)
            print(f"{run.name}: {differences or 'weights, optimiser, losses: those without Ray'}", flush=True)
            for each in (run, reference):
                shutil.rmtree(each.folder)
    piece.seconds = time.monotonic() - started
    return piece


class RayRun(Run):
    """One training through Ray that is started again and again until it is finished."""

    limit = 300.0

    def __init__(
        self, name: str, disk: Path, root: Path, pack: Path, words: tuple[str, ...], world: int, chance: random.Random
    ) -> None:
        super().__init__(name, disk, root, pack, words, world, chance)
        self.words += [f"scale.workers={world}"]
        self.driver: Any = None
        self.unforeseen = 0
        self.left: list[psutil.Process] = []

    def with_faults(self, most: int) -> Iterator[Fault]:
        """Strike within a session while the driver lives; start the same command again when it does not."""
        pending: Fault | None = None
        struck = 0
        try:
            while True:
                count = len(steps(self.notes))
                self.launch()  # at once: what is left of the one before ends by itself
                while True:
                    self._wait_for_steps(count)
                    if pending:
                        self._settle(pending, steps(self.notes)[count:])
                        yield pending
                        pending = None
                    if struck == most or self.has_ended():
                        break
                    struck += 1
                    kind = self._kind()
                    self._wait_for(self.has_ended, self.chance.uniform(0.0, 4.0))
                    if self.has_ended():
                        break
                    count, pending = self._cause(kind)
                    if kind in ENDING or not pending.is_as_promised:
                        break
                if pending is None:
                    code = self.driver.wait(3 * self.limit)
                    if code == 0:
                        return
                    pending = self._unforeseen(f"{code}")
                elif pending.kind in ENDING:
                    self._require_end(pending)
        finally:
            self.clear_up()

    def launch(self) -> None:
        """The same command."""
        path = os.pathsep.join(str(ROOT / name) for name in ("", "tests", "tests/engine", "tests/soak"))
        environment = os.environ | {"PYTHONPATH": path, "RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1"}
        self._heard = self._output.stat().st_size if self._output.exists() else 0
        with self._output.open("ab") as output:
            self.driver = subprocess.Popen(
                [sys.executable, str(ROOT / "tests" / "soak" / "ray_driver.py"), *self.words],
                env=environment,
                stdout=output,
                stderr=output,
            )

    def has_ended(self) -> bool:
        """Whether the driver did."""
        return self.driver.poll() is not None

    def wait(self, grace: float = 0.0) -> list[int]:
        """The driver's exit code, for each worker."""
        return [self.driver.wait(3 * self.limit)] * self.world

    def clear_up(self) -> None:
        """End what is left of any Ray that this run started."""
        if self.driver and not self.has_ended():
            self._note_processes()
            self.driver.kill()
            self.driver.wait()
        _, alive = psutil.wait_procs(self.left, 15)
        for process in alive:
            with suppress(psutil.Error):
                process.kill()

    def _kind(self) -> str:
        kinds = INSIDE | ENDING
        for kind in list(kinds):
            if self._was_damage and kind.startswith("newest"):
                del kinds[kind]
        kind = self.chance.choices(list(kinds), list(kinds.values()))[0]
        self._was_damage = kind.startswith("newest")
        return kind

    def _cause(self, kind: str) -> tuple[int, Fault]:
        """Strike; how many steps were recorded before that, and the fault."""
        self._note_processes()
        if kind == "SIGKILL of the controller":
            victims, number = self._named("TrainController"), signal.SIGKILL
        elif kind.endswith("of a worker"):
            own = [recorded.record(self.notes, rank) for rank in range(self.world)]
            pids = [max((n, line["start"]) for n, line in enumerate(lines) if "start" in line)[1] for lines in own]
            victims = [self.chance.choice(pids)]
            number = signal.SIGSTOP if "SIGSTOP" in kind else signal.SIGKILL
        else:
            victims, number = [self.driver.pid], signal.SIGTERM if "SIGTERM" in kind else signal.SIGKILL
        for pid in victims:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        starts = self._starts()
        fault = Fault(kind, self.name, at=time.monotonic())
        if kind in INSIDE:  # workers may go on for a moment
            is_again = self._wait_for(lambda: self._starts() > starts or self.has_ended(), self.limit)
            if not is_again or self.has_ended():
                return 0, self._unforeseen(kind)
            fault.step = self._step_before_last_start()
            return self._steps_before_last_start(), fault
        return 0, fault

    def _unforeseen(self, what: str) -> Fault:
        """The driver ended, or nothing went on in it, when ``what`` was no reason for it to end."""
        self.unforeseen += 1
        assert self.unforeseen < 5, f"{self.name} ends again and again: {what}: {self.said()}"
        if not self.has_ended():
            self._note_processes()
            self.driver.kill()
            self.driver.wait()
        detail = f"({what}) {self.said()}"
        return Fault(
            "ended by itself", self.name, self._last_step(), is_as_promised=False, detail=detail, at=time.monotonic()
        )

    def _require_end(self, fault: Fault) -> None:
        """The driver's end, as promised; and damage while all is down."""
        code = self.driver.wait(self.limit)
        if fault.kind == "SIGTERM of the driver":
            # In the last step of all there is nothing left to stop: the run is finished.
            fault.is_as_promised = code == 0 or (code == 1 and "stopped at step" in self._printed())
            fault.detail = "" if fault.is_as_promised else f"{code} {self.said()}"
        else:
            psutil.wait_procs(
                self.left, 30
            )  # workers outlive a killed driver by seconds; damage comes when all is down
        fault.step = self._last_step()
        fault.at = time.monotonic()
        if fault.kind.startswith("newest"):
            self._damage(fault)
        elif "record" in fault.kind:
            for path in [self.folder / "ray" / "checkpoint_manager_snapshot.json", *self.folder.glob("ray/*")]:
                path.parent.mkdir(exist_ok=True)
                if not path.is_dir():
                    path.write_text('{"checkpoint_res')

    def _starts(self) -> int:
        return sum("start" in line for line in recorded.record(self.notes))

    def _step_before_last_start(self) -> int:
        parts = [part for part in recorded.starts(self.notes)[:-1] if part]
        return parts[-1][-1] if parts else 0

    def _steps_before_last_start(self) -> int:
        return sum(map(len, recorded.starts(self.notes)[:-1]))

    def _note_processes(self) -> None:
        with suppress(psutil.Error):
            self.left += psutil.Process(self.driver.pid).children(recursive=True)

    def _named(self, word: str) -> list[int]:
        found = []
        for process in psutil.Process(self.driver.pid).children(recursive=True):
            with suppress(psutil.Error):
                if any(word in part for part in process.cmdline()):
                    found.append(process.pid)
        return found
