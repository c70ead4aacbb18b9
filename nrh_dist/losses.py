"""Training losses, one value an image (N), so that a ragged batch can be weighted exactly.

Images are N3HW around [-1, 1] and are not clamped here; masks are N1HW in [0, 1].
"""

import torch
import torch.nn.functional as F
from torch import Tensor

AREA_FLOOR = 0.01  # share of the image; COCO-Exp has no smaller objects
DICE_SMOOTHING = 1.0  # pixels; makes an empty mask with an empty prediction cost nothing


def mse(output: Tensor, real: Tensor) -> Tensor:
    """The paper's loss: mean squared error over all pixels and channels, on the [-1, 1] scale."""
    return (output - real).square().mean(dim=(1, 2, 3))


def object_mse(output: Tensor, real: Tensor, mask: Tensor) -> Tensor:
    """``mse`` divided by the object's share of the image, so that small objects count like large ones (Sofiiuk 2020).

    The share is the mean of the soft mask, at least 1 %. An empty mask means an untouched photo: there the whole image
    counts, undivided.
    """
    area = mask.mean(dim=(1, 2, 3))
    share = torch.where(area == 0, torch.ones_like(area), area.clamp(min=AREA_FLOOR))
    return mse(output, real) / share


def harm(output: Tensor, composite: Tensor, real: Tensor) -> Tensor:
    """relu(MSE_out - MSE_in): what the model made worse; 0 where it helped."""
    return F.relu(mse(output, real) - mse(composite, real))


def gate(mask_logits: Tensor, mask: Tensor) -> Tensor:
    """Binary cross-entropy plus Dice of the gate's logits against the known mask.

    The mask (N1HW) is brought to the size of the logits (N1hw), bilinearly with antialiasing; its grey edges are kept.
    Acts on the logits, so that a shut gate can still be opened.
    """
    target = F.interpolate(mask, size=mask_logits.shape[-2:], mode="bilinear", align_corners=False, antialias=True)
    cross_entropy = F.binary_cross_entropy_with_logits(mask_logits, target, reduction="none").mean(dim=(1, 2, 3))
    probability = mask_logits.sigmoid()
    overlap = (probability * target).sum(dim=(1, 2, 3))
    total = (probability + target).sum(dim=(1, 2, 3))
    return cross_entropy + 1 - (2 * overlap + DICE_SMOOTHING) / (total + DICE_SMOOTHING)


def focal(
    logits: Tensor, target: Tensor, weight: Tensor | None = None, alpha: float = 0.25, gamma: float = 4.0
) -> Tensor:
    """-alpha (1 - p)^gamma log p of the true class (Lin et al. 2017), mean over pixels, each times its ``weight``.

    ``logits`` are N x classes x h x w, ``target`` the N x h x w class numbers, ``weight`` N x h x w or None for 1. One
    alpha for all classes (our choice).
    """
    cross_entropy = F.cross_entropy(logits, target, reduction="none")
    values = alpha * (1 - torch.exp(-cross_entropy)).pow(gamma) * cross_entropy
    return (values if weight is None else weight * values).mean(dim=(1, 2))


def object_weight(inside: Tensor, share: float) -> Tensor:
    """Weights of mean 1 for N x h x w pixels, of which those ``inside`` (bool) have ``share`` of the sum.

    1 everywhere in an image that has pixels of one kind only.
    """
    area = inside.float().mean(dim=(1, 2), keepdim=True)
    weight = torch.where(inside, share / area, (1 - share) / (1 - area))
    return torch.where((area > 0) & (area < 1), weight, torch.ones_like(weight))
