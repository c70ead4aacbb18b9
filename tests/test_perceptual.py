import pytest
import torch
import torchvision

from nrh_dist.errors import UserError
from nrh_dist.perceptual import BACKBONE_FILE, Perceptual, missing, weights_path


@pytest.fixture
def torch_home(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture(scope="module")
def random_backbone():
    torch.manual_seed(0)
    return Perceptual(pretrained=False)


@pytest.fixture
def images():
    torch.manual_seed(1)
    return torch.rand(2, 2, 3, 64, 64) * 2 - 1


def test_distance_is_exactly_that_of_the_package(random_backbone, images):
    output, real = images
    assert torch.equal(random_backbone.distance(output, real), random_backbone.lpips(output, real).detach().flatten())


def test_features_of_the_real_images_can_be_shared(random_backbone, images):
    output, real = images
    features = random_backbone.features(real)
    for candidate in (output, output.flip(-1)):
        assert torch.equal(random_backbone.distance_to(candidate, features), random_backbone.distance(candidate, real))


def test_laws(random_backbone, images):
    output, real = images
    assert random_backbone.distance(real, real).tolist() == [0, 0]
    assert (random_backbone.distance(output, real) > 0).all()
    torch.testing.assert_close(random_backbone.distance(output, real), random_backbone.distance(real, output))
    alone = random_backbone.distance(output[1:], real[1:])
    torch.testing.assert_close(random_backbone.distance(output, real)[1:], alone)
    clamped = random_backbone.distance((output * 2).clamp(-1, 1), real)
    assert torch.equal(random_backbone.distance(output * 2, real), clamped)
    assert random_backbone.distance(output[:0], real[:0]).shape == (0,)


def test_nothing_in_it_learns(random_backbone, images):
    output = images[0].requires_grad_()
    assert not any(parameter.requires_grad for parameter in random_backbone.parameters())
    assert not random_backbone.distance(output, images[1]).requires_grad


def test_the_backbone_is_loaded_from_torchvisions_file(torch_home, images):
    assert weights_path() == torch_home / BACKBONE_FILE
    alexnet = torchvision.models.alexnet(weights=None).eval()
    torch.save(alexnet.state_dict(), weights_path())
    assert missing() is None
    perceptual = Perceptual()
    x = perceptual.lpips.scaling_layer(images[0])
    with torch.no_grad():
        activations = []
        for layer in alexnet.features[:12]:
            x = layer(x)
            if isinstance(layer, torch.nn.ReLU):
                activations.append(x.clone())
        for own, expected in zip(
            perceptual.lpips.net(perceptual.lpips.scaling_layer(images[0])), activations, strict=True
        ):
            assert torch.equal(own, expected)


def test_the_heads_are_those_of_the_package(random_backbone):
    torch.manual_seed(5)
    again = Perceptual(pretrained=False)
    for head, other in zip(random_backbone.lpips.lins, again.lpips.lins, strict=True):
        assert torch.equal(head.model[1].weight, other.model[1].weight)
        assert (head.model[1].weight >= 0).all()


def test_a_missing_file_is_said_in_one_line_and_never_downloaded(torch_home):
    reason = missing()
    assert str(torch_home / BACKBONE_FILE) in reason
    assert "\n" not in reason
    with pytest.raises(UserError, match="AlexNet"):
        Perceptual()
    assert list(torch_home.iterdir()) == []


def test_a_damaged_or_foreign_file_is_refused(torch_home):
    weights_path().write_bytes(b"not weights")
    with pytest.raises(UserError, match="cannot be read as weights"):
        Perceptual()
    torch.save({"features.0.weight": torch.zeros(64, 3, 11, 11)}, weights_path())
    with pytest.raises(UserError, match=r"slice1\.0\.bias is missing"):
        Perceptual()


def test_construction_prints_nothing(capfd):
    Perceptual(pretrained=False)
    assert capfd.readouterr() == ("", "")
