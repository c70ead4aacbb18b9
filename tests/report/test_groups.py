"""Groups of images: their borders, and that no weighting by counts loses an image."""

import numpy as np
import pytest

from nrh_dist.report import groups
from nrh_dist.report.statistics import weighted_mean

NAN = float("nan")


def test_field_bins_hold_their_lower_edge() -> None:
    area = np.array([0.0, 0.0499, 0.05, 0.1499, 0.15, 0.7, 1.0, NAN])
    assert groups.field_bins(area).index.tolist() == [0, 0, 1, 1, 2, 2, 2, -1]


def test_stops_are_symmetric_around_nothing() -> None:
    shift = np.array([-3.0, -1.0, -0.5, -0.22, -0.1, 0.0, 0.1, 0.22, 0.5, 1.0, 9.0, NAN])
    found = groups.stops(shift)
    assert found.index.tolist() == [0, 1, 2, 3, 3, 4, 4, 5, 6, 7, 7, -1]
    assert found.labels[0] == "below −1" and found.labels[3] == "−0.22 to 0" and found.labels[7] == "from 1"


def test_words_come_by_frequency_then_name() -> None:
    found = groups.words(np.array(["cup", "dog", "", "dog", "ant", "cup", "bee"]))
    assert found.labels == ["cup", "dog", "ant", "bee"]
    assert found.index.tolist() == [0, 1, -1, 1, 2, 0, 3]
    assert found.counts().tolist() == [2, 2, 1, 1]


def test_ranks_are_equal_parts() -> None:
    values = np.random.default_rng(0).random(100)
    assert groups.ranked(values, 5).counts().tolist() == [20] * 5
    assert (np.diff(groups.ranked(values, 5).means(values)) > 0).all()


@pytest.mark.parametrize(
    ("values", "counts"),
    [([0.4] * 7, [7]), ([0.0] * 8 + [1.0] * 2, [8, 2]), ([NAN, 0.3], [1]), ([NAN, NAN], [])],
)
def test_ranks_of_equal_values_are_fewer(values: list[float], counts: list[int]) -> None:
    found = groups.ranked(np.array(values), 5)
    assert found.counts().tolist() == counts


def make(kind: str, random: np.random.Generator) -> groups.Groups:
    numbers = np.where(random.random(500) < 0.05, NAN, random.random(500))
    if kind == "words":
        return groups.words(random.choice(["", "a", "b", "c", "rare thing"], 500, p=[0.1, 0.5, 0.3, 0.098, 0.002]))
    if kind == "stops":
        return groups.stops(4 * numbers - 2)
    if kind == "ranked":
        return groups.ranked(numbers, 5)
    return {"tenths": groups.tenths, "field": groups.field_bins}[kind](numbers)


@pytest.mark.parametrize("kind", ["tenths", "field", "stops", "words", "ranked"])
def test_weighting_by_counts_reproduces_the_total(kind: str) -> None:
    """Also with values missing, for any values: this is what every table by group rests on."""
    for seed in range(20):
        random = np.random.default_rng(seed)
        found = make(kind, random)
        values = np.where(random.random(500) < 0.1, NAN, random.lognormal(3, 2, 500))
        inside = values[(found.index >= 0) & ~np.isnan(values)]
        counts = found.counts(values)
        assert counts.sum() == len(inside)
        assert weighted_mean(found.means(values), counts) == pytest.approx(inside.mean())
        assert np.nansum(found.spread(values)) == pytest.approx(inside.sum())
