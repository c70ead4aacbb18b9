"""What is measured of each image and model: the numbers of per_image.csv, and what they mean."""

import torch
from torch import Tensor

from nrh_dist import metrics
from nrh_dist.data.feed import Batch
from nrh_dist.models import Prediction
from nrh_dist.perceptual import Perceptual

EDGE = 64  # the band along the object's edge is size / EDGE pixels wide on each side
PEAKS = ("psnr_range", "psnr_target_max")
PROTOCOL = {
    "mse": "0..255 scale, prediction clamped, not rounded; all pixels and channels; per image, then mean over images",
    "psnr": "peak 255, capped at 100 dB; per image, then mean over images",
    "fmse": "squared error over pixels with mask >= 128, divided by 3 x their number; empty masks left out",
    "lpips": "package lpips, AlexNet, inputs in [-1, 1]",
    "identity_mse": "MSE of the input",
    "identity_psnr": "PSNR of the input",
    "mse_outside": "MSE over pixels with mask < 128, where nothing should change",
    "mse_edge": f"MSE over the pixels not farther than size / {EDGE} from the object's edge, on both sides",
    "chroma_drift": "mean distance in a and b of CIE Lab between output and real, inside the object",
    "correction": "<o - c, r - c> / <r - c, r - c> inside the object (o output, c composite, r real): 0 nothing was "
    "corrected, 1 all, above 1 too much, below 0 the wrong way",
    "mse_change": "MSE of the output against the input: how much was changed",
    "change_outside": "share of the squared change from input to output that lies outside the object",
    "detected": "mean of the detector's mask inside the object",
    "detected_outside": "mean of the detector's mask outside the object",
    "psnr_range": "PSNR with the prediction's own range (max - min) as peak, as DoveNet's code has it",
    "psnr_target_max": "PSNR with the real image's maximum as peak, as iSSAM's code has it",
}
OF_OTHERS = ("identity_mse", "identity_psnr", "detected", "detected_outside")  # numbers of the input or the detector
NAMES = tuple(name for name in PROTOCOL if name not in PEAKS)


class Measures:
    """The numbers of any model's predictions for one batch; what the models share is computed once.

    With ``perceptual``, LPIPS too; with ``peaks``, PSNR by the conventions of others. What does not exist for an image
    (no detector, an empty mask, an output that is not finite) is nan.
    """

    def __init__(self, batch: Batch, perceptual: Perceptual | None, peaks: bool) -> None:
        self._batch, self._perceptual, self._peaks = batch, perceptual, peaks
        self._real_features = perceptual.features(batch.real) if perceptual else []
        self._inside = metrics.object_region(batch.mask)
        self._edge = metrics.edge_region(batch.mask, max(1, batch.mask.shape[-1] // EDGE))
        self._chroma = metrics.chroma(batch.real, self._inside)
        self._identity_mse = metrics.mse(batch.composite, batch.real)
        self._unknown = torch.full_like(self._identity_mse, torch.nan)

    def of(self, prediction: Prediction) -> Tensor:
        """N x K float64 on the CPU, the K columns in the order of ``names(peaks)``."""
        image, real, inside = prediction.image, self._batch.real, self._inside
        errors = metrics.squared_errors(image, real)
        mse = metrics.mse(image, real)
        found = {
            "mse": mse,
            "psnr": metrics.psnr_from_mse(mse),
            "fmse": metrics.mean_over(errors, inside),
            "lpips": self._perceptual.distance_to(image, self._real_features) if self._perceptual else self._unknown,
            "identity_mse": self._identity_mse,
            "identity_psnr": metrics.psnr_from_mse(self._identity_mse),
            "mse_outside": metrics.mean_over(errors, ~inside),
            "mse_edge": metrics.mean_over(errors, self._edge),
            "chroma_drift": metrics.chroma_drift(metrics.chroma(image, inside), self._chroma),
            "correction": metrics.correction(image, self._batch.composite, real, inside),
            "mse_change": metrics.mse(image, self._batch.composite),
            "change_outside": metrics.share_outside(image, self._batch.composite, inside),
            "detected": self._detected(prediction, inside),
            "detected_outside": self._detected(prediction, ~inside),
        }
        if self._peaks:
            values = metrics.to_255(image).flatten(1)
            found["psnr_range"] = metrics.psnr_from_mse(mse, values.amax(dim=1) - values.amin(dim=1))
            found["psnr_target_max"] = metrics.psnr_from_mse(mse, metrics.to_255(real).flatten(1).amax(dim=1))
        # Clamping makes an infinite pixel one that is merely wrong, and its image better than it is.
        is_finite = image.isfinite().flatten(1).all(dim=1)
        found |= {name: found[name].where(is_finite, torch.nan) for name in found if name not in OF_OTHERS}
        return torch.stack([found[name].double() for name in names(self._peaks)], dim=1).cpu()

    def _detected(self, prediction: Prediction, region: Tensor) -> Tensor:
        if prediction.mask is None:
            return self._unknown
        return metrics.mean_over(prediction.mask.flatten(1).double(), region)


def names(peaks: bool) -> tuple[str, ...]:
    """The columns that are measured."""
    return NAMES + (PEAKS if peaks else ())
