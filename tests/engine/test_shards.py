import errno
import os

import numpy as np
import pytest

from nrh_dist.engine import shards
from nrh_dist.engine.shards import DONE, VALUES, Shards

HEADER = {"pack": "a", "entries": [("identity", None, False)]}


def opened(folder, header=HEADER):
    return Shards(folder, header, rows=10, width=3, chunk=4)


def values(*chunks):
    return np.concatenate([np.full((2 if chunk == 2 else 4, 3), chunk + 0.5) for chunk in chunks])


def test_chunks_are_kept_over_lives_in_any_order(tmp_path):
    first = opened(tmp_path)
    assert first.missing() == [0, 1, 2] and not shards.is_begun(tmp_path)
    first.write([2, 0], values(2, 0))
    again = opened(tmp_path)
    assert again.missing() == [1] and shards.is_begun(tmp_path)
    again.write([1], values(1))
    assert np.array_equal(opened(tmp_path).read(slice(None)), values(0, 1, 2))
    assert opened(tmp_path).column(1).tolist() == [0.5] * 4 + [1.5] * 4 + [2.5] * 2


def test_numbers_of_something_else_are_forgotten(tmp_path):
    opened(tmp_path).write([0], values(0))
    assert opened(tmp_path, {**HEADER, "pack": "b"}).missing() == [0, 1, 2]
    assert opened(tmp_path).missing() == [0, 1, 2], "and do not come back"


@pytest.mark.parametrize("damage", ["a bit", "the log's end", "no newline", "rubbish", "a shorter file"])
def test_what_does_not_verify_is_done_again(tmp_path, damage):
    one = opened(tmp_path)
    one.write([0], values(0))
    one.write([1], values(1))
    log = tmp_path / DONE
    if damage == "a bit":
        content = bytearray((tmp_path / VALUES).read_bytes())
        content[4 * 3 * 8 + 5] ^= 1
        (tmp_path / VALUES).write_bytes(content)
    elif damage == "the log's end":
        log.write_text(log.read_text()[:-3])
    elif damage == "no newline":
        log.write_text(log.read_text()[:-1])
    elif damage == "rubbish":
        log.write_text(log.read_text().replace("\n1 ", "\n99 ") + "x y\n7\n1 2 z\n")
    else:
        os.truncate(tmp_path / VALUES, 4 * 3 * 8)
    again = opened(tmp_path)
    assert again.missing() == [1, 2]
    again.write([1, 2], values(1, 2))
    last = opened(tmp_path)
    assert last.missing() in ([], [1]) and np.array_equal(last.read(slice(0, 4)), values(0))


def test_nan_is_a_value(tmp_path):
    opened(tmp_path).write([2], np.full((2, 3), np.nan))
    assert opened(tmp_path).missing() == [0, 1] and np.isnan(opened(tmp_path).column(0)[8:]).all()


def test_a_full_disk_is_told_before_anything_is_mapped(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        opened(tmp_path)


def test_room_is_made_where_the_system_has_no_call_for_it(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "posix_fallocate")
    monkeypatch.setattr(shards, "BLOCK", 100)
    opened(tmp_path).write([1], values(1))
    assert opened(tmp_path).missing() == [0, 2] and (tmp_path / VALUES).stat().st_size == 8 * 10 * 3


def test_the_time_of_all_lives_is_told(tmp_path, monkeypatch):
    for life in range(3):
        one = opened(tmp_path)
        assert one.seconds == pytest.approx(2.5 * life, abs=1e-5)
        now = one._since + 2.5
        monkeypatch.setattr(shards.time, "monotonic", lambda now=now: now)
        one.write([life], values(life))
        monkeypatch.undo()
    assert opened(tmp_path, {**HEADER, "pack": "b"}).seconds == 0


def test_remove_leaves_other_files(tmp_path):
    (tmp_path / "mine").touch()
    opened(tmp_path).write([0], values(0))
    shards.remove(tmp_path)
    shards.remove(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
