"""``ptc_dih``: the detector predicts the harmoniser's mask, and both are trained through it."""

from typing import Any

from torch import Tensor, nn

from nrh_dist.models.blocks import Prediction, resize, with_mask
from nrh_dist.models.dih import Harmoniser
from nrh_dist.models.ptc import Detector


class PtcDih(nn.Module):
    """The paper's PTC-DIH (section 6.1, figure 2): a 1-channel sigmoid mask instead of three classes, put before DIH.

    In the paper only the loss of the harmonised image supervises the mask; ``loss.gate`` adds the true one. The image
    is made smaller for the detector and the mask enlarged again. Ours: both bilinearly, the first with antialiasing; no
    SpatialDropout before the mask.
    """

    def __init__(self, options: dict[str, Any], size: int) -> None:
        super().__init__()
        self.detector = Detector(options, size, classes=1)
        self.harmoniser = Harmoniser(options, size, channels_in=4)

    def forward(self, image: Tensor, mask: Tensor | None = None, features: Tensor | None = None) -> Prediction:
        """N3HW in [-1, 1]; the given mask is ignored. ``features``: the encoder's output, where it is known already."""
        features = self.detector.encoder(image) if features is None else features
        logits = self.detector.decoder(features)
        predicted = resize(logits.sigmoid(), image.shape[-1])
        return Prediction(self.harmoniser(with_mask(image, predicted)), predicted, logits)
