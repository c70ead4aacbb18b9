"""The perceptual threshold classifier, PTC (Dolhasz et al., CVPR 2020): the detector of exposure shifts."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nrh_dist.models.blocks import (
    Freezable,
    FreezableSequential,
    UpsamplingConvolution,
    batch_norm,
    conv_norm_relu,
    initialise,
    resize,
    scaled,
    spatial_dropout,
)

NEGATIVE, POSITIVE, NONE = 0, 1, 2  # the order of the classes
CLASSES = 3
BRANCH_CHANNELS = 3  # of the top and of each side branch, at every width
FEATURE_CHANNELS = 5 * BRANCH_CHANNELS
IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of RGB in [0, 1], as torchvision's VGG16 expects
IMAGENET_STD = (0.229, 0.224, 0.225)
VGG16_BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
BRANCH_STRIDES = (4, 2, 1, 1)  # from pool1..pool4 to an eighth of the detector's size
LATE_DROPOUT = 0.75


def detector_size(size: int) -> int:
    """The detector works at 7/8 of the image's size: 224 for 256."""
    return size * 7 // 8


def feature_size(size: int) -> int:
    """Pixels on a side of the encoder's feature maps: 28 for 256."""
    return detector_size(size) // 8


def feature_values(size: int) -> int:
    """How many values a_ptc has, the flattened bottleneck: 28 x 28 x 15 = 11,760 for 256."""
    return FEATURE_CHANNELS * feature_size(size) ** 2


class Encoder(Freezable):
    """VGG16's convolutions, where pool4 and pool5 have stride 1 and block 5 has dilation 2, with multi-scale outputs.

    On top two [1x1 convolution, BatchNorm, ReLU, SpatialDropout 0.1] and a 1x1 convolution to 3 channels with ReLU;
    from pool1..pool4 side branches of 3 channels; all five concatenated, the top first. The pools keep their 2x2
    window, so those of stride 1 are padded at the right and bottom, as TensorFlow does (our choice).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, options: dict[str, Any], size: int) -> None:
        super().__init__()
        self.size = detector_size(size)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)
        self.vgg = _vgg16(options)
        deep = scaled(512, options)
        self.top = nn.Sequential(
            *conv_norm_relu(deep, deep, 1, options),
            spatial_dropout(0.1, options),
            *conv_norm_relu(deep, deep, 1, options),
            spatial_dropout(0.1, options),
            nn.Conv2d(deep, BRANCH_CHANNELS, 1),
            nn.ReLU(inplace=True),
        )
        narrow = scaled(128, options)
        self.branches = nn.ModuleList(
            nn.Sequential(
                *conv_norm_relu(scaled(block[-1], options), narrow, 3, options, stride),
                *conv_norm_relu(narrow, narrow, 1, options),
                *conv_norm_relu(narrow, BRANCH_CHANNELS, 1, options),
            )
            for block, stride in zip(VGG16_BLOCKS, BRANCH_STRIDES, strict=False)
        )
        initialise(self, options)

    def forward(self, image: Tensor) -> Tensor:
        """N3HW in [-1, 1] at image size -> N x 15 x h x w, h = 7/64 of H, not negative."""
        x = ((resize(image, self.size) + 1) / 2 - self.mean) / self.std
        pools = []
        for layer in self.vgg:
            x = layer(x)
            if isinstance(layer, nn.MaxPool2d | SamePool):
                pools.append(x)
        branches = [branch(pool) for branch, pool in zip(self.branches, pools, strict=False)]
        return torch.cat([self.top(x), *branches], dim=1)

    def freeze_convolutions(self, count: int) -> None:
        """Freeze the first ``count`` of VGG's 13 convolutions; all else in the encoder learns."""
        convolutions = [layer for layer in self.vgg if isinstance(layer, nn.Conv2d)]
        for convolution in convolutions[:count]:
            convolution.requires_grad_(False)


