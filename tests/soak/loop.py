"""Random faults on the loop without Ray: the real entry point, in processes forked from one that has torch loaded."""

import ctypes
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import recorded
import torch
from packs import write_small_pack
from recorded import CONTEXT, Change, Spoil, around_losses, die, steps
from soak import Fault, Piece

from nrh_dist.engine import checkpoint
from nrh_dist.engine import run as engine_run
from nrh_dist.engine.dist import Place
from nrh_dist.errors import UserError

INTERVAL = 5  # steps
HANG_SECONDS = 6.0  # a shared machine stands still for seconds by itself
DISK = 96  # MB, of the file system that is filled
BAD_END = 70  # exit code of an error that is no UserError
COMMON = (
    *("preset=tiny", "model.width=0.1", "model.dropout=true", "data.val_fraction=0.3", "train.batch_size=4"),
    *(
        "train.bad_steps=1",
        f"train.checkpoint_steps={INTERVAL}",
        "train.keep_checkpoints=3",
        f"scale.hang_seconds={HANG_SECONDS}",
    ),
)
FUSED = "model.fusion_width=8"
RUNS = {  # each with so many epochs of 7 steps that it takes some ten seconds
    "dih_nm": ("model.name=dih_nm", "train.epochs=40"),
    "ptc_dih": ("model.name=ptc_dih", "train.epochs=20"),
    "thresholds": ("model.name=ptc", "stage=thresholds", "train.epochs=25"),
    "gated": ("model.name=gated", FUSED, "loss.gate=1", "loss.harm=1", "data.clean_fraction=0.3", "train.epochs=25"),
    "dih_m": ("model.name=dih_m", "train.epochs=40"),
    "equivariance": ("model.name=ptc", "stage=equivariance", "train.epochs=20"),
    "ptc_att_dih": ("model.name=ptc_att_dih", FUSED, "train.epochs=20"),
}
KINDS = {  # and how often, of all
    "SIGKILL of a worker": 3,
    "SIGKILL of all workers": 2,
    "SIGTERM": 3,
    "killed while saving": 3,
    "newest checkpoint truncated": 2,
    "newest checkpoint zeroed": 2,
    "newest checkpoint: a bit flipped": 2,
    "disk full": 2,
    "SIGSTOP of a worker": 1,
    "a worker stands still in C": 1,
    "NaN on one rank": 2,
}
GRACE = {"SIGTERM": 30.0, "NaN on one rank": 30.0}  # seconds for all workers to end by themselves
INSIDE = ("killed while saving", "a worker stands still in C", "NaN on one rank")  # strike from within
FILES = (checkpoint.WEIGHTS, checkpoint.STATE, checkpoint.META, checkpoint.MANIFEST)
OUTPUT = "output.txt"


def soak(count: int, seed: int, folder: Path | None) -> Piece:
    """Runs of all models and stages in turn, with one and two workers, until ``count`` faults have struck."""
    started, chance = time.monotonic(), random.Random(seed)
    piece = Piece("loop", f"python tests/soak/soak.py --faults {count} --seed {seed}", seed, INTERVAL, 0.0, 0, 0, [])
    with working(folder) as root:
        pack = write_small_pack(root / "data", train=40).root
        with small_disk(root / "disk") as disk:
            while len(piece.faults) < count:
                turn = seed + piece.runs
                name, world = list(RUNS)[turn % len(RUNS)], 1 + (turn // len(RUNS) + turn) % 2
                run = Run(f"{name}-x{world}-{turn}", disk, root, pack, RUNS[name], world, chance)
                reference = Run(f"{run.name}-reference", disk, root, pack, RUNS[name], world, chance)
                for fault in run.with_faults(count - len(piece.faults)):
                    piece.faults.append(fault)
                    say_fault(len(piece.faults), count, fault)
                reference.to_the_end()
                differences = run.differs_from(reference)
                piece.runs += 1
                piece.wrong_results += bool(differences)
                print(f"{run.name}: {differences or 'weights, optimiser, losses: those of its reference'}", flush=True)
                for each in (run, reference):
                    shutil.rmtree(each.folder)
    piece.seconds = time.monotonic() - started
    return piece


def say_fault(number: int, count: int, fault: Fault) -> None:
    """One line."""
    lost = f"again from {fault.resumed_from}, {fault.lost} lost" if fault.lost >= 0 else "nothing lost"
    end = ("" if fault.is_recovered else " NOT RECOVERED") + ("" if fault.is_as_promised else " NOT AS PROMISED")
    head = f"{number}/{count} {fault.run}: {fault.kind} at step {fault.step}"
    print(f"{head}: {lost}, {fault.seconds:.1f} s{end} {fault.detail}", flush=True)


@contextmanager
def working(folder: Path | None) -> Iterator[Path]:
    """``folder``, or one that goes afterwards; with a cache of its own."""
    with tempfile.TemporaryDirectory() as temporary:
        root = folder or Path(temporary)
        root.mkdir(parents=True, exist_ok=True)
        os.environ |= {"NRH_CACHE": str(root / "cache"), "WANDB_MODE": "disabled", "OMP_NUM_THREADS": "1"}
        yield root


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A small file system for the runs, if this process may mount one; else no disk is filled."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK}m", "none", str(folder)]
    is_mounted = subprocess.run(command, capture_output=True).returncode == 0
    if not is_mounted:
        print("no small file system can be mounted here: the disk is not filled", flush=True)
        KINDS.pop("disk full", None)
    try:
        yield folder
    finally:
        if is_mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)


