import pytest
import torch
from torch import nn

from nrh_dist.errors import UserError
from nrh_dist.models import build
from nrh_dist.models.ptc import Equivariance
from nrh_dist.models.weights import load_detector, load_harmoniser, load_part, load_vgg16


def same(module, other):
    return all(
        torch.equal(one, two)
        for one, two in zip(module.state_dict().values(), other.state_dict().values(), strict=True)
    )


def test_load_part_copies_everything():
    module, other = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
    nn.init.normal_(other.weight)
    load_part(module, other.state_dict(), "norm")
    assert same(module, other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("1.bias"), r"^my file: 1.bias is missing; "),
        (lambda state: state.update({"2.weight": torch.zeros(1)}), r"^my file: 2.weight is unexpected; "),
        (lambda state: state.update({"0.weight": torch.zeros(2, 3)}), r"0.weight is \(2, 3\) and must be \(2, 2\)"),
    ],
)
def test_load_part_names_the_first_key_that_does_not_fit_and_changes_nothing(change, message):
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    before = {key: value.clone() for key, value in module.state_dict().items()}
    state = {key: value + 1 for key, value in before.items()}
    change(state)
    with pytest.raises(UserError, match=message) as caught:
        load_part(module, state, "my file")
    assert "\n" not in str(caught.value)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


def test_a_model_with_a_new_head_takes_encoder_and_decoder_body(options):
    ptc = build(options("ptc"), 64)
    for name in ("ptc_dih", "gated"):
        model = build(options(name), 64)
        head = model.detector.decoder.head.weight.clone()
        load_detector(model, ptc.state_dict())
        assert same(model.detector.encoder, ptc.encoder)
        assert same(model.detector.decoder.body, ptc.decoder.body)
        assert torch.equal(model.detector.decoder.head.weight, head)


def test_two_stage_and_ptc_take_the_head_too(options):
    ptc = build(options("ptc"), 64)
    two_stage, second = build(options("two_stage"), 64), build(options("ptc"), 64)
    load_detector(two_stage, ptc.state_dict())
    load_detector(second, ptc.state_dict())
    assert same(two_stage.detector, ptc)
    assert same(second, ptc)


def test_ptc_att_dih_takes_the_encoder_alone(options):
    ptc, model = build(options("ptc"), 64), build(options("ptc_att_dih"), 64)
    load_detector(model, ptc.state_dict())
    assert same(model.detector.encoder, ptc.encoder)


def test_threshold_training_starts_from_the_equivariance_model(options):
    settings = options("ptc", freeze="none")
    first = Equivariance(build(settings, 64), settings)
    second = build(options("ptc"), 64)
    load_detector(second, first.state_dict())
    assert same(second, first.detector)


def test_frozen_parts_stay_frozen_after_loading(options):
    model = build(options("ptc_dih"), 64)
    load_detector(model, build(options("ptc"), 64).state_dict())
    assert not any(parameter.requires_grad for parameter in model.detector.encoder.parameters())


@pytest.mark.parametrize("source", ["dih_m", "dih_nm"])
def test_weights_without_a_detector_are_refused(options, source):
    state = build(options(source), 64).state_dict()
    with pytest.raises(UserError, match=r"detector weights: encoder\.vgg.0.weight is missing"):
        load_detector(build(options("ptc_dih"), 64), state)


def test_a_detector_of_another_width_is_refused(options):
    state = build(options("ptc", width=0.5), 64).state_dict()
    with pytest.raises(UserError, match=r"detector weights: encoder.vgg.0.weight is \(32, 3, 3, 3\)"):
        load_detector(build(options("gated"), 64), state)


@pytest.mark.parametrize("name", ["dih_m", "two_stage", "ptc_dih"])
def test_models_with_a_mask_take_a_mask_trained_dih(options, name):
    dih, model = build(options("dih_m"), 64), build(options(name), 64)
    load_harmoniser(model, dih.state_dict())
    assert same(model.harmoniser, dih.harmoniser)


@pytest.mark.parametrize("correction", ["affine", "pixels"])
def test_gated_takes_what_fits_and_still_starts_as_the_identity(options, image, correction):
    dih, model = build(options("dih_m"), 64), build(options("gated", correction=correction), 64)
    load_harmoniser(model, dih.state_dict())
    assert same(model.harmoniser.encoder, dih.harmoniser.encoder)
    assert same(model.harmoniser.bottleneck, dih.harmoniser.bottleneck)
    for own, other in zip(model.harmoniser.decoder, dih.harmoniser.decoder, strict=False):
        assert same(own, other)
    assert torch.equal(model.eval()(image, None).image, image)


@pytest.mark.parametrize(
    ("name", "changes", "source", "message"),
    [
        ("ptc_dih", {}, "dih_nm", "encoder.0.0.weight is"),
        ("ptc_att_dih", {}, "dih_m", "bottleneck.fc1.weight is missing"),
        ("gated", {"fusion_width": 16}, "dih_m", "bottleneck.fc1.weight is missing"),
        ("ptc_dih", {}, "ptc", "encoder.0.0.weight is missing"),
        ("ptc", {}, "dih_m", "this model has no harmoniser"),
    ],
)
def test_a_harmoniser_that_does_not_fit_is_refused(options, name, changes, source, message):
    state = build(options(source), 64).state_dict()
    with pytest.raises(UserError, match=f"harmoniser weights: .*{message}"):
        load_harmoniser(build(options(name, **changes), 64), state)


def test_vgg16_is_refused_at_another_width(options):
    wide = build(options("ptc", width=0.5), 64).encoder.vgg.state_dict()
    state = {f"features.{key}": value for key, value in wide.items()}
    with pytest.raises(UserError, match=r"VGG16 weights: 0\.weight is"):
        load_vgg16(build(options("ptc"), 64).encoder, state)
