"""The order of samples as a pure function of (seed, epoch, step, rank, world), and batches from a pack.

The law: over one epoch, the slices of all steps and ranks hold every row exactly once; the slices of one step, put
together in the order of the ranks, are the batch that a single worker would take.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from nrh_dist.data.pack import Pack


class Batch(NamedTuple):
    """The samples of some rows of a pack, on one device; S is the pack's size. N may be 0."""

    rows: np.ndarray  # N, rows of the pack
    composite: Tensor  # N3SS in [-1, 1], channels last
    real: Tensor  # N3SS in [-1, 1], channels last
    mask: Tensor  # N1SS in [0, 1]


def epoch_order(rows: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """``rows`` in the order of one epoch: a permutation drawn from ``seed`` (0 or more) and ``epoch`` alone."""
    return np.random.default_rng([seed, epoch]).permutation(rows)


def steps_per_epoch(n: int, batch_size: int) -> int:
    """How many batches hold ``n`` samples; the last may be ragged."""
    return -(-n // batch_size)


def step_rows(order: np.ndarray, step: int, batch_size: int, rank: int, world: int) -> np.ndarray:
    """This rank's part of ``order[step * batch_size : (step + 1) * batch_size]``.

    ``batch_size`` is global. The parts are contiguous and differ by at most one row; a part may be empty.
    """
    assert 0 <= rank < world, f"rank {rank} of {world}"
    batch = order[step * batch_size : (step + 1) * batch_size]
    return batch[len(batch) * rank // world : len(batch) * (rank + 1) // world]


def shard(rows: np.ndarray, rank: int, world: int) -> np.ndarray:
    """This rank's part of rows that are only looked at (validation): each row once, none twice."""
    assert 0 <= rank < world, f"rank {rank} of {world}"
    return rows[rank::world]


def gather(pack: Pack, rows: np.ndarray, device: torch.device | str) -> Batch:
    """The batch of ``rows`` on ``device``: moved there as uint8, cast and normalised there; empty rows, empty batch."""
    device = torch.device(device)
    assert rows.size == 0 or (rows.min() >= 0 and rows.max() < len(pack)), "rows must be rows of the pack"
    return Batch(
        rows=rows,
        composite=_normalised(_take(pack.composites, rows, device)),
        real=_normalised(_take(pack.reals, rows, device)),
        mask=_take(pack.masks, rows, device).unsqueeze(1).float().div_(255),
    )


def _take(images: np.ndarray, rows: np.ndarray, device: torch.device) -> Tensor:
    """Rows as a uint8 tensor on ``device``, through pinned memory where that is a GPU."""
    buffer = torch.empty((len(rows), *images.shape[1:]), dtype=torch.uint8, pin_memory=device.type == "cuda")
    np.take(images, rows, axis=0, out=buffer.numpy(), mode="clip")  # the default mode copies through a second buffer
    return buffer.to(device, non_blocking=True)


def _normalised(images: Tensor) -> Tensor:
    """uint8 NHWC -> float NCHW in [-1, 1]; the memory stays NHWC, which is channels last."""
    return images.permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
