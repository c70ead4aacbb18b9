"""Intervals: against a loop that draws photos by name, against theory, and for laws."""

from math import isnan, sqrt

import numpy as np
import pytest

from nrh_dist.report import bootstrap


def test_matches_a_loop_that_draws_photos() -> None:
    random = np.random.default_rng(5)
    photos = np.sort(random.integers(60, size=400))
    above, below = random.gamma(2, 50, 400), random.gamma(2, 70, 400)
    (found,) = bootstrap.ratios(photos, above[:, None], below[:, None])
    draws = []
    members = [np.flatnonzero(photos == photo) for photo in range(60)]
    for _ in range(3000):
        chosen = np.concatenate([members[photo] for photo in random.integers(60, size=60)])
        draws.append(above[chosen].sum() / below[chosen].sum())
    assert found.value == pytest.approx(above.sum() / below.sum())
    width = np.ptp(np.quantile(draws, bootstrap.QUANTILES))
    np.testing.assert_allclose(found.interval, np.quantile(draws, bootstrap.QUANTILES), atol=0.08 * width)


def test_interval_of_independent_images_is_that_of_theory() -> None:
    values = np.random.default_rng(1).normal(30, 10, 2000)
    found = bootstrap.mean(np.arange(2000), values)
    half = 1.96 * values.std() / sqrt(2000)
    np.testing.assert_allclose(found.interval, (values.mean() - half, values.mean() + half), atol=0.1 * half)
    assert found.photos == 2000


def test_composites_of_one_photo_do_not_make_it_surer() -> None:
    values = np.random.default_rng(2).normal(30, 10, 100)
    once = bootstrap.mean(np.arange(100), values)
    ten_times = bootstrap.mean(np.repeat(np.arange(100), 10), np.repeat(values, 10))
    assert ten_times.interval == pytest.approx(once.interval)
    assert ten_times.photos == 100


def test_missing_values_are_left_out_and_photos_without_any_do_not_count() -> None:
    values = np.random.default_rng(3).normal(5, 1, 40)
    values[:12] = np.nan
    found = bootstrap.mean(np.arange(40), values)
    assert found.value == pytest.approx(np.nanmean(values))
    assert found.photos == 28
    few = np.full(40, np.nan)
    few[:9] = 7.0
    assert bootstrap.mean(np.arange(40), few).interval is None
    nothing = bootstrap.mean(np.arange(40), np.full(40, np.nan))
    assert isnan(nothing.value) and nothing.interval is None and nothing.photos == 0
    assert all(map(isnan, nothing.bounds))


def test_a_ratio_to_nothing_is_not_available() -> None:
    (found,) = bootstrap.ratios(np.arange(20), np.ones((20, 1)), np.zeros((20, 1)))
    assert isnan(found.value) and found.interval is None


def test_columns_are_those_of_single_calls_and_draws_repeat() -> None:
    random = np.random.default_rng(4)
    photos, values = np.arange(300) // 3, random.normal(size=(300, 4))
    together = bootstrap.means(photos, values)
    for i, one in enumerate(together):
        alone = bootstrap.mean(photos, values[:, i])
        assert (one.value, *one.bounds) == pytest.approx((alone.value, *alone.bounds))
    assert together == bootstrap.means(photos, values)


def test_verdict_and_scale_follow_the_interval() -> None:
    one = bootstrap.Estimate(0.9, (0.8, 0.95), 20)
    assert one.scaled(100, -100) == bootstrap.Estimate(pytest.approx(-10), pytest.approx((-20, -5)), 20)
    assert [e.verdict for e in (one, one.scaled(1, -1), one.scaled(1, -0.9))] == [1, -1, 0]
    assert bootstrap.Estimate(3.0, None, 5).verdict == 0


def test_no_images_at_all() -> None:
    (found,) = bootstrap.means(np.empty(0, int), np.empty((0, 1)))
    assert isnan(found.value) and found.photos == 0
