"""The index of a data root in iHarmony4 layout: which composites there are, and the three files of each.

    <root>/IHD_train.txt, IHD_test.txt           lines: <sub-set>/composite_images/<real>_<mask>_<k>.jpg
    <root>/<sub-set>/<sub-set>_train.txt, ...    lines: bare composite file names
    <root>/<sub-set>/composite_images/<real>_<mask>_<k>.jpg   masks/<real>_<mask>.png   real_images/<real>.jpg

A list of validation composites (``IHD_val.txt``, ``<sub-set>_val.txt``) may be there; iHarmony4 has none. Any folder
with ``composite_images`` is a sub-set. Its own list of a split comes before the lines of ``IHD_*.txt``;
lines there of a sub-set that is not on disk are passed over. Extensions are jpg, jpeg or png in any case: a file is
found by its stem when the exact name is not there. Source of the layout: the iHarmony4 data set (DoveNet, CVPR 2020).
"""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from nrh_dist.data.images import EXTENSIONS
from nrh_dist.data.samples import Problem, Sample
from nrh_dist.errors import UserError

SPLITS = ("train", "val", "test")
COMPOSITES = "composite_images"
COCO_SUBSETS = ("HCOCO", "COCOExp")


def scan(root: Path, only: str | None = None) -> tuple[list[Sample], list[Problem]]:
    """All samples, or those of one sub-set, by sub-set, split (train first) and list; every bad line and missing file.

    A missing file keeps its expected path in its sample. ``UserError`` where nothing is listed.
    """
    subsets = [only] if only else sorted(path.parent.name for path in root.glob(f"*/{COMPOSITES}") if path.is_dir())
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
