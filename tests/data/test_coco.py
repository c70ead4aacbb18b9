"""COCO annotations: masks of every kind of segmentation, and one clear line for every kind of broken file."""

import json
import os
from pathlib import Path

import msgspec
import numpy as np
import pytest
from pycocotools import mask as rle_codec
from skimage.draw import polygon2mask

from nrh_dist.data import coco
from nrh_dist.errors import UserError


def encode(value):
    return msgspec.json.encode(value)


def minimal():
    return {
        "images": [{"id": 7, "file_name": "a.jpg", "width": 6, "height": 4, "license": 1}],
        "categories": [{"id": 3, "name": "cat", "supercategory": "animal"}],
        "annotations": [
            {
                "id": 1,
                "image_id": 7,
                "category_id": 3,
                "area": 4.0,
                "iscrowd": 0,
                "segmentation": [[0, 0, 2, 0, 2, 2, 0, 2]],
            }
        ],
    }


def write(path, value):
    path.write_text(json.dumps(value))
    return path


def test_a_file_is_read_with_unknown_fields_ignored(tmp_path):
    instances = coco.load(write(tmp_path / "a.json", minimal()))
    assert instances.images == [coco.Photo(id=7, file_name="a.jpg", width=6, height=4)]
    assert instances.categories[0].name == "cat"
    mask = coco.decode_mask(bytes(instances.annotations[0].segmentation), 4, 6)
    expected = np.zeros((4, 6), np.uint8)
    expected[:2, :2] = 255
    np.testing.assert_array_equal(mask, expected)


def test_polygons_cover_what_the_oracle_covers():
    triangle = [10.0, 5.0, 50.0, 12.0, 25.0, 44.0]
    mask = coco.decode_mask(encode([triangle]), 50, 60)
    expected = polygon2mask((50, 60), np.array(triangle).reshape(3, 2)[:, ::-1] - 0.5)
    assert set(np.unique(mask)) == {0, 255}
    assert ((mask > 0) != expected).mean() < 0.02


def test_polygons_of_one_object_are_united():
    squares = [[0, 0, 2, 0, 2, 2, 0, 2], [4, 0, 6, 0, 6, 2, 4, 2]]
    assert (coco.decode_mask(encode(squares), 4, 6) > 0).sum() == 8


@pytest.mark.parametrize("compressed", [True, False])
def test_run_lengths_are_decoded(compressed):
    drawn = np.random.default_rng(0).integers(0, 2, (9, 7), dtype=np.uint8)
    if compressed:
        counts = rle_codec.encode(np.asfortranarray(drawn))["counts"].decode()
    else:
        column_wise = drawn.T.ravel()
        edges = np.flatnonzero(np.diff(np.concatenate([[0], column_wise, [2]])))
        counts = np.diff(np.concatenate([[0], edges])).tolist()
    mask = coco.decode_mask(encode({"size": [9, 7], "counts": counts}), 9, 7)
    np.testing.assert_array_equal(mask, drawn * 255)


@pytest.mark.parametrize("segmentation", [[], [[1.0, 2.0, 3.0, 4.0]]])
def test_a_segmentation_without_area_is_an_empty_mask(segmentation):
    assert not coco.decode_mask(encode(segmentation), 4, 6).any()


@pytest.mark.parametrize(
    "segmentation",
    [
        {"size": [4, 6], "counts": [1, 2]},
        {"size": [6, 4], "counts": [24]},
        {"size": [4, 6], "counts": "zzzzzzzz"},
        {"size": [4, 6]},
        {"size": [4, 6], "counts": [-1, 25]},
        [["a", "b", "c", "d", "e", "f"]],
        5,
    ],
)
def test_a_broken_segmentation_is_a_user_error(segmentation):
    with pytest.raises(UserError, match="segmentation"):
        coco.decode_mask(encode(segmentation), 4, 6)


def changed(**changes):
    value = minimal()
    for key, field in changes.items():
        table, name = key.split("__")
        value[table][0][name] = field
    return value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "not a COCO file"),
        ({"images": []}, "annotations"),
        (changed(annotations__image_id=8), "annotation 1 is of image 8"),
        (changed(annotations__category_id=8), "annotation 1 is of category 8"),
        (changed(images__file_name="../a.jpg"), "outside"),
        (changed(images__file_name="/etc/a.jpg"), "outside"),
        ({**minimal(), "images": minimal()["images"] * 2}, "image id 7 is used twice"),
        ({**minimal(), "annotations": minimal()["annotations"] * 2}, "annotation id 1 is used twice"),
    ],
)
def test_a_broken_file_is_one_clear_line(tmp_path, value, message):
    with pytest.raises(UserError, match=message) as caught:
        coco.load(write(tmp_path / "a.json", value))
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.json"):
        coco.load(tmp_path / "none.json")


def test_areas_of_real_annotations_agree_with_their_masks():
    if "NRH_TEST_DATA" not in os.environ:
        pytest.skip("NRH_TEST_DATA is not set")
    instances = coco.load(Path(os.environ["NRH_TEST_DATA"]) / "coco-mini/annotations/instances_val2017.json")
    photos = {photo.id: photo for photo in instances.images}
    ratios = []
    for annotation in instances.annotations:
        photo = photos[annotation.image_id]
        mask = coco.decode_mask(bytes(annotation.segmentation), photo.height, photo.width)
        ratios.append((mask > 0).sum() / annotation.area)
    assert np.median(ratios) == pytest.approx(1, abs=0.01)
    assert np.mean(np.abs(np.log(ratios)) < 0.1) > 0.9
