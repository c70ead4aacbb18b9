import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from nrh_dist.models.blocks import FreezableSequential, Fusion, UpsamplingConvolution, resize, scaled


@pytest.mark.parametrize(
    ("channels", "width", "expected"), [(64, 1.0, 64), (64, 0.25, 16), (64, 0.01, 4), (64, 0.33, 21)]
)
def test_channels_scale_with_the_width_but_not_below_four(channels, width, expected):
    assert scaled(channels, {"width": width}) == expected


def test_fusion_is_equation_3():
    fusion = Fusion(ptc_values=5 * 2 * 2, dih_values=3 * 4 * 4, width=7).double()
    a_ptc, a_dih = torch.rand(3, 5, 2, 2).double(), torch.rand(3, 3, 4, 4).double()
    scores = a_ptc.reshape(3, -1) @ fusion.fc1.weight.T + fusion.fc1.bias
    attention = scores.exp() / scores.exp().sum(dim=1, keepdim=True)
    values = a_dih.reshape(3, -1) @ fusion.fc2.weight.T + fusion.fc2.bias
    expected = (attention * values) @ fusion.fc3.weight.T + fusion.fc3.bias
    torch.testing.assert_close(fusion(a_ptc, a_dih), expected[:, :, None, None])


def test_making_smaller_is_antialiased_as_pillow_does_it():
    pixels = np.random.default_rng(0).random((64, 64), dtype=np.float32)
    expected = np.asarray(Image.fromarray(pixels).resize((56, 56), Image.Resampling.BILINEAR))
    torch.testing.assert_close(
        resize(torch.from_numpy(pixels)[None, None], 56)[0, 0], torch.from_numpy(expected.copy())
    )


def test_enlarging_interpolates_between_the_centres_of_pixels():
    ramp = torch.arange(4.0).expand(1, 1, 4, 4)
    torch.testing.assert_close(resize(ramp, 8)[0, 0, 0], torch.tensor([0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3]))


def test_a_frozen_module_stays_in_eval_mode_inside_one_that_trains():
    frozen, free = FreezableSequential(nn.BatchNorm2d(3)), FreezableSequential(nn.BatchNorm2d(3))
    frozen.freeze()
    nn.Sequential(frozen, free).train()
    assert not frozen.training
    assert not frozen[0].training
    assert free[0].training
    assert not any(parameter.requires_grad for parameter in frozen.parameters())


@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (1, 3, 4, 4), (3, 3, 1, 1), (0, 3, 5, 7)])
def test_upsampling_convolution_is_a_convolution_of_the_enlarged_image(shape):
    """Output and both gradients, to 1e-12 in float64; no image at all included."""
    layer = UpsamplingConvolution(3, 4).double()
    image = torch.randn(shape).double().requires_grad_()
    output = layer(image)
    plain = F.conv2d(F.interpolate(image, scale_factor=2, mode="nearest"), layer.weight, padding=1)
    weights = torch.randn(plain.shape).double()
    found = torch.autograd.grad((output * weights).sum(), (image, layer.weight))
    expected = torch.autograd.grad((plain * weights).sum(), (image, layer.weight))
    for one, other in zip((output, *found), (plain, *expected), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_upsampling_convolution_has_the_state_of_a_convolution():
    assert list(UpsamplingConvolution(3, 4).state_dict()) == ["weight"]
