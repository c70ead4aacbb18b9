"""EXIF's eight orientations: from the stored pixels to what is looked at, and back. Arrays: H x W x ..."""

import numpy as np

# Quarter turns to the left of the stored pixels, after mirroring left and right.
MIRRORED = {1: False, 2: True, 3: False, 4: True, 5: True, 6: False, 7: True, 8: False}
TURNS = {1: 0, 2: 0, 3: 2, 4: 2, 5: 1, 6: 3, 7: 3, 8: 1}


def upright(stored: np.ndarray, orientation: int) -> np.ndarray:
    """As it is looked at."""
    mirrored = np.flip(stored, axis=1) if MIRRORED[orientation] else stored
    return np.ascontiguousarray(np.rot90(mirrored, TURNS[orientation]))


def as_stored(looked_at: np.ndarray, orientation: int) -> np.ndarray:
    """The inverse of ``upright``."""
    mirrored = np.rot90(looked_at, -TURNS[orientation])
    return np.ascontiguousarray(np.flip(mirrored, axis=1) if MIRRORED[orientation] else mirrored)