class Decoder(nn.Module):
    """Three times [nearest x2, 3x3 convolution, BatchNorm, ReLU, 1x1 convolution, BatchNorm, ReLU], then a 1x1 head.

    ``classes`` is 3 for the PTC and 1 for a mask; ``dropout`` is that of the channels before the head.
    """

    def __init__(self, options: dict[str, Any], classes: int, dropout: float) -> None:
        super().__init__()
        channels = [scaled(count, options) for count in (256, 128, 64)]
        layers: list[nn.Module] = []
        for before, after in zip([FEATURE_CHANNELS, *channels], channels, strict=False):
            layers += [UpsamplingConvolution(before, after), batch_norm(after, options), nn.ReLU(inplace=True)]
            layers.extend(conv_norm_relu(after, after, 1, options))
        self.body = FreezableSequential(*layers)
        self.dropout = spatial_dropout(dropout, options)
        self.head = nn.Conv2d(channels[-1], classes, 1)
        initialise(self, options)

    def forward(self, features: Tensor) -> Tensor:
        """N x 15 x h x w -> logits, N x classes x 8h x 8w."""
        return self.head(self.dropout(self.body(features)))


class Detector(nn.Module):
    """Encoder and decoder. With 3 classes it is the ``ptc``: negative shift, positive shift, none, for every pixel.

    Follows section 3.3 of the paper and the detector's own; the layer sizes are those of the detector's authors. Ours:
    the head is linear in both stages of pre-training, and a 1-channel head (``ptc_dih``, ``gated``) has no dropout,
    because a mask that feeds another network must not flicker.
    """

    def __init__(self, options: dict[str, Any], size: int, classes: int = CLASSES) -> None:
        super().__init__()
        self.encoder = Encoder(options, size)
        self.decoder = Decoder(options, classes, dropout=LATE_DROPOUT if classes == CLASSES else 0.0)

    def forward(self, image: Tensor) -> Tensor:
        """N3HW in [-1, 1] -> logits at 7/8 of the size, N x classes x h x w."""
        return self.decoder(self.encoder(image))


class EncoderOnly(nn.Module):
    """A detector of which only the encoder is used."""

    def __init__(self, options: dict[str, Any], size: int) -> None:
        super().__init__()
        self.encoder = Encoder(options, size)


class Equivariance(nn.Module):
    """The first stage of pre-training (AET): regress the exposure offset between a photo and its shifted copy.

    Both go through the same network and a 1x1 convolution on its two outputs gives the offset maps, linear, one a
    transform. Ours: both go through in one batch, so that BatchNorm sees photos and shifted copies alike.
    """

    def __init__(self, detector: Detector, options: dict[str, Any], maps: int = 1) -> None:
        super().__init__()
        self.detector = detector
        self.regression = nn.Conv2d(2 * CLASSES, maps, 1)
        initialise(self.regression, options)

    def forward(self, photo: Tensor, shifted: Tensor) -> Tensor:
        """Two N3HW in [-1, 1] -> N x maps x h x w at the detector's size: mask x offset in stops, 0 outside."""
        one, other = self.detector(torch.cat([photo, shifted])).chunk(2)
        return self.regression(torch.cat([one, other], dim=1))


class SamePool(nn.Module):
    """2x2 max pooling with stride 1 that keeps the size; the zeros added right and below never win after ReLU."""

    def forward(self, x: Tensor) -> Tensor:
        """N x C x h x w, not negative -> the same shape."""
        return F.max_pool2d(F.pad(x, (0, 1, 0, 1)), kernel_size=2, stride=1)


def _vgg16(options: dict[str, Any]) -> nn.Sequential:
    """VGG16's features, layer for layer as in torchvision, so that its weights have the same names."""
    layers: list[nn.Module] = []
    channels = 3
    for number, block in enumerate(VGG16_BLOCKS, start=1):
        dilation = 2 if number == 5 else 1
        for count in block:
            wider = scaled(count, options)
            layers.append(nn.Conv2d(channels, wider, 3, padding=dilation, dilation=dilation))
            layers.append(nn.ReLU(inplace=True))
            channels = wider
        layers.append(SamePool() if number > 3 else nn.MaxPool2d(2))
    return nn.Sequential(*layers)
