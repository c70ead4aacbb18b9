"""``two_stage``: detector and harmoniser as they are, one after the other, without joint training."""

from typing import Any

from torch import Tensor

from nrh_dist.models.blocks import Freezable, Prediction, resize, with_mask
from nrh_dist.models.dih import Harmoniser
from nrh_dist.models.ptc import NEGATIVE, POSITIVE, Detector


class TwoStage(Freezable):
    """The paper's PTC + DIH (section 3.3, figure 2), off the shelf: nothing in it learns.

    M_p = max(p_negative, p_positive) of the detector's softmax, not thresholded, becomes the mask of a mask-trained
    DIH. Ours: the maximum is taken at the detector's size and then enlarged bilinearly.
    """

    def __init__(self, options: dict[str, Any], size: int) -> None:
        super().__init__()
        self.detector = Detector(options, size)
        self.harmoniser = Harmoniser(options, size, channels_in=4)
        self.freeze()

    def forward(self, image: Tensor, mask: Tensor | None = None) -> Prediction:
        """N3HW in [-1, 1]; the given mask is ignored. The result is the paper's C_p."""
        signs = self.detector(image).softmax(dim=1)[:, [NEGATIVE, POSITIVE]]
        predicted = resize(signs.amax(dim=1, keepdim=True), image.shape[-1])
        return Prediction(self._harmonised(image, predicted), predicted, None, resize(signs, image.shape[-1]))

    def with_true_mask(self, image: Tensor, mask: Tensor) -> Prediction:
        """The same harmoniser without the detector, given the true mask (N1HW in [0, 1]): the paper's C_s."""
        return Prediction(self._harmonised(image, mask), None, None)

    def _harmonised(self, image: Tensor, mask: Tensor) -> Tensor:
        return self.harmoniser(with_mask(image, mask))
