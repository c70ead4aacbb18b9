"""Image errors, one definition each: 0..255 scale, clamped but not rounded, one value an image, summed in float64.

Images are N3HW in [-1, 1], masks N1HW in [0, 1], regions N x HW bool. An image's value does not depend on the others
in its batch. The mean over images is the caller's; PSNR is never computed from a mean of MSE.
"""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nrh_dist.color import rgb_to_lab_t

PEAK = 255.0
PSNR_CAP = 100.0  # dB; what identical images get
MASK_LEVEL = 128  # of 255: from here on a pixel belongs to the object
SIZE_BINS = tuple(f"{low}-{low + 10}%" for low in range(0, 100, 10))
FIELD_BINS = {"0-5%": 0.05, "5-15%": 0.15, "15-100%": 1.0}  # upper ends: those of DoveNet (CVPR 2020)


def to_255(image: Tensor) -> Tensor:
    """[-1, 1], clamped, to [0, 255] in float64."""
    return (image.double().clamp(-1, 1) + 1) * (PEAK / 2)


def squared_errors(output: Tensor, real: Tensor) -> Tensor:
    """The squared error of each pixel, the mean of its three channels: N x HW float64, 0..65025.

    ``output`` is clamped here, ``real`` is in [-1, 1] already.
    """
    _require_same_shape(output, real)
    return torch.cat([_squared(one.clamp(-1, 1) - other) for one, other in _parts(output, real)])


def mse(output: Tensor, real: Tensor) -> Tensor:
    """Mean squared error over all pixels and channels: N values, 0..65025; as ``squared_errors``, and faster."""
    _require_same_shape(output, real)
    pixels = output.shape[1:]
    scale = (PEAK / 2) ** 2 / max(pixels.numel(), 1)
    if output.device.type != "cpu":
        return _norm(output.clamp(-1, 1) - real) * scale
    kind = torch.promote_types(torch.result_type(output, real), torch.float32)
    buffer = torch.empty(pixels.numel(), dtype=kind)  # one for all: new pages cost more than the sums
    image = buffer.view(pixels) if output.is_contiguous() else buffer.view(*pixels[1:], -1).permute(2, 0, 1)
    rows = buffer.numpy().reshape(pixels[-2], -1)
    sums = np.empty((len(output), len(rows)), rows.dtype)
    for own, one, other in zip(sums, output, real, strict=True):
        torch.clamp(one.to(kind), -1, 1, out=image).sub_(other)
        np.vecdot(rows, rows, out=own)
    return torch.from_numpy(sums.sum(axis=1, dtype=np.float64)) * scale


def psnr_from_mse(error: Tensor, peak: float | Tensor = PEAK) -> Tensor:
    """10 log10(peak^2 / mse) in dB for N values of ``mse``, capped at 100."""
    return (10 * torch.log10(peak**2 / error)).clamp(max=PSNR_CAP)


def mean_over(values: Tensor, region: Tensor) -> Tensor:
    """The mean of N x HW ``values`` over each ``region``: N values, nan where it is empty.

    Of ``squared_errors`` over ``object_region``: fMSE (DoveNet, CVPR 2020).
    """
    return (values * region).sum(dim=1) / region.sum(dim=1)


def object_region(mask: Tensor) -> Tensor:
    """The object's pixels: those with mask >= 128/255."""
    return ((mask.double() * PEAK).round() >= MASK_LEVEL).flatten(1)


def edge_region(mask: Tensor, width: int) -> Tensor:
    """The pixels not farther than ``width`` from the object's edge (a square's distance), on both sides of it."""
    inside = object_region(mask).view(mask.shape).float()
    grown, shrunk = _spread(inside, width), 1 - _spread(1 - inside, width)
    return (grown > shrunk).flatten(1)


def correction(output: Tensor, composite: Tensor, real: Tensor, region: Tensor) -> Tensor:
    """How much of the wanted change was made in ``region``: <o - c, r - c> / <r - c, r - c>, N values.

    1: all of it; 0: nothing; above 1: too much; below 0: the wrong way; nan: nothing was wanted.
    """
    values = []
    for out, given, wanted, inside in _parts(output, composite, real, region):
        aim = ((wanted - given).flatten(2) * inside[:, None]).double()
        made = (out.clamp(-1, 1) - given).flatten(2).double()
        values.append((made * aim).sum(dim=(1, 2)) / aim.square().sum(dim=(1, 2)))
    return torch.cat(values)


def share_outside(output: Tensor, composite: Tensor, region: Tensor) -> Tensor:
    """The share of the squared change from ``composite`` that lies outside ``region``: N values, nan: no change."""
    change = squared_errors(output, composite)
    return (change * ~region).sum(dim=1) / change.sum(dim=1)


def chroma(image: Tensor, region: Tensor) -> list[Tensor]:
    """a and b of CIE Lab of the pixels in each ``region``: N tensors 2 x P."""
    rgb = (image.clamp(-1, 1).flatten(2) + 1) / 2
    return [rgb_to_lab_t(one[None, :, inside, None])[0, 1:, :, 0] for one, inside in zip(rgb, region, strict=True)]


def chroma_drift(output: list[Tensor], real: list[Tensor]) -> Tensor:
    """The mean distance in (a, b) between two ``chroma``: N values in units of Lab, nan where there are no pixels."""
    return torch.stack(
        [(one - other).norm(dim=0).mean(dtype=torch.float64) for one, other in zip(output, real, strict=True)]
    )


def _require_same_shape(output: Tensor, real: Tensor) -> None:
    if output.shape != real.shape:
        raise ValueError(f"output {tuple(output.shape)} and real {tuple(real.shape)} must have the same shape")


def _norm(difference: Tensor) -> Tensor:
    """The sum of the squares of each N3HW image, line by line in its type, then in float64: N values."""
    order = (0, 1, 2, 3) if difference.is_contiguous() else (0, 2, 3, 1)
    lines = difference.permute(order).flatten(2)
    return torch.linalg.vecdot(lines, lines).double().sum(dim=1)


def _squared(difference: Tensor) -> Tensor:
    """N3HW in [-1, 1] to N x HW: one product with a vector sums the channels, several times faster than a reduction."""
    channels = difference.permute(0, 2, 3, 1).flatten(1, 2)
    weights = torch.full((3,), (PEAK / 2) ** 2 / 3, dtype=difference.dtype, device=difference.device)
    return (channels.square() @ weights).double()


def _parts(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Image by image on a CPU, where a batch would not stay in its caches; else the batch as it is."""
    size = 1 if tensors[0].device.type == "cpu" else max(len(tensors[0]), 1)
    return zip(*(tensor.split(size) for tensor in tensors), strict=True)


def _spread(mask: Tensor, width: int) -> Tensor:
    return F.max_pool2d(mask, 2 * width + 1, stride=1, padding=width)
