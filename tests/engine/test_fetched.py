import pytest
from choices import make_real_run
from packs import write_small_pack

from nrh_dist.cli import main
from nrh_dist.engine import checkpoint, fetched, select
from nrh_dist.engine.fetched import Origin
from nrh_dist.engine.mirror import Mirror
from nrh_dist.engine.storage import Storage, open_storage
from nrh_dist.errors import UserError


@pytest.fixture
def sent(s3, tmp_path):
    """A run on this disk that is in the storage as well; its checkpoint, and a word for a name below the storage."""
    path = make_real_run(tmp_path / "runs", "one", "gated")
    Mirror(open_storage(s3.address).child("one"), path.parent.parent, print).finish()
    address, query = s3.address.split("?")
    return path, lambda name: f"{address}/{name}?{query}"


def nrh(*words):
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return ended.value.code


def test_a_checkpoint_of_an_address_is_fetched_once_and_verified(s3, sent):
    path, at = sent
    found = select.resolve(at(f"one/checkpoints/{path.name}"))
    assert checkpoint.digest(found) == checkpoint.digest(path) and select.run_of(found) == "one"
    asked = len(s3.seen)
    assert select.resolve(at(f"one/checkpoints/{path.name}")) == found
    assert not any("safetensors" in line for line in s3.seen[asked:])


def test_a_damaged_checkpoint_is_refused(s3, sent):
    path, at = sent
    name = f"one/checkpoints/{path.name}/{checkpoint.WEIGHTS}"
    content = bytearray(open_storage(s3.address).read(name))
    content[-1] ^= 1
    open_storage(s3.address).put(bytes(content), name)
    with pytest.raises(UserError, match=r"is damaged: model\.safetensors does not match"):
        select.resolve(at(f"one/checkpoints/{path.name}"))


def test_a_checkpoint_without_its_manifest_does_not_exist(s3, sent):
    path, at = sent
    open_storage(s3.address).remove(f"one/checkpoints/{path.name}/{checkpoint.MANIFEST}")
    with pytest.raises(UserError, match=r"holds no checkpoint and no best\.json"):
        select.resolve(at(f"one/checkpoints/{path.name}"))


def test_a_plain_path_that_a_machine_lacks_is_named(tmp_path):
    with pytest.raises(UserError, match=r"the machine \S+ has no /.*/pack: give a folder that all machines see, or an"):
        fetched.here(fetched.origin(tmp_path / "pack"), print)


def test_another_machine_fetches_what_it_lacks(s3, tmp_path, monkeypatch):
    pack = write_small_pack(tmp_path, train=2).root
    for file in sorted(pack.iterdir(), key=lambda file: file.name == "pack.json"):
        if file.is_file():
            open_storage(s3.address).put(file, file.name)
    origin = fetched.origin(fetched.pack(s3.address, print))
    assert origin.address.startswith("s3://")
    monkeypatch.setenv("NRH_CACHE", str(tmp_path / "another"))
    moved = origin._replace(path=tmp_path / "nowhere")
    found = fetched.here(moved, print)
    assert found.is_relative_to(tmp_path / "another")
    assert (found / "pack.json").read_bytes() == (pack / "pack.json").read_bytes()
    assert fetched.here(Origin(pack), print) == pack


def test_what_a_machine_fetched_before_is_not_what_is_there_now(s3, tmp_path, monkeypatch):
    def put(train):
        pack = write_small_pack(tmp_path / str(train), train=train).root
        for file in sorted(pack.iterdir(), key=lambda file: file.name == "pack.json"):
            if file.is_file():
                open_storage(s3.address).put(file, file.name)
        return (pack / "pack.json").read_bytes()

    put(2)
    old = fetched.origin(fetched.pack(s3.address, print))
    stated = put(3)
    monkeypatch.setenv("NRH_CACHE", str(tmp_path / "drivers"))
    new = fetched.origin(fetched.pack(s3.address, print))
    monkeypatch.setenv("NRH_CACHE", str(tmp_path / "workers"))
    found = fetched.here(new._replace(path=old.path), print)
    assert (found / "pack.json").read_bytes() == stated
    with pytest.raises(UserError, match=r"was replaced since this began"):
        fetched.here(old._replace(path=tmp_path / "nowhere"), print)


def test_a_run_that_was_trained_anew_under_its_name_is_fetched_anew(sent, s3, tmp_path, monkeypatch):
    path, _ = sent
    checkpoints = fetched.results(s3.address, print) / "one" / "checkpoints"
    contents = {file.name: file.read_bytes() for file in path.iterdir()}
    weights = contents[checkpoint.WEIGHTS][:-1] + bytes([contents[checkpoint.WEIGHTS][-1] ^ 1])
    contents |= {checkpoint.WEIGHTS: weights}
    contents[checkpoint.MANIFEST] = checkpoint.manifest({name: contents[name] for name in checkpoint.OWN})
    for name, content in contents.items():
        open_storage(s3.address).put(content, f"one/checkpoints/{path.name}/{name}")
    fetched.results(s3.address, print)
    assert (checkpoints / path.name / checkpoint.WEIGHTS).read_bytes() == weights
    asked = len(s3.seen)
    fetched.results(s3.address, print)
    assert not any("safetensors" in line for line in s3.seen[asked:])


def test_a_checkpoint_that_is_pruned_while_it_is_fetched_is_none(sent, s3, monkeypatch):
    path, _ = sent
    get = Storage.get

    def pruned(place, name, target, size):
        if name.endswith(checkpoint.WEIGHTS):
            raise FileNotFoundError(name)
        get(place, name, target, size)

    monkeypatch.setattr(Storage, "get", pruned)
    folder = fetched.results(s3.address, print) / "one" / "checkpoints" / path.name
    assert folder.is_dir() and not [*folder.iterdir()]


def test_the_best_of_a_storage_is_named_and_exported(sent, s3, tmp_path, capsys):
    path, at = sent
    assert nrh("best", s3.address, "--export", tmp_path / "chosen") == 0
    said = capsys.readouterr().out
    assert "files were fetched into" in said and path.name in said
    assert checkpoint.fault(tmp_path / "chosen") is None
    assert nrh("best", at("nothing")) == 1
    assert "holds no run, sweep or evaluation" in capsys.readouterr().err
