"""The embedded sample: both layouts are sound, the same seed gives the same bytes, and there is something to learn."""

import hashlib

import msgspec
import numpy as np
import pytest
from PIL import Image

from nrh_dist.data import coco, layouts, synthetic
from nrh_dist.data.images import read_mask, read_rgb
from nrh_dist.data.objects import KINDS
from nrh_dist.errors import UserError


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    out = tmp_path_factory.mktemp("sample")
    synthetic.write_sample(out, say=lambda line: None, train_photos=24, test_photos=6)
    return out


def digests(root):
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        synthetic.write_sample(tmp_path / name, seed, lambda line: None, train_photos=2, test_photos=1)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    assert digests(tmp_path / "a") != digests(tmp_path / "c")


def test_masks_of_the_annotations_are_those_of_the_objects(sample):
    """Polygons and run lengths decode to the mask of the same object in iHarmony4 layout."""
    instances = coco.load(sample / "coco/annotations/instances_train2017.json")
    kinds = {type(msgspec.json.decode(annotation.segmentation)) for annotation in instances.annotations}
    assert kinds == {list, dict}
    for annotation in instances.annotations:
        decoded = coco.decode_mask(bytes(annotation.segmentation), 128, 160) > 0
        assert decoded.sum() == pytest.approx(annotation.area, rel=0.05)
        if not annotation.iscrowd:
            path = sample / f"iharmony4/Sample/masks/s{annotation.image_id}_{annotation.id}.png"
            drawn = read_mask(path) >= 128
            assert (decoded & drawn).sum() / (decoded | drawn).sum() > 0.95


def test_coco_has_all_kinds_and_a_crowd_in_each_split(sample):
    for folder in ("train2017", "val2017"):
        instances = coco.load(sample / f"coco/annotations/instances_{folder}.json")
        assert [category.name for category in instances.categories] == list(KINDS)
        assert sum(annotation.iscrowd for annotation in instances.annotations) >= 1
        objects = [annotation for annotation in instances.annotations if not annotation.iscrowd]
        per_photo = np.bincount([annotation.image_id % 1000 for annotation in objects])[1:]
        assert set(per_photo) <= {2, 3}
        for photo in instances.images:
            assert read_rgb(sample / "coco" / folder / photo.file_name).shape == (128, 160, 3)


def test_composites_differ_from_their_photos_inside_the_object_only(sample):
    samples = layouts.index(layouts.Source(sample / "iharmony4"))
    assert {item.split for item in samples} == {"train", "test"}
    areas = []
    for item in samples:
        composite, real, mask = read_rgb(item.composite), read_rgb(item.real), read_mask(item.mask)
        difference = np.abs(composite.astype(int) - real)
        assert difference[mask >= 128].mean() > 8
        assert difference[mask == 0].mean() < 2  # JPEG
        assert ((mask > 0) & (mask < 255)).any()
        areas.append((mask >= 128).mean())
    assert min(areas) > 0.005
    assert len(set((10 * np.array(areas)).astype(int))) >= 4


def test_the_light_shows_how_objects_should_look(sample):
    """A scene's background tells the colour of its objects: the correlation that a network can learn from."""
    background, inside = [], []
    for item in layouts.index(layouts.Source(sample / "iharmony4")):
        photo, mask = read_rgb(item.real) / 255, read_mask(item.mask)
        background.append(photo[mask == 0].mean())
        inside.append(photo[mask >= 128].mean())
    assert np.corrcoef(background, inside)[0, 1] > 0.6


def test_photos_are_in_both_layouts_the_same(sample):
    one = sample / "coco/train2017/000000000003.jpg"
    assert one.read_bytes() == (sample / "iharmony4/Sample/real_images/s3.jpg").read_bytes()
    with Image.open(one) as image:
        assert image.size == (160, 128)


def test_an_existing_sample_is_not_overwritten(sample):
    before = digests(sample)
    with pytest.raises(UserError, match="exists already"):
        synthetic.write_sample(sample, seed=9)
    assert digests(sample) == before


@pytest.mark.parametrize("left", [["coco.partial", "iharmony4.partial"], ["coco", "iharmony4.partial"]])
def test_what_a_kill_left_is_made_anew(tmp_path, monkeypatch, left):
    def tiny(out, say):
        write(out, say=say, train_photos=2, test_photos=1)

    for name in left:
        (tmp_path / "sample" / name).mkdir(parents=True)
    write = synthetic.write_sample
    monkeypatch.setattr(synthetic, "write_sample", tiny)
    said = []
    for _ in range(2):
        synthetic.ensure_sample(tmp_path / "sample", said.append)
    assert len(said) == 1 and sorted(path.name for path in (tmp_path / "sample").iterdir()) == ["coco", "iharmony4"]
