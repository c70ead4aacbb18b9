"""How a model is run fast: to be completed."""

from collections.abc import Iterable

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from nrh_dist.engine.dist import Place, synchronise_batchnorm
from nrh_dist.engine.progress import Say
from nrh_dist.schema import Config


def optimiser(parameters: Iterable[nn.Parameter], config: Config, device: torch.device) -> torch.optim.Optimizer:
    """Adam."""
    return torch.optim.Adam(parameters, lr=config.optim.lr, eps=config.optim.eps, fused=config.speed.fused_adam)


def learner(model: nn.Module, config: Config, place: Place, say: Say) -> nn.Module:
    """The model as it is trained."""
    if place.world == 1 or not any(parameter.requires_grad for parameter in model.parameters()):
        return model
    synchronise_batchnorm(model)
    return DistributedDataParallel(model, forward_sync_buffers=False)
