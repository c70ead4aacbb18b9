"""The scan of a detector: thresholds of known curves, and an oracle whose every number can be computed by hand."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from nrh_dist.data.layouts import Source, index
from nrh_dist.data.pack import write_pack
from nrh_dist.engine import detection
from nrh_dist.engine.detection import OFFSETS, ZERO, Curves, DetectorScorer, predicted_threshold
from nrh_dist.engine.score import Entry

GREY = 119  # L = 50.0
SIDE = 64


class Oracle(nn.Module):
    """Sees that a pixel's grey is not GREY, with logits that cross 0.5 at +-``LIMIT`` stops; at 7/8 of the size."""

    LIMIT = 0.31
    HEIGHTS = 56

    def forward(self, image):
        grey = nn.functional.interpolate(image.mean(dim=1, keepdim=True), size=self.HEIGHTS, mode="area")
        light = torch.where(grey > -2, ((grey + 1) / 2 * 255), grey)
        stops = torch.log2(lightness(light).clamp(min=1e-3) / lightness(torch.tensor(float(GREY))))
        none = torch.zeros_like(stops)
        return torch.cat([200 * (-stops - self.LIMIT), 200 * (stops - self.LIMIT), none], dim=1)


def lightness(level):
    """L of CIE Lab of a grey of 0..255."""
    c = level / 255
    y = torch.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    return torch.where(y > (6 / 29) ** 3, 116 * y.clamp(min=0) ** (1 / 3) - 16, 903.3 * y)


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    """Ten grey photos, each with a square object of 32 x 32 px."""
    root = tmp_path_factory.mktemp("grey") / "data"
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[16:48, 8:40] = 255
    for name in "abcdefghij":
        for kind, pixels in (("images", np.full((SIDE, SIDE, 3), GREY, np.uint8)), ("masks", mask)):
            (root / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(root / kind / f"{name}.png")
    return write_pack(index(Source(root)), root.parent / "pack", SIDE, 1, lambda _: None)


@pytest.fixture
def scorer(pack, monkeypatch, tmp_path):
    monkeypatch.setattr(detection, "trained_model", lambda path: (Oracle(), {}))
    monkeypatch.setattr(detection, "transforms_of", lambda entry: ["exposure", "white_balance"])
    return DetectorScorer(pack.root, [Entry("oracle", "ptc", tmp_path, SIDE)], torch.device("cpu"))


@pytest.mark.parametrize(
    ("curve", "threshold", "never"),
    [
        (np.linspace(0, 1, 51), 0.5, False),
        (np.linspace(0.6, 1, 51), 0.0, False),
        (np.linspace(0, 0.49, 51), 1.0, True),
        (np.where(np.arange(51) >= 50, 0.5, 0.0), 1.0, False),
        (np.where(np.arange(51) >= 11, 0.8, 0.2), 0.21, False),
        (np.where((np.arange(51) >= 11) & (np.arange(51) < 13), 0.8, 0.2), 0.21, False),  # the first crossing counts
    ],
)
def test_the_threshold_is_the_first_crossing(curve, threshold, never):
    found, never_crossed = predicted_threshold(curve)
    assert found == pytest.approx(threshold, abs=1e-9)
    assert never_crossed == never


def curves_of(scorer, *rows):
    """For each row, the curves of each detector."""
    transforms = [len(names) for _, _, names in scorer.detectors]
    return [detection.curves_in(row, transforms) for row in scorer.score(np.array(rows))]


def test_an_oracle_is_measured_as_it_is(scorer, pack):
    for (curves,) in curves_of(scorer, 3, 7):
        (negative, never_negative), (positive, never_positive) = detection.predicted_thresholds(curves)
        # The mean over the mask includes its resized edge, where a shift is half as large.
        assert negative == pytest.approx(Oracle.LIMIT, abs=0.025) and positive == pytest.approx(Oracle.LIMIT, abs=0.025)
        assert not never_negative and not never_positive
        assert np.isnan(curves.iou[:, ZERO]).all() and np.isnan(curves.soft_f1[:, ZERO]).all()
        exposure = curves.iou[0]
        assert exposure[0] > 0.85 and exposure[-1] > 0.85
        assert exposure[ZERO - 10] == exposure[ZERO + 10] == 0
        assert curves.soft_f1[0][-1] > 0.85 > 0.2 > curves.soft_f1[0][ZERO + 10]
        rates = detection.detected(curves)[0]
        assert rates[OFFSETS <= -0.36].all() and rates[OFFSETS >= 0.36].all()
        assert not rates[np.abs(OFFSETS) <= 0.28].any()
        balance = detection.detected(curves)[1]
        assert not balance[np.abs(OFFSETS) < 0.5].any(), "white balance hardly moves a grey's lightness"


def test_the_probability_is_that_of_the_shifts_sign(scorer):
    ((curves,),) = curves_of(scorer, 0)
    means = detection.mean_probability(curves)[0]
    np.testing.assert_array_equal(means[:ZERO], curves.probability[0, :ZERO, detection.NEGATIVE])
    np.testing.assert_array_equal(means[ZERO + 1 :], curves.probability[0, ZERO + 1 :, detection.POSITIVE])
    assert means[ZERO] == curves.probability[0, ZERO].max()
    assert means[0] > 0.9 and means[-1] > 0.9 and means[ZERO] < 0.1


def test_separation_is_the_area_under_the_roc_curve():
    """Against counting pairs, with ties; an image more shifted than all unchanged ones gives 1."""
    random = np.random.default_rng(0)
    images = [
        Curves(random.integers(0, 6, (2, len(OFFSETS), 2)) / 5, np.zeros((2, 101)), np.zeros((2, 101)))
        for _ in range(9)
    ]
    areas = detection.separation(images)
    for t, k, sign in ((0, 3, detection.NEGATIVE), (1, 90, detection.POSITIVE)):
        shifted = [one.probability[t, k, sign] for one in images]
        unchanged = [one.probability[t, ZERO, sign] for one in images]
        pairs = [(a > b) + 0.5 * (a == b) for a in shifted for b in unchanged]
        assert areas[t, k] == pytest.approx(np.mean(pairs))
    assert np.isnan(areas[:, ZERO]).all()
    for number, one in enumerate(images):
        one.probability[0, :, detection.POSITIVE] = 0.01 * number + np.linspace(0, 50, 101)
    assert detection.separation(images)[0, -1] == 1


class BlindToContrast(nn.Module):
    """Sees colour alone: saturation and white balance, never exposure or contrast of a grey object."""

    def forward(self, image):
        spread = nn.functional.interpolate(image, size=56, mode="area")
        seen = 1000 * (spread.amax(dim=1, keepdim=True) - spread.amin(dim=1, keepdim=True)) - 5
        return torch.cat([seen, seen, torch.zeros_like(seen)], dim=1)


def test_curves_have_the_names_of_their_transforms(pack, monkeypatch, tmp_path):
    """In whatever order they were configured."""
    config = {"config": {"data.transforms": ["contrast", "white_balance"]}}
    monkeypatch.setattr(detection.checkpoint, "read_meta", lambda path: config)
    monkeypatch.setattr(detection, "trained_model", lambda path: (BlindToContrast(), {}))
    entry = Entry("blind", "ptc", tmp_path, SIDE)
    assert detection.transforms_of(entry) == ["exposure", "white_balance", "contrast"]
    ((curves,),) = curves_of(DetectorScorer(pack.root, [entry], torch.device("cpu")), 0)
    means = dict(zip(detection.transforms_of(entry), detection.mean_probability(curves)[:, -1], strict=True))
    assert means["white_balance"] > 0.45 and max(means["exposure"], means["contrast"]) < 0.05


def test_rows_do_not_depend_on_their_company(scorer):
    np.testing.assert_array_equal(scorer.score(np.array([2, 5]))[1], scorer.score(np.array([5]))[0])


def test_pictures_show_negative_in_red_and_positive_in_green(scorer, pack):
    pictures = scorer.render(1)
    assert [image.shape for image in pictures["shifted"]] == [(SIDE, SIDE, 3)] * 5
    darker, slightly, same, _, brighter = pictures["detected"]["oracle"]
    assert darker[32, 24].tolist() == [255, 0, 0] and brighter[32, 24].tolist() == [0, 255, 0]
    assert same.max() == slightly.max() == 0
    assert darker[32, 55].tolist() == [0, 0, 0], "outside the object"
    np.testing.assert_array_equal(pictures["shifted"][2], pack.reals[1])
