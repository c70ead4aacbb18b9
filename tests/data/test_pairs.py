"""The plan of pairs: its rules, and that it is the same sequence however much of it is asked for."""

from collections import Counter
from itertools import islice
from math import sqrt
from pathlib import Path

import msgspec
import pytest

from nrh_dist.data.coco import Annotation, Category, Instances, Photo
from nrh_dist.data.pairs import Instance, candidate_pairs, eligible, plan


def objects_of(counts, photos=10_000):
    """``counts[category]`` objects each, in ``photos`` photos by turns."""
    made = []
    for category, count in counts.items():
        made += [Instance(len(made) + i, i % photos, category, Path("a.jpg"), 10, 10, b"[]") for i in range(count)]
    return made


def test_a_longer_plan_begins_with_the_shorter_one():
    objects = objects_of({"cat": 40, "dog": 7})
    assert list(islice(plan(objects, 3), 50)) == list(islice(plan(objects, 3), 200))[:50]
    assert list(islice(plan(objects, 3), 50)) != list(islice(plan(objects, 4), 50))


def test_the_rules_hold_until_the_last_pair():
    objects = objects_of({"cat": 30, "dog": 5, "one photo only": 1}, photos=12)
    pairs = list(plan(objects, 0))
    assert len(pairs) == candidate_pairs(objects) == 30 * 8 + 5 * 4
    assert [pair.index for pair in pairs] == list(range(len(pairs)))
    assert all(pair.target.category == pair.reference.category for pair in pairs)
    assert all(pair.target.photo_id != pair.reference.photo_id for pair in pairs)
    assert len({pair.composite_name for pair in pairs}) == len(pairs)
    drawn = Counter((pair.target.annotation_id, pair.reference.annotation_id) for pair in pairs)
    assert set(drawn.values()) == {1}
    assert max(Counter(pair.target.annotation_id for pair in pairs).values()) == 8
    assert {pair.use for pair in pairs} == set(range(1, 9))


def test_categories_come_by_the_square_root_of_their_frequency():
    objects = objects_of({"person": 9000, "cat": 1000, "toaster": 90})
    shares = Counter(pair.target.category for pair in islice(plan(objects, 0), 3000))
    total = sqrt(9000) + sqrt(1000) + sqrt(90)
    assert shares["person"] / 3000 == pytest.approx(sqrt(9000) / total, abs=0.03)
    assert shares["cat"] / 3000 == pytest.approx(sqrt(1000) / total, abs=0.03)


def test_a_category_of_one_photo_gives_no_pair():
    assert candidate_pairs(objects_of({"cat": 5}, photos=1)) == 0
    assert list(plan(objects_of({"cat": 5}, photos=1), 0)) == []


def test_names_follow_the_layout():
    pair = next(plan(objects_of({"cat": 2}), 0))
    photo, annotation = pair.target.photo_id, pair.target.annotation_id
    assert pair.composite_name == f"c{photo}_{annotation}_1"
    assert (pair.real_name, pair.mask_name) == (f"c{photo}", f"c{photo}_{annotation}")


def test_crowds_and_tiny_objects_are_left_out():
    def annotation(number, area, iscrowd=0):
        return Annotation(number, 1, 1, area, msgspec.Raw(b"[]"), iscrowd)

    annotations = [annotation(4, 100), annotation(3, 99), annotation(2, 5000, 1), annotation(1, 5000)]
    instances = Instances([Photo(1, "sub/a.jpg", 100, 100)], annotations, [Category(1, "cat")])
    objects, left_out = eligible(instances, Path("photos"))
    assert [found.annotation_id for found in objects] == [1, 4]
    assert objects[0].photo == Path("photos/sub/a.jpg")
    assert left_out == {"tiny": 1, "crowd": 1}
