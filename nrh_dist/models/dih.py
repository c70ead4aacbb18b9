"""Deep Image Harmonization without its segmentation branch (Tsai et al. 2017): models ``dih_m`` and ``dih_nm``."""

from itertools import pairwise
from math import log2
from typing import Any

from torch import Tensor, nn

from nrh_dist.models.blocks import Fusion, Prediction, batch_norm, initialise, scaled, start_at_zero, with_mask

# Channels of the encoder's stages, outermost first, and of the bottleneck, for 256 px and width 1.
# Tsai's network has seven stages and runs at 512 px. The paper removes an "outer" layer "following DoveNet", whose code
# removes the innermost pair: both are offered.
VARIANTS = {
    "inner": ((64, 64, 128, 128, 256, 256), 512),
    "outer": ((64, 128, 128, 256, 256, 512), 1024),
}
LATENT_SIZE = 4  # pixels on a side of the innermost feature map, at every image size
AFFINE_CHANNELS = 6  # a gain and an offset for each of R, G, B


class Harmoniser(nn.Module):
    """The DIH network itself: N x C x size x size -> N3HW, with skips added after the activations.

    Each stage of the encoder is a 4x4 stride-2 convolution, BatchNorm, ELU; the bottleneck is a linear 4x4 valid
    convolution; the decoder mirrors the encoder with transposed convolutions and ends in a linear one. There are
    log2(size) - 2 stages, the innermost being dropped first (our choice), so that the innermost map is always 4x4.

    ``ptc_values`` > 0 replaces the bottleneck by the paper's equation 3: the fusion of that many detector values with
    the encoder's last activations, ``options["fusion_width"]`` wide. ``grid`` > 0 ends the decoder at grid x grid,
    with a 1x1 convolution to the 6 channels of an affine colour field.
    """

    def __init__(
        self, options: dict[str, Any], size: int, channels_in: int, *, ptc_values: int = 0, grid: int = 0
    ) -> None:
        super().__init__()
        stages, latent = VARIANTS[options["dih_variant"]]
        channels = [scaled(count, options) for count in stages[: int(log2(size)) - 2]]
        self.encoder = nn.ModuleList(
            _stage(nn.Conv2d(before, after, 4, stride=2, padding=1, bias=False), options)
            for before, after in zip([channels_in, *channels], channels, strict=False)
        )
        self.bottleneck: nn.Conv2d | Fusion
        if ptc_values:
            latent = options["fusion_width"]
            self.bottleneck = Fusion(ptc_values, LATENT_SIZE**2 * channels[-1], latent)
        else:
            latent = scaled(latent, options)
            self.bottleneck = nn.Conv2d(channels[-1], latent, LATENT_SIZE)
        inward = channels[::-1]
        depth = int(log2(grid)) - 1 if grid else len(channels)  # stages from 1x1 to the last feature map
        self.decoder = nn.ModuleList([_stage(nn.ConvTranspose2d(latent, inward[0], LATENT_SIZE, bias=False), options)])
        for before, after in pairwise(inward[:depth]):
            self.decoder.append(_stage(nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=False), options))
        self.head: nn.Module
        if grid:
            self.head = nn.Conv2d(inward[depth - 1], AFFINE_CHANNELS, 1)
        else:
            self.head = nn.ConvTranspose2d(inward[-1], 3, 4, stride=2, padding=1)
        initialise(self, options)

    def forward(self, x: Tensor, a_ptc: Tensor | None = None) -> Tensor:
        """``x`` is the image, with its mask where there is one; ``a_ptc`` the detector's features, where fused."""
        skips = []
        for stage in self.encoder:
            x = stage(x)
            skips.append(x)
        x = self.bottleneck(x) if a_ptc is None else self.bottleneck(a_ptc, x)
        for stage, skip in zip(self.decoder, reversed(skips), strict=False):
            x = stage(x) + skip
        return self.head(x)


class Dih(nn.Module):
    """The paper's baselines (section 6.1): ``dih_m`` is given the object's mask, ``dih_nm`` sees the image alone.

    Encoder, bottleneck and decoder as in ``Harmoniser``. ``residual`` (ours): the network's output is added to the
    image, and its last layer starts at zero, so that the model starts as the identity. Ours, too: the mask is 0..1
    always, the output has no tanh, and the convolutions before a BatchNorm have no bias.
    """

    def __init__(self, options: dict[str, Any], size: int, masked: bool) -> None:
        super().__init__()
        self.masked, self.residual = masked, options.get("residual", False)
        self.harmoniser = Harmoniser(options, size, channels_in=4 if masked else 3)
        if self.residual:
            start_at_zero(self.harmoniser.head)

    def forward(self, image: Tensor, mask: Tensor | None = None) -> Prediction:
        """N3HW in [-1, 1] and, for ``dih_m``, N1HW in [0, 1]. Raises ``ValueError`` where a needed mask is missing."""
        if self.masked and mask is None:
            raise ValueError("dih_m needs a mask beside the image; dih_nm does without")
        made = self.harmoniser(image if mask is None or not self.masked else with_mask(image, mask))
        return Prediction(image + made if self.residual else made, None, None)


def _stage(convolution: nn.Conv2d | nn.ConvTranspose2d, options: dict[str, Any]) -> nn.Sequential:
    return nn.Sequential(convolution, batch_norm(convolution.out_channels, options), nn.ELU(inplace=True))
