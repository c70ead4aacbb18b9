"""The least time that a training step can take: its arithmetic and its bytes, and what the machine can do at most."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from nrh_dist.workflows.measure import seconds

SIDES = {"cpu": 2048, "cuda": 8192}  # of the square matrices
REPEATS = {"cpu": 1, "cuda": 20}
TRIES = 3
COPIED = 1 << 30  # bytes
OPTIMISER_BYTES = 34  # a parameter: weight, gradient, two moments in float32, read and written, and a copy in bfloat16


class Operation(NamedTuple):
    """A convolution or matrix product, forward or backward; ``bytes``: what it reads and writes."""

    flops: int
    bytes: int
    dtype: torch.dtype


class Ledger(TorchDispatchMode):
    """Notes each ``Operation`` that runs while it is active, as torch's own ``FlopCounterMode`` counts it."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[Operation] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        count: Any = flop_registry.get(func._overloadpacket)
        if count is not None:
            tensors = [leaf for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, Tensor)]
            flops = count(*args, **(kwargs or {}), out_val=out)
            bytes = sum(one.numel() * one.element_size() for one in tensors)
            self.operations.append(Operation(flops, bytes, tensors[0].dtype))
        return out


def operations_of(function: Callable[[], object]) -> list[Operation]:
    """The operations of one call, which must not be compiled."""
    with Ledger() as ledger:
        function()
    return ledger.operations


def least_seconds(
    operations: Sequence[Operation], peaks: Mapping[torch.dtype, float], bandwidth: float | None, parameters: int
) -> float:
    """The sum over ``operations`` of FLOPs x ``peaks`` or, if longer, bytes x ``bandwidth``; then the optimiser.

    Both in seconds: a FLOP, a byte. Without ``bandwidth`` memory is free, as for what fits a CPU's caches.
    """
    byte = bandwidth or 0.0
    work = sum(max(one.flops * peaks[one.dtype], one.bytes * byte) for one in operations)
    return work + OPTIMISER_BYTES * parameters * byte


def seconds_a_flop(device: torch.device, dtype: torch.dtype) -> float:
    """The inverse of the measured peak: a product of square matrices of ``dtype``, the best of three.

    On a GPU float32 is TF32, in which cuDNN's convolutions compute it.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    side, repeats = SIDES[device.type], REPEATS[device.type]
    one, other = (torch.rand(side, side, device=device).to(dtype) for _ in range(2))
    product = torch.empty_like(one)
    found = _best(lambda: torch.mm(one, other, out=product), repeats, device) / (2 * side**3)
    torch.set_float32_matmul_precision(before)
    return found


def seconds_a_byte(device: torch.device) -> float:
    """The inverse of the measured bandwidth: a copy of 1 GiB, read and written, the best of three."""
    one = torch.empty(COPIED, dtype=torch.uint8, device=device)
    other = torch.empty_like(one)
    return _best(lambda: other.copy_(one), REPEATS[device.type], device) / (2 * COPIED)


def timed(function: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Seconds on the clock of one call, the mean of ``repeats``; on a GPU all of its work is waited for."""

    def calls() -> None:
        for _ in range(repeats):
            function()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return seconds(calls) / repeats


def _best(function: Callable[[], object], repeats: int, device: torch.device) -> float:
    function()
    return min(timed(function, repeats, device) for _ in range(TRIES))
