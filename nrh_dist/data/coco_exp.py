"""COCO-Exp: composites in which one object has the luminance of another object of its category, from another photo.

The set of the paper (Dolhasz et al. 2022, section 3.4; 68,128 composites) was never published; this makes one by its
recipe. ``Maker`` turns one pair into files, or gives the reason for not doing so, whatever became of the others: the
result depends neither on the number of workers nor on interruptions.

    DIR/COCOExp/{composite_images/c<photo>_<annotation>_<k>, masks/c<photo>_<annotation>.png, real_images/c<photo>}
    DIR/COCOExp/COCOExp_<split>.txt, DIR/IHD_<split>.txt, DIR/manifest.csv
"""

import csv
import io
import os
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from nrh_dist.data.coco import decode_mask
from nrh_dist.data.images import ImageProblem
from nrh_dist.data.jpeg import read_rgb
from nrh_dist.data.pairs import MIN_AREA_FRACTION, Instance, Pair
from nrh_dist.data.transfer import Channels, Method, Region, Statistics, Transfer, region, transfer
from nrh_dist.errors import UserError

SUBSET = "COCOExp"
SCRATCH = f"{SUBSET}/.partial"  # for files that are being written
FOLDERS = ("composite_images", "masks", "real_images")
MANIFEST = "manifest.csv"
EXTENSIONS = {"jpeg": ".jpg", "png": ".png"}
# JPEG q95 without colour subsampling (q75 would move the background by an MSE of 9); PNG fast rather than small.
JPEG_OPTIONS = (cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)
PNG_OPTIONS = (cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE)
PHOTO_OPTIONS = {"jpeg": JPEG_OPTIONS, "png": (*PNG_OPTIONS, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_SUB)}
MASK_OPTIONS = (*PNG_OPTIONS, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE)
REMEMBERED = {"meanstd": 50_000, "hist": 200}  # objects whose statistics a worker keeps: some 30 MB
COLUMNS = (
    *("composite", "split", "category", "photo_id", "annotation_id", "reference_photo_id", "reference_annotation_id"),
    *("area_fraction", "shift_stops", "sub_threshold", "clipped_share", "mse", "method", "channels", "seed"),
)

MIN_DEVIATION = 1.0  # of L: an object below it is flat, and a ratio of deviations means nothing
SUB_THRESHOLD_STOPS = 0.22  # people notice shifts from about 0.23 stops on

Format = Literal["jpeg", "png"]
Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
Content = bytes | memoryview


@dataclass(frozen=True)
class Settings:
    """What decides the bytes, beside the photos and their annotations."""

    seed: int
    method: Method = "meanstd"
    channels: Channels = "l"
    format: Format = "jpeg"
    split: Split = "test"
    val_fraction: float = 0.0  # of the photos, by a hash of seed and id: of the val split, and of no other


@dataclass(frozen=True)
class Outcome:
    """What became of candidate ``index``: the measures of its composite, or why there is none.

    ``rejected`` is "" or the reason: empty (no mask), tiny (mask under 1 %), flat (deviation of L under 1), no change,
    or unreadable, which ``detail`` explains. ``mse``, ``shift_stops`` and ``clipped_share`` are those of ``transfer``.
    """

    index: int
    rejected: str = ""
    detail: str = ""
    area_fraction: float = 0.0
    shift_stops: float = 0.0
    clipped_share: float = 0.0
    mse: float = 0.0


class Files(NamedTuple):
    """The paths of the three files of a composite."""

    composite: str
    mask: str
    real: str


class _Rejected(Exception):
    """Carries the reason out of the steps of ``make``."""


class _Object(NamedTuple):
    photo: NDArray[np.uint8]  # HxWx3
    mask: NDArray[np.uint8]  # HxW, 0 or 255
    region: Region
    area_fraction: float


