"""What a finished ``gated`` model would do with other values of what ``nrh calibrate`` sets."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from nrh_dist import metrics
from nrh_dist.data.feed import gather
from nrh_dist.data.pack import Pack
from nrh_dist.models.blocks import resize
from nrh_dist.models.gated import Gated, gate, mean_change

BATCH = 64


class Scan(NamedTuple):
    """``mse``: T thresholds x S strengths x N images, on the 0..255 scale; ``identity_mse``: N, of doing nothing.

    ``opened``: T x N, whether the gate opens anywhere in the image. ``change``: T x N, the mean square of what the
    correction at its whole strength changes, on the same scale.
    """

    thresholds: tuple[float, ...]
    strengths: tuple[float, ...]
    mse: np.ndarray
    identity_mse: np.ndarray
    opened: np.ndarray
    change: np.ndarray

    def leaving_alone(self, threshold: int, strength: int, least: float) -> tuple[np.ndarray, np.ndarray]:
        """MSE, and whether it is changed, of each image if those that would change by less than ``least`` are not.

        ``threshold`` and ``strength`` are places in the lists.
        """
        is_changed = self.strengths[strength] ** 2 * self.change[threshold] >= least
        mse = np.where(is_changed, self.mse[threshold, strength], self.identity_mse)
        return mse, is_changed & self.opened[threshold]


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

    The detector runs once an image, the harmoniser once a threshold that leaves its gate open; a weaker correction is
    the same one, made smaller.
    """
    before = model.gate_threshold, model.correction_strength, model.least_change
    model.eval()
    model.correction_strength, model.least_change = 1.0, 0.0
    errors, openings, changes, identity = [], [], [], []
    try:
        for start in range(0, len(rows), BATCH):
            batch = gather(pack, rows[start : start + BATCH], device)
            features = model.detector.encoder(batch.composite)
            logits = model.detector.decoder(features)
            widest = gate(resize(logits, batch.composite.shape[-1]), 0.0).flatten(1).amax(dim=1)
            doing_nothing = _mse(batch.composite, batch.real)
            own_errors, own_openings, own_changes = [], [], []
            for threshold in thresholds:
                model.gate_threshold = threshold
                is_open = (widest > 0) & (widest >= threshold)
                opened = is_open.cpu()
                mse, changed = doing_nothing.repeat(len(strengths), 1), torch.zeros_like(doing_nothing)
                if opened.any():
                    composite, real = batch.composite[is_open], batch.real[is_open]
                    output = model.opened(composite, logits[is_open], features[is_open]).image
                    change = output - composite
                    mse[:, opened] = torch.stack([_mse(composite + s * change, real) for s in strengths])
                    changed[opened] = mean_change(output, composite).double().cpu()
                own_errors.append(mse)
                own_openings.append(opened)
                own_changes.append(changed)
            errors.append(torch.stack(own_errors))
            openings.append(torch.stack(own_openings))
            changes.append(torch.stack(own_changes))
            identity.append(doing_nothing)
            scanned(len(batch.rows))
    finally:
        model.gate_threshold, model.correction_strength, model.least_change = before
    return Scan(
        tuple(thresholds),
        tuple(strengths),
        torch.cat(errors, dim=2).numpy(),
        torch.cat(identity).numpy(),
        torch.cat(openings, dim=1).numpy(),
        torch.cat(changes, dim=1).numpy(),
    )


def _mse(image: Tensor, real: Tensor) -> Tensor:
    return metrics.mse(image, real).double().cpu()
