"""The peer of the COCO-Exp generator: the way one would write it first, for one composite at a time."""

import warnings
from collections.abc import Sequence
from contextlib import redirect_stdout
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nrh_dist.data.pairs import Pair
from nrh_dist.errors import UserError


def require_peer() -> None:
    """``UserError`` without scikit-image, which only the ``test`` extra brings."""
    if find_spec("skimage") is None:
        raise UserError("the bench compares with scikit-image, which is not installed: pip install 'nrh_dist[test]'")


def make_all(pairs: Sequence[Pair], coco: Any, out: Path) -> None:
    """Write the composites of ``pairs`` as PNG. ``coco`` is the ``pycocotools.coco.COCO`` of their annotations.

    Per pair: both photos decoded by PIL, both masks by pycocotools, both whole photos to Lab by scikit-image, L matched
    by mean and deviation, the whole photo back, blended, saved at Pillow's defaults.
    """
    from skimage.color import lab2rgb, rgb2lab

    for pair in pairs:
        photo, reference = (np.asarray(Image.open(one.photo).convert("RGB")) for one in (pair.target, pair.reference))
        mask, reference_mask = (coco.annToMask(coco.anns[one.annotation_id]) for one in (pair.target, pair.reference))
        lab, reference_lab = rgb2lab(photo), rgb2lab(reference)
        source, wanted = lab[..., 0][mask > 0], reference_lab[..., 0][reference_mask > 0]
        ratio = np.clip(wanted.std() / source.std(), 1 / 3, 3)
        lab[..., 0] = np.clip((lab[..., 0] - source.mean()) * ratio + wanted.mean(), 0, 100)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of colours that sRGB does not have
            shifted = lab2rgb(lab)
        weight = mask[..., None]
        composite = weight * shifted + (1 - weight) * (photo / 255)
        Image.fromarray(np.rint(composite * 255).astype(np.uint8)).save(out / f"{pair.composite_name}.png")


def open_annotations(path: Path) -> Any:
    """``pycocotools.coco.COCO(path)`` without its printed lines."""
    from pycocotools.coco import COCO

    with redirect_stdout(StringIO()):
        return COCO(str(path))
