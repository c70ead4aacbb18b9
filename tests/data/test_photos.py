"""Photos with marked objects: COCO annotations and folders of photos and masks, as samples and as packs."""

import json

import numpy as np
import pytest
from PIL import Image

from nrh_dist.data import synthetic
from nrh_dist.data.layouts import Source, index, scan
from nrh_dist.data.pack import check, open_pack, write_pack
from nrh_dist.data.photos import OBJECTS_PER_PHOTO
from nrh_dist.data.verify import verify
from nrh_dist.errors import UserError

HEIGHT, WIDTH = 40, 60


def silent(_: str) -> None:
    pass


def write_photo(path, seed=0, mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)


def rectangle(left, top, right, bottom):
    return [[left, top, right, top, right, bottom, left, bottom]]


def run_lengths(first, count):
    """Uncompressed: columns of zeros, then ones, then zeros."""
    return {"size": [HEIGHT, WIDTH], "counts": [first * HEIGHT, count * HEIGHT, (WIDTH - first - count) * HEIGHT]}


@pytest.fixture
def coco(tmp_path):
    """Three photos (JPEG, grey PNG, CMYK JPEG) with six objects: polygons, run lengths, a crowd and a tiny one."""

    def write(**changes):
        photos = {1: "a.jpg", 2: "b.png", 3: "c.jpg"}
        for number, (name, mode) in enumerate(zip(photos.values(), ("RGB", "L", "CMYK"), strict=True)):
            write_photo(tmp_path / "photos" / name, number, mode)
        objects = [
            (11, 1, rectangle(5, 5, 25, 25), 400, 0),
            (12, 1, run_lengths(30, 10), 400, 0),
            (13, 1, run_lengths(0, 20), 800, 1),
            (14, 2, rectangle(0, 0, 30, 40), 1200, 0),
            (15, 2, rectangle(0, 0, 2, 2), 4, 0),
            (16, 3, rectangle(10, 10, 50, 30), 800, 0),
        ]
        content = {
            "images": [{"id": i, "file_name": name, "width": WIDTH, "height": HEIGHT} for i, name in photos.items()],
            "annotations": [
                {"id": i, "image_id": photo, "category_id": 1, "segmentation": s, "area": area, "iscrowd": crowd}
                for i, photo, s, area, crowd in objects
            ],
            "categories": [{"id": 1, "name": "thing"}],
        } | changes
        (tmp_path / "instances.json").write_text(json.dumps(content))
        return Source(tmp_path / "photos", tmp_path / "instances.json")

    return write


def test_objects_of_coco_are_samples_whose_composite_is_the_photo(coco):
    samples = index(coco())
    assert [sample.name for sample in samples] == ["c1_11", "c1_12", "c2_14", "c3_16"]
    assert {sample.split for sample in samples} == {"train"}
    assert [sample.group for sample in samples] == ["coco:1", "coco:1", "coco:2", "coco:3"]
    assert all(sample.composite == sample.real for sample in samples)


def test_a_crowded_photo_gives_a_few_objects_and_always_the_same(coco):
    many = [
        {"id": i, "image_id": 1, "category_id": 1, "segmentation": rectangle(0, 0, 20, 20), "area": 400}
        for i in range(1, 21)
    ]
    names = [sample.name for sample in index(coco(annotations=many))]
    assert len(names) == OBJECTS_PER_PHOTO
    assert names == sorted(names, key=lambda name: int(name.split("_")[1])) != ["c1_1", "c1_2", "c1_3"]
    assert [sample.name for sample in index(coco(annotations=many[::-1]))] == names


def test_a_pack_of_photos_has_no_composites_and_the_right_masks(coco, tmp_path):
    pack = write_pack(index(coco()), tmp_path / "pack", 8, 2, silent)
    assert not (tmp_path / "pack/composites.u8").exists()
    assert not pack.has_composites
    np.testing.assert_array_equal(pack.composites, pack.reals)
    assert pack.area_fractions == pytest.approx([400 / 2400, 400 / 2400, 1200 / 2400, 800 / 2400])
    assert pack.masks[1].mean() == pytest.approx(255 / 6, abs=2)
    assert (pack.masks[1][:, :3] == 0).all() and (pack.masks[1][:, 6:] == 0).all()
    assert (pack.reals[2][..., 0] == pack.reals[2][..., 1]).all(), "the grey photo"
    check(pack.root)
    (pack.root / "reals.u8").write_bytes(b"")
    with pytest.raises(UserError, match=r"reals\.u8 has 0 bytes"):
        open_pack(pack.root)


