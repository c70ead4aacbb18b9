"""Photos with marked objects, for the detector's pre-training and evaluation: COCO annotations, or photos and masks.

    <root>/images/<name>.jpg, <root>/masks/<name>.png      one object a photo, its mask in 0..255

A sample here is a real photo and a mask; there is no composite yet, so the photo stands in its place.
"""

import hashlib
from collections import defaultdict
from pathlib import Path

from nrh_dist.data import coco
from nrh_dist.data.images import EXTENSIONS
from nrh_dist.data.pairs import Instance, eligible
from nrh_dist.data.samples import Problem, Sample, Segmentation, is_held_out
from nrh_dist.errors import UserError

IMAGES, MASKS = "images", "masks"
OBJECTS_PER_PHOTO = 3  # a crowded photo must not weigh ten times as much as a portrait
TEST_FRACTION = 0.2  # of a folder without lists, by the hash of the photo's name: the same photos for everybody


def scan_coco(images: Path, annotations: Path) -> tuple[list[Sample], list[Problem]]:
    """Up to 3 objects of each photo, by photo and annotation id, and the photos that are missing.

    Left out are crowds and objects under 1 % of the photo. All belong to the train split: a file of annotations is one
    split. Which objects of a crowded photo are taken depends on their ids alone.

    Raises ``UserError``: bad annotations, or none of an object that can be used.
    """
    objects, left_out = eligible(coco.load(annotations), images)
    if not objects:
        counts = ", ".join(f"{count} {reason}" for reason, count in sorted(left_out.items())) or "none at all"
        raise UserError(f"{annotations} has no object to train on: {counts}; objects must cover 1 % of their photo")
    by_photo: dict[int, list[Instance]] = defaultdict(list)
    for instance in objects:
        by_photo[instance.photo_id].append(instance)
    samples, problems = [], []
    for _, instances in sorted(by_photo.items()):
        photo = instances[0].photo
        if not photo.is_file():
            problems.append(Problem(photo, "is missing"))
        chosen = sorted(instances, key=_shuffled)[:OBJECTS_PER_PHOTO]
        samples += [_of_instance(instance) for instance in sorted(chosen, key=lambda one: one.annotation_id)]
    return samples, problems


def scan_folder(root: Path) -> tuple[list[Sample], list[Problem]]:
    """One sample a photo, by name, and the photos and masks that have no counterpart or share a name.

    A fifth of the photos is the test split, drawn by a hash of the name. ``UserError`` where there is no photo.
    """
    problems: list[Problem] = []
    photos, masks = _by_stem(root / IMAGES, problems), _by_stem(root / MASKS, problems)
    if not photos:
        raise UserError(f"{root / IMAGES} holds no JPEG or PNG photo")
    problems += [Problem(photos[name], f"has no mask in {root / MASKS}") for name in photos if name not in masks]
    problems += [Problem(masks[name], f"has no photo in {root / IMAGES}") for name in masks if name not in photos]
    dataset = root.resolve().name
    samples = []
    for name in sorted(photos.keys() & masks.keys()):
        group = f"{dataset}:{name}"
        split = "test" if is_held_out(name, TEST_FRACTION, seed=0) else "train"
        samples.append(Sample(dataset, split, name, photos[name], masks[name], photos[name], group))
    return samples, problems


def _of_instance(instance: Instance) -> Sample:
    photo = instance.photo
    mask = Segmentation(instance.annotation_id, instance.segmentation, instance.height, instance.width)
    name = f"c{instance.photo_id}_{instance.annotation_id}"
    return Sample("COCO", "train", name, photo, mask, photo, f"coco:{instance.photo_id}")


def _shuffled(instance: Instance) -> str:
    return hashlib.sha256(str(instance.annotation_id).encode()).hexdigest()


def _by_stem(folder: Path, problems: list[Problem]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in EXTENSIONS:
            other = found.setdefault(path.stem, path)
            if other != path:
                problems.append(Problem(path, f"has the name of {other.name}: which one is meant?"))
    return found
