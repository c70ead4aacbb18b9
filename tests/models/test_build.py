import pytest
import torch
from torch import nn

from nrh_dist.errors import UserError
from nrh_dist.models import MODELS, build, parameter_count

HARMONISERS = [name for name in MODELS if name != "ptc"]
WITH_MASK_OUTPUT = {"two_stage", "ptc_dih", "gated"}


@pytest.mark.parametrize("size", [64, 128, 256])
@pytest.mark.parametrize("name", HARMONISERS)
def test_harmonisers_keep_the_size_of_the_image(options, name, size):
    model = build(options(name, width=0.0625), size).eval()
    image, mask = torch.rand(1, 3, size, size) * 2 - 1, torch.rand(1, 1, size, size)
    with torch.no_grad():
        prediction = model(image, mask)
    assert prediction.image.shape == image.shape
    assert (prediction.mask is not None) == (name in WITH_MASK_OUTPUT)
    if prediction.mask is not None:
        assert prediction.mask.shape == mask.shape
        assert 0 <= prediction.mask.min() <= prediction.mask.max() <= 1
    assert (prediction.mask_logits is not None) == (name in ("gated", "ptc_dih"))
    if prediction.mask_logits is not None:
        assert prediction.mask_logits.shape == (1, 1, size * 7 // 8, size * 7 // 8)


@pytest.mark.parametrize("name", [name for name in HARMONISERS if name != "dih_m"])
def test_the_given_mask_is_ignored_by_all_but_dih_m(options, image, mask, name):
    model = build(options(name), 64).eval()
    with torch.no_grad():
        assert torch.equal(model(image, mask).image, model(image, None).image)


@pytest.mark.parametrize("name", ["ptc_dih", "ptc_att_dih", "gated"])
def test_features_known_already_give_the_same_prediction(options, image, name):
    model = build(options(name), 64).eval()
    if name == "gated":
        nn.init.normal_(model.harmoniser.head.weight)
    with torch.no_grad():
        features = model.detector.encoder(image)
        assert torch.equal(model(image, None).image, model(image, None, features=features).image)
        assert not torch.equal(model(image, None).image, model(image, None, features=features + 1).image)


@pytest.mark.parametrize(
    ("name", "changes"),
    [(name, {}) for name in HARMONISERS if name != "two_stage"]
    + [("gated", {"fusion_width": 16, "correction": "pixels"}), ("ptc_dih", {"freeze": "none"})],
)
def test_an_empty_batch_goes_forward_and_backward(options, name, changes):
    model = build(options(name, **changes), 64).train()
    prediction = model(torch.zeros(0, 3, 64, 64), torch.zeros(0, 1, 64, 64))
    assert prediction.image.shape == (0, 3, 64, 64)
    prediction.image.sum().backward()
    for key, value in model.state_dict().items():
        assert torch.isfinite(value).all(), key


def test_an_empty_batch_passes_the_frozen_models(options):
    assert build(options("two_stage"), 64)(torch.zeros(0, 3, 64, 64), None).image.shape == (0, 3, 64, 64)


def test_an_unknown_model_is_refused_with_the_known_ones(options):
    with pytest.raises(UserError, match=r"model.name=unet: .*dih_m.*gated"):
        build({**options("dih_m"), "name": "unet"}, 64)


def test_another_size_is_refused(options):
    with pytest.raises(UserError, match=r"data\.size=100"):
        build(options("dih_m"), 100)


@pytest.mark.parametrize("name", list(MODELS))
def test_batchnorm_and_dropout_settings_apply_everywhere(options, name):
    model = build(options(name, batchnorm_eps=1e-3, batchnorm_momentum=0.01, dropout=False), 64)
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert norms
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.01)}
    assert {layer.p for layer in model.modules() if isinstance(layer, nn.Dropout2d)} <= {0.0}


@pytest.mark.parametrize("name", list(MODELS))
def test_glorot_bounds_every_weight_and_zeroes_every_bias(options, name):
    model = build(options(name, initialisation="glorot"), 64)
    for key, layer in model.named_modules():
        if not isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear) or (
            name == "gated" and key == "harmoniser.head"
        ):
            continue
        fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(layer.weight)
        bound = (6 / (fan_in + fan_out)) ** 0.5
        assert 0.5 * bound < layer.weight.abs().max() <= bound, key
        assert layer.bias is None or not layer.bias.any(), key


def test_parameter_count_counts_frozen_parameters_and_no_buffers():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    module[0].requires_grad_(False)
    assert parameter_count(module) == 3 * 4 * 9 + 4 + 2 * 4
