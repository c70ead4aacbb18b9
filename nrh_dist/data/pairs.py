"""Which object gets the luminance of which: the sequence of candidate pairs of COCO-Exp.

A pure function of the annotations and the seed, made lazily: asking for more never changes what came before.
"""

import bisect
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, count
from math import sqrt
from pathlib import Path

from nrh_dist.data.coco import Instances
from nrh_dist.data.samples import is_held_out

USES = 8  # how often one object may be changed: else a rare category would repeat its few objects
MIN_AREA_FRACTION = 0.01


@dataclass(frozen=True, slots=True)
class Instance:
    """One object of a photo, with all that a worker needs to find its pixels. ``segmentation`` is raw JSON."""

    annotation_id: int
    photo_id: int
    category: str
    photo: Path
    height: int
    width: int
    segmentation: bytes


@dataclass(frozen=True, slots=True)
class Pair:
    """Candidate ``index``: ``target`` gets the luminance of ``reference``, its ``use``-th change (from 1)."""

    index: int
    use: int
    target: Instance
    reference: Instance

    @property
    def real_name(self) -> str:
        """The stem of the real photo's file."""
        return f"c{self.target.photo_id}"

    @property
    def mask_name(self) -> str:
        """The stem of the mask's file."""
        return f"{self.real_name}_{self.target.annotation_id}"

    @property
    def composite_name(self) -> str:
        """The stem of the composite's file; it does not depend on how many composites are made."""
        return f"{self.mask_name}_{self.use}"


def eligible(instances: Instances, images: Path) -> tuple[list[Instance], Counter[str]]:
    """The objects that can take part, ordered by annotation id, and how many cannot, by reason.

    Crowds are left out, and objects whose annotated area is under 1 % of the photo.
    """
    photos = {photo.id: photo for photo in instances.images}
    names = {category.id: category.name for category in instances.categories}
    objects: list[Instance] = []
    left_out: Counter[str] = Counter()
    for annotation in sorted(instances.annotations, key=lambda annotation: annotation.id):
        photo = photos[annotation.image_id]
        if annotation.iscrowd:
            left_out["crowd"] += 1
        elif annotation.area < MIN_AREA_FRACTION * photo.height * photo.width:
            left_out["tiny"] += 1
        else:
            objects.append(
                Instance(
                    annotation_id=annotation.id,
                    photo_id=photo.id,
                    category=names[annotation.category_id],
                    photo=images / photo.file_name,
                    height=photo.height,
                    width=photo.width,
                    segmentation=bytes(annotation.segmentation),
                )
            )
    return objects, left_out


def of_split(objects: list[Instance], split: str, val_fraction: float, seed: int) -> list[Instance]:
    """Those whose photo belongs to the split: train, or val, which has ``val_fraction`` of the photos; test has all.

    References, too, are then of its own photos.
    """
    if split == "test" or not val_fraction:
        return objects
    return [one for one in objects if is_held_out(f"coco:{one.photo_id}", val_fraction, seed) == (split == "val")]


def candidate_pairs(objects: Sequence[Instance]) -> int:
    """How many pairs ``plan`` gives before it ends."""
    return sum(sum(pool.limits) for pool in _pools(objects))


def plan(objects: Sequence[Instance], seed: int) -> Iterator[Pair]:
    """The candidates in order: category by the square root of its frequency, then object, then reference.

    Photo and reference are always two photos, no object is changed more than 8 times, no pair comes twice. Ends when
    no object is left to change.
    """
    rng = random.Random(f"COCO-Exp {seed}")
    numbers = count()
    pools = _pools(objects)
    while pools:
        edges = list(accumulate(sqrt(len(pool.objects)) for pool in pools))
        drained = None
        while drained is None:
            drawn = bisect.bisect(edges, rng.random() * edges[-1], hi=len(edges) - 1)
            yield Pair(next(numbers), *pools[drawn].draw(rng))
            drained = None if pools[drawn].open else drawn
        del pools[drained]


class _Pool:
    """The objects of one category, and what is left to draw of them."""

    def __init__(self, objects: list[Instance]) -> None:
        in_photo = Counter(instance.photo_id for instance in objects)
        self.objects = objects
        self.limits = [min(USES, len(objects) - in_photo[instance.photo_id]) for instance in objects]
        self.open = [position for position, limit in enumerate(self.limits) if limit]
        self._partners: dict[int, list[int]] = defaultdict(list)

    def draw(self, rng: random.Random) -> tuple[int, Instance, Instance]:
        """The number of this use, the object to change, and a reference that it has not had yet."""
        slot = _below(rng, len(self.open))
        chosen = self.open[slot]
        target, partners = self.objects[chosen], self._partners[chosen]
        other = chosen
        while self.objects[other].photo_id == target.photo_id or other in partners:
            other = _below(rng, len(self.objects))
        partners.append(other)
        if len(partners) == self.limits[chosen]:
            self.open[slot] = self.open[-1]
            self.open.pop()
        return len(partners), target, self.objects[other]


def _pools(objects: Sequence[Instance]) -> list[_Pool]:
    by_category: dict[str, list[Instance]] = defaultdict(list)
    for instance in objects:
        by_category[instance.category].append(instance)
    pools = [_Pool(by_category[category]) for category in sorted(by_category)]
    return [pool for pool in pools if pool.open]


def _below(rng: random.Random, limit: int) -> int:
    """Uniform in 0..limit-1, from ``random()``: the one method whose sequence Python promises to keep."""
    return int(rng.random() * limit)
