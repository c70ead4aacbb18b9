import csv

import pytest
from packs import write_small_pack

from nrh_dist.cli import main
from nrh_dist.data.layouts import Source, index
from nrh_dist.data.pack import open_pack, write_pack
from nrh_dist.data.synthetic import write_sample
from nrh_dist.engine.storage import open_storage
from nrh_dist.workflows.coco_exp import make


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return write_small_pack(tmp_path_factory.mktemp("evaluate"), train=4)


def nrh(*words):
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return ended.value.code


def test_data_and_result_in_a_storage_are_those_of_a_disk(ray_session, s3, pack, tmp_path, cache):
    place = open_storage(s3.address)
    files = sorted(path for path in pack.root.iterdir() if path.is_file())
    for path in sorted(files, key=lambda path: path.name == "pack.json"):
        place.child("pack").put(path, path.name)
    address, query = s3.address.split("?")
    here, there = tmp_path / "e", f"{address}/e?{query}"
    assert nrh("evaluate", "identity", "--data", pack.root, "--out", here) == 0
    place.child("e").put(b"of an earlier one", "strips/old.png")
    assert nrh("evaluate", "identity", "--data", f"{address}/pack?{query}", "--out", there) == 0
    sent = place.child("e").sizes()
    assert set(sent) == {str(path.relative_to(here)) for path in here.rglob("*") if path.is_file()}
    assert place.child("e").read("per_image.csv") == (here / "per_image.csv").read_bytes()
    assert len([*csv.DictReader(place.child("e").read("per_image.csv").decode().splitlines())]) > 0
    puts = [line.split()[1].split("?")[0] for line in s3.seen if line.startswith("PUT") and "/e/" in line]
    assert puts[-1].endswith("e/summary.json"), "last of all"
    assert not [*(cache / "evaluations").rglob("summary.json")], "nothing of it stays in the cache"


@pytest.mark.slow
def test_coco_exp_tells_categories_and_shifts_wherever_it_lies(ray_session, s3, tmp_path, capsys):
    """As a folder, as the sub-set in it, as its pack, and as its pack in a storage."""
    write_sample(tmp_path / "sample", seed=0, say=lambda _: None)
    coco = tmp_path / "sample" / "coco"
    annotations, images = coco / "annotations" / "instances_val2017.json", coco / "val2017"
    make(images, annotations, tmp_path / "set", 6, 0, "meanstd", "l", "png", "test", 1, lambda _: None)
    before = write_pack(index(Source(tmp_path / "set")), tmp_path / "pack", 256, 1, lambda _: None)
    assert nrh("evaluate", "identity", "--data", tmp_path / "pack", "--out", tmp_path / "bare") == 0
    assert "categories and shifts of COCO-Exp stay empty" in capsys.readouterr().out
    assert nrh("data", "pack", tmp_path / "set", tmp_path / "pack") == 0
    assert open_pack(tmp_path / "pack").digest == before.digest, "a training on it goes on"
    place = open_storage(s3.address)
    files = [path for path in (tmp_path / "pack").iterdir() if path.is_file()]
    for path in sorted(files, key=lambda path: path.name == "pack.json"):
        place.put(path, path.name)
    found = []
    for number, data in enumerate((tmp_path / "set", tmp_path / "set" / "COCOExp", tmp_path / "pack", s3.address)):
        assert nrh("evaluate", "identity", "--data", data, "--out", tmp_path / f"e{number}") == 0
        found.append((tmp_path / f"e{number}" / "per_image.csv").read_text())
    assert found[0] == found[1] == found[2] == found[3] != (tmp_path / "bare" / "per_image.csv").read_text()
    assert all(row["category"] and float(row["shift_stops"]) for row in csv.DictReader(found[0].splitlines()))
    assert "stay empty" not in capsys.readouterr().out


def test_files_of_others_are_not_deleted(s3, pack, capsys):
    open_storage(s3.address).put(b"thesis", "thesis.tex")
    assert nrh("evaluate", "identity", "--data", pack.root, "--out", s3.address) == 1
    assert "holds thesis.tex, which is of no evaluation" in capsys.readouterr().err
    assert open_storage(s3.address).read("thesis.tex") == b"thesis"


@pytest.mark.slow
def test_what_cannot_be_sent_is_kept_and_named(ray_session, s3, pack, capsys, cache, monkeypatch):
    monkeypatch.setattr("nrh_dist.engine.storage.PAUSE_SECONDS", 0.01)
    s3.fail("busy", "PUT .*per_image", times=20)
    assert nrh("evaluate", "identity", "--data", pack.root, "--out", s3.address) == 1
    assert "could not be sent" in capsys.readouterr().err
    assert open_storage(s3.address).read("summary.json") is None
    assert [*(cache / "evaluations").rglob("summary.json")]
    s3.heal()
    assert nrh("evaluate", "identity", "--data", pack.root, "--out", s3.address) == 0
    assert open_storage(s3.address).read("summary.json")