class Maker:
    """Makes the composites of one job, on one core; the files do not depend on which maker made which of them.

    Remembers the last object that was changed and the statistics of all objects met lately: what pairs share is then
    read once, the more so when pairs of one photo follow each other (``work_order``).
    """

    def __init__(self, settings: Settings, out: Path) -> None:
        cv2.setNumThreads(1)
        self._settings, self._out = settings, out
        self._statistics: dict[int, Statistics] = {}  # by annotation
        self._target: tuple[Instance, _Object] | None = None

    def make_all(self, pairs: Sequence[Pair]) -> list[Outcome]:
        """``make`` for several pairs."""
        return [self.make(pair) for pair in pairs]

    def make(self, pair: Pair) -> Outcome:
        """Write the composite of ``pair``, its mask and its real photo, or reject it and write nothing.

        A photo or mask that cannot be read is a rejection, not an error: one bad file must not stop a night's run.
        """
        try:
            target, reference = self._changed(pair.target), self._reference(pair.reference)
            result = transfer(target.photo, target.region, reference, self._settings.channels)
            if not result.mse:
                raise _Rejected("no change")
        except _Rejected as reason:
            return Outcome(pair.index, rejected=str(reason))
        except UserError as error:
            return Outcome(pair.index, rejected="unreadable", detail=str(error))
        self._write(pair, target, result)
        return Outcome(
            pair.index,
            area_fraction=target.area_fraction,
            shift_stops=result.shift_stops,
            clipped_share=result.clipped_share,
            mse=result.mse,
        )

    def _write(self, pair: Pair, target: _Object, result: Transfer) -> None:
        files, settings = files_of(pair, self._settings, self._out), self._settings
        if not is_written(files.real):
            _write(files.real, _real_bytes(pair.target, target.photo, settings), self._out)
        if not is_written(files.mask):
            _write(files.mask, cv2.imencode(".png", target.mask, MASK_OPTIONS)[1].data, self._out)
        _write(files.composite, _encode(result.composite, settings.format), self._out)

    def _changed(self, instance: Instance) -> _Object:
        """The object to change, with its photo."""
        known = self._target
        if known is None or known[0] != instance:
            photo = known[1].photo if known and known[0].photo == instance.photo else None
            self._target = known = (instance, self._read(instance, photo))
        return known[1]

    def _reference(self, instance: Instance) -> Statistics:
        known = self._statistics.get(instance.annotation_id)
        return self._read(instance).region.statistics if known is None else known

    def _read(self, instance: Instance, photo: NDArray[np.uint8] | None = None) -> _Object:
        found = _read(instance, _read_photo(instance) if photo is None else photo, self._settings)
        self._statistics[instance.annotation_id] = found.region.statistics
        if len(self._statistics) > REMEMBERED[self._settings.method]:
            del self._statistics[next(iter(self._statistics))]
        return found


def work_order(pair: Pair) -> tuple[int, int]:
    """The key that sorts pairs so that those of one photo, and of one object in it, follow each other."""
    return pair.target.photo_id, pair.target.annotation_id


def files_of(pair: Pair, settings: Settings, out: Path) -> Files:
    """Where the three files of ``pair`` are, if it was not rejected."""
    composites, masks, reals = (f"{out}/{SUBSET}/{name}" for name in FOLDERS)
    extension = EXTENSIONS[settings.format]
    return Files(
        composite=f"{composites}/{pair.composite_name}{extension}",
        mask=f"{masks}/{pair.mask_name}.png",
        real=f"{reals}/{pair.real_name}{extension}",
    )


def is_written(file: str) -> bool:
    """Whether ``file`` is there with something in it; a power cut can leave an empty one."""
    return os.path.exists(file) and os.path.getsize(file) > 0


def prepare(out: Path) -> None:
    """Make the folders of ``out``, without what an interrupted run left half-written."""
    for name in FOLDERS:
        (out / SUBSET / name).mkdir(parents=True, exist_ok=True)
    clean_up(out)
    (out / SCRATCH).mkdir(exist_ok=True)  # a worker that outlived a killed driver may have made it anew


def clean_up(out: Path) -> None:
    """Remove the folder of half-written files."""
    shutil.rmtree(out / SCRATCH, ignore_errors=True)


def listed_photos(out: Path, split: Split) -> set[str]:
    """The stems of the real photos that the list of ``split`` names; empty without a list."""
    return {name.rsplit("_", 2)[0] for name in _read_lines(out / SUBSET / f"{SUBSET}_{split}.txt")}


def write_lists(made: Sequence[tuple[Pair, Outcome]], settings: Settings, out: Path) -> None:
    """Write the manifest and the two lists of the split; the other split and other sub-sets keep their lines."""
    split = settings.split
    names = [os.path.basename(files_of(pair, settings, out).composite) for pair, _ in made]
    rows = [row for row in read_manifest(out) if row["split"] != split]
    rows += [_manifest_row(pair, outcome, settings, name) for (pair, outcome), name in zip(made, names, strict=True)]
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(sorted(rows, key=lambda row: SPLITS.index(row["split"])))
    _write(out / MANIFEST, text.getvalue().encode(), out)
    shared = out / f"IHD_{split}.txt"
    others = [line for line in _read_lines(shared) if not line.startswith(f"{SUBSET}/")]
    _write(shared, _lines(others + [f"{SUBSET}/{FOLDERS[0]}/{name}" for name in names]), out)
    _write(out / SUBSET / f"{SUBSET}_{split}.txt", _lines(names), out)


