"""What a run is asked while it trains: a checkpoint and the end, of this start or of the run."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

import pytest
from packs import write_small_pack
from recorded import COMMON, LEFT, MISTAKE, STEPS, around_step, ends, record, starts, train

from nrh_dist.engine import checkpoint, fit, notice
from nrh_dist.engine.dist import Place
from nrh_dist.engine.notice import LOOK_SECONDS, Notice, Notices, Signal, ask_to_stop, forget, nothing

WORDS = ("model.name=dih_nm", "train.checkpoint_steps=100", "train.keep_checkpoints=50")


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return write_small_pack(tmp_path_factory.mktemp("notice")).root


class Clock:
    """Time that a test moves."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def test_a_signal_asks_for_the_end_and_a_second_one_gets_it():
    before = signal.getsignal(signal.SIGUSR1)
    try:
        asked = Signal(signal.SIGUSR1)
        assert asked() is Notice.NONE
        os.kill(os.getpid(), signal.SIGUSR1)
        assert asked() is Notice.STOP and asked() is Notice.STOP
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_the_stop_file_asks_until_it_is_forgotten(tmp_path):
    clock = Clock()
    notices = Notices(tmp_path, nothing, clock)
    assert notices() is Notice.NONE
    ask_to_stop(tmp_path)
    assert notices() is Notice.NONE, "looked at no more than once in LOOK_SECONDS"
    clock.now += LOOK_SECONDS
    assert notices() is Notice.STOP
    clock.now += LOOK_SECONDS
    assert notices() is Notice.STOP
    forget(tmp_path)
    forget(tmp_path)
    clock.now += LOOK_SECONDS
    assert notices() is Notice.NONE


def test_what_else_asks_is_looked_at_once_a_second_and_the_stop_file_beats_it(tmp_path):
    clock, looks = Clock(), []
    notices = Notices(tmp_path, lambda: looks.append(clock.now) or Notice.LEAVE, clock)
    answers = []
    for _ in range(200):
        answers.append(notices())
        clock.now += 0.25
    assert answers.count(Notice.LEAVE) == len(looks) == 200 * 0.25 // LOOK_SECONDS and answers[0] is Notice.LEAVE
    ask_to_stop(tmp_path)
    assert notices() is Notice.STOP, "the end is asked of a run that is to leave, too"


@dataclass(frozen=True)
class Asks:
    """``rank`` is asked for ``what`` from step ``step`` on."""

    what: Notice
    step: int
    rank: int

    def __call__(self, place: Place):
        notice.LOOK_SECONDS = 0.0
        fits = []

        def step(fit, take):
            fits[:] = [fit]
            return take()

        around_step(step)
        is_asked = place.rank == self.rank
        return lambda: self.what if is_asked and fits[0].state.step + 1 >= self.step else Notice.NONE


@pytest.mark.parametrize("rank", [0, 1])
def test_one_rank_asked_to_stop_stops_both_after_a_checkpoint_of_that_step(tmp_path, pack, rank):
    world, stop = 2, 6
    assert train(tmp_path / "r", pack, WORDS, world, Asks(Notice.STOP, stop, rank)) == [MISTAKE] * world
    for each in range(world):
        assert starts(tmp_path / "r", each) == [list(range(1, stop + 1))]
        last = record(tmp_path / "r", each)[-1]
        assert last["kind"] == "Stopped"
        assert last["mistake"] == f"stopped at step {stop}, as asked: the same command goes on"
    assert checkpoint.newest(tmp_path / "r").path.name == f"epoch-0001-step-{stop:06d}"
    assert train(tmp_path / "r", pack, WORDS, world) == [0] * world
    assert starts(tmp_path / "r")[1] == list(range(stop + 1, 3 * STEPS + 1))
    assert train(tmp_path / "whole", pack, WORDS, world) == [0] * world
    assert ends(tmp_path / "r", world) == ends(tmp_path / "whole", world)


def test_asked_at_the_last_step_of_an_epoch_it_stops_before_the_validation(tmp_path, pack):
    assert train(tmp_path / "r", pack, WORDS, 1, Asks(Notice.STOP, STEPS, 0)) == [MISTAKE]
    assert checkpoint.newest(tmp_path / "r").path.name == f"epoch-0000-step-{STEPS:06d}"
    assert train(tmp_path / "r", pack, WORDS, 1) == [0]
    assert train(tmp_path / "whole", pack, WORDS, 1) == [0]
    assert ends(tmp_path / "r", 1) == ends(tmp_path / "whole", 1)


