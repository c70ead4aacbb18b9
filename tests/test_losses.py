import pytest
import torch
import torch.nn.functional as F

from nrh_dist import losses


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def images():
    return torch.randn(3, 3, 3, 8, 8, dtype=torch.float64).unbind()


def test_mse_is_torchs_per_image_and_does_not_clamp(images):
    output, real, _ = images
    for value, one, other in zip(losses.mse(output, real), output, real, strict=True):
        torch.testing.assert_close(value, F.mse_loss(one, other))
    assert losses.mse(torch.full((1, 3, 2, 2), 3.0), torch.ones(1, 3, 2, 2)).item() == 4


def test_object_mse_divides_by_the_objects_share_with_a_floor(images):
    output, real, _ = images
    mask = torch.zeros(3, 1, 8, 8, dtype=torch.float64)
    mask[0, 0, :4] = 0.5  # a soft mask: a quarter
    mask[1, 0, 0, 0] = 0.064  # 0.1 % of the image
    plain, weighted = losses.mse(output, real), losses.object_mse(output, real, mask)
    torch.testing.assert_close(weighted, plain * torch.tensor([4, 100, 1], dtype=torch.float64))


def test_harm_is_what_was_made_worse(images):
    output, composite, real = images
    expected = [
        max(0, F.mse_loss(o, r).item() - F.mse_loss(c, r).item())
        for o, c, r in zip(output, composite, real, strict=True)
    ]
    assert losses.harm(output, composite, real).tolist() == pytest.approx(expected)
    assert losses.harm(real, composite, real).tolist() == [0, 0, 0]
    assert (losses.harm(composite + 5, composite, composite) > 24).all()
    assert losses.harm(composite, composite, real).tolist() == [0, 0, 0]


def test_gate_is_cross_entropy_plus_dice():
    logits, mask = torch.randn(2, 1, 6, 6).double(), torch.rand(2, 1, 6, 6).double()
    for value, z, m in zip(losses.gate(logits, mask), logits, mask, strict=True):
        p = 1 / (1 + torch.exp(-z))
        cross_entropy = -(m * p.log() + (1 - m) * (1 - p).log()).mean()
        dice = 1 - (2 * (p * m).sum() + 1) / (p.sum() + m.sum() + 1)
        torch.testing.assert_close(value, cross_entropy + dice)


def test_gate_vanishes_for_the_right_answer_also_for_an_empty_mask():
    mask = torch.zeros(2, 1, 8, 8)
    mask[1, :, 2:5, 2:5] = 1
    assert (losses.gate((mask * 2 - 1) * 50, mask) < 1e-6).all()
    assert (losses.gate((1 - mask * 2) * 50, mask) > 50).all()


def test_gate_brings_the_mask_to_the_size_of_the_logits():
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 32:] = 1
    logits = torch.full((1, 1, 56, 56), -30.0)
    logits[..., 28:] = 30
    assert losses.gate(logits, mask).item() < 0.6
    assert losses.gate(logits.flip(-1), mask).item() > 25


def test_gate_teaches_a_shut_gate():
    logits = torch.full((1, 1, 8, 8), -20.0, requires_grad=True)
    losses.gate(logits, torch.ones(1, 1, 8, 8)).sum().backward()
    assert (logits.grad < -0.01).all()


def test_focal_formula_and_its_limit():
    logits, target = torch.randn(2, 3, 5, 5).double(), torch.randint(3, (2, 5, 5))
    p = logits.softmax(dim=1).gather(1, target[:, None])[:, 0]
    torch.testing.assert_close(losses.focal(logits, target), (-0.25 * (1 - p) ** 4 * p.log()).mean(dim=(1, 2)))
    plain = losses.focal(logits, target, alpha=1.0, gamma=0.0)
    for value, z, t in zip(plain, logits, target, strict=True):
        torch.testing.assert_close(value, F.cross_entropy(z[None], t[None]))


def test_objects_get_their_share_of_the_focal_loss():
    inside = torch.zeros(3, 8, 8, dtype=torch.bool)
    inside[0, :2, :3] = inside[2] = True  # the second has no object, the third nothing else
    weight = losses.object_weight(inside, 0.4)
    torch.testing.assert_close(weight.mean(dim=(1, 2)), torch.ones(3))
    assert weight[0][inside[0]].sum().item() / 64 == pytest.approx(0.4)
    assert (weight[1:] == 1).all()
    logits, target = torch.randn(3, 3, 8, 8), torch.randint(3, (3, 8, 8))
    torch.testing.assert_close(losses.focal(logits, target, torch.ones(3, 8, 8)), losses.focal(logits, target))
    within = losses.focal(logits[:1, :, :2, :3], target[:1, :2, :3])
    whole = losses.focal(logits[:1], target[:1])
    outside = (64 * whole - 6 * within) / 58
    torch.testing.assert_close(losses.focal(logits, target, weight)[:1], 0.4 * within + 0.6 * outside)


def test_focal_has_a_finite_gradient_where_it_is_certain():
    logits = torch.tensor([100.0, 0, 0]).view(1, 3, 1, 1).requires_grad_()
    losses.focal(logits, torch.zeros(1, 1, 1, dtype=torch.long)).sum().backward()
    assert torch.isfinite(logits.grad).all()


def test_an_empty_batch_gives_no_values_and_a_gradient():
    image = torch.zeros(0, 3, 64, 64, requires_grad=True)
    mask, logits = torch.zeros(0, 1, 64, 64), torch.zeros(0, 1, 56, 56, requires_grad=True)
    classes = torch.zeros(0, 3, 56, 56, requires_grad=True)
    values = [
        losses.mse(image, image),
        losses.object_mse(image, image, mask),
        losses.harm(image, image, image),
        losses.gate(logits, mask),
        losses.focal(classes, torch.zeros(0, 56, 56, dtype=torch.long)),
    ]
    assert [value.shape for value in values] == [(0,)] * 5
    sum(value.sum() for value in values).backward()