class Run:
    """One training that is started again and again until it is finished."""

    limit = 120.0  # seconds for anything to happen

    def __init__(
        self, name: str, disk: Path, root: Path, pack: Path, words: tuple[str, ...], world: int, chance: random.Random
    ) -> None:
        self.name, self.world, self.chance = name, world, chance
        self.folder, self.notes = disk / name, root / "notes" / name
        self.notes.mkdir(parents=True)
        self.words = [*COMMON, *words, f"run.root={disk}", f"run.name={name}", f"data.pack={pack}"]
        self.processes: list[Any] = []
        self._output, self._heard, self._was_damage = self.notes / OUTPUT, 0, False

    def to_the_end(self) -> None:
        """Without a fault."""
        self.start()
        codes = self.wait()
        assert codes == [0] * self.world, f"{self.name} ended with {codes}: {self.said()}"

    def with_faults(self, most: int) -> Iterator[Fault]:
        """Start, strike, start again; each fault when it is known how the run went on. At the end it is finished."""
        pending: Fault | None = None
        kinds = (self._kind() for _ in range(most))
        while True:
            kind = next(kinds, "")
            count = len(steps(self.notes))
            self.start(*self._changes(kind))
            self._wait_for_steps(count)
            if pending:
                self._settle(pending, steps(self.notes)[count:])
                yield pending
            if kind and self.has_ended() and len(steps(self.notes)) == count:
                kind = "ended by itself"  # not even a step: nothing had struck
            elif kind:
                self._strike(kind)
            codes = self.wait(GRACE.get(kind, 0.0))
            if codes == [0] * self.world:
                return
            assert kind, f"{self.name} ended with {codes} without a fault: {self.said()}"
            pending = Fault(kind, self.name, step=self._last_step(), at=time.monotonic())
            pending.is_as_promised = self._is_as_promised(pending, codes)
            if kind.startswith("newest"):
                self._damage(pending)
            elif not pending.is_as_promised:
                pending.detail = f"{codes} {self.said()}"

    def start(self, *changes: Change) -> None:
        """The same command, as its ranks."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        given = (self.world, port, self.notes, self.words, changes)
        self._heard = self._output.stat().st_size if self._output.exists() else 0
        self.processes = [CONTEXT.Process(target=_command, args=(rank, *given)) for rank in range(self.world)]
        for process in self.processes:
            process.start()

    def wait(self, grace: float = 0.0) -> list[int]:
        """Exit codes. Like torchrun, end all when one ended badly, after ``grace`` seconds for them to do it."""
        deadline, ended_badly = time.monotonic() + 3 * self.limit, None
        while any(process.exitcode is None for process in self.processes):
            now = time.monotonic()
            assert now < deadline, f"{self.name} does not end: {self.said()}"
            if any(process.exitcode for process in self.processes):
                ended_badly = ended_badly or now
                if now - ended_badly >= grace:
                    self._kill()
            time.sleep(0.01)
        return [process.exitcode for process in self.processes]

    def has_ended(self) -> bool:
        """Whether any rank did."""
        return any(process.exitcode is not None for process in self.processes)

    def said(self) -> str:
        """The last lines that its processes printed since the start."""
        return " / ".join(self._printed().splitlines()[-3:])

    def _printed(self) -> str:
        return self._output.read_bytes()[self._heard :].decode(errors="replace") if self._output.exists() else ""

    def _kill(self) -> None:
        for process in self.processes:
            process.kill()

    def differs_from(self, other: "Run") -> str:
        """In what the finished run differs from ``other``; empty where it does not."""
        sums = []
        for run in (self, other):
            path = checkpoint.newest(run.folder).path
            if path is None:
                return "no checkpoint"
            state = checkpoint.read_state(path)
            # The best may be the one that was damaged; how often a run went back is its own affair.
            for key in ("seconds", "best_name", "best_value", "rollbacks"):
                state["state"].pop(key)
            rows = [json.loads(line) for line in (run.folder / "metrics.jsonl").open()]
            for row in rows:
                del row["time_s"], row["images_per_s"]
            bits = recorded.digest_of(checkpoint.read_weights(path))
            moments = recorded.digest_of(_tensors(state["optimiser"]))
            sums.append({"weights": bits, "optimiser": moments, "state": state["state"], "metrics": rows})
        found = [key for key in sums[0] if sums[0][key] != sums[1][key]]
        for rank in range(self.world):
            expected = {line["step"]: line for line in steps(other.notes, rank)}
            own = steps(self.notes, rank)
            if any(line != expected.get(line["step"]) for line in own) or {x["step"] for x in own} != set(expected):
                found.append(f"losses or samples of rank {rank}")
        return "DIFFERS in " + ", ".join(found) if found else ""

    def _kind(self) -> str:
        """What is next. Damage comes to a checkpoint that has a sound one before it."""
        kinds = dict(KINDS)
        for kind in KINDS:
            if (self._was_damage and _is_damage(kind)) or (self.world == 1 and kind == "SIGSTOP of a worker"):
                del kinds[kind]
        kind = self.chance.choices(list(kinds), list(kinds.values()))[0]
        self._was_damage = _is_damage(kind)
        return kind

    def _changes(self, kind: str) -> list[Change]:
        if kind == "killed while saving":
            return [_KillInSave(self.chance.randrange(1, 25), self.chance.random())]
        if kind == "a worker stands still in C":
            return [_StandStill(self.chance.randrange(3, 30))]
        if kind == "NaN on one rank":  # whenever it comes to that step
            return [Spoil((self._last_step() + self.chance.randrange(1, 25),), self.chance.randrange(self.world))]
        return []

    def _strike(self, kind: str) -> None:
        """After a random while, unless the fault is in the process already."""
        if kind in INSIDE:
            return
        self._wait_for(self.has_ended, self.chance.uniform(0.0, 2.0))
        everyone = [process.pid for process in self.processes if process.exitcode is None]
        if kind == "disk full":
            self._fill_the_disk()
        elif kind == "SIGTERM":
            _send(everyone, signal.SIGTERM)
        elif kind == "SIGSTOP of a worker":
            _send(everyone[-1:], signal.SIGSTOP)
        elif kind == "SIGKILL of a worker":
            _send([self.chance.choice(everyone)] if everyone else [], signal.SIGKILL)
        else:
            _send(everyone, signal.SIGKILL)

    def _fill_the_disk(self) -> None:
        """Something else takes every byte until the run ends, or until it found room for three seconds."""
        ballast, until = self.folder.parent / "ballast", time.monotonic() + 3
        with ballast.open("wb", buffering=0) as file:
            while time.monotonic() < until and not self.has_ended():
                try:
                    file.write(bytes(1 << 16))
                except OSError:
                    time.sleep(0.002)
        if not self.has_ended():
            self._kill()
        ballast.unlink()

    def _damage(self, fault: Fault) -> None:
        """Damage one file of the newest checkpoint, where there is another one to go back to."""
        kind, found = fault.kind, checkpoint.checkpoints(self.folder)
        if len(found) < 2:
            fault.detail = "there was one checkpoint only, which is left alone"
            return
        path = found[-1] / self.chance.choice(FILES)
        content = bytearray(path.read_bytes())
        if kind.endswith("truncated"):
            content = content[: self.chance.randrange(len(content))]
        elif kind.endswith("zeroed"):
            content = bytearray(len(content))
        else:
            content[self.chance.randrange(len(content))] ^= 1 << self.chance.randrange(8)
        path.write_bytes(content)
        fault.detail = f"({path.parent.name}/{path.name})"
        sound = checkpoint.newest(self.folder).path
        fault.is_as_promised &= sound not in (None, path.parent)
        fault.sound = checkpoint.position(sound.name)[0] if sound else 0

    def _is_as_promised(self, fault: Fault, codes: list[int]) -> bool:
        """How the processes ended, before it is known how the run goes on."""
        if fault.kind == "ended by itself":
            return False
        if fault.kind == "SIGTERM":
            return codes == [1] * self.world and f"stopped at step {fault.step}, as asked" in self._printed()
        if fault.kind == "NaN on one rank":
            return codes == [1] * self.world and f"step {fault.step}, with optim.lr" in self._printed()
        if "stands still" in fault.kind or "SIGSTOP" in fault.kind:
            stacks = list(self.folder.glob("stacks-rank*.txt"))
            for path in stacks:
                path.unlink()
            return bool(stacks)
        if fault.kind == "disk full":
            return codes[0] == -9 or (codes[0] == 1 and "make room" in self._printed())
        return True

    def _last_step(self) -> int:
        """Of the newest start; 0 where it took none."""
        lines = recorded.record(self.notes)
        begin = max((number for number, line in enumerate(lines) if "start" in line), default=0)
        return max((line["step"] for line in lines[begin:] if "step" in line), default=0)

    def _settle(self, fault: Fault, new: list[dict[str, Any]]) -> None:
        """How the run went on after ``fault``: with ``new`` steps, or at once to its end."""
        fault.seconds = time.monotonic() - fault.at
        fault.is_recovered = bool(new) or self.wait() == [0] * self.world
        if new:
            fault.resumed_from = new[0]["step"] - 1
            fault.lost = max(0, fault.step - fault.resumed_from)
        if fault.sound >= 0:
            fault.is_as_promised &= fault.resumed_from in (fault.sound, -1)
        else:
            fault.is_as_promised &= fault.lost <= (0 if fault.kind == "SIGTERM" else INTERVAL)

    def _wait_for_steps(self, count: int) -> None:
        is_under_way = self._wait_for(lambda: len(steps(self.notes)) > count or self.has_ended(), self.limit)
        assert is_under_way, f"{self.name} does nothing: {self.said()}"

    def _wait_for(self, holds: Callable[[], bool], limit: float) -> bool:
        deadline = time.monotonic() + limit
        while not holds():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True


@dataclass(frozen=True)
class _KillInSave:
    """SIGKILL of the main rank when ``fraction`` of the ``number``th file of checkpoints is on the disk."""

    number: int
    fraction: float

    def __call__(self, place: Place) -> None:
        real, seen = os.fsync, []

        def fsync(descriptor: int) -> None:
            path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
            seen.extend([path] if path.name in FILES else [])
            if len(seen) == self.number and path.name in FILES:
                os.ftruncate(descriptor, int(path.stat().st_size * self.fraction))
                die()
            real(descriptor)

        os.fsync = fsync


@dataclass(frozen=True)
class _StandStill:
    """The last rank never returns from its ``number``th step: in C, and without releasing Python's lock."""

    number: int

    def __call__(self, place: Place) -> None:
        taken: list[Any] = []

        def losses(values: Any, batch: Any) -> Any:
            taken.append(batch)
            if place.rank == place.world - 1 and len(taken) == self.number:
                ctypes.PyDLL(None).sleep(600)
            return values

        around_losses(losses)


