import numpy as np
import pytest
import torch
from packs import write_small_pack

from nrh_dist import config
from nrh_dist.data.feed import gather
from nrh_dist.engine.assemble import new_model, part_checkpoints, trained_model
from nrh_dist.engine.dist import Place
from nrh_dist.engine.draws import row_uniform
from nrh_dist.engine.run import run
from nrh_dist.engine.tasks import Harmonisation, task_of
from nrh_dist.errors import UserError

TINY = ("preset=tiny", "model.width=0.1", "data.val_fraction=0.3", "train.batch_size=4", "train.epochs=1")


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return write_small_pack(tmp_path_factory.mktemp("tasks"), train=12)


def configured(folder, *words):
    return config.load(None, [*TINY, f"run.root={folder}", *words])


def trained(folder, pack, *words):
    one = configured(folder, *words)
    config.run_dir(one).mkdir(parents=True)
    run(one, pack.root, Place(), lambda _: None, lambda _: None)
    return config.run_dir(one)


def test_draws_are_uniform_and_a_function_of_all_their_parts():
    rows = np.arange(20_000)
    drawn = row_uniform(0, 0, rows)
    assert drawn.min() >= 0 and drawn.max() < 1
    assert abs(drawn.mean() - 0.5) < 0.01 and abs(drawn.var() - 1 / 12) < 0.002
    assert (np.histogram(drawn, 10, (0, 1))[0] / 2000).round(1).tolist() == pytest.approx([1.0] * 10, abs=0.11)
    for other in (
        row_uniform(1, 0, rows),
        row_uniform(0, 1, rows),
        row_uniform(0, -1, rows),
        row_uniform(0, 0, rows, 1),
    ):
        assert abs(np.corrcoef(drawn, other)[0, 1]) < 0.03
    assert (row_uniform(0, 0, rows[::-1][5:9]) == drawn[::-1][5:9]).all()


def test_clean_samples_show_the_real_photo_with_an_empty_mask(pack):
    task = Harmonisation(configured("x", "data.clean_fraction=0.5"))
    batch = gather(pack, np.arange(12), "cpu")
    shown = task._with_clean(batch, epoch=3)
    clean = row_uniform(0, 3, batch.rows) < 0.5
    assert 0 < clean.sum() < 12
    for number, is_clean in enumerate(clean):
        expected = batch.real if is_clean else batch.composite
        assert torch.equal(shown.composite[number], expected[number])
        assert torch.equal(shown.mask[number], torch.zeros_like(batch.mask[number]) if is_clean else batch.mask[number])
    assert torch.equal(shown.real, batch.real)


@pytest.mark.parametrize(
    "words", [("stage=equivariance",), ("stage=thresholds",), ("stage=thresholds", "loss.object_share=0.5")]
)
def test_pretraining_losses_do_not_depend_on_the_batch(pack, words):
    one = configured("x", "model.name=ptc", *words)
    model, task = new_model(one, lambda _: None).eval(), task_of(one, pack)
    whole = task.evaluate(model, gather(pack, np.arange(5), "cpu"))
    assert set(whole) == set(task.metrics)
    for rows in ([0, 1], [2, 3, 4], [4]):
        part = task.evaluate(model, gather(pack, np.array(rows), "cpu"))
        for name in task.metrics:
            torch.testing.assert_close(part[name], whole[name][rows], rtol=1e-4, atol=1e-6)
    assert len(task.losses(model, gather(pack, np.array([], dtype=int), "cpu"), 0)) == 0


def test_the_detectors_way_into_the_harmonisers(tmp_path, pack):
    """Equivariance, then thresholds from its weights, then harmonisers from that; other checkpoints are refused."""
    first = trained(tmp_path, pack, "model.name=ptc", "stage=equivariance", "run.name=first")
    words = ("model.name=ptc", "stage=thresholds", "run.name=second", f"model.detector_weights={first}")
    second = trained(tmp_path, pack, *words)
    detector, meta = trained_model(
        part_checkpoints(configured(tmp_path, f"model.detector_weights={second}"))["detector"]
    )
    assert meta["stage"] == "thresholds"
    for name in ("ptc_dih", "ptc_att_dih", "gated"):
        model = new_model(configured(tmp_path, f"model.name={name}", f"model.detector_weights={second}"), print)
        for key, value in detector.encoder.state_dict().items():
            assert torch.equal(model.detector.encoder.state_dict()[key], value), key

    harmoniser = trained(tmp_path, pack, "model.name=dih_m", "run.name=dih_m")
    both = (f"model.detector_weights={second}", f"model.harmoniser_weights={harmoniser}")
    said = []
    new_model(configured(tmp_path, "model.name=two_stage", *both), said.append)
    assert said == []
    residual = trained(tmp_path, pack, "model.name=dih_m", "model.residual=true", "run.name=residual")
    for words, reason in (
        ((f"model.harmoniser_weights={residual}",), r"has model\.residual=true and gives differences"),
        ((*both, "model.name=two_stage", "model.batchnorm_eps=1e-3"), r"batchnorm_eps=1e-05, this run has 0\.001"),
        ((f"model.detector_weights={harmoniser}",), "is a dih_m checkpoint: ptc_dih takes a ptc there"),
        ((f"model.detector_weights={second}", "model.width=0.2"), r"has model\.width=0\.1, this run has 0\.2"),
        (("model.detector_weights=none",), "model.detector_weights=none: no checkpoint, run or sweep folder at none"),
        ((f"model.detector_weights={first}", "model.name=two_stage"), "two_stage takes stage=thresholds"),
        ((f"model.harmoniser_weights={harmoniser}", "data.size=128"), r"data\.size=64, this run has 128"),
        ((f"model.harmoniser_weights={harmoniser}", "model.dih_variant=outer"), r"model\.dih_variant=inner, not outer"),
    ):
        with pytest.raises(UserError, match=reason):
            part_checkpoints(configured(tmp_path, *words))


def test_random_parts_are_said(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for words, expected in (
        (("model.name=ptc_dih",), "that of ptc_dih starts without"),
        (("model.name=two_stage",), "harmoniser of two_stage has random"),
        (("model.name=ptc", "stage=equivariance"), "no VGG16 file at"),
    ):
        said = []
        new_model(configured(tmp_path, *words), said.append)
        assert any(expected in line for line in said)


def test_vgg_weights_start_the_encoder_at_full_width_only(tmp_path):
    import torchvision

    state = torchvision.models.vgg16(weights=None).state_dict()
    path = tmp_path / "vgg.pth"
    torch.save({key: value for key, value in state.items() if key.startswith("features.")}, path)
    words = ("model.name=ptc", "stage=equivariance", f"model.vgg_weights={path}")
    said = []
    model = new_model(configured(tmp_path, *words, "model.width=1"), said.append)
    assert torch.equal(model.detector.encoder.vgg[0].weight, state["features.0.weight"])
    assert "starts from the VGG16 weights" in said[0]
    with pytest.raises(UserError, match=r"fit model\.width=1\.0 only"):
        part_checkpoints(configured(tmp_path, *words))
    with pytest.raises(UserError, match="no such file"):
        part_checkpoints(configured(tmp_path, *words[:2], "model.width=1", "model.vgg_weights=none"))
    path.write_bytes(b"junk")
    with pytest.raises(UserError, match="not a readable weights file"):
        new_model(configured(tmp_path, *words, "model.width=1"), print)