def test_photos_and_masks_are_paired_by_name_and_split_by_it(tmp_path):
    for number in range(60):
        write_photo(tmp_path / f"data/images/p{number}.{'jpg' if number % 2 else 'PNG'}", number)
        write_photo(tmp_path / f"data/masks/p{number}.png", number, "L")
    samples = index(Source(tmp_path / "data"))
    assert len(samples) == 60 and {sample.dataset for sample in samples} == {"data"}
    tested = [sample.name for sample in samples if sample.split == "test"]
    assert 5 < len(tested) < 20
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    again = index(Source(tmp_path / "elsewhere"))
    assert [sample.name for sample in again if sample.split == "test"] == tested, "the split is that of the names"


def test_what_is_missing_or_broken_is_listed(coco, tmp_path):
    source = coco()
    (source.root / "b.png").unlink()
    with pytest.raises(UserError, match=r"1 files are missing .*b\.png: is missing; nrh data verify .*--annotations"):
        index(source)
    (source.root / "a.jpg").write_bytes((source.root / "a.jpg").read_bytes()[:400])
    Image.new("RGB", (10, 10)).save(source.root / "c.jpg")
    found = {problem.path.name: problem.reason for problem in verify(source, 1)}
    assert found["b.png"] == "is missing"
    assert "truncated" in found["a.jpg"]
    assert found["c.jpg"] == f"is 10x10 pixels, but its annotation 16 is for {WIDTH}x{HEIGHT}"

    for kind, name in (("images", "one"), ("images", "two"), ("masks", "two"), ("masks", "three")):
        write_photo(tmp_path / f"folder/{kind}/{name}.png", 0, "L")
    write_photo(tmp_path / "folder/images/two.jpg")
    samples, problems = scan(Source(tmp_path / "folder"))
    assert [sample.name for sample in samples] == ["two"]
    assert [(problem.path.name, problem.reason.split(" in ")[0]) for problem in problems] == [
        ("two.png", "has the name of two.jpg: which one is meant?"),
        ("one.png", "has no mask"),
        ("three.png", "has no photo"),
    ]


def test_data_without_an_object_are_refused(coco, tmp_path):
    crowd = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": run_lengths(0, 20), "area": 800, "iscrowd": 1}
    with pytest.raises(UserError, match="no object to train on: 1 crowd"):
        index(coco(annotations=[crowd]))
    with pytest.raises(UserError, match="no object to train on: none at all"):
        index(coco(annotations=[]))
    (tmp_path / "empty/images").mkdir(parents=True)
    (tmp_path / "empty/masks").mkdir()
    with pytest.raises(UserError, match="holds no JPEG or PNG photo"):
        index(Source(tmp_path / "empty"))
    broken = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": {"counts": "x", "size": [1, 2]}, "area": 800}
    with pytest.raises(UserError, match=r"a\.jpg: annotation 1: a segmentation is of size"):
        write_pack(index(coco(annotations=[broken])), tmp_path / "pack", 8, 1, silent)


def test_the_sample_is_read_as_coco(tmp_path):
    synthetic.write_sample(tmp_path, say=silent, train_photos=6, test_photos=4)
    coco = tmp_path / "coco"
    source = Source(coco / "train2017", coco / "annotations/instances_train2017.json")
    assert verify(source, 1) == []


def test_real_photos(real_photos):
    samples = index(Source(real_photos / "thresholds"))
    assert len(samples) == 235
    assert 30 < sum(sample.split == "test" for sample in samples) < 65
    coco = real_photos / "coco-mini"
    objects = index(Source(coco / "val2017", coco / "annotations/instances_val2017.json"))
    assert 190 < len(objects) < 3 * 194