def _command(rank: int, world: int, port: int, notes: Path, words: list[str], changes: tuple[Change, ...]) -> None:
    """One rank of ``python -m nrh_dist.engine.run`` under torchrun, which records its steps."""
    output = os.open(notes / OUTPUT, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    torch.set_num_threads(1)
    if world > 1:
        os.environ |= {"RANK": f"{rank}", "LOCAL_RANK": f"{rank}", "WORLD_SIZE": f"{world}"}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"{port}"}
    recorder = recorded.Recorder(notes, rank)
    recorder.write(start=os.getpid())
    recorder.record_steps()  # the losses as they were before a change spoils them
    for change in changes:
        change(Place(rank, world))
    code = 0
    try:
        engine_run.main(words)
    except UserError as error:
        print(f"nrh: {error}", flush=True)
        code = 1
    except BaseException:
        traceback.print_exc()
        code = BAD_END
    sys.stdout.flush()
    os._exit(code)


def _send(processes: list[int], number: signal.Signals) -> None:
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, number)


def _is_damage(kind: str) -> bool:
    return kind.startswith("newest checkpoint")


def _tensors(value: Any, where: str = "") -> dict[str, Any]:
    """All tensors inside of ``value``, by where they are."""
    if torch.is_tensor(value):
        return {where: value}
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return {key: one for name, inner in items for key, one in _tensors(inner, f"{where}.{name}").items()}
