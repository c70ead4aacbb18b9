"""Several COCO sets as one: links to their folders of photos, and one file of all their annotations."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from nrh_dist.data import coco
from nrh_dist.data.coco import Annotation, Category, Instances, Photo
from nrh_dist.errors import UserError

ANNOTATIONS = "instances.json"


def merge(sets: Sequence[tuple[Path, Path]], out: Path) -> Path:
    """Write ``out``/instances.json of all ``sets``, each a folder of photos and its annotations; returns that file.

    The photos stay where they are: ``out``/0, ``out``/1, ... are links to their folders. Categories of one name become
    one; the ids of photos and annotations stay, as they tell which photos belong together. ``UserError`` where two sets
    use one id.
    """
    out.mkdir(parents=True, exist_ok=True)
    photos: list[Photo] = []
    annotations: list[Annotation] = []
    numbers: dict[str, int] = {}
    for place, (images, file) in enumerate(sets):
        found = coco.load(file)
        _link(images, out / str(place))
        names = {one.id: one.name for one in found.categories}
        photos += [msgspec.structs.replace(one, file_name=f"{place}/{one.file_name}") for one in found.images]
        for one in found.annotations:
            number = numbers.setdefault(names[one.category_id], len(numbers) + 1)
            annotations.append(msgspec.structs.replace(one, category_id=number))
    for what, ids in (("image", [one.id for one in photos]), ("annotation", [one.id for one in annotations])):
        if len(ids) != len(set(ids)):
            files = ", ".join(str(file) for _, file in sets)
            raise UserError(f"{files} use the same {what} ids: number one of them anew")
    merged = Instances(photos, annotations, [Category(number, name) for name, number in numbers.items()])
    path = out / ANNOTATIONS
    partial = path.with_suffix(".partial")
    partial.write_bytes(msgspec.json.encode(merged))
    partial.replace(path)
    return path


def _link(images: Path, link: Path) -> None:
    if not images.is_dir():
        raise UserError(f"no folder of photos at {images}")
    link.unlink(missing_ok=True)
    link.symlink_to(images.resolve(), target_is_directory=True)
