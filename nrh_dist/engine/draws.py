"""Random numbers as functions of (seed, epoch, sample): the same on any rank, in any order, after any resume."""

import numpy as np

VALIDATION_EPOCH = -1  # validation draws the same numbers after every epoch


def row_uniform(seed: int, epoch: int, rows: np.ndarray, stream: int = 0) -> np.ndarray:
    """One uniform number in [0, 1) for each pack row (N), the same whatever the batch, rank or order.

    ``stream`` tells independent draws for the same row apart. Mixing: splitmix64 (Steele, Lea, Flood 2014).
    """
    state = rows.astype(np.uint64)
    for part in (stream, epoch, seed):
        state = _splitmix64(state ^ _splitmix64(np.full_like(state, part % 2**64)))
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _splitmix64(state: np.ndarray) -> np.ndarray:
    state = state + np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
