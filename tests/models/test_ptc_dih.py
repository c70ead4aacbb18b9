import torch

from nrh_dist.models import build, parameter_count
from nrh_dist.models.blocks import resize


def test_exact_parameter_counts(options):
    model = build(options("ptc_dih", width=1.0), 256)
    assert parameter_count(model) == 25_177_503
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert trainable == 8_759_876  # DIH and the detector's decoder


def test_the_sigmoid_mask_goes_into_dih(options, image):
    model = build(options("ptc_dih"), 64).eval()
    dih = build(options("dih_m"), 64).eval()
    dih.harmoniser.load_state_dict(model.harmoniser.state_dict())
    prediction = model(image, None)
    logits = model.detector(image)
    assert logits.shape == (2, 1, 56, 56)
    torch.testing.assert_close(prediction.mask, resize(1 / (1 + torch.exp(-logits)), 64))
    torch.testing.assert_close(prediction.image, dih(image, prediction.mask).image)


def test_the_images_loss_teaches_the_detectors_decoder_and_not_its_encoder(options, image):
    model = build(options("ptc_dih"), 64).train()
    model(image, None).image.square().mean().backward()
    assert model.detector.decoder.head.weight.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in model.detector.encoder.parameters())


def test_its_mask_can_be_taught(options, image):
    prediction = build(options("ptc_dih"), 64).train()(image, None)
    assert torch.equal(resize(prediction.mask_logits.sigmoid(), 64), prediction.mask)
    assert prediction.mask_logits.requires_grad
