"""The guided filter against its definition, and by its laws."""

import numpy as np
import pytest

from nrh_dist.photo import guided


def by_definition(guide, target, radius, epsilon):
    """Ridge regression in every window, then the mean of the coefficients of all windows that hold a pixel."""
    padded = [np.pad(one, ((2 * radius,) * 2, (2 * radius,) * 2, (0, 0)), mode="reflect") for one in (guide, target)]
    height, width, channels = guide.shape
    slopes = np.zeros((height + 2 * radius, width + 2 * radius, target.shape[-1], channels))
    offsets = np.zeros(slopes.shape[:3])
    side = 2 * radius + 1
    for y in range(slopes.shape[0]):
        for x in range(slopes.shape[1]):
            known, wanted = (one[y : y + side, x : x + side].reshape(side * side, -1) for one in padded)
            centred = known - known.mean(0)
            normal = centred.T @ centred / side**2 + epsilon * np.eye(channels)
            slopes[y, x] = np.linalg.solve(normal, centred.T @ (wanted - wanted.mean(0)) / side**2).T
            offsets[y, x] = wanted.mean(0) - slopes[y, x] @ known.mean(0)
    slope, offset = np.zeros((height, width, *slopes.shape[2:])), np.zeros((height, width, target.shape[-1]))
    for y in range(height):
        for x in range(width):
            slope[y, x] = slopes[y : y + side, x : x + side].mean((0, 1))
            offset[y, x] = offsets[y : y + side, x : x + side].mean((0, 1))
    return slope, offset


def applied(slope, offset, guide):
    return np.einsum("hwkc,hwc->hwk", slope, guide) + offset


@pytest.mark.parametrize(("channels", "radius", "epsilon"), [(3, 2, 1e-3), (1, 1, 0.1)])
def test_it_is_the_definition(channels, radius, epsilon):
    rng = np.random.default_rng(0)
    guide, target = rng.random((14, 17, channels)), rng.random((14, 17, 2))
    expected = by_definition(guide, target, radius, epsilon)
    inner = slice(2 * radius, -2 * radius)  # the border is mirrored once here, twice there
    for found, wanted in zip(guided.fit(guide, target, radius, epsilon), expected, strict=True):
        assert np.allclose(found[inner, inner], wanted[inner, inner], atol=1e-10)


def test_what_is_linear_in_the_guide_is_found():
    rng = np.random.default_rng(0)
    guide, matrix, constant = rng.random((20, 24, 3)), rng.random((2, 3)), rng.random(2)
    target = guide @ matrix.T + constant
    slope, offset = guided.fit(guide, target, 3, 1e-12)
    assert np.allclose(slope, matrix, atol=1e-6) and np.allclose(offset, constant, atol=1e-6)
    assert np.allclose(applied(slope, offset, guide), target, atol=1e-6)


def test_a_flat_target_stays_as_it_is():
    guide = np.random.default_rng(0).random((16, 16, 3))
    slope, offset = guided.fit(guide, np.full((16, 16, 1), 0.3), 4, 1e-4)
    assert abs(slope).max() < 1e-9 and np.allclose(offset, 0.3)


def test_it_follows_an_edge_of_the_guide():
    """A mask whose border is blurred becomes as sharp as the photo's own edge."""
    guide = np.full((32, 32, 3), 0.2)
    guide[:, 16:] = 0.8
    blurred = np.clip((np.arange(32) - 12) / 8, 0, 1)[None, :, None] * np.ones((32, 1, 1))
    sharpened = applied(*guided.fit(guide, blurred, 4, 1e-4), guide)[16, :, 0]
    assert sharpened[16] - sharpened[15] > 0.5 > 3 * (blurred[0, 16, 0] - blurred[0, 15, 0])
