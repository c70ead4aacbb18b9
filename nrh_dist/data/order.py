"""The order of samples, and which part of each batch is whose.

There is one global order an epoch, a pure function of (rows, seed, epoch); the workers share each batch of it. So two
workers see what one sees, and a run resumed at any step with any number of workers goes on in the same order. The parts
of one batch, one after the other in the order of the ranks, are the batch that a single worker would take.
"""

import numpy as np


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
