"""A run's copy in the storage: against a real S3 server on loopback, behind a proxy that goes wrong as told."""

import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import recorded
from copies import as_it_was, copy_of, kept, mirrored, names
from packs import write_small_pack
from recorded import MISTAKE, STEPS, KillAtStep, die, ends, record, starts, steps, train
from test_keeper import finished
from test_resume import assert_same_files

from nrh_dist.engine import checkpoint, mirror, rundir, storage
from nrh_dist.engine.dist import Place
from nrh_dist.engine.mirror import Mirror
from nrh_dist.engine.storage import Storage, open_storage
from nrh_dist.errors import UserError

WORDS = ("model.name=dih_nm", "model.dropout=true", "train.checkpoint_steps=3")


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """No test waits long between two attempts."""
    monkeypatch.setattr(storage, "PAUSE_SECONDS", 0.05)


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return write_small_pack(tmp_path_factory.mktemp("mirror")).root


@pytest.fixture(scope="module")
def whole(tmp_path_factory, pack):
    """By number of ranks: the folder of a run that nobody interrupted, and that has no storage."""
    root, made = tmp_path_factory.mktemp("whole"), {}

    def folder_of(world):
        if world not in made:
            assert train(root / f"{world}" / "run", pack, WORDS, world) == [0] * world
            made[world] = root / f"{world}" / "run"
        return made[world]

    return folder_of


@dataclass(frozen=True)
class Changed:
    """In a process of a training: the keys for the storage, shorter limits, and ``roots`` of each rank's own disk."""

    limit: float = 30.0
    roots: tuple[str, ...] = ()
    keys: dict[str, str] = field(
        default_factory=lambda: {
            name: os.environ[name]
            for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_EC2_METADATA_DISABLED")
        }
    )

    def __call__(self, place):
        os.environ.update(self.keys)
        storage.PAUSE_SECONDS, storage.LIMIT_SECONDS = 0.05, self.limit
        if self.roots:
            real = recorded.configured

            def configured(folder, *words):
                return real(folder, *words, f"run.root={self.roots[place.rank]}")

            recorded.configured = configured


@dataclass(frozen=True)
class KillWhileSending:
    """SIGKILL when a file of the checkpoint of ``step`` is about to be sent, and others of it are there."""

    step: int
    file: str

    def __call__(self, place):
        real = Storage.put_open

        def put_open(self_, descriptor, name):
            if name.endswith(f"step-{self.step:06d}/{self.file}"):
                die()
            return real(self_, descriptor, name)

        Storage.put_open = put_open


def said(folder):
    return (folder / "said.txt").read_text().splitlines()


@pytest.mark.parametrize("world", [1, 2])
def test_a_run_on_an_empty_disk_goes_on_exactly_from_the_storage(tmp_path, pack, whole, s3, world):
    """Two ranks: on a disk each, and the new main rank has none of the old one's files."""
    words = (*WORDS, f"storage={s3.address}")
    one, other, third = (tmp_path / name / "run" for name in ("one", "other", "third"))
    disks = Changed(roots=(str(one.parent), str(third.parent))[:world])
    assert min(train(one, pack, words, world, disks, KillAtStep(7, rank=world - 1))) == -9
    there = kept(copy_of(s3))
    assert there and there[-1] in ("epoch-0001-step-000004", "epoch-0001-step-000006")
    shutil.rmtree(one.parent)
    disks = Changed(roots=(str(other.parent), str(tmp_path / "fourth"))[:world])
    assert train(other, pack, words, world, disks) == [0] * world
    resumed_from = int(there[-1][-6:])
    for rank in range(world):
        assert starts(other, rank)[-1] == list(range(resumed_from + 1, 3 * STEPS + 1))
        expected = {line["step"]: line for line in steps(whole(world), rank)}
        for line in steps(other, rank):
            assert line == expected[line["step"]], "order of samples and losses"
    assert ends(other, world) == ends(whole(world), world), "the weights of every rank"
    assert_same_files(other, whole(world))
    assert as_it_was(copy_of(s3), other)
    assert "fetched the checkpoint" in said(other)[0] or "fetched the checkpoint" in said(other)[1]


@pytest.mark.parametrize("file", [checkpoint.WEIGHTS, checkpoint.META])
def test_a_kill_in_the_middle_of_sending_leaves_the_checkpoint_before(tmp_path, pack, whole, s3, file):
    words = (*WORDS, f"storage={s3.address}")
    assert train(tmp_path / "one" / "run", pack, words, 1, Changed(), KillWhileSending(8, file)) == [-9]
    assert kept(copy_of(s3))[-1] == "epoch-0001-step-000006"
    shutil.rmtree(tmp_path / "one")
    folder = tmp_path / "other" / "run"
    assert train(folder, pack, words, 1, Changed()) == [0]
    assert starts(folder)[0][0] == 7
    assert_same_files(folder, whole(1))
    assert as_it_was(copy_of(s3), folder), "what was half there is whole or gone"


def test_a_storage_changes_nothing_and_a_busy_one_gets_everything(tmp_path, pack, whole, s3):
    s3.fail("busy", "PUT", times=4)
    folder = tmp_path / "run"
    assert train(folder, pack, (*WORDS, f"storage={s3.address}"), 1, Changed()) == [0]
    assert steps(folder) == steps(whole(1)) and ends(folder, 1) == ends(whole(1), 1)
    assert_same_files(folder, whole(1))
    assert as_it_was(copy_of(s3), folder)
    assert not any("fails" in line for line in said(folder))


