"""The data of a study: which photos its parts are made of."""

import json

import pytest

from nrh_dist.data.layouts import Source, index
from nrh_dist.data.synthetic import write_sample
from nrh_dist.workflows.study import data
from nrh_dist.workflows.study.data import Photos

FIRST = 9_000_000  # number of the first photo and object of those that are for training only


def more_photos(root):
    """A folder of other sample scenes, whose numbers are no others'."""
    write_sample(root / "sample", seed=1, say=lambda _: None)
    coco = root / "sample" / "coco"
    (coco / "train2017").rename(root / "images")
    content = json.loads((coco / "annotations" / "instances_train2017.json").read_text())
    for one in content["images"]:
        one["id"] += FIRST
    for one in content["annotations"]:
        one["id"] += FIRST
        one["image_id"] += FIRST
    (root / "instances.json").write_text(json.dumps(content))
    return root


@pytest.mark.usefixtures("ray_session")
def test_choices_are_made_on_photos_of_the_tests_kind(tmp_path):
    write_sample(tmp_path / "sample", say=lambda _: None)
    photos = Photos(tmp_path / "sample" / "coco", (more_photos(tmp_path / "more"),))
    made = data.make(photos, tmp_path / "data", 200, 20, print)
    assert made["composites"]["train/val"] == 20 and made["val_photos"] == "coco"
    numbers = {"train": [], "val": []}
    for sample in index(Source(tmp_path / "data" / data.TRAIN)):
        numbers[sample.split].append(int(sample.group.partition(":")[2]))
    assert len(numbers["val"]) == 20 and max(numbers["val"]) < FIRST < max(numbers["train"])
    assert min(numbers["train"]) < FIRST and not {*numbers["train"]} & {*numbers["val"]}
