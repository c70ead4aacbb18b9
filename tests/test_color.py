"""Colour conversion: scikit-image is the oracle; the tensor twins must agree with the arrays."""

import numpy as np
import pytest
import torch
from skimage import color as oracle

from nrh_dist import color

CORNERS = np.array([[r, g, b] for r in (0, 1) for g in (0, 1) for b in (0, 1)])


@pytest.fixture
def rgb():
    """All corners of the cube, dark values on the linear part of the curve, and random colours: 40x50x3 in [0, 1]."""
    rng = np.random.default_rng(0)
    values = np.concatenate([CORNERS, rng.random((500, 3)) * 0.06, rng.random((1492, 3))])
    return values.reshape(40, 50, 3).astype(np.float32)


def as_tensor(image):
    return torch.from_numpy(image.astype(np.float64)).permute(2, 0, 1)[None]


def as_array(tensor):
    return tensor[0].permute(1, 2, 0).numpy()


def test_lab_agrees_with_the_oracle(rgb):
    expected = oracle.rgb2lab(rgb.astype(np.float64))
    assert np.abs(color.rgb_to_lab(rgb) - expected).max() < 0.04
    assert np.abs(as_array(color.rgb_to_lab_t(as_tensor(rgb))) - expected).max() < 1e-3


def test_rgb_agrees_with_the_oracle(rgb):
    lab = oracle.rgb2lab(rgb.astype(np.float64))
    assert np.abs(color.lab_to_rgb(lab) - rgb).max() * 255 < 0.1
    assert np.abs(as_array(color.lab_to_rgb_t(as_tensor(lab))) - rgb).max() * 255 < 1e-3


@pytest.mark.filterwarnings("ignore:Conversion from CIE-LAB")
@pytest.mark.parametrize("gain", [0.3, 1.8])
def test_colours_out_of_range_are_clipped_as_by_the_oracle(rgb, gain):
    lab = oracle.rgb2lab(rgb.astype(np.float64))
    lab[..., 0] = np.clip(gain * lab[..., 0], 0, 100)
    ours, twin = color.lab_to_rgb(lab), as_array(color.lab_to_rgb_t(as_tensor(lab)))
    is_negative = (lab[..., 0] + 16) / 116 - lab[..., 2] / 200 < 0  # the root of Z
    assert is_negative.any() == (gain < 1)
    assert ours.min() == 0 and ours.max() <= 1
    assert np.abs(ours - oracle.lab2rgb(lab)).max() * 255 < 0.1
    assert np.abs(ours - twin).max() * 255 < 0.1


def test_lab_of_levels_agrees_with_the_oracle():
    levels = np.random.default_rng(2).integers(0, 256, (5000, 3), dtype=np.uint8)
    levels[:256] = np.arange(256)[:, None]
    assert np.abs(color.pixels_to_lab(levels) - oracle.rgb2lab(levels[None] / 255)[0]).max() < 0.04


def test_every_grey_and_8_bit_colour_survives_the_round_trip():
    rng = np.random.default_rng(1)
    greys = np.repeat(np.arange(256)[:, None], 3, axis=1)
    levels = np.concatenate([greys, rng.integers(0, 256, (3840, 3))]).reshape(64, 64, 3)
    back = color.lab_to_rgb(color.rgb_to_lab(levels / 255))
    np.testing.assert_array_equal(np.rint(back * 255), levels)


def test_tensor_twins_accept_an_empty_batch():
    empty = torch.zeros(0, 3, 8, 8)
    assert color.lab_to_rgb_t(color.rgb_to_lab_t(empty)).shape == (0, 3, 8, 8)


def test_a_doubled_luminance_is_one_stop():
    before = np.array([10.0, 20.0, 30.0])
    assert color.luminance_shift_stops(before, 2 * before) == pytest.approx(1)
    assert color.luminance_shift_stops(before, before / 4) == pytest.approx(-2)
