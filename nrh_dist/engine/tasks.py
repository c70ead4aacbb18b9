"""What is learned: harmonisation, and the two stages of the detector's pre-training.

A task turns a batch into per-image losses (training) and per-image metrics (validation). Its random draws are functions
of (seed, epoch, sample), never of the rank or of timing.
"""

from typing import Protocol

import torch
from torch import Tensor, nn

from nrh_dist import losses, metrics
from nrh_dist.data.feed import Batch
from nrh_dist.data.pack import Pack
from nrh_dist.engine.draws import row_uniform
from nrh_dist.engine.pretraining import Equivariance, Thresholds
from nrh_dist.schema import Config


class Task(Protocol):
    """The part of a training that knows what is learned."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the validation metrics, ``loss`` among them."""

    def losses(self, model: nn.Module, batch: Batch, epoch: int) -> Tensor:
        """One loss an image (N), to be averaged over the global batch."""

    def evaluate(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """One value an image (N) for each name of ``metrics``."""


def task_of(config: Config, pack: Pack) -> Task:
    """The task that the configuration's stage names, on the samples of ``pack``."""
    if config.stage == "equivariance":
        return Equivariance(config)
    return Thresholds(config, pack) if config.stage == "thresholds" else Harmonisation(config)


class Harmonisation:
    """Composite (and mask, for models that take one) to the real photo.

    ``data.clean_fraction`` of the samples show the real photo itself with an empty mask, drawn anew each epoch.
    """

    metrics = ("loss", "mse", "psnr", "identity_mse")

    def __init__(self, config: Config) -> None:
        self.config = config

    def losses(self, model: nn.Module, batch: Batch, epoch: int) -> Tensor:
        """The configured loss of each image."""
        return self._losses(model, self._with_clean(batch, epoch))[0]

    def evaluate(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Loss, MSE and PSNR of the clamped output on the 0..255 scale, and the MSE of doing nothing."""
        loss, output = self._losses(model, batch)
        mse = metrics.mse(output, batch.real)
        identity = metrics.mse(batch.composite, batch.real)
        return {"loss": loss, "mse": mse, "psnr": metrics.psnr_from_mse(mse), "identity_mse": identity}

    def _losses(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        config = self.config.loss
        known = {} if batch.features is None else {"features": batch.features}
        prediction = model(batch.composite, batch.mask, **known)
        if config.name == "mse":
            loss = losses.mse(prediction.image, batch.real)
        else:
            loss = losses.object_mse(prediction.image, batch.real, batch.mask)
        if config.gate:
            loss = loss + config.gate * losses.gate(prediction.mask_logits, batch.mask)
        if config.harm:
            loss = loss + config.harm * losses.harm(prediction.image, batch.composite, batch.real)
        return loss, prediction.image

    def _with_clean(self, batch: Batch, epoch: int) -> Batch:
        fraction = self.config.data.clean_fraction
        if not fraction:
            return batch
        drawn = row_uniform(self.config.seed, epoch, batch.rows) < fraction
        clean = torch.from_numpy(drawn).to(batch.mask.device)[:, None, None, None]
        changed = batch._replace(
            composite=torch.where(clean, batch.real, batch.composite), mask=batch.mask.masked_fill(clean, 0.0)
        )
        if batch.features is None:
            return changed
        assert batch.real_features is not None
        return changed._replace(features=torch.where(clean, batch.real_features, batch.features))
