"""Transfer of luminance: the statistics that it promises, and that nothing else changes."""

import numpy as np
import pytest
from skimage.exposure import match_histograms

from nrh_dist.color import rgb_to_lab
from nrh_dist.data.transfer import match_hist, match_meanstd, region, statistics, transfer


@pytest.fixture
def photo():
    return np.random.default_rng(0).integers(70, 150, (40, 50, 3), dtype=np.uint8)


@pytest.fixture
def mask():
    mask = np.zeros((40, 50), np.uint8)
    mask[10:30, 10:40] = 255
    return mask


def lab_of(photo):
    return rgb_to_lab(photo / 255)


def reference_of(mean, deviation, scale=(1, 1, 1)):
    values = np.random.default_rng(1).normal(mean, deviation, (5000, 3)) * scale
    return statistics(values.astype(np.float32), "meanstd", "lab")


def test_a_region_holds_the_pixels_under_the_mask(photo, mask):
    mask[5, 5], mask[6, 6] = 127, 128
    found = region(photo, mask, "hist", "lab")
    inside = lab_of(photo)[mask >= 128]
    np.testing.assert_array_equal(found.pixels, photo[mask > 0])
    np.testing.assert_allclose(found.lab, lab_of(photo)[mask > 0], atol=1e-4)
    np.testing.assert_allclose(found.statistics.mean, inside.mean(axis=0), atol=1e-4)
    np.testing.assert_allclose(found.statistics.deviation, inside.std(axis=0), atol=1e-4)
    lightness, *chroma = found.statistics.distributions
    different, counts = np.unique(inside[:, 0], return_counts=True)
    np.testing.assert_allclose(lightness.values, different, atol=1e-4)
    np.testing.assert_allclose(lightness.share, counts.cumsum() / counts.sum(), rtol=1e-6)
    for values, found_one in zip(found.lab[found.inside, 1:].T, chroma, strict=True):
        different, counts = np.unique(values.round(2), return_counts=True)
        np.testing.assert_array_equal(found_one.values, different)
        np.testing.assert_allclose(found_one.share, (counts.cumsum() - counts / 2) / counts.sum(), rtol=1e-6)
    np.testing.assert_allclose(found.weight * 255, mask[mask > 0], rtol=1e-6)


def test_meanstd_gives_mean_and_deviation_of_the_reference(photo, mask):
    result = transfer(photo, region(photo, mask, "meanstd", "lab"), reference_of(55, 6), "l")
    after, before = lab_of(result.composite)[mask > 0], lab_of(photo)[mask > 0]
    assert after[:, 0].mean() == pytest.approx(55, abs=0.3)
    assert after[:, 0].std() == pytest.approx(6, abs=0.3)
    assert np.abs(after[:, 1:] - before[:, 1:]).mean() < 0.5
    assert result.shift_stops == pytest.approx(np.log2(after[:, 0].mean() / before[:, 0].mean()), abs=0.01)
    assert result.clipped_share < 0.01
    error = result.composite.astype(float) - photo
    assert result.mse == pytest.approx((error**2).mean())


def test_all_of_lab_is_matched_when_asked_for(photo, mask):
    reference = reference_of(50, 4, scale=(1, 0.1, 0.1))
    result = transfer(photo, region(photo, mask, "meanstd", "lab"), reference, "lab")
    after = lab_of(result.composite)[mask > 0]
    np.testing.assert_allclose(after.mean(axis=0), [50, 5, 5], atol=0.5)


@pytest.mark.parametrize(("deviation", "ratio"), [(60.0, 3.0), (0.01, 1 / 3)])
def test_the_ratio_of_deviations_is_bounded(deviation, ratio):
    values = np.random.default_rng(2).normal(50, 5, (1000, 3)).astype(np.float32)
    matched = match_meanstd(values[:, 1], statistics(values, "meanstd", "lab"), reference_of(50, deviation), 1)
    assert matched.std() / values[:, 1].std() == pytest.approx(ratio, rel=1e-3)


def test_hist_agrees_with_the_oracle():
    rng = np.random.default_rng(3)
    values = rng.gamma(3, 10, (60, 60)).clip(0, 100).astype(np.float32)
    reference = rng.normal(60, 15, (50, 70)).clip(0, 100).astype(np.float32)
    source, wanted = (statistics(np.stack([drawn.ravel()] * 3, axis=1), "hist", "l") for drawn in (values, reference))
    ours = match_hist(values.ravel(), source, wanted, 0)
    np.testing.assert_allclose(ours, match_histograms(values, reference).ravel(), atol=1e-3)


def test_hist_to_itself_changes_nothing(photo, mask):
    found = region(photo, mask, "hist", "lab")
    result = transfer(photo, found, found.statistics, "lab")
    assert np.abs(result.composite.astype(int) - photo).max() <= 1


def test_hist_gives_greys_the_median_colour_whatever_their_rounding_errors(mask):
    rng = np.random.default_rng(4)
    grey = rng.integers(70, 150, (40, 50, 1), dtype=np.uint8).repeat(3, axis=2)
    coloured = rng.gamma(3, 10, (5000, 3)).astype(np.float32) + np.float32([30, 5, -20])
    reference, found = statistics(coloured, "hist", "lab"), region(grey, mask, "hist", "lab")
    composites = []
    for noise in (0, 1e-4):
        lab = found.lab + rng.normal(0, noise, found.lab.shape) * np.array([0, 1, 1])
        lab = lab.astype(np.float32)
        noisy = found._replace(lab=lab, statistics=statistics(lab, "hist", "lab"))
        composites.append(transfer(grey, noisy, reference, "lab").composite)
        for channel in (1, 2):
            matched = match_hist(lab[:, channel], noisy.statistics, reference, channel)
            np.testing.assert_allclose(matched, np.median(coloured[:, channel]), atol=0.02)
    np.testing.assert_array_equal(*composites)
    levels, after = grey[mask > 0][:, 0], composites[0][mask > 0]
    assert len(np.unique(after, axis=0)) <= len(np.unique(levels))
    assert all(len(np.unique(after[levels == level], axis=0)) == 1 for level in np.unique(levels))


def test_outside_the_mask_not_a_bit_changes_and_soft_edges_blend(photo, mask):
    whole = transfer(photo, region(photo, mask, "meanstd", "lab"), reference_of(75, 6), "l").composite.astype(float)
    mask[10, 10:40] = 64
    soft = transfer(photo, region(photo, mask, "meanstd", "lab"), reference_of(75, 6), "l").composite
    np.testing.assert_array_equal(soft[mask == 0], photo[mask == 0])
    weight = 64 / 255
    expected = weight * whole[10, 10:40] + (1 - weight) * photo[10, 10:40]
    assert np.abs(soft[10, 10:40] - expected).mean() < 2  # the statistics moved a little with the mask


def test_clipping_is_counted(photo, mask):
    found = region(photo, mask, "meanstd", "lab")
    result = transfer(photo, found, reference_of(99, 8), "l")
    assert 0.3 < result.clipped_share <= 1
    wanted = found.lab.copy()
    wanted[:, 0] = match_meanstd(found.lab[:, 0], found.statistics, reference_of(99, 8), 0)
    after = lab_of(result.composite)[mask > 0]
    # The 8-bit composite tells the same, but for the pixels that were moved by little.
    assert result.clipped_share == pytest.approx((np.abs(after - wanted) > 0.75).any(axis=1).mean(), abs=0.05)
    assert result.shift_stops == pytest.approx(np.log2(after[:, 0].mean() / found.lab[:, 0].mean()), abs=0.005)
