"""Which of three layouts a data folder has, and its samples: iHarmony4, COCO photos, or photos and masks."""

import os
from pathlib import Path
from typing import NamedTuple

from nrh_dist.data import iharmony4, photos
from nrh_dist.data.samples import Problem, Sample
from nrh_dist.errors import UserError


class Source(NamedTuple):
    """A data folder; ``annotations`` is the COCO file of instances whose photos are in ``root``, if it is of COCO."""

    root: Path
    annotations: Path | None = None

    def __str__(self) -> str:
        return f"{self.root} ({self.annotations})" if self.annotations else str(self.root)


def index(source: Source) -> list[Sample]:
    """All samples, ordered by sub-set, split (train first) and list or name.

    Raises ``UserError`` like ``scan``, and for bad lines and missing files (their number and the first).
    """
    samples, problems = scan(source)
    if problems:
        first = problems[0]
        options = f" --annotations {source.annotations}" if source.annotations else ""
        raise UserError(
            f"{source}: {len(problems)} files are missing or their lines are wrong, first {first.path}: "
            f"{first.reason}; nrh data verify {source.root}{options} lists all"
        )
    return samples


def scan(source: Source) -> tuple[list[Sample], list[Problem]]:
    """All samples with every bad line and missing file. ``UserError`` where there is nothing of any layout.

    Of iHarmony4, ``source`` may also be one sub-set's own folder.
    """
    root, annotations = source
    if not root.is_dir():
        raise UserError(f"no data folder at {root}; give the folder that holds the sub-sets, such as HCOCO, or photos")
    if annotations:
        return photos.scan_coco(root, annotations)
    if (root / photos.IMAGES).is_dir() and (root / photos.MASKS).is_dir():
        return photos.scan_folder(root)
    if (root / iharmony4.COMPOSITES).is_dir():
        subset = Path(os.path.abspath(root))  # with its own name, not that of what it may link to
        return iharmony4.scan(subset.parent, subset.name)
    if not any(root.glob(f"*/{iharmony4.COMPOSITES}")):
        raise UserError(
            f"{root} has no known layout: it must hold sub-sets with composite_images (iHarmony4) or images and masks, "
            "or be the photos of a COCO file, which must be named (data.annotations=JSON or --annotations JSON)"
        )
    return iharmony4.scan(root)
