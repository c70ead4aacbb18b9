import pytest
import torch
from torch import nn

from nrh_dist.models import build, parameter_count
from nrh_dist.models.blocks import resize
from nrh_dist.models.gated import gate, mean_change

VARIANTS = [
    {"correction": "affine"},
    {"correction": "pixels"},
    {"correction": "affine", "fusion_width": 16},
    {"correction": "pixels", "fusion_width": 16},
]


def bits(image):
    return image.contiguous().view(torch.int32)


@torch.no_grad()
def undecided(model, image):
    """The model with a gate that is shut in some places of ``image`` and open in others, and a lively correction."""
    model.eval()
    head = model.detector.decoder.head
    nn.init.normal_(head.weight)
    logits = model.detector(image)
    head.weight *= 4 / logits.std()
    head.bias -= head.bias + (logits.mean() - head.bias) * 4 / logits.std()
    nn.init.normal_(model.harmoniser.head.weight)
    return model


@pytest.mark.parametrize("changes", VARIANTS)
def test_it_starts_as_the_identity(options, image, changes):
    prediction = build(options("gated", **changes), 64).eval()(image, None)
    assert prediction.mask.min() > 0
    assert torch.equal(prediction.image, image)


@pytest.mark.parametrize("threshold", [0.0, 0.4])
@pytest.mark.parametrize("changes", VARIANTS)
def test_the_photo_is_returned_bit_for_bit_where_the_gate_is_shut(options, image, changes, threshold):
    image[:, :, ::2] = -0.0  # x + 0 would lose this sign
    model = undecided(build(options("gated", gate_threshold=threshold, **changes), 64), image)
    prediction = model(image, None)
    shut = (prediction.mask == 0).expand_as(image)
    assert 0.05 < shut.float().mean() < 0.95
    assert torch.equal(bits(prediction.image)[shut], bits(image)[shut])
    assert (prediction.image != image)[~shut].float().mean() > 0.9
    assert ((prediction.mask == 0) | (prediction.mask >= threshold)).all()


def test_a_shut_gate_holds_back_even_an_infinite_correction(options, image):
    model = undecided(build(options("gated"), 64), image)
    nn.init.constant_(model.harmoniser.head.bias, torch.inf)
    prediction = model(image, None)
    shut = (prediction.mask == 0).expand_as(image)
    assert torch.equal(bits(prediction.image)[shut], bits(image)[shut])
    assert not torch.isfinite(prediction.image[~shut]).any()


def test_open_places_get_the_gated_correction(options, image):
    model = undecided(build(options("gated"), 64), image).double()
    image = image.double()
    nn.init.zeros_(model.harmoniser.head.weight)
    gain, offset = torch.tensor([0.1, -0.2, 0.3]).double(), torch.tensor([-0.5, 0.4, 0.1]).double()
    model.harmoniser.head.bias.data.copy_(torch.cat([gain, offset]))  # the same field everywhere
    prediction = model(image, None)
    correction = gain.view(1, 3, 1, 1) * image + offset.view(1, 3, 1, 1)
    torch.testing.assert_close(prediction.image, image + prediction.mask * correction)


@pytest.mark.parametrize("grid", [4, 8, 16])
@pytest.mark.parametrize("size", [64, 256])
def test_the_affine_field_has_the_configured_grid(options, grid, size):
    model = build(options("gated", width=0.0625, correction_grid=grid), size).eval()
    assert model.harmoniser(torch.zeros(1, 4, size, size)).shape == (1, 6, grid, grid)


def test_gate_formula():
    logits = torch.linspace(-6, 6, 101).double()
    expected = (1.2 / (1 + torch.exp(-logits)) - 0.1).clamp(0, 1)
    torch.testing.assert_close(gate(logits, 0.0), expected)
    assert (gate(logits, 0.0) == 0).any()
    assert (gate(logits, 0.0) == 1).any()
    torch.testing.assert_close(gate(logits, 0.3), expected * (expected >= 0.3))
    assert torch.equal(gate(logits, gate(logits, 0.0)[60].item())[60:], gate(logits, 0.0)[60:])  # tau itself stays


