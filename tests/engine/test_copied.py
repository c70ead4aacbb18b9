"""What the copy of a run holds, and how it is brought back: the newest, the best, nothing damaged, nothing outside."""

import json
import shutil

import faulty_s3
import pytest
from copies import copy_of, mirrored, names
from test_keeper import finished, keeper_of

from nrh_dist.engine import checkpoint, copied, select, track
from nrh_dist.engine.mirror import Mirror
from nrh_dist.engine.storage import Storage, StorageProblem


def test_the_newer_of_the_two_wins(s3, tmp_path):
    one, other, copy = tmp_path / "one", tmp_path / "other", copy_of(s3)
    mirrored(s3, one, [3.0, 2.0])
    shutil.copytree(one, other)
    copied.bring(copy, other, print)
    before = [line for line in s3.seen if line.startswith("GET") and "checkpoints" in line]
    assert before == [], "nothing to fetch"
    mirrored_on = Mirror(copy, one, print)
    keeper = keeper_of(one)
    keeper.copy, state = mirrored_on, keeper.restore()
    state.epoch, state.step = 3, 30
    keeper.finish_epoch(state, {"epoch": 3, "val/loss": 1.0})
    mirrored_on.settle()
    copied.bring(copy, other, print)
    assert names(other)[-1] == "epoch-0003-step-000030" and select.read_best(other)["value"] == 1.0
    assert [row["epoch"] for row in track.rows_up_to(other, 99)] == [1, 2, 3]
    assert copied.reached(copy, tmp_path / "none") == "epoch-0003-step-000030" == copied.reached(None, other)
    finished(third := tmp_path / "third", [3.0, 2.0, 1.5, 1.4])
    copied.bring(copy, third, print)
    assert names(third)[-1] == "epoch-0004-step-000040" and select.read_best(third)["value"] == 1.4


def test_who_is_interrupted_while_fetching_loses_no_rows(s3, tmp_path, monkeypatch):
    mirrored(s3, tmp_path / "run", [3.0, 2.0, 1.0])
    finished(other := tmp_path / "other", [3.0])
    monkeypatch.setattr(Storage, "get", interrupted(Storage.get, (copied.ROWS, checkpoint.BEST)))
    with pytest.raises(StorageProblem):
        copied.bring(copy_of(s3), other, print)
    monkeypatch.undo()
    copied.bring(copy_of(s3), other, print)
    assert names(other)[-1] == "epoch-0003-step-000030" and select.read_best(other)["value"] == 1.0
    assert [row["epoch"] for row in track.rows_up_to(other, 99)] == [1, 2, 3]


def interrupted(get, names):
    def fails(place, name, path, size):
        if name in names:
            raise StorageProblem("no answer")
        return get(place, name, path, size)

    return fails


def test_what_the_copy_lacks_is_seen(s3, tmp_path):
    mirrored(s3, folder := tmp_path / "run", [3.0, 2.0])
    copy = copy_of(s3)
    assert not copied.is_behind(copy, folder) and not copied.is_behind(copy, tmp_path / "nothing")
    copy.remove("checkpoints/epoch-0002-step-000020/manifest.json")
    assert copied.is_behind(copy, folder)
    Mirror(copy, folder, print).finish()
    assert not copied.is_behind(copy, folder)
    with (folder / copied.ROWS).open("a") as rows:
        rows.write("{}\n")
    assert copied.is_behind(copy, folder)


def test_the_best_comes_too_also_where_best_json_is_older(s3, tmp_path):
    mirrored(s3, tmp_path / "run", [5.0, 1.0, 4.0, 3.0, 2.0])
    stale = {"schema": 1, "checkpoint": "checkpoints/epoch-0001-step-000010", "metric": "val/loss", "value": 5.0}
    copy_of(s3).put(json.dumps(stale).encode(), "best.json")
    keeper = keeper_of(tmp_path / "other")
    keeper.copy = Mirror(copy_of(s3), tmp_path / "other", print)
    assert keeper.restore().best_name == "epoch-0002-step-000020"
    assert names(tmp_path / "other") == ["epoch-0002-step-000020", "epoch-0005-step-000050"]
    assert select.read_best(tmp_path / "other")["checkpoint"].name == "epoch-0002-step-000020"


def test_a_flipped_bit_there_is_skipped_and_named(s3, tmp_path):
    mirrored(s3, tmp_path / "run", [3.0, 2.0, 1.0])
    name = "checkpoints/epoch-0003-step-000030/model.safetensors"
    content = bytearray(copy_of(s3).read(name))
    content[-1] ^= 1
    copy_of(s3).put(bytes(content), name)
    lines = []
    copied.bring(copy_of(s3), tmp_path / "other", lines.append)
    assert names(tmp_path / "other") == ["epoch-0002-step-000020"]
    assert any("skipped the checkpoint epoch-0003-step-000030 in s3://" in line for line in lines)
    assert any("model.safetensors does not match its sha256" in line for line in lines)


def test_a_listing_cannot_write_outside_the_folder(s3, s3_server, tmp_path):
    mirrored(s3, tmp_path / "run", [1.0])
    for key in ("../escaped", "../../escaped", "checkpoints/../../escaped", "checkpoints/epoch-0009-step-000090/../x"):
        faulty_s3.put(s3_server, f"{s3.bucket}/kept/run/{key}", b"x")
    for file in (*checkpoint.OWN, checkpoint.MANIFEST):
        faulty_s3.put(s3_server, f"{s3.bucket}/kept/run/checkpoints/../{file}", b"x")
    other = tmp_path / "deep" / "other"
    copied.bring(copy_of(s3), other, print)
    assert names(other) == ["epoch-0001-step-000010"]
    assert [path.name for path in other.parent.iterdir()] == ["other"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "run"]
