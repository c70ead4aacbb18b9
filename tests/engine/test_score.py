"""C_p and C_s of a two-stage checkpoint: which runs they are, and what they score."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from packs import write_small_pack

from nrh_dist import config
from nrh_dist.data.feed import gather
from nrh_dist.data.pack import Pack
from nrh_dist.engine import measures, score
from nrh_dist.engine.dist import Place
from nrh_dist.engine.run import run
from nrh_dist.models.ptc import Encoder
from nrh_dist.perceptual import Perceptual, weights_path


@pytest.fixture(scope="module")
def pack(tmp_path_factory) -> Pack:
    return write_small_pack(tmp_path_factory.mktemp("pack"))


def train(pack: Pack, root: Path, name: str, *words: str) -> Path:
    common = ["preset=tiny", "model.width=0.1", "train.epochs=1", "data.val_fraction=0.3", "track.wandb=disabled"]
    one = config.load(None, [*common, f"run.root={root}", f"run.name=my-{name}", f"model.name={name}", *words])
    config.run_dir(one).mkdir(parents=True)
    run(one, pack.root, Place(), lambda _: None, lambda _: None)
    return config.run_dir(one)


@pytest.fixture(scope="module")
def runs(pack, tmp_path_factory) -> dict[str, Path]:
    """A trained DIH-M, and a two-stage model with its weights behind a random detector."""
    root = tmp_path_factory.mktemp("runs")
    dih_m = train(pack, root, "dih_m")
    return {"dih_m": dih_m, "two_stage": train(pack, root, "two_stage", f"model.harmoniser_weights={dih_m}")}


def scorer(pack: Pack, words: list[Path]) -> score.Scorer:
    found = score.entries(list(map(str, words)))
    return score.Scorer(pack.root, found, lpips=False, peaks=False, device=torch.device("cpu"))


def scored(pack: Pack, words: list[Path]) -> np.ndarray:
    """N x entries x measures, of the test rows."""
    one = scorer(pack, words)
    return one.score(pack.rows("test")).reshape(len(pack.rows("test")), len(one.entries), -1)


def test_c_s_is_the_dih_m_whose_weights_the_two_stage_model_holds(pack, runs):
    found = scorer(pack, [runs["two_stage"], runs["dih_m"]])
    assert [entry.run for entry in found.entries] == ["identity", "my-two_stage", "my-two_stage-true-masks", "my-dih_m"]
    _, c_p, c_s, dih_m = np.moveaxis(scored(pack, [runs["two_stage"], runs["dih_m"]]), 1, 0)
    assert np.array_equal(c_s, dih_m, equal_nan=True)  # bit for bit
    assert (np.abs(c_p - c_s)[:, measures.NAMES.index("mse")] > 1e-3).all()


def test_c_s_takes_the_loaded_weights_of_c_p(pack, runs):
    found = scorer(pack, [runs["two_stage"]])
    assert found.predict[2].__self__ is found.predict[1]
    assert score.pairs(found.entries) == [("my-two_stage", "my-two_stage-true-masks")]


def test_strips_show_c_s_without_a_detector_mask(pack, runs):
    pictures = scorer(pack, [runs["two_stage"]]).render(int(pack.rows("test")[0]))
    outputs = pictures["outputs"]
    assert sorted(outputs) == ["my-two_stage", "my-two_stage-true-masks"] and [*pictures["masks"]] == ["my-two_stage"]
    assert not np.array_equal(outputs["my-two_stage"], outputs["my-two_stage-true-masks"])


def test_two_classes_are_shown_in_red_and_green(pack, runs):
    one = scorer(pack, [runs["two_stage"]])
    row = int(pack.rows("test")[0])
    mask = one.render(row)["masks"]["my-two_stage"]
    batch = gather(pack, np.array([row]), torch.device("cpu"))
    prediction = one.predict[1](batch.composite, batch.mask)
    assert mask.shape == (64, 64, 3) and not mask[..., 2].any() and mask[..., :2].any()
    assert np.abs(mask.max(axis=2) / 255 - prediction.mask[0, 0].detach().numpy()).max() < 0.06  # classes are enlarged


def test_an_encoder_that_models_have_in_common_runs_once_and_changes_nothing(pack, tmp_path, monkeypatch):
    detector = train(pack, tmp_path, "ptc", "stage=thresholds", "train.batch_size=2")
    given = f"model.detector_weights={detector}"
    folders = [train(pack, tmp_path, name, given) for name in ("ptc_dih", "ptc_att_dih", "gated", "two_stage")]
    counted = []
    forward = Encoder.forward
    monkeypatch.setattr(Encoder, "forward", lambda self, image: counted.append(1) or forward(self, image))
    together = scored(pack, folders)
    assert len(counted) == 1
    alone = [scored(pack, [folder])[:, 1:] for folder in folders]
    assert len(counted) == 5
    assert np.array_equal(together[:, 1:], np.concatenate(alone, axis=1), equal_nan=True)  # bit for bit
    other = train(pack, tmp_path, "ptc_dih", given, "run.name=other", "model.freeze=none", "optim.lr=0.1")
    counted.clear()
    scored(pack, [folders[0], other])
    assert len(counted) == 2, "an encoder that has learned is another one"


def test_lpips_is_in_its_column_and_the_real_images_are_looked_at_once(pack, runs, tmp_path, monkeypatch):
    """With a backbone of random weights where torch keeps AlexNet's."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = weights_path()
    path.parent.mkdir(parents=True)
    torch.manual_seed(3)
    torch.save(torchvision.models.AlexNet().features.state_dict(prefix="features."), path)
    found = score.entries([str(folder) for folder in runs.values()])[:3]  # identity, DIH-M and C_p
    one = score.Scorer(pack.root, found, lpips=True, peaks=False, device=torch.device("cpu"))
    looked = []
    features = Perceptual.features
    monkeypatch.setattr(Perceptual, "features", lambda self, image: looked.append(image) or features(self, image))
    rows = pack.rows("test")
    values = one.score(rows).reshape(len(rows), len(found), -1)[:, :, measures.NAMES.index("lpips")]
    assert len(looked) == 1 + len(found)
    monkeypatch.undo()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    batch, judge = gather(pack, rows, torch.device("cpu")), Perceptual()
    assert torch.equal(looked[0], batch.real)
    with torch.no_grad():
        outputs = [batch.composite, *(predict(batch.composite, batch.mask).image for predict in one.predict[1:])]
    for number, output in enumerate(outputs):
        assert values[:, number] == pytest.approx(judge.lpips(output.clamp(-1, 1), batch.real).flatten().numpy())
    assert (values > 0).all() and len(np.unique(values)) == values.size


