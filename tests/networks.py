"""Harmonisers that are plain functions, for tests of what is done with their answers."""

import numpy as np

from nrh_dist.engine.network import FIELD, IMAGE, MASK, Network
from nrh_dist.engine.predict import Harmoniser

SIZE = 64


def harmoniser(run, name="ptc_dih", size=SIZE):
    """``run``: N3SS in [-1, 1] and a mask or None -> the network's outputs by name."""
    return Harmoniser(Network(name, size, "a function", run))


def brighter(top=16, bottom=48, left=20, right=60, by=0.3, name="ptc_dih", size=SIZE):
    """Adds ``by`` of [-1, 1] inside a box of the upright picture, and detects it."""

    def run(photo, mask):
        found = np.zeros((1, 1, size, size), np.float32)
        found[..., top:bottom, left:right] = 1
        return {IMAGE: photo + by * found, MASK: found}

    return harmoniser(run, name, size)


def idle(name="ptc_dih", size=SIZE):
    """Finds nothing: a mask of 0.2, or shut where the model is gated; its picture is another one all the same."""

    def run(photo, mask):
        level = 0.0 if name == "gated" else 0.2
        return {IMAGE: photo * 0.5, MASK: np.full((1, 1, size, size), level, np.float32)}

    return harmoniser(run, name, size)


def gated(gain, offset, top=16, bottom=48, left=20, right=60, size=SIZE):
    """A gate that is open in a box, and a field of one gain and one offset (of [-1, 1]) for all colours."""

    def run(photo, mask):
        found = np.zeros((1, 1, size, size), np.float32)
        found[..., top:bottom, left:right] = 1
        field = np.concatenate([np.full((1, 3, 8, 8), gain), np.full((1, 3, 8, 8), offset)], axis=1).astype(np.float32)
        return {IMAGE: photo + found * (gain * photo + offset), MASK: found, FIELD: field}

    return harmoniser(run, "gated", size)
