"""COCO-Exp, one pair at a time: what is written, what is rejected and why."""

import csv
import json
import resource
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nrh_dist.data import coco_exp
from nrh_dist.data.coco_exp import Maker, Outcome, Settings, work_order
from nrh_dist.data.pairs import Instance, Pair

SQUARE = [[10, 10, 40, 10, 40, 30, 10, 30]]


@pytest.fixture
def out(tmp_path):
    coco_exp.prepare(tmp_path / "out")
    return tmp_path / "out"


@pytest.fixture
def instance(tmp_path):
    """Makes an object in a photo of its own: random pixels about a level, or what ``photo`` gives."""

    def make(number, level=100, photo=None, segmentation=SQUARE, name=None):
        path = tmp_path / (name or f"{number}.jpg")
        if photo is None:
            noise = np.random.default_rng(number).integers(-30, 30, (40, 50, 3))
            photo = np.clip(level + noise, 0, 255).astype(np.uint8)
        Image.fromarray(photo).save(path, quality=95)
        return Instance(number * 100, number, "cat", path, 40, 50, json.dumps(segmentation).encode())

    return make


def read(path):
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def files(out):
    return sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())


def test_jpeg_writes_three_files_and_keeps_the_photo_byte_for_byte(instance, out):
    pair = Pair(5, 2, instance(1), instance(2, level=160))
    outcome = Maker(Settings(0), out).make(pair)
    assert files(out) == [
        "COCOExp/composite_images/c1_100_2.jpg",
        "COCOExp/masks/c1_100.png",
        "COCOExp/real_images/c1.jpg",
    ]
    assert (out / "COCOExp/real_images/c1.jpg").read_bytes() == pair.target.photo.read_bytes()
    assert (outcome.index, outcome.rejected) == (5, "")
    assert outcome.area_fraction == pytest.approx(20 * 30 / 2000)
    assert outcome.shift_stops > coco_exp.SUB_THRESHOLD_STOPS
    with Image.open(out / "COCOExp/composite_images/c1_100_2.jpg") as image:
        assert image.layer == [(1, 1, 1, 0), (2, 1, 1, 1), (3, 1, 1, 1)]  # 4:4:4
        assert image.quantization[0][0] == 2  # quality 95


def test_an_empty_real_photo_or_mask_is_written_again(instance, out):
    maker, pair = Maker(Settings(0), out), Pair(5, 2, instance(1), instance(2, level=160))
    maker.make(pair)
    whole = {name: (out / name).read_bytes() for name in files(out)}
    for name in whole:
        (out / name).write_bytes(b"")
    maker.make(pair)
    assert {name: (out / name).read_bytes() for name in files(out)} == whole


