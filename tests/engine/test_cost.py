from dataclasses import asdict

import pytest
import torch
from torch import nn

from nrh_dist import config, models
from nrh_dist.engine import cost
from nrh_dist.models import MODELS


def load(name, *words):
    stage = ["stage=thresholds"] if name == "ptc" else []
    return config.load(None, [f"model.name={name}", *stage, *words])


@pytest.mark.parametrize(
    ("layer", "operations"),
    [
        (nn.Conv2d(3, 8, 4, stride=2, padding=1), 2 * 8 * 8 * (8 * 3 * 4 * 4)),  # at each of 8x8 output pixels
        (nn.ConvTranspose2d(3, 8, 4, stride=2, padding=1), 2 * 16 * 16 * (3 * 8 * 4 * 4)),  # of 16x16 input pixels
        (nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 5)), 2 * 5 * 3 * 16 * 16),
        (nn.BatchNorm2d(3), 0),
    ],
)
def test_one_layer_by_hand(monkeypatch, layer, operations):
    monkeypatch.setattr(cost, "output", lambda network, image, _: network(image))
    assert cost.flop(layer.to("meta"), 16) == operations


def dih_by_hand(channels_in):
    """Operations of DIH at 256 px and width 1: 4x4 convolutions, mirrored but for the outermost; bottleneck 512."""
    channels, sides = [64, 64, 128, 128, 256, 256], [128, 64, 32, 16, 8, 4]
    inner = sum(
        side**2 * before * after for side, before, after in zip(sides[1:], channels, channels[1:], strict=False)
    )
    outer = 128**2 * 64 * (channels_in + 3)  # the first convolution, and the last transposed one to 3 channels
    bottleneck = 2 * 256 * 512  # from 4x4 to 1x1 and back
    return 2 * 4 * 4 * (2 * inner + outer + bottleneck)


@pytest.mark.parametrize(("name", "channels_in", "parameters"), [("dih_m", 4, 8_268_803), ("dih_nm", 3, 8_267_779)])
def test_dih_by_hand(name, channels_in, parameters):
    assert cost.costs(load(name)) == {"cost/parameters": parameters, "cost/gflop": dih_by_hand(channels_in) / 1e9}


def test_what_the_detector_costs():
    assert cost.costs(load("ptc"))["cost/parameters"] == pytest.approx(16.9e6, rel=0.005)
    ptc, dih, both = (cost.costs(load(name))["cost/gflop"] for name in ("ptc", "dih_m", "two_stage"))
    assert both == pytest.approx(ptc + dih, rel=1e-12)


def test_wider_fusion_costs_more():
    narrow, wide = (cost.costs(load("ptc_att_dih", f"model.fusion_width={width}")) for width in (128, 256))
    values = 28 * 28 * 15 + 4 * 4 * 256  # of detector and harmoniser
    linear = (256 - 128) * values + 256**2 - 128**2  # fc1, fc2 and fc3
    transposed = (256 - 128) * 4 * 4 * 256  # the decoder's first convolution, whose input is 1x1
    assert wide["cost/parameters"] - narrow["cost/parameters"] == linear + 3 * (256 - 128) + transposed
    assert (wide["cost/gflop"] - narrow["cost/gflop"]) * 1e9 == pytest.approx(2 * (linear + transposed), rel=1e-9)


@pytest.mark.parametrize("name", MODELS)
def test_nothing_is_read_or_drawn_and_a_real_model_has_as_many(monkeypatch, name):
    def read(*_, **__):
        raise AssertionError("a file was read")

    monkeypatch.setattr(torch, "load", read)
    monkeypatch.setattr("safetensors.torch.load_file", read)
    words = ["model.detector_weights=none", "model.vgg_weights=none"] if name not in ("dih_m", "dih_nm") else []
    one = load(name, "preset=tiny", *words)
    state = torch.get_rng_state()
    found = cost.costs(one)
    assert torch.equal(torch.get_rng_state(), state)
    assert found["cost/parameters"] == models.parameter_count(models.build(asdict(one.model), one.data.size))
    assert cost.costs(load(name, "preset=tiny", "data.size=128", *words))["cost/gflop"] > 3 * found["cost/gflop"] > 0


def test_latency_is_a_positive_median():
    one = load("dih_nm", "preset=tiny")
    assert 0 < cost.latency_ms(asdict(one.model), one.data.size, torch.device("cpu")) < 10_000
