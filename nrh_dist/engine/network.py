"""A trained harmoniser as one function of a small picture, by torch or, exported, by onnxruntime alone.

An exported model (``onnx.py``) needs neither torch nor anything else of the training: only what opens is imported.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nrh_dist.errors import UserError
from nrh_dist.photo.correction import Answer
from nrh_dist.schema import MASKED_MODEL

ONNX = ".onnx"
ABOUT = "nrh_dist"  # key of an exported model's metadata
SCHEMA = 1
PHOTO, MASK, IMAGE, FIELD = "photo", "mask", "image", "field"  # names of what goes in and comes out

Run = Callable[[np.ndarray, np.ndarray | None], dict[str, np.ndarray]]


@dataclass(frozen=True)
class Network:
    """A harmoniser for pictures of ``size`` x ``size``. ``name``: that of its model; ``origin``: where it lies.

    ``run`` takes N3SS in [-1, 1] and, where it needs one, the object's mask N1SS in [0, 1]; float32.
    """

    name: str
    size: int
    origin: str
    run: Run

    @property
    def needs_mask(self) -> bool:
        """Whether it has to be told where the object is."""
        return self.name == MASKED_MODEL

    @property
    def detects(self) -> bool:
        """Whether it says where it found an object."""
        return self.name in ("two_stage", "ptc_dih", "gated")

    def __call__(self, picture: np.ndarray, mask: np.ndarray | None = None) -> Answer:
        """``picture``: S x S x 3 in sRGB, [0, 1]; ``mask``: S x S in [0, 1]. ``UserError``: it answers with NaN."""
        assert picture.shape == (self.size, self.size, 3), picture.shape
        batch = np.ascontiguousarray((2 * picture - 1).transpose(2, 0, 1)[None], np.float32)
        given = np.ascontiguousarray(mask[None, None], np.float32) if mask is not None and self.needs_mask else None
        made = {name: value[0].transpose(1, 2, 0) for name, value in self.run(batch, given).items()}
        if not all(np.isfinite(one).all() for one in made.values()):
            raise UserError(f"{self.origin} gives values that are not finite: choose another checkpoint")
        image = ((made[IMAGE] + 1) / 2).clip(0, 1)
        is_gated = self.name == "gated"
        shut = made[MASK] <= 0 if is_gated else np.False_
        return Answer(
            np.where(shut, picture, image).astype(np.float32),
            made[MASK][..., 0] if MASK in made else None,
            is_gated,
            made.get(FIELD),
        )


def open_network(word: str | Path) -> Network:
    """What CHECKPOINT means: a run, sweep, checkpoint or exported folder, an address of one, or an exported model.

    ``UserError`` where it is none, is a detector, or is damaged.
    """
    return _of_onnx(Path(word)) if Path(word).suffix.lower() == ONNX else _of_checkpoint(word)


def _of_checkpoint(word: str | Path) -> Network:
    import torch

    from nrh_dist.engine import checkpoint, select
    from nrh_dist.engine.assemble import require_harmoniser, trained_model
    from nrh_dist.engine.dist import own_device

    if str(word) == select.IDENTITY:
        raise UserError("identity changes nothing: give a harmoniser's checkpoint")
    path = select.resolve(word)
    require_harmoniser(checkpoint.read_meta(path), word)
    model, meta = trained_model(path)
    device = own_device()
    model.to(device)

    @torch.inference_mode()
    def run(photo: np.ndarray, mask: np.ndarray | None) -> dict[str, np.ndarray]:
        given = [None if one is None else torch.from_numpy(one).to(device) for one in (photo, mask)]
        made = model(*given)
        parts = {IMAGE: made.image, MASK: made.mask, FIELD: made.field}
        return {name: one.float().cpu().numpy() for name, one in parts.items() if one is not None}

    return Network(meta["model"]["name"], meta["size"], str(path), run)


def _of_onnx(path: Path) -> Network:
    import onnxruntime

    if not path.is_file():
        raise UserError(f"no exported model at {path}: nrh export CHECKPOINT --format onnx -o {path} makes one")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        about = json.loads(session.get_modelmeta().custom_metadata_map[ABOUT])
        name, size = str(about["name"]), int(about["size"])
    except Exception as error:  # onnxruntime has kinds of its own for damaged files
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"{path} is not a model that nrh export made: {reason}") from None
    names = [one.name for one in session.get_outputs()]

    def run(photo: np.ndarray, mask: np.ndarray | None) -> dict[str, np.ndarray]:
        given = {PHOTO: photo} | ({} if mask is None else {MASK: mask})
        return dict(zip(names, session.run(names, given), strict=True))

    return Network(name, size, str(path), run)
