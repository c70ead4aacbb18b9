"""What a model costs in use: parameters and operations from its configuration alone, and time on this machine."""

import statistics
import time
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from nrh_dist import models
from nrh_dist.models.ptc import Detector
from nrh_dist.schema import Config

PARAMETERS, GFLOP, LATENCY = COSTS = ("cost/parameters", "cost/gflop", "cost/latency_ms")
WARM_UP, REPEATS = 3, 15  # forward passes: the first ones choose algorithms and allocate


def costs(config: Config) -> dict[str, float]:
    """``costs_of`` the model of a configuration. Where it is trained, and with what weights, does not matter."""
    return costs_of(asdict(config.model), config.data.size)


def costs_of(model: dict[str, Any], size: int) -> dict[str, float]:
    """``cost/parameters``, the frozen ones included, and ``cost/gflop`` of one image of ``size`` x ``size``, in 1e9.

    ``model`` is ``dataclasses.asdict(config.model)``. A multiply-add is two operations; convolutions and products of
    matrices count, padding as if it were pixels. Shapes decide, so all of it happens on torch's meta device: nothing is
    computed, read or drawn. A detector's encoder counts, although training may know its output; the head that
    stage=equivariance learns with does not.
    """
    with torch.device("meta"):
        network = models.build(model, size).eval()
    return {PARAMETERS: float(models.parameter_count(network)), GFLOP: flop(network, size) / 1e9}


def flop(network: nn.Module, size: int) -> int:
    """The operations for one image more in a batch: what is done once for any batch, as folding a kernel, is left out.

    ``network`` lies on the meta device.
    """
    return _flop_of_batch(network, size, 2) - _flop_of_batch(network, size, 1)


@torch.no_grad()
def latency_ms(model: dict[str, Any], size: int, device: torch.device) -> float:
    """Milliseconds of one forward pass of one image in float32 on ``device``, the median of ``REPEATS``.

    The weights are random: they do not matter. Measured in this process, with the threads that it has.
    """
    network = models.build(model, size).eval().to(device)
    image, mask = (torch.zeros(1, channels, size, size, device=device) for channels in (3, 1))
    taken = []
    for _ in range(WARM_UP + REPEATS):
        start = time.perf_counter()
        output(network, image, mask)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(1000 * (time.perf_counter() - start))
    return statistics.median(taken[WARM_UP:])


def output(network: nn.Module, image: Tensor, mask: Tensor) -> Tensor:
    """What any of the models makes of N3HW and N1HW: the harmonised image N3HW, or the detector's logits."""
    return network(image) if isinstance(network, Detector) else network(image, mask).image


@torch.no_grad()
def _flop_of_batch(network: nn.Module, size: int, images: int) -> int:
    image, mask = (torch.empty(images, channels, size, size, device="meta") for channels in (3, 1))
    with FlopCounterMode(display=False) as counter:
        output(network, image, mask)
    return counter.get_total_flops()
