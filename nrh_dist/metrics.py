"""Image errors, one definition each: 0..255 scale, float64, clamped but not rounded, one value an image.

Images are N3HW in [-1, 1], masks N1HW in [0, 1]. An image's value does not depend on the others in its batch. The mean
over images is the caller's; PSNR is never computed from a mean of MSE.
"""

from math import floor

import torch
from torch import Tensor

PEAK = 255.0
PSNR_CAP = 100.0  # dB; what identical images get
MASK_LEVEL = 128  # of 255: from here on a pixel belongs to the object
SIZE_BINS = tuple(f"{low}-{low + 10}%" for low in range(0, 100, 10))


def to_255(image: Tensor) -> Tensor:
    """[-1, 1], clamped, to [0, 255] in float64."""
    return (image.double().clamp(-1, 1) + 1) * (PEAK / 2)


def mse(output: Tensor, real: Tensor) -> Tensor:
    """Mean squared error over all pixels and channels: N values, 0..65025."""
    return _squared_error(output, real).mean(dim=(1, 2, 3))


def psnr_from_mse(error: Tensor) -> Tensor:
    """10 log10(255^2 / mse) in dB for N values of ``mse``, capped at 100."""
    return (10 * torch.log10(PEAK**2 / error)).clamp(max=PSNR_CAP)


def fmse(output: Tensor, real: Tensor, mask: Tensor) -> Tensor:
    """MSE over the pixels with mask >= 128/255 alone (DoveNet, CVPR 2020): N values, nan where there are none."""
    inside = ((mask.double() * PEAK).round() >= MASK_LEVEL).double()
    error = (_squared_error(output, real) * inside).sum(dim=(1, 2, 3))
    return error / (3 * inside.sum(dim=(1, 2, 3)))


def size_bin(area_fraction: float) -> int:
    """The index in ``SIZE_BINS`` of an object's share of the image, floor(10 x fraction); 1.0 falls into the last."""
    if not 0 <= area_fraction <= 1:
        raise ValueError(f"area_fraction={area_fraction}: an area fraction must be in [0, 1]")
    return min(floor(10 * area_fraction), len(SIZE_BINS) - 1)


def _squared_error(output: Tensor, real: Tensor) -> Tensor:
    if output.shape != real.shape:
        raise ValueError(f"output {tuple(output.shape)} and real {tuple(real.shape)} must have the same shape")
    return (to_255(output) - to_255(real)).square()
