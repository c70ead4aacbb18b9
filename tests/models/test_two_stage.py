import torch

from nrh_dist.models import build, parameter_count
from nrh_dist.models.blocks import resize


def test_exact_parameter_count_and_nothing_trainable(options):
    model = build(options("two_stage", width=1.0), 256)
    assert parameter_count(model) == 16_908_830 + 8_268_803
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_mask_is_the_larger_of_the_two_shift_probabilities(options, image):
    model = build(options("two_stage"), 64)
    torch.nn.init.normal_(model.detector.decoder.head.weight, std=20)
    model.double()
    image = image.double()
    negative, positive, none = torch.exp(model.detector(image)).unbind(dim=1)
    total = negative + positive + none
    predicted = model(image, None).mask
    torch.testing.assert_close(predicted, resize(torch.maximum(negative / total, positive / total)[:, None], 64))
    assert predicted.shape == (2, 1, 64, 64)
    assert len(predicted.unique()) > 100  # not thresholded


def test_it_never_looks_at_the_given_mask(options, image):
    model = build(options("two_stage"), 64)
    blind = model(image, None)
    for given in (torch.ones(2, 1, 64, 64), torch.full((2, 1, 64, 64), torch.nan)):
        prediction = model(image, given)
        assert torch.equal(prediction.image, blind.image)
        assert torch.equal(prediction.mask, blind.mask)


def test_with_the_true_mask_it_is_its_harmoniser_alone(options, image, mask):
    model = build(options("two_stage"), 64)
    dih = build(options("dih_m"), 64).eval()
    dih.harmoniser.load_state_dict(model.harmoniser.state_dict())
    prediction = model.with_true_mask(image, mask)
    assert torch.equal(prediction.image, dih(image, mask).image)
    assert prediction.mask is None
    assert not torch.equal(prediction.image, model(image, mask).image)


def test_the_predicted_mask_goes_into_a_mask_trained_dih(options, image):
    model = build(options("two_stage"), 64)
    dih = build(options("dih_m"), 64).eval()
    dih.harmoniser.load_state_dict(model.harmoniser.state_dict())
    prediction = model(image, None)
    torch.testing.assert_close(prediction.image, dih(image, prediction.mask).image)


def test_it_stays_in_eval_mode_and_builds_no_graph(options, image):
    model = build(options("two_stage"), 64).train()
    assert not any(module.training for module in model.modules())
    assert not model(image, None).image.requires_grad