def test_gate_is_computed_at_image_size_from_enlarged_logits(options, image):
    model = undecided(build(options("gated"), 64), image)
    prediction = model(image, None)
    torch.testing.assert_close(prediction.mask, gate(resize(prediction.mask_logits, 64), 0.0))


def test_a_shut_gate_can_be_taught_through_its_logits_only(options, image):
    model = build(options("gated"), 64).train()
    nn.init.constant_(model.detector.decoder.head.bias, -20.0)
    head = model.detector.decoder.head
    prediction = model(image, None)
    (from_image,) = torch.autograd.grad(prediction.image.square().sum(), head.bias, retain_graph=True)
    (from_logits,) = torch.autograd.grad(prediction.mask_logits.sum(), head.bias)
    assert from_image == 0
    assert from_logits != 0


@pytest.mark.parametrize("changes", VARIANTS)
def test_every_trainable_parameter_gets_a_gradient(options, image, changes):
    model = build(options("gated", **changes), 64).train()
    prediction = model(image, None)
    (prediction.image.square().mean() + prediction.mask_logits.mean()).backward()
    for key, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, key


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({"correction": "affine"}, 24_192_162),
        ({"correction": "pixels"}, 25_177_503),
        ({"correction": "affine", "fusion_width": 512}, 30_476_450),
    ],
)
def test_exact_parameter_counts(options, changes, count):
    assert parameter_count(build(options("gated", width=1.0, **changes), 256)) == count


@pytest.mark.parametrize("changes", VARIANTS)
def test_without_a_gate_all_of_the_photo_is_corrected_and_no_detector_learns(options, image, changes):
    model = undecided(build(options("gated", **changes), 64), image)
    opened = build(options("gated", gate=False, **changes), 64).eval()
    opened.load_state_dict(model.state_dict())
    made = opened(image, None)
    assert (made.mask == 1).all() and (made.image != image).float().mean() > 0.9
    assert not any(parameter.requires_grad for parameter in opened.detector.parameters())
    assert all(parameter.requires_grad for parameter in opened.harmoniser.parameters())


@pytest.mark.parametrize("changes", VARIANTS)
def test_a_weaker_correction_is_the_same_one_made_smaller(options, image, changes):
    model = undecided(build(options("gated", **changes), 64), image)
    whole = model(image, None)
    model.correction_strength = 0.25
    weak = model(image, None)
    torch.testing.assert_close(weak.image - image, 0.25 * (whole.image - image), atol=1e-5, rtol=1e-5)
    assert torch.equal(weak.mask, whole.mask)
    model.correction_strength = 0.0
    assert torch.equal(model(image, None).image, image)


@pytest.mark.parametrize("changes", VARIANTS)
def test_a_photo_that_would_change_little_is_left_alone_as_a_whole(options, image, changes):
    model = undecided(build(options("gated", **changes), 64), image)
    whole = model(image, None)
    change = mean_change(whole.image, image)
    torch.testing.assert_close(change, (127.5 * (whole.image - image)).square().flatten(1).mean(dim=1))
    order = change.argsort()
    model.least_change = change[order[1]].item()
    made = model(image, None)
    left, kept = order[:1], order[1:]
    assert torch.equal(bits(made.image)[left], bits(image)[left]) and not made.mask[left].any()
    assert torch.equal(made.image[kept], whole.image[kept]) and torch.equal(made.mask[kept], whole.mask[kept])


def test_in_training_nothing_is_left_alone(options, image):
    """It starts as the identity, and would never learn."""
    model = build(options("gated", least_change=1e6), 64).train()
    made = model(image, None)
    assert made.mask.min() > 0 and made.image.requires_grad
    assert not model.eval()(image, None).mask.any()
