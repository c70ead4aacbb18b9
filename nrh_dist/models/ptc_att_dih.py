"""``ptc_att_dih``: the detector's latent features attend to the harmoniser's."""

from typing import Any

from torch import Tensor, nn

from nrh_dist.models.blocks import Prediction
from nrh_dist.models.dih import Harmoniser
from nrh_dist.models.ptc import EncoderOnly, feature_values


class PtcAttDih(nn.Module):
    """The paper's PTC-att-DIH (section 6.1, equation 3): a_joint = fc3(softmax(fc1(a_ptc)) * fc2(a_dih)).

    a_ptc is the detector's flattened bottleneck, of which only the encoder is used. Ours, where the paper is silent:
    a_dih is the encoder's last 4x4 map, a_joint replaces DIH's bottleneck and the skips stay.
    """

    def __init__(self, options: dict[str, Any], size: int) -> None:
        super().__init__()
        self.detector = EncoderOnly(options, size)
        self.harmoniser = Harmoniser(options, size, channels_in=3, ptc_values=feature_values(size))

    def forward(self, image: Tensor, mask: Tensor | None = None, features: Tensor | None = None) -> Prediction:
        """N3HW in [-1, 1]; the given mask is ignored. ``features``: the encoder's output, where it is known already."""
        features = self.detector.encoder(image) if features is None else features
        return Prediction(self.harmoniser(image, features), None, None)
