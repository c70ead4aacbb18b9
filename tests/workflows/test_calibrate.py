import numpy as np
import pytest
import torch
from packs import write_small_pack
from scipy.stats import binomtest

from nrh_dist import config
from nrh_dist.engine import checkpoint
from nrh_dist.engine.assemble import trained_model
from nrh_dist.engine.dist import Place
from nrh_dist.engine.run import run
from nrh_dist.engine.scan import Scan
from nrh_dist.errors import UserError
from nrh_dist.workflows.calibrate import LEAST_CHANGES, STRENGTHS, THRESHOLDS, calibrate, choose, described, least_bound

PHOTOS = 400


def scanned(worse: dict[float, float]) -> Scan:
    """400 photos of MSE 100. A threshold halves it for most, and doubles it for its share in ``worse``.

    All that it touches change by 50.
    """
    strengths = (0.0, 1.0)
    mse = np.full((len(worse), 2, PHOTOS), 100.0)
    opened = np.zeros((len(worse), PHOTOS), bool)
    change = np.zeros((len(worse), PHOTOS))
    for place, (threshold, share) in enumerate(worse.items()):
        touched = int(PHOTOS * (1 - threshold))
        mse[place, 1, :touched] = 50
        mse[place, 1, : int(PHOTOS * share)] = 200
        opened[place, :touched] = True
        change[place, :touched] = 50
    return Scan(tuple(worse), strengths, mse, np.full(PHOTOS, 100.0), opened, change)


def test_the_best_of_those_that_rarely_do_harm():
    found = scanned({0.0: 0.1, 0.4: 0.02, 0.8: 0.0})
    chosen = choose(found, np.arange(PHOTOS), 0.05)
    assert (chosen.threshold, chosen.strength, chosen.identity_mse) == (0.4, 1.0, 100.0)
    assert chosen.mse == pytest.approx(found.mse[1, 1].mean()) and chosen.changed == pytest.approx(0.6)
    assert chosen.worse1.value == pytest.approx(0.02) and chosen.worse1.bounds[1] <= 0.05
    assert choose(found, np.arange(PHOTOS), 0.5).threshold == 0.0
    assert "Gate threshold 0.4" in described(chosen, PHOTOS, 0.05)


def test_small_changes_are_left_out_where_they_do_the_harm():
    found = scanned({0.0: 0.1})
    found.change[0, :60] = 10  # all that are made worse, and 20 others
    chosen = choose(found, np.arange(PHOTOS), 0.05)
    assert (chosen.strength, chosen.worse1.value, chosen.changed) == (1.0, 0, pytest.approx(340 / PHOTOS))
    assert 10 < chosen.least_change <= 50 and chosen.mse == pytest.approx((60 * 100 + 340 * 50) / PHOTOS)
    assert f"least change {chosen.least_change:g} MSE" in described(chosen, PHOTOS, 0.05)


def test_the_upper_bound_counts_and_not_the_share():
    """4.5 % of 400 photos may well be 6 %."""
    assert choose(scanned({0.0: 0.045, 0.8: 0.0}), np.arange(PHOTOS), 0.05).threshold == 0.8


def test_composites_of_one_photo_count_as_one():
    found = scanned({0.0: 0.03, 0.8: 0.0})
    assert choose(found, np.arange(PHOTOS), 0.05).threshold == 0.0
    assert choose(found, np.arange(PHOTOS) // 5, 0.05).threshold == 0.8


def test_no_harm_in_few_photos_shows_little():
    """None of 60 may well be 6 % of all, none of 80 hardly 5 %."""
    found = scanned({0.0: 0.0})
    assert choose(found, np.arange(PHOTOS) // 5, 0.05).strength == 1.0
    chosen = choose(found, np.arange(PHOTOS) % 60, 0.05)
    assert chosen.strength == 0.0 and "in 60 photos is 6.0 %" in described(chosen, PHOTOS, 0.05)
    assert least_bound(60) == pytest.approx(binomtest(0, 60).proportion_ci(0.95, "exact").high)


def test_what_is_not_finite_is_harm():
    found = scanned({0.0: 0.0})
    found.mse[0, 1, :60] = np.nan
    assert choose(found, np.arange(PHOTOS), 0.05).strength == 0.0


def test_where_all_does_harm_it_does_nothing():
    chosen = choose(scanned({0.0: 0.5, 0.4: 0.3}), np.arange(PHOTOS), 0.05)
    assert (chosen.strength, chosen.mse) == (0.0, 100.0)
    assert "set to do nothing" in described(chosen, PHOTOS, 0.05)


def test_few_photos_decide_nothing():
    with pytest.raises(UserError, match="9 validation photos are too few"):
        choose(scanned({0.0: 0.0}), np.arange(PHOTOS) % 9, 0.05)


def trained(folder, pack, name, *words):
    common = ["preset=tiny", "model.width=0.1", "train.epochs=1", "data.val_fraction=0.5", "track.wandb=disabled"]
    common += [f"model.name={name}", f"data.pack={pack.root}", f"run.root={folder}", "run.name=one"]
    one = config.load(None, [*common, *words])
    config.run_dir(one).mkdir(parents=True)
    run(one, pack.root, Place(), lambda _: None, lambda _: None)
    return config.run_dir(one)


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return write_small_pack(tmp_path_factory.mktemp("pack"), train=60)


def test_what_was_chosen_is_written_with_the_weights(pack, tmp_path):
    folder, said = trained(tmp_path, pack, "gated"), []
    out = calibrate(str(folder), tmp_path / "calibrated", said.append)
    model, meta = trained_model(out)
    keys = ("gate_threshold", "correction_strength", "least_change")
    assert [getattr(model, key) for key in keys] == [meta["model"][key] for key in keys]
    assert model.gate_threshold in THRESHOLDS and model.correction_strength in STRENGTHS
    assert model.least_change in LEAST_CHANGES
    assert (
        checkpoint.fault(out) is None and config.load(out / "config.yaml").model.gate_threshold == model.gate_threshold
    )
    text = (out / "README.md").read_text()
    assert meta["calibration"] in text and meta["calibration"] in said
    weights = checkpoint.read_weights(checkpoint.newest(folder).path)
    assert all(torch.equal(value, weights[key]) for key, value in checkpoint.read_weights(out).items())
    said.clear()
    with pytest.raises(UserError, match="exists"):
        calibrate(str(folder), tmp_path / "calibrated", said.append)
    assert not said, "before anything is scanned"


@pytest.mark.parametrize(
    ("name", "words", "expected"),
    [("dih_nm", (), "a dih_nm"), ("gated", ("model.gate=false",), "gated without a gate")],
)
def test_what_has_no_gate_is_refused(pack, tmp_path, name, words, expected):
    with pytest.raises(UserError, match=expected):
        calibrate(str(trained(tmp_path, pack, name, *words)), tmp_path / "out", lambda _: None)
