"""Shifts of one object: the gain that each transform promises, nothing outside the mask, and the triplets' labels."""

import numpy as np
import pytest
import torch
from skimage import color as oracle

from nrh_dist.data import shifts
from nrh_dist.schema import TRANSFORMS

LUMINANCE = np.array([0.212671, 0.715160, 0.072169])  # of linear R, G, B: IEC 61966-2-1


@pytest.fixture
def photo():
    """Mid-tones, which half a stop does not clip: 2x3x16x20 in [-1, 1]."""
    return 0.5 * torch.rand(2, 3, 16, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 0.5


@pytest.fixture
def mask():
    mask = torch.zeros(2, 1, 16, 20, dtype=torch.float64)
    mask[:, :, 4:12, 5:15] = 1
    return mask


def transform(name, count=2):
    return np.full(count, TRANSFORMS.index(name))


def rgb_of(image):
    return ((image + 1) / 2).permute(0, 2, 3, 1).numpy()


def lab_of(image):
    return oracle.rgb2lab(rgb_of(image))


def linear_of(image):
    rgb = rgb_of(image)
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def test_exposure_is_a_gain_on_lightness(photo, mask):
    shifted = shifts.shift(photo, mask, torch.tensor([-1.0, 0.5]), transform("exposure"))
    inside = mask[:, 0].numpy() > 0
    before, after = lab_of(photo), lab_of(shifted)
    assert (after[0] / before[0])[inside[0]][:, 0].mean() == pytest.approx(0.5, rel=0.01)
    assert (after[1] / before[1])[inside[1]][:, 0].mean() == pytest.approx(2**0.5, rel=0.01)


def test_saturation_is_a_gain_on_chroma_alone(photo, mask):
    shifted = shifts.shift(photo, mask, torch.tensor([-1.0, -0.5]), transform("saturation"))
    inside = mask[:, 0].numpy() > 0
    before, after = lab_of(photo), lab_of(shifted)
    for number, gain in enumerate((0.5, 2**-0.5)):
        np.testing.assert_allclose(
            after[number][inside[number]][:, 1:], gain * before[number][inside[number]][:, 1:], atol=0.05
        )
    np.testing.assert_allclose(after[inside][:, 0], before[inside][:, 0], atol=0.05)


def test_contrast_is_a_gain_on_the_spread_of_lightness(photo, mask):
    shifted = shifts.shift(photo, mask, torch.tensor([-1.0, 0.2]), transform("contrast"))
    inside = mask[:, 0].numpy() > 0
    for number, gain in enumerate((0.5, 2**0.2)):
        before, after = lab_of(photo)[number][inside[number]], lab_of(shifted)[number][inside[number]]
        assert after[:, 0].std() / before[:, 0].std() == pytest.approx(gain, rel=0.02)
        assert after[:, 0].mean() == pytest.approx(before[:, 0].mean(), abs=0.2)


def test_white_balance_is_a_gain_of_red_over_blue_at_unchanged_luminance(photo, mask):
    shifted = shifts.shift(photo, mask, torch.tensor([-0.5, 0.5]), transform("white_balance"))
    inside = mask[:, 0].numpy() > 0
    before, after = linear_of(photo), linear_of(shifted)
    ratio = (after[..., 0] / after[..., 2]) / (before[..., 0] / before[..., 2])
    np.testing.assert_allclose(ratio[0][inside[0]], 2**-0.5, rtol=1e-3)
    np.testing.assert_allclose(ratio[1][inside[1]], 2**0.5, rtol=1e-3)
    np.testing.assert_allclose((after @ LUMINANCE)[inside], (before @ LUMINANCE)[inside], rtol=1e-4)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_nothing_changes_outside_the_mask_or_without_stops(photo, mask, name):
    shifted = shifts.shift(photo, mask, torch.tensor([3.0, -3.0]), transform(name))
    assert torch.equal(shifted.masked_select(mask == 0), photo.masked_select(mask == 0))
    assert not torch.equal(shifted, photo)
    assert shifted.min() >= -1 and shifted.max() <= 1
    torch.testing.assert_close(shifts.shift(photo, mask, torch.zeros(2), transform(name)), photo, atol=1e-5, rtol=0)


def test_a_batch_may_hold_several_transforms(photo, mask):
    stops = torch.tensor([0.4, -0.4])
    mixed = shifts.shift(photo, mask, stops, np.array([TRANSFORMS.index("contrast"), TRANSFORMS.index("exposure")]))
    for number, name in enumerate(("contrast", "exposure")):
        alone = shifts.shift(photo[number:][:1], mask[number:][:1], stops[number:][:1], transform(name, 1))
        torch.testing.assert_close(mixed[number:][:1], alone)


def test_a_soft_mask_blends(photo, mask):
    stops = torch.tensor([4.0, -4.0])
    whole = shifts.shift(photo, mask, stops, transform("exposure"))
    half = shifts.shift(photo, mask / 2, stops, transform("exposure"))
    torch.testing.assert_close(half, (whole + photo) / 2)


def triplet_of(photo, mask, draws, limit=2.0, thresholds=((-0.25, 0.125), (-0.5, 0.5))):
    thresholds = torch.tensor(thresholds, dtype=torch.float64)
    return shifts.threshold_triplet(photo, mask, draws, transform("exposure"), limit, thresholds)


def test_triplets_lie_on_their_sides_of_the_thresholds(photo, mask):
    triplet = triplet_of(photo, mask, torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]))
    expected = torch.tensor([-0.25, -2.0, 0.125, 2.0, -0.25, 0.5]).double()
    torch.testing.assert_close(triplet.stops, expected)
    again = shifts.shift(photo, mask, triplet.stops[2:4], transform("exposure"))
    torch.testing.assert_close(triplet.images[2:4], again)
    inside = mask[:, 0] > 0
    assert (triplet.target[:2][inside] == shifts.NEGATIVE).all()
    assert (triplet.target[2:4][inside] == shifts.POSITIVE).all()
    assert (triplet.target[:4][~inside.repeat(2, 1, 1)] == shifts.NONE).all()
    assert (triplet.target[4:] == shifts.NONE).all()


def test_visible_shifts_are_spread_over_octaves(photo, mask):
    triplet = triplet_of(photo, mask, torch.full((2, 3), 0.5))
    assert triplet.stops[0].item() == pytest.approx(-((0.25 * 2.0) ** 0.5))
    assert triplet.stops[2].item() == pytest.approx((0.125 * 2.0) ** 0.5)


def test_a_shift_is_never_called_visible_below_its_threshold(photo, mask):
    triplet = triplet_of(photo, mask, torch.rand(2, 3), limit=0.3)
    assert (triplet.stops[:2] <= torch.tensor([-0.25, -0.5])).all() and (triplet.stops[:2] >= -0.5).all()
    assert (triplet.stops[2:4] >= torch.tensor([0.125, 0.5])).all()


def test_an_empty_batch_is_fine():
    photo, mask = torch.zeros(0, 3, 8, 8), torch.zeros(0, 1, 8, 8)
    none = np.zeros(0, int)
    assert shifts.shift(photo, mask, torch.zeros(0), none).shape == (0, 3, 8, 8)
    triplet = shifts.threshold_triplet(photo, mask, torch.zeros(0, 3), none, 1.0, torch.zeros(0, 2))
    assert triplet.target.shape == (0, 8, 8)
