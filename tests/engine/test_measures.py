import numpy as np
import pytest
import torch

from nrh_dist import metrics
from nrh_dist.data.feed import Batch
from nrh_dist.engine.measures import NAMES, PEAKS, PROTOCOL, Measures, names
from nrh_dist.models import Prediction
from nrh_dist.perceptual import Perceptual

SIZE = 64


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    real = torch.rand(3, 3, SIZE, SIZE, generator=generator) * 1.6 - 0.8
    mask = torch.zeros(3, 1, SIZE, SIZE)
    mask[0, :, 10:30, 10:40], mask[1, :, 5:60, 20:50] = 1, 1  # the third one is empty
    return Batch(np.arange(3), real * (1 - 0.3 * mask), real, mask)


def measured(batch, prediction, perceptual=None, peaks=False):
    values = Measures(batch, perceptual, peaks).of(prediction)
    return dict(zip(names(peaks), values.T, strict=True))


def test_every_measure_is_explained_and_in_its_column(batch):
    output = (batch.composite + batch.real) / 2
    found = measured(batch, Prediction(output, batch.mask * 0.75, None))
    assert tuple(found) == NAMES and set(NAMES) | set(PEAKS) == set(PROTOCOL)
    assert torch.equal(found["mse"], metrics.mse(output, batch.real))
    assert torch.equal(found["identity_mse"], metrics.mse(batch.composite, batch.real))
    assert torch.equal(found["mse_change"], metrics.mse(output, batch.composite))
    errors, inside = metrics.squared_errors(output, batch.real), metrics.object_region(batch.mask)
    assert torch.equal(found["fmse"][:2], metrics.mean_over(errors, inside)[:2])
    torch.testing.assert_close(found["correction"][:2], torch.full((2,), 0.5, dtype=torch.float64), rtol=1e-6, atol=0)
    assert found["mse_outside"].abs().max() < 1e-9 and found["change_outside"][:2].abs().max() < 1e-9
    assert found["detected"][:2].tolist() == [0.75] * 2 and found["detected_outside"][:2].tolist() == [0, 0]


def test_what_does_not_exist_is_nan(batch):
    found = measured(batch, Prediction(batch.composite, None, None))
    assert {name: column.isnan().tolist() for name, column in found.items() if column.isnan().any()} == {
        "lpips": [True] * 3,
        "fmse": [False, False, True],
        "mse_edge": [False, False, True],
        "chroma_drift": [False, False, True],
        "correction": [False, False, True],
        "change_outside": [True] * 3,
        "detected": [True] * 3,
        "detected_outside": [True] * 3,
    }
    assert found["correction"][:2].tolist() == [0, 0]


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_an_output_that_is_not_finite_spoils_its_own_image_only(batch, value):
    output = batch.composite * 0.99
    output[1, 0, 3, 3] = value
    perceptual = Perceptual(pretrained=False)
    found = measured(batch, Prediction(output, batch.mask, None), perceptual, peaks=True)
    whole = measured(batch, Prediction(batch.composite * 0.99, batch.mask, None), perceptual, peaks=True)
    of_others = {"identity_mse", "identity_psnr", "detected", "detected_outside"}
    for name in names(peaks=True):
        others = [0, 2]
        torch.testing.assert_close(found[name][others], whole[name][others], rtol=1e-6, atol=0, equal_nan=True)
        assert found[name][1].isnan() == (name not in of_others), name
    assert torch.equal(found["identity_mse"], metrics.mse(batch.composite, batch.real))


def test_lpips_is_that_of_the_package(batch):
    perceptual = Perceptual(pretrained=False)
    found = measured(batch, Prediction(batch.composite * 1.4, None, None), perceptual)
    expected = perceptual.distance((batch.composite * 1.4), batch.real)
    torch.testing.assert_close(found["lpips"], expected.double(), rtol=1e-6, atol=0)


def test_the_conventions_of_others_are_scikit_image_with_their_peaks(batch):
    from skimage.metrics import peak_signal_noise_ratio

    output = batch.composite * 1.1
    found = measured(batch, Prediction(output, None, None), peaks=True)
    for number in range(3):
        out, real = metrics.to_255(output)[number].numpy(), metrics.to_255(batch.real)[number].numpy()
        ranged = peak_signal_noise_ratio(real, out, data_range=out.max() - out.min())
        assert found["psnr_range"][number].item() == pytest.approx(ranged, abs=1e-4)
        assert found["psnr_target_max"][number].item() == pytest.approx(
            peak_signal_noise_ratio(real, out, data_range=real.max()), abs=1e-4
        )
