"""Sample data without a download: procedural scenes in COCO layout, and composites of them in iHarmony4 layout.

    nrh data sample OUT        160 + 40 photos of 160x128, about 400 + 60 composites; a few seconds on one core

Small enough for a 64-pixel network to learn from within a minute: a scene's light shows how its objects should look.
The composites change the luminance of one object by 0.35 to 0.9 stops, and the colour of every second one as well.
"""

import io
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as rle_codec

from nrh_dist.color import lab_to_rgb, rgb_to_lab
from nrh_dist.data.objects import KINDS
from nrh_dist.data.scenes import Drawn, Scene, draw
from nrh_dist.errors import UserError

SUBSET = "Sample"
SPLITS = {"train": "train2017", "test": "val2017"}  # of iHarmony4, and of COCO
WIDTH, HEIGHT = 160, 128
FIRST_TEST_ID = 1001
FOREST_EVERY = 8  # photos: forests are annotated as crowds

STOPS = (0.35, 0.9)
CHROMA = (12.0, 30.0)  # in units of a and b
LEAST_CHANGE = 10.0  # mean absolute difference inside the object, of 255

Bytes = NDArray[np.uint8]


LAST = "iharmony4"  # what of a sample gets its name last


@dataclass(frozen=True)
class _Photo:
    id: int
    scene: Scene

    def annotation_id(self, position: int) -> int:
        return self.id * 10 + position


def write_sample(
    out: Path, seed: int = 0, say: Callable[[str], None] = print, train_photos: int = 160, test_photos: int = 40
) -> None:
    """Write ``out/coco`` and ``out/iharmony4``: the same bytes for the same seed. ``UserError`` if one exists."""
    out = Path(out)
    finals = [out / "coco", out / LAST]
    for final in finals:
        if final.exists():
            raise UserError(f"{final} exists already: remove it or choose another folder")
    coco, iharmony4 = (final.with_name(f"{final.name}.partial") for final in finals)
    for partial in (coco, iharmony4):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    composites = {}
    for split, photos, first in (("train", train_photos, 1), ("test", test_photos, FIRST_TEST_ID)):
        ids = range(first, first + photos)
        scenes = [_Photo(number, _scene(seed, number)) for number in ids]
        _write_coco(coco, SPLITS[split], scenes)
        composites[split] = _write_iharmony4(iharmony4, split, scenes, seed)
    for partial, final in zip((coco, iharmony4), finals, strict=True):
        os.replace(partial, final)
    say(
        f"{out}: {train_photos} + {test_photos} photos in COCO layout, "
        f"{composites['train']} + {composites['test']} composites in iHarmony4 layout"
    )


def ensure_sample(out: Path, say: Callable[[str], None]) -> None:
    """``write_sample`` to ``out``, which holds nothing else; what a kill left of an earlier one is replaced."""
    if not (out / LAST).exists():
        shutil.rmtree(out, ignore_errors=True)
        write_sample(out, say=say)


def _scene(seed: int, number: int) -> Scene:
    rng = np.random.default_rng([seed, number])
    return draw(rng, WIDTH, HEIGHT, forest=number % FOREST_EVERY == 1)


def _write_coco(root: Path, folder: str, photos: list[_Photo]) -> None:
    images, annotations = [], []
    category_ids = {kind: number for number, kind in enumerate(KINDS, start=1)}
    (root / folder).mkdir()
    for photo in photos:
        name = f"{photo.id:012d}.jpg"
        (root / folder / name).write_bytes(_jpeg(photo.scene.photo))
        images.append({"id": photo.id, "file_name": name, "width": WIDTH, "height": HEIGHT})
        for position, drawn in enumerate(photo.scene.objects):
            is_object = drawn.mask >= 128
            polygons = _polygons(is_object) if position % 2 == 0 else []
            code = polygons or _compressed(is_object)
            number = photo.annotation_id(position)
            annotations.append(_annotation(number, photo.id, category_ids[drawn.kind], is_object, code, iscrowd=0))
        is_forest, number = photo.scene.forest >= 128, photo.annotation_id(9)
        if is_forest.any():
            counts = {"size": [HEIGHT, WIDTH], "counts": _run_lengths(is_forest)}
            annotations.append(_annotation(number, photo.id, category_ids["tree"], is_forest, counts, iscrowd=1))
    categories = [{"id": number, "name": kind, "supercategory": "object"} for kind, number in category_ids.items()]
    info = {"description": "Procedural sample scenes"}
    content = {"info": info, "images": images, "annotations": annotations, "categories": categories}
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations" / f"instances_{folder}.json").write_text(json.dumps(content))