@dataclass(frozen=True)
class AsksInValidation:
    """``rank`` is asked for ``what`` before the second batch of the validation of ``epoch``."""

    what: Notice
    epoch: int
    rank: int

    def __call__(self, place: Place):
        notice.LOOK_SECONDS, fit.HEEDED_EVERY = 0.0, 2
        under_way = []
        real = fit.Fit._validate

        def validate(one):
            under_way[:] = [one.state.epoch + 1]
            try:
                return real(one)
            finally:
                under_way.clear()

        fit.Fit._validate = validate
        is_asked = place.rank == self.rank
        return lambda: self.what if is_asked and under_way == [self.epoch] else Notice.NONE


@pytest.mark.parametrize(("world", "rank", "what"), [(1, 0, Notice.LEAVE), (2, 1, Notice.STOP)])
def test_asked_in_a_validation_it_saves_what_was_trained_and_validates_it_later(tmp_path, pack, world, rank, what):
    words = (*WORDS, "data.val_fraction=0.7", "train.batch_size=2")  # a validation of several batches
    code = {Notice.STOP: MISTAKE, Notice.LEAVE: LEFT}[what]
    assert train(tmp_path / "r", pack, words, world, AsksInValidation(what, 2, rank)) == [code] * world
    newest = checkpoint.read_meta(checkpoint.newest(tmp_path / "r").path)
    assert newest["epoch"] == 1 and newest["step"] == starts(tmp_path / "r")[0][-1], "no step is lost"
    assert train(tmp_path / "r", pack, words, world) == [0] * world
    assert train(tmp_path / "whole", pack, words, world) == [0] * world
    assert ends(tmp_path / "r", world) == ends(tmp_path / "whole", world)
    assert sum(map(len, starts(tmp_path / "r"))) == len(starts(tmp_path / "whole")[0]), "none is done again"
    rows = [[json.loads(line) for line in (tmp_path / name / "metrics.jsonl").open()] for name in ("r", "whole")]
    for row in (*rows[0], *rows[1]):
        del row["time_s"], row["images_per_s"]
    assert rows[0] == rows[1]


def test_an_announced_preemption_saves_at_that_step_and_another_start_loses_none(tmp_path, pack):
    """The checkpoint is in the storage when the machine may go."""
    world, words = 2, (*WORDS, f"storage={tmp_path / 'kept'}")
    assert train(tmp_path / "r", pack, words, world, Asks(Notice.LEAVE, 6, 1)) == [LEFT] * world
    for each in range(world):
        assert starts(tmp_path / "r", each) == [list(range(1, 7))]
    for place in (tmp_path / "r", tmp_path / "kept" / "r"):
        assert checkpoint.newest(place).path.name == "epoch-0001-step-000006"
    assert train(tmp_path / "r", pack, words, world) == [0] * world
    assert starts(tmp_path / "r", 1)[1] == list(range(7, 3 * STEPS + 1))
    assert train(tmp_path / "whole", pack, WORDS, world) == [0] * world
    assert ends(tmp_path / "r", world) == ends(tmp_path / "whole", world)


@pytest.mark.parametrize("world", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_sigterm_saves_stops_and_the_same_command_finishes(tmp_path, pack, world):
    """The real command, alone and under torchrun."""
    folder = tmp_path / "r"
    own = [f"run.root={tmp_path}", "run.name=r", f"data.pack={pack}", "train.epochs=60", "track.wandb=disabled"]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"] if world > 1 else []
    command = [sys.executable, *launcher, "-m", "nrh_dist.engine.run", *COMMON, *WORDS, *own]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (folder / "metrics.jsonl").exists() or not (folder / "metrics.jsonl").read_text():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.02)
    process.terminate()
    _, errors = process.communicate(timeout=90)
    assert process.returncode == 1
    line = next(line for line in errors.splitlines() if line.startswith("nrh: "))
    step = int(line.removeprefix("nrh: stopped at step ").removesuffix(", as asked: the same command goes on"))
    newest = checkpoint.read_meta(checkpoint.newest(folder).path)
    assert newest["step"] == step < 60 * STEPS
    again = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert again.returncode == 0, again.stderr
    assert f"continuing from {checkpoint.checkpoint_name(newest['epoch'], step)}" in again.stdout
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").open()]
    assert [row["epoch"] for row in rows] == list(range(1, 61))