def read_manifest(out: Path) -> list[dict[str, str]]:
    """The rows of the manifest; none where there is no manifest yet. ``UserError`` unless it is one of ``COLUMNS``."""
    path = out / MANIFEST
    if not path.exists():
        return []
    reader = csv.DictReader(path.read_text(errors="replace").splitlines())
    rows = list(reader)
    is_ours = tuple(reader.fieldnames or ()) == COLUMNS
    if not is_ours or any(None in (*row, *row.values()) or row["split"] not in SPLITS for row in rows):
        raise UserError(f"{path} is not a manifest of COCO-Exp made by this version; move it or choose another --out")
    return rows


def set_of(data: Path) -> Path:
    """The folder that the manifest of ``data`` lies in: ``data`` itself, a set or a pack; the one above a sub-set."""
    whole = data.absolute()
    return whole.parent if whole.name == SUBSET and not (whole / MANIFEST).exists() else data


def is_sub_threshold(outcome: Outcome) -> bool:
    """Whether people would not notice the shift."""
    return abs(outcome.shift_stops) < SUB_THRESHOLD_STOPS


def _manifest_row(pair: Pair, outcome: Outcome, settings: Settings, composite: str) -> dict[str, str]:
    return {
        "composite": composite,
        "split": settings.split,
        "category": pair.target.category,
        "photo_id": str(pair.target.photo_id),
        "annotation_id": str(pair.target.annotation_id),
        "reference_photo_id": str(pair.reference.photo_id),
        "reference_annotation_id": str(pair.reference.annotation_id),
        "area_fraction": f"{outcome.area_fraction:.6f}",
        "shift_stops": f"{outcome.shift_stops:.6f}",
        "sub_threshold": str(int(is_sub_threshold(outcome))),
        "clipped_share": f"{outcome.clipped_share:.6f}",
        "mse": f"{outcome.mse:.6f}",
        "method": settings.method,
        "channels": settings.channels,
        "seed": str(settings.seed),
    }


def _read(instance: Instance, photo: NDArray[np.uint8], settings: Settings) -> _Object:
    try:
        mask = decode_mask(instance.segmentation, instance.height, instance.width)
    except UserError as error:
        raise UserError(f"annotation {instance.annotation_id}: {error}") from None
    area_fraction = cv2.countNonZero(mask) / mask.size
    if area_fraction < MIN_AREA_FRACTION:
        raise _Rejected("tiny" if area_fraction else "empty")
    pixels = region(photo, mask, settings.method, settings.channels)
    if pixels.statistics.deviation[0] < MIN_DEVIATION:
        raise _Rejected("flat")
    return _Object(photo, mask, pixels, area_fraction)


def _read_photo(instance: Instance) -> NDArray[np.uint8]:
    photo = read_rgb(instance.photo)
    if photo.shape[:2] != (instance.height, instance.width):
        size, told = f"{photo.shape[1]}x{photo.shape[0]}", f"{instance.width}x{instance.height}"
        raise ImageProblem(instance.photo, f"is {size} pixels, but its annotations are for {told}")
    return photo


def _real_bytes(instance: Instance, photo: NDArray[np.uint8], settings: Settings) -> Content:
    """The untouched photo: a JPEG byte for byte when JPEG is asked for, else its pixels in the format asked for."""
    if settings.format == "jpeg" and instance.photo.suffix.lower() in (".jpg", ".jpeg"):
        return instance.photo.read_bytes()
    return _encode(photo, settings.format)


def _encode(photo: NDArray[np.uint8], format: Format) -> Content:
    return cv2.imencode(EXTENSIONS[format], cv2.cvtColor(photo, cv2.COLOR_RGB2BGR), PHOTO_OPTIONS[format])[1].data


def _write(path: str | Path, content: Content, out: Path) -> None:
    """Nothing is half-written under a final name, whoever is killed; no flush, so a power cut may leave it empty.

    Two workers may write one mask: until the rename each file has a name of its own.
    """
    temporary = f"{out}/{SCRATCH}/{uuid.uuid4().hex}"
    with open(temporary, "wb") as file:  # buffered: a raw one writes fewer bytes, without an error, on a full disk
        file.write(content)
    os.replace(temporary, path)


def _read_lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def _lines(names: Sequence[str]) -> bytes:
    return "".join(f"{name}\n" for name in names).encode()
