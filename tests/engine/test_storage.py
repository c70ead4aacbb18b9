"""Against a real S3 server on loopback, behind a proxy that goes wrong, and against a folder."""

import hashlib
import subprocess
import sys
import threading
import time

import faulty_s3
import pytest

from nrh_dist.engine import storage
from nrh_dist.engine.storage import StorageProblem, open_storage

BIG = bytes(range(256)) * 2**16  # 16 MB: a file of several parts


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """No test waits long between two attempts."""
    monkeypatch.setattr(storage, "PAUSE_SECONDS", 0.05)


@pytest.fixture(params=["s3", "folder"])
def place(request, tmp_path):
    word = request.getfixturevalue("s3").address if request.param == "s3" else str(tmp_path / "kept")
    return open_storage(word)


def test_files_come_and_go(place, tmp_path):
    assert place.sizes() == {} and place.read("a/none") is None
    (tmp_path / "big").write_bytes(BIG)
    assert place.put(tmp_path / "big", "run/a/big") == hashlib.sha256(BIG).hexdigest()
    place.put(b"small", "run/b.json")
    place.put(b"hidden", "run/.stop")
    assert place.sizes() == {"run/a/big": len(BIG), "run/b.json": 5}
    assert place.child("run").sizes() == {"a/big": len(BIG), "b.json": 5}
    assert place.child("run").read(".stop") == b"hidden"
    place.get("run/a/big", tmp_path / "back", len(BIG))
    assert (tmp_path / "back").read_bytes() == BIG
    place.put(b"", "run/b.json")
    assert place.read("run/b.json") == b""
    for _ in range(2):  # also what is gone
        place.remove("run/b.json")
        place.remove_folder("run/a")
    assert place.sizes() == {}
    with pytest.raises(FileNotFoundError):
        place.get("run/a/big", tmp_path / "none")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_no_name_leads_out_of_its_folder(s3, s3_server, tmp_path):
    """An object store allows any key; whoever can write there must not write here."""
    for key in ("../escaped", "run/../../../escaped", "/escaped", "run\\..\\escaped", "run/./escaped"):
        faulty_s3.put(s3_server, f"{s3.bucket}/kept/{key}", b"x")
    place = open_storage(s3.address)
    place.put(b"good", "run/good")
    assert place.sizes() == {"run/good": 4}
    for name in ("../escaped", "/escaped", "a/../../escaped"):
        with pytest.raises(StorageProblem, match="leads out of its folder"):
            place.get(name, tmp_path / "x")


def test_a_busy_server_is_asked_again(s3):
    place = open_storage(s3.address)
    s3.fail("busy", "PUT", times=2)
    place.put(b"small", "a")
    s3.fail("busy", "GET", times=2)
    assert place.read("a") == b"small"
    assert sum(line.startswith("PUT") for line in s3.seen) == 3


def test_a_broken_connection_in_the_middle_of_a_file(s3, tmp_path):
    (tmp_path / "big").write_bytes(BIG)
    place = open_storage(s3.address)
    s3.fail("cut", "PUT .*partNumber=2", times=1, after=10**6)
    place.put(tmp_path / "big", "a")
    assert place.sizes() == {"a": len(BIG)}
    s3.fail("cut", "PUT .*partNumber=2", after=10**6)
    with pytest.raises(StorageProblem, match="cannot write b"):
        place.put(tmp_path / "big", "b")
    assert place.sizes() == {"a": len(BIG)}, "a file is there when its last byte is"


def test_silence_ends_by_the_time_limit(s3, monkeypatch):
    monkeypatch.setattr(storage, "LIMIT_SECONDS", 0.5)
    s3.fail("stall", seconds=5)
    place, started = open_storage(s3.address), time.monotonic()
    with pytest.raises(StorageProblem, match="cannot write a: no answer within"):
        place.put(b"x", "a")
    assert time.monotonic() - started < storage.ATTEMPTS * 0.5 + 1


def test_what_cannot_succeed_is_not_tried_again(s3):
    place = open_storage(s3.address.replace(s3.bucket, "no-such-bucket"))
    with pytest.raises(StorageProblem, match=r"NO_SUCH_BUCKET.*does not exist\)$") as caught:
        place.put(b"x", "a")
    assert "\n" not in str(caught.value)
    assert sum(line.startswith("PUT") for line in s3.seen) == 1


def test_nobody_answers(s3):
    s3.close()
    with pytest.raises(StorageProblem, match=r"the storage s3://.* fails \(cannot list files: NETWORK_CONNECTION"):
        open_storage(s3.address).sizes()


def test_a_file_that_is_deleted_while_it_is_sent(s3, tmp_path, monkeypatch):
    (tmp_path / "big").write_bytes(BIG)
    s3.fail("stall", "POST", seconds=0.5, times=1)
    place, sent = open_storage(s3.address), []
    thread = threading.Thread(target=lambda: sent.append(place.put(tmp_path / "big", "a")))
    thread.start()
    while not s3.seen:
        time.sleep(0.01)
    (tmp_path / "big").unlink()
    thread.join()
    assert sent == [hashlib.sha256(BIG).hexdigest()]


def test_google_cloud_storage_and_s3_are_given_time_limits(monkeypatch):
    from pyarrow import fs

    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    made = storage.file_system(storage.parse("s3://bucket/p?endpoint_override=127.0.0.1:1&scheme=http"))
    assert made.region == "eu-central-1"
    assert isinstance(storage.file_system(storage.parse("gs://bucket/p")), fs.GcsFileSystem)


def test_pyarrow_is_imported_by_the_first_request_only():
    code = (
        "import sys; from nrh_dist.engine import run, mirror, select, fetched, storage; "
        "storage.open_storage('s3://bucket/p'); print([m for m in sys.modules if m.startswith('pyarrow')])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.strip() == "[]"
