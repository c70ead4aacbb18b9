import pytest
import torch
import torch.nn.functional as F

from nrh_dist.models import build, parameter_count

# Four input channels, 256 px, width 1: 8.27 M and 24.9 M are known; to the last one, so that no layer changes unseen.
EXACT = {"inner": 8_268_803, "outer": 24_917_251}


@pytest.mark.parametrize("variant", ["inner", "outer"])
def test_exact_parameter_counts(options, variant):
    masked = build(options("dih_m", width=1.0, dih_variant=variant), 256)
    assert parameter_count(masked) == EXACT[variant]
    unmasked = build(options("dih_nm", width=1.0, dih_variant=variant), 256)
    assert parameter_count(masked) - parameter_count(unmasked) == 4 * 4 * 64  # the mask's part of the first convolution


@pytest.mark.parametrize(
    ("variant", "size", "channels", "latent"),
    [
        ("inner", 256, [64, 64, 128, 128, 256, 256], 512),
        ("inner", 128, [64, 64, 128, 128, 256], 512),
        ("inner", 64, [64, 64, 128, 128], 512),
        ("outer", 256, [64, 128, 128, 256, 256, 512], 1024),
        ("outer", 64, [64, 128, 128, 256], 1024),
    ],
)
def test_smaller_sizes_drop_the_innermost_stages(options, variant, size, channels, latent):
    harmoniser = build(options("dih_m", width=1.0, dih_variant=variant), size).harmoniser
    assert [stage[0].out_channels for stage in harmoniser.encoder] == channels
    assert harmoniser.bottleneck.out_channels == latent
    assert [stage[0].out_channels for stage in harmoniser.decoder] == channels[::-1]
    assert harmoniser.head.out_channels == 3


def test_forward_agrees_with_the_network_written_out_in_float64(options, image, mask):
    model = build(options("dih_m", initialisation="glorot"), 64).double().eval()
    weights = {key.removeprefix("harmoniser."): value for key, value in model.state_dict().items()}
    for key, value in weights.items():  # statistics that a mistake would show
        if "running" in key:
            value.copy_(torch.rand_like(value) + 0.5)

    def norm_elu(x, prefix):
        shape = (1, -1, 1, 1)
        mean, variance = weights[f"{prefix}.running_mean"].view(shape), weights[f"{prefix}.running_var"].view(shape)
        scale, shift = weights[f"{prefix}.weight"].view(shape), weights[f"{prefix}.bias"].view(shape)
        x = (x - mean) / (variance + 1e-5).sqrt() * scale + shift
        return torch.where(x > 0, x, torch.expm1(x))

    x = torch.cat([image, mask], dim=1).double()
    skips = []
    for stage in range(4):
        x = norm_elu(F.conv2d(x, weights[f"encoder.{stage}.0.weight"], stride=2, padding=1), f"encoder.{stage}.1")
        skips.append(x)
    x = F.conv2d(x, weights["bottleneck.weight"], weights["bottleneck.bias"])
    assert x.shape == (2, 128, 1, 1)
    x = norm_elu(F.conv_transpose2d(x, weights["decoder.0.0.weight"]), "decoder.0.1") + skips[3]
    for stage in range(1, 4):
        x = F.conv_transpose2d(x, weights[f"decoder.{stage}.0.weight"], stride=2, padding=1)
        x = norm_elu(x, f"decoder.{stage}.1") + skips[3 - stage]
    x = F.conv_transpose2d(x, weights["head.weight"], weights["head.bias"], stride=2, padding=1)
    torch.testing.assert_close(model(image.double(), mask.double()).image, x, rtol=0, atol=1e-12)


def test_dih_m_needs_and_uses_its_mask(options, image, mask):
    model = build(options("dih_m"), 64).eval()
    with pytest.raises(ValueError, match="dih_m needs a mask"):
        model(image, None)
    assert not torch.equal(model(image, mask).image, model(image, 1 - mask).image)


def test_output_is_not_clamped(options, image):
    model = build(options("dih_nm"), 64).eval()
    torch.nn.init.constant_(model.harmoniser.head.bias, 3.0)
    assert model(image, None).image.max() > 1


@pytest.mark.parametrize("name", ["dih_m", "dih_nm"])
def test_a_residual_model_starts_as_the_identity_and_adds_what_the_plain_one_gives(options, image, mask, name):
    model = build(options(name, residual=True), 64).eval()
    assert torch.equal(model(image, mask).image, image)
    plain = build(options(name), 64).eval()
    model.load_state_dict(plain.state_dict())
    torch.testing.assert_close(model(image, mask).image, image + plain(image, mask).image)
