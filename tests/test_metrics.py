import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.color import rgb2lab
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio
from torchmetrics.functional.image import peak_signal_noise_ratio as torchmetrics_psnr

from nrh_dist import metrics


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 4, 3, 20, 24), generator=generator, dtype=torch.uint8)
    return images[0], images[1]


def to_image(levels):
    """uint8 NCHW to float [-1, 1]."""
    return levels.float() / 127.5 - 1


def test_to_255_undoes_the_scaling_and_clamps_without_rounding():
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    back = metrics.to_255(to_image(levels))
    assert back.dtype == torch.float64
    torch.testing.assert_close(back, levels.double(), rtol=0, atol=2e-5)
    assert metrics.to_255(torch.tensor([-1.5, 1.5])).tolist() == [0, 255]
    assert metrics.to_255(torch.tensor([0.001], dtype=torch.float64)).item() == pytest.approx(127.6275)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float64])
def test_mse_takes_every_kind_of_float(pair, kind):
    one, other = (to_image(image).to(kind) for image in pair)
    expected = (metrics.to_255(one) - metrics.to_255(other)).square().mean(dim=(1, 2, 3))
    torch.testing.assert_close(metrics.mse(one, other), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_mse_is_the_same_by_the_way_of_a_gpu(pair, layout):
    one, other = ((1.2 * to_image(image)).contiguous(memory_format=layout) for image in pair)
    other = other.clamp(-1, 1)
    found = metrics._norm(one.clamp(-1, 1) - other) * (255 / 2) ** 2 / one[0].numel()
    torch.testing.assert_close(found, metrics.mse(one, other), rtol=1e-6, atol=0)


def test_mse_agrees_with_scikit_image(pair):
    one, other = pair
    errors = metrics.mse(to_image(one), to_image(other))
    for error, image, real in zip(errors, one, other, strict=True):
        assert error.item() == pytest.approx(mean_squared_error(image.numpy(), real.numpy()), rel=1e-6)


def test_psnr_agrees_with_scikit_image_and_torchmetrics(pair):
    one, other = pair
    values = metrics.psnr_from_mse(metrics.mse(to_image(one), to_image(other)))
    for value, image, real in zip(values, one, other, strict=True):
        assert value.item() == pytest.approx(
            peak_signal_noise_ratio(real.numpy(), image.numpy(), data_range=255), abs=1e-5
        )
        assert value.item() == pytest.approx(
            torchmetrics_psnr(image.double(), real.double(), data_range=255.0).item(), abs=1e-5
        )


def fmse(output, real, mask):
    return metrics.mean_over(metrics.squared_errors(output, real), metrics.object_region(mask))


def test_fmse_is_the_mse_of_the_objects_pixels(pair):
    one, other = pair
    mask = torch.randint(0, 256, (4, 1, 20, 24), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    mask[0, 0, 0, :2] = torch.tensor([127, 128], dtype=torch.uint8)  # the last outside and the first inside
    errors = fmse(to_image(one), to_image(other), mask.float() / 255)
    for error, image, real, level in zip(errors, one.numpy(), other.numpy(), mask.numpy(), strict=True):
        inside = np.broadcast_to(level >= 128, image.shape)
        assert error.item() == pytest.approx(mean_squared_error(image[inside], real[inside]), rel=1e-6)


def test_fmse_of_a_whole_mask_is_mse_and_of_an_empty_one_nan(pair):
    one, other = map(to_image, pair)
    whole = fmse(one, other, torch.ones(4, 1, 20, 24))
    torch.testing.assert_close(whole, metrics.mse(one, other))
    assert fmse(one, other, torch.zeros(4, 1, 20, 24)).isnan().all()


def test_identical_images_have_no_error_and_the_capped_psnr(pair):
    image = to_image(pair[0])
    assert metrics.mse(image, image).tolist() == [0] * 4
    assert metrics.psnr_from_mse(metrics.mse(image, image)).tolist() == [100.0] * 4
    assert metrics.psnr_from_mse(torch.tensor([1e-30, 65025.0])).tolist() == [100.0, 0.0]


def test_mse_is_symmetric_and_sees_only_the_clamped_output(pair):
    one, other = map(to_image, pair)
    assert torch.equal(metrics.mse(one, other), metrics.mse(other, one))
    assert torch.equal(metrics.mse(one * 3, other), metrics.mse((one * 3).clamp(-1, 1), other))


def test_an_images_values_do_not_depend_on_its_batch(pair):
    one, other = map(to_image, pair)
    mask = one[:, :1].abs()
    for number in range(4):
        row = slice(number, number + 1)
        alone = metrics.mse(one[row], other[row]), fmse(one[row], other[row], mask[row])
        together = metrics.mse(one, other)[row], fmse(one, other, mask)[row]
        torch.testing.assert_close(together, alone, rtol=1e-12, atol=0)


def test_an_empty_batch_gives_no_values():
    nothing = torch.zeros(0, 3, 8, 8)
    assert metrics.mse(nothing, nothing).shape == (0,)
    assert fmse(nothing, nothing, torch.zeros(0, 1, 8, 8)).shape == (0,)


def test_an_edge_lies_on_both_sides_of_the_objects_border():
    mask = torch.zeros(1, 1, 12, 12)
    mask[..., 3:9, 3:9] = 1
    edge = metrics.edge_region(mask, 1).view(12, 12)
    expected = torch.zeros(12, 12, dtype=torch.bool)
    expected[2:10, 2:10] = True
    expected[4:8, 4:8] = False
    assert torch.equal(edge, expected)
    assert not metrics.edge_region(torch.ones(1, 1, 8, 8), 2).any(), "the image's border is no edge"
    assert not metrics.edge_region(torch.zeros(1, 1, 8, 8), 2).any()


def test_regions_weigh_up_to_the_whole(pair):
    one, other = map(to_image, pair)
    inside = metrics.object_region(torch.rand(4, 1, 20, 24, generator=torch.Generator().manual_seed(2)))
    errors, share = metrics.squared_errors(one, other), inside.double().mean(dim=1)
    parts = metrics.mean_over(errors, inside) * share + metrics.mean_over(errors, ~inside) * (1 - share)
    torch.testing.assert_close(parts, metrics.mse(one, other), rtol=1e-6, atol=0)
    torch.testing.assert_close(errors.mean(dim=1), metrics.mse(one, other), rtol=1e-6, atol=0)
    layouts = [
        metrics.mse(one.to(memory_format=kind), other) for kind in (torch.channels_last, torch.contiguous_format)
    ]
    torch.testing.assert_close(*layouts, rtol=1e-6, atol=0)
    exact = metrics.squared_errors(one.double(), other.double()).mean(dim=1)
    torch.testing.assert_close(metrics.mse(one.double(), other.double()), exact, rtol=1e-14, atol=0)
    assert metrics.mean_over(errors, torch.zeros_like(inside)).isnan().all()


def test_correction_is_the_share_of_the_wanted_change(pair):
    composite, real = (to_image(image).double() * 0.2 for image in pair)
    region = torch.zeros(4, 480, dtype=torch.bool)
    region[:, 100:300] = True
    for made in (0.0, 0.5, 1.0, 1.7, -0.4):
        output = composite + made * (real - composite)
        output[:, :, 0] = 0.9  # outside the region, which does not count
        torch.testing.assert_close(
            metrics.correction(output, composite, real, region),
            torch.full((4,), made, dtype=torch.float64),
            rtol=1e-9,
            atol=1e-12,
        )
    assert metrics.correction(real, composite, composite, region).isnan().all()


def test_share_outside_is_of_the_squared_change():
    composite = torch.zeros(1, 3, 2, 2)
    output = composite.clone()
    output[..., 0, 0], output[..., 1, 1] = 0.1, 0.2
    region = torch.tensor([[True, True, False, False]])
    assert metrics.share_outside(output, composite, region).item() == pytest.approx(0.8)
    assert metrics.share_outside(composite, composite, region).isnan().all()


def test_chroma_drift_agrees_with_scikit_image_and_ignores_lightness(pair):
    one, other = map(to_image, pair)
    region = torch.rand(4, 480, generator=torch.Generator().manual_seed(3)) < 0.3
    found = metrics.chroma_drift(metrics.chroma(one, region), metrics.chroma(other, region))
    for number in range(4):
        lab = [rgb2lab(image[number].permute(1, 2, 0).numpy() / 255)[..., 1:].reshape(-1, 2) for image in pair]
        distance = np.linalg.norm(lab[0] - lab[1], axis=1)[region[number].numpy()].mean()
        assert found[number].item() == pytest.approx(distance, rel=1e-3)
    grey = [
        metrics.chroma(torch.full((1, 3, 2, 2), level), torch.ones(1, 4, dtype=torch.bool)) for level in (-0.5, 0.7)
    ]
    assert metrics.chroma_drift(*grey).item() < 0.02
    assert metrics.chroma_drift(*[metrics.chroma(one, region & False)] * 2).isnan().all()


def test_other_peaks_move_psnr_by_their_ratio(pair):
    error = torch.tensor([100.0])
    assert metrics.psnr_from_mse(error, 200.0).item() == pytest.approx(10 * np.log10(200**2 / 100))


def test_images_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match="same shape"):
        metrics.mse(torch.zeros(1, 3, 8, 8), torch.zeros(3, 8, 8))


@pytest.mark.parametrize(("number", "identity"), [(1, 2664.7), (2, 683.0), (3, 488.7)])
def test_identity_error_of_real_triplets(number, identity):
    if "NRH_TEST_DATA" not in os.environ:
        pytest.skip("NRH_TEST_DATA is not set")
    folder = Path(os.environ["NRH_TEST_DATA"]) / "triplets"

    def read(kind):
        return torch.from_numpy(np.array(Image.open(folder / f"{number}-{kind}.png").convert("RGB"))).permute(2, 0, 1)[
            None
        ]

    assert metrics.mse(to_image(read("composite")), to_image(read("real"))).item() == pytest.approx(identity, abs=0.05)
