"""What systems would do if they left alone what they would change least: how many images become worse, and the gain."""

from typing import NamedTuple

import numpy as np

from nrh_dist.report.shown import Column, Row, Table
from nrh_dist.report.statistics import MOST_WORSE, WORSE1
from nrh_dist.report.study.collect import IDENTITY, TESTS, Study, System, Test

NOTE = (
    "The least change is read off this test, for each seed, so that no system could be set to it in advance; what was "
    "chosen on val is in the rows of calibrated ones above."
)


class Curve(NamedTuple):
    """Means over seeds when the 0, 1, ... N images with the largest change are changed: N + 1 values.

    ``changed`` and ``worse1`` are shares of all images, ``gain`` is the input's MSE - MSE of all.
    """

    changed: np.ndarray
    worse1: np.ndarray
    gain: np.ndarray


def curve(test: Test, system: System) -> Curve:
    """Of one system; what is not changed is worth nothing and costs nothing."""
    order = np.argsort(-system.change, axis=1, kind="stable")
    gains = np.take_along_axis(test.identity - system.mse, order, axis=1)
    images = len(test.identity)

    def summed(values: np.ndarray) -> np.ndarray:
        return np.concatenate([[0.0], values.mean(axis=0).cumsum()]) / images

    return Curve(np.arange(images + 1) / images, summed((gains < -WORSE1).astype(float)), summed(gains))


def uncalibrated(study: Study) -> list[str]:
    """The systems that there is a curve of."""
    return [name for name in study.main if name != IDENTITY and not name.endswith("_calibrated")]


def table(study: Study, test: Test) -> Table:
    """How far each system gets before more images become worse than the goal allows, and what it gains by then."""
    columns = [
        Column("changed", "images changed, %", decimals=1),
        Column("gain", "so", "MSE of the input − MSE"),
        Column("gain_of_all", "all changed", "MSE of the input − MSE"),
    ]
    rows = []
    for name in uncalibrated(study):
        found = curve(test, test.systems[name])
        last = np.flatnonzero(found.worse1 <= MOST_WORSE)[-1]
        rows.append(Row(study.label(name), [100 * found.changed[last], found.gain[last], found.gain[-1]], model=name))
    caption = (
        f"{TESTS[test.name]}: only what a system would change most is changed, until {100 * MOST_WORSE:g} % of all "
        f"images are worse by > {WORSE1:g}"
    )
    return Table(f"risk-{test.name}", caption, columns, rows, [NOTE])
