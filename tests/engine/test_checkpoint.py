import errno
import json
import random
import shutil
import subprocess
import sys
from dataclasses import asdict

import pytest
import torch

from nrh_dist import config, models
from nrh_dist.engine import checkpoint
from nrh_dist.errors import UserError

FILES = (checkpoint.WEIGHTS, checkpoint.STATE, checkpoint.META, checkpoint.MANIFEST)


def save(run, epoch, step, value=1.0, **metrics):
    weights = {"a": torch.full((3,), value)}
    meta = {"epoch": epoch, "step": step, "metrics": metrics}
    return checkpoint.save(run / "checkpoints", weights, {"state": {"epoch": epoch}}, meta)


def store(run, epoch, *, size=3, keep=2, best=None):
    return checkpoint.store(run, {"a": torch.ones(size)}, {}, {"epoch": epoch, "step": epoch * 10}, keep, best)


@pytest.fixture(scope="module")
def trained():
    """Weights, state and meta of a small real model after one step of Adam."""
    one = config.load(None, ["preset=tiny", "model.name=dih_nm", "model.width=0.05"])
    model = models.build(asdict(one.model), one.data.size)
    optimiser = torch.optim.Adam(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimiser.step()
    meta = {"model": asdict(one.model), "size": one.data.size, "metrics": {"val/loss": 0.25}}
    return model.state_dict(), {"state": {"epoch": 1}, "optimiser": optimiser.state_dict()}, meta


@pytest.fixture
def pair(tmp_path, trained):
    """Two real checkpoints: the older and the newer."""
    weights, state, meta = trained
    return [
        checkpoint.save(tmp_path / "checkpoints", weights, state, {**meta, "epoch": epoch, "step": 10 * epoch})
        for epoch in (1, 2)
    ]


def assert_falls_back(tmp_path, older, newer, named):
    found = checkpoint.newest(tmp_path)
    assert found.path == older
    assert [path for path, _ in found.skipped] == [newer]
    assert named in found.skipped[0][1]
    with pytest.raises(UserError, match=r"damaged|is not a checkpoint"):
        checkpoint.read_meta(newer)


def test_round_trip(tmp_path):
    path = save(tmp_path, 3, 420, 2.5)
    assert path.name == "epoch-0003-step-000420"
    assert {file.name for file in path.iterdir()} == set(FILES)
    assert checkpoint.read_weights(path)["a"].tolist() == [2.5] * 3
    assert checkpoint.read_state(path) == {"state": {"epoch": 3}}
    assert checkpoint.read_meta(path)["step"] == 420
    assert list(path.parent.iterdir()) == [path]


def test_a_real_checkpoint_comes_back_bit_for_bit(pair, trained):
    weights, state, _ = trained
    for key, value in checkpoint.read_weights(pair[1]).items():
        assert torch.equal(value, weights[key])
    for key, value in checkpoint.read_state(pair[1])["optimiser"]["state"].items():
        assert torch.equal(value["exp_avg_sq"], state["optimiser"]["state"][key]["exp_avg_sq"])


@pytest.mark.parametrize("name", FILES)
def test_every_loss_of_bytes_falls_back_to_the_one_before(tmp_path, pair, name):
    older, newer = pair
    file = newer / name
    good = file.read_bytes()
    length = len(good)
    block = slice(length // 3, length // 3 + 64)
    damaged = {"truncated to " + str(left): good[:left] for left in (0, 1, length // 2, length - 1)}
    damaged |= {"zeroed": bytes(length), "a block zeroed": good[: block.start] + bytes(64) + good[block.stop :]}
    damaged |= {"a byte more": good + b"\n", "of the other": (older / name).read_bytes() + b" "}
    for what, content in damaged.items():
        assert content != good, what
        file.write_bytes(content)
        assert_falls_back(tmp_path, older, newer, name if content else "")
    file.unlink()
    assert_falls_back(tmp_path, older, newer, f"{name} is missing")
    file.mkdir()
    assert_falls_back(tmp_path, older, newer, f"{name} cannot be read (Is a directory)")
    file.rmdir()
    file.write_bytes(good)
    assert checkpoint.newest(tmp_path) == (newer, [])


@pytest.mark.parametrize("name", FILES)
def test_every_flipped_bit_falls_back_to_the_one_before(tmp_path, pair, name):
    """A hundred random bits of each file; of the manifest, one random bit of each byte."""
    older, newer = pair
    draw = random.Random(name)
    content = bytearray((newer / name).read_bytes())
    bytes_hit = range(len(content)) if name == checkpoint.MANIFEST else draw.sample(range(len(content)), 100)
    for position in bytes_hit:
        bit = 1 << draw.randrange(8)
        content[position] ^= bit
        (newer / name).write_bytes(content)
        content[position] ^= bit
        reason = checkpoint.fault(newer)
        assert reason and (name in reason or checkpoint.MANIFEST in reason), (position, bit)
    assert_falls_back(tmp_path, older, newer, "")


def test_a_swap_of_two_files_and_another_manifest_are_seen(tmp_path, pair):
    older, newer = pair
    shutil.copy(older / checkpoint.META, newer / checkpoint.META)
    assert_falls_back(tmp_path, older, newer, checkpoint.META)
    shutil.copy(older / checkpoint.MANIFEST, newer / checkpoint.MANIFEST)  # it is the older one under another name
    assert checkpoint.fault(newer) is None
    stated = json.loads((newer / checkpoint.MANIFEST).read_text())
    (newer / checkpoint.MANIFEST).write_text(json.dumps(stated))
    assert_falls_back(tmp_path, older, newer, "manifest.json was altered")


def test_files_and_folders_beside_do_no_harm(tmp_path, pair):
    (pair[1] / "notes.txt").write_text("mine")
    for name in ("epoch-0009-step-000090.bak", "epoch-x-step-y", ".epoch-0009-step-000090.partial"):
        (tmp_path / "checkpoints" / name).mkdir()
    (tmp_path / "checkpoints" / "epoch-0009-step-000090").touch()
    assert checkpoint.newest(tmp_path) == (pair[1], [])
    assert checkpoint.checkpoints(tmp_path) == pair


def test_what_a_kill_left_is_not_seen_and_goes_with_the_next_save(tmp_path):
    save(tmp_path, 1, 10)
    parent = tmp_path / "checkpoints"
    for name in (".epoch-0002-step-000020.partial", ".epoch-0001-step-000010.damaged"):
        (parent / name).mkdir()
        (parent / name / checkpoint.META).touch()
    assert checkpoint.newest(tmp_path).path.name == "epoch-0001-step-000010"
    save(tmp_path, 2, 20)
    assert checkpoint.newest(tmp_path).path.name == "epoch-0002-step-000020"
    assert sorted(path.name for path in parent.iterdir()) == ["epoch-0001-step-000010", "epoch-0002-step-000020"]


def test_a_sound_one_of_the_same_step_stays(tmp_path):
    path = save(tmp_path, 1, 10, 1.0)
    inode = path.stat().st_ino
    assert save(tmp_path, 1, 10, 2.0) == path
    assert path.stat().st_ino == inode and checkpoint.read_weights(path)["a"][0] == 1.0
    path.rename(tmp_path / "checkpoints" / "epoch-0001-step-000020")
    other = save(tmp_path, 1, 20, 3.0)  # the folder there is sound, but of another step
    assert checkpoint.read_weights(other)["a"][0] == 3.0


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_one_of_the_same_step_is_replaced(tmp_path, name):
    path = save(tmp_path, 1, 10, 1.0)
    (path / name).write_bytes(b"")
    assert save(tmp_path, 1, 10, 2.0) == path
    assert checkpoint.fault(path) is None and checkpoint.read_weights(path)["a"][0] == 2.0
    assert list(path.parent.iterdir()) == [path]


def test_a_kill_at_any_moment_of_a_save_leaves_a_sound_one(tmp_path, monkeypatch):
    """Every call of the system that changes a name or a file fails once, as the last thing that the process does."""

    class Killed(BaseException): ...

    steps = [(checkpoint.Path, "mkdir"), (checkpoint.os, "fsync"), (checkpoint.Path, "rename")]
    killed = 0
    for damaged in (False, True):
        for owner, name in steps:
            for number in range(6):
                run = tmp_path / f"{damaged}-{name}-{number}"
                older, newer = save(run, 1, 10), save(run, 2, 20)
                if damaged:
                    (newer / checkpoint.META).write_text("{}")
                else:
                    shutil.rmtree(newer)
                calls = iter(range(100))
                function = getattr(owner, name)

                def deadly(*given, function=function, calls=calls, number=number, **options):
                    if next(calls) == number:
                        raise Killed
                    return function(*given, **options)

                with monkeypatch.context() as patch:
                    patch.setattr(owner, name, deadly)
                    patch.setattr(checkpoint.shutil, "rmtree", lambda *_, **__: None)  # the dead clear nothing up
                    try:
                        save(run, 2, 20, 2.0)
                    except Killed:
                        killed += 1
                assert checkpoint.newest(run).path in (older, newer)
                assert checkpoint.read_weights(save(run, 2, 20, 2.0))["a"][0] == 2.0
                assert len(list((run / "checkpoints").iterdir())) == 2
    assert killed >= 12


def test_store_saves_and_prunes(tmp_path):
    best = store(tmp_path, 1)
    for epoch in range(2, 6):
        path = store(tmp_path, epoch, best=best)
        assert checkpoint.newest(tmp_path) == (path, [])
    assert [one.name for one in checkpoint.checkpoints(tmp_path)] == [
        checkpoint.checkpoint_name(epoch, epoch * 10) for epoch in (1, 4, 5)
    ]


def test_prune_keeps_the_last_and_the_best(tmp_path):
    paths = [save(tmp_path, epoch, epoch * 10) for epoch in range(1, 6)]
    checkpoint.prune(tmp_path, 2, paths[0])
    assert checkpoint.checkpoints(tmp_path) == [paths[0], paths[3], paths[4]]


def test_what_best_json_names_stays_until_it_names_another(tmp_path):
    """A new best is named after it is written: a full disk or a kill in between must leave the old one."""
    paths = [save(tmp_path, epoch, epoch * 10) for epoch in range(1, 6)]
    (tmp_path / "best.json").write_text(json.dumps({"checkpoint": f"checkpoints/{paths[1].name}"}))
    checkpoint.prune(tmp_path, 1, tmp_path / "checkpoints" / "epoch-0006-step-000060")
    assert checkpoint.checkpoints(tmp_path) == [paths[1], paths[4]]
    (tmp_path / "best.json").write_text("[")
    checkpoint.prune(tmp_path, 1, None)
    assert checkpoint.checkpoints(tmp_path) == paths[4:]


def test_damaged_newer_ones_do_not_push_the_sound_ones_out(tmp_path):
    """As after a resume from the first of four: the three others failed, and must not count."""
    paths = [save(tmp_path, epoch, epoch * 10) for epoch in range(1, 5)]
    for path in paths[1:]:
        (path / checkpoint.STATE).write_bytes(b"")
    checkpoint.prune(tmp_path, 2, None)
    assert checkpoint.checkpoints(tmp_path) == paths[:1]
    (paths[0] / checkpoint.STATE).write_bytes(b"")
    checkpoint.prune(tmp_path, 2, None)
    assert checkpoint.checkpoints(tmp_path) == paths[:1], "where none verifies, nothing is deleted"


def test_newest_by_step_also_within_an_epoch(tmp_path):
    save(tmp_path, 1, 10)
    newest = save(tmp_path, 1, 15)
    assert checkpoint.newest(tmp_path).path == newest


def test_best_of_those_that_verify(tmp_path):
    assert checkpoint.best_of(tmp_path, "val/loss") is None
    save(tmp_path, 0, 5)  # within an epoch: no metrics
    assert checkpoint.best_of(tmp_path, "val/loss") is None
    values = (0.5, 0.1, 0.3, 0.3)
    paths = [save(tmp_path, epoch, epoch * 10, **{"val/loss": value}) for epoch, value in enumerate(values, 1)]
    assert checkpoint.best_of(tmp_path, "val/loss") == (paths[1], 0.1)
    (paths[1] / checkpoint.STATE).write_bytes(b"")
    assert checkpoint.best_of(tmp_path, "val/loss") == (paths[2], 0.3)
    assert checkpoint.best_of(tmp_path, "val/psnr") is None


def test_no_foreign_objects_are_unpickled(tmp_path):
    path = save(tmp_path, 1, 10)

    class Evil:
        def __reduce__(self):
            return (print, ("unpickled",))

    torch.save(Evil(), path / checkpoint.STATE)
    with pytest.raises(UserError, match=r"training_state\.pt cannot be read \(UnpicklingError: Weights only"):
        checkpoint.read_state(path)


def test_files_that_are_not_ours_are_one_line(tmp_path):
    path = save(tmp_path, 1, 10)
    (path / checkpoint.WEIGHTS).write_bytes(b"x" * 100)
    (path / checkpoint.STATE).unlink()
    with pytest.raises(UserError, match=r"model\.safetensors cannot be read \(SafetensorError: [^\n]*\)$"):
        checkpoint.read_weights(path)
    with pytest.raises(UserError, match=r"training_state\.pt cannot be read \(FileNotFoundError"):
        checkpoint.read_state(path)


class TestOfARealDisk:
    """A file system of 1 MiB in memory, where the test may make one."""

    SIZE = 50_000  # floats of a checkpoint: 0.2 MB

    @pytest.fixture
    def disk(self, tmp_path):
        folder = tmp_path / "disk"
        folder.mkdir()
        made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", folder], capture_output=True)
        if made.returncode:
            pytest.skip("cannot mount a small file system here")
        yield folder
        subprocess.run(["umount", "-l", folder], check=True)

    def test_old_checkpoints_make_room_for_new_ones(self, disk):
        best = store(disk, 1, size=self.SIZE, keep=100)
        for epoch in range(2, 12):
            path = store(disk, epoch, size=self.SIZE, keep=100, best=best)
            assert checkpoint.newest(disk) == (path, [])
            assert checkpoint.fault(best) is None
            assert not list((disk / "checkpoints").glob(".*"))
        assert len(checkpoint.checkpoints(disk)) < 6, "the disk was never full: the test shows nothing"

    def test_a_disk_that_stays_full_is_one_line_and_nothing_is_lost(self, disk):
        best = store(disk, 1, size=self.SIZE, keep=100)
        paths = [best, *(store(disk, epoch, size=self.SIZE, keep=100, best=best) for epoch in (2, 3))]
        fill(disk / "thesis")
        # Even the room of epoch 2 is too little for this one.
        with pytest.raises(UserError) as caught:
            store(disk, 4, size=3 * self.SIZE, keep=100, best=best)
        line = str(caught.value)
        assert chr(10) not in line and str(disk) in line and "No space left on device (601," in line
        assert f"sound and still there: {best.name}, {paths[2].name}" in line
        assert line.endswith(f"goes on from {paths[2].name}") and "bytes needed, " in line and " free)" in line
        assert checkpoint.checkpoints(disk) == [best, paths[2]]
        assert not list((disk / "checkpoints").glob(".*"))
        (disk / "thesis").unlink()
        store(disk, 4, size=self.SIZE, keep=100, best=best)

    def test_the_first_save_on_a_full_disk(self, disk):
        fill(disk / "thesis")
        with pytest.raises(UserError, match=r"no checkpoint is there yet"):
            store(disk, 1, size=self.SIZE)

    def test_a_disk_that_became_read_only(self, disk):
        path = store(disk, 1)
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        with pytest.raises(UserError, match=rf"Read-only file system; sound and still there: {path.name}"):
            store(disk, 2)

    def test_small_files_make_room_too(self, disk):
        paths = [store(disk, epoch, size=self.SIZE, keep=100) for epoch in (1, 2)]
        fill(disk / "thesis")
        checkpoint.making_room(disk, None, lambda: (disk / "metrics.jsonl").write_text("{}\n" * 1000))
        assert checkpoint.checkpoints(disk) == paths[1:]


def fill(file):
    with file.open("wb", buffering=0) as stream, pytest.raises(OSError, match="No space"):
        while True:
            stream.write(bytes(4096))


def test_a_quota_counts_as_full_and_other_errors_do_not(tmp_path):
    for code, tries in ((errno.EDQUOT, 2), (errno.EIO, 1)):
        calls = []

        def failing(code=code, calls=calls):
            calls.append(code)
            raise OSError(code, "reason")

        with pytest.raises(UserError, match=r"cannot write to .*: reason"):
            checkpoint.making_room(tmp_path, None, failing)
        assert len(calls) == tries


def test_a_file_that_may_not_grow_is_one_line(tmp_path):
    """Another error of a real disk, in a process of its own: the limit of file sizes."""
    older = store(tmp_path, 1)
    code = (
        "import resource, sys, torch\nfrom pathlib import Path\nfrom nrh_dist.engine import checkpoint\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))\n"
        "meta = {'epoch': 2, 'step': 20}\n"
        "checkpoint.store(Path(sys.argv[1]), {'a': torch.ones(5000)}, {}, meta, 2, None)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert f"File too large; sound and still there: {older.name}; the same command goes on" in done.stderr
    assert checkpoint.newest(tmp_path) == (older, []) and list((tmp_path / "checkpoints").iterdir()) == [older]


def test_a_folder_that_is_gone_is_not_made_anew(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    store(run, 1)
    shutil.rmtree(run)
    with pytest.raises(UserError, match="No such file or directory: the folder is gone"):
        store(run, 2)
    assert not run.exists()


def test_a_disk_that_gives_back_something_else_is_found_before_the_older_ones_go(tmp_path, monkeypatch):
    older = store(tmp_path, 1, keep=1)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "manifest_of", lambda sums, manifest=checkpoint.manifest_of: manifest(sums) + b" ")
        saved = checkpoint.save(tmp_path / "checkpoints", {}, {}, {"epoch": 2, "step": 20})
    monkeypatch.setattr(checkpoint, "_write", lambda *_: saved)
    with pytest.raises(UserError, match=rf"reads back damaged .*goes on from {older.name}"):
        store(tmp_path, 2, keep=1)
    assert checkpoint.newest(tmp_path).path == older
