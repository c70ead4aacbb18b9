import json

import pytest

from nrh_dist.data import coco
from nrh_dist.data.coco_merge import merge
from nrh_dist.data.images import read_rgb
from nrh_dist.data.synthetic import write_sample
from nrh_dist.errors import UserError


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """The train and the test photos of the sample, as two sets."""
    out = tmp_path_factory.mktemp("sample")
    write_sample(out, say=lambda line: None, train_photos=4, test_photos=3)
    folder = out / "coco"
    return [(folder / name, folder / "annotations" / f"instances_{name}.json") for name in ("train2017", "val2017")]


def test_everything_of_both_is_there_under_one_file(sets, tmp_path):
    merged = coco.load(merge(sets, tmp_path / "all"))
    one, other = (coco.load(file) for _, file in sets)
    assert len(merged.images) == len(one.images) + len(other.images)
    assert [annotation.segmentation for annotation in merged.annotations] == [
        annotation.segmentation for found in (one, other) for annotation in found.annotations
    ]
    for photo in merged.images:
        assert read_rgb(tmp_path / "all" / photo.file_name).shape[:2] == (photo.height, photo.width)


def test_categories_go_by_their_names(sets, tmp_path):
    (_, first), (images, second) = sets
    content = json.loads(second.read_text())
    shift = {one["id"]: one["id"] + 100 for one in content["categories"]}
    content["categories"] = [one | {"id": shift[one["id"]]} for one in content["categories"]]
    content["annotations"] = [one | {"category_id": shift[one["category_id"]]} for one in content["annotations"]]
    renumbered = tmp_path / "renumbered.json"
    renumbered.write_text(json.dumps(content))
    merged = coco.load(merge([sets[0], (images, renumbered)], tmp_path / "all"))
    names = {one.id: one.name for one in merged.categories}
    expected = []
    for file in (first, second):
        found = coco.load(file)
        known = {one.id: one.name for one in found.categories}
        expected += [known[one.category_id] for one in found.annotations]
    assert [names[one.category_id] for one in merged.annotations] == expected
    assert len(set(names.values())) == len(names)


def test_one_id_for_two_photos_is_refused_and_again_is_fine(sets, tmp_path):
    with pytest.raises(UserError, match="the same image ids"):
        merge([sets[0], sets[0]], tmp_path / "twice")
    first = merge(sets, tmp_path / "all").read_bytes()
    assert merge(sets, tmp_path / "all").read_bytes() == first