def test_what_the_disk_takes_half_of_is_not_there(out):
    """A limit on the size of files, as a full disk, lets a write end early without an error."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    earlier = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        with pytest.raises(OSError, match="File too large"):
            coco_exp._write(out / "whole", b"x" * 3000, out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, earlier)
    assert not (out / "whole").exists()


def test_png_is_exact_outside_the_mask(instance, out):
    pair = Pair(0, 1, instance(1), instance(2, level=60))
    outcome = Maker(Settings(0, format="png"), out).make(pair)
    real, composite = read(out / "COCOExp/real_images/c1.png"), read(out / "COCOExp/composite_images/c1_100_1.png")
    mask = np.asarray(Image.open(out / "COCOExp/masks/c1_100.png"))
    np.testing.assert_array_equal(real, read(pair.target.photo))
    np.testing.assert_array_equal(composite[mask == 0], real[mask == 0])
    assert (composite[mask > 0].mean() < real[mask > 0].mean()) == (outcome.shift_stops < 0)
    assert set(np.unique(mask)) == {0, 255}


def rejections(instance, tmp_path):
    """Pairs that must be rejected, with the reason."""
    good, bright = instance(1), instance(2, level=150)
    broken = instance(3)
    broken.photo.write_bytes(broken.photo.read_bytes()[:700])
    missing = instance(4)
    missing.photo.unlink()
    flat = instance(5, photo=np.full((40, 50, 3), 90, np.uint8))
    empty = instance(9, segmentation=[])
    tiny = instance(6, segmentation=[[10, 10, 13, 10, 13, 13, 10, 13]])
    other_size = instance(7, photo=np.zeros((30, 50, 3), np.uint8))
    torn = instance(8, segmentation={"size": [40, 50], "counts": [3]})
    return [
        (good, flat, "flat"),
        (flat, good, "flat"),
        (tiny, good, "tiny"),
        (good, tiny, "tiny"),
        (empty, good, "empty"),
        (good, empty, "empty"),
        (good, good, "no change"),
        (broken, good, "unreadable"),
        (bright, missing, "unreadable"),
        (other_size, good, "unreadable"),
        (good, torn, "unreadable"),
    ]


def test_unusable_pairs_are_rejected_and_leave_no_file(instance, out, tmp_path):
    for target, reference, reason in rejections(instance, tmp_path):
        outcome = Maker(Settings(0), out).make(Pair(0, 1, target, reference))
        assert outcome.rejected == reason
        assert bool(outcome.detail) == (reason == "unreadable")
    assert files(out) == []


@pytest.mark.parametrize("method", ["meanstd", "hist"])
def test_what_a_maker_remembers_changes_nothing(instance, tmp_path, monkeypatch, method):
    """Pairs in two orders, and with a memory of one object: the same outcomes and the same files."""
    objects = [instance(number, level=60 + 20 * number) for number in range(1, 6)]
    both = [Pair(0, 1, objects[0], objects[1])]
    both += [Pair(1, 1, objects[1], objects[0]), Pair(2, 2, objects[0], objects[3]), Pair(3, 1, objects[4], objects[0])]
    both += [Pair(4, 1, objects[3], objects[4]), Pair(5, 2, objects[1], objects[4]), Pair(6, 3, objects[0], objects[2])]
    results = []
    for name, pairs, remembered in (
        ("a", both, 1),
        ("b", sorted(both, key=work_order), 1000),
        ("c", both[::-1], 1000),
    ):
        monkeypatch.setitem(coco_exp.REMEMBERED, method, remembered)
        coco_exp.prepare(tmp_path / name)
        outcomes = Maker(Settings(0, method, "lab"), tmp_path / name).make_all(pairs)
        written = {path.name: path.read_bytes() for path in (tmp_path / name).rglob("*") if path.is_file()}
        results.append((sorted(outcomes, key=lambda outcome: outcome.index), written))
    assert len(results[0][1]) == 7 + 2 * 4
    assert results[0] == results[1] == results[2]


def test_lists_and_manifest_hold_both_splits_and_keep_other_sub_sets(instance, out):
    (out / "IHD_test.txt").write_text("HCOCO/composite_images/c9_9_1.jpg\n")
    target, reference = instance(1), instance(2)
    outcome = Outcome(0, area_fraction=0.3, shift_stops=-0.1, clipped_share=0.25, mse=12.5)
    test = [(Pair(0, 1, target, reference), outcome)]
    train = [(Pair(3, 1, reference, target), Outcome(3, area_fraction=0.3, shift_stops=1.5))]
    coco_exp.write_lists(test, Settings(7, "hist", "lab", "png", "test"), out)
    coco_exp.write_lists(train, Settings(0, split="train"), out)
    coco_exp.write_lists(train, Settings(0, split="train"), out)
    assert (out / "IHD_test.txt").read_text().splitlines() == [
        "HCOCO/composite_images/c9_9_1.jpg",
        "COCOExp/composite_images/c1_100_1.png",
    ]
    assert (out / "IHD_train.txt").read_text() == "COCOExp/composite_images/c2_200_1.jpg\n"
    assert (out / "COCOExp/COCOExp_train.txt").read_text() == "c2_200_1.jpg\n"
    with (out / "manifest.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["split"] for row in rows] == ["train", "test"]
    assert rows[1] == {
        "composite": "c1_100_1.png",
        "split": "test",
        "category": "cat",
        "photo_id": "1",
        "annotation_id": "100",
        "reference_photo_id": "2",
        "reference_annotation_id": "200",
        "area_fraction": "0.300000",
        "shift_stops": "-0.100000",
        "sub_threshold": "1",
        "clipped_share": "0.250000",
        "mse": "12.500000",
        "method": "hist",
        "channels": "lab",
        "seed": "7",
    }
    assert rows[0]["sub_threshold"] == "0"
    assert coco_exp.listed_photos(out, "train") == {"c2"}
    assert coco_exp.listed_photos(Path("nowhere"), "train") == set()
