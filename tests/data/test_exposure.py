"""Exposure shifts: the gain on L that they promise, nothing outside the mask, and the labels of the triplets."""

import pytest
import torch
from skimage import color as oracle

from nrh_dist.data import exposure


@pytest.fixture
def photo():
    """Mid-tones, which one stop does not clip: 2x3x16x20 in [-1, 1]."""
    return 0.5 * torch.rand(2, 3, 16, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 0.5


@pytest.fixture
def mask():
    mask = torch.zeros(2, 1, 16, 20, dtype=torch.float64)
    mask[:, :, 4:12, 5:15] = 1
    return mask


def lightness(image):
    return torch.from_numpy(oracle.rgb2lab(((image + 1) / 2).permute(0, 2, 3, 1).numpy()))[..., 0]


def test_stops_are_a_gain_on_lightness_inside_the_mask_only(photo, mask):
    shifted = exposure.shift_exposure(photo, mask, torch.tensor([-1.0, 0.5]).double())
    inside = mask[:, 0] > 0
    gain = lightness(shifted) / lightness(photo)
    assert gain[0][inside[0]].mean().item() == pytest.approx(0.5, rel=0.01)
    assert gain[1][inside[1]].mean().item() == pytest.approx(2**0.5, rel=0.01)
    assert torch.equal(shifted.masked_select(mask == 0), photo.masked_select(mask == 0))


def test_no_stops_change_nothing(photo, mask):
    torch.testing.assert_close(exposure.shift_exposure(photo, mask, torch.zeros(2)), photo, atol=1e-5, rtol=0)


def test_a_soft_mask_blends_and_strong_shifts_stay_in_range(photo, mask):
    stops = torch.tensor([4.0, -4.0]).double()
    whole = exposure.shift_exposure(photo, mask, stops)
    half = exposure.shift_exposure(photo, mask / 2, stops)
    torch.testing.assert_close(half, (whole + photo) / 2)
    assert whole.min() >= -1
    assert whole.max() <= 1


def test_triplets_lie_on_their_sides_of_the_thresholds(photo, mask):
    draws = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    negative, positive = torch.tensor([-0.3, -0.1]).double(), torch.tensor([0.2, 0.4]).double()
    triplet = exposure.threshold_triplet(photo, mask, draws, 2.0, negative, positive)
    expected = torch.tensor([-0.3, -2.0, 0.2, 2.0, -0.3, 0.4]).double()
    torch.testing.assert_close(triplet.stops, expected)
    again = exposure.shift_exposure(photo, mask, triplet.stops[2:4])
    torch.testing.assert_close(triplet.images[2:4], again)
    inside = mask[:, 0] > 0
    assert (triplet.target[:2][inside] == exposure.NEGATIVE).all()
    assert (triplet.target[2:4][inside] == exposure.POSITIVE).all()
    assert (triplet.target[:4][~inside.repeat(2, 1, 1)] == exposure.NONE).all()
    assert (triplet.target[4:] == exposure.NONE).all()


def test_unmeasured_photos_use_the_mean_thresholds(photo, mask):
    triplet = exposure.threshold_triplet(photo, mask, torch.zeros(2, 3), 2.0)
    expected = torch.tensor([-0.248, -0.248, 0.227, 0.227, -0.248, -0.248]).double()
    torch.testing.assert_close(triplet.stops, expected)


def test_an_empty_batch_is_fine():
    photo, mask = torch.zeros(0, 3, 8, 8), torch.zeros(0, 1, 8, 8)
    assert exposure.shift_exposure(photo, mask, torch.zeros(0)).shape == (0, 3, 8, 8)
    triplet = exposure.threshold_triplet(photo, mask, torch.zeros(0, 3), 1.0)
    assert triplet.target.shape == (0, 8, 8)
