"""What a finished ``gated`` model would do with other thresholds of its gate and weaker corrections."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from nrh_dist import metrics
from nrh_dist.data.feed import gather
from nrh_dist.data.pack import Pack
from nrh_dist.models.gated import Gated

BATCH = 64


class Scan(NamedTuple):
    """``mse``: T thresholds x S strengths x N images, on the 0..255 scale; ``identity_mse``: N, of doing nothing.

    ``opened``: T x N, whether the gate opens anywhere in the image.
    """

    thresholds: tuple[float, ...]
    strengths: tuple[float, ...]
    mse: np.ndarray
    identity_mse: np.ndarray
    opened: np.ndarray


@torch.no_grad()
def scan(
    model: Gated,
    pack: Pack,
    rows: np.ndarray,
    thresholds: Sequence[float],
    strengths: Sequence[float],
    device: torch.device,
    scanned: Callable[[int], None] = lambda images: None,
) -> Scan:
    """Score ``rows`` for each threshold and strength; ``scanned`` hears of each batch. The model is left as it was.

    The encoder runs once an image, the rest once a threshold; a weaker correction is the same one, made smaller.
    """
    before = model.gate_threshold, model.correction_strength
    model.eval()
    model.correction_strength = 1.0
    errors, openings, identity = [], [], []
    try:
        for start in range(0, len(rows), BATCH):
            batch = gather(pack, rows[start : start + BATCH], device)
            features = model.detector.encoder(batch.composite)
            own_errors, own_openings = [], []
            for threshold in thresholds:
                model.gate_threshold = threshold
                made = model(batch.composite, features=features)
                assert made.mask is not None
                own_openings.append((made.mask > 0).flatten(1).any(dim=1).cpu())
                change = made.image - batch.composite
                own_errors.append(torch.stack([_mse(batch.composite + s * change, batch.real) for s in strengths]))
            errors.append(torch.stack(own_errors))
            openings.append(torch.stack(own_openings))
            identity.append(_mse(batch.composite, batch.real))
            scanned(len(batch.rows))
    finally:
        model.gate_threshold, model.correction_strength = before
    return Scan(
        tuple(thresholds),
        tuple(strengths),
        torch.cat(errors, dim=2).numpy(),
        torch.cat(identity).numpy(),
        torch.cat(openings, dim=1).numpy(),
    )


def _mse(image: Tensor, real: Tensor) -> Tensor:
    return metrics.mse(image, real).double().cpu()
