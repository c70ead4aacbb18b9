"""What the detector learns: whose thresholds, which transforms, and that real data of every layout trains it."""

import numpy as np
import pytest
import torch
from packs import write_small_pack
from PIL import Image

from nrh_dist import config
from nrh_dist.data.feed import gather
from nrh_dist.data.pack import open_pack
from nrh_dist.engine import pretraining
from nrh_dist.engine.dist import Place
from nrh_dist.engine.run import find_pack, run, split_rows
from nrh_dist.engine.tasks import task_of
from nrh_dist.errors import UserError
from nrh_dist.schema import TRANSFORMS

TINY = ("preset=tiny", "model.width=0.1", "model.name=ptc", "data.val_fraction=0.3", "train.epochs=1")


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return write_small_pack(tmp_path_factory.mktemp("pretraining"), train=12)


def configured(stage, *words):
    return config.load(None, [*TINY, f"stage={stage}", *words])


def test_thresholds_are_those_of_the_sample_or_the_means(pack, tmp_path):
    (tmp_path / "t.csv").write_text(f"name,negative_gain,positive_gain\n{pack.names[3]},0.5,1.4142135624\n")
    found = pretraining.human_thresholds(configured("thresholds", f"data.thresholds={tmp_path / 't.csv'}"), pack)
    assert found[3] == pytest.approx([-1, 0.5])
    others = np.delete(found, 3, axis=0)
    assert (others == (-0.248, 0.227)).all()
    assert (pretraining.human_thresholds(configured("thresholds"), pack) == (-0.248, 0.227)).all()


def test_the_triplets_use_the_thresholds_of_their_rows(pack, tmp_path, monkeypatch):
    lines = [f"{name},{2 ** -(0.1 + 0.01 * i)},{2 ** (0.2 + 0.01 * i)}" for i, name in enumerate(pack.names)]
    (tmp_path / "t.csv").write_text("\n".join(["name,negative_gain,positive_gain", *lines]) + "\n")
    task = task_of(configured("thresholds", f"data.thresholds={tmp_path / 't.csv'}"), pack)
    seen = []

    def spy(photo, mask, draws, transforms, limit, thresholds):
        seen.append(thresholds)
        raise StopIteration

    monkeypatch.setattr(pretraining, "threshold_triplet", spy)
    with pytest.raises(StopIteration):
        task.losses(torch.nn.Identity(), gather(pack, np.array([7, 2]), "cpu"), 0)
    np.testing.assert_allclose(seen[0], [[-0.17, 0.27], [-0.12, 0.22]], rtol=1e-6)


def test_each_transform_has_its_share_and_its_map(pack):
    words = ("data.transforms=[exposure,contrast,saturation]", "data.transform_stops=1")
    one = configured("equivariance", *words)
    drawn = pretraining._drawn(one, 5, np.arange(3000))
    assert set(drawn) == {TRANSFORMS.index(name) for name in one.data.transforms}
    assert np.bincount(drawn)[np.unique(drawn)] == pytest.approx([1000] * 3, abs=100)
    assert (pretraining._drawn(one, 5, np.array([40, 7])) == drawn[[40, 7]]).all()
    assert (pretraining._drawn(one, 6, np.arange(3000)) != drawn).any()

    rows = np.arange(12)
    answered = {}

    def remember(photo, shifted):
        answered["maps"] = torch.zeros(len(photo), 3, 64, 64)
        answered["changed"] = ((photo - shifted).abs() > 1e-4).any(dim=1)
        return answered["maps"]

    batch = gather(pack, rows, "cpu")
    losses = task_of(one, pack).losses(remember, batch, 5)
    stops = 2 * pretraining.row_uniform(one.seed, 5, rows) - 1
    expected = (batch.mask**2).mean(dim=(1, 2, 3)).numpy() * stops**2 / 3  # of three maps, two are zero
    np.testing.assert_allclose(losses.numpy(), expected, rtol=1e-5)

    own = np.array([list(one.data.transforms).index(TRANSFORMS[number]) for number in pretraining._drawn(one, 5, rows)])

    def know(photo, shifted):
        maps = torch.zeros(len(photo), 3, 64, 64)
        maps[torch.arange(len(photo)), torch.from_numpy(own)] = (
            batch.mask[:, 0] * torch.from_numpy(stops).float()[:, None, None]
        )
        return maps

    assert task_of(one, pack).losses(know, batch, 5).max() < 1e-12, "the map of the transform that was drawn"
    assert not (answered["changed"] & (batch.mask[:, 0] == 0)).any()


def write_photos(root, count=14):
    random = np.random.default_rng(0)
    for number in range(count):
        photo = Image.fromarray(random.integers(60, 180, (4, 4, 3)).astype(np.uint8)).resize((64, 64))
        mask = np.zeros((64, 64), np.uint8)
        mask[10:40, 20:60] = 255 if number != 3 else 0
        for kind, image in (("images", photo), ("masks", Image.fromarray(mask))):
            (root / kind).mkdir(parents=True, exist_ok=True)
            image.save(root / kind / f"p{number}.png")
    return root


def test_both_stages_train_on_photos_and_masks(tmp_path):
    """The empty mask is left out and said; two transforms; the second stage starts from the first."""
    root = write_photos(tmp_path / "photos")
    words = (f"data.root={root}", f"run.root={tmp_path}", "data.transforms=[exposure,white_balance]")
    said = []
    for stage, more in (("equivariance", ()), ("thresholds", (f"model.detector_weights={tmp_path / 'equivariance'}",))):
        one = configured(stage, *words, f"run.name={stage}", *more)
        pack = open_pack(find_pack(one, said.append))
        train, val = split_rows(pack, one)
        tested = set(pack.rows("test"))
        assert not tested & {*train, *val} and (pack.area_fractions[[*train, *val]] > 0).all()
        config.run_dir(one).mkdir()
        row = run(one, pack.root, Place(), lambda _: None, said.append)
        assert np.isfinite(row["val/loss"])
    left_out = any("left out, whose mask is empty" in line for line in said)
    assert left_out == ("p3" in [pack.names[row] for row in pack.rows("train")])
    assert any("published means of human thresholds stand in" in line for line in said)


def test_photos_cannot_train_a_harmoniser(tmp_path):
    root = write_photos(tmp_path / "photos")
    with pytest.raises(UserError, match="photos without composites"):
        find_pack(config.load(None, ["preset=tiny", "model.name=dih_nm", f"data.root={root}"]), lambda _: None)
    for key in ("annotations", "thresholds"):
        with pytest.raises(UserError, match=rf"data\.{key}=x: data\.{key} is for nrh pretrain only"):
            config.load(None, ["model.name=dih_nm", f"data.{key}=x", "data.root=y"])
    with pytest.raises(UserError, match=r"needs data\.root"):
        configured("equivariance", "data.annotations=x")


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["equivariance", "thresholds"])
def test_at_the_papers_size_both_stages_start_and_step(tmp_path, stage):
    """256 px, full width: a few seconds a step on a CPU."""
    root = write_photos(tmp_path / "photos", count=12)
    words = (f"data.root={root}", f"run.root={tmp_path}", "run.name=full", "train.batch_size=2", "train.epochs=1")
    one = config.load(None, ["preset=paper", "model.name=ptc", f"stage={stage}", "data.val_fraction=0.7", *words])
    assert (one.data.size, one.model.width) == (256, 1.0)
    config.run_dir(one).mkdir()
    row = run(one, find_pack(one, lambda _: None), Place(), lambda _: None, lambda _: None)
    assert row["step"] >= 1 and np.isfinite(row["train/loss"])
