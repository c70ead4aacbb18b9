import pytest
import torch

from nrh_dist.engine import checkpoint
from nrh_dist.errors import UserError

FILES = (checkpoint.WEIGHTS, checkpoint.STATE, checkpoint.META, checkpoint.MANIFEST)


def save(run, epoch, step, value=1.0):
    weights = {"a": torch.full((3,), value)}
    return checkpoint.save(run / "checkpoints", weights, {"state": {"epoch": epoch}}, {"epoch": epoch, "step": step})


def test_round_trip(tmp_path):
    path = save(tmp_path, 3, 420, 2.5)
    assert path.name == "epoch-0003-step-000420"
    assert {file.name for file in path.iterdir()} == set(FILES)
    assert checkpoint.read_weights(path)["a"].tolist() == [2.5] * 3
    assert checkpoint.read_state(path) == {"state": {"epoch": 3}}
    assert checkpoint.read_meta(path)["step"] == 420
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["truncate", "zero", "flip", "remove"])
def test_every_damage_falls_back_to_the_one_before(tmp_path, name, damage):
    older, newer = save(tmp_path, 1, 10), save(tmp_path, 2, 20)
    file = newer / name
    content = bytearray(file.read_bytes())
    if damage == "remove":
        file.unlink()
    else:
        if damage == "truncate":
            content = content[: len(content) // 2]
        elif damage == "zero":
            content = bytearray(len(content))
        else:
            # a flip inside a sha256 of the manifest, or anywhere in another file
            content[content.find(b'": "') + 6 if name == checkpoint.MANIFEST else len(content) // 2] ^= 1
        file.write_bytes(content)
    found = checkpoint.newest(tmp_path)
    assert found.path == older
    assert [path for path, _ in found.skipped] == [newer]
    assert found.skipped[0][1]
    with pytest.raises(UserError, match=r"damaged|is not a checkpoint"):
        checkpoint.read_meta(newer)


def test_half_written_is_not_seen(tmp_path):
    save(tmp_path, 1, 10)
    (tmp_path / "checkpoints" / ".epoch-0002-step-000020.partial").mkdir()
    assert checkpoint.newest(tmp_path).path.name == "epoch-0001-step-000010"
    save(tmp_path, 2, 20)
    assert checkpoint.newest(tmp_path).path.name == "epoch-0002-step-000020"


def test_a_failing_disk_leaves_the_older_ones(tmp_path, monkeypatch):
    older = save(tmp_path, 1, 10)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match="No space"):
        save(tmp_path, 2, 20)
    assert checkpoint.newest(tmp_path).path == older


def test_prune_keeps_the_last_and_the_best(tmp_path):
    paths = [save(tmp_path, epoch, epoch * 10) for epoch in range(1, 6)]
    checkpoint.prune(tmp_path, 2, paths[0])
    assert checkpoint.checkpoints(tmp_path) == [paths[0], paths[3], paths[4]]


def test_newest_by_step_also_within_an_epoch(tmp_path):
    save(tmp_path, 1, 10)
    newest = save(tmp_path, 1, 15)
    assert checkpoint.newest(tmp_path).path == newest


def test_no_foreign_objects_are_unpickled(tmp_path):
    path = save(tmp_path, 1, 10)

    class Evil:
        def __reduce__(self):
            return (print, ("unpickled",))

    torch.save(Evil(), path / checkpoint.STATE)
    with pytest.raises(Exception, match=r"weights_only|Weights only"):
        checkpoint.read_state(path)
