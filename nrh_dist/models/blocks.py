"""The pieces that all models are made of. Shapes: N images, C channels, H x W pixels; images are in [-1, 1].

``options`` is always ``dataclasses.asdict`` of ``nrh_dist.config.Model``.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MIN_CHANNELS = 4


class Prediction(NamedTuple):
    """What every harmoniser returns.

    ``image`` is N3HW around [-1, 1], not clamped. ``mask`` is what the detector or gate says, N1HW in [0, 1] at image
    size, or None without such a mask. ``mask_logits`` are its N1hw logits at the detector's size, where they may learn.
    ``signs`` are the two classes behind a mask that has them, negative and positive shift, N2HW in [0, 1]. ``field`` is
    the affine colour field behind an image that has one: gain, then offset, of R, G, B: N x 6 x grid x grid.
    """

    image: Tensor
    mask: Tensor | None
    mask_logits: Tensor | None
    signs: Tensor | None = None
    field: Tensor | None = None


class Freezable(nn.Module):
    """A module that learns nothing once frozen: no gradients, and eval mode whatever ``train`` asks for.

    So its BatchNorm statistics stay as they are and its dropout is off, also inside a model that trains.
    """

    frozen = False

    def freeze(self) -> None:
        """Stop all learning in this module, for good."""
        self.frozen = True
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> "Freezable":
        """As ``nn.Module.train``, but a frozen module stays in eval mode."""
        return super().train(mode and not self.frozen)


class FreezableSequential(Freezable, nn.Sequential):
    """``nn.Sequential`` that can be frozen."""


class Fusion(nn.Module):
    """a_joint = fc3(softmax(fc1(a_ptc)) * fc2(a_dih)), the paper's equation 3.

    The softmax runs over the ``width`` neurons and the product is element by element, both our reading of the paper.
    """

    def __init__(self, ptc_values: int, dih_values: int, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(ptc_values, width)
        self.fc2 = nn.Linear(dih_values, width)
        self.fc3 = nn.Linear(width, width)

    def forward(self, a_ptc: Tensor, a_dih: Tensor) -> Tensor:
        """Both inputs are feature maps, flattened here; returns N x width x 1 x 1."""
        attention = self.fc1(a_ptc.flatten(1)).softmax(dim=1)
        return self.fc3(attention * self.fc2(a_dih.flatten(1)))[:, :, None, None]


class UpsamplingConvolution(nn.Conv2d):
    """A 3x3 convolution (padding 1, no bias) of the input enlarged twice by repetition, without enlarging it.

    Each output pixel sees only 2x2 distinct input pixels: a transposed 4x4 convolution of stride 2, whose kernel holds
    sums of the 3x3 kernel's values, gives the same with 4/9 of the multiplications (after Aitken et al. 2017,
    "Checkerboard artifact free sub-pixel convolution"). The parameter stays the 3x3 kernel.
    """

    sums: Tensor

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, 3, padding=1, bias=False)
        sums = torch.tensor([[0.0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]])
        self.register_buffer("sums", sums, persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        """N x C x h x w -> N x C' x 2h x 2w."""
        kernel = torch.einsum("ai,bj,ocij->coab", self.sums, self.sums, self.weight)
        return F.conv_transpose2d(input, kernel, stride=2, padding=1)


def scaled(channels: int, options: dict[str, Any]) -> int:
    """A channel count times ``options["width"]``, rounded, at least 4."""
    return max(MIN_CHANNELS, round(channels * options["width"]))


def batch_norm(channels: int, options: dict[str, Any]) -> nn.BatchNorm2d:
    """BatchNorm with the configured epsilon and (torch's) momentum."""
    return nn.BatchNorm2d(channels, eps=options["batchnorm_eps"], momentum=options["batchnorm_momentum"])


def conv_norm_relu(
    channels_in: int, channels_out: int, kernel: int, options: dict[str, Any], stride: int = 1
) -> list[nn.Module]:
    """Convolution, BatchNorm, ReLU. The convolution has no bias, because BatchNorm would remove it."""
    return [
        nn.Conv2d(channels_in, channels_out, kernel, stride, padding=kernel // 2, bias=False),
        batch_norm(channels_out, options),
        nn.ReLU(inplace=True),
    ]


def spatial_dropout(probability: float, options: dict[str, Any]) -> nn.Dropout2d:
    """SpatialDropout (whole channels), switched off by ``options["dropout"] = False``."""
    return nn.Dropout2d(probability if options["dropout"] else 0.0)


def resize(image: Tensor, size: int) -> Tensor:
    """Bilinear to ``size`` x ``size``; antialiased when that makes the image smaller."""
    return F.interpolate(
        image, size=(size, size), mode="bilinear", align_corners=False, antialias=size < image.shape[-1]
    )


def initialise(module: nn.Module, options: dict[str, Any]) -> None:
    """Give all convolutions and linear layers TensorFlow's start (Glorot uniform, zero bias), or leave torch's own."""
    if options["initialisation"] == "torch":
        return
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def start_at_zero(module: nn.Module) -> None:
    """Make what ``module`` gives zero, until it learns."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)


def parameter_count(module: nn.Module) -> int:
    """How many parameters a module has, frozen ones included; buffers are not parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def with_mask(image: Tensor, mask: Tensor) -> Tensor:
    """N3HW and N1HW -> N4HW. The mask stays in [0, 1] in training and in use."""
    return torch.cat([image, mask.to(image.dtype)], dim=1)
