"""C_p and C_s of a two-stage checkpoint: which runs they are, and what they score."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from packs import write_small_pack

from nrh_dist import config
from nrh_dist.data.pack import Pack
from nrh_dist.engine import score
from nrh_dist.engine.dist import Place
from nrh_dist.engine.run import run


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
    return score.Scorer(pack.root, score.entries(list(map(str, words))), lpips=False, device=torch.device("cpu"))


def test_c_s_is_the_dih_m_whose_weights_the_two_stage_model_holds(pack, runs):
    found = scorer(pack, [runs["two_stage"], runs["dih_m"]])
    rows = found.score(pack.rows("test"))
    assert [entry.run for entry in found.entries] == ["identity", "my-two_stage", "my-two_stage-true-masks", "my-dih_m"]
    for c_p, c_s, dih_m in zip(*rows[1:], strict=True):
        assert {**c_s, "run": "my-dih_m"} == dih_m  # bit for bit
        assert abs(c_p["mse"] - c_s["mse"]) > 1e-3


def test_c_s_takes_the_loaded_weights_of_c_p(pack, runs):
    found = scorer(pack, [runs["two_stage"]])
    assert found.predict[2].__self__ is found.predict[1]
    assert score.pairs(found.entries) == [("my-two_stage", "my-two_stage-true-masks")]


def test_strips_show_c_s_without_a_detector_mask(pack, runs):
    pictures = scorer(pack, [runs["two_stage"]]).render(int(pack.rows("test")[0]))
    assert sorted(pictures) == ["my-two_stage", "my-two_stage-mask", "my-two_stage-true-masks"]
    assert not np.array_equal(pictures["my-two_stage"], pictures["my-two_stage-true-masks"])


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
