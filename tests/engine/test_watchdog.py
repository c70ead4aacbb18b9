"""A process that stands still ends by itself and says where; one that gets on is left alone."""

import ctypes
import re
import time
from dataclasses import dataclass

import pytest
from packs import write_small_pack
from recorded import CONTEXT, STEPS, around_losses, ends, starts, train, wait

from nrh_dist.engine import checkpoint
from nrh_dist.engine.watchdog import FIRST, Watchdog, standstills, watched

FOR_EVER = 600


def sleeps_for_ever():
    time.sleep(FOR_EVER)


def holds_the_lock_for_ever():
    """In C, without releasing Python's lock: no thread of Python could notice."""
    ctypes.PyDLL(None).sleep(FOR_EVER)


def matches_for_ever():
    re.fullmatch(r"(a|a)*b", "a" * 64)


def _stands_still(folder, seconds, beats, still):
    with watched(folder, 3, seconds) as beat:
        for _ in range(beats):
            beat()
            time.sleep(0.01)
        still()


def _lives(folder, seconds, pauses):
    with watched(folder, 3, seconds) as beat:
        beat()
        for pause in pauses:
            time.sleep(pause)
            beat()


def ended(function, *arguments):
    """Exit code and seconds of ``function`` in a process of its own."""
    process = CONTEXT.Process(target=function, args=arguments)
    process.start()
    started = time.monotonic()
    codes = wait([process], 60)
    return codes[0], time.monotonic() - started


@pytest.fixture(scope="module", autouse=True)
def server(tmp_path_factory):
    """The process that others are forked from is started before anything is timed."""
    ended(_lives, tmp_path_factory.mktemp("first"), 5, [0.0])


@pytest.mark.parametrize("still", [sleeps_for_ever, holds_the_lock_for_ever, matches_for_ever])
def test_a_standstill_ends_the_process_and_names_the_function(tmp_path, still):
    code, seconds = ended(_stands_still, tmp_path, 1.0, 3, still)
    assert code == 1 and 1.0 < seconds < 15
    assert [path.name for path in standstills(tmp_path)] == ["stacks-rank3.txt"]
    assert f"in {still.__name__}" in (tmp_path / "stacks-rank3.txt").read_text()


def test_a_start_has_more_time(tmp_path):
    code, seconds = ended(_stands_still, tmp_path, 0.2, 0, sleeps_for_ever)
    assert code == 1 and seconds > 0.2 * FIRST
    assert "in sleeps_for_ever" in (tmp_path / "stacks-rank3.txt").read_text()


@pytest.mark.parametrize("pauses", [[0.1] * 20, [0.5, 3.0]], ids=["beating", "slow steps"])
def test_who_gets_on_is_left_alone(tmp_path, pauses):
    """Also with a step of three times the limit, when the one before took half of it."""
    assert ended(_lives, tmp_path, 1.0, pauses)[0] == 0
    assert not list(tmp_path.iterdir()) and standstills(tmp_path) == []


def test_without_slow_steps_before_the_limit_holds(tmp_path):
    """The same pause is a standstill where the steps before were fast."""
    assert ended(_lives, tmp_path, 1.0, [0.01, 3.0])[0] == 1


def test_after_the_end_nobody_watches(tmp_path):
    watchdog = Watchdog(tmp_path, 0, 0.1)
    watchdog.beat()
    watchdog.close()
    time.sleep(0.5)
    assert not list(tmp_path.iterdir())


@dataclass(frozen=True)
class StandsStill:
    """``rank`` never returns from step ``step``."""

    step: int
    rank: int

    def __call__(self, place):
        taken = []

        def losses(values, batch):
            taken.append(batch)
            if place.rank == self.rank and len(taken) == self.step:
                sleeps_for_ever()
            return values

        around_losses(losses)


class StartsSlowly:
    """The first step takes three times ``scale.hang_seconds``, as one that is compiled may."""

    def __call__(self, place):
        taken = []

        def losses(values, batch):
            taken.append(batch)
            time.sleep(3.0 if len(taken) == 1 else 0.0)
            return values

        around_losses(losses)


@pytest.mark.parametrize("model", [("model.name=dih_nm",), ("model.name=gated", "model.fusion_width=8")])
def test_a_slow_first_step_is_no_standstill(tmp_path, model):
    """Also where the features of a frozen encoder were looked up before."""
    pack = write_small_pack(tmp_path / "data").root
    words = (*model, "scale.hang_seconds=1", "train.epochs=1")
    assert train(tmp_path / "r", pack, words, 1, StartsSlowly()) == [0]
    assert not list((tmp_path / "r").glob("stacks*"))


@pytest.mark.parametrize("rank", [0, 1])
def test_one_of_two_ranks_stands_still(tmp_path, rank):
    """It says where, both end, and the same command goes on from the newest checkpoint, to the same weights."""
    pack = write_small_pack(tmp_path / "data").root
    words = ("model.name=dih_nm", "scale.hang_seconds=1", "train.checkpoint_steps=3")
    folder, world, step = tmp_path / "r", 2, 8
    started = time.monotonic()
    codes = train(folder, pack, words, world, StandsStill(step, rank))
    assert codes[rank] == 1 and codes[1 - rank] != 0
    assert time.monotonic() - started < 60
    stacks = folder / f"stacks-rank{rank}.txt"
    assert "in sleeps_for_ever" in stacks.read_text() and "in _step" in stacks.read_text()
    assert checkpoint.read_meta(checkpoint.newest(folder).path)["step"] == 6
    assert train(folder, pack, words, world) == [0] * world
    assert starts(folder)[1] == list(range(7, 3 * STEPS + 1))
    assert f"an earlier start stood still: {stacks} says where" in (folder / "said.txt").read_text()
    assert train(tmp_path / "whole", pack, words, world) == [0] * world
    assert ends(folder, world) == ends(tmp_path / "whole", world)
    assert not standstills(tmp_path / "whole")
