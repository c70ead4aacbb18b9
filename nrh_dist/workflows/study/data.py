"""The data of a study: composites of COCO photos for training, validation and two tests, and inputs that need nothing.

    <data>/photos/         links to the folders of photos for training, with their annotations in one file
    <data>/train/          composites with all channels of CIE Lab changed; lists train and val, of different photos;
                           val of COCO's alone, as what is chosen there is for photos of the test's kind
    <data>/test-lab/       the same of the test photos
    <data>/test-exp/       COCO-Exp of the test photos: luminance alone
    <data>/controls/       Untouched: test photos as they are; NoOp: an object cut out and put back, from a JPEG

PNG throughout. A photo is in one of train, val and test, and so are those that lend it their colours.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nrh_dist.data import coco, iharmony4
from nrh_dist.data.coco_exp import FOLDERS, Channels, Split
from nrh_dist.data.coco_merge import merge
from nrh_dist.data.layouts import Source, index
from nrh_dist.data.pairs import candidate_pairs, eligible, of_split
from nrh_dist.data.samples import Sample
from nrh_dist.data.synthetic import ensure_sample
from nrh_dist.engine.files import write_text
from nrh_dist.engine.progress import Say
from nrh_dist.errors import UserError
from nrh_dist.launch.generate import generate
from nrh_dist.report.bootstrap import FEWEST_PHOTOS

VAL_FRACTION = 0.1  # of the photos
SEED = 0
NOOP_QUALITY = 75  # of JPEG: an object from elsewhere has its own compression behind it
MARGIN = 0.8  # of the candidate pairs, as some are rejected
UNTOUCHED, NOOP = "Untouched", "NoOp"
TRAIN, LAB, EXP, CONTROLS = "train", "test-lab", "test-exp", "controls"
TESTS: dict[str, Channels] = {LAB: "lab", EXP: "l"}


@dataclass(frozen=True)
class Photos:
    """Where photos come from: a folder in COCO's layout (None: procedural sample scenes), and more to train on.

    Each of ``more`` is a folder of ``images`` with ``instances.json``.
    """

    coco: Path | None = None
    more: tuple[Path, ...] = ()


def require(photos: Photos) -> None:
    """``UserError`` where a folder is not what it should be, before anything is made."""
    if photos.coco:
        for images in ("train2017", "val2017"):
            _coco(photos.coco, images, f"instances_{images}.json")
    for more in photos.more:
        _coco(more, "images", "instances.json")


def make(photos: Photos, folder: Path, composites: int, tested: int, say: Say) -> dict[str, Any]:
    """Write all data below ``folder``, or what is missing of them; returns counts and settings for the report.

    At most ``composites`` to train on and ``tested`` of each test; fewer where the photos give no more.
    """
    root = photos.coco or _sample(folder, say)
    sets = [_coco(root, "train2017", "instances_train2017.json")]
    sets += [_coco(more, "images", "instances.json") for more in photos.more]
    places_of: dict[Split, tuple[Path, Path]] = {
        "train": (folder / "photos", merge(sets, folder / "photos")),
        "val": sets[0],
        "test": _coco(root, "val2017", "instances_val2017.json"),
    }
    made: dict[str, int] = {}

    def write(name: str, split: Split, channels: Channels, most: int) -> None:
        places = places_of[split]
        share = 0.0 if split == "test" else VAL_FRACTION
        count = min(most, int(MARGIN * _pairs(*places, split)))
        say(f"{name}, {split}: {count:,} composites")
        generate(*places, folder / name, count, SEED, "meanstd", channels, "png", split, 1, say, share)
        made[f"{name}/{split}"] = count

    write(TRAIN, "train", "lab", composites)
    write(TRAIN, "val", "lab", max(1, round(VAL_FRACTION * made[f"{TRAIN}/train"])))
    held_out = {one.real for one in index(Source(folder / TRAIN)) if one.split == "val"}
    if len(held_out) < FEWEST_PHOTOS:
        raise UserError(
            f"{len(held_out)} validation photos are too few to choose on, at least {FEWEST_PHOTOS} are needed: "
            "give more photos, or a larger --budget"
        )
    for name, channels in TESTS.items():
        write(name, "test", channels, tested)
    made |= _write_controls(folder, say)
    return {
        "photos": "procedural sample scenes" if photos.coco is None else "real photos",
        "composites": made,
        "val_fraction": VAL_FRACTION,
        "val_photos": root.name,
        "seed": SEED,
        "sources": [path.name for path in (root, *photos.more)],
    }


def test_photos(folder: Path) -> list[Sample]:
    """One composite for each photo of the COCO-Exp test set, the first of its list."""
    samples = index(Source(folder / EXP))
    return list({sample.real: sample for sample in reversed(samples)}.values())[::-1]


def _sample(folder: Path, say: Say) -> Path:
    out = folder / "sample"
    ensure_sample(out, say)
    return out / "coco"


def _coco(root: Path, images: str, annotations: str) -> tuple[Path, Path]:
    """The folder of photos and the annotations. ``UserError`` where either is missing."""
    file = next((one for one in (root / "annotations" / annotations, root / annotations) if one.is_file()), None)
    if file is None or not (root / images).is_dir():
        raise UserError(f"{root} must hold {images}/ and {annotations} (or annotations/{annotations})")
    return root / images, file


def _pairs(images: Path, annotations: Path, split: Split) -> int:
    objects, _ = eligible(coco.load(annotations), images)
    return candidate_pairs(of_split(objects, split, VAL_FRACTION, SEED))


def _write_controls(folder: Path, say: Say) -> dict[str, int]:
    """The two sub-sets of inputs that need no change: the input itself is the aim."""
    out, samples = folder / CONTROLS, test_photos(folder)
    for subset in (UNTOUCHED, NOOP):
        done = out / subset / f"{subset}_test.txt"
        if done.exists():
            continue
        say(f"{CONTROLS}, {subset}: {len(samples)} photos")
        for kind in FOLDERS:
            (out / subset / kind).mkdir(parents=True, exist_ok=True)
        write_text(done, "".join(f"{name}\n" for name in _control(subset, samples, out)))
    return {f"{CONTROLS}/{subset}": len(samples) for subset in (UNTOUCHED, NOOP)}


def _control(subset: str, samples: Sequence[Sample], out: Path) -> Iterator[str]:
    for sample in samples:
        assert isinstance(sample.mask, Path)
        photo, mask = np.array(Image.open(sample.real).convert("RGB")), np.array(Image.open(sample.mask))
        real, object_name, _ = iharmony4.split_name(sample.name)
        composite = photo if subset == UNTOUCHED else np.where(mask[..., None] >= 128, _recompressed(photo), photo)
        name = f"{real}_{object_name}_0.png"
        files = ((name, composite), (f"{real}_{object_name}.png", mask), (f"{real}.png", composite))
        for kind, (file, image) in zip(FOLDERS, files, strict=True):
            Image.fromarray(image).save(out / subset / kind / file, compress_level=1)
        yield name


def _recompressed(photo: np.ndarray) -> np.ndarray:
    """The photo through a JPEG."""
    file = io.BytesIO()
    Image.fromarray(photo).save(file, "JPEG", quality=NOOP_QUALITY)
    return np.array(Image.open(file))


def facts(photos: Photos) -> dict[str, Any]:
    """What tells one study's photos from another's."""
    return {"coco": photos.coco and str(photos.coco), "more": [str(one) for one in photos.more]}
