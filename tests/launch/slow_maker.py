"""Makers for the tests of dying workers, in a module that Ray's workers can import."""

import os
import time
from pathlib import Path

from nrh_dist.data.coco_exp import Maker


class SlowMaker(Maker):
    """Takes its time, so that a test can interrupt it."""

    def make(self, pair):
        time.sleep(0.02)
        return super().make(pair)


class DyingMaker(Maker):
    """Its process is killed in the middle of the work, as often as the file ``deaths`` beside the output says."""

    def make(self, pair):
        deaths = Path(f"{self._out}-deaths")
        if pair.index == 20 and deaths.exists():
            left = int(deaths.read_text()) - 1
            deaths.write_text(str(left)) if left else deaths.unlink()
            os.kill(os.getpid(), 9)
        return super().make(pair)


class Stillborn(Maker):
    """Cannot start."""

    def __init__(self, *arguments):
        raise ValueError("no such luck")


class FullDisk(Maker):
    """Cannot write."""

    def make(self, pair):
        raise OSError(28, "No space left on device")
