"""A checkpoint as one ONNX file, proven to give the same as torch; its model card is in it.

The graph takes any number of pictures. What a reader of the file has to know is in its metadata under ``nrh_dist``:
the model's name and its size; the model card is the graph's description.
"""

import json
import os
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nrh_dist.data.images import resize_photo
from nrh_dist.data.scenes import draw
from nrh_dist.engine import checkpoint
from nrh_dist.engine.assemble import require_harmoniser, trained_model
from nrh_dist.engine.export import card_of, require_new
from nrh_dist.engine.files import sync, sync_folder
from nrh_dist.engine.network import ABOUT, FIELD, IMAGE, MASK, ONNX, PHOTO, SCHEMA, open_network
from nrh_dist.engine.progress import Say
from nrh_dist.errors import UserError
from nrh_dist.schema import MASKED_MODEL

OPSET = 18  # the first that knows antialiased reduction
PHOTOS = 16
TOLERANCE = 1e-3  # of colours in [0, 1]


class _Parts(nn.Module):
    """A harmoniser whose prediction is a plain tuple: image, mask, field, as far as it has them."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, photo: Tensor, mask: Tensor | None = None) -> tuple[Tensor, ...]:
        made = self.model(photo, mask)
        return tuple(one for one in (made.image, made.mask, made.field) if one is not None)


def export(path: Path, out: Path, say: Say) -> Path:
    """Write the checkpoint folder ``path`` to the new file ``out``, and say by how much it differs from torch.

    ``UserError``, with nothing left behind, where ``out`` exists or does not end in .onnx, the checkpoint is no
    harmoniser, or a picture of 16 differs by more than ``TOLERANCE``.
    """
    require_new(out)
    if out.suffix.lower() != ONNX:
        raise UserError(f"{out} would not be found again: the name of an exported model ends in {ONNX}")
    meta = checkpoint.read_meta(path)
    require_harmoniser(meta, path)
    model, _ = trained_model(path)
    say(f"making {ONNX} of {path}, and comparing {PHOTOS} pictures with torch: about half a minute")
    partial = out.with_name(f".{out.stem}.{os.getpid()}.partial.onnx")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _write(model, meta, card_of(meta, []), partial)
        largest = difference(path, partial)
        if not largest <= TOLERANCE:
            raise UserError(f"{path} as ONNX differs from torch by {largest:.2g}, and {TOLERANCE:g} is allowed")
        require_new(out)
        sync(partial)
        partial.rename(out)
        sync_folder(out.parent)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror or error}") from None
    finally:
        with suppress(OSError):
            partial.unlink()
    say(f"exported {path} to {out}: of {PHOTOS} pictures, the largest difference from torch is {largest:.2g} of 1")
    return out


def difference(path: Path, exported: Path) -> float:
    """The largest difference between what both make of ``PHOTOS`` drawn scenes, of colours in [0, 1].

    Also of the correction where the model tells it, which a photo that is left alone does not show.
    """
    network, other = open_network(path), open_network(exported)
    found = []
    for seed in range(PHOTOS):
        scene = draw(np.random.default_rng(seed), 256, 256)
        picture = resize_photo(scene.photo, network.size).astype(np.float32) / 255
        mask = np.zeros((network.size, network.size), np.float32)
        mask[network.size // 4 : network.size // 2, network.size // 4 :] = 1
        ours, theirs = network(picture, mask), other(picture, mask)
        found.append(abs(ours.image - theirs.image).max())
        if ours.field is not None and theirs.field is not None:
            found.append(abs(ours.field - theirs.field).max())
    return float(max(found))


def _write(model: nn.Module, meta: dict[str, Any], card: str, out: Path) -> None:
    import onnx

    size = meta["size"]
    inputs: dict[str, Tensor] = {PHOTO: torch.zeros(2, 3, size, size)}
    if meta["model"]["name"] == MASKED_MODEL:
        inputs[MASK] = torch.zeros(2, 1, size, size)
    parts = _Parts(model).eval()
    with torch.no_grad():
        made = model(*inputs.values())
    names = [name for name, one in ((IMAGE, made.image), (MASK, made.mask), (FIELD, made.field)) if one is not None]
    if MASK in inputs:
        names = [IMAGE]
    batch = torch.export.Dim("batch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own, of its own parts
        program = torch.onnx.export(
            parts,
            (),
            kwargs=inputs,
            input_names=[*inputs],
            output_names=names,
            opset_version=OPSET,
            dynamic_shapes={name: {0: batch} for name in inputs},
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    graph = program.model_proto
    graph.doc_string = card
    about = {"schema": SCHEMA, "name": meta["model"]["name"], "size": size}
    onnx.helper.set_model_props(graph, {ABOUT: json.dumps(about)})
    out.write_bytes(graph.SerializeToString())
