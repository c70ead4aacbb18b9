"""Where a process stands among its peers, sums over them, and BatchNorm over the whole batch."""

import os
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Place:
    """One process of ``world``: its ``rank`` and the device that it computes on."""

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0


def own_device() -> torch.device:
    """The GPU of a process that has one to itself, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def name_of(device: torch.device) -> str:
    """What a device is called where it is told what something took: CPU, or the GPU's own name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def torchrun_place(gpus: float | None = None) -> Place:
    """The place that torchrun's environment names; joins its process group. One process without that environment.

    ``gpus`` for each process; None: one where there are any. Processes that share one talk through gloo: NCCL refuses.
    """
    gpus = float(torch.cuda.is_available()) if gpus is None else gpus
    local = int(os.environ.get("LOCAL_RANK", 0))
    device = torch.device("cuda", int(local * gpus)) if gpus else torch.device("cpu")
    if "WORLD_SIZE" not in os.environ:
        return Place(device=device)
    dist.init_process_group("nccl" if gpus >= 1 else "gloo")
    return Place(dist.get_rank(), dist.get_world_size(), device)


def sum_over_ranks(values: Tensor, place: Place) -> Tensor:
    """The sum of ``values`` (any shape) over all ranks; every rank must call it."""
    if place.world > 1:
        values = values.clone()
        dist.all_reduce(values)
    return values


def gather_objects(value: Any, place: Place) -> list[Any]:
    """``value`` of each rank, by rank; every rank must call it. Only between our own processes: it pickles."""
    if place.world == 1:
        return [value]
    gathered: list[Any] = [None] * place.world
    dist.all_gather_object(gathered, value)
    return gathered


def from_main(value: Any, place: Place) -> Any:
    """The main rank's ``value``, on every rank; every rank must call it. It pickles, like ``gather_objects``."""
    return gather_objects(value, place)[0]


def synchronise_batchnorm(module: nn.Module) -> None:
    """Make every BatchNorm2d of ``module`` use the statistics of the whole global batch while it trains.

    torch.nn.SyncBatchNorm refuses CPU tensors. Only the class changes: parameters, buffers and state keys stay.
    """
    for part in module.modules():
        if type(part) is nn.BatchNorm2d:
            part.__class__ = SynchronisedBatchNorm2d


class SynchronisedBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d over the global batch, on CPU and GPU; a rank may hold no image at all.

    Statistics are float32 at least, whatever the input; the output is of the input's type. Two collectives a layer and
    step, of 2C + 1 and 2C numbers a rank.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise ``input`` (N, C, H, W); in training by statistics of all ranks, which every rank must compute."""
        if not self.training:
            return super().forward(input)
        output, mean, variance, count = _NormaliseOverRanks.apply(input, self.weight, self.bias, self.eps)
        with torch.no_grad():
            assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
            assert self.num_batches_tracked is not None
            unbiased = variance * count / (count - 1).clamp(min=1)
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
            self.num_batches_tracked.add_(1)
        return output


class _NormaliseOverRanks(torch.autograd.Function):
    """Batch normalisation whose mean, variance and gradient sums run over all ranks.

    The passes over the images are those of torch's own BatchNorm, which know channels last and bfloat16.
    """

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, ...]:
        mean, variance, count = _global_statistics(input)
        ctx.save_for_backward(input, weight, mean, variance, count)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, variance, count)
        output = F.batch_norm(input, mean, variance, weight, bias, training=False, eps=eps)
        return output, mean, variance, count

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        input, weight, mean, variance, count = ctx.saved_tensors
        own = mean.new_zeros(2, len(mean))  # the gradients of bias and weight
        if input.numel():
            statistics = (mean, variance, None, None, False, ctx.eps)
            wanted = [False, True, True]
            _, own[1], own[0] = torch.ops.aten.native_batch_norm_backward(gradient, input, weight, *statistics, wanted)
        means = _of_all_ranks(own.flatten()).sum(dim=0).view_as(own) / count
        # weight / deviation * (gradient - mean gradient - normalised input * mean weight gradient), per channel
        inverse = torch.rsqrt(variance + ctx.eps)
        scale = weight * inverse
        slope = -scale * inverse * means[1]
        offset = -scale * means[0] - slope * mean
        grad_input = torch.addcmul(_per_channel(offset), input, _per_channel(slope))
        grad_input.addcmul_(gradient, _per_channel(scale))
        return grad_input.to(input.dtype), own[1], own[0], None


def _per_channel(values: Tensor) -> Tensor:
    return values[None, :, None, None]


def _of_all_ranks(own: Tensor) -> Tensor:
    """``own`` (n) of every rank, by rank: world x n. Gathering costs less time than a sum does, and keeps an order."""
    everyone = own.new_empty(dist.get_world_size() * own.numel())
    dist.all_gather_single(everyone, own)
    return everyone.view(-1, own.numel())


def _global_statistics(input: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, biased variance (C) and pixel count over all ranks, merged from each rank's own centred sums.

    Merging centred sums (Chan, Golub, LeVeque 1983) keeps float32 precision, which a sum of squares loses.
    """
    channels = input.shape[1]
    pixels = input.numel() // channels
    own = input.new_zeros(2 * channels + 1, dtype=torch.promote_types(input.dtype, torch.float32))
    if pixels:
        unused = own.new_zeros(channels)  # its type is that of the statistics
        mean, variance = torch.ops.aten.batch_norm_update_stats(input, unused, unused.clone(), 0.0)
        own[:-1] = torch.cat([mean, variance])
        own[-1] = pixels
    everyone = _of_all_ranks(own)
    means, variances, counts = everyone[:, :channels], everyone[:, channels:-1], everyone[:, -1:]
    count = counts.sum()
    mean = (means * counts).sum(0) / count
    variance = ((variances + (means - mean) ** 2) * counts).sum(0) / count
    return mean, variance, count
