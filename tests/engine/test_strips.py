import numpy as np
import pytest
import torch
from packs import write_small_pack
from PIL import Image

from nrh_dist import config
from nrh_dist.data.feed import Feed
from nrh_dist.engine import strips
from nrh_dist.engine.assemble import new_model


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return write_small_pack(tmp_path_factory.mktemp("strips"), train=8, test=2)


@pytest.mark.parametrize(
    ("words", "panels"),
    [
        (["model.name=ptc_att_dih"], ["composite", "output", "real", "mask"]),
        (
            ["model.name=ptc", "stage=thresholds"],
            ["darkened", "detected in darkened", "brightened", "detected in brightened", "mask"],
        ),
        (["model.name=ptc", "stage=equivariance"], ["photo", "brightened", "stops seen", "mask"]),
    ],
)
def test_panels_of_each_stage_and_nothing_changes(pack, tmp_path, words, panels):
    one = config.load(None, ["preset=tiny", "model.width=0.1", *words])
    model = new_model(one, lambda _: None).eval()
    before, drawn = {key: value.clone() for key, value in model.state_dict().items()}, torch.get_rng_state()
    rows = pack.rows("train")[:3]
    written = strips.write(one, model, Feed(pack, pack.rows("train"), "cpu"), rows, tmp_path)
    assert [caption for caption, _ in written] == [f"{pack.names[row]}: {' | '.join(panels)}" for row in rows]
    for row, (_, path) in zip(rows, written, strict=True):
        shown = np.asarray(Image.open(path))
        assert shown.shape == (64, 64 * len(panels) + strips.GAP * (len(panels) - 1), 3)
        parts = {name: shown[:, i * (64 + strips.GAP) :][:, :64] for i, name in enumerate(panels)}
        known = {"composite": pack.composites, "real": pack.reals, "photo": pack.reals}
        for name in parts.keys() & known:
            assert (parts[name] == known[name][row]).all()
        assert (parts["mask"] == pack.masks[row][..., None]).all()
        object_ = pack.masks[row] == 255
        if "brightened" in parts:
            assert parts["brightened"][object_].mean() > pack.reals[row][object_].mean()
        if "darkened" in parts:
            assert parts["darkened"][object_].mean() < pack.reals[row][object_].mean()
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert torch.equal(drawn, torch.get_rng_state())


def test_the_same_few_photos_every_time():
    assert strips.chosen(np.arange(10, 110)).tolist() == [10, 43, 76, 109]
    assert strips.chosen(np.array([5, 7])).tolist() == [5, 7]
