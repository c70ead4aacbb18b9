"""The index of a data root in iHarmony4 layout: which composites there are, and the three files of each.

    <root>/IHD_train.txt, IHD_test.txt           lines: <sub-set>/composite_images/<real>_<mask>_<k>.jpg
    <root>/<sub-set>/<sub-set>_train.txt, ...    lines: bare composite file names
    <root>/<sub-set>/composite_images/<real>_<mask>_<k>.jpg   masks/<real>_<mask>.png   real_images/<real>.jpg

Any folder with ``composite_images`` is a sub-set. Its own list of a split comes before the lines of ``IHD_*.txt``;
lines there of a sub-set that is not on disk are passed over. Extensions are jpg, jpeg or png in any case: a file is
found by its stem when the exact name is not there. Source of the layout: the iHarmony4 data set (DoveNet, CVPR 2020).
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from nrh_dist.errors import UserError

SPLITS = ("train", "test")
EXTENSIONS = (".jpeg", ".jpg", ".png")
COCO_SUBSETS = ("HCOCO", "COCOExp")


@dataclass(frozen=True)
class Sample:
    """One composite: sub-set, split (train or test), file stem, its three files, and the group it is split by."""

    dataset: str
    split: str
    name: str
    composite: Path
    mask: Path
    real: Path
    group: str


class Problem(NamedTuple):
    """What is wrong with one file, as a half-sentence that follows its path."""

    path: Path
    reason: str


def index(root: str | Path) -> list[Sample]:
    """All samples of ``root``, ordered by sub-set, split (train first) and list.

    Raises ``UserError``: no such folder, no sub-set in it, nothing listed, a line that leaves the root or cannot be
    split, missing files (their number and the first).
    """
    samples, problems = scan(root)
    if problems:
        first = problems[0]
        raise UserError(
            f"{root}: {len(problems)} listed files are missing or their lines are wrong, first {first.path}: "
            f"{first.reason}; nrh data verify {root} lists all"
        )
    return samples


def scan(root: str | Path) -> tuple[list[Sample], list[Problem]]:
    """Like ``index``, but lists bad lines and missing files; a missing file keeps its expected path in its sample."""
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"no data folder at {root}; give the folder that holds the sub-sets, such as HCOCO")
    subsets = sorted(path.parent.name for path in root.glob("*/composite_images") if path.is_dir())
    if not subsets:
        raise UserError(f"{root} holds no sub-set: expected {root}/<sub-set>/composite_images")
    problems: list[Problem] = []
    shared = {split: _read_shared(root, split, problems) for split in SPLITS}
    samples: list[Sample] = []
    for subset in subsets:
        files = {kind: _files_by_stem(root / subset / kind) for kind in ("composite_images", "masks", "real_images")}
        for split in SPLITS:
            own = root / subset / f"{subset}_{split}.txt"
            names = _read_list(own, subset, problems) if own.is_file() else shared[split].get(subset, [])
            samples += [_sample(root / subset, split, name, files, problems) for name in dict.fromkeys(names)]
    if not samples and not problems:
        raise UserError(
            f"{root}: no list names a composite of {', '.join(subsets)}; expected <sub-set>_train.txt, _test.txt"
        )
    return samples, list(dict.fromkeys(problems))


def split_name(name: str) -> tuple[str, str, str]:
    """``<real>_<mask>_<k>`` at its last two underscores: the real photo may hold any character, dashes included."""
    parts = tuple(name.rsplit("_", 2))
    if len(parts) != 3 or not all(parts):
        raise ValueError(f"'{name}' is not of the form <real>_<mask>_<k>")
    return parts


def group_of(dataset: str, name: str) -> str:
    """What must not be divided between train and val: the COCO id (shared by HCOCO and COCO-Exp), the Hday2night
    scene (before the last dash of the photo's name), else the photo. ``name`` is a composite's stem.
    """
    photo = split_name(name)[0]
    coco = re.fullmatch(r"c(\d+)", photo)
    if dataset in COCO_SUBSETS and coco:
        return f"coco:{int(coco[1])}"
    if dataset == "Hday2night":
        return f"day2night:{photo.rpartition('-')[0] or photo}"
    return f"{dataset}:{photo}"


def is_validation(group: str, fraction: float, seed: int) -> bool:
    """Whether a training group is held out: a hash of seed and group (which names its sub-set) below ``fraction``."""
    digest = hashlib.sha256(f"{seed}/{group}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < fraction


def leaked_groups(samples: Iterable[Sample]) -> dict[str, int]:
    """Per sub-set, how many groups of its train split are also in a test split of any sub-set; none, no entry."""
    samples = list(samples)
    tested = {sample.group for sample in samples if sample.split == "test"}
    trained = {(sample.dataset, sample.group) for sample in samples if sample.split == "train"}
    return dict(sorted(Counter(dataset for dataset, group in trained if group in tested).items()))


def by_photo(samples: list[Sample], at_least: int) -> list[list[int]]:
    """The positions of all samples in chunks of ``at_least`` or more, where no file is used by two chunks.

    All composites of one real photo, wherever they are listed, come in one chunk: every file is decoded once.
    """
    photos: dict[Path, list[int]] = {}
    for position, sample in enumerate(samples):
        photos.setdefault(sample.real, []).append(position)
    chunks: list[list[int]] = [[]]
    for positions in photos.values():
        if len(chunks[-1]) >= at_least:
            chunks.append([])
        chunks[-1] += positions
    return [chunk for chunk in chunks if chunk]


def _sample(folder: Path, split: str, name: str, files: dict[str, dict[str, str]], problems: list[Problem]) -> Sample:
    stem, extension = PurePosixPath(name).stem, PurePosixPath(name).suffix
    real, mask, _ = split_name(stem)

    def find(kind: str, wanted: str) -> Path:
        name = files[kind].get(wanted) or files[kind].get(PurePosixPath(wanted).stem)
        path = folder / kind / (name or wanted)
        if name is None:
            problems.append(Problem(path, "is missing"))
        return path

    return Sample(
        dataset=folder.name,
        split=split,
        name=stem,
        composite=find("composite_images", name),
        mask=find("masks", f"{real}_{mask}.png"),
        real=find("real_images", f"{real}{extension}"),
        group=group_of(folder.name, stem),
    )


def _files_by_stem(folder: Path) -> dict[str, str]:
    """Both the name and the stem of each image lead to its name; of several with one stem, the last in the alphabet."""
    if not folder.is_dir():
        return {}
    names = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in EXTENSIONS)
    return {PurePosixPath(name).stem: name for name in names} | {name: name for name in names}


def _read_shared(root: Path, split: str, problems: list[Problem]) -> dict[str, list[str]]:
    """The file names of ``IHD_<split>.txt`` by sub-set."""
    path = root / f"IHD_{split}.txt"
    named: dict[str, list[str]] = {}
    for subset, name in _parsed(path, None, problems) if path.is_file() else ():
        named.setdefault(subset, []).append(name)
    return named


def _read_list(path: Path, subset: str, problems: list[Problem]) -> list[str]:
    return [name for _, name in _parsed(path, subset, problems)]


def _parsed(path: Path, subset: str | None, problems: list[Problem]) -> Iterator[tuple[str, str]]:
    """(sub-set, file name) of each line; a bad line becomes a problem of the list file."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a readable list of file names: {error}") from None
    for number, line in enumerate(map(str.strip, lines), start=1):
        if not line:
            continue
        try:
            yield _parse_line(line, subset)
        except ValueError as error:
            problems.append(Problem(path, f"line {number}, '{line}', {error}"))


def _parse_line(line: str, subset: str | None) -> tuple[str, str]:
    """A line must stay inside the root: ``<sub-set>/composite_images/<file>``, or a bare file in a sub-set's list."""
    parts = line.split("/")
    if line.startswith("/") or "\\" in line or "\0" in line or ".." in parts:
        raise ValueError("leaves the data folder; lines must be relative, without '..' or backslashes")
    if subset is not None and len(parts) == 1:
        parts = [subset, "composite_images", line]
    if len(parts) != 3 or parts[1] != "composite_images" or subset not in (None, parts[0]):
        wanted = "<sub-set>/composite_images/<file>" if subset is None else "a composite's file name"
        raise ValueError(f"must be {wanted}")
    if PurePosixPath(parts[2]).suffix.lower() not in EXTENSIONS:
        raise ValueError("must end in .jpg, .jpeg or .png")
    split_name(PurePosixPath(parts[2]).stem)
    return parts[0], parts[2]
