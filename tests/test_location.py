from pathlib import Path

import pytest

from nrh_dist import config
from nrh_dist.errors import UserError
from nrh_dist.location import Location, absolute, cache_dir, is_remote, is_safe, parse


def test_addresses_and_folders():
    plain = parse("s3://bucket/a/prefix/")
    assert plain == Location("s3", "bucket/a/prefix") and plain.name == "prefix"
    other = parse("s3://bucket/p?endpoint_override=127.0.0.1:5555&scheme=http")
    assert dict(other.options) == {"endpoint_override": "127.0.0.1:5555", "scheme": "http"}
    assert other.child("run/x").path == "bucket/p/run/x"
    assert parse(str(other.child("run"))) == other.child("run"), "what is said can be given back"
    assert parse("gs://bucket") == Location("gs", "bucket")
    assert parse("/data//runs/") == Location("", "/data/runs") and parse("/data").child("r").path == "/data/r"


@pytest.mark.parametrize(
    ("word", "rule"),
    [
        ("s3://key:sesame@bucket/p", "carries a user, a password or a key"),
        ("s3://sesame@bucket/p", "carries a user, a password or a key"),
        ("s3://key:sesame/bucket", "carries a user, a password or a key"),
        ("s3://bucket/p?access_key=sesame", "has the option access_key"),
        ("s3://bucket/p?secret_key=sesame&scheme=http", "has the option secret_key"),
        ("s3://bucket/p?endpoint_override=me:sesame@host", "carries a user, a password or a key"),
        ("s3://bucket/p?scheme=ftp", "http or https"),
        ("s3://bucket/../other", "must be a bucket"),
        ("s3://bucket//p", "must be a bucket"),
        ("s3:///p", "must be a bucket"),
        ("http://host/p", "http:// is unknown"),
    ],
)
def test_what_is_refused_is_not_repeated_where_it_is_secret(word, rule):
    with pytest.raises(UserError, match=rule) as caught:
        config.load(None, [f"storage={word}"])
    assert "sesame" not in str(caught.value) and "\n" not in str(caught.value)


def test_names_that_lead_out_of_a_folder():
    assert all(map(is_safe, ("a", "a/b.json", "...", "ü")))
    bad = ("", ".", "..", "../a", "a/../b", "/a", "a//b", "a/", "a\\b", "a/./b", "a\nb", "a\0b")
    assert not any(map(is_safe, bad))


def test_an_address_is_no_path():
    assert is_remote("s3://b") and not is_remote("s3/b") and not is_remote("/s3://b")
    assert absolute("s3://b/c", Path("/w")) == "s3://b/c" and absolute("c", Path("/w")) == "/w/c"


def test_the_environment_names_the_storage_and_the_key_beats_it(monkeypatch):
    monkeypatch.setenv("NRH_STORAGE", "s3://bucket/from-environment")
    assert config.load(None, []).storage == "s3://bucket/from-environment"
    assert config.load(None, ["storage=kept"]).storage == "kept"
    monkeypatch.setenv("NRH_STORAGE", "s3://me:sesame@bucket")
    with pytest.raises(UserError, match="carries a user"):
        config.load(None, [])


def test_the_storage_is_no_part_of_what_a_run_is():
    one, other = config.load(None, []), config.load(None, ["storage=s3://bucket/p"])
    assert config.run_name(one) == config.run_name(other) and config.differing_keys(one, other) == []
    there = config.with_absolute_paths(config.load(None, ["storage=kept", "data.pack=s3://b/p"]), Path("/w"))
    assert (there.storage, there.data.pack) == ("/w/kept", "s3://b/p")
    with pytest.raises(UserError, match=r"run\.root is a folder of this machine; storage="):
        config.load(None, ["run.root=s3://bucket/runs"])


def test_place_of_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("NRH_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_dir() == tmp_path / ".cache/nrh_dist"
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_dir() == Path("/x/nrh_dist")
    monkeypatch.setenv("NRH_CACHE", "/y")
    assert cache_dir() == Path("/y")
