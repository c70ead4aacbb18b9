import pytest
import torch

from nrh_dist.models import build, parameter_count


def test_exact_parameter_counts(options):
    model = build(options("ptc_att_dih", width=1.0, fusion_width=512), 256)
    assert parameter_count(model) == 30_969_694
    fusion = model.harmoniser.bottleneck
    assert fusion.fc1.in_features == 11_760
    assert fusion.fc2.in_features == 4_096
    assert parameter_count(fusion) == 11_761 * 512 + 4_097 * 512 + 513 * 512


@pytest.mark.parametrize("width", [8, 32])
def test_the_fusion_width_is_not_scaled_and_feeds_the_decoder(options, width):
    harmoniser = build(options("ptc_att_dih", fusion_width=width), 64).harmoniser
    assert [fc.out_features for fc in harmoniser.bottleneck.children()] == [width] * 3
    assert harmoniser.decoder[0][0].in_channels == width


def test_only_the_detectors_encoder_is_there(options):
    assert {key.split(".")[1] for key in build(options("ptc_att_dih"), 64).detector.state_dict(prefix="detector.")} == {
        "encoder"
    }


def test_the_detectors_features_change_the_output(options, image):
    model = build(options("ptc_att_dih"), 64).eval()
    output = model(image, None).image
    torch.nn.init.zeros_(model.harmoniser.bottleneck.fc1.weight)
    assert not torch.equal(model(image, None).image, output)


def test_every_trainable_parameter_gets_a_gradient(options, image):
    model = build(options("ptc_att_dih"), 64).train()
    model(image, None).image.square().mean().backward()
    for key, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, key
