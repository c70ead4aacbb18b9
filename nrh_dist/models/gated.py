"""``gated``, beyond the paper: a harmoniser that knows when to leave a photo alone."""

from typing import Any

import torch
from torch import Tensor, nn

from nrh_dist.models.blocks import Prediction, resize, start_at_zero, with_mask
from nrh_dist.models.dih import Harmoniser
from nrh_dist.models.ptc import Detector, feature_values

GATE_STRETCH = 1.2  # the sigmoid is stretched to -0.1..1.1 and clamped, so that the gate can be exactly 0 or 1
GATE_SHIFT = -0.1


class Gated(nn.Module):
    """output = where(g > 0, x + g * r, x): where the gate g is 0, the photo is returned bit for bit.

    g comes from the detector's 1-channel head, enlarged as logits so that its zeros stay exact. r comes from a DIH that
    sees [x, g]; with ``fusion_width`` > 0 its bottleneck is the paper's equation 3 over the detector's features.

    ``correction`` "affine": r = gain * x + offset, six smooth maps from a ``correction_grid`` x ``correction_grid``
    field, enlarged bilinearly. "pixels": r is drawn by the whole DIH decoder. Either head starts at zero, so r is 0 at
    first and the model starts as the identity.

    ``gate`` False leaves it open everywhere, which shows what the gate is good for. r is multiplied by
    ``correction_strength``. A photo that would change by less than ``least_change`` (MSE on the 0..255 scale) is left
    alone, except in training: a model of least squared error changes as much as it expects to gain, so that a small
    change stands for doubt. These two and ``gate_threshold`` may be set on a finished model: ``nrh calibrate`` does.
    """

    def __init__(self, options: dict[str, Any], size: int) -> None:
        super().__init__()
        self.affine = options["correction"] == "affine"
        self.fused = options["fusion_width"] > 0
        self.is_open: bool = not options.get("gate", True)  # of checkpoints from before there was a choice
        self.gate_threshold: float = options["gate_threshold"]
        self.correction_strength: float = options.get("correction_strength", 1.0)
        self.least_change: float = options.get("least_change", 0.0)
        self.detector = Detector(options, size, classes=1)
        self.harmoniser = Harmoniser(
            options,
            size,
            channels_in=4,
            ptc_values=feature_values(size) if self.fused else 0,
            grid=options["correction_grid"] if self.affine else 0,
        )
        start_at_zero(self.harmoniser.head)
        if self.is_open:
            self.detector.requires_grad_(False)

    def forward(self, image: Tensor, mask: Tensor | None = None, features: Tensor | None = None) -> Prediction:
        """N3HW in [-1, 1]; the given mask is ignored. ``features``: the encoder's output, where it is known already."""
        features = self.detector.encoder(image) if features is None else features
        return self.opened(image, self.detector.decoder(features), features)

    def opened(self, image: Tensor, logits: Tensor, features: Tensor) -> Prediction:
        """What follows from the gate's ``logits``: all that depends on the values of a calibration."""
        opening = gate(resize(logits, image.shape[-1]), self.gate_threshold)
        opening = torch.ones_like(opening) if self.is_open else opening
        field = self.harmoniser(with_mask(image, opening), features if self.fused else None)
        field = self.correction_strength * field
        correction = _affine(field, image) if self.affine else field
        output = torch.where(opening > 0, image + opening * correction, image)
        if self.least_change > 0 and not self.training:
            is_changed = (mean_change(output, image) >= self.least_change).view(-1, 1, 1, 1)
            output = torch.where(is_changed, output, image)
            opening = torch.where(is_changed, opening, torch.zeros_like(opening))
        return Prediction(output, opening, logits, field=field if self.affine else None)


def mean_change(output: Tensor, image: Tensor) -> Tensor:
    """Mean squared difference of two N3HW in [-1, 1], on the 0..255 scale and not clamped: N."""
    return (127.5 * (output - image)).square().mean(dim=(1, 2, 3))


def gate(logits: Tensor, threshold: float) -> Tensor:
    """clamp(1.2 sigmoid(z) - 0.1, 0, 1), and 0 below ``threshold``: same shape, in [0, 1].

    No gradient passes where the gate is shut or fully open; a gate is therefore taught through its logits.
    """
    opening = (GATE_STRETCH * logits.sigmoid() + GATE_SHIFT).clamp(0, 1)
    return torch.where(opening < threshold, torch.zeros_like(opening), opening)


def _affine(field: Tensor, image: Tensor) -> Tensor:
    """gain * image + offset, from a field N x 6 x grid x grid."""
    gain, offset = resize(field, image.shape[-1]).chunk(2, dim=1)
    return gain * image + offset
