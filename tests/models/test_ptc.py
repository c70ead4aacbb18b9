import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.vgg import cfgs, make_layers
from torchvision.transforms.v2.functional import normalize

from nrh_dist.models import build, parameter_count
from nrh_dist.models.blocks import UpsamplingConvolution, resize
from nrh_dist.models.ptc import Equivariance, SamePool, feature_values
from nrh_dist.models.weights import load_vgg16


def dropouts(module):
    return [layer.p for layer in module.modules() if isinstance(layer, nn.Dropout2d)]


def test_exact_parameter_counts(options):
    model = build(options("ptc", width=1.0), 256)
    assert parameter_count(model) == 16_908_830
    assert parameter_count(model.encoder.vgg) == 14_714_688  # VGG16 without its classifier
    assert parameter_count(model.decoder) == 491_203


@pytest.mark.parametrize(("size", "detector", "grid"), [(64, 56, 7), (128, 112, 14), (256, 224, 28)])
def test_bottleneck_and_output_sizes(options, size, detector, grid):
    model = build(options("ptc", width=0.0625), size).eval()
    image = torch.rand(1, 3, size, size) * 2 - 1
    assert model.encoder(image).shape == (1, 15, grid, grid)
    assert feature_values(size) == 15 * grid * grid
    assert model(image).shape == (1, 3, detector, detector)


def test_the_published_bottleneck_has_11760_values():
    assert feature_values(256) == 11_760


def test_vgg_agrees_with_torchvision_up_to_the_third_pool(options):
    oracle = make_layers(cfgs["D"], batch_norm=False)
    encoder = build(options("ptc", width=1.0), 64).encoder
    state = {f"features.{key}": value for key, value in oracle.state_dict().items()}
    load_vgg16(encoder, {**state, "classifier.0.weight": torch.zeros(1)})
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(encoder.vgg[:17](x), oracle[:17](x))


def test_vgg_blocks_4_and_5_agree_with_torchvisions_layers_at_stride_1_and_dilation_2(options):
    encoder = build(options("ptc"), 64).encoder
    start = x = torch.rand(1, 64, 7, 7)
    for position, layer in enumerate(encoder.vgg[17:], start=17):
        if isinstance(layer, SamePool):
            x = F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=-torch.inf), 2, stride=1)
        elif isinstance(layer, nn.Conv2d):
            dilation = 2 if position > 23 else 1
            x = F.conv2d(x, layer.weight, layer.bias, padding=dilation, dilation=dilation)
        else:
            x = x.relu()
    assert x.shape == (1, 128, 7, 7)
    torch.testing.assert_close(encoder.vgg[17:](start), x)


def test_input_is_resized_and_brought_to_imagenet_statistics(options, image):
    encoder = build(options("ptc"), 64).encoder
    seen = []
    encoder.vgg[0].register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
    encoder(image)
    expected = normalize((resize(image, 56) + 1) / 2, mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
    torch.testing.assert_close(seen[0], expected)


def test_branches_are_concatenated_behind_the_top(options, image):
    encoder = build(options("ptc"), 64).encoder.eval()
    for number, branch in enumerate(encoder.branches, start=1):
        nn.init.zeros_(branch[-2].weight)
        nn.init.constant_(branch[-2].bias, number)  # the last BatchNorm now gives the branch's number
    features = encoder(image)
    for number in range(1, 5):
        assert (features[:, 3 * number : 3 * number + 3] == number).all()
    assert (features[:, :3] >= 0).all()


def test_spatial_dropout_follows_the_rules(options):
    assert dropouts(build(options("ptc"), 64)) == [0.1, 0.1, 0.75]
    assert dropouts(build(options("ptc", dropout=False), 64)) == [0, 0, 0]
    assert dropouts(build(options("two_stage"), 64)) == [0.1, 0.1, 0.75]
    for name in ("ptc_dih", "gated"):
        assert dropouts(build(options(name), 64)) == [0.1, 0.1, 0]


def plain_decoder(decoder, features):
    """The decoder as the paper describes it: enlarge by repetition, then convolve."""
    x = features
    for layer in decoder.body:
        if isinstance(layer, UpsamplingConvolution):
            x = F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), layer.weight, padding=1)
        else:
            x = layer(x)
    return decoder.head(x)


def test_decoder_upsamples_by_repetition(options):
    decoder = build(options("ptc", dropout=False), 64).decoder.double()
    features = torch.rand(2, 15, 7, 7).double()
    torch.testing.assert_close(decoder(features), plain_decoder(decoder, features), rtol=0, atol=1e-12)
    convolutions = [layer for layer in decoder.body if isinstance(layer, nn.Conv2d)]
    assert [layer.out_channels for layer in convolutions] == [64, 64, 32, 32, 16, 16]
    assert [layer.kernel_size[0] for layer in convolutions] == [3, 1, 3, 1, 3, 1]


def test_equivariance_regresses_one_map_from_both_outputs(options, image):
    settings = options("ptc", freeze="none")
    model = Equivariance(build(settings, 64), settings).eval()
    shifted = image.flip(0)
    expected = F.conv2d(
        torch.cat([model.detector(image), model.detector(shifted)], dim=1),
        model.regression.weight,
        model.regression.bias,
    )
    assert expected.shape == (2, 1, 56, 56)
    torch.testing.assert_close(model(image, shifted), expected)


def test_equivariance_passes_an_empty_batch(options):
    settings = options("ptc", freeze="none")
    model = Equivariance(build(settings, 64), settings).train()
    offsets = model(torch.zeros(0, 3, 64, 64), torch.zeros(0, 3, 64, 64))
    assert offsets.shape == (0, 1, 56, 56)
    offsets.sum().backward()
