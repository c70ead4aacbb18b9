from itertools import product

import numpy as np
import pytest
import torch
from packs import write_small_pack
from torch import nn

from nrh_dist import config, metrics
from nrh_dist.data.feed import gather
from nrh_dist.engine.assemble import new_model
from nrh_dist.engine.scan import scan

THRESHOLDS, STRENGTHS = (0.0, 0.5, 0.9), (0.0, 0.3, 1.0)
LEAST_CHANGES = (0.0, 1.0, 30.0, 300.0)


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return write_small_pack(tmp_path_factory.mktemp("pack"))


@pytest.mark.parametrize("words", [[], ["model.correction=pixels"], ["model.fusion_width=8"]])
@torch.no_grad()
def test_each_place_is_what_a_model_with_these_values_gives(pack, words):
    one = config.load(None, ["preset=tiny", "model.width=0.1", "model.name=gated", *words])
    model = new_model(one, lambda _: None).eval()
    nn.init.normal_(model.detector.decoder.head.weight, std=3)
    nn.init.normal_(model.harmoniser.head.weight, std=0.3)
    rows = pack.rows("train")
    model.least_change = 5.0  # as it was calibrated before
    found = scan(model, pack, rows, THRESHOLDS, STRENGTHS, torch.device("cpu"))
    assert (model.gate_threshold, model.correction_strength, model.least_change) == (0.0, 1.0, 5.0)
    batch = gather(pack, rows, "cpu")
    np.testing.assert_allclose(found.identity_mse, metrics.mse(batch.composite, batch.real).numpy())
    np.testing.assert_allclose(found.mse[:, 0], np.broadcast_to(found.identity_mse, found.mse[:, 0].shape), rtol=1e-6)
    left_alone = 0
    for place, number, least in product(range(3), range(3), LEAST_CHANGES):
        threshold, strength = THRESHOLDS[place], STRENGTHS[number]
        model.gate_threshold, model.correction_strength, model.least_change = threshold, strength, least
        made = model(batch.composite)
        mse, changed = found.leaving_alone(place, number, least)
        np.testing.assert_allclose(mse, metrics.mse(made.image, batch.real).numpy(), rtol=1e-3)
        assert changed.tolist() == (made.mask > 0).flatten(1).any(dim=1).tolist()
        if least == 0:
            np.testing.assert_allclose(found.mse[place, number], mse)
        left_alone += int((found.opened[place] & ~changed).sum())
    assert left_alone > 0
    assert (found.mse[0, 2] != found.identity_mse).any()
    assert found.opened[0].sum() >= found.opened[2].sum()