def test_a_storage_that_goes_away_stops_no_training_and_the_same_command_sends_the_rest(tmp_path, pack, whole, s3):
    """Silence from the second checkpoint on: bounded waits, a line each, exit code 1 at the end."""
    folder, words = tmp_path / "run", (*WORDS, f"storage={s3.address}")
    s3.fail("stall", "PUT .*step-000004", seconds=60)
    s3.fail("stall", "PUT .*step-0000(06|08|09|12)", seconds=60)
    assert train(folder, pack, words, 1, Changed(limit=0.3)) == [MISTAKE]
    assert steps(folder) == steps(whole(1)), "the training went on to its end"
    assert_same_files(folder, whole(1))
    mistake = record(folder)[-1]["mistake"]
    assert mistake.startswith(f"only on this disk, in {folder}: checkpoints/") and "\n" not in mistake
    assert "no answer within" in mistake and mistake.endswith("the same command sends it")
    lines = [line for line in said(folder) if "the training goes on, and the next checkpoint tries again" in line]
    assert lines and all("no answer within" in line for line in lines)
    s3.heal()
    assert train(folder, pack, words, 1, Changed()) == [0]
    assert starts(folder)[1] == [], "nothing is trained again"
    assert as_it_was(copy_of(s3), folder)


def test_what_is_pruned_here_is_pruned_there_and_never_the_best(s3, tmp_path):
    mirrored(s3, tmp_path / "run", [5.0, 1.0, 4.0, 3.0, 2.0, 2.5])
    assert kept(copy_of(s3)) == names(tmp_path / "run") == [f"epoch-{n:04d}-step-{n * 10:06d}" for n in (2, 4, 5, 6)]
    assert as_it_was(copy_of(s3), tmp_path / "run")
    assert not any("epoch-0001" in name for name in copy_of(s3).sizes())
    assert next(line.split("?")[0][-13:] for line in s3.seen if line.startswith("DELETE")) == "manifest.json"


def test_a_name_belongs_to_one_configuration_in_the_storage_too(s3, tmp_path):
    def one(root, *words):
        return recorded.configured(tmp_path / root / "run", *WORDS, f"storage={s3.address}", *words)

    with rundir.claimed(one("a")):
        pass
    with rundir.claimed(one("b", "scale.workers=2")) as folder:
        assert (folder / "config.yaml").exists()
    different = r"s3://.*/run.* was made with another configuration \(optim\.lr: 0\.001 -> 0\.5\): choose another"
    with pytest.raises(UserError, match=different), rundir.claimed(one("c", "optim.lr=0.5")):
        pass
    assert not (tmp_path / "c").exists(), "nothing was begun"


def test_a_storage_that_is_down_at_the_start_begins_nothing(s3, tmp_path, pack):
    """As a user sees it: one line, exit code 1, no folder."""
    s3.close()
    words = [*recorded.COMMON, *WORDS, f"data.pack={pack}", f"run.root={tmp_path / 'runs'}", "run.name=r"]
    command = [sys.executable, "-m", "nrh_dist", "train", *words, f"storage={s3.address}"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 1 and not (tmp_path / "runs").exists()
    (line,) = ended.stderr.splitlines()
    assert line.startswith("nrh: the storage s3://") and "NETWORK_CONNECTION" in line


def test_a_damaged_checkpoint_of_this_disk_is_not_sent(s3, tmp_path):
    finished(tmp_path / "run", [3.0, 2.0])
    (tmp_path / "run" / "checkpoints" / "epoch-0002-step-000020" / checkpoint.WEIGHTS).write_bytes(b"other")
    lines = []
    Mirror(copy_of(s3), tmp_path / "run", lines.append).finish()
    assert kept(copy_of(s3)) == ["epoch-0001-step-000010"]
    assert lines == ["the checkpoint epoch-0002-step-000020 reads back damaged from this disk and is not sent"]


def test_a_save_waits_for_the_one_before_but_not_for_ever(s3, tmp_path):
    lines = []
    finished(tmp_path / "run", [1.0])
    copy = Mirror(copy_of(s3), tmp_path / "run", lines.append, patience=0.2)
    s3.fail("stall", "PUT .*model", times=1, seconds=2)
    copy.send()
    started = time.monotonic()
    copy.send()
    assert 0.2 <= time.monotonic() - started < 1
    assert len(lines) == 1 and "slower than the checkpoints" in lines[0]
    shutil.rmtree(tmp_path / "run" / "checkpoints")  # as pruning may
    copy.settle()
    assert kept(copy_of(s3)) == ["epoch-0001-step-000010"], "what was handed over is sent"


def test_without_a_storage_there_is_no_thread(tmp_path, pack):
    one = recorded.configured(tmp_path / "run", *WORDS)
    copy = mirror.mirror_of(one, tmp_path / "run", print)
    assert copy is mirror.NOWHERE
    before = threading.active_count()
    for act in (copy.bring, copy.send, copy.settle, copy.finish):
        act()
    copy.share(tmp_path, Place())
    assert threading.active_count() == before


def test_a_folder_is_a_storage_too(tmp_path, pack, whole):
    words = (*WORDS, f"storage={tmp_path / 'kept'}")
    assert train(tmp_path / "one" / "run", pack, words, 1, KillAtStep(7)) == [-9]
    shutil.rmtree(tmp_path / "one")
    folder = tmp_path / "other" / "run"
    assert train(folder, pack, words) == [0]
    assert_same_files(folder, whole(1))
    assert as_it_was(open_storage(str(tmp_path / "kept" / "run")), folder)
    assert not [*Path(tmp_path / "kept").rglob(".*.partial")]