def _annotation(
    number: int, photo: int, category: int, is_object: NDArray[np.bool_], segmentation: Any, iscrowd: int
) -> dict[str, Any]:
    rows, columns = np.nonzero(is_object)
    left, top = int(columns.min()), int(rows.min())
    return {
        "id": number,
        "image_id": photo,
        "category_id": category,
        "segmentation": segmentation,
        "area": float(is_object.sum()),
        "bbox": [left, top, int(columns.max()) + 1 - left, int(rows.max()) + 1 - top],
        "iscrowd": iscrowd,
    }


def _polygons(is_object: NDArray[np.bool_]) -> list[list[float]]:
    """The outlines, along the edges of the pixels (hence the enlargement); none if there is a hole: COCO fills it."""
    scale = 4
    enlarged = np.kron(is_object, np.ones((scale, scale), bool)).astype(np.uint8)
    outlines, tree = cv2.findContours(enlarged, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    if (tree[0, :, 3] >= 0).any():  # an outline within another one
        return []
    polygons = [(outline.reshape(-1) + 0.5) / scale for outline in outlines if cv2.contourArea(outline) > scale**2]
    return [np.round(polygon, 2).tolist() for polygon in polygons]


def _compressed(is_object: NDArray[np.bool_]) -> dict[str, Any]:
    code = rle_codec.encode(np.asfortranarray(is_object.astype(np.uint8)))
    return {"size": [HEIGHT, WIDTH], "counts": code["counts"].decode()}


def _run_lengths(is_object: NDArray[np.bool_]) -> list[int]:
    """COCO's uncompressed code: column by column, the lengths of runs that are alternately outside and inside."""
    flat = np.concatenate([[False], is_object.T.ravel()])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    return np.diff(np.concatenate([[0], edges, [is_object.size]])).tolist()


def _write_iharmony4(root: Path, split: str, photos: list[_Photo], seed: int) -> int:
    """Train: a composite of every object. Test: of one object a photo and two by turns."""
    folder = root / SUBSET
    for kind in ("composite_images", "masks", "real_images"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    names = []
    for photo in photos:
        (folder / "real_images" / f"s{photo.id}.jpg").write_bytes(_jpeg(photo.scene.photo))
        objects = photo.scene.objects if split == "train" else photo.scene.objects[: 1 + photo.id % 2]
        for position, drawn in enumerate(objects):
            number = photo.annotation_id(position)
            stem = f"s{photo.id}_{number}"
            Image.fromarray(drawn.mask).save(folder / "masks" / f"{stem}.png")
            composite = _recolour(photo.scene.photo, drawn, np.random.default_rng([seed, number, 1]))
            (folder / "composite_images" / f"{stem}_1.jpg").write_bytes(_jpeg(composite))
            names.append(f"{stem}_1.jpg")
    (folder / f"{SUBSET}_{split}.txt").write_text("".join(f"{name}\n" for name in names))
    shared = "".join(f"{SUBSET}/composite_images/{name}\n" for name in names)
    (root / f"IHD_{split}.txt").write_text(shared)
    return len(names)


def _recolour(photo: Bytes, drawn: Drawn, rng: np.random.Generator) -> Bytes:
    """The photo with a visible change of luminance, and in half of the cases of colour, inside the mask."""
    real, mask = photo / np.float32(255), drawn.mask[..., None] / np.float32(255)
    while True:
        lab = rgb_to_lab(real)
        lab[..., 0] = (lab[..., 0] * 2 ** (rng.choice([-1, 1]) * rng.uniform(*STOPS))).clip(0, 100)
        if rng.random() < 0.5:
            angle = rng.uniform(0, 2 * np.pi)
            lab[..., 1:] += np.float32(rng.uniform(*CHROMA)) * np.array((np.cos(angle), np.sin(angle)), np.float32)
        composite = mask * lab_to_rgb(lab) + (1 - mask) * real
        if (np.abs(composite - real)[drawn.mask >= 128]).mean() * 255 >= LEAST_CHANGE:
            return np.rint(composite * 255).astype(np.uint8)


def _jpeg(photo: Bytes) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(photo).save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()
