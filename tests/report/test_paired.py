"""Paired differences and their test: against scipy on photos by hand, and where no test can be made."""

from math import isnan

import numpy as np
import pytest
from scipy.stats import wilcoxon

from nrh_dist.report import paired

PHOTOS = np.arange(60) // 3


def test_the_test_is_on_the_mean_of_each_photo() -> None:
    difference = np.random.default_rng(0).normal(-2, 10, 60)
    by_photo = [difference[photo == PHOTOS].mean() for photo in range(20)]
    assert paired.signed_rank(PHOTOS, difference) == pytest.approx(wilcoxon(by_photo).pvalue)
    assert paired.signed_rank(PHOTOS, difference) != pytest.approx(wilcoxon(difference).pvalue)


def test_repeating_composites_does_not_make_p_smaller() -> None:
    difference = np.random.default_rng(1).normal(-3, 10, 60)
    often = paired.signed_rank(np.repeat(PHOTOS, 10), np.repeat(difference, 10))
    assert often == pytest.approx(paired.signed_rank(PHOTOS, difference))


def test_compare_counts_and_signs() -> None:
    other = np.full(60, 100.0)
    mse = other + np.tile([-5.0, 0.5, 4.0], 20)
    mse[0] = np.nan
    found = paired.compare(PHOTOS, mse, other)
    assert (found.images, found.better1, found.worse1) == (59, 19 / 59, 20 / 59)
    assert found.difference.value == pytest.approx(np.nanmean(mse - other))
    assert found.difference.photos == 20
    assert paired.compare(PHOTOS, other - 3, other).p < 0.001


@pytest.mark.parametrize(
    "difference",
    [np.zeros(60), np.full(60, np.nan), np.where(PHOTOS < 9, 1.0, np.nan), np.empty(0)],
    ids=["no difference", "no value", "nine photos", "no image"],
)
def test_no_test_can_be_made(difference: np.ndarray) -> None:
    assert isnan(paired.signed_rank(PHOTOS[: len(difference)], difference))


def test_holm_by_hand() -> None:
    assert paired.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    found = paired.holm([0.6, float("nan"), 0.02])
    assert found[0] == 0.6 and isnan(found[1]) and found[2] == pytest.approx(0.04)
    assert paired.holm([0.9, 0.8]) == [1.0, 1.0]
    assert paired.holm([]) == []