def test_run_names_stay_apart_and_tell_whose_masks_they_are(runs, tmp_path):
    """Also where a run of the user already has the name that C_s would take."""
    taken = shutil.copytree(runs["dih_m"], tmp_path / "my-two_stage-true-masks")
    found = score.entries([str(word) for word in (taken, runs["two_stage"], runs["two_stage"])])
    assert [(entry.run, entry.model) for entry in found[1:]] == [
        ("my-two_stage-true-masks", "dih_m"),
        ("my-two_stage-2", "two_stage"),
        ("my-two_stage-2-true-masks", "dih_m"),
        ("my-two_stage-3", "two_stage"),
        ("my-two_stage-3-true-masks", "dih_m"),
    ]
    after = score.entries([str(word) for word in (runs["two_stage"], taken)])
    assert [entry.run for entry in after[2:]] == ["my-two_stage-true-masks", "my-two_stage-true-masks-2"]


def test_a_pasted_background_is_that_of_the_input(pack, runs):
    found = score.entries([str(runs["dih_m"])], paste=True)
    assert [entry.run for entry in found] == ["identity", "my-dih_m", "my-dih_m-pasted"]
    one = score.Scorer(pack.root, found, lpips=False, peaks=False, device=torch.device("cpu"))
    batch = gather(pack, pack.rows("test"), torch.device("cpu"))
    with torch.no_grad():
        whole, pasted = (predict(batch.composite, batch.mask).image for predict in one.predict[1:])
    inside = batch.mask.expand_as(whole)
    assert torch.equal(pasted[inside == 0], batch.composite[inside == 0])
    torch.testing.assert_close(pasted[inside == 1], whole[inside == 1])
    assert not torch.equal(whole[inside == 0], batch.composite[inside == 0])
